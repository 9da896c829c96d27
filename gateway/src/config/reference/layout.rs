//! The keys that say how messages are read, which `[[mqtt.subscribe]]` and `[[serial]]` have in common.

use super::{Key, Shape, Standard, Table, Takes};

/// New names of fields.
pub(super) const RENAME: Table = Table {
    name: "rename",
    shape: Shape::Free,
    doc: "New names of fields, `\"old\" = \"new\"`, by the names that they have otherwise.",
    keys: &[],
    below: &[],
};

/// What a topic may name.
pub(super) const OF_TOPIC: &[Key] = &[
    Key {
        name: "device",
        takes: Takes::Such("a path or fixed text", "\"$.id\""),
        default: Standard::Such("a level `{device}` of the topic"),
        doc: "where the device comes from; it wins over the topic",
    },
    Key {
        name: "measurement",
        takes: Takes::Such("a path or fixed text", "\"climate\""),
        default: Standard::Such("a level `{measurement}` of the topic; of a make of devices, its name"),
        doc: "where the measurement comes from; it wins over the topic",
    },
    Key {
        name: "field",
        takes: Takes::Text("\"temperature\""),
        default: Standard::Such("a level `{field}` of the topic, else `\"value\"`"),
        doc: "of a plain value: the field's name",
    },
];

/// The same of a line, which comes by no topic.
pub(super) const OF_LINE: &[Key] = &[
    Key {
        name: "device",
        takes: Takes::Such("a path or fixed text", "\"$.id\""),
        default: Standard::Such("needed for JSON and CSV; of line protocol, the tag `device`"),
        doc: "where the device comes from: a path, of CSV a column; or its name",
    },
    Key {
        name: "measurement",
        takes: Takes::Such("a path or fixed text", "\"climate\""),
        default: Standard::Such("needed for JSON and CSV; line protocol brings it"),
        doc: "where the measurement comes from, or its name",
    },
    // All formats of lines name their fields.
    Key { name: "field", takes: Takes::Nothing, default: Standard::None, doc: "" },
];

/// The rest, which is the same for both.
pub(super) const LAYOUT: &[Key] = &[
    Key {
        name: "timestamp",
        takes: Takes::Such("a path", "\"$.time\""),
        default: Standard::Such("the time of first receipt"),
        doc: "where a message's own time is",
    },
    Key {
        name: "timestamp_format",
        takes: Takes::OneOf(&["\"s\"", "\"ms\"", "\"us\"", "\"ns\"", "\"rfc3339\""]),
        default: Standard::Such("belongs to `timestamp`; of line protocol, nanoseconds"),
        doc: "how that time is written: a number since 1970, or text with an offset",
    },
    Key {
        name: "tags_from",
        takes: Takes::Such("a list of paths", "[\"$.site\"]"),
        default: Standard::Is("[]"),
        doc: "values that become tags, each under the last name of its path",
    },
    Key {
        name: "integer_fields",
        takes: Takes::Such("a list of fields", "[\"count\"]"),
        default: Standard::Is("[]"),
        doc: "fields that are stored as integers; every other number is a float. Nested names are joined by `_`",
    },
    Key {
        name: "text_fields",
        takes: Takes::Such("a list of fields", "[\"state\"]"),
        default: Standard::Is("[]"),
        doc: "fields that are stored as text; other text is left out",
    },
    Key {
        name: "numbers_in_text",
        takes: Takes::Such("`true`, `false` or a list of fields", "[\"weight\"]"),
        default: Standard::Is("false"),
        doc: "text in JSON that is a number is read as one: all of it, or that of these fields",
    },
    Key {
        name: "readings",
        takes: Takes::Such("a path", "\"$.list\""),
        default: Standard::Such("a document is one row"),
        doc: "an array in a JSON document, each element of which is a row; `\"$\"` where the document is one",
    },
    Key {
        name: "drop",
        takes: Takes::Such("a list of fields", "[\"rssi\"]"),
        default: Standard::Is("[]"),
        doc: "fields to leave out, by the names that they have otherwise",
    },
];
