//! Reads letters, oldest first, beside a gateway that appends.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::chain::{Chain, Link, ReadError, State};
use super::file::{FRAMES_AT, FileNumber, Files, ReadOnly, SECTOR_BYTES};
use super::letter::{OwnKey, View};
use super::scan::{Scan, Scanned};
use super::{Dropped, Letter, LetterId};
use crate::journal::Storage;

/// The letters that were there when it was made, one after the other.
pub struct Reader {
    files: Arc<dyn Files>,
    links: VecDeque<Link>,
    current: Option<(Link, Scan)>,
    /// Letters that do not count any more, and up to where that holds.
    gone: HashMap<OwnKey, (FileNumber, u64)>,
    dropped: Dropped,
}

/// What a reader comes across.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A letter.
    Letter(Letter),
    /// A place where letters were, or where a header was.
    Damage(Damage),
}

/// The letters that have an id in common, because a journal was replaced by another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matches {
    /// The one that was kept last.
    pub newest: Letter,
    /// How many there are.
    pub count: u64,
}

/// A part of a file that the disk has damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Position of the first byte.
    pub from: u64,
    /// Position behind the last byte.
    pub to: u64,
    /// Letters that are lost with it.
    pub letters: u64,
}

impl Reader {
    /// Reads the store in a directory; one that does not exist is empty. Nothing is written, and no lock is needed.
    ///
    /// # Errors
    /// It cannot be read, or a newer version wrote it.
    pub fn open_dir(directory: &Path) -> Result<Reader, ReadError> {
        Reader::new(Arc::new(ReadOnly(directory.to_owned())))
    }

    /// Reads the store in any storage.
    ///
    /// # Errors
    /// As [`Reader::open_dir`].
    pub fn open(storage: Arc<dyn Storage>) -> Result<Reader, ReadError> {
        Reader::new(Arc::new(storage))
    }

    /// What had to go to make room, up to now.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// The letters of this id that come further on.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn find(mut self, id: &LetterId) -> Result<Option<Matches>, ReadError> {
        let mut matches: Option<Matches> = None;
        while let Some(found) = self.step(|letter| id.names(&letter.key))? {
            if let Found::Letter(newest) = found {
                let count = matches.map_or(0, |matches| matches.count) + 1;
                matches = Some(Matches { newest, count });
            }
        }
        Ok(matches)
    }
}

impl Iterator for Reader {
    type Item = Result<Found, ReadError>;

    fn next(&mut self) -> Option<Result<Found, ReadError>> {
        self.step(|_| true).transpose()
    }
}

impl Reader {
    fn new(files: Arc<dyn Files>) -> Result<Reader, ReadError> {
        let chain = Chain::read(&*files)?;
        let mut gone = HashMap::new();
        for link in &chain.links {
            // What is wrong with a file is told when its letters are read.
            let Ok(mut scan) = Scan::open(&*files, link) else { continue };
            while let Some(scanned) = scan.next() {
                if let Scanned::Gone { key, at } = scanned {
                    gone.insert(key.to_own(), (link.number, at));
                }
            }
        }
        Ok(Reader { files, links: chain.links.into(), current: None, gone, dropped: chain.dropped })
    }

    /// The next letter that is wanted, or damage before it.
    fn step(&mut self, wanted: impl Fn(&View<'_>) -> bool) -> Result<Option<Found>, ReadError> {
        loop {
            let Some((link, scan)) = &mut self.current else {
                let Some(link) = self.links.pop_front() else { return Ok(None) };
                match self.enter(link)? {
                    Some(damage) => return Ok(Some(Found::Damage(damage))),
                    None => continue,
                }
            };
            match scan.next() {
                Some(Scanned::Letter { letter, at }) if wanted(&letter) => {
                    let gone = if self.gone.is_empty() { None } else { self.gone.get(&letter.key.to_own()) };
                    if gone.is_none_or(|gone| *gone < (link.number, at)) {
                        return Ok(Some(Found::Letter(letter.to_letter())));
                    }
                }
                Some(Scanned::Letter { .. } | Scanned::Gone { .. }) => {}
                Some(Scanned::Lost { from, to, letters }) => {
                    let file = link.number.file_name();
                    return Ok(Some(Found::Damage(Damage { file, from, to, letters })));
                }
                None => self.current = None,
            }
        }
    }

    /// Goes on with a file; what is wrong with its header.
    fn enter(&mut self, link: Link) -> Result<Option<Damage>, ReadError> {
        let file = link.number.file_name();
        let header = |from, to| Some(Damage { file: file.clone(), from, to, letters: 0 });
        let damage = match link.state {
            State::Missing => return self.missing(&link),
            State::Headless => header(0, FRAMES_AT),
            State::Intact(_, Some(at)) => header(at, at + SECTOR_BYTES),
            State::Intact(_, None) => None,
        };
        match Scan::open(&*self.files, &link) {
            Ok(scan) => self.current = Some((link, scan)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.missing(&link),
            Err(cause) => return Err(ReadError::Unreadable { what: file, cause }),
        }
        Ok(damage)
    }

    /// A file that is gone was damaged, unless the gateway has dropped it since this reader was made.
    fn missing(&mut self, link: &Link) -> Result<Option<Damage>, ReadError> {
        let now = Chain::read(&*self.files)?;
        self.dropped = now.dropped;
        Ok((link.number >= now.first).then(|| Damage::of_missing(link)))
    }
}

impl Damage {
    pub(super) fn of_missing(link: &Link) -> Damage {
        let (to, letters) = link.known().map_or((0, 0), |extent| (extent.end, extent.letters));
        Damage { file: link.number.file_name(), from: 0, to, letters }
    }
}
