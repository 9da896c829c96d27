//! The devices of the simulation: what they measure, and how small their rings are.

use std::cell::RefCell;
use std::rc::Rc;

use forebay_firmware::noise::Random;
use forebay_firmware::ring::{KEPT_BYTES, Kept, Memory};
use forebay_firmware::{Device, DeviceConfig, WhenFull};
use forebay_shared::ids::ChipId;
use forebay_shared::link::Transport;
use forebay_shared::message::ResetCause;
use forebay_shared::reading::{Channel, Group, Groups, ValueKind};

pub(crate) const RING: usize = 1024;
const CHANNELS: usize = 3;

pub(crate) type Board = Device<RING, CHANNELS, Kept<Ram>>;

const RAM: usize = RING + KEPT_BYTES;

/// A chip's memory, which a reset leaves as it is.
#[derive(Debug, Clone)]
pub(crate) struct Ram(Rc<RefCell<[u8; RAM]>>);

impl Ram {
    /// Of a chip to which power was applied.
    pub(crate) fn new(random: &mut Random) -> Self {
        Self(Rc::new(RefCell::new(core::array::from_fn(|_| random.below(256) as u8))))
    }

    /// Some of its bits turn over.
    pub(crate) fn damage(&self, random: &mut Random) {
        for _ in 0..random.within(1, 40) {
            self.0.borrow_mut()[random.below(RAM as u64) as usize] ^= 1 << random.below(8);
        }
    }
}

impl Memory for Ram {
    const BYTES: usize = RAM;

    fn read(&self, at: usize) -> u8 {
        self.0.borrow()[at]
    }

    fn write(&mut self, at: usize, byte: u8) {
        self.0.borrow_mut()[at] = byte;
    }
}

/// By set of channels.
pub(crate) type Configs = &'static [DeviceConfig; 2];

const METER: Group = Group {
    name: "meter",
    channels: &[Channel { name: "pulses", unit: "", kind: ValueKind::U32, scale: 0 }],
};

pub(crate) const GROUPS: [Groups; 2] = [
    Groups::new(&[
        Group {
            name: "climate",
            channels: &[
                Channel { name: "temperature", unit: "°C", kind: ValueKind::I32, scale: -2 },
                Channel { name: "heating", unit: "", kind: ValueKind::Bool, scale: 0 },
            ],
        },
        METER,
    ]),
    Groups::new(&[
        Group {
            name: "power",
            channels: &[
                Channel { name: "balance", unit: "W", kind: ValueKind::I32, scale: 0 },
                Channel { name: "grid", unit: "", kind: ValueKind::Bool, scale: 0 },
            ],
        },
        METER,
    ]),
];

/// What the devices are, by transport, by what makes way when the ring is full, and by channels.
static CONFIGS: [[[DeviceConfig; 2]; 2]; 2] = {
    const fn config(transport: Transport, when_full: WhenFull, groups: Groups) -> DeviceConfig {
        DeviceConfig { name: "boiler", groups, tick_hz: 1_000_000, linger_ms: 200, transport, when_full }
    }
    const fn flashes(transport: Transport, when_full: WhenFull) -> [DeviceConfig; 2] {
        [config(transport, when_full, GROUPS[0]), config(transport, when_full, GROUPS[1])]
    }
    const fn rings(transport: Transport) -> [[DeviceConfig; 2]; 2] {
        [flashes(transport, WhenFull::DropOldest), flashes(transport, WhenFull::DropNewest)]
    }
    [rings(Transport::Serial), rings(Transport::Mqtt)]
};

pub(crate) fn configs(transport: Transport, when_full: WhenFull) -> Configs {
    &CONFIGS[usize::from(transport == Transport::Mqtt)][usize::from(when_full == WhenFull::DropNewest)]
}

/// A device with one of the two sets of channels, on a chip that has just started.
pub(crate) fn start_device(configs: Configs, schema: usize, ram: &Ram, cause: ResetCause) -> Board {
    Device::resume(&configs[schema], ram.clone(), ChipId::new(&[0xe6, 0x61, 0, 4]).unwrap(), cause)
}
