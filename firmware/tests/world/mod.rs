//! A device, a gateway and what lies between them, on a clock of virtual milliseconds.

mod gateway;
mod pipe;

use std::collections::BTreeSet;

use forebay_firmware::device::RecordError;
use forebay_firmware::{Device, DeviceConfig, WhenFull};
use forebay_shared::block::Row;
use forebay_shared::ids::{Boot, ChipId, GroupId, LongSeq, Millis, Tick};
use forebay_shared::link::Transport;
use forebay_shared::message::{MESSAGE_BYTES_MAX, ResetCause};
use forebay_shared::reading::{Channel, Group, Groups, Value, ValueKind};

use gateway::{Gateway, Log, Stored};
use pipe::Pipe;

const RING: usize = 2048;
const CHANNELS: usize = 3;
/// Faults stop then, and everything must have settled within another minute.
const FAULTS_END: u64 = 40_000;
const END: u64 = FAULTS_END + 60_000;

const GROUPS: Groups = Groups::new(&[
    Group {
        name: "climate",
        channels: &[
            Channel { name: "temperature", unit: "°C", kind: ValueKind::I32, scale: -2 },
            Channel { name: "heating", unit: "", kind: ValueKind::Bool, scale: 0 },
        ],
    },
    Group {
        name: "meter",
        channels: &[Channel { name: "pulses", unit: "", kind: ValueKind::U32, scale: 0 }],
    },
]);

/// A small generator of numbers, the same for the same seed.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Bytes are lost, added and changed; messages are lost and repeated.
    pub(crate) line_errors: bool,
    /// Nothing passes for seconds.
    pub(crate) cuts: bool,
    /// The gateway is killed and forgets what was not durable.
    pub(crate) crashes: bool,
    /// The gateway gives no credit for seconds.
    pub(crate) holds: bool,
    /// The device restarts and forgets everything.
    pub(crate) resets: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) boots: u64,
    pub(crate) rows: u64,
    pub(crate) gap_rows: u64,
    pub(crate) crashes: u64,
    pub(crate) repeated_blocks: u64,
    pub(crate) duplicate_blocks: u64,
    pub(crate) bad_frames: u64,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Self) {
        self.boots += other.boots;
        self.rows += other.rows;
        self.gap_rows += other.gap_rows;
        self.crashes += other.crashes;
        self.repeated_blocks += other.repeated_blocks;
        self.duplicate_blocks += other.duplicate_blocks;
        self.bad_frames += other.bad_frames;
    }
}

type Sample = (Tick, GroupId, Vec<Option<Value>>);

/// What really happened on a device from one start to the next.
#[derive(Default)]
struct Life {
    boot: Option<Boot>,
    samples: Vec<Sample>,
    evicted: BTreeSet<u32>,
}

pub(crate) struct World {
    transport: Transport,
    faults: Faults,
    random: Random,
    now: Millis,
    device: Device<RING, CHANNELS>,
    deadline: Option<Millis>,
    gateway: Gateway,
    up: Pipe,
    down: Pipe,
    lives: Vec<Life>,
    next_sample: u64,
    cut_until: u64,
    report: Report,
}

impl World {
    pub(crate) fn new(seed: u64, transport: Transport, faults: Faults) -> Self {
        let mut random = Random::new(seed);
        Self {
            transport,
            faults,
            device: new_device(transport),
            deadline: Some(Millis(0)),
            gateway: Gateway::new(transport, random.below(1 << 32)),
            up: Pipe::new(random.below(1 << 32)),
            down: Pipe::new(random.below(1 << 32)),
            random,
            now: Millis(0),
            lives: vec![Life::default()],
            next_sample: 0,
            cut_until: 0,
            report: Report::default(),
        }
    }

    pub(crate) fn run(mut self) -> Report {
        if self.transport == Transport::Mqtt {
            self.announce();
        }
        for ms in 0..END {
            self.now = Millis(ms);
            if ms == FAULTS_END {
                self.heal();
            }
            if ms < FAULTS_END {
                self.break_something();
                self.sample();
            }
            self.move_up();
            self.move_down();
            if let Some(durable) = self.device.boot().and_then(|boot| self.gateway.logs().get(&boot)) {
                let released = u64::from(self.device.released().0);
                assert!(released <= durable.released().0, "row {released} was released before its time");
            }
            let settled =
                self.device.boot().is_some() && self.device.released() == self.device.next_sequence();
            if ms > FAULTS_END && settled {
                return self.judge();
            }
        }
        panic!("not settled: {:#?}\n{:#?}", self.device, self.gateway);
    }

    fn break_something(&mut self) {
        let noisy = self.faults.line_errors;
        self.up.set_noisy(noisy);
        self.down.set_noisy(noisy);
        if self.faults.cuts && self.random.one_in(8000) {
            self.cut_until = self.now.0 + 500 + self.random.below(12_000);
            if self.transport == Transport::Mqtt {
                self.device.presence(None);
            }
        }
        if self.cut_until == self.now.0 && self.cut_until > 0 && self.transport == Transport::Mqtt {
            self.announce();
        }
        let cut = self.now.0 < self.cut_until;
        self.up.set_cut(cut);
        self.down.set_cut(cut);
        if self.faults.crashes && self.random.one_in(7000) {
            self.report.crashes += 1;
            self.gateway.crash(&mut self.random);
            if self.transport == Transport::Mqtt && !cut {
                self.device.presence(Some(&[]));
                self.announce();
            }
        }
        if self.faults.crashes && self.random.one_in(5000) {
            self.gateway.connect_anew();
        }
        if self.faults.holds && self.random.one_in(3000) {
            let until = self.now.plus(self.random.below(4000) as u32);
            self.gateway.hold_until(until);
        }
        if self.faults.resets && self.random.one_in(9000) {
            self.note_device();
            self.device = new_device(self.transport);
            self.lives.push(Life::default());
            self.up.forget_partial();
            if self.transport == Transport::Mqtt && !cut {
                self.announce();
            }
        }
    }

    fn heal(&mut self) {
        let was_cut = self.now.0 < self.cut_until;
        for pipe in [&mut self.up, &mut self.down] {
            pipe.set_cut(false);
            pipe.set_noisy(false);
        }
        self.gateway.hold_until(self.now);
        if was_cut && self.transport == Transport::Mqtt {
            self.announce();
        }
    }

    fn announce(&mut self) {
        let presence = self.gateway.presence();
        self.device.presence(Some(&presence));
        self.deadline = Some(self.now);
    }

    fn sample(&mut self) {
        if self.now.0 < self.next_sample {
            return;
        }
        // Slow and fast stretches, so that blocks are sealed by age and by size.
        let fast = (self.now.0 / 7000).is_multiple_of(2);
        self.next_sample = self.now.0 + 1 + self.random.below(if fast { 15 } else { 800 });
        let tick = Tick(self.now.0 * 1000 + self.random.below(1000));
        let (group, values) = if self.random.one_in(3) {
            (GroupId(1), vec![Some(Value::U32(self.random.below(1 << 32) as u32))])
        } else {
            let temperature = Some(Value::I32(self.random.below(5000) as i32 - 1000));
            let heating = self.random.one_in(2).then(|| Value::Bool(self.random.one_in(2)));
            (GroupId(0), vec![temperature, heating])
        };
        let seq = self.device.next_sequence();
        let recorded = self.device.record(tick, group, &values);
        let life = self.lives.last_mut().unwrap();
        if let Err(e) = recorded {
            assert_eq!(e, RecordError::Full);
            life.evicted.insert(seq.0);
        }
        assert_eq!(usize::try_from(seq.0).unwrap(), life.samples.len());
        life.samples.push((tick, group, values));
        self.note_lost();
        self.deadline = Some(self.now);
    }

    /// Lets the device speak, as far as the line takes it, and the gateway hear. The device is called
    /// when it has said so, or something happened to it, and at no other time.
    fn move_up(&mut self) {
        let mut room = self.up.room();
        loop {
            if self.deadline.is_some_and(|at| at <= self.now) {
                self.deadline = self.device.poll(self.now, Tick(self.now.0 * 1000));
            }
            self.note_lost();
            let waiting = self.device.transmit();
            match self.transport {
                Transport::Serial => {
                    if waiting.is_empty() || room == 0 {
                        break;
                    }
                    let count = room.min(waiting.len());
                    self.up.write(self.now, &waiting[..count]);
                    self.device.sent(count);
                    room -= count;
                }
                Transport::Mqtt => {
                    let mut buffer = [0; MESSAGE_BYTES_MAX];
                    let Some(message) = self.device.transmit_message(&mut buffer) else { break };
                    self.up.publish(self.now, message);
                    self.device.message_sent();
                }
            }
            self.deadline = Some(self.now);
        }
        while let Some(bytes) = self.up.read(self.now) {
            self.gateway.receive(self.now, &bytes, &mut self.random);
        }
    }

    /// Rows make room when a block is sealed: by a sample, or by age.
    fn note_lost(&mut self) {
        if let Some(lost) = self.device.lost() {
            self.lives.last_mut().unwrap().evicted.extend(lost.from.0..lost.to.0);
        }
    }

    fn move_down(&mut self) {
        self.gateway.work(self.now, &mut self.random);
        match self.transport {
            Transport::Serial => {
                let room = self.down.room();
                let bytes = self.gateway.take_bytes(self.now, room);
                self.down.write(self.now, &bytes);
            }
            Transport::Mqtt => {
                while let Some(message) = self.gateway.take_message(self.now) {
                    self.down.publish(self.now, &message);
                }
            }
        }
        while let Some(bytes) = self.down.read(self.now) {
            match self.transport {
                Transport::Serial => self.device.receive(self.now, &bytes),
                Transport::Mqtt => self.device.receive_message(self.now, &bytes),
            }
            self.deadline = Some(self.now);
        }
    }

    fn note_device(&mut self) {
        self.lives.last_mut().unwrap().boot = self.device.boot();
        let counters = self.device.counters();
        self.report.repeated_blocks += u64::from(counters.repeated_blocks);
        self.report.bad_frames += u64::from(counters.bad_frames);
    }

    fn judge(mut self) -> Report {
        self.note_device();
        self.report.duplicate_blocks = self.gateway.duplicate_blocks();
        self.report.bad_frames += self.gateway.bad_frames();
        for (boot, log) in self.gateway.logs() {
            let mut lives = self.lives.iter().filter(|life| life.boot == Some(*boot));
            match (lives.next(), lives.next()) {
                (Some(life), None) => judge_boot(log, life, &mut self.report),
                (None, _) => assert_eq!(log.next(), LongSeq(0), "rows of boot {boot}, which no device had"),
                (Some(_), Some(_)) => panic!("boot {boot} was assigned twice"),
            }
        }
        let last = self.lives.last().unwrap();
        let log = self.gateway.logs().get(&last.boot.unwrap()).unwrap();
        assert_eq!(log.next().0, last.samples.len() as u64, "something is missing at the end");
        self.report
    }
}

fn judge_boot(log: &Log, life: &Life, report: &mut Report) {
    report.boots += 1;
    let mut next = 0;
    for entry in log.entries() {
        match entry {
            Stored::Rows(rows) => {
                for row in rows {
                    let row = match row {
                        Row::Sample(row) => row,
                        Row::Lost { from, to, .. } => {
                            assert_eq!(from.0, next, "a gap begins where the rows end");
                            assert!((from.0..to.0).all(|seq| life.evicted.contains(&seq)), "{from} to {to}");
                            report.gap_rows += u64::from(to.0 - from.0);
                            next = to.0;
                            continue;
                        }
                    };
                    assert_eq!(row.seq.0, next, "rows are in order and each comes once");
                    let (tick, group, values) = &life.samples[usize::try_from(next).unwrap()];
                    assert_eq!((row.tick, row.group), (*tick, *group));
                    let sent = (0..).zip(values).filter_map(|(at, value)| value.map(|value| (at, value)));
                    assert!(row.values.iter().copied().eq(sent), "row {next}: {row:?}");
                    next += 1;
                    report.rows += 1;
                }
            }
            Stored::Gap { from, to } => {
                assert_eq!(from.0, u64::from(next), "a gap begins where the rows end");
                for seq in from.0..to.0 {
                    assert!(life.evicted.contains(&u32::try_from(seq).unwrap()), "row {seq} was not evicted");
                    next += 1;
                    report.gap_rows += 1;
                }
            }
        }
    }
}

const fn config(transport: Transport) -> DeviceConfig {
    DeviceConfig {
        name: "boiler",
        groups: GROUPS,
        tick_hz: 1_000_000,
        linger_ms: 200,
        transport,
        when_full: WhenFull::DropOldest,
    }
}

fn new_device(transport: Transport) -> Device<RING, CHANNELS> {
    static SERIAL: DeviceConfig = config(Transport::Serial);
    static MQTT: DeviceConfig = config(Transport::Mqtt);
    let config = match transport {
        Transport::Serial => &SERIAL,
        Transport::Mqtt => &MQTT,
    };
    Device::new(config, ChipId::new(&[0xe6, 0x61, 0, 4]).unwrap(), ResetCause::POWER_ON)
}
