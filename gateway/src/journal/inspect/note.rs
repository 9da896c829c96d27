//! The note of a repair: what it could not bring back.
//!
//! A hole in a repaired journal has to stay a hole, because its offsets and the numbers of rows around it are what the
//! ledger counts the lost rows by. So that the copy is found well all the same, and further damage shows, the repair
//! writes down which findings it has left. A finding is known only as long as it is the very same: kind, bytes, offsets.
//! Nothing but the inspection reads the note; segment numbers are never used twice, so it needs no upkeep.
//!
//! Format: JSON, an object with `version` 1 and `findings`. A note that cannot be read makes nothing known.

use std::io;

use serde::{Deserialize, Serialize};

use super::finding::Finding;
use super::unreadable;
use crate::journal::{OpenError, Storage};

/// Name of the file.
pub const NOTE_FILE: &str = "repaired.json";

const VERSION: u32 = 1;
const NOTE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    version: u32,
    findings: Vec<Finding>,
}

/// What was left by a repair; nothing without a note, and none if the note cannot be understood.
pub(super) fn read(storage: &dyn Storage) -> Result<Option<Vec<Finding>>, OpenError> {
    let failed = |cause| unreadable(NOTE_FILE, cause);
    let file = match storage.open(NOTE_FILE) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Some(Vec::new())),
        Err(cause) => return Err(failed(cause)),
    };
    let length = file.length().map_err(failed)?;
    if length > NOTE_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; length as usize];
    let length = file.read_at(&mut bytes, 0).map_err(failed)?;
    let note = serde_json::from_slice::<Note>(&bytes[..length]).ok();
    Ok(note.filter(|note| note.version == VERSION).map(|note| note.findings))
}

/// Writes the note and makes it durable.
pub(super) fn write(storage: &dyn Storage, findings: Vec<Finding>) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(&Note { version: VERSION, findings })?;
    text.push(b'\n');
    let file = storage.create(NOTE_FILE)?;
    file.write_at(&text, 0)?;
    file.sync()?;
    storage.sync_directory()
}
