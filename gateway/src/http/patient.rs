//! A connection whose client has to take what it asked for: one that takes next to nothing for too long is given up.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::seats::Activity;

/// Longest time in which a client that has fallen behind takes less than [`PROGRESS_BYTES`].
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// What it has to take in that time.
const PROGRESS_BYTES: usize = 64 * 1024;

/// Wraps the bytes of a connection.
pub(super) struct Patient<T> {
    io: T,
    activity: Arc<Activity>,
    patience: Duration,
    /// Ends when the client has taken too little for too long; none while it is not behind.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Bytes that it has taken since it fell behind.
    taken: usize,
}

impl<T> Patient<T> {
    pub(super) fn new(io: T, activity: Arc<Activity>, patience: Duration) -> Patient<T> {
        Patient { io, activity, patience, stalled: None, taken: 0 }
    }

    /// The client has taken `taken` of what was offered, and may be `is_behind` with the rest.
    fn note(&mut self, taken: usize, is_behind: bool) {
        self.taken += taken;
        if !is_behind || self.taken >= PROGRESS_BYTES {
            (self.stalled, self.taken) = (None, 0);
        }
        self.activity.set_writing(is_behind);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write(context, bytes) {
            Poll::Ready(Ok(taken)) => {
                self.note(taken, taken < bytes.len());
                Poll::Ready(Ok(taken))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.activity.set_writing(true);
                let patience = self.patience;
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
                stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
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
        let mut patient = Patient::new(io, Arc::default(), Duration::from_millis(50));
        let mut taken = [0; 20];
        let (written, read) = tokio::join!(patient.write_all(&[1; 32]), client.read_exact(&mut taken));
        written.unwrap();
        assert_eq!(read.unwrap(), 20);
        let error = patient.write_all(&[1; 32]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_takes_a_byte_now_and_then_is_given_up_too() {
        let (io, mut client) = tokio::io::duplex(16);
        let mut patient = Patient::new(io, Arc::default(), Duration::from_millis(50));
        let trickling = tokio::spawn(async move {
            while client.read_u8().await.is_ok() {
                sleep(Duration::from_millis(1)).await;
            }
        });
        let error = patient.write_all(&vec![1; PROGRESS_BYTES]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(patient);
        trickling.await.unwrap();
    }
}
