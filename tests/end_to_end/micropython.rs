//! A device in another language, written from `docs/wire.md` alone: MicroPython on a line that damages frames, at a gateway
//! that is killed meanwhile.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::pty::Line;
use forebay_tests::readback::sqlite;
use forebay_tests::seed::Rng;

use crate::world::{DRAIN_LIMIT, Scratch, program};

const DEVICE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/micropython/device.py");
const ROWS: u64 = 600;
const PERIOD_NS: i64 = 20_000_000;

/// How long the device may take until all its rows are released.
const LIMIT: Duration = Duration::from_secs(120);

/// One in so many stretches of bytes arrives with a wrong one.
const DAMAGE_ONE_IN: u64 = 5;

#[test]
fn a_device_written_from_the_description_delivers_every_row_once() -> anyhow::Result<()> {
    let mut rng = Rng::announced("MicroPython")?;
    let since_ns = wall_ns();
    let scratch = Scratch::new("micropython")?;
    let port = scratch.path().join("port");
    let line = Line::plug_in(&port)?;
    let settings = Settings { mqtt: None, ports: vec![port], tables: String::new() };
    let mut gateway = Gateway::start(program(), &scratch.path().join("gateway"), &settings)?;
    let said = deliver(&line, &mut gateway, &scratch.path().join("device.log"), &mut rng)?;
    gateway.close(DRAIN_LIMIT)?;

    let figures: Vec<u64> =
        said.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    let [sampled, repeated, boot] = figures[..] else { anyhow::bail!("the device ended with {said:?}") };
    eprintln!("{sampled} rows released, {repeated} blocks repeated");
    assert!(sampled == ROWS && repeated > 0 && boot > 0, "{said}");
    let let_in = gateway.log_text()?.matches("device is let in").count();
    assert!(let_in >= 2, "it was let in again after the kill");
    check_rows(&gateway.sqlite_file(), since_ns)?;
    scratch.passed();
    Ok(())
}

/// Runs the device to its end, and kills the gateway once on the way. Returns its last words.
fn deliver(line: &Line, gateway: &mut Gateway, log: &Path, rng: &mut Rng) -> anyhow::Result<String> {
    let interpreter = std::env::var_os("FOREBAY_MICROPYTHON").unwrap_or(OsString::from("micropython"));
    let mut command = Command::new(&interpreter);
    command.arg(DEVICE).arg(ROWS.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let started = command.stderr(File::create(log)?).spawn();
    let mut device = started.with_context(|| {
        format!("starting {}; tests/micropython/get fetches a MicroPython", interpreter.display())
    })?;
    let (to, from) = device.stdin.take().zip(device.stdout.take()).context("no pipes")?;
    let ended = AtomicBool::new(false);
    let (up, down) = (rng.next_u64(), rng.next_u64());
    std::thread::scope(|scope| {
        scope.spawn(|| carry_up(from, line, Rng::new(up)));
        scope.spawn(|| carry_down(line, to, Rng::new(down), &ended));
        let result = kill_once(gateway, &mut device);
        // Whatever happened, the cable ends with the device.
        let _ = device.kill();
        let _ = device.wait();
        ended.store(true, Ordering::Release);
        result
    })?;
    Ok(std::fs::read_to_string(log)?)
}

fn kill_once(gateway: &mut Gateway, device: &mut Child) -> anyhow::Result<()> {
    wait_for("the delivery of a third of the rows", LIMIT, || match gateway.backlog() {
        Ok((_, confirmed)) if confirmed > ROWS / 3 => Ok(()),
        Ok((queued, confirmed)) => Err(format!("{confirmed} rows are confirmed, {queued} wait")),
        Err(error) => Err(format!("{error:#}")),
    })?;
    gateway.kill();
    gateway.resume()?;
    let status = wait_for("the release of all rows", LIMIT, || match device.try_wait() {
        Ok(Some(status)) => Ok(status),
        Ok(None) => Err("the device goes on".to_owned()),
        Err(error) => Err(error.to_string()),
    })?;
    anyhow::ensure!(status.success(), "the device ended with {status}");
    Ok(())
}

/// What the device says, as the line brings it; what a full line does not take is gone, as on any line.
fn carry_up(mut from: ChildStdout, line: &Line, mut rng: Rng) {
    let mut buffer = [0; 512];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        damage(&mut buffer[..length], &mut rng);
        // A broken line is seen by the gateway, and by the test's deadline.
        let _ = line.write(&buffer[..length]);
    }
}

fn carry_down(line: &Line, mut to: ChildStdin, mut rng: Rng, ended: &AtomicBool) {
    let mut buffer = [0; 512];
    while !ended.load(Ordering::Acquire) {
        line.wait(20);
        line.allow_next_gateway();
        let Ok(length) = line.read(&mut buffer) else { return };
        damage(&mut buffer[..length], &mut rng);
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn damage(bytes: &mut [u8], rng: &mut Rng) {
    let at = usize::try_from(rng.in_range(0..512)).unwrap_or(0) % bytes.len().max(1);
    if rng.in_range(0..DAMAGE_ONE_IN) == 0
        && let Some(byte) = bytes.get_mut(at)
    {
        *byte ^= 1 << rng.in_range(0..8);
    }
}

/// Every row once, with its values, at times that go forward as the device's ticks did.
fn check_rows(file: &Path, since_ns: i64) -> anyhow::Result<()> {
    let until_ns = wall_ns();
    let mut stored = sqlite::read(file)?;
    stored.rows.sort_by_key(|row| row.number);
    let numbers: Vec<u64> = stored.rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (0..ROWS).collect::<Vec<_>>(), "each row once");
    assert!(stored.gaps.is_empty(), "{:?}", stored.gaps);
    for row in &stored.rows {
        let n = f64::from(u32::try_from(row.number)?);
        let fields = [("humidity", n / 8.0), ("temperature", (2.0 * n - 500.0) / 100.0)];
        assert_eq!(row.device, "micropython");
        assert_eq!(
            row.fields.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>(),
            fields
        );
        assert!((since_ns..until_ns).contains(&row.ns), "row {} is dated {}", row.number, row.ns);
    }
    assert!(stored.rows.is_sorted_by(|a, b| a.ns < b.ns));
    let span_ns = stored.rows.last().zip(stored.rows.first()).map_or(0, |(last, first)| last.ns - first.ns);
    let least_ns = PERIOD_NS * i64::try_from(ROWS - 1)?;
    assert!(span_ns > least_ns - 1_000_000_000, "{ROWS} rows within {span_ns} ns");
    // A tick is a millisecond, and a device that is late for a row or two catches up.
    let apart = stored.rows.windows(2).filter(|pair| pair[1].ns - pair[0].ns >= 1_000_000).count();
    assert!(apart > 9 * stored.rows.len() / 10, "only {apart} rows are a tick after the one before");
    let store = rusqlite::Connection::open(file)?;
    let heating = "SELECT json_group_array(heating) FROM (SELECT json_extract(fields, '$.heating') AS heating \
                   FROM points WHERE json_extract(fields, '$.n') < 4 ORDER BY ns)";
    let heating: String = store.query_row(heating, [], |row| row.get(0))?;
    assert_eq!(heating, "[0,null,null,1]", "which is where the device has a value");
    Ok(())
}
