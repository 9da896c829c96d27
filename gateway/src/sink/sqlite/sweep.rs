//! Keeps the file within its limits: deletes the oldest points in small steps, each part of a batch's transaction.
//!
//! A *sweep* deletes everything older than a fixed instant, series by series. One starts when points have outlived
//! the retention, or when the file nears its size; the latter takes the oldest sixty-fourth of the time that the file
//! spans, and the next one follows if that was not enough. A step deletes about twice as many points as the batch
//! brought, so that deletion keeps up with any intake and never stalls it. A series whose last point is gone goes too.
//! What is deleted is counted by device, for the audit.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::Limits;

/// Points that a step may delete beyond twice what its batch brought.
const STEP: usize = 256;
/// Deletion for size begins at 15/16 of the limit, so that the limit itself is not passed by a batch.
const HEADROOM: u64 = 16;
/// Free pages given back to the file system at a time, when the file is larger than its limit.
const PAGES_RETURNED: u32 = 256;
/// Counts what is deleted of a series, unless its points are no rows: by device, and of devices beyond a bound together.
const COUNT: &str = "INSERT INTO swept (device, points)
    SELECT CASE WHEN EXISTS (SELECT 1 FROM swept WHERE swept.device = coalesce(series.device, ''))
                  OR (SELECT count(*) FROM swept) < 20000
                THEN coalesce(series.device, '') ELSE '(others)' END, ?2
    FROM series WHERE id = ?1 AND measurement <> 'forebay_gap'
    ON CONFLICT (device) DO UPDATE SET points = points + excluded.points";
/// A retention sweep starts at most once in this many nanoseconds of the gateway's clock.
const RETENTION_PAUSE_NS: i64 = 10_000_000_000;

pub(super) struct Sweep {
    limits: Limits,
    running: Option<Running>,
    /// When the last retention sweep started.
    retention_ns: Option<i64>,
}

#[derive(Clone, Copy)]
struct Running {
    /// Points before this instant go.
    before_ns: i64,
    /// Series up to this id are done.
    after_series: i64,
}

impl Sweep {
    pub(super) fn new(limits: Limits) -> Sweep {
        Sweep { limits, running: None, retention_ns: None }
    }

    /// One step, in the transaction of a batch that brought `written` points; whether a series went.
    pub(super) fn advance(
        &mut self,
        transaction: &Transaction<'_>,
        now_ns: Option<i64>,
        written: usize,
    ) -> rusqlite::Result<bool> {
        // A step that is rolled back with its transaction is repeated by a later sweep.
        let mut budget = written.saturating_mul(2).saturating_add(STEP);
        let mut next = transaction.prepare("SELECT id FROM series WHERE id > ?1 ORDER BY id LIMIT 1")?;
        let mut last = transaction.prepare(
            "SELECT max(ns) FROM (SELECT ns FROM points WHERE series = ?1 AND ns < ?2 ORDER BY ns LIMIT ?3)",
        )?;
        let mut delete = transaction.prepare("DELETE FROM points WHERE series = ?1 AND ns <= ?2")?;
        let mut count = transaction.prepare(COUNT)?;
        let mut forget = transaction.prepare(
            "DELETE FROM series WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM points WHERE series = ?1)",
        )?;
        let mut forgotten = 0;
        while budget > 0 {
            if self.running.is_none() {
                self.running = self.due(transaction, now_ns)?;
            }
            let Some(running) = &mut self.running else { break };
            let series = next.query_row([running.after_series], |row| row.get(0)).optional()?;
            let Some(series): Option<i64> = series else {
                self.running = None;
                continue;
            };
            let limit = i64::try_from(budget).unwrap_or(i64::MAX);
            let last_ns: Option<i64> =
                last.query_row(params![series, running.before_ns, limit], |row| row.get(0))?;
            let deleted = match last_ns {
                Some(last_ns) => delete.execute(params![series, last_ns])?,
                None => 0,
            };
            if deleted > 0 {
                count.execute(params![series, i64::try_from(deleted).unwrap_or(i64::MAX)])?;
            }
            if deleted < budget {
                running.after_series = series;
                forgotten += forget.execute([series])?;
            }
            // Looking at a series costs something too, even where nothing is to be deleted.
            budget = budget.saturating_sub(deleted + 1);
        }
        Ok(forgotten > 0)
    }

    /// Gives pages that deletion has freed back to the file system while the file is beyond its limit.
    pub(super) fn shrink(&self, connection: &Connection) -> rusqlite::Result<()> {
        let pages = Pages::of(connection)?;
        if pages.free > 0 && pages.count * pages.bytes > self.limits.max_bytes {
            // Each row of the answer, though empty, stands for a page.
            let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES_RETURNED})"))?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(())
    }

    fn due(&mut self, connection: &Connection, now_ns: Option<i64>) -> rusqlite::Result<Option<Running>> {
        let pages = Pages::of(connection)?;
        let used = (pages.count - pages.free) * pages.bytes;
        if used > self.limits.max_bytes - self.limits.max_bytes / HEADROOM {
            let span = "SELECT min(first), max(last) FROM (SELECT
                (SELECT min(ns) FROM points WHERE series = id) AS first,
                (SELECT max(ns) FROM points WHERE series = id) AS last FROM series)";
            let (first, last): (Option<i64>, Option<i64>) =
                connection.query_row(span, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
            let slice = (i128::from(last) - i128::from(first)) / 64 + 1;
            let before_ns = i64::try_from(i128::from(first) + slice).unwrap_or(i64::MAX);
            return Ok(Some(Running { before_ns, after_series: 0 }));
        }
        let Some(now_ns) = now_ns else { return Ok(None) };
        if self
            .retention_ns
            .is_some_and(|last| (last..last.saturating_add(RETENTION_PAUSE_NS)).contains(&now_ns))
        {
            return Ok(None);
        }
        self.retention_ns = Some(now_ns);
        let retention_ns = i64::try_from(self.limits.retention.as_nanos()).unwrap_or(i64::MAX);
        Ok(Some(Running { before_ns: now_ns.saturating_sub(retention_ns), after_series: 0 }))
    }
}

/// Size of the file in pages.
struct Pages {
    count: u64,
    free: u64,
    bytes: u64,
}

impl Pages {
    fn of(connection: &Connection) -> rusqlite::Result<Pages> {
        let pragma = |name: &str| {
            connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).map(i64::cast_unsigned)
        };
        Ok(Pages {
            count: pragma("page_count")?,
            free: pragma("freelist_count")?,
            bytes: pragma("page_size")?,
        })
    }
}
