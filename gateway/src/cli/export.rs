//! `forebay export`: everything that the query sink and the journal hold, each point once, page by page.
//!
//! *Operation.* A running gateway is asked over its control socket. If none runs, the journal is opened as the gateway would
//! open it, and asked here. A page begins where the one before it ended, so every point is in one page.
//!
//! *Failure.* A page that is not complete is asked for again a few times, and then printed with a word of warning: the
//! exit status is 1.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde_json::Value as Scalar;

use super::control::{Gateway, NotRunning, talk};
use super::owner;
use crate::clock;
use crate::config::Loaded;
use crate::journal::{Journal, Options};
use crate::query::{Answer, Engine, POINTS_MAX, Point, Query, typed};
use crate::record::{SeriesKey, Value};
use crate::sink;
use crate::sink::line_protocol::{Dialect, push_line};

/// How often a page is asked for that is not complete, and the pause before.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is said how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// What is wanted, and how.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// The beginning, in RFC 3339 or nanoseconds since 1970
    #[arg(long, allow_hyphen_values = true)]
    from: String,
    /// The end, which is not part of the export; now unless it is given
    #[arg(long, allow_hyphen_values = true)]
    to: Option<String>,
    /// How points are written
    #[arg(long)]
    format: Format,
    /// Only this device
    #[arg(long)]
    device: Option<String>,
    /// Only this measurement
    #[arg(long)]
    measurement: Option<String>,
}

/// How points are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each value, below a header
    Csv,
    /// A line for each point, with its time in nanoseconds
    LineProtocol,
}

/// Who answers.
enum Source {
    Running(Gateway),
    Offline(Journal, Box<Engine>),
}

/// Prints everything; exit status 1 if something was missing.
///
/// # Errors
/// Nobody can be asked, the question is refused, or standard output cannot be written.
pub(super) fn run(loaded: &Loaded, wanted: &Wanted) -> Result<ExitCode> {
    let now = clock::now_ns().to_string();
    let mut asked = vec![
        ("from", wanted.from.clone()),
        ("to", wanted.to.clone().unwrap_or(now)),
        ("limit", POINTS_MAX.to_string()),
    ];
    asked.extend(wanted.device.clone().map(|device| ("device", device)));
    asked.extend(wanted.measurement.clone().map(|measurement| ("measurement", measurement)));
    // Whoever asks gets the same words of refusal, with a gateway or without.
    parse(&asked)?;
    let source = Source::find(loaded)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = write_pages(&source, &mut asked, wanted.format, &mut out).and_then(|complete| {
        out.flush().context("standard output cannot be written")?;
        Ok(complete)
    });
    if let Source::Offline(journal, _) = source {
        journal.close();
    }
    match written {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        // Whoever reads has enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::BrokenPipe)
}

/// True if all pages were complete.
fn write_pages(
    source: &Source,
    asked: &mut [(&str, String)],
    format: Format,
    out: &mut impl Write,
) -> Result<bool> {
    if format == Format::Csv {
        out.write_all(b"time,ns,measurement,device,field,value,type,tags\r\n")?;
    }
    let (mut points, mut complete, mut told) = (0_u64, true, Instant::now());
    let mut text = String::new();
    let sink = loop {
        let answer = source.page(asked)?;
        for reason in &answer.reasons {
            eprintln!("forebay: not complete from {}: {}", asked[0].1, super::plain(reason));
        }
        complete &= answer.complete;
        text.clear();
        for point in &answer.points {
            match format {
                Format::Csv => push_csv(&mut text, point),
                Format::LineProtocol => push_line_protocol(&mut text, point)?,
            }
        }
        out.write_all(text.as_bytes())?;
        points += answer.points.len() as u64;
        let Some(next) = answer.next else { break answer.sink };
        if told.elapsed() >= PROGRESS {
            eprintln!("forebay: {points} points, up to {next}");
            told = Instant::now();
        }
        asked[0].1 = next;
    };
    eprintln!("forebay: {points} points exported from {sink:?} and the journal");
    Ok(complete)
}

fn parse(asked: &[(&str, String)]) -> Result<Query> {
    let pairs = asked.iter().map(|(key, text)| (*key, text.as_str()));
    Query::parse(pairs, clock::now_ns()).map_err(|fault| anyhow::anyhow!("--{fault}"))
}

impl Source {
    fn find(loaded: &Loaded) -> Result<Source> {
        match Gateway::find(&loaded.config.data_dir) {
            Ok(gateway) => return Ok(Source::Running(gateway)),
            Err(error) if error.is::<NotRunning>() => {}
            Err(error) => return Err(error),
        }
        let config = loaded.complete().context("no gateway runs, so the database is asked from here")?;
        let directory = owner::journal_of(&config.data_dir)?;
        let options = Options::from(&config.journal);
        let (journal, _) = Journal::open_dir(&directory, &options)
            .context("no gateway answers, so the journal is read itself")?;
        let engine = Engine::new(config, &journal)?;
        while engine.follow() {}
        Ok(Source::Offline(journal, Box::new(engine)))
    }

    /// One page; one that is not complete is asked for again, since databases come back.
    fn page(&self, asked: &[(&str, String)]) -> Result<Answer> {
        let mut tries = TRIES;
        loop {
            let answered = match self {
                Source::Offline(_, engine) => {
                    Ok(engine.answer(&parse(asked)?).map_err(|fault| anyhow::anyhow!("--{fault}"))?)
                }
                Source::Running(gateway) => ask(gateway, asked),
            };
            tries -= 1;
            match answered {
                Ok(answer) if answer.complete || tries == 0 => return Ok(answer),
                Err(error) if tries == 0 => return Err(error),
                _ => std::thread::sleep(PAUSE),
            }
        }
    }
}

fn ask(gateway: &Gateway, asked: &[(&str, String)]) -> Result<Answer> {
    let query: Vec<(&str, &str)> = asked.iter().map(|(key, text)| (*key, text.as_str())).collect();
    let text = talk(async {
        gateway.get("/api/v1/query", &query).await?.text().await.context("the gateway hung up")
    })?;
    serde_json::from_str(&text)
        .context("the answer cannot be read; is the gateway of the same version as this command?")
}

/// Appends a point as a line; its series is what it was when it was stored.
///
/// # Errors
/// The answer holds what no line protocol can carry, and so no gateway of ours has sent.
pub(super) fn push_line_protocol(out: &mut String, point: &Point) -> Result<()> {
    let mut tags = point.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let series = SeriesKey::new(&point.measurement, &mut tags)?;
    let fields: Vec<(String, Value)> =
        point.fields.iter().filter_map(|(name, value)| Some((name.clone(), typed(value)?))).collect();
    push_line(out, Dialect::V2, &sink::Point::of(series.as_str(), point.ns, &fields));
    Ok(())
}

/// Appends a line for each value, as the view `readings` of the embedded store has it.
fn push_csv(out: &mut String, point: &Point) {
    let device = point.tags.get("device").map_or("", String::as_str);
    let tags = serde_json::to_string(&point.tags).unwrap_or_default();
    for (field, value) in &point.fields {
        let (text, kind) = match value {
            Scalar::String(text) => (text.clone(), "text"),
            Scalar::Bool(value) => (value.to_string(), "boolean"),
            Scalar::Number(number) if number.is_f64() => (number.to_string(), "float"),
            value => (value.to_string(), "integer"),
        };
        let ns = point.ns.to_string();
        let cells = [&*point.time, &*ns, &*point.measurement, device, &**field, &*text, kind, &*tags];
        for (at, cell) in cells.into_iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            push_cell(out, cell);
        }
        out.push_str("\r\n");
    }
}

/// A cell as RFC 4180 has it.
fn push_cell(out: &mut String, cell: &str) {
    if cell.contains(['"', ',', '\r', '\n']) {
        out.push('"');
        out.push_str(&cell.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(cell);
    }
}
