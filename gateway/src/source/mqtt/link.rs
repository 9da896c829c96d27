//! One connection to a broker: TCP, TLS where the URL says mqtts, and the bytes of both directions.
//!
//! In: an [`Outbox`] that is filled. Out: a [`Decoder`] that has something to say. Every error names what is wrong with
//! which part, and the key to change.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::outbox::{Greeting, Outbox};
use super::wire::{Decoder, Incoming, Welcome, WireError};
use crate::config::Mqtt;

/// How long a connection and the answer to the greeting may take.
pub(in crate::source) const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// The first byte of the answer to the greeting.
const CONNACK: u8 = 0x20;

const REACH: &str = "check that the broker runs, and host and port of mqtt.url";

/// Why there is no connection, or no more.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    /// Nothing answers there.
    #[error("cannot be reached: {0}; {REACH}")]
    Unreachable(io::Error),
    /// Something answers, or should, and takes too long.
    #[error("does not answer within {} s; {REACH}", PATIENCE.as_secs())]
    Silent,
    /// A file for TLS cannot be used.
    #[error("{0}")]
    File(String),
    /// The other side, or this one, ends the talk about TLS.
    #[error("{0}")]
    Tls(String),
    /// The connection is broken.
    #[error("the connection is lost: {0}")]
    Broken(io::Error),
    /// The broker has closed it.
    #[error("the broker has closed the connection{0}")]
    Closed(&'static str),
    /// The broker has closed it and said why.
    #[error("the broker ends the connection: {0}")]
    Farewell(String),
    /// The broker does not read what is sent to it.
    #[error("the broker does not read what is sent to it")]
    Stuck,
    /// The broker shows no sign of life.
    #[error("the broker has not answered a ping for {0} s")]
    Dead(u64),
    /// Another gateway serves the devices; the goodbye is said.
    #[error("another gateway serves the native devices")]
    Yielded,
    /// What it says is not MQTT.
    #[error("{0}")]
    Wire(String),
}

impl From<WireError> for LinkError {
    fn from(error: WireError) -> LinkError {
        match error {
            WireError::Refused(_) | WireError::Length | WireError::TooLong { .. } => {
                LinkError::Wire(error.to_string())
            }
            WireError::Malformed { .. } => LinkError::Wire(format!("{error}; {REACH}")),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection.
pub(super) struct Link {
    stream: Box<dyn Stream>,
    /// Whether TLS may have kept something back.
    is_unflushed: bool,
    pub(super) decoder: Decoder,
}

impl Link {
    /// Connects and introduces the gateway.
    ///
    /// # Errors
    /// The broker is not there, is not whom it should be, or does not let the gateway in.
    pub(super) async fn open(
        broker: &Mqtt,
        greeting: &Greeting,
        outbox: &mut Outbox,
    ) -> Result<(Link, Welcome), LinkError> {
        outbox.clear();
        tokio::time::timeout(PATIENCE, async {
            let stream = connect(broker).await?;
            let mut link = Link { stream, is_unflushed: false, decoder: Decoder::new(broker.version) };
            outbox.greet(greeting);
            loop {
                if let Some(Incoming::Welcome(welcome)) = link.decoder.next()? {
                    return Ok((link, welcome));
                }
                if link.decoder.bytes.first().is_some_and(|first| *first != CONNACK) {
                    return Err(LinkError::Wire(format!("does not answer like a broker; {REACH}")));
                }
                link.turn(outbox, true).await.map_err(|error| match error {
                    LinkError::Closed(_) | LinkError::Broken(_) if broker.tls.is_none() => LinkError::Closed(
                        " instead of answering the greeting; see its log, and write mqtts:// if the port is for TLS",
                    ),
                    LinkError::Closed(_) => {
                        LinkError::Closed(" instead of answering the greeting; see its log")
                    }
                    other => other,
                })?;
            }
        })
        .await
        .unwrap_or(Err(LinkError::Silent))
    }

    /// Sends what waits, and returns once something has come. May be dropped and called again at any time.
    ///
    /// # Errors
    /// The connection is at its end.
    pub(super) async fn turn(&mut self, outbox: &mut Outbox, may_read: bool) -> Result<(), LinkError> {
        poll_fn(|context| self.poll_turn(context, outbox, may_read)).await
    }

    fn poll_turn(
        &mut self,
        context: &mut Context<'_>,
        outbox: &mut Outbox,
        may_read: bool,
    ) -> Poll<Result<(), LinkError>> {
        let mut stream = Pin::new(&mut *self.stream);
        while !outbox.is_empty()
            && let Poll::Ready(written) = stream.as_mut().poll_write(context, outbox.unsent())
        {
            match written.map_err(broken)? {
                0 => return Poll::Ready(Err(LinkError::Closed(""))),
                length => outbox.sent(length),
            }
            self.is_unflushed = true;
        }
        // What TLS cannot send at once it keeps.
        if self.is_unflushed && stream.as_mut().poll_flush(context).map_err(broken)?.is_ready() {
            self.is_unflushed = false;
        }
        if outbox.is_overfull() {
            return Poll::Ready(Err(LinkError::Stuck));
        }
        if !may_read {
            return Poll::Pending;
        }
        self.decoder.bytes.reserve(READ_BYTES);
        // What is read is in the buffer at once, so that this future can be dropped after each look.
        let read = pin!(self.stream.read_buf(&mut self.decoder.bytes)).poll(context);
        let length = ready!(read).map_err(broken)?;
        Poll::Ready(if length == 0 { Err(LinkError::Closed("")) } else { Ok(()) })
    }
}

fn broken(error: io::Error) -> LinkError {
    match tls_error(&error) {
        Some(tls) => LinkError::Tls(explain(tls)),
        None => LinkError::Broken(error),
    }
}

async fn connect(broker: &Mqtt) -> Result<Box<dyn Stream>, LinkError> {
    let connector = match &broker.tls {
        Some(tls) => {
            let config = tls.client_config().map_err(|fault| LinkError::File(fault.message))?;
            Some(TlsConnector::from(Arc::new(config)))
        }
        None => None,
    };
    let tcp =
        TcpStream::connect((broker.host.as_str(), broker.port)).await.map_err(LinkError::Unreachable)?;
    // An ack that waits for the broker's delayed acknowledgement of the last one costs 40 ms.
    tcp.set_nodelay(true).map_err(LinkError::Unreachable)?;
    let Some(connector) = connector else { return Ok(Box::new(tcp)) };
    let name = ServerName::try_from(broker.host.clone())
        .map_err(|_| LinkError::Tls(format!("{:?} is no name that a certificate can be for", broker.host)))?;
    match connector.connect(name, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(match tls_error(&error) {
            Some(tls) => LinkError::Tls(explain(tls)),
            None if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                LinkError::Tls(format!(
                    "closes the connection when TLS begins; {REACH}: is it the port for TLS?"
                ))
            }
            None => LinkError::Broken(error),
        }),
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// How to make a certificate that clients accept.
const MAKE: &str = "make one of X.509 version 3, signed by the CA, with the host of mqtt.url as its subjectAltName \
                    (`openssl x509 -req` takes both by -extfile)";

/// What is wrong with a certificate, by the names that the verifier gives it.
fn unfit(error: &str) -> String {
    if error.contains("UnsupportedCertVersion") {
        format!("has a certificate of an old version of X.509; {MAKE}")
    } else if error.contains("CaUsedAsEndEntity") {
        format!("shows the certificate of a CA as its own; {MAKE}")
    } else {
        format!("has a certificate that cannot be accepted: {error}")
    }
}

/// What went wrong with TLS, and whose part it is.
fn explain(error: &rustls::Error) -> String {
    use CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => {
            "has a certificate that no known CA has signed; set mqtt.ca_file to the CA that did".to_owned()
        }
        rustls::Error::InvalidCertificate(Bad::NotValidForNameContext { presented, .. })
            if presented.is_empty() =>
        {
            format!("has a certificate for no name at all; {MAKE}")
        }
        rustls::Error::InvalidCertificate(
            bad @ (Bad::NotValidForName | Bad::NotValidForNameContext { .. }),
        ) => {
            format!("has a certificate for another name: {bad}; write mqtt.url with a name that it is for")
        }
        rustls::Error::InvalidCertificate(bad @ (Bad::Expired | Bad::ExpiredContext { .. })) => {
            format!("has a certificate that has expired: {bad}; renew it, and check this machine's clock")
        }
        rustls::Error::InvalidCertificate(bad @ (Bad::NotValidYet | Bad::NotValidYetContext { .. })) => {
            format!("has a certificate that is not valid yet: {bad}; check this machine's clock")
        }
        rustls::Error::InvalidCertificate(Bad::Other(other)) => unfit(&format!("{other:?}")),
        rustls::Error::InvalidCertificate(bad) => format!("has a certificate that cannot be accepted: {bad}"),
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
                format!(
                    "wants a client certificate ({alert:?}); set mqtt.client_cert_file and mqtt.client_key_file"
                )
            }
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError => format!(
                "refuses the client certificate ({alert:?}); check mqtt.client_cert_file against the broker's CA"
            ),
            other => format!("ends the talk about TLS: {other:?}; see its log"),
        },
        rustls::Error::InvalidMessage(_) => {
            format!("does not speak TLS there; {REACH}: is it the port for TLS?")
        }
        other => format!("TLS with it fails: {other}"),
    }
}
