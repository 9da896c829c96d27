//! Delivery of a journal of which the medium has lost something.

use super::*;

/// A journal with 200 rows of each of two devices, each a frame of its own, of which some are damaged.
fn damaged_journal(damaged: &[usize]) -> Journal {
    let storage = MemoryStorage::new();
    let journal = journal_in(&storage);
    journal.register_sink("main").unwrap();
    for round in 0..20 {
        submit_numbered(&journal, "a", 7, round * 10..round * 10 + 10);
        submit_numbered(&journal, "b", 0, round * 10..round * 10 + 10);
    }
    journal.close();
    drop(journal);
    let name = "00000000000000000001.seg";
    let mut bytes = storage.files().remove(name).unwrap();
    let frames: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"\xfbFBj")).collect();
    // Before them are the snapshot and the sink, which may share its frame with the first row.
    let frames = &frames[frames.len() - 400..];
    for frame in damaged {
        bytes[frames[*frame] + 60] ^= 1;
    }
    storage.put(name, bytes);
    journal_in(&storage)
}

#[test]
fn many_holes_are_declared_together_and_passed_one_by_one() {
    let damaged: Vec<usize> = (5..385).step_by(19).collect();
    let journal = damaged_journal(&damaged);
    let points = Points::default();
    let store = Store { points: Arc::clone(&points), script: |_: &[(String, i64)]| Outcome::Confirmed };
    let running = Running::start(&journal, "main", store);
    until(|| fate(&journal, "a")[3] + fate(&journal, "b")[3] == 0);
    let (a, b) = (fate(&journal, "a"), fate(&journal, "b"));
    assert_eq!((a[0] + b[0], a[1] + b[1]), (400 - damaged.len() as u64, damaged.len() as u64));
    assert_eq!(running.letters().len(), damaged.len());
    running.stop();
    let entries = entries(&journal);
    let is_damage = |entry: &String| entry.starts_with("gap damaged");
    let first = entries.iter().position(is_damage).unwrap();
    let together = entries[first..].iter().take_while(|entry| is_damage(entry)).count();
    assert!(together > 2 && entries[first + together].starts_with("skip"), "{entries:?}");
    assert_eq!(entries.iter().filter(|entry| is_damage(entry)).count(), together, "{entries:?}");
    assert_eq!(entries.iter().filter(|entry| entry.starts_with("skip")).count(), damaged.len());
}

#[test]
fn what_the_journal_lost_is_a_gap_of_the_devices_that_it_hit() {
    // Two frames in the middle and one at the end.
    let journal = damaged_journal(&[100, 101, 399]);
    let points = Points::default();
    let store = Store { points: Arc::clone(&points), script: |_: &[(String, i64)]| Outcome::Confirmed };
    let running = Running::start(&journal, "main", store);
    submit_numbered(&journal, "a", 7, 200..201);
    until(|| fate(&journal, "a")[3] == 0);
    until(|| {
        points.lock().unwrap().iter().filter(|(series, _)| series.starts_with("forebay_gap")).count() == 2
    });
    assert_eq!(fate(&journal, "a"), [199, 2, 0, 0]);
    assert_eq!(fate(&journal, "b"), [199, 0, 0, 0], "the last row of b went with every sign of whose it was");
    assert_eq!(fate(&journal, "(unknown)"), [0, 1, 0, 0]);
    let letters = running.letters();
    assert_eq!(letters.iter().map(|(offset, ..)| *offset).collect::<Vec<_>>(), [101, 400], "{letters:?}");
    assert!(letters.iter().all(|(_, reason, body)| reason.contains("damaged") && body.contains("m,device=")));
    running.stop();
}

/// Submits rows of a native device, or of a foreign one if the boot is 0, each as a commit of its own.
fn submit_numbered(journal: &Journal, device: &str, boot: u32, numbers: std::ops::Range<u64>) {
    let fields = [("v".to_owned(), Value::Integer(1))];
    let series = format!("m,device={device}");
    for sequence in numbers {
        let ns = i64::try_from(sequence).unwrap();
        let (stamped, series, fields) = (false, series.as_str(), Fields::of(&fields));
        let entry = Entry::Row(RowEntry { device, boot, sequence, stamped, series, ns, fields });
        let submitted: Result<((), Offset), Refused> =
            journal.submit(Class::Foreign, |_, submission| submission.add(&entry));
        let end = submitted.unwrap().1;
        until(|| *journal.watermark().borrow() >= end);
    }
}
