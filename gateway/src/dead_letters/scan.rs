//! Reads the frames of one file, and finds its way past damage.

use std::io;
use std::sync::Arc;

use super::chain::{Known, Link};
use super::file::{Extent, FRAMES_AT, Files, SECTOR_BYTES, sector_up};
use super::frame::{FIRST_BYTE, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader, Kind, Salt};
use super::letter::{Key, View};
use crate::journal::storage::StorageFile;

/// Bytes read at once.
const BUFFER_BYTES: usize = 64 << 10;
const _: () = assert!(FRAME_BYTES_MAX <= BUFFER_BYTES);

/// What comes next in a file.
#[derive(Debug)]
pub(super) enum Scanned<'a> {
    Letter {
        letter: View<'a>,
        /// Where its frame begins.
        at: u64,
    },
    /// The letter of a key, before this, does not count any more.
    Gone { key: Key<'a>, at: u64 },
    /// Letters that are lost.
    Lost { from: u64, to: u64, letters: u64 },
}

/// A position in a file.
pub(super) struct Scan {
    window: Window,
    salt: Option<Salt>,
    at: u64,
    /// Letters that the file was given before `at`.
    index: u64,
    /// What is proven to have been there once.
    proven: Extent,
    done: bool,
}

impl Scan {
    /// The frames of a file that counts.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(files: &dyn Files, link: &Link) -> io::Result<Scan> {
        let file = files.open(&link.number.file_name())?;
        let length = file.length()?;
        let nothing = Extent { number: link.number, end: FRAMES_AT, letters: 0 };
        let (limit, proven) = match link.extent {
            Known::Exactly(extent) => (length.min(extent.end), extent),
            Known::AtLeast(extent) => (length, extent),
            Known::Nothing => (length, nothing),
        };
        let salt = link.header().map(|header| header.salt);
        let window = Window::new(file, limit);
        let mut scan = Scan { window, salt, at: FRAMES_AT, index: 0, proven, done: false };
        if !matches!(link.extent, Known::Exactly(_)) {
            scan.prove();
        }
        Ok(scan)
    }

    /// What was durable once, intact or not.
    pub(super) fn proven(&self) -> Extent {
        self.proven
    }

    pub(super) fn next(&mut self) -> Option<Scanned<'_>> {
        loop {
            if self.done {
                return None;
            }
            let Some(header) = self.frame_at(self.at) else {
                match self.pass_damage() {
                    Some(lost) => return Some(lost),
                    None => continue,
                }
            };
            let (at, to) = (self.at, self.at + header.length as u64);
            self.at = to;
            self.salt = Some(header.salt);
            match header.kind {
                Kind::Letter => self.index += 1,
                Kind::Gone => {}
                Kind::Other => continue,
            }
            let frame = self.window.get(at, header.length);
            let content = frame.get(FRAME_HEADER_BYTES..header.length);
            if header.kind == Kind::Gone {
                // One that says nothing lets nothing go.
                let Some(key) = content.and_then(Key::decode) else {
                    return Some(Scanned::Lost { from: at, to, letters: 0 });
                };
                return Some(Scanned::Gone { key, at });
            }
            return Some(match content.and_then(View::decode) {
                Some(letter) => Scanned::Letter { letter, at },
                // The checksum was right, so a fault wrote it that no checksum sees.
                None => Scanned::Lost { from: at, to, letters: 1 },
            });
        }
    }

    /// Moves on to the next frame, or to the end. How many letters are lost in between is told by that frame's number.
    /// Those that were durable are damage, the others belong to an append that has not returned. The zeros between
    /// appends hold no letters.
    fn pass_damage(&mut self) -> Option<Scanned<'static>> {
        // A writer may have been at work just here.
        self.window.forget();
        if self.frame_at(self.at).is_some() {
            return None;
        }
        let (from, before) = (self.at, self.index);
        let to = match self.search(from + 1) {
            Some((at, header)) => {
                (self.at, self.index) = (at, before.max(u64::from(header.index)));
                at
            }
            None => {
                self.done = true;
                self.index = before.max(self.proven.letters);
                self.proven.end
            }
        };
        let letters = self.index.min(self.proven.letters).saturating_sub(before);
        let to = to.min(self.proven.end).max(from);
        (letters > 0).then_some(Scanned::Lost { from, to, letters })
    }

    /// Takes into account what the frames say that are not known to have been durable.
    fn prove(&mut self) {
        let mut at = self.proven.end;
        loop {
            let frame = self.frame_at(at).map(|header| (at, header));
            let Some((from, header)) = frame.or_else(|| self.search(at + 1)) else { return };
            if u64::from(header.durable.end) > self.proven.end {
                self.proven.end = u64::from(header.durable.end);
                self.proven.letters = u64::from(header.durable.letters);
            }
            at = from + header.length as u64;
        }
    }

    fn search(&mut self, from: u64) -> Option<(u64, FrameHeader)> {
        let mut at = from;
        while at < self.window.limit {
            let bytes = self.window.get(at, 1);
            let Some(skip) = bytes.iter().position(|byte| *byte == FIRST_BYTE) else {
                // Nothing can be left where nothing was read.
                at += bytes.len().max(1) as u64;
                continue;
            };
            at += skip as u64;
            if let Some(header) = self.frame_at(at) {
                return Some((at, header));
            }
            at += 1;
        }
        None
    }

    fn frame_at(&mut self, at: u64) -> Option<FrameHeader> {
        let header = FrameHeader::claim(self.window.get(at, FRAME_HEADER_BYTES), self.salt)?;
        let bytes = self.window.get(at, header.length);
        header.is_intact(bytes.get(..header.length)?).then_some(header)
    }
}

/// A part of a file in memory.
struct Window {
    file: Arc<dyn StorageFile>,
    /// Nothing is read from here on.
    limit: u64,
    buffer: Vec<u8>,
    from: u64,
    filled: usize,
}

impl Window {
    fn new(file: Arc<dyn StorageFile>, limit: u64) -> Window {
        Window { file, limit, buffer: Vec::new(), from: 0, filled: 0 }
    }

    fn forget(&mut self) {
        self.filled = 0;
    }

    /// What the file holds from `at` on: at least `bytes` of it, unless it ends before.
    fn get(&mut self, at: u64, bytes: usize) -> &[u8] {
        let bytes = (bytes as u64).min(self.limit.saturating_sub(at));
        if at < self.from || at + bytes > self.from + self.filled as u64 {
            self.fill(at);
        }
        let skip = usize::try_from(at - self.from).unwrap_or(usize::MAX);
        self.buffer[..self.filled].get(skip..).unwrap_or_default()
    }

    fn fill(&mut self, at: u64) {
        let wanted = (BUFFER_BYTES as u64).min(self.limit.saturating_sub(at)) as usize;
        self.buffer.resize(wanted, 0);
        self.from = at;
        self.filled = match self.file.read_at(&mut self.buffer, at) {
            Ok(read) => read,
            Err(_) => self.fill_by_sectors(at),
        };
    }

    /// A sector that cannot be read is as good as one that holds zeros.
    fn fill_by_sectors(&mut self, start: u64) -> usize {
        let mut done = 0;
        while done < self.buffer.len() {
            let at = start + done as u64;
            let to_boundary = (sector_up(at + 1) - at).min(SECTOR_BYTES) as usize;
            let end = self.buffer.len().min(done + to_boundary);
            let sector = &mut self.buffer[done..end];
            if self.file.read_at(sector, at).is_err() {
                sector.fill(0);
            }
            done = end;
        }
        done
    }
}
