//! In: bytes from serial ports. Out: messages for sessions, and frames back to the devices.
//! Next: `shared/src/link/receiver.rs` behind `native.rs`, which gives deduplicated rows to `ingest/mod.rs`.
//!
//! One thread runs a current-thread runtime with a task a port. Each open port has two threads of its own: one only
//! reads, into a bounded channel, so that a full channel stops the reading and the kernel's buffer holds the line; one
//! only writes, so that a line that takes nothing holds up nobody. A control frame that finds no place before the
//! writing thread is lost like any other, and the link makes up for it. A port that disappears is looked for until it comes back; with `usb = …` every port of that kind is served.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use forebay_shared::frame::{self, DELIMITER, Decoder, FRAME_BYTES_MAX};
use forebay_shared::link::Transport;
use serialport::{SerialPortType, TTYPort};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::native::{Now, Session};
use super::{Context, Reporter, sleep_until};
use crate::config::{self, SerialSelector};
use crate::stats::SourceState;

/// How often ports that are not there are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Ports served at once for one `[[serial]]`.
const PORTS_MAX: usize = 64;

/// Chunks of bytes between the reading thread and the port's task.
const CHUNKS: usize = 16;

/// Bursts of frames that may wait to be written.
const BURSTS: usize = 4;

/// Largest chunk, in bytes.
const CHUNK_BYTES: usize = 4_096;

/// How long a reading thread waits before it looks whether it is still wanted.
const READ_TIMEOUT: Duration = Duration::from_millis(250);

/// How long a shutdown waits for the last commit.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Serves the configured ports until the context says to stop. Blocks its thread.
pub fn run(ports: Vec<(config::Serial, Reporter)>, context: &Context) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            for (_, reporter) in &ports {
                reporter.disconnected(&format!("cannot start a runtime for serial ports: {e}"));
            }
            return;
        }
    };
    LocalSet::new().block_on(&runtime, async {
        let tasks: Vec<_> = ports
            .into_iter()
            .map(|(config, reporter)| tokio::task::spawn_local(look_after(config, reporter, context.clone())))
            .collect();
        for task in tasks {
            task.await.ok();
        }
    });
}

/// Finds the ports of one `[[serial]]` again and again, and serves each that is there.
async fn look_after(config: config::Serial, reporter: Reporter, context: Context) {
    let reporter = Rc::new(reporter);
    let served: Rc<RefCell<HashSet<PathBuf>>> = Rc::default();
    let mut tasks = tokio::task::JoinSet::new();
    while !context.is_stopped() {
        // A set keeps what has ended until somebody asks.
        while tasks.try_join_next().is_some() {}
        let found = find(&config.selector);
        if found.is_empty() && served.borrow().is_empty() {
            reporter.missing(&format!("{} is not there; plug it in, or correct [[serial]]", config.selector));
        }
        for path in found {
            if served.borrow().len() >= PORTS_MAX || !served.borrow_mut().insert(path.clone()) {
                continue;
            }
            let (context, reporter, served) = (context.clone(), Rc::clone(&reporter), Rc::clone(&served));
            let baud = config.baud;
            tasks.spawn_local(async move {
                match serve(&path, baud, &context, &reporter).await {
                    Ok(()) => reporter.stats().set_state(SourceState::Stopped),
                    Err(e) => reporter.disconnected(&explain(&path, &e)),
                }
                served.borrow_mut().remove(&path);
            });
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = context.stopped() => {}
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// The ports that are there now.
pub(super) fn find(selector: &SerialSelector) -> Vec<PathBuf> {
    match selector {
        SerialSelector::Port(path) => {
            if path.exists() {
                vec![path.clone()]
            } else {
                Vec::new()
            }
        }
        SerialSelector::Usb { vendor, product } => usb_ports()
            .filter(|(usb, _)| usb.vid == *vendor && product.is_none_or(|product| usb.pid == product))
            .map(|(_, path)| path)
            .collect(),
    }
}

fn usb_ports() -> impl Iterator<Item = (serialport::UsbPortInfo, PathBuf)> {
    // The port scan of the crate insists on this directory, which a container may lack.
    let ports =
        if Path::new("/sys/class/tty").is_dir() { serialport::available_ports() } else { Ok(Vec::new()) };
    ports.unwrap_or_default().into_iter().filter_map(|port| match port.port_type {
        SerialPortType::UsbPort(usb) => Some((usb, PathBuf::from(port.port_name))),
        _ => None,
    })
}

/// Serves one port until it disappears, fails, or the gateway stops.
async fn serve(path: &Path, baud: u32, context: &Context, reporter: &Reporter) -> io::Result<()> {
    let name = path.to_string_lossy();
    let reader = serialport::new(name.as_ref(), baud).timeout(READ_TIMEOUT).open_native()?;
    let port = reader.try_clone_native()?;
    let (writer, bursts) = std::sync::mpsc::sync_channel(BURSTS);
    std::thread::Builder::new().name("serial-write".to_owned()).spawn(move || write(port, &bursts))?;
    let (sender, mut chunks) = mpsc::channel(CHUNKS);
    std::thread::Builder::new().name("serial-read".to_owned()).spawn(move || read(reader, &sender))?;
    reporter.connected(&name);
    let mut line =
        Line { decoder: Decoder::new(), writer, session: Session::new(context.clone(), Transport::Serial) };
    let mut watermark = context.watermark();
    let mut room = context.room();
    loop {
        let durable = *watermark.borrow_and_update();
        line.session.tend(Now::read(), durable, reporter);
        line.transmit();
        let deadline = line.session.poll_timeout().map(|at| at.0);
        tokio::select! {
            chunk = chunks.recv() => match chunk {
                Some(Ok(chunk)) => line.receive(&chunk, reporter),
                Some(Err(e)) => return Err(e),
                None => return Err(io::ErrorKind::BrokenPipe.into()),
            },
            _ = watermark.changed(), if line.session.awaits_commit() => {}
            _ = room.changed() => {}
            () = sleep_until(deadline) => {}
            () = context.stopped() => break,
        }
    }
    line.close(context, reporter).await;
    Ok(())
}

/// A chunk of bytes and when it came.
struct Chunk {
    bytes: Vec<u8>,
    at: Now,
}

/// Reads until the port fails or nobody listens any more.
fn read(mut port: TTYPort, chunks: &mpsc::Sender<io::Result<Chunk>>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while !chunks.is_closed() {
        let read = match port.read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::BrokenPipe.into()),
            Ok(length) => Ok(Chunk { bytes: buffer[..length].to_vec(), at: Now::read() }),
            Err(e) if matches!(e.kind(), io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => continue,
            Err(e) => Err(e),
        };
        let failed = read.is_err();
        if chunks.blocking_send(read).is_err() || failed {
            return;
        }
    }
}

/// Writes until the port's task is gone. A port that is gone too is noticed by its reader.
fn write(mut port: TTYPort, bursts: &Receiver<Vec<u8>>) {
    while let Ok(burst) = bursts.recv() {
        port.write_all(&burst).ok();
    }
}

/// An open port with the conversation on it.
struct Line {
    decoder: Decoder,
    writer: SyncSender<Vec<u8>>,
    session: Session,
}

impl Line {
    fn receive(&mut self, chunk: &Chunk, reporter: &Reporter) {
        let mut input = chunk.bytes.as_slice();
        while let Some(frame) = self.decoder.next(&mut input) {
            reporter.stats().messages.add(1);
            match frame {
                Ok(message) => self.session.handle(chunk.at, message, reporter),
                Err(e) => {
                    reporter.stats().bad_messages.add(1);
                    reporter.trouble("frame", &format!("bytes on the line are no frame: {e}"));
                }
            }
        }
    }

    fn transmit(&mut self) {
        let mut burst = vec![DELIMITER];
        while let Some(message) = self.session.poll_transmit(Now::read()) {
            let mut bytes = [0; FRAME_BYTES_MAX];
            if let Ok(length) = frame::encode(&[&message], &mut bytes) {
                burst.extend_from_slice(&bytes[..length]);
            }
        }
        if burst.len() > 1 {
            self.writer.try_send(burst).ok();
        }
    }

    /// Releases what the last commits made durable.
    async fn close(mut self, context: &Context, reporter: &Reporter) {
        let mut watermark = context.watermark();
        let released = async {
            while self.session.awaits_commit() && watermark.changed().await.is_ok() {
                let durable = *watermark.borrow_and_update();
                self.session.tend(Now::read(), durable, reporter);
            }
        };
        tokio::time::timeout(CLOSE_DEADLINE, released).await.ok();
        // An ack waits a few milliseconds for company.
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.transmit();
    }
}

fn explain(path: &Path, error: &io::Error) -> String {
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; add the gateway's user to the group of the port, usually dialout"
        }
        io::ErrorKind::NotFound => "; plug the device in, or correct `port`",
        _ => "",
    };
    format!("serial port {}: {error}{cure}", path.display())
}
