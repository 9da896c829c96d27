//! A whole firmware on a port that is awaited. On a chip, the executor, the port and the timer are its HAL's.
//! Here it runs on the serial port that is its argument: `cargo run --example asynch /dev/ttyUSB0`.
mod host;

use forebay_firmware::{Device, DeviceConfig, WhenFull, adapters::asynch::service};
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
    host::block_on(run())
}
async fn run() -> host::Result<()> {
    let mut port = host::Port::open()?;
    let chip = ChipId::new(b"\xe6\x63").ok_or("a chip id has 1 to 16 bytes")?;
    let mut device = Device::<8192, 1>::new(&CONFIG, chip, ResetCause::POWER_ON);
    for seconds in 0.. {
        let (tick, next) = (Tick(host::millis()), 1000 * (u64::from(seconds) + 1));
        device.record(tick, GroupId(0), &[Some(Value::U32(seconds))])?;
        while host::millis() < next {
            let clock = || (Millis(host::millis()), Tick(host::millis()));
            let wait = |deadline: Option<Millis>| host::until(deadline.map_or(next, |at| at.0.min(next)));
            service(&mut device, &mut port, clock, wait).await?;
        }
    }
    Ok(())
}
