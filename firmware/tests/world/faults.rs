//! What goes wrong in a world, and how it comes to its end.

use forebay_shared::block::Form;
use forebay_shared::frame;
use forebay_shared::ids::{Boot, Millis, Seq};
use forebay_shared::link::Transport;
use forebay_shared::message::{Body, Data, Gap, GapCause, Status};

use super::node::Reset;
use super::plan::{Fault, first_row};
use super::report::Situation;
use super::{World, framed};

const HOUR_MS: u32 = 3_600_000;

/// When what goes wrong for a while comes to its end.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) restart: Option<Millis>,
    pub(super) unplugged: Option<Millis>,
    pub(super) offline: Option<Millis>,
    pub(super) noise: Option<Millis>,
    pub(super) filter: Option<Millis>,
    pub(super) delay: Option<Millis>,
    pub(super) flood: Option<Millis>,
    /// The gateway's disk is slow until then, and its device is then asked for its hello.
    pub(super) slow_disk: Option<Millis>,
    pub(super) deaf: Option<Millis>,
}

impl World {
    pub(super) fn strike(&mut self) {
        let (_, fault) = self.plan.faults[self.next_fault];
        self.next_fault += 1;
        self.tell("fault:", &fault);
        self.gateway.disturb();
        self.apply(fault);
        if let Some((wait_ms, _)) = self.plan.faults.get(self.next_fault) {
            self.fault_at = self.ends.offline.unwrap_or(self.now).plus(*wait_ms as u32);
        }
    }

    fn apply(&mut self, fault: Fault) {
        let now = self.now;
        match fault {
            Fault::OpenMidFrame => {
                self.open_mid_frame = true;
                self.up.split(true);
            }
            Fault::Restart { away_ms } => self.restart(away_ms),
            Fault::NewCard => {
                self.restart(500);
                self.gateway.change_card();
            }
            Fault::ColdReset { away_ms } => {
                self.report.saw(Situation::ColdReset);
                self.reset_device(now.plus(away_ms), Reset::Cold);
            }
            Fault::ResetUnderWelcome => {
                if self.gateway.is_open() && self.is_plugged() {
                    self.reset_under_welcome = true;
                    self.gateway.open(now);
                    self.gateway.disturb();
                }
            }
            Fault::RestartUnderWelcome => {
                self.gateway.slow_disk_until(now.plus(2500));
                self.ends.slow_disk = Some(now.plus(500));
            }
            Fault::WarmReset { away_ms } => self.reset_device(now.plus(away_ms), Reset::Warm),
            Fault::DamagedReset => self.reset_device(now, Reset::Damaged),
            Fault::Reflash { warm } => {
                self.report.saw(Situation::Reflashed);
                self.reset_device(now.plus(300), Reset::Reflash { warm });
            }
            Fault::Unplug { away_ms } => {
                self.unplug();
                self.ends.unplugged = Some(now.plus(away_ms));
            }
            Fault::Offline { hours } => {
                self.unplug();
                let ms = hours * HOUR_MS;
                self.ends.unplugged = None;
                self.ends.offline = Some(now.plus(ms));
                self.sample_ms = u64::from(ms) / 500;
                self.offline_evicted = self.node.device.counters().evicted_rows;
            }
            Fault::Rename => self.rename(),
            Fault::Hold { ms, lose_reopening } => {
                self.report.saw(Situation::CreditZero);
                self.gateway.hold_until(now.plus(ms));
                self.lose_reopening = lose_reopening;
            }
            Fault::Babble => self.babble(),
            Fault::Spoil => self.node.spoil = true,
            Fault::Noise { ms, one_in } => {
                self.up.set_noise(one_in);
                self.down.set_noise(one_in);
                self.ends.noise = Some(now.plus(ms));
            }
            Fault::Filter { ms, kind } => {
                self.filtered = Some(kind);
                self.ends.filter = Some(now.plus(ms));
            }
            Fault::Delay { ms, latency_ms } => {
                self.set_latency(latency_ms);
                self.ends.delay = Some(now.plus(ms));
            }
            Fault::Redeliver => {
                self.report.saw(Situation::BrokerReconnected);
                self.up.redeliver(now);
                self.gateway.reconnect(now);
            }
            Fault::Rest => self.heal(),
            Fault::Flood { ms } => {
                if self.ends.offline.is_none() {
                    self.sample_ms = 2;
                }
                self.ends.flood = Some(now.plus(ms));
            }
        }
    }

    pub(super) fn end_what_is_over(&mut self) {
        let now = self.now;
        let over = |end: &mut Option<Millis>| end.take_if(|at| *at <= now).is_some();
        if over(&mut self.ends.offline) {
            let evicted = self.node.device.counters().evicted_rows;
            if evicted > self.offline_evicted {
                self.report.saw(Situation::OverflowedForHours);
            }
            self.sample_ms = self.plan.sample_ms;
            self.plug();
        }
        if over(&mut self.ends.unplugged) && self.ends.offline.is_none() {
            self.plug();
        }
        if over(&mut self.ends.restart) {
            self.report.saw(Situation::GatewayRestarted);
            self.gateway.open(now);
            if !self.is_plugged() || self.noise_is_on() {
                self.gateway.disturb();
            }
            self.announce();
        }
        if over(&mut self.ends.slow_disk) && self.is_plugged() && self.gateway.is_open() {
            self.restart_under_welcome = true;
            self.set_latency(600);
            self.ends.delay = Some(now.plus(3000));
            self.gateway.open(now);
            self.gateway.disturb();
        }
        over(&mut self.ends.deaf);
        if over(&mut self.ends.noise) {
            self.up.set_noise(0);
            self.down.set_noise(0);
        }
        if over(&mut self.ends.filter) {
            self.filtered = None;
        }
        if over(&mut self.ends.delay) {
            self.set_latency(self.plan.latency_ms);
        }
        if over(&mut self.ends.flood) && self.ends.offline.is_none() {
            self.sample_ms = self.plan.sample_ms;
        }
    }

    /// The last fault: from here on, all is well.
    fn heal(&mut self) {
        self.fault_at = self.now;
        self.healed = true;
        for end in [
            &mut self.ends.restart,
            &mut self.ends.unplugged,
            &mut self.ends.offline,
            &mut self.ends.noise,
            &mut self.ends.filter,
            &mut self.ends.delay,
            &mut self.ends.slow_disk,
            &mut self.ends.deaf,
        ] {
            *end = end.map(|_| self.now);
        }
        self.open_mid_frame = false;
        self.up.split(false);
        self.gateway.hold_until(self.now);
    }

    pub(super) fn restart(&mut self, away_ms: u32) {
        self.gateway.crash();
        self.old_up.clear();
        if self.plan.transport == Transport::Mqtt {
            self.node.presence(self.now, Some(&[]));
        }
        self.ends.restart = Some(self.now.plus(away_ms));
    }

    pub(super) fn reset_device(&mut self, at: Millis, reset: Reset) {
        let first = first_row(&mut self.random);
        let part = self.node.reset(at, first, reset, &mut self.report);
        match self.plan.transport {
            Transport::Serial if part.is_empty() => {}
            Transport::Serial => self.up.write(self.now, &part),
            // What a broker has not handed over goes with the connection.
            Transport::Mqtt => drop(self.down.take()),
        }
        self.announce();
    }

    fn unplug(&mut self) {
        self.up.cut();
        self.down.cut();
        match self.plan.transport {
            Transport::Serial => self.gateway.close(),
            Transport::Mqtt => self.node.presence(self.now, None),
        }
    }

    fn plug(&mut self) {
        self.up.mend();
        self.down.mend();
        match self.plan.transport {
            Transport::Serial => {
                self.report.saw(Situation::Replugged);
                if self.ends.restart.is_none() {
                    self.gateway.open(self.now);
                }
                if self.noise_is_on() {
                    self.gateway.disturb();
                }
            }
            Transport::Mqtt => {
                self.report.saw(Situation::BrokerReconnected);
                self.announce();
            }
        }
    }

    pub(super) fn is_plugged(&self) -> bool {
        self.ends.unplugged.is_none() && self.ends.offline.is_none()
    }

    fn noise_is_on(&self) -> bool {
        self.ends.deaf.is_some()
            || self.ends.noise.is_some()
            || self.ends.filter.is_some()
            || self.ends.delay.is_some()
    }

    fn rename(&mut self) {
        if !self.gateway.is_open() || !self.is_plugged() {
            return;
        }
        self.report.saw(Situation::PortRenamed);
        let late = self.random.below(400) as u32;
        self.old_up = self.up.take();
        for chunk in &mut self.old_up {
            chunk.at = chunk.at.plus(late);
        }
        self.down.take();
        self.gateway.rename(self.now);
        self.gateway.disturb();
    }

    /// Bytes that no device should send: noise, frames of nobody, and messages with the numbers of others.
    fn babble(&mut self) {
        self.report.saw(Situation::Babbled);
        let other = Boot::new(self.random.u32() | 1).unwrap();
        for _ in 0..self.random.within(5, 60) {
            let message: Vec<u8> = match self.random.below(5) {
                0 => (0..self.random.within(1, 200)).map(|_| self.random.below(256) as u8).collect(),
                1 => [&Data::head(Form::Plain, other)[..], &[0, 0, 1, 1, 0, 1, 7]].concat(),
                2 => {
                    let (from, to) = (Seq(0), Seq(9));
                    Gap { boot: other, from, to, cause: GapCause::OVERFLOW }.to_message().to_vec()
                }
                3 => {
                    let nothing = Seq(0);
                    let (oldest, sent, next) = (nothing, nothing, nothing);
                    let status = Status {
                        boot: other,
                        oldest,
                        sent,
                        next,
                        ring_used: 0,
                        ring_size: 0,
                        evicted_rows: 0,
                    };
                    status.to_message().to_vec()
                }
                _ => Vec::from([self.random.within(9, 0x3f) as u8, 1, 2, 3]),
            };
            match self.plan.transport {
                Transport::Serial => {
                    let bytes = if self.random.one_in(2) { message } else { framed(&message) };
                    self.up.write(self.now, &bytes);
                }
                Transport::Mqtt => self.up.publish(self.now, &message),
            }
        }
        // A line ends its noise with a frame of somebody's.
        if self.plan.transport == Transport::Serial {
            self.up.write(self.now, &[frame::DELIMITER]);
        }
    }

    pub(super) fn announce(&mut self) {
        if self.plan.transport == Transport::Mqtt && self.is_plugged() && self.gateway.is_open() {
            let presence = self.gateway.presence();
            self.node.presence(self.now, Some(&presence));
        }
    }

    pub(super) fn set_latency(&mut self, ms: u32) {
        self.up.set_latency(ms);
        self.down.set_latency(ms);
    }
}
