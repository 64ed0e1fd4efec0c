//! An attested server as the client meets it: an enclave whose evidence and receipts are minted, and a host
//! in front of it, on one port. It does what it should, unless a test says otherwise.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attestation_verifier::exchange::OwnedTensor;
use attestation_verifier::policy::template;
use attestation_verifier::{Policy, Roots};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::ServerSessionMemoryCache;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{HandshakeKind, ServerConfig, crypto::ring, version::TLS13};
use touchstone_client::{Builder, Client, Error};
use touchstone_formats::evidence::{Collateral, CollateralFile, Tee};
use touchstone_formats::headers::{OpeningSalts, State, TouchstoneRequest, TouchstoneResponse};
use touchstone_formats::report_data::{bind_boot, bind_session};
use touchstone_formats::session::{EXPORTER_LABEL, SessionAnswer, SessionRequest};
use touchstone_formats::text::{Base64Bytes, hex_encode};
use touchstone_formats::{Datatype, Digest, Evidence, Purpose};
use touchstone_ohttp::bhttp::{self, Bounds};
use touchstone_ohttp::{ANSWER_TYPE, GatewayKey, REQUEST_TYPE};
use touchstone_testkit::mint::{Exchange, Minted, Tensor, World};
use touchstone_testkit::policy::edit;

/// An enclave under one keyset, with the TLS key that the keyset names.
pub struct Enclave {
    pub world: World,
    /// SHA-256 of the SubjectPublicKeyInfo that TLS shows.
    pub spki: Digest,
    /// Signed once: its signatures are randomised.
    collateral: Collateral,
    certificate: CertificateDer<'static>,
    tls: Arc<ServerConfig>,
    /// The key that requests are sealed to.
    gateway: GatewayKey,
}

fn tls_of(certificate: &CertificateDer<'static>, key: &rcgen::KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = ring::sign::any_supported_type(&key).unwrap();
    let certified = CertifiedKey::new(vec![certificate.clone()], key);
    let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // An honest enclave gives no tickets; this one offers whatever a client could fall for.
    tls.session_storage = ServerSessionMemoryCache::new(64);
    tls.send_tls13_tickets = 4;
    tls.max_early_data_size = 16_384;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(tls)
}

impl Enclave {
    /// Makes a TLS key, and puts it into the world's keyset.
    pub fn new(mut world: World) -> Enclave {
        use rcgen::PublicKeyData;
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["enclave.invalid".to_owned()];
        let certificate = rcgen::CertificateParams::new(names)
            .and_then(|params| params.self_signed(&key))
            .unwrap();
        let spki = Digest::of(&key.subject_public_key_info());
        world.keyset.tls_spki_sha256 = Some(spki);
        let gateway = GatewayKey::generate(1).unwrap();
        world.keyset.ohttp_keys = Some(Base64Bytes(gateway.configurations()));
        let evidence = world.evidence(Purpose::Boot, None, Digest::ZERO);
        Enclave {
            world,
            spki,
            collateral: evidence.collateral.unwrap(),
            tls: tls_of(certificate.der(), &key),
            certificate: certificate.der().clone(),
            gateway,
        }
    }

    /// Boot evidence for this nonce.
    pub fn boot_evidence(&self, nonce: [u8; 32]) -> Evidence {
        let nonce = Some(nonce.to_vec());
        let evidence = self.world.evidence(Purpose::Boot, nonce, bind_boot());
        Evidence {
            collateral: None,
            ..evidence
        }
    }

    /// Shows another's certificate, and has not its key.
    pub fn show_certificate_of(&mut self, other: &Enclave) {
        self.tls = tls_of(&other.certificate, &rcgen::KeyPair::generate().unwrap());
    }

    /// Session evidence over this exporter.
    pub fn evidence(&self, nonce: [u8; 32], exporter: [u8; 32]) -> Evidence {
        let bind = bind_session(self.spki, &exporter);
        let nonce = Some(nonce.to_vec());
        let evidence = self.world.evidence(Purpose::Session, nonce, bind);
        Evidence {
            collateral: None,
            ..evidence
        }
    }

    /// The answer to a request for a session.
    pub fn session(&self, evidence: Evidence) -> Reply {
        let keyset = self.world.keyset.clone();
        Reply::new(200, SessionAnswer { keyset, evidence }.to_file())
    }

    pub fn collateral_file(&self) -> CollateralFile {
        CollateralFile {
            tee: Tee::SevSnp,
            collateral: self.collateral.clone(),
        }
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub tls: bool,
    pub method: String,
    pub target: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// For a request for a session: the exporter of this connection.
    pub exporter: [u8; 32],
}

/// What to do about a request.
#[derive(Clone, Debug)]
pub enum Reply {
    Http {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// These bytes, then the connection breaks off.
    Torn(Vec<u8>),
    /// Nothing, for as long as the caller holds on.
    Silence,
    /// After a while.
    Later(Duration, Box<Reply>),
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply::Http {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub fn problem(status: u16, title: &str) -> Reply {
        Reply::new(status, json!({ "title": title }).to_string())
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Reply {
        if let Reply::Http { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.into()));
        }
        self
    }

    /// The same with another body.
    pub fn with_body(mut self, other: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Reply {
        if let Reply::Http { body, .. } = &mut self {
            *body = other(std::mem::take(body));
        }
        self
    }
}

/// Changes an exchange.
pub type Change = Box<dyn FnMut(&mut Exchange) + Send>;

/// Changes an honest reply.
pub type Hook = Box<dyn FnMut(&Enclave, &Seen, Reply) -> Reply + Send>;

/// Where tests step in.
#[derive(Default)]
pub struct Hooks {
    pub session: Option<Hook>,
    /// Of the answer to a request for boot evidence.
    pub boot: Option<Hook>,
    /// Of what the host sees of the answer to a sealed request.
    pub sealed: Option<Hook>,
    pub infer: Option<Hook>,
    pub receipt: Option<Hook>,
    pub collateral: Option<Hook>,
    pub manifest: Option<Hook>,
    /// Before anything is signed.
    pub exchange: Option<Change>,
}

/// The server, and all it saw.
pub struct Server {
    pub url: String,
    pub inner: Arc<Inner>,
}

pub struct Inner {
    pub enclave: Mutex<Arc<Enclave>>,
    pub hooks: Mutex<Hooks>,
    pub seen: Mutex<Vec<Seen>>,
    /// Sealed requests, as the enclave opened them.
    pub opened: Mutex<Vec<Seen>>,
    pub minted: Mutex<HashMap<String, Minted>>,
    /// Bytes that came over TLS and are part of no request in `seen`.
    pub stray: AtomicUsize,
    pub handshakes: Mutex<Vec<HandshakeKind>>,
    /// TLS connections, now and at most.
    pub open: AtomicUsize,
    pub most_open: AtomicUsize,
    number: AtomicU64,
}

/// The input and output of the test's model: it gives back the first two of four numbers.
pub fn input(values: [f32; 4]) -> OwnedTensor {
    owned("x", &[1, 4], &values)
}

pub fn output(values: [f32; 4]) -> OwnedTensor {
    owned("y", &[1, 2], &values[..2])
}

fn owned(name: &str, shape: &[u64], values: &[f32]) -> OwnedTensor {
    OwnedTensor {
        name: name.into(),
        datatype: Datatype::Fp32,
        shape: shape.to_vec(),
        data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

impl Server {
    /// An enclave of its own, behind a host.
    pub async fn start() -> Server {
        Server::with(Enclave::new(World::new(1))).await
    }

    pub async fn with(enclave: Enclave) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            enclave: Mutex::new(Arc::new(enclave)),
            hooks: Mutex::default(),
            seen: Mutex::default(),
            opened: Mutex::default(),
            minted: Mutex::default(),
            stray: AtomicUsize::new(0),
            handshakes: Mutex::default(),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            number: AtomicU64::new(1),
        });
        let serving = inner.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let inner = serving.clone();
                tokio::spawn(async move { inner.serve(stream).await });
            }
        });
        Server { url, inner }
    }

    pub fn enclave(&self) -> Arc<Enclave> {
        self.inner.enclave.lock().unwrap().clone()
    }

    /// The enclave goes on to another keyset, with another TLS key.
    pub fn rotate(&self, change: impl FnOnce(&mut World)) {
        let mut world = self.enclave().world.clone();
        world.keyset.previous = Some(world.keyset.digest());
        world.keyset.not_before += 1;
        change(&mut world);
        *self.inner.enclave.lock().unwrap() = Arc::new(Enclave::new(world));
    }

    pub fn hooks(&self) -> std::sync::MutexGuard<'_, Hooks> {
        self.inner.hooks.lock().unwrap()
    }

    /// The strict template with this world's software and model, and other changes.
    pub fn policy_text(&self, changes: &[(&str, &str)]) -> String {
        let world = &self.enclave().world;
        let measurement = hex_encode(&world.machine.report.measurement);
        let measurement = format!("{{ expect = \"{measurement}\" }}");
        let model = format!("{{ expect = \"{}\" }}", world.models[0].model_digest);
        let own = [
            ("snp.measurement", measurement.as_str()),
            ("models", model.as_str()),
        ];
        edit(&edit(&template(Tee::SevSnp), &own), changes)
    }

    /// The same without a `[session]`.
    pub fn policy_text_without_session(&self) -> String {
        let text = self.policy_text(&[]);
        let (before, rest) = text.split_once("[session]").unwrap();
        let (_, after) = rest.split_once("[[platform]]").unwrap();
        format!("{before}[[platform]]{after}")
    }

    pub fn policy(&self, changes: &[(&str, &str)]) -> Policy {
        Policy::parse(&self.policy_text(changes)).unwrap()
    }

    pub fn roots(&self) -> Roots {
        let root = self.enclave().world.root_pem();
        Roots::pinned().with_simulated_pem(root.as_bytes()).unwrap()
    }

    /// A client that has no quarrel with this server.
    pub fn builder(&self) -> Builder {
        self.builder_with(self.policy(&[]))
    }

    pub fn builder_with(&self, policy: Policy) -> Builder {
        Client::builder(&self.url, policy)
            .unwrap()
            .roots(self.roots())
            .expect_simulated(true)
            .timeout(Duration::from_secs(10))
            .wait(Duration::from_secs(3))
            .clock(|| World::AT)
    }

    /// Method and target of all that came over TLS.
    pub fn over_tls(&self) -> Vec<String> {
        let seen = self.inner.seen.lock().unwrap();
        seen.iter()
            .filter(|seen| seen.tls)
            .map(|seen| format!("{} {}", seen.method, seen.target))
            .collect()
    }

    /// How many inference requests came.
    pub fn asked(&self) -> usize {
        let over = self.over_tls();
        over.iter().filter(|line| line.ends_with("/infer")).count()
    }

    /// How many sessions were asked for.
    pub fn sessions(&self) -> usize {
        let over = self.over_tls();
        over.iter()
            .filter(|line| line.ends_with("/session"))
            .count()
    }

    /// How often the host was asked for what begins so.
    pub fn host_was_asked(&self, target: &str) -> usize {
        let seen = self.inner.seen.lock().unwrap();
        seen.iter()
            .filter(|seen| !seen.tls && seen.target.starts_with(target))
            .count()
    }

    /// Waits until no TLS connection is left.
    pub async fn quiet(&self) {
        for _ in 0..1000 {
            if self.inner.open.load(Ordering::SeqCst) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("a connection stays open");
    }
}

/// A stream of requests.
struct Requests<S> {
    stream: S,
    buffer: Vec<u8>,
    tls: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Requests<S> {
    /// The next request; none at the end, however that came.
    async fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some(seen) = self.whole() {
                return Some(seen);
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn whole(&mut self) -> Option<Seen> {
        let end = self.buffer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&self.buffer[..end]).unwrap();
        let mut lines = head.lines();
        let mut words = lines.next().unwrap().split(' ').map(str::to_owned);
        let headers: HashMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.get("content-length");
        let length: usize = length.map_or(0, |n| n.parse().unwrap());
        if self.buffer.len() < end + length {
            return None;
        }
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let body = self.buffer[end..end + length].to_vec();
        self.buffer.drain(..end + length);
        Some(Seen {
            tls: self.tls,
            method,
            target,
            headers,
            body,
            exporter: [0; 32],
        })
    }

    /// Whether the connection goes on.
    async fn reply(&mut self, reply: Reply) -> bool {
        let mut reply = reply;
        while let Reply::Later(after, then) = reply {
            tokio::time::sleep(after).await;
            reply = *then;
        }
        let (bytes, goes_on) = match reply {
            Reply::Http {
                status,
                headers,
                body,
            } => {
                let mut out = format!("HTTP/1.1 {status} Status\r\n");
                for (name, value) in &headers {
                    out += &format!("{name}: {value}\r\n");
                }
                out += &format!("content-length: {}\r\n\r\n", body.len());
                let close = headers.iter().any(|(name, _)| name == "connection");
                ([out.into_bytes(), body].concat(), !close)
            }
            Reply::Raw(bytes) => (bytes, false),
            Reply::Torn(bytes) => {
                let _ = self.stream.write_all(&bytes).await;
                let _ = self.stream.flush().await;
                return false;
            }
            Reply::Silence => {
                // Until the caller goes.
                while matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {}
                return false;
            }
            Reply::Later(..) => unreachable!("dealt with above"),
        };
        let written = self.stream.write_all(&bytes).await;
        let flushed = self.stream.flush().await;
        if !goes_on {
            let _ = self.stream.shutdown().await;
        }
        goes_on && written.is_ok() && flushed.is_ok()
    }
}

impl Inner {
    async fn serve(&self, stream: TcpStream) {
        let mut first = [0];
        if stream.peek(&mut first).await.is_err() {
            return;
        }
        if first == [0x16] {
            let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_open.fetch_max(open, Ordering::SeqCst);
            self.serve_tls(stream).await;
            self.open.fetch_sub(1, Ordering::SeqCst);
        } else {
            self.serve_host(stream).await;
        }
    }

    /// The enclave's side: a session first, then questions, all under the keyset of the handshake.
    async fn serve_tls(&self, stream: TcpStream) {
        let enclave = self.enclave.lock().unwrap().clone();
        let Ok(stream) = TlsAcceptor::from(enclave.tls.clone()).accept(stream).await else {
            return;
        };
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        self.handshakes.lock().unwrap().push(kind);
        let mut requests = Requests {
            stream,
            buffer: Vec::new(),
            tls: true,
        };
        let mut proven = false;
        while let Some(mut seen) = requests.next().await {
            let is_session = seen.target == "/v1/session";
            let in_force = Arc::ptr_eq(&enclave, &self.enclave.lock().unwrap());
            let reply = if !in_force || !(is_session || proven) {
                Reply::problem(421, "Misdirected").header("connection", "close")
            } else if is_session {
                proven = true;
                let nonce = SessionRequest::parse(&seen.body).unwrap().nonce;
                let tls = requests.stream.get_ref().1;
                seen.exporter = tls
                    .export_keying_material([0; 32], EXPORTER_LABEL, Some(&nonce))
                    .unwrap();
                enclave.session(enclave.evidence(nonce, seen.exporter))
            } else {
                self.answer(&enclave, &seen)
            };
            let reply = {
                let hooks = &mut *self.hooks.lock().unwrap();
                let hook = if is_session {
                    &mut hooks.session
                } else {
                    &mut hooks.infer
                };
                match hook {
                    Some(hook) => hook(&enclave, &seen, reply),
                    None => reply,
                }
            };
            self.seen.lock().unwrap().push(seen);
            if !requests.reply(reply).await {
                break;
            }
        }
        self.stray
            .fetch_add(requests.buffer.len(), Ordering::SeqCst);
    }

    /// The host's side: receipts and collateral; and, over plain HTTP, whatever is asked.
    async fn serve_host(&self, stream: TcpStream) {
        let mut requests = Requests {
            stream,
            buffer: Vec::new(),
            tls: false,
        };
        while let Some(seen) = requests.next().await {
            let enclave = self.enclave.lock().unwrap().clone();
            let hooks = |pick: fn(&mut Hooks) -> &mut Option<Hook>, reply: Reply| match pick(
                &mut self.hooks.lock().unwrap(),
            ) {
                Some(hook) => hook(&enclave, &seen, reply),
                None => reply,
            };
            let reply = if seen.target == "/v1/collateral" {
                let honest = Reply::new(200, enclave.collateral_file().to_file());
                hooks(|hooks| &mut hooks.collateral, honest)
            } else if seen.target == "/v1/boot" {
                let nonce = SessionRequest::parse(&seen.body).unwrap().nonce;
                let honest = enclave.session(enclave.boot_evidence(nonce));
                hooks(|hooks| &mut hooks.boot, honest)
            } else if seen.target == "/v1/ohttp" {
                let honest = self.sealed(&enclave, &seen);
                hooks(|hooks| &mut hooks.sealed, honest)
            } else if seen.target == "/v1/manifest" {
                hooks(|hooks| &mut hooks.manifest, Reply::problem(404, "None"))
            } else if let Some(id) = seen.target.strip_prefix("/v1/receipts/") {
                let honest = match self.minted.lock().unwrap().get(id) {
                    Some(minted) => Reply::new(200, served(minted, true)),
                    None => Reply::problem(404, "Unknown"),
                };
                hooks(|hooks| &mut hooks.receipt, honest)
            } else {
                let honest = self.answer(&enclave, &seen);
                hooks(|hooks| &mut hooks.infer, honest)
            };
            self.seen.lock().unwrap().push(seen);
            if !requests.reply(reply).await {
                break;
            }
        }
    }

    /// What an enclave makes of a sealed request.
    fn sealed(&self, enclave: &Enclave, outer: &Seen) -> Reply {
        assert_eq!(outer.headers["content-type"], REQUEST_TYPE);
        if outer.headers["touchstone-keyset"] != enclave.world.keyset.digest().to_string() {
            return Reply::problem(422, "Another keyset");
        }
        let opened = enclave.gateway.open(&outer.body).unwrap();
        let bounds = Bounds {
            fields: 100,
            field_bytes: 1 << 14,
        };
        let message = bhttp::Request::decode(opened.content.into(), bounds).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let fields = message.fields.iter();
        let asked = Seen {
            tls: false,
            method: text(&message.method),
            target: text(&message.path),
            headers: fields.map(|(n, v)| (text(n), text(v))).collect(),
            body: message.content.to_vec(),
            exporter: [0; 32],
        };
        let mut reply = self.answer(enclave, &asked);
        if let Some(hook) = &mut self.hooks.lock().unwrap().infer {
            reply = hook(enclave, &asked, reply);
        }
        self.opened.lock().unwrap().push(asked);
        let Reply::Http {
            status,
            headers,
            body,
        } = reply
        else {
            return reply;
        };
        let fields = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        let answer = bhttp::Answer::encode(status, fields, &body);
        let answer = opened.responder.seal(&answer).unwrap();
        Reply::new(200, answer).header("content-type", ANSWER_TYPE)
    }

    /// What an enclave makes of a request; the receipt's bundle is then to be had.
    fn answer(&self, enclave: &Enclave, asked: &Seen) -> Reply {
        if !asked.target.ends_with("/infer") {
            return Reply::new(200, asked.body.clone()).header("x-target", &asked.target);
        }
        let number = self.number.fetch_add(1, Ordering::SeqCst);
        let mut exchange = exchange(number, asked);
        if let Some(change) = &mut self.hooks.lock().unwrap().exchange {
            change(&mut exchange);
        }
        let minted = enclave.world.mint(exchange).finish();
        let reply = reply(&minted);
        let id = hex_encode(&minted.exchange.cti);
        self.minted.lock().unwrap().insert(id, minted);
        reply
    }
}

/// The exchange that this request begins: binary, its output the first half of its input.
fn exchange(number: u64, asked: &Seen) -> Exchange {
    let header = TouchstoneRequest::parse(&asked.headers["touchstone"]).unwrap();
    let length: usize = asked.headers["inference-header-content-length"]
        .parse()
        .unwrap();
    let values: Vec<f32> = asked.body[length..]
        .chunks_exact(4)
        .map(|v| f32::from_le_bytes(v.try_into().unwrap()))
        .collect();
    let mut exchange = Exchange::binary(number);
    exchange.method = asked.method.clone();
    exchange.target = asked.target.clone();
    exchange.request_header_length = Some(length as u64);
    exchange.request_body = asked.body.clone();
    exchange.nonce = header.nonce;
    exchange.require = header.require.unwrap();
    exchange.inputs = vec![Tensor::fp32("x", &[1, 4], &values)];
    exchange.outputs = vec![Tensor::fp32("y", &[1, 2], &values[..2])];
    let head = exchange.response_header_length.unwrap() as usize;
    exchange.response_body.truncate(head);
    exchange.response_body.extend(&exchange.outputs[0].data);
    exchange
}

/// The answer of an exchange, as the enclave sends it.
pub fn reply(minted: &Minted) -> Reply {
    let exchange = &minted.exchange;
    let header = TouchstoneResponse {
        id: exchange.cti,
        keyset: minted.bundle.keyset.digest(),
        require: exchange.require,
        state: State::Pending,
    };
    let tensors = |salt| (!exchange.refused()).then_some(salt);
    let salts = OpeningSalts {
        request: Some(exchange.salts.request),
        response: Some(exchange.salts.response),
        inputs: tensors(exchange.salts.inputs),
        outputs: tensors(exchange.salts.outputs),
    };
    let reply = Reply::new(exchange.status, exchange.response_body.clone())
        .header("touchstone", header.to_string())
        .header("touchstone-openings", salts.to_string());
    match exchange.response_header_length {
        Some(length) => reply
            .header("content-type", "application/octet-stream")
            .header("inference-header-content-length", length.to_string()),
        None => reply.header("content-type", "application/json"),
    }
}

/// The bundle as the host serves it: without openings; before the seal without it.
pub fn served(minted: &Minted, sealed: bool) -> Vec<u8> {
    let mut bundle = minted.bundle.clone();
    bundle.openings = Default::default();
    if !sealed {
        bundle.proof = None;
        bundle.evidence.retain(|e| e.purpose == Some(Purpose::Boot));
    }
    bundle.to_file()
}

/// Exit code and deciding check of an error, which must be these.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Error>, exit: u8, deciding: &str) -> Error {
    let error = result.expect_err("a refusal");
    let verdict = error.verdict();
    assert_eq!(
        (error.exit(), error.deciding()),
        (exit, deciding),
        "{error}\n{}",
        verdict.words()
    );
    assert_eq!(verdict.exit(), exit);
    error
}
