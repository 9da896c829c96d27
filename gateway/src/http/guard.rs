//! Who may ask for what over TCP, and what every answer says to a browser.
//!
//! **With a token** everything but health and the files of the dashboard wants it. **Without** one the interface is on a
//! loopback address, where whoever asks is a program of this machine, or a page in a browser of this machine, which may be
//! anybody's. Such a page is told nothing and can do nothing: the name that it asks for has to be this machine's, so that
//! no name of its own can be made to point here; a request that a browser says comes from another site is refused; and
//! nothing is changed without a token. No answer allows another site to read it, or to show it in a frame.
//!
//! What is not listed as open is closed, so that a new route is too.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, ORIGIN, REFERRER_POLICY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::{sleep, timeout};

use super::dead_letters;
use super::refusals::{Reason, Refusals};
use super::seats::{Activity, Doing, Peer, UnderWay};
use super::serve::PENALTY;
use crate::config::Secret;

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest time for it to come.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// Longest time until an answer begins, but for what waits for a database and has a bound of its own.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The rules on TCP.
#[derive(Debug)]
pub(super) struct Guard {
    token: Arc<Token>,
    /// The names of this machine, in lower case.
    names: Vec<String>,
    refusals: Arc<Refusals>,
}

/// What whoever asks over TCP has to bear, if anything; it may change while the interface is there.
#[derive(Debug, Default)]
pub struct Token(RwLock<Option<Secret>>);

impl Token {
    pub(super) fn new(token: Option<Secret>) -> Token {
        Token(RwLock::new(token))
    }

    /// From now on it is this one.
    pub fn set(&self, token: Option<Secret>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = token;
    }
}

type Refused = (Reason, StatusCode, String);

impl Guard {
    /// Guards the interface of this machine, whose name is `host`, by a token or, on a loopback address, without one.
    pub(super) fn new(token: Arc<Token>, host: &str, refusals: Arc<Refusals>) -> Guard {
        let host = host.to_ascii_lowercase();
        let names = vec![format!("{host}.local"), host, "localhost".to_owned()];
        Guard { token, names, refusals }
    }

    fn look(&self, request: &Request) -> Result<(), Refused> {
        let open = is_open(request.uri().path());
        let token = self.token.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(token) = token.as_ref() else {
            self.check_host(request)?;
            return if open {
                Ok(())
            } else {
                check_page(request.headers()).and(check_change(request.method()))
            };
        };
        if open || is_given(request.headers(), token.expose()) {
            return Ok(());
        }
        let cure =
            "send the header `Authorization: Bearer TOKEN`, where TOKEN is what [http] token_file holds";
        Err((Reason::Token, StatusCode::UNAUTHORIZED, format!("this needs the token: {cure}\n")))
    }

    /// A page whose own name has been made to point to this machine is of the same site as the gateway, for a browser.
    fn check_host(&self, request: &Request) -> Result<(), Refused> {
        let mut hosts = request.headers().get_all(HOST).iter();
        let is_known = match (hosts.next(), hosts.next()) {
            (None, _) => request.version() <= Version::HTTP_10,
            (Some(host), None) => host.to_str().is_ok_and(|host| self.is_ours(host)),
            (Some(_), Some(_)) => false,
        };
        let authority = request.uri().authority();
        if is_known && authority.is_none_or(|authority| self.is_ours(authority.as_str())) {
            return Ok(());
        }
        let cure = "ask for this machine by its address or name, or write a [http] token_file";
        let text = format!("the header Host names no name of this machine; {cure}\n");
        Err((Reason::Host, StatusCode::MISDIRECTED_REQUEST, text))
    }

    fn is_ours(&self, authority: &str) -> bool {
        let host = without_port(authority).trim_end_matches('.').to_ascii_lowercase();
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        address.parse::<IpAddr>().is_ok() || self.names.contains(&host)
    }
}

/// What anybody may have: whether the gateway is well, and the files of the dashboard, in which no data is.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/" | "/ui") || path.starts_with("/ui/")
}

/// A browser says whether a page of another site makes it ask; one that is too old for that says at least which site.
fn check_page(headers: &HeaderMap) -> Result<(), Refused> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_own = match (text(&FETCH_SITE), text(&ORIGIN)) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            origin.split_once("://").is_some_and(|(_, authority)| text(&HOST) == Some(authority))
        }
        (None, None) => true,
    };
    if is_own {
        return Ok(());
    }
    let text = "a page of another site may not ask this gateway; ask from the gateway's own page\n";
    Err((Reason::Page, StatusCode::FORBIDDEN, text.to_owned()))
}

fn check_change(method: &Method) -> Result<(), Refused> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let cure = "write a [http] token_file and send it with the request, or use the commands on this machine";
    Err((Reason::Change, StatusCode::FORBIDDEN, format!("nothing is changed without a token; {cure}\n")))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Whether the one header `Authorization` bears this token.
fn is_given(headers: &HeaderMap, token: &str) -> bool {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return false };
    let Some((scheme, given)) = value.as_bytes().split_at_checked("Bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"Bearer ") && is_equal(given, token.as_bytes())
}

/// Compares in a time that does not tell how many bytes agree.
fn is_equal(given: &[u8], token: &[u8]) -> bool {
    let mut difference = given.len() ^ token.len();
    for (index, byte) in token.iter().enumerate() {
        // Behind its end, what is given differs in every bit.
        let other = given.get(index).copied().unwrap_or(!byte);
        difference = std::hint::black_box(difference | usize::from(byte ^ other));
    }
    difference == 0
}

/// The layer of the interface on TCP.
pub(super) async fn on_tcp(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let open = is_open(request.uri().path());
    let response = match guard.look(&request) {
        Ok(()) if open => open_to_all(request, next).await,
        Ok(()) => {
            let is_quick = request.uri().path() != dead_letters::REPLAY;
            bounded(request, next, is_quick.then_some(ANSWER_PATIENCE)).await
        }
        Err((reason, status, text)) => {
            let peer = request.extensions().get().copied().unwrap_or(Peer::Control);
            guard.refusals.count(reason, peer);
            let mut response = (status, text).into_response();
            if reason == Reason::Token {
                // Whoever tries tokens is to do so slowly.
                let _penalty = begin(&request, Doing::Penalty);
                sleep(PENALTY).await;
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    };
    dressed(response, open)
}

/// The layer of the control socket, whose users may do everything.
pub(super) async fn on_control(request: Request, next: Next) -> Response {
    dressed(bounded(request, next, None).await, false)
}

/// What a connection begins with a request, if the connection is known.
fn begin(request: &Request, doing: Doing) -> Option<UnderWay> {
    request.extensions().get::<Arc<Activity>>().map(|activity| activity.begin(doing))
}

/// Answers what anybody may have, and waits for nothing: such a request has no body that matters.
async fn open_to_all(request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let headers = [(ALLOW, "GET, HEAD")];
        return (StatusCode::METHOD_NOT_ALLOWED, headers, "this can only be read; use GET\n").into_response();
    }
    let (parts, _) = request.into_parts();
    next.run(Request::from_parts(parts, Body::empty())).await
}

/// Takes a request's body before it is handed on, so that no handler waits for a client.
async fn bounded(request: Request, next: Next, limit: Option<Duration>) -> Response {
    let coming = begin(&request, Doing::Body);
    let (parts, body) = request.into_parts();
    let body = if body.is_end_stream() {
        body
    } else {
        match timeout(BODY_PATIENCE, to_bytes(body, BODY_BYTES_MAX)).await {
            Ok(Ok(bytes)) => Body::from(bytes),
            Ok(Err(_)) => {
                let text = format!("the body has more than {BODY_BYTES_MAX} bytes, or has broken off\n");
                return (StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
            }
            Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body took too long\n").into_response(),
        }
    };
    drop(coming);
    let answer = next.run(Request::from_parts(parts, body));
    let Some(limit) = limit else { return answer.await };
    timeout(limit, answer).await.unwrap_or_else(|_| {
        (StatusCode::SERVICE_UNAVAILABLE, "the answer took too long; ask again later\n").into_response()
    })
}

/// Says to browsers what they are not to do with an answer. What a handler has said itself stands.
fn dressed(mut response: Response, open: bool) -> Response {
    let headers = response.headers_mut();
    let mut say = |name, text| {
        headers.entry(name).or_insert(HeaderValue::from_static(text));
    };
    say(X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(REFERRER_POLICY, "no-referrer");
    say(X_FRAME_OPTIONS, "DENY");
    say(CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    if !open {
        say(CACHE_CONTROL, "no-store");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "a-token-of-sixteen-and-more";

    fn guard(token: Option<&str>) -> Guard {
        let token = token.map(|token| Secret::new(token.to_owned()));
        Guard::new(Arc::new(Token::new(token)), "Barn", Arc::default())
    }

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request {
        let builder = axum::http::Request::builder().method(method).uri(uri);
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(Body::empty()).unwrap()
    }

    /// Why a request is refused; none if it is not.
    fn reason(guard: &Guard, method: &str, uri: &str, headers: &[(&str, &str)]) -> Option<Reason> {
        guard.look(&request(method, uri, headers)).err().map(|(reason, ..)| reason)
    }

    #[test]
    fn the_token_is_wanted_for_everything_but_health_and_the_files_of_the_page() {
        let guard = guard(Some(TOKEN));
        for path in ["/healthz", "/readyz", "/", "/ui", "/ui/app.js"] {
            assert_eq!(reason(&guard, "GET", path, &[]), None, "{path}");
        }
        let bearer = format!("bearer {TOKEN}");
        let closed =
            ["/metrics", "/api/v1/status", "/api/v1/query?token=x", "/nothing", "/uix", "//ui/", "*"];
        for path in closed {
            assert_eq!(reason(&guard, "GET", path, &[]), Some(Reason::Token), "{path}");
            assert_eq!(reason(&guard, "POST", path, &[("authorization", &bearer)]), None, "{path}");
        }
        let query = format!("/api/v1/status?token={TOKEN}");
        assert_eq!(reason(&guard, "GET", &query, &[]), Some(Reason::Token));
    }

    #[test]
    fn nothing_but_the_token_itself_is_the_token() {
        let guard = guard(Some(TOKEN));
        let wrong = [
            String::new(),
            TOKEN.to_owned(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            format!("Basic {TOKEN}"),
            format!("Bearer  {TOKEN}"),
            format!("Bearer {TOKEN}x"),
            format!("Bearer {}", &TOKEN[1..]),
            format!("Bearer {}", &TOKEN[..TOKEN.len() - 1]),
            format!("Bearer {}", TOKEN.to_uppercase()),
        ];
        for text in &wrong {
            assert_eq!(
                reason(&guard, "GET", "/metrics", &[("authorization", text)]),
                Some(Reason::Token),
                "{text:?}"
            );
        }
        let right = format!("Bearer {TOKEN}");
        assert_eq!(reason(&guard, "GET", "/metrics", &[("authorization", &right)]), None);
        let twice = [("authorization", right.as_str()), ("authorization", "Bearer x")];
        assert_eq!(reason(&guard, "GET", "/metrics", &twice), Some(Reason::Token));
    }

    #[test]
    fn without_a_token_the_host_has_to_be_this_machine() {
        let guard = guard(None);
        let ours = [
            "127.0.0.1",
            "127.0.0.1:8686",
            "[::1]:8686",
            "[::1]",
            "192.168.1.5:80",
            "localhost:8686",
            "LocalHost.",
            "barn",
            "BARN.local:8686",
        ];
        for host in ours {
            assert_eq!(reason(&guard, "GET", "/metrics", &[("host", host)]), None, "{host}");
        }
        let others = [
            "evil.example",
            "evil.example:8686",
            "127.0.0.1.evil.example",
            "barn.evil.example",
            "localhost.evil.example",
            "localhost:x",
            "",
            ":8686",
        ];
        for host in others {
            assert_eq!(reason(&guard, "GET", "/metrics", &[("host", host)]), Some(Reason::Host), "{host}");
            assert_eq!(reason(&guard, "GET", "/healthz", &[("host", host)]), Some(Reason::Host), "{host}");
        }
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(reason(&guard, "GET", "/metrics", &twice), Some(Reason::Host));
        assert_eq!(reason(&guard, "GET", "/metrics", &[]), Some(Reason::Host));
        let elsewhere = reason(&guard, "GET", "http://evil.example/metrics", &[("host", "localhost")]);
        assert_eq!(elsewhere, Some(Reason::Host));
    }

    #[test]
    fn a_page_of_another_site_gets_nothing_and_nothing_is_changed_without_a_token() {
        let guard = guard(None);
        let look = |method: &str, path: &str, name: &str, value: &str| {
            reason(&guard, method, path, &[("host", "localhost:8686"), (name, value)])
        };
        for site in ["cross-site", "same-site", "", "new-word"] {
            assert_eq!(look("GET", "/api/v1/live", "sec-fetch-site", site), Some(Reason::Page), "{site}");
        }
        for origin in
            ["https://evil.example", "null", "http://localhost", "http://localhost:8686.evil.example"]
        {
            assert_eq!(look("GET", "/api/v1/live", "origin", origin), Some(Reason::Page), "{origin}");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(look("GET", "/api/v1/live", "sec-fetch-site", site), None, "{site}");
        }
        assert_eq!(look("GET", "/api/v1/live", "origin", "http://localhost:8686"), None);
        assert_eq!(look("GET", "/", "sec-fetch-site", "cross-site"), None, "a link may lead here");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "ANYTHING"] {
            assert_eq!(
                look(method, "/api/v1/dead-letters/drop", "accept", "*/*"),
                Some(Reason::Change),
                "{method}"
            );
        }
        assert_eq!(look("HEAD", "/api/v1/status", "accept", "*/*"), None);
    }
}
