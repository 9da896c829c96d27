//! How a test with a gateway ends: with `forebay audit`, which holds the gateway's own ledger against what the databases count.
//! [`Gateway::close`](crate::gateway::Gateway::close) wants it to be exact; a gateway that is ended otherwise, or dropped, may
//! have rows on their way, but no row too few or too many.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde_json::Value;

/// What the audit at the end is to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Closing {
    /// Every sink holds exactly the points that the ledger says.
    #[default]
    Exact,
    /// The same, but for rows of which the ledger itself says that it does not know; for tests that bring it to that.
    Consistent,
    /// A sink cannot be counted, and the reason has these words.
    Unverifiable(&'static str),
    /// There is no audit, for this reason.
    Unaudited(&'static str),
}

impl Closing {
    /// Holds an audit, as `forebay audit --json` prints it, against what it is to say.
    ///
    /// # Errors
    /// It says something else.
    pub fn check(self, audit: &Value) -> anyhow::Result<()> {
        let verdict = audit["verdict"].as_str().context("an audit without a verdict")?;
        let is_as_wanted = match self {
            Closing::Exact => verdict == "exact",
            Closing::Consistent => matches!(verdict, "exact" | "consistent"),
            Closing::Unverifiable(words) => {
                verdict == "unverifiable" && audit["sinks"].to_string().contains(words)
            }
            Closing::Unaudited(_) => true,
        };
        anyhow::ensure!(is_as_wanted, "{self:?} was wanted of the audit:\n{audit:#}");
        anyhow::ensure!(Closing::boots_add_up(audit), "boots do not add up to their device:\n{audit:#}");
        Ok(())
    }

    /// Whether the rows of each native device in each sink are those of its boots.
    #[must_use]
    pub fn boots_add_up(audit: &Value) -> bool {
        let sinks = audit["sinks"].as_object().into_iter().flat_map(|sinks| sinks.values());
        let mut devices =
            sinks.flat_map(|sink| sink["devices"].as_object().into_iter().flat_map(|all| all.values()));
        let adds_up = |device: &Value| {
            let boots = device["boots"].as_array().map_or(&[][..], Vec::as_slice);
            let accounts: BTreeSet<&str> = boots.iter().filter_map(|boot| boot["device"].as_str()).collect();
            let rows = |value: &Value| value.as_u64().unwrap_or(u64::MAX / 16);
            let confirmed: u64 = boots.iter().map(|boot| rows(&boot["confirmed"])).sum();
            // Foreign devices of the same name have no boots.
            accounts.len() < device["accounts"].as_array().map_or(1, Vec::len).max(1)
                || confirmed == rows(&device["confirmed"])
        };
        devices.all(adds_up)
    }

    /// Whether every row of a ledger, as `/api/v1/status` has it for a device in a sink, is somewhere, and none twice.
    #[must_use]
    pub fn balances(ledger: &Value) -> bool {
        let rows = |name: &str| ledger[name].as_u64().unwrap_or(u64::MAX / 16);
        let places = ["confirmed", "queued", "unconfirmed", "dead_lettered", "not_yet_received"];
        let gaps = ledger["gaps"].as_object().into_iter().flat_map(|gaps| gaps.values());
        let lost: u64 = gaps.map(|rows| rows.as_u64().unwrap_or(u64::MAX / 16)).sum();
        rows("learned") == places.into_iter().map(rows).sum::<u64>() + lost
    }

    /// How many rows the databases have lost that they had confirmed, by a `/api/v1/status`.
    #[must_use]
    pub fn lost_with_a_store(status: &Value) -> u64 {
        let all =
            |value: &Value| value.as_object().into_iter().flat_map(|map| map.values().cloned()).collect();
        let devices: Vec<Value> = all(&status["devices"]);
        let sinks = devices.iter().flat_map(|device| -> Vec<Value> { all(&device["sinks"]) });
        sinks.filter_map(|sink| sink["gaps"]["sink_reset"].as_u64()).sum()
    }

    /// Holds an audit in the middle of a life against it: rows may be on their way, and a database away, but nothing may be
    /// missing, and nothing there that the ledger does not know.
    ///
    /// # Errors
    /// Something is.
    pub fn check_midway(self, audit: &Value) -> anyhow::Result<()> {
        let is_different = audit["verdict"] == "difference";
        anyhow::ensure!(!is_different || matches!(self, Closing::Unaudited(_)), "the audit:\n{audit:#}");
        anyhow::ensure!(Closing::boots_add_up(audit), "boots do not add up to their device:\n{audit:#}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Closing;

    #[test]
    fn a_ledger_with_a_row_too_many_or_too_few_does_not_balance() {
        let ledger = |learned: u64| {
            json!({"learned": learned, "confirmed": 3, "queued": 1, "unconfirmed": 1, "dead_lettered": 1,
                "gaps": {"overflow": 2, "evicted": 1}, "not_yet_received": 1})
        };
        assert_eq!([9, 10, 11].map(|learned| Closing::balances(&ledger(learned))), [false, true, false]);
    }

    #[test]
    fn boots_that_lack_a_row_of_their_device_do_not_add_up() {
        let audit = |confirmed: u64| {
            let boot = |rows: u64| json!({"device": "e6", "confirmed": rows});
            let device = json!({"accounts": ["e6"], "confirmed": confirmed, "boots": [boot(3), boot(4)]});
            let foreign = json!({"accounts": ["a"], "confirmed": 5, "boots": []});
            json!({"verdict": "exact", "sinks": {"main": {"devices": {"boiler": device, "a": foreign}}}})
        };
        assert_eq!([6, 7, 8].map(|rows| Closing::boots_add_up(&audit(rows))), [false, true, false]);
        assert!(Closing::Exact.check(&audit(8)).is_err() && Closing::Exact.check_midway(&audit(8)).is_err());
    }

    #[test]
    fn an_audit_is_held_against_what_it_is_to_say() {
        let audit = |verdict: &str| json!({"verdict": verdict, "sinks": {"main": {"reason": "no InfluxQL"}}});
        let passes = |closing: Closing, verdict: &str| closing.check(&audit(verdict)).is_ok();
        assert!(passes(Closing::Exact, "exact") && !passes(Closing::Exact, "consistent"));
        assert!(passes(Closing::Consistent, "consistent") && !passes(Closing::Consistent, "difference"));
        assert!(passes(Closing::Unverifiable("InfluxQL"), "unverifiable"));
        assert!(!passes(Closing::Unverifiable("token"), "unverifiable"));
        assert!(!passes(Closing::Unverifiable("InfluxQL"), "exact"), "what can be counted is to be");
        assert!(Closing::Exact.check_midway(&audit("unverifiable")).is_ok());
        assert!(Closing::Exact.check_midway(&audit("difference")).is_err());
    }
}
