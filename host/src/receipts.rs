//! `GET /v1/receipts/<id>`: the bundle, or how matters stand (formats.md §9).
//!
//! | answer | when |
//! | --- | --- |
//! | 200, bundle | all that the receipt states holds |
//! | 202, bundle so far or the bare id, `Retry-After` | it does not yet |
//! | 410, problem | it never will |
//! | 404, problem | nobody promised such a receipt |
//! | 503, problem | not stored, and the enclave, which may have it, cannot be asked |

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{HeaderValue, RETRY_AFTER},
};
use serde::Serialize;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use touchstone_formats::{
    Guarantee, Receipt,
    control::PendingReceipt,
    headers::parse_prefer_wait,
    jcs,
    limits::MAX_BUNDLE,
    text::{base64_encode, hex_array, hex_encode},
};

use crate::{
    collateral::CollateralFolder,
    control::ControlError,
    fleet::{Fleet, Member},
    pending::{Id, Pending},
    problem::{Problem, json},
    seldom::seldom,
    store::{Fate, KeysetRow, Lookup, Place, Store, StoreError, batch::Unsealed},
    waiters::Waiters,
};

const PREFIX: &str = "/v1/receipts/";

/// What answers for receipts.
#[derive(Debug)]
pub struct Receipts {
    store: Arc<Store>,
    pending: Arc<Pending>,
    waiters: Arc<Waiters>,
    fleet: Arc<Fleet>,
    collateral: Arc<CollateralFolder>,
    max_wait: Duration,
    stop: watch::Receiver<bool>,
}

/// How a receipt stands.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// All that it states holds.
    Complete(Vec<u8>),
    /// Something is missing that may still come.
    SoFar(Vec<u8>),
    /// Promised, and not to be had yet.
    Promised,
    /// What is missing will never come, for this reason.
    Never(&'static str),
    /// Nobody promised it.
    Unknown,
    /// Not stored, and the enclave cannot be asked.
    Unclear,
}

impl Receipts {
    /// Answers from the store, and from the enclave for what is not stored yet. When `stop` is true
    /// nobody is kept waiting any more.
    pub fn new(
        store: Arc<Store>,
        pending: Arc<Pending>,
        waiters: Arc<Waiters>,
        fleet: Arc<Fleet>,
        collateral: Arc<CollateralFolder>,
        max_wait: Duration,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            store,
            pending,
            waiters,
            fleet,
            collateral,
            max_wait,
            stop,
        }
    }

    /// What stands after `/v1/receipts/` in a request that the host answers itself. A preflight is the
    /// enclave's to answer, as for every other path.
    pub fn path<'a>(&self, method: &Method, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(PREFIX)
            .filter(|_| method != Method::OPTIONS)
    }

    /// Answers a request for one receipt.
    ///
    /// # Errors
    /// A [`Problem`] for the caller.
    pub async fn answer(
        &self,
        method: &Method,
        name: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Response<Bytes>, Problem> {
        Problem::unless_read(method)?;
        if query.is_some() {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "a receipt's address has no query",
            ));
        }
        let id: Id = hex_array(name).map_err(|_| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "a receipt's id is 32 lower-case hex digits",
            )
        })?;
        let state = self
            .wait(id, self.patience(headers))
            .await
            .map_err(|error| {
                seldom!(error, %error, "a receipt could not be looked up");
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the host's store failed")
            })?;
        match state {
            State::Complete(bundle) => Ok(json(StatusCode::OK, bundle.into())),
            State::SoFar(bundle) => Ok(so_far(bundle)),
            State::Promised => Ok(so_far(promised(id))),
            State::Never(reason) => Err(Problem::new(StatusCode::GONE, reason)),
            State::Unknown => Err(Problem::new(
                StatusCode::NOT_FOUND,
                "no receipt with this id is known here",
            )),
            State::Unclear => Err(Problem::passing(
                StatusCode::SERVICE_UNAVAILABLE,
                1,
                "no receipt with this id is stored, and the enclave cannot be asked for it",
            )),
        }
    }

    fn patience(&self, headers: &HeaderMap) -> Duration {
        let wait = headers
            .get_all("prefer")
            .iter()
            .filter_map(|field| field.to_str().ok())
            .find_map(parse_prefer_wait);
        Duration::from_secs(wait.unwrap_or(0)).min(self.max_wait)
    }

    /// How the receipt stands, once that is final or patience is at its end.
    async fn wait(&self, id: Id, patience: Duration) -> Result<State, StoreError> {
        if patience.is_zero() {
            return self.look(id, true).await;
        }
        let end = Instant::now() + patience;
        let waiter = self.waiters.wait_for(id);
        let mut stop = self.stop.clone();
        // What was promised to be logged is complete at its seal at the earliest: until then the
        // enclave need not be asked.
        let sealed_first = self
            .pending
            .get(&id)
            .is_some_and(|note| note.require.contains(Guarantee::Logged));
        loop {
            let change = waiter.change();
            let state = self.look(id, !sealed_first).await?;
            if !matches!(state, State::SoFar(_) | State::Promised) {
                return Ok(state);
            }
            let over = tokio::select! {
                () = change => false,
                () = sleep_until(end) => true,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            if over {
                return self.look(id, true).await;
            }
        }
    }

    async fn look(&self, id: Id, ask: bool) -> Result<State, StoreError> {
        // Before the store: a receipt that is stored meanwhile is then found there.
        let note = self.pending.get(&id);
        let noted = note.map(|note| note.keyset);
        let found = self.store.lookup(id, noted).await?;
        let promised = found.promised;
        if let Some(state) = self.state(&found) {
            return Ok(state);
        }
        if !ask {
            return Ok(State::Promised);
        }
        match self.ask(id, note.and_then(|note| note.enclave)).await {
            Ok(Some((member, given))) => match Unsealed::read(id, &given.receipt.0) {
                Ok(unsealed) => self.unsealed(&member, unsealed, found.quote).await,
                Err(error) => {
                    seldom!(error, %error, "the enclave gave a receipt that cannot be served");
                    Ok(if promised {
                        State::Promised
                    } else {
                        State::Unclear
                    })
                }
            },
            // It may have been stored, acknowledged and forgotten since the first look.
            Ok(None) => {
                let found = self.store.lookup(id, noted).await?;
                let otherwise = if promised {
                    State::Promised
                } else {
                    State::Unknown
                };
                Ok(self.state(&found).unwrap_or(otherwise))
            }
            Err(error) => {
                tracing::debug!(%error, "the enclave could not be asked for a receipt");
                Ok(if promised {
                    State::Promised
                } else {
                    State::Unclear
                })
            }
        }
    }

    /// Asks for a receipt that is not stored: the enclave that promised it, or all of them where that is
    /// not known. An enclave that cannot be asked counts only if no other has it.
    async fn ask(
        &self,
        id: Id,
        enclave: Option<usize>,
    ) -> Result<Option<(Arc<Member>, PendingReceipt)>, ControlError> {
        let mut answers = JoinSet::new();
        for member in self.fleet.members() {
            if enclave.is_none_or(|enclave| member.index == enclave) {
                let member = member.clone();
                answers.spawn(async move {
                    let answer = member.control.receipt(id).await;
                    (member, answer)
                });
            }
        }
        let mut failure = None;
        while let Some(answer) = answers.join_next().await {
            match answer {
                Ok((member, Ok(Some(receipt)))) => return Ok(Some((member, receipt))),
                Ok((_, Ok(None))) => {}
                Ok((_, Err(error))) => failure = Some(error),
                Err(_) => failure = Some(ControlError::Busy),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// How a receipt stands by what is stored; `None` when the enclave may know more.
    fn state(&self, found: &Lookup) -> Option<State> {
        let have = found.receipt.as_ref().zip(found.keyset.as_ref());
        let complete = have.is_some_and(|(receipt, _)| {
            is_complete(receipt, found.place.is_some(), found.quote.is_some())
        });
        if !complete && found.fate != Fate::Open {
            return Some(State::Never(match (found.fate, &found.place) {
                (Fate::Closed, _) => "the log of its keyset ended without this receipt",
                (_, Some(_)) => "the enclave ended before quoting",
                (_, None) => "the enclave ended before sealing",
            }));
        }
        let (receipt, keyset) = have?;
        let bundle = self.bundle(
            receipt,
            keyset,
            found.place.as_ref(),
            found.quote.as_deref(),
            found.catalog.as_deref(),
        );
        Some(if complete {
            State::Complete(bundle)
        } else {
            State::SoFar(bundle)
        })
    }

    /// How a receipt stands that the enclave has not sealed.
    async fn unsealed(
        &self,
        member: &Member,
        unsealed: Unsealed,
        quote: Option<String>,
    ) -> Result<State, StoreError> {
        let claims = &unsealed.receipt.claims;
        let context = self
            .store
            .context(claims.keyset_digest, claims.catalog.1)
            .await?;
        let Some(keyset) = context.keyset else {
            member.puller.keyset_is_unknown();
            return Ok(State::Promised);
        };
        let catalog = match context.catalog {
            Some(catalog) => Some(catalog),
            None => self.fetch_catalog(member, &unsealed.receipt).await,
        };
        let complete = is_complete(&unsealed.receipt, false, quote.is_some());
        let bundle = self.bundle(
            &unsealed.receipt,
            &keyset,
            None,
            quote.as_deref(),
            catalog.as_deref(),
        );
        self.store.offer_unsealed(member.index, unsealed);
        Ok(if complete {
            State::Complete(bundle)
        } else {
            State::SoFar(bundle)
        })
    }

    /// A catalog that is in no stored batch yet. Bundles do without, if need be.
    async fn fetch_catalog(&self, member: &Member, receipt: &Receipt) -> Option<Arc<str>> {
        let digest = receipt.claims.catalog.1;
        match member.control.catalog(digest).await {
            Ok(catalog) => {
                let catalog = catalog?;
                self.store.offer_catalog(digest, catalog.clone());
                Some(catalog.into())
            }
            Err(error) => {
                tracing::debug!(%error, "a catalog could not be had");
                None
            }
        }
    }

    /// A bundle file. What is stored is canonical JSON already, so that it only has to be put
    /// together; members stand in canonical order.
    fn bundle(
        &self,
        receipt: &Receipt,
        keyset: &KeysetRow,
        place: Option<&Place>,
        quote: Option<&str>,
        catalog: Option<&str>,
    ) -> Vec<u8> {
        let mut out = String::with_capacity(32 << 10);
        out.push('{');
        if let Some(catalog) = catalog {
            out.push_str("\"catalog\":");
            out.push_str(catalog);
            out.push(',');
        }
        out.push_str("\"evidence\":[");
        out.push_str(&self.collateral.attach(&keyset.evidence));
        for evidence in place
            .map(|place| place.batch.evidence.as_str())
            .into_iter()
            .chain(quote)
        {
            out.push(',');
            out.push_str(&self.collateral.attach(evidence));
        }
        out.push_str("],\"keyset\":");
        out.push_str(&keyset.jcs);
        if let Some(place) = place {
            out.push_str(",\"proof\":");
            out.push_str(&quoted(&tlog_proof(place)));
        }
        out.push_str(",\"receipt\":\"");
        out.push_str(&base64_encode(receipt.cose()));
        out.push_str("\",\"v\":\"touchstone/bundle/1\"}\n");
        if out.len() > MAX_BUNDLE && catalog.is_some() {
            return self.bundle(receipt, keyset, place, quote, None);
        }
        out.into_bytes()
    }
}

/// Whether all that the receipt states holds. Boot evidence is there whenever the keyset is. What else
/// there is to ask for (`recomputed`) needs a second bundle, and is the caller's to put together.
fn is_complete(receipt: &Receipt, sealed: bool, quoted: bool) -> bool {
    let states = receipt.claims.guarantees;
    (sealed || !states.contains(Guarantee::Logged))
        && (quoted || !states.contains(Guarantee::Quoted))
}

/// The C2SP tlog-proof of a place in the log.
fn tlog_proof(place: &Place) -> String {
    let mut out = format!("c2sp.org/tlog-proof@v1\nindex {}\n", place.index);
    for hash in &place.proof {
        out.push_str(&base64_encode(&hash.0));
        out.push('\n');
    }
    out.push('\n');
    out.push_str(&place.batch.note);
    out
}

/// Canonical JSON of a text.
fn quoted(text: &str) -> String {
    jcs::to_vec(text)
        .ok()
        .and_then(|json| String::from_utf8(json).ok())
        .unwrap_or_default()
}

/// The body of 202 when nothing but the id is known yet.
fn promised(id: Id) -> Vec<u8> {
    #[derive(Serialize)]
    struct Promised {
        v: &'static str,
        id: String,
        state: &'static str,
    }
    let promised = Promised {
        v: "touchstone/pending/1",
        id: hex_encode(&id),
        state: "pending",
    };
    jcs::to_file(&promised).unwrap_or_default()
}

fn so_far(body: Vec<u8>) -> Response<Bytes> {
    let mut response = json(StatusCode::ACCEPTED, body.into());
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
