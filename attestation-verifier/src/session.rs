//! The judgement of an attested connection (formats.md §10): whether the TLS session that the caller holds
//! one end of has its other end inside the enclave that evidence of purpose `session` is about; or whether the key that
//! his requests are sealed to (Oblivious HTTP, formats.md §13) is that of the enclave which evidence of purpose `boot` is about.
//!
//! What the caller saw at his own end of the connection ([`Connection`]) is never taken from the
//! other side. [`check_session`] and [`check_ohttp`] judge before anything is sent,
//! [`check_session_record`] and [`check_ohttp_record`] what was kept beside an answer.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};
use touchstone_formats::evidence::{Collateral, Tee};
use touchstone_formats::report_data::{bind_boot, bind_session, report_data};
use touchstone_formats::text::hex_encode;
use touchstone_formats::{CollateralFile, Digest, Evidence, Keyset, Purpose, SessionAnswer};

use crate::bundle::{CLOCK_AHEAD, TIME_ASSERTED, decoded, rule};
use crate::dates::rfc3339;
use crate::exchange::SessionRecord;
use crate::known::Known;
use crate::ohttp::OhttpRecord;
use crate::policy::{Expect, Rule};
use crate::verdict::{Checks, Context, Fault, Verdict};
use crate::verifier::By;
use crate::{At, Policy, Roots, keyset};

/// What ties a connection to the enclave at its other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Binding {
    /// Nothing: whoever stood between could read, and answer.
    #[default]
    None,
    /// The TLS key is one that evidence binds to the enclave; nothing shows that the evidence is of
    /// this connection.
    SpkiPin,
    /// Every request is sealed to a key that evidence, made for the caller's own nonce, binds to the enclave; its answer is
    /// sealed for that request.
    OhttpKey,
    /// Evidence over this very TLS session, made for the caller's own nonce.
    TlsExporter,
}

impl Binding {
    /// All of them, the weakest first.
    pub const ALL: [Binding; 4] = [
        Binding::None,
        Binding::SpkiPin,
        Binding::OhttpKey,
        Binding::TlsExporter,
    ];

    /// The word in policies and verdicts.
    pub fn name(self) -> &'static str {
        match self {
            Binding::None => "none",
            Binding::SpkiPin => "spki-pin",
            Binding::OhttpKey => "ohttp-key",
            Binding::TlsExporter => "tls-exporter",
        }
    }

    /// The binding of this name.
    pub fn from_name(name: &str) -> Option<Binding> {
        Binding::ALL.into_iter().find(|b| b.name() == name)
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the caller saw at his own end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The nonce that he sent: fresh, random, used for nothing else.
    pub nonce: [u8; 32],
    /// The TLS exporter under the label of formats.md §10, with that nonce as its context.
    pub exporter: [u8; 32],
    /// SHA-256 of the SubjectPublicKeyInfo (DER) of the key that signed the handshake.
    pub tls_spki_sha256: Digest,
}

/// That a connection was bound to a keyset, and how; nothing of the kind where its judgement refused. Only
/// a judgement makes one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    binding: Binding,
    keyset: Option<Digest>,
    simulated: bool,
}

impl Bound {
    /// What held.
    pub fn binding(&self) -> Binding {
        self.binding
    }

    /// Digest of the keyset whose enclave the connection ended in; none if nothing held.
    pub fn keyset(&self) -> Option<Digest> {
        self.keyset
    }

    /// Whether that rests on a root that the caller named.
    pub(crate) fn simulated(&self) -> bool {
        self.simulated
    }
}

/// The judgement of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionVerdict {
    /// The verdict. Nothing may be sent on the connection unless its exit code is 0, or 6 and a simulated
    /// platform will do.
    pub verdict: Verdict,
    bound: Bound,
    /// Keyset and evidence, with the collateral that it was judged by; none unless it held.
    held: Option<(Keyset, Option<Evidence>)>,
}

impl SessionVerdict {
    /// The keyset of the enclave at the other end; only where the verdict's exit code is 0 or 6, and evidence
    /// stood for it.
    pub fn keyset(&self) -> Option<&Keyset> {
        match &self.held {
            Some((keyset, Some(_))) => Some(keyset),
            _ => None,
        }
    }

    /// What the connection is bound to, for [`crate::Comparison::session`].
    pub fn bound(&self) -> Bound {
        self.bound
    }

    /// What to keep beside the answers that come over this connection, collateral included; none where it was
    /// refused. `opened_at`: Unix seconds on the caller's clock.
    pub fn record(&self, connection: &Connection, opened_at: u64) -> Option<SessionRecord> {
        let (keyset, evidence) = self.held.as_ref()?;
        Some(SessionRecord {
            nonce: connection.nonce,
            exporter: evidence.is_some().then_some(connection.exporter),
            tls_spki_sha256: connection.tls_spki_sha256,
            opened_at,
            keyset: keyset.clone(),
            evidence: evidence.clone(),
        })
    }

    /// What to keep beside the answers to requests that were sealed to the judged keyset's keys, collateral included; none
    /// where it was refused, or has no such keys. `opened_at`: Unix seconds on the caller's clock.
    pub fn ohttp_record(&self, nonce: &[u8; 32], opened_at: u64) -> Option<OhttpRecord> {
        let (keyset, evidence) = self.held.as_ref()?;
        Some(OhttpRecord {
            nonce: *nonce,
            ohttp_keys_sha256: Digest::of(&keyset.ohttp_keys.as_ref()?.0),
            opened_at,
            keyset: keyset.clone(),
            evidence: evidence.clone()?,
        })
    }
}

/// Judges the answer to `POST /v1/session` before anything else is sent on the connection.
///
/// `answer_file`: the body, as it came. `collateral`: from the host or a cache of the caller's own; it
/// proves itself, and stands in for what the evidence carries. A pure function, as [`crate::check`] is.
pub fn check_session(
    answer_file: &[u8],
    connection: &Connection,
    collateral: Option<&CollateralFile>,
    policy: &Policy,
    roots: &Roots,
    at: At,
    expect_simulated: bool,
) -> SessionVerdict {
    let known = Known::nothing();
    let by = By::new(policy, roots, &known);
    check_session_by(
        answer_file,
        connection,
        collateral,
        by,
        at,
        expect_simulated,
    )
}

/// [`check_session`], by what is known.
pub(crate) fn check_session_by(
    answer_file: &[u8],
    connection: &Connection,
    collateral: Option<&CollateralFile>,
    by: By<'_>,
    at: At,
    expect_simulated: bool,
) -> SessionVerdict {
    by.ruled(&[], at, |by| {
        session_by(
            answer_file,
            connection,
            collateral,
            by,
            at,
            expect_simulated,
        )
    })
}

fn session_by(
    answer_file: &[u8],
    connection: &Connection,
    collateral: Option<&CollateralFile>,
    by: By<'_>,
    at: At,
    expect_simulated: bool,
) -> SessionVerdict {
    let mut judging = Judging::new(by, at, expect_simulated);
    let answer = SessionAnswer::parse(answer_file);
    let Some(answer) = decoded(&mut judging.checks, "session.format", answer) else {
        return judging.conclude(None);
    };
    let mut evidence = answer.evidence;
    judging.attach(&mut evidence, collateral);
    let spki = connection.tls_spki_sha256;
    judging.connection(Subject {
        keyset: &answer.keyset,
        key: OwnKey::Tls(spki),
        opened_at: at.time,
        attested: Some(Attested {
            evidence: &evidence,
            nonce: &connection.nonce,
            purpose: Purpose::Session,
            bind: bind_session(spki, &connection.exporter),
        }),
        demanded: Demanded::Now,
    });
    judging.conclude(Some((answer.keyset, Some(evidence))))
}

/// Judges the answer to `POST /v1/boot` before any request is sealed to the keys of the keyset in it. `nonce`: what was sent
/// there, fresh, random and used for nothing else.
///
/// It may have come over anything: who changes a bit of it, or gives another's, is refused here.
pub fn check_ohttp(
    answer_file: &[u8],
    nonce: &[u8; 32],
    collateral: Option<&CollateralFile>,
    policy: &Policy,
    roots: &Roots,
    at: At,
    expect_simulated: bool,
) -> SessionVerdict {
    let known = Known::nothing();
    let by = By::new(policy, roots, &known);
    check_ohttp_by(answer_file, nonce, collateral, by, at, expect_simulated)
}

/// [`check_ohttp`], by what is known.
pub(crate) fn check_ohttp_by(
    answer_file: &[u8],
    nonce: &[u8; 32],
    collateral: Option<&CollateralFile>,
    by: By<'_>,
    at: At,
    expect_simulated: bool,
) -> SessionVerdict {
    by.ruled(&[], at, |by| {
        let mut judging = Judging::new(by, at, expect_simulated);
        let answer = SessionAnswer::parse(answer_file);
        let Some(answer) = decoded(&mut judging.checks, "session.format", answer) else {
            return judging.conclude(None);
        };
        let mut evidence = answer.evidence;
        judging.attach(&mut evidence, collateral);
        judging.connection(Subject {
            keyset: &answer.keyset,
            key: OwnKey::Ohttp(None),
            opened_at: at.time,
            attested: Some(Attested::boot(&evidence, nonce)),
            demanded: Demanded::Now,
        });
        judging.conclude(Some((answer.keyset, Some(evidence))))
    })
}

/// Judges what was kept of requests that were sealed to a keyset's keys, beside an answer ([`OhttpRecord`]); the keyset must
/// have been alive when it was judged first, all else holds or not at `at`.
pub fn check_ohttp_record(
    record: &OhttpRecord,
    policy: &Policy,
    roots: &Roots,
    at: At,
    expect_simulated: bool,
) -> SessionVerdict {
    let known = Known::nothing();
    check_ohttp_record_by(record, By::new(policy, roots, &known), at, expect_simulated)
}

/// [`check_ohttp_record`], by what is known.
pub(crate) fn check_ohttp_record_by(
    record: &OhttpRecord,
    by: By<'_>,
    at: At,
    expect_simulated: bool,
) -> SessionVerdict {
    by.ruled(&[], at, |by| {
        let mut judging = Judging::new(by, at, expect_simulated);
        let null = Value::Null;
        judging.checks.pass("session.format", null.clone(), null);
        judging.connection(Subject {
            keyset: &record.keyset,
            key: OwnKey::Ohttp(Some(record.ohttp_keys_sha256)),
            opened_at: record.opened_at,
            attested: Some(Attested::boot(&record.evidence, &record.nonce)),
            demanded: Demanded::OfAnswers,
        });
        judging.conclude(Some((record.keyset.clone(), Some(record.evidence.clone()))))
    })
}

/// Judges what was kept of a connection beside an answer ([`SessionRecord`]); the keyset must have been alive
/// when it was opened, all else holds or not at `at`.
///
/// A record without evidence gives `spki-pin`, which is worth nothing until a bundle proves the
/// record's keyset: give [`SessionVerdict::bound`] to [`crate::check`].
pub fn check_session_record(
    record: &SessionRecord,
    policy: &Policy,
    roots: &Roots,
    at: At,
    expect_simulated: bool,
) -> SessionVerdict {
    let known = Known::nothing();
    check_record_by(record, By::new(policy, roots, &known), at, expect_simulated)
}

/// [`check_session_record`], by what is known.
pub(crate) fn check_record_by(
    record: &SessionRecord,
    by: By<'_>,
    at: At,
    expect_simulated: bool,
) -> SessionVerdict {
    by.ruled(&[], at, |by| record_by(record, by, at, expect_simulated))
}

fn record_by(record: &SessionRecord, by: By<'_>, at: At, expect_simulated: bool) -> SessionVerdict {
    let mut judging = Judging::new(by, at, expect_simulated);
    let attested = match (&record.evidence, &record.exporter) {
        (Some(evidence), Some(exporter)) => Some(Attested {
            evidence,
            nonce: &record.nonce,
            purpose: Purpose::Session,
            bind: bind_session(record.tls_spki_sha256, exporter),
        }),
        (None, None) => None,
        _ => {
            let (id, fault) = ("session.format", Fault::Malformed);
            let reason = "a record has exporter and evidence, or neither";
            judging
                .checks
                .fail(id, fault, Value::Null, Value::Null, reason);
            return judging.conclude(None);
        }
    };
    let null = Value::Null;
    judging.checks.pass("session.format", null.clone(), null);
    judging.connection(Subject {
        keyset: &record.keyset,
        key: OwnKey::Tls(record.tls_spki_sha256),
        opened_at: record.opened_at,
        attested,
        demanded: Demanded::OfAnswers,
    });
    judging.conclude(Some((record.keyset.clone(), record.evidence.clone())))
}

/// A connection and what is said about it.
struct Subject<'a> {
    keyset: &'a Keyset,
    key: OwnKey,
    opened_at: u64,
    attested: Option<Attested<'a>>,
    demanded: Demanded,
}

/// The key of the keyset's that the caller saw, or used.
#[derive(Clone, Copy)]
enum OwnKey {
    /// The one that signed his handshake: digest of its SubjectPublicKeyInfo.
    Tls(Digest),
    /// The one that his requests were sealed to: digest of the configurations. None: nothing was sealed yet.
    Ohttp(Option<Digest>),
}

/// Evidence about a connection, and what it must be about.
struct Attested<'a> {
    evidence: &'a Evidence,
    nonce: &'a [u8; 32],
    purpose: Purpose,
    bind: Digest,
}

impl<'a> Attested<'a> {
    /// That the keyset was made inside, said for this nonce.
    fn boot(evidence: &'a Evidence, nonce: &'a [u8; 32]) -> Self {
        Attested {
            evidence,
            nonce,
            purpose: Purpose::Boot,
            bind: bind_boot(),
        }
    }
}

/// Which rule of the policy says what must bind a connection.
#[derive(Clone, Copy)]
enum Demanded {
    /// `session.binding`: something is about to be sent.
    Now,
    /// `session.answers`: an answer was kept.
    OfAnswers,
}

struct Judging<'a> {
    by: By<'a>,
    policy: &'a Policy,
    at: At,
    checks: Checks,
    context: Context,
}

impl<'a> Judging<'a> {
    fn new(by: By<'a>, at: At, expect_simulated: bool) -> Self {
        let context = Context {
            expect_simulated,
            ..Context::default()
        };
        Judging {
            by,
            policy: by.policy,
            at,
            checks: Checks::new(),
            context,
        }
    }

    fn conclude(mut self, judged: Option<(Keyset, Option<Evidence>)>) -> SessionVerdict {
        if self.at.asserted {
            self.context.residual_risks.push(TIME_ASSERTED.to_owned());
        }
        let verdict = Verdict::new(self.checks, self.context, self.at);
        let held = judged.filter(|_| verdict.deciding().is_none());
        let bound = held.as_ref().map(|(keyset, _)| Bound {
            binding: verdict.binding(),
            keyset: Some(keyset.digest()),
            simulated: verdict.context.simulated,
        });
        SessionVerdict {
            verdict,
            bound: bound.unwrap_or_default(),
            held,
        }
    }

    /// Collateral that came by itself stands in for what the evidence carries.
    fn attach(&mut self, evidence: &mut Evidence, file: Option<&CollateralFile>) {
        let Some(file) = file else { return };
        match (evidence.tee, &file.collateral) {
            (Tee::SevSnp, Collateral::SevSnp(_)) | (Tee::Tdx, Collateral::Tdx(_)) => {
                evidence.collateral = Some(file.collateral.clone());
            }
            _ => self.context.residual_risks.push(format!(
                "The collateral that was given is for {}, the evidence is of {}: it was not used.",
                file.tee, evidence.tee
            )),
        }
    }

    fn connection(&mut self, subject: Subject) {
        self.context.manifest = self.by.begin(&mut self.checks);
        let keyset = subject.keyset;
        self.clock(subject.opened_at);
        match subject.key {
            OwnKey::Tls(spki) => self.tls_key(keyset, spki),
            OwnKey::Ohttp(used) => self.ohttp_key(keyset, used),
        }
        self.lifetime(keyset, subject.opened_at);
        keyset::span(&mut self.checks, keyset, self.policy, self.at);
        keyset::name(&mut self.checks, keyset, self.policy, self.at);
        let binding = match &subject.attested {
            Some(attested) => {
                self.evidence(keyset, attested);
                match subject.key {
                    OwnKey::Tls(_) => Binding::TlsExporter,
                    OwnKey::Ohttp(_) => Binding::OhttpKey,
                }
            }
            None => {
                let risk = "No evidence was kept of the connection, its TLS key alone was noted: whether an enclave \
                            holds that key is for the bundle's own evidence to show.";
                self.context.residual_risks.push(risk.to_owned());
                Binding::SpkiPin
            }
        };
        if self.checks.hold() {
            self.context.binding = binding;
        }
        // What a policy without a [session] asks of connections.
        let attested = Rule::Expect(vec![Binding::TlsExporter]);
        let session = self.policy.session.as_ref();
        let demanded = match (session, subject.demanded) {
            (Some(session), Demanded::Now) => Some(&session.binding),
            (Some(session), Demanded::OfAnswers) => Some(&session.answers),
            (None, Demanded::Now) => Some(&attested),
            (None, Demanded::OfAnswers) => None,
        };
        demand(&mut self.checks, demanded, self.context.binding, self.at);
        self.context.model = json!({ "keyset": keyset.digest(), "keyset_name": keyset.name });
        if !pins_an_enclave(self.policy) {
            self.context.residual_risks.push(UNPINNED.to_owned());
        }
    }

    /// A session is judged only at the caller's own clock (formats.md §7, "Time").
    fn clock(&mut self, opened_at: u64) {
        let id = "session.clock";
        let latest = self.at.time.saturating_add(CLOCK_AHEAD);
        if self.at.asserted {
            let reason =
                "a session is judged only at your own clock, not at a time that you assert";
            self.checks
                .fail(id, Fault::Policy, "clock", "caller", reason);
        } else if opened_at > latest {
            let reason = "the record of the connection is dated after the time of judgement";
            let (latest, found) = (rfc3339(latest), rfc3339(opened_at));
            self.checks.fail(id, Fault::Policy, latest, found, reason);
        } else {
            self.checks.pass(id, "clock", "clock");
        }
    }

    /// The key that signed the handshake is the keyset's.
    fn tls_key(&mut self, keyset: &Keyset, own: Digest) {
        let id = "session.tls_key";
        let reason = match keyset.tls_spki_sha256 {
            Some(key) if key == own => {
                self.checks.pass(id, json!(own), json!(key));
                return;
            }
            Some(_) => "the connection's TLS key is not the keyset's: somebody stands between",
            None => "the keyset has no TLS key: nothing of this enclave ends TLS",
        };
        let found = json!(keyset.tls_spki_sha256);
        let fault = Fault::NotAuthentic;
        self.checks.fail(id, fault, json!(own), found, reason);
    }

    /// The key that requests are sealed to is the keyset's.
    fn ohttp_key(&mut self, keyset: &Keyset, used: Option<Digest>) {
        let id = "session.ohttp_key";
        let key = keyset.ohttp_keys.as_ref().map(|keys| Digest::of(&keys.0));
        let reason = match (key, used) {
            (Some(key), used) if used.is_none_or(|used| used == key) => {
                self.checks.pass(id, json!(used), json!(key));
                return;
            }
            (Some(_), _) => "requests were sealed to another key than the keyset's",
            (None, _) => {
                "the keyset has no key to seal requests to: this enclave does not speak Oblivious HTTP"
            }
        };
        let fault = Fault::NotAuthentic;
        self.checks.fail(id, fault, json!(used), json!(key), reason);
    }

    /// The keyset was alive when the connection was opened. Its clock may be ahead of the caller's.
    fn lifetime(&mut self, keyset: &Keyset, opened_at: u64) {
        let id = "keyset.lifetime";
        let expected = json!([rfc3339(keyset.not_before), rfc3339(keyset.not_after)]);
        let found = rfc3339(opened_at);
        let from = keyset.not_before.saturating_sub(CLOCK_AHEAD);
        let reason = if (from..=keyset.not_after).contains(&opened_at) {
            self.checks.pass(id, expected, found);
            return;
        } else if opened_at < from {
            "the keyset's life had not begun when the connection was opened"
        } else {
            "the keyset's life was over when the connection was opened"
        };
        self.checks
            .fail(id, Fault::Platform, expected, found, reason);
    }

    /// Evidence of the purpose that it has to have, over keyset, nonce and what else it has to be about.
    fn evidence(&mut self, keyset: &Keyset, attested: &Attested) {
        let Attested {
            evidence,
            nonce,
            purpose,
            bind,
        } = attested;
        let about = purpose.name();
        let mut own = Checks::about(about);
        let found = evidence.purpose.map(Purpose::name);
        if evidence.purpose == Some(*purpose) {
            own.pass("evidence.purpose", about, found);
        } else {
            let reason = "evidence of another purpose says nothing about a connection";
            own.fail("evidence.purpose", Fault::Malformed, about, found, reason);
        }
        let (expected, found) = (
            hex_encode(*nonce),
            evidence.nonce.as_deref().map(hex_encode),
        );
        if evidence.nonce.as_deref() == Some(nonce.as_slice()) {
            own.pass("session.nonce", expected, found);
        } else {
            let reason =
                "the evidence names another nonce than yours: it may be somebody else's, or old";
            let fault = Fault::NotAuthentic;
            own.fail("session.nonce", fault, expected, found, reason);
        }
        let expected = report_data(*purpose, keyset.digest(), Some(*nonce), *bind);
        let judged = self
            .by
            .judge(evidence, Some(&expected), self.at, Some(about));
        self.checks.extend(own);
        self.checks.extend(judged.checks);
        self.context.simulated = judged.simulated;
        self.context.platform = judged.platform;
        self.context.measurement = judged.measurement;
        self.context.release = judged.release;
        self.context.residual_risks.extend(judged.residual_risks);
    }
}

/// `session.binding`: what held is what the policy accepts.
pub(crate) fn demand(
    checks: &mut Checks,
    demanded: Option<&Rule<Vec<Binding>>>,
    found: Binding,
    at: At,
) {
    let id = "session.binding";
    let Some(demanded) = demanded else {
        let reason =
            "the policy has no [session]: it asks nothing of the connection an answer came over";
        checks.unconsidered(id, reason);
        return;
    };
    rule(
        checks,
        id,
        demanded,
        at,
        json!(found),
        |checks, accepted, value| {
            if accepted.contains(&found) {
                checks.pass(id, json!(accepted), value);
            } else {
                let reason = match found {
                    Binding::None => "nothing binds the connection to the enclave",
                    _ => "what binds the connection is not what the policy accepts",
                };
                checks.fail(id, Fault::Policy, json!(accepted), value, reason);
            }
        },
    );
}

const UNPINNED: &str = "Which enclave was reached is not pinned: the policy names no chip or platform (snp.chip_id, \
     tdx.platform.instance), no data of the host's other than zeros (snp.host_data, tdx.mr_config_id) and no name \
     (session.name), and no binding tells two genuine enclaves apart. Whoever relays the connection may have led you to another \
     enclave that satisfies the same policy.";

/// Whether the policy says which enclave it must be: by name, or by chip or host's data on each of its platforms.
fn pins_an_enclave(policy: &Policy) -> bool {
    // Zeros are what masked chips and hosts that give no data have in common.
    let names_some = |rule: Option<&Rule<Expect>>| match rule {
        Some(Rule::Expect(Expect::Words(words))) => {
            words.iter().all(|word| word.bytes().any(|b| b != b'0'))
        }
        _ => false,
    };
    let named = |session: &crate::policy::SessionPolicy| session.name.expected().is_some();
    policy.session.as_ref().is_some_and(named)
        || policy.platforms.iter().all(|platform| {
            let pins = match platform.tee {
                Tee::SevSnp => ["snp.chip_id", "snp.host_data"],
                Tee::Tdx => ["tdx.platform.instance", "tdx.mr_config_id"],
            };
            pins.into_iter().any(|id| names_some(platform.rule(id)))
        })
}
