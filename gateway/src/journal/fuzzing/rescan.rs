//! The same files looked through a second time, plainly and in memory, by what the format and recovery's table say.
//!
//! Nothing of the journal's own reading is used, so that a mistake there is not made here again.

use std::collections::BTreeSet;
use std::fmt;

use super::samples::Files;

const MAGIC: &[u8] = b"\xfbFBj";
const FRAMES_AT: usize = 512;
const SECTOR_BYTES: usize = 512;
const HEADER_BYTES: usize = 60;
const FRAME_HEADER_BYTES: usize = 52;
const FRAME_BYTES_MAX: usize = 16 << 10;

/// A segment that has begun.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) id: u64,
    /// First offset and the one from which on nobody is owed anything, if the header is intact.
    pub(super) header: Option<(u64, u64)>,
    /// Where it begins if it is not: the frames that are left leave that open.
    pub(super) begins: u64,
    pub(super) frames: Vec<SeenFrame>,
}

/// An intact frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SeenFrame {
    pub(super) at: usize,
    pub(super) length: usize,
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) complete: bool,
    pub(super) snapshot: bool,
    pub(super) watermark: u64,
    /// Whether somebody is to get any of its entries.
    owes: bool,
    checksum: u32,
    previous: u32,
}

/// What the files come to.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Behind the last entry that stands.
    pub(super) end: u64,
    /// Entries of frames that must be delivered: first and behind the last.
    pub(super) frames: Vec<(u64, u64)>,
    /// What was durable, and is missing at the end.
    pub(super) missing: Option<(u64, u64)>,
}

impl fmt::Debug for SeenFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SeenFrame { at, first, end, watermark, .. } = self;
        let kind = if self.snapshot { "snapshot " } else { "" };
        let rest = if self.complete { "" } else { " …" };
        write!(f, "{kind}{first}..{end}{rest} at {at} above {watermark}")
    }
}

/// A header, as far as it is understood.
enum Head {
    Intact {
        journal: u64,
        first: u64,
        void: u64,
    },
    /// Zeros, or of another segment.
    NotBegun,
    Damaged,
    Newer,
}

impl Seen {
    pub(super) fn first(&self) -> u64 {
        self.header.map_or(self.begins, |(first, _)| first)
    }

    pub(super) fn void(&self) -> u64 {
        self.header.map_or(self.begins, |(_, void)| void)
    }
}

/// Whether any segment, or a mark of the end, is of a format that is not known.
pub(super) fn is_newer(files: &Files) -> bool {
    let mut marks = files.get("end").into_iter().flat_map(|file| file.chunks(SECTOR_BYTES).take(2));
    let is_newer = |mark: &[u8]| {
        mark.len() >= 52
            && mark.starts_with(b"FOREBAYE")
            && crc32c::crc32c(&mark[..48]) == u32_at(mark, 48)
            && u32_at(mark, 8) > 1
    };
    segments(files).any(|(id, bytes)| matches!(head(bytes, id), Head::Newer)) || marks.any(is_newer)
}

/// The segments that have begun, oldest first. `hidden` are those too that only the frames within them tell from spares.
pub(super) fn look(files: &Files, hidden: bool) -> Vec<Seen> {
    let told = journal(files);
    let mut seen: Vec<Seen> = Vec::new();
    for (id, bytes) in segments(files).collect::<Vec<_>>().into_iter().rev() {
        let head = head(bytes, id);
        let own = if let Head::Intact { journal, .. } = head { journal } else { told };
        let frames = frames(bytes, id, own);
        let begins = frames.first().map_or(0, |frame| frame.first);
        // Behind it a later one has begun, so that it is no spare.
        let is_certain = hidden || !seen.is_empty();
        match head {
            Head::Intact { first, void, .. } => {
                seen.push(Seen { id, header: Some((first, void)), begins: first, frames });
            }
            _ if frames.is_empty() => {}
            Head::NotBegun if frames[0].at != FRAMES_AT && !is_certain => {}
            _ => seen.push(Seen { id, header: None, begins, frames }),
        }
    }
    seen.reverse();
    seen
}

/// The journal's id, as far as anything tells it: without it no frame can be checked.
fn journal(files: &Files) -> u64 {
    let told = segments(files).filter_map(|(id, bytes)| match head(bytes, id) {
        Head::Intact { journal, .. } => Some(journal),
        _ => None,
    });
    told.last().or(mark(files).map(|(journal, _)| journal)).unwrap_or_default()
}

/// Whether files tell, under right checksums, what no journal ever writes: of segments still to come, of another journal,
/// of entries in an order that is none, of bounds within a frame, or of rows that nobody is to get. No damage and no crash
/// does that, so that what is to be made of it is not laid down.
pub(super) fn is_contradictory(files: &Files, seen: &[Seen]) -> bool {
    let journals: BTreeSet<u64> = segments(files)
        .filter_map(|(id, bytes)| match head(bytes, id) {
            Head::Intact { journal, .. } => Some(journal),
            _ => None,
        })
        .chain(mark(files).map(|(journal, _)| journal))
        .collect();
    let frames = seen.iter().flat_map(|segment| &segment.frames);
    let bounds: BTreeSet<u64> = seen
        .iter()
        .flat_map(|segment| [segment.first(), segment.void()])
        .chain(frames.clone().flat_map(|frame| [frame.watermark, frame.first, frame.end]))
        .chain(mark(files).map(|(_, watermark)| watermark))
        .collect();
    let voids = || seen.iter().map(|segment| segment.void()..segment.first());
    journals.len() > 1
        || frames.clone().any(|frame| frame.owes && voids().any(|void| void.contains(&frame.first)))
        || segments(files).any(|(id, bytes)| tells_of_later(bytes, id))
        || !seen.is_sorted_by_key(Seen::first)
        || seen.iter().any(|segment| segment.void() > segment.first())
        || frames.clone().any(|frame| bounds.range(frame.first..frame.end).nth(1).is_some())
        || seen.iter().any(|segment| {
            let mut at = segment.first();
            segment.frames.iter().any(|frame| {
                let follows = frame.first >= at && frame.watermark <= frame.first;
                at = frame.end;
                !follows || frame.snapshot != (frame.end == frame.first)
            })
        })
}

/// Whether a file has anything of a segment with a higher number. Numbers are never used twice.
fn tells_of_later(bytes: &[u8], id: u64) -> bool {
    let header = bytes.starts_with(b"FOREBAYJ") && bytes.len() >= 32 && u64_at(bytes, 24) > id;
    header || bytes.windows(24).any(|frame| frame.starts_with(MAGIC) && u64_at(frame, 16) > id)
}

/// The journal and the watermark of the latest intact end mark.
pub(super) fn mark(files: &Files) -> Option<(u64, u64)> {
    let file = files.get("end")?;
    let slots = file[..file.len().min(2 * SECTOR_BYTES)].chunks(SECTOR_BYTES);
    let intact = slots.filter(|slot| {
        slot.len() >= 52
            && slot[..8] == *b"FOREBAYE"
            && u32_at(slot, 8) == 1
            && crc32c::crc32c(&slot[..48]) == u32_at(slot, 48)
    });
    let latest = intact.max_by_key(|slot| u64_at(slot, 24))?;
    Some((u64_at(latest, 16), u64_at(latest, 32)))
}

/// What must be read of the segments, given the id of the one whose snapshot is the newest intact one.
pub(super) fn expect(seen: &[Seen], base: Option<u64>, marked: Option<u64>) -> Expected {
    let newer = seen.iter().filter(|segment| base.is_none_or(|base| segment.id >= base));
    let told = newer.clone().flat_map(|segment| {
        let replaced = replaced_from(seen, segment.id);
        segment.frames.iter().filter(move |frame| frame.first < replaced).map(|frame| frame.watermark)
    });
    let begun = newer.filter_map(|segment| segment.header).map(|(first, _)| first);
    let durable = told.chain(begun).chain(marked).max().unwrap_or_default();

    let mut expected = Expected::default();
    let (mut at, mut whole) = (0, 0);
    'segments: for segment in seen {
        let judged = base.is_none_or(|base| segment.id >= base);
        if base == Some(segment.id) || at == 0 {
            (at, whole) = (segment.first(), segment.first());
        }
        if segment.header.is_some_and(|(first, void)| (void..first).contains(&at)) {
            (at, whole) = (segment.first(), segment.first());
        }
        let replaced = replaced_from(seen, segment.id);
        let void = seen.iter().filter(|s| s.id > segment.id).map(Seen::void).min().unwrap_or(u64::MAX);
        for frame in segment.frames.iter().filter(|frame| frame.first < replaced) {
            if judged && frame.first > at.max(durable) {
                break 'segments;
            }
            if frame.end > at && frame.first < frame.end && frame.end <= void {
                expected.frames.push((frame.first, frame.end));
            }
            at = at.max(frame.first).max(frame.end);
            if frame.complete || at <= durable {
                whole = at;
            }
        }
    }
    expected.end = whole.max(durable);
    expected.missing = (whole < durable).then_some((whole, durable));
    expected.frames.retain(|(_, end)| *end <= expected.end);
    expected
}

/// From where on later segments hold what this one holds too.
fn replaced_from(seen: &[Seen], id: u64) -> u64 {
    seen.iter().filter(|s| s.id > id).map(Seen::first).min().unwrap_or(u64::MAX)
}

/// The intact frames of a segment.
pub(super) fn frames(bytes: &[u8], id: u64, journal: u64) -> Vec<SeenFrame> {
    let mut frames: Vec<SeenFrame> = Vec::new();
    let mut at = FRAMES_AT;
    while at < bytes.len() {
        let follows = |frame: &SeenFrame| frames.last().is_none_or(|last| last.checksum == frame.previous);
        let here = frame_at(bytes, at, id, journal);
        let found = match here.filter(follows) {
            Some(frame) => Some(frame),
            // Between two commits a file holds what it held in an earlier life.
            None if frames.last().is_some_and(|last| last.at + last.length == at) => {
                frame_at(bytes, at.next_multiple_of(SECTOR_BYTES), id, journal).filter(follows).or(here)
            }
            None => here,
        };
        match found {
            Some(frame) => {
                at = frame.at + frame.length;
                frames.push(frame);
            }
            None => at += 1,
        }
    }
    frames
}

fn frame_at(bytes: &[u8], at: usize, id: u64, journal: u64) -> Option<SeenFrame> {
    let bytes = bytes.get(at..)?;
    if !bytes.starts_with(MAGIC) || bytes.len() < FRAME_HEADER_BYTES {
        return None;
    }
    let length = u32_at(bytes, 8) as usize;
    let in_bounds = (FRAME_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&length) && length <= bytes.len();
    if !in_bounds || u64_at(bytes, 16) != id {
        return None;
    }
    if crc32c::crc32c_append(crc32c::crc32c(&journal.to_le_bytes()), &bytes[8..length]) != u32_at(bytes, 4) {
        return None;
    }
    let (count, flags) = (u32_at(bytes, 12) & 0xffff, u32_at(bytes, 12) >> 16);
    let first = u64_at(bytes, 24);
    Some(SeenFrame {
        at,
        length,
        first,
        end: first.saturating_add(count.into()),
        complete: flags & 1 != 0,
        snapshot: flags & 2 != 0,
        watermark: u64_at(bytes, 32),
        owes: flags & 2 == 0 && owes(&bytes[FRAME_HEADER_BYTES..length]),
        checksum: u32_at(bytes, 4),
        previous: u32_at(bytes, 48),
    })
}

/// Whether there is a row, a gap or a letter among the entries. What is none of those that nobody gets may be one.
fn owes(mut entries: &[u8]) -> bool {
    while let Some((length, rest)) = entries.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length));
        if !rest.first().is_some_and(|kind| matches!(kind, 3..=5 | 7..=9)) {
            return true;
        }
        entries = rest.get(length..).unwrap_or_default();
    }
    false
}

fn head(bytes: &[u8], id: u64) -> Head {
    let Some(head) = bytes.get(..HEADER_BYTES) else { return Head::Damaged };
    if head.iter().all(|byte| *byte == 0) {
        return Head::NotBegun;
    }
    if !head.starts_with(b"FOREBAYJ") || crc32c::crc32c(&head[..56]) != u32_at(head, 56) {
        return Head::Damaged;
    }
    // The features that are known are those of rows before the clock is believed, of shared points, and of boots.
    if u32_at(head, 8) != 1 || u32_at(head, 12) & !7 != 0 {
        return Head::Newer;
    }
    if u64_at(head, 24) != id {
        return Head::NotBegun;
    }
    Head::Intact { journal: u64_at(head, 16), first: u64_at(head, 32), void: u64_at(head, 40) }
}

/// The files that have the name of a segment, by number. Names are of equal length, so that they sort as numbers.
fn segments(files: &Files) -> impl Iterator<Item = (u64, &[u8])> {
    files.iter().filter_map(|(name, bytes)| {
        let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 20)?;
        Some((digits.parse().ok()?, bytes.as_slice()))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..].first_chunk().copied().unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..].first_chunk().copied().unwrap_or_default())
}
