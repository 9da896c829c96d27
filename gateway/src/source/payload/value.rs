//! One plain value as a payload: `21.5`, `ON`, `true`; the topic or the configuration names the field.
//!
//! A number is a float field, and an integer one where `integer_fields` lists the field; `true`, `false`, `on` and
//! `off` are booleans, all in small or in capital letters or with a capital at the beginning. Text is kept, as it
//! stands, where `text_fields` lists the field, and then also what could be read as something else, so that a field
//! never changes its type. White space around the value is no part of it; a text in double quotes is a JSON string,
//! whose text counts. What is no finite number, such as `nan`, is text. Limit: what a message may have.

use std::borrow::Cow;

use thiserror::Error;

use crate::config::Layout;
use crate::record::Value;

/// The field where nobody names one.
pub const DEFAULT_FIELD: &str = "value";

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// The bytes are no text.
    #[error("not UTF-8 text")]
    NotUtf8,
    /// There is nothing.
    #[error("the payload is empty; it takes a value such as 21.5, ON or true")]
    Empty,
    /// Text that nobody asked for.
    #[error(
        "{text:?} is no number and none of true, false, on and off; text is kept only if `text_fields` lists {field:?}"
    )]
    Text {
        /// The field.
        field: String,
        /// The text, shortened.
        text: String,
    },
    /// A listed integer field holds something else.
    #[error("field {0:?} is listed in `integer_fields` and holds no 64-bit integer")]
    NotInteger(String),
}

/// Reads the value of a field.
///
/// # Errors
/// Says what is wrong with it.
pub fn read(layout: &Layout, field: &str, payload: &[u8]) -> Result<Value, ValueError> {
    let text = std::str::from_utf8(payload).map_err(|_| ValueError::NotUtf8)?.trim();
    let text = match text.starts_with('"').then(|| serde_json::from_str::<String>(text)) {
        Some(Ok(inner)) => Cow::Owned(inner),
        _ => Cow::Borrowed(text),
    };
    if text.is_empty() {
        return Err(ValueError::Empty);
    }
    let listed = |names: &[String]| names.iter().any(|listed| listed == field);
    if listed(&layout.text_fields) {
        return Ok(Value::Text(text.into_owned()));
    }
    if listed(&layout.integer_fields) {
        let integer = integer(&text).ok_or_else(|| ValueError::NotInteger(field.to_owned()))?;
        return Ok(Value::Integer(integer));
    }
    truth(&text)
        .map(Value::Boolean)
        .or_else(|| number(&text).map(Value::Float))
        .ok_or_else(|| ValueError::Text { field: field.to_owned(), text: text.chars().take(64).collect() })
}

/// The number that a text is, if it is one.
#[must_use]
pub fn number(text: &str) -> Option<f64> {
    // Rust reads `inf` and `nan` as well.
    let begins = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    begins.then(|| text.parse().ok()).flatten().filter(|number: &f64| number.is_finite())
}

/// The integer that a text is: `21` and `21.0` both are 21.
#[must_use]
pub fn integer(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| number(text).and_then(whole))
}

/// The integer that a float stands for, as far as every integer has a float of its own.
#[must_use]
pub fn whole(float: f64) -> Option<i64> {
    let exact = float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be an integer below 2^53")]
    exact.then_some(float as i64)
}

/// The boolean that a word is, if it is one.
#[must_use]
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Format;

    fn layout() -> Layout {
        Layout {
            integer_fields: vec!["count".to_owned()],
            text_fields: vec!["mode".to_owned()],
            ..Layout::of(Format::Value)
        }
    }

    fn value(field: &str, text: &str) -> Result<Value, String> {
        read(&layout(), field, text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn numbers_and_truth_values_are_what_they_look_like() {
        for (text, expected) in
            [("21.5", 21.5), (" 21\n", 21.0), ("-3", -3.0), ("+.5", 0.5), ("1e3", 1000.0), ("\"21.5\"", 21.5)]
        {
            assert_eq!(value("t", text), Ok(Value::Float(expected)), "{text}");
        }
        for (text, expected) in [("ON", true), ("off", false), ("True", true), ("\"on\"", true)] {
            assert_eq!(value("t", text), Ok(Value::Boolean(expected)), "{text}");
        }
        assert_eq!(value("count", "7"), Ok(Value::Integer(7)));
        assert_eq!(value("count", "9007199254740993"), Ok(Value::Integer(9_007_199_254_740_993)));
        assert_eq!(value("count", "7.0"), Ok(Value::Integer(7)));
    }

    #[test]
    fn text_is_kept_where_it_is_listed_and_then_all_of_it() {
        for text in ["heat", "21.5", "on"] {
            assert_eq!(value("mode", text), Ok(Value::Text(text.to_owned())));
        }
        assert_eq!(value("mode", "\"a \\\"b\\\"\""), Ok(Value::Text("a \"b\"".to_owned())));
        assert_eq!(value("mode", "\"open"), Ok(Value::Text("\"open".to_owned())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for text in ["heat", "nan", "inf", "-inf", "1e999", "oN", "0x10", "1,5", "{}"] {
            assert!(value("t", text).unwrap_err().contains("`text_fields` lists \"t\""), "{text}");
        }
        for text in ["", " \n", "\"\""] {
            assert!(value("mode", text).unwrap_err().starts_with("the payload is empty"), "{text:?}");
        }
        assert!(value("count", "1.5").unwrap_err().contains("`integer_fields`"));
        assert!(value("count", "on").unwrap_err().contains("`integer_fields`"));
        assert_eq!(read(&layout(), "t", b"\xff"), Err(ValueError::NotUtf8));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..32), field in "t|count|mode") {
            if let Ok(Value::Float(number)) = read(&layout(), &field, &bytes) {
                prop_assert!(number.is_finite());
            }
        }
    }
}
