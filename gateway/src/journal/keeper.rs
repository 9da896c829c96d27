//! The keeper: looks after the files beside the committer.
//!
//! Operation: it removes or recycles segments that were trimmed, keeps spares ready, and when intake found the journal
//! full and may drop the oldest rows, asks delivery to let go of the oldest segment ([`super::Journal::evict_to`]). All of
//! that may take its time, and none of it holds up a commit.
//!
//! Failure: what the disk refuses is tried again every second, and told as trouble meanwhile.

use std::io;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tracing::warn;

use super::Shared;
use super::intake::{Phase, SPARES};
use crate::record::Offset;

/// How long what failed is left alone, however often somebody asks.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Segments that delivery may open beyond `max_bytes` for those that were let go of.
const RETIRED_MAX: u64 = 2;

/// Segments that stay although they were let go of, from which on no further ones are.
const STUCK_MAX: usize = 4;

/// Looks after the files until the journal closes or fails.
pub(super) fn run(shared: &Shared) {
    let (mut retiring, mut making) = (Pause::default(), Pause::default());
    let mut intake = shared.intake();
    while intake.phase == Phase::Open {
        let (retiring_wait, making_wait) = (retiring.left(), making.left());
        if intake.retire_due && retiring_wait.is_none() {
            drop(intake);
            retiring.after(&retire(shared));
        } else if intake.tidy_due && making_wait.is_none() {
            drop(intake);
            making.after(&make(shared));
        } else if (intake.evict || intake.evict_optional) && !intake.retire_due {
            drop(intake);
            ask_for_eviction(shared);
        } else {
            let patience = [retiring_wait, making_wait].into_iter().flatten().min().unwrap_or(Duration::MAX);
            let waited = shared.preparer.wait_timeout(intake, patience);
            intake = waited.unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        intake = shared.intake();
    }
}

/// Until when something that failed is not tried again.
#[derive(Default)]
struct Pause(Option<Instant>);

impl Pause {
    fn after(&mut self, result: &io::Result<()>) {
        self.0 = result.is_err().then(|| Instant::now() + RETRY_AFTER);
    }

    fn left(&self) -> Option<Duration> {
        self.0.map(|until| until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }
}

/// Does once what is due; what fails stays due.
pub(super) fn tidy(shared: &Shared) -> io::Result<()> {
    let retired = retire(shared);
    let made = make(shared);
    if retired.is_ok() {
        ask_for_eviction(shared);
    }
    retired.and(made)
}

/// Makes room of the segments that were let go of.
fn retire(shared: &Shared) -> io::Result<()> {
    shared.intake().retire_due = false;
    let (files, bytes, retired) = shared.spares.retire(SPARES);
    note_surplus(shared);
    let mut intake = shared.intake();
    intake.retire_due |= retired.is_err();
    if files > 0 {
        intake.live_bytes = intake.live_bytes.saturating_sub(bytes);
        intake.retired = (intake.retired + files).min(RETIRED_MAX);
        // What was refused has room now; if it is not enough, the next refusal asks again.
        (intake.full, intake.evict, intake.evict_optional) = ([false; 2], false, false);
        shared.tell_room(&mut intake);
    }
    drop(intake);
    let trouble = retired.as_ref().err().map(|cause| {
        format!(
            "a journal file that is done with cannot be let go of: {cause}; check the disk under data_dir"
        )
    });
    shared.set_trouble(|intake| &mut intake.retire_trouble, trouble, "journal files can be let go of again");
    // A few files that stay for ever must not keep the others from making room; if all stay, no further rows go for it.
    if retired.is_err() && shared.spares.done_count() < STUCK_MAX {
        ask_for_eviction(shared);
    }
    retired
}

/// Makes the spares that are wanted.
fn make(shared: &Shared) -> io::Result<()> {
    shared.intake().tidy_due = false;
    note_surplus(shared);
    let mut made = Ok(());
    while made.is_ok() && shared.intake().wants_spare() {
        made = shared.spares.make();
        shared.tell_room(&mut shared.intake());
    }
    // Spares that are segments of before say nothing of a disk that had no room for others.
    if made.is_ok() && shared.intake().disk_bytes.is_some() {
        made = shared.spares.find_room();
    }
    let mut intake = shared.intake();
    let had_limit = intake.disk_bytes.take().is_some();
    match &made {
        Ok(()) if had_limit => intake.full = [false; 2],
        Ok(()) => {}
        Err(_) => {
            intake.disk_bytes = Some(intake.file_bytes());
            intake.tidy_due = true;
        }
    }
    drop(intake);
    let trouble = made.as_ref().err().map(|cause| {
        format!("no further journal file can be made: {cause}; make room on the disk under data_dir")
    });
    shared.set_trouble(|intake| &mut intake.spare_trouble, trouble, "journal files can be made again");
    made
}

/// Takes note of what stays though it may be owed to nobody: what long segments take of the room, and whether there are
/// some without a snapshot.
fn note_surplus(shared: &Shared) {
    let segments = shared.segments();
    let (surplus_bytes, chained) = (segments.surplus(shared.shape.segment_bytes), segments.is_chained());
    drop(segments);
    let mut intake = shared.intake();
    (intake.surplus_bytes, intake.chained) = (surplus_bytes, chained);
}

/// Asks delivery to let go of the oldest segment, if intake wants that. Where only sinks lack it for which intake does not
/// wait, these are asked alone, and the others lose nothing.
fn ask_for_eviction(shared: &Shared) {
    let mut intake = shared.intake();
    let of_all = std::mem::take(&mut intake.evict);
    let of_optional = std::mem::take(&mut intake.evict_optional);
    drop(intake);
    if !of_all && !of_optional {
        return;
    }
    let Some(end) = shared.segments().end_of_oldest() else {
        if of_all && !std::mem::replace(&mut shared.intake().too_small, true) {
            warn!(
                "the journal is full, and too small to let go of its oldest rows; raise [journal] max_bytes"
            );
        }
        return;
    };
    let raise = |asked: &tokio::sync::watch::Sender<Offset>| {
        asked.send_if_modified(|to| {
            let moved = *to < end;
            *to = end.max(*to);
            moved
        });
    };
    let is_theirs = shared.intake().is_owed_to_optional_alone(end);
    if is_theirs || of_all {
        raise(&shared.evict_optional_to);
    }
    if of_all && !is_theirs {
        raise(&shared.evict_to);
    }
}
