//! `forebay query`: what the running gateway answers to a question.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use super::control::{Gateway, talk};
use super::export::push_line_protocol;
use crate::clock;
use crate::query::{Answer, Query};

/// What is asked, word for word as `/api/v1/query` takes it.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// Only this device
    #[arg(long)]
    device: Option<String>,
    /// Only this measurement
    #[arg(long)]
    measurement: Option<String>,
    /// Only this field
    #[arg(long)]
    field: Option<String>,
    /// The beginning, in RFC 3339 or nanoseconds since 1970; an hour ago unless it is given
    #[arg(long, allow_hyphen_values = true)]
    from: Option<String>,
    /// The end, which is not part of the answer
    #[arg(long, allow_hyphen_values = true)]
    to: Option<String>,
    /// Most points, up to 10000
    #[arg(long)]
    limit: Option<String>,
    /// Length of windows, such as 5m
    #[arg(long)]
    every: Option<String>,
    /// What becomes of the numbers in a window: mean, min or max
    #[arg(long)]
    aggregate: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the answer; exit status 1 if it is not complete.
///
/// # Errors
/// No gateway runs, or it refuses the question.
pub(super) fn run(data_dir: &Path, wanted: &Wanted) -> Result<ExitCode> {
    let parameters = [
        ("device", &wanted.device),
        ("measurement", &wanted.measurement),
        ("field", &wanted.field),
        ("from", &wanted.from),
        ("to", &wanted.to),
        ("limit", &wanted.limit),
        ("every", &wanted.every),
        ("aggregate", &wanted.aggregate),
    ];
    let given: Vec<(&str, &str)> =
        parameters.iter().filter_map(|(key, text)| Some((*key, text.as_deref()?))).collect();
    Query::parse(given.iter().copied(), clock::now_ns()).map_err(|fault| anyhow::anyhow!("--{fault}"))?;
    let gateway = Gateway::find(data_dir)?;
    let text = talk(async {
        gateway.get("/api/v1/query", &given).await?.text().await.context("the gateway hung up")
    })?;
    let answer: Answer = serde_json::from_str(&text)
        .context("the answer cannot be read; is the gateway of the same version as this command?")?;
    if wanted.json {
        println!("{text}");
    } else {
        let mut lines = String::new();
        for point in &answer.points {
            push_line_protocol(&mut lines, point)?;
        }
        for line in lines.lines() {
            println!("{}", super::plain(line));
        }
    }
    for reason in &answer.reasons {
        eprintln!("forebay: not complete: {}", super::plain(reason));
    }
    if let Some(next) = &answer.next {
        eprintln!("forebay: there may be more: go on with --from {next}");
    }
    Ok(if answer.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
