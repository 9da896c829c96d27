//! What a world goes through: everything about it follows from one number.

use forebay_firmware::WhenFull;
use forebay_firmware::noise::Random;
use forebay_shared::ids::Seq;
use forebay_shared::link::Transport;

/// One way in which the world goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The line is opened while a frame is on it.
    OpenMidFrame,
    /// The gateway is killed, forgets what was not durable, and starts again after so long.
    Restart { away_ms: u32 },
    /// The device starts again, its memory empty, after so long.
    ColdReset { away_ms: u32 },
    /// The device starts again while it is being welcomed.
    ResetUnderWelcome,
    /// The gateway is killed just when it has welcomed the device again, and the next one's first words get lost.
    RestartUnderWelcome,
    /// The device starts again, its memory as it was, after so long.
    WarmReset { away_ms: u32 },
    /// The device starts again, some bits of its memory turned over.
    DamagedReset,
    /// The device is flashed with other channels, and starts with its memory empty, or as it was.
    Reflash { warm: bool },
    /// The line is unplugged for so long; over MQTT, the broker cannot be reached.
    Unplug { away_ms: u32 },
    /// The line comes back at once under another name, while the old one is still being read.
    Rename,
    /// Unplugged for hours, while rows keep coming.
    Offline { hours: u32 },
    /// The gateway gives no credit for so long.
    Hold { ms: u32, lose_reopening: bool },
    /// The gateway starts with an empty disk.
    NewCard,
    /// Something else talks on the device's line.
    Babble,
    /// The next block is damaged before its frame is made.
    Spoil,
    /// The line is noisy for so long; the broker drops and repeats.
    Noise { ms: u32, one_in: u64 },
    /// Messages of one kind get lost most of the time, for so long.
    Filter { ms: u32, kind: u8 },
    /// Everything takes longer for a while.
    Delay { ms: u32, latency_ms: u32 },
    /// Over MQTT: what came last comes again.
    Redeliver,
    /// Rows come faster than the line takes them.
    Flood { ms: u32 },
    /// The end of all faults, and of what they began.
    Rest,
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) transport: Transport,
    pub(crate) when_full: WhenFull,
    pub(crate) latency_ms: u32,
    pub(crate) bytes_per_ms: u32,
    pub(crate) sample_ms: u64,
    pub(crate) first: Seq,
    /// How long after the one before each fault strikes, in milliseconds.
    pub(crate) faults: Vec<(u64, Fault)>,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let transport = if seed % 4 == 3 { Transport::Mqtt } else { Transport::Serial };
        let count = random.within(5, 10);
        let mut faults: Vec<_> =
            (0..count).map(|_| (random.within(300, 8000), fault(&mut random, transport))).collect();
        faults.push((random.within(1, 3000), Fault::Rest));
        Self {
            seed,
            transport,
            faults,
            when_full: if random.one_in(6) { WhenFull::DropNewest } else { WhenFull::DropOldest },
            latency_ms: [1, 2, 5, 20, 60][random.below(5) as usize],
            bytes_per_ms: [3, 11, 11, 92][random.below(4) as usize],
            sample_ms: [10, 25, 30, 40][random.below(4) as usize],
            first: first_row(&mut random),
        }
    }

    /// Without any fault.
    pub(crate) fn calm(seed: u64, transport: Transport) -> Self {
        let faults = Vec::from([(60_000, Fault::Rest)]);
        let (latency_ms, bytes_per_ms, sample_ms) = (2, 11, 40);
        let when_full = WhenFull::DropOldest;
        Self { seed, transport, when_full, latency_ms, bytes_per_ms, sample_ms, first: Seq(0), faults }
    }
}

/// Most devices have numbered rows before, and some are about to run out of numbers.
pub(crate) fn first_row(random: &mut Random) -> Seq {
    match random.below(5) {
        0 | 1 => Seq(0),
        2 | 3 => Seq(5000),
        _ => Seq(u32::MAX - random.below(700) as u32),
    }
}

fn fault(random: &mut Random, transport: Transport) -> Fault {
    let away = |random: &mut Random| if random.one_in(3) { 0 } else { random.below(4000) as u32 };
    let on_a_line = |fault| if transport == Transport::Serial { fault } else { Fault::Redeliver };
    match random.below(25) {
        0 => on_a_line(Fault::OpenMidFrame),
        1 | 2 => Fault::Restart { away_ms: away(random) },
        3 | 4 => Fault::ColdReset { away_ms: away(random) / 8 },
        5 => Fault::Reflash { warm: false },
        6 => Fault::Unplug { away_ms: random.within(100, 9000) as u32 },
        7 => on_a_line(Fault::Rename),
        8 => Fault::Offline { hours: random.within(1, 4) as u32 },
        9 => Fault::Hold { ms: random.within(50, 5000) as u32, lose_reopening: false },
        10 => Fault::Hold { ms: random.within(500, 3000) as u32, lose_reopening: true },
        11 => Fault::NewCard,
        12 => Fault::Babble,
        13 => Fault::Spoil,
        14 | 15 => Fault::Noise {
            ms: random.within(1000, 15_000) as u32,
            one_in: match transport {
                Transport::Serial => [30, 100, 400, 1500, 4000][random.below(5) as usize],
                Transport::Mqtt => [2, 3, 5, 10, 40][random.below(5) as usize],
            },
        },
        16 => Fault::Filter {
            ms: random.within(500, 6000) as u32,
            kind: [0x01, 0x02, 0x04, 0x05, 0x07, 0x41, 0x42][random.below(7) as usize],
        },
        17 => on_a_line(Fault::ResetUnderWelcome),
        18 => on_a_line(Fault::RestartUnderWelcome),
        19 => Fault::Delay { ms: random.within(500, 5000) as u32, latency_ms: random.within(50, 900) as u32 },
        20 | 21 => Fault::WarmReset { away_ms: away(random) / 8 },
        22 => Fault::DamagedReset,
        23 => Fault::Reflash { warm: true },
        _ => Fault::Flood { ms: random.within(500, 4000) as u32 },
    }
}
