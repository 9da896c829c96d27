//! Seeded bugs: what the crash tests must be able to find.
//!
//! A checker that never was red proves nothing. So the mistakes that a journal is most likely to make are built in at the
//! places where they would be made, behind [`seeded`], which is always false outside the tests of this crate; there one
//! bug at a time is switched on, and the crash enumeration must catch it.

/// A mistake that can be switched on in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    AckBeforeSync,
    NoDirectorySync,
    RecoveryWithoutSync,
    TrimBeforeCursorIsDurable,
    AppendBehindOldTail,
    NoSegmentIdInFrames,
    NoChecksum,
    ChecksumWithoutLength,
    RetryFailedSync,
    SharedSector,
    HalfSubmission,
    TrustAnyHole,
    StopAtDamage,
    OldCopyAfterRewrite,
    TrimWithoutSnapshots,
    SnapshotOfALaterState,
    CursorBeforeItsGaps,
    EvictedRowsComeBack,
    OffsetsBeginAnew,
    SpareBeforeItsNameIsDurable,
    WatermarkBeforeDurable,
    MarkBeforeSync,
    UnfinishedSegmentCounts,
    NewestSnapshotUnchecked,
}

/// Whether the bug is switched on: never in the product.
#[cfg(not(test))]
pub(super) const fn seeded(_: Bug) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static SEEDED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether the bug is switched on in this thread.
#[cfg(test)]
pub(super) fn seeded(bug: Bug) -> bool {
    SEEDED.get() == Some(bug)
}

/// Switches a bug on in this thread, or all off.
#[cfg(test)]
pub(super) fn seed(bug: Option<Bug>) {
    SEEDED.set(bug);
}
