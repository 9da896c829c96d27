//! Joins a device with interrupts: one that receives bytes, and one that samples rows.
//!
//! The device itself stays with the main loop. An interrupt only puts a byte or a row into a queue, in constant time
//! and without waiting; the main loop takes them out. There is one giver and one taker to a queue, so that plain loads
//! and stores are enough, as a Cortex-M0 has them.
//!
//! Failure: what finds a queue full is dropped and counted. A dropped byte damages a frame, which the link repeats. A
//! dropped row is lost, and the gateway is told so, between the rows before and after it.

use core::sync::atomic::{AtomicU32, Ordering};

use embedded_io::{Write, WriteReady};
use forebay_shared::ids::{GroupId, Millis, Tick};
use forebay_shared::message::GapCause;
use forebay_shared::reading::Value;
use heapless::spsc::{Consumer, Producer, Queue};

use crate::Device;
use crate::device::RecordError;
use crate::ring::Memory;

/// Bytes on their way from the receive interrupt to the main loop: at most `N - 1`. It must hold what the line brings
/// between two turns of the loop; what a gateway sends at once has at most 64 bytes.
#[derive(Debug)]
pub struct Bytes<const N: usize> {
    queue: Queue<u8, N>,
    lost: AtomicU32,
}

impl<const N: usize> Bytes<N> {
    /// An empty queue, which may be a static.
    pub const fn new() -> Self {
        Self { queue: Queue::new(), lost: AtomicU32::new(0) }
    }

    /// The interrupt's end and the main loop's.
    pub fn split(&mut self) -> (ByteGiver<'_>, ByteTaker<'_>) {
        let (giver, taker) = self.queue.split();
        let lost = &self.lost;
        (ByteGiver { queue: giver, lost }, ByteTaker { queue: taker, lost })
    }
}

impl<const N: usize> Default for Bytes<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The receive interrupt's end of [`Bytes`].
pub struct ByteGiver<'a> {
    queue: Producer<'a, u8>,
    lost: &'a AtomicU32,
}

impl ByteGiver<'_> {
    /// Takes a byte that arrived.
    pub fn give(&mut self, byte: u8) {
        if self.queue.enqueue(byte).is_err() {
            count_one(self.lost);
        }
    }
}

/// The main loop's end of [`Bytes`].
pub struct ByteTaker<'a> {
    queue: Consumer<'a, u8>,
    lost: &'a AtomicU32,
}

impl ByteTaker<'_> {
    /// Bytes that found no place so far.
    pub fn lost(&self) -> u32 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Hands on what the interrupt received, decides, and writes what the port takes at once. Gives the time at which to
/// call again at the latest, if nothing arrives and nothing is recorded before; it is `now` where there is more to
/// write.
///
/// # Errors
///
/// Those of the port. The device goes on from where it was at the next call.
pub fn service<const RING: usize, const CHANNELS: usize, M: Memory, P: Write + WriteReady>(
    device: &mut Device<RING, CHANNELS, M>,
    bytes: &mut ByteTaker<'_>,
    port: &mut P,
    now: Millis,
    tick: Tick,
) -> Result<Option<Millis>, P::Error> {
    // A queue holds at most so many bytes; what arrives meanwhile is for the next call.
    for _ in 0..bytes.queue.len() {
        if let Some(byte) = bytes.queue.dequeue() {
            device.receive(now, &[byte]);
        }
    }
    let deadline = device.poll(now, tick);
    // At most to the end of the frame.
    while !device.transmit().is_empty() && port.write_ready()? {
        let count = port.write(device.transmit())?;
        device.sent(count);
    }
    Ok(deadline)
}

/// Rows of `CHANNELS` values on their way from the interrupt that samples them to the main loop: at most `N - 1`.
#[derive(Debug)]
pub struct Rows<const CHANNELS: usize, const N: usize> {
    queue: Queue<Sample<CHANNELS>, N>,
    lost: AtomicU32,
}

/// A row in the queue.
#[derive(Debug)]
struct Sample<const CHANNELS: usize> {
    /// How many rows were lost before it.
    lost_before: u32,
    tick: Tick,
    values: [Option<Value>; CHANNELS],
}

impl<const CHANNELS: usize, const N: usize> Rows<CHANNELS, N> {
    /// An empty queue, which may be a static.
    pub const fn new() -> Self {
        Self { queue: Queue::new(), lost: AtomicU32::new(0) }
    }

    /// The interrupt's end and the main loop's.
    pub fn split(&mut self) -> (RowGiver<'_, CHANNELS>, RowTaker<'_, CHANNELS>) {
        let (giver, taker) = self.queue.split();
        let lost = &self.lost;
        (RowGiver { queue: giver, lost }, RowTaker { queue: taker, lost, told: 0 })
    }
}

impl<const CHANNELS: usize, const N: usize> Default for Rows<CHANNELS, N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The sampling interrupt's end of [`Rows`].
pub struct RowGiver<'a, const CHANNELS: usize> {
    queue: Producer<'a, Sample<CHANNELS>>,
    lost: &'a AtomicU32,
}

impl<const CHANNELS: usize> RowGiver<'_, CHANNELS> {
    /// Takes a row that was sampled at `tick`.
    pub fn give(&mut self, tick: Tick, values: [Option<Value>; CHANNELS]) {
        // Nobody else writes this counter.
        let lost_before = self.lost.load(Ordering::Relaxed);
        if self.queue.enqueue(Sample { lost_before, tick, values }).is_err() {
            count_one(self.lost);
        }
    }
}

/// The main loop's end of [`Rows`].
pub struct RowTaker<'a, const CHANNELS: usize> {
    queue: Consumer<'a, Sample<CHANNELS>>,
    lost: &'a AtomicU32,
    /// How many lost rows the caller knows of.
    told: u32,
}

/// What comes next out of [`Rows`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Taken<const CHANNELS: usize> {
    /// A row and the time of its sample.
    Row(Tick, [Option<Value>; CHANNELS]),
    /// So many rows found no place here.
    Lost(u32),
}

impl<const CHANNELS: usize> RowTaker<'_, CHANNELS> {
    /// What the interrupt gave next, if there is anything.
    pub fn take(&mut self) -> Option<Taken<CHANNELS>> {
        // This order makes the position of a loss exact: where the queue is found empty after the counter was read,
        // everything that was given before those losses has been taken.
        let lost = self.lost.load(Ordering::Acquire);
        let lost_before = self.queue.peek().map_or(lost, |sample| sample.lost_before);
        if lost_before != self.told {
            let rows = lost_before.wrapping_sub(self.told);
            self.told = lost_before;
            return Some(Taken::Lost(rows));
        }
        self.queue.dequeue().map(|Sample { tick, values, .. }| Taken::Row(tick, values))
    }

    /// Records what has gathered as rows of `group`; what found no place here is declared as a gap.
    ///
    /// # Errors
    ///
    /// The values are not the group's. That row is not recorded, and those behind it wait.
    pub fn record<const RING: usize, const ALL: usize, M: Memory>(
        &mut self,
        device: &mut Device<RING, ALL, M>,
        group: GroupId,
    ) -> Result<(), RecordError> {
        // Rows that are sampled meanwhile are for the next call, so that an interrupt at full speed cannot hold it.
        for _ in 0..=self.queue.len() {
            match self.take() {
                Some(Taken::Row(tick, values)) => match device.record(tick, group, &values) {
                    // A row that finds no room in the ring is declared there.
                    Ok(_) | Err(RecordError::Full) => {}
                    Err(error) => return Err(error),
                },
                Some(Taken::Lost(rows)) => device.skip(rows, GapCause::OVERRUN),
                None => break,
            }
        }
        Ok(())
    }

    /// Rows that found no place so far.
    pub fn lost(&self) -> u32 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Only the giver of a queue calls this, so that nothing comes between load and store.
fn count_one(lost: &AtomicU32) {
    lost.store(lost.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use embedded_io::{ErrorKind, ErrorType};
    use forebay_shared::frame::{Decoder, encode};
    use forebay_shared::ids::{Boot, ChipId, Epoch, Seq, Token};
    use forebay_shared::link::Transport;
    use forebay_shared::message::{Body, FromDevice, ResetCause, Welcome};
    use forebay_shared::reading::{Channel, Group, Groups, ValueKind};

    use super::*;
    use crate::{DeviceConfig, WhenFull};

    /// A port that is ready so many times, and then takes three bytes.
    #[derive(Default)]
    struct Port {
        ready: usize,
        written: Vec<u8>,
    }

    impl ErrorType for Port {
        type Error = ErrorKind;
    }

    impl WriteReady for Port {
        fn write_ready(&mut self) -> Result<bool, ErrorKind> {
            let ready = self.ready > 0;
            self.ready = self.ready.saturating_sub(1);
            Ok(ready)
        }
    }

    impl Write for Port {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
            let count = bytes.len().min(3);
            self.written.extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> Result<(), ErrorKind> {
            Ok(())
        }
    }

    static CONFIG: DeviceConfig = DeviceConfig {
        name: "",
        groups: Groups::new(&[Group {
            name: "meter",
            channels: &[Channel { name: "pulses", unit: "", kind: ValueKind::U32, scale: 0 }],
        }]),
        tick_hz: 1000,
        linger_ms: 0,
        transport: Transport::Serial,
        when_full: WhenFull::DropOldest,
    };

    fn device() -> Device<512, 1> {
        Device::new(&CONFIG, ChipId::new(&[1]).unwrap(), ResetCause::UNKNOWN)
    }

    #[test]
    fn bytes_reach_the_device_and_a_port_that_is_not_ready_is_not_written() {
        let (mut device, mut port, now) = (device(), Port::default(), Millis(0));
        let mut bytes = Bytes::<65>::new();
        let (mut giver, mut taker) = bytes.split();
        assert_eq!(service(&mut device, &mut taker, &mut port, now, Tick(0)), Ok(Some(now)));
        assert_eq!(port.written, []);
        port.ready = 100;
        while service(&mut device, &mut taker, &mut port, now, Tick(0)) == Ok(Some(now)) {}
        let mut decoder = Decoder::<{ Decoder::MAX }>::new();
        let hello = decoder.next(&mut &port.written[..]).unwrap().unwrap();
        assert!(matches!(FromDevice::parse(hello), Ok(FromDevice::Hello(_))));

        let chip = ChipId::new(&[1]).unwrap();
        let (epoch, boot, seq) = (Epoch(1), Boot::new(1).unwrap(), Seq(0));
        let (wants_birth, credit, answers) = (false, 1, Token(0));
        let welcome =
            Welcome { epoch, boot, released: seq, received: seq, wants_birth, credit, chip, answers };
        let mut frame = [0; 64];
        let len = encode(&[&welcome.to_message()], &mut frame).unwrap();
        frame[..len].iter().for_each(|byte| giver.give(*byte));
        service(&mut device, &mut taker, &mut port, now, Tick(0)).unwrap();
        assert!(device.is_connected());
        assert_eq!(taker.lost(), 0);
    }

    #[test]
    fn bytes_beyond_the_queue_are_counted() {
        let mut bytes = Bytes::<5>::new();
        let (mut giver, taker) = bytes.split();
        (0..7).for_each(|byte| giver.give(byte));
        assert_eq!(taker.lost(), 3);
    }

    fn row(number: u32) -> [Option<Value>; 1] {
        [Some(Value::U32(number))]
    }

    #[test]
    fn a_loss_is_told_where_it_happened() {
        let mut rows = Rows::<1, 3>::new();
        let (mut giver, mut taker) = rows.split();
        let mut give = |number: u32| giver.give(Tick(u64::from(number)), row(number));
        let mut take = || taker.take();
        (0..4).for_each(&mut give);
        assert_eq!(take(), Some(Taken::Row(Tick(0), row(0))));
        give(4);
        assert_eq!(take(), Some(Taken::Row(Tick(1), row(1))));
        assert_eq!(take(), Some(Taken::Lost(2)));
        assert_eq!(take(), Some(Taken::Row(Tick(4), row(4))));
        assert_eq!(take(), None);
        (5..9).for_each(&mut give);
        assert_eq!(take(), Some(Taken::Row(Tick(5), row(5))));
        assert_eq!(take(), Some(Taken::Row(Tick(6), row(6))));
        assert_eq!(take(), Some(Taken::Lost(2)), "also where no row follows");
        assert_eq!(take(), None);
        assert_eq!(taker.lost(), 4);
    }

    #[test]
    fn lost_rows_have_numbers() {
        let mut rows = Rows::<1, 3>::new();
        let (mut giver, mut taker) = rows.split();
        let mut device = device();
        (0..5).for_each(|number| giver.give(Tick(0), row(number)));
        taker.record(&mut device, GroupId(0)).unwrap();
        taker.record(&mut device, GroupId(0)).unwrap();
        assert_eq!(device.next_sequence(), Seq(5));
        assert_eq!(taker.record(&mut device, GroupId(0)), Ok(()));
        giver.give(Tick(0), row(5));
        assert_eq!(taker.record(&mut device, GroupId(1)), Err(RecordError::Group));
    }
}
