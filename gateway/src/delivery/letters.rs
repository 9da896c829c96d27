//! Carries what could not be read at intake from the journal to the dead letters.
//!
//! Such input is journaled like everything else, so that its ack costs no flush of its own; the journal keeps it until
//! it is among the dead letters, a moment later.
//!
//! Failure: what cannot be kept is tried again. Where the disk has no room for it, it goes after [`PATIENCE`], counted,
//! since a journal that waits for it could not be trimmed, and would itself hold the room.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::watch;
use tracing::{error, warn};

use crate::dead_letters::{AppendError, DeadLetters, Letter, Stage};
use crate::journal::entry::{Counts, Entry, LetterEntry, LettersEntry};
use crate::journal::{Class, Journal, JournalId, Read, Refused, State};
use crate::record::Offset;

/// How long room on a full disk is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two rounds, so that a flood of letters is carried in few appends.
const PAUSE: Duration = Duration::from_millis(200);
/// Letters, and bytes of them, that are carried at once.
const LETTERS_MAX: usize = 256;
const BYTES_MAX: usize = 512 << 10;

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

/// Whether letters could not be kept because the disk takes nothing.
pub(super) fn has_no_room(error: &AppendError) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.source.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
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
    let mut carrier = Carrier { journal, dead_letters, failing: None };
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
}

/// Letters on their way, and where those before `end` are all among them.
#[derive(Default)]
struct Load {
    letters: Vec<Letter>,
    end: Offset,
}

impl Carrier {
    /// Carries what there is, up to a limit; true if there may be more, or it has to be tried again.
    fn carry(&mut self) -> bool {
        let Some(oldest) = self.journal.with_state(State::oldest_letter) else { return false };
        let Some(load) = self.load(oldest) else { return true };
        if load.end <= oldest {
            return false;
        }
        let unkept = match keep(&self.dead_letters, &load.letters) {
            Ok(()) => {
                self.failing = None;
                false
            }
            Err(error) => {
                let began = *self.failing.get_or_insert_with(|| {
                    warn!(%error, "input that cannot be read waits in the journal");
                    Instant::now()
                });
                if !has_no_room(&error) || began.elapsed() < PATIENCE {
                    return true;
                }
                error!(%error, letters = load.letters.len(), "input that cannot be read is lost: there is no room to keep it");
                true
            }
        };
        let rows: Vec<_> = load.letters.iter().map(|letter| (letter.device.clone(), letter.rows)).collect();
        let kept = LettersEntry { to: load.end, unkept, rows: Counts::of(&rows) };
        let submitted: Result<_, Refused> =
            self.journal.submit(Class::Internal, |_, submission| submission.add(&Entry::Letters(kept)));
        // A journal that takes nothing now is told the next time; the letters are known by then, and kept once.
        submitted.is_err() || load.letters.len() == LETTERS_MAX
    }

    fn load(&self, oldest: Offset) -> Option<Load> {
        let mut reader = self.journal.reader(oldest);
        let (mut load, mut bytes) = (Load { end: oldest, ..Load::default() }, 0);
        loop {
            match reader.next() {
                Ok(Read::Wait) => return Some(load),
                Ok(Read::Damaged { to, .. }) => load.end = to,
                Ok(Read::Frame(frame)) => {
                    for (offset, entry) in frame.entries() {
                        if let Ok(Entry::Letter(entry)) = entry
                            && offset >= oldest
                        {
                            if load.letters.len() == LETTERS_MAX || bytes > BYTES_MAX {
                                return Some(load);
                            }
                            bytes += entry.body.len();
                            load.letters.push(letter(self.journal.id(), offset, &entry));
                        }
                        load.end = offset.plus(1).max(load.end);
                    }
                }
                Err(error) => {
                    warn!("{error}");
                    return None;
                }
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
    use crate::journal::memory::{CallKind, Fault, MemoryStorage};

    fn submit(journal: &Journal, letters: u64) {
        for n in 0..letters {
            let body = format!("{{ {n}");
            let entry = Entry::Letter(LetterEntry {
                device: "d",
                rows: 1,
                ns: 5,
                origin: "sensors/d",
                reason: "no JSON",
                body_bytes: body.len() as u64,
                body: body.as_bytes(),
            });
            let submitted: Result<((), Offset), Refused> =
                journal.submit(Class::Foreign, |_, submission| submission.add(&entry));
            let receipt = submitted.unwrap().1;
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
        Carrier { journal, dead_letters: Arc::new(dead_letters), failing: None }
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

    #[test]
    fn a_full_disk_is_waited_for_before_letters_go_counted() {
        let storage = MemoryStorage::new();
        let mut carrier = carrier(&storage);
        storage.plan(Fault::for_ever(CallKind::Create, 0, io::ErrorKind::StorageFull));
        submit(&carrier.journal, 2);
        assert!(carrier.carry());
        assert!(carrier.journal.with_state(State::oldest_letter).is_some());
        carrier.failing = Instant::now().checked_sub(PATIENCE);
        assert!(!carrier.carry());
        carrier.journal.with_state(|state| {
            let device = state.device("d").unwrap();
            assert_eq!((device.letters, device.gaps.of(crate::journal::entry::Cause::Unkept)), (0, 2));
            assert_eq!(state.oldest_letter(), None);
        });
    }
}
