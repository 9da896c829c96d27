//! Bytes of a line into lines of text, without IO and without an end to what may come.
//!
//! A line ends at a line feed; a carriage return before it and spaces around it are no part of it, and lines of white space
//! are none. Tabs stay, since they may separate cells that are empty. Of a line that is longer than [`LINE_BYTES_MAX`]
//! the beginning is handed out as soon as it is, since it may never end, and the rest of it is passed over.
//!
//! What comes first after the opening of a port may be the rest of a line whose beginning nobody heard. It is marked as
//! such, unless the line was silent before its first byte for as long as no device is within a line.

use crate::dead_letters::INTAKE_BODY_BYTES_MAX;

/// Longest line that is looked at, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source) enum Piece<'a> {
    /// A line.
    Line(&'a [u8]),
    /// What may be the rest of a line.
    Rest(&'a [u8]),
    /// The beginning of a line that is too long.
    TooLong(&'a [u8]),
}

/// The lines of one open port.
#[derive(Debug)]
pub(in crate::source) struct Lines {
    buffer: Vec<u8>,
    /// The buffer holds a line that was handed out.
    done: bool,
    /// The present line is too long, and was handed out.
    passes_over: bool,
    /// The present line may lack its beginning.
    is_rest: bool,
}

impl Lines {
    /// Nothing has come.
    pub(in crate::source) fn new() -> Lines {
        Lines { buffer: Vec::new(), done: false, passes_over: false, is_rest: true }
    }

    /// The line was silent since the port was opened, so what comes now begins a line.
    pub(in crate::source) fn note_silence(&mut self) {
        if self.buffer.is_empty() {
            self.is_rest = false;
        }
    }

    /// Takes bytes up to the next end of a line; `None` when all are taken and no line has ended.
    pub(in crate::source) fn next(&mut self, input: &mut &[u8]) -> Option<Piece<'_>> {
        loop {
            self.begin();
            let end = input.iter().position(|byte| *byte == b'\n');
            let (part, behind) = match end {
                Some(end) => (&input[..end], &input[end + 1..]),
                None => (*input, &input[input.len()..]),
            };
            if self.passes_over {
                *input = behind;
                end?;
                self.passes_over = false;
                continue;
            }
            let room = LINE_BYTES_MAX - self.buffer.len();
            if part.len() > room {
                *input = &input[room..];
                self.buffer.extend_from_slice(&part[..room]);
                (self.done, self.passes_over, self.is_rest) = (true, true, false);
                return Some(Piece::TooLong(&self.buffer[..INTAKE_BODY_BYTES_MAX]));
            }
            self.buffer.extend_from_slice(part);
            *input = behind;
            end?;
            self.done = true;
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
            // Behind an empty line begins a whole one.
            self.is_rest = false;
        }
        let is_rest = std::mem::replace(&mut self.is_rest, false);
        let line = trim(&self.buffer);
        Some(if is_rest { Piece::Rest(line) } else { Piece::Line(line) })
    }

    /// What came of a line that does not end any more; `None` if nothing did.
    pub(super) fn finish(&mut self) -> Option<&[u8]> {
        self.begin();
        let line = trim(&self.buffer);
        (!line.trim_ascii().is_empty()).then_some(&line[..line.len().min(INTAKE_BODY_BYTES_MAX)])
    }

    fn begin(&mut self) {
        if std::mem::take(&mut self.done) {
            self.buffer.clear();
        }
    }
}

/// A line without the spaces around it, and without what ends it.
fn trim(line: &[u8]) -> &[u8] {
    let is_part = |byte: &u8| *byte != b' ' && *byte != b'\r';
    let Some(from) = line.iter().position(is_part) else { return &[] };
    let to = line.iter().rposition(is_part).map_or(from, |at| at + 1);
    &line[from..to]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All pieces of a text that comes in parts of `part` bytes.
    fn pieces(lines: &mut Lines, text: &[u8], part: usize) -> Vec<(char, String)> {
        let mut found = Vec::new();
        for mut input in text.chunks(part) {
            while let Some(piece) = lines.next(&mut input) {
                found.push(match piece {
                    Piece::Line(line) => ('l', String::from_utf8_lossy(line).into_owned()),
                    Piece::Rest(line) => ('r', String::from_utf8_lossy(line).into_owned()),
                    Piece::TooLong(begin) => ('t', String::from_utf8_lossy(&begin[..3]).into_owned()),
                });
            }
        }
        found
    }

    fn of(kind: char, text: &str) -> (char, String) {
        (kind, text.to_owned())
    }

    #[test]
    fn the_first_line_may_be_a_rest_unless_there_was_silence() {
        let mut lines = Lines::new();
        assert_eq!(pieces(&mut lines, b"5,6\r\n1,2\n", 3), [of('r', "5,6"), of('l', "1,2")]);
        let mut lines = Lines::new();
        assert_eq!(
            pieces(&mut lines, b"\r\n5,6\n", 100),
            [of('l', "5,6")],
            "behind a line feed begins a line"
        );
        let mut lines = Lines::new();
        lines.note_silence();
        assert_eq!(pieces(&mut lines, b"5,6\n", 1), [of('l', "5,6")]);
        let mut lines = Lines::new();
        let mut input = b"5".as_slice();
        assert_eq!(lines.next(&mut input), None);
        lines.note_silence();
        assert_eq!(pieces(&mut lines, b",6\n", 1), [of('r', "5,6")], "silence within a line says nothing");
    }

    #[test]
    fn a_line_that_is_too_long_is_one_and_costs_no_other() {
        let mut lines = Lines::new();
        lines.note_silence();
        let text = [b"a\n", "x".repeat(100_000).as_bytes(), b"\nb\n"].concat();
        let expected = [of('l', "a"), of('t', "xxx"), of('l', "b")];
        for part in [1, 4096, 1 << 20] {
            assert_eq!(pieces(&mut lines, &text, part), expected);
            assert!(lines.buffer.capacity() <= 2 * LINE_BYTES_MAX, "{}", lines.buffer.capacity());
        }
        let longest = [vec![b'y'; LINE_BYTES_MAX], vec![b'\n']].concat();
        assert_eq!(pieces(&mut lines, &longest, 1000), [of('l', &"y".repeat(LINE_BYTES_MAX))]);
    }

    #[test]
    fn a_line_that_never_ends_is_told_once_and_while_it_goes_on() {
        let mut lines = Lines::new();
        let endless = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(pieces(&mut lines, &endless, 1000), []);
        assert_eq!(pieces(&mut lines, b"x", 1), [of('t', "xxx")]);
        for _ in 0..100 {
            assert_eq!(pieces(&mut lines, &endless, 4096), []);
        }
        assert_eq!(lines.finish(), None, "it was told");
        let mut ends = Lines::new();
        ends.note_silence();
        let text = [endless.as_slice(), b"xx\na\n"].concat();
        assert_eq!(pieces(&mut ends, &text, 7), [of('t', "xxx"), of('l', "a")]);
    }

    #[test]
    fn tabs_at_the_edges_of_a_line_are_cells_that_are_empty() {
        let mut lines = Lines::new();
        lines.note_silence();
        assert_eq!(pieces(&mut lines, b" \t1\t \r\n\t\t\n", 3), [of('l', "\t1\t")]);
    }

    #[test]
    fn what_does_not_end_is_told_at_the_end() {
        let mut lines = Lines::new();
        assert_eq!(pieces(&mut lines, b"a\nb", 7).len(), 1);
        assert_eq!(lines.finish(), Some(b"b".as_slice()));
        assert_eq!(pieces(&mut lines, b"\n", 1), [of('l', "b")]);
        assert_eq!(lines.finish(), None);
    }

    proptest! {
        #[test]
        fn the_parts_in_which_bytes_come_make_no_difference(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), Just(b' '), any::<u8>()], 0..200),
            part in 1_usize..50,
        ) {
            let (mut whole, mut parts) = (Lines::new(), Lines::new());
            prop_assert_eq!(pieces(&mut whole, &text, text.len().max(1)), pieces(&mut parts, &text, part));
            prop_assert_eq!(whole.finish(), parts.finish());
        }
    }
}
