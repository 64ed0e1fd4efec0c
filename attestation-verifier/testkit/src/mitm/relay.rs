//! Relays that end TLS themselves, and speak another session with the enclave.

use std::io;
use std::sync::{Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use touchstone_formats::session::{SESSION_TARGET, SessionAnswer, SessionRequest};

use super::message::Message;
use super::record::{Layer, Recorder, Tap};
use super::tls::{self, ClientHello, Identity, Manner};
use super::{Lie, Stream, Upstream, stream};

/// What such a relay keeps from one connection to the next.
#[derive(Debug)]
pub(super) struct Relay {
    identity: Identity,
    /// The body of the first session's answer that it ever had.
    earlier: Mutex<Option<Vec<u8>>>,
}

impl Relay {
    /// A relay with a certificate of its own.
    pub(super) fn new() -> Self {
        Self {
            identity: Identity::new(),
            earlier: Mutex::new(None),
        }
    }

    /// Relays one connection to its end.
    pub(super) async fn relay(
        &self,
        client: Stream,
        upstream: &Upstream,
        lie: Lie,
        recorder: &Recorder,
    ) -> io::Result<()> {
        let mut server = session_with(upstream).await?;
        let identity = match (lie, upstream) {
            (Lie::SameKey, Upstream::Own(own)) => own.identity.clone(),
            (Lie::SameCertificate, _) => {
                let shown = server.get_ref().1.peer_certificates();
                let shown = shown.and_then(|chain| chain.first().cloned());
                self.identity
                    .behind(shown.ok_or_else(|| io::Error::other("no certificate upstream"))?)
            }
            _ => self.identity.clone(),
        };
        let manner = match lie {
            Lie::Tls12 => Manner::Old,
            _ => Manner::Honest,
        };
        recorder.lie(format!("ends TLS itself ({lie})"));
        let acceptor = TlsAcceptor::from(tls::server(&identity, manner));
        let client = acceptor.accept(client).await?;
        recorder.note("the client went on after the handshake");
        let mut client = Tap::new(client, recorder, Layer::Plain);

        let mut rest = Vec::new();
        let Some(first) = Message::read(&mut client, &mut rest).await? else {
            return Ok(());
        };
        let session = SessionRequest::parse(&first.body);
        if let (("POST", SESSION_TARGET), Ok(request)) = (first.request(), session) {
            let file = match lie {
                Lie::Reflection => evidence(upstream, request.nonce).await?,
                Lie::Replay => {
                    // Its own session, for what the client asks afterwards.
                    let mut nonce = [0; 32];
                    SystemRandom::new().fill(&mut nonce).expect("randomness");
                    let mine = ask(&mut server, nonce).await?;
                    let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
                    earlier.get_or_insert(mine).clone()
                }
                Lie::SwapKeyset => {
                    let genuine = ask(&mut server, request.nonce).await?;
                    let mut answer = SessionAnswer::parse(&genuine).map_err(io::Error::other)?;
                    answer.keyset.tls_spki_sha256 = Some(identity.spki);
                    answer.to_file()
                }
                _ => ask(&mut server, request.nonce).await?,
            };
            recorder.note("handed evidence over");
            let answer = Message::answer(200, "application/json", file);
            client.write_all(&answer.to_bytes()).await?;
        } else {
            server.write_all(&first.to_bytes()).await?;
        }
        client.flush().await?;
        server.write_all(&rest).await?;
        server.flush().await?;
        // From here on it reads along, if the client lets it.
        copy_bidirectional(&mut client, &mut server).await?;
        Ok(())
    }

    /// Accepts a pre-shared key that the client never offered.
    pub(super) async fn resume_unasked(
        mut client: Stream,
        hello: &ClientHello,
        recorder: &Recorder,
    ) -> io::Result<()> {
        // The ClientHello itself, so far only looked at.
        stream::record(&mut client).await?;
        recorder.change(|seen| seen.nothing_proven = true);
        recorder.lie("resumes a session although the client did not offer to");
        client.write_all(&hello.resume_unasked()).await?;
        // The client's alert, or whatever it says instead.
        let mut buffer = [0; 1 << 10];
        while client.read(&mut buffer).await? > 0 {}
        Ok(())
    }
}

/// The answer to a request for a session with this nonce, over a connection of the liar's own.
pub(super) async fn evidence(upstream: &Upstream, nonce: [u8; 32]) -> io::Result<Vec<u8>> {
    ask(&mut session_with(upstream).await?, nonce).await
}

type Secure = tokio_rustls::client::TlsStream<Stream>;

/// A TLS session of the relay's own.
async fn session_with(upstream: &Upstream) -> io::Result<Secure> {
    let stream = upstream.connect(true, None).await?;
    let connector = TlsConnector::from(tls::client(&TLS13));
    connector.connect(tls::name(), stream).await
}

/// Asks for evidence over this connection; gives the answer's body.
async fn ask(server: &mut Secure, nonce: [u8; 32]) -> io::Result<Vec<u8>> {
    let request = Message {
        start: format!("POST {SESSION_TARGET} HTTP/1.1"),
        headers: vec![
            ("host".into(), "enclave.invalid".into()),
            ("content-type".into(), "application/json".into()),
        ],
        body: SessionRequest { nonce }.to_file(),
    };
    server.write_all(&request.to_bytes()).await?;
    server.flush().await?;
    let answer = Message::read(server, &mut Vec::new()).await?;
    match answer {
        Some(answer) if answer.status() == 200 => Ok(answer.body),
        Some(answer) => Err(io::Error::other(format!("upstream: {}", answer.start))),
        None => Err(io::Error::other("upstream gave no session")),
    }
}
