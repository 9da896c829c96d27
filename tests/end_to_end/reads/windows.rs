//! Downsampling is what one would compute from the points, wherever these are.

use std::collections::BTreeMap;

use forebay_gateway::query::Answer;
use forebay_tests::services::InfluxDb;

use super::site::{MEASUREMENT, Site};
use crate::world::Scratch;

/// Names that end every kind of text, if they are let.
const DEVICES: [&str; 3] = ["plain", "x'; DROP SERIES FROM reads; --", r#"a"b\c, d=e"#];

/// By device and window: least, greatest, sum and number of the values of `t`, and of `n`.
type Windows = BTreeMap<(String, i64), [f64; 2]>;

fn computed(raw: &Answer, every_ns: i64, aggregate: &str) -> Windows {
    let mut values: BTreeMap<(String, i64), [Vec<f64>; 2]> = BTreeMap::new();
    for point in &raw.points {
        let window =
            values.entry((point.tags["device"].clone(), point.ns - point.ns % every_ns)).or_default();
        for (values, field) in window.iter_mut().zip(["n", "t"]) {
            values.extend(point.fields[field].as_f64());
        }
    }
    let together = |values: Vec<f64>| match aggregate {
        "min" => values.into_iter().fold(f64::INFINITY, f64::min),
        "max" => values.into_iter().fold(f64::NEG_INFINITY, f64::max),
        // They are quarters, so the sum is exact.
        _ => values.iter().sum::<f64>() / values.len() as f64,
    };
    values.into_iter().map(|(at, [n, t])| (at, [together(n), together(t)])).collect()
}

fn shown(answer: &Answer) -> Windows {
    let window = |point: &forebay_gateway::query::Point| {
        assert!(!point.fields.contains_key("word"), "text in a window: {point:?}");
        let value = |field: &str| point.fields[field].as_f64().unwrap_or(f64::NAN);
        ((point.tags["device"].clone(), point.ns), [value("n"), value("t")])
    };
    let windows: Windows = answer.points.iter().map(window).collect();
    assert_eq!(windows.len(), answer.points.len(), "a window is there twice");
    windows
}

/// All pages of windows.
fn ask_windows(
    site: &Site,
    (every, aggregate): (&str, &str),
    limit: &str,
    to: &str,
) -> anyhow::Result<Answer> {
    let mut from = site.since_ns.to_string();
    let mut whole: Option<Answer> = None;
    loop {
        let page = site.ask(&[
            ("from", &from),
            ("to", to),
            ("measurement", MEASUREMENT),
            ("every", every),
            ("aggregate", aggregate),
            ("limit", limit),
        ])?;
        anyhow::ensure!(page.complete, "{:?}", page.reasons);
        let next = page.next.clone();
        match &mut whole {
            None => whole = Some(page),
            Some(whole) => whole.points.extend(page.points),
        }
        match (next, whole) {
            (Some(next), known) => (from, whole) = (next, known),
            (None, Some(whole)) => return Ok(whole),
            (None, None) => anyhow::bail!("no page"),
        }
    }
}

fn compare(site: &mut Site) -> anyhow::Result<()> {
    let raw = site.ask_all(&[("measurement", MEASUREMENT)], 1_000)?;
    assert!(raw.complete, "{:?}", raw.reasons);
    assert_eq!(super::site::points(&raw)?, site.acked);
    // The points are of some seconds, and hours without any follow, in windows of a millisecond.
    let to = (site.since_ns + 4 * 3_600_000_000_000).to_string();
    for (every, every_ns) in [("1ms", 1_000_000), ("50ms", 50_000_000), ("1h", 3_600_000_000_000)] {
        for aggregate in ["mean", "min", "max"] {
            for limit in ["100", "10000"] {
                let answer = ask_windows(site, (every, aggregate), limit, &to)?;
                assert_eq!(shown(&answer), computed(&raw, every_ns, aggregate), "{aggregate} every {every}");
            }
        }
    }
    for device in DEVICES {
        let of_device = site.ask_all(&[("device", device)], 1_000)?;
        assert!(of_device.complete, "{device}: {:?}", of_device.reasons);
        let wanted = raw.points.iter().filter(|point| point.tags["device"] == device).count();
        assert_eq!(of_device.points.len(), wanted, "{device}");
        assert!(of_device.points.iter().all(|point| point.tags["device"] == device));
    }
    Ok(())
}

fn write(site: &mut Site, count: i64) -> anyhow::Result<()> {
    let first = site.acked.len() as i64;
    let readings = (first..first + count).map(|number| {
        let device = DEVICES[usize::try_from(number % 3).unwrap_or(0)];
        site.let_pass(3_000_000);
        site.reading(device, (number * 37) % 101 - 50)
    });
    let readings = readings.collect();
    site.write(readings)
}

#[test]
fn windows_of_influxdb_and_the_journal_are_what_the_points_are() -> anyhow::Result<()> {
    let scratch = Scratch::new("windows-influxdb")?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    // A batch leaves when it is full, so the database has the first 1,200 and lacks the others for good.
    let tables = format!(
        "[[influxdb]]\nname = \"main\"\nurl = \"{}\"\nversion = 1\ndatabase = \"{}\"\n\
         batch_size = 400\nflush_interval = \"1h\"\n",
        server.url(),
        InfluxDb::DATABASE
    );
    let mut site = Site::start("windows-influxdb", scratch, &tables)?;
    write(&mut site, 1_500)?;
    forebay_tests::clock::wait_for("three batches", super::site::ACK_LIMIT, || {
        match site.gateway.backlog() {
            Ok((300, 1_200)) => Ok(()),
            backlog => Err(format!("{backlog:?}")),
        }
    })?;
    compare(&mut site)?;
    // A gateway that has just started knows less of what is where, and answers the same.
    site.kill()?;
    compare(&mut site)?;
    // What lies within the grace is read from the journal. Behind it, the database brings together what it has.
    forebay_tests::clock::wait_for("the end of the grace", super::site::ACK_LIMIT, || {
        let answer = site.ask_all(&[], 10_000).map_err(|error| error.to_string())?;
        if answer.dirty == 300 { Ok(()) } else { Err(format!("{} points of the journal", answer.dirty)) }
    })?;
    compare(&mut site)?;
    site.scratch.passed();
    Ok(())
}

#[test]
fn windows_of_sqlite_and_the_journal_are_what_the_points_are() -> anyhow::Result<()> {
    let mut site = Site::start("windows-sqlite", Scratch::new("windows-sqlite")?, "")?;
    for _ in 0..3 {
        write(&mut site, 400)?;
        compare(&mut site)?;
    }
    site.gateway.close(super::site::ACK_LIMIT)?;
    site.scratch.passed();
    Ok(())
}
