//! `forebay journal`: what the journal's files hold, and what to do when a card has damaged them.
//!
//! Everything here reads and changes nothing; beside a running gateway too, but for the repair, whose copy would be old
//! the moment it is made.

use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::owner;
use crate::journal::inspect::{self, Finding, Looked, Selection};
use crate::journal::storage::Directory;
use crate::record::Offset;
use page::{line, place, push_file, push_finding, push_running, push_totals, segments};

mod entries;
mod page;

#[derive(Debug, Subcommand)]
pub(super) enum JournalCommand {
    /// One line for each file: what it is, its offsets, entries and rows, how full it is, and how it is
    List {
        #[command(flatten)]
        place: JournalPlace,
        /// Print them as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Read everything; name every damaged range and exit with 1 if there is any
    Verify {
        #[command(flatten)]
        place: JournalPlace,
        /// Print the verdict as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the entries, one a line, and what is damaged in its place among them
    Dump {
        #[command(flatten)]
        place: JournalPlace,
        #[command(flatten)]
        wanted: Wanted,
        /// Print each as a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Copy everything that is intact into a new directory, which a gateway can go on with; the gateway must not run
    Repair {
        #[command(flatten)]
        place: JournalPlace,
        /// The new directory
        #[arg(long, value_name = "DIRECTORY")]
        to: PathBuf,
        /// Print what was done as one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct JournalPlace {
    #[command(flatten)]
    file: super::File,
    /// Look at this journal instead of the one in the configuration's `data_dir`
    #[arg(long = "journal", value_name = "DIRECTORY", conflicts_with = "path")]
    directory: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Wanted {
    /// The first offset
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The offset behind the last one
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// Only the segment of this number
    #[arg(long, value_name = "NUMBER")]
    segment: Option<u64>,
    /// At most so many entries
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
}

impl JournalCommand {
    pub(super) fn place(&self) -> &JournalPlace {
        match self {
            JournalCommand::List { place, .. }
            | JournalCommand::Verify { place, .. }
            | JournalCommand::Dump { place, .. }
            | JournalCommand::Repair { place, .. } => place,
        }
    }

    /// Does it with the journal in `directory`; whether all is well.
    ///
    /// # Errors
    /// There is no journal, it cannot be read, or the copy cannot be written.
    pub(super) fn run(&self, directory: &Path) -> Result<bool> {
        let name = directory.display();
        match std::fs::metadata(directory) {
            Ok(found) if found.is_dir() => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let owner = owner::as_owner_of(directory.parent().unwrap_or(directory));
                bail!("{name} may not be read by this user; run `{owner}`")
            }
            _ => bail!(
                "there is no journal in {name}; the gateway makes it when it first runs, and --config or --journal names another place"
            ),
        }
        match self {
            JournalCommand::List { json, .. } => list(directory, *json),
            JournalCommand::Verify { json, .. } => verify(directory, *json),
            JournalCommand::Dump { wanted, json, .. } => dump(directory, *wanted, *json),
            JournalCommand::Repair { to, json, .. } => repair(directory, to, *json),
        }
    }
}

impl JournalPlace {
    /// The configuration file that tells where the journal is.
    pub(super) fn config(&self) -> &Path {
        &self.file.path
    }

    /// The journal's own directory, if it was named.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }
}

fn list(directory: &Path, json: bool) -> Result<bool> {
    let looked = look(directory)?;
    let mut page = String::new();
    if json {
        let files = serde_json::to_value(&looked.inspection.files)?;
        page = json!({ "journal": looked.inspection.journal.to_string(), "running": looked.running, "files": files })
            .to_string();
        page.push('\n');
    } else {
        looked.inspection.files.iter().for_each(|file| push_file(&mut page, file));
        push_running(&mut page, &looked);
    }
    print(&page)?;
    Ok(true)
}

fn verify(directory: &Path, json: bool) -> Result<bool> {
    let looked = look(directory)?;
    let inspection = &looked.inspection;
    let mut page = String::new();
    if json {
        page = verdict(&looked)?.to_string();
        page.push('\n');
    } else {
        inspection.damage.iter().for_each(|finding| push_finding(&mut page, "damaged", finding));
        inspection.known.iter().for_each(|finding| push_finding(&mut page, "left by a repair", finding));
        if let Some(torn) = &inspection.torn {
            line(
                &mut page,
                &format!(
                    "unfinished: {}; nothing that was acknowledged is lost, and a start leaves it out",
                    place(torn)
                ),
            );
        }
        if inspection.note_unreadable {
            line(&mut page, "the note of a repair cannot be read, so what it left behind counts as damaged");
        }
        push_running(&mut page, &looked);
        push_totals(&mut page, inspection);
    }
    print(&page)?;
    Ok(inspection.is_well())
}

fn verdict(looked: &Looked) -> Result<Value> {
    let inspection = &looked.inspection;
    let findings = |findings: &[Finding]| -> Result<Vec<Value>> {
        let with_meaning = |finding: &Finding| {
            let mut value = serde_json::to_value(finding)?;
            value["meaning"] = finding.kind.meaning().into();
            Ok(value)
        };
        findings.iter().map(with_meaning).collect()
    };
    Ok(json!({
        "journal": inspection.journal.to_string(),
        "running": looked.running,
        "well": inspection.is_well(),
        "segments": segments(inspection),
        "frames": inspection.frames,
        "entries": inspection.entries,
        "rows": inspection.rows,
        "first": inspection.first,
        "end": inspection.end,
        "damage": findings(&inspection.damage)?,
        "known": findings(&inspection.known)?,
        "torn": inspection.torn,
        "note_unreadable": inspection.note_unreadable,
    }))
}

fn dump(directory: &Path, wanted: Wanted, json: bool) -> Result<bool> {
    look_for_files(directory)?;
    let selection = Selection { from: Offset(wanted.from), to: Offset(wanted.to), segment: wanted.segment };
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut left, mut written, mut text) = (wanted.limit, Ok(()), String::new());
    inspect::dump(&inspect::storage(directory), selection, |item| {
        let is_entry = matches!(item, inspect::Item::Entry { .. });
        if is_entry && left == 0 {
            return false;
        }
        left -= u64::from(is_entry);
        text.clear();
        if json {
            entries::push_json(&mut text, &item);
        } else {
            entries::push_text(&mut text, &item);
        }
        written = writeln!(out, "{text}");
        written.is_ok()
    })?;
    finish(written.and_then(|()| out.flush()))?;
    Ok(true)
}

fn repair(directory: &Path, to: &Path, json: bool) -> Result<bool> {
    look_for_files(directory)?;
    let _unlocked = inspect::Unlocked::take(directory)?;
    make_empty_directory(directory, to)?;
    let done = inspect::repair(&inspect::storage(directory), &Directory::new(to))?;
    if json {
        let value = json!({
            "to": to, "segments": done.segments, "frames": done.frames, "entries": done.entries, "rows": done.rows,
            "damage": done.damage, "left": done.left,
        });
        print(&format!("{value}\n"))?;
        return Ok(true);
    }
    let mut page = String::new();
    done.damage.iter().for_each(|finding| push_finding(&mut page, "damaged", finding));
    let copied = format!(
        "copied {} segments with {} entries, {} of them rows, into {}",
        done.segments,
        done.entries,
        done.rows,
        to.display()
    );
    line(&mut page, &copied);
    let lost: u64 = done.left.iter().filter(|finding| !finding.delivered).filter_map(|f| f.rows).sum();
    if lost > 0 {
        line(&mut page, &format!("lost rows: {lost}; the gateway declares them as gaps"));
    }
    let (from, to) = (directory.display(), to.display());
    let owner = "give the copy to the gateway's user (chown -R), if that is not you";
    line(
        &mut page,
        &format!("to go on with the copy: {owner};\n  mv {from} {from}.damaged && mv {to} {from}"),
    );
    print(&page)?;
    Ok(true)
}

/// Makes the directory of a copy. One that exists must be empty, and not within the original.
fn make_empty_directory(original: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let absolute = std::path::absolute(to).with_context(|| to.display().to_string())?;
    let original = original.canonicalize().with_context(|| original.display().to_string())?;
    let existing = absolute.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    if existing.is_some_and(|existing| existing.starts_with(&original)) {
        bail!("{} lies within the journal; name a directory elsewhere", to.display());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(to).with_context(|| {
        format!("{} cannot be made; name a directory that this user may make", to.display())
    })?;
    if std::fs::read_dir(to).with_context(|| to.display().to_string())?.next().is_some() {
        bail!("{} is not empty; name a new directory", to.display());
    }
    Ok(())
}

fn look(directory: &Path) -> Result<Looked> {
    look_for_files(directory)?;
    Ok(inspect::look(directory)?)
}

/// Says so where there are no files of a journal, before anything else is tried.
fn look_for_files(directory: &Path) -> Result<()> {
    if !inspect::has_files(&inspect::storage(directory))
        .with_context(|| format!("{} cannot be read; use the gateway's user, or root", directory.display()))?
    {
        bail!(
            "there is no journal in {}; no file in it is a segment or an end mark, so name another place with --config or --journal",
            directory.display()
        );
    }
    Ok(())
}

fn print(page: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    finish(out.write_all(page.as_bytes()).and_then(|()| out.flush()))
}

/// Whoever has read enough hangs up, and that is as well.
fn finish(written: io::Result<()>) -> Result<()> {
    match written {
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output cannot be written"),
    }
}
