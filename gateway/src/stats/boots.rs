//! The ledger of promise 3 by boot: what became of the rows of each boot that the state remembers, and of all before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ledger::Held;
use super::{Ledger, Told};
use crate::journal::State;
use crate::journal::state::{DeviceState, Ledger as Account};

/// One device by boot. For each sink the boots and what is of none of them add up to the ledger of the device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boots {
    /// The latest boots, in the order in which they began; none of a foreign device.
    pub boots: Vec<BootLedgers>,
    /// By sink, what is of earlier boots, or was counted before boots were told apart; of a foreign device everything.
    #[serde(rename = "earlier_boots")]
    pub earlier: BTreeMap<String, Ledger>,
}

/// What became of the rows of one boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootLedgers {
    /// The boot.
    pub boot: u32,
    /// By sink.
    pub sinks: BTreeMap<String, Ledger>,
}

impl Boots {
    /// The boots of a device: `told` is what it told of since the gateway started, `in_flight` says how many of its rows a
    /// sink is being sent.
    #[must_use]
    pub fn of(
        state: &State,
        device: &DeviceState,
        told: Option<Told>,
        in_flight: impl Fn(&str) -> u64,
    ) -> Boots {
        let boot = |boot| BootLedgers { boot, sinks: BTreeMap::new() };
        let boots = device.by_boot.iter().map(|known| boot(known.boot)).collect();
        let mut all = Boots { boots, earlier: BTreeMap::new() };
        for (sink, account) in state.ledgers(device) {
            all.add_sink(state, device, (sink, account), told, in_flight(sink));
        }
        all
    }

    fn add_sink(
        &mut self,
        state: &State,
        device: &DeviceState,
        (sink, account): (&str, Account),
        told: Option<Told>,
        in_flight: u64,
    ) {
        let of_boots = device.by_boot.iter().map(|boot| {
            let account = state.ledgers_of_boot(boot).find(|(name, _)| *name == sink);
            let account = account.map(|(_, account)| account).unwrap_or_default();
            Held { rows: boot.rows, letters: 0, gaps: boot.gaps, account }
        });
        let of_boots: Vec<Held> = of_boots.collect();
        let whole = Held::of(device, account);
        let earlier = of_boots.iter().fold(whole, |left, boot| left.without(boot));
        let is_apart = |boot: u32| device.by_boot.iter().any(|known| known.boot == boot);
        let not_yet_received = |boot: Option<u32>| {
            let told = told.filter(|told| boot.map_or(!is_apart(told.boot), |boot| boot == told.boot));
            told.map_or(0, |told| told.not_yet_received(device))
        };
        // What is being sent is what has waited for longest.
        let mut left = in_flight;
        let mut ledger = |held: &Held, boot: Option<u32>| {
            let in_flight = left.min(held.waiting());
            left -= in_flight;
            held.ledger(not_yet_received(boot), in_flight)
        };
        self.earlier.insert(sink.to_owned(), ledger(&earlier, None));
        for (report, held) in self.boots.iter_mut().zip(&of_boots) {
            report.sinks.insert(sink.to_owned(), ledger(held, Some(report.boot)));
        }
    }
}

impl Held {
    fn without(&self, other: &Held) -> Held {
        Held {
            rows: self.rows.saturating_sub(other.rows),
            letters: self.letters.saturating_sub(other.letters),
            gaps: self.gaps.without(&other.gaps),
            account: self.account.without(&other.account),
        }
    }
}
