//! One attested connection, or key for sealed requests: the handshake, the first exchange, and its judgement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation_verifier::ohttp::ConnectionRecord;
use attestation_verifier::verdict::{Fault, refusal};
use attestation_verifier::{At, Binding, Bound, Connection, SessionVerdict, Verdict};
use bytes::Bytes;
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use tokio::time::timeout;
use touchstone_formats::limits::MAX_BUNDLE;
use touchstone_formats::session::{BOOT_TARGET, SESSION_TARGET, SessionRequest};
use touchstone_formats::{CollateralFile, Digest};
use touchstone_ohttp::PublicKey;

use crate::client::Settings;
use crate::http::{Answer, CONNECT, Http, SendError, connect};
use crate::question::random;
use crate::{Error, collateral, manifest, ohttp, tls};

/// How long a session may take, at most: the enclave makes a quote for it, in turn with others.
const ATTEST: Duration = Duration::from_secs(30);

/// What one attested connection, or key for sealed requests, rests on. There is none but of one that held.
#[derive(Clone, Debug)]
pub struct Session {
    /// What to keep beside the answers that came over it (`session.json`).
    pub record: ConnectionRecord,
    /// The judgement: exit 0.
    pub verdict: Verdict,
    bound: Bound,
    keyset: Digest,
    /// When it ends by the manifest that it was judged by, Unix seconds.
    ends: Option<u64>,
    /// Which manifest that was: [`Keeper::replaced`](crate::manifest::Keeper::replaced).
    manifest: u64,
    /// When it was attested.
    pub(crate) opened: Instant,
    /// The key that requests are sealed to; none where TLS ends in the enclave.
    pub(crate) key: Option<PublicKey>,
}

impl Session {
    /// What the connection is bound to, for [`attestation_verifier::Comparison::session`].
    pub fn bound(&self) -> Bound {
        self.bound
    }

    /// Digest of the keyset whose enclave is at the other end.
    pub fn keyset(&self) -> Digest {
        self.keyset
    }

    /// Whether something may still be sent by it.
    pub(crate) fn alive(&self, settings: &Settings) -> bool {
        let now = settings.at().time;
        now <= self.record.keyset().not_after
            && self.ends.is_none_or(|ends| now <= ends)
            && self.manifest == replaced(settings)
            && self.opened.elapsed() < settings.session_life
    }
}

/// A connection that may be used.
pub(crate) struct Usable {
    pub http: Http,
    /// None where there is no TLS, because the caller said so. Connections to one host share that of sealed requests.
    pub session: Option<Arc<Session>>,
}

impl Usable {
    /// Whether it may take a request now.
    pub async fn fit(&mut self, settings: &Settings) -> bool {
        let session = self.session.as_ref();
        session.is_none_or(|session| session.alive(settings))
            && !self.http.is_closed()
            && self.http.ready().await
    }

    /// Whether it is closed, or attested too long ago.
    pub fn ended(&self, life: Duration) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.opened.elapsed() >= life) || self.http.is_closed()
    }

    /// Whether it is a connection under this keyset.
    pub fn is_of(&self, keyset: Option<Digest>) -> bool {
        let own = self.session.as_ref().map(|session| session.keyset);
        own.is_some() && own == keyset
    }

    /// Sends a request and reads the answer, whose body may have `max_body` bytes: sealed, if that is how it is done here.
    pub async fn send(
        &mut self,
        settings: &Settings,
        request: Request<Bytes>,
        max_body: usize,
    ) -> Result<Answer, SendError> {
        match &self.session {
            Some(session) if session.key.is_some() => {
                ohttp::send(&mut self.http, &settings.server, session, request, max_body).await
            }
            _ => self.http.send(request, max_body).await,
        }
    }
}

/// Which manifest is judged by now.
fn replaced(settings: &Settings) -> u64 {
    let manifests = settings.manifests.as_ref();
    manifests.map_or(0, |manifests| manifests.replaced())
}

/// A connection without TLS, which the caller has asked for.
pub(crate) async fn open_plain(settings: &Settings) -> Result<Usable, Error> {
    let stream = connect(&settings.server).await?;
    Ok(Usable {
        http: Http::over(&settings.server, stream).await?,
        session: None,
    })
}

/// A connection to the host for requests that are sealed to a key which was attested before.
pub(crate) async fn open_sealed(
    settings: &Settings,
    session: Arc<Session>,
) -> Result<Usable, Error> {
    let stream = connect(&settings.server).await?;
    Ok(Usable {
        http: Http::over(&settings.server, stream).await?,
        session: Some(session),
    })
}

/// Connects and attests. Until this returns nothing but the request for a session has been sent.
pub(crate) async fn attest(settings: &Settings) -> Result<Usable, Error> {
    let nonce = random()?;
    let server = &settings.server;
    let stream = connect(server).await?;
    let shaking = tls::handshake(server, stream, settings.tls.clone(), &nonce);
    let secured = timeout(CONNECT, shaking)
        .await
        .map_err(|_| Error::late(format!("TLS with {}", server.authority), CONNECT))??;
    let opened = Instant::now();
    let seen = Seen::Tls(Connection {
        nonce,
        exporter: secured.exporter,
        tls_spki_sha256: secured.tls_spki_sha256,
    });
    let http = Http::over(server, secured.stream).await?;
    proven(settings, http, seen, opened).await
}

/// Attests the key that requests are sealed to. Until this returns nothing but the request for its evidence has been sent.
pub(crate) async fn attest_key(settings: &Settings) -> Result<Usable, Error> {
    let seen = Seen::Key(random()?);
    let opened = Instant::now();
    let stream = connect(&settings.server).await?;
    let http = Http::over(&settings.server, stream).await?;
    proven(settings, http, seen, opened).await
}

/// The caller's own end.
enum Seen {
    /// Of a TLS connection.
    Tls(Connection),
    /// None: evidence of a key is wanted, for this nonce.
    Key([u8; 32]),
}

/// The first exchange and its judgement.
async fn proven(
    settings: &Settings,
    mut http: Http,
    seen: Seen,
    opened: Instant,
) -> Result<Usable, Error> {
    // The host may be asked while the enclave makes its quote.
    let ((answer, at), given) = tokio::try_join!(request(settings, &mut http, &seen), async {
        Ok(Given::obtain(settings).await)
    })?;
    let (judged, manifest) = judge(settings, &answer, &seen, given, at).await;
    let refused = |verdict| Err(Error::Refused(Box::new(verdict)));
    if judged.verdict.exit() != 0 {
        return refused(judged.verdict);
    }
    let (record, expected) = match &seen {
        Seen::Tls(connection) => {
            let record = judged.record(connection, at.time);
            (record.map(ConnectionRecord::Tls), Binding::TlsExporter)
        }
        Seen::Key(nonce) => {
            let record = judged.ohttp_record(nonce, at.time);
            (record.map(ConnectionRecord::Ohttp), Binding::OhttpKey)
        }
    };
    let (Some(record), Some(keyset), true) = (
        record,
        judged.keyset(),
        judged.verdict.binding() == expected,
    ) else {
        // The judge gives exit 0 to nothing else; and whatever a policy accepts, this client settles
        // for no less.
        let reason = "nothing binds the connection to the enclave";
        return refused(refusal("session.binding", Fault::Policy, reason, Some(at)));
    };
    let key = match &seen {
        Seen::Tls(_) => None,
        Seen::Key(_) => Some(ohttp::key(keyset)?),
    };
    let session = Session {
        record,
        bound: judged.bound(),
        keyset: keyset.digest(),
        ends: manifest::end(&judged.verdict),
        manifest,
        opened,
        key,
        verdict: judged.verdict,
    };
    Ok(Usable {
        http,
        session: Some(Arc::new(session)),
    })
}

/// The first exchange: the answer's bytes, and when they came.
async fn request(settings: &Settings, http: &mut Http, seen: &Seen) -> Result<(Bytes, At), Error> {
    let (target, nonce) = match seen {
        Seen::Tls(connection) => (SESSION_TARGET, connection.nonce),
        Seen::Key(nonce) => (BOOT_TARGET, *nonce),
    };
    let body = SessionRequest { nonce };
    let request = Request::post(target)
        .header(CONTENT_TYPE, "application/json")
        .body(body.to_file().into())
        .map_err(|e| Error::Usage(e.to_string()))?;
    let limit = settings.timeout.min(ATTEST);
    let answer = timeout(limit, http.send(request, MAX_BUNDLE))
        .await
        .map_err(|_| Error::late("the answer to the request for a session", limit))??;
    if answer.status != 200 {
        return Err(Error::SessionRefused {
            status: answer.status,
            reason: answer.problem(),
            retry_after: answer.retry_after(),
        });
    }
    Ok((answer.body, settings.at()))
}

/// Collateral to judge by, and what there was to say about getting it.
struct Given {
    first: Option<CollateralFile>,
    /// Another, when the first is of no use: the cache, beside the host's.
    second: Option<CollateralFile>,
    /// Whether the first is the host's, and so worth keeping if it verifies.
    from_host: bool,
    note: Option<String>,
}

impl Given {
    async fn obtain(settings: &Settings) -> Given {
        let given = |first, second, from_host, note| Given {
            first,
            second,
            from_host,
            note,
        };
        if let Some(own) = &settings.collateral {
            return given(Some(own.clone()), None, false, None);
        }
        let cached = settings.cache.as_ref().and_then(|cache| cache.read());
        match collateral::of_host(&settings.records).await {
            Ok(file) => {
                let newer = cached
                    .as_ref()
                    .and_then(|cached| collateral::with_newer(&file, cached));
                let note = newer.as_ref().and(settings.cache.as_ref()).map(|cache| {
                    let path = cache.path().display();
                    format!(
                        "The server gave older collateral than it gave before: what is newer was taken from {path}."
                    )
                });
                given(Some(newer.unwrap_or(file)), cached, true, note)
            }
            Err(e) => {
                let note = format!("The server gave no collateral for the session: {e}");
                given(cached, None, false, Some(note))
            }
        }
    }
}

/// The judgement, and which manifest it was by.
async fn judge(
    settings: &Settings,
    answer: &[u8],
    seen: &Seen,
    given: Given,
    at: At,
) -> (SessionVerdict, u64) {
    let by = |collateral: Option<&CollateralFile>| {
        let (verifier, simulated) = (&settings.verifier, settings.expect_simulated);
        match seen {
            Seen::Tls(connection) => {
                verifier.check_session(answer, connection, collateral, at, simulated)
            }
            Seen::Key(nonce) => verifier.check_ohttp(answer, nonce, collateral, at, simulated),
        }
    };
    let once = || {
        let judged = by(given.first.as_ref());
        // Collateral that is missing or out of date: what verified before may still do.
        if judged.verdict.exit() == 5 && given.second.is_some() {
            let again = by(given.second.as_ref());
            if again.verdict.exit() == 0 {
                return (again, false);
            }
        }
        (judged, given.from_host)
    };
    // Before it is judged: what is replaced meanwhile was not judged by.
    let mut manifest = replaced(settings);
    let since = settings.manifests.as_ref().map_or(0, |m| m.asked());
    let (mut judged, mut worth_keeping) = once();
    let mut note = None;
    if let Some(manifests) = settings.manifests.as_ref()
        && manifest::may_help(&judged.verdict)
    {
        match manifests.refresh(settings, since).await {
            Err(error) => note = Some(format!("There is no newer manifest: {error}.")),
            Ok(_) => {
                manifest = replaced(settings);
                (judged, worth_keeping) = once();
            }
        }
    }
    let keep = given.first.filter(|_| worth_keeping);
    if let (0, Some(collateral), Some(cache)) = (judged.verdict.exit(), keep, &settings.cache) {
        let cache = cache.clone();
        // A cache that cannot be written is no reason to refuse: the next session asks the host again.
        let _ = tokio::task::spawn_blocking(move || cache.write(&collateral)).await;
    }
    let risks = &mut judged.verdict.context.residual_risks;
    risks.extend(given.note);
    risks.extend(note);
    (judged, manifest)
}
