//! The pages for whoever begins: start.md, pico.md, tasmota.md, influxdb.md.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use forebay_gateway::config::SerialSelector;
use forebay_tests::clock::wait_for;
use forebay_tests::device::{Fleet, RING_BYTES};
use forebay_tests::process::{Process, free_port};
use forebay_tests::services::{InfluxDb, command};
use rustix::process::Signal;

use crate::stage::{CONFIG, LIMIT, Stage, has_what_is_shown};

#[test]
fn five_minutes_are_enough() -> anyhow::Result<()> {
    let mut page = Stage::open("docs/start.md")?;
    let _broker = page.broker()?;
    let config = page.block("toml", "data_dir")?;
    page.write(CONFIG, &config)?;
    page.run("forebay check")?;
    let mut gateway = page.gateway("forebay run")?;
    page.connected()?;
    page.run("mosquitto_pub")?;
    let answer = page.until("forebay query", &["temperature=54.5"])?;
    let shown = page.block("text", "climate,device=boiler")?;
    assert!(has_what_is_shown(&answer, &shown), "{answer} is not {shown}");
    page.until("sqlite3", &["boiler|temperature|54.5", "boiler|heating|1"])?;

    page.run("mosquitto_pub")?;
    // What Ctrl-\ does, also where a test was begun by what does not hear it.
    gateway.signal(Signal::KILL)?;
    let ended = wait_for("the end of the gateway", LIMIT, || gateway.exited().ok_or("it runs".to_owned()))?;
    assert!(!ended.success(), "that is no clean end: {ended}");
    let mut gateway = page.gateway("forebay run")?;
    let answer = page.until("forebay query", &["temperature=55.0"])?;
    assert_eq!(answer.lines().count(), 2, "{answer}");
    page.until("forebay audit", &["exact"])?;
    assert!(gateway.terminate(LIMIT)?.success());
    page.close()
}

/// A simulated device, which runs the Pico's firmware, stands for the Pico.
#[test]
fn a_pico_is_connected() -> anyhow::Result<()> {
    let mut page = Stage::open("docs/pico.md")?;
    let mut fleet = Fleet::new();
    fleet.add_serial::<RING_BYTES>(&page.path("dev"), 1, Duration::from_millis(200))?;
    let device = fleet.truths().next().map(|truth| truth.name().to_owned()).context("no device")?;

    let port = page.block("toml", "[[serial]]")?;
    let read = page.configured(&port)?;
    let usb = SerialSelector::Usb { vendor: 0x2e8a, product: None };
    assert_eq!(read.serial[0].selector, usb, "the vendor of the Pico");
    let named = page.block("toml", "[devices.")?;
    let read = page.configured(&format!("{port}\n{named}"))?;
    assert_eq!(read.devices["e66141040396962a"].name.as_deref(), Some("boiler"));
    let path = fleet.ports().next().map(Path::to_owned).context("no port")?;
    page.write(CONFIG, &format!("data_dir = \"data\"\n[[serial]]\nport = {path:?}\n"))?;

    let said = page.run("forebay ports")?;
    assert!(said.contains("serial"), "{said}");
    let mut gateway = page.gateway("forebay run")?;
    page.replace("pico", &device);
    let (mut tail, log) = page.start("forebay tail", "tail.log")?;
    wait_for("rows of the device", LIMIT, || {
        let text = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
        if text.contains(&format!("device={device},")) { Ok(()) } else { Err(text) }
    })?;
    tail.kill();
    let log = std::fs::read_to_string(page.path("gateway.log"))?;
    let shown = page.block("text", "INFO")?;
    for line in shown.lines().filter_map(|line| line.strip_prefix("INFO ")) {
        let words = line.split([':', '=']).next().unwrap_or_default().trim_end_matches(" device");
        assert!(log.contains(words), "the log does not say {words:?}: {log}");
    }
    fleet.stop_sampling();
    assert!(gateway.terminate(LIMIT)?.success());
    fleet.end()?;
    page.close()
}

#[test]
fn a_tasmota_plug_is_connected() -> anyhow::Result<()> {
    let mut page = Stage::open("docs/tasmota.md")?;
    let _broker = broker_with_users(&mut page)?;
    let config = page.block("toml", "tasmota")?;
    page.write(CONFIG, &format!("data_dir = \"data\"\n{config}"))?;
    page.run("(umask 077")?;
    page.run("echo '{\"Time\"")?;
    let explained = page.run("forebay explain")?;
    assert!(explained.contains("ENERGY_Power=67.0"), "{explained}");
    page.run("forebay check")?;
    let mut gateway = page.gateway("forebay run")?;
    page.connected()?;
    page.run("mosquitto_pub")?;
    let answer = page.until("forebay query", &["ENERGY_Power"])?;
    let shown = page.block("text", "tasmota,device=washer")?;
    assert!(has_what_is_shown(&answer, &shown), "{answer} is not {shown}");
    assert!(gateway.terminate(LIMIT)?.success());
    page.close()
}

/// The broker that the page configures, with its two users.
fn broker_with_users(page: &mut Stage) -> anyhow::Result<Process> {
    let (port, passwords) = (free_port()?, page.path("passwd"));
    page.replace("listener 1883", &format!("listener {port} 127.0.0.1"));
    page.replace("/etc/mosquitto/passwd", &passwords.display().to_string());
    page.broker_at(port)?;
    let settings = page.block("mosquitto", "password_file")?;
    // Started by root, mosquitto would drop to an account that cannot write here.
    let own = format!("user root\npersistence_location {}/\n", page.path("").display());
    page.write("mosquitto.conf", &format!("{own}{settings}"))?;
    std::fs::write(&passwords, "")?;
    for (user, password) in [("plug", "the-plugs-password"), ("forebay", "the-gateways-password")] {
        let mut passwd = command("mosquitto_passwd", "mosquitto")?;
        passwd.arg("-b").arg(&passwords).args([user, password]).stdin(Stdio::null());
        anyhow::ensure!(passwd.status()?.success(), "mosquitto_passwd refuses {user}");
    }
    let mut broker = command("mosquitto", "mosquitto")?;
    broker.arg("-c").arg(page.path("mosquitto.conf"));
    let broker = Process::spawn("mosquitto", broker, &page.path("mosquitto.log"))?;
    wait_for("the broker's word to a user", LIMIT, || {
        let said = page.typed("mosquitto_pub -u plug -P the-plugs-password -t try -m 1", "");
        let said = said.map_err(|error| error.to_string())?;
        if said.good { Ok(()) } else { Err(said.text) }
    })?;
    let stranger = page.typed("mosquitto_pub -t try -m 1", "")?;
    anyhow::ensure!(!stranger.good, "a stranger is let in");
    Ok(broker)
}

#[test]
fn influxdb_is_wired() -> anyhow::Result<()> {
    let mut page = Stage::open("docs/influxdb.md")?;
    let (broker, server) = (page.broker()?, page.influxdb()?);
    let said = page.run("curl -X POST")?;
    assert!(said.contains("results") && !said.contains("error"), "{said}");
    let version_1 = page.block("toml", "version = 1")?;
    for version in ["version = 2", "version = 3"] {
        let block = page.block("toml", version)?;
        assert_eq!(page.configured(&block)?.influxdb.len(), 1, "{block}");
    }
    let token = page.take("(umask 077")?;
    assert!(page.typed(&token, "nobody-knows-it\n")?.good);
    assert_eq!(std::fs::read_to_string(page.path("influxdb.token"))?, "nobody-knows-it\n");
    let source =
        "[[mqtt.subscribe]]\ntopic = \"sensors/{device}\"\nformat = \"json\"\nmeasurement = \"climate\"\n";
    let url = broker.url();
    page.write(CONFIG, &format!("data_dir = \"data\"\n[[mqtt]]\nurl = \"{url}\"\n{source}{version_1}"))?;
    page.run("forebay check")?;
    let mut gateway = page.gateway("forebay run")?;
    page.connected()?;
    assert!(page.typed("mosquitto_pub -t sensors/boiler -q 1 -m '{\"t\":1}'", "")?.good);
    page.until("forebay status", &["main", "boiler"])?;
    page.until("forebay audit", &["main: exact", "boiler"])?;
    page.run("forebay dead-letters list")?;
    page.run("forebay dead-letters replay --all")?;
    assert!(gateway.terminate(LIMIT)?.success());
    assert_ne!(InfluxDb::DATABASE, "sensors", "or the page's command would have nothing to do");
    let moved = "[[influxdb]]\nname = \"moved\"\nversion = 1\ndatabase = \"moved\"\n";
    let new = format!("{moved}url = {:?}\n", server.url());
    page.write(CONFIG, &format!("data_dir = \"data\"\n[[mqtt]]\nurl = \"{url}\"\n{source}{version_1}{new}"))?;
    history_is_moved(&mut page, &server)?;
    drop(server);
    page.close()
}

/// The new database begins with what the old one lacks, and the page's commands bring it the rest.
fn history_is_moved(page: &mut Stage, server: &InfluxDb) -> anyhow::Result<()> {
    let ask = |page: &Stage, what: &str| {
        let query = format!("curl -sS {}/query --data-urlencode db=moved --data-urlencode", server.url());
        Ok::<_, anyhow::Error>(page.typed(&format!("{query} 'q={what}'"), "")?.text)
    };
    ask(page, "CREATE DATABASE moved")?;
    let mut gateway = page.gateway_by(&format!("forebay run --config {CONFIG}"))?;
    page.connected()?;
    assert!(page.typed("mosquitto_pub -t sensors/boiler -q 1 -m '{\"t\":2}'", "")?.good);
    let values = "SELECT t FROM climate";
    wait_for("the new row in the new database", LIMIT, || {
        let said = ask(page, values).map_err(|error| error.to_string())?;
        if said.contains(",2]") { Ok(()) } else { Err(said) }
    })?;
    let said = ask(page, values)?;
    assert!(!said.contains(",1]"), "what the old database has is not sent again: {said}");
    page.run("forebay export")?;
    page.run("split --line-bytes")?;
    let said = ask(page, values)?;
    assert!(said.contains(",1]") && said.contains(",2]"), "{said}");
    let count = ask(page, "SELECT count(t) FROM climate")?;
    assert!(count.contains(",2]"), "what comes twice is stored once: {count}");
    assert!(gateway.terminate(LIMIT)?.success());
    Ok(())
}
