//! Appends letters: to the file of this life while there is room in it, else to a new one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use tracing::{error, warn};

use super::chain::{Chain, Known, Link, ReadError, State};
use super::file::{END_FILE, Extent, FRAMES_AT, FileNumber, Header, SECTOR_BYTES, sector_up};
use super::frame::{self, Content, Durable, FRAME_BYTES_MAX, Salt};
use super::letter::{Key, Letter, OwnKey, Stage, View};
use super::reader::Damage;
use super::scan::{Scan, Scanned};
use super::{AppendError, Appended, Dropped};
use crate::journal::storage::StorageFile;
use crate::journal::{JournalId, Storage};
use crate::record::Offset;

/// Files in `max_bytes`, unless they would be smaller or larger than the bounds below.
const FILES: u64 = 16;
const FILE_BYTES_MIN: u64 = 32 << 10;
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Most bytes written and synced at once.
const WRITE_BYTES_MAX: u64 = 1 << 20;
/// A file takes up whole blocks on the disk.
const BLOCK_BYTES: u64 = 4 << 10;
/// What is kept free, in files: one into which the file of this life grows, and one that is begun before others go.
const RESERVED_FILES: u64 = 2;

/// Files that are still to be removed, because it has failed.
const STALE_MAX: usize = 1024;

const _: () = assert!(FRAMES_AT + FRAME_BYTES_MAX as u64 + SECTOR_BYTES <= FILE_BYTES_MIN);
const _: () = assert!((RESERVED_FILES + 1) * FILE_BYTES_MIN + BLOCK_BYTES <= super::MAX_BYTES_LEAST);

pub(super) struct Writer {
    storage: Arc<dyn Storage>,
    max_bytes: u64,
    file_bytes: u64,
    /// Whether what follows is known yet.
    recovered: bool,
    /// The files that count.
    files: BTreeMap<FileNumber, Held>,
    dropped: Dropped,
    /// What went since the last append that returned.
    unreported: Dropped,
    /// The newest file that counts, as far as it is durable.
    newest: Option<Extent>,
    /// The file that letters are appended to.
    current: Option<Current>,
    /// What an earlier life wrote of which only its file says that it is durable.
    doubtful: Vec<Doubtful>,
    /// Whether a write has failed that readers may see all the same.
    in_doubt: bool,
    next: FileNumber,
    end_file: Option<Arc<dyn StorageFile>>,
    /// Files to be removed.
    stale: Vec<String>,
}

/// What is in a file.
#[derive(Debug, Default)]
struct Held {
    link: Option<Link>,
    bytes: u64,
    letters: u64,
    rows: u64,
    /// Lowest and highest offset of each sink in each journal.
    ranges: HashMap<(JournalId, Stage, Box<str>), (Offset, Offset)>,
}

/// Something that is written again into another file.
#[derive(Clone)]
enum Doubtful {
    Letter(Letter),
    Gone(OwnKey),
}

struct Current {
    number: FileNumber,
    salt: Salt,
    file: Arc<dyn StorageFile>,
    end: u64,
    letters: u64,
}

impl Writer {
    pub(super) fn new(storage: Arc<dyn Storage>, max_bytes: u64) -> Writer {
        let even = max_bytes / FILES / BLOCK_BYTES * BLOCK_BYTES;
        Writer {
            storage,
            max_bytes,
            file_bytes: even.clamp(FILE_BYTES_MIN, FILE_BYTES_MAX),
            recovered: false,
            files: BTreeMap::new(),
            dropped: Dropped::default(),
            unreported: Dropped::default(),
            newest: None,
            current: None,
            doubtful: Vec::new(),
            in_doubt: false,
            next: FileNumber::default(),
            end_file: None,
            stale: Vec::new(),
        }
    }

    /// What had to go to make room since the directory was made, as far as this writer has read it.
    pub(super) fn dropped(&self) -> Dropped {
        self.dropped
    }

    pub(super) fn append(&mut self, letters: &[Letter]) -> Result<Appended, AppendError> {
        self.prepare()?;
        let fresh: Vec<Content<'_>> = self.fresh(letters)?.into_iter().map(Content::Letter).collect();
        self.write_all(&fresh)?;
        let written = fresh.len() as u64;
        let dropped = std::mem::take(&mut self.unreported);
        Ok(Appended { written, known: letters.len() as u64 - written, dropped })
    }

    /// Writes down that letters do not count any more; those that counted until now, each once.
    pub(super) fn remove<'a>(&mut self, letters: &'a [Letter]) -> Result<Vec<&'a Letter>, AppendError> {
        self.prepare()?;
        let absent: HashSet<Key<'_>> = self.fresh(letters)?.into_iter().map(|view| view.key).collect();
        let (mut seen, mut counted) = (HashSet::new(), Vec::new());
        for letter in letters {
            let key = letter.view().key;
            if !absent.contains(&key) && seen.insert(key) {
                counted.push(letter);
            }
        }
        let gone: Vec<Content<'_>> = counted.iter().map(|letter| Content::Gone(letter.view().key)).collect();
        self.write_all(&gone)?;
        Ok(counted)
    }

    /// Knows what is there, and has written again what was in doubt.
    fn prepare(&mut self) -> Result<(), AppendError> {
        if !self.recovered {
            self.recover()?;
            self.recovered = true;
        }
        if !self.doubtful.is_empty() {
            // All at once, since the file that they go to is the one that excludes their old place.
            let doubtful = std::mem::take(&mut self.doubtful);
            let contents: Vec<Content<'_>> = doubtful.iter().map(Doubtful::content).collect();
            let begun = self.begin(&contents);
            self.doubtful = doubtful;
            begun?;
            self.doubtful = Vec::new();
        }
        if self.in_doubt {
            // Nobody may believe what was not said for good: another file excludes it.
            self.begin(&[])?;
        }
        Ok(())
    }

    fn write_all(&mut self, contents: &[Content<'_>]) -> Result<(), AppendError> {
        let mut rest = contents;
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(self.chunk(rest));
            self.write(chunk)?;
            rest = later;
        }
        Ok(())
    }

    /// Reads what is there.
    fn recover(&mut self) -> Result<(), AppendError> {
        let chain = Chain::read(&self.storage).map_err(|error| match error {
            ReadError::Unreadable { what, cause } => AppendError { what, cause },
            newer @ ReadError::Newer { .. } => failed("the directory")(io::Error::other(newer.to_string())),
        })?;
        self.files.clear();
        self.doubtful.clear();
        let newest = chain.links.last().map(|link| link.number);
        for link in &chain.links {
            let name = link.number.file_name();
            if let State::Missing = link.state {
                Damage::of_missing(link).log();
                // It is named until its turn to be dropped has come.
                self.files.insert(link.number, Held::default());
                self.newest = link.known().filter(|_| Some(link.number) == newest).or(self.newest);
                continue;
            }
            let mut scan = Scan::open(&self.storage, link).map_err(failed(&name))?;
            let mut held = Held { link: Some(*link), ..Held::default() };
            let length = self.storage.open(&name).and_then(|file| file.length()).map_err(failed(&name))?;
            held.bytes = length;
            let is_newest = Some(link.number) == newest;
            let proven = scan.proven();
            while let Some(scanned) = scan.next() {
                match scanned {
                    Scanned::Letter { letter, at } if is_newest && at >= proven.end => {
                        self.doubtful.push(Doubtful::Letter(letter.to_letter()));
                    }
                    Scanned::Letter { letter, .. } => held.add(&letter),
                    Scanned::Gone { key, at } if is_newest && at >= proven.end => {
                        self.doubtful.push(Doubtful::Gone(key.to_own()));
                    }
                    Scanned::Gone { key, .. } => held.add_key(key),
                    Scanned::Lost { from, to, letters } => {
                        Damage { file: name.clone(), from, to, letters }.log();
                    }
                }
            }
            if is_newest {
                self.newest = Some(proven);
            }
            self.files.insert(link.number, held);
        }
        self.dropped = chain.dropped;
        self.stale = chain.stale;
        self.next = chain.highest.next();
        Ok(())
    }

    /// Those that are not there, each once. One that is gone may come again.
    fn fresh<'a>(&self, letters: &'a [Letter]) -> Result<Vec<View<'a>>, AppendError> {
        let views: Vec<View<'a>> = letters.iter().map(Letter::view).collect();
        let mut wanted: HashMap<Key<'_>, usize> = HashMap::with_capacity(views.len());
        let mut fresh: Vec<bool> = Vec::with_capacity(views.len());
        for (place, view) in views.iter().enumerate() {
            fresh.push(*wanted.entry(view.key).or_insert(place) == place);
        }
        for (number, held) in &self.files {
            let Some(link) = held.link.as_ref().filter(|_| wanted.keys().any(|key| held.may_hold(key)))
            else {
                continue;
            };
            let name = number.file_name();
            let mut scan = Scan::open(&self.storage, link).map_err(failed(&name))?;
            while let Some(scanned) = scan.next() {
                match scanned {
                    Scanned::Letter { letter, .. } => {
                        wanted.get(&letter.key).into_iter().for_each(|place| fresh[*place] = false);
                    }
                    Scanned::Gone { key, .. } => {
                        wanted.get(&key).into_iter().for_each(|place| fresh[*place] = true);
                    }
                    Scanned::Lost { .. } => {}
                }
            }
        }
        Ok(views.into_iter().zip(fresh).filter_map(|(view, fresh)| fresh.then_some(view)).collect())
    }

    /// How many of them are written at once.
    fn chunk(&self, contents: &[Content<'_>]) -> usize {
        let bytes = |content: &Content<'_>| content.frame_bytes() as u64;
        let left = self.current.as_ref().map_or(0, |current| self.file_bytes.saturating_sub(current.end));
        let first = contents.first().map_or(0, bytes);
        let room = if first <= left { left } else { self.file_bytes - FRAMES_AT };
        let mut total = 0;
        let fits = |content: &&Content<'_>| {
            total += bytes(content);
            total <= room.min(WRITE_BYTES_MAX)
        };
        contents.iter().take_while(fits).count().max(1)
    }

    fn write(&mut self, letters: &[Content<'_>]) -> Result<(), AppendError> {
        let bytes: u64 = letters.iter().map(|content| content.frame_bytes() as u64).sum();
        if let Some(current) = self.current.take_if(|current| current.end + bytes <= self.file_bytes) {
            match self.extend(&current, letters) {
                Ok(current) => {
                    self.current = Some(current);
                    return Ok(());
                }
                Err(error) => {
                    // What was written may be lost whatever a later sync says.
                    warn!(%error, "dead letters are written again, into a new file");
                }
            }
        }
        self.begin(letters)
    }

    /// Writes letters behind the last ones.
    fn extend(&mut self, current: &Current, letters: &[Content<'_>]) -> io::Result<Current> {
        let mut bytes = Vec::new();
        push_frames(&mut bytes, letters, current.salt, current.letters, current.end);
        let after = Current {
            number: current.number,
            salt: current.salt,
            file: Arc::clone(&current.file),
            end: current.end + bytes.len() as u64,
            letters: current.letters + count_letters(letters),
        };
        if let Some(held) = self.files.get_mut(&current.number) {
            held.bytes = after.end;
        }
        current.file.write_at(&bytes, current.end)?;
        current.file.sync()?;
        self.settle(&after, letters);
        Ok(after)
    }

    /// Begins a file with these letters. Nothing counts of it, nor of what it says of other files, until its name is
    /// durable.
    fn begin(&mut self, letters: &[Content<'_>]) -> Result<(), AppendError> {
        self.current = None;
        self.in_doubt = true;
        self.remove_stale();
        let number = self.next;
        self.next = number.next();
        let (victims, dropped) = self.victims();
        let mut total = self.dropped;
        total.add(dropped);
        let oldest = self.files.keys().nth(victims).copied().unwrap_or(number);
        let random = getrandom::u64().map_err(|e| failed("a salt")(io::Error::other(e.to_string())))?;
        let header =
            Header { number, salt: Salt(random), first: oldest, previous: self.newest, dropped: total };
        let mut bytes = Vec::new();
        header.push(&mut bytes);
        push_frames(&mut bytes, letters, header.salt, 0, FRAMES_AT);
        let file = self.make(number, &bytes)?;

        let gone: Vec<FileNumber> = self.files.keys().take(victims).copied().collect();
        for number in gone {
            self.files.remove(&number);
            self.stale.push(number.file_name());
        }
        self.remove_stale();
        self.dropped = total;
        self.unreported.add(dropped);
        let state = State::Intact(header, None);
        let link = Link { number, state, extent: Known::Nothing };
        let length = bytes.len() as u64;
        self.files.insert(number, Held { link: Some(link), bytes: length, ..Held::default() });
        let current =
            Current { number, salt: header.salt, file, end: length, letters: count_letters(letters) };
        self.settle(&current, letters);
        self.current = Some(current);
        self.in_doubt = false;
        Ok(())
    }

    /// Makes a file with its name durable.
    fn make(&mut self, number: FileNumber, bytes: &[u8]) -> Result<Arc<dyn StorageFile>, AppendError> {
        let (new_name, name) = (number.new_name(), number.file_name());
        let written = self.storage.create(&new_name).and_then(|file| {
            file.write_at(bytes, 0)?;
            file.sync()?;
            self.storage.rename(&new_name, &name)?;
            Ok(file)
        });
        match written {
            Ok(file) => match self.storage.sync_directory() {
                Ok(()) => Ok(file),
                Err(error) => {
                    // The next file's header passes it over, whether it is there after a crash or not.
                    self.stale.push(name);
                    Err(failed("the directory")(error))
                }
            },
            Err(error) => {
                self.stale.extend([new_name, name.clone()]);
                self.remove_stale();
                Err(failed(&name)(error))
            }
        }
    }

    /// How many files have to go before another one is begun, oldest first, and what is in them.
    fn victims(&self) -> (usize, Dropped) {
        let on_disk = |bytes: u64| bytes.next_multiple_of(BLOCK_BYTES);
        let room = self.max_bytes.saturating_sub(RESERVED_FILES * self.file_bytes + BLOCK_BYTES);
        let mut total: u64 = self.files.values().map(|held| on_disk(held.bytes)).sum();
        let mut dropped = Dropped::default();
        let mut count = 0;
        for held in self.files.values() {
            if total <= room {
                break;
            }
            total -= on_disk(held.bytes);
            dropped.add(Dropped { letters: held.letters, rows: held.rows });
            count += 1;
        }
        (count, dropped)
    }

    /// Notes what has become durable.
    fn settle(&mut self, current: &Current, letters: &[Content<'_>]) {
        let extent = Extent { number: current.number, end: current.end, letters: current.letters };
        self.newest = Some(extent);
        if let Some(held) = self.files.get_mut(&current.number) {
            letters.iter().for_each(|content| match content {
                Content::Letter(letter) => held.add(letter),
                Content::Gone(key) => held.add_key(*key),
            });
            held.link = held.link.map(|link| Link { extent: Known::Exactly(extent), ..link });
        }
        // Without it nothing is lost but a proof, so it is neither synced nor worth an error.
        if self.end_file.is_none() {
            self.end_file = self.storage.open(END_FILE).or_else(|_| self.storage.create(END_FILE)).ok();
        }
        let noted = self.end_file.as_ref().map(|file| file.write_at(&extent.encode(), 0));
        if !matches!(noted, Some(Ok(()))) {
            self.end_file = None;
        }
    }

    fn remove_stale(&mut self) {
        // Those that are forgotten here do no harm, and the next life comes across them.
        self.stale.truncate(STALE_MAX);
        let storage = &self.storage;
        self.stale
            .retain(|name| storage.remove(name).is_err_and(|error| error.kind() != io::ErrorKind::NotFound));
    }
}

impl Doubtful {
    fn content(&self) -> Content<'_> {
        match self {
            Doubtful::Letter(letter) => Content::Letter(letter.view()),
            Doubtful::Gone(key) => Content::Gone(key.key()),
        }
    }
}

impl Held {
    fn add(&mut self, letter: &View<'_>) {
        self.letters += 1;
        self.rows = self.rows.saturating_add(letter.rows);
        self.add_key(letter.key);
    }

    /// The file tells of the letter of a key.
    fn add_key(&mut self, key: Key<'_>) {
        let Key { journal, stage, sink, offset } = key;
        let (low, high) = self.ranges.entry((journal, stage, sink.into())).or_insert((offset, offset));
        (*low, *high) = (offset.min(*low), offset.max(*high));
    }

    fn may_hold(&self, key: &Key<'_>) -> bool {
        self.ranges
            .get(&(key.journal, key.stage, key.sink.into()))
            .is_some_and(|(low, high)| (*low..=*high).contains(&key.offset))
    }
}

impl Damage {
    fn log(&self) {
        let Damage { file, from, to, letters } = self;
        error!(%file, from, to, letters, "dead letters are damaged and lost; check the disk under data_dir");
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files, newest {:?}", self.files.len(), self.newest)
    }
}

/// Appends the frames of one append, up to a sector boundary.
fn push_frames(out: &mut Vec<u8>, contents: &[Content<'_>], salt: Salt, first: u64, at: u64) {
    let start = out.len();
    // A file is far shorter than these types can tell.
    let durable = Durable { end: at as u32, letters: first as u32 };
    let mut index = durable.letters;
    for content in contents {
        frame::push(out, content, salt, index, durable);
        index += u32::from(content.is_letter());
    }
    let length = sector_up((out.len() - start) as u64) as usize;
    out.resize(start + length, 0);
}

fn count_letters(contents: &[Content<'_>]) -> u64 {
    contents.iter().filter(|content| content.is_letter()).count() as u64
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> AppendError {
    move |cause| AppendError { what: what.to_owned(), cause }
}
