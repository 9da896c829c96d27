//! A native device at the end of a pseudo-terminal, with a cable that can be pulled. It is a task; one event loop runs
//! all serial devices of a fleet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_shared::ids::{ChipId, Millis};
use forebay_shared::link::Transport;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::faults::LineFaults;
use super::{NativeCore, Phase, Spec};
use crate::pty::Line;

/// How long a device whose line takes nothing waits before it looks again, at most.
const STUCK_NAP: Duration = Duration::from_millis(20);

/// A running serial device.
#[derive(Debug)]
pub struct SerialDevice {
    /// Where the cable is plugged in.
    socket: watch::Sender<Option<PathBuf>>,
    link: PathBuf,
}

/// What runs it.
#[derive(Debug)]
pub(super) struct SerialTask<const RING: usize> {
    core: NativeCore<RING>,
    faults: LineFaults,
    line: Line,
    socket: watch::Receiver<Option<PathBuf>>,
}

impl SerialDevice {
    /// A device with a ring of `RING` bytes whose line the gateway reaches through `link`, and the task that runs it.
    pub(super) fn new<const RING: usize>(
        spec: Spec,
        chip: ChipId,
        link: PathBuf,
    ) -> anyhow::Result<(SerialDevice, SerialTask<RING>)> {
        let faults = spec.faults.of_line(&spec.name);
        let core = NativeCore::new(spec, chip, Transport::Serial)?;
        let line = Line::plug_in(&link)?;
        let (sender, socket) = watch::channel(Some(link.clone()));
        Ok((SerialDevice { socket: sender, link }, SerialTask { core, faults, line, socket }))
    }

    /// Pulls the cable.
    pub fn unplug(&self) {
        self.socket.send_replace(None);
    }

    /// Plugs it in again, as another terminal behind the same link.
    pub fn plug_in(&self) {
        self.plug_in_at(&self.link);
    }

    /// Plugs it in, after it was unplugged, behind any link.
    pub fn plug_in_at(&self, link: &Path) {
        self.socket.send_replace(Some(link.to_owned()));
    }
}

impl<const RING: usize> SerialTask<RING> {
    /// Runs until the conductor ends it.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let SerialTask { core, faults, line, socket } = self;
        let phases = core.phases();
        let mut device = Running { core, faults, socket, phases, cut_until: Millis(0) };
        let mut line = Some(line.watched()?);
        while device.core.phase() != Phase::Ended {
            let wait = device.step(line.is_some())?;
            match (&line, device.socket_now()) {
                (Some(there), at) if at.as_deref() != Some(there.get_ref().link()) => {
                    line.take().into_iter().for_each(|line| line.into_inner().unplug());
                    device.faults.up.clear();
                    device.faults.down.clear();
                }
                (None, Some(link)) => line = Some(Line::plug_in(&link)?.watched()?),
                (None, None) => device.wait(wait).await,
                (Some(line), _) => device.carry(line, wait).await?,
            }
        }
        line.into_iter().for_each(|line| line.into_inner().unplug());
        Ok(())
    }
}

#[derive(Debug)]
struct Running<const RING: usize> {
    core: NativeCore<RING>,
    faults: LineFaults,
    socket: watch::Receiver<Option<PathBuf>>,
    phases: watch::Receiver<Phase>,
    cut_until: Millis,
}

impl<const RING: usize> Running<RING> {
    /// Lets the device hear what has arrived, and say what it has to as far as its line takes it. Says how long it may
    /// be left alone then.
    fn step(&mut self, is_plugged: bool) -> anyhow::Result<Duration> {
        loop {
            let wait_ms = self.core.step()?;
            let now = self.core.now();
            if let Some(bytes) = self.faults.down.arrived(now) {
                self.core.device.receive(now, bytes);
                let count = bytes.len();
                self.faults.down.take(count);
                continue;
            }
            let waiting = self.core.device.transmit();
            let is_stuck = !waiting.is_empty();
            let room = if is_plugged { self.faults.up.room() } else { 0 };
            let Some(taken) = waiting.get(..room.min(waiting.len())).filter(|taken| !taken.is_empty()) else {
                let wait = Duration::from_millis(wait_ms.max(1));
                return Ok(if is_stuck { STUCK_NAP } else { wait.min(self.until_arrival(now)) });
            };
            self.faults.up.send(now, taken);
            let count = taken.len();
            self.core.device.sent(count);
        }
    }

    /// Until something arrives at either end, or the line is cut or comes back.
    fn until_arrival(&self, now: Millis) -> Duration {
        let LineFaults { up, down, outages } = &self.faults;
        let back = Some(self.cut_until).filter(|at| *at > now);
        // What has arrived and is not taken waits for the line, not for a time.
        let coming = [up.next_at().filter(|at| *at > now), down.next_at(), outages.next_at(), back];
        let next = coming.into_iter().flatten().min().unwrap_or(Millis(u64::MAX));
        Duration::from_millis(next.0.saturating_sub(now.0).max(1))
    }

    /// Where the cable is plugged in, if it is and the line is not cut.
    fn socket_now(&mut self) -> Option<PathBuf> {
        let now = self.core.now();
        if self.core.phase() != Phase::Sampling {
            self.faults.outages.stop();
        }
        if let Some(away) = self.faults.outages.due(now) {
            self.cut_until = Millis(now.0 + u64::try_from(away.as_millis()).unwrap_or(0));
        }
        if now < self.cut_until { None } else { self.socket.borrow_and_update().clone() }
    }

    /// Moves bytes between the line and what is on its way, once; or waits.
    async fn carry(&mut self, line: &AsyncFd<Line>, wait: Duration) -> anyhow::Result<()> {
        let mut buffer = [0; 512];
        let now = self.core.now();
        let LineFaults { up, down, .. } = &mut self.faults;
        let room = down.room().min(buffer.len());
        tokio::select! {
            ready = line.readable(), if room > 0 => {
                let length = line.get_ref().read(buffer.get_mut(..room).unwrap_or_default())?;
                if length == 0 {
                    ready?.clear_ready();
                }
                // The time has passed while it waited.
                down.send(self.core.now(), buffer.get(..length).unwrap_or_default());
            }
            ready = line.writable(), if up.arrived(now).is_some() => {
                let count = line.get_ref().write(up.arrived(now).unwrap_or_default())?;
                if count == 0 {
                    ready?.clear_ready();
                }
                up.take(count);
            }
            // A gateway that says nothing may be dead.
            () = tokio::time::sleep(wait) => line.get_ref().allow_next_gateway(),
            _ = self.socket.changed() => {}
            _ = self.phases.changed() => {}
        }
        Ok(())
    }

    /// Waits without a line.
    async fn wait(&mut self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = self.socket.changed() => {}
            _ = self.phases.changed() => {}
        }
    }
}
