//! `forebay sinks`: which sinks the journal knows, and how to let go of one. Offline: the gateway must not run.

use anyhow::{Context as _, Result, bail};

use super::owner;
use crate::config::Config;
use crate::journal::{Journal, Options};

/// Prints a line for each sink: name, cursor, rows that it is still to get.
pub(super) fn list(config: &Config) -> Result<()> {
    let journal = open(config)?;
    journal.with_state(|state| {
        for sink in state.sinks() {
            println!("{}  cursor {}  {} rows to deliver", sink.name, sink.cursor, state.owed(&sink.name));
        }
    });
    journal.close();
    Ok(())
}

/// Lets go of a sink and of what it was still to get.
pub(super) fn forget(config: &Config, name: &str) -> Result<()> {
    let journal = open(config)?;
    let owed = journal.with_state(|state| state.cursor(name).map(|_| state.owed(name)));
    let Some(owed) = owed else { bail!("the journal knows no sink {name:?}; see `forebay sinks list`") };
    journal.forget_sink(name)?;
    journal.close();
    println!("the sink {name:?} is forgotten, and with it {owed} rows that were not delivered to it");
    Ok(())
}

/// The journal of a gateway that does not run.
///
/// # Errors
/// As [`owner::journal_of`], or a gateway has it.
pub(super) fn open(config: &Config) -> Result<Journal> {
    let directory = owner::journal_of(&config.data_dir)?;
    let options = Options::from(&config.journal);
    let (journal, _) = Journal::open_dir(&directory, &options).context("this is done offline")?;
    Ok(journal)
}
