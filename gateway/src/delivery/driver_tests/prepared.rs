//! Bodies that are made while the request before them is on its way.

use std::io::Read as _;

use flate2::read::GzDecoder;

use super::*;
use crate::config::Filter;
use crate::sink::Batch;
use crate::sink::batch::Audience;
use crate::sink::influx::{Influx, Target};
use crate::sink::line_protocol::{Body, Dialect};
use crate::sink::scripted_server::{Script, ScriptedServer};

fn text(body: &Body) -> String {
    let mut text = String::new();
    GzDecoder::new(&body.gzip[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), body.lines);
    text
}

/// What the points of a batch are as one body.
fn whole(batch: &Batch, dialect: Dialect) -> Body {
    let points: Vec<usize> = (0..batch.points()).collect();
    batch.part(&points, batch.to()).body(dialect).unwrap()
}

/// A batch from an offset on, of a sink that does not want the device `b`.
fn batch(journal: &Journal, from: u64, rows_max: usize) -> Batch {
    let filter = crate::config::of_text(
        "data_dir = \"/d\"\n[[influxdb]]\nname = \"main\"\nurl = \"http://h\"\nversion = 1\ndatabase = \"d\"\n\
         match = { device = [\"a\"] }\n",
    );
    let filter: Filter = filter.influxdb[0].service.filter.clone();
    let mut batch = Batch::new(Arc::new(Audience { name: "main".into(), filter }), Offset(from));
    let mut reader = journal.reader(Offset(from));
    while let Read::Frame(frame) = reader.next().unwrap() {
        if !batch.add(&frame, &reader.fixes(), rows_max).whole_frame {
            break;
        }
    }
    batch
}

#[test]
fn a_body_that_was_made_before_its_turn_is_the_one_that_would_be_made_at_its_turn() {
    let journal = journal();
    for n in 0..6 {
        submit(&journal, "a", n * 200..n * 200 + 200);
        submit(&journal, "b", n..n + 1);
    }
    for (from, rows_max) in [(0, 2_000), (0, 700), (333, 700), (801, 1), (1_200, 5)] {
        let mut made = batch(&journal, from, rows_max);
        let expected = whole(&made, Dialect::V1);
        assert!(!text(&expected).contains("device=b"), "what is not wanted is no point");
        let mut frames = 0;
        while made.prepare(Dialect::V1) {
            frames += 1;
            assert!(text(&whole(&made, Dialect::V1)) == text(&expected), "half a body is not sent");
        }
        assert!(frames > 0);
        let ready = whole(&made, Dialect::V1);
        assert_eq!(text(&ready), text(&expected), "from {from}, {rows_max} rows");
        assert_eq!(ready.gzip.as_ptr(), whole(&made, Dialect::V1).gzip.as_ptr(), "it is made once");
        assert_eq!(whole(&made, Dialect::V2).lines, ready.lines, "of another dialect, it is made anew");
        assert_ne!(ready.gzip.as_ptr(), whole(&made, Dialect::V2).gzip.as_ptr());
        if made.points() > 1 {
            let rest: Vec<usize> = (1..made.points()).collect();
            let rest = text(&made.part(&rest, made.to()).body(Dialect::V1).unwrap());
            assert!(text(&ready).ends_with(&rest) && rest.len() < text(&ready).len(), "a part is no whole");
            made.advance(1);
            assert_eq!(text(&whole(&made, Dialect::V1)), rest, "what is dealt with is not sent again");
        }
    }
}

#[test]
fn a_body_that_was_begun_is_finished_and_whole() {
    let journal = journal();
    submit(&journal, "a", 0..2_000);
    let mut made = batch(&journal, 0, 2_000);
    let expected = text(&whole(&made, Dialect::V1));
    assert!(made.prepare(Dialect::V1) && made.prepare(Dialect::V1));
    made.finish_preparing();
    assert!(!made.prepare(Dialect::V1), "nothing is left to be made");
    assert_eq!(text(&whole(&made, Dialect::V1)), expected);
}

#[test]
fn a_backlog_reaches_a_server_line_by_line_once_whatever_it_answers_between() {
    let journal = journal();
    submit(&journal, "a", 0..3_000);
    let mut asked = 0;
    let server = ScriptedServer::answering(move |request| {
        asked += 1;
        match request.lines.lines().count() {
            501.. => Script::Answer("413 Payload Too Large", ""),
            _ if asked == 2 => Script::Answer("503 Service Unavailable", ""),
            _ => Script::Answer("204 No Content", ""),
        }
    });
    let target = Target::V1 { database: "db".into(), retention_policy: None, credentials: None };
    let sink = Influx::new(&server.url(), target).unwrap();
    let running = Running::start_with(&journal, "main", sink, 600, MemoryStorage::new());
    until(|| ledger(&journal, "a", "main") == (3_000, 0));
    running.stop();
    let mut lines: Vec<String> = Vec::new();
    for (number, request) in server.requests().into_iter().enumerate() {
        let sent: Vec<String> = request.lines.lines().map(str::to_owned).collect();
        if sent.len() <= 500 && number != 1 {
            lines.extend(sent);
        }
    }
    let expected: Vec<String> = (0..3_000).map(|ns| format!("m,device=a v=1i {ns}")).collect();
    assert_eq!(lines, expected);
}
