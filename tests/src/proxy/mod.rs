//! Byte relays in front of a service: they record what passes, and cut it off at will.
//!
//! Each connection gets threads of its own, which end with the connection. A cut closes every connection and refuses new
//! ones until it is mended, which to the client looks like a service that is down.

mod http;
mod mqtt;
mod tap;

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;

pub use http::{HttpProxy, WriteCounts};
pub use mqtt::{MqttProxy, Redelivered};
pub use tap::{Cut, Direction, Figures, MqttTap, key_of};

/// How long a connection to the service behind the relay may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The listener and the switch that a proxy is built on.
#[derive(Debug)]
struct Relay {
    port: u16,
    switch: Arc<Switch>,
    acceptor: Option<JoinHandle<()>>,
}

/// Whether bytes flow, and through which sockets.
#[derive(Debug, Default)]
struct Switch {
    cut: AtomicBool,
    ended: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Listens on a free port and hands each connection, joined with one to `upstream`, to `serve` in a new thread.
    fn start(
        upstream: SocketAddr,
        serve: impl Fn(TcpStream, TcpStream) + Send + Sync + 'static,
    ) -> anyhow::Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("binding the proxy")?;
        let port = listener.local_addr()?.port();
        let switch = Arc::new(Switch::default());
        let (seen, serve) = (Arc::clone(&switch), Arc::new(serve));
        let acceptor = std::thread::Builder::new().name("proxy".into()).spawn(move || {
            for client in listener.incoming().flatten() {
                if seen.ended.load(Ordering::Acquire) {
                    break;
                }
                let Some((client, server)) = seen.admit(client, upstream) else { continue };
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(client, server));
            }
        })?;
        Ok(Relay { port, switch, acceptor: Some(acceptor) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.switch.ended.store(true, Ordering::Release);
        self.switch.close_all();
        // The acceptor waits in `accept`; one more connection lets it see that it has ended.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Switch {
    /// Joins a client to the service, unless the relay is cut or the service is down.
    fn admit(&self, client: TcpStream, upstream: SocketAddr) -> Option<(TcpStream, TcpStream)> {
        if self.cut.load(Ordering::Acquire) {
            return None;
        }
        let server = TcpStream::connect_timeout(&upstream, CONNECT_LIMIT).ok()?;
        for socket in [&client, &server] {
            socket.set_nodelay(true).ok()?;
        }
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.retain(|socket| socket.peer_addr().is_ok());
        sockets.push(client.try_clone().ok()?);
        sockets.push(server.try_clone().ok()?);
        drop(sockets);
        // A cut that came between the first look and the registration must close this connection as well.
        if self.cut.load(Ordering::Acquire) {
            self.close_all();
        }
        Some((client, server))
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.close_all();
    }

    fn mend(&self) {
        self.cut.store(false, Ordering::Release);
    }

    fn close_all(&self) {
        for socket in self.sockets.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            close(&socket);
        }
    }
}

/// Ends both directions; a socket that is closed already is what was wanted.
fn close(socket: &TcpStream) {
    let _ = socket.shutdown(Shutdown::Both);
}
