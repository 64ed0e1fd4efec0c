//! A man in the middle: everything that can stand between a client and an enclave, as one program.
//!
//! It speaks to any client of `docs/formats.md` §10 and §13 on one port, as hosts do: attested TLS for what begins with a TLS record,
//! the host's own HTTP, sealed requests included, for the rest. Behind it is a real host (or an enclave's TLS listener), or, without one, a
//! [`Server`] of the kit's own with a simulated platform. It tells one [`Lie`] at a time; each says which check should
//! refuse it. What every connection saw is in the [`Record`]: the wire, and whatever could be decrypted, so that a test can
//! say that *nothing* was sent to a liar.
//!
//! ```
//! use touchstone_testkit::mitm::{Config, Lie, ManInTheMiddle};
//!
//! let liar = ManInTheMiddle::start(Config::new(Lie::SwapKeyset))?;
//! println!("let your client connect to https://{}", liar.address());
//! // …
//! assert_eq!(liar.record().leaked(), 0);
//! assert!(!liar.record().connections().iter().any(|seen| seen.sent(b"my prompt")));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The same from a shell: the program `man-in-the-middle` (`docs/man-in-the-middle.md`).

mod gateway;
mod inference;
mod lie;
mod message;
mod plain;
mod record;
mod relay;
mod sealed;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub use lie::{Kind, Lie};
pub use record::{Record, Seen, contains};
pub use server::Server;

use message::Message;
use record::{Layer, Recorder, Tap};
use relay::Relay;
use sealed::{Enclaves, Sealed};
use stream::{Crossing, Damage};
use tls::ClientHello;

/// First byte of a connection that begins with a TLS handshake.
const HANDSHAKE: u8 = 22;

/// What to stand between, and how to lie.
#[derive(Clone, Debug)]
pub struct Config {
    /// The lie.
    pub lie: Lie,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Who is behind it.
    pub upstream: Upstream,
    /// The other genuine enclave of lies that take two ([`Lie::needs_another`]). Without it: another server of the kit's own, on
    /// another chip of the same vendor.
    pub other: Option<Upstream>,
    /// In which turn of the server a [`Kind::Stream`] lie is told: 2, the session's answer; 3, the first answer after it.
    pub turn: u32,
    /// For how long [`Lie::Delay`] holds an answer back.
    pub delay: Duration,
    /// Where it is written down what happened.
    pub record: Record,
}

impl Config {
    /// On a free port of loopback, before a server of the kit's own, at the first answer, for an hour.
    pub fn new(lie: Lie) -> Self {
        Self::before(Upstream::Own(Arc::new(Server::new(lie))), lie)
    }

    /// On a free port of loopback, before whoever that is.
    pub fn before(upstream: Upstream, lie: Lie) -> Self {
        Self {
            lie,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            upstream,
            other: None,
            turn: 3,
            delay: Duration::from_secs(3_600),
            record: Record::default(),
        }
    }
}

/// Who is behind a man in the middle.
#[derive(Clone)]
pub enum Upstream {
    /// A host, or an enclave's TLS listener.
    Address(SocketAddr),
    /// A server of the kit's own.
    Own(Arc<Server>),
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Upstream::Address(address) => address.fmt(f),
            Upstream::Own(_) => f.write_str("a server of the kit's own"),
        }
    }
}

impl Upstream {
    /// A connection. A server of the kit's own writes into `recorder` what it decrypts.
    async fn connect(&self, tls: bool, recorder: Option<Recorder>) -> io::Result<Stream> {
        match self {
            Upstream::Address(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Upstream::Own(server) => {
                let (near, far) = tokio::io::duplex(64 << 10);
                // Ends when the other end is dropped.
                tokio::spawn(server.clone().serve(far, tls, recorder));
                Ok(Box::new(near))
            }
        }
    }

    /// Hands a plain request over on a connection of its own, and gives the answer.
    async fn exchange(&self, request: &Message, recorder: Option<Recorder>) -> io::Result<Message> {
        let mut request = request.clone();
        request.set("connection", "close");
        let mut server = self.connect(false, recorder).await?;
        server.write_all(&request.to_bytes()).await?;
        server.flush().await?;
        let answer = Message::read(&mut server, &mut Vec::new()).await?;
        answer.ok_or_else(|| io::Error::other("upstream gave no answer"))
    }
}

/// Both directions of a connection.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Duplex for T {}
type Stream = Box<dyn Duplex>;

/// A running man in the middle. Dropping it ends every connection.
#[derive(Debug)]
pub struct ManInTheMiddle {
    address: SocketAddr,
    record: Record,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ManInTheMiddle {
    /// Listens, and lies on a thread of its own until the handle is dropped. When this returns, a client can connect.
    ///
    /// # Errors
    /// When the address cannot be had, or the lie needs a server of the kit's own and has another
    /// ([`Lie::needs_own_server`]).
    pub fn start(config: Config) -> io::Result<Self> {
        if config.lie.needs_own_server() && matches!(config.upstream, Upstream::Address(_)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{}: told by a server of the kit's own, not before another",
                    config.lie
                ),
            ));
        }
        let listener = std::net::TcpListener::bind(config.listen)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", config.listen)))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let record = config.record.clone();
        // A runtime of its own: it works under blocking tests, and no test's work starves it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = watch::channel(());
        let middle = Arc::new(Middle::new(config));
        let thread = std::thread::Builder::new()
            .name("man-in-the-middle".into())
            .spawn(move || runtime.block_on(accept(listener, middle, stopped)))?;
        Ok(Self {
            address,
            record,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it saw so far.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl Drop for ManInTheMiddle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What all connections share.
struct Middle {
    config: Config,
    other: Upstream,
    relay: Relay,
    host: plain::Host,
    sealed: Sealed,
    crossing: Crossing<Vec<u8>>,
}

impl Middle {
    fn new(config: Config) -> Self {
        let other = match (&config.other, &config.upstream) {
            (Some(other), _) => other.clone(),
            (None, Upstream::Own(server)) if config.lie.needs_another() => {
                Upstream::Own(Arc::new(server.twin()))
            }
            (None, upstream) => upstream.clone(),
        };
        Self {
            relay: Relay::new(),
            host: plain::Host::new(config.lie),
            sealed: Sealed::new(config.lie),
            crossing: Crossing::new(),
            other,
            config,
        }
    }

    async fn connection(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Ok(());
        }
        let tls = first[0] == HANDSHAKE;
        let recorder = self.config.record.open(tls);
        recorder.change(|seen| {
            let concerned = tls != self.config.lie.is_about_sealing();
            seen.nothing_proven = concerned && self.config.lie.leaves_nothing_proven();
        });
        let hello = if tls {
            client_hello(&stream).await?
        } else {
            None
        };
        if let Some(hello) = &hello
            && hello.offers_psk
        {
            recorder.change(|seen| seen.offered_psk = true);
            recorder.note("the client offers to resume an earlier session");
        }
        let client: Stream = Box::new(Tap::new(stream, &recorder, Layer::Wire));
        let done = self.lie(client, tls, hello, &recorder).await;
        recorder.end(&done);
        done
    }

    async fn lie(
        &self,
        client: Stream,
        tls: bool,
        hello: Option<ClientHello>,
        recorder: &Recorder,
    ) -> io::Result<()> {
        let (lie, upstream) = (self.config.lie, &self.config.upstream);
        match lie.kind() {
            Kind::Host if !tls => self.host.relay(client, upstream, recorder).await,
            Kind::Key | Kind::Sealed if !tls => {
                let other = &self.other;
                let enclaves = Enclaves { upstream, other };
                self.sealed.relay(client, enclaves, recorder).await
            }
            Kind::Stream if tls => {
                let server = upstream.connect(tls, Some(recorder.clone())).await?;
                let damage = Damage {
                    lie,
                    turn: self.config.turn,
                    delay: self.config.delay,
                };
                stream::relay(client, server, damage, &self.crossing, recorder).await
            }
            // Receipts and collateral too: half a diversion would be found out.
            Kind::Relay if lie == Lie::Divert => {
                recorder.lie("passes the connection to another enclave");
                pass(client, &self.other, tls, recorder).await
            }
            Kind::Relay if tls => match (lie, hello, upstream) {
                (Lie::Resumption, Some(hello), Upstream::Own(server))
                    if server.sent_away() && !hello.offers_psk =>
                {
                    Relay::resume_unasked(client, &hello, recorder).await
                }
                (Lie::Resumption, ..) => pass(client, upstream, tls, recorder).await,
                _ => self.relay.relay(client, upstream, lie, recorder).await,
            },
            _ => pass(client, upstream, tls, recorder).await,
        }
    }
}

/// Passes every byte on, unread.
async fn pass(
    mut client: Stream,
    upstream: &Upstream,
    tls: bool,
    recorder: &Recorder,
) -> io::Result<()> {
    let mut server = upstream.connect(tls, Some(recorder.clone())).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn accept(
    listener: std::net::TcpListener,
    middle: Arc<Middle>,
    mut stopped: watch::Receiver<()>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    loop {
        tokio::select! {
            // The sender is never used, only dropped.
            _ = stopped.changed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let middle = middle.clone();
                    // Ends with the runtime, when `accept` returns.
                    tokio::spawn(async move {
                        let _ = middle.connection(stream).await;
                    });
                }
                // Out of descriptors, most likely: try again rather than spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

/// The ClientHello, left where it is. `None` when there is none within two seconds.
async fn client_hello(stream: &TcpStream) -> io::Result<Option<ClientHello>> {
    let mut record = vec![0; 16 << 10];
    for _ in 0..400 {
        let length = stream.peek(&mut record).await?;
        if let Some(hello) = ClientHello::parse(&record[..length]) {
            return Ok(Some(hello));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(None)
}

/// Gives an answer, and says whether it is the last on this connection.
async fn give(
    client: &mut (impl AsyncWrite + Unpin),
    mut answer: Message,
    last: bool,
) -> io::Result<()> {
    answer.set("connection", if last { "close" } else { "keep-alive" });
    client.write_all(&answer.to_bytes()).await?;
    client.flush().await
}

/// Whether the client wants the connection closed after the answer.
fn wants_close(request: &Message) -> bool {
    let connection = request.header("connection");
    connection.is_some_and(|value| value.eq_ignore_ascii_case("close"))
}
