//! Mistakes that the simulation must find. Those of the gateway's half are built into it; those of a device and of the
//! gateway around its half are made here, on the messages that pass between the two and where the host decides.

use forebay_shared::block::Block;
use forebay_shared::ids::{Epoch, Seq, Token};
use forebay_shared::link::bugs::{self, Bug};
use forebay_shared::message::{Body, FromDevice, FromGateway, Gap, Kind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seeded {
    /// In the gateway's half of the link, or in what a device's ring takes up after a reset.
    Link(Bug),
    /// In the device.
    Device(DeviceBug),
    /// In the host of the gateway's half.
    Host(HostBug),
}

/// What a device does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceBug {
    /// Takes received for released.
    FreeOnReceived,
    /// Does not notice that the gateway is another one.
    EpochIgnored,
    /// Without a boot, obeys an answer to another hello than its last.
    AnyWelcomeObeyed,
    /// Does not ask why it may not send.
    NoProbeAtZeroCredit,
    /// Takes a range beyond a hole for everything up to its end.
    RangesMisread,
    /// Sends as many blocks as it likes.
    CreditExceeded,
    /// Says only once what it lost.
    GapNotResent,
    /// After a welcome, goes on where it stood.
    NothingResentAfterWelcome,
}

/// What the host does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostBug {
    /// Releases rows before they are durable.
    AckBeforeDurable,
    /// Starts with the epoch of its life before.
    EpochKept,
    /// Gives a boot to a second life.
    BootReused,
    /// Does not know a boot that it has rows of.
    BootForgotten,
    /// Still counts rows that a crash took.
    LostRowsKnown,
}

impl Seeded {
    pub(crate) const ALL: [Self; 25] = [
        Self::Link(Bug::GapOverHeldRows),
        Self::Link(Bug::HeldBlockGivenUp),
        Self::Link(Bug::ReceivedIsHighest),
        Self::Link(Bug::WrongExtensionAtWrap),
        Self::Link(Bug::CrcIgnored),
        Self::Link(Bug::BirthsNotAwaited),
        Self::Link(Bug::AnyHelloContinues),
        Self::Link(Bug::NoStallNoticed),
        Self::Link(Bug::StatusNotAnswered),
        Self::Link(Bug::SchemaIgnored),
        Self::Link(Bug::OpenRowsForgotten),
        Self::Link(Bug::DamageTakenUp),
        Self::Device(DeviceBug::FreeOnReceived),
        Self::Device(DeviceBug::EpochIgnored),
        Self::Device(DeviceBug::AnyWelcomeObeyed),
        Self::Device(DeviceBug::NoProbeAtZeroCredit),
        Self::Device(DeviceBug::RangesMisread),
        Self::Device(DeviceBug::CreditExceeded),
        Self::Device(DeviceBug::GapNotResent),
        Self::Device(DeviceBug::NothingResentAfterWelcome),
        Self::Host(HostBug::AckBeforeDurable),
        Self::Host(HostBug::EpochKept),
        Self::Host(HostBug::BootReused),
        Self::Host(HostBug::BootForgotten),
        Self::Host(HostBug::LostRowsKnown),
    ];

    /// Switches it on in this thread where it is built in; `None` switches all of them off.
    pub(crate) fn seed(seeded: Option<Self>) {
        bugs::seed(match seeded {
            Some(Self::Link(bug)) => Some(bug),
            Some(Self::Device(_) | Self::Host(_)) | None => None,
        });
    }
}

/// Makes a device's mistakes with the messages that pass it.
#[derive(Debug)]
pub(crate) struct Mistaken {
    bug: Option<DeviceBug>,
    /// What a device that has the mistake keeps in mind.
    credit: u8,
    sent: Option<Seq>,
    gap: Option<Gap>,
    epoch: Option<Epoch>,
    hello: Token,
}

impl Mistaken {
    pub(crate) fn new(seeded: Option<Seeded>) -> Self {
        let bug = match seeded {
            Some(Seeded::Device(bug)) => Some(bug),
            _ => None,
        };
        Self { bug, credit: 0, sent: None, gap: None, epoch: None, hello: Token(0) }
    }

    pub(crate) const fn is_right(&self) -> bool {
        self.bug.is_none()
    }

    /// What the device says; nothing where the mistake keeps it silent.
    pub(crate) fn say(&mut self, message: Vec<u8>) -> Option<Vec<u8>> {
        let Some(bug) = self.bug else { return Some(message) };
        match FromDevice::parse(&message) {
            Ok(FromDevice::Status(_)) if bug == DeviceBug::NoProbeAtZeroCredit && self.credit == 0 => {
                return None;
            }
            Ok(FromDevice::Gap(gap))
                if bug == DeviceBug::GapNotResent && self.gap.replace(gap) == Some(gap) =>
            {
                return None;
            }
            Ok(FromDevice::Hello(hello)) => self.hello = hello.token(),
            Ok(FromDevice::Data(data)) => {
                if let Ok(block) = Block::parse(data.form, data.block) {
                    self.sent = Some(self.sent.map_or(block.end(), |sent| sent.max(block.end())));
                }
            }
            _ => {}
        }
        Some(message)
    }

    /// What the device takes a message for.
    pub(crate) fn hear(&mut self, message: &[u8]) -> Vec<u8> {
        let same = message.to_vec();
        let Some(bug) = self.bug else { return same };
        match (FromGateway::parse(message), bug) {
            (Ok(FromGateway::Ack(mut ack)), _) => {
                self.credit = ack.credit;
                match bug {
                    DeviceBug::FreeOnReceived => ack.released = ack.received,
                    DeviceBug::EpochIgnored => ack.epoch = self.epoch.unwrap_or(ack.epoch),
                    DeviceBug::CreditExceeded => ack.credit = 16,
                    DeviceBug::RangesMisread => {
                        if let Some(range) = ack.ranges.first_mut() {
                            range.from = ack.received;
                        }
                    }
                    _ => return same,
                }
                ack.to_message().to_vec()
            }
            (Ok(FromGateway::Welcome(mut welcome)), _) => {
                self.credit = welcome.credit;
                self.epoch = Some(welcome.epoch);
                match bug {
                    DeviceBug::FreeOnReceived => welcome.released = welcome.received,
                    DeviceBug::CreditExceeded => welcome.credit = 16,
                    DeviceBug::AnyWelcomeObeyed => welcome.answers = self.hello,
                    DeviceBug::NothingResentAfterWelcome => {
                        welcome.received =
                            self.sent.map_or(welcome.received, |sent| sent.max(welcome.received));
                    }
                    _ => return same,
                }
                welcome.to_message().to_vec()
            }
            (Ok(FromGateway::TimeRequest(mut request)), DeviceBug::EpochIgnored) => {
                request.epoch = self.epoch.unwrap_or(request.epoch);
                request.to_message().to_vec()
            }
            _ => same,
        }
    }

    /// The device has started again.
    pub(crate) fn reset(&mut self) {
        *self = Self { bug: self.bug, credit: 0, sent: None, gap: None, epoch: None, hello: Token(0) };
    }
}

/// Whether the message is one with rows.
pub(crate) fn is_data(message: &[u8]) -> bool {
    message.first() == Some(&(Kind::Data as u8))
}
