//! The proxy: plain HTTP/1.1 for programs on this machine, attested TLS to the enclave, and nothing of an answer
//! before it is verified.
//!
//! ```text
//! client ── HTTP ──▶ request ─▶ demand ─▶ answer ─▶ touchstone_client ── attested TLS ──▶ enclave
//!                                           │ verified? ─▶ keep ─▶ passed on
//! ```
//!
//! Judging is all in `attestation-verifier`, connections and retries are `touchstone-client`'s. Here is what a proxy
//! adds: which requests it takes ([`request`]), what it demands for them ([`demand`]), that nothing is passed
//! on that is not verified and kept ([`answer`], [`keep`]), and what it says of itself ([`status`], [`log`]).

mod answer;
mod body;
mod demand;
mod keep;
mod log;
mod problem;
mod refresh;
mod request;
mod server;
mod stats;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use attestation_verifier::policy::{Rule, SessionPolicy, Waiver};
use attestation_verifier::{Binding, Policy};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Request, Response};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use touchstone_client::Client;
use touchstone_formats::GuaranteeSet;

pub use keep::Keeper;
pub use log::Log;
use log::Mood;
use problem::Problem;
use request::{Hosts, Route};
use stats::Stats;
use status::{Connections, ManifestView, SessionView, Status};

/// Requests under way at once; further ones are 503.
const IN_FLIGHT: u32 = 256;
/// A request's body: bytes. The most that `touchstone check` reads of one.
const MAX_BODY: usize = crate::files::MAX_BODY as usize;
/// All bodies of requests under way: bytes.
const MAX_HELD: usize = 2 * MAX_BODY;
/// Longest time for a body.
const BODY_TIME: Duration = Duration::from_secs(60);
/// Characters of a target that the log shows.
const LOGGED: usize = 200;
/// Longest time for requests under way to finish after SIGTERM.
const DRAIN: Duration = Duration::from_secs(30);

/// What a proxy is started with.
pub struct Settings {
    /// Names and addresses, with their ports, that `Host` may have beside the proxy's own.
    pub allowed_hosts: Vec<Authority>,
    /// The server's URL, for people.
    pub server: String,
    /// What every answer has to hold: the policy's demands and the user's.
    pub floor: GuaranteeSet,
    /// How often the host is asked for a newer manifest, if the policy asks for one.
    pub refresh: Duration,
    /// Where answers are kept.
    pub keeper: Keeper,
    /// Where lines go.
    pub log: Log,
}

/// The policy that a proxy judges by: an answer has to come from the enclave that the connection (or its sealed request) was
/// bound to by `binding`, even where the user's policy leaves that open for answers that come some other way.
pub fn bound(mut policy: Policy, binding: Binding) -> Policy {
    let exporter = || Rule::Expect(vec![Binding::TlsExporter]);
    let waived = || {
        Rule::Waive(Waiver {
            reason: "the policy says nothing of names".into(),
            until: None,
        })
    };
    let session = policy.session.get_or_insert_with(|| SessionPolicy {
        binding: exporter(),
        answers: exporter(),
        name: waived(),
    });
    session.answers = Rule::Expect(vec![binding]);
    policy
}

/// A proxy, shared by its connections.
struct Proxy {
    client: Client,
    settings: Settings,
    listen: SocketAddr,
    hosts: Hosts,
    slots: Arc<Semaphore>,
    held: body::Held,
    stats: Stats,
    /// Sessions that the log has told of.
    sessions: AtomicU64,
    started: Instant,
}

/// Serves until SIGTERM or SIGINT, and then until requests under way are answered, for [`DRAIN`] at most; a
/// second signal ends that. `client` has attested a connection before.
///
/// # Errors
/// Signals or the listener cannot be had.
pub async fn run(client: Client, listener: TcpListener, settings: Settings) -> std::io::Result<()> {
    let listen = listener.local_addr()?;
    let proxy = Arc::new(Proxy {
        client,
        hosts: Hosts::new(listen, settings.allowed_hosts.clone()),
        settings,
        listen,
        slots: Arc::new(Semaphore::new(IN_FLIGHT as usize)),
        held: body::Held::new(MAX_HELD),
        stats: Stats::default(),
        sessions: AtomicU64::new(0),
        started: Instant::now(),
    });
    let log = proxy.settings.log;
    let mut signals = Signals::new()?;
    proxy.tell_sessions();
    log.event(
        Mood::Good,
        "listening",
        &[("address", json!(listen.to_string()))],
    );

    let refreshing = refresh::keep_new(proxy.client.clone(), proxy.settings.refresh, log);
    let refreshing = tokio::spawn(refreshing);
    let (stop, stopped) = watch::channel(false);
    let handler = {
        let proxy = proxy.clone();
        move |request| {
            let proxy = proxy.clone();
            async move { proxy.handle(request).await }
        }
    };
    let mut serving = std::pin::pin!(server::serve(listener, stopped, handler));
    tokio::select! {
        () = serving.as_mut() => return Ok(()),
        () = signals.next() => {}
    }
    refreshing.abort();
    log.event(Mood::Good, "draining", &[]);
    stop.send_replace(true);
    let finished = async {
        serving.await;
        // Answers are verified and kept even if their clients have gone.
        let _all = proxy.slots.acquire_many(IN_FLIGHT).await;
    };
    let clean = tokio::select! {
        finished = tokio::time::timeout(DRAIN, finished) => finished.is_ok(),
        () = signals.next() => false,
    };
    let mood = if clean { Mood::Good } else { Mood::Bad };
    log.event(mood, "stopped", &[("all_answered", json!(clean))]);
    Ok(())
}

/// SIGTERM and SIGINT.
struct Signals(Signal, Signal);

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals(
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

impl Proxy {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let mut body = Some(body);
        let target: String = head.uri.path().chars().take(LOGGED).collect();
        let answered = self.answer(head, &mut body).await;
        let mut response = answered.unwrap_or_else(|problem| {
            let status = problem.status.as_u16();
            self.stats.declined(status);
            // The detail may quote what was sent, and is for its sender.
            let members = [
                ("target", json!(target)),
                ("status", json!(status)),
                ("check", json!(problem.check())),
            ];
            self.settings.log.event(Mood::Bad, "declined", &members);
            problem.into_response()
        });
        // A body that nobody wanted: read what is on its way, so that the client gets to read the answer.
        if let Some(unread) = body
            && !unread.is_end_stream()
            && !body::discard(unread).await
        {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn answer(
        self: &Arc<Self>,
        head: hyper::http::request::Parts,
        body: &mut Option<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Problem> {
        self.hosts.check(&head.headers)?;
        let route = request::route(&head.method, &head.uri)?;
        match route {
            Route::StatusPage => return Ok(self.status().page()),
            Route::StatusDocument => return Ok(self.status().document()),
            Route::Infer { .. } | Route::Relay => {}
        }
        let slot = self
            .slots
            .clone()
            .try_acquire_owned()
            .map_err(|_| Problem::busy("too many requests are under way"))?;
        let Route::Infer { model } = route else {
            let response = self.relay(head).await;
            drop(slot);
            return Ok(response);
        };
        let started = Instant::now();
        let question = self.question(&head, body).await?;
        // Apart from the client's connection: what was asked is verified and kept even if he hangs up.
        let proxy = self.clone();
        let asking = tokio::spawn(async move {
            let (question, share) = question;
            let response = proxy.ask(question, &model, started).await;
            drop((share, slot));
            response
        });
        asking.await.map_err(|_| {
            Problem::new(
                hyper::StatusCode::INTERNAL_SERVER_ERROR,
                "Internal error",
                "the proxy failed on this request; nothing was passed on",
            )
        })
    }

    fn status(&self) -> Status {
        let counters = self.client.counters();
        Status {
            v: "touchstone/proxy-status/1",
            version: env!("CARGO_PKG_VERSION"),
            listen: self.listen.to_string(),
            server: self.settings.server.clone(),
            policy: self.client.policy().profile.clone(),
            require: self.settings.floor.to_string(),
            uptime_s: self.started.elapsed().as_secs(),
            in_flight: IN_FLIGHT as usize - self.slots.available_permits(),
            session: self
                .client
                .session()
                .map(|session| SessionView::of(&session)),
            manifest: self.client.manifest().map(ManifestView::of),
            connections: Connections {
                sessions: counters.sessions,
                sessions_refused: counters.sessions_refused,
                resent: counters.resent,
            },
            answers: self.stats.snapshot(),
        }
    }

    /// Tells the log of sessions that are new since it was last told.
    fn tell_sessions(&self) {
        let made = self.client.counters().sessions;
        if self.sessions.fetch_max(made, Relaxed) >= made {
            return;
        }
        let Some(session) = self.client.session() else {
            return;
        };
        let view = SessionView::of(&session);
        let mood = if view.simulated {
            Mood::Odd
        } else {
            Mood::Good
        };
        self.settings.log.event(
            mood,
            "attested",
            &[
                ("sessions", json!(made)),
                ("name", json!(view.name)),
                ("keyset", json!(view.keyset)),
                ("binding", json!(view.binding)),
                ("simulated", json!(view.simulated)),
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attestation_verifier::policy::template;
    use touchstone_formats::evidence::Tee;

    #[test]
    fn answers_have_to_come_over_the_connection_that_was_proven() {
        let strict = Policy::parse(&template(Tee::SevSnp)).unwrap();
        let session = strict.session.clone().unwrap();
        let silent = Policy {
            session: None,
            ..strict.clone()
        };
        let exporter = Rule::Expect(vec![Binding::TlsExporter]);
        assert_ne!(session.answers, exporter, "the template leaves it open");
        let found = bound(strict.clone(), Binding::TlsExporter).session.unwrap();
        assert_eq!(found.answers, exporter);
        assert_eq!((found.binding, found.name), (session.binding, session.name));
        let sealed = bound(silent.clone(), Binding::OhttpKey).session.unwrap();
        let key = Rule::Expect(vec![Binding::OhttpKey]);
        // Who says nothing of connections has accepted no other.
        assert_eq!((&sealed.binding, &sealed.answers), (&exporter, &key));
        let found = bound(silent, Binding::TlsExporter).session.unwrap();
        assert_eq!((&found.binding, &found.answers), (&exporter, &exporter));
        assert!(matches!(found.name, Rule::Waive(_)));
    }
}
