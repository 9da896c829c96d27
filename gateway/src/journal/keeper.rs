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

/// How long what failed is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Segments that delivery may open beyond `max_bytes` for those that were let go of.
const RETIRED_MAX: u64 = 2;

/// Looks after the files until the journal closes or fails.
pub(super) fn run(shared: &Shared) {
    // Until when what failed is left alone, however often somebody asks.
    let mut paused_until: Option<Instant> = None;
    let mut intake = shared.intake();
    while intake.phase == Phase::Open {
        paused_until = paused_until.filter(|until| Instant::now() < *until);
        if intake.tidy_due && paused_until.is_none() {
            drop(intake);
            if tidy(shared).is_err() {
                paused_until = Some(Instant::now() + RETRY_AFTER);
            }
            intake = shared.intake();
        } else if intake.evict {
            drop(intake);
            ask_for_eviction(shared);
            intake = shared.intake();
        } else {
            let patience = paused_until.map_or(Duration::MAX, |until| until - Instant::now());
            let waited = shared.preparer.wait_timeout(intake, patience);
            intake = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Does once what is due; what fails stays due.
pub(super) fn tidy(shared: &Shared) -> io::Result<()> {
    shared.intake().tidy_due = false;
    let (files, bytes, retired) = shared.spares.retire(SPARES);
    let surplus_bytes = shared.segments().surplus(shared.shape.segment_bytes);
    shared.intake().surplus_bytes = surplus_bytes;
    if files > 0 {
        let mut intake = shared.intake();
        intake.live_bytes = intake.live_bytes.saturating_sub(bytes);
        intake.retired = (intake.retired + files).min(RETIRED_MAX);
        // What was refused has room now; if it is not enough, the next refusal asks again.
        (intake.full, intake.evict) = ([false; 2], false);
        shared.tell_room(&mut intake);
    }
    let mut made = retired;
    while made.is_ok() && shared.intake().wants_spare() {
        made = shared.spares.make();
        shared.tell_room(&mut shared.intake());
    }
    shared.set_spare_trouble(made.as_ref().err());
    shared.intake().tidy_due |= made.is_err();
    ask_for_eviction(shared);
    made
}

/// Asks delivery to let go of the oldest segment, if intake wants that.
fn ask_for_eviction(shared: &Shared) {
    if !std::mem::take(&mut shared.intake().evict) {
        return;
    }
    let Some(end) = shared.segments().end_of_oldest() else {
        if !std::mem::replace(&mut shared.intake().too_small, true) {
            warn!(
                "the journal is full, and too small to let go of its oldest rows; raise [journal] max_bytes"
            );
        }
        return;
    };
    shared.evict_to.send_if_modified(|to| {
        let moved = *to < end;
        *to = end.max(*to);
        moved
    });
}
