//! The judgement: for each boot, every number is a row as it was sampled, in one gap, in quarantine, or was aboard when
//! the device lost its memory.

use forebay_shared::block::Row;
use forebay_shared::ids::{LongSeq, Seq};
use forebay_shared::message::GapCause;

use super::gateway::{Gateway, Log, Stored};
use super::node::{Life, Node, Sample};
use super::report::{Report, Situation};

pub(crate) fn judge(node: &Node, mut gateway: Gateway, mut report: Report) -> Report {
    node.note_counters(&mut report);
    gateway.close();
    report.add(&gateway.report);
    report.plans += 1;
    for life in &node.lives {
        report.boots += u64::from(life.boot.is_some());
        report.sampled += life.samples.len() as u64;
        // What died after its welcome without another word cannot be told from the life that says hello next.
        let same = |other: &&Life| other.boot.is_some() && other.boot == life.boot && other.is_heard;
        let boots = node.lives.iter().filter(same);
        assert!(boots.count() <= 1, "boot {:?} was given to two lives", life.boot);
    }
    for ((card, boot), log) in gateway.logs() {
        let mut lives = node.lives.iter().rev().filter(|life| life.boot == Some(*boot));
        let Some(life) = lives.next() else {
            assert!(log.entries.is_empty(), "rows of boot {boot}, which no device had");
            continue;
        };
        let of_boot = gateway.logs().iter().filter(|((other, of), _)| of == boot && other < card);
        let elsewhere = of_boot.map(|(_, log)| offset(life, log.released())).max().unwrap_or_default();
        judge_boot(log, life, elsewhere, &mut report);
        let told = offset(life, log.told);
        assert!(told <= life.samples.len(), "told of row {told}, which was never sampled");
        let later = gateway.logs().iter().find(|((other, of), _)| of == boot && other > card);
        match later {
            // What a gateway with a later card begins with, an earlier one has, durable, for it was released.
            Some((_, later)) => assert!(offset(life, later.first) <= offset(life, log.released())),
            None => {
                let unheard: usize = lives.map(|life| life.samples.len()).sum();
                report.reset_rows += (unheard + life.samples.len() - offset(life, log.next())) as u64;
            }
        }
    }
    let last = node.life();
    // A gateway with an empty disk need not have heard of a device that has nothing left for it.
    let (_, log) = gateway.logs().iter().rfind(|((_, boot), _)| Some(*boot) == last.boot).unwrap();
    assert_eq!(offset(last, log.next()), last.samples.len(), "something is missing at the end");
    report
}

/// Rows before `elsewhere` are durable on an earlier disk.
fn judge_boot(log: &Log, life: &Life, elsewhere: usize, report: &mut Report) {
    let mut next = offset(life, log.first);
    for entry in &log.entries {
        assert_eq!(offset(life, entry.from), next, "rows, gaps and quarantine follow one another");
        let end = offset(life, entry.to);
        let samples = life.samples.get(next..end).expect("only what was sampled comes up");
        match &entry.stored {
            Stored::Rows(rows) => {
                judge_rows(rows, next, end, life, report);
            }
            Stored::Gap(GapCause::FORGOTTEN) => {
                assert!(end <= elsewhere, "the device let go of rows that nobody has");
            }
            Stored::Gap(cause) => {
                assert_eq!(*cause, GapCause::OVERFLOW, "nothing else takes rows here");
                assert!(samples.iter().all(|sample| sample.evicted), "a gap over rows that were not lost");
                report.gap_rows += samples.len() as u64;
            }
            Stored::Quarantined => {
                assert!(samples.iter().all(|sample| sample.spoilt), "a block in quarantine that was well");
                report.quarantined_rows += samples.len() as u64;
            }
        }
        next = end;
    }
}

fn judge_rows(rows: &[Row], mut next: usize, end: usize, life: &Life, report: &mut Report) {
    for row in rows {
        match row {
            Row::Sample(row) => {
                let (seq, sample) = (life.first.plus(next as u32), life.samples[next]);
                assert_eq!((row.seq, row.tick, row.group), (seq, sample.tick, sample.group));
                let sent =
                    (0..).zip(sample.values()).filter_map(|(at, value)| value.map(|value| (at, value)));
                assert!(row.values.iter().copied().eq(sent), "row {seq}: {row:?} is not {sample:?}");
                if seq == Seq(0) && next > 0 {
                    report.saw(Situation::SequenceWrapped);
                }
                next += 1;
                report.rows += 1;
            }
            Row::Lost { from, to, cause } => {
                let is_lost = |sample: &Sample| match *cause {
                    GapCause::OVERFLOW => sample.evicted,
                    // Rows that a full ring then refuses join those whose gap it has no room to say.
                    GapCause::RESET => sample.reset || sample.evicted,
                    other => panic!("nothing takes rows here by {}", other.name()),
                };
                // The front of it may have come up before.
                let (from, to) = (life.at(*from), life.at(*to));
                assert!(from <= next && next < to, "rows of a gap follow what comes before");
                assert!(
                    life.samples[next..to].iter().all(is_lost),
                    "a row that was not lost by {}",
                    cause.name()
                );
                report.gap_rows += (to - next) as u64;
                report.saw(Situation::RowsRefused);
                next = to;
            }
        }
    }
    assert_eq!(next, end, "a block has all rows that it counts");
}

/// How far into a device's life a row is.
fn offset(life: &Life, seq: LongSeq) -> usize {
    life.at(seq.to_wire())
}
