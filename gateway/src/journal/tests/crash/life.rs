//! A life of the journal: one thread that does what the threads would, in an order that follows from a seed.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use super::names::{Rng, SINKS};
use super::oracle;
use super::tap::{Known, Meanwhile, Tap};
use super::world::World;
use crate::journal::bugs::anew;
use crate::journal::end::SLOT_BYTES;
use crate::journal::memory::{CallKind, Fault, MemoryStorage};
use crate::journal::pending::Shape;
use crate::journal::writer::{CommitError, Committer};
use crate::journal::{JournalId, Options, Shared, WhenFull};
use crate::record::MachineBoot;

/// Rows that fill a frame.
const FRAME_ROWS: u64 = 8;
const FRAME_BYTES: usize = 600;
/// From this seed on, workloads have early rows; those before are what they were when there were none.
pub(super) const EARLY_FROM: u64 = 8;

/// Size and habits of a journal.
#[derive(Clone, Copy)]
pub(super) struct Profile {
    pub(super) shape: Shape,
    pub(super) options: Options,
    /// Whether the clock is not believed now and then, and rows are early.
    pub(super) early: bool,
}

/// An open journal under observation.
pub(super) struct Life {
    world: Arc<World>,
    committer: Committer,
    rng: Rng,
    /// Whether the journal has failed, as it must after two failures in a row.
    pub(super) over: bool,
    /// What all files may take.
    limit_bytes: u64,
}

impl Profile {
    pub(super) fn of(seed: u64) -> Profile {
        let segment_bytes = [4096, 6144, 8192][(seed % 3) as usize];
        let segments = 6 + seed / 3 % 4;
        let when_full = [WhenFull::DropOldest, WhenFull::Auto, WhenFull::DropOldest, WhenFull::Refuse];
        let when_full = when_full[(seed / 2 % 4) as usize];
        let options = Options { when_full, ..Options::sized(4096 + segments * segment_bytes) };
        let early = seed >= EARLY_FROM;
        Profile { shape: Shape { segment_bytes, frame_bytes: FRAME_BYTES }, options, early }
    }

    pub(super) fn device_bytes_max(&self) -> usize {
        self.shape.segment_bytes as usize / 4
    }
}

impl Life {
    /// Opens what is there and judges it.
    pub(super) fn open(tap: Tap, profile: Profile, rng: Rng) -> Result<Life, String> {
        let known = tap.known();
        let start_bytes = tap.peak_bytes();
        // Every life offers another identity, and none but the first may be taken.
        let offered = JournalId(rng.clone().next());
        let open = || Shared::open(Arc::new(tap.clone()), &profile.options, profile.shape, offered);
        let opened = if offered.0.is_multiple_of(2) { anew(open) } else { open() };
        let (shared, committer, report) = opened.map_err(|cause| format!("it does not open: {cause}"))?;
        let end = oracle::judge_opened(&shared, &report, &known, profile.device_bytes_max())?;
        tap.learn(|known| {
            let view = Arc::make_mut(&mut known.view);
            view.truncate(end);
            view.journal = Some(shared.journal);
            known.acked = end;
        });
        tap.follow(shared.watermark.subscribe());
        let spared = if end > 0 { profile.shape.segment_bytes } else { 0 };
        // Two may have to begin so that those can go which go on for given-up ones.
        let chain_bytes = if shared.segments().is_chained() { 2 * profile.shape.segment_bytes } else { 0 };
        // A mark of the end may be made beside that one.
        let found_bytes = start_bytes + 2 * SLOT_BYTES as u64;
        let limit_bytes = found_bytes.max(profile.options.max_bytes) + spared + chain_bytes;
        let machine = MachineBoot(offered.0 % 3);
        let world = World { shared, tap, profile, machine, trouble: Mutex::new(None) };
        Ok(Life { world: Arc::new(world), committer, rng, over: false, limit_bytes })
    }

    /// Does the next thing, whatever it is.
    pub(super) fn step(&mut self) -> Result<(), String> {
        let world = Arc::clone(&self.world);
        match self.rng.below(100) {
            0..22 => drop(world.rows(self.rng.next(), 1)),
            22..25 => drop(world.rows(self.rng.next(), 3)),
            25..40 => drop(world.rows(self.rng.next(), FRAME_ROWS * (1 + self.rng.clone().below(3)))),
            40..43 => world.boot(self.rng.next()),
            43..45 => world.lost(self.rng.next()),
            45..48 => world.letter(self.rng.next()),
            48..51 => world.letters(self.rng.next()),
            51..54 => world.sink(self.rng.next()),
            54 => world.forget(self.rng.next()),
            55..65 => world.deliver(self.rng.next()),
            65..68 => world.tidy(),
            68..70 => self.committer.mark(),
            70..72 => world.read(self.rng.next())?,
            72..75 => self.fault()?,
            75..77 => self.restart()?,
            77..80 if world.profile.early => world.fix(self.rng.next()),
            _ => self.commit()?,
        }
        self.judge()
    }

    /// Appends as much as a frame holds and makes it durable.
    pub(super) fn append_a_frame(&mut self) -> Result<(), String> {
        self.world.rows(self.rng.next(), FRAME_ROWS);
        self.commit()?;
        self.judge()
    }

    /// Lets every sink confirm everything, upon which rows must be taken again however full the journal was; after a start,
    /// where delivery has used up the reserve and confirmed nothing for it.
    pub(super) fn empty(&mut self) -> Result<(), String> {
        self.world.tap.inner().heal();
        for attempt in 0..8 {
            if attempt == 4 {
                if self.world.confirms_again() {
                    break;
                }
                // With the reserve used up, delivery waits for the next start.
                self.restart()?;
            }
            self.world.fix(0);
            self.commit()?;
            self.world.sink(0);
            (0..SINKS.len()).for_each(|sink| self.world.confirm_all(SINKS[sink]));
            self.world.letters(1);
            self.commit()?;
            self.world.tidy();
            self.judge()?;
            if self.over || self.world.rows(1, 1) {
                return Ok(());
            }
        }
        Err(format!("no row is taken though everything is confirmed: {:?}", self.world.shared.intake().tail))
    }

    /// Ends in good order; returns what is left and known.
    pub(super) fn close(mut self) -> Result<(MemoryStorage, Known), String> {
        self.world.tap.inner().heal();
        self.commit()?;
        self.world.tidy();
        self.commit()?;
        self.world.tidy();
        self.commit()?;
        self.committer.mark();
        self.judge()?;
        Ok((self.world.tap.inner(), self.world.tap.known()))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.world.shared
    }

    fn judge(&self) -> Result<(), String> {
        if let Some(trouble) = self.world.trouble.lock().unwrap().take() {
            return Err(trouble);
        }
        let peak = self.world.tap.peak_bytes();
        // What could not be written goes into another file, whatever the limit.
        let rewrites = self.world.shared.intake().commits.rewrites;
        let chain = if rewrites > 0 { 2 } else { 0 };
        let limit = self.limit_bytes + (rewrites + chain) * self.world.profile.shape.segment_bytes;
        if peak > limit {
            return Err(format!("the files take {peak} bytes, and may take {limit}"));
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), String> {
        let (calls, what) = (self.rng.below(4), self.rng.next());
        let meanwhile = self.rng.one_in(2).then(|| self.meanwhile(what));
        self.world.tap.meanwhile(calls, meanwhile);
        let committed = self.committer.commit();
        self.world.tap.meanwhile(0, None);
        match committed {
            Ok(()) | Err(CommitError::Full(_)) => {}
            Err(CommitError::Failed(_)) => self.over = true,
        }
        if !self.rng.one_in(3) {
            self.world.tidy();
        }
        Ok(())
    }

    /// What another thread does while the committer waits for the disk.
    fn meanwhile(&self, what: u64) -> Meanwhile {
        let world = Arc::clone(&self.world);
        let kinds = if world.profile.early { 5 } else { 4 };
        Box::new(move || match what % kinds {
            0 => drop(world.rows(what, 1)),
            1 => drop(world.rows(what, FRAME_ROWS)),
            2 => world.tidy(),
            3 if world.profile.early => world.deliver(what),
            _ => {
                if let Err(trouble) = world.read(what) {
                    *world.trouble.lock().unwrap() = Some(trouble);
                }
            }
        })
    }

    /// Lets the disk fail once, during a commit that has something to do.
    fn fault(&mut self) -> Result<(), String> {
        self.world.rows(self.rng.next(), FRAME_ROWS * (1 + self.rng.clone().below(2)));
        let disk = self.world.tap.inner();
        let (kind, error) = match self.rng.below(5) {
            0 | 1 => (CallKind::Sync, ErrorKind::Other),
            2 => (CallKind::SyncDirectory, ErrorKind::Other),
            3 => (CallKind::Write, ErrorKind::Other),
            _ => (CallKind::Write, ErrorKind::StorageFull),
        };
        let nth = disk.calls_of(kind) + self.rng.below(3);
        disk.plan(Fault::once(kind, nth, error).after_writing(self.rng.below(3) as usize));
        self.commit()
    }

    /// Ends the process, in good order or not, and starts another.
    fn restart(&mut self) -> Result<(), String> {
        let clean = self.rng.one_in(2);
        if clean {
            self.commit()?;
            self.committer.mark();
        }
        self.world.tap.kill();
        *self = Life::open(self.world.tap.clone(), self.world.profile, Rng(self.rng.next()))?;
        Ok(())
    }
}
