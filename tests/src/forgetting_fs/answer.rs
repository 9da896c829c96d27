//! What the kernel is told of nodes and errors.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, Generation, INodeNo, ReplyEmpty, ReplyEntry};
use rustix::io::Errno;

use super::tree::{Inode, Kind, Node};

/// The kernel may keep nothing: it asks each time.
pub(super) const NEVER_CACHED: Duration = Duration::ZERO;

/// Unit of the sizes that are reported.
pub(super) const BLOCK_BYTES: u32 = 4096;

pub(super) fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0o600)
}

pub(super) fn attributes(inode: Inode, node: &Node) -> FileAttr {
    let (kind, size) = match &node.kind {
        Kind::File(content) => (FileType::RegularFile, content.length()),
        Kind::Directory(_) => (FileType::Directory, 0),
        Kind::Socket => (FileType::Socket, 0),
    };
    let long_ago = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(inode.0),
        size: u64::try_from(size).unwrap_or(u64::MAX),
        blocks: node.used_bytes() / 512,
        atime: long_ago,
        mtime: long_ago,
        ctime: long_ago,
        crtime: long_ago,
        kind,
        perm: node.mode,
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

pub(super) fn answer_entry(found: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match found {
        Ok(attributes) => reply.entry(&NEVER_CACHED, &attributes, Generation(0)),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn answer_empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn errno(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}
