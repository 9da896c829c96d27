//! What a sink gets, where it begins, and whether intake waits for it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::room::{good, row, sized, until_delivered};
use super::*;
use crate::config::{self, Filter, Start, WhenFull};
use crate::journal::entry::DeviceEntry;
use crate::stats::Boots;

fn filter(text: &str) -> Filter {
    let text = format!("[[influxdb]]\nurl = \"http://a\"\ndatabase = \"d\"\nmatch = {text}\n");
    config::of_text(&text).influxdb[0].service.filter.clone()
}

fn start(journal: &Journal, name: &str, sink: impl Sink + Send + 'static, service: Service) -> Running {
    let letters = MemoryStorage::new();
    let settings = Settings { service, ..settings(name, 100, &letters) };
    let (stop, stopped) = watch::channel(false);
    let status = Arc::new(SinkStatus::default());
    let thread = spawn(journal.clone(), sink, settings, Arc::clone(&status), stopped).unwrap();
    Running { thread, stop, status, letters }
}

/// Learned, confirmed and owed rows of a device in a sink.
fn account(journal: &Journal, device: &str, sink: &str) -> [u64; 3] {
    journal.with_state(|state| {
        let device = state.device(device).unwrap();
        let (_, ledger) = state.ledgers(device).find(|(name, _)| *name == sink).unwrap();
        let shown = crate::stats::Ledger::of(device, ledger, None, 0);
        assert!(shown.balances(), "{shown:?}");
        [shown.learned, shown.confirmed, shown.backlog()]
    })
}

#[test]
fn the_embedded_store_lacks_nothing_for_rows_that_it_does_not_want() {
    let journal = journal();
    let directory = tempfile::tempdir().unwrap();
    let sqlite = || {
        let limits = Limits { retention: Duration::from_secs(1), max_bytes: 1 << 30 };
        let path = directory.path().join("readings.sqlite");
        Sqlite::new(path, "this journal".to_owned(), limits, Box::new(|| None))
    };
    let service = Service { filter: filter("{ device = [\"a\"] }"), ..Service::default() };
    submit(&journal, "a", 0..10);
    submit(&journal, "b", 0..300);
    start(&journal, "sqlite", sqlite(), service.clone()).stop();
    assert_eq!(account(&journal, "a", "sqlite"), [10, 10, 0]);
    submit(&journal, "a", 10..20);
    let status = start(&journal, "sqlite", sqlite(), service).stop();
    assert_eq!(account(&journal, "a", "sqlite"), [20, 20, 0]);
    assert_eq!(status.snapshot().last_error, None, "its own cursor is behind, and nothing is sent again");
}

#[test]
fn a_sink_gets_what_it_wants_and_its_ledger_tells_of_nothing_else() {
    let storage = MemoryStorage::new();
    let journal = journal_in(&storage);
    let (all, some) = (good(), good());
    let (of_all, of_some) = (Arc::clone(&all.points), Arc::clone(&some.points));
    let service = Service { filter: filter("{ device = [\"a*\"] }"), ..Service::default() };
    let everything = start(&journal, "all", all, Service::default());
    let part = start(&journal, "some", some, service.clone());
    for device in ["a1", "b", "a2"] {
        submit(&journal, device, 0..150);
    }
    until_delivered(&journal, &["all", "some"]);
    assert_eq!(of_all.lock().unwrap().len(), 450);
    let got = of_some.lock().unwrap().clone();
    let expected = ["a1", "a2"].iter().flat_map(|d| (0..150).map(move |ns| (format!("m,device={d}"), ns)));
    assert_eq!(got, expected.collect::<Vec<_>>());
    for device in ["a1", "a2"] {
        assert_eq!(account(&journal, device, "some"), [150, 150, 0]);
    }
    assert_eq!(account(&journal, "b", "some"), [0, 0, 0], "none of its business");
    assert_eq!(account(&journal, "b", "all"), [150, 150, 0]);
    // Rows that nobody wants do not wait for company either.
    submit(&journal, "b", 150..160);
    until_delivered(&journal, &["all", "some"]);
    everything.stop();
    part.stop();
    // The next life counts nothing anew.
    journal.close();
    drop(journal);
    let journal = journal_in(&storage);
    assert_eq!((account(&journal, "b", "some"), account(&journal, "a1", "some")), ([0, 0, 0], [150, 150, 0]));
    submit(&journal, "b", 160..170);
    let part = start(&journal, "some", good(), service);
    until_delivered(&journal, &["some"]);
    assert_eq!(account(&journal, "b", "some"), [0, 0, 0]);
    part.stop();
}

#[test]
fn what_a_sink_refuses_among_what_it_does_not_want_is_found() {
    let journal = journal();
    let script = |points: &[(String, i64)]| {
        assert!(points.iter().all(|(series, _)| !series.contains("device=b")), "{points:?}");
        match points.iter().any(|(series, ns)| series.starts_with('m') && ns % 50 == 7) {
            true => Outcome::Rejected { reason: "400: unable to parse".into() },
            false => Outcome::Confirmed,
        }
    };
    for ns in 0..60 {
        submit(&journal, "b", 2 * ns..2 * ns + 2);
        submit(&journal, "a", ns..ns + 1);
    }
    let service = Service { filter: filter("{ device = [\"a\"] }"), ..Service::default() };
    let running = start(&journal, "main", Store { points: Points::default(), script }, service);
    until_delivered(&journal, &["main"]);
    assert_eq!(ledger(&journal, "a", "main"), (58, 2));
    assert_eq!(account(&journal, "b", "main"), [0, 0, 0]);
    running.stop();
}

#[test]
fn a_sink_that_begins_now_gets_nothing_of_before_and_one_that_begins_with_the_oldest_does() {
    let journal = journal();
    let first = start(&journal, "first", Silence, Service::default());
    submit(&journal, "d", 0..100);
    let (now, oldest) = (good(), good());
    let (of_now, of_oldest) = (Arc::clone(&now.points), Arc::clone(&oldest.points));
    let service = Service { start: Start::Now, ..Service::default() };
    let second = start(&journal, "second", now, service.clone());
    let third = start(&journal, "third", oldest, Service::default());
    submit(&journal, "d", 100..130);
    until_delivered(&journal, &["second", "third"]);
    let times: Vec<i64> = of_now.lock().unwrap().iter().map(|(_, ns)| *ns).collect();
    assert_eq!(times, (100..130).collect::<Vec<_>>());
    assert_eq!(of_oldest.lock().unwrap().len(), 130);
    assert_eq!(account(&journal, "d", "second"), [30, 30, 0]);
    assert_eq!(account(&journal, "d", "third"), [130, 130, 0]);
    assert_eq!(account(&journal, "d", "first"), [130, 0, 130], "a dead sink delays no other");
    second.stop();
    // It is new only once.
    submit(&journal, "d", 130..140);
    let again = good();
    let points = Arc::clone(&again.points);
    let second = start(&journal, "second", again, service);
    until_delivered(&journal, &["second"]);
    assert_eq!(points.lock().unwrap().len(), 10);
    for running in [first, second, third] {
        running.stop();
    }
}

#[test]
fn a_sink_that_is_not_required_skips_ahead_with_a_gap_instead_of_stopping_intake() {
    for when_full in [WhenFull::Refuse, WhenFull::Auto] {
        let journal = Journal::open(Arc::new(MemoryStorage::new()), &sized(2 << 20, when_full)).unwrap().0;
        let is_down = Arc::new(AtomicBool::new(true));
        let down = Arc::clone(&is_down);
        let script = move |_: &[(String, i64)]| match down.load(Ordering::Relaxed) {
            true => retry(),
            false => Outcome::Confirmed,
        };
        let required = start(&journal, "required", good(), Service::default());
        let optional = Store { points: Points::default(), script };
        let points = Arc::clone(&optional.points);
        let optional =
            start(&journal, "optional", optional, Service { required: false, ..Service::default() });
        // Several times what the journal has room for.
        let (mut taken, began) = (0_u64, Instant::now());
        while taken < 60_000 {
            match row(&journal, Class::Native, "d", 0, "m,device=d") {
                Ok(_) => taken += 1,
                Err(Refused::Busy | Refused::Full) => std::thread::sleep(Duration::from_millis(1)),
                Err(other) => panic!("{other}"),
            }
            assert!(began.elapsed() < Duration::from_secs(60), "intake stands still: {:?}", journal.usage());
        }
        is_down.store(false, Ordering::Relaxed);
        until_delivered(&journal, &["required", "optional"]);
        assert_eq!(account(&journal, "d", "required"), [taken, taken, 0], "who is required loses nothing");
        let (confirmed, evicted) = journal.with_state(|state| {
            let device = state.device("d").unwrap();
            let (_, ledger) = state.ledgers(device).find(|(name, _)| *name == "optional").unwrap();
            (ledger.confirmed, ledger.gaps.of(Cause::Evicted))
        });
        assert!(evicted > 10_000 && confirmed + evicted == taken, "{confirmed} and {evicted} of {taken}");
        required.stop();
        optional.stop();
        let told =
            points.lock().unwrap().iter().filter(|(series, _)| series.starts_with("forebay_gap,")).count();
        assert!(told > 0, "the gap reaches the database that has it");
    }
}

#[test]
fn a_sink_that_is_required_still_stops_intake() {
    let journal = Journal::open(Arc::new(MemoryStorage::new()), &sized(2 << 20, WhenFull::Refuse)).unwrap().0;
    let required = start(&journal, "required", Silence, Service::default());
    let optional = start(&journal, "optional", Silence, Service { required: false, ..Service::default() });
    let began = Instant::now();
    let mut refused = 0;
    while refused < 200 {
        match row(&journal, Class::Native, "d", 0, "m,device=d") {
            Ok(_) => {}
            Err(Refused::Busy) => std::thread::yield_now(),
            Err(Refused::Full) => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(other) => panic!("{other}"),
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it is never full");
    }
    let [_, _, evicted, _] = fate_of(&journal, "optional");
    assert_eq!(evicted, 0, "skipping ahead would make no room while the other one holds it");
    required.stop();
    optional.stop();
}

fn fate_of(journal: &Journal, sink: &str) -> [u64; 4] {
    journal.with_state(|state| {
        let device = state.device("d").unwrap();
        let (_, ledger) = state.ledgers(device).find(|(name, _)| *name == sink).unwrap();
        let lost = |cause| ledger.gaps.of(cause);
        [ledger.confirmed, lost(Cause::Damaged), lost(Cause::Evicted), device.rows - ledger.settled()]
    })
}

#[test]
fn the_pace_is_kept() {
    /// Takes 1,000 bytes a request.
    struct Paced(u64);
    impl Sink for Paced {
        async fn write(&mut self, _: &Part<'_>) -> Outcome {
            self.0 += 1_000;
            Outcome::Confirmed
        }

        fn sent_bytes(&self) -> u64 {
            self.0
        }
    }
    let journal = journal();
    submit(&journal, "d", 0..1_000);
    let service = Service { bytes_per_second_max: Some(10_000), ..Service::default() };
    let began = Instant::now();
    let running = start(&journal, "main", Paced(0), service);
    until_delivered(&journal, &["main"]);
    // Ten requests, the first of which waits for nobody.
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    let status = running.stop().snapshot();
    assert_eq!((status.requests, status.sent_bytes), (10, 10_000));
}

/// Begins a boot of a native device, and submits so many rows of it, every other one of another measurement.
fn submit_boot(journal: &Journal, device: &str, boot: u32, rows: u64) {
    let fields = [("v".to_owned(), Value::Integer(1))];
    let submitted: Result<((), Offset), Refused> = journal.submit(Class::Native, |_, submission| {
        submission.add(&Entry::Device(DeviceEntry { device, name: device, boot, first: 0 }))?;
        for sequence in 0..rows {
            let series = ["m,device=a", "n,device=a"][sequence as usize % 2];
            let (stamped, ns, fields) =
                (false, i64::from(boot) * 10_000 + sequence as i64, Fields::of(&fields));
            submission.add(&Entry::Row(RowEntry { device, boot, sequence, stamped, series, ns, fields }))?;
        }
        Ok(())
    });
    let (_, end) = submitted.unwrap();
    until(|| *journal.watermark().borrow() >= end);
}

#[test]
fn the_ledger_by_boot_is_exact_where_rows_of_several_boots_in_one_batch_are_not_wanted() {
    let (journal, letters) = (journal(), MemoryStorage::new());
    submit_boot(&journal, "a", 7, 1_000);
    submit_boot(&journal, "a", 8, 1_000);
    submit_boot(&journal, "a", 9, 50);
    let writes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&writes);
    let script = move |points: &[(String, i64)]| {
        let mut seen = seen.lock().unwrap();
        seen.push(points.len());
        // What is behind the first batch is not stored.
        if seen.len() == 1 { Outcome::Confirmed } else { retry() }
    };
    let store = Store { points: Points::default(), script };
    let service = Service { filter: filter("{ measurement = [\"m\"] }"), ..Service::default() };
    let settings = Settings { service, ..settings("main", 1_600, &letters) };
    let (stop, stopped) = watch::channel(false);
    let thread = spawn(journal.clone(), store, settings, Arc::default(), stopped).unwrap();
    until(|| journal.with_state(|state| state.ledgers(&state.devices()[0]).any(|(_, l)| l.confirmed > 0)));
    stop.send(true).unwrap();
    thread.join().unwrap();
    assert_eq!(writes.lock().unwrap()[0], 800, "of both boots");
    let boots = journal.with_state(|state| Boots::of(state, state.device("a").unwrap(), None, |_| 0));
    let of = boots.boots.iter().map(|boot| (boot.boot, &boot.sinks["main"]));
    let of: Vec<_> = of.map(|(boot, ledger)| (boot, ledger.confirmed, ledger.backlog())).collect();
    assert_eq!(of, [(7, 500, 0), (8, 300, 400), (9, 0, 50)]);
}
