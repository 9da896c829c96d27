//! An open port: exclusive, raw, and with two threads of its own.
//!
//! **Constraints.** Opening and closing must not reset the device: no modem line is ever touched here (so it does not
//! matter to a port that has none), and the terminal is told not to hang up when it is closed, which a kernel does by
//! default. No other program may read from the same port, or each gets half of the bytes.
//! **Operation.** One thread only reads, into a bounded channel, so that a full channel stops the reading and the
//! kernel's buffer holds the line; one only writes, so that a line that takes nothing holds up nobody. Both wait for the
//! port and for the word to stop at once, and the port is closed when both have ended.
//! **Failure.** A port that hangs up may still hold bytes: it is read until it gives no more, and only then is it gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, OFlags, fcntl_setfl, flock};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{ControlModes, OptionalActions, ioctl_tiocexcl, ioctl_tiocnxcl, tcgetattr, tcsetattr};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::ports::PortId;
use crate::raw::{descriptor_of, is_exclusive};
use crate::source::native::Now;

/// Chunks of bytes between the reading thread and the port's task.
const CHUNKS: usize = 16;

/// Bursts of frames that may wait to be written.
const BURSTS: usize = 4;

/// Largest chunk, in bytes.
const CHUNK_BYTES: usize = 4_096;

/// Part of a line rate by which the adapter's may be off: what a UART still understands.
const RATE_ERROR: u32 = 33;

/// Why a port cannot be had.
#[derive(Debug, Error)]
pub(in crate::source) enum OpenError {
    /// Another process has it.
    #[error("another program has it open")]
    Held,
    /// It is something else.
    #[error("it is no serial port")]
    NotSerial,
    /// The line rate is refused.
    #[error("it takes no line rate of {0} bit/s")]
    Baud(u32),
    /// Anything else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for OpenError {
    fn from(error: Errno) -> OpenError {
        match error {
            Errno::NOTTY | Errno::INVAL | Errno::OPNOTSUPP => OpenError::NotSerial,
            error => OpenError::Io(error.into()),
        }
    }
}

impl From<serialport::Error> for OpenError {
    fn from(error: serialport::Error) -> OpenError {
        match error.kind {
            // Whether it is there was asked before.
            serialport::ErrorKind::NoDevice => OpenError::Held,
            serialport::ErrorKind::Io(kind) => OpenError::Io(io::Error::new(kind, error.description)),
            serialport::ErrorKind::InvalidInput | serialport::ErrorKind::Unknown => {
                OpenError::Io(io::Error::other(error.description))
            }
        }
    }
}

/// Opens a port for this process alone, raw, at `baud` bit/s.
pub(in crate::source) fn open(path: &Path, baud: u32) -> Result<OwnedFd, OpenError> {
    // Marked as the last thing, since where somebody else has the port open too, the mark would outlive a failure here.
    let port = open_unmarked(path, baud)?;
    lock(&port)?;
    // On a pseudo-terminal the mark stays for as long as the other end is open, whatever becomes of this process, and
    // would keep its next life out.
    if !PortId::of(path).is_some_and(PortId::is_pseudo) {
        ioctl_tiocexcl(&port)?;
    }
    Ok(port)
}

/// The same without any mark that keeps others out, for who only listens for a while. A port that another program has
/// marked is left to it all the same.
pub(in crate::source) fn open_unmarked(path: &Path, baud: u32) -> Result<OwnedFd, OpenError> {
    // A first handle asks what the one that is kept cannot ask any more, and is open meanwhile, so that nothing hangs up.
    let _first = ask(path)?;
    let port = descriptor_of(serialport::new(path.to_string_lossy(), baud).exclusive(false).open_native()?);
    // Opening it has locked it against those who want it for themselves.
    flock(&port, FlockOperation::Unlock)?;
    fcntl_setfl(&port, OFlags::NONBLOCK)?;
    // Asked again, since not every driver refuses a rate that it does not have. One that is near is what the clock of the
    // adapter makes of it.
    if tcgetattr(&port)?.output_speed().abs_diff(baud) > baud / RATE_ERROR {
        return Err(OpenError::Baud(baud));
    }
    Ok(port)
}

/// A handle of a serial port that nobody else has, which will not hang up when it is closed.
fn ask(path: &Path) -> Result<OwnedFd, OpenError> {
    // Without waiting: a port whose device does not announce itself by a modem line would not open.
    let flags = OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let port: OwnedFd = match std::fs::File::options().read(true).write(true).custom_flags(flags).open(path) {
        Ok(file) => file.into(),
        Err(e) if Errno::from_io_error(&e) == Some(Errno::BUSY) => return Err(OpenError::Held),
        Err(e) => return Err(e.into()),
    };
    let mut settings = tcgetattr(&port)?;
    // The mark of exclusiveness keeps others out, but not root, and the lock keeps out only who asks for it. So both are
    // asked for.
    lock(&port)?;
    if is_exclusive(port.as_fd()) {
        return Err(OpenError::Held);
    }
    settings.control_modes -= ControlModes::HUPCL;
    tcsetattr(&port, OptionalActions::Now, &settings)?;
    flock(&port, FlockOperation::Unlock)?;
    Ok(port)
}

fn lock(port: &OwnedFd) -> Result<(), OpenError> {
    match flock(port, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(OpenError::Held),
        locked => Ok(locked?),
    }
}

/// A chunk of bytes and when it came.
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) at: Now,
}

/// An open port with its threads.
pub(super) struct Port {
    /// What was read; the error that ended it comes last.
    pub(super) chunks: mpsc::Receiver<io::Result<Chunk>>,
    writer: SyncSender<Vec<u8>>,
    /// Dropping it tells both threads to stop.
    stop: OwnedFd,
    ended: mpsc::Receiver<()>,
}

impl Port {
    /// Starts the threads of a port that is open.
    pub(super) fn start(port: OwnedFd) -> io::Result<Port> {
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let handle = Arc::new(Handle { port, stopped });
        let (writer, bursts) = std::sync::mpsc::sync_channel(BURSTS);
        let (sender, chunks) = mpsc::channel(CHUNKS);
        // Nothing is ever sent here: the channel closes when both threads are gone, and the port with them.
        let (alive, ended) = mpsc::channel::<()>(1);
        let (writing, writing_alive) = (Arc::clone(&handle), alive.clone());
        std::thread::Builder::new().name("serial-write".to_owned()).spawn(move || {
            write(&writing, &bursts);
            drop(writing);
            drop(writing_alive);
        })?;
        std::thread::Builder::new().name("serial-read".to_owned()).spawn(move || {
            read(&handle.port, &handle.stopped, &sender);
            drop(handle);
            drop(alive);
        })?;
        Ok(Port { chunks, writer, stop, ended })
    }

    /// Writes a burst when the line takes it. Says whether it found a place; if not, it is lost, as on any line.
    pub(super) fn send(&self, burst: Vec<u8>) -> bool {
        !matches!(self.writer.try_send(burst), Err(TrySendError::Full(_)))
    }

    /// Lets the writing thread finish what it was given, as far as the line takes it, and closes the port.
    pub(super) async fn close(self) {
        let Port { chunks, writer, stop, mut ended } = self;
        drop((chunks, writer, stop));
        ended.recv().await;
    }
}

/// What the two threads share. The port is closed when the second of them drops it.
struct Handle {
    port: OwnedFd,
    /// Hangs up when the threads are to stop.
    stopped: OwnedFd,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Where somebody else has the port open too, the mark would outlive this handle. A port that is gone has none.
        ioctl_tiocnxcl(&self.port).ok();
    }
}

/// Reads until the port gives no more, or nobody listens any more.
fn read(port: &impl AsFd, stopped: &impl AsFd, chunks: &mpsc::Sender<io::Result<Chunk>>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while wait(port, PollFlags::IN, stopped) {
        // A port that has hung up may still have bytes, so reading decides and not what the wait says of it.
        let read = match rustix::io::read(port, &mut buffer) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "it hung up")),
            Ok(length) => Ok(Chunk { bytes: buffer[..length].to_vec(), at: Now::read() }),
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(e) => Err(e.into()),
        };
        let failed = read.is_err();
        if chunks.blocking_send(read).is_err() || failed {
            return;
        }
    }
}

/// Writes until the port's task is gone. A port that is gone too is noticed by its reader.
fn write(handle: &Handle, bursts: &Receiver<Vec<u8>>) {
    while let Ok(burst) = bursts.recv() {
        let mut rest = burst.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(&handle.port, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if wait(&handle.port, PollFlags::OUT, &handle.stopped) => {}
                Err(_) => break,
            }
        }
    }
}

/// Waits until the port is ready or in trouble; `false` when the threads are to stop.
fn wait(port: &impl AsFd, ready: PollFlags, stopped: &impl AsFd) -> bool {
    loop {
        let mut fds = [PollFd::new(port, ready), PollFd::new(stopped, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) => return fds[1].revents().is_empty(),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    /// The device's end of a line, and the path of the other.
    fn line() -> (OwnedFd, std::path::PathBuf) {
        let device = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&device).unwrap();
        unlockpt(&device).unwrap();
        let name = ptsname(&device, Vec::new()).unwrap();
        (device, name.to_str().unwrap().into())
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn what_is_pending_at_a_hang_up_is_read_before_the_port_is_gone() {
        // A pipe keeps what was written when its writer is gone, as some ports do, and reports both at once.
        let (port, device) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (stopped, _stop) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let sent: Vec<u8> = (0..40_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut device = std::fs::File::from(device);
        device.write_all(&sent).unwrap();
        drop(device);
        let (sender, mut chunks) = mpsc::channel(CHUNKS);
        let reader = std::thread::spawn(move || read(&port, &stopped, &sender));
        let mut received = Vec::new();
        let end = loop {
            match chunks.blocking_recv().unwrap() {
                Ok(chunk) => received.extend(chunk.bytes),
                Err(e) => break e,
            }
        };
        assert_eq!(end.kind(), io::ErrorKind::BrokenPipe);
        assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
        reader.join().unwrap();
    }

    #[test]
    fn a_port_is_raw_exclusive_and_does_not_hang_up_when_it_is_closed() {
        let (_device, path) = line();
        // The line stays as it was left only while somebody has it open.
        let witness = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let port = open(&path, 250_000).unwrap();
        let settings = tcgetattr(&port).unwrap();
        assert!(!settings.control_modes.contains(ControlModes::HUPCL));
        assert_eq!(settings.output_speed(), 250_000);
        let cooked = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        assert!(!settings.local_modes.intersects(cooked), "raw: {:?}", settings.local_modes);
        assert!(matches!(open(&path, 115_200), Err(OpenError::Held)));
        assert!(!is_exclusive(port.as_fd()), "a mark would outlive a process that is killed");
        let port = Port::start(port).unwrap();
        runtime().block_on(port.close());
        let again = open(&path, 115_200).unwrap();
        drop((again, witness));
    }

    #[test]
    fn a_port_that_others_mark_or_lock_is_held() {
        let (_device, path) = line();
        let other = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        ioctl_tiocexcl(&other).unwrap();
        assert!(matches!(open(&path, 115_200), Err(OpenError::Held)));
        ioctl_tiocnxcl(&other).unwrap();
        flock(&other, FlockOperation::LockExclusive).unwrap();
        assert!(matches!(open(&path, 115_200), Err(OpenError::Held)));
        flock(&other, FlockOperation::Unlock).unwrap();
        open(&path, 115_200).unwrap();
    }

    #[test]
    fn who_only_listens_keeps_nobody_out() {
        let (_device, path) = line();
        let listening = open_unmarked(&path, 115_200).unwrap();
        assert!(!is_exclusive(listening.as_fd()));
        let port = open(&path, 115_200).unwrap();
        assert!(matches!(open_unmarked(&path, 115_200), Err(OpenError::Held)));
        drop((listening, port));
    }

    #[test]
    fn what_is_no_port_is_said_to_be_none() {
        for path in ["/dev/null", "/proc/self/status"] {
            let error = open(Path::new(path), 115_200).unwrap_err();
            assert!(matches!(error, OpenError::NotSerial | OpenError::Io(_)), "{path}: {error}");
        }
        assert!(matches!(open(Path::new("/dev/null"), 9600), Err(OpenError::NotSerial)));
    }

    #[test]
    fn a_line_that_takes_nothing_holds_up_neither_the_sender_nor_the_end() {
        let (_device, path) = line();
        let port = Port::start(open(&path, 115_200).unwrap()).unwrap();
        let mut sent = 0;
        while port.send(vec![b'x'; 64 * 1024]) {
            sent += 1;
            assert!(sent < 1_000, "a line that nobody reads takes everything");
        }
        let closed = async { tokio::time::timeout(Duration::from_secs(20), port.close()).await };
        runtime().block_on(closed).expect("the threads end");
    }
}
