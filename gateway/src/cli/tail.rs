//! `forebay tail`: readings as they become durable.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::control::{Gateway, talk};

/// Longest line that is waited for, in bytes.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Prints rows until it is interrupted or the gateway stops.
///
/// # Errors
/// No gateway runs, or it hung up.
pub(super) fn run(data_dir: &Path, device: Option<&str>) -> Result<()> {
    let gateway = Gateway::find(data_dir)?;
    talk(async {
        let query: Vec<(&str, &str)> = device.map(|device| ("device", device)).into_iter().collect();
        let mut response = gateway.get("/api/v1/live", &query).await?;
        let mut events = Events::default();
        while let Some(chunk) = response.chunk().await.context("the gateway hung up")? {
            match print(&events.take(&chunk)?) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                printed => printed.context("standard output cannot be written")?,
            }
        }
        Ok(())
    })
}

fn print(lines: &[Line]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        match line {
            Line::Row(row) => writeln!(out, "{}", super::plain(row))?,
            Line::Skipped(entries) => {
                eprintln!("forebay: too slow; {entries} journal entries were not shown");
            }
        }
    }
    out.flush()
}

/// What an event says.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Row(String),
    Skipped(String),
}

/// Takes server-sent events apart, however they are cut into chunks.
#[derive(Debug, Default)]
struct Events {
    partial: Vec<u8>,
    skipped: bool,
}

impl Events {
    fn take(&mut self, chunk: &[u8]) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.len() > MAX_LINE_BYTES {
                bail!("the gateway sends a line that does not end");
            }
            if let Some(line) = self.partial.strip_suffix(b"\n") {
                let line = String::from_utf8_lossy(line).into_owned();
                self.partial.clear();
                lines.extend(self.line(&line));
            }
        }
        Ok(lines)
    }

    fn line(&mut self, line: &str) -> Option<Line> {
        if let Some(data) = line.strip_prefix("data: ") {
            let data = data.to_owned();
            return Some(if self.skipped { Line::Skipped(data) } else { Line::Row(data) });
        }
        self.skipped = line == "event: skipped";
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_put_together_however_they_are_cut() {
        let stream = b": live\n\ndata: m a=1 1\n\nevent: skipped\ndata: 7\n\ndata: m a=2 2\n\n";
        let expected = || {
            let row = |text: &str| Line::Row(text.to_owned());
            [row("m a=1 1"), Line::Skipped("7".to_owned()), row("m a=2 2")]
        };
        for size in 1..stream.len() {
            let mut events = Events::default();
            let lines: Vec<Line> =
                stream.chunks(size).flat_map(|chunk| events.take(chunk).unwrap()).collect();
            assert_eq!(lines, expected(), "chunks of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut events = Events::default();
        assert!(events.take(&vec![b'x'; MAX_LINE_BYTES + 1]).is_err());
    }
}
