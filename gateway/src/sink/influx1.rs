//! InfluxDB 1 and every store that speaks like it: `POST /write?db=…&precision=ns`.
//!
//! User name and password travel as basic authentication, never in the address. Points that are refused leave the others
//! stored, and the answer says how many were dropped and why the first of them was.

use super::Credentials;
use super::influx::{Version, WritePath};
use super::line_protocol::Dialect;
use super::server::{Authorization, Server};

/// The write path of a database. Without a retention policy its default one is written.
pub(super) fn path(
    server: &Server,
    database: &str,
    retention_policy: Option<&str>,
    credentials: Option<&Credentials>,
) -> WritePath {
    let mut url = server.url("/write");
    url.query_pairs_mut().append_pair("db", database).append_pair("precision", "ns");
    if let Some(policy) = retention_policy {
        url.query_pairs_mut().append_pair("rp", policy);
    }
    let authorization = credentials.cloned().map_or(Authorization::None, Authorization::Basic);
    WritePath { version: Version::V1, url, authorization, dialect: Dialect::V1 }
}
