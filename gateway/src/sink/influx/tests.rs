//! The write paths before a scripted server.

use super::*;
use crate::record::{Offset, Value};
use crate::sink::batch::OwnPoint;
use crate::sink::scripted_server::{Script, ScriptedServer};

fn points(count: i64) -> Vec<OwnPoint> {
    let fields = || vec![("v".to_owned(), Value::Unsigned(1))];
    let point = |n| OwnPoint { series: "m,device=d".to_owned(), ns: 7 + n, fields: fields(), device: None };
    (0..count).map(point).collect()
}

fn part(points: &[OwnPoint]) -> Part<'_> {
    Part::of_points(points, Offset(0))
}

fn v1() -> Target {
    Target::V1 { database: "db".into(), retention_policy: None, credentials: None }
}

fn v2() -> Target {
    Target::V2 { org: "org".into(), bucket: "b".into(), token: None }
}

fn v3() -> Target {
    Target::V3 { database: "db".into(), token: None }
}

fn open() -> Target {
    Target::Open { database: "db".into(), token: None }
}

/// What one of five points becomes of one answer.
async fn answer(target: Target, script: Script) -> Outcome {
    let server = ScriptedServer::start(vec![script]);
    let mut sink = Influx::new(&server.url(), target).unwrap();
    sink.write(&part(&points(5))).await
}

#[tokio::test]
async fn a_request_names_target_precision_and_who_writes_below_the_prefix_of_the_url() {
    let credentials = Credentials { username: "u".into(), password: "p&q".into() };
    let year = Some("year".to_owned());
    let token = || Some("t0ken".to_owned());
    let targets = [
        (
            Target::V1 { database: "my db".into(), retention_policy: year, credentials: Some(credentials) },
            "post /influx/write?db=my+db&precision=ns&rp=year http/1.1",
            "authorization: basic dtpwjne=",
            "m,device=d v=1i 7\n",
        ),
        (
            Target::V2 { org: "my org".into(), bucket: "b".into(), token: token() },
            "post /influx/api/v2/write?bucket=b&org=my+org&precision=ns http/1.1",
            "authorization: token t0ken",
            "m,device=d v=1u 7\n",
        ),
        (
            Target::V3 { database: "my db".into(), token: token() },
            "post /influx/api/v3/write_lp?db=my+db&precision=nanosecond&accept_partial=true http/1.1",
            "authorization: bearer t0ken",
            "m,device=d v=1u 7\n",
        ),
    ];
    for (target, line, authorization, lines) in targets {
        let server = ScriptedServer::start(vec![Script::Answer("204 No Content", "")]);
        let mut sink = Influx::new(&format!("{}/influx/", server.url()), target).unwrap();
        assert_eq!(sink.write(&part(&points(1))).await, Outcome::Confirmed);
        let requests = server.requests();
        let head = &requests[0].head;
        assert!(head.starts_with(line), "{head}");
        assert!(head.contains("content-encoding: gzip") && head.contains(authorization), "{head}");
        assert_eq!(requests[0].lines, lines);
        assert!(sink.sent_bytes() > 20, "{}", sink.sent_bytes());
    }
}

#[tokio::test]
async fn answers_are_read_with_their_retry_after_and_a_body_that_breaks_off_keeps_its_status() {
    for target in [v1(), v2(), v3()] {
        let outcome = answer(target.clone(), Script::Answer("503 Busy\r\nRetry-After: 9", "")).await;
        assert!(matches!(outcome, Outcome::Retry { after: Some(a), .. } if a == Duration::from_secs(9)));
        let date =
            "429 Busy\r\nDate: Wed, 21 Oct 2026 07:28:00 GMT\r\nRetry-After: Wed, 21 Oct 2026 07:28:30 GMT";
        let outcome = answer(target.clone(), Script::Answer(date, "")).await;
        assert!(
            matches!(outcome, Outcome::Retry { after: Some(a), unknown: false, .. } if a == Duration::from_secs(30))
        );
        let outcome = answer(target.clone(), Script::Half("401 Unauthorized", "no token was given")).await;
        assert!(matches!(outcome, Outcome::Hold { .. }), "{outcome:?}");
        let partial = r#"{"error":"partial write: field type conflict dropped=1"}"#;
        let outcome = answer(target.clone(), Script::Half("400 Bad Request", partial)).await;
        assert!(matches!(outcome, Outcome::Retry { unknown: true, .. }), "{outcome:?}");
        let outcome = answer(target.clone(), Script::Answer("400 Bad Request", partial)).await;
        assert!(matches!(outcome, Outcome::Rejected { .. }), "{outcome:?}");
        let outcome = answer(target, Script::Answer("302 Found\r\nLocation: /", "")).await;
        assert!(matches!(outcome, Outcome::Retry { unknown: true, .. }), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_cut_leaves_the_outcome_unknown_and_a_refused_connection_does_not() {
    assert!(matches!(answer(v2(), Script::Cut).await, Outcome::Retry { unknown: true, .. }));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut sink = Influx::new(&format!("http://{free}"), v2()).unwrap();
    let points = points(1);
    assert!(matches!(sink.write(&part(&points)).await, Outcome::Retry { unknown: false, .. }));
    assert!(!sink.is_back().await, "nobody is there yet");
}

#[tokio::test]
async fn only_who_did_not_answer_is_asked_whether_it_is_back() {
    for (script, is_asked) in [
        (Script::Cut, true),
        (Script::Answer("502 Bad Gateway", ""), true),
        (Script::Answer("504 Timeout\r\nRetry-After: 60", ""), false),
        (Script::Answer("429 Too Many", ""), false),
        (Script::Answer("503 Busy", ""), false),
    ] {
        let server = ScriptedServer::start(vec![script, Script::Answer("204 No Content", "")]);
        let mut sink = Influx::new(&server.url(), v1()).unwrap();
        sink.write(&part(&points(1))).await;
        assert_eq!(sink.is_back().await, is_asked);
        let asked = server.requests().len() == 2;
        assert!(asked == is_asked && (!asked || server.requests()[1].head.starts_with("get /ping ")));
    }
}

#[tokio::test]
async fn version_3_names_the_lines_that_it_refuses() {
    let body = r#"{"error":"partial write of line protocol occurred","data":[
        {"original_line":"m,device=d v=1u 9","line_number":3,"error_message":"invalid column type"}]}"#;
    let refused = vec![(2, "400: invalid column type".to_owned())];
    assert_eq!(answer(v3(), Script::Answer("400 Bad Request", body)).await, Outcome::Partial { refused });
    // The same words of another version are searched.
    assert!(matches!(answer(v1(), Script::Answer("400 Bad Request", body)).await, Outcome::Rejected { .. }));
}

#[tokio::test]
async fn lines_that_cannot_be_read_are_named_by_their_text_and_all_of_them_by_their_count() {
    let body = r#"{"code":"invalid","message":"unable to parse 'm,device=d v=1u 8': out of range\nunable to parse 'm,device=d v=1u 11': out of range"}"#;
    let outcome = answer(v2(), Script::Answer("400 Bad Request", body)).await;
    assert!(matches!(&outcome, Outcome::RejectedNamed { points, .. } if *points == [1, 4]), "{outcome:?}");
    let body =
        r#"{"code":"unprocessable entity","message":"partial write: field type conflict: x dropped=5"}"#;
    let outcome = answer(v2(), Script::Answer("422 Unprocessable", body)).await;
    assert!(matches!(outcome, Outcome::RejectedAll { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_version_that_is_left_open_is_the_servers_to_say_and_is_asked_again_after_a_404() {
    let found = |version: &'static str| Script::Answer(version, "");
    let server = ScriptedServer::start(vec![
        Script::Answer("503 Busy", ""),
        Script::Answer("200 OK", "<html>Welcome</html>"),
        found("204 No Content\r\nX-Influxdb-Version: 1.6.7"),
        Script::Answer("204 No Content", ""),
        Script::Answer("404 Not Found", "404 page not found"),
        found("200 OK\r\nX-Influxdb-Version: 3.0.1"),
        Script::Answer("204 No Content", ""),
        Script::Answer("204 No Content", ""),
    ]);
    let mut sink = Influx::new(&server.url(), open()).unwrap();
    let points = points(1);
    let mut outcomes = Vec::new();
    for _ in 0..6 {
        outcomes.push(sink.write(&part(&points)).await);
    }
    assert!(matches!(outcomes[0], Outcome::Retry { unknown: false, .. }), "nothing is guessed: {outcomes:?}");
    assert!(matches!(&outcomes[1], Outcome::Hold { reason } if reason.contains("write `version`")));
    assert_eq!(outcomes[2], Outcome::Confirmed);
    assert!(matches!(outcomes[3], Outcome::Hold { .. }), "{outcomes:?}");
    assert_eq!(outcomes[4..], [Outcome::Confirmed, Outcome::Confirmed]);
    let paths: Vec<String> = server
        .requests()
        .iter()
        .map(|request| request.head.split(['?', ' ']).nth(1).unwrap_or_default().to_owned())
        .collect();
    let expected =
        ["/ping", "/ping", "/ping", "/write", "/write", "/ping", "/api/v3/write_lp", "/api/v3/write_lp"];
    assert_eq!(paths, expected);
}

#[tokio::test]
async fn a_server_whose_version_does_not_fit_the_configuration_is_told_of() {
    for (version, token, cure) in
        [("v2.7.1", None, "`org` and `bucket`"), ("1.8.10", Some("t".to_owned()), "takes no token")]
    {
        let head = format!("204 No Content\r\nX-Influxdb-Version: {version}").leak();
        let server = ScriptedServer::start(vec![Script::Answer(head, "")]);
        let target = Target::Open { database: "db".into(), token };
        let outcome = Influx::new(&server.url(), target).unwrap().write(&part(&points(1))).await;
        assert!(matches!(&outcome, Outcome::Hold { reason } if reason.contains(cure)), "{outcome:?}");
        assert!(
            server.requests().iter().all(|request| request.head.starts_with("get ")),
            "nothing is written"
        );
    }
}

#[test]
fn what_cannot_be_sent_is_refused_at_once() {
    let refusal = |url, token: &str| {
        let target = Target::V2 { org: "o".into(), bucket: "b".into(), token: Some(token.into()) };
        Influx::new(url, target).err().unwrap()
    };
    assert!(matches!(refusal("h:8086", "t"), SinkError::Url { .. }));
    assert!(matches!(refusal("http://h", "a\nb"), SinkError::Token));
    let target = Target::Open { database: "d".into(), token: Some("a\nb".into()) };
    assert!(matches!(Influx::new("http://h", target), Err(SinkError::Token)));
}
