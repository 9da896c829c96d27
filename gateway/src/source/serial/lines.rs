//! Bytes of a line into lines of text, without IO and without an end to what may come.
//!
//! A line ends at a line feed; a carriage return before it and blanks around it are no part of it, and empty lines are
//! none. Of a line that is longer than [`LINE_BYTES_MAX`] the beginning is kept, and it is refused when it ends.
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
    /// A line that is too long: its beginning, and how many bytes it had.
    TooLong(&'a [u8], u64),
}

/// The lines of one open port.
#[derive(Debug)]
pub(in crate::source) struct Lines {
    buffer: Vec<u8>,
    /// Bytes of the present line, those that are not kept included.
    bytes: u64,
    /// The buffer holds a line that was handed out.
    done: bool,
    /// The present line may lack its beginning.
    is_rest: bool,
}

impl Lines {
    /// Nothing has come.
    pub(in crate::source) fn new() -> Lines {
        Lines { buffer: Vec::new(), bytes: 0, done: false, is_rest: true }
    }

    /// The line was silent since the port was opened, so what comes now begins a line.
    pub(super) fn note_silence(&mut self) {
        if self.bytes == 0 {
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
            let room = LINE_BYTES_MAX.saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&part[..part.len().min(room)]);
            self.bytes += part.len() as u64;
            *input = behind;
            end?;
            self.done = true;
            if !self.buffer.trim_ascii().is_empty() || self.is_too_long() {
                break;
            }
            // Behind an empty line begins a whole one.
            self.is_rest = false;
        }
        let is_rest = std::mem::replace(&mut self.is_rest, false);
        Some(self.piece(is_rest))
    }

    /// What came of a line that does not end any more; `None` if nothing did.
    pub(super) fn finish(&mut self) -> Option<&[u8]> {
        self.begin();
        let line = self.buffer.trim_ascii();
        (!line.is_empty()).then_some(&line[..line.len().min(INTAKE_BODY_BYTES_MAX)])
    }

    fn begin(&mut self) {
        if std::mem::take(&mut self.done) {
            self.buffer.clear();
            self.bytes = 0;
        }
    }

    fn is_too_long(&self) -> bool {
        self.bytes > LINE_BYTES_MAX as u64
    }

    fn piece(&self, is_rest: bool) -> Piece<'_> {
        if self.is_too_long() {
            return Piece::TooLong(&self.buffer[..INTAKE_BODY_BYTES_MAX], self.bytes);
        }
        let line = self.buffer.trim_ascii();
        if is_rest { Piece::Rest(line) } else { Piece::Line(line) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All pieces of a text that comes in parts of `part` bytes.
    fn pieces(lines: &mut Lines, text: &[u8], part: usize) -> Vec<(char, String, u64)> {
        let mut found = Vec::new();
        for mut input in text.chunks(part) {
            while let Some(piece) = lines.next(&mut input) {
                found.push(match piece {
                    Piece::Line(line) => ('l', String::from_utf8_lossy(line).into_owned(), 0),
                    Piece::Rest(line) => ('r', String::from_utf8_lossy(line).into_owned(), 0),
                    Piece::TooLong(begin, bytes) => {
                        ('t', String::from_utf8_lossy(&begin[..3]).into_owned(), bytes)
                    }
                });
            }
        }
        found
    }

    fn of(kind: char, text: &str) -> (char, String, u64) {
        (kind, text.to_owned(), 0)
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
        let expected = [of('l', "a"), ('t', "xxx".to_owned(), 100_000), of('l', "b")];
        for part in [1, 4096, 1 << 20] {
            assert_eq!(pieces(&mut lines, &text, part), expected);
            assert!(lines.buffer.capacity() <= 2 * LINE_BYTES_MAX, "{}", lines.buffer.capacity());
        }
        let longest = [vec![b'y'; LINE_BYTES_MAX], vec![b'\n']].concat();
        assert_eq!(pieces(&mut lines, &longest, 1000), [of('l', &"y".repeat(LINE_BYTES_MAX))]);
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
