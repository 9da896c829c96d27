//! What a driver waits for besides rows: the time of the next attempt, a sink that answers again, its pace.
//!
//! No wait outlives the word to stop, nor the moment at which the journal needs room of this sink.

use std::time::Instant;

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::driver::{Driver, EVICT_GRACE, Stopping};
use crate::record::Offset;
use crate::sink::Sink;

impl<S: Sink> Driver<S> {
    /// Waits, unless the driver is to stop: a sink that fails now is not waited for.
    pub(super) async fn wait(&mut self, until: Instant) -> Result<(), Stopping> {
        if self.is_stopping() {
            return Err(Stopping);
        }
        tokio::select! {
            () = at(Some(until)) => Ok(()),
            _ = self.evict_to.changed() => Ok(()),
            _ = self.stop.changed() => if self.is_stopping() { Err(Stopping) } else { Ok(()) },
        }
    }

    /// Waits before the next attempt; not any longer than until a sink that was gone answers again.
    pub(super) async fn wait_for_sink(&mut self, until: Instant) -> Result<(), Stopping> {
        let look_at = Instant::now() + self.delivery.pause_before_look();
        self.wait(until.min(look_at)).await?;
        if Instant::now() < look_at || look_at >= until {
            return Ok(());
        }
        let is_back = tokio::select! {
            is_back = self.sink.is_back() => is_back,
            _ = self.evict_to.changed() => false,
            _ = self.stop.changed() => false,
            () = at(Some(until)) => false,
        };
        if is_back {
            self.delivery.handle_return();
        }
        Ok(())
    }

    /// Waits until the pace allows the next request.
    pub(super) async fn wait_at_pace(&mut self) -> Result<(), Stopping> {
        match self.pace.free_at() {
            // Whoever stops has little time, and what it sends then is little.
            Some(free_at) if !self.is_stopping() => self.wait(free_at).await,
            _ => {
                self.pace.clear();
                Ok(())
            }
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }
}

/// Completes when a write has had its time although the journal needs room; its outcome is then unknown.
pub(super) async fn patience(mut evict_to: watch::Receiver<Offset>, accounted: Offset) {
    match evict_to.wait_for(|to| *to > accounted).await {
        Ok(_) => sleep(EVICT_GRACE).await,
        Err(_) => std::future::pending().await,
    }
}

/// Completes at `due`, or never.
pub(super) async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
