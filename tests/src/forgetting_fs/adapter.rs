//! The requests of the kernel, answered from the tree.
//!
//! Every request passes [`Adapter::enter`] or [`Adapter::change`], where faults happen. Closing a file is let through whatever the
//! power is, because it comes from processes that are dead already.

use std::ffi::OsStr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::io::Errno;

use super::answer::{BLOCK_BYTES, NEVER_CACHED, answer_empty, answer_entry, attributes, errno, permissions};
use super::content::{Content, SECTOR_BYTES};
use super::faults::Power;
use super::tree::{Entries, Inode, Kind, bytes_for};
use super::{Disk, FREEZE_LIMIT, Shared};

/// Bits of a mode that tell what kind of node it is, and those that tell a socket.
const KIND_MASK: u32 = 0o170_000;
const SOCKET: u32 = 0o140_000;

/// The mounted side.
#[derive(Debug)]
pub(super) struct Adapter {
    shared: Arc<Shared>,
}

impl Adapter {
    pub(super) fn new(shared: Arc<Shared>) -> Adapter {
        Adapter { shared }
    }

    /// Waits until the power is on or off.
    fn enter(&self) -> Result<MutexGuard<'_, Disk>, Errno> {
        let deadline = Instant::now() + FREEZE_LIMIT;
        let mut disk = self.shared.disk();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match disk.faults.power {
                Power::On => return Ok(disk),
                Power::Off => return Err(Errno::IO),
                Power::Frozen if left.is_zero() => disk.faults.power = Power::On,
                Power::Frozen => {
                    let waited = self.shared.power.wait_timeout(disk, left);
                    disk = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// The same for a request that writes or syncs, which may be the one to freeze at.
    fn change(&self) -> Result<MutexGuard<'_, Disk>, Errno> {
        self.enter_as(false)
    }

    fn enter_as(&self, is_sync: bool) -> Result<MutexGuard<'_, Disk>, Errno> {
        let mut disk = self.enter()?;
        if disk.faults.freezes_now(is_sync) {
            drop(disk);
            disk = self.enter()?;
        }
        disk.faults.counts.changes += 1;
        Ok(disk)
    }

    fn make(
        &self,
        (parent, name): (INodeNo, &OsStr),
        kind: Kind,
        mode: u32,
    ) -> Result<(Inode, FileAttr), Errno> {
        let mut disk = self.change()?;
        disk.faults.check_writable()?;
        let inode = disk.tree.make(Inode(parent.0), name, kind, permissions(mode))?;
        Ok((inode, attributes(inode, disk.tree.node(inode)?)))
    }

    fn set(&self, inode: Inode, mode: Option<u32>, size: Option<u64>) -> Result<FileAttr, Errno> {
        let mut disk = self.change()?;
        disk.faults.check_writable()?;
        if let Some(mode) = mode {
            disk.tree.node_mut(inode)?.mode = permissions(mode);
        }
        if let Some(size) = size {
            let size = usize::try_from(size).map_err(|_| Errno::FBIG)?;
            disk.tree.file_mut(inode)?.resize(size);
            disk.note_change();
        }
        Ok(attributes(inode, disk.tree.node(inode)?))
    }

    fn store(&self, inode: Inode, at: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let mut disk = self.change()?;
        disk.faults.check_writable()?;
        let at = usize::try_from(at).map_err(|_| Errno::FBIG)?;
        let room = disk.room_for(inode, at, bytes.len())?;
        let length = bytes.len().min(room).min(disk.faults.write_bytes_max.unwrap_or(usize::MAX));
        disk.faults.counts.short_writes += u64::from(length < bytes.len());
        disk.tree.file_mut(inode)?.write(at, bytes.get(..length).unwrap_or_default());
        disk.note_change();
        Ok(length)
    }

    fn sync(&self, inode: Inode) -> Result<(), Errno> {
        // What was written stays unsynced meanwhile; the power may go off.
        let sync_time = self.enter()?.faults.sync_time;
        std::thread::sleep(sync_time);
        let mut disk = self.enter_as(true)?;
        let is_synced = disk.tree.file(inode)?.is_synced();
        if disk.faults.syncs_lie || is_synced {
            return Ok(());
        }
        disk.faults.check_writable()?;
        if disk.faults.next_sync_fails() {
            disk.tree.file_mut(inode)?.fail_sync();
            return Err(Errno::IO);
        }
        disk.tree.file_mut(inode)?.sync();
        disk.note_change();
        Ok(())
    }
}

impl Disk {
    pub(super) fn note_change(&mut self) {
        let awaits_sync = self.tree.awaits_sync();
        self.faults.note_change(awaits_sync);
    }

    /// How many of `length` bytes at `at` find room.
    fn room_for(&mut self, inode: Inode, at: usize, length: usize) -> Result<usize, Errno> {
        let now = self.tree.file(inode)?.length();
        let others = self.tree.used_bytes() - bytes_for(now);
        let most = usize::try_from(self.capacity_bytes.saturating_sub(others)).unwrap_or(usize::MAX);
        // What overwrites needs no room.
        let most = most.max(now);
        if at + length <= most {
            return Ok(length);
        }
        let room = most.saturating_sub(at) / SECTOR_BYTES * SECTOR_BYTES;
        if room > 0 {
            return Ok(room);
        }
        self.faults.counts.refused_full += 1;
        Err(Errno::NOSPC)
    }
}

impl Filesystem for Adapter {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.enter().and_then(|disk| {
            let inode = disk.tree.lookup(Inode(parent.0), name)?;
            Ok(attributes(inode, disk.tree.node(inode)?))
        });
        answer_entry(found, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.enter().and_then(|disk| Ok(attributes(Inode(ino.0), disk.tree.node(Inode(ino.0))?)));
        match found {
            Ok(attributes) => reply.attr(&NEVER_CACHED, &attributes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.set(Inode(ino.0), mode, size) {
            Ok(attributes) => reply.attr(&NEVER_CACHED, &attributes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let kind = if mode & KIND_MASK == SOCKET { Kind::Socket } else { Kind::File(Content::default()) };
        answer_entry(self.make((parent, name), kind, mode & !umask).map(|made| made.1), reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let kind = Kind::Directory(Entries::default());
        answer_entry(self.make((parent, name), kind, mode & !umask).map(|made| made.1), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.change().and_then(|mut disk| {
            disk.faults.check_writable()?;
            disk.tree.unlink(Inode(parent.0), name)
        });
        answer_empty(removed, reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.unlink(request, parent, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.change().and_then(|mut disk| {
            disk.faults.check_writable()?;
            if !flags.is_empty() {
                return Err(Errno::INVAL);
            }
            disk.tree.rename(Inode(parent.0), name, (Inode(newparent.0), newname))
        });
        answer_empty(renamed, reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.enter().and_then(|mut disk| disk.tree.open(Inode(ino.0))) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let made = self.make((parent, name), Kind::File(Content::default()), mode & !umask);
        let opened = made.and_then(|(inode, attributes)| {
            self.shared.disk().tree.open(inode)?;
            Ok(attributes)
        });
        match opened {
            Ok(attributes) => reply.created(
                &NEVER_CACHED,
                &attributes,
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_DIRECT_IO,
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = self.enter().and_then(|disk| {
            let (at, length) = (usize::try_from(offset), usize::try_from(size));
            let (Ok(at), Ok(length)) = (at, length) else { return Err(Errno::INVAL) };
            Ok(disk.tree.file(Inode(ino.0))?.read(at, length).to_vec())
        });
        match bytes {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.store(Inode(ino.0), offset, data) {
            Ok(length) => reply.written(u32::try_from(length).unwrap_or(0)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.disk().tree.close(Inode(ino.0));
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer_empty(self.sync(Inode(ino.0)), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.change().and_then(|mut disk| {
            if disk.faults.syncs_lie { Ok(()) } else { disk.tree.sync_directory(Inode(ino.0)) }
        });
        answer_empty(synced, reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.enter().and_then(|disk| {
            let here = [(OsStr::new("."), Inode(ino.0)), (OsStr::new(".."), Inode(ino.0))];
            let mut at = 0;
            for (name, inode) in here.into_iter().chain(disk.tree.list(Inode(ino.0))?) {
                at += 1;
                let kind = attributes(inode, disk.tree.node(inode)?).kind;
                if at > offset && reply.add(INodeNo(inode.0), at, kind, name) {
                    break;
                }
            }
            Ok(())
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.enter() {
            Ok(disk) => {
                let all = disk.capacity_bytes / u64::from(BLOCK_BYTES);
                let free = all.saturating_sub(disk.tree.used_bytes() / u64::from(BLOCK_BYTES));
                reply.statfs(all, free, free, 1 << 20, 1 << 20, BLOCK_BYTES, 255, BLOCK_BYTES);
            }
            Err(error) => reply.error(errno(error)),
        }
    }
}
