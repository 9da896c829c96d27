//! A whole firmware whose bytes and rows come from interrupts. On a chip, the queues are statics, and an interrupt has
//! the giver; here a thread stands for each: `cargo run --example interrupt /dev/ttyUSB0`.
mod host;

use forebay_firmware::adapters::interrupt::{Bytes, Rows, service};
use forebay_firmware::{Device, DeviceConfig, WhenFull};
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
    let (receiver, mut port) = host::Port::open()?.split();
    let (mut bytes, mut rows) = (Bytes::<129>::new(), Rows::<1, 9>::new());
    let ((mut to_bytes, mut bytes), (mut to_rows, mut rows)) = (bytes.split(), rows.split());
    let chip = ChipId::new(b"\xe6\x62").ok_or("a chip id has 1 to 16 bytes")?;
    let mut device = Device::<8192, 1>::new(&CONFIG, chip, ResetCause::POWER_ON);
    std::thread::scope(|interrupts| {
        interrupts.spawn(move || receiver.for_each(|byte| to_bytes.give(byte)));
        let second = move |n| to_rows.give(Tick(host::millis()), [Some(Value::U32(n))]);
        interrupts.spawn(|| host::each_second(second));
        loop {
            rows.record(&mut device, GroupId(0))?;
            service(&mut device, &mut bytes, &mut port, Millis(host::millis()), Tick(host::millis()))?;
            host::nap();
        }
    })
}
