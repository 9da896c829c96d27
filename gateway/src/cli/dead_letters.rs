//! `forebay dead-letters`: what could not be stored, and why; and what is to become of it.
//!
//! Looking works while the gateway runs or not, and changes nothing. Sending again and dropping is the running gateway's.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::control::{self, Gateway};
use super::plain;
use crate::dead_letters::{
    DIRECTORY, Damage, Dropped, Found, Letter, LetterId, Listed, Matches, Reader, WholeLetter, time,
};
use crate::http::dead_letters::{Done, Selection};

/// Damaged places that are listed one by one; the others are counted.
const MAX_DAMAGED: usize = 1000;

/// Bytes of a body in a line of a dump.
const DUMP_LINE_BYTES: usize = 16;

/// Prints a line for each letter, oldest first, then what was dropped and what is damaged.
///
/// # Errors
/// The store cannot be read.
pub(super) fn list(data_dir: &Path, json: bool) -> Result<()> {
    let reader = Reader::open_dir(&data_dir.join(DIRECTORY))?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json { list_json(reader, &mut out) } else { list_lines(reader, &mut out) }
}

/// Prints everything that is kept of a letter; of several with the same id, the newest.
///
/// # Errors
/// There is no such letter, or the store cannot be read.
pub(super) fn show(data_dir: &Path, id: &str, json: bool) -> Result<()> {
    let id: LetterId = id.parse().with_context(|| format!("{id:?}"))?;
    let found = Reader::open_dir(&data_dir.join(DIRECTORY))?.find(&id)?.with_context(|| {
        format!("there is no dead letter {id}; `forebay dead-letters list` shows those that there are")
    })?;
    let text = if json { serde_json::to_string(&WholeLetter::of(&found))? + "\n" } else { page(&found) };
    written(io::stdout().lock().write_all(text.as_bytes()))
}

/// What the gateway is to do with letters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Send their points again.
    Replay,
    /// Let them go.
    Drop,
}

/// Lets the running gateway do something with letters; whether it could be done with all of them.
///
/// # Errors
/// No gateway runs, or it does not answer.
pub(super) fn order(data_dir: &Path, order: Order, selection: &Selection) -> Result<bool> {
    let path = match order {
        Order::Replay => "/api/v1/dead-letters/replay",
        Order::Drop => "/api/v1/dead-letters/drop",
    };
    let done: Done = control::talk(async {
        let answer = Gateway::find(data_dir)?.post(path, selection).await?;
        let text = answer.text().await.context("the gateway hung up")?;
        serde_json::from_str(&text).context("the gateway's answer cannot be read; is it of the same version?")
    })?;
    written(io::stdout().lock().write_all(told(order, &done).as_bytes()))?;
    Ok(done.kept == 0)
}

/// What has become of the letters.
fn told(order: Order, done: &Done) -> String {
    let (word, undone) = match order {
        Order::Replay => ("stored, and gone", "stored"),
        Order::Drop => ("dropped", "dropped"),
    };
    let mut text = match (done.gone, done.kept) {
        (0, 0) => "there is no such dead letter; `forebay dead-letters list` shows those that there are\n"
            .to_owned(),
        (0, _) => format!("no dead letter could be {undone}\n"),
        (1, _) => format!("1 dead letter is {word}\n"),
        (gone, _) => format!("{gone} dead letters are {word}\n"),
    };
    for kept in &done.reasons {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{} stays: {}", plain(&kept.id), plain(&kept.reason));
    }
    let told = done.reasons.len() as u64;
    if done.kept > told {
        let _ = writeln!(text, "and {} more stay", done.kept - told);
    }
    text
}

fn list_lines(mut reader: Reader, out: &mut impl Write) -> Result<()> {
    let mut damaged = Damaged::default();
    while let Some(found) = reader.next().transpose()? {
        match found {
            Found::Letter(letter) => {
                if is_closed(writeln!(out, "{}", line(&letter)))? {
                    return Ok(());
                }
            }
            Found::Damage(damage) => damaged.add(damage),
        }
    }
    let Dropped { letters, rows } = reader.dropped();
    let mut text = String::new();
    if letters > 0 {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "dropped to make room: {letters} older letters with {rows} rows");
    }
    for Damage { file, from, to, letters } in &damaged.places {
        let _ = writeln!(text, "damaged: {}, bytes {from} to {to}; letters lost: {letters}", plain(file));
    }
    if damaged.further > 0 {
        let _ = writeln!(
            text,
            "damaged: {} more places; {} letters lost in all",
            damaged.further, damaged.letters
        );
    }
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// The letters are written as they are read, so that no store is too large.
fn list_json(mut reader: Reader, out: &mut impl Write) -> Result<()> {
    let mut damaged = Damaged::default();
    let mut separator = "{\"letters\":[";
    while let Some(found) = reader.next().transpose()? {
        match found {
            Found::Letter(letter) => {
                let text = serde_json::to_string(&Listed::of(&letter))?;
                if is_closed(write!(out, "{separator}{text}"))? {
                    return Ok(());
                }
                separator = ",";
            }
            Found::Damage(damage) => damaged.add(damage),
        }
    }
    let opening = if separator == "," { "" } else { separator };
    let dropped = serde_json::to_string(&reader.dropped())?;
    let damaged = serde_json::to_string(&damaged)?;
    let text = format!("{opening}],\"dropped\":{dropped},\"damaged\":{damaged}}}\n");
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// What is damaged.
#[derive(Debug, Default, Serialize)]
struct Damaged {
    letters: u64,
    places: Vec<Damage>,
    /// Places that are not listed.
    further: u64,
}

impl Damaged {
    fn add(&mut self, damage: Damage) {
        self.letters += damage.letters;
        if self.places.len() < MAX_DAMAGED {
            self.places.push(damage);
        } else {
            self.further += 1;
        }
    }
}

fn line(letter: &Letter) -> String {
    let Letter { sink, device, origin, reason, stage, rows, .. } = letter;
    let columns = [
        letter.id().to_string(),
        time(letter.at_ns),
        stage.to_string(),
        or_dash(sink),
        or_dash(device),
        rows.to_string(),
        or_dash(origin),
        or_dash(reason),
    ];
    plain(&columns.join("  "))
}

fn page(found: &Matches) -> String {
    let mut text = String::new();
    let Matches { newest: letter, count } = found;
    let Letter { sink, device, origin, reason, stage, rows, body, body_bytes, .. } = letter;
    let size = if letter.is_cut() {
        format!("the first {} of {body_bytes} bytes", body.len())
    } else {
        format!("{body_bytes} bytes")
    };
    for (name, value) in [
        ("id", letter.id().to_string()),
        ("time", time(letter.at_ns)),
        ("stage", stage.to_string()),
        ("sink", or_dash(sink)),
        ("device", or_dash(device)),
        ("rows", rows.to_string()),
        ("origin", or_dash(origin)),
        ("reason", or_dash(reason)),
        ("body", size),
    ] {
        let _ = writeln!(text, "{name:8}{}", plain(&value));
    }
    if *count > 1 {
        let _ = writeln!(
            text,
            "\nthe newest of {count} letters with this id; the others are of earlier journals"
        );
    }
    text.push('\n');
    match str::from_utf8(body).ok().filter(|body| is_readable(body)) {
        Some(body) => {
            // Line feeds and tabs do no harm, and without them many a payload cannot be read.
            text.extend(body.split_inclusive(['\n', '\t']).map(|piece| {
                let end = piece.trim_end_matches(['\n', '\t']).len();
                plain(&piece[..end]) + &piece[end..]
            }));
            if !body.is_empty() && !body.ends_with('\n') {
                text.push('\n');
            }
        }
        None => dump(&mut text, body),
    }
    text
}

/// Whether text is more than bytes that happen to be UTF-8.
fn is_readable(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}

fn dump(text: &mut String, body: &[u8]) {
    for (row, bytes) in body.chunks(DUMP_LINE_BYTES).enumerate() {
        let _ = write!(text, "{:06x} ", row * DUMP_LINE_BYTES);
        for byte in bytes {
            let _ = write!(text, " {byte:02x}");
        }
        text.extend(std::iter::repeat_n("   ", DUMP_LINE_BYTES - bytes.len()));
        let shown = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' };
        let _ = writeln!(text, "  {}", bytes.iter().map(shown).collect::<String>());
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// Whether whoever reads has seen enough.
fn is_closed(printed: io::Result<()>) -> Result<bool> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        printed => printed.map(|()| false).context("standard output cannot be written"),
    }
}

fn written(printed: io::Result<()>) -> Result<()> {
    is_closed(printed).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::dead_letters::{DeadLetters, MAX_BYTES_LEAST, Stage};
    use crate::journal::JournalId;
    use crate::journal::memory::MemoryStorage;
    use crate::record::Offset;

    fn letters() -> [Letter; 2] {
        let refused = Letter {
            sink: "main".into(),
            journal: JournalId(0xbee),
            offset: Offset(1234),
            stage: Stage::Delivery,
            at_ns: 1_700_000_000_000_000_001,
            device: "boi\u{1b}[2Jler".into(),
            rows: 1,
            origin: "climate,device=boiler".into(),
            reason: "field type conflict:\n\"t\"".into(),
            body: b"climate,device=boiler t=\"a\"\t\nb 5\r\n"[..].into(),
            body_bytes: 0,
        };
        let unread = Letter {
            sink: "".into(),
            journal: JournalId(0xbee),
            offset: Offset(7),
            stage: Stage::Intake,
            at_ns: 0,
            device: "".into(),
            rows: 2,
            origin: "sensors/esp".into(),
            reason: "no JSON".into(),
            body: (0xf0..=0xff).chain(*b"{\"a\":").collect(),
            body_bytes: 9_000,
        };
        [refused, unread]
    }

    fn stored() -> Reader {
        let storage = Arc::new(MemoryStorage::new());
        DeadLetters::open(storage.clone(), MAX_BYTES_LEAST).unwrap().append(&letters()).unwrap();
        Reader::open(storage).unwrap()
    }

    #[test]
    fn a_line_tells_everything_but_the_body() {
        let mut out = Vec::new();
        list_lines(stored(), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "main-1234  2023-11-14T22:13:20.000000001Z  delivery  main  boi\u{fffd}[2Jler  1  climate,device=boiler  \
             field type conflict:\u{fffd}\"t\"\n\
             intake-7  1970-01-01T00:00:00Z  intake  -  -  2  sensors/esp  no JSON\n"
        );
        let mut out = Vec::new();
        list_json(stored(), &mut out).unwrap();
        let list: Value = serde_json::from_slice(&out).unwrap();
        let expected = json!({
            "letters": [
                {
                    "id": "main-1234", "at": "2023-11-14T22:13:20.000000001Z", "at_ns": 1_700_000_000_000_000_001_i64,
                    "stage": "delivery", "sink": "main", "journal": "0000000000000bee", "offset": 1234, "device": "boi\u{1b}[2Jler", "rows": 1,
                    "origin": "climate,device=boiler", "reason": "field type conflict:\n\"t\"", "body_bytes": 34,
                },
                {
                    "id": "intake-7", "at": "1970-01-01T00:00:00Z", "at_ns": 0, "stage": "intake", "sink": null,
                    "journal": "0000000000000bee", "offset": 7, "device": "", "rows": 2, "origin": "sensors/esp", "reason": "no JSON",
                    "body_bytes": 9000,
                },
            ],
            "dropped": { "letters": 0, "rows": 0 },
            "damaged": { "letters": 0, "places": [], "further": 0 },
        });
        assert_eq!(list, expected);
    }

    #[test]
    fn what_became_of_letters_is_said_and_nothing_of_those_that_are_not_there() {
        let done = |gone, kept| Done { gone, kept, reasons: Vec::new() };
        assert_eq!(told(Order::Replay, &done(3, 0)), "3 dead letters are stored, and gone\n");
        assert_eq!(told(Order::Drop, &done(1, 0)), "1 dead letter is dropped\n");
        assert_eq!(told(Order::Replay, &done(0, 2)), "no dead letter could be stored\nand 2 more stay\n");
        assert!(told(Order::Drop, &done(0, 0)).starts_with("there is no such dead letter"));
    }

    #[test]
    fn an_empty_list_is_json_too() {
        let mut out = Vec::new();
        list_json(Reader::open(Arc::new(MemoryStorage::new())).unwrap(), &mut out).unwrap();
        let list: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(list["letters"], json!([]));
    }

    #[test]
    fn a_body_is_text_where_it_is_text_and_a_dump_where_it_is_not() {
        let [refused, unread] = letters();
        let alone = |newest| Matches { newest, count: 1 };
        let text = page(&alone(refused));
        assert!(text.ends_with("\n\nclimate,device=boiler t=\"a\"\t\nb 5\u{fffd}\n"), "{text}");
        assert!(text.contains("reason  field type conflict:\u{fffd}\"t\"\n"), "{text}");
        let text = page(&alone(unread.clone()));
        assert!(text.contains("body    the first 21 of 9000 bytes\n"), "{text}");
        let dump = "\n000000  f0 f1 f2 f3 f4 f5 f6 f7 f8 f9 fa fb fc fd fe ff  ................\n\
                    000010  7b 22 61 22 3a                                   {\"a\":\n";
        assert!(text.ends_with(dump), "{text}");
        let text = page(&alone(Letter { body: b"\x1b[2J"[..].into(), ..unread }));
        assert!(text.contains("\n000000  1b 5b 32 4a  ") && text.ends_with(".[2J\n"), "{text}");
    }

    #[test]
    fn as_json_a_body_comes_back_byte_by_byte() {
        let [refused, unread] = letters();
        let whole = |letter: &Letter| {
            serde_json::to_value(WholeLetter::of(&Matches { newest: letter.clone(), count: 3 })).unwrap()
        };
        assert_eq!(whole(&refused)["body"].as_str().map(str::as_bytes), Some(&*refused.body));
        assert_eq!(whole(&unread)["body_hex"], "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff7b2261223a");
        assert_eq!((&whole(&unread)["cut"], &whole(&unread)["matches"]), (&json!(true), &json!(3)));
        assert!(whole(&unread).get("body").is_none());
    }

    #[test]
    fn several_letters_of_one_id_are_told_of() {
        let [refused, _] = letters();
        let text = page(&Matches { newest: refused.clone(), count: 2 });
        assert!(text.contains("\nthe newest of 2 letters with this id; "), "{text}");
        let text = page(&Matches { newest: refused, count: 1 });
        assert!(!text.contains("newest"), "{text}");
    }

    #[test]
    fn an_unknown_letter_says_how_to_list_those_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let said = format!("{:#}", show(dir.path(), "main-1", false).unwrap_err());
        assert!(said.contains("no dead letter main-1; `forebay dead-letters list`"), "{said}");
        let said = format!("{:#}", show(dir.path(), "main", false).unwrap_err());
        assert!(said.contains("\"main\": is no id"), "{said}");
        list(dir.path(), false).unwrap();
        assert!(!dir.path().join(DIRECTORY).exists(), "who looks changes nothing");
    }
}
