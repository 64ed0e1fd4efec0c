//! A fake enclave: true keysets, receipts and log, quotes of zeros, and a test that holds its strings.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};
use touchstone_formats::{
    Catalog, CatalogModel, Claims, Digest, Evidence, GuaranteeSet, Keyset, LogSigner, Purpose,
    Receipt, ReceiptKey, ReceiptSigner, RightEdge, Tee,
    control::{
        Ack, Batch, BatchRange, Batches, KeysetEntry, KeysetState, Keysets, PendingReceipt,
        QuoteCounts, QuoteHealth, ReceiptQuote, SealedReceipt, Status, V,
    },
    headers::{State, TouchstoneRequest, TouchstoneResponse},
    merkle::{EntryKind, append_batch, entry, leaf_hash},
    session::{BOOT_TARGET, OHTTP_TARGET},
    text::{Base64Bytes, Base64Digest, Hex16, hex_array, hex_encode},
};

pub type Id = [u8; 16];

static COUNTER: AtomicU64 = AtomicU64::new(1);

fn unique16() -> Id {
    let digest = Digest::of(&COUNTER.fetch_add(1, Ordering::SeqCst).to_le_bytes());
    digest.0[..16].try_into().unwrap()
}

/// One boot of the enclave.
struct Boot {
    id: Id,
    keyset: Keyset,
    signer: ReceiptSigner,
    log: LogSigner,
    edge: RightEdge,
    catalog: Catalog,
    sequence: u64,
    closed: bool,
    draining: bool,
    waiting: Vec<Vec<u8>>,
    /// Receipts that are not acknowledged, by id.
    kept: HashMap<Id, Vec<u8>>,
    batches: Vec<Batch>,
    /// Replies made beforehand, for benches: the batches after which each goes out, and its bytes.
    prepared: Vec<(u64, Bytes)>,
    /// All acknowledgements as they came in.
    acknowledged: Vec<u64>,
}

impl Boot {
    fn new() -> Self {
        let id = unique16();
        let signer = ReceiptSigner::from_seed(&Digest::of_parts(&[b"receipts", &id]).0).unwrap();
        let log = LogSigner::from_seed(&Digest::of_parts(&[b"log", &id]).0, "enclave.example/log")
            .unwrap();
        let keyset = Keyset {
            name: "enclave.example".into(),
            previous: None,
            not_before: 1_790_000_000,
            not_after: 1_790_086_400,
            receipt_key: ReceiptKey(signer.public_key()),
            log: log.log_key(),
            tls_spki_sha256: None,
            ohttp_keys: None,
            software: Digest::of(b"software"),
            config: Digest::of(b"config"),
        };
        let catalog = Catalog {
            keyset_digest: keyset.digest(),
            epoch: 1,
            previous: Digest::ZERO,
            models: vec![CatalogModel {
                name: "digits".into(),
                version: "1".into(),
                model_digest: Digest::of(b"model"),
                config_digest: Digest::of(b"configuration"),
            }],
        };
        let mut edge = RightEdge::new();
        edge.append(leaf_hash(&entry(EntryKind::Boot, keyset.digest())));
        Self {
            id,
            keyset,
            signer,
            log,
            edge,
            catalog,
            sequence: 0,
            closed: false,
            draining: false,
            waiting: Vec::new(),
            kept: HashMap::new(),
            batches: Vec::new(),
            prepared: Vec::new(),
            acknowledged: Vec::new(),
        }
    }

    fn claims(&self, id: Id, sequence: u64, guarantees: GuaranteeSet) -> Claims {
        Claims {
            iss: self.keyset.name.clone(),
            iat: self.keyset.not_before + 1,
            cti: id,
            nonce: None,
            model_digest: Some(Digest::of(b"model")),
            config_digest: Some(Digest::of(b"configuration")),
            sequence,
            keyset_digest: self.keyset.digest(),
            guarantees,
            catalog: (1, self.catalog.digest()),
            request: Digest::of(&id),
            response: Digest::of(b"response"),
            inputs: Some(Digest::of(b"inputs")),
            outputs: Some(Digest::of(b"outputs")),
            status: 0,
            payment: None,
        }
    }

    fn answer(&mut self, guarantees: GuaranteeSet) -> Id {
        let id = unique16();
        let cose = self
            .signer
            .sign(&self.claims(id, self.sequence, guarantees));
        self.sequence += 1;
        self.waiting.push(cose.clone());
        self.kept.insert(id, cose);
        id
    }

    fn seal(&mut self) -> u64 {
        let receipts = std::mem::take(&mut self.waiting);
        let mut leaves = Vec::new();
        let mut catalogs = Vec::new();
        if self.batches.iter().all(|batch| batch.catalogs.is_empty()) {
            leaves.push(leaf_hash(&entry(EntryKind::Catalog, self.catalog.digest())));
            catalogs.push(self.catalog.clone());
        }
        let before = leaves.len();
        leaves.extend(
            receipts
                .iter()
                .map(|cose| leaf_hash(&entry(EntryKind::Receipt, Digest::of(cose)))),
        );
        if self.closed {
            leaves.push(leaf_hash(&entry(EntryKind::Close, self.keyset.digest())));
        }
        let (edge, proofs) = append_batch(&self.edge, &leaves);
        let checkpoint = self.log.checkpoint(edge.size(), edge.root());
        self.edge = edge;
        let receipts = receipts
            .into_iter()
            .enumerate()
            .map(|(n, cose)| SealedReceipt {
                receipt: Base64Bytes(cose),
                index: proofs.first_index() + (before + n) as u64,
                proof: proofs
                    .proof(before + n)
                    .into_iter()
                    .map(Base64Digest)
                    .collect(),
            })
            .collect();
        let batch = Batch {
            number: 0,
            keyset_digest: self.keyset.digest(),
            checkpoint: Some(self.log.sign(&checkpoint)),
            evidence: Some(evidence(Purpose::Checkpoint)),
            catalogs,
            receipts,
            quotes: Vec::new(),
            closed: self.closed,
        };
        self.push(batch)
    }

    fn push(&mut self, mut batch: Batch) -> u64 {
        batch.number = self.batches.len() as u64 + 1;
        let number = batch.number;
        self.batches.push(batch);
        number
    }

    fn through(&self) -> u64 {
        self.acknowledged.iter().copied().max().unwrap_or(0)
    }
}

pub fn evidence(purpose: Purpose) -> Evidence {
    Evidence {
        purpose: Some(purpose),
        nonce: None,
        tee: Tee::SevSnp,
        quote: vec![0; 1184],
        collateral: None,
        event_log: None,
    }
}

/// Called with method and target.
type Hook = Box<dyn Fn(&Method, &str) -> bool + Send>;

/// What the test can make the control side do.
#[derive(Default)]
struct Strings {
    /// Called for every control request before it is carried out; `true`: the connection is dropped
    /// instead.
    before: Option<Hook>,
    /// Called after the answer is made and before it is sent; `true`: dropped instead.
    after: Option<Hook>,
    /// Batches are given again whatever was acknowledged or asked for.
    forgetful: bool,
    /// Public answers wait for this.
    answer_delay: Duration,
    /// The next answer names this receipt instead of a new one.
    say_again: Option<Id>,
    /// Called with method and target of a public request that was read whole; `true`: the connection ends
    /// without an answer, whatever was done.
    break_off: Option<Hook>,
    /// What the platform gives on; `None`: nothing.
    collateral: Option<Vec<u8>>,
    /// Public requests are refused before any work is done for them.
    refusing: bool,
}

/// The enclave.
pub struct Enclave {
    pub public: SocketAddr,
    pub control: SocketAddr,
    boot: Mutex<Boot>,
    changed: Notify,
    strings: Mutex<Strings>,
    /// Targets that came in on the public listener.
    pub seen: Mutex<Vec<String>>,
    listeners: Mutex<Vec<JoinHandle<()>>>,
}

impl Enclave {
    pub async fn start() -> Arc<Self> {
        let public = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let enclave = Arc::new(Self {
            public: public.local_addr().unwrap(),
            control: control.local_addr().unwrap(),
            boot: Mutex::new(Boot::new()),
            changed: Notify::new(),
            strings: Mutex::default(),
            seen: Mutex::default(),
            listeners: Mutex::default(),
        });
        enclave.listen(public, control);
        enclave
    }

    fn listen(self: &Arc<Self>, public: TcpListener, control: TcpListener) {
        let (one, two) = (self.clone(), self.clone());
        let mut listeners = self.listeners.lock().unwrap();
        listeners.push(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = public.accept().await.unwrap();
                connections.spawn(serve(stream, one.clone(), |enclave, request| {
                    enclave.public(request)
                }));
            }
        }));
        listeners.push(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = control.accept().await.unwrap();
                connections.spawn(serve(stream, two.clone(), |enclave, request| {
                    enclave.control(request)
                }));
            }
        }));
    }

    /// The process is gone: both listeners and all connections.
    pub async fn die(&self) {
        let listeners: Vec<_> = self.listeners.lock().unwrap().drain(..).collect();
        for listener in listeners {
            listener.abort();
            let _ = listener.await;
        }
    }

    /// The process is about to be gone: its listeners are, when this thread comes to it.
    pub fn leave(&self) {
        for listener in self.listeners.lock().unwrap().drain(..) {
            listener.abort();
        }
    }

    /// Started anew, with other keys and nothing remembered, at the same addresses.
    pub async fn rise(self: &Arc<Self>) {
        *self.boot.lock().unwrap() = Boot::new();
        self.come_back().await;
    }

    /// The network was away, not the enclave.
    pub async fn come_back(self: &Arc<Self>) {
        self.listen(
            bind_again(self.public).await,
            bind_again(self.control).await,
        );
    }

    pub fn keyset_digest(&self) -> Digest {
        self.boot.lock().unwrap().keyset.digest()
    }

    pub fn catalog(&self) -> Catalog {
        self.boot.lock().unwrap().catalog.clone()
    }

    /// Makes a receipt, as answering a request does.
    pub fn answer(&self, guarantees: &str) -> Id {
        self.boot
            .lock()
            .unwrap()
            .answer(GuaranteeSet::parse_words(guarantees).unwrap())
    }

    /// Seals what waits. Gives the batch's number.
    pub fn seal(&self) -> u64 {
        let number = self.boot.lock().unwrap().seal();
        self.changed.notify_waiters();
        number
    }

    /// Makes replies of all batches, of some megabytes each, before they are asked for.
    pub fn prepare(&self) {
        let mut boot = self.boot.lock().unwrap();
        let mut prepared = Vec::new();
        let mut after = 0;
        while (after as usize) < boot.batches.len() {
            let (mut end, mut receipts) = (after as usize, 0);
            while end < boot.batches.len() && receipts < 4_000 {
                receipts += boot.batches[end].receipts.len() + 1;
                end += 1;
            }
            let batches = boot.batches[after as usize..end].to_vec();
            let reply = Batches {
                boot: Hex16(boot.id),
                batches,
            };
            prepared.push((after, Bytes::from(serde_json::to_vec(&reply).unwrap())));
            after = end as u64;
        }
        boot.prepared = prepared;
    }

    /// Seals what waits, and closes the log.
    pub fn close(&self) -> u64 {
        self.boot.lock().unwrap().closed = true;
        self.seal()
    }

    /// Quotes receipts alone.
    pub fn quote(&self, ids: &[Id]) -> u64 {
        let quotes = ids
            .iter()
            .map(|id| ReceiptQuote {
                id: Hex16(*id),
                evidence: evidence(Purpose::Receipt),
            })
            .collect();
        let number = {
            let mut boot = self.boot.lock().unwrap();
            let keyset_digest = boot.keyset.digest();
            boot.push(Batch {
                number: 0,
                keyset_digest,
                checkpoint: None,
                evidence: None,
                catalogs: Vec::new(),
                receipts: Vec::new(),
                quotes,
                closed: false,
            })
        };
        self.changed.notify_waiters();
        number
    }

    /// Signs a receipt with claims of the test's choice, and has it wait for the next seal.
    pub fn forge(&self, id: Id, sequence: u64, change: impl FnOnce(&mut Claims)) {
        let mut boot = self.boot.lock().unwrap();
        let mut claims = boot.claims(id, sequence, GuaranteeSet::default_set());
        change(&mut claims);
        let cose = boot.signer.sign(&claims);
        boot.waiting.push(cose);
    }

    /// The last receipt made is never to be had again.
    pub fn forget(&self, id: Id) {
        let mut boot = self.boot.lock().unwrap();
        let cose = boot.kept.remove(&id).unwrap();
        boot.waiting.retain(|waiting| *waiting != cose);
    }

    pub fn say_again(&self, id: Id) {
        self.strings.lock().unwrap().say_again = Some(id);
    }

    pub fn acknowledged(&self) -> Vec<u64> {
        self.boot.lock().unwrap().acknowledged.clone()
    }

    /// Receipts of all batches acknowledged: what the host has promised to keep.
    pub fn acknowledged_receipts(&self) -> Vec<Id> {
        let boot = self.boot.lock().unwrap();
        let through = boot.through();
        boot.batches
            .iter()
            .filter(|batch| batch.number <= through)
            .flat_map(|batch| &batch.receipts)
            .map(|receipt| Receipt::parse(&receipt.receipt.0).unwrap().claims.cti)
            .collect()
    }

    pub fn cose(&self, id: Id) -> Vec<u8> {
        self.boot.lock().unwrap().kept.get(&id).cloned().unwrap()
    }

    /// The host has acknowledged everything.
    pub async fn all_acknowledged(&self) {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            {
                let boot = self.boot.lock().unwrap();
                if boot.through() == boot.batches.len() as u64 {
                    return;
                }
            }
            assert!(
                tokio::time::Instant::now() < end,
                "never acknowledged: {:?}",
                self.acknowledged()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn before(&self, hook: impl Fn(&Method, &str) -> bool + Send + 'static) {
        self.strings.lock().unwrap().before = Some(Box::new(hook));
    }

    pub fn after(&self, hook: impl Fn(&Method, &str) -> bool + Send + 'static) {
        self.strings.lock().unwrap().after = Some(Box::new(hook));
    }

    pub fn no_hooks(&self) {
        let mut strings = self.strings.lock().unwrap();
        strings.before = None;
        strings.after = None;
    }

    pub fn forgetful(&self) {
        self.strings.lock().unwrap().forgetful = true;
    }

    pub fn break_off(&self, hook: impl Fn(&Method, &str) -> bool + Send + 'static) {
        self.strings.lock().unwrap().break_off = Some(Box::new(hook));
    }

    pub fn refuses(&self, refusing: bool) {
        self.strings.lock().unwrap().refusing = refusing;
    }

    /// The platform gives this on, as collateral.
    pub fn gives(&self, collateral: Vec<u8>) {
        self.strings.lock().unwrap().collateral = Some(collateral);
    }

    /// Another keyset comes into force.
    pub fn rotate(&self) {
        let mut boot = self.boot.lock().unwrap();
        boot.keyset.previous = Some(boot.keyset.digest());
    }

    /// Told to stop by somebody else than the host.
    pub fn drains(&self) {
        let mut boot = self.boot.lock().unwrap();
        (boot.draining, boot.closed) = (true, true);
    }

    /// The catalog in force has these models from now on.
    pub fn has_models(&self, names: &[&str]) {
        let mut boot = self.boot.lock().unwrap();
        let model = boot.catalog.models[0].clone();
        boot.catalog.epoch += 1;
        boot.catalog.models = names
            .iter()
            .map(|name| CatalogModel {
                name: (*name).into(),
                ..model.clone()
            })
            .collect();
    }

    /// Requests that came in on the public listener and are about this.
    pub fn seen_of(&self, part: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|target| target.contains(part)).count()
    }

    pub fn answers_after(&self, delay: Duration) {
        self.strings.lock().unwrap().answer_delay = delay;
    }

    async fn public(self: Arc<Self>, request: Request<Incoming>) -> Option<Response<Full<Bytes>>> {
        self.seen.lock().unwrap().push(request.uri().to_string());
        let delay = self.strings.lock().unwrap().answer_delay;
        let path = request.uri().path().to_owned();
        let asked = request
            .headers()
            .get("touchstone")
            .map(|value| value.to_str().unwrap().to_owned());
        let method = request.method().clone();
        let sealed_for = request.headers().get("touchstone-keyset").cloned();
        let body = request.into_body().collect().await.ok()?.to_bytes();
        tokio::time::sleep(delay).await;
        if path.starts_with("/control") || path.starts_with("/v1/objects/") {
            return Some(status(404));
        }
        let strings = self.strings.lock().unwrap();
        if strings.refusing || self.boot.lock().unwrap().draining {
            return Some(status(503));
        }
        if strings
            .break_off
            .as_ref()
            .is_some_and(|hook| hook(&method, &path))
        {
            return None;
        }
        drop(strings);
        if method == Method::OPTIONS {
            let mut response = status(204);
            response.headers_mut().insert(
                "access-control-allow-headers",
                "touchstone, prefer".parse().unwrap(),
            );
            return Some(response);
        }
        let keyset = self.keyset_digest().to_string();
        if path == BOOT_TARGET {
            return Some(Response::new(Full::new(keyset.into())));
        }
        if path == OHTTP_TARGET && sealed_for.is_some_and(|meant| meant != keyset) {
            return Some(status(422));
        }
        let mut response = Response::new(Full::new(body));
        if method == Method::POST && path.ends_with("/infer") {
            let asked = TouchstoneRequest::parse(asked.as_deref().unwrap_or_default()).unwrap();
            let require = asked.require.unwrap_or_else(GuaranteeSet::default_set);
            let again = self.strings.lock().unwrap().say_again.take();
            let (id, keyset) = {
                let mut boot = self.boot.lock().unwrap();
                (
                    again.unwrap_or_else(|| boot.answer(require)),
                    boot.keyset.digest(),
                )
            };
            let said = TouchstoneResponse {
                id,
                keyset,
                require,
                state: State::Pending,
            };
            response
                .headers_mut()
                .insert("touchstone", said.to_string().parse().unwrap());
            response.headers_mut().insert(
                "touchstone-openings",
                "request=:AAAAAAAAAAAAAAAAAAAAAA==:".parse().unwrap(),
            );
        }
        Some(response)
    }

    async fn control(self: Arc<Self>, request: Request<Incoming>) -> Option<Response<Full<Bytes>>> {
        let method = request.method().clone();
        let target = request.uri().to_string();
        let body = request.into_body().collect().await.ok()?.to_bytes();
        if self
            .strings
            .lock()
            .unwrap()
            .before
            .as_ref()
            .is_some_and(|hook| hook(&method, &target))
        {
            return None;
        }
        let response = self.control_answer(&method, &target, &body).await;
        if self
            .strings
            .lock()
            .unwrap()
            .after
            .as_ref()
            .is_some_and(|hook| hook(&method, &target))
        {
            return None;
        }
        Some(response)
    }

    async fn control_answer(
        &self,
        method: &Method,
        target: &str,
        body: &[u8],
    ) -> Response<Full<Bytes>> {
        let path = target.strip_prefix("/control/v1/").unwrap();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match (
            method.as_str(),
            path.split('/').collect::<Vec<_>>().as_slice(),
        ) {
            ("GET", ["status"]) => {
                let boot = self.boot.lock().unwrap();
                json(&Status {
                    v: V,
                    boot: Hex16(boot.id),
                    serving: !boot.closed,
                    draining: boot.draining,
                    keyset_digest: (!boot.closed).then(|| boot.keyset.digest()),
                    pending: boot.waiting.len() as u64,
                    batches: BatchRange {
                        oldest: match boot.through() + 1 {
                            oldest if oldest <= boot.batches.len() as u64 => oldest,
                            _ => 0,
                        },
                        newest: boot.batches.len() as u64,
                    },
                    quote: QuoteHealth::Ok,
                    catalog_epoch: 1,
                    catalog_digest: (!boot.closed).then(|| boot.catalog.digest()),
                    quotes: Some(QuoteCounts {
                        made: 5,
                        failed: 1,
                        microseconds: 2_500_000,
                    }),
                })
            }
            ("POST", ["drain"]) => {
                {
                    let mut boot = self.boot.lock().unwrap();
                    boot.draining = true;
                    boot.closed = true;
                }
                self.seal();
                status(202)
            }
            ("GET", ["keysets"]) => {
                let boot = self.boot.lock().unwrap();
                let state = if boot.closed {
                    KeysetState::Closed
                } else {
                    KeysetState::Current
                };
                let entry = KeysetEntry {
                    keyset: boot.keyset.clone(),
                    evidence: evidence(Purpose::Boot),
                    state,
                };
                json(&Keysets {
                    boot: Hex16(boot.id),
                    keysets: vec![entry],
                })
            }
            ("GET", ["batches"]) => {
                let number = |name: &str| {
                    query
                        .split('&')
                        .find_map(|pair| pair.strip_prefix(name))
                        .unwrap()
                        .parse::<u64>()
                        .unwrap()
                };
                let (after, wait) = (number("after="), number("wait="));
                let end = tokio::time::Instant::now() + Duration::from_secs(wait);
                loop {
                    let changed = self.changed.notified();
                    let forgetful = self.strings.lock().unwrap().forgetful;
                    {
                        let boot = self.boot.lock().unwrap();
                        let after = if forgetful { 0 } else { after };
                        let ready = boot.prepared.iter().find(|(first, _)| *first == after);
                        if let Some((_, reply)) = ready {
                            return Response::new(Full::new(reply.clone()));
                        }
                        let batches: Vec<Batch> = boot
                            .batches
                            .iter()
                            .filter(|batch| batch.number > after)
                            .cloned()
                            .collect();
                        if !batches.is_empty() {
                            return json(&Batches {
                                boot: Hex16(boot.id),
                                batches,
                            });
                        }
                    }
                    if tokio::time::timeout_at(end, changed).await.is_err() {
                        return json(&Batches {
                            boot: Hex16(self.boot.lock().unwrap().id),
                            batches: Vec::new(),
                        });
                    }
                }
            }
            ("GET", ["receipts", id]) => {
                let id: Id = hex_array(id).unwrap();
                let boot = self.boot.lock().unwrap();
                let acknowledged = boot.batches.iter().any(|batch| {
                    batch.number <= boot.through()
                        && batch
                            .receipts
                            .iter()
                            .any(|receipt| Some(&receipt.receipt.0) == boot.kept.get(&id))
                });
                match boot.kept.get(&id).filter(|_| !acknowledged) {
                    Some(cose) => json(&PendingReceipt {
                        receipt: Base64Bytes(cose.clone()),
                        keyset_digest: boot.keyset.digest(),
                    }),
                    None => status(404),
                }
            }
            ("GET", ["objects", digest]) => {
                let boot = self.boot.lock().unwrap();
                let jcs = boot.catalog.to_jcs();
                let objects = [&jcs[..], b"config"];
                let named = |object: &&&[u8]| hex_encode(&Digest::of(object).0) == **digest;
                match objects.iter().find(named) {
                    Some(object) => Response::new(Full::new(Bytes::copy_from_slice(object))),
                    None => status(404),
                }
            }
            ("GET", ["collateral"]) => match &self.strings.lock().unwrap().collateral {
                Some(file) => Response::new(Full::new(Bytes::copy_from_slice(file))),
                None => status(404),
            },
            ("POST", ["ack"]) => {
                let ack: Ack = serde_json::from_slice(body).unwrap();
                let mut boot = self.boot.lock().unwrap();
                if ack.boot.0 != boot.id {
                    return status(409);
                }
                assert!(ack.through <= boot.batches.len() as u64);
                boot.acknowledged.push(ack.through);
                status(204)
            }
            other => panic!("the host asked for {other:?}"),
        }
    }
}

async fn bind_again(address: SocketAddr) -> TcpListener {
    for _ in 0..200 {
        if let Ok(listener) = TcpListener::bind(address).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{address} cannot be had again");
}

async fn serve<F>(
    stream: TcpStream,
    enclave: Arc<Enclave>,
    answer: impl Fn(Arc<Enclave>, Request<Incoming>) -> F + Copy,
) where
    F: Future<Output = Option<Response<Full<Bytes>>>>,
{
    let service = service_fn(move |request| {
        let enclave = enclave.clone();
        async move { answer(enclave, request).await.ok_or("dropped by the test") }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn status(code: u16) -> Response<Full<Bytes>> {
    Response::builder()
        .status(code)
        .body(Full::default())
        .unwrap()
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from(serde_json::to_vec(value).unwrap())))
}
