//! A database that takes a fraction of what devices send, for as long as the journal goes round many times.
//!
//! Each row stands for 10 ms of a site that sends 100 rows a second: a run is half an hour, with `FOREBAY_LONG=1` three
//! hours. Every policy is tried with `max_bytes` as the limit, and with a disk that is full before.

use super::room::{row, sized, until_delivered};
use super::*;
use crate::config::WhenFull;
use crate::journal::entry::DeviceEntry;
use crate::record::ValueRef;

const MAX_BYTES: u64 = 4 << 20;
const FOREIGN: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
const NATIVE: [&str; 2] = ["e6614104", "e6614105"];

/// Rows that devices have to send.
fn rows() -> u64 {
    let hours = if std::env::var("FOREBAY_LONG").is_ok_and(|long| long == "1") { 3.0 } else { 0.5 };
    (hours * 360_000.0) as u64
}

/// What a database has: the times of each device's rows, and the rows that gaps declare to be missing.
#[derive(Debug, Default)]
struct Kept {
    rows: BTreeMap<String, Vec<i64>>,
    gaps: BTreeMap<(String, i64), i64>,
}

/// Takes its time for each batch, and fails at one in a thousand.
struct Slow {
    kept: Arc<Mutex<Kept>>,
    writes: u64,
}

impl Sink for Slow {
    async fn write(&mut self, part: &Part<'_>) -> Outcome {
        self.writes += 1;
        if self.writes.is_multiple_of(1_000) {
            return retry();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        let mut kept = self.kept.lock().unwrap();
        for point in part.points() {
            if point.series.starts_with("forebay_gap,") {
                let count = point.fields().find(|(name, _)| *name == "count").unwrap().1;
                let ValueRef::Integer(count) = count else { panic!("{count:?}") };
                kept.gaps.insert((point.series.to_owned(), point.ns), count);
            } else {
                kept.rows.entry(point.series.to_owned()).or_default().push(point.ns);
            }
        }
        Outcome::Confirmed
    }
}

/// What became of the rows of one overload.
#[derive(Debug, Default)]
struct Fates {
    taken: u64,
    confirmed: u64,
    evicted: u64,
    /// Rows that native devices kept because the journal did not take them.
    held_back: u64,
    native_taken: u64,
}

/// Sends all rows; a native device keeps what is not taken, and so does everybody under `refuse`. Judges every device.
fn overload(when_full: WhenFull, disk_bytes: u64) -> Fates {
    let storage = MemoryStorage::with_capacity(disk_bytes);
    let journal = Journal::open(Arc::new(storage.clone()), &sized(MAX_BYTES, when_full)).unwrap().0;
    let kept = Arc::new(Mutex::new(Kept::default()));
    let running = Running::start(&journal, "main", Slow { kept: Arc::clone(&kept), writes: 0 });
    for device in NATIVE {
        let begun: Result<_, Refused> = journal.submit(Class::Native, |_, submission| {
            submission.add(&Entry::Device(DeviceEntry { device, name: device, boot: 7, first: 0 }))
        });
        begun.unwrap();
    }
    let mut fates = Fates::default();
    for n in 0..rows() {
        let of = n as usize % (FOREIGN.len() + NATIVE.len());
        let (class, device, boot) = match FOREIGN.get(of) {
            Some(device) => (Class::Foreign, *device, 0),
            None => (Class::Native, NATIVE[of - FOREIGN.len()], 7),
        };
        let waits =
            class == Class::Foreign && when_full != WhenFull::Refuse || when_full == WhenFull::DropOldest;
        let taken = send(&journal, class, device, boot, waits);
        fates.taken += u64::from(taken);
        fates.native_taken += u64::from(taken && class == Class::Native);
        fates.held_back += u64::from(!taken && class == Class::Native);
        if n % 5_000 == 0 {
            let bytes: usize = storage.files().values().map(Vec::len).sum();
            assert!(bytes as u64 <= MAX_BYTES, "{bytes} bytes");
        }
    }
    until_delivered(&journal, &["main"]);
    running.stop();
    judge(&journal, &kept.lock().unwrap(), &mut fates);
    fates
}

/// Submits a row. One that must be taken waits for the room that the oldest rows make, another for a moment only.
fn send(journal: &Journal, class: Class, device: &str, boot: u32, must: bool) -> bool {
    let began = Instant::now();
    loop {
        match row(journal, class, device, boot, &format!("m,device={device}")) {
            Ok(_) => return true,
            Err(Refused::Full) if !must => return false,
            Err(Refused::Full | Refused::Busy) => std::thread::sleep(Duration::from_micros(100)),
            Err(other) => panic!("{other}"),
        }
        assert!(began.elapsed() < PATIENCE, "{device} waits in vain");
    }
}

fn judge(journal: &Journal, kept: &Kept, fates: &mut Fates) {
    for device in FOREIGN.iter().chain(&NATIVE) {
        let [confirmed, damaged, evicted, owed] = fate(journal, device);
        let mut rows = kept.rows.get(&format!("m,device={device}")).cloned().unwrap_or_default();
        let written = rows.len();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!((damaged, owed), (0, 0), "{device}");
        assert_eq!((written as u64, rows.len()), (confirmed, written), "{device}: rows that are stored");
        let tag = format!(",device={device},");
        let declared: i64 =
            kept.gaps.iter().filter(|((series, _), _)| series.contains(&tag)).map(|(_, n)| n).sum();
        assert_eq!(declared as u64, evicted, "{device}: rows that are declared to the database");
        fates.confirmed += confirmed;
        fates.evicted += evicted;
    }
    assert_eq!(fates.taken, fates.confirmed + fates.evicted, "{fates:?}");
}

#[test]
fn hours_of_overload_leave_nothing_unaccounted_for_under_any_policy() {
    for disk_bytes in [u64::MAX, 3 << 20] {
        let refuse = overload(WhenFull::Refuse, disk_bytes);
        let drop_oldest = overload(WhenFull::DropOldest, disk_bytes);
        let auto = overload(WhenFull::Auto, disk_bytes);
        eprintln!("refuse: {refuse:?}\ndrop-oldest: {drop_oldest:?}\nauto: {auto:?}");
        assert_eq!(refuse.evicted, 0);
        assert!(refuse.held_back > 0);
        assert_eq!((drop_oldest.taken, drop_oldest.held_back), (rows(), 0));
        assert!(drop_oldest.evicted > rows() / 10);
        assert!(auto.evicted > rows() / 10);
        assert!(auto.held_back > auto.native_taken, "native devices are held back: {auto:?}");
    }
}
