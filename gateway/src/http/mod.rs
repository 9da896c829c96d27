//! The HTTP interface: on a loopback address for people and monitors, on `data_dir/control.sock` for the commands.
//!
//! **Constraints.** It runs on the main thread beside nothing but signals, and must never block there: what reads the
//! disk goes to the blocking pool. Connections, live streams and what a slow reader may hold up are bounded.
//! **Operation.** [`api`] answers, [`metrics`] writes the same snapshot for Prometheus, [`live`] streams rows,
//! `query.rs` asks [`crate::query`]; `audit.rs` is on the control socket alone, and [`dead_letters`], which does what the
//! commands of that name ask for. `ui.rs` has the dashboard, [`overview`] what it shows by the second, and `table.rs` its
//! pages of devices.
//! **Failure.** A client that is slow is skipped ahead and told so; one too many waits to be accepted.

pub mod api;
mod audit;
pub mod dead_letters;
mod devices;
mod limited;
pub mod live;
pub mod metrics;
pub mod overview;
mod ports;
mod query;
mod table;
mod ui;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tracing::{error, info};

pub use api::Api;
pub use dead_letters::Letters;

use crate::audit::Auditor;
use crate::config::Config;
use crate::journal::Journal;
use crate::query::Engine;
use crate::sink::SinkError;
use crate::stats::Stats;
use limited::Limited;

/// Name of the control socket in `data_dir`.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Most connections on one listener; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// The interface cannot be offered.
#[derive(Debug, Error)]
pub enum BindError {
    /// The address is taken, or is none of this machine.
    #[error("cannot listen on {address} (http.listen): {source}; stop what uses the port, or choose another")]
    Tcp {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// What queries are answered from cannot be asked.
    #[error("cannot ask the query sink ([http] query_sink): {0}")]
    QuerySink(#[from] SinkError),
    /// The control socket cannot be made.
    #[error("cannot make the control socket {}: {source}; check that data_dir is writable and its path short", path.display())]
    Control {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The interface, ready to answer.
#[derive(Debug)]
pub struct Server {
    tcp: TcpListener,
    control: UnixListener,
    api: Arc<Api>,
    letters: Option<Arc<Letters>>,
}

impl Server {
    /// Listens on the configured address, and on the control socket in place of what a killed process left there. The
    /// caller holds the lock on `data_dir`.
    ///
    /// # Errors
    /// One of the two cannot be had.
    pub async fn bind(config: &Config, journal: &Journal, stats: &Arc<Stats>) -> Result<Server, BindError> {
        let address = config.http.listen;
        let wrap = |source| BindError::Tcp { address, source };
        let tcp = TcpListener::bind(address).await.map_err(wrap)?;
        let listen = tcp.local_addr().map_err(wrap)?;
        let control = bind_control(&config.data_dir)?;
        stats.set_listen(listen);
        info!("listening on http://{listen}");
        let (engine, auditor) = (Engine::new(config, journal)?, Auditor::new(config)?);
        let api = Api::new(journal.clone(), Arc::clone(stats), config, engine, auditor);
        Ok(Server { tcp, control, api, letters: None })
    }

    /// Lets the control socket decide about dead letters too.
    #[must_use]
    pub fn with_letters(self, letters: Letters) -> Server {
        Server { letters: Some(Arc::new(letters)), ..self }
    }

    /// Answers until it is dropped, or until a listener fails for good.
    pub async fn serve(self) {
        let follow = devices::follow(Arc::clone(&self.api));
        let index = query::follow(Arc::clone(&self.api));
        let pulse = overview::follow(Arc::clone(&self.api));
        let control = control_router(Arc::clone(&self.api));
        let control =
            self.letters.into_iter().fold(control, |all, letters| all.merge(dead_letters::router(letters)));
        let tcp = axum::serve(Limited::new(self.tcp, MAX_CONNECTIONS), router(self.api));
        let control = axum::serve(Limited::new(self.control, MAX_CONNECTIONS), control);
        let ended = tokio::select! {
            ended = tcp.into_future() => ended,
            ended = control.into_future() => ended,
            () = follow => Ok(()),
            () = index => Ok(()),
            () = pulse => Ok(()),
        };
        if let Err(error) = ended {
            error!("the HTTP interface has failed: {error}");
        }
    }
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
    bind().map_err(|source| BindError::Control { path: path.clone(), source })
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/healthz", get(api::health))
        .route("/readyz", get(api::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/status/live", get(overview::live))
        .route("/api/v1/devices", get(devices::devices))
        .route("/api/v1/devices/table", get(table::table))
        .route("/api/v1/ports", get(ports::ports))
        .route("/api/v1/query", get(query::query))
        .route("/api/v1/live", get(live::live))
        .with_state(api)
        .merge(ui::router())
}

/// What only the commands of this machine may ask for, beside everything else.
fn control_router(api: Arc<Api>) -> Router {
    let own = Router::new().route("/api/v1/audit", get(audit::audit)).with_state(Arc::clone(&api));
    router(api).merge(own)
}

#[cfg(test)]
mod tests;
