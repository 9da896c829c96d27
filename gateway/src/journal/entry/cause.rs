//! Why rows are lost: the causes, by number as in the journal and by name as everywhere else.

/// Why rows are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cause {
    /// A device's ring was full.
    Overflow = 0,
    /// A device lost its memory; the count is a lower bound.
    DeviceReset = 1,
    /// A payload could not be read as rows.
    Unparseable = 2,
    /// A database refused the row, and it is kept among the dead letters.
    Rejected = 3,
    /// The journal's medium lost what was written.
    Damaged = 4,
    /// A database came back without what it had confirmed.
    SinkReset = 5,
    /// The journal was full, and the oldest rows made room.
    Evicted = 6,
    /// It could not be read or stored, and the disk had no room to keep it among the dead letters.
    Unkept = 7,
    /// A device was too busy to take the row from where it was sampled.
    Overrun = 8,
    /// A device's sensor did not answer when the row was due.
    Sensor = 9,
    /// A device restarted before the row came to a sealed block; what it had sealed survived.
    Reset = 10,
}

impl Cause {
    /// All causes, in the order of their numbers.
    pub const ALL: [Cause; 11] = [
        Cause::Overflow,
        Cause::DeviceReset,
        Cause::Unparseable,
        Cause::Rejected,
        Cause::Damaged,
        Cause::SinkReset,
        Cause::Evicted,
        Cause::Unkept,
        Cause::Overrun,
        Cause::Sensor,
        Cause::Reset,
    ];

    /// The stable name, as in tags, metrics and the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Overflow => "overflow",
            Cause::DeviceReset => "device_reset",
            Cause::Unparseable => "unparseable",
            Cause::Rejected => "rejected",
            Cause::Damaged => "damaged",
            Cause::SinkReset => "sink_reset",
            Cause::Evicted => "evicted",
            Cause::Unkept => "unkept",
            Cause::Overrun => "overrun",
            Cause::Sensor => "sensor",
            Cause::Reset => "reset",
        }
    }
}
