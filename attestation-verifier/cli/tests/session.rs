//! `check` with the record of the connection that an answer came over: what it says bound the two
//! ends, and when a record that does not hold refuses the answer.

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use attestation_verifier::exchange::SessionRecord;
use serde_json::Value;
use support::{Kept, Run, policy_for, touchstone_in};
use touchstone_formats::evidence::{CollateralFile, Evidence};
use touchstone_formats::report_data::bind_session;
use touchstone_formats::session::{SessionAnswer, SessionRequest};
use touchstone_formats::{Digest, Purpose};
use touchstone_testkit::amd::Product;
use touchstone_testkit::machine::Machine;
use touchstone_testkit::mint::{Exchange, World};

const NONCE: [u8; 32] = [7; 32];
const EXPORTER: [u8; 32] = [8; 32];

/// An enclave of this very moment, for a session is judged at the caller's clock alone; TLS ends in it.
fn world() -> World {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut world = World::on(
        Machine::new(Product::Genoa, 5, now.as_secs()),
        1,
        now.as_secs(),
    );
    world.keyset.tls_spki_sha256 = Some(Digest::of(b"the TLS key"));
    world
}

/// What a caller has of an attested connection to this enclave.
fn attested(world: &World) -> SessionRecord {
    let spki = world.keyset.tls_spki_sha256.unwrap();
    let bind = bind_session(spki, &EXPORTER);
    SessionRecord {
        nonce: NONCE,
        exporter: Some(EXPORTER),
        tls_spki_sha256: spki,
        opened_at: world.at - 6,
        keyset: world.keyset.clone(),
        evidence: Some(world.evidence(Purpose::Session, Some(NONCE.to_vec()), bind)),
    }
}

/// What he has who knows the TLS key alone.
fn pinned(world: &World) -> SessionRecord {
    SessionRecord {
        exporter: None,
        evidence: None,
        ..attested(world)
    }
}

/// A folder with an answer, and beside the answer what is to be its `session.json`.
struct Answered(Kept);

impl Answered {
    fn new(world: World) -> Answered {
        let minted = world.mint(Exchange::json(1)).finish();
        Answered(Kept::new(world, &minted))
    }

    /// Under a policy that expects these bindings of answers, or none in particular.
    fn expecting(self, answers: Option<&str>) -> Answered {
        let answers = answers.map_or("{ waive = \"not in this test\" }".into(), |bindings| {
            format!("{{ expect = {bindings} }}")
        });
        let text = policy_for(&self.0.world, &[("answers", &answers)]);
        std::fs::write(self.0.path("policy.toml"), text).unwrap();
        self
    }

    fn with(self, record: &SessionRecord) -> Answered {
        std::fs::write(
            self.0.path("answer/session.json"),
            record.to_file().unwrap(),
        )
        .unwrap();
        self
    }

    /// `check` at this machine's clock.
    fn check(&self, more: &[&str]) -> Run {
        let mut args = vec!["check", "answer", "--json", "--policy", "policy.toml"];
        args.extend(["--trust-simulated-root", "root.pem"]);
        args.extend(more);
        touchstone_in(self.0.folder.path(), &args)
    }

    /// Holds, with this binding; the verdict.
    #[track_caller]
    fn bound_by(&self, more: &[&str], binding: &str) -> Value {
        let run = self.check(more);
        let verdict = run.verdict();
        assert_eq!(
            (run.code, verdict["binding"].as_str()),
            (6, Some(binding)),
            "{}",
            run.stderr
        );
        verdict
    }

    /// The residual risk that speaks of the record.
    #[track_caller]
    fn bound_by_nothing(&self, more: &[&str], says: &str) {
        let verdict = self.bound_by(more, "none");
        let risks = verdict["residual_risks"].as_array().unwrap();
        let said = risks
            .iter()
            .filter_map(Value::as_str)
            .find(|risk| risk.contains("record of the connection"));
        assert!(said.is_some_and(|risk| risk.contains(says)), "{risks:?}");
    }
}

#[test]
fn a_record_says_what_bound_the_connection() {
    let world = world();
    let exporter = || Answered::new(world.clone()).with(&attested(&world));
    let spki = || Answered::new(world.clone()).with(&pinned(&world));
    let nothing = || Answered::new(world.clone());
    for (answers, found) in [
        (None, "tls-exporter"),
        (Some("[\"tls-exporter\"]"), "tls-exporter"),
        (Some("[\"spki-pin\", \"tls-exporter\"]"), "tls-exporter"),
    ] {
        exporter().expecting(answers).bound_by(&[], found);
    }
    let verdict = spki().expecting(None).bound_by(&[], "spki-pin");
    // What that does not show is said.
    let risks = verdict["residual_risks"].to_string();
    assert!(
        risks.contains("No evidence was kept of the connection"),
        "{risks}"
    );
    let either = Some("[\"spki-pin\", \"tls-exporter\"]");
    spki().expecting(either).bound_by(&[], "spki-pin");
    nothing().expecting(None).bound_by(&[], "none");
    let any = Some("[\"none\", \"tls-exporter\"]");
    nothing().expecting(any).bound_by(&[], "none");
    // To whom no binding will do, too, a record that does not hold is none.
    let mut lie = attested(&world);
    lie.exporter = Some([9; 32]);
    let lied = nothing().with(&lie).expecting(any);
    lied.bound_by_nothing(&[], "evidence.report_data");

    // What the policy does not accept is refused under the one id.
    let strict = Some("[\"tls-exporter\"]");
    let run = spki().expecting(strict).check(&[]);
    run.refused(4, "session.binding");
    let run = nothing().expecting(strict).check(&[]);
    run.refused(4, "session.binding");
    let run = exporter().expecting(Some("[\"spki-pin\"]")).check(&[]);
    run.refused(4, "session.binding");
}

#[test]
fn a_record_may_stand_anywhere() {
    let world = world();
    let answered = Answered::new(world.clone()).with(&attested(&world));
    let folder = answered.0.folder.path();
    std::fs::rename(folder.join("answer/session.json"), folder.join("mine.json")).unwrap();
    answered.bound_by(&[], "none");
    answered.bound_by(&["--session", "mine.json"], "tls-exporter");
    let args = ["check", "answer/bundle.json", "--json", "--receipt-only"];
    let more = [
        "--policy",
        "policy.toml",
        "--trust-simulated-root",
        "root.pem",
    ];
    let args = [&args[..], &more[..], &["--session", "mine.json"]].concat();
    let verdict = touchstone_in(folder, &args).verdict();
    assert_eq!(
        (&verdict["exit"], &verdict["binding"]),
        (&6.into(), &"tls-exporter".into())
    );
    let run = answered.check(&["--session", "none.json"]);
    run.refused(1, "usage");
    assert!(run.stderr.contains("none.json"), "{}", run.stderr);
}

/// Lies about the connection: what each is refused for, where a binding is demanded.
type Lie = (i32, &'static str, fn(&World, &mut SessionRecord));

const LIES: [Lie; 6] = [
    (3, "evidence.report_data", |_, record| {
        record.exporter = Some([9; 32]);
    }),
    (3, "session.nonce", |_, record| record.nonce = [9; 32]),
    (3, "session.tls_key", |_, record| {
        record.tls_spki_sha256 = Digest::of(b"the relay's own key");
    }),
    (2, "evidence.purpose", |world, record| {
        let bind = bind_session(record.tls_spki_sha256, &EXPORTER);
        record.evidence = Some(world.evidence(Purpose::Boot, Some(NONCE.to_vec()), bind));
    }),
    (3, "evidence.report_data", |_, record| {
        record.keyset.name = "another.example".into();
    }),
    (3, "snp.signature", |_, record| {
        let quote = &mut record.evidence.as_mut().unwrap().quote;
        quote[0x2a0] ^= 1;
    }),
];

#[test]
fn a_record_that_does_not_hold() {
    let world = world();
    for (exit, id, lie) in LIES {
        let mut record = attested(&world);
        lie(&world, &mut record);
        let lied = Answered::new(world.clone()).with(&record).expecting(None);
        // Nothing is demanded: the answer holds, bound by nothing, and the verdict says why.
        lied.bound_by_nothing(&[], id);
        lied.check(&["--session", "answer/session.json"])
            .refused(exit, id);
        let lied = lied.expecting(Some("[\"tls-exporter\"]"));
        let verdict = lied.check(&[]).refused(exit, id);
        assert_eq!(verdict["binding"], "none");
        // The twin.
        lied.with(&attested(&world)).bound_by(&[], "tls-exporter");
    }
}

#[test]
fn a_record_of_another_keyset_binds_nothing() {
    let mut world = world();
    let answered = Answered::new(world.clone());
    world.keyset.name = "another.example".into();
    let other = answered.with(&attested(&world)).expecting(None);
    other.bound_by_nothing(&[], "keyset");
    other
        .check(&["--session", "answer/session.json"])
        .refused(4, "session.binding");
    other
        .expecting(Some("[\"tls-exporter\"]"))
        .check(&[])
        .refused(4, "session.binding");
}

#[test]
fn at_a_time_asserted_no_session_is_judged() {
    let world = world();
    let answered = Answered::new(world.clone()).with(&attested(&world));
    let at = answered.0.at.clone();
    let answered = answered.expecting(None);
    answered.bound_by(&[], "tls-exporter");
    answered.bound_by_nothing(&["--at", &at], "session.clock");
    let run = answered.check(&["--at", &at, "--session", "answer/session.json"]);
    run.refused(4, "session.clock");
    let strict = answered.expecting(Some("[\"tls-exporter\"]"));
    let refused = strict.check(&["--at", &at]).refused(4, "session.binding");
    assert!(refused["checks"].to_string().contains("session.clock"));
    strict.bound_by(&[], "tls-exporter");
}

#[test]
fn names_of_keysets_can_be_pinned() {
    let world = world();
    let answered = Answered::new(world.clone())
        .with(&attested(&world))
        .expecting(None);
    answered.bound_by(&[], "tls-exporter");
    let pin = |name: &str| {
        let name = format!("{{ expect = \"{name}\" }}");
        let text = policy_for(&world, &[("name", &name)]);
        std::fs::write(answered.0.path("policy.toml"), text).unwrap();
    };
    pin("another.example");
    answered.check(&[]).refused(4, "keyset.name");
    pin("enclave.example");
    answered.bound_by(&[], "tls-exporter");
}

#[test]
fn a_record_that_is_not_written_as_ours_is_malformed() {
    let world = world();
    let answered = Answered::new(world.clone()).with(&attested(&world));
    let path = answered.0.path("answer/session.json");
    let honest = std::fs::read_to_string(&path).unwrap();
    for lie in [
        honest.replace("session-record/1", "session-record/2"),
        honest.replace("\"opened_at\"", "\"opened\""),
        honest.trim_end().to_owned(),
        String::new(),
    ] {
        assert_ne!(lie, honest);
        std::fs::write(&path, lie).unwrap();
        answered.check(&[]).refused(2, "session.format");
    }
    std::fs::write(&path, honest).unwrap();
    answered.bound_by(&[], "tls-exporter");
}

#[test]
fn show_knows_what_an_attested_connection_leaves() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let show = |name: &str, file: &[u8]| {
        std::fs::write(folder.path().join(name), file).unwrap();
        touchstone_in(folder.path(), &["show", name])
    };
    let Evidence { collateral, .. } = attested(&world).evidence.unwrap();
    let answer = SessionAnswer {
        keyset: world.keyset.clone(),
        evidence: Evidence {
            collateral: None,
            ..attested(&world).evidence.unwrap()
        },
    };
    let file = CollateralFile {
        tee: touchstone_formats::Tee::SevSnp,
        collateral: collateral.unwrap(),
    };
    let (nonce, exporter) = (hex::encode(NONCE), hex::encode(EXPORTER));
    let digest = world.keyset.digest().to_string();
    for (name, file, says) in [
        (
            "record",
            attested(&world).to_file().unwrap(),
            exporter.as_str(),
        ),
        (
            "pinned",
            pinned(&world).to_file().unwrap(),
            "its TLS key alone",
        ),
        (
            "request",
            SessionRequest { nonce: NONCE }.to_file(),
            nonce.as_str(),
        ),
        ("answer", answer.to_file(), digest.as_str()),
        ("collateral", file.to_file(), "Certificate revocation list"),
    ] {
        let run = show(name, &file);
        assert_eq!(run.code, 0, "{name}: {}", run.stderr);
        assert!(run.stdout.contains(says), "{name}: {}", run.stdout);
        assert!(run.stdout.contains("Nothing of this has been judged"));
        assert_eq!(show("lie", &file[..file.len() - 2]).code, 2, "{name}");
    }
}
