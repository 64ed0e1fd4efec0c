//! One attested connection: the handshake, the first exchange, and its judgement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation_verifier::exchange::SessionRecord;
use attestation_verifier::verdict::{Fault, refusal};
use attestation_verifier::{At, Binding, Bound, Connection, SessionVerdict, Verdict};
use bytes::Bytes;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use tokio::time::timeout;
use touchstone_formats::limits::MAX_BUNDLE;
use touchstone_formats::session::{SESSION_TARGET, SessionRequest};
use touchstone_formats::{CollateralFile, Digest};

use crate::client::Settings;
use crate::http::{CONNECT, Http, connect};
use crate::question::random;
use crate::{Error, collateral, manifest, tls};

/// How long a session may take, at most: the enclave makes a quote for it, in turn with others.
const ATTEST: Duration = Duration::from_secs(30);

/// What one attested connection rests on. There is none but of a connection that held.
#[derive(Clone, Debug)]
pub struct Session {
    /// What to keep beside the answers that came over it (`session.json`).
    pub record: SessionRecord,
    /// The judgement: exit 0.
    pub verdict: Verdict,
    bound: Bound,
    keyset: Digest,
    /// When it ends by the manifest that it was judged by, Unix seconds.
    ends: Option<u64>,
    /// Which manifest that was: [`Keeper::replaced`](crate::manifest::Keeper::replaced).
    manifest: u64,
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
}

/// A connection that may be used.
pub(crate) struct Usable {
    pub http: Http,
    /// None where there is no TLS, because the caller said so.
    pub session: Option<Arc<Session>>,
    opened: Instant,
}

impl Usable {
    /// Whether it may take a request now.
    pub async fn fit(&mut self, settings: &Settings) -> bool {
        let now = settings.at().time;
        let alive = self.session.as_ref().is_none_or(|session| {
            now <= session.record.keyset.not_after
                && session.ends.is_none_or(|ends| now <= ends)
                && session.manifest == replaced(settings)
        });
        alive && !self.ended(settings.session_life) && self.http.ready().await
    }

    /// Whether it is closed, or attested too long ago.
    pub fn ended(&self, life: Duration) -> bool {
        let old = self.session.is_some() && self.opened.elapsed() >= life;
        old || self.http.is_closed()
    }

    /// Whether it is a connection under this keyset.
    pub fn is_of(&self, keyset: Option<Digest>) -> bool {
        let own = self.session.as_ref().map(|session| session.keyset);
        own.is_some() && own == keyset
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
        opened: Instant::now(),
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
    let connection = Connection {
        nonce,
        exporter: secured.exporter,
        tls_spki_sha256: secured.tls_spki_sha256,
    };
    let mut http = Http::over(server, secured.stream).await?;
    // The host may be asked while the enclave makes its quote.
    let ((answer, at), given) =
        tokio::try_join!(request(settings, &mut http, &connection), async {
            Ok(Given::obtain(settings).await)
        })?;
    let (judged, manifest) = judge(settings, &answer, &connection, given, at).await;
    let refused = |verdict| Err(Error::Refused(Box::new(verdict)));
    if judged.verdict.exit() != 0 {
        return refused(judged.verdict);
    }
    let record = judged.record(&connection, at.time);
    match (record, judged.keyset(), judged.verdict.binding()) {
        (Some(record), Some(keyset), Binding::TlsExporter) => Ok(Usable {
            http,
            session: Some(Arc::new(Session {
                record,
                bound: judged.bound(),
                keyset: keyset.digest(),
                ends: manifest::end(&judged.verdict),
                manifest,
                verdict: judged.verdict,
            })),
            opened,
        }),
        // The judge gives exit 0 to nothing else; and whatever a policy accepts, this client settles
        // for no less.
        _ => {
            let reason = "nothing binds the connection to the enclave";
            refused(refusal("session.binding", Fault::Policy, reason, Some(at)))
        }
    }
}

/// The first exchange: the answer's bytes, and when they came.
async fn request(
    settings: &Settings,
    http: &mut Http,
    connection: &Connection,
) -> Result<(Bytes, At), Error> {
    let body = SessionRequest {
        nonce: connection.nonce,
    };
    let request = Request::post(SESSION_TARGET)
        .header(CONTENT_TYPE, "application/json")
        .body(body.to_file().into())
        .map_err(|e| Error::Usage(e.to_string()))?;
    let limit = settings.timeout.min(ATTEST);
    let answer = timeout(limit, http.send(request, MAX_BUNDLE))
        .await
        .map_err(|_| Error::late("the answer to the request for a session", limit))??;
    if answer.status != 200 {
        let retry_after = answer.headers.get(RETRY_AFTER);
        return Err(Error::SessionRefused {
            status: answer.status,
            reason: answer.problem(),
            retry_after: retry_after.and_then(|seconds| seconds.to_str().ok()?.parse().ok()),
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
    connection: &Connection,
    given: Given,
    at: At,
) -> (SessionVerdict, u64) {
    let by = |collateral: Option<&CollateralFile>| {
        let expect_simulated = settings.expect_simulated;
        settings
            .verifier
            .check_session(answer, connection, collateral, at, expect_simulated)
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
