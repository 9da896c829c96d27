//! Joins a device with a port that is awaited: any `embedded-io-async` port whose `read` may be given up, as those
//! with a receive buffer allow.
//!
//! The device stays with the caller, which samples between two calls. No executor and no timer of a particular kind is
//! needed: the caller brings the future that ends a wait.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use embedded_io_async::{Read, Write};
use forebay_shared::ids::{Millis, Tick};

use crate::Device;
use crate::ring::Memory;

/// Writes all that the device has to say, and then waits for bytes, which it takes in, or for the end of the future
/// that `wait` makes: at the latest at the deadline that `wait` is given, and no later than the caller's next sample.
/// `clock` reads the time.
///
/// # Errors
///
/// Those of the port. The device goes on from where it was at the next call.
pub async fn service<
    const RING: usize,
    const CHANNELS: usize,
    M: Memory,
    P: Read + Write,
    W: Future<Output = ()>,
>(
    device: &mut Device<RING, CHANNELS, M>,
    port: &mut P,
    clock: impl Fn() -> (Millis, Tick),
    wait: impl FnOnce(Option<Millis>) -> W,
) -> Result<(), P::Error> {
    let deadline = loop {
        let (now, tick) = clock();
        let deadline = device.poll(now, tick);
        if device.transmit().is_empty() {
            break deadline;
        }
        while !device.transmit().is_empty() {
            let count = port.write(device.transmit()).await?;
            device.sent(count);
        }
    };
    let mut buffer = [0; 64];
    if let Some(count) = first(port.read(&mut buffer), wait(deadline)).await {
        device.receive(clock().0, buffer.get(..count?).unwrap_or_default());
    }
    Ok(())
}

/// The output of `wanted`, or `None` if `limit` ends before it. Where both are ready, `wanted` counts: a port that has
/// taken bytes out of its buffer must not be given up.
async fn first<T>(wanted: impl Future<Output = T>, limit: impl Future<Output = ()>) -> Option<T> {
    let (mut wanted, mut limit) = (pin!(wanted), pin!(limit));
    poll_fn(|context| match wanted.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => limit.as_mut().poll(context).map(|()| None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::{pending, ready};
    use std::task::{Context, Waker};
    use std::vec::Vec;

    use embedded_io::{ErrorKind, ErrorType};
    use forebay_shared::frame::{Decoder, encode};
    use forebay_shared::ids::{Boot, ChipId, Epoch, Seq, Token};
    use forebay_shared::link::Transport;
    use forebay_shared::message::{Body, FromDevice, ResetCause, Welcome};
    use forebay_shared::reading::{Channel, Group, Groups, ValueKind};

    use super::*;
    use crate::{DeviceConfig, WhenFull};

    #[derive(Default)]
    struct Port {
        arrived: VecDeque<u8>,
        written: Vec<u8>,
    }

    impl ErrorType for Port {
        type Error = ErrorKind;
    }

    impl Read for Port {
        async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
            if self.arrived.is_empty() {
                pending::<()>().await;
            }
            let count = buffer.len().min(self.arrived.len());
            self.arrived.drain(..count).zip(buffer).for_each(|(byte, slot)| *slot = byte);
            Ok(count)
        }
    }

    impl Write for Port {
        async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
            let count = bytes.len().min(3);
            self.written.extend(&bytes[..count]);
            Ok(count)
        }

        async fn flush(&mut self) -> Result<(), ErrorKind> {
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

    /// Whether one call comes to its end, with a wait that is over at once or never.
    fn ends(device: &mut Device<512, 1>, port: &mut Port, wait_is_over: bool) -> bool {
        let clock = || (Millis(0), Tick(0));
        let wait = |_| async move { if wait_is_over { ready(()).await } else { pending().await } };
        let call = pin!(service(device, port, clock, wait));
        call.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn all_is_written_before_it_waits_and_bytes_end_the_wait() {
        let chip = ChipId::new(&[1]).unwrap();
        let mut device = Device::<512, 1>::new(&CONFIG, chip.clone(), ResetCause::UNKNOWN);
        let mut port = Port::default();
        assert!(!ends(&mut device, &mut port, false), "nothing has arrived");
        let mut decoder = Decoder::<{ Decoder::MAX }>::new();
        let hello = decoder.next(&mut &port.written[..]).unwrap().unwrap();
        assert!(matches!(FromDevice::parse(hello), Ok(FromDevice::Hello(hello)) if hello.chip == chip));
        assert!(ends(&mut device, &mut port, true), "the wait is over");

        let (epoch, boot, seq) = (Epoch(1), Boot::new(1).unwrap(), Seq(0));
        let (wants_birth, credit, answers) = (false, 1, Token(0));
        let welcome =
            Welcome { epoch, boot, released: seq, received: seq, wants_birth, credit, chip, answers };
        let mut frame = [0; 64];
        let len = encode(&[&welcome.to_message()], &mut frame).unwrap();
        port.arrived.extend(&frame[..len]);
        assert!(ends(&mut device, &mut port, true), "what was read counts, even where the wait is over too");
        assert!(device.is_connected());
    }
}
