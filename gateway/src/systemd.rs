//! What the service manager is told: datagrams of `KEY=VALUE` lines on the socket that NOTIFY_SOCKET names, as systemd's
//! sd_notify(3) describes them. Without that variable nothing is told.
//!
//! * `READY=1` once acks can be given: the journal is open, and all sources have started.
//! * `STATUS=…` whenever what `systemctl status` shows in one line has changed, looked at every ten seconds.
//! * `RELOADING=1`, and `READY=1` when that is over; `STOPPING=1` at the end.
//! * `WATCHDOG=1`, if the unit has a `WatchdogSec=`, for each turn of the committer.
//!
//! **The watchdog** follows the commit loop, because a gateway that commits nothing acks nothing, however lively the rest
//! looks. Four times in the time that the manager waits, the committer is asked for a turn, which costs an idle one a
//! wake-up; if it has taken one since it was asked the last time, or come back from the disk, the manager hears of it. A
//! committer that is stuck, or that has ended because the journal can no longer be written, takes none, and a restart,
//! which loses nothing that was acked, is the cure. A disk that is merely slow is no reason: a kill would not end its
//! `fdatasync`, and a start would read from the same disk. Therefore `WatchdogSec=` in `gateway/packaging` is longer than
//! the kernel waits for any disk before it reports an error.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::{debug, warn};

use crate::journal::{Condition, Journal};

/// How often the line of `systemctl status` is looked at.
const STATUS_PAUSE: Duration = Duration::from_secs(10);

/// How often the committer is asked for a turn in the time after which the manager loses patience.
const TURNS: u32 = 4;

/// Longest that a manager which does not read its socket may hold anybody up.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager that has started this process, by its environment.
    #[must_use]
    pub fn of_this_process() -> Manager {
        let variable = std::env::var_os;
        let meant_for = variable("WATCHDOG_PID");
        let watchdog = variable("WATCHDOG_USEC").filter(|_| is_meant_for_us(meant_for.as_deref()));
        let socket = variable("NOTIFY_SOCKET").and_then(|name| {
            let connected = connect(&name);
            connected
                .inspect_err(|cause| warn!(%cause, socket = %name.display(), "the service manager (NOTIFY_SOCKET) cannot be told anything"))
                .ok()
        });
        Manager { socket, watchdog: watchdog.and_then(|text| patience(&text)) }
    }

    /// The gateway runs, or the configuration has been read again. Whether acks are given is the journal's to say.
    pub fn ready(&self, journal: &Journal) {
        self.tell(&format!("READY=1\nSTATUS={}", line(journal)));
    }

    /// The configuration is being read again; [`Manager::ready`] is to follow.
    pub fn reloading(&self) {
        self.tell("RELOADING=1\nSTATUS=reading the configuration again");
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=delivering what is committed");
    }

    /// What goes on, in one line.
    pub fn status(&self, line: &str) {
        self.tell(&format!("STATUS={line}"));
    }

    /// Says every now and then that the committer takes its turns, and what goes on. Ends never, or at once if nobody
    /// listens.
    pub async fn watch(&self, journal: &Journal) {
        if self.socket.is_none() {
            return;
        }
        let turn = self.watchdog.map(|patience| patience / TURNS);
        let mut until_status = Duration::ZERO;
        let mut shown = String::new();
        let mut turns = journal.ask_for_a_turn();
        loop {
            let pause = turn.unwrap_or(STATUS_PAUSE).min(STATUS_PAUSE);
            tokio::time::sleep(pause).await;
            let now = journal.ask_for_a_turn();
            if turn.is_some() && now != turns {
                self.tell("WATCHDOG=1");
            }
            turns = now;
            until_status = until_status.saturating_sub(pause);
            if until_status.is_zero() {
                until_status = STATUS_PAUSE;
                let line = line(journal);
                if line != shown {
                    self.status(&line);
                    shown = line;
                }
            }
        }
    }

    fn tell(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(cause) = socket.send(message.as_bytes()) {
            debug!(%cause, message, "the service manager does not listen");
        }
    }
}

/// Opens the socket of the manager: a path, or behind `@` a name of Linux' abstract namespace.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "it is neither a path nor @ and a name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// How long the manager waits; none for a text that says nothing, or zero.
fn patience(microseconds: &OsStr) -> Option<Duration> {
    let microseconds = microseconds.to_str()?.trim().parse().ok()?;
    Some(Duration::from_micros(microseconds)).filter(|patience| !patience.is_zero())
}

/// A watchdog may be meant for the process that has started this one.
fn is_meant_for_us(pid: Option<&OsStr>) -> bool {
    pid.is_none_or(|pid| pid.to_str().and_then(|pid| pid.parse().ok()) == Some(std::process::id()))
}

/// What `systemctl status` shows.
fn line(journal: &Journal) -> String {
    let usage = journal.usage();
    let waiting = journal.with_state(|state| {
        let owed = state.sinks().iter().map(|sink| state.owed(&sink.name));
        owed.max().unwrap_or(0)
    });
    let acks = match usage.state {
        Condition::Running => "acks are given".to_owned(),
        Condition::Full => usage.trouble.unwrap_or_else(|| "the journal is full; acks wait".to_owned()),
        Condition::Stalled => {
            usage.trouble.unwrap_or_else(|| "the disk does not answer; acks wait".to_owned())
        }
        Condition::Failed => "the journal has failed; nothing is acked, see the log".to_owned(),
    };
    // A line of its own would be another variable.
    format!("{acks}; {waiting} rows wait for a database").replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::memory::MemoryStorage;
    use crate::journal::{Options, STALLED_AFTER};
    use std::sync::Arc;

    fn journal() -> Journal {
        Journal::open(Arc::new(MemoryStorage::new()), &Options::sized(4 << 20)).unwrap().0
    }

    /// A manager's socket, and a gateway's view of it.
    fn pair(watchdog: Option<Duration>) -> (UnixDatagram, Manager) {
        let (theirs, ours) = UnixDatagram::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (theirs, Manager { socket: Some(ours), watchdog })
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("forebay-test-{}", getrandom::u64().unwrap());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, known) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            let manager = Manager { socket: Some(connect(&known).unwrap()), watchdog: None };
            manager.ready(&journal());
            assert_eq!(heard(&socket), "READY=1\nSTATUS=acks are given; 0 rows wait for a database");
        }
        assert_eq!(connect(OsStr::new("vsock:2:1")).unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert_eq!(connect(OsStr::new("/nowhere/notify")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_disk_that_does_not_answer_gives_no_acks() {
        let storage = MemoryStorage::new();
        let (journal, _) = Journal::open(Arc::new(storage.clone()), &Options::sized(4 << 20)).unwrap();
        storage.faults(|faults| faults.hold_syncs = true);
        let idle = line(&journal);
        let begun = std::time::Instant::now();
        journal.register_sink("main").unwrap();
        let await_line = |wanted: &str| loop {
            let line = line(&journal);
            if line.starts_with(wanted) || begun.elapsed() > Duration::from_secs(20) {
                return line;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let held_up = await_line("the disk does not answer");
        let after = begun.elapsed();
        storage.faults(|faults| faults.hold_syncs = false);
        let over = await_line("acks are given");
        assert!(idle.starts_with("acks are given"), "nothing waits for the disk: {idle}");
        assert!(held_up.starts_with("the disk does not answer"), "{held_up}");
        assert!(after >= STALLED_AFTER, "it is given time: {after:?}");
        assert!(over.starts_with("acks are given"), "{over}");
    }

    #[test]
    fn what_the_environment_says_is_read_or_left() {
        assert_eq!(patience(OsStr::new("180000000")), Some(Duration::from_secs(180)));
        for text in ["", "0", "-1", "soon", "18446744073709551616"] {
            assert_eq!(patience(OsStr::new(text)), None, "{text:?}");
        }
        let own = std::process::id();
        assert!(is_meant_for_us(None) && is_meant_for_us(Some(OsStr::new(&own.to_string()))));
        assert!(!is_meant_for_us(Some(OsStr::new(&(own + 1).to_string()))));
        assert!(!is_meant_for_us(Some(OsStr::new("nobody"))));
    }

    #[test]
    fn nobody_is_told_where_nobody_listens() {
        let (theirs, manager) = pair(None);
        drop(theirs);
        manager.stopping();
        let manager = Manager { socket: None, watchdog: Some(Duration::from_secs(1)) };
        manager.reloading();
        // With nobody to tell, there is nothing to watch.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(manager.watch(&journal()));
    }

    #[test]
    fn the_watchdog_is_fed_while_the_committer_takes_turns_and_not_once_it_has_ended() {
        let (theirs, manager) = pair(Some(Duration::from_millis(40)));
        let journal = journal();
        let of_the_gateway = journal.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (done, is_done) = tokio::sync::oneshot::channel::<()>();
        let watcher = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = manager.watch(&of_the_gateway) => {}
                    _ = is_done => {}
                }
            });
            manager
        });
        // It is idle all the time.
        let (mut feeds, mut lines) = (0, Vec::new());
        while feeds < 5 {
            match heard(&theirs).as_str() {
                "WATCHDOG=1" => feeds += 1,
                line => lines.push(line.to_owned()),
            }
        }
        assert_eq!(lines, ["STATUS=acks are given; 0 rows wait for a database"], "and once, since it stays");
        journal.close();
        // Its last turn may still be told of. Then there is none for much longer than the manager would wait.
        theirs.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        let mut buffer = [0; 64];
        let mut rest = 0;
        while let Ok(length) = theirs.recv(&mut buffer) {
            rest += u32::from(&buffer[..length] == b"WATCHDOG=1");
            assert!(rest < 50, "it is fed on and on");
        }
        drop(done);
        drop(watcher.join());
    }
}
