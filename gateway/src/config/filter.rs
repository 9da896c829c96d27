//! Filters: which rows a database is to get, by measurement, device and tags.

use super::port_pattern::matches;
use super::section::Section;
use crate::record::split_series;

/// Most patterns in one filter.
const PATTERNS_MAX: usize = 256;

/// Which rows a sink is to get. What is left out matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Patterns for the measurement, one of which has to match.
    measurement: Vec<String>,
    /// The same for the value of each of these tags, `device` among them; a row without the tag does not match.
    tags: Vec<(String, Vec<String>)>,
}

impl Filter {
    /// Whether rows of a series, by its canonical key, match.
    #[must_use]
    pub fn wants_row(&self, series: &str) -> bool {
        if self.measurement.is_empty() && self.tags.is_empty() {
            return true;
        }
        let (measurement, tags) = split_series(series);
        let value = |name: &str| tags.iter().find(|(tag, _)| tag == name).map_or("", |(_, value)| value);
        matches_one(&self.measurement, &measurement)
            && self.tags.iter().all(|(name, patterns)| matches_one(patterns, value(name)))
    }

    /// Whether a gap of a series matches: it has the tag `device` of the rows that it tells of, and none of the others.
    #[must_use]
    pub fn wants_gap(&self, series: &str) -> bool {
        let device = self.tags.iter().filter(|(name, _)| name == "device");
        let of_device = Filter { measurement: Vec::new(), tags: device.cloned().collect() };
        of_device.wants_row(series)
    }
}

/// Whether a text is what one of the patterns stands for; no pattern stands for everything.
fn matches_one(patterns: &[String], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, text))
}

/// Reads `match` of a database: lists of patterns by `measurement`, `device` and the names of other tags.
pub(super) fn read(database: &mut Section<'_>) -> Filter {
    let Some(section) = database.table("match") else { return Filter::default() };
    let mut filter = Filter::default();
    for (name, patterns) in section.named_lists() {
        if patterns.is_empty() || patterns.contains(&"") {
            section.fault(name, "matches nothing; write patterns such as [\"climate\", \"power_*\"]");
        } else if patterns.len() > PATTERNS_MAX {
            section.fault(
                name,
                format!("has {} patterns; at most {PATTERNS_MAX} are supported", patterns.len()),
            );
        }
        let patterns = patterns.into_iter().map(str::to_owned).collect();
        match name {
            "measurement" => filter.measurement = patterns,
            tag => filter.tags.push((tag.to_owned(), patterns)),
        }
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(measurement: &[&str], tags: &[(&str, &[&str])]) -> Filter {
        let owned = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let tags = tags.iter().map(|(name, patterns)| ((*name).to_owned(), owned(patterns)));
        Filter { measurement: owned(measurement), tags: tags.collect() }
    }

    #[test]
    fn a_row_matches_in_everything_that_is_asked_of_it() {
        let row = r"my\ climate,device=boiler-2,room=cellar\,left";
        assert!(Filter::default().wants_row(row));
        for (measurement, tags, wanted) in [
            (&["my climate"][..], &[][..], true),
            (&["power", "my*"], &[], true),
            (&["climate"], &[], false),
            (&[], &[("device", &["boiler-?"][..])], true),
            (&[], &[("device", &["boiler"][..])], false),
            (&["my*"], &[("room", &["cellar,*"][..]), ("device", &["*"])], true),
            (&["my*"], &[("room", &["attic"][..]), ("device", &["*"])], false),
            (&[], &[("site", &["?*"][..])], false),
        ] {
            let filter = filter(measurement, tags);
            assert_eq!(filter.wants_row(row), wanted, "{filter:?}");
        }
    }

    #[test]
    fn gaps_go_by_their_device_alone() {
        let gap = "forebay_gap,cause=evicted,device=boiler";
        assert!(filter(&["climate"], &[("room", &["cellar"])]).wants_gap(gap));
        assert!(filter(&["climate"], &[("device", &["b*"])]).wants_gap(gap));
        assert!(!filter(&["forebay_gap"], &[("device", &["a*"])]).wants_gap(gap));
    }
}
