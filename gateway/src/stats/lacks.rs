//! What single databases have lost or refused since the gateway started: the others may have it, and the journal's counts
//! begin with the data directory.

use std::collections::BTreeMap;

use super::{Stats, Status};
use crate::dead_letters::Letter;
use crate::journal::entry::Cause;
use crate::journal::state::Gaps;
use crate::journal::{JournalId, State};
use crate::record::Offset;

/// Rows that each sink alone lacks, by its name and by cause.
type Lacks = BTreeMap<String, BTreeMap<Cause, u64>>;

/// How the sinks stood when the gateway started.
#[derive(Debug)]
pub(super) struct Before {
    lacks: Lacks,
    journal: JournalId,
    cursors: BTreeMap<String, Offset>,
}

impl Stats {
    /// Remembers what the databases lacked before this start; only the first call counts. Without one everything that the
    /// journal knows of is since the start.
    pub fn set_lacks_before(&self, state: &State) {
        let cursors = || state.sinks().iter().map(|sink| (sink.name.to_string(), sink.cursor)).collect();
        self.lacks_before.get_or_init(|| Before {
            lacks: lacks(state),
            journal: state.journal(),
            cursors: cursors(),
        });
    }

    /// Counts dead letters that somebody has let go of.
    pub fn count_discarded(&self, letters: &[&Letter]) {
        let (before, sinks) = (self.lacks_before.get(), self.sinks());
        let is_new = |letter: &Letter| {
            before.is_none_or(|before| {
                let cursor = before.cursors.get(&*letter.sink).copied().unwrap_or_default();
                letter.journal == before.journal && letter.offset >= cursor
            })
        };
        for letter in letters {
            self.discarded_letters.add(1);
            self.discarded_rows.add(letter.rows);
            // What was refused before the start is not among what was since.
            if let Some(sink) = sinks.get(&*letter.sink).filter(|_| is_new(letter)) {
                sink.discard(letter.rows);
            }
        }
    }

    /// Puts what has come since the start into a status whose sinks are there.
    pub(super) fn write_lacks_into(&self, state: &State, status: &mut Status) {
        let (before, sinks) = (self.lacks_before.get(), self.sinks());
        for (name, causes) in lacks(state) {
            let before = before.and_then(|before| before.lacks.get(&name));
            let discarded = sinks.get(&name).map_or(0, |sink| sink.discarded());
            let sink = status.sinks.entry(name).or_default();
            for (cause, rows) in causes {
                let before = before.and_then(|before| before.get(&cause)).copied().unwrap_or(0);
                match (cause, rows.saturating_sub(before)) {
                    (_, 0) => {}
                    (Cause::Rejected, rows) => sink.refused_since_start = rows.saturating_sub(discarded),
                    (_, rows) => drop(sink.gaps_since_start.insert(cause.as_str().to_owned(), rows)),
                }
            }
        }
    }
}

fn lacks(state: &State) -> Lacks {
    let mut lacks = Lacks::new();
    for (sink, account) in state.devices().iter().flat_map(|device| state.ledgers(device)) {
        let gaps: Gaps = account.gaps;
        if gaps.total() == 0 {
            continue;
        }
        let causes = lacks.entry(sink.to_owned()).or_default();
        for (cause, rows) in gaps.iter() {
            let sum = causes.entry(cause).or_default();
            *sum = sum.saturating_add(rows);
        }
    }
    lacks
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Belief;
    use crate::dead_letters::{Dropped, Stage};
    use crate::journal::entry::{Entry, Fields, GapEntry, RowEntry};
    use crate::journal::memory::MemoryStorage;
    use crate::journal::{Class, Journal, Options};
    use crate::record::Offset;

    const DEVICE: &str = "d";

    /// Ten rows that two databases are to get.
    fn journal() -> Journal {
        let (journal, _) = Journal::open(Arc::new(MemoryStorage::new()), &Options::sized(4 << 20)).unwrap();
        for sink in ["main", "second"] {
            journal.register_sink(sink).unwrap();
        }
        for sequence in 0..10 {
            let fields = Fields::of(&[]);
            let row =
                RowEntry { device: DEVICE, boot: 0, sequence, stamped: false, series: "m", ns: 1, fields };
            submit(&journal, &Entry::Row(row));
        }
        journal
    }

    fn submit(journal: &Journal, entry: &Entry<'_>) {
        journal.submit(Class::Internal, |_, submission| submission.add(entry)).unwrap();
    }

    fn lose(journal: &Journal, sink: &str, (from, to): (u64, u64), cause: Cause) {
        let (count, sink) = (to - from, Some(sink));
        let gap = GapEntry {
            device: DEVICE,
            boot: 0,
            from,
            to,
            count,
            cause,
            sink,
            stamped: false,
            series: "m",
            ns: 0,
        };
        submit(journal, &Entry::Gap(gap));
    }

    fn confirm(journal: &Journal, sink: &str, rows: u64) {
        let (next, confirmed) = (journal.usage().end, [(DEVICE.into(), rows)]);
        journal
            .submit(Class::Internal, |_, submission| submission.add_cursor(sink, Offset(next.0), &confirmed))
            .map(|_: ((), _)| ())
            .unwrap();
    }

    fn whats(status: &Status) -> Vec<&str> {
        status.findings.iter().map(|finding| finding.what.as_str()).collect()
    }

    #[test]
    fn what_one_of_two_databases_has_lost_or_refused_stays_in_the_status_when_both_have_caught_up() {
        let (journal, stats) = (journal(), Stats::new(0));
        stats.set_lacks_before(&journal.with_state(State::clone));
        lose(&journal, "main", (0, 2), Cause::Damaged);
        lose(&journal, "second", (4, 7), Cause::Rejected);
        confirm(&journal, "main", 8);
        confirm(&journal, "second", 7);
        let status = Status::of(&journal, &stats, 1, Belief::Told);
        for sink in status.devices[DEVICE].sinks.values() {
            assert!(sink.balances() && sink.backlog() == 0, "{sink:?}");
        }
        let all = &status.ledger;
        assert_eq!((all.learned, all.confirmed, all.lost(), all.dead_lettered), (10, 5, 2, 3));
        assert_eq!(all.gaps, BTreeMap::from([("damaged".to_owned(), 2)]));
        assert!(all.balances());
        assert_eq!(
            whats(&status),
            [
                "the database main lacks 2 rows lost since the start",
                "the database second refused 3 rows since the start, kept as dead letters"
            ]
        );
        assert!(status.findings[0].cure.starts_with("By cause: `damaged` 2."), "{}", status.findings[0].cure);
        assert_eq!(
            status.verdict,
            "Nothing is being lost, but the database main lacks 2 rows lost since the start, and one thing more."
        );
    }

    fn letter(sink: &str, offset: u64, journal: JournalId) -> Letter {
        Letter {
            sink: sink.into(),
            journal,
            offset: Offset(offset),
            stage: Stage::Delivery,
            at_ns: 0,
            device: DEVICE.into(),
            rows: 1,
            origin: "m".into(),
            reason: "".into(),
            body: [].into(),
            body_bytes: 0,
        }
    }

    #[test]
    fn refused_rows_that_nobody_wants_any_more_are_no_finding() {
        let (journal, stats) = (journal(), Stats::new(0));
        confirm(&journal, "main", 10);
        stats.set_lacks_before(&journal.with_state(State::clone));
        let (own, end) = (journal.id(), journal.usage().end.0);
        lose(&journal, "main", (10, 13), Cause::Rejected);
        stats.sink("main");
        let refused = || Status::of(&journal, &stats, 1, Belief::Told).sinks["main"].refused_since_start;
        // One is of an earlier life, one of another journal, and one of a database that is not there.
        let of_others =
            [letter("main", 0, own), letter("main", end, JournalId(own.0 ^ 1)), letter("gone", end, own)];
        stats.count_discarded(&of_others.iter().collect::<Vec<_>>());
        assert_eq!(refused(), 3);
        let discarded = [letter("main", end, own), letter("main", end + 1, own)];
        stats.count_discarded(&discarded.iter().collect::<Vec<_>>());
        assert_eq!(refused(), 1);
        assert_eq!(stats.dead_letters_discarded(), Dropped { letters: 5, rows: 5 });
    }

    #[test]
    fn what_was_lost_before_the_start_is_in_the_ledger_and_no_finding() {
        let (journal, stats) = (journal(), Stats::new(0));
        lose(&journal, "main", (0, 2), Cause::Damaged);
        stats.set_lacks_before(&journal.with_state(State::clone));
        let status = Status::of(&journal, &stats, 1, Belief::Told);
        assert_eq!((status.ledger.lost(), whats(&status)), (2, Vec::new()));
        lose(&journal, "main", (2, 5), Cause::Damaged);
        let status = Status::of(&journal, &stats, 1, Belief::Told);
        assert_eq!(status.ledger.lost(), 5);
        assert_eq!(whats(&status), ["the database main lacks 3 rows lost since the start"]);
    }
}
