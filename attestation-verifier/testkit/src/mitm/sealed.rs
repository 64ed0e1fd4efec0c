//! Lies of a host that carries sealed requests (Oblivious HTTP): about the key, before it is proven, and in what it carries
//! afterwards. It sees every byte outside and, where a client falls for a key of its own, those inside.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::AsyncWriteExt;
use touchstone_formats::session::{BOOT_TARGET, OHTTP_TARGET, SessionAnswer, SessionRequest};
use touchstone_formats::{Digest, Keyset, LogSigner, Purpose, ReceiptKey, ReceiptSigner};
use touchstone_ohttp::{ANSWER_TYPE, Opened, PublicKey};

use super::gateway::{Gateway, other_key};
use super::message::Message;
use super::record::Recorder;
use super::stream::Crossing;
use super::{Lie, Stream, Upstream, give, relay, wants_close};

/// Where the KEM of the first key configuration stands, and its AEAD at the end of it, as enclaves write it (RFC 9458 §3).
const KEM: std::ops::Range<usize> = 3..5;
const AEAD: std::ops::Range<usize> = 41..43;

/// What such a host keeps from one request to the next.
#[derive(Debug)]
pub(super) struct Sealed {
    lie: Lie,
    /// With a key of the liar's own.
    own: Gateway,
    /// The enclave's key and keyset, as it was last told of them.
    genuine: Mutex<Option<(PublicKey, Digest)>>,
    /// The first answer of the kind that is given to everybody.
    first: Mutex<Option<Message>>,
    crossing: Crossing<Message>,
    /// How often it said that the keyset changed.
    changes: AtomicUsize,
}

/// Who can answer.
#[derive(Clone, Copy)]
pub(super) struct Enclaves<'a> {
    /// The one that the client means.
    pub(super) upstream: &'a Upstream,
    /// Another that is as genuine.
    pub(super) other: &'a Upstream,
}

impl Sealed {
    pub(super) fn new(lie: Lie) -> Self {
        Self {
            lie,
            own: Gateway::new(),
            genuine: Mutex::default(),
            first: Mutex::default(),
            crossing: Crossing::new(),
            changes: AtomicUsize::new(0),
        }
    }

    /// Relays one connection's requests, one by one.
    pub(super) async fn relay(
        &self,
        mut client: Stream,
        enclaves: Enclaves<'_>,
        recorder: &Recorder,
    ) -> io::Result<()> {
        let mut rest = Vec::new();
        while let Some(request) = Message::read(&mut client, &mut rest).await? {
            let last = wants_close(&request);
            recorder.note(&request.start);
            let answer = match request.request() {
                ("POST", BOOT_TARGET) => self.evidence(&request, enclaves, recorder).await?,
                ("POST", OHTTP_TARGET) => self.sealed(request, enclaves, recorder).await?,
                ("GET", _) => self.genuine(enclaves).exchange(&request, None).await?,
                _ => {
                    self.overhear(&request, enclaves, recorder);
                    enclaves.upstream.exchange(&request, None).await?
                }
            };
            give(&mut client, answer, last).await?;
            if last {
                break;
            }
        }
        client.shutdown().await
    }

    /// The enclave to which the client was sent.
    fn genuine<'a>(&self, enclaves: Enclaves<'a>) -> &'a Upstream {
        let odd = self.changes.load(Ordering::SeqCst) % 2 == 1;
        match self.lie {
            Lie::Ohttp422Endless if odd => enclaves.other,
            _ => enclaves.upstream,
        }
    }

    /// Keyset and evidence, or what passes for it.
    async fn evidence(
        &self,
        request: &Message,
        enclaves: Enclaves<'_>,
        recorder: &Recorder,
    ) -> io::Result<Message> {
        let upstream = self.genuine(enclaves);
        let Ok(asked) = SessionRequest::parse(&request.body) else {
            return upstream.exchange(request, None).await;
        };
        let lie = match self.lie {
            Lie::Ohttp422Unproven if self.changes.load(Ordering::SeqCst) > 0 => Lie::OhttpOwnKey,
            lie => lie,
        };
        let session = matches!(lie, Lie::OhttpSessionEvidence | Lie::OhttpRelabelled);
        let answer = if session {
            let file = relay::evidence(upstream, asked.nonce).await?;
            Message::answer(200, "application/json", file)
        } else if matches!(
            lie,
            Lie::OhttpReplay | Lie::OhttpStaleNonce | Lie::OhttpRenonced
        ) {
            let mut nonce = [0; 32];
            SystemRandom::new().fill(&mut nonce).expect("randomness");
            let mut other = request.clone();
            other.body = SessionRequest { nonce }.to_file();
            upstream.exchange(&other, None).await?
        } else {
            upstream.exchange(request, None).await?
        };
        let Ok(mut shown) = SessionAnswer::parse(&answer.body) else {
            return Ok(answer);
        };
        self.learn(&shown.keyset);
        match lie {
            Lie::OhttpOwnKeyset => shown.keyset = self.own_keyset(&shown.keyset),
            Lie::OhttpOwnKey => shown.keyset.ohttp_keys = Some(self.own.published()),
            Lie::OhttpOtherKem => configured(&mut shown.keyset, KEM, [0x00, 0x10]),
            Lie::OhttpOtherAead => configured(&mut shown.keyset, AEAD, [0x00, 0x03]),
            Lie::OhttpRenonced => shown.evidence.nonce = Some(asked.nonce.to_vec()),
            Lie::OhttpRelabelled => shown.evidence.purpose = Some(Purpose::Boot),
            _ => {}
        }
        if lie.leaves_nothing_proven() {
            recorder.lie(format!("handed over what proves no key ({lie})"));
        }
        let answer = Message {
            body: shown.to_file(),
            ..answer
        };
        Ok(match lie {
            Lie::OhttpReplay => first(&self.first, answer).0,
            _ => answer,
        })
    }

    /// A keyset that is the liar's from end to end.
    fn own_keyset(&self, genuine: &Keyset) -> Keyset {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).expect("randomness");
        let receipts = ReceiptSigner::from_seed(&seed).expect("a seed");
        let log = LogSigner::from_seed(&seed, "enclave.example/log").expect("a seed and a name");
        Keyset {
            receipt_key: ReceiptKey(receipts.public_key()),
            log: log.log_key(),
            tls_spki_sha256: None,
            ohttp_keys: Some(self.own.published()),
            ..genuine.clone()
        }
    }

    fn learn(&self, keyset: &Keyset) {
        let keys = keyset.ohttp_keys.as_ref();
        let key = keys.and_then(|keys| PublicKey::from_configurations(&keys.0).ok());
        let mut genuine = self.genuine.lock().unwrap_or_else(PoisonError::into_inner);
        *genuine = key.map(|key| (key, keyset.digest()));
    }

    fn learned(&self) -> Option<(PublicKey, Digest)> {
        let genuine = self.genuine.lock().unwrap_or_else(PoisonError::into_inner);
        genuine.clone()
    }

    /// Notes what was confided to somebody who had proven nothing.
    fn overhear(&self, request: &Message, enclaves: Enclaves<'_>, recorder: &Recorder) {
        if !self.lie.leaves_nothing_proven() {
            return;
        }
        let opened = match enclaves.upstream {
            Upstream::Own(server) => server.gateway.open(&request.body),
            Upstream::Address(_) => None,
        };
        match opened {
            Some(opened) => recorder.opened(true, &opened.content),
            None => recorder.change(|seen| seen.unread += request.body.len()),
        }
    }

    /// The answer to a sealed request, or what passes for it.
    async fn sealed(
        &self,
        mut request: Message,
        enclaves: Enclaves<'_>,
        recorder: &Recorder,
    ) -> io::Result<Message> {
        if let Some(opened) = self.own.open(&request.body) {
            return self.read_along(request, opened, enclaves, recorder).await;
        }
        self.overhear(&request, enclaves, recorder);
        let Enclaves { upstream, other } = enclaves;
        // What goes to a proven enclave is no confidence; what the kit's own server opens of it is kept all the same.
        let proven = !self.lie.leaves_nothing_proven() && self.lie != Lie::Ohttp422Unproven;
        let recorded = || proven.then(|| recorder.clone());
        let body = &mut request.body;
        let middle = body.len() / 2;
        match self.lie {
            Lie::OhttpRequestAlter => {
                recorder.lie("altered one bit of a sealed request");
                if let Some(byte) = body.get_mut(middle) {
                    *byte ^= 1;
                }
            }
            Lie::OhttpRequestCut => {
                recorder.lie("cut a sealed request in half");
                body.truncate(middle);
            }
            Lie::OhttpRequestExtend => {
                recorder.lie("put a byte behind a sealed request");
                body.push(0);
            }
            Lie::OhttpRequestReplay => {
                recorder.lie("handed a sealed request over twice");
                upstream.exchange(&request, recorded()).await?;
            }
            Lie::OhttpForward => {
                recorder.lie("handed a sealed request to another enclave");
                // Which would refuse it unread by what it says outside.
                request
                    .headers
                    .retain(|(name, _)| name != "touchstone-keyset");
                return other.exchange(&request, recorded()).await;
            }
            Lie::OhttpKeysetHeader => {
                recorder.lie("said that a request is sealed for another keyset");
                request.set("touchstone-keyset", &Digest::ZERO.to_string());
            }
            _ => {}
        }
        let genuine = self.genuine(enclaves);
        let mut answer = genuine.exchange(&request, recorded()).await?;
        let middle = answer.body.len() / 2;
        let forged = || br#"{"model_name":"digits","model_version":"1","outputs":[]}"#.to_vec();
        match self.lie {
            Lie::OhttpAnswerAlter => {
                recorder.lie("altered one bit of a sealed answer");
                if let Some(byte) = answer.body.get_mut(middle) {
                    *byte ^= 1;
                }
            }
            Lie::OhttpAnswerCut => {
                recorder.lie("cut a sealed answer in half");
                answer.body.truncate(middle);
            }
            Lie::OhttpAnswerExtend => {
                recorder.lie("put a byte behind a sealed answer");
                answer.body.push(0);
            }
            Lie::OhttpAnswerReplay => {
                let (given, earlier) = first(&self.first, answer);
                if earlier {
                    recorder.lie("gave the first answer once more");
                }
                answer = given;
            }
            Lie::OhttpAnswerSwap => {
                recorder.lie("waits for another client's answer");
                let crossed = self.crossing.swap(answer.clone()).await;
                answer = crossed.unwrap_or(answer);
            }
            Lie::OhttpUnsealed => {
                recorder.lie("answered by itself");
                answer = Message::answer(200, "application/json", forged());
            }
            Lie::OhttpMislabelled => {
                recorder.lie("answered by itself, as if it were sealed");
                answer = Message::answer(200, ANSWER_TYPE, forged());
            }
            Lie::Ohttp500 => {
                recorder.lie("hid an answer and said 500");
                answer = Message::problem(500, "Internal error");
            }
            Lie::Ohttp503 => {
                recorder.lie("hid an answer and said 503");
                answer = Message::problem(503, "Too much to do");
                answer.set("retry-after", "1");
            }
            Lie::Ohttp422 | Lie::Ohttp422Unproven | Lie::Ohttp422Endless => {
                recorder.lie("hid an answer and said that the keyset changed");
                self.changes.fetch_add(1, Ordering::SeqCst);
                answer = other_key();
            }
            _ => {}
        }
        Ok(answer)
    }

    /// A request that was sealed to the liar's own key: he reads it, seals it to the enclave's, and reads the answer.
    async fn read_along(
        &self,
        mut request: Message,
        opened: Opened,
        enclaves: Enclaves<'_>,
        recorder: &Recorder,
    ) -> io::Result<Message> {
        recorder.change(|seen| seen.nothing_proven = true);
        recorder.opened(true, &opened.content);
        recorder.note("the client sealed a request to the liar's own key");
        let (key, keyset) = self.learned().ok_or_else(|| io::Error::other("no key"))?;
        let (sealed, waiting) = key.seal(&opened.content).map_err(io::Error::other)?;
        request.body = sealed;
        request.set("touchstone-keyset", &keyset.to_string());
        let mut answer = enclaves.upstream.exchange(&request, None).await?;
        if answer.status() == 200 {
            let content = waiting.open(answer.body).map_err(io::Error::other)?;
            recorder.opened(false, &content);
            answer.body = opened.responder.seal(&content).map_err(io::Error::other)?;
        }
        Ok(answer)
    }
}

/// Two bytes of the first key configuration.
fn configured(keyset: &mut Keyset, at: std::ops::Range<usize>, bytes: [u8; 2]) {
    let keys = keyset.ohttp_keys.as_mut();
    if let Some(place) = keys.and_then(|keys| keys.0.get_mut(at)) {
        place.copy_from_slice(&bytes);
    }
}

/// The first that there ever was, and whether that was earlier.
fn first(place: &Mutex<Option<Message>>, answer: Message) -> (Message, bool) {
    let mut first = place.lock().unwrap_or_else(PoisonError::into_inner);
    let earlier = first.is_some();
    (first.get_or_insert(answer).clone(), earlier)
}
