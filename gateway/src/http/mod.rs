//! The HTTP interface: on a loopback address for people and monitors, on `data_dir/control.sock` for the commands.
//!
//! **Constraints.** It runs on the main thread beside nothing but signals, and must never block there: what reads the
//! disk goes to the blocking pool. Connections, live streams and what a slow reader may hold up are bounded.
//! **Operation.** [`api`] answers, [`metrics`] writes the same snapshot for Prometheus, [`live`] streams rows.
//! **Failure.** A client that is slow is skipped ahead and told so; one too many waits to be accepted.

pub mod api;
mod limited;
pub mod live;
pub mod metrics;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use axum::serve::Listener;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

pub use api::Api;

use limited::Limited;

/// Name of the control socket in `data_dir`.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Most connections on one listener; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// How long answers under way may take once the gateway stops.
const FAREWELL: Duration = Duration::from_secs(1);

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
    /// The control socket cannot be made.
    #[error("cannot make the control socket {}: {source}; check that data_dir is writable and its path short", path.display())]
    Control {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Listens on the configured address.
///
/// # Errors
/// The address is taken, or is none of this machine.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError::Tcp { address, source })
}

/// Makes the control socket, replacing what a killed process left. The caller holds the lock on `data_dir`, so that
/// no living process uses it.
///
/// # Errors
/// The directory is not writable, or its path is too long for a socket.
pub fn bind_control(data_dir: &Path) -> Result<UnixListener, BindError> {
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

/// All routes.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/healthz", get(api::health))
        .route("/readyz", get(api::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/live", get(live::live))
        .with_state(api)
}

/// Answers until `stop` becomes true, and then for a moment longer what is under way.
///
/// # Errors
/// The listener fails for good.
pub async fn serve<L>(listener: L, router: Router, stop: watch::Receiver<bool>) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let mut late = stop.clone();
    let served =
        axum::serve(Limited::new(listener, MAX_CONNECTIONS), router).with_graceful_shutdown(stopped(stop));
    tokio::select! {
        result = served.into_future() => result,
        () = async {
            // An error says that the sender is gone, which is the end too.
            let _ = late.wait_for(|stop| *stop).await;
            tokio::time::sleep(FAREWELL).await;
        } => Ok(()),
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error says that the sender is gone, which is the end too.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests;
