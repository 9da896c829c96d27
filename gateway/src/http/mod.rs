//! The HTTP interface: on a loopback address for people and monitors, on `data_dir/control.sock` for the commands.
//!
//! **Constraints.** It runs on the main thread beside nothing but signals, and must never block there: what reads the
//! disk goes to the blocking pool. Connections, requests, live streams and what a slow reader may hold up are bounded
//! (`serve.rs`, `seats.rs`, `patient.rs`), and on TCP not everybody may ask for everything (`guard.rs`).
//! **Operation.** [`api`] answers, [`metrics`] writes the same snapshot for Prometheus, [`live`] streams rows,
//! `query.rs` asks [`crate::query`]; [`dead_letters`] does what the commands of that name ask for, and `audit.rs` is on the
//! control socket alone. `ui.rs` has the dashboard, [`overview`] what it shows by the second, and `table.rs` its pages of
//! devices.
//! **Failure.** A client that is slow is skipped ahead and told so; one too many is closed, and what is refused is counted
//! (`refusals.rs`).

pub mod api;
mod audit;
pub mod dead_letters;
mod devices;
mod guard;
pub mod live;
pub mod metrics;
pub mod overview;
mod patient;
mod ports;
mod query;
mod refusals;
mod seats;
mod serve;
mod table;
mod ui;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use axum::routing::get;
use axum::{Router, middleware};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tracing::info;

pub use api::Api;
pub use dead_letters::Letters;
pub use guard::Token;

use crate::audit::Auditor;
use crate::config::Config;
use crate::journal::Journal;
use crate::query::Engine;
use crate::sink::SinkError;
use crate::stats::Stats;
use crate::stats::pulse::OnDisk;
use crate::terminal::plain;
use guard::Guard;
use seats::Limits;

/// Name of the control socket in `data_dir`.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Most connections over TCP, in all and from one host; fewer where the process may have few files open.
const TCP_LIMITS: Limits = Limits { total: 128, share: 32 };
/// Most connections on the control socket.
const CONTROL_LIMITS: Limits = Limits { total: 64, share: 64 };
/// What of the files that the process may have open connections over TCP may be, as a divisor. The journal, the ports and the
/// databases need the others.
const FILES_DIVISOR: u64 = 8;

/// The interface cannot be offered.
#[derive(Debug, Error)]
pub enum BindError {
    /// The address is taken, or is none of this machine.
    #[error("cannot listen on {address} (http.listen): {cause}; stop what uses the port, or choose another")]
    Tcp {
        /// As configured.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// What queries are answered from cannot be asked.
    #[error("cannot ask the query sink ([http] query_sink)")]
    QuerySink(#[from] SinkError),
    /// The control socket cannot be made.
    #[error("cannot make the control socket {}: {cause}; check that data_dir is writable and its path short", path.display())]
    Control {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// The interface, ready to answer.
#[derive(Debug)]
pub struct Server {
    tcp: TcpListener,
    control: UnixListener,
    api: Arc<Api>,
    token: Arc<Token>,
    letters: Option<Arc<Letters>>,
}

impl Server {
    /// Listens on the configured address, and on the control socket in place of what a killed process left there. The
    /// caller holds the lock on `data_dir`, and starts what delivers and receives after this, since what is lost lately is
    /// counted from here on.
    ///
    /// # Errors
    /// One of the two cannot be had.
    pub async fn bind(config: &Config, journal: &Journal, stats: &Arc<Stats>) -> Result<Server, BindError> {
        let address = config.http.listen;
        let wrap = |cause| BindError::Tcp { address, cause };
        let tcp = TcpListener::bind(address).await.map_err(wrap)?;
        let listen = tcp.local_addr().map_err(wrap)?;
        let control = bind_control(&config.data_dir)?;
        stats.set_listen(listen);
        info!("listening on http://{listen}");
        let (engine, auditor) = (Engine::new(config, journal)?, Auditor::new(config)?);
        let api = Api::new(journal.clone(), Arc::clone(stats), config, engine, auditor);
        // What is lost from here on is news.
        api.measure(&OnDisk::default());
        let token = Arc::new(Token::new(config.http.token.clone()));
        Ok(Server { tcp, control, api, token, letters: None })
    }

    /// What has to be borne over TCP.
    #[must_use]
    pub fn token(&self) -> Arc<Token> {
        Arc::clone(&self.token)
    }

    /// Offers the dead letters too.
    #[must_use]
    pub fn with_letters(self, letters: Letters) -> Server {
        Server { letters: Some(Arc::new(letters)), ..self }
    }

    /// Answers until it is dropped.
    pub async fn serve(self) {
        let Server { tcp, control, api, token, letters } = self;
        let refusals = Arc::clone(&api.refusals);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let guard = Arc::new(Guard::new(token, &host, Arc::clone(&refusals)));
        let on_letters = || letters.iter().cloned().map(dead_letters::router);
        let shared = on_letters().fold(router(Arc::clone(&api)), Router::merge);
        let shared = shared.layer(middleware::from_fn_with_state(guard, guard::on_tcp));
        let own = on_letters().fold(control_router(Arc::clone(&api)), Router::merge);
        let own = own.layer(middleware::from_fn(guard::on_control));
        tokio::join!(
            serve::serve(tcp, shared, tcp_limits(), Arc::clone(&refusals)),
            serve::serve(control, own, CONTROL_LIMITS, refusals),
            devices::follow(Arc::clone(&api)),
            overview::follow(Arc::clone(&api)),
            query::follow(api),
        );
    }
}

/// How many connections over TCP there may be.
fn tcp_limits() -> Limits {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = usize::try_from(files / FILES_DIVISOR).unwrap_or(usize::MAX).max(4);
    let Limits { total, share } = TCP_LIMITS;
    Limits { total: total.min(most), share: share.min(most / 4) }
}

fn bind_control(data_dir: &Path) -> Result<UnixListener, BindError> {
    let path = data_dir.join(CONTROL_SOCKET);
    let bind = || {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))?;
        Ok(listener)
    };
    bind().map_err(|cause| BindError::Control { path: path.clone(), cause })
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/healthz", get(api::health))
        .route("/readyz", get(api::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/status/live", get(overview::live))
        .route("/api/v1/devices", get(devices::devices))
        .route("/api/v1/table", get(table::table))
        .route("/api/v1/devices/{device}", get(devices::device))
        .route("/api/v1/ports", get(ports::ports))
        .route("/api/v1/query", get(query::query))
        .route("/api/v1/live", get(live::live))
        .with_state(api)
        .merge(ui::router())
        .fallback(nothing_there)
}

async fn nothing_there(uri: Uri) -> (StatusCode, String) {
    let path = plain(uri.path());
    let text =
        format!("there is nothing at {path}; the dashboard is at /, and what else there is in README.md\n");
    (StatusCode::NOT_FOUND, text)
}

/// What only the commands of this machine may ask for, beside everything else.
fn control_router(api: Arc<Api>) -> Router {
    let own = Router::new().route("/api/v1/audit", get(audit::audit)).with_state(Arc::clone(&api));
    router(api).merge(own)
}

#[cfg(test)]
mod tests;
