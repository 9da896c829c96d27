//! InfluxDB 2 and every store with its write API: `POST /api/v2/write?bucket=…&org=…&precision=ns`.
//!
//! A malformed line refuses the whole request; points of another type, or beyond the retention, leave the others stored,
//! and the answer names the first reason.

use super::SinkError;
use super::influx::{Version, WritePath};
use super::line_protocol::Dialect;
use super::server::{Authorization, Server};

/// The write path of a bucket. Without a token no `Authorization` is sent.
pub(super) fn path(
    server: &Server,
    org: &str,
    bucket: &str,
    token: Option<&str>,
) -> Result<WritePath, SinkError> {
    let mut url = server.url("/api/v2/write");
    let mut query = url.query_pairs_mut();
    query.append_pair("bucket", bucket).append_pair("org", org).append_pair("precision", "ns");
    drop(query);
    let authorization = Authorization::token("Token", token)?;
    Ok(WritePath { version: Version::V2, url, authorization, dialect: Dialect::V2 })
}
