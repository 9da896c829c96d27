//! A whole firmware on a port that is asked. On a chip, `port` is the UART and `millis` a timer.
//! Here it runs on the serial port that is its argument: `cargo run --example blocking /dev/ttyUSB0`.
mod host;

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

fn main() -> host::Result<()> {
    let mut port = host::Port::open()?;
    let chip = ChipId::new(b"\xe6\x61").ok_or("a chip id has 1 to 16 bytes")?;
    let mut device = Device::<8192, 1>::new(&CONFIG, chip, ResetCause::POWER_ON);
    loop {
        let (now, seconds) = (host::millis(), device.next_sequence().0);
        if now >= 1000 * u64::from(seconds) {
            device.record(Tick(now), GroupId(0), &[Some(Value::U32(seconds))])?;
        }
        service(&mut device, &mut port, Millis(now), Tick(now))?;
        host::nap();
    }
}
