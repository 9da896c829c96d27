//! Text on a line: each line of it is a message of a foreign device, which nobody can acknowledge.
//!
//! The rows of a chunk of bytes are one submission, and each line that cannot be read is a letter with its own reason. Of a
//! chunk with very many of them the last letter has all that are left, the first of them with its reason, and their
//! number, so that a babbling device fills the dead letters no faster than that.
//! When intake has no room, one chunk waits here and no other is read, until the kernel's buffer is full and the line
//! drops what comes: a text device cannot be held back. Not counted is what is lost so; everything that was read is.

use std::collections::VecDeque;

use forebay_shared::ids::Millis;

use super::lines::{LINE_BYTES_MAX, Lines, Piece};
use super::port::Chunk;
use crate::config::{Format, Layout};
use crate::dead_letters::INTAKE_BODY_BYTES_MAX;
use crate::ingest::identity::Naming;
use crate::ingest::{Arrival, Origin};
use crate::source::native::Now;
use crate::source::payload::{self, Parsed, csv};
use crate::source::{Context, Reporter};

/// Most lines of a chunk that get letters of their own.
const LETTERS_MAX: usize = 32;

/// How long a line is silent before a whole line begins, in milliseconds: no device rests so long within one.
pub(in crate::source) const SILENCE_MS: u32 = 200;

/// Pause before what was refused is tried again even without news of room, in milliseconds.
const RETRY_MS: u32 = 1_000;

const REST: &str = "it came first after the port was opened, and may lack its beginning";
const CUT: &str = "the line was cut: the port was closed before it ended";

/// The text of one open port.
pub(super) struct Text {
    context: Context,
    layout: Layout,
    /// The port's path, as dead letters name it.
    origin: String,
    lines: Lines,
    table: Option<csv::Table>,
    opened: Millis,
    held: Option<Held>,
}

/// What a chunk brought and intake has no room for.
struct Held {
    batch: Batch,
    /// In steady nanoseconds: the wall clock may step while it waits.
    received_ns: i64,
    retry_at: Millis,
}

/// What one chunk brings: its rows, and lines that could not be read. Each part is a submission.
#[derive(Default)]
struct Batch {
    parts: VecDeque<Part>,
    /// How many of them are letters.
    letters: usize,
}

#[derive(Default)]
struct Part {
    parsed: Parsed,
    /// Lines that could not be read, as far as a letter keeps them.
    bad: Vec<u8>,
}

impl Batch {
    fn add(&mut self, parsed: Parsed, line: &[u8]) {
        if !parsed.rows.is_empty() {
            match self.parts.front_mut().filter(|part| part.parsed.refused.is_none()) {
                Some(part) => part.parsed.rows.extend(parsed.rows),
                None => {
                    let parsed = Parsed { rows: parsed.rows, refused: None };
                    self.parts.push_front(Part { parsed, bad: Vec::new() });
                }
            }
        }
        let Some(refused) = parsed.refused else { return };
        match self.parts.back_mut() {
            Some(Part { parsed: Parsed { refused: Some(last), .. }, bad }) if self.letters == LETTERS_MAX => {
                last.rows += refused.rows;
                // As many of them as a letter keeps.
                if bad.len() + line.len() < INTAKE_BODY_BYTES_MAX {
                    bad.push(b'\n');
                    bad.extend_from_slice(line);
                }
            }
            _ => {
                self.letters += 1;
                let parsed = Parsed { rows: Vec::new(), refused: Some(refused) };
                self.parts.push_back(Part { parsed, bad: line.to_vec() });
            }
        }
    }

    /// How many lines it is.
    fn lines(&self) -> u64 {
        let refused = |part: &Part| part.parsed.refused.as_ref().map_or(0, |refused| refused.rows);
        self.parts.iter().map(|part| part.parsed.rows.len() as u64 + refused(part)).sum()
    }
}

impl Text {
    /// The text on the port `origin`, opened just now.
    pub(super) fn new(context: Context, layout: Layout, origin: &str, now: Millis) -> Text {
        let table = csv::Table::of(&layout);
        let (origin, lines) = (origin.to_owned(), Lines::new());
        Text { context, layout, origin, lines, table, opened: now, held: None }
    }

    /// Takes a chunk; not to be called while something [waits](Text::is_full). Says whether a line of it could be read.
    pub(super) fn receive(&mut self, chunk: &Chunk, reporter: &Reporter) -> bool {
        if chunk.at.ms.since(self.opened) >= SILENCE_MS {
            self.lines.note_silence();
        }
        let (mut batch, mut valid) = (Batch::default(), false);
        let naming = self.context.ingest.naming();
        let mut input = chunk.bytes.as_slice();
        while let Some(piece) = self.lines.next(&mut input) {
            reporter.stats().messages.add(1);
            let (parsed, line) = match piece {
                Piece::Line(line) => (parse(&self.layout, naming, &mut self.table, line), line),
                Piece::Rest(line) if is_whole(&self.layout, self.table.as_ref(), line) => {
                    (parse(&self.layout, naming, &mut self.table, line), line)
                }
                Piece::Rest(line) => (payload::refused(&self.layout, &[], REST.to_owned()), line),
                Piece::TooLong(begin) => (payload::refused(&self.layout, &[], too_long()), begin),
            };
            // A header brings nothing, and shows all the same that the table is one.
            valid |= parsed.refused.is_none();
            batch.add(parsed, line);
        }
        self.take(batch, chunk.at, reporter);
        valid
    }

    /// The port is closed: what came of the last line is no line, and what has no room now is lost.
    pub(super) fn finish(&mut self, now: Now, reporter: &Reporter) {
        self.tend(now, reporter);
        self.give_up(reporter);
        if let Some(line) = self.lines.finish() {
            let (refused, line) = (payload::refused(&self.layout, &[], CUT.to_owned()), line.to_vec());
            reporter.stats().messages.add(1);
            let mut batch = Batch::default();
            batch.add(refused, &line);
            self.take(batch, now, reporter);
            self.give_up(reporter);
        }
    }

    fn give_up(&mut self, reporter: &Reporter) {
        if let Some(Held { batch, .. }) = self.held.take() {
            let (lines, name) = (batch.lines(), &self.origin);
            reporter.loss(
                "text",
                &format!("{name} was closed before there was room for its last {lines} lines; they are lost"),
            );
        }
    }

    /// Tries again what waits.
    pub(super) fn tend(&mut self, now: Now, reporter: &Reporter) {
        if let Some(held) = self.held.take() {
            self.take(held.batch, Now { steady_ns: held.received_ns, ..now }, reporter);
        }
    }

    /// Whether something waits, so that nothing more is to be read.
    pub(super) fn is_full(&self) -> bool {
        self.held.is_some()
    }

    /// When [`Text::tend`] wants to be called, if no news of room comes before.
    pub(super) fn poll_timeout(&self) -> Option<Millis> {
        self.held.as_ref().map(|held| held.retry_at)
    }

    fn take(&mut self, mut batch: Batch, at: Now, reporter: &Reporter) {
        while let Some(Part { parsed, bad }) = batch.parts.front_mut() {
            let origin = Origin::whole(&self.origin, bad);
            let arrival = Arrival { received_ns: at.steady_ns, again: false, message: None };
            if self.context.take_foreign(parsed, origin, arrival, reporter).is_none() {
                self.held = Some(Held { batch, received_ns: at.steady_ns, retry_at: at.ms.plus(RETRY_MS) });
                return;
            }
            if let Some(refused) = &parsed.refused {
                // Intake counts a message, which here is a line.
                reporter.stats().bad_messages.add(refused.rows.saturating_sub(1));
            }
            batch.parts.pop_front();
        }
    }
}

fn too_long() -> String {
    format!(
        "{LINE_BYTES_MAX} bytes came without an end of a line, which is the limit; make the device end its lines, and \
         see whether `baud` is its line rate"
    )
}

fn parse(layout: &Layout, naming: &Naming, table: &mut Option<csv::Table>, line: &[u8]) -> Parsed {
    match table {
        Some(table) => payload::parse_csv_line(layout, naming, table, line),
        None => payload::parse(layout, naming, &[], line),
    }
}

/// Whether a line proves by itself that it has its beginning: no proper end of a JSON object is one.
pub(in crate::source) fn is_whole(layout: &Layout, table: Option<&csv::Table>, line: &[u8]) -> bool {
    let json = layout.format == Format::Json && line.first() == Some(&b'{');
    json || table.is_some_and(|table| std::str::from_utf8(line).is_ok_and(|line| table.expects(line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::payload::Refusal;

    fn refused(reason: &str) -> Parsed {
        let refusal = Refusal { device: "d".to_owned(), rows: 1, reason: reason.to_owned() };
        Parsed { rows: Vec::new(), refused: Some(refusal) }
    }

    fn letters(batch: &Batch) -> Vec<(&str, u64, usize)> {
        let of =
            |part: &'_ Part| part.parsed.refused.as_ref().map(|refused| refused.rows).unwrap_or_default();
        let text = |part: &'_ Part| part.bad.split(|byte| *byte == b'\n').count();
        let parts = batch.parts.iter().filter(|part| part.parsed.refused.is_some());
        parts
            .map(|part| {
                let reason = part.parsed.refused.as_ref().map_or("", |refused| refused.reason.as_str());
                (reason, of(part), text(part))
            })
            .collect()
    }

    #[test]
    fn each_bad_line_of_a_chunk_is_a_letter_with_its_own_reason() {
        let mut batch = Batch::default();
        for (reason, line) in [("no number", b"a".as_slice()), ("no time", b"b")] {
            batch.add(refused(reason), line);
        }
        assert_eq!(letters(&batch), [("no number", 1, 1), ("no time", 1, 1)]);
        assert_eq!(batch.parts[1].bad, b"b");
    }

    #[test]
    fn a_chunk_of_rubbish_has_no_more_letters_than_that_and_all_lines_count() {
        let mut batch = Batch::default();
        (0..3000).for_each(|_| batch.add(refused("x"), b"?"));
        let letters = letters(&batch);
        let more = 3000 - LETTERS_MAX as u64 + 1;
        assert_eq!((letters.len(), letters[LETTERS_MAX - 1].1), (LETTERS_MAX, more));
        assert!(batch.parts.iter().all(|part| part.bad.len() <= INTAKE_BODY_BYTES_MAX));
        assert_eq!(batch.lines(), 3000);
    }
}
