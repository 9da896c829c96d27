//! A native device at the end of a pseudo-terminal, in a thread of its own, with a cable that can be pulled.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use forebay_shared::ids::ChipId;
use forebay_shared::link::Transport;

use super::{NativeCore, Phase, Spec};
use crate::pty::Line;

/// How long a device without a cable sleeps between two samples, at most.
const UNPLUGGED_NAP: Duration = Duration::from_millis(20);

/// A running serial device.
#[derive(Debug)]
pub struct SerialDevice {
    /// Where the cable is plugged in.
    socket: Arc<Mutex<Option<PathBuf>>>,
    link: PathBuf,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl SerialDevice {
    /// Starts a device with a ring of `RING` bytes whose line the gateway reaches through `link`.
    ///
    /// # Errors
    /// No pseudo-terminal can be had.
    pub fn start<const RING: usize>(spec: Spec, chip: ChipId, link: PathBuf) -> anyhow::Result<SerialDevice> {
        let core = NativeCore::<RING>::new(spec, chip, Transport::Serial)?;
        let line = Line::plug_in(&link)?;
        let socket = Arc::new(Mutex::new(Some(link.clone())));
        let cable = Arc::clone(&socket);
        let thread = std::thread::Builder::new()
            .name("serial device".into())
            .spawn(move || run(core, line, &cable))
            .context("starting a device's thread")?;
        Ok(SerialDevice { socket, link, thread: Some(thread) })
    }

    /// Pulls the cable.
    pub fn unplug(&self) {
        *lock(&self.socket) = None;
    }

    /// Plugs it in again, as another terminal behind the same link.
    pub fn plug_in(&self) {
        self.plug_in_at(&self.link);
    }

    /// Plugs it in, after it was unplugged, behind any link.
    pub fn plug_in_at(&self, link: &Path) {
        *lock(&self.socket) = Some(link.to_owned());
    }

    /// Waits for the end of its thread.
    ///
    /// # Errors
    /// What the device failed of.
    pub fn join(&mut self) -> anyhow::Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => anyhow::bail!("a serial device's thread panicked"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run<const RING: usize>(
    mut core: NativeCore<RING>,
    line: Line,
    socket: &Mutex<Option<PathBuf>>,
) -> anyhow::Result<()> {
    let mut line = Some(line);
    let mut buffer = [0; 512];
    while core.phase() != Phase::Ended {
        let wait_ms = core.step()?;
        let plugged = lock(socket).clone();
        match (&line, plugged) {
            (Some(there), at) if at.as_deref() != Some(there.link()) => {
                line.take().into_iter().for_each(Line::unplug);
            }
            (None, Some(link)) => line = Some(Line::plug_in(&link)?),
            (None, None) => std::thread::sleep(UNPLUGGED_NAP.min(Duration::from_millis(wait_ms))),
            (Some(line), _) => {
                let mut written = 0;
                loop {
                    let waiting = core.device.transmit();
                    let count = if waiting.is_empty() { 0 } else { line.write(waiting)? };
                    core.device.sent(count);
                    written += count;
                    if count == 0 {
                        break;
                    }
                }
                // A full line is waited for like an idle one; the gateway's next byte ends the wait.
                let stuck = !core.device.transmit().is_empty();
                if written == 0 {
                    line.wait(if stuck { 1 } else { wait_ms.max(1) });
                }
                let length = line.read(&mut buffer)?;
                let now = core.now();
                core.device.receive(now, buffer.get(..length).unwrap_or_default());
                // A gateway that says nothing may be dead.
                if length == 0 {
                    line.allow_next_gateway();
                }
            }
        }
    }
    line.into_iter().for_each(Line::unplug);
    Ok(())
}
