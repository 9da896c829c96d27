//! The files of a journal, told apart: which have begun as segments, which are spares, which are of no use.
//!
//! Operation: everything is synced before it is trusted, and then read from the medium. A file has begun if its header is
//! intact, or if a frame of its own is where the first one belongs. Of the others, those are searched from front to back
//! whose header is neither zeros nor of an earlier life, or behind which a later file has begun: a bad block may have
//! taken the beginning of a segment. Spares behind the last segment are searched when entries are missing at the end
//! ([`Files::search_spares`]). A file that holds a frame of its own is never removed.
//!
//! Failure: where the medium refuses to be read, the header counts as damaged; if it refuses all of a file, so does the
//! journal.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tracing::warn;

use super::bugs::{Bug, seeded};
use super::end::{END_DRAFT, END_FILE, EndFile, EndRead};
use super::scan::{Found, Scanner};
use super::segment::{HeaderRead, Segment, SegmentHeader, SegmentId};
use super::spare::{FILLING, Spare};
use super::storage::{Storage, StorageFile};
use super::{JournalId, OpenError};
use crate::record::Offset;

/// A segment as it was found.
pub(super) struct Candidate {
    pub(super) segment: Segment,
    pub(super) header: Option<SegmentHeader>,
    pub(super) frames: Vec<Found>,
    /// Bytes that it has, which are fewer than its length if it was cut.
    pub(super) bytes: u64,
}

/// The files of a journal, told apart.
pub(super) struct Files {
    /// The journal's id, as far as anything tells it.
    pub(super) journal: Option<JournalId>,
    /// Segments in the order of their ids.
    pub(super) candidates: Vec<Candidate>,
    /// Files behind them that have not begun, as it seems.
    pub(super) spares: Vec<Spare>,
    /// Files that hold nothing.
    pub(super) useless: Vec<String>,
    /// Id that no file has had.
    pub(super) next: SegmentId,
    pub(super) end: Option<EndRead>,
}

struct Opened {
    file: Arc<dyn StorageFile>,
    bytes: u64,
    header: HeaderRead,
    /// Whether what was written is on the medium for all that is known.
    sound: bool,
}

impl Files {
    /// Opens and syncs every file; refuses those of a newer program before anything else is done.
    pub(super) fn open(storage: &dyn Storage, names: &[String]) -> Result<Files, OpenError> {
        let mut opened = open_all(storage, names)?;
        if let Some(version) = EndFile::newer(storage) {
            return Err(OpenError::Newer { file: END_FILE.into(), version, features: 0 });
        }
        let unreadable_end = |cause| OpenError::Unreadable { what: END_FILE.into(), cause };
        let end = EndFile::read(storage).map_err(unreadable_end)?;
        for (id, file) in &mut opened {
            file.sound = settle(&*file.file).map_err(|e| unreadable(*id, e))?;
            file.header = SegmentHeader::read(&*file.file, *id).map_err(|e| unreadable(*id, e))?;
            file.bytes = file.file.length().map_err(|e| unreadable(*id, e))?;
        }
        let told = opened.values().rev().find_map(|file| match file.header {
            HeaderRead::Intact(header) => Some(header.journal),
            _ => None,
        });
        let next = opened.last_key_value().map_or(SegmentId(1), |(id, _)| id.next());
        let drafts = [FILLING, END_DRAFT];
        let useless = names.iter().filter(|name| drafts.contains(&name.as_str())).cloned().collect();
        let journal = told.or(end.map(|end| end.journal));
        let mut files = Files { journal, candidates: Vec::new(), spares: Vec::new(), useless, next, end };
        for (id, file) in opened {
            files.tell_apart(id, file)?;
        }
        let nothing_to_trust = files.candidates.is_empty() || seeded(Bug::RecoveryWithoutSync);
        if !nothing_to_trust {
            let failed = |cause| OpenError::Unreadable { what: "the directory".into(), cause };
            storage.sync_directory().map_err(failed)?;
        }
        Ok(files)
    }

    /// Searches the spares for frames of their own; true if there were any.
    pub(super) fn search_spares(&mut self) -> Result<bool, OpenError> {
        let begun = self.candidates.len();
        for spare in std::mem::take(&mut self.spares) {
            let spare = self.search(spare)?;
            self.spares.extend(spare);
        }
        Ok(self.candidates.len() > begun)
    }

    fn tell_apart(&mut self, id: SegmentId, opened: Opened) -> Result<(), OpenError> {
        let segment = Segment { sound: opened.sound, ..self.segment((id, opened.file), opened.bytes) };
        let found = match opened.header {
            HeaderRead::Intact(header) => {
                self.search_earlier()?;
                let SegmentHeader { journal, first, void, early, shared, boots, .. } = header;
                self.push(Segment { journal, first, void, early, shared, boots, ..segment }, Some(header));
                return Ok(());
            }
            HeaderRead::Spare => Scanner::new(&segment).next_adjacent(),
            HeaderRead::Unknown | HeaderRead::Newer { .. } => Scanner::new(&segment).next(),
        };
        match found.map_err(|e| unreadable(id, e))? {
            Some(found) => {
                self.search_earlier()?;
                self.push(beginning_with(segment, &found), None);
            }
            None => self.spares.push((id, segment.file)),
        }
        Ok(())
    }

    /// A segment has begun: what seemed to be spares before it is none.
    fn search_earlier(&mut self) -> Result<(), OpenError> {
        for spare in std::mem::take(&mut self.spares) {
            let nothing = self.search(spare)?;
            self.useless.extend(nothing.map(|(id, _)| id.file_name()));
        }
        Ok(())
    }

    /// Takes a file as a segment if it holds any frame of its own, else gives it back.
    fn search(&mut self, (id, file): Spare) -> Result<Option<Spare>, OpenError> {
        let bytes = file.length().map_err(|e| unreadable(id, e))?;
        let segment = self.segment((id, file), bytes);
        let found = Scanner::new(&segment).next().map_err(|e| unreadable(id, e))?;
        let Some(found) = found else { return Ok(Some((id, segment.file))) };
        warn!(
            file = id.file_name(),
            "the beginning of a journal file is lost; what is intact behind it is used"
        );
        self.push(beginning_with(segment, &found), None);
        Ok(None)
    }

    fn push(&mut self, segment: Segment, header: Option<SegmentHeader>) {
        let bytes = segment.length;
        self.candidates.push(Candidate { segment, header, frames: Vec::new(), bytes });
    }

    fn segment(&self, (id, file): Spare, bytes: u64) -> Segment {
        Segment {
            // A journal whose id nothing tells has no frame that could be checked.
            journal: self.journal.unwrap_or(JournalId(0)),
            id,
            first: Offset(0),
            void: Offset(0),
            length: bytes,
            // Nobody knows; a segment without a header is not gone on with.
            early: true,
            shared: true,
            boots: true,
            file,
            snapshot: false,
            idle: false,
            sound: true,
        }
    }
}

/// Opens every file, and refuses if a newer program has written one.
fn open_all(storage: &dyn Storage, names: &[String]) -> Result<BTreeMap<SegmentId, Opened>, OpenError> {
    let mut opened = BTreeMap::new();
    for id in names.iter().filter_map(|name| SegmentId::of_file_name(name)) {
        let file = storage.open(&id.file_name()).map_err(|e| unreadable(id, e))?;
        let header = SegmentHeader::read(&*file, id).map_err(|e| unreadable(id, e))?;
        if let HeaderRead::Newer { version, features } = header {
            return Err(OpenError::Newer { file: id.file_name(), version, features });
        }
        opened.insert(id, Opened { file, bytes: 0, header, sound: false });
    }
    Ok(opened)
}

/// Makes a file's content what the medium has; false if that took a second attempt: what a failed sync has lost is lost,
/// and the next one succeeds.
fn settle(file: &dyn StorageFile) -> io::Result<bool> {
    if seeded(Bug::RecoveryWithoutSync) {
        return Ok(true);
    }
    if seeded(Bug::PageCacheTrusted) {
        return file.sync().map(|()| true);
    }
    let Err(cause) = file.settle() else { return Ok(true) };
    warn!(%cause, "a journal file could not be synced; what the disk has of it is used");
    file.settle().map(|()| false)
}

fn beginning_with(segment: Segment, found: &Found) -> Segment {
    let first = found.header.begins();
    Segment { first, void: first, ..segment }
}

pub(super) fn unreadable(segment: SegmentId, cause: io::Error) -> OpenError {
    OpenError::Unreadable { what: segment.file_name(), cause }
}
