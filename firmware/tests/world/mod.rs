//! A device, a gateway and what lies between them, on a clock of virtual milliseconds that jumps from one event to the
//! next.

mod boards;
mod bugs;
mod faults;
mod gateway;
mod judge;
mod node;
mod pipe;
mod plan;
mod report;

use std::collections::VecDeque;

use forebay_firmware::noise::Random;
use forebay_shared::frame::{self, FRAME_BYTES_MAX};
use forebay_shared::ids::Millis;
use forebay_shared::link::Transport;
use forebay_shared::message::{FromDevice, FromGateway, Kind};

pub(crate) use bugs::Seeded;
pub(crate) use plan::Plan;
pub(crate) use report::{Report, Situation};

use faults::Ends;
use gateway::Gateway;
use node::{Node, Reset};
use pipe::{Chunk, Pipe};

/// Within this time after the last fault everything that was sampled must be released: a device that was silent asks
/// again after at most 5 seconds, and a slow line takes as long for a full ring. Behind a broker a device says only
/// every 4 seconds how far it has come, and a hole is given 5 more.
const fn recovery_ms_max(transport: Transport) -> u64 {
    match transport {
        Transport::Serial => 9_000,
        Transport::Mqtt => 20_000,
    }
}
/// Rows flow so soon after a quiet line was opened.
pub(crate) const RESUME_MS_MAX: u64 = 1_000;

pub(crate) struct World {
    plan: Plan,
    random: Random,
    now: Millis,
    node: Node,
    gateway: Gateway,
    up: Pipe,
    down: Pipe,
    /// What is still to be read at a port that the device has left.
    old_up: VecDeque<Chunk>,
    report: Report,
    next_fault: usize,
    fault_at: Millis,
    sample_at: Millis,
    sample_ms: u64,
    /// What ends by itself.
    ends: Ends,
    filtered: Option<u8>,
    open_mid_frame: bool,
    reset_under_welcome: bool,
    restart_under_welcome: bool,
    lose_reopening: bool,
    offline_evicted: u32,
    healed: bool,
    /// Prints what happens.
    is_told: bool,
}

impl World {
    pub(crate) fn new(plan: Plan, seeded: Option<Seeded>, is_told: bool) -> Self {
        Seeded::seed(seeded);
        let mut random = Random::new(plan.seed ^ 0x5eed);
        let mut seed = || random.below(1 << 40);
        let mut world = Self {
            node: Node::new(&plan, seeded, seed()),
            gateway: Gateway::new(&plan, seeded, seed()),
            up: Pipe::new(seed()),
            down: Pipe::new(seed()),
            random,
            now: Millis(0),
            old_up: VecDeque::new(),
            report: Report::default(),
            next_fault: 0,
            fault_at: Millis(plan.faults[0].0),
            sample_at: Millis(0),
            sample_ms: plan.sample_ms,
            ends: Ends::default(),
            filtered: None,
            open_mid_frame: false,
            reset_under_welcome: false,
            restart_under_welcome: false,
            lose_reopening: false,
            offline_evicted: 0,
            healed: false,
            is_told,
            plan,
        };
        world.set_latency(world.plan.latency_ms);
        world.gateway.open(world.now);
        world.announce();
        world
    }

    fn tell(&self, what: &str, about: &dyn core::fmt::Debug) {
        if self.is_told {
            println!("{:>9} {what} {about:?}", self.now.0);
        }
    }

    /// Goes through the plan and judges what became of each row.
    pub(crate) fn run(mut self) -> Report {
        if self.is_told {
            println!("{:#?}", self.plan);
        }
        loop {
            if self.fault_at <= self.now && !self.healed {
                self.strike();
            }
            self.end_what_is_over();
            self.sample();
            self.move_up();
            self.move_down();
            self.check();
            if self.healed && self.is_settled() {
                break;
            }
            let healed_ms = u64::from(self.now.since(self.fault_at));
            if self.healed && healed_ms > recovery_ms_max(self.plan.transport) {
                panic!(
                    "not settled {healed_ms} ms after the last fault:\n{:#?}\n{:#?}",
                    self.node.device, self.gateway
                );
            }
            self.now = self.next_event();
        }
        self.report.recovery.note(u64::from(self.now.since(self.fault_at)), self.plan.seed);
        judge::judge(&self.node, self.gateway, self.report)
    }

    fn next_event(&self) -> Millis {
        let ends = &self.ends;
        let next = [
            (!self.healed).then_some(self.fault_at),
            (!self.healed).then_some(self.sample_at),
            self.node.next_at(),
            self.gateway.next_at(),
            self.up.next_at().filter(|_| self.reads_up()),
            self.down.next_at(),
            self.old_up.front().map(|chunk| chunk.at),
            ends.restart,
            ends.unplugged,
            ends.offline,
            ends.noise,
            ends.filter,
            ends.delay,
            ends.flood,
            ends.slow_disk,
            ends.deaf,
        ];
        let next = next.into_iter().flatten().min().unwrap_or(self.now);
        // What is due was done, so a second time at the same instant would go on for ever.
        next.max(self.now.plus(1))
    }

    fn is_settled(&self) -> bool {
        let device = &self.node.device;
        device.boot().is_some() && device.released() == device.next_sequence()
    }

    fn sample(&mut self) {
        if self.healed || self.sample_at > self.now {
            return;
        }
        self.sample_at = self.now.plus(1 + self.random.below(2 * self.sample_ms) as u32);
        self.node.sample(self.now);
    }

    /// Over MQTT the broker keeps what is for a gateway that is away.
    fn reads_up(&self) -> bool {
        self.plan.transport == Transport::Serial || self.gateway.is_open()
    }

    fn move_up(&mut self) {
        while let Some((bytes, whole)) = self.node.speak(self.now, &mut self.report) {
            if !whole || self.is_filtered(&bytes) {
                continue;
            }
            match self.plan.transport {
                Transport::Serial => self.up.write(self.now, &bytes),
                Transport::Mqtt => self.up.publish(self.now, &bytes),
            }
        }
        while self.reads_up()
            && let Some(chunk) = self.up.read(self.now)
        {
            for message in self.gateway.receive(self.now, &chunk.bytes) {
                self.node.life_mut().is_heard |= message.first() != Some(&(Kind::Hello as u8));
                self.tell("gateway hears", &FromDevice::parse(&message));
            }
            if chunk.is_part && self.open_mid_frame && self.gateway.is_open() {
                self.open_mid_frame = false;
                self.up.split(false);
                self.report.saw(Situation::OpenedMidFrame);
                self.gateway.open(self.now);
                self.gateway.disturb();
            }
        }
        while let Some(chunk) = self.old_up.pop_front_if(|chunk| chunk.at <= self.now) {
            self.gateway.receive_on_old_port(self.now, &chunk.bytes);
            if self.old_up.is_empty() {
                self.gateway.close_old_port();
            }
        }
    }

    fn move_down(&mut self) {
        self.gateway.work(self.now);
        while let Some(message) = self.gateway.take_message(self.now) {
            if self.loses(&message) {
                continue;
            }
            let is_welcome = message.first() == Some(&(Kind::Welcome as u8));
            match self.plan.transport {
                Transport::Serial => self.down.write(self.now, &framed(&message)),
                Transport::Mqtt => self.down.publish(self.now, &message),
            }
            if is_welcome && core::mem::take(&mut self.reset_under_welcome) {
                self.report.saw(Situation::ColdReset);
                self.reset_device(self.now, Reset::Cold);
            }
            if is_welcome && core::mem::take(&mut self.restart_under_welcome) {
                self.report.saw(Situation::RestartedUnderWelcome);
                self.restart(0);
                self.ends.deaf = Some(self.now.plus(1000));
                break;
            }
        }
        while let Some(chunk) = self.down.read(self.now) {
            for message in self.node.hear(self.now, &chunk.bytes, &mut self.report) {
                self.tell("device hears", &FromGateway::parse(&message));
            }
        }
    }

    /// Whether this message of the gateway is one that gets lost now.
    fn loses(&mut self, message: &[u8]) -> bool {
        if self.is_filtered(message) {
            return true;
        }
        let opens = [Kind::Welcome as u8, Kind::Reject as u8].contains(message.first().unwrap_or(&0));
        if self.ends.deaf.is_some() && opens {
            return true;
        }
        let reopens = matches!(FromGateway::parse(message), Ok(FromGateway::Ack(ack)) if ack.credit > 0);
        if self.lose_reopening && reopens && self.node.credit() == 0 {
            self.lose_reopening = false;
            self.report.saw(Situation::ReopeningAckLost);
            return true;
        }
        false
    }

    fn is_filtered(&mut self, bytes: &[u8]) -> bool {
        let Some(kind) = self.filtered else { return false };
        // On a line, the message stands behind the delimiter and the first distance.
        let at = match self.plan.transport {
            Transport::Serial => {
                bytes.iter().position(|byte| *byte != frame::DELIMITER).map_or(0, |at| at + 1)
            }
            Transport::Mqtt => 0,
        };
        let at = if kind >= Kind::Welcome as u8 { 0 } else { at };
        bytes.get(at) == Some(&kind) && !self.random.one_in(4)
    }

    /// What must hold at any time.
    fn check(&self) {
        let device = &self.node.device;
        let logs = self.gateway.logs().iter().filter(|((_, boot), _)| device.boot() == Some(*boot));
        // What is durable on an earlier disk is safe there.
        let life = self.node.life();
        let Some(durable) = logs.map(|(_, log)| life.at(log.released().to_wire())).max() else { return };
        assert!(
            life.at(device.released()) <= durable,
            "row {} was released before its time",
            device.released()
        );
        let oldest = device.oldest();
        assert!(
            life.at(oldest) <= durable,
            "rows up to {oldest} are neither durable nor aboard, nor declared lost"
        );
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = [0; FRAME_BYTES_MAX + 1];
    let len = frame::encode(&[message], &mut out[1..]).unwrap();
    out[..=len].to_vec()
}
