//! The task of one port: opens it, keeps the conversation on it going, and says how it ended.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use forebay_shared::ids::Millis;
use tokio::sync::Notify;

use super::line::Line;
use super::port::{self, OpenError, Port};
use crate::clock;
use crate::config;
use crate::ports::{Places, PortId, PortState, Served};
use crate::source::native::Now;
use crate::source::{Context, Reporter, sleep_until};

/// How long a shutdown waits for the last commit, and for the line to take the last frames.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// How the serving of a port ended.
pub(super) enum How {
    /// The gateway stops, or the port is not wanted any more.
    Left,
    /// The port is gone.
    HungUp { error: io::Error, valid: bool },
    /// Nothing valid came.
    Foreign,
    /// It could not be opened.
    NotOpened { state: PortState, why: String },
}

/// The task of one port.
pub(super) struct Task {
    pub(super) path: PathBuf,
    pub(super) config: Rc<config::Serial>,
    pub(super) reporter: Rc<Reporter>,
    pub(super) context: Context,
    pub(super) places: Places,
    /// The port is not wanted any more.
    pub(super) leave: Rc<Notify>,
}

impl Task {
    /// Serves the port until it disappears, fails, turns out to be another's, or the gateway stops.
    pub(super) async fn serve(&self) -> How {
        let (path, places, baud) = (self.path.clone(), self.places.clone(), self.config.baud);
        // Some drivers take their time, and looking for who holds a port does.
        let is_claim = self.config.selector.is_claim();
        let opening = tokio::task::spawn_blocking(move || {
            // A program that neither marks nor locks its port is seen only like this.
            let opened = match PortId::of(&path) {
                Some(id) if is_claim && !id.is_pseudo() && !places.others(id).is_empty() => {
                    Err(OpenError::Held)
                }
                _ => port::open(&path, baud),
            };
            opened.map_err(|e| (state_of(&e), explain(&path, &e, &places)))
        });
        let opened = tokio::select! {
            opened = opening => opened,
            () = self.context.stopped() => return How::Left,
        };
        let opened = match opened {
            Ok(Ok(opened)) => Port::start(opened).map_err(|e| (PortState::Failed, e.to_string())),
            Ok(Err(refused)) => Err(refused),
            Err(e) => Err((PortState::Failed, e.to_string())),
        };
        let mut port = match opened {
            Ok(port) => port,
            Err((state, why)) => return How::NotOpened { state, why },
        };
        let name = self.path.to_string_lossy();
        self.reporter.connected(&name);
        self.tell(if self.config.selector.is_claim() { PortState::Waiting } else { PortState::Served });
        let mut line = Line::new(&self.config, &self.context, &name, Millis(clock::monotonic_ms()));
        let how = self.converse(&mut port, &mut line).await;
        // What was read before the port is let go of is not lost with it.
        while !line.is_full()
            && let Ok(Ok(chunk)) = port.chunks.try_recv()
        {
            line.receive(&chunk, &self.reporter);
        }
        line.finish(Now::read(), &self.reporter);
        tokio::time::timeout(CLOSE_DEADLINE, port.close()).await.ok();
        how
    }

    async fn converse(&self, port: &mut Port, line: &mut Line) -> How {
        let mut watermark = self.context.watermark();
        let mut room = self.context.room();
        loop {
            let durable = *watermark.borrow_and_update();
            let now = Now::read();
            line.tend(now, durable, &self.reporter);
            if let Some(burst) = line.poll_burst() {
                port.send(burst);
            }
            let foreign_at = line.foreign_at();
            if foreign_at.is_some_and(|at| at <= now.ms) {
                return How::Foreign;
            }
            let deadline = [line.poll_timeout(), foreign_at].into_iter().flatten().min();
            tokio::select! {
                chunk = port.chunks.recv(), if !line.is_full() => match chunk {
                    Some(Ok(chunk)) => {
                        let was_valid = line.is_valid();
                        line.receive(&chunk, &self.reporter);
                        if line.is_valid() && !was_valid {
                            self.reporter.understood();
                            self.tell(PortState::Served);
                        }
                        tokio::task::yield_now().await;
                    }
                    Some(Err(error)) => return How::HungUp { error, valid: line.is_valid() },
                    None => {
                        let error = io::ErrorKind::BrokenPipe.into();
                        return How::HungUp { error, valid: line.is_valid() };
                    }
                },
                _ = watermark.changed(), if line.awaits_commit() => {}
                _ = room.changed() => {}
                () = sleep_until(deadline.map(|at| at.0)) => {}
                () = self.leave.notified() => break,
                () = self.context.stopped() => break,
            }
        }
        self.take_leave(port, line).await;
        How::Left
    }

    /// Releases what the last commits made durable.
    async fn take_leave(&self, port: &Port, line: &mut Line) {
        let mut watermark = self.context.watermark();
        let released = async {
            while line.awaits_commit() && watermark.changed().await.is_ok() {
                let durable = *watermark.borrow_and_update();
                line.tend(Now::read(), durable, &self.reporter);
            }
        };
        tokio::time::timeout(CLOSE_DEADLINE, released).await.ok();
        // An ack waits a few milliseconds for company.
        tokio::time::sleep(Duration::from_millis(10)).await;
        if let Some(burst) = line.poll_burst() {
            port.send(burst);
        }
    }

    fn tell(&self, state: PortState) {
        let (serial, since_ns) = (self.config.selector.to_string(), clock::now_ns());
        self.context.stats.set_port(&self.path, Served { serial, state, detail: String::new(), since_ns });
    }
}

fn state_of(error: &OpenError) -> PortState {
    if matches!(error, OpenError::Held) { PortState::Held } else { PortState::Failed }
}

fn explain(path: &Path, error: &OpenError, places: &Places) -> String {
    let cure = match error {
        OpenError::Held => holder(path, places, rustix::process::geteuid().is_root()),
        OpenError::NotSerial => "; correct `port`".to_owned(),
        OpenError::Baud(_) => "; correct `baud`".to_owned(),
        OpenError::Io(e) => match e.kind() {
            io::ErrorKind::PermissionDenied => {
                "; add the gateway's user to the group of the port, usually dialout".to_owned()
            }
            io::ErrorKind::NotFound => "; plug the device in, or correct `port`".to_owned(),
            _ => String::new(),
        },
    };
    format!("serial port {}: {error}{cure}", path.display())
}

/// Who holds a port, as the end of a sentence; `sees_all` says whether processes of other users can be looked into.
fn holder(path: &Path, places: &Places, sees_all: bool) -> String {
    let others = PortId::of(path).map(|id| places.others(id)).unwrap_or_default();
    let names: Vec<String> = others.iter().map(ToString::to_string).collect();
    let who = match names[..] {
        [] if sees_all => "one that cannot be seen from here, perhaps outside of this container".to_owned(),
        [] => format!(
            "a process of another user, which this one may not see; `sudo forebay ports` names it, and so does \
             `sudo fuser -v {}`",
            path.display()
        ),
        _ => names.join(", "),
    };
    format!(": {who}; stop it, or name another port")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::tests::FakeMachine;

    #[test]
    fn a_holder_is_named_or_it_is_said_who_can_name_it() {
        let mut machine = FakeMachine::new();
        let port = machine.add("ttyA", "a", &[]);
        let open = std::fs::File::options().read(true).write(true).open(&port).unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").stdin(open).spawn().unwrap();
        let named = explain(&port, &OpenError::Held, &machine.places);
        let id = other.id();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(named.contains(&format!("has it open: process {id} (sleep); stop it, or")), "{named}");
        // As for a user who is shown no process but its own.
        let nobody = holder(&port, &machine.places, false);
        let fuser = format!("`sudo fuser -v {}`", port.display());
        assert!(nobody.starts_with(": a process of another user, ") && nobody.contains(&fuser), "{nobody}");
        assert!(
            nobody.contains("`sudo forebay ports`") && nobody.ends_with("or name another port"),
            "{nobody}"
        );
        assert!(!holder(&port, &machine.places, true).contains("sudo"), "root is sent to root");
    }
}
