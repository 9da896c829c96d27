//! In: bytes from serial ports. Out: messages for sessions and lines of text, and frames back to the devices.
//! Next: `shared/src/link/receiver.rs` behind `native.rs`, which gives deduplicated rows to `ingest/mod.rs`; text goes
//! there through `payload/mod.rs`.
//!
//! One thread runs a current-thread runtime: a task that looks for ports, and a task a port. The looking task goes
//! through all `[[serial]]` four times a second, those that name a path first, then USB identities, then patterns, and
//! [`claims`] says which port may be had. A port that appears is left to a path that is still missing for one look: the
//! links in `/dev/serial/by-id` come a moment after the port. Each open port has two threads of its own ([`port`]), so
//! that what may block blocks nobody; its task hands the thread over after every chunk, so that a port which never stops
//! babbling has one turn in as many as there are ports. What is configured may change meanwhile: a `[[serial]]` that stays as
//! it is keeps its ports, all others let go of theirs, and resting ports are tried at once. A control frame that finds no place before the writing thread is
//! lost like any other, and the link makes up for it.

mod claims;
mod line;
pub(super) mod lines;
pub(super) mod port;
mod serve;
pub(super) mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use forebay_shared::ids::Millis;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, LocalSet};
use tracing::info;

use super::{Context, Reporter, sleep_until};
use crate::clock;
use crate::config::{self, SerialSelector, Speech};
use crate::ports::{Places, Port as Found, PortId, PortState, Served};
use crate::stats::SourceState;
use claims::{Claims, Denied, End, PORTS_MAX};
use line::PATIENCE_MS;
use serve::{How, Task};

/// How often ports are looked for, in milliseconds.
const LOOK_EVERY_MS: u64 = 250;

/// Serves the `wanted` ports, which may change, until the context says to stop. Blocks its thread.
pub fn run(wanted: watch::Receiver<Vec<config::Serial>>, context: &Context) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            for config in wanted.borrow().iter() {
                let reporter = reporter(&config.selector, context);
                reporter.disconnected(&format!("cannot start a runtime for serial ports: {e}"));
            }
            return;
        }
    };
    LocalSet::new().block_on(&runtime, Keeper::new(wanted, context.clone()).keep());
    // What is still being opened must not hold up the end.
    runtime.shutdown_background();
}

fn reporter(selector: &SerialSelector, context: &Context) -> Reporter {
    let name = selector.to_string();
    let stats = context.stats.source(&name);
    Reporter::new(name, stats)
}

/// The ports that a selector stands for, of those that are there now, by path. `there` are all that have hardware: a
/// pattern stands for no other device that it may match, such as the console.
pub(crate) fn find(selector: &SerialSelector, there: &[Found]) -> Vec<(PathBuf, PortId)> {
    let of_path = |path: PathBuf| PortId::of(&path).map(|id| (path, id));
    let mut found: Vec<(PathBuf, PortId)> = match selector {
        SerialSelector::Port(path) => of_path(path.clone()).into_iter().collect(),
        SerialSelector::Any(pattern) => {
            let is_port = |id: PortId| id.is_pseudo() || there.iter().any(|port| port.id == id);
            pattern.paths().into_iter().filter_map(of_path).filter(|(_, id)| is_port(*id)).collect()
        }
        SerialSelector::Usb { vendor, product } => there
            .iter()
            .filter(|port| {
                let of_kind = |product: &u16, found: u16| *product == found;
                port.usb.as_ref().is_some_and(|usb| {
                    usb.vendor == *vendor
                        && product.as_ref().is_none_or(|product| of_kind(product, usb.product))
                })
            })
            .map(|port| (port.path.clone(), port.id))
            .collect(),
    };
    // A port and a link to it are one.
    let mut seen = BTreeSet::new();
    found.retain(|(_, id)| seen.insert(*id));
    found
}

/// The task that looks for ports.
struct Keeper {
    wanted: watch::Receiver<Vec<config::Serial>>,
    /// By numbers that are given once: those that are wanted, and those that still have a port to let go of.
    entries: BTreeMap<usize, Entry>,
    /// How many there ever were.
    entered: usize,
    /// The numbers of those that are wanted, the one that has precedence first.
    order: Vec<usize>,
    claims: Claims,
    places: Places,
    context: Context,
    tasks: JoinSet<Ended>,
    /// Ports that were there at the last look.
    seen: BTreeSet<PortId>,
}

/// One `[[serial]]`.
struct Entry {
    config: Rc<config::Serial>,
    reporter: Rc<Reporter>,
    served: BTreeMap<PortId, Rc<Notify>>,
    /// It has not looked for ports yet.
    is_new: bool,
    /// Whether a port of it has brought something valid since the gateway's start, so that somebody misses it once it is gone.
    has_understood: bool,
}

/// What became of a port that was claimed.
struct Ended {
    entry: usize,
    id: PortId,
    path: PathBuf,
    how: How,
}

impl Keeper {
    fn new(wanted: watch::Receiver<Vec<config::Serial>>, context: Context) -> Keeper {
        let mut keeper = Keeper {
            wanted,
            entries: BTreeMap::new(),
            entered: 0,
            order: Vec::new(),
            claims: Claims::default(),
            places: Places::default(),
            context,
            tasks: JoinSet::new(),
            seen: BTreeSet::new(),
        };
        keeper.adopt();
        keeper
    }

    /// Takes over what is wanted now.
    fn adopt(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let mut former = std::mem::take(&mut self.order);
        for config in &wanted {
            let known = former.iter().position(|at| *self.entries[at].config == *config);
            let at = known.map(|known| former.remove(known));
            let at = at.unwrap_or_else(|| self.enter(config));
            self.order.push(at);
        }
        for at in former {
            self.leave(at, &wanted);
        }
        let entries = &self.entries;
        // Of one kind, the one that comes first in the configuration.
        self.order.sort_by_key(|at| entries[at].config.selector.rank());
        // Whoever is new may succeed where others failed.
        self.claims.keep(|_| false);
    }

    fn enter(&mut self, config: &config::Serial) -> usize {
        let reporter = Rc::new(reporter(&config.selector, &self.context));
        reporter.stats().set_state(SourceState::Starting);
        if matches!(config.speech, Speech::Text(_)) {
            reporter.stats().set_unprotected();
        }
        let config = Rc::new(config.clone());
        let at = self.entered;
        self.entered += 1;
        let served = BTreeMap::new();
        self.entries.insert(at, Entry { config, reporter, served, is_new: true, has_understood: false });
        at
    }

    /// Lets go of the ports of an entry that is not wanted any more.
    fn leave(&mut self, at: usize, wanted: &[config::Serial]) {
        let Some(entry) = self.entries.get(&at) else { return };
        info!("{} is left: its configuration has changed", entry.config.selector);
        if wanted.iter().all(|other| other.selector != entry.config.selector) {
            self.context.stats.forget_source(entry.reporter.name());
        }
        for leave in entry.served.values() {
            leave.notify_one();
        }
        if entry.served.is_empty() {
            self.entries.remove(&at);
        }
    }

    async fn keep(mut self) {
        let context = self.context.clone();
        let mut next_look = 0;
        loop {
            if clock::monotonic_ms() >= next_look {
                self.look();
                next_look = clock::monotonic_ms() + LOOK_EVERY_MS;
            }
            let is_looking = !self.order.is_empty();
            tokio::select! {
                () = sleep_until(is_looking.then_some(next_look)) => {}
                Some(Ok(ended)) = self.tasks.join_next() => self.ended(ended),
                Ok(()) = self.wanted.changed() => {
                    self.adopt();
                    next_look = 0;
                }
                () = context.stopped() => break,
            }
        }
        while self.tasks.join_next().await.is_some() {}
        for at in &self.order {
            self.entries[at].reporter.stats().set_state(SourceState::Stopped);
        }
    }

    /// Goes through all `[[serial]]` once, and claims what is there.
    fn look(&mut self) {
        let claims = |entry: &Entry| entry.config.selector.is_claim();
        let hardware = if self.entries.values().any(claims) { self.places.ports() } else { Vec::new() };
        let (mut there, mut paths) = (BTreeSet::new(), BTreeSet::new());
        let mut a_path_is_missing = false;
        for at in self.order.clone() {
            let entry = &self.entries[&at];
            let selector = &entry.config.selector;
            let found = find(selector, &hardware);
            if found.is_empty() {
                a_path_is_missing |= !selector.is_claim();
                entry.is_missing();
            }
            entry.leave_others(&found);
            for (path, id) in found {
                let may_be_named = a_path_is_missing && self.entries[&at].config.selector.is_claim();
                if !may_be_named || self.seen.contains(&id) {
                    self.claim(at, &path, id);
                }
                there.insert(id);
                paths.insert(path);
            }
        }
        self.claims.keep(|id| there.contains(&id));
        self.context.stats.keep_ports(&paths);
        self.seen = there;
        for entry in self.entries.values_mut() {
            entry.is_new = false;
        }
    }

    fn claim(&mut self, at: usize, path: &Path, id: PortId) {
        let entry = &self.entries[&at];
        match self.claims.claim(Millis(clock::monotonic_ms()), id, at) {
            Ok(()) => {}
            Err(Denied::Served(by)) => {
                self.wait_for(at, by, path, id);
                return;
            }
            Err(Denied::Resting) => return,
            Err(Denied::Full) => {
                let path = path.display();
                entry.reporter.trouble(
                    "full",
                    &format!("{path} is not served: {PORTS_MAX} ports are, which is the limit"),
                );
                return;
            }
        }
        let leave = Rc::new(Notify::new());
        let task = Task {
            path: path.to_owned(),
            config: Rc::clone(&entry.config),
            reporter: Rc::clone(&entry.reporter),
            context: self.context.clone(),
            places: self.places.clone(),
            leave: Rc::clone(&leave),
        };
        if let Some(entry) = self.entries.get_mut(&at) {
            entry.served.insert(id, leave);
        }
        self.tasks.spawn_local(async move {
            let path = task.path.clone();
            Ended { entry: at, id, path, how: task.serve().await }
        });
    }

    /// A port that one entry wants is served for another.
    fn wait_for(&self, at: usize, by: usize, path: &Path, id: PortId) {
        let place = |at: usize| self.order.iter().position(|other| *other == at);
        // One that is not wanted any more lets go of it.
        if by == at || place(by).is_none() {
            return;
        }
        let (this, other) = (&self.entries[&at], &self.entries[&by]);
        if this.is_new && place(at) < place(by) {
            other.served.get(&id).inspect(|leave| leave.notify_one());
        } else if matches!(this.config.selector, SerialSelector::Any(_)) {
            // Whoever claims any port knows that others have theirs.
            if this.reporter.stats().condition().0 == SourceState::Starting {
                this.reporter.waiting();
            }
        } else {
            let (path, other) = (path.display(), &other.config.selector);
            let why = format!("{path} is served for the [[serial]] {other} already; remove one of the two");
            this.reporter.trouble("claimed", &why);
        }
    }

    fn ended(&mut self, ended: Ended) {
        let Ended { entry: at, id, path, how } = ended;
        if !self.order.contains(&at) {
            self.let_go(at, id);
            return;
        }
        let end = match &how {
            How::Left => End::Gone { valid: true },
            How::HungUp { valid, .. } => End::Gone { valid: *valid },
            How::Foreign => End::Foreign,
            How::NotOpened { .. } => End::Failed,
        };
        let pause_ms = self.claims.release(Millis(clock::monotonic_ms()), id, end);
        let Some(entry) = self.entries.get_mut(&at) else { return };
        entry.served.remove(&id);
        entry.has_understood |= matches!(how, How::HungUp { valid: true, .. });
        let name = path.display();
        let (state, why) = match how {
            How::Left => {
                if entry.served.is_empty() {
                    entry.reporter.stats().set_state(SourceState::Starting);
                }
                return;
            }
            How::HungUp { error, .. } => (PortState::Failed, format!("serial port {name} is gone: {error}")),
            How::Foreign => {
                let (patience, pause) = (PATIENCE_MS / 1000, pause_ms / 1000);
                let why = format!(
                    "serial port {name} brought nothing valid in {patience} s; it is left to others, and tried again in {pause} s"
                );
                (PortState::Released, why)
            }
            How::NotOpened { state, why } => (state, why),
        };
        let serial = entry.config.selector.to_string();
        let (detail, since_ns) = (why.clone(), clock::now_ns());
        self.context.stats.set_port(&path, Served { serial, state, detail, since_ns });
        if entry.served.is_empty() {
            entry.reporter.disconnected(&why);
        } else {
            entry.reporter.trouble("port", &why);
        }
    }

    /// A port that was served for an entry which is not wanted any more is free.
    fn let_go(&mut self, at: usize, id: PortId) {
        self.claims.release(Millis(clock::monotonic_ms()), id, End::Gone { valid: true });
        let Some(entry) = self.entries.get_mut(&at) else { return };
        entry.served.remove(&id);
        if entry.served.is_empty() {
            self.entries.remove(&at);
        }
    }
}

impl Entry {
    /// No port is there that it stands for.
    fn is_missing(&self) {
        let selector = &self.config.selector;
        // The task of one that has just gone is about to see it.
        if !self.served.is_empty() {
            return;
        }
        if selector.is_claim() && !self.has_understood {
            // Nobody has said that there must be one.
            self.reporter.waiting();
        } else {
            self.reporter.missing(&format!(
                "{selector} is not there; plug it in, or correct [[serial]] (`forebay ports` shows what there is)"
            ));
        }
    }

    /// Lets go of ports that its path does not lead to any more. One that leads nowhere may be only renamed.
    fn leave_others(&self, found: &[(PathBuf, PortId)]) {
        if self.config.selector.is_claim() || found.is_empty() {
            return;
        }
        for (id, leave) in &self.served {
            if found.iter().all(|(_, found)| found != id) {
                leave.notify_one();
            }
        }
    }
}
