//! The signals that the daemon hears.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::signal::unix::{self, SignalKind};

/// What a signal asks for.
#[derive(Clone, Copy)]
pub(super) enum Signal {
    Stop(&'static str),
    Reload,
}

/// The signals that are heard; one that the system does not let be heard is as if it never came.
pub(super) struct Signals {
    stops: [(Option<unix::Signal>, &'static str); 2],
    hangup: Option<unix::Signal>,
}

impl Signals {
    /// Hears them from now on. Needs the runtime.
    pub(super) fn new() -> Signals {
        let hear = |kind| unix::signal(kind).ok();
        let stops = [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT")];
        Signals { stops: stops.map(|(kind, name)| (hear(kind), name)), hangup: hear(SignalKind::hangup()) }
    }

    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            if let Poll::Ready(name) = self.poll_stop(context) {
                return Poll::Ready(Signal::Stop(name));
            }
            match self.hangup.as_mut().map(|heard| heard.poll_recv(context)) {
                Some(Poll::Ready(_)) => Poll::Ready(Signal::Reload),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// The next one that says to stop. Another is kept for later.
    pub(super) async fn stop(&mut self) -> &'static str {
        poll_fn(|context| self.poll_stop(context)).await
    }

    fn poll_stop(&mut self, context: &mut Context<'_>) -> Poll<&'static str> {
        for (heard, name) in &mut self.stops {
            if heard.as_mut().is_some_and(|heard| heard.poll_recv(context).is_ready()) {
                return Poll::Ready(name);
            }
        }
        Poll::Pending
    }
}
