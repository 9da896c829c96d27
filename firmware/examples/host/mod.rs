//! What stands for a chip's HAL in these examples: a port, a timer and an executor on Linux.
#![allow(dead_code, reason = "each example needs another part of it")]

use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the start.
pub(crate) fn millis() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A chip would wait for an interrupt.
pub(crate) fn nap() {
    std::thread::sleep(Duration::from_millis(1));
}

/// Calls `sample` with 0, 1, 2 … a second apart.
pub(crate) fn each_second(mut sample: impl FnMut(u32)) {
    for seconds in 0.. {
        std::thread::sleep(Duration::from_millis((1000 * u64::from(seconds)).saturating_sub(millis())));
        sample(seconds);
    }
}

/// Ends at a time.
pub(crate) async fn until(at: u64) {
    poll_fn(|_| if millis() >= at { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Asks a future once a millisecond.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    let waker = Waker::from(Arc::new(Nobody));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        nap();
    }
}

/// A serial port whose settings are as `stty raw` makes them.
pub(crate) struct Port {
    arrived: Receiver<u8>,
    next: Option<u8>,
    writer: Writer,
}

impl Port {
    /// Opens the port that the command line names.
    pub(crate) fn open() -> Result<Port> {
        let path = std::env::args_os().nth(1).ok_or("name a serial port, such as /dev/ttyUSB0")?;
        let file = File::options().read(true).write(true).open(path)?;
        let reader = file.try_clone()?;
        let (sender, arrived) = sync_channel(4096);
        std::thread::spawn(move || {
            for byte in io::Read::bytes(reader).map_while(io::Result::ok) {
                if sender.send(byte).is_err() {
                    break;
                }
            }
        });
        Ok(Port { arrived, next: None, writer: Writer(file) })
    }

    /// The bytes that arrive, and the port for writing.
    pub(crate) fn split(self) -> (impl Iterator<Item = u8>, Writer) {
        (self.arrived.into_iter(), self.writer)
    }

    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let arrived = self.next.take().into_iter().chain(self.arrived.try_iter());
        buffer.iter_mut().zip(arrived).map(|(slot, byte)| *slot = byte).count()
    }
}

/// The half of a port that writes.
pub(crate) struct Writer(File);

impl ErrorType for Writer {
    type Error = io::Error;
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut self.0, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WriteReady for Writer {
    fn write_ready(&mut self) -> io::Result<bool> {
        Ok(true)
    }
}

impl ErrorType for Port {
    type Error = io::Error;
}

impl ReadReady for Port {
    fn read_ready(&mut self) -> io::Result<bool> {
        self.next = self.next.or_else(|| self.arrived.try_recv().ok());
        Ok(self.next.is_some())
    }
}

impl Read for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.read_ready()? {
            nap();
        }
        Ok(self.take(buffer))
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl embedded_io_async::Read for Port {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|_| match self.read_ready() {
            Ok(false) => Poll::Pending,
            ready => Poll::Ready(ready),
        })
        .await?;
        Ok(self.take(buffer))
    }
}

impl embedded_io_async::Write for Port {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
