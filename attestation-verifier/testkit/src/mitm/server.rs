//! A server of the kit's own, honest or not: attested TLS, sealed requests, inference and receipts over a [`World`] whose
//! quotes are genuine, as far as anything simulated is.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use touchstone_formats::report_data::{bind_boot, bind_session};
use touchstone_formats::session::{
    BOOT_TARGET, EXPORTER_LABEL, OHTTP_TARGET, SESSION_TARGET, SessionAnswer, SessionRequest,
};
use touchstone_formats::{
    Collateral, CollateralFile, Digest, Evidence, Purpose, SnpCollateral, Tee,
};

use super::gateway::Gateway;
use super::inference;
use super::message::Message;
use super::record::{Layer, Recorder, Tap};
use super::tls::{self, Identity, Manner};
use super::{Lie, wants_close};
use crate::amd::{Product, VekKey};
use crate::machine::Machine;
use crate::mint::World;

/// The server. It serves over any stream, so that a man in the middle needs no port for it.
#[derive(Debug)]
pub struct Server {
    world: World,
    pub(super) identity: Identity,
    pub(super) gateway: Gateway,
    /// One for all connections: it holds the sessions that can be resumed.
    tls: Arc<ServerConfig>,
    lie: Lie,
    /// Bundles by receipt id.
    receipts: Mutex<HashMap<String, Vec<u8>>>,
    answered: AtomicU64,
    /// Whether a client was sent away to connect once more.
    sent_away: AtomicBool,
}

impl Server {
    /// A server on a simulated Genoa, with a keyset that is an hour old.
    pub fn new(lie: Lie) -> Self {
        let at = now();
        Self::over(World::on(Machine::new(Product::Genoa, 5, at), at, at), lie)
    }

    /// A server of this world, which is judged at the clock's time. Its keyset gets the server's TLS key, and its key for sealed
    /// requests.
    pub fn over(mut world: World, lie: Lie) -> Self {
        let identity = Identity::new();
        world.keyset.tls_spki_sha256 = match lie {
            Lie::NoTlsKey => None,
            Lie::WrongSpki => Some(Identity::new().spki),
            _ => Some(identity.spki),
        };
        let gateway = Gateway::new();
        let mut keys = gateway.published();
        if lie == Lie::OhttpForeignSuite
            && let Some(aead) = keys.0.last_mut()
        {
            // AES-256-GCM.
            *aead = 2;
        }
        world.keyset.ohttp_keys = (lie != Lie::OhttpNoKey).then_some(keys);
        if matches!(lie, Lie::ExpiredKeyset | Lie::OhttpExpiredKeyset) {
            world.keyset.not_before = world.at - 90_000;
            world.keyset.not_after = world.at - 3_600;
        }
        let manner = match lie {
            Lie::Resumption => Manner::Tickets,
            _ => Manner::Honest,
        };
        Self {
            world,
            tls: tls::server(&identity, manner),
            identity,
            gateway,
            lie,
            receipts: Mutex::default(),
            answered: AtomicU64::new(0),
            sent_away: AtomicBool::new(false),
        }
    }

    /// Another server, on another chip of the same vendor, with keys of its own.
    pub(super) fn twin(&self) -> Self {
        let mut machine = self.world.machine.clone();
        machine.report.chip_id = machine.report.chip_id.map(|byte| byte ^ 0xff);
        machine.key = VekKey::p384();
        machine.reissue();
        let at = self.world.at;
        Self::over(World::on(machine, at + 1, at), self.lie)
    }

    pub(super) fn sent_away(&self) -> bool {
        self.sent_away.load(Ordering::SeqCst)
    }

    /// Machine, keyset and models.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Writes `root.pem` and `collateral/` of its machine into a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_to(&self, folder: &Path) -> io::Result<()> {
        self.world.machine.write_to(folder)
    }

    /// Serves one connection to its end. `recorder` is given what is decrypted.
    pub(super) async fn serve(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        tls: bool,
        recorder: Option<Recorder>,
    ) -> io::Result<()> {
        if !tls {
            return self.plain(stream, recorder).await;
        }
        let acceptor = TlsAcceptor::from(self.tls.clone());
        let stream = acceptor.accept(stream).await?;
        let connection = stream.get_ref().1;
        if connection.handshake_kind() == Some(HandshakeKind::Resumed)
            && let Some(recorder) = &recorder
        {
            recorder.change(|seen| seen.nothing_proven = true);
            recorder.lie("resumed an earlier session");
        }
        let recorder = recorder.unwrap_or_else(Recorder::nobody);
        let mut stream = Tap::new(stream, &recorder, Layer::Plain);
        let (mut rest, mut proven) = (Vec::new(), false);
        while let Some(request) = Message::read(&mut stream, &mut rest).await? {
            let answer = match request.request() {
                ("POST", SESSION_TARGET) => {
                    let export = |label: &[u8], context: &[u8]| {
                        let connection = stream.inner().get_ref().1;
                        connection.export_keying_material([0; 32], label, Some(context))
                    };
                    let answer = self.session(&request.body, export);
                    proven |= answer.status() == 200;
                    answer
                }
                _ if !proven => Message::problem(421, "no session on this connection yet"),
                _ if self.lie == Lie::Resumption => {
                    self.sent_away.store(true, Ordering::SeqCst);
                    recorder.note("sent the client away with 421");
                    Message::problem(421, "another keyset is in force: connect anew")
                }
                _ => self.infer(&request),
            };
            let last = answer.status() == 421 || wants_close(&request);
            stream.write_all(&closing(answer, last).to_bytes()).await?;
            stream.flush().await?;
            if last {
                break;
            }
        }
        stream.shutdown().await
    }

    /// Keyset and evidence, or what passes for it.
    fn session(
        &self,
        body: &[u8],
        export: impl Fn(&[u8], &[u8]) -> Result<[u8; 32], rustls::Error>,
    ) -> Message {
        let Ok(request) = SessionRequest::parse(body) else {
            return Message::problem(400, "no session request");
        };
        let exporter = match self.lie {
            Lie::OtherExporter => Ok([0x5a; 32]),
            _ => export(EXPORTER_LABEL, &request.nonce),
        };
        let Ok(exporter) = exporter else {
            return Message::problem(500, "no exporter");
        };
        let nonce = match self.lie {
            Lie::StaleNonce => [0x5a; 32],
            _ => request.nonce,
        };
        // What the keyset says of the TLS key is a lie of its own; the binding is to the connection's.
        let bind = match self.lie {
            Lie::ClientRole => Digest::of_parts(&[b"client\n", &self.identity.spki.0, &exporter]),
            _ => bind_session(self.identity.spki, &exporter),
        };
        let evidence = match self.lie {
            Lie::OtherPurpose => self.world.evidence(Purpose::Boot, None, bind_boot()),
            _ => self
                .world
                .evidence(Purpose::Session, Some(nonce.to_vec()), bind),
        };
        self.shown(evidence)
    }

    /// Keyset and evidence for whoever seals requests, or what passes for it.
    fn boot(&self, body: &[u8]) -> Message {
        let Ok(request) = SessionRequest::parse(body) else {
            return Message::problem(400, "no request for evidence");
        };
        let nonce = match self.lie {
            Lie::OhttpLaunchEvidence => None,
            _ => Some(request.nonce.to_vec()),
        };
        self.shown(self.world.evidence(Purpose::Boot, nonce, bind_boot()))
    }

    /// Evidence beside the keyset. Collateral comes by itself.
    fn shown(&self, mut evidence: Evidence) -> Message {
        evidence.collateral = None;
        let answer = SessionAnswer {
            keyset: self.world.keyset.clone(),
            evidence,
        };
        Message::answer(200, "application/json", answer.to_file())
    }

    /// Answers an inference request with a receipt, and keeps the bundle.
    fn infer(&self, request: &Message) -> Message {
        let number = self.answered.fetch_add(1, Ordering::SeqCst);
        match inference::answer(&self.world, request, number, now()) {
            Ok(answered) => {
                let mut receipts = self.receipts.lock().unwrap_or_else(PoisonError::into_inner);
                receipts.insert(answered.id, answered.bundle);
                answered.answer
            }
            Err((status, why)) => Message::problem(status, why),
        }
    }

    /// What a host does by itself, without TLS; sealed requests; and inference for clients that let it read along.
    async fn plain(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        recorder: Option<Recorder>,
    ) -> io::Result<()> {
        let recorder = recorder.unwrap_or_else(Recorder::nobody);
        let mut rest = Vec::new();
        while let Some(request) = Message::read(&mut stream, &mut rest).await? {
            let answer = match request.request() {
                ("GET", "/v1/collateral") => Message::answer(
                    200,
                    "application/json",
                    collateral_file(&self.world.machine),
                ),
                ("GET", target) => {
                    let id = target.strip_prefix("/v1/receipts/").unwrap_or_default();
                    let receipts = self.receipts.lock().unwrap_or_else(PoisonError::into_inner);
                    match receipts.get(id) {
                        Some(bundle) => Message::answer(200, "application/json", bundle.clone()),
                        None => Message::problem(404, "nothing here"),
                    }
                }
                ("POST", SESSION_TARGET) => Message::problem(421, "TLS does not end here"),
                ("POST", BOOT_TARGET) => self.boot(&request.body),
                ("POST", OHTTP_TARGET) => {
                    let keyset = self.world.keyset.digest();
                    let answer = |inside: &Message| self.infer(inside);
                    self.gateway.answer(&request, keyset, &recorder, answer)
                }
                _ => self.infer(&request),
            };
            let last = wants_close(&request);
            stream.write_all(&closing(answer, last).to_bytes()).await?;
            if last {
                break;
            }
        }
        stream.shutdown().await
    }
}

/// A machine's collateral as hosts give it.
pub(super) fn collateral_file(machine: &Machine) -> Vec<u8> {
    let files = machine.collateral();
    let file = CollateralFile {
        tee: Tee::SevSnp,
        collateral: Collateral::SevSnp(SnpCollateral {
            vek: Some(files.vek),
            chain: files.chain,
            crls: files.crls,
        }),
    };
    file.to_file()
}

fn closing(mut answer: Message, last: bool) -> Message {
    if last {
        answer.set("connection", "close");
    }
    answer
}

/// Unix seconds.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs()
}
