//! What may be configured: each table and each key, with what it takes, what counts without it, and what it means.
//!
//! In: nothing. Out: which keys a table has, for [`Section::close`](super::section::Section::close), and all of it as a page.
//!
//! A key is known if it is described here *and* asked for by what reads its table. So one that is read and not described is
//! refused like a slip of the pen, and so is one that is described and not read; the tests go through all of them, and hold
//! defaults, ranges and words against what the reading makes of them.

use std::fmt::Write as _;

use super::units;

mod keys;
mod layout;
#[cfg(test)]
mod tests;

pub(super) use keys::ROOT;

/// A table.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name in the table above.
    name: &'static str,
    shape: Shape,
    /// What it is for.
    doc: &'static str,
    /// Groups of keys, since some tables have some of them in common.
    keys: &'static [&'static [Key]],
    /// Tables in it.
    below: &'static [Table],
}

/// How often there may be one, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `[name]`.
    One,
    /// `[[name]]`, as often as needed.
    Many,
    /// `[name.NAME]`, one for each name.
    Named,
    /// `[name]`, whose keys are names.
    Free,
}

/// A key.
#[derive(Debug)]
struct Key {
    name: &'static str,
    takes: Takes,
    default: Standard,
    /// What it means.
    doc: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy, Debug)]
enum Takes {
    /// Values as TOML has them, one of which it is.
    OneOf(&'static [&'static str]),
    /// `true` or `false`.
    Boolean,
    /// A whole number from one to another.
    Number(u64, u64),
    /// Bytes from so many to so many.
    Size(u64, u64),
    /// Milliseconds from so many to so many.
    Duration(u64, u64),
    /// A text; and one that is taken, as TOML has it.
    Text(&'static str),
    /// What is said in words; and a value that is taken, as TOML has it.
    Such(&'static str, &'static str),
    /// Nothing: it is known only so that whoever writes it is told what to do instead, and the page does not have it.
    Nothing,
}

/// What counts if a key is not written.
#[derive(Clone, Copy, Debug)]
enum Standard {
    /// It has to be written.
    Needed,
    /// Nothing.
    None,
    /// This, as TOML has it.
    Is(&'static str),
    /// What is said in words.
    Such(&'static str),
}

/// A table that nobody has described: none of its keys is known.
static UNKNOWN: Table = Table { name: "", shape: Shape::One, doc: "", keys: &[], below: &[] };

impl Table {
    /// The table of that name in it.
    pub(super) fn below(&self, name: &str) -> &'static Table {
        self.below.iter().find(|table| table.name == name).unwrap_or(&UNKNOWN)
    }

    /// Whether it has such a key, or a table of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.keys().any(|key| key.name == name) || self.below.iter().any(|table| table.name == name)
    }

    fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().copied().flatten()
    }

    /// How it is written, below the tables in `path`.
    fn heading(&self, path: &str) -> String {
        let path = self.path(path);
        if self.shape == Shape::Many { format!("[[{path}]]") } else { format!("[{path}]") }
    }

    fn path(&self, above: &str) -> String {
        let own =
            if self.shape == Shape::Named { format!("{}.NAME", self.name) } else { self.name.to_owned() };
        if above.is_empty() { own } else { format!("{above}.{own}") }
    }
}

const INTRODUCTION: &str = "# Every key of the configuration

`forebay config` prints this page, which is made from what the gateway itself knows of its keys. A test holds the two
together; `FOREBAY_RENEW=1 cargo test --release -p forebay-gateway --lib reference` writes it anew.

The main file is TOML, `/etc/forebay/forebay.toml` unless `--config` names another. Files in `conf.d/` beside it are read
too, in the order of their names: a later value replaces an earlier one, and `[[…]]` blocks add up. `\"${VAR}\"` in any
text comes from the environment. Files are looked for beside the main one. Sizes are written as `\"512KiB\"`, `\"64MiB\"` or
`\"1GiB\"`, times as `\"250ms\"`, `\"10s\"`, `\"5m\"`, `\"12h\"` or `\"30d\"`. `forebay check` names each fault with file, line and
cure.
";

/// The page, in Markdown.
#[must_use]
pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    push_keys(&mut page, &ROOT);
    for table in ROOT.below {
        push_table(&mut page, table, "");
    }
    page
}

fn push_table(page: &mut String, table: &Table, above: &str) {
    // Writing to a string cannot fail.
    let _ = write!(page, "\n## `{}`\n\n{}\n", table.heading(above), table.doc);
    push_keys(page, table);
    let path = table.path(above);
    for below in table.below {
        push_table(page, below, &path);
    }
}

fn push_keys(page: &mut String, table: &Table) {
    if table.keys().next().is_none() {
        return;
    }
    page.push_str("\n| key | takes | without it | |\n|---|---|---|---|\n");
    for key in table.keys().filter(|key| key.takes.anything()) {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            key.name,
            key.takes.told(),
            key.default.told(),
            key.doc
        );
    }
}

impl Takes {
    fn told(self) -> String {
        match self {
            Takes::OneOf(values) => {
                values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
            }
            Takes::Boolean => "`true`, `false`".to_owned(),
            Takes::Number(low, high) => format!("a number, {low} to {high}"),
            Takes::Size(low, high) => {
                format!("a size, `\"{}\"` to `\"{}\"`", units::write_size(low), units::write_size(high))
            }
            Takes::Duration(low, high) => {
                let [low, high] =
                    [low, high].map(|ms| units::write_duration(std::time::Duration::from_millis(ms)));
                format!("a time, `\"{low}\"` to `\"{high}\"`")
            }
            Takes::Text(example) => format!("a text, such as `{example}`"),
            Takes::Such(words, example) => format!("{words}, such as `{example}`"),
            Takes::Nothing => "nothing".to_owned(),
        }
    }

    fn anything(self) -> bool {
        !matches!(self, Takes::Nothing)
    }
}

impl Standard {
    fn told(self) -> String {
        match self {
            Standard::Needed => "has to be written".to_owned(),
            Standard::None => String::new(),
            Standard::Is(value) => format!("`{value}`"),
            Standard::Such(words) => words.to_owned(),
        }
    }
}
