//! The real device, its samples, and a tap that sees what it says and hears.

mod tap;

use forebay_firmware::device::RecordError;
use forebay_firmware::noise::Random;
use forebay_shared::ids::{Boot, GroupId, Millis, Seq, Tick};
use forebay_shared::link::Transport;
use forebay_shared::message::{FromGateway, MESSAGE_BYTES_MAX, ResetCause};
use forebay_shared::reading::{Schema, Value};

use super::boards::{Board, Configs, GROUPS, RING, Ram, configs, start_device};
use super::bugs::{Mistaken, Seeded};
use super::plan::Plan;
use super::report::{Report, Situation};
use tap::Tap;

/// When a ring has to make room, it is at least so full.
const FULL: usize = RING - 520;

/// How a device comes to start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    /// Its memory is lost.
    Cold,
    /// Its memory is as it was.
    Warm,
    /// Some bits of its memory have turned over.
    Damaged,
    /// It is flashed with other channels.
    Reflash { warm: bool },
}

/// One row as it was sampled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) tick: Tick,
    pub(crate) group: GroupId,
    values: [Option<Value>; 2],
    count: usize,
    pub(crate) evicted: bool,
    /// It was in the open block at a reset, and is known by its number alone.
    pub(crate) reset: bool,
    /// It is in a block that was damaged in the device.
    pub(crate) spoilt: bool,
}

impl Sample {
    pub(crate) fn values(&self) -> &[Option<Value>] {
        &self.values[..self.count]
    }
}

/// What really happened on a device from one start to the next.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) boot: Option<Boot>,
    pub(crate) first: Seq,
    pub(crate) samples: Vec<Sample>,
    /// The gateway has heard more of it than its hello.
    pub(crate) is_heard: bool,
    evicted_to: usize,
    /// When the device was last started, and the tick from which it has counted since: no two starts take exactly as
    /// long.
    started: Millis,
    from_tick: u64,
    schema: usize,
}

impl Life {
    fn tick(&self, now: Millis) -> u64 {
        u64::from(now.since(self.started)) * 1000 + self.from_tick
    }

    /// Where the row with this number is.
    pub(crate) fn at(&self, seq: Seq) -> usize {
        self.first.rows_until(seq) as usize
    }
}

pub(crate) struct Node {
    pub(crate) device: Board,
    ram: Ram,
    pub(crate) lives: Vec<Life>,
    configs: Configs,
    transport: Transport,
    bytes_per_ms: u32,
    random: Random,
    schemas: [Schema; 2],
    /// The first bytes that the device has to say leave until then.
    sending: Option<(Millis, usize)>,
    deadline: Option<Millis>,
    alive_at: Millis,
    tap: Tap,
    mistaken: Mistaken,
    /// The next block is damaged.
    pub(crate) spoil: bool,
    spoilt: Vec<(Boot, Seq)>,
}

impl Node {
    pub(crate) fn new(plan: &Plan, seeded: Option<Seeded>, seed: u64) -> Self {
        let configs = configs(plan.transport, plan.when_full);
        let mut random = Random::new(seed);
        let ram = Ram::new(&mut random);
        let mut node = Self {
            device: start_device(configs, 0, &ram, ResetCause::POWER_ON),
            ram,
            configs,
            lives: Vec::new(),
            transport: plan.transport,
            bytes_per_ms: plan.bytes_per_ms,
            random,
            schemas: GROUPS.map(|groups| Schema::new(groups.descriptions()).unwrap()),
            sending: None,
            deadline: None,
            alive_at: Millis(0),
            tap: Tap::new(),
            mistaken: Mistaken::new(seeded),
            spoil: false,
            spoilt: Vec::new(),
        };
        node.begin(Millis(0), plan.first, 0);
        node
    }

    /// The device starts again at `at`. Where it cannot take its ring up, it numbers its rows from `first` on. Gives what
    /// it had sent of a frame.
    pub(crate) fn reset(&mut self, at: Millis, first: Seq, reset: Reset, report: &mut Report) -> Vec<u8> {
        self.note_counters(report);
        let with_rows = self.device.next_sequence() != self.device.oldest();
        if with_rows {
            report.saw(Situation::DeviceResetWithRowsAboard);
        }
        let count = self.sending.map_or(0, |(_, count)| count / 2);
        let part = [&self.tap.raw, &self.device.transmit()[..count]].concat();
        let schema = self.life().schema ^ usize::from(matches!(reset, Reset::Reflash { .. }));
        let sealed = self.device.sealed();
        let cause = match reset {
            Reset::Cold | Reset::Reflash { warm: false } => {
                self.ram = Ram::new(&mut self.random);
                ResetCause::POWER_ON
            }
            Reset::Damaged => {
                self.ram.damage(&mut self.random);
                ResetCause::BROWN_OUT
            }
            Reset::Warm | Reset::Reflash { warm: true } => ResetCause::WATCHDOG,
        };
        self.device = start_device(self.configs, schema, &self.ram, cause);
        if let Some(tick) = self.device.resumed_at() {
            report.saw(Situation::RingTakenUp);
            assert_eq!(schema, self.life().schema, "rows of other channels are taken up");
            self.go_on(at, sealed, tick, report);
        } else {
            assert_ne!(reset, Reset::Warm, "a ring in memory that a reset left alone is taken up");
            if with_rows && reset == (Reset::Reflash { warm: true }) {
                report.saw(Situation::RingOfOtherChannels);
            }
            if with_rows && reset == Reset::Damaged {
                report.saw(Situation::DamagedRing);
            }
            self.begin(at, first, schema);
        }
        if self.transport == Transport::Serial { part } else { Vec::new() }
    }

    /// A life goes on, from `tick` on.
    fn go_on(&mut self, at: Millis, sealed: Seq, tick: Tick, report: &mut Report) {
        let from_tick = tick.0 + self.random.below(5000);
        let (boot, next) = (self.device.boot(), self.device.next_sequence());
        let life = self.life_mut();
        (life.started, life.from_tick) = (at, from_tick);
        assert_eq!(life.boot, boot, "a boot is for life");
        assert_eq!(life.at(next), life.samples.len(), "all that were numbered are known");
        let from = life.at(sealed);
        for sample in &mut life.samples[from..] {
            sample.reset = true;
        }
        if life.samples.len() > from {
            report.saw(Situation::OpenRowsReset);
        }
        self.restart(at);
    }

    /// A life begins.
    fn begin(&mut self, at: Millis, first: Seq, schema: usize) {
        self.device.number_from(first);
        let from_tick = self.random.below(5000);
        self.lives.push(Life {
            boot: None,
            first,
            samples: Vec::new(),
            is_heard: false,
            evicted_to: 0,
            started: at,
            from_tick,
            schema,
        });
        self.restart(at);
    }

    fn restart(&mut self, at: Millis) {
        (self.sending, self.deadline, self.alive_at) = (None, Some(at), at);
        self.tap = Tap::new();
        self.mistaken.reset();
    }

    pub(crate) fn life(&self) -> &Life {
        self.lives.last().unwrap()
    }

    pub(crate) fn life_mut(&mut self) -> &mut Life {
        self.lives.last_mut().unwrap()
    }

    pub(crate) fn is_alive(&self, now: Millis) -> bool {
        self.alive_at <= now
    }

    pub(crate) fn note_counters(&self, report: &mut Report) {
        let counters = self.device.counters();
        report.repeated_blocks += u64::from(counters.repeated_blocks);
        report.bad_frames += u64::from(counters.bad_frames);
    }

    /// When the device has to be called again.
    pub(crate) fn next_at(&self) -> Option<Millis> {
        self.sending.map(|(until, _)| until).or(self.deadline).map(|at| at.max(self.alive_at))
    }

    pub(crate) fn presence(&mut self, now: Millis, presence: Option<&[u8]>) {
        self.device.presence(presence);
        self.deadline = Some(now);
    }

    pub(crate) fn sample(&mut self, now: Millis) {
        if !self.is_alive(now) {
            return;
        }
        let tick = Tick(self.life().tick(now) + self.random.below(1000));
        let (group, values, count) = if self.random.one_in(3) {
            (GroupId(1), [Some(Value::U32(self.random.u32())), None], 1)
        } else {
            let level = Some(Value::I32(self.random.below(5000) as i32 - 1000));
            let state = self.random.one_in(2).then(|| Value::Bool(self.random.one_in(2)));
            (GroupId(0), [level, state], 2)
        };
        let seq = self.device.next_sequence();
        let recorded = self.device.record(tick, group, &values[..count]);
        let refused = recorded.is_err();
        if let Err(error) = recorded {
            assert_eq!(error, RecordError::Full);
            let used = self.device.ring_used_bytes();
            assert!(used >= FULL, "a row was refused by a ring that was not full: {used} bytes");
        }
        let life = self.life_mut();
        assert_eq!(life.at(seq), life.samples.len(), "rows are numbered one by one");
        life.samples.push(Sample {
            tick,
            group,
            values,
            count,
            evicted: refused,
            reset: false,
            spoilt: false,
        });
        self.note_lost();
        self.deadline = Some(now);
    }

    /// Lets the device speak, as fast as the line takes it. Gives what the line then has to carry: bytes that end with
    /// a frame, or one message. The device is called when it has said so, or something happened to it, and at no
    /// other time.
    pub(crate) fn speak(&mut self, now: Millis, report: &mut Report) -> Option<(Vec<u8>, bool)> {
        while self.is_alive(now) {
            if let Some((until, count)) = self.sending {
                if until > now {
                    return None;
                }
                self.sending = None;
                let bytes = self.device.transmit()[..count].to_vec();
                self.device.sent(count);
                self.deadline = Some(now);
                if let Some(said) = self.tap_bytes(&bytes, report) {
                    return Some(said);
                }
            }
            if self.deadline.is_some_and(|at| at <= now) {
                self.deadline = self.device.poll(now, Tick(self.life().tick(now)));
            }
            self.note_lost();
            let waiting = self.device.transmit().len();
            if waiting == 0 && self.transport == Transport::Serial {
                assert!(self.deadline.is_none_or(|at| at > now), "it has something to say and says nothing");
                return None;
            }
            if !self.tap.in_frame {
                self.tap.credit_at_start = self.tap.credit;
            }
            if self.transport == Transport::Mqtt {
                let mut buffer = [0; MESSAGE_BYTES_MAX];
                let message = self.device.transmit_message(&mut buffer)?.to_vec();
                self.device.message_sent();
                self.deadline = Some(now);
                if let Some(message) = self.tap_message(message, report) {
                    return Some((message, true));
                }
                continue;
            }
            self.tap.in_frame = true;
            // Now and then the port takes only some of it.
            let count =
                if self.random.one_in(6) { self.random.within(1, waiting as u64) as usize } else { waiting };
            let takes = (count as u32).div_ceil(self.bytes_per_ms);
            self.sending = Some((now.plus(takes), count));
        }
        None
    }

    /// Gives the device what has arrived on its line, and says which messages ended with it.
    pub(crate) fn hear(&mut self, now: Millis, bytes: &[u8], report: &mut Report) -> Vec<Vec<u8>> {
        if !self.is_alive(now) {
            return Vec::new();
        }
        let messages = self.tap.messages(self.transport, bytes);
        for message in &messages {
            if let Ok(FromGateway::Welcome(welcome)) = FromGateway::parse(message)
                && self.lives.iter().rev().skip(1).any(|life| life.boot == Some(welcome.boot))
            {
                report.saw(Situation::WelcomeForAnEarlierLife);
            }
        }
        let before = self.device.boot();
        match self.transport {
            _ if !self.mistaken.is_right() => {
                for message in &messages {
                    self.device.receive_message(now, &self.mistaken.hear(message));
                }
            }
            Transport::Serial => self.device.receive(now, bytes),
            Transport::Mqtt => self.device.receive_message(now, bytes),
        }
        let boot = self.device.boot();
        if before != boot {
            assert!(before.is_none(), "a boot is for life");
            self.life_mut().boot = boot;
        }
        for message in &messages {
            self.heard(message);
        }
        self.deadline = Some(now);
        messages
    }

    /// Rows make room when a block is sealed: by a sample, or by age.
    fn note_lost(&mut self) {
        let Some(lost) = self.device.lost() else { return };
        let used = self.device.ring_used_bytes();
        let life = self.life_mut();
        let (from, to) = (life.at(lost.from), life.at(lost.to));
        if to <= life.evicted_to {
            return;
        }
        assert!(used >= FULL, "rows made room in a ring that was not full: {used} bytes");
        let from = from.max(life.evicted_to);
        life.evicted_to = to;
        for sample in &mut life.samples[from..to] {
            sample.evicted = true;
        }
    }
}
