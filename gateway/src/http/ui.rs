//! The dashboard: a page and its scripts, as they lie in `ui/`, out of the binary.
//!
//! They are for everybody, since they hold nothing but themselves; what they show, they ask `/api/v1` for. The policy lets the
//! page load nothing from elsewhere, and run no script but these.

use std::convert::Infallible;
use std::sync::OnceLock;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};

/// What the page may do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const ICON: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($($path:literal $kind:ident $file:literal),+ $(,)?) => {
        /// Path, type and content of each file.
        static ASSETS: &[(&str, &str, &str)] = &[$(($path, $kind, include_str!(concat!("ui/", $file)))),+];
    };
}

assets! {
    "/" HTML "index.html",
    "/ui/style.css" CSS "style.css",
    "/ui/icon.svg" ICON "icon.svg",
    "/ui/app.js" SCRIPT "app.js",
    "/ui/ask.js" SCRIPT "ask.js",
    "/ui/chart.js" SCRIPT "chart.js",
    "/ui/devices.js" SCRIPT "devices.js",
    "/ui/letters.js" SCRIPT "letters.js",
    "/ui/overview.js" SCRIPT "overview.js",
    "/ui/view.js" SCRIPT "view.js",
}

/// The routes.
pub(super) fn router() -> Router {
    ASSETS.iter().fold(Router::new(), |router, (path, kind, text)| router.route(path, asset(kind, text)))
}

fn asset(kind: &'static str, text: &'static str) -> MethodRouter<(), Infallible> {
    get(move |headers: HeaderMap| async move { answer(&headers, kind, text) })
}

/// The file, unless the browser has it.
fn answer(asked: &HeaderMap, kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
        (ETAG, tag()),
    ];
    if asked.get(IF_NONE_MATCH).is_some_and(|known| known == tag()) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, Bytes::from_static(text.as_bytes())).into_response()
}

/// One mark for all files of this build.
fn tag() -> &'static str {
    static TAG: OnceLock<String> = OnceLock::new();
    TAG.get_or_init(|| {
        let sum = ASSETS.iter().fold(0, |sum, (_, _, text)| crc32c::crc32c_append(sum, text.as_bytes()));
        format!("\"{sum:08x}\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_known_is_not_sent_again() {
        let first = answer(&HeaderMap::new(), HTML, "x");
        assert_eq!(first.status(), StatusCode::OK);
        let policy = first.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let known = HeaderMap::from_iter([(IF_NONE_MATCH, first.headers()[ETAG].clone())]);
        assert_eq!(answer(&known, HTML, "x").status(), StatusCode::NOT_MODIFIED);
    }

    #[test]
    fn everything_is_small_and_nothing_is_inline() {
        let bytes: usize = ASSETS.iter().map(|(_, _, text)| text.len()).sum();
        assert!(bytes < 66_000, "{bytes} bytes");
        let page = ASSETS[0].2;
        for forbidden in ["<style", "style=", "onclick", "onload", "http:", "https:", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden} in the page");
        }
        assert!(page.matches("<script").count() == 1 && page.contains("src=\"/ui/app.js\""));
        let scripts = ASSETS.iter().filter(|(_, kind, _)| *kind == SCRIPT);
        for (path, _, text) in scripts {
            for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(forbidden), "{forbidden} in {path}");
            }
        }
    }
}
