//! Carries what could not be read at intake from the journal to the dead letters.
//!
//! Such input is journaled like everything else, so that its ack costs no flush of its own; the journal keeps it until
//! it is among the dead letters, a moment later.
//!
//! Failure: what cannot be kept, or not be read from the journal, is tried again. After [`PATIENCE`] it goes, counted,
//! since a journal that waits for it could not be trimmed, and might itself hold the room that is missing. What cannot be
//! read goes up to the end of its segment, and is counted as damaged once nothing else waits.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::watch;
use tracing::{error, warn};

use crate::dead_letters::{AppendError, DeadLetters, Letter, Stage};
use crate::journal::entry::{Counts, ENTRY_BYTES_MAX, Entry, LetterEntry, LettersEntry};
use crate::journal::{Class, Journal, JournalId, Read, ReadError, Refused, State};
use crate::record::Offset;
use crate::stats::RateLimit;

/// How long letters that cannot be kept or read are tried again.
pub(super) const PATIENCE: Duration =
    if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };
/// Pause between two rounds, so that a flood of letters is carried in few appends.
const PAUSE: Duration = Duration::from_millis(200);
/// Letters, and bytes of them, that are carried at once.
const LETTERS_MAX: usize = 256;
const BYTES_MAX: usize = 512 << 10;
/// Bytes of the devices that are named in one entry that tells of letters, which has to fit a frame.
const TOLD_BYTES_MAX: usize = ENTRY_BYTES_MAX / 2;
/// What a count takes besides the name of its device.
const COUNT_BYTES: usize = 12;

/// Makes letters durable, and says what had to go for them.
pub(super) fn keep(dead_letters: &DeadLetters, letters: &[Letter]) -> Result<(), AppendError> {
    let dropped = dead_letters.append(letters)?.dropped;
    if dropped.letters > 0 {
        error!(
            letters = dropped.letters,
            rows = dropped.rows,
            "the oldest dead letters made room for new ones and are lost; raise [dead_letters] max_bytes"
        );
    }
    Ok(())
}

/// Starts the thread, which ends some time after `stop` became true or was dropped.
///
/// # Errors
/// The system gives no thread.
pub fn spawn(
    journal: Journal,
    dead_letters: Arc<DeadLetters>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut carrier = Carrier::new(journal, dead_letters);
    thread::Builder::new().name("dead-letters".into()).spawn(move || {
        runtime.block_on(async {
            let mut watermark = carrier.journal.watermark();
            loop {
                watermark.mark_unchanged();
                let more = carrier.carry();
                let moved = async {
                    if !more {
                        let _ = watermark.changed().await;
                    }
                    tokio::time::sleep(PAUSE).await;
                };
                tokio::select! {
                    () = moved => {}
                    _ = stop.wait_for(|stop| *stop) => break,
                }
            }
            carrier.carry();
        });
    })
}

struct Carrier {
    journal: Journal,
    dead_letters: Arc<DeadLetters>,
    failing: Option<Instant>,
    started: Instant,
    complaints: RateLimit,
    losses: RateLimit,
}

/// Letters on their way, and where those before `end` are all among them.
#[derive(Default)]
struct Load {
    letters: Vec<Letter>,
    end: Offset,
}

impl Carrier {
    fn new(journal: Journal, dead_letters: Arc<DeadLetters>) -> Carrier {
        Carrier {
            journal,
            dead_letters,
            failing: None,
            started: Instant::now(),
            complaints: RateLimit::once_a_minute(),
            losses: RateLimit::once_a_minute(),
        }
    }

    /// Carries what there is, up to a limit; true if there may be more, or it has to be tried again.
    fn carry(&mut self) -> bool {
        let Some(oldest) = self.journal.with_state(State::oldest_letter) else { return false };
        let load = match self.load(oldest) {
            Ok(load) => load,
            Err((at, error)) => return self.wait_or_pass(at, &error),
        };
        if load.end <= oldest {
            return false;
        }
        let submitted = match keep(&self.dead_letters, &load.letters) {
            Ok(()) => {
                self.failing = None;
                self.tell(&load, false)
            }
            Err(error) => {
                let began = *self.failing.get_or_insert_with(|| {
                    warn!(%error, "input that cannot be read waits in the journal");
                    Instant::now()
                });
                if began.elapsed() < PATIENCE {
                    return true;
                }
                let told = self.tell(&load, true);
                if told.is_ok()
                    && let Some(further) = self.losses.allow(self.started.elapsed())
                {
                    let letters = load.letters.len();
                    error!(%error, letters, further, "input that cannot be read is lost: it cannot be kept among the dead letters");
                }
                told
            }
        };
        // A journal that takes nothing now is told the next time; the letters are known by then, and kept once.
        submitted.is_err() || load.letters.len() == LETTERS_MAX
    }

    /// Waits for a medium that refuses to be read; when that has taken too long, goes on in the next segment. True if
    /// there may be more, or it has to be tried again.
    fn wait_or_pass(&mut self, at: Offset, error: &ReadError) -> bool {
        if self.failing.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
            if let Some(further) = self.complaints.allow(self.started.elapsed()) {
                warn!(%error, further, "input that cannot be read waits in the journal");
            }
            return true;
        }
        let end = self.journal.segment_end(at);
        let to = end.unwrap_or_else(|| *self.journal.watermark().borrow());
        if self.tell_rows(to, false, &[]).is_ok() {
            // Another segment has its own time.
            self.failing = None;
            if let Some(further) = self.losses.allow(self.started.elapsed()) {
                error!(%error, %to, further, "input that waited in the journal for the dead letters is lost, as far as it stands before that entry");
            }
        }
        true
    }

    /// Tells the journal that letters are kept or lost, in entries that fit a frame.
    fn tell(&self, load: &Load, unkept: bool) -> Result<(), Refused> {
        let (mut rows, mut bytes) = (HashMap::new(), 0);
        for letter in &load.letters {
            let room = letter.device.len() + COUNT_BYTES;
            if bytes + room > TOLD_BYTES_MAX && !rows.is_empty() {
                self.tell_rows(letter.offset, unkept, &rows.drain().collect::<Vec<_>>())?;
                bytes = 0;
            }
            *rows.entry(letter.device.clone()).or_insert_with(|| {
                bytes += room;
                0
            }) += letter.rows;
        }
        self.tell_rows(load.end, unkept, &rows.into_iter().collect::<Vec<_>>())
    }

    fn tell_rows(&self, to: Offset, unkept: bool, rows: &[(Box<str>, u64)]) -> Result<(), Refused> {
        let entry = Entry::Letters(LettersEntry { to, unkept, rows: Counts::of(rows) });
        self.journal.submit(Class::Internal, |_, submission| submission.add(&entry)).map(drop)
    }

    /// Reads letters, up to a limit or to where the medium refuses.
    ///
    /// # Errors
    /// It refuses to be read at this offset already, and nothing is before that.
    fn load(&self, oldest: Offset) -> Result<Load, (Offset, ReadError)> {
        let mut reader = self.journal.reader(oldest);
        let (mut load, mut bytes) = (Load { end: oldest, ..Load::default() }, 0);
        loop {
            match reader.next() {
                Ok(Read::Wait) => return Ok(load),
                Ok(Read::Damaged { to, .. }) => load.end = to,
                Ok(Read::Frame(frame)) => {
                    for (offset, entry) in frame.entries() {
                        if let Ok(Entry::Letter(entry)) = entry
                            && offset >= oldest
                        {
                            if load.letters.len() == LETTERS_MAX || bytes > BYTES_MAX {
                                return Ok(load);
                            }
                            bytes += entry.body.len();
                            load.letters.push(letter(self.journal.id(), offset, &entry));
                        }
                        load.end = offset.plus(1).max(load.end);
                    }
                }
                // What was read goes first.
                Err(_) if load.end > oldest => return Ok(load),
                Err(error) => return Err((reader.position(), error)),
            }
        }
    }
}

fn letter(journal: JournalId, offset: Offset, entry: &LetterEntry<'_>) -> Letter {
    Letter {
        sink: "".into(),
        journal,
        offset,
        stage: Stage::Intake,
        at_ns: entry.ns,
        device: entry.device.into(),
        rows: entry.rows,
        origin: entry.origin.into(),
        reason: entry.reason.into(),
        body: entry.body.into(),
        body_bytes: entry.body_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::{Found, MAX_BYTES_LEAST, Reader};
    use crate::journal::Options;
    use crate::journal::entry::Cause;
    use crate::journal::memory::{CallKind, Fault, MemoryStorage};

    fn submit(journal: &Journal, letters: u64) {
        submit_of(journal, letters, |_| "d".to_owned());
    }

    fn submit_of(journal: &Journal, letters: u64, device: impl Fn(u64) -> String) {
        for n in 0..letters {
            let body = format!("{{ {n}");
            let entry = Entry::Letter(LetterEntry {
                device: &device(n),
                rows: 1,
                ns: 5,
                origin: "sensors/d",
                reason: "no JSON",
                body_bytes: body.len() as u64,
                body: body.as_bytes(),
            });
            let receipt = loop {
                let submitted: Result<((), Offset), Refused> =
                    journal.submit(Class::Foreign, |_, submission| submission.add(&entry));
                match submitted {
                    // The next segment is still being prepared.
                    Err(Refused::Busy) => thread::yield_now(),
                    submitted => break submitted.unwrap().1,
                }
            };
            while *journal.watermark().borrow() < receipt {
                thread::yield_now();
            }
        }
    }

    fn bodies(storage: &MemoryStorage) -> Vec<String> {
        let found: Result<Vec<Found>, _> = Reader::open(Arc::new(storage.clone())).unwrap().collect();
        let text = |found| match found {
            Found::Letter(letter) => String::from_utf8(letter.body.into()).unwrap(),
            Found::Damage(damage) => panic!("{damage:?}"),
        };
        found.unwrap().into_iter().map(text).collect()
    }

    fn carrier(storage: &MemoryStorage) -> Carrier {
        let journal = Journal::open(Arc::new(MemoryStorage::new()), &Options::sized(2 << 20)).unwrap().0;
        let dead_letters = DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES_LEAST).unwrap();
        Carrier::new(journal, Arc::new(dead_letters))
    }

    #[test]
    fn letters_are_carried_once_and_the_journal_hears_of_it() {
        let storage = MemoryStorage::new();
        let mut carrier = carrier(&storage);
        assert!(!carrier.carry());
        submit(&carrier.journal, 300);
        assert!(carrier.carry(), "more than fit at once");
        assert!(!carrier.carry());
        assert_eq!(bodies(&storage), (0..300).map(|n| format!("{{ {n}")).collect::<Vec<_>>());
        assert_eq!(carrier.journal.with_state(State::oldest_letter), None);
        let letters = |journal: &Journal| journal.with_state(|state| state.device("d").unwrap().letters);
        assert_eq!(letters(&carrier.journal), 300);
        submit(&carrier.journal, 1);
        assert!(!carrier.carry());
        assert_eq!((bodies(&storage).len(), letters(&carrier.journal)), (301, 301));
    }

    /// A carrier whose journal holds so many letters, on a medium that refuses to be read.
    fn unreadable(count: u64, letters: &MemoryStorage) -> Carrier {
        let storage = MemoryStorage::new();
        let open = || Journal::open(Arc::new(storage.clone()), &Options::sized(2 << 20)).unwrap().0;
        let journal = open();
        submit(&journal, count);
        journal.close();
        drop(journal);
        let mut carrier = carrier(letters);
        // What was written before is read from the disk.
        carrier.journal = open();
        storage.plan(Fault::for_ever(CallKind::Read, 0, io::ErrorKind::Other));
        carrier
    }

    #[test]
    fn a_journal_that_cannot_be_read_is_complained_about_now_and_then() {
        let mut carrier = unreadable(1, &MemoryStorage::new());
        assert!(carrier.carry() && carrier.carry() && carrier.carry());
        assert_eq!(carrier.complaints.allow(Duration::from_secs(3600)), Some(2));
    }

    #[test]
    fn a_journal_that_cannot_be_read_is_waited_for_before_letters_go_counted() {
        let letters = MemoryStorage::new();
        let mut carrier = unreadable(2, &letters);
        assert!(carrier.carry());
        assert!(carrier.journal.with_state(State::oldest_letter).is_some());
        carrier.failing = Instant::now().checked_sub(PATIENCE);
        assert!(carrier.carry());
        carrier.journal.with_state(|state| {
            let device = state.device("d").unwrap();
            assert_eq!((device.letters, device.gaps.of(Cause::Damaged)), (0, 2));
            assert_eq!(state.oldest_letter(), None);
        });
        // What comes later is still in memory, and carried.
        submit(&carrier.journal, 1);
        assert!(!carrier.carry());
        assert_eq!(bodies(&letters), ["{ 0"]);
        assert_eq!(carrier.journal.with_state(State::oldest_letter), None);
    }

    #[test]
    fn what_cannot_be_kept_is_waited_for_before_it_goes_counted() {
        for error in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            let storage = MemoryStorage::new();
            let mut carrier = carrier(&storage);
            storage.plan(Fault::for_ever(CallKind::Create, 0, error));
            submit(&carrier.journal, 2);
            assert!(carrier.carry());
            assert!(carrier.journal.with_state(State::oldest_letter).is_some());
            carrier.failing = Instant::now().checked_sub(PATIENCE);
            assert!(!carrier.carry());
            carrier.journal.with_state(|state| {
                let device = state.device("d").unwrap();
                assert_eq!((device.letters, device.gaps.of(Cause::Unkept)), (0, 2));
                assert_eq!(state.oldest_letter(), None);
            });
        }
    }

    #[test]
    fn letters_of_many_devices_go_counted_too() {
        let storage = MemoryStorage::new();
        let mut carrier = carrier(&storage);
        storage.plan(Fault::for_ever(CallKind::Create, 0, io::ErrorKind::Other));
        submit_of(&carrier.journal, 100, |n| format!("{n:0300}"));
        carrier.failing = Instant::now().checked_sub(PATIENCE);
        assert!(!carrier.carry());
        let lost = carrier.journal.with_state(|state| {
            assert_eq!(state.oldest_letter(), None);
            state.devices().iter().map(|device| device.gaps.of(Cause::Unkept)).sum::<u64>()
        });
        assert_eq!(lost, 100);
    }

    #[test]
    fn letters_that_make_room_for_others_are_counted_over_starts() {
        let storage = MemoryStorage::new();
        let carrier = carrier(&storage);
        let of = |number: u64| Letter {
            sink: "main".into(),
            journal: carrier.journal.id(),
            offset: Offset(number),
            stage: Stage::Delivery,
            at_ns: 5,
            device: "d".into(),
            rows: 2,
            origin: "".into(),
            reason: "no".into(),
            body: vec![b'x'; 8 << 10].into(),
            body_bytes: 8 << 10,
        };
        let stats = crate::stats::Stats::new(0);
        assert_eq!(stats.dead_letters_dropped().letters, 0);
        stats.set_dead_letters(&carrier.dead_letters);
        for number in 0..100 {
            keep(&carrier.dead_letters, &[of(number)]).unwrap();
        }
        let dropped = stats.dead_letters_dropped();
        assert_eq!(dropped.letters, 100 - bodies(&storage).len() as u64);
        assert!(dropped.letters > 0 && dropped.rows == 2 * dropped.letters, "{dropped:?}");
        let again = DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES_LEAST).unwrap();
        assert_eq!(again.dropped(), dropped, "it is known before anything is written");
    }

    #[test]
    fn a_failed_journal_is_not_told_that_letters_are_lost() {
        let storage = MemoryStorage::new();
        let mut carrier = carrier(&storage);
        submit(&carrier.journal, 1);
        storage.plan(Fault::for_ever(CallKind::Create, 0, io::ErrorKind::Other));
        carrier.journal.close();
        carrier.failing = Instant::now().checked_sub(PATIENCE);
        assert!(carrier.carry());
        assert_eq!(carrier.losses.allow(carrier.started.elapsed()), Some(0), "nothing was said of a loss");
    }
}
