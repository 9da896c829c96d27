//! The calls on a storage, numbered, and which of them fail.

use std::io;
use std::sync::Arc;

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// Names are listed.
    List,
    /// A file is opened.
    Open,
    /// A file is created.
    Create,
    /// A file is renamed.
    Rename,
    /// A file is removed.
    Remove,
    /// The directory is synced.
    SyncDirectory,
    /// The room is asked for.
    Space,
    /// A file's length is asked for.
    Length,
    /// A file is read.
    Read,
    /// A file is written.
    Write,
    /// A file is synced.
    Sync,
}

const KINDS: usize = CallKind::Sync as usize + 1;

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it asked for.
    pub kind: CallKind,
    /// The file, by the name under which it was opened or, for a rename, from which it went; empty for the directory.
    pub file: Arc<str>,
    /// How many sectors a write touches; 0 for other calls. The power can go before each and after the last.
    pub sectors: usize,
}

/// A fault to come: a call of one kind fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which kind of calls.
    pub kind: CallKind,
    /// Which of them, counted from 0 since the storage was made.
    pub nth: u64,
    /// Whether all calls of this kind fail from that one on.
    pub for_ever: bool,
    /// The error.
    pub error: io::ErrorKind,
    /// How many sectors a failing write has written nevertheless.
    pub written_sectors: usize,
}

impl Fault {
    /// The call fails, and the next one does not.
    #[must_use]
    pub const fn once(kind: CallKind, nth: u64, error: io::ErrorKind) -> Fault {
        Fault { kind, nth, for_ever: false, error, written_sectors: 0 }
    }

    /// The call and all later ones of its kind fail.
    #[must_use]
    pub const fn for_ever(kind: CallKind, nth: u64, error: io::ErrorKind) -> Fault {
        Fault { kind, nth, for_ever: true, error, written_sectors: 0 }
    }

    /// Lets the failing write have written some sectors.
    #[must_use]
    pub const fn after_writing(self, sectors: usize) -> Fault {
        Fault { written_sectors: sectors, ..self }
    }
}

/// Counts calls and tells which of them fail.
#[derive(Clone, Default)]
pub(super) struct Calls {
    made: u64,
    by_kind: [u64; KINDS],
    trace: Option<Vec<Call>>,
    plan: Vec<Fault>,
    cut: Option<Cut>,
    off: bool,
}

#[derive(Clone, Copy)]
struct Cut {
    call: u64,
    sectors: usize,
}

/// Why a call fails.
pub(super) struct Refusal {
    pub(super) error: io::Error,
    /// How many sectors were written nevertheless.
    pub(super) sectors: usize,
    /// Whether the power is off, so that the call did nothing more.
    pub(super) off: bool,
}

impl Calls {
    /// Takes a call and tells whether it may go on.
    pub(super) fn take(&mut self, kind: CallKind, file: &str, sectors: usize) -> Result<(), Refusal> {
        if self.off {
            return Err(Refusal::off(0));
        }
        if let Some(cut) = self.cut.filter(|cut| self.made >= cut.call) {
            self.off = true;
            return Err(Refusal::off(if self.made == cut.call { cut.sectors } else { 0 }));
        }
        if let Some(trace) = &mut self.trace {
            trace.push(Call { kind, file: file.into(), sectors });
        }
        self.made += 1;
        let nth = self.by_kind[kind as usize];
        self.by_kind[kind as usize] += 1;
        let hits =
            |fault: &&Fault| fault.kind == kind && (fault.nth == nth || fault.for_ever && fault.nth < nth);
        match self.plan.iter().find(hits) {
            Some(fault) => Err(Refusal::injected(fault.error, fault.written_sectors)),
            None => Ok(()),
        }
    }

    pub(super) fn made(&self) -> u64 {
        self.made
    }

    pub(super) fn made_of(&self, kind: CallKind) -> u64 {
        self.by_kind[kind as usize]
    }

    pub(super) fn start_trace(&mut self) {
        self.trace = Some(Vec::new());
    }

    pub(super) fn trace(&self) -> &[Call] {
        self.trace.as_deref().unwrap_or_default()
    }

    pub(super) fn plan(&mut self, fault: Fault) {
        self.plan.push(fault);
    }

    pub(super) fn heal(&mut self) {
        self.plan.clear();
    }

    pub(super) fn cut_at(&mut self, call: u64, sectors: usize) {
        self.cut = Some(Cut { call, sectors });
    }

    pub(super) fn is_off(&self) -> bool {
        self.off
    }
}

impl Refusal {
    pub(super) fn off(sectors: usize) -> Refusal {
        Refusal { error: io::Error::other("power is off"), sectors, off: true }
    }

    pub(super) fn injected(error: io::ErrorKind, sectors: usize) -> Refusal {
        Refusal { error: io::Error::new(error, "injected"), sectors, off: false }
    }
}
