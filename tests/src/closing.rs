//! How a test with a gateway ends: with `forebay audit`, which holds the gateway's own ledger against what the databases count.

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
        Ok(())
    }

    /// Holds an audit in the middle of a life against it: rows may be on their way, and a database away, but nothing may be
    /// missing, and nothing there that the ledger does not know.
    ///
    /// # Errors
    /// Something is.
    pub fn check_midway(self, audit: &Value) -> anyhow::Result<()> {
        let is_different = audit["verdict"] == "difference";
        anyhow::ensure!(!is_different || matches!(self, Closing::Unaudited(_)), "the audit:\n{audit:#}");
        Ok(())
    }
}
