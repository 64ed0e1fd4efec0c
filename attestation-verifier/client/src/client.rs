//! The client: its settings, its connections, and what it counts.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation_verifier::exchange::OwnedTensor;
use attestation_verifier::policy::Rule;
use attestation_verifier::verdict::{Fault, refusal};
use attestation_verifier::{At, Binding, Manifests, Policy, Roots, Verifier};
use bytes::Bytes;
use hyper::header::{self, HeaderName};
use hyper::{Method, Request};
use rustls::ClientConfig;
use touchstone_formats::CollateralFile;

use crate::address::Server;
use crate::collateral::Cache;
use crate::http::{Answer, MAX_ANSWER, Records};
use crate::manifest::{InUse, Keeper, NotRefreshed, Refreshed};
use crate::oip::Encoding;
use crate::pool::Pool;
use crate::provisional::Provisional;
use crate::question::Question;
use crate::session::Session;
use crate::{Error, tls};

/// Asks one server, over connections that are attested before anything is sent on them.
///
/// Clones share connections and counters. Dropping a future that is under way ends its connection.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub settings: Settings,
    pub pool: Pool,
    pub counts: Counts,
}

/// What a client was made with.
pub(crate) struct Settings {
    pub server: Server,
    pub records: Records,
    pub tls: Arc<ClientConfig>,
    /// Policy and roots, and what was verified under them by all the client's connections.
    pub verifier: Verifier,
    pub expect_simulated: bool,
    pub collateral: Option<CollateralFile>,
    pub cache: Option<Cache>,
    /// None where the policy asks for no manifest.
    pub manifests: Option<Arc<Keeper>>,
    pub timeout: Duration,
    pub wait: Duration,
    pub session_life: Duration,
    /// Requests are sealed to the enclave's key (Oblivious HTTP).
    pub sealed: bool,
    clock: Clock,
}

type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

impl Settings {
    pub fn policy(&self) -> &Policy {
        self.verifier.policy()
    }

    /// The caller's clock now; never asserted.
    pub fn at(&self) -> At {
        At {
            time: (self.clock)(),
            asserted: false,
        }
    }
}

/// What a client has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections, or keys for sealed requests, that were attested.
    pub sessions: u64,
    /// Connections that were not, whatever the reason. Nothing was sent on them.
    pub sessions_refused: u64,
    /// Requests that were answered, whatever the answer.
    pub answers: u64,
    /// Requests that were sent again because the enclave had another keyset than the connection (421), or than they were sealed for (422).
    pub resent: u64,
    /// Answers that were verified.
    pub verified: u64,
    /// Answers that were not.
    pub unverified: u64,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub sessions: AtomicU64,
    pub sessions_refused: AtomicU64,
    pub answers: AtomicU64,
    pub resent: AtomicU64,
    pub verified: AtomicU64,
    pub unverified: AtomicU64,
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Client {
    /// A client of `https://HOST[:PORT]`, with AMD's own roots and all settings as [`Builder`] has them.
    /// One connection is attested before this returns.
    ///
    /// # Errors
    /// As [`Builder::connect`].
    pub async fn connect(url: &str, policy: Policy) -> Result<Client, Error> {
        Client::builder(url, policy)?.connect().await
    }

    /// A client with settings of its own.
    ///
    /// # Errors
    /// [`Error::Usage`]: no URL of a server.
    pub fn builder(url: &str, policy: Policy) -> Result<Builder, Error> {
        Ok(Builder {
            server: Server::parse(url)?,
            policy,
            roots: Roots::pinned(),
            expect_simulated: false,
            records: None,
            collateral: None,
            collateral_cache: None,
            manifests: Manifests::default(),
            manifest_state: None,
            connections: 8,
            timeout: Duration::from_secs(120),
            wait: Duration::from_secs(30),
            session_life: Duration::from_secs(3600),
            readable_by_the_host: false,
            sealed: false,
            clock: Arc::new(system_clock),
        })
    }

    /// Asks a model about tensors, in the binary encoding, for what the policy demands.
    ///
    /// # Errors
    /// As [`Client::ask`]; tensors that cannot be sent.
    pub async fn infer(&self, model: &str, inputs: &[OwnedTensor]) -> Result<Provisional, Error> {
        self.ask(Question::infer(model, None, inputs, Encoding::Binary)?)
            .await
    }

    /// Asks. What comes back is not to be believed before it is verified, and its type says so.
    ///
    /// # Errors
    /// Whatever keeps an answer with a receipt from coming; see [`Error`]. Whether the question was sent
    /// is known for [`Error::Usage`], [`Error::Refused`], [`Error::SessionRefused`] (it was not, or the enclave itself
    /// said that it did not process it) and [`Error::Answered`] (it was); after any other, [`Error::NotResealed`] among them,
    /// the enclave may have answered it.
    pub async fn ask(&self, mut question: Question) -> Result<Provisional, Error> {
        let settings = &self.0.settings;
        if question.guarantees().is_none() {
            question = question.require(settings.policy().answer.require);
        }
        let asked_at = settings.at().time;
        let request = question.request()?;
        let (answer, session) = self.0.exchange(request, MAX_ANSWER).await?;
        Provisional::read(self.clone(), question, asked_at, answer, session)
    }

    /// Sends any other request (metadata, health) over an attested connection, and reads its answer, whose
    /// body may have `max_body` bytes. There is no receipt for it: that it is from the attested enclave is all
    /// that is known. Headers that are about the connection are not sent on.
    ///
    /// # Errors
    /// As [`Client::ask`]. An answer of any status is an answer.
    pub async fn relay(
        &self,
        mut request: Request<Bytes>,
        max_body: usize,
    ) -> Result<Answer, Error> {
        if request.method() == Method::CONNECT {
            return Err(Error::Usage("CONNECT is not sent on".into()));
        }
        let Some(target) = request.uri().path_and_query().cloned() else {
            return Err(Error::Usage("a request target without a path".into()));
        };
        *request.uri_mut() = target.into();
        let headers = request.headers_mut();
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
        const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
        for name in [
            header::CONNECTION,
            header::CONTENT_LENGTH,
            header::EXPECT,
            header::PROXY_AUTHORIZATION,
            header::TE,
            header::TRAILER,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
            KEEP_ALIVE,
            PROXY_CONNECTION,
        ]
        .into_iter()
        .chain(named)
        {
            headers.remove(name);
        }
        let (answer, _) = self.0.exchange(request, max_body).await?;
        Ok(answer)
    }

    /// What the newest attested connection rests on, or the key for sealed requests; none in plain HTTP.
    pub fn session(&self) -> Option<Arc<Session>> {
        self.0.pool.newest()
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        self.0.settings.policy()
    }

    /// Asks the host for a newer manifest now, and judges by it from now on if it counts: connections that were judged by the
    /// one before are then attested anew. A client asks by itself only when something refuses for want of a manifest; one that
    /// lives for long is to be told now and then, or it learns late that a release has ended.
    ///
    /// # Errors
    /// [`NotRefreshed`]: the client goes on with what it had.
    pub async fn refresh_manifest(&self) -> Result<Refreshed, Arc<NotRefreshed>> {
        let settings = &self.0.settings;
        let manifests = settings.manifests.as_ref();
        let manifests = manifests.ok_or_else(|| Arc::new(NotRefreshed::NotDemanded))?;
        manifests.refresh(settings, manifests.asked()).await
    }

    /// Judges by these manifests from now on, and by none of those before: connections are attested anew before they take
    /// another request, and answers that are not verified yet are judged by these. Those that count raise the
    /// [state](Builder::manifest_state), which refuses older ones, too.
    ///
    /// # Errors
    /// [`NotRefreshed`]: what was accepted before is not known, or these cannot be remembered. Nothing has changed.
    pub fn replace_manifests(&self, manifests: &Manifests) -> Result<(), NotRefreshed> {
        let settings = &self.0.settings;
        match &settings.manifests {
            None => Ok(()),
            Some(keeper) => keeper.replace(manifests.clone(), settings),
        }
    }

    /// The manifest in use; none where the policy asks for none.
    pub fn manifest(&self) -> Option<InUse> {
        let manifests = self.0.settings.manifests.as_ref();
        manifests.map(|manifests| manifests.in_use())
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        let counts = &self.0.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            sessions: read(&counts.sessions),
            sessions_refused: read(&counts.sessions_refused),
            answers: read(&counts.answers),
            resent: read(&counts.resent),
            verified: read(&counts.verified),
            unverified: read(&counts.unverified),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.0.settings.server.url())
    }
}

/// Settings of a [`Client`], before it connects.
#[must_use]
pub struct Builder {
    server: Server,
    policy: Policy,
    roots: Roots,
    expect_simulated: bool,
    records: Option<String>,
    collateral: Option<CollateralFile>,
    collateral_cache: Option<PathBuf>,
    manifests: Manifests,
    manifest_state: Option<PathBuf>,
    connections: usize,
    timeout: Duration,
    wait: Duration,
    session_life: Duration,
    readable_by_the_host: bool,
    sealed: bool,
    clock: Clock,
}

impl Builder {
    /// Roots of trust; AMD's own without this.
    pub fn roots(mut self, roots: Roots) -> Builder {
        self.roots = roots;
        self
    }

    /// A simulated platform will do. Without this what stands under a root of the caller's is refused
    /// (exit 6), and nothing is sent.
    pub fn expect_simulated(mut self, expect: bool) -> Builder {
        self.expect_simulated = expect;
        self
    }

    /// Where the host's own HTTP is (`http://HOST:PORT`), for receipts and collateral; on the server's port
    /// without this.
    pub fn records(mut self, url: impl Into<String>) -> Builder {
        self.records = Some(url.into());
        self
    }

    /// Collateral of the caller's own, to judge sessions by; the host is then not asked for any.
    pub fn collateral(mut self, file: CollateralFile) -> Builder {
        self.collateral = Some(file);
        self
    }

    /// A folder for collateral that verified. What is in it is used when the host has none, or none that
    /// is in date; and of each revocation list and each text of Intel's in place of an older one of the host's. It is
    /// made if it is not there.
    pub fn collateral_cache(mut self, folder: impl Into<PathBuf>) -> Builder {
        self.collateral_cache = Some(folder.into());
        self
    }

    /// Manifests of the caller's own, for a policy that asks for one, and what he accepted before. The highest version that
    /// counts is judged by; newer ones are asked of the host. The newest accepted is kept in the [cache](Self::collateral_cache).
    pub fn manifests(mut self, manifests: Manifests) -> Builder {
        self.manifests = manifests;
        self
    }

    /// The file that remembers the highest version accepted (docs/manifests.md, "Rollback"): read when the client is made, and
    /// raised by every newer manifest before it is used.
    pub fn manifest_state(mut self, file: impl Into<PathBuf>) -> Builder {
        self.manifest_state = Some(file.into());
        self
    }

    /// Connections at most, each attested; 8 without this. Who asks more at once waits.
    pub fn connections(mut self, most: usize) -> Builder {
        self.connections = most;
        self
    }

    /// Time for an answer, once a connection is there; 120 s without this. A session may take no longer
    /// either, and 30 s at most.
    pub fn timeout(mut self, limit: Duration) -> Builder {
        self.timeout = limit;
        self
    }

    /// Time for what was asked to hold (the seal), once there is an answer; 30 s without this.
    pub fn wait(mut self, limit: Duration) -> Builder {
        self.wait = limit;
        self
    }

    /// Age at which a connection is replaced by one that is attested anew; 1 h without this. One whose
    /// keyset has come to its end is replaced in any case.
    pub fn session_life(mut self, life: Duration) -> Builder {
        self.session_life = life;
        self
    }

    /// **Gives up secrecy.** Speaks plain HTTP (`http://…`) with the host, who can then read every question
    /// and every answer. Answers prove themselves as ever; that they were asked for in private nothing can
    /// show, and their binding is `none`. Refused where the policy demands a binding.
    pub fn readable_by_the_host(mut self) -> Builder {
        self.readable_by_the_host = true;
        self
    }

    /// Seals every request to a key of the enclave's (Oblivious HTTP, formats.md §13) and sends it by way of the host's own HTTP
    /// (`http://…`), which sees sizes and times alone. The key is attested before anything is sealed to it; the binding is
    /// `ohttp-key`, which the policy has to accept.
    pub fn sealed(mut self) -> Builder {
        self.sealed = true;
        self
    }

    /// A clock, Unix seconds, in place of this machine's: for tests.
    pub fn clock(mut self, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Builder {
        self.clock = Arc::new(clock);
        self
    }

    /// Makes the client, and attests one connection (none is made without TLS).
    ///
    /// # Errors
    /// [`Error::Usage`]: settings that do not go together. [`Error::Refused`]: the judgement of the
    /// connection, or of a plain one by the policy. And whatever keeps a connection from being made.
    pub async fn connect(self) -> Result<Client, Error> {
        let server = self.server;
        let wrong = match (server.tls, self.readable_by_the_host, self.sealed) {
            (true, false, false) | (false, true, false) | (false, false, true) => None,
            (false, false, false) => {
                Some("over http:// the host would read every question; use https://, or sealed()")
            }
            (true, true, _) => Some("readable_by_the_host() is for http://"),
            (true, false, true) => Some("sealed() is for http://: the host's own HTTP"),
            (false, true, true) => Some("readable_by_the_host() and sealed() exclude one another"),
        };
        if let Some(wrong) = wrong {
            return Err(Error::Usage(format!("{}: {wrong}", server.url())));
        }
        if self.connections == 0 {
            return Err(Error::Usage(
                "a client needs at least one connection".into(),
            ));
        }
        let records = match &self.records {
            None => server.records(),
            Some(url) => Server::parse(url)?,
        };
        if records.tls {
            return Err(Error::Usage(format!(
                "records {}: expected http://, what is there is public and proves itself",
                records.url()
            )));
        }
        let folder = self.collateral_cache.as_deref();
        let cache = folder.map(|folder| Cache::new(folder, &server));
        let cache = cache.transpose()?;
        let plain = self.readable_by_the_host;
        let at = At {
            time: (self.clock)(),
            asserted: false,
        };
        let manifests = self.policy.manifest.clone().map(|demand| {
            let kept = cache.as_ref().map(|cache| cache.manifest().to_owned());
            Keeper::open(demand, self.manifests, self.manifest_state, kept, at)
        });
        let manifests = manifests
            .transpose()
            .map_err(|error| Error::Usage(error.to_string()))?
            .map(Arc::new);
        let settings = Settings {
            records: Records::new(records),
            tls: tls::config()?,
            cache,
            manifests,
            server,
            verifier: Verifier::new(self.policy, self.roots),
            expect_simulated: self.expect_simulated,
            collateral: self.collateral,
            timeout: self.timeout,
            wait: self.wait,
            session_life: self.session_life,
            sealed: self.sealed,
            clock: self.clock,
        };
        if let Some(manifests) = &settings.manifests {
            manifests.give_to(&settings.verifier);
        }
        if plain {
            unbound(&settings)?;
        }
        let client = Client(Arc::new(Inner {
            settings,
            pool: Pool::new(self.connections),
            counts: Counts::default(),
        }));
        if !plain {
            client.0.warm().await?;
        }
        Ok(client)
    }
}

/// Whether the policy puts up with a connection that nothing binds. One without a `[session]` says nothing
/// of connections, and the caller has asked for this one by name.
fn unbound(settings: &Settings) -> Result<(), Error> {
    let Some(session) = &settings.policy().session else {
        return Ok(());
    };
    let at = settings.at();
    let reason = match &session.binding {
        Rule::Expect(accepted) if accepted.contains(&Binding::None) => return Ok(()),
        Rule::Waive(waiver) if waiver.holds_at(at.time) => return Ok(()),
        Rule::Expect(_) => "the policy demands what binds a connection, and http:// has nothing",
        Rule::Waive(_) => "the policy's waiver ended, and nothing binds a connection over http://",
    };
    let verdict = refusal("session.binding", Fault::Policy, reason, Some(at));
    Err(Error::Refused(Box::new(verdict)))
}

/// Unix seconds on this machine's clock; before 1970 there is no time at which anything holds.
fn system_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
