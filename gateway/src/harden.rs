//! What a process does before it holds secrets and readings: keeps them out of core dumps and from other users, and makes
//! sure that it may have as many files open as it needs.

use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
};
use tracing::warn;

/// Files that the gateway may have open at most: 128 ports and what the journal, databases, brokers and clients need.
const FILES: u64 = 4096;

/// Fewest files with which nothing goes short.
const FILES_LEAST: u64 = 512;

/// Takes all rights of others, and the right to write of the group, from every file that this process makes from now on.
pub fn keep_files_private() {
    let (group_writes, others) = (Mode::WGRP, Mode::RWXO);
    let before = umask(group_writes | others);
    // Whoever wants it stricter has said so.
    umask(before | group_writes | others);
}

/// Keeps what is in memory from being written to a disk by a crash, and from other processes of the same user.
pub fn keep_memory_private() {
    // A handler of the system that core dumps are piped to goes by the first of these, the kernel by both.
    let limited = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    if let Err(error) = limited.and(set_dumpable_behavior(DumpableBehavior::NotDumpable)) {
        warn!("core dumps cannot be turned off, and may hold passwords and tokens: {error}");
    }
}

/// Lets this process have as many files open as it may ever need, if it may.
pub fn allow_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(FILES, |maximum| maximum.min(FILES));
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    if raised.is_err() || wanted < FILES_LEAST {
        warn!(
            "this process may have only {wanted} files open, so fewer HTTP connections are served; allow {FILES_LEAST} \
             (LimitNOFILE= of the service)"
        );
    }
}
