//! What is said of a fleet: a line a second, and an account at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forebay_tests::device::{Account, Faults, Fleet, Struck, Tally};
use forebay_tests::process::{Usage, usage_of};
use serde::Serialize;

use super::Options;

/// Most devices that are named for what they still have.
const NAMED_MAX: usize = 5;

/// The account of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    seed: u64,
    seconds: f64,
    cpu_seconds: f64,
    resident_bytes_max: u64,
    faults: &'a Struck,
    #[serde(flatten)]
    total: Tally,
    devices: BTreeMap<String, Account>,
}

/// One line: what was sampled, and what became of it.
pub(super) fn progress(fleet: &Fleet, start: Instant) {
    let Tally { produced, acked, lost, waiting, connected, .. } = fleet.tally();
    let seconds = start.elapsed().as_secs();
    eprintln!(
        "{seconds:>6} s  produced {produced:>9}  acked {acked:>9}  lost {lost:>7}  waiting {waiting:>7}  \
         connected {connected:>5}"
    );
}

impl Report<'_> {
    pub(super) fn new<'a>(fleet: &Fleet, faults: &'a Faults, time: Duration) -> Report<'a> {
        // A system without /proc has no figures, and no less of a fleet.
        let Usage { cpu_seconds, resident_bytes_max, .. } = usage_of(std::process::id()).unwrap_or_default();
        Report {
            seed: faults.seed,
            seconds: time.as_secs_f64(),
            cpu_seconds,
            resident_bytes_max,
            faults: &faults.struck,
            total: fleet.tally(),
            devices: fleet.accounts(),
        }
    }

    /// Whether everything that was sampled is acknowledged, or declared lost.
    pub(super) fn is_settled(&self) -> bool {
        self.total.unsettled == 0 && self.total.waiting == 0
    }

    /// Prints it: for people on standard error, and as JSON on standard output if that is asked for.
    pub(super) fn print(&self, options: &Options) -> anyhow::Result<()> {
        let Tally { produced, acked, lost, .. } = self.total;
        eprintln!(
            "{} devices: produced {produced}, acked {acked}, lost {lost}; {:.1} CPU s in {:.1} s, {} MiB at most",
            self.devices.len(),
            self.cpu_seconds,
            self.seconds,
            self.resident_bytes_max >> 20
        );
        eprintln!("faults: {}", serde_json::to_string(self.faults)?);
        if !self.is_settled() {
            eprintln!("{}", self.missing(options));
        }
        if options.json {
            println!("{}", serde_json::to_string(self)?);
        }
        Ok(())
    }

    /// What is missing, at which devices, and what may help.
    fn missing(&self, options: &Options) -> String {
        let is_open = |account: &Account| account.tally.unsettled + account.tally.waiting > 0;
        let open: Vec<_> = self.devices.iter().filter(|(_, account)| is_open(account)).collect();
        let named = open.iter().take(NAMED_MAX).map(|(name, account)| {
            let Tally { waiting, lost, connected, .. } = account.tally;
            let rows = match waiting {
                0 => format!("the loss of {lost} rows is not declared"),
                rows => format!("{rows} rows wait"),
            };
            let heard = if connected == 0 { ", and nobody listens" } else { "" };
            format!("  {name}: {rows}{heard}\n")
        });
        let named: String = named.collect();
        let others = open.len().saturating_sub(NAMED_MAX);
        let others = if others > 0 { format!("  and {others} others\n") } else { String::new() };
        format!(
            "{} of {} devices have not got rid of everything within {:?}:\n{named}{others}Look whether a gateway serves \
             them (`forebay status`), and give more time with --drain.",
            open.len(),
            self.devices.len(),
            options.drain
        )
    }
}
