//! Text on a line: each line of it is a message of a foreign device, which nobody can acknowledge.
//!
//! What a chunk of bytes brings is one submission, and what of it cannot be read is one letter: the first bad line with
//! its reason, and the number of all of them, so that a babbling device fills the dead letters no faster than chunks come.
//! When intake has no room, one chunk waits here and no other is read, until the kernel's buffer is full and the line
//! drops what comes: a text device cannot be held back. Not counted is what is lost so; everything that was read is.

use forebay_shared::ids::Millis;

use super::lines::{LINE_BYTES_MAX, Lines, Piece};
use super::port::Chunk;
use crate::clock::Moment;
use crate::config::{Format, Layout};
use crate::dead_letters::INTAKE_BODY_BYTES_MAX;
use crate::ingest::Origin;
use crate::ingest::identity::Naming;
use crate::source::native::Now;
use crate::source::payload::{self, Parsed, Refusal, csv};
use crate::source::{Context, Reporter};

/// How long a line is silent before a whole line begins, in milliseconds: no device rests so long within one.
const SILENCE_MS: u32 = 200;

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

/// What one chunk brings.
#[derive(Default)]
struct Batch {
    parsed: Parsed,
    /// Lines that could not be read, as far as a letter keeps them.
    bad: Vec<u8>,
}

impl Batch {
    fn add(&mut self, parsed: Parsed, line: &[u8]) {
        self.parsed.rows.extend(parsed.rows);
        match (&mut self.parsed.refused, parsed.refused) {
            (_, None) => {}
            (Some(Refusal { rows, .. }), Some(refused)) => {
                *rows += refused.rows;
                // As many of them as a letter keeps; the reason is that of the first.
                if self.bad.len() + line.len() < INTAKE_BODY_BYTES_MAX {
                    self.bad.push(b'\n');
                    self.bad.extend_from_slice(line);
                }
            }
            (none @ None, refused) => {
                *none = refused;
                self.bad = line.to_vec();
            }
        }
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
                Piece::TooLong(begin, bytes) => {
                    let reason = format!("a line of {bytes} bytes; the limit is {LINE_BYTES_MAX}");
                    (payload::refused(&self.layout, &[], reason), begin)
                }
            };
            // A header brings nothing, and shows all the same that the table is one.
            valid |= parsed.refused.is_none();
            batch.add(parsed, line);
        }
        // The clock may have been set since the chunk came.
        let at = Now { at: Moment::of_steady(chunk.at.at.steady_ns), ..chunk.at };
        self.take(batch, at, reporter);
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
            let refused = batch.parsed.refused.map_or(0, |refused| refused.rows);
            let (lines, name) = (batch.parsed.rows.len() as u64 + refused, &self.origin);
            reporter.loss(
                "text",
                &format!("{name} was closed before there was room for its last {lines} lines; they are lost"),
            );
        }
    }

    /// Tries again what waits.
    pub(super) fn tend(&mut self, now: Now, reporter: &Reporter) {
        if let Some(held) = self.held.take() {
            let steady_ns = held.received_ns;
            let ns = steady_ns.saturating_add(now.at.offset_ns());
            self.take(held.batch, Now { at: Moment { ns, steady_ns }, ..now }, reporter);
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

    fn take(&mut self, batch: Batch, at: Now, reporter: &Reporter) {
        if batch.parsed.is_empty() {
            return;
        }
        let origin = Origin { name: &self.origin, payload: &batch.bad };
        if self.context.take_foreign(&batch.parsed, origin, at.at, false, reporter).is_none() {
            self.held = Some(Held { batch, received_ns: at.at.steady_ns, retry_at: at.ms.plus(RETRY_MS) });
        } else if let Some(refused) = &batch.parsed.refused {
            // Intake counts a message, which here is a line.
            reporter.stats().bad_messages.add(refused.rows.saturating_sub(1));
        }
    }
}

fn parse(layout: &Layout, naming: &Naming, table: &mut Option<csv::Table>, line: &[u8]) -> Parsed {
    match table {
        Some(table) => payload::parse_csv_line(layout, naming, table, line),
        None => payload::parse(layout, naming, &[], line),
    }
}

/// Whether a line proves by itself that it has its beginning: no proper end of a JSON object is one.
fn is_whole(layout: &Layout, table: Option<&csv::Table>, line: &[u8]) -> bool {
    let json = layout.format == Format::Json && line.first() == Some(&b'{');
    json || table.is_some_and(|table| std::str::from_utf8(line).is_ok_and(|line| table.expects(line)))
}
