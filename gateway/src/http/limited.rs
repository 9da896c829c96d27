//! A listener with a bounded number of connections: further ones stay in the kernel's queue. One whose client has stopped
//! reading is given up.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Longest time in which a client takes nothing of what is sent to it.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Limited<L> {
    listener: L,
    connections: Arc<Semaphore>,
}

impl<L> Limited<L> {
    pub(super) fn new(listener: L, connections: usize) -> Limited<L> {
        Limited { listener, connections: Arc::new(Semaphore::new(connections)) }
    }
}

impl<L: Listener> Listener for Limited<L> {
    type Io = Counted<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; if it were, the connection would be served uncounted.
        let permit = Arc::clone(&self.connections).acquire_owned().await.ok();
        let (io, address) = self.listener.accept().await;
        (Counted::new(io, permit, PATIENCE), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that counts until it is dropped.
pub(super) struct Counted<T> {
    io: T,
    _permit: Option<OwnedSemaphorePermit>,
    patience: Duration,
    /// Ends when the client has taken nothing for too long; none while it takes something.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> Counted<T> {
    fn new(io: T, permit: Option<OwnedSemaphorePermit>, patience: Duration) -> Counted<T> {
        Counted { io, _permit: permit, patience, stalled: None }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (io, mut client) = tokio::io::duplex(16);
        let mut counted = Counted::new(io, None, Duration::from_millis(50));
        let mut taken = [0; 20];
        let (written, read) = tokio::join!(counted.write_all(&[1; 32]), client.read_exact(&mut taken));
        written.unwrap();
        assert_eq!(read.unwrap(), 20);
        let error = counted.write_all(&[1; 32]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
