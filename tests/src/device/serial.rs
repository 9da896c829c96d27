//! A native device at the end of a pseudo-terminal, in a thread of its own, with a cable that can be pulled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    plugged: Arc<AtomicBool>,
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
        let plugged = Arc::new(AtomicBool::new(true));
        let cable = Arc::clone(&plugged);
        let thread = std::thread::Builder::new()
            .name("serial device".into())
            .spawn(move || run(core, line, &link, &cable))
            .context("starting a device's thread")?;
        Ok(SerialDevice { plugged, thread: Some(thread) })
    }

    /// Pulls the cable.
    pub fn unplug(&self) {
        self.plugged.store(false, Ordering::Release);
    }

    /// Plugs it in again, as another terminal behind the same link.
    pub fn plug_in(&self) {
        self.plugged.store(true, Ordering::Release);
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

fn run<const RING: usize>(
    mut core: NativeCore<RING>,
    line: Line,
    link: &Path,
    plugged: &AtomicBool,
) -> anyhow::Result<()> {
    let mut line = Some(line);
    let mut buffer = [0; 512];
    while core.phase() != Phase::Ended {
        let wait_ms = core.step()?;
        match (&line, plugged.load(Ordering::Acquire)) {
            (Some(_), false) => line.take().into_iter().for_each(Line::unplug),
            (None, true) => line = Some(Line::plug_in(link)?),
            (None, false) => std::thread::sleep(UNPLUGGED_NAP.min(Duration::from_millis(wait_ms))),
            (Some(line), true) => {
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
                if stuck {
                    line.allow_next_gateway();
                }
            }
        }
        if wait_ms >= 20
            && let Some(line) = &line
        {
            line.allow_next_gateway();
        }
    }
    line.into_iter().for_each(Line::unplug);
    Ok(())
}
