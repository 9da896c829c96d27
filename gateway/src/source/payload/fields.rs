//! The fields of a row as they are stored: which are left out, which get another name, and that none is there twice.
//!
//! A store keeps one of two fields of one name, and nobody knows which; so such a row is refused. It happens where
//! names are joined, `{"a_b":1,"a":{"b":2}}`, and where two are renamed to one.

use std::collections::HashSet;

use crate::config::Layout;
use crate::record::{Value, check_name};

/// Up to so many fields are compared one by one; more of them are hashed.
const FEW: usize = 32;

/// Leaves out and renames what the layout says, and looks at the names. Nothing may be left.
///
/// # Errors
/// Names the field that cannot be stored.
pub(super) fn settle(layout: &Layout, fields: &mut Vec<(String, Value)>) -> Result<(), String> {
    if !layout.drop.is_empty() {
        fields.retain(|(name, _)| !layout.drop.contains(name));
    }
    if !layout.rename.is_empty() {
        for (name, _) in fields.iter_mut() {
            if let Some(new) = layout.rename.get(name) {
                name.clone_from(new);
            }
        }
    }
    for (name, _) in fields.iter() {
        if name.is_empty() {
            return Err("a field has an empty name".to_owned());
        }
        check_name("field", name).map_err(|e| e.to_string())?;
        if is_ambiguous(name) {
            let what =
                "has a backslash before a comma, a space or an equals sign, which line protocol cannot carry";
            return Err(format!("the field {name:?} {what}"));
        }
    }
    match repeated(fields) {
        Some(name) => {
            let cure = "two names are joined to it or renamed to it; use `drop` or `rename` for one of them";
            Err(format!("the field {name:?} is there twice: {cure}"))
        }
        None => Ok(()),
    }
}

/// Databases take a backslash and what follows it for one, so that the escaped separator behind would end the name.
fn is_ambiguous(name: &str) -> bool {
    name.contains('\\') && name.as_bytes().windows(2).any(|pair| matches!(pair, [b'\\', b',' | b' ' | b'=']))
}

fn repeated(fields: &[(String, Value)]) -> Option<&str> {
    // Members of one JSON object come in the order of their names.
    if fields.windows(2).all(|pair| pair[0].0 < pair[1].0) {
        return None;
    }
    if fields.len() <= FEW {
        let twice = |(at, (name, _)): (usize, &(String, Value))| fields[..at].iter().any(|(n, _)| n == name);
        return fields
            .iter()
            .enumerate()
            .find(|&(at, field)| twice((at, field)))
            .map(|(_, (n, _))| n.as_str());
    }
    let mut seen = HashSet::with_capacity(fields.len());
    fields.iter().map(|(name, _)| name.as_str()).find(|name| !seen.insert(*name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Format;

    fn settled(drop: &[&str], rename: &[(&str, &str)], names: &[&str]) -> Result<Vec<String>, String> {
        let mut layout = Layout::of(Format::Json);
        layout.drop = drop.iter().map(|name| (*name).to_owned()).collect();
        layout.rename = rename.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect();
        let mut fields = names.iter().map(|name| ((*name).to_owned(), Value::Boolean(true))).collect();
        settle(&layout, &mut fields)?;
        Ok(fields.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn fields_are_left_out_and_renamed_by_the_names_they_came_with() {
        let kept = settled(&["b"], &[("a", "b"), ("c", "a")], &["c", "b", "a", "d"]);
        assert_eq!(kept.unwrap(), ["a", "b", "d"]);
        assert_eq!(settled(&["a"], &[], &["a"]).unwrap(), [""; 0]);
    }

    #[test]
    fn a_field_that_is_there_twice_is_named() {
        for (rename, names) in [
            (&[][..], &["a_b", "c", "a_b"][..]),
            (&[("a", "a_b")][..], &["a", "a_b"][..]),
            (&[("a", "a_b"), ("b", "a_b")][..], &["a", "b"][..]),
        ] {
            let error = settled(&[], rename, names).unwrap_err();
            assert!(error.starts_with("the field \"a_b\" is there twice"), "{error}");
        }
        assert!(settled(&["a"], &[("b", "a")], &["a", "b"]).is_ok(), "one of them is left out");
        let mut many: Vec<String> = (0..100).rev().map(|n| format!("f{n:02}")).collect();
        let names = |many: &[String]| settled(&[], &[], &many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(names(&many).is_ok());
        many.push("f50".to_owned());
        assert!(names(&many).unwrap_err().contains("\"f50\""));
    }

    #[test]
    fn a_name_that_cannot_be_carried_is_refused() {
        assert_eq!(settled(&[], &[], &[""]).unwrap_err(), "a field has an empty name");
        assert!(settled(&[], &[], &["a\n"]).unwrap_err().contains("control character"));
        assert!(settled(&[], &[], &[r"a\ b"]).unwrap_err().contains("backslash before a comma"));
        assert_eq!(settled(&[], &[], &[r"a\b c"]).unwrap(), [r"a\b c"]);
    }
}
