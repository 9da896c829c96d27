//! `[http]`: where the interface listens, and who may ask.

use std::net::SocketAddr;
use std::path::Path;

use super::section::Section;
use super::{Http, Influxdb, SQLITE, secret};

/// Reads `[http]`, whose query sink is one of these databases.
pub(super) fn read(root: &mut Section<'_>, home: &Path, influxdb: &[Influxdb], sqlite: bool) -> Http {
    let names: Vec<&str> =
        influxdb.iter().map(|database| database.name.as_str()).chain(sqlite.then_some(SQLITE)).collect();
    let first = names.first().copied().unwrap_or(SQLITE).to_owned();
    let listen = SocketAddr::from(([127, 0, 0, 1], 8686));
    let mut http = Http { listen, token: None, query_sink: first };
    if let Some(mut section) = root.table("http") {
        http.listen = section.parsed("listen", parse_listen).unwrap_or(http.listen);
        http.token = secret::read(&mut section, "token", "token_file", home);
        if let Some(message) = http.token.as_ref().and_then(|token| token_fault(token.expose())) {
            section.fault(if section.has("token") { "token" } else { "token_file" }, message);
        }
        let is_secured = http.token.is_some() || section.has("token") || section.has("token_file");
        if !http.listen.ip().is_loopback() && !is_secured {
            section.fault("listen", beyond_loopback(http.listen));
        }
        // A database may be only unread, for want of a variable.
        let known = |text: &str| match names.contains(&text) || root.has_absent() {
            true => Ok(text.to_owned()),
            false => Err(format!("{text:?} is no sink of this configuration; name one of {names:?}")),
        };
        http.query_sink = section.parsed("query_sink", known).unwrap_or(http.query_sink);
        section.close();
    }
    http
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| format!("{text:?} is no address and port; write \"127.0.0.1:8686\""))?;
    Ok(address)
}

/// Fewest characters of a token; those of the command that is recommended have 44.
const TOKEN_LEAST: usize = 16;

/// How a token is made.
const TOKEN_CURE: &str = "make one with `(umask 077; head -c 32 /dev/urandom | base64 > http.token)`";

fn beyond_loopback(listen: SocketAddr) -> String {
    format!(
        "{listen} is reached from other machines, so it needs a token: {TOKEN_CURE} beside this file, let the gateway's user \
         read it, and write `token_file = \"http.token\"`; or write \"127.0.0.1:{}\"",
        listen.port()
    )
}

/// What keeps a text from being a token.
fn token_fault(token: &str) -> Option<String> {
    if token.len() < TOKEN_LEAST {
        return Some(format!("has {} characters, which can be guessed; {TOKEN_CURE}", token.len()));
    }
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_plain)
        .then(|| format!("has a space or a character outside ASCII, which no header can carry; {TOKEN_CURE}"))
}
