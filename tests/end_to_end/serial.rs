//! Serial ports: found, claimed, shared and given back; lines of text; ports that vanish, move, babble or are another's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::device::{Fleet, RING_BYTES, SerialDevice};
use forebay_tests::gateway::{Gateway, Program, Settings, round_trip_tolerance};
use forebay_tests::ledger::{Ledger, judge};
use forebay_tests::process::as_f64;
use forebay_tests::pty::Line;
use forebay_tests::readback::sqlite;
use forebay_tests::seed::Rng;
use forebay_tests::usb::UsbPorts;
use serde_json::Value;

use crate::world::{DRAIN_LIMIT, Scratch, program};

const LIMIT: Duration = Duration::from_secs(60);

/// How a simulated Pico names itself by USB, and how it is configured.
const PICO: (&str, &str) = ("2e8a", "000a");

/// A gateway with the embedded store and nothing but serial ports.
fn start(scratch: &Scratch, program: Program, tables: &str) -> anyhow::Result<Gateway> {
    let settings = Settings { mqtt: None, ports: Vec::new(), tables: tables.to_owned() };
    Gateway::start(program, &scratch.path().join("gateway"), &settings)
}

/// Waits until the status of the source `name` `is_wanted`.
fn await_source(
    gateway: &Gateway,
    name: &str,
    what: &str,
    is_wanted: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    wait_for(what, LIMIT, || {
        let status = gateway.status().map_err(|error| format!("{error:#}"))?;
        let source = status["sources"][name].clone();
        if is_wanted(&source) { Ok(source) } else { Err(source.to_string()) }
    })
}

fn is_connected(source: &Value) -> bool {
    source["state"] == "connected"
}

fn says(source: &Value, words: &[&str]) -> bool {
    let error = source["last_error"].as_str().unwrap_or_default();
    words.iter().all(|word| error.contains(word))
}

/// Ends fleet and gateway, and holds what the devices know against what is stored.
fn finish(fleet: Fleet, gateway: Gateway) -> anyhow::Result<Ledger> {
    finish_within(fleet, gateway, 0)
}

/// The same, where times may be off by so much more.
fn finish_within(fleet: Fleet, mut gateway: Gateway, more_ns: i64) -> anyhow::Result<Ledger> {
    fleet.drain(None, DRAIN_LIMIT)?;
    gateway.close(DRAIN_LIMIT)?;
    let truths = fleet.end()?;
    let stored = sqlite::read(&gateway.sqlite_file())?;
    let log = gateway.log_text()?;
    anyhow::ensure!(!log.contains("panicked"), "the gateway panicked");
    let tolerance = round_trip_tolerance(&log);
    let tolerance_ns = |device: &str| tolerance(device) + more_ns;
    let ledger = judge(truths.iter().map(AsRef::as_ref), &stored, &tolerance_ns);
    eprintln!("{}", ledger.abridged());
    Ok(ledger)
}

fn assert_nothing_lost(ledger: &Ledger) {
    let total = &ledger.total;
    assert_eq!((total.lost, total.duplicates, total.gaps), (0, 0, 0), "{total:?}");
    assert!(total.complete(), "{total:?}");
}

/// The rows of a measurement in the embedded store: time, device and fields.
fn points(gateway: &Gateway, measurement: &str) -> anyhow::Result<Vec<(i64, String, Value)>> {
    let store = rusqlite::Connection::open(gateway.sqlite_file())?;
    let mut statement = store.prepare(
        "SELECT p.ns, coalesce(s.device, ''), p.fields FROM points p JOIN series s ON s.id = p.series \
         WHERE s.measurement = ? ORDER BY p.ns",
    )?;
    let rows = statement.query_map([measurement], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    rows.map(|row| {
        let (ns, device, fields) = row?;
        Ok((ns, device, serde_json::from_str(&fields)?))
    })
    .collect()
}

#[test]
fn text_of_every_format_is_stored_and_bad_lines_harm_nobody() -> anyhow::Result<()> {
    let scratch = Scratch::new("serial-text")?;
    let path = |name: &str| scratch.path().join(name);
    let (json, lines, csv) = (path("json"), path("lines"), path("csv"));
    let plugged = [Line::plug_in(&json)?, Line::plug_in(&lines)?, Line::plug_in(&csv)?];
    let tables = format!(
        "[[serial]]\nport = {json:?}\nformat = \"json\"\ndevice = \"$.id\"\nmeasurement = \"js\"\n\
         timestamp = \"$.time\"\ntimestamp_format = \"ms\"\n\
         [[serial]]\nport = {lines:?}\nformat = \"line-protocol\"\ndevice = \"line\"\ntimestamp_format = \"s\"\n\
         [[serial]]\nport = {csv:?}\nformat = \"csv\"\ndevice = \"table\"\nmeasurement = \"cs\"\n\
         timestamp = \"$.at\"\ntimestamp_format = \"s\"\ninteger_fields = [\"n\"]\n"
    );
    // The ends of lines that began before anybody listened: two that could be mistaken for readings, and one that is whole.
    let seconds = wall_ns() / 1_000_000_000;
    let first = format!("{{\"id\":\"first\",\"time\":{},\"t\":0}}\n", seconds * 1000);
    plugged[0].write_all(first.as_bytes(), LIMIT)?;
    plugged[1].write_all(format!("w t=1.5 {seconds}\n").as_bytes(), LIMIT)?;
    plugged[2].write_all(b"7,1.5\n", LIMIT)?;
    let gateway = start(&scratch, program(), &tables)?;
    for (name, line) in [(&json, 1), (&lines, 1), (&csv, 1)] {
        await_source(&gateway, &name.to_string_lossy(), "the reading of what came first", |source| {
            source["messages"] == line
        })?;
    }
    let too_long = vec![b'x'; 100_000];
    for n in 1..=50_i64 {
        let at = seconds + n;
        let json = format!("{{\"id\":\"js\",\"time\":{at}000,\"t\":{n}.5}}\r\n");
        plugged[0].write_all(json.as_bytes(), LIMIT)?;
        plugged[1].write_all(format!("w,unit=c t={n} {at}\n").as_bytes(), LIMIT)?;
        let header = if n == 1 { "at,n,t\n" } else { "" };
        plugged[2].write_all(format!("{header}{at},{n},{n}.25\n").as_bytes(), LIMIT)?;
        if n == 25 {
            for line in &plugged {
                line.write_all(b"\xff\xfe{\n", LIMIT)?;
                line.write_all(&too_long, LIMIT)?;
                line.write_all(b"\nbroken \"\n", LIMIT)?;
            }
        }
    }
    for (name, bad) in [(&json, 3), (&lines, 4), (&csv, 4)] {
        let source = await_source(&gateway, &name.to_string_lossy(), "the reading of all lines", |source| {
            source["rows_received"].as_u64() >= Some(50) && source["bad_messages"] == bad
        })?;
        assert_eq!(source["unprotected"], true, "{source}");
    }
    gateway.drain(DRAIN_LIMIT)?;
    assert_eq!(gateway.status()?["ledger"]["dead_lettered"], 11);
    let last_ns = (seconds + 50) * 1_000_000_000;
    let stored = points(&gateway, "js")?;
    assert_eq!(stored.len(), 51, "the whole line before all others stands: {stored:?}");
    assert_eq!(stored[0].1, "first");
    assert_eq!(stored[50], (last_ns, "js".to_owned(), serde_json::json!({"t": 50.5})));
    let stored = points(&gateway, "w")?;
    assert_eq!(stored.len(), 50);
    assert_eq!(stored[49], (last_ns, "line".to_owned(), serde_json::json!({"t": 50.0})));
    let stored = points(&gateway, "cs")?;
    assert_eq!(stored.len(), 50);
    assert_eq!(stored[49], (last_ns, "table".to_owned(), serde_json::json!({"n": 50, "t": 50.25})));
    plugged.into_iter().for_each(Line::unplug);
    scratch.passed();
    Ok(())
}

#[test]
fn a_port_that_is_swapped_under_its_link_again_and_again_loses_nothing() -> anyhow::Result<()> {
    let mut rng = Rng::announced("swapped ports")?;
    let scratch = Scratch::new("serial-swap")?;
    let mut fleet = Fleet::new();
    fleet.add_serial::<RING_BYTES>(&scratch.path().join("dev"), 2, Duration::from_millis(5))?;
    let ports: Vec<PathBuf> = fleet.ports().map(Path::to_owned).collect();
    let settings = Settings { mqtt: None, ports, tables: String::new() };
    let gateway = Gateway::start(program(), &scratch.path().join("gateway"), &settings)?;
    let mut longest = Duration::ZERO;
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(rng.in_range(100..700)));
        for index in 0..2 {
            fleet.serial(index).into_iter().for_each(SerialDevice::unplug);
        }
        // Bytes of that moment are on the line.
        std::thread::sleep(Duration::from_millis(rng.in_range(50..300)));
        let acked = fleet.progress().1;
        for index in 0..2 {
            fleet.serial(index).into_iter().for_each(SerialDevice::plug_in);
        }
        let plugged_in = Instant::now();
        wait_for("the acknowledgement of further rows", LIMIT, || {
            let now = fleet.progress().1;
            if now > acked { Ok(()) } else { Err(format!("{now} of {acked}")) }
        })?;
        longest = longest.max(plugged_in.elapsed());
    }
    eprintln!("rows flowed again at most {} ms after a device was plugged in", longest.as_millis());
    assert_nothing_lost(&finish(fleet, gateway)?);
    scratch.passed();
    Ok(())
}

#[test]
fn a_link_that_leads_to_another_port_is_followed_although_the_first_one_is_still_there() -> anyhow::Result<()>
{
    let scratch = Scratch::new("serial-follow")?;
    let link = scratch.path().join("port");
    let first = Line::plug_in(&link)?;
    let tables =
        format!("[[serial]]\nport = {link:?}\nformat = \"json\"\ndevice = \"d\"\nmeasurement = \"m\"\n");
    let gateway = start(&scratch, program(), &tables)?;
    let name = link.to_string_lossy().into_owned();
    await_source(&gateway, &name, "the opening of the first port", is_connected)?;
    let terminal = std::fs::read_link(&link)?;
    let second = Line::plug_in(&link)?;
    await_source(&gateway, &name, "the opening of the second port", |source| source["connects"] == 2)?;
    second.write_all(b"{\"t\":1}\n", LIMIT)?;
    await_source(&gateway, &name, "the second port's line", |source| source["rows_received"] == 1)?;
    // It takes its leave of the first one while the second is there.
    let files = format!("/proc/{}/fd", gateway.id().context("it runs")?);
    wait_for("the end of the first port", LIMIT, || {
        let files = std::fs::read_dir(&files).map_err(|error| error.to_string())?;
        let is_first =
            |file: &std::fs::DirEntry| std::fs::read_link(file.path()).is_ok_and(|to| to == terminal);
        if files.flatten().any(|file| is_first(&file)) { Err("it is open".to_owned()) } else { Ok(()) }
    })?;
    // Nobody listens to the first one any more: what is written there stays there.
    first.write_all(b"{\"t\":2}\n", LIMIT)?;
    second.write_all(b"{\"t\":3}\n", LIMIT)?;
    await_source(&gateway, &name, "the second port's next line", |source| source["rows_received"] == 2)?;
    gateway.drain(DRAIN_LIMIT)?;
    let stored: Vec<Value> = points(&gateway, "m")?.into_iter().map(|point| point.2["t"].clone()).collect();
    assert_eq!(stored, [1.0, 3.0]);
    second.unplug();
    scratch.passed();
    Ok(())
}

#[test]
fn a_usb_device_is_served_wherever_it_is_plugged_in() -> anyhow::Result<()> {
    let scratch = Scratch::new("serial-usb")?;
    let usb = UsbPorts::new(&scratch.path().join("machine"))?;
    let mut fleet = Fleet::new();
    fleet.add_serial::<RING_BYTES>(&scratch.path().join("dev"), 1, Duration::from_millis(10))?;
    let device = fleet.serial(0).expect("a device");
    device.unplug();
    let gateway = start(&scratch, usb.seen_by(program()), "[[serial]]\nusb = \"2e8a:*\"\n")?;
    // Nobody has said that there must be one.
    await_source(&gateway, "usb:2e8a:*", "the waiting for a device", |source| {
        source["state"] == "waiting" && source["last_error"].is_null()
    })?;
    let status = gateway.api("/api/v1/status")?;
    assert_eq!(
        (&status["verdict"], status["findings"].as_array().map(Vec::len)),
        (&"Nothing is being lost.".into(), Some(0))
    );
    for name in ["ttyACM0", "ttyACM3", "ttyACM1"] {
        let acked = fleet.progress().1;
        device.plug_in_at(&usb.path(name));
        usb.add(name, PICO, "E6614104")?;
        wait_for("the acknowledgement of rows", LIMIT, || {
            let now = fleet.progress().1;
            if now > acked { Ok(()) } else { Err(format!("{now} of {acked}")) }
        })?;
        wait_for("the port's being served", LIMIT, || {
            let ports = gateway.api("/api/v1/ports").map_err(|error| format!("{error:#}"))?;
            let path = usb.path(name);
            let is_it = ports[0]["path"] == *path.to_string_lossy();
            if is_it && ports[0]["gateway"]["state"] == "served" { Ok(()) } else { Err(ports.to_string()) }
        })?;
        device.unplug();
        usb.remove(name, "E6614104")?;
        // One that was there is missed.
        await_source(&gateway, "usb:2e8a:*", "the missing of the device", |source| {
            source["state"] == "disconnected" && says(source, &["not there", "forebay ports"])
        })?;
    }
    device.plug_in_at(&usb.path("ttyACM7"));
    usb.add("ttyACM7", PICO, "E6614104")?;
    assert_nothing_lost(&finish(fleet, gateway)?);
    scratch.passed();
    Ok(())
}

#[test]
fn a_foreign_port_is_given_back_and_a_named_one_is_not_claimed() -> anyhow::Result<()> {
    let scratch = Scratch::new("serial-foreign")?;
    let usb = UsbPorts::new(&scratch.path().join("machine"))?;
    let mut fleet = Fleet::new();
    fleet.add_serial::<RING_BYTES>(&scratch.path().join("dev"), 1, Duration::from_millis(50))?;
    let modem = Line::plug_in(&usb.path("ttyUSB0"))?;
    usb.add("ttyUSB0", ("1a86", "7523"), "modem")?;
    let text = Line::plug_in(&usb.path("ttyUSB1"))?;
    usb.add("ttyUSB1", ("1a86", "7523"), "text")?;
    let (any, named) = (usb.path("ttyUSB*"), usb.path("ttyUSB1"));
    let tables = format!(
        "[[serial]]\nport = {any:?}\nclaim = \"any\"\n\
         [[serial]]\nport = {named:?}\nformat = \"csv\"\ncolumns = [\"t\"]\ndevice = \"d\"\nmeasurement = \"m\"\n"
    );
    let gateway = start(&scratch, usb.seen_by(program()), &tables)?;
    let state = |name: &str| -> anyhow::Result<(String, String)> {
        let ports = gateway.api("/api/v1/ports")?;
        let path = usb.path(name);
        let port =
            ports.as_array().into_iter().flatten().find(|port| port["path"] == *path.to_string_lossy());
        let of =
            |key: &str| port.and_then(|port| port["gateway"][key].as_str()).unwrap_or_default().to_owned();
        Ok((of("serial"), of("state")))
    };
    let await_state = |name: &str, wanted: &str| {
        wait_for(&format!("{name}'s being {wanted}"), LIMIT, || {
            modem.write(b"\r\nRING\r\n").map_err(|error| error.to_string())?;
            let (_, state) = state(name).map_err(|error| format!("{error:#}"))?;
            if state == wanted { Ok(()) } else { Err(state) }
        })
    };
    await_state("ttyUSB0", "waiting")?;
    assert_eq!(state("ttyUSB1")?.0, named.to_string_lossy(), "the entry that names it has it");
    await_state("ttyUSB0", "released")?;
    let log = gateway.log_text()?;
    assert!(log.contains("brought nothing valid in 10 s") && log.contains("tried again in 10 s"), "{log}");
    // It is really free: another program can have it for itself.
    let other = std::fs::File::options().read(true).write(true).open(usb.path("ttyUSB0"))?;
    rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    drop(other);
    // And it is tried again; the second pause is longer.
    await_state("ttyUSB0", "waiting")?;
    wait_for("the second release", LIMIT, || {
        let ports = gateway.api("/api/v1/ports").map_err(|error| format!("{error:#}"))?.to_string();
        if ports.contains("tried again in 20 s") { Ok(()) } else { Err(ports) }
    })?;
    // A device of ours in its place is served, although the port rests.
    modem.unplug();
    usb.remove("ttyUSB0", "modem")?;
    wait_for("the forgetting of the port", LIMIT, || match state("ttyUSB0") {
        Ok((serial, _)) if serial.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let device = fleet.serial(0).expect("a device");
    device.unplug();
    device.plug_in_at(&usb.path("ttyUSB0"));
    wait_for("the acknowledgement of rows", LIMIT, || {
        if fleet.progress().1 > 0 { Ok(()) } else { Err("none".to_owned()) }
    })?;
    text.write_all(b"1\n", LIMIT)?;
    await_source(&gateway, &named.to_string_lossy(), "the text's line", |source| {
        source["rows_received"] == 1
    })?;
    assert_nothing_lost(&finish(fleet, gateway)?);
    text.unplug();
    scratch.passed();
    Ok(())
}

#[test]
fn a_port_in_other_hands_is_named_with_its_holder_and_taken_when_it_is_free() -> anyhow::Result<()> {
    let scratch = Scratch::new("serial-held")?;
    let mut fleet = Fleet::new();
    fleet.add_serial::<RING_BYTES>(&scratch.path().join("dev"), 1, Duration::from_millis(50))?;
    let port = fleet.ports().next().expect("a port").to_owned();
    let second = scratch.path().join("second-name");
    std::os::unix::fs::symlink(&port, &second)?;
    let holder = std::fs::File::options().read(true).write(true).open(&port)?;
    rustix::fs::flock(&holder, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    let tables = format!("[[serial]]\nport = {port:?}\n[[serial]]\nport = {second:?}\n");
    let gateway = start(&scratch, program(), &tables)?;
    let pid = std::process::id().to_string();
    for name in [&port, &second] {
        await_source(&gateway, &name.to_string_lossy(), "the naming of the holder", |source| {
            says(source, &["another program has it open", &format!("process {pid} ("), "stop it"])
                || says(source, &["is served for the [[serial]]", "remove one of the two"])
        })?;
    }
    let output = program().output("ports", &gateway.config())?;
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && page.contains(&format!("{pid} (")), "{page}");
    rustix::fs::flock(&holder, rustix::fs::FlockOperation::Unlock)?;
    drop(holder);
    wait_for("the acknowledgement of rows", LIMIT, || {
        if fleet.progress().1 > 20 { Ok(()) } else { Err(fleet.progress().1.to_string()) }
    })?;
    let status = gateway.status()?;
    let connected =
        status["sources"].as_object().into_iter().flatten().filter(|(_, source)| is_connected(source));
    assert_eq!(connected.count(), 1, "one port, two names, one claim: {status}");
    assert_nothing_lost(&finish(fleet, gateway)?);
    scratch.passed();
    Ok(())
}

#[test]
fn one_port_that_never_stops_babbling_starves_none_of_sixty_three() -> anyhow::Result<()> {
    const DEVICES: usize = 63;
    let mut rng = Rng::announced("babbler")?;
    let scratch = Scratch::new("serial-babble")?;
    let dev = scratch.path().join("dev");
    let mut fleet = Fleet::new();
    fleet.add_serial::<RING_BYTES>(&dev, DEVICES, Duration::from_millis(100))?;
    let babble = dev.join("babble");
    let babbler = Line::plug_in(&babble)?;
    let any = dev.join("port*");
    let tables = format!("[[serial]]\nport = {any:?}\nclaim = \"any\"\n[[serial]]\nport = {babble:?}\n");
    let gateway = start(&scratch, program(), &tables)?;
    // Frames that end after every few bytes cost the most to look at.
    let noise: Vec<u8> =
        rng.bytes(64 * 1024).into_iter().map(|byte| if byte < 40 { 0 } else { byte }).collect();
    let (stop, babbled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let thread = std::thread::spawn({
        let (stop, babbled) = (Arc::clone(&stop), Arc::clone(&babbled));
        move || -> anyhow::Result<()> {
            while !stop.load(Ordering::Relaxed) {
                if let written @ 1.. = babbler.write(&noise)? {
                    babbled.fetch_add(written as u64, Ordering::Relaxed);
                } else {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            babbler.unplug();
            Ok(())
        }
    });
    let acked = || -> BTreeMap<String, u64> {
        fleet.truths().map(|truth| (truth.name().to_owned(), truth.acked())).collect()
    };
    wait_for("every device's first acknowledged rows", LIMIT, || {
        let behind: Vec<String> =
            acked().into_iter().filter(|(_, rows)| *rows < 20).map(|(name, _)| name).collect();
        if behind.is_empty() { Ok(()) } else { Err(behind.join(", ")) }
    })?;
    let before = (acked(), babbled.load(Ordering::Relaxed));
    std::thread::sleep(Duration::from_secs(5));
    let rows: Vec<u64> = acked().into_iter().map(|(name, rows)| rows - before.0[&name]).collect();
    let bytes = babbled.load(Ordering::Relaxed) - before.1;
    stop.store(true, Ordering::Relaxed);
    thread.join().map_err(|_| anyhow::anyhow!("the babbler panicked"))??;
    let (least, most) = (rows.iter().min().copied().unwrap_or(0), rows.iter().max().copied().unwrap_or(0));
    let share = as_f64(least) / as_f64(most);
    eprintln!("beside {} KiB of noise: {least} to {most} rows a device, share {share:.2}", bytes >> 10);
    assert!(bytes > 1 << 20, "only {bytes} bytes of noise");
    assert!(share > 0.5, "{rows:?}");
    // A processor that is kept busy on purpose tells the time badly; whose turn it is, is what counts here.
    assert_nothing_lost(&finish_within(fleet, gateway, 250_000_000)?);
    scratch.passed();
    Ok(())
}

#[test]
fn a_port_that_is_not_understood_says_why_and_what_came_before_is_forgotten_with_the_cure()
-> anyhow::Result<()> {
    let scratch = Scratch::new("serial-garbage")?;
    let (link, endless) = (scratch.path().join("native"), scratch.path().join("endless"));
    let tables = format!(
        "[[serial]]\nport = {link:?}\n[[serial]]\nport = {endless:?}\nformat = \"json\"\ndevice = \"d\"\nmeasurement = \"m\"\n"
    );
    let gateway = start(&scratch, program(), &tables)?;
    let (name, endless_name) = (link.to_string_lossy(), endless.to_string_lossy());
    await_source(&gateway, &name, "the word that it is missing", |source| says(source, &["not there"]))?;
    let lines = [Line::plug_in(&link)?, Line::plug_in(&endless)?];
    let source = await_source(&gateway, &name, "the port", is_connected)?;
    assert!(source["last_error"].is_null(), "it is there now: {source}");
    let too_long = vec![b'x'; 20_000];
    lines[0].write_all("temperature=21.5\r\n".repeat(100).as_bytes(), LIMIT)?;
    let source =
        await_source(&gateway, &name, "a word about the text", |source| says(source, &["`format`"]))?;
    assert!(source["bad_messages"].as_u64() > Some(0), "{source}");
    lines[1].write_all(&too_long, LIMIT)?;
    let words = ["without an end of a line", "`baud`"];
    await_source(&gateway, &endless_name, "a word about the line", |source| says(source, &words))?;
    lines[1].write_all(&too_long, LIMIT)?;
    lines[1].write_all(b"\n{\"t\":1}\n{\"t\":x}\n{\"u\n", LIMIT)?;
    await_source(&gateway, &endless_name, "the lines behind it", |source| source["bad_messages"] == 3)?;
    gateway.drain(DRAIN_LIMIT)?;
    assert_eq!(gateway.status()?["ledger"]["dead_lettered"], 3);
    assert_eq!(points(&gateway, "m")?.len(), 1);
    lines.into_iter().for_each(Line::unplug);
    scratch.passed();
    Ok(())
}

#[test]
fn ports_are_listed_with_and_without_a_gateway() -> anyhow::Result<()> {
    let scratch = Scratch::new("serial-ports")?;
    let usb = UsbPorts::new(&scratch.path().join("machine"))?;
    let line = Line::plug_in(&usb.path("ttyACM0"))?;
    usb.add("ttyACM0", PICO, "E6614104")?;
    let program = usb.seen_by(program());
    // Before there is any configuration.
    let listed = |arguments: &[&str]| -> anyhow::Result<(bool, String)> {
        let output = program.bare().arg("ports").args(arguments).output()?;
        eprintln!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let config = scratch.path().join("forebay.toml");
    let lines = |page: &str| {
        let from = page.find("[[serial]]").unwrap_or(page.len());
        page[from..].lines().map(str::trim).collect::<Vec<_>>().join("\n")
    };
    std::fs::write(&config, format!("data_dir = {:?}\n", scratch.path().join("nothing")))?;
    let named = config.to_string_lossy().into_owned();
    let (ok, page) = listed(&["--config", &named])?;
    assert!(ok && page.contains("2e8a:000a") && page.contains("serial E6614104"), "{page}");
    assert!(page.contains("always at") && page.contains("by-id/usb-E6614104"), "{page}");
    // One that cannot be read is a fault, and no reason to show nothing: the list may be what mends it.
    let faulty = scratch.path().join("faulty.toml");
    std::fs::write(&faulty, "data_dir = \"/nowhere\"\n[[serial]]\nbaud = \"fast\"\n")?;
    let output = program.output("ports", &faulty)?;
    let (page_again, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*page_again), (Some(1), &*page), "{said}");
    assert!(said.contains("baud") && said.contains("the configuration cannot be read"), "{said}");
    // The lines that it shows configure a gateway, which then says what it does with the port.
    let gateway = start(&scratch, program.clone(), &lines(&page))?;
    await_source(&gateway, "usb:2e8a:000a", "the opening of the port", is_connected)?;
    let running = gateway.config().to_string_lossy().into_owned();
    let (ok, text) = listed(&["--json", "--config", &running])?;
    let answer: Value = serde_json::from_str(&text)?;
    assert!(ok && answer["gateway"] == true, "{text}");
    let port = &answer["ports"][0];
    assert_eq!(port["usb"]["vendor"], "2e8a", "{text}");
    // On a slow machine the ten seconds are over by now.
    assert!(["waiting", "released"].map(Value::from).contains(&port["gateway"]["state"]), "{text}");
    let holders = port["holders"].as_array().into_iter().flatten();
    assert!(
        holders
            .into_iter()
            .any(|holder| holder["pid"] == gateway.status().map_or(Value::Null, |s| s["pid"].clone())),
        "{text}"
    );
    let (ok, text) = listed(&["--json", "--config", &named])?;
    assert!(ok && serde_json::from_str::<Value>(&text)?["gateway"] == false, "{text}");
    assert!(!listed(&["--config", "/nowhere/forebay.toml"])?.0);
    line.unplug();
    scratch.passed();
    Ok(())
}
