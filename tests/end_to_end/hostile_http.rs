//! Hostile clients at the HTTP interface of the real gateway, while readings come from a broker: acks go on, nothing is lost,
//! and whoever has the token, or uses the control socket, is answered.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use forebay_tests::clock::wait_for;
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::hostile::{Attack, CONNECTIONS, Kind};
use forebay_tests::http::Http;

use crate::reads::site::Site;
use crate::world::{DRAIN_LIMIT, Scratch, program};

const TOKEN: &str = "the-token-of-these-tests-0123456789";

/// Readings that are acknowledged before, and beside each attack.
const READINGS: i64 = 2_000;

/// How soon a good client has to be answered, on a machine that the attackers share.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long an attack may take to be felt.
const BEGIN_LIMIT: Duration = Duration::from_secs(30);

/// The most memory and files that the gateway may use.
const RESIDENT_BYTES_MAX: u64 = 128 << 20;
const FILES_MAX: usize = 400;

/// A gateway whose interface wants the token.
fn guarded(test: &str) -> anyhow::Result<Site> {
    let scratch = Scratch::new(test)?;
    let mut site = Site::start(test, scratch, "")?;
    site.gateway.kill();
    site.gateway.require_token(TOKEN)?;
    site.gateway.resume()?;
    site.http = Http::bearing(TOKEN)?;
    Ok(site)
}

/// Has readings acknowledged, and asks in between as a good client does; how long it took, and the slowest answer.
fn work(site: &mut Site, first: i64) -> anyhow::Result<(Duration, Duration)> {
    let (start, mut slowest) = (Instant::now(), Duration::ZERO);
    let mut asking = Duration::ZERO;
    for hundred in (first..first + READINGS).step_by(100) {
        let readings = (hundred..hundred + 100).map(|number| site.reading("d0", number)).collect();
        site.write(readings)?;
        for path in ["/healthz", "/api/v1/status", "/metrics"] {
            let began = Instant::now();
            let answer = site.http.get(&site.gateway.url(path))?;
            ensure!(answer.status == 200, "{path} is answered with {}", answer.status);
            slowest = slowest.max(began.elapsed());
            asking += began.elapsed();
        }
    }
    Ok((start.elapsed().saturating_sub(asking), slowest))
}

fn open_files(id: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{id}/fd"))?.count())
}

/// Sends bytes and returns everything that is answered until the gateway closes the connection.
fn exchange(address: SocketAddr, request: &[u8]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    // The gateway may close before it has read everything.
    let written = stream.write_all(request);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    ensure!(!answer.is_empty() || written.is_err() || read.is_ok(), "neither an answer nor an end: {read:?}");
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn code(answer: &str) -> Option<u16> {
    answer.split(' ').nth(1)?.parse().ok()
}

#[test]
fn attacks_hold_up_no_ack_and_shut_nobody_out() -> anyhow::Result<()> {
    let mut site = guarded("hostile-http")?;
    let (quiet, _) = work(&mut site, 0)?;
    let address = site.gateway.http_address();
    for (kind, round) in Kind::ALL.into_iter().zip(1..) {
        let attack = Attack::start(kind, address)?;
        let figures = std::sync::Arc::clone(&attack.figures);
        let wanted = match kind {
            Kind::Connections => CONNECTIONS as u64,
            _ => 16,
        };
        wait_for("the attack", BEGIN_LIMIT, || match figures.opened.load(Ordering::Relaxed) {
            opened if opened >= wanted => Ok(()),
            opened => Err(format!("{opened} connections")),
        })?;
        let (attacked, slowest) = work(&mut site, round * READINGS)?;
        // The control socket is nobody's but the operator's.
        let status = program().output("status", &site.gateway.config())?;
        ensure!(status.status.success(), "forebay status: {}", String::from_utf8_lossy(&status.stderr));
        let files = open_files(site.gateway.id().context("it runs")?)?;
        let figures = attack.end()?;
        eprintln!(
            "{kind:?}: {READINGS} acks in {:.2} s (alone {:.2} s), slowest answer {:.0} ms, {files} files; {figures:?}",
            attacked.as_secs_f64(),
            quiet.as_secs_f64(),
            slowest.as_secs_f64() * 1e3,
        );
        ensure!(
            attacked <= 10 * quiet + Duration::from_secs(1),
            "{attacked:?} under {kind:?}, {quiet:?} without"
        );
        ensure!(slowest <= ANSWER_LIMIT, "{slowest:?} for an answer under {kind:?}");
        ensure!(files <= FILES_MAX, "{files} files are open under {kind:?}");
        ensure!(figures.let_in.load(Ordering::Relaxed) == 0, "somebody was let in without the token");
        let felt = match kind {
            Kind::WrongTokens => &figures.unauthorised,
            _ => &figures.closed,
        };
        ensure!(felt.load(Ordering::Relaxed) > 0, "{kind:?} was not stopped: {figures:?}");
    }
    let metrics = site.http.get(&site.gateway.url("/metrics"))?.body;
    let refused =
        |reason: &str| metrics.contains(&format!("forebay_http_refused_total{{reason=\"{reason}\"}} 0\n"));
    ensure!(!refused("token") && refused("host"), "{metrics}");
    let log = site.gateway.log_text()?;
    let lines = log.lines().filter(|line| line.contains("had no token, or a wrong one")).count();
    ensure!((1..=5).contains(&lines), "{lines} lines about tokens in the log");
    ensure!(!log.contains("guess-") && !log.contains(TOKEN), "a token is in the log");
    let usage = site.gateway.usage();
    ensure!(usage.resident_bytes_max < RESIDENT_BYTES_MAX, "{usage:?}");
    site.gateway.close(DRAIN_LIMIT)?;
    site.scratch.passed();
    Ok(())
}

#[test]
fn odd_requests_get_a_plain_answer_or_none() -> anyhow::Result<()> {
    let mut site = guarded("odd-http")?;
    let address = site.gateway.http_address();
    let ask = |head: &str| exchange(address, format!("{head}\r\n\r\n").as_bytes());
    let bearer = format!("Authorization: Bearer {TOKEN}\r\nConnection: close");
    let with = |line: &str| format!("{line} HTTP/1.1\r\nHost: evil.example\r\n{bearer}");
    // With the token, whoever asks is right, under whatever name.
    for (head, expected) in [
        (with("GET /api/v1/status"), 200),
        (with("GET /api/v1/dead-letters"), 200),
        (with("GET /api/v1/dead-letters/main-7"), 404),
        (with("GET /api/v1/dead-letters/%00%1b"), 400),
        (with("DELETE /api/v1/status"), 405),
        (with("BREW /api/v1/status"), 405),
        (with("GET /api/v1/audit"), 404),
        (with("GET /../../etc/passwd"), 404),
        (with("GET /api/v1/query?limit=%ff"), 400),
        ("GET /api/v1/status HTTP/1.1\r\nHost: x\r\nConnection: close".to_owned(), 401),
        (format!("GET /api/v1/status?token={TOKEN} HTTP/1.1\r\nHost: x\r\nConnection: close"), 401),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close".to_owned(), 401),
        ("GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close".to_owned(), 401),
        ("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close".to_owned(), 200),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close", "a".repeat(12_000)), 401),
        (with(&format!("GET /api/v1/status?{}", "a".repeat(20_000))), 431),
        (format!("{}\r\n{}", with("GET /healthz"), vec!["X: y"; 100].join("\r\n")), 431),
        ("\u{16}\u{3}\u{1}\u{2}".to_owned(), 400),
    ] {
        let answer = ask(&head)?;
        ensure!(code(&answer) == Some(expected), "{head:.200}\nis answered with\n{answer:.300}");
        let head = answer.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
        let is_ours = !matches!(expected, 400 | 431) || head.contains("content-type");
        for header in
            ["x-content-type-options: nosniff", "referrer-policy: no-referrer", "frame-ancestors 'none'"]
        {
            ensure!(!is_ours || head.contains(header), "no {header} in {head}");
        }
        ensure!(!head.contains("access-control"), "{head}");
        ensure!((expected == 401) == head.contains("www-authenticate: bearer"), "{head}");
    }
    let body = format!("{{\"ids\":[\"{}\"]}}", "a".repeat(2 << 20));
    let post = |length: usize, body: &str| {
        let head = with("POST /api/v1/dead-letters/drop");
        let head =
            format!("{head}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
        exchange(address, head.as_bytes())
    };
    let answer = post(body.len(), &body)?;
    ensure!(code(&answer).is_none_or(|code| code == 413), "{answer:.300}");
    let answer = post(20, "{\"ids\":[\"main-1\"]}  ")?;
    ensure!(code(&answer) == Some(200) && answer.contains("there is no such dead letter"), "{answer:.300}");
    // Its body never comes.
    let began = Instant::now();
    let answer = post(20, "{")?;
    ensure!(code(&answer) == Some(408) && began.elapsed() < Duration::from_secs(20), "{answer:.300}");

    work(&mut site, 0)?;
    site.gateway.close(DRAIN_LIMIT)?;
    site.scratch.passed();
    Ok(())
}

#[test]
fn without_a_token_a_page_can_do_nothing() -> anyhow::Result<()> {
    let scratch = Scratch::new("hostile-page")?;
    let mut site = Site::start("hostile-page", scratch, "")?;
    let address = site.gateway.http_address();
    let port = address.port();
    let ask = |line: &str, headers: &str| {
        let head = format!("{line} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
        exchange(address, head.as_bytes())
    };
    let own = format!("Host: localhost:{port}");
    for (line, headers, expected) in [
        ("GET /api/v1/status", own.clone(), 200),
        ("GET /api/v1/status", format!("Host: evil.example:{port}"), 421),
        ("GET /api/v1/status", format!("{own}\r\nOrigin: https://evil.example"), 403),
        ("GET /api/v1/live", format!("{own}\r\nSec-Fetch-Site: cross-site"), 403),
        ("POST /api/v1/dead-letters/drop", own.clone(), 403),
        ("OPTIONS /api/v1/dead-letters/drop", format!("{own}\r\nOrigin: https://evil.example"), 403),
    ] {
        let answer = ask(line, &headers)?;
        ensure!(code(&answer) == Some(expected), "{line} {headers}\nis answered with\n{answer:.300}");
        ensure!(!answer.to_ascii_lowercase().contains("access-control"), "{answer:.300}");
    }
    let refusal = ask("POST /api/v1/dead-letters/drop", &own)?;
    ensure!(refusal.contains("token_file"), "no cure in {refusal}");
    work(&mut site, 0)?;
    site.gateway.close(DRAIN_LIMIT)?;
    site.scratch.passed();
    Ok(())
}

/// Every file below a directory that somebody else may read, or that its group may change.
fn open_to_others(directory: &Path, found: &mut Vec<String>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let (entry, path) =
            (entry.as_ref().map(std::fs::DirEntry::metadata), entry.as_ref().map(std::fs::DirEntry::path));
        let (Ok(Ok(metadata)), Ok(path)) = (entry, path) else { continue };
        let is_socket = path.file_name().is_some_and(|name| name == "control.sock");
        let forbidden = if is_socket { 0o007 } else { 0o027 };
        if metadata.mode() & forbidden != 0 {
            found.push(format!("{} {:o}", path.display(), metadata.mode()));
        }
        if metadata.is_dir() {
            open_to_others(&path, found)?;
        }
    }
    Ok(())
}

#[test]
fn what_is_stored_and_held_is_nobody_elses() -> anyhow::Result<()> {
    let scratch = Scratch::new("private-files")?;
    let mut site = Site::start("private-files", scratch, "")?;
    work(&mut site, 0)?;
    let data_dir = forebay_tests::gateway::data_dir(&site.scratch.path().join("gateway"));
    let mode = std::fs::metadata(&data_dir)?.permissions().mode() & 0o777;
    ensure!(mode == 0o750, "data_dir has mode {mode:o}");
    let mut found = Vec::new();
    open_to_others(&data_dir, &mut found)?;
    ensure!(found.is_empty(), "others may use {found:?}");
    ensure!(std::fs::read_dir(data_dir.join("journal"))?.count() > 2, "there is no journal to look at");

    let id = site.gateway.id().context("it runs")?;
    let limits = std::fs::read_to_string(format!("/proc/{id}/limits"))?;
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).context("no limit")?;
    ensure!(cores.split_whitespace().skip(4).take(2).eq(["0", "0"]), "{cores}");
    site.gateway.close(DRAIN_LIMIT)?;
    site.scratch.passed();
    Ok(())
}

#[test]
fn beyond_loopback_only_with_a_token() -> anyhow::Result<()> {
    let scratch = Scratch::new("beyond-loopback")?;
    let directory = scratch.path().join("gateway");
    let gateway = Gateway::configure(program(), &directory, &Settings::default())?;
    let text = std::fs::read_to_string(gateway.config())?.replace("127.0.0.1", "0.0.0.0");
    std::fs::write(gateway.config(), text)?;
    let refused = program().output("run", &gateway.config())?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1), "{said}");
    ensure!(said.contains("http.listen: 0.0.0.0:") && said.contains("/dev/urandom"), "no cure in {said}");

    let mut gateway = gateway;
    gateway.require_token(TOKEN)?;
    gateway.resume()?;
    gateway.status()?;
    let process = std::fs::read(format!("/proc/{}/cmdline", gateway.id().context("it runs")?))?;
    ensure!(!String::from_utf8_lossy(&process).contains(TOKEN), "the token is in the process list");
    gateway.close(DRAIN_LIMIT)?;
    scratch.passed();
    Ok(())
}
