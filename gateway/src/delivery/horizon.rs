//! How far all databases are that an ack waits for, where `[ack] after = "database"`.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::record::Offset;

/// The offset below which every one of the databases has confirmed, refused or skipped everything.
#[derive(Debug, Default)]
pub struct Horizon {
    reached: Mutex<Vec<Offset>>,
    lowest: watch::Sender<Offset>,
}

/// One database's part in a [`Horizon`].
#[derive(Clone, Debug)]
pub struct Reached {
    horizon: Arc<Horizon>,
    number: usize,
}

impl Horizon {
    /// Another database to wait for; to be called for each of them before any of them starts.
    #[must_use]
    pub fn add(self: &Arc<Self>) -> Reached {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.push(Offset(0));
        Reached { horizon: Arc::clone(self), number: reached.len() - 1 }
    }

    /// The offset, and news of it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Offset> {
        self.lowest.subscribe()
    }
}

impl Reached {
    /// The database is done with everything below `offset`, all of which is durable in the journal.
    pub fn reach(&self, offset: Offset) {
        let mut reached = self.horizon.reached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = reached.get_mut(self.number) {
            *own = offset.max(*own);
        }
        let now = reached.iter().copied().min().unwrap_or_default();
        self.horizon.lowest.send_if_modified(|lowest| {
            let moved = now > *lowest;
            *lowest = now.max(*lowest);
            moved
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_database_is_waited_for_and_nothing_goes_back() {
        let horizon = Arc::new(Horizon::default());
        let (one, other) = (horizon.add(), horizon.add());
        let lowest = horizon.subscribe();
        one.reach(Offset(7));
        assert_eq!(*lowest.borrow(), Offset(0));
        other.reach(Offset(5));
        assert_eq!(*lowest.borrow(), Offset(5));
        other.reach(Offset(3));
        one.reach(Offset(9));
        assert_eq!(*lowest.borrow(), Offset(5));
        other.reach(Offset(20));
        assert_eq!(*lowest.borrow(), Offset(9));
    }
}
