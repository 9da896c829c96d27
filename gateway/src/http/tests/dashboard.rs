//! What the dashboard is made of and fed with.

use serde_json::Value as Json;

use super::{PATIENCE, Served, read_until};
use crate::http::overview::STREAMS_MAX;

impl Served {
    /// Opens a stream of statuses, and reads its first one.
    async fn first_status(&self) -> (tokio::net::TcpStream, Json) {
        let mut stream = self.connect("/api/v1/status/live").await;
        let text = tokio::time::timeout(PATIENCE, read_until(&mut stream, "}\n\n")).await.unwrap();
        let event = text.split("event: status\ndata: ").nth(1).unwrap();
        (stream, serde_json::from_str(event.split("\n\n").next().unwrap()).unwrap())
    }

    async fn json(&self, path: &str) -> Json {
        let (code, body) = self.get(path).await;
        assert_eq!(code, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[tokio::test]
async fn the_page_and_all_that_it_names_are_served_under_its_policy() {
    let served = Served::start().await;
    let (code, page) = served.get("/").await;
    assert_eq!(code, 200);
    let mut named: Vec<String> = Vec::new();
    let mut look = vec![page];
    while let Some(text) = look.pop() {
        for path in text.split(['"', '\'']).filter(|word| word.starts_with("/ui/")) {
            if !named.iter().any(|known| known == path) {
                named.push(path.to_owned());
                let (code, text) = served.get(path).await;
                assert_eq!(code, 200, "{path}");
                look.push(text);
            }
        }
    }
    assert!(named.len() > 8, "{named:?}");
    let head = read_until(&mut served.connect("/").await, "\r\n\r\n").await;
    assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{head}");
    assert_eq!(served.get("/ui/../api.rs").await.0, 404);
}

#[tokio::test]
async fn a_stream_has_a_status_without_devices_each_second_and_there_are_only_so_many() {
    let served = Served::start().await;
    served.stats.sink("main");
    served.rows("boiler", 0, 3).await;
    let (mut stream, status) = served.first_status().await;
    assert_eq!((&status["device_count"], &status["devices"]), (&1.into(), &serde_json::json!({})));
    assert_eq!(status["ledger"]["queued"], 3);
    assert_eq!(status["sinks"]["main"]["backlog_rows"], 3);
    assert!(status["machine"]["disk_free_bytes"].is_u64(), "{status}");
    served.rows("boiler", 3, 5).await;
    let seen = read_until(&mut stream, "\"queued\":5").await;
    assert!(seen.contains("event: status"), "{seen:.200}");

    let mut others = Vec::new();
    for _ in 1..STREAMS_MAX {
        let mut other = served.connect("/api/v1/status/live").await;
        read_until(&mut other, "HTTP/1.1 200").await;
        others.push(other);
    }
    let (code, text) = served.get("/api/v1/status/live").await;
    assert_eq!(code, 503, "{text}");
    others.pop();
    // The place is free again once the gateway has noticed, which it does at its next event.
    let path = "/api/v1/status/live";
    let again = async {
        loop {
            let mut stream = served.connect(path).await;
            if read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("a place for another stream");
}

#[tokio::test]
async fn pages_of_devices_are_filtered_ordered_and_bounded() {
    let served = Served::start().await;
    for number in 0..230_u64 {
        served.submit(&format!("meter-{number:03}"), 0, 1 + number % 3);
    }
    served.rows("Boiler", 0, 9).await;
    let names = |table: &Json| -> Vec<String> {
        let devices = table["devices"].as_array().unwrap().iter();
        devices.map(|device| device["name"].as_str().unwrap().to_owned()).collect()
    };
    let table = served.json("/api/v1/table").await;
    assert_eq!((&table["total"], &table["matching"]), (&231.into(), &231.into()));
    assert_eq!((names(&table).len(), names(&table)[0].as_str()), (25, "Boiler"));
    let boiler = &table["devices"][0];
    assert_eq!(
        (&boiler["rows"], &boiler["waiting"], &boiler["gaps"]),
        (&9.into(), &9.into(), &serde_json::json!({}))
    );
    let latest = &boiler["latest"][0];
    assert_eq!((&latest["measurement"], &latest["time_ns"]), (&"climate".into(), &8.into()));
    let field = serde_json::json!({ "name": "t", "value": 21.5, "unit": null });
    assert_eq!((&latest["fields"][0], &latest["spark"]), (&field, &serde_json::json!([21.5])));
    assert!(boiler["seen_ns"].is_i64() && boiler["clock"].is_null(), "{boiler}");

    let table = served.json("/api/v1/table?filter=R-22&offset=8&limit=5").await;
    assert_eq!(
        (&table["matching"], names(&table)),
        (&10.into(), vec!["meter-228".into(), "meter-229".into()])
    );
    let table = served.json("/api/v1/table?sort=rows&limit=3").await;
    assert_eq!(names(&table), ["Boiler", "meter-002", "meter-005"]);
    let table = served.json("/api/v1/table?limit=100000&offset=31").await;
    assert_eq!(names(&table).len(), 200, "a page has a limit");
    assert_eq!(names(&served.json("/api/v1/table?offset=1000").await), [""; 0]);
    assert_eq!(served.get("/api/v1/table?sort=colour").await.0, 400);
}
