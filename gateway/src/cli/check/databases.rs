//! Databases: offered a line that none of them stores, over the very path and with the rights that delivery uses.
//!
//! `forebay_check` is no line protocol, because it has no field. A server looks at token, organisation, bucket or
//! database first and at the line last, so that "unable to parse" is the answer of a server where everything is in
//! order, and a token that may write but not read is enough.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;

use super::Finding;
use crate::config::{Influxdb, InfluxdbApi, Secret};

/// Longest time for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes read of an answer.
const MAX_ANSWER_BYTES: usize = 4096;

const PROBE: &str = "forebay_check\n";

/// Whether the database is there and would take rows.
pub(super) async fn check(database: &Influxdb) -> Finding {
    // One may be installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(PATIENCE).redirect(Policy::none()).build();
    let client = client.map_err(|error| format!("the HTTP client cannot be made: {error}"))?;
    let url = write_url(database).map_err(|error| format!("influxdb.url is no URL: {error}"))?;
    let mut request = client.post(url).body(PROBE);
    match &database.api {
        InfluxdbApi::V1 { username: Some(username), password, .. } => {
            request = request.basic_auth(username, password.as_ref().map(Secret::expose));
        }
        InfluxdbApi::V2 { token: Some(token), .. } => {
            request = request.header("authorization", format!("Token {}", token.expose()));
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
    judge(&database.api, status, &body)
}

fn write_url(database: &Influxdb) -> Result<Url, String> {
    let path = match &database.api {
        InfluxdbApi::V1 { .. } => "/write",
        InfluxdbApi::V2 { .. } => "/api/v2/write",
    };
    let mut url = Url::parse(&format!("{}{path}", database.url)).map_err(|error| error.to_string())?;
    match &database.api {
        InfluxdbApi::V1 { database, retention_policy, .. } => {
            url.query_pairs_mut().append_pair("db", database).append_pair("precision", "ns");
            if let Some(policy) = retention_policy {
                url.query_pairs_mut().append_pair("rp", policy);
            }
        }
        InfluxdbApi::V2 { org, bucket, .. } => {
            let mut query = url.query_pairs_mut();
            query.append_pair("org", org).append_pair("bucket", bucket).append_pair("precision", "ns");
        }
    }
    Ok(url)
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

    fn database(api: InfluxdbApi) -> Influxdb {
        let (name, url) = ("main".to_owned(), "http://127.0.0.1:8086".to_owned());
        Influxdb { name, url, api, batch_size: 1, flush_interval: Duration::ZERO, read_token: None }
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
        let url = |api| write_url(&database(api)).unwrap().to_string();
        assert_eq!(url(v1()), "http://127.0.0.1:8086/write?db=a%26b&precision=ns&rp=week");
        assert_eq!(url(v2()), "http://127.0.0.1:8086/api/v2/write?org=home&bucket=sensors&precision=ns");
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
