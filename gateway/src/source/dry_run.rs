//! `forebay run --dry-run`: shows what would be written, and touches nothing.
//!
//! Brokers are asked at QoS 0, with a clean session and a client id of its own, so that no session of the real gateway
//! is taken over and nothing is acked. Ports are only listened to, and marked as nobody's: a native device waits for an
//! answer and gets none, so all that can be shown of it is that it is there. Nothing is journaled, and rows are printed
//! as they come.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use forebay_shared::frame::Decoder;
use forebay_shared::message::FromDevice;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::mqtt;
use super::payload::{self, csv};
use super::serial::{
    self,
    lines::{Lines, Piece},
    port,
    text::{SILENCE_MS, is_whole},
};
use crate::clock;
use crate::config::{self, Config, Layout, Speech};
use crate::ingest::identity::Naming;
use crate::ports::Places;
use crate::sink::Point;
use crate::sink::line_protocol::{Dialect, push_line};
use crate::terminal::{plain, plain_lines};

/// Pause between two looks at a broker or port that is not there.
const PAUSE: Duration = Duration::from_secs(2);

/// Prints rows on standard output and remarks on standard error until the process is stopped.
///
/// # Errors
/// A thread or a runtime cannot be had.
pub fn run(config: &Config) -> std::io::Result<()> {
    let naming = Arc::new(Naming::new(config));
    for port in config.serial.clone() {
        let naming = Arc::clone(&naming);
        std::thread::Builder::new().name("serial".to_owned()).spawn(move || listen(&port, &naming))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut brokers = tokio::task::JoinSet::new();
        for broker in config.mqtt.clone() {
            brokers.spawn(subscribe(broker, Arc::clone(&naming)));
        }
        tokio::select! {
            () = async { while brokers.join_next().await.is_some() {} std::future::pending().await } => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    });
    runtime.shutdown_background();
    Ok(())
}

async fn subscribe(broker: config::Mqtt, naming: Arc<Naming>) {
    let url = &broker.url;
    loop {
        let id = format!("forebay-dry-run-{:08x}", getrandom::u32().unwrap_or_default());
        let connected = || eprintln!("{url}: connected");
        let end = mqtt::listen(&broker, id, &naming, connected, |topic, parsed| show(&parsed, topic)).await;
        eprintln!("{url}: {end}");
        tokio::time::sleep(PAUSE).await;
    }
}

fn show(parsed: &payload::Parsed, topic: &str) {
    let mut lines = String::new();
    for row in &parsed.rows {
        let ns = row.ns(clock::now_ns());
        push_line(&mut lines, Dialect::V2, &Point::of(row.series.as_str(), ns, &row.fields));
    }
    // Standard output that is gone, such as a pager that was left, is no reason to complain.
    std::io::stdout().write_all(plain_lines(&lines).as_bytes()).ok();
    if let Some(refusal) = &parsed.refused {
        eprintln!("{topic:?}: {} refused: {}", refusal.rows, plain(&refusal.reason));
    }
}

/// Looks for the ports of one `[[serial]]` and tells what is spoken on them.
fn listen(config: &config::Serial, naming: &Naming) {
    loop {
        for (path, _) in serial::find(&config.selector, &Places::default().ports()) {
            let name = path.display().to_string();
            match port::open_unmarked(&path, config.baud) {
                Ok(port) => match &config.speech {
                    Speech::Native => hear_devices(&port, &name),
                    Speech::Text(layout) => hear_lines(&port, &name, layout, naming),
                },
                Err(e) => eprintln!("{name}: {e}"),
            }
        }
        std::thread::park_timeout(PAUSE);
    }
}

fn hear_devices(port: &OwnedFd, name: &str) {
    let mut decoder: Decoder = Decoder::new();
    let mut known = BTreeSet::new();
    hear(port, name, |mut input| {
        while let Some(frame) = decoder.next(&mut input) {
            if let Some(Ok(FromDevice::Hello(hello))) = frame.ok().map(FromDevice::parse)
                && known.insert(hello.chip.to_string())
            {
                eprintln!(
                    "{name}: device {} ({}) waits for a gateway",
                    plain(hello.name.as_str()),
                    hello.chip
                );
            }
        }
    });
}

fn hear_lines(port: &OwnedFd, name: &str, layout: &Layout, naming: &Naming) {
    let mut text = Text { layout, table: csv::Table::of(layout), lines: Lines::new() };
    let opened = clock::monotonic_ms();
    hear(port, name, |input| {
        if clock::monotonic_ms() - opened >= u64::from(SILENCE_MS) {
            text.lines.note_silence();
        }
        text.read(naming, input, |parsed| show(parsed, name));
    });
}

/// The text of one port.
struct Text<'a> {
    layout: &'a Layout,
    table: Option<csv::Table>,
    lines: Lines,
}

impl Text<'_> {
    /// Hands over what the gateway would make of each line.
    fn read(&mut self, naming: &Naming, mut input: &[u8], mut take: impl FnMut(&payload::Parsed)) {
        while let Some(piece) = self.lines.next(&mut input) {
            let line = match piece {
                Piece::Line(line) => line,
                Piece::Rest(line) if is_whole(self.layout, self.table.as_ref(), line) => line,
                // Both are refused by the gateway too, which says why.
                Piece::Rest(_) | Piece::TooLong(_) => continue,
            };
            take(&match &mut self.table {
                Some(table) => payload::parse_csv_line(self.layout, naming, table, line),
                None => payload::parse(self.layout, naming, &[], line),
            });
        }
    }
}

/// Hands over what comes until the port fails.
fn hear(port: &OwnedFd, name: &str, mut take: impl FnMut(&[u8])) {
    let mut buffer = [0; 1024];
    loop {
        let ready = poll(&mut [PollFd::new(port, PollFlags::IN)], None);
        match ready.and_then(|_| rustix::io::read(port, &mut buffer)) {
            Ok(0) => return eprintln!("{name}: the port is gone"),
            Ok(length) => take(&buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => return eprintln!("{name}: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, Selector};

    /// What is shown of a text that is heard from the opening of its port on.
    fn shown(format: Format, text: &str) -> Vec<String> {
        let fixed = |text: &str| Some(Selector::Fixed(text.to_owned()));
        let layout = Layout {
            device: fixed("d"),
            measurement: fixed("m"),
            tags_from: vec![config::JsonPath::parse("$.room").unwrap()],
            ..Layout::of(format)
        };
        let mut heard = Text { table: csv::Table::of(&layout), lines: Lines::new(), layout: &layout };
        let mut series = Vec::new();
        heard.read(&Naming::default(), text.as_bytes(), |parsed| {
            series.extend(parsed.rows.iter().map(|row| row.series.as_str().to_owned()));
        });
        series
    }

    #[test]
    fn a_first_line_is_left_out_only_if_it_may_be_cut() {
        let json = "{\"room\":\"a\",\"t\":1}\n{\"room\":\"b\",\"t\":2}\n";
        assert_eq!(shown(Format::Json, json), ["m,device=d,room=a", "m,device=d,room=b"]);
        let csv = Format::Csv { columns: None, separator: ',' };
        assert_eq!(
            shown(csv.clone(), "room,t\na,1\n"),
            ["m,device=d,room=a"],
            "its header names the columns"
        );
        let csv = Format::Csv { columns: Some(vec!["room".to_owned(), "t".to_owned()]), separator: ',' };
        assert_eq!(shown(csv, "llar,1\nb,2\n"), ["m,device=d,room=b"]);
    }
}
