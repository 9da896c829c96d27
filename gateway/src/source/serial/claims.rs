//! Who has which port: no two `[[serial]]` ever have the same one, and one that was given up is left alone for a while.
//!
//! | the port | what becomes of it | the pause before the next try |
//! |---|---|---|
//! | hung up, or its path leads elsewhere | free at once | none |
//! | could not be opened, or another process has it | rests | 250 ms, doubled up to 10 s |
//! | brought nothing valid | rests, so that others can have it | 10 s, doubled up to 10 min |
//! | is not there any more | forgotten, with its failures | none: what comes back may be another device |
//!
//! A port that brought something valid has its failures forgotten. Bounded by [`PORTS_MAX`] ports that are served, and by
//! the ports that are there for those that rest.

use std::collections::BTreeMap;

use forebay_shared::ids::Millis;

use crate::ports::PortId;

/// Most ports that are served at once; each costs two threads.
pub(super) const PORTS_MAX: usize = 128;

/// First and longest pause after a port could not be opened, in milliseconds.
const FAILED_MS: (u32, u32) = (250, 10_000);

/// First and longest pause after a port brought nothing valid, in milliseconds.
const FOREIGN_MS: (u32, u32) = (10_000, 600_000);

/// Why a port is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It is served already, for the `[[serial]]` of that number.
    Served(usize),
    /// It rests.
    Resting,
    /// As many ports are served as may be.
    Full,
}

/// How the serving of a port ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It hung up, or is not wanted any more.
    Gone {
        /// Something valid had come.
        valid: bool,
    },
    /// It could not be opened.
    Failed,
    /// Nothing valid came.
    Foreign,
}

/// All claims.
#[derive(Debug, Default)]
pub(super) struct Claims {
    ports: BTreeMap<PortId, Claim>,
}

#[derive(Debug)]
struct Claim {
    /// For whom it is served now.
    by: Option<usize>,
    failures: u32,
    rests_until: Millis,
}

impl Claims {
    /// Claims a port for the `[[serial]]` of the number `by`.
    pub(super) fn claim(&mut self, now: Millis, id: PortId, by: usize) -> Result<(), Denied> {
        let served = self.ports.values().filter(|claim| claim.by.is_some()).count();
        match self.ports.get(&id) {
            Some(Claim { by: Some(by), .. }) => return Err(Denied::Served(*by)),
            Some(claim) if now < claim.rests_until => return Err(Denied::Resting),
            _ if served >= PORTS_MAX => return Err(Denied::Full),
            _ => {}
        }
        let claim = self.ports.entry(id).or_insert(Claim { by: None, failures: 0, rests_until: now });
        claim.by = Some(by);
        Ok(())
    }

    /// Gives a claimed port back. Says how long it rests, in milliseconds.
    pub(super) fn release(&mut self, now: Millis, id: PortId, end: End) -> u32 {
        let Some(claim) = self.ports.get_mut(&id) else { return 0 };
        claim.by = None;
        let (first, longest) = match end {
            End::Gone { valid } => {
                if valid {
                    claim.failures = 0;
                }
                claim.rests_until = now;
                return 0;
            }
            End::Failed => FAILED_MS,
            End::Foreign => FOREIGN_MS,
        };
        let pause = first.saturating_mul(1 << claim.failures.min(16)).min(longest);
        claim.failures = claim.failures.saturating_add(1);
        claim.rests_until = now.plus(pause);
        pause
    }

    /// Forgets ports that are neither served nor there.
    pub(super) fn keep(&mut self, is_there: impl Fn(PortId) -> bool) {
        self.ports.retain(|id, claim| claim.by.is_some() || is_there(*id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> PortId {
        PortId::new(number)
    }

    #[test]
    fn a_port_has_one_owner_and_is_free_again_when_it_hangs_up() {
        let mut claims = Claims::default();
        assert_eq!(claims.claim(Millis(0), id(1), 0), Ok(()));
        assert_eq!(claims.claim(Millis(0), id(1), 1), Err(Denied::Served(0)));
        assert_eq!(claims.claim(Millis(0), id(2), 1), Ok(()));
        assert_eq!(claims.release(Millis(5), id(1), End::Gone { valid: false }), 0);
        assert_eq!(claims.claim(Millis(5), id(1), 1), Ok(()));
    }

    #[test]
    fn a_foreign_port_rests_longer_each_time_and_one_that_came_back_begins_anew() {
        let mut claims = Claims::default();
        let mut now = Millis(0);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            claims.claim(now, id(1), 0).unwrap();
            let pause = claims.release(now, id(1), End::Foreign);
            pauses.push(pause);
            assert_eq!(claims.claim(now.plus(pause - 1), id(1), 0), Err(Denied::Resting));
            now = now.plus(pause);
        }
        assert_eq!(pauses, [10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 600_000, 600_000]);
        claims.keep(|_| true);
        claims.claim(now, id(1), 0).unwrap();
        assert_eq!(claims.release(now, id(1), End::Foreign), 600_000);
        claims.keep(|_| false);
        claims.claim(now, id(1), 0).unwrap();
        assert_eq!(claims.release(now, id(1), End::Foreign), 10_000);
    }

    #[test]
    fn what_cannot_be_opened_is_tried_soon_and_success_forgets_failures() {
        let mut claims = Claims::default();
        let mut now = Millis(0);
        let mut fail = |claims: &mut Claims| {
            claims.claim(now, id(1), 0).unwrap();
            let pause = claims.release(now, id(1), End::Failed);
            now = now.plus(pause);
            pause
        };
        let pauses: Vec<u32> = (0..7).map(|_| fail(&mut claims)).collect();
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000]);
        claims.claim(Millis(1_000_000), id(1), 0).unwrap();
        claims.release(Millis(1_000_000), id(1), End::Gone { valid: true });
        claims.claim(Millis(1_000_000), id(1), 0).unwrap();
        assert_eq!(claims.release(Millis(1_000_000), id(1), End::Failed), 250);
    }

    #[test]
    fn no_more_ports_are_served_than_may_be_and_served_ones_are_never_forgotten() {
        let mut claims = Claims::default();
        for number in 0..PORTS_MAX as u64 {
            claims.claim(Millis(0), id(number), 0).unwrap();
        }
        assert_eq!(claims.claim(Millis(0), id(999), 0), Err(Denied::Full));
        claims.keep(|_| false);
        assert_eq!(claims.claim(Millis(0), id(7), 1), Err(Denied::Served(0)));
    }
}
