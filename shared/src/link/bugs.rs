//! Seeded bugs: what the simulation of the link must be able to find.
//!
//! A checker that never was red proves nothing. So the mistakes that the gateway's half, and a ring that outlives a reset, are
//! most likely to make are built in at the places where they would be made, behind [`seeded`], which is always false without the feature
//! `simulation`; the simulation switches one of them on at a time, and must catch it. The product never has the feature.

/// A mistake that can be switched on in a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A gap takes the place of rows that are held, too.
    GapOverHeldRows,
    /// What was acknowledged beyond a hole is given up when more comes.
    HeldBlockGivenUp,
    /// Received is the highest row that has come, whatever is missing before it.
    ReceivedIsHighest,
    /// Wire numbers count from zero again after the wrap.
    WrongExtensionAtWrap,
    /// A frame's check is not looked at.
    CrcIgnored,
    /// The schema counts as known before it is.
    BirthsNotAwaited,
    /// A hello without a boot continues the session of an earlier life.
    AnyHelloContinues,
    /// A device behind a broker is never welcomed again.
    NoStallNoticed,
    /// A question is not answered.
    StatusNotAnswered,
    /// A ring of other channels is taken up after a reset.
    SchemaIgnored,
    /// The numbers of rows that a reset took are given again.
    OpenRowsForgotten,
    /// Blocks are taken up after a reset without a look at them.
    DamageTakenUp,
}

/// Whether the bug is switched on: never in the product.
#[cfg(not(feature = "simulation"))]
pub const fn seeded(_: Bug) -> bool {
    false
}

#[cfg(feature = "simulation")]
std::thread_local! {
    static SEEDED: core::cell::Cell<Option<Bug>> = const { core::cell::Cell::new(None) };
}

/// Whether the bug is switched on in this thread.
#[cfg(feature = "simulation")]
pub fn seeded(bug: Bug) -> bool {
    SEEDED.get() == Some(bug)
}

/// Switches a bug on in this thread, or all off.
#[cfg(feature = "simulation")]
pub fn seed(bug: Option<Bug>) {
    SEEDED.set(bug);
}
