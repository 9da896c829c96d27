//! What the service manager hears of the real gateway, on a socket of ours.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use forebay_tests::clock::wait_for;
use forebay_tests::device::publish;
use forebay_tests::http::Http;
use forebay_tests::process::{Process, free_port, tail};
use forebay_tests::services::Mosquitto;
use forebay_tests::strace::Strace;

use crate::world::{Scratch, program};

/// How long a message may take on a machine that does something else.
const LIMIT: Duration = Duration::from_secs(60);

/// What the manager has heard.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn listen(path: &Path) -> anyhow::Result<Manager> {
        Ok(Manager { socket: UnixDatagram::bind(path)? })
    }

    /// The next message, if one comes in time.
    fn next(&self, within: Duration) -> anyhow::Result<Option<String>> {
        let mut buffer = [0; 4096];
        self.socket.set_read_timeout(Some(within))?;
        match self.socket.recv(&mut buffer) {
            Ok(length) => Ok(Some(String::from_utf8_lossy(&buffer[..length]).into_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The messages up to the first that has this line.
    fn until(&self, line: &str) -> anyhow::Result<Vec<String>> {
        let (mut heard, until) = (Vec::new(), Instant::now() + LIMIT);
        while Instant::now() < until {
            let Some(message) = self.next(LIMIT)? else { continue };
            let is_it = message.lines().any(|known| known == line);
            heard.push(message);
            if is_it {
                return Ok(heard);
            }
        }
        anyhow::bail!("{line} does not come; heard: {heard:#?}")
    }
}

/// The configuration of a gateway that subscribes at a broker, with files that are soon made.
fn configure(scratch: &Path, broker: u16, http: u16) -> anyhow::Result<std::path::PathBuf> {
    let file = scratch.join("forebay.toml");
    let text = format!(
        "data_dir = {:?}\n[http]\nlisten = \"127.0.0.1:{http}\"\n[clock]\ntrust = \"always\"\n\
         [journal]\nmax_bytes = \"2MiB\"\n[health]\ninterval = \"off\"\n[[mqtt]]\nurl = \"mqtt://127.0.0.1:{broker}\"\n\
         [[mqtt.subscribe]]\ntopic = \"sensors/{{device}}/{{room}}\"\nformat = \"json\"\nmeasurement = \"m\"\n",
        scratch.join("data")
    );
    std::fs::write(&file, text)?;
    Ok(file)
}

#[test]
fn the_manager_hears_when_acks_can_be_given_that_commits_go_on_and_that_the_end_has_begun()
-> anyhow::Result<()> {
    let scratch = Scratch::new("systemd")?;
    let manager = Manager::listen(&scratch.path().join("notify"))?;
    let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
    let http = free_port()?;
    let mut command = program().command("run", &configure(scratch.path(), broker.port, http)?);
    command.env("NOTIFY_SOCKET", scratch.path().join("notify")).env("WATCHDOG_USEC", "2000000");
    let mut gateway = Process::spawn("forebay", command, &scratch.path().join("gateway.log"))?;

    let heard = manager.until("READY=1")?;
    assert_eq!(heard[0], "STATUS=reading the journal");
    assert_eq!(heard.len(), 2, "nothing else comes before: {heard:?}");
    let ready = Http::new()?.get(&format!("http://127.0.0.1:{http}/readyz"))?;
    assert_eq!(ready.status, 200, "{}", ready.body);

    // Idle and busy alike.
    manager.until("WATCHDOG=1")?;
    for number in 0..3 {
        let message = ("sensors/esp/cellar".to_owned(), format!("{{\"n\":{number}}}").into_bytes());
        publish(broker.port, vec![message])?;
        manager.until("WATCHDOG=1")?;
    }

    gateway.signal(rustix::process::Signal::TERM)?;
    manager.until("STOPPING=1")?;
    assert!(gateway.terminate(LIMIT)?.success());
    scratch.passed();
    Ok(())
}

/// A committer that does not come back from the disk takes no turns, and the manager is told of none.
#[test]
fn the_watchdog_is_not_fed_while_a_commit_hangs_and_is_again_once_it_is_through() -> anyhow::Result<()> {
    /// How long each sync takes: longer than a commit may wait for the disk before that is told. A turn is asked for sixteen
    /// times meanwhile.
    const HANG: Duration = Duration::from_secs(8);
    let scratch = Scratch::new("systemd-hang")?;
    let manager = Manager::listen(&scratch.path().join("notify"))?;
    let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
    let http_port = free_port()?;
    let config = configure(scratch.path(), broker.port, http_port)?;
    let strace = Strace::delay("fdatasync", HANG, &scratch.path().join("strace.txt"));
    let mut command = strace.wrap(&program().command("run", &config))?;
    command.env("NOTIFY_SOCKET", scratch.path().join("notify")).env("WATCHDOG_USEC", "2000000");
    let log = scratch.path().join("gateway.log");
    let mut gateway = Process::spawn("forebay", command, &log)?;
    manager.until("READY=1")?;
    let is_connected = || std::fs::read_to_string(&log).unwrap_or_default().contains("connected: ");
    wait_for("the subscription", LIMIT, || if is_connected() { Ok(()) } else { Err(tail(&log)) })?;

    publish(broker.port, vec![("sensors/esp/cellar".to_owned(), b"{\"n\":1}".to_vec())])?;
    let (http, address) = (Http::new()?, format!("http://127.0.0.1:{http_port}"));
    wait_for("the word that the disk does not answer", LIMIT, || {
        let asked = http.get(&format!("{address}/readyz")).map_err(|error| format!("{error:#}"))?;
        let is_told = asked.status == 503 && asked.body.contains("the disk does not answer");
        if is_told { Ok(()) } else { Err(format!("{asked:?}")) }
    })?;
    let status = http.get_json(&format!("{address}/api/v1/status"))?;
    let verdict = status["verdict"].as_str().unwrap_or_default();
    // It may have come back between the two.
    let is_stalled = status["journal"]["state"] == "stalled";
    assert_eq!(verdict.contains("the disk does not answer"), is_stalled, "{verdict}");

    publish(broker.port, vec![("sensors/esp/cellar".to_owned(), b"{\"n\":2}".to_vec())])?;
    let (mut longest, mut last, until) = (Duration::ZERO, Instant::now(), Instant::now() + LIMIT);
    while longest < HANG / 2 && Instant::now() < until {
        manager.until("WATCHDOG=1")?;
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    assert!(longest >= HANG / 2, "it was fed all through the commit, at most {longest:?} apart");
    assert!(longest < 3 * HANG, "it was not fed again: {longest:?}");
    assert!(gateway.terminate(LIMIT)?.success());
    scratch.passed();
    Ok(())
}

/// The program is larger than a small machine likes, and most of it runs once.
#[test]
fn a_gateway_that_has_started_holds_a_part_of_its_program_only() -> anyhow::Result<()> {
    let scratch = Scratch::new("systemd-memory")?;
    let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
    let http = free_port()?;
    let command = program().command("run", &configure(scratch.path(), broker.port, http)?);
    let mut gateway = Process::spawn("forebay", command, &scratch.path().join("gateway.log"))?;
    wait_for("memory that is given up", LIMIT, || {
        let usage = gateway.usage().map_err(|error| format!("{error:#}"))?;
        let is_rid = usage.resident_bytes * 4 < usage.resident_bytes_max * 3;
        if is_rid { Ok(()) } else { Err(format!("{usage:?}")) }
    })?;
    // What is needed comes back.
    let ready = Http::new()?.get(&format!("http://127.0.0.1:{http}/readyz"))?;
    assert_eq!(ready.status, 200, "{}", ready.body);
    assert!(gateway.terminate(LIMIT)?.success());
    scratch.passed();
    Ok(())
}
