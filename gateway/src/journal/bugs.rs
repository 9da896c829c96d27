//! Seeded bugs: what the crash tests must be able to find.
//!
//! A checker that never was red proves nothing. So the mistakes that a journal is most likely to make are built in at the
//! places where they would be made, behind [`seeded`], which is always false outside the tests of this crate; there one
//! bug at a time is switched on, and the crash enumeration must catch it.

/// A mistake that can be switched on in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "some of the mistakes are made by code that only the tests have")
)]
pub(super) enum Bug {
    AckBeforeSync,
    SyncOnlyTheLastSegment,
    RetryFailedSync,
    NoDirectorySync,
    RecoveryWithoutSync,
    PageCacheTrusted,
    TrimBeforeCursorIsDurable,
    TrimWithoutSnapshots,
    TrimPastLetters,
    AppendBehindOldTail,
    SpareKeepsItsName,
    NoSegmentIdInFrames,
    NoChecksum,
    ChecksumWithoutLength,
    SharedSector,
    HalfSubmission,
    TrustAnyHole,
    StopAtDamage,
    OldCopyAfterRewrite,
    BeginWithWhatIsLeft,
    VoidForgotten,
    WatermarkBeforeDurable,
    MarkBeforeSync,
    OnlyNewestSnapshot,
    SnapshotOfALaterState,
    OffsetsBeginAnew,
    CursorBeforeItsGaps,
    EvictedRowsComeBack,
    SparesNotCounted,
    FixShownBeforeItIsDurable,
    LaterFixWins,
    SnapshotWithoutClocks,
    EarlyInAnOldSegment,
}

#[cfg(test)]
impl Bug {
    pub(super) const ALL: [Bug; 33] = [
        Bug::AckBeforeSync,
        Bug::SyncOnlyTheLastSegment,
        Bug::RetryFailedSync,
        Bug::NoDirectorySync,
        Bug::RecoveryWithoutSync,
        Bug::PageCacheTrusted,
        Bug::TrimBeforeCursorIsDurable,
        Bug::TrimWithoutSnapshots,
        Bug::TrimPastLetters,
        Bug::AppendBehindOldTail,
        Bug::SpareKeepsItsName,
        Bug::NoSegmentIdInFrames,
        Bug::NoChecksum,
        Bug::ChecksumWithoutLength,
        Bug::SharedSector,
        Bug::HalfSubmission,
        Bug::TrustAnyHole,
        Bug::StopAtDamage,
        Bug::OldCopyAfterRewrite,
        Bug::BeginWithWhatIsLeft,
        Bug::VoidForgotten,
        Bug::WatermarkBeforeDurable,
        Bug::MarkBeforeSync,
        Bug::OnlyNewestSnapshot,
        Bug::SnapshotOfALaterState,
        Bug::OffsetsBeginAnew,
        Bug::CursorBeforeItsGaps,
        Bug::EvictedRowsComeBack,
        Bug::SparesNotCounted,
        Bug::FixShownBeforeItIsDurable,
        Bug::LaterFixWins,
        Bug::SnapshotWithoutClocks,
        Bug::EarlyInAnOldSegment,
    ];
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

/// Whether each life begins a segment of its own, as after a torn tail: what tests of several segments want.
#[cfg(not(test))]
pub(super) const fn begins_anew() -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static ANEW: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[cfg(test)]
pub(super) fn begins_anew() -> bool {
    ANEW.get()
}

/// Opens a journal that begins a segment of its own.
#[cfg(test)]
pub(super) fn anew<T>(open: impl FnOnce() -> T) -> T {
    ANEW.set(true);
    let opened = open();
    ANEW.set(false);
    opened
}

/// What a checksum covers that leaves out the length and ends where the entries say that they do.
#[cfg(test)]
pub(super) fn covered_without_length(frame: &[u8], length: usize) -> Option<&[u8]> {
    use super::frame::FRAME_HEADER_BYTES;

    let count = u16::from_le_bytes(*frame.get(12..)?.first_chunk()?);
    let mut rest = frame.get(FRAME_HEADER_BYTES..)?;
    for _ in 0..count {
        super::entry::take_entry(&mut rest).ok()?;
    }
    let end = if count == 0 { length } else { frame.len() - rest.len() };
    frame.get(12..end)
}

/// A snapshot that includes what comes behind it.
#[cfg(test)]
pub(super) fn later_snapshot(
    state: &super::State,
    mut offset: crate::record::Offset,
    mut entries: &[u8],
) -> Option<Vec<u8>> {
    let mut state = Some(state).filter(|_| seeded(Bug::SnapshotOfALaterState))?.clone();
    while let Ok(body) = super::entry::take_entry(&mut entries) {
        state.apply(offset, &super::Entry::decode(body).ok()?);
        offset = offset.plus(1);
    }
    state.to_bytes().ok()
}
