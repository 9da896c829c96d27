//! Which files count: the newest one, the one that its header names, and so on, down to the oldest that the newest
//! header lets count.

use std::collections::BTreeSet;
use std::io;

use thiserror::Error;

use super::Dropped;
use super::file::{Extent, FileNumber, Files, Header, HeaderRead};

/// Why the store cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// A newer program wrote it.
    #[error(
        "the dead letters in {file} have format {version} (features {features:#x}), which this version does not know; run the version that wrote them"
    )]
    Newer {
        /// The file.
        file: String,
        /// Its format version.
        version: u32,
        /// Its feature bits.
        features: u32,
    },
    /// The disk or its permissions are in the way.
    #[error("cannot read the dead letters: {what}: {cause}; run as the gateway's user, or check the disk")]
    Unreadable {
        /// What could not be read.
        what: String,
        /// Why.
        cause: io::Error,
    },
}

/// The files as they were at one moment.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Those that count, oldest first.
    pub(super) links: Vec<Link>,
    /// What was dropped before.
    pub(super) dropped: Dropped,
    /// Files below were dropped.
    pub(super) first: FileNumber,
    /// The highest number ever seen.
    pub(super) highest: FileNumber,
    /// Names of files of ours that do not count.
    pub(super) stale: Vec<String>,
}

/// A file that counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) number: FileNumber,
    pub(super) state: State,
    pub(super) extent: Known,
}

/// What became of a file and its header.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// The header, and where one of its copies is damaged.
    Intact(Header, Option<u64>),
    /// Both copies are damaged.
    Headless,
    /// There is no such file.
    Missing,
}

/// What is known from elsewhere of how far the frames of a file go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known {
    Nothing,
    /// So far at least.
    AtLeast(Extent),
    /// So far, and what lies behind does not count.
    Exactly(Extent),
}

impl Chain {
    /// # Errors
    /// Files cannot be read, or a newer program wrote them.
    pub(super) fn read(files: &dyn Files) -> Result<Chain, ReadError> {
        // Before the list, so that it never names a file that is made later.
        let end = Extent::read(files);
        let names = match files.list() {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Chain::default()),
            Err(cause) => return Err(ReadError::Unreadable { what: "the directory".to_owned(), cause }),
        };
        let listed: BTreeSet<FileNumber> =
            names.iter().filter_map(|name| FileNumber::of_file_name(name)).collect();
        let unfinished = names.iter().filter_map(|name| FileNumber::of_new_name(name));
        let numbers = listed.iter().copied().chain(unfinished).chain(end.map(|end| end.number));
        let mut chain = Chain { highest: numbers.max().unwrap_or_default(), ..Chain::default() };
        chain.walk(files, &listed, end)?;
        chain.links.reverse();
        let counts = |number: &FileNumber| chain.links.iter().any(|link| link.number == *number);
        let stale = |name: &&String| {
            FileNumber::of_new_name(name).is_some()
                || FileNumber::of_file_name(name).is_some_and(|number| !counts(&number))
        };
        chain.stale = names.iter().filter(stale).cloned().collect();
        Ok(chain)
    }

    /// Collects the links, newest first.
    fn walk(
        &mut self,
        files: &dyn Files,
        listed: &BTreeSet<FileNumber>,
        end: Option<Extent>,
    ) -> Result<(), ReadError> {
        let mut dropped = None;
        let newest = listed.last().copied().max(end.map(|end| end.number));
        let at_newest = end.filter(|end| Some(end.number) == newest).map_or(Known::Nothing, Known::AtLeast);
        let mut next = newest.map(|number| (number, at_newest));
        while let Some((number, extent)) = next.filter(|(number, _)| *number >= self.first) {
            let state = if listed.contains(&number) { State::read(files, number)? } else { State::Missing };
            next = match &state {
                State::Intact(header, _) => {
                    self.first = self.first.max(header.first);
                    dropped = dropped.or(Some(header.dropped));
                    header.previous.map(|previous| (previous.number, Known::Exactly(previous)))
                }
                State::Headless | State::Missing => {
                    listed.range(..number).next_back().map(|below| (*below, Known::Nothing))
                }
            };
            self.links.push(Link { number, state, extent });
        }
        self.dropped = dropped.unwrap_or_default();
        Ok(())
    }
}

impl State {
    fn read(files: &dyn Files, number: FileNumber) -> Result<State, ReadError> {
        let name = number.file_name();
        let file = match files.open(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Missing),
            Err(cause) => return Err(ReadError::Unreadable { what: name, cause }),
        };
        match Header::read(&*file, number) {
            HeaderRead::Intact(header, bad_copy) => Ok(State::Intact(header, bad_copy)),
            HeaderRead::Damaged => Ok(State::Headless),
            HeaderRead::Newer { version, features } => {
                Err(ReadError::Newer { file: name, version, features })
            }
        }
    }
}

impl Link {
    pub(super) fn header(&self) -> Option<&Header> {
        match &self.state {
            State::Intact(header, _) => Some(header),
            State::Headless | State::Missing => None,
        }
    }

    /// The extent as far as it is known from elsewhere.
    pub(super) fn known(&self) -> Option<Extent> {
        match self.extent {
            Known::Nothing => None,
            Known::AtLeast(extent) | Known::Exactly(extent) => Some(extent),
        }
    }
}
