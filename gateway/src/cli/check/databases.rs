//! Databases: offered a line that none of them stores, over the very path and with the rights that delivery uses.
//!
//! `forebay_check` is no line protocol, because it has no field. A server looks at token, organisation, bucket or
//! database first and at the line last, so that "unable to parse" is the answer of a server where everything is in
//! order, and a token that may write but not read is enough. Where the version is left open, the server is asked for it as
//! delivery asks. Of a bucket that is not there, the `influxdb2` crate tells which ones the token may see.

use std::time::Duration;

use influxdb2::ClientBuilder;
use influxdb2::api::buckets::ListBucketsRequest;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use reqwest_for_influxdb2 as http;
use serde::Deserialize;

use super::Finding;
use crate::config::{Influxdb, InfluxdbApi, Secret};
use crate::sink::Outcome;
use crate::sink::influx::{Influx, Target, Version};

/// Longest time for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes read of an answer.
const MAX_ANSWER_BYTES: usize = 4096;
/// Buckets that are named.
const BUCKETS_TOLD_MAX: usize = 10;

const PROBE: &str = "forebay_check\n";

/// Whether the database is there and would take rows.
pub(super) async fn check(database: &Influxdb) -> Finding {
    let (api, found) = match known(database).await {
        Ok(known) => known,
        Err(fault) => return Err(fault),
    };
    // One may be installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(PATIENCE).redirect(Policy::none()).build();
    let client = client.map_err(|error| format!("the HTTP client cannot be made: {error}"))?;
    let url = write_url(&database.url, &api).map_err(|error| format!("influxdb.url is no URL: {error}"))?;
    let mut request = client.post(url).body(PROBE);
    match &api {
        InfluxdbApi::V1 { username: Some(username), password, .. } => {
            request = request.basic_auth(username, password.as_ref().map(Secret::expose));
        }
        InfluxdbApi::V2 { token: Some(token), .. } => {
            request = request.header("authorization", format!("Token {}", token.expose()));
        }
        InfluxdbApi::V3 { token: Some(token), .. } => {
            request = request.bearer_auth(token.expose());
        }
        _ => {}
    }
    let mut response = request.send().await.map_err(|error| {
        format!("cannot be reached: {}; check that the database runs, and influxdb.url", causes(&error))
    })?;
    let status = response.status();
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            break;
        }
    }
    let finding = judge(&api, status, &body).map(|text| format!("{text}{found}"));
    match (&api, finding) {
        (InfluxdbApi::V2 { token, .. }, Err(fault)) if status == StatusCode::NOT_FOUND => {
            Err(fault + &buckets(&database.url, token.as_ref()).await)
        }
        (_, finding) => finding,
    }
}

/// The API, which the server is asked for where the configuration leaves it open, and what to say of that.
async fn known(database: &Influxdb) -> Result<(InfluxdbApi, String), String> {
    let InfluxdbApi::Open { database: name, token } = &database.api else {
        return Ok((database.api.clone(), String::new()));
    };
    let text = token.as_ref().map(|token| token.expose().to_owned());
    let target = Target::Open { database: name.clone(), token: text };
    let mut sink = Influx::new(&database.url, target).map_err(|error| error.to_string())?;
    let (database, token) = (name.clone(), token.clone());
    match sink.version().await {
        Ok(Version::V3) => {
            Ok((InfluxdbApi::V3 { database, token }, "; it says that it is of version 3".to_owned()))
        }
        Ok(Version::V1 | Version::V2) => {
            let api = InfluxdbApi::V1 { database, retention_policy: None, username: None, password: None };
            Ok((api, "; it says that it is of version 1".to_owned()))
        }
        Err(Outcome::Hold { reason }) => Err(reason),
        Err(Outcome::Retry { reason, .. }) => Err(format!(
            "cannot be asked for its version: {reason}; check that the database runs, and influxdb.url"
        )),
        Err(_) => Err("cannot be asked for its version; write `version`".to_owned()),
    }
}

fn write_url(base: &str, api: &InfluxdbApi) -> Result<Url, String> {
    let path = match api {
        InfluxdbApi::V1 { .. } => "/write",
        InfluxdbApi::V2 { .. } => "/api/v2/write",
        InfluxdbApi::V3 { .. } | InfluxdbApi::Open { .. } => "/api/v3/write_lp",
    };
    let mut url = Url::parse(&format!("{base}{path}")).map_err(|error| error.to_string())?;
    let mut query = url.query_pairs_mut();
    match api {
        InfluxdbApi::V1 { database, retention_policy, .. } => {
            query.append_pair("db", database).append_pair("precision", "ns");
            if let Some(policy) = retention_policy {
                query.append_pair("rp", policy);
            }
        }
        InfluxdbApi::V2 { org, bucket, .. } => {
            query.append_pair("org", org).append_pair("bucket", bucket).append_pair("precision", "ns");
        }
        InfluxdbApi::V3 { database, .. } | InfluxdbApi::Open { database, .. } => {
            query.append_pair("db", database).append_pair("precision", "nanosecond");
            query.append_pair("accept_partial", "true");
        }
    }
    drop(query);
    Ok(url)
}

/// The buckets that a token may see, in words; nothing where that cannot be known. The crate knows no path before its own.
async fn buckets(base: &str, token: Option<&Secret>) -> String {
    if Url::parse(base).is_ok_and(|url| url.path() != "/") {
        return String::new();
    }
    let builder =
        http::Client::builder().timeout(PATIENCE).redirect(http::redirect::Policy::none()).no_proxy();
    let token = token.map(Secret::expose).unwrap_or_default();
    let Ok(client) = ClientBuilder::with_builder(builder, base, "", token).build() else {
        return String::new();
    };
    let request = ListBucketsRequest { limit: Some(100), ..ListBucketsRequest::default() };
    let Ok(list) = client.list_buckets(Some(request)).await else { return String::new() };
    let mut names: Vec<String> = list.buckets.into_iter().map(|bucket| bucket.name).collect();
    names.retain(|name| !name.starts_with('_'));
    let further = names.len().saturating_sub(BUCKETS_TOLD_MAX);
    names.truncate(BUCKETS_TOLD_MAX);
    match (names.is_empty(), further) {
        (true, _) => "; the token may see no bucket".to_owned(),
        (false, 0) => format!("; the token may see the buckets {}", names.join(", ")),
        (false, further) => {
            format!("; the token may see the buckets {}, and {further} more", names.join(", "))
        }
    }
}

/// What InfluxDB's errors look like: version 1 has `error`, version 2 `code` and `message`.
#[derive(Debug, Default, Deserialize)]
struct ServerError {
    error: Option<String>,
    message: Option<String>,
}

fn judge(api: &InfluxdbApi, status: StatusCode, body: &[u8]) -> Finding {
    let error: ServerError = serde_json::from_slice(body).unwrap_or_default();
    let reason = error.message.or(error.error);
    let said = reason.as_deref().map(|reason| format!(": {reason:.200}")).unwrap_or_default();
    let (login, target) = match api {
        InfluxdbApi::V1 { database, .. } => {
            let cure = format!("create it with `CREATE DATABASE \"{database}\"`, or mend influxdb.database");
            (
                "influxdb.username and influxdb.password_file",
                format!("has no database {database:?}{said}; {cure}"),
            )
        }
        InfluxdbApi::V3 { database, .. } | InfluxdbApi::Open { database, .. } => {
            let cure = "a server of another version takes version = 1 or 2";
            ("influxdb.token_file", format!("has no database {database:?}{said}; {cure}"))
        }
        InfluxdbApi::V2 { org, bucket, .. } => {
            let cure = "create it, or mend influxdb.bucket and influxdb.org; a server of InfluxDB 1 takes version = 1";
            (
                "influxdb.token_file",
                format!("has no bucket {bucket:?} of {org:?} that the token may see{said}; {cure}"),
            )
        }
    };
    match status.as_u16() {
        200..=299 => Ok("takes rows".to_owned()),
        400 | 422 if reason.is_some() => Ok("takes rows".to_owned()),
        401 | 403 => {
            Err(format!("refuses the login ({status}){said}; check {login} and the rights to write"))
        }
        404 => Err(target),
        _ => Err(format!(
            "answers {status}, which no InfluxDB does{said}; check influxdb.url and what stands in between"
        )),
    }
}

/// An error with all its causes in one line; HTTP clients hide the telling one at the bottom.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        if next.is_none() {
            text = error.to_string();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::scripted_server::{Script, ScriptedServer};

    fn database(api: InfluxdbApi) -> Influxdb {
        let (name, url) = ("main".to_owned(), "http://127.0.0.1:8086".to_owned());
        let service = crate::config::Service::default();
        let flush_interval = Duration::ZERO;
        Influxdb { name, url, api, batch_size: 1, flush_interval, read_token: None, service }
    }

    fn v1() -> InfluxdbApi {
        InfluxdbApi::V1 {
            database: "a&b".to_owned(),
            retention_policy: Some("week".to_owned()),
            username: None,
            password: None,
        }
    }

    fn v2() -> InfluxdbApi {
        InfluxdbApi::V2 { org: "home".to_owned(), bucket: "sensors".to_owned(), token: None }
    }

    #[test]
    fn the_probe_goes_where_delivery_goes() {
        let url = |api| write_url("http://127.0.0.1:8086", &api).unwrap().to_string();
        assert_eq!(url(v1()), "http://127.0.0.1:8086/write?db=a%26b&precision=ns&rp=week");
        assert_eq!(url(v2()), "http://127.0.0.1:8086/api/v2/write?org=home&bucket=sensors&precision=ns");
        let v3 = InfluxdbApi::V3 { database: "d".to_owned(), token: None };
        assert_eq!(
            write_url("http://h/influx", &v3).unwrap().as_str(),
            "http://h/influx/api/v3/write_lp?db=d&precision=nanosecond&accept_partial=true"
        );
    }

    #[tokio::test]
    async fn a_missing_bucket_is_named_beside_those_that_there_are() {
        let server = ScriptedServer::answering(|request| {
            if request.head.starts_with("get /api/v2/buckets?") {
                assert!(request.head.contains("authorization: token t0ken"), "{}", request.head);
                let list = r#"{"buckets":[{"name":"_monitoring","retentionRules":[]},{"name":"home","retentionRules":[]}]}"#;
                Script::Answer("200 OK\r\nContent-Type: application/json", list)
            } else {
                Script::Answer(
                    "404 Not Found",
                    r#"{"code":"not found","message":"bucket \"sensors\" not found"}"#,
                )
            }
        });
        let token = Some(Secret::new("t0ken".to_owned()));
        let api = InfluxdbApi::V2 { org: "home".to_owned(), bucket: "sensors".to_owned(), token };
        let fault = check(&Influxdb { url: server.url(), ..database(api) }).await.unwrap_err();
        assert!(
            fault.contains("has no bucket \"sensors\"") && fault.ends_with("may see the buckets home"),
            "{fault}"
        );
    }

    #[tokio::test]
    async fn a_version_that_is_left_open_is_asked_for() {
        let unparseable = r#"{"error":"partial write of line protocol occurred","data":[]}"#;
        let open = InfluxdbApi::Open { database: "d".to_owned(), token: None };
        for (version, path, expected) in [
            ("3.1.0", "post /api/v3/write_lp?db=d", Ok("takes rows; it says that it is of version 3")),
            ("1.8.10", "post /write?db=d", Ok("takes rows; it says that it is of version 1")),
            ("v2.7.1", "", Err("wants `org` and `bucket`")),
            ("", "", Err("write `version`")),
        ] {
            let ping: &'static str = format!("200 OK\r\nX-Influxdb-Version: {version}").leak();
            let server =
                ScriptedServer::answering(move |request| match request.head.starts_with("get /ping") {
                    true => Script::Answer(ping, ""),
                    false => Script::Answer("400 Bad Request", unparseable),
                });
            let finding = check(&Influxdb { url: server.url(), ..database(open.clone()) }).await;
            match expected {
                Ok(text) => {
                    assert_eq!(finding.unwrap(), text);
                    assert!(server.requests()[1].head.starts_with(path));
                }
                Err(text) => assert!(finding.unwrap_err().contains(text), "{version}"),
            }
        }
    }

    #[test]
    fn answers_are_judged_by_what_to_mend() {
        let unparseable_v1 = r#"{"error":"unable to parse 'forebay_check': missing fields"}"#;
        let unparseable_v2 =
            r#"{"code":"invalid","message":"unable to parse 'forebay_check': missing fields"}"#;
        let no_database = r#"{"error":"database not found: \"a&b\""}"#;
        let no_bucket = r#"{"code":"not found","message":"bucket \"sensors\" not found"}"#;
        let unauthorized = r#"{"code":"unauthorized","message":"unauthorized access"}"#;
        for (api, code, body, expected) in [
            (v1(), 400, unparseable_v1, Ok("takes rows")),
            (v2(), 400, unparseable_v2, Ok("takes rows")),
            (v2(), 204, "", Ok("takes rows")),
            (
                v1(),
                404,
                no_database,
                Err("has no database \"a&b\": database not found: \"a&b\"; create it with"),
            ),
            (
                v2(),
                404,
                no_bucket,
                Err("has no bucket \"sensors\" of \"home\" that the token may see: bucket"),
            ),
            (v2(), 404, "404 page not found", Err("a server of InfluxDB 1 takes version = 1")),
            (
                v2(),
                401,
                unauthorized,
                Err("refuses the login (401 Unauthorized): unauthorized access; check influxdb.token_file"),
            ),
            (v1(), 403, "", Err("check influxdb.username and influxdb.password_file")),
            (
                v1(),
                400,
                "<html>bad request</html>",
                Err("answers 400 Bad Request, which no InfluxDB does; check influxdb.url"),
            ),
            (v2(), 502, "", Err("answers 502 Bad Gateway")),
        ] {
            let finding = judge(&api, StatusCode::from_u16(code).unwrap(), body.as_bytes());
            match (&finding, expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(text), Err(expected)) => assert!(text.contains(expected), "{text}"),
                _ => panic!("{code} {body}: {finding:?}"),
            }
        }
    }
}
