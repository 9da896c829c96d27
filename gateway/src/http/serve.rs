//! Serves the connections of a listener, each with a bound on everything that its client could draw out.
//!
//! A request's head comes whole within [`HEAD_PATIENCE`], which is also how long a connection may wait for its next request,
//! in at most [`HEAD_BYTES_MAX`] and [`HEADERS_MAX`] headers; what is answered is taken in time ([`super::patient`]). How many
//! connections there are says [`super::seats`]; bodies and answers are bounded in [`super::guard`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tracing::{debug, error};

use super::patient::{PATIENCE, Patient};
use super::refusals::{Reason, Refusals};
use super::seats::{Activity, Doing, Limits, Peer, Seats, UnderWay};
use crate::clock;
use crate::stats::RateLimit;

/// Longest time for the head of a request, from the end of the one before.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Pause after a connection that could not be accepted, for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long the place of a client stays taken that has sent what is no request, or had no token: there are few places for
/// one host, so it can do so a hundred times a second and not ten thousand.
pub(super) const PENALTY: Duration = Duration::from_millis(250);

/// What connections come from.
pub(super) trait Listener {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and whose it is.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Io, Peer)>> + Send;
}

impl Listener for TcpListener {
    type Io = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<(Self::Io, Peer)> {
        let (stream, address) = TcpListener::accept(self).await?;
        // What is written leaves at once; without it, it leaves a little later.
        stream.set_nodelay(true).ok();
        Ok((stream, Peer::of(address.ip())))
    }
}

impl Listener for UnixListener {
    type Io = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<(Self::Io, Peer)> {
        Ok((UnixListener::accept(self).await?.0, Peer::Control))
    }
}

/// Serves a listener for ever.
pub(super) async fn serve<L: Listener>(listener: L, router: Router, limits: Limits, refusals: Arc<Refusals>) {
    let seats = Seats::new(limits);
    let mut saying = RateLimit::once_a_minute();
    for id in 0.. {
        let (io, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_one_connection(&error) {
                    if let Some(further) = saying.allow(clock::monotonic()) {
                        error!(further, "the HTTP interface cannot accept a connection: {error}");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let Some(seat) = seats.take(id, peer) else {
            drop(io);
            refusals.count(Reason::Connections, peer);
            // Those that are being answered go on first.
            tokio::task::yield_now().await;
            continue;
        };
        let router = router.clone();
        let task = tokio::spawn(async move {
            converse(io, router, peer, &seat.activity).await;
        });
        seats.served_by(id, task.abort_handle());
        // A connection that had to make room is closed before there is another.
        tokio::task::yield_now().await;
    }
}

/// Whether the listener is as well as before.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Answers the requests of a connection until its client goes or breaks a rule.
async fn converse<T>(io: T, router: Router, peer: Peer, activity: &Arc<Activity>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(Patient::new(io, Arc::clone(activity), PATIENCE));
    let answer = service_fn(|mut request: Request<Incoming>| {
        let answer_begun = activity.begin(Doing::Answer);
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(Arc::clone(activity));
        let answer = TowerToHyperService::new(router.clone()).call(request);
        async move {
            Ok::<_, std::convert::Infallible>(
                answer.await?.map(|body| Counted { body, _answer: answer_begun }),
            )
        }
    });
    let mut connection = http1::Builder::new();
    connection
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    if let Err(error) = connection.serve_connection(io, answer).await {
        debug!(%error, "an HTTP connection has ended");
        if error.is_parse() {
            let _penalty = activity.begin(Doing::Penalty);
            tokio::time::sleep(PENALTY).await;
        }
    }
}

/// The body of an answer, which counts until it is sent or given up.
struct Counted {
    body: Body,
    _answer: UnderWay,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
