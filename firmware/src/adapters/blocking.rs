//! Joins a device with a serial port that blocks: any `embedded-io` port that can say whether bytes have
//! arrived.
//!
//! One call reads what is there and writes once, so that a slow line holds the firmware's own loop up for
//! no longer than the port's `write` does.

use embedded_io::{Read, ReadReady, Write};
use forebay_shared::ids::{Millis, Tick};

use crate::Device;
use crate::ring::Memory;

/// Most reads in one call, so that a noisy line cannot keep the firmware from sampling.
const READS_MAX: usize = 4;

/// Reads what has arrived, decides, and writes once. Gives the time at which to call again at the latest,
/// if the port is quiet and nothing is recorded before; it is `now` where there is more to write.
///
/// # Errors
///
/// Those of the port. The device goes on from where it was at the next call.
pub fn service<const RING: usize, const CHANNELS: usize, M: Memory, P: Read + ReadReady + Write>(
    device: &mut Device<RING, CHANNELS, M>,
    port: &mut P,
    now: Millis,
    tick: Tick,
) -> Result<Option<Millis>, P::Error> {
    let mut buffer = [0; 64];
    for _ in 0..READS_MAX {
        if !port.read_ready()? {
            break;
        }
        let count = port.read(&mut buffer)?;
        device.receive(now, buffer.get(..count).unwrap_or_default());
    }
    let deadline = device.poll(now, tick);
    let waiting = device.transmit();
    if !waiting.is_empty() {
        let count = port.write(waiting)?;
        device.sent(count);
    }
    Ok(deadline)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::vec::Vec;

    use embedded_io::{ErrorKind, ErrorType};
    use forebay_shared::frame::{Decoder, encode};
    use forebay_shared::ids::{Boot, ChipId, Epoch, Seq, Token};
    use forebay_shared::link::Transport;
    use forebay_shared::message::{Body, FromDevice, ResetCause, Welcome};
    use forebay_shared::reading::{Channel, Group, Groups, ValueKind};

    use super::*;
    use crate::{DeviceConfig, WhenFull};

    /// A port that takes five bytes at a time.
    #[derive(Default)]
    struct Port {
        arrived: VecDeque<u8>,
        written: Vec<u8>,
        broken: bool,
    }

    impl ErrorType for Port {
        type Error = ErrorKind;
    }

    impl ReadReady for Port {
        fn read_ready(&mut self) -> Result<bool, ErrorKind> {
            if self.broken { Err(ErrorKind::BrokenPipe) } else { Ok(!self.arrived.is_empty()) }
        }
    }

    impl Read for Port {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
            let count = buffer.len().min(self.arrived.len());
            assert!(count > 0, "a read would have blocked");
            self.arrived.drain(..count).zip(buffer).for_each(|(byte, slot)| *slot = byte);
            Ok(count)
        }
    }

    impl Write for Port {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
            let count = bytes.len().min(5);
            self.written.extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> Result<(), ErrorKind> {
            Ok(())
        }
    }

    const GROUPS: Groups = Groups::new(&[Group {
        name: "meter",
        channels: &[Channel { name: "pulses", unit: "", kind: ValueKind::U32, scale: 0 }],
    }]);

    #[test]
    fn a_port_is_read_and_written_piece_by_piece() {
        let chip = ChipId::new(&[1]).unwrap();
        static CONFIG: DeviceConfig = DeviceConfig {
            name: "",
            groups: GROUPS,
            tick_hz: 1000,
            linger_ms: 0,
            transport: Transport::Serial,
            when_full: WhenFull::DropOldest,
        };
        let mut device = Device::<512, 1>::new(&CONFIG, chip.clone(), ResetCause::UNKNOWN);
        let mut port = Port::default();
        let now = Millis(0);
        while service(&mut device, &mut port, now, Tick(3)).unwrap() == Some(now) {}
        let mut decoder = Decoder::<{ Decoder::MAX }>::new();
        let hello = decoder.next(&mut &port.written[..]).unwrap().unwrap();
        assert!(matches!(FromDevice::parse(hello), Ok(FromDevice::Hello(hello)) if hello.chip == chip));

        let (released, received) = (Seq(0), Seq(0));
        let (epoch, boot) = (Epoch(1), Boot::new(1).unwrap());
        let (wants_birth, credit, answers) = (true, 1, Token(3));
        let welcome = Welcome { epoch, boot, released, received, wants_birth, credit, chip, answers };
        let mut frame = [0; 64];
        let len = encode(&[&welcome.to_message()], &mut frame).unwrap();
        port.arrived.extend(&frame[..len]);
        port.broken = true;
        assert_eq!(service(&mut device, &mut port, now, Tick(3)), Err(ErrorKind::BrokenPipe));
        port.broken = false;
        service(&mut device, &mut port, now, Tick(3)).unwrap();
        assert!(device.is_connected());
    }
}
