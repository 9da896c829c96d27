//! A whole firmware on a blocking port. On a chip, `port` is the UART and `millis` a timer.
use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write};
use forebay_firmware::{Device, DeviceConfig, WhenFull, adapters::blocking::service};
use forebay_shared::ids::{ChipId, GroupId, Millis, Tick};
use forebay_shared::reading::{Channel, Group, Groups, Value, ValueKind};
use forebay_shared::{link::Transport, message::ResetCause};

const UPTIME: Channel = Channel { name: "uptime", unit: "s", kind: ValueKind::U32, scale: 0 };
const GROUPS: Groups = Groups::new(&[Group { name: "health", channels: &[UPTIME] }]);

static CONFIG: DeviceConfig = DeviceConfig {
    name: "example",
    groups: GROUPS,
    tick_hz: 1000,
    linger_ms: 1000,
    transport: Transport::Serial,
    when_full: WhenFull::DropOldest,
};

fn run<P: Read + ReadReady + Write>(port: &mut P, millis: impl Fn() -> u64) -> Result<(), P::Error> {
    let Some(chip) = ChipId::new(b"\xe6\x61") else { return Ok(()) };
    let mut device = Device::<8192, 1>::new(&CONFIG, chip, ResetCause::UNKNOWN);
    loop {
        let (now, seconds) = (millis(), device.next_sequence().0);
        if now >= 1000 * u64::from(seconds) {
            // A row that finds no room is declared lost.
            let _ = device.record(Tick(now), GroupId(0), &[Some(Value::U32(seconds))]);
        }
        service(&mut device, port, Millis(now), Tick(now))?;
    }
}

/// On the host there is no UART: the firmware runs until it finds that out.
fn main() {
    println!("{:?}", run(&mut Unplugged, || 0));
}

struct Unplugged;

impl ErrorType for Unplugged {
    type Error = ErrorKind;
}

impl ReadReady for Unplugged {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        Err(ErrorKind::NotConnected)
    }
}

impl Read for Unplugged {
    fn read(&mut self, _: &mut [u8]) -> Result<usize, ErrorKind> {
        Err(ErrorKind::NotConnected)
    }
}

impl Write for Unplugged {
    fn write(&mut self, _: &[u8]) -> Result<usize, ErrorKind> {
        Err(ErrorKind::NotConnected)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}
