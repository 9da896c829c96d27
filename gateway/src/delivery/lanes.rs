//! Lanes: which points of a batch are of a class that the database has refused, and so go by themselves.
//!
//! Operation: when a request is refused, the server names the reason of the first offender. From its words comes a class:
//! a field of a measurement with a type that the database has otherwise, or everything up to a time that is beyond the
//! retention. The points of that class are *suspects*: they are sent behind all others, in a request of their own. If the
//! server then refuses each of them, that is one request, however many they are.
//!
//! Constraints: being a suspect costs a point its place in the queue and nothing else; whether it is stored decides the
//! database alone, each time. What is known is bounded; what was not met for the longest time is forgotten first, and a
//! class of which the database takes a point, at once: somebody has mended the cause.

use std::borrow::Cow;
use std::collections::VecDeque;

use jiff::Timestamp;

use crate::record::split_series;
use crate::sink::field_type::FieldType;
use crate::sink::{Part, Point, answer};

/// Most classes that are known at a time, each of which costs a batch a request.
const CLASSES_MAX: usize = 16;

/// Points that are refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Class {
    /// Those of a measurement that have a field of a type.
    Field { measurement: String, field: String, kind: FieldType },
    /// Those that are not later than this, in nanoseconds since 1970.
    UpTo(i64),
}

/// The classes that a database is known to refuse.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// What was met last comes last.
    classes: VecDeque<Class>,
}

impl Lanes {
    /// The lanes of points that come in this order, by number: first what nothing is known of, then each class.
    pub(super) fn of<'a>(&self, count: usize, points: impl Iterator<Item = Point<'a>>) -> Vec<Vec<usize>> {
        if self.classes.is_empty() {
            return vec![(0..count).collect()];
        }
        let mut lanes = vec![Vec::new(); 1 + self.classes.len()];
        for (number, point) in points.enumerate() {
            let class = self.classes.iter().position(|class| class.has(&point));
            lanes[class.map_or(0, |class| 1 + class)].push(number);
        }
        lanes
    }

    /// Learns what a server said when it refused points of a part; which of them it accuses, by number within the part.
    pub(super) fn accuse(&mut self, reason: &str, part: &Part<'_>) -> Vec<usize> {
        let Some(class) = conflict(reason).or_else(|| expired(reason, part)) else { return Vec::new() };
        let suspects = part.points().enumerate().filter(|(_, point)| class.has(point));
        let suspects = suspects.map(|(number, _)| number).collect();
        // One bound for the retention, the latest one, since that moves on all the time.
        let is_old =
            |known: &Class| *known == class || matches!((known, &class), (Class::UpTo(_), Class::UpTo(_)));
        self.classes.retain(|known| !is_old(known));
        if self.classes.len() >= CLASSES_MAX {
            self.classes.pop_front();
        }
        self.classes.push_back(class);
        suspects
    }

    /// The database has taken a part: what was known against its points is true no more.
    pub(super) fn acquit(&mut self, part: &Part<'_>) {
        if let Some(first) = part.points().next() {
            self.classes.retain(|class| !class.has(&first));
        }
    }
}

impl Class {
    fn has(&self, point: &Point<'_>) -> bool {
        match self {
            Class::UpTo(ns) => point.ns <= *ns,
            Class::Field { measurement, field, kind } => {
                measurement_of(point) == measurement.as_str()
                    && point.fields().any(|(name, value)| name == field && kind.is_of(value))
            }
        }
    }
}

fn measurement_of<'a>(point: &Point<'a>) -> Cow<'a, str> {
    split_series(point.series).0
}

/// `field type conflict: input field "v" on measurement "m" is type integer, already exists as type float`.
fn conflict(reason: &str) -> Option<Class> {
    let (_, rest) = reason.split_once("field type conflict: input field \"")?;
    let (field, rest) = rest.split_once("\" on measurement \"")?;
    let (measurement, rest) = rest.split_once("\" is type ")?;
    let (kind, _) = rest.split_once(", already exists as type ")?;
    let (field, measurement) = (field.to_owned(), measurement.to_owned());
    Some(Class::Field { measurement, field, kind: FieldType::named(kind)? })
}

/// `points beyond retention policy dropped=3`: the three oldest ones; or `… because it violates a Retention Policy Lower
/// Bound at 2026-01-01T00:00:00Z`: all that are older.
fn expired(reason: &str, part: &Part<'_>) -> Option<Class> {
    const BOUND: &str = "Retention Policy Lower Bound at ";
    if let Some((_, bound)) = reason.split_once(BOUND) {
        let time = bound.split([',', ' ']).next()?.parse::<Timestamp>().ok()?;
        return i64::try_from(time.as_nanosecond()).ok()?.checked_sub(1).map(Class::UpTo);
    }
    if !reason.contains("beyond retention policy") {
        return None;
    }
    let (_, count) = answer::dropped(reason)?;
    let mut times: Vec<i64> = part.points().map(|point| point.ns).collect();
    times.sort_unstable();
    times.get(count.checked_sub(1)?).copied().map(Class::UpTo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Value;
    use crate::sink::batch::OwnPoint;

    fn points() -> Vec<OwnPoint> {
        let point = |series: &str, ns, name: &str, value| OwnPoint {
            series: series.to_owned(),
            ns,
            fields: vec![(name.to_owned(), value)],
            device: None,
        };
        vec![
            point("m,device=a", 30, "v", Value::Float(1.0)),
            point(r"my\ m,device=a", 10, "v", Value::Integer(1)),
            point(r"my\ m,device=b", 20, "v", Value::Text("x".into())),
            point(r"my\ m,device=a", 40, "w", Value::Integer(1)),
            point(r"my\ m,device=c", 50, "v", Value::Unsigned(1)),
        ]
    }

    fn lanes_of(lanes: &Lanes, points: &[OwnPoint]) -> Vec<Vec<usize>> {
        lanes.of(points.len(), Part::of_points(points, crate::record::Offset(0)).points())
    }

    #[test]
    fn what_a_type_conflict_names_goes_by_itself_until_the_database_takes_it() {
        let points = points();
        let part = Part::of_points(&points, crate::record::Offset(0));
        let mut lanes = Lanes::default();
        assert_eq!(lanes_of(&lanes, &points), [[0, 1, 2, 3, 4]]);
        let reason = "422: partial write: field type conflict: input field \"v\" on measurement \"my m\" is type integer, \
                      already exists as type float dropped=2";
        assert_eq!(lanes.accuse(reason, &part), [1, 4]);
        assert_eq!(lanes_of(&lanes, &points), [vec![0, 2, 3], vec![1, 4]]);
        let text = reason.replace("is type integer", "is type string");
        assert_eq!(lanes.accuse(&text, &part), [2]);
        assert_eq!(lanes_of(&lanes, &points), [vec![0, 3], vec![1, 4], vec![2]]);
        lanes.acquit(&Part::of_points(&points[1..2], crate::record::Offset(0)));
        assert_eq!(lanes_of(&lanes, &points), [vec![0, 1, 3, 4], vec![2]]);
        lanes.acquit(&Part::of_points(&points[..1], crate::record::Offset(0)));
        assert_eq!(lanes_of(&lanes, &points).len(), 2, "nothing was known against it");
    }

    #[test]
    fn what_is_beyond_the_retention_is_the_oldest() {
        let points = points();
        let part = Part::of_points(&points, crate::record::Offset(0));
        let mut lanes = Lanes::default();
        assert_eq!(
            lanes.accuse("400: partial write: points beyond retention policy dropped=2", &part),
            [1, 2]
        );
        assert_eq!(lanes_of(&lanes, &points), [vec![0, 3, 4], vec![1, 2]]);
        assert_eq!(
            lanes.accuse("400: partial write: points beyond retention policy dropped=9", &part),
            [0; 0]
        );
        let named = "422: partial write: dropped 3 points outside retention policy of duration 1h0m0s - oldest point m,device=a at \
                     1970-01-01T00:00:00.00000001Z dropped because it violates a Retention Policy Lower Bound at \
                     1970-01-01T00:00:00.00000004Z, newest point x dropped=3";
        assert_eq!(lanes.accuse(named, &part), [0, 1, 2]);
        assert_eq!(lanes_of(&lanes, &points), [vec![3, 4], vec![0, 1, 2]], "one bound, the latest");
    }

    #[test]
    fn words_that_name_no_class_accuse_nobody() {
        let points = points();
        let part = Part::of_points(&points, crate::record::Offset(0));
        let mut lanes = Lanes::default();
        for reason in [
            "400: unable to parse 'm v=': missing field value",
            "field type conflict: input field \"v\" on measurement \"m\" is type complex, already exists as type float",
            "field type conflict: input field \"v\"",
            "Retention Policy Lower Bound at noon",
            "",
        ] {
            assert_eq!(lanes.accuse(reason, &part), [0; 0], "{reason}");
        }
        assert!(lanes.classes.is_empty());
    }

    #[test]
    fn only_so_many_classes_are_known_and_the_oldest_goes() {
        let points = points();
        let part = Part::of_points(&points, crate::record::Offset(0));
        let mut lanes = Lanes::default();
        for n in 0..100 {
            let reason = format!(
                "field type conflict: input field \"f{n}\" on measurement \"m\" is type float, already exists as type string"
            );
            lanes.accuse(&reason, &part);
        }
        let fields = lanes.classes.iter().map(|class| match class {
            Class::Field { field, .. } => field.clone(),
            Class::UpTo(_) => String::new(),
        });
        assert_eq!(fields.collect::<Vec<_>>(), (84..100).map(|n| format!("f{n}")).collect::<Vec<_>>());
    }
}
