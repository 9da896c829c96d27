//! Files and directories, each as programs see it and as the disk has it. No IO, no clock: the seed decides.
//!
//! A directory's changes are durable after a sync of that directory. Before, a power cut keeps some first ones of them and
//! drops the rest. A file's content is thus found again only if both were synced: the file, and the directory with its name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use rustix::io::Errno;

use super::content::{Content, Damage};
use crate::seed::Rng;

/// Number of a file, directory or socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Inode(pub(super) u64);

/// The top directory.
pub(super) const ROOT: Inode = Inode(1);

/// What a node costs apart from its content, and what content is rounded up to.
const BLOCK_BYTES: u64 = 4096;

/// Every node.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<Inode, Node>,
    next: Inode,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Permission bits.
    pub(super) mode: u16,
    /// How many handles are open.
    handles: u64,
}

/// What a node is.
#[derive(Debug)]
pub(super) enum Kind {
    File(Content),
    Directory(Entries),
    Socket,
}

/// The names in a directory.
#[derive(Debug, Default)]
pub(super) struct Entries {
    live: BTreeMap<OsString, Inode>,
    durable: BTreeMap<OsString, Inode>,
    unsynced: Vec<Change>,
}

/// A change of a directory; each happens as a whole or not at all.
#[derive(Clone, Debug)]
enum Change {
    Link(OsString, Inode),
    Unlink(OsString),
    Rename(OsString, OsString),
}

impl Tree {
    /// An empty top directory.
    pub(super) fn new() -> Tree {
        let root = Node { kind: Kind::Directory(Entries::default()), mode: 0o755, handles: 0 };
        Tree { nodes: BTreeMap::from([(ROOT, root)]), next: Inode(2) }
    }

    pub(super) fn node(&self, inode: Inode) -> Result<&Node, Errno> {
        self.nodes.get(&inode).ok_or(Errno::NOENT)
    }

    pub(super) fn node_mut(&mut self, inode: Inode) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&inode).ok_or(Errno::NOENT)
    }

    pub(super) fn file(&self, inode: Inode) -> Result<&Content, Errno> {
        match &self.node(inode)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory(_) => Err(Errno::ISDIR),
            Kind::Socket => Err(Errno::NXIO),
        }
    }

    pub(super) fn file_mut(&mut self, inode: Inode) -> Result<&mut Content, Errno> {
        match &mut self.node_mut(inode)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory(_) => Err(Errno::ISDIR),
            Kind::Socket => Err(Errno::NXIO),
        }
    }

    pub(super) fn lookup(&self, parent: Inode, name: &OsStr) -> Result<Inode, Errno> {
        self.entries(parent)?.live.get(name).copied().ok_or(Errno::NOENT)
    }

    /// Names and nodes of a directory.
    pub(super) fn list(&self, directory: Inode) -> Result<impl Iterator<Item = (&OsStr, Inode)>, Errno> {
        Ok(self.entries(directory)?.live.iter().map(|(name, inode)| (name.as_os_str(), *inode)))
    }

    /// Makes a node under a name that is free.
    pub(super) fn make(
        &mut self,
        parent: Inode,
        name: &OsStr,
        kind: Kind,
        mode: u16,
    ) -> Result<Inode, Errno> {
        if self.lookup(parent, name).is_ok() {
            return Err(Errno::EXIST);
        }
        let inode = self.next;
        self.change(parent, Change::Link(name.to_owned(), inode))?;
        self.next = Inode(inode.0 + 1);
        self.nodes.insert(inode, Node { kind, mode, handles: 0 });
        Ok(inode)
    }

    /// Takes a name away; the node goes when nothing leads to it any more.
    pub(super) fn unlink(&mut self, parent: Inode, name: &OsStr) -> Result<(), Errno> {
        let inode = self.lookup(parent, name)?;
        if let Kind::Directory(entries) = &self.node(inode)?.kind
            && !entries.live.is_empty()
        {
            return Err(Errno::NOTEMPTY);
        }
        self.change(parent, Change::Unlink(name.to_owned()))?;
        self.sweep();
        Ok(())
    }

    /// Gives a node another name in the same directory, replacing what has it. Between directories it is refused: what of
    /// it a power cut leaves would depend on two syncs.
    pub(super) fn rename(&mut self, parent: Inode, from: &OsStr, to: (Inode, &OsStr)) -> Result<(), Errno> {
        self.lookup(parent, from)?;
        if to.0 != parent {
            return Err(Errno::XDEV);
        }
        self.change(parent, Change::Rename(from.to_owned(), to.1.to_owned()))?;
        self.sweep();
        Ok(())
    }

    /// Makes the changes of a directory durable.
    pub(super) fn sync_directory(&mut self, directory: Inode) -> Result<(), Errno> {
        let entries = self.entries_mut(directory)?;
        entries.durable.clone_from(&entries.live);
        entries.unsynced.clear();
        self.sweep();
        Ok(())
    }

    pub(super) fn open(&mut self, inode: Inode) -> Result<(), Errno> {
        self.node_mut(inode)?.handles += 1;
        Ok(())
    }

    pub(super) fn close(&mut self, inode: Inode) {
        if let Ok(node) = self.node_mut(inode) {
            node.handles = node.handles.saturating_sub(1);
        }
        self.sweep();
    }

    /// Bytes that everything takes together which has a name or is open. What only a power cut could bring back takes
    /// none, as a disk that is short of room writes down its removals.
    pub(super) fn used_bytes(&self) -> u64 {
        let live = self.reached(|entries| entries.live.values().copied().collect());
        live.iter().filter_map(|inode| self.nodes.get(inode)).map(Node::used_bytes).sum()
    }

    /// Whether something was written to a file that is synced as a rule, and was not yet.
    pub(super) fn awaits_sync(&self) -> bool {
        self.nodes.values().any(|node| match &node.kind {
            Kind::File(content) => content.awaits_sync(),
            Kind::Directory(_) | Kind::Socket => false,
        })
    }

    /// The power goes off and comes back: nothing is open, and everything is what the disk kept.
    pub(super) fn cut(&mut self, rng: &mut Rng) -> Damage {
        let mut damage = Damage::default();
        for node in self.nodes.values_mut() {
            node.handles = 0;
            match &mut node.kind {
                Kind::File(content) => content.cut(rng, &mut damage),
                Kind::Directory(entries) => entries.cut(rng, &mut damage),
                Kind::Socket => {}
            }
        }
        self.sweep();
        damage
    }

    /// The same, with nothing left of what was not synced.
    pub(super) fn forget(&mut self) {
        for node in self.nodes.values_mut() {
            node.handles = 0;
            match &mut node.kind {
                Kind::File(content) => content.forget(),
                Kind::Directory(entries) => entries.forget(),
                Kind::Socket => {}
            }
        }
        self.sweep();
    }

    fn entries(&self, directory: Inode) -> Result<&Entries, Errno> {
        match &self.node(directory)?.kind {
            Kind::Directory(entries) => Ok(entries),
            Kind::File(_) | Kind::Socket => Err(Errno::NOTDIR),
        }
    }

    fn entries_mut(&mut self, directory: Inode) -> Result<&mut Entries, Errno> {
        match &mut self.node_mut(directory)?.kind {
            Kind::Directory(entries) => Ok(entries),
            Kind::File(_) | Kind::Socket => Err(Errno::NOTDIR),
        }
    }

    fn change(&mut self, directory: Inode, change: Change) -> Result<(), Errno> {
        let entries = self.entries_mut(directory)?;
        change.apply(&mut entries.live);
        entries.unsynced.push(change);
        Ok(())
    }

    /// Forgets nodes that no name leads to, neither now nor after any power cut, and that nobody has open.
    fn sweep(&mut self) {
        let reached = self.reached(|entries| entries.reachable().collect());
        self.nodes.retain(|inode, _| reached.contains(inode));
    }

    /// What the top directory and open handles lead to, by the names that `names` takes from a directory.
    fn reached(&self, names: impl Fn(&Entries) -> Vec<Inode>) -> BTreeSet<Inode> {
        let held = self.nodes.iter().filter(|(_, node)| node.handles > 0).map(|(inode, _)| *inode);
        let mut waiting: Vec<Inode> = held.chain([ROOT]).collect();
        let mut reached = BTreeSet::new();
        while let Some(inode) = waiting.pop() {
            if reached.insert(inode)
                && let Ok(entries) = self.entries(inode)
            {
                waiting.extend(names(entries));
            }
        }
        reached
    }
}

impl Node {
    /// Bytes that it takes.
    pub(super) fn used_bytes(&self) -> u64 {
        match &self.kind {
            Kind::File(content) => bytes_for(content.length()),
            Kind::Directory(_) | Kind::Socket => 0,
        }
    }
}

/// Bytes that a file of this length takes.
pub(super) fn bytes_for(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX).div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

impl Entries {
    fn reachable(&self) -> impl Iterator<Item = Inode> {
        let coming = self.unsynced.iter().filter_map(|change| match change {
            Change::Link(_, inode) => Some(*inode),
            Change::Unlink(_) | Change::Rename(..) => None,
        });
        self.live.values().chain(self.durable.values()).copied().chain(coming)
    }

    fn cut(&mut self, rng: &mut Rng, damage: &mut Damage) {
        let changes = u64::try_from(self.unsynced.len()).unwrap_or(u64::MAX);
        let kept = rng.in_range(0..changes + 1);
        damage.lost_changes += changes - kept;
        for (_, change) in (0..kept).zip(self.unsynced.drain(..)) {
            change.apply(&mut self.durable);
        }
        self.forget();
    }

    fn forget(&mut self) {
        self.unsynced.clear();
        self.live.clone_from(&self.durable);
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<OsString, Inode>) {
        match self {
            Change::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
            Change::Unlink(name) => drop(names.remove(name)),
            Change::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Entries, Kind, ROOT, Tree};
    use crate::seed::Rng;
    use rustix::io::Errno;
    use std::collections::BTreeSet;
    use std::ffi::{OsStr, OsString};

    fn file(tree: &mut Tree, name: &str, bytes: &[u8]) {
        let inode = tree.make(ROOT, OsStr::new(name), Kind::File(Content::default()), 0o600).unwrap();
        tree.file_mut(inode).unwrap().write(0, bytes);
        tree.file_mut(inode).unwrap().sync();
    }

    fn names(tree: &Tree) -> Vec<OsString> {
        tree.list(ROOT).unwrap().map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn of_directory_changes_that_were_not_synced_some_first_ones_survive() {
        let mut seen = BTreeSet::new();
        for seed in 0..100 {
            let mut tree = Tree::new();
            file(&mut tree, "a", b"a");
            tree.sync_directory(ROOT).unwrap();
            file(&mut tree, "b", b"b");
            tree.rename(ROOT, OsStr::new("b"), (ROOT, OsStr::new("a"))).unwrap();
            tree.unlink(ROOT, OsStr::new("a")).unwrap();
            tree.cut(&mut Rng::new(seed));
            let content = |name: &str| {
                let inode = tree.lookup(ROOT, OsStr::new(name)).ok()?;
                Some(tree.file(inode).unwrap().read(0, 9).to_vec())
            };
            seen.insert((content("a"), content("b")));
        }
        let (a, b) = (Some(b"a".to_vec()), Some(b"b".to_vec()));
        let prefixes = [(a.clone(), None), (a, b.clone()), (b, None), (None, None)];
        assert_eq!(seen, BTreeSet::from(prefixes));
    }

    #[test]
    fn a_synced_file_without_a_synced_name_is_gone() {
        let lost = (0..50).filter(|&seed| {
            let mut tree = Tree::new();
            file(&mut tree, "a", b"a");
            tree.cut(&mut Rng::new(seed));
            names(&tree).is_empty()
        });
        assert!((5..45).contains(&lost.count()));
    }

    #[test]
    fn what_nothing_leads_to_any_more_is_forgotten() {
        let mut tree = Tree::new();
        file(&mut tree, "a", &[1; 5000]);
        tree.sync_directory(ROOT).unwrap();
        assert_eq!(tree.used_bytes(), 8192);
        tree.unlink(ROOT, OsStr::new("a")).unwrap();
        assert_eq!((tree.used_bytes(), tree.nodes.len()), (0, 2), "a power cut may bring it back");
        tree.sync_directory(ROOT).unwrap();
        assert_eq!(tree.nodes.len(), 1);
    }

    #[test]
    fn directories_nest_and_go_only_when_they_are_empty() {
        let mut tree = Tree::new();
        let below = tree.make(ROOT, OsStr::new("d"), Kind::Directory(Entries::default()), 0o700).unwrap();
        tree.make(below, OsStr::new("s"), Kind::Socket, 0o600).unwrap();
        assert_eq!(tree.unlink(ROOT, OsStr::new("d")), Err(Errno::NOTEMPTY));
        assert_eq!(tree.rename(below, OsStr::new("s"), (ROOT, OsStr::new("s"))), Err(Errno::XDEV));
        tree.unlink(below, OsStr::new("s")).unwrap();
        tree.unlink(ROOT, OsStr::new("d")).unwrap();
        assert!(names(&tree).is_empty());
    }
}
