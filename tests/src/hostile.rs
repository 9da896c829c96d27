//! Clients that mean harm to an HTTP interface, all from one address that is not the harness's own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::process::allow_files;

/// Where they come from.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// Connections that are held at once, or as many as the interface lets live, and so many begun anew a second.
pub const CONNECTIONS: usize = 10_000;
const BEGUN_PER_S: u64 = 500;

/// Clients that send heads by the byte.
const SLOW_CLIENTS: usize = 500;
const BYTE_EVERY: Duration = Duration::from_millis(100);

/// Clients that send large heads or wrong tokens as fast as they are answered.
const FAST_CLIENTS: usize = 32;

/// The longest that a head gets.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// How much an attacker gives way to others: its processor is, in truth, another machine's.
const NICE: i32 = 19;

/// What they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Begin requests and never end them.
    Slowloris,
    /// Send headers without end.
    HugeHeaders,
    /// Open ten thousand connections, and say nothing.
    Connections,
    /// Try tokens, as fast as they are refused.
    WrongTokens,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Slowloris, Kind::HugeHeaders, Kind::Connections, Kind::WrongTokens];
}

/// What they have come to.
#[derive(Debug, Default)]
pub struct Figures {
    /// Connections that were opened.
    pub opened: AtomicU64,
    /// Connections that the gateway has closed.
    pub closed: AtomicU64,
    /// Answers of 401.
    pub unauthorised: AtomicU64,
    /// Answers of 200, which nobody of them may get.
    pub let_in: AtomicU64,
    over: AtomicBool,
}

/// An attack that goes on until it is ended.
#[derive(Debug)]
pub struct Attack {
    /// What it has come to by now.
    pub figures: Arc<Figures>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Attack {
    /// Begins.
    ///
    /// # Errors
    /// The system gives no thread, or too few files.
    pub fn start(kind: Kind, target: SocketAddr) -> anyhow::Result<Attack> {
        allow_files(CONNECTIONS as u64 + 1_000)?;
        let figures = Arc::new(Figures::default());
        let shared = Arc::clone(&figures);
        let thread = std::thread::Builder::new().name("attack".to_owned()).spawn(move || {
            rustix::process::setpriority_process(None, NICE).context("giving way to others")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(attack(kind, target, shared));
            Ok(())
        })?;
        Ok(Attack { figures, thread: Some(thread) })
    }

    /// Ends it, and lets go of all connections.
    ///
    /// # Errors
    /// It could not even begin.
    pub fn end(mut self) -> anyhow::Result<Arc<Figures>> {
        self.figures.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the attack has panicked"))??;
        }
        Ok(Arc::clone(&self.figures))
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.figures.over.store(true, Ordering::Relaxed);
    }
}

async fn attack(kind: Kind, target: SocketAddr, figures: Arc<Figures>) {
    let clients = match kind {
        Kind::Slowloris => SLOW_CLIENTS,
        Kind::Connections => CONNECTIONS,
        Kind::HugeHeaders | Kind::WrongTokens => FAST_CLIENTS,
    };
    let over = async {
        while !figures.over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..clients {
        running.spawn(client(kind, target, Arc::clone(&figures)));
    }
    over.await;
    running.shutdown().await;
}

/// Opens one connection after another.
async fn client(kind: Kind, target: SocketAddr, figures: Arc<Figures>) {
    let mut is_first = true;
    while !figures.over.load(Ordering::Relaxed) {
        if !std::mem::take(&mut is_first) && kind == Kind::Connections {
            sleep(Duration::from_millis(CONNECTIONS as u64 * 1_000 / BEGUN_PER_S)).await;
        }
        let Ok(stream) = connect(target).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        figures.opened.fetch_add(1, Ordering::Relaxed);
        let ended = match kind {
            Kind::Slowloris => byte_by_byte(stream, &figures).await,
            Kind::HugeHeaders => without_end(stream).await,
            Kind::Connections => silent(stream, &figures).await,
            Kind::WrongTokens => guessing(stream, &figures).await,
        };
        if ended.is_err() || !figures.over.load(Ordering::Relaxed) {
            figures.closed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn connect(target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((ADDRESS, 0).into())?;
    socket.connect(target).await
}

async fn byte_by_byte(mut stream: TcpStream, figures: &Figures) -> std::io::Result<()> {
    let head = b"GET /api/v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n";
    for byte in head.iter().chain(b"X-Padding: a\r\n".iter().cycle()) {
        if figures.over.load(Ordering::Relaxed) {
            break;
        }
        stream.write_all(&[*byte]).await?;
        let mut said = [0; 256];
        if let Ok(read) = timeout(BYTE_EVERY, stream.read(&mut said)).await
            && read? == 0
        {
            break;
        }
    }
    Ok(())
}

async fn without_end(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n").await?;
    let header = format!("X-Padding: {}\r\n", "a".repeat(4_000));
    for _ in 0..HEAD_BYTES_MAX / header.len() {
        stream.write_all(header.as_bytes()).await?;
    }
    Ok(())
}

async fn silent(mut stream: TcpStream, figures: &Figures) -> std::io::Result<()> {
    while !figures.over.load(Ordering::Relaxed) {
        if stream.read(&mut [0; 256]).await? == 0 {
            break;
        }
    }
    Ok(())
}

async fn guessing(mut stream: TcpStream, figures: &Figures) -> std::io::Result<()> {
    let mut answer = vec![0; 4_096];
    for guess in 0_u64.. {
        if figures.over.load(Ordering::Relaxed) {
            break;
        }
        let request = format!(
            "GET /api/v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer guess-{guess:020}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let read = stream.read(&mut answer).await?;
        match answer.get(..read).and_then(|answer| answer.get(9..12)) {
            Some(b"401") => figures.unauthorised.fetch_add(1, Ordering::Relaxed),
            Some(b"200") => figures.let_in.fetch_add(1, Ordering::Relaxed),
            _ => break,
        };
    }
    Ok(())
}
