//! What a sink has come to, on its way into the journal.
//!
//! Constraints: it is one submission, so that rows, gaps and the cursor behind them become true in the same instant. It
//! never takes more than half of what the journal takes at once: what does not fit is refused before it is added, and
//! becomes the next submission. It has one gap for each device, boot and cause, however many rows that are, because a
//! journal that is full has to become emptier by what its rows turn into. For the same reason the boots of a device that
//! restarts all the time are one gap from the fifth on, which tells of no boot.
//!
//! Counts of rows tell of no boot either; the state counts them for the earliest boot that waits (`journal/state/boots.rs`). So
//! where a device has rows that the sink does not want, counts of one boot stand before those of the next.

use std::collections::HashMap;
use std::sync::Arc;

use super::gaps::{Gap, GapMaker};
use crate::journal::entry::{Cause, Entry, GapEntry, Move, RowEntry, SkipEntry};
use crate::journal::state::BOOTS_MAX;
use crate::journal::{Refused, Submission};
use crate::record::{MachineBoot, Offset};

/// What a count takes besides the name of its device.
const COUNT_BYTES: usize = 12;
/// What a gap takes besides its texts and the name of its sink.
const GAP_BYTES: usize = 64;
/// What cursors and a skip take besides the name of their sink.
const ENDING_BYTES: usize = 256;

/// What tells gaps of a device apart: boot, cause, and whether it only comes again.
type Kind = (u32, Cause, bool);

/// Counts of rows, of each device that has unwanted ones those of one boot.
#[derive(Debug, Default)]
struct Slice {
    confirmed: HashMap<Box<str>, u64>,
    /// Rows that the sink does not want.
    unwanted: HashMap<Box<str>, u64>,
}

/// Rows, gaps and a cursor that the journal does not have yet.
#[derive(Debug)]
pub(super) struct Progress {
    sink: Arc<str>,
    /// One after the other, at least one.
    slices: Vec<Slice>,
    /// In which of them each native device's latest counts are, and of which boot the first of these is.
    latest: HashMap<Box<str>, (usize, u32)>,
    gaps: Vec<Gap>,
    /// Where in `gaps` those of a device are.
    places: HashMap<Box<str>, HashMap<Kind, usize>>,
    /// Everything below is accounted for with it.
    to: Option<Offset>,
    /// Whether the sink goes on there without having got all of it.
    skips: bool,
    bytes: usize,
    bytes_max: usize,
}

impl Progress {
    /// None yet, of a sink whose journal takes so many bytes at once.
    pub(super) fn new(sink: &Arc<str>, submission_bytes_max: usize) -> Progress {
        Progress {
            sink: Arc::clone(sink),
            slices: vec![Slice::default()],
            latest: HashMap::new(),
            gaps: Vec::new(),
            places: HashMap::new(),
            to: None,
            skips: false,
            bytes: slice_bytes(sink),
            bytes_max: submission_bytes_max / 2,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.to.is_none() && self.gaps.is_empty()
    }

    /// Everything below is accounted for with it; none if it moves no cursor.
    pub(super) fn to(&self) -> Option<Offset> {
        self.to
    }

    /// Counts a row that the sink has confirmed; false if there is no room for that.
    pub(super) fn confirm(&mut self, row: &RowEntry<'_>) -> bool {
        self.count(row, false)
    }

    /// Counts a row that the sink does not want; false if there is no room for that.
    pub(super) fn pass_over(&mut self, row: &RowEntry<'_>) -> bool {
        self.count(row, true)
    }

    /// Makes a row, which is early if it names a boot of the machine, part of a gap; false if there is no room for that.
    pub(super) fn lose(
        &mut self,
        cause: Cause,
        row: &RowEntry<'_>,
        machine: Option<MachineBoot>,
        maker: &mut GapMaker,
    ) -> bool {
        if let Some(gap) = self.gap_of(row.device, (row.boot, cause, false)) {
            gap.take_in(row);
            return true;
        }
        let gap = maker.of_row(cause, row, machine);
        let gap = if self.has_many_boots(row.device, cause, false) { gap.without_boot() } else { gap };
        self.join_or_push(gap)
    }

    /// Lets a gap come again whose point was not delivered; false if there is no room for that.
    pub(super) fn repeat(&mut self, gap: &GapEntry<'_>, machine: Option<MachineBoot>) -> bool {
        let is_one_too_many = self.gap_of(gap.device, (gap.boot, gap.cause, true)).is_none()
            && self.has_many_boots(gap.device, gap.cause, true);
        let gap = Gap::again(gap, machine);
        self.join_or_push(if is_one_too_many { gap.without_boot() } else { gap })
    }

    /// Adds a gap by itself; false if there is no room for it.
    pub(super) fn add(&mut self, gap: &Gap) -> bool {
        self.push(gap.clone())
    }

    /// Everything below `to` is accounted for, delivered or declared.
    pub(super) fn pass(&mut self, to: Offset) {
        self.to = self.to.max(Some(to));
    }

    /// Everything below `to` is accounted for, and never delivered any more.
    pub(super) fn skip(&mut self, to: Offset) {
        self.pass(to);
        self.skips = true;
    }

    /// Adds all of it to a submission.
    pub(super) fn submit(&self, submission: &mut Submission<'_>) -> Result<(), Refused> {
        let sink = &*self.sink;
        for gap in &self.gaps {
            submission.add(&gap.entry(sink))?;
        }
        let list = |rows: &HashMap<Box<str>, u64>| -> Vec<(Box<str>, u64)> {
            rows.iter().map(|(device, rows)| (device.clone(), *rows)).collect()
        };
        for (at, slice) in self.slices.iter().enumerate() {
            if !slice.unwanted.is_empty() {
                submission.add_moved(sink, Move::Unwanted, &list(&slice.unwanted))?;
            }
            let is_last = at + 1 == self.slices.len();
            if let Some(to) = self.to
                && (!slice.confirmed.is_empty() || is_last && !self.skips)
            {
                submission.add_cursor(sink, to, &list(&slice.confirmed))?;
            }
        }
        match self.to {
            Some(to) if self.skips => submission.add(&Entry::Skip(SkipEntry { sink, to })),
            _ => Ok(()),
        }
    }

    /// It is in the journal.
    pub(super) fn clear(&mut self) {
        *self = Progress::new(&self.sink, 2 * self.bytes_max);
    }

    fn count(&mut self, row: &RowEntry<'_>, is_unwanted: bool) -> bool {
        let at = self.slice_of(row, is_unwanted);
        if let Some(rows) =
            self.slices.get_mut(at).and_then(|slice| slice.rows(is_unwanted).get_mut(row.device))
        {
            *rows += 1;
            return true;
        }
        let is_new = at == self.slices.len();
        let slice = if is_new { slice_bytes(&self.sink) } else { 0 };
        if !self.take_room(row.device.len() + COUNT_BYTES + slice) {
            return false;
        }
        if is_new {
            self.slices.push(Slice::default());
        }
        self.slices[at].rows(is_unwanted).insert(row.device.into(), 1);
        if row.boot != 0 && self.latest.get(row.device).is_none_or(|(latest, _)| *latest < at) {
            self.latest.insert(row.device.into(), (at, row.boot));
        }
        true
    }

    /// Which slice counts a row; it may be one more than there are. Where all rows are wanted their order is enough.
    fn slice_of(&self, row: &RowEntry<'_>, is_unwanted: bool) -> usize {
        let Some((latest, boot)) = self.latest.get(row.device) else { return 0 };
        let has_unwanted = is_unwanted || self.slices[*latest].unwanted.contains_key(row.device);
        latest + usize::from(has_unwanted && row.boot != *boot)
    }

    fn join_or_push(&mut self, gap: Gap) -> bool {
        match self.gap_of(&gap.device, (gap.boot, gap.cause, gap.is_again())) {
            Some(known) => {
                known.join(&gap);
                true
            }
            None => self.push(gap),
        }
    }

    fn push(&mut self, gap: Gap) -> bool {
        let fits = self.take_room(gap.text_bytes() + self.sink.len() + GAP_BYTES);
        if fits {
            let kind = (gap.boot, gap.cause, gap.is_again());
            self.places.entry(gap.device.as_str().into()).or_default().insert(kind, self.gaps.len());
            self.gaps.push(gap);
        }
        fits
    }

    fn gap_of(&mut self, device: &str, kind: Kind) -> Option<&mut Gap> {
        let at = *self.places.get(device)?.get(&kind)?;
        self.gaps.get_mut(at)
    }

    fn has_many_boots(&self, device: &str, cause: Cause, again: bool) -> bool {
        let of_device = self.places.get(device).into_iter().flat_map(HashMap::keys);
        of_device
            .filter(|(boot, of, comes_again)| *boot != 0 && *of == cause && *comes_again == again)
            .count()
            >= BOOTS_MAX
    }

    /// What is empty has room for anything, or nothing would ever get on.
    fn take_room(&mut self, bytes: usize) -> bool {
        let fits = self.is_empty() || self.bytes + bytes <= self.bytes_max;
        if fits {
            self.bytes += bytes;
        }
        fits
    }
}

impl Slice {
    fn rows(&mut self, unwanted: bool) -> &mut HashMap<Box<str>, u64> {
        if unwanted { &mut self.unwanted } else { &mut self.confirmed }
    }
}

/// What the counts of a slice take besides those of devices, and the skip behind them.
fn slice_bytes(sink: &str) -> usize {
    ENDING_BYTES + 2 * sink.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::entry::Fields;
    use crate::journal::memory::MemoryStorage;
    use crate::journal::{Class, Journal, Options};

    const BYTES_MAX: usize = 64 << 10;

    fn progress(bytes_max: usize) -> Progress {
        Progress::new(&"main".into(), bytes_max)
    }

    fn row(device: &str, boot: u32, sequence: u64) -> RowEntry<'_> {
        let fields = Fields::of(&[]);
        RowEntry { device, boot, sequence, stamped: false, series: "m,device=d", ns: 5, fields }
    }

    fn gaps(progress: &Progress) -> Vec<(&str, u32, u64, u64, u64)> {
        progress.gaps.iter().map(|gap| (&*gap.device, gap.boot, gap.from, gap.to, gap.count)).collect()
    }

    #[test]
    fn rows_of_one_device_boot_and_cause_are_one_gap_wherever_they_stand() {
        let (mut progress, mut maker) = (progress(BYTES_MAX), GapMaker::new(Vec::new()));
        for (boot, sequence) in [(7, 5), (8, 0), (7, 9), (7, 2), (8, 1)] {
            assert!(progress.lose(Cause::Rejected, &row("a", boot, sequence), None, &mut maker));
            assert!(progress.lose(Cause::Rejected, &row("b", boot, sequence), None, &mut maker));
        }
        assert!(progress.lose(Cause::Unkept, &row("a", 7, 6), None, &mut maker));
        assert_eq!(
            gaps(&progress),
            [("a", 7, 2, 10, 3), ("b", 7, 2, 10, 3), ("a", 8, 0, 2, 2), ("b", 8, 0, 2, 2), ("a", 7, 6, 7, 1)]
        );
    }

    #[test]
    fn a_gap_that_comes_again_is_not_mixed_with_rows_that_become_lost() {
        let (mut progress, mut maker) = (progress(BYTES_MAX), GapMaker::new(Vec::new()));
        assert!(progress.lose(Cause::Evicted, &row("a", 0, 5), None, &mut maker));
        let known = maker.of_row(Cause::Evicted, &row("a", 0, 1), None);
        let Entry::Gap(known) = known.entry("main") else { panic!("a gap") };
        assert!(
            progress.repeat(&known, None)
                && progress.repeat(&GapEntry { from: 0, to: 3, count: 2, ..known }, None)
        );
        assert_eq!(gaps(&progress), [("a", 0, 5, 6, 1), ("a", 0, 0, 3, 3)]);
        assert_eq!(progress.gaps.iter().map(Gap::rows).sum::<u64>(), 1);
    }

    #[test]
    fn a_device_that_restarts_all_the_time_has_few_gaps() {
        let (mut progress, mut maker) = (progress(BYTES_MAX), GapMaker::new(Vec::new()));
        for boot in 1..=100 {
            for sequence in [5, 8] {
                assert!(progress.lose(Cause::Evicted, &row("a", boot, sequence), None, &mut maker));
            }
            let known = maker.of_row(Cause::Rejected, &row("a", boot, 9), None);
            let Entry::Gap(known) = known.entry("main") else { panic!("a gap") };
            assert!(progress.repeat(&known, None) && progress.repeat(&known, None));
        }
        let of = |cause| {
            let gaps = progress.gaps.iter().filter(move |gap| gap.cause == cause);
            gaps.map(|gap| (gap.boot, gap.from, gap.to, gap.count)).collect::<Vec<_>>()
        };
        let lost = [(1, 5, 9, 2), (2, 5, 9, 2), (3, 5, 9, 2), (4, 5, 9, 2), (0, 0, 192, 192)];
        assert_eq!(of(Cause::Evicted), lost);
        let again = [(1, 9, 10, 2), (2, 9, 10, 2), (3, 9, 10, 2), (4, 9, 10, 2), (0, 0, 192, 192)];
        assert_eq!(of(Cause::Rejected), again);
    }

    #[test]
    fn counts_of_a_device_that_has_unwanted_rows_are_of_one_boot_each() {
        let mut progress = progress(BYTES_MAX);
        for boot in 1..4 {
            assert!(progress.pass_over(&row("a", boot, 0)) && progress.confirm(&row("a", boot, 1)));
            assert!(progress.confirm(&row("b", boot, 0)) && progress.confirm(&row("b", boot, 1)));
            assert!(progress.pass_over(&row("c", 0, 0)) && progress.confirm(&row("c", 0, 1)));
        }
        assert!(progress.pass_over(&row("b", 3, 3)));
        let of = |slice: &Slice, device| {
            let rows = |rows: &HashMap<Box<str>, u64>| rows.get(device).copied().unwrap_or(0);
            (rows(&slice.unwanted), rows(&slice.confirmed))
        };
        let all = |device| progress.slices.iter().map(|slice| of(slice, device)).collect::<Vec<_>>();
        assert_eq!(all("a"), [(1, 1), (1, 1), (1, 1)]);
        assert_eq!(all("b"), [(0, 6), (1, 0), (0, 0)], "the order of wanted ones tells of their boots");
        assert_eq!(all("c"), [(3, 3), (0, 0), (0, 0)]);
    }

    #[test]
    fn what_fits_is_always_taken_by_the_journal() {
        let journal = Journal::open(Arc::new(MemoryStorage::new()), &Options::sized(2 << 20)).unwrap().0;
        journal.register_sink("main").unwrap();
        let bytes_max = journal.usage().submission_bytes_max;
        for (device_bytes, way) in
            [(1, 0), (1, 1), (1, 2), (1, 3), (900, 0), (900, 1), (900, 2), (900, 3), (8_000, 1), (8_000, 2)]
        {
            let (mut progress, mut maker) = (progress(bytes_max), GapMaker::new(Vec::new()));
            let mut added = 0;
            loop {
                let device = format!("{added:0device_bytes$}");
                let fits = match way {
                    0 => progress.confirm(&row(&device, 0, 0)),
                    1 => progress.lose(Cause::Evicted, &row(&device, 0, u64::MAX - 1), None, &mut maker),
                    // A device that restarts all the time.
                    3 => {
                        let row = row(&device[..device_bytes], added + 1, 0);
                        progress.pass_over(&row) && progress.confirm(&row)
                    }
                    _ => progress.pass_over(&row(&device, 0, 0)),
                };
                if !fits {
                    break;
                }
                added += 1;
                progress.skip(Offset(u64::MAX >> 1));
            }
            let submitted: Result<_, Refused> = journal.submit(Class::Internal, |_, submission| {
                progress.submit(submission)?;
                assert!(submission.bytes() <= bytes_max / 2, "{} bytes", submission.bytes());
                // What is looked at here must not be part of the state.
                Err::<(), _>(Refused::Busy)
            });
            assert_eq!(submitted.unwrap_err(), Refused::Busy, "{added} devices of {device_bytes} bytes");
            progress.clear();
            assert!(progress.is_empty() && progress.confirm(&row("a", 0, 0)));
        }
    }
}
