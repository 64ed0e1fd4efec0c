//! `prove-refusal`: a hundred changes to what holds, each refused; the same seed makes the same ones; and the command fails
//! where a change passes, or where nothing holds in the first place.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use attestation_verifier::dates::rfc3339;
use attestation_verifier::exchange::SessionRecord;
use attestation_verifier::ohttp::OhttpRecord;
use attestation_verifier::policy::template;
use serde_json::Value;
use support::{Run, npy, touchstone_in};
use touchstone_formats::report_data::{bind_boot, bind_session};
use touchstone_formats::text::Base64Bytes;
use touchstone_formats::{Digest, Purpose};
use touchstone_testkit::machine::{Machine, TdxMachine, TeeMachine};
use touchstone_testkit::mint::{Exchange, World};
use touchstone_testkit::policy::edit;

const NONCE: [u8; 32] = [7; 32];
const EXPORTER: [u8; 32] = [8; 32];

/// Folders as `ask` leaves them, a policy and the simulated root, of an enclave of this very moment.
struct Kept<M: TeeMachine> {
    folder: tempfile::TempDir,
    world: World<M>,
    /// Answers came sealed (Oblivious HTTP), not over attested TLS.
    sealed: bool,
}

impl<M: TeeMachine> Kept<M> {
    /// `answer/` with evidence of every purpose, and a record of the connection; `policy.toml`, `root.pem`.
    fn new() -> Self {
        Self::of(false)
    }

    /// The same, of answers that came sealed.
    fn sealed() -> Self {
        Self::of(true)
    }

    fn of(sealed: bool) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut world = World::on(M::strict(now), 1, now);
        world.keyset.tls_spki_sha256 = Some(Digest::of(b"the TLS key"));
        if sealed {
            // One configuration (RFC 9458 §3); any 32 bytes are a public key of X25519.
            let (head, tail) = ([0, 41, 1, 0x00, 0x20], [0, 4, 0, 1, 0, 1]);
            let keys = [&head[..], &[9; 32], &tail].concat();
            world.keyset.ohttp_keys = Some(Base64Bytes(keys));
        }
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept {
            folder,
            world,
            sealed,
        };
        std::fs::write(kept.path("root.pem"), kept.world.root_pem()).unwrap();
        kept.answer("answer", Exchange::json(1).requiring("logged quoted"));
        kept.policy(&[]);
        kept
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder with an answer of this world.
    fn answer(&self, name: &str, exchange: Exchange) {
        let minted = self.world.mint(exchange).finish();
        minted.write_to(&self.path(name)).unwrap();
        let file = match self.sealed {
            false => self.tls_record(),
            true => self.ohttp_record(),
        };
        std::fs::write(self.path(name).join("session.json"), file).unwrap();
    }

    fn ohttp_record(&self) -> Vec<u8> {
        let keys = self.world.keyset.ohttp_keys.as_ref().unwrap();
        let nonce = Some(NONCE.to_vec());
        let record = OhttpRecord {
            nonce: NONCE,
            ohttp_keys_sha256: Digest::of(&keys.0),
            opened_at: self.world.at - 6,
            keyset: self.world.keyset.clone(),
            evidence: self.world.evidence(Purpose::Boot, nonce, bind_boot()),
        };
        record.to_file().unwrap()
    }

    fn tls_record(&self) -> Vec<u8> {
        let spki = self.world.keyset.tls_spki_sha256.unwrap();
        let bind = bind_session(spki, &EXPORTER);
        let record = SessionRecord {
            nonce: NONCE,
            exporter: Some(EXPORTER),
            tls_spki_sha256: spki,
            opened_at: self.world.at - 6,
            keyset: self.world.keyset.clone(),
            evidence: Some(
                self.world
                    .evidence(Purpose::Session, Some(NONCE.to_vec()), bind),
            ),
        };
        record.to_file().unwrap()
    }

    /// The strict template with what only this world's people know, and these changes.
    fn policy(&self, changes: &[(&str, &str)]) {
        let models = format!("{{ expect = [\"{}\"] }}", self.world.models[0].model_digest);
        let mut all = vec![("models", models)];
        for (key, value) in self.world.machine.reference_values() {
            all.push((key, format!("{{ expect = [\"{value}\"] }}")));
        }
        for (key, value) in changes {
            all.retain(|(other, _)| other != key);
            all.push((key, (*value).to_owned()));
        }
        let all: Vec<(&str, &str)> = all.iter().map(|(k, v)| (*k, v.as_str())).collect();
        std::fs::write(self.path("policy.toml"), edit(&template(M::TEE), &all)).unwrap();
    }

    fn run(&self, what: &str, more: &[&str]) -> Run {
        let mut args = vec!["prove-refusal", what, "--policy", "policy.toml"];
        args.extend(["--trust-simulated-root", "root.pem"]);
        args.extend(more);
        touchstone_in(self.folder.path(), &args)
    }

    /// Every change is refused; the report.
    #[track_caller]
    fn proven(&self, what: &str, more: &[&str]) -> Value {
        let run = self.run(what, &[&["--json", "--expect-simulated"], more].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        let report = read(&run);
        assert_eq!(report["proven"], true);
        assert_eq!(report["refused"], report["count"]);
        report
    }
}

/// The one JSON object on stdout, checked against its shape.
#[track_caller]
fn read(run: &Run) -> Value {
    let report: Value = serde_json::from_str(&run.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", run.stdout, run.stderr));
    assert_eq!(run.stdout.lines().count(), 1);
    assert_eq!(report["v"], "touchstone/prove-refusal/1");
    assert_eq!(report["exit"], run.code);
    let mutants = mutants(&report);
    assert_eq!(mutants.len() as u64, report["count"].as_u64().unwrap());
    let refused = mutants.iter().filter(|m| m["refused"] == true).count();
    assert_eq!(refused as u64, report["refused"].as_u64().unwrap());
    let counted: u64 = report["by_check"]
        .as_object()
        .unwrap()
        .values()
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(counted, refused as u64);
    for (n, mutant) in mutants.iter().enumerate() {
        assert_eq!(mutant["number"], n + 1);
        assert_eq!(
            mutant["refused"],
            matches!(mutant["exit"].as_u64(), Some(2..=5)),
            "{mutant}"
        );
        if mutant["refused"] == true {
            let id = mutant["deciding"].as_str().unwrap();
            assert!(
                attestation_verifier::explain::about(id).is_some(),
                "{id} is not documented"
            );
            assert_ne!(mutant["reason"], "");
        }
    }
    report
}

fn mutants(report: &Value) -> &Vec<Value> {
    report["mutants"].as_array().unwrap()
}

/// Values of a member, over all mutants of a kind.
fn all<'a>(report: &'a Value, kind: &str, member: &str) -> BTreeSet<&'a str> {
    let of_kind = mutants(report).iter().filter(|m| m["kind"] == kind);
    of_kind.filter_map(|m| m[member].as_str()).collect()
}

const KINDS: [&str; 7] = [
    "bit",
    "field",
    "swap",
    "length",
    "encoding",
    "collateral",
    "signed",
];

/// The parts that every answer has.
const PARTS: [&str; 12] = [
    "bundle.json",
    "request",
    "response",
    "expect.json",
    "response.json",
    "session.json",
    "receipt",
    "receipt signature",
    "inclusion proof",
    "checkpoint",
    "checkpoint signature",
    "keyset",
];

/// A hundred changes by default: all refused, of every kind, in every part.
fn hundred_of_a_hundred<M: TeeMachine>(kept: &Kept<M>, record: &str, of_evidence: &[&str]) {
    let report = kept.proven("answer", &["--seed", "1"]);
    assert_eq!(report["count"], 100);
    assert_eq!(report["seed"], 1);
    assert_eq!(report["simulated"], true);
    assert_eq!(report["session_left_out"], false);
    assert_eq!(report["missed"], serde_json::json!([]));
    for kind in KINDS {
        assert!(all(&report, kind, "where").len() > 1, "{kind}");
    }
    let mut parts: BTreeSet<String> = PARTS.iter().map(|p| p.to_string()).collect();
    parts.extend(["catalog", "openings"].map(str::to_owned));
    for purpose in ["boot", "checkpoint", "receipt", record] {
        parts.extend(
            of_evidence
                .iter()
                .map(|part| format!("{purpose} evidence: {part}")),
        );
    }
    let hit: BTreeSet<String> = all(&report, "bit", "where")
        .iter()
        .map(|p| p.to_string())
        .collect();
    assert_eq!(hit, parts);
}

#[test]
fn a_hundred_of_a_hundred_on_sev_snp() {
    hundred_of_a_hundred(&Kept::<Machine>::new(), "session", &SNP_PARTS);
}

/// An answer that came sealed, with the record of that.
#[test]
fn a_hundred_of_a_hundred_of_a_sealed_answer() {
    let kept = Kept::<Machine>::sealed();
    hundred_of_a_hundred(&kept, "sealing", &SNP_PARTS);
    // The policy above asks for no binding of answers, and the record has to hold all the same. One that asks for this one accepts
    // the twin, and no mutant of it either.
    kept.policy(&[("answers", "{ expect = \"ohttp-key\" }")]);
    kept.proven("answer", &["--seed", "1"]);
    // Without its record it is another thing: it does not hold in the first place.
    let path = kept.path("answer/session.json");
    let record = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    kept.run("answer", &["--json"])
        .refused(4, "session.binding");
    std::fs::write(&path, record).unwrap();
    kept.proven("answer", &["--count", "5"]);
}

const SNP_PARTS: [&str; 5] = [
    "report",
    "report signature",
    "VEK certificate",
    "chain certificate 1",
    "revocation list 1",
];

const TDX_PARTS: [&str; 17] = [
    "header and TD report",
    "signature",
    "attestation key",
    "QE report",
    "QE report signature",
    "QE authentication data",
    "PCK chain",
    "TCB info",
    "TCB info signature",
    "TCB info issuer chain",
    "QE identity",
    "QE identity signature",
    "QE identity issuer chain",
    "PCK revocation list",
    "PCK revocation list issuer chain",
    "root revocation list",
    "event log",
];

/// Four quotes with their collateral have more parts than a hundred mutants have room for: the report says which were
/// missed. A larger count reaches them.
#[test]
fn a_hundred_of_a_hundred_on_tdx() {
    let kept = Kept::<TdxMachine>::new();
    let report = kept.proven("answer", &["--seed", "1"]);
    assert_eq!(report["count"], 100);
    let missed = report["missed"].as_array().unwrap().len();
    assert_eq!(
        missed + all(&report, "bit", "where").len(),
        PARTS.len() + 2 + 4 * TDX_PARTS.len()
    );
    for kind in KINDS {
        assert!(!all(&report, kind, "where").is_empty(), "{kind}");
    }
    let report = kept.proven("answer", &["--seed", "1", "--count", "400"]);
    assert_eq!(report["missed"], serde_json::json!([]));
    let hit = all(&report, "bit", "where");
    for part in TDX_PARTS {
        assert!(
            hit.contains(format!("checkpoint evidence: {part}").as_str()),
            "{part}"
        );
    }
}

/// Everything that there is beside bits is made when there is room for it, and refused by checks of every sort.
fn a_thousand<M: TeeMachine>(kept: &Kept<M>, deciding: &[&str]) -> Value {
    kept.answer("answer2", Exchange::binary(2).requiring("logged quoted"));
    let more = ["--seed", "2", "--count", "1000", "--other", "answer2"];
    let report = kept.proven("answer", &more);
    assert_eq!(report["count"], 1000);
    let checks = report["by_check"].as_object().unwrap();
    for id in deciding {
        assert!(checks.contains_key(*id), "{id}: {checks:?}");
    }
    assert!(
        all(&report, "swap", "change")
            .iter()
            .any(|c| c.contains("another answer"))
    );
    report
}

const DECIDING: [&str; 13] = [
    "bundle.format",
    "receipt.format",
    "expect.format",
    "response.format",
    "session.format",
    "log.proof.format",
    "evidence.report_data",
    "receipt.signature",
    "log.signature",
    "log.inclusion",
    "compare.request",
    "compare.response",
    "receipt.nonce",
];

#[test]
fn a_thousand_on_sev_snp() {
    let own = [&SNP_DECIDING[..], &["session.tls_key"]].concat();
    a_thousand(&Kept::<Machine>::new(), &[&DECIDING[..], &own].concat());
}

const SNP_DECIDING: [&str; 3] = ["snp.signature", "snp.chain.signature", "snp.collateral"];

#[test]
fn a_thousand_of_a_sealed_answer() {
    let own = [
        "session.ohttp_key",
        "session.nonce",
        "keyset.lifetime",
        "evidence.purpose",
    ];
    let all = [&DECIDING[..], &SNP_DECIDING, &own].concat();
    let report = a_thousand(&Kept::<Machine>::sealed(), &all);
    let by = |change: &str| {
        let of = |m: &&Value| m["where"] == "session.json" && m["change"] == change;
        let found = mutants(&report).iter().find(of);
        found.unwrap_or_else(|| panic!("no {change}"))["deciding"].clone()
    };
    for (change, check) in [
        ("nonce: another", "session.nonce"),
        ("ohttp_keys_sha256: another key", "session.ohttp_key"),
        ("keyset: no key for sealed requests", "session.ohttp_key"),
        (
            "keyset: another key for sealed requests",
            "session.ohttp_key",
        ),
        (
            "a key of the liar's; the evidence is genuine",
            "evidence.report_data",
        ),
        (
            "a key of the liar's (ohttp-key); evidence under the old signature",
            "snp.signature",
        ),
        (
            "another nonce; the evidence is genuine",
            "evidence.report_data",
        ),
        (
            "another nonce (ohttp-key); evidence under the old signature",
            "snp.signature",
        ),
    ] {
        assert_eq!(by(change), check, "{change}");
    }
}

#[test]
fn a_thousand_on_tdx() {
    let own = [
        "tdx.signature",
        "tdx.qe.signature",
        "tdx.qe.binding",
        "tdx.chain.signature",
        "tdx.chain.root",
        "tdx.tcb_info.signature",
        "tdx.qe_identity.signature",
        "tdx.collateral",
        "tdx.chain.crl_signature",
    ];
    a_thousand(
        &Kept::<TdxMachine>::new(),
        &[&DECIDING[..], &own, &["session.tls_key"]].concat(),
    );
    a_thousand(
        &Kept::<TdxMachine>::sealed(),
        &[&DECIDING[..], &own, &["session.ohttp_key"]].concat(),
    );
}

/// The same seed makes the same changes, refused in the same way. What ECDSA signatures hold is random, and decides nothing.
#[test]
fn a_seed_repeats_a_run() {
    let kept = Kept::<Machine>::new();
    let run = |seed: &str| {
        let report = kept.proven("answer", &["--seed", seed]);
        let rows = mutants(&report).iter().map(|m| {
            let text = |member: &str| m[member].to_string();
            [
                text("kind"),
                text("where"),
                text("change"),
                text("exit"),
                text("deciding"),
            ]
        });
        rows.collect::<Vec<_>>()
    };
    let first = run("11");
    assert_eq!(first, run("11"));
    assert_ne!(first, run("12"));
    // Without a seed there is a new one each time, and it is said.
    let seeds: BTreeSet<String> = (0..4)
        .map(|_| kept.proven("answer", &["--count", "1"])["seed"].to_string())
        .collect();
    assert!(seeds.len() > 1, "{seeds:?}");
}

#[test]
fn words_are_a_table() {
    let kept = Kept::<Machine>::new();
    let run = kept.run("answer", &["--seed", "3", "--count", "20"]);
    // A simulated platform that was not expected stays one.
    assert_eq!(run.code, 6, "{}", run.stderr);
    assert!(
        run.stdout
            .starts_with("REFUSED 20 of 20 (SIMULATED platform), exit 6\nseed 3\n"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("kind") && run.stdout.contains("what was changed"));
    assert!(run.stdout.contains("\nrefused  by\n"), "{}", run.stdout);
    let rows = run
        .stdout
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    assert!(rows.count() >= 20);
    assert!(
        !run.stdout.contains('\u{1b}') && run.stderr.is_empty(),
        "{}",
        run.stderr
    );
    // What there was no room for is said.
    assert!(
        run.stdout.contains("no bit was changed of: "),
        "{}",
        run.stdout
    );
}

/// A policy that waives what a change is about lets it pass: the command says so, fails, and keeps it. What breaks
/// authenticity is refused by that policy all the same.
#[test]
fn a_lax_policy_is_found_out() {
    let kept = Kept::<Machine>::new();
    let more = [
        "--seed",
        "4",
        "--count",
        "200",
        "--json",
        "--expect-simulated",
    ];
    let strict = kept.run("answer", &more);
    assert_eq!(strict.code, 0, "{}", strict.stderr);
    let strict_report = read(&strict);

    kept.policy(&[("snp.chain.crl", "{ waive = \"no lists in this archive\" }")]);
    let lax = kept.run("answer", &[&more[..], &["--keep", "accepted"]].concat());
    assert_eq!(lax.code, 4, "{}", lax.stderr);
    let lax_report = read(&lax);
    assert_eq!(lax_report["proven"], false);
    let accepted: Vec<&Value> = mutants(&lax_report)
        .iter()
        .filter(|m| m["refused"] == false)
        .collect();
    assert!(!accepted.is_empty());
    for mutant in &accepted {
        assert_eq!(
            (mutant["kind"].as_str(), mutant["deciding"].as_str()),
            (Some("collateral"), None)
        );
        assert_eq!(mutant["change"], "the revocation lists are gone");
        // The same change, of the same run, under the strict policy.
        let twin = &mutants(&strict_report)[mutant["number"].as_u64().unwrap() as usize - 1];
        assert_eq!(
            (&twin["change"], &twin["where"]),
            (&mutant["change"], &mutant["where"])
        );
        assert_eq!(twin["exit"], 5, "{twin}");
    }
    assert!(
        lax.stderr.contains("NOT PROVEN") && lax.stderr.contains("ACCEPTED"),
        "{}",
        lax.stderr
    );
    assert!(lax.stderr.contains("snp.chain.crl"), "{}", lax.stderr);
    // What was kept is what was accepted.
    let number = accepted[0]["number"].as_u64().unwrap();
    let kept_folder = format!("accepted/mutant-{number}");
    let record = format!("{kept_folder}/session.json");
    let check = [
        "check",
        &kept_folder,
        "--session",
        &record,
        "--policy",
        "policy.toml",
        "--trust-simulated-root",
        "root.pem",
    ];
    assert_eq!(touchstone_in(kept.folder.path(), &check).code, 6);
    assert_eq!(
        std::fs::read_dir(kept.path("accepted")).unwrap().count(),
        accepted.len()
    );
    kept.policy(&[]);
    assert_eq!(touchstone_in(kept.folder.path(), &check).code, 5);
}

/// Waivers of nearly everything that can be waived: what authenticates is no key of a policy.
#[test]
fn no_waiver_touches_authenticity() {
    let kept = Kept::<Machine>::new();
    let anything = "{ waive = \"a test\" }";
    let keys = [
        "models",
        "nonce",
        "keyset_span_seconds",
        "snp.measurement",
        "snp.policy.debug",
        "snp.vmpl",
        "snp.tcb.reported",
        "snp.product",
    ];
    let known = template(Machine::TEE);
    let changes: Vec<(&str, &str)> = keys
        .into_iter()
        .filter(|key| {
            known.contains(&format!("\n{key} =")) || known.contains(&format!("\n\"{key}\" ="))
        })
        .map(|key| (key, anything))
        .collect();
    assert!(changes.len() > 5, "{changes:?}");
    kept.policy(&changes);
    kept.proven("answer", &["--seed", "5", "--count", "300"]);
}

#[test]
fn what_does_not_hold_proves_nothing() {
    let kept = Kept::<Machine>::new();
    kept.proven("answer", &["--count", "5"]);
    let path = kept.path("answer/response.bin");
    let honest = std::fs::read(&path).unwrap();
    std::fs::write(&path, "another answer").unwrap();
    let run = kept.run("answer", &["--json"]);
    run.refused(3, "compare.response");
    assert!(run.stderr.contains("nothing to prove"), "{}", run.stderr);
    let words = kept.run("answer", &[]);
    assert_eq!((words.code, words.stdout.as_str()), (3, ""));
    std::fs::write(&path, honest).unwrap();
    // A simulated platform whose root nobody named.
    let args = [
        "prove-refusal",
        "answer",
        "--policy",
        "policy.toml",
        "--json",
    ];
    touchstone_in(kept.folder.path(), &args).refused(3, "snp.chain.root");
    // Nor does a second answer that does not hold serve to make swaps of.
    kept.answer("answer2", Exchange::json(2));
    std::fs::write(kept.path("answer2/response.bin"), "another answer").unwrap();
    kept.run("answer", &["--json", "--other", "answer2"])
        .refused(3, "compare.response");
    let run = kept.run("answer", &["--json", "--other", "policy.toml"]);
    run.refused(1, "usage");
    run_is_usage(&kept.run("nothing", &["--json"]));
    run_is_usage(&kept.run("answer", &["--json", "--count", "0"]));
    kept.proven("answer", &["--count", "5"]);
}

#[track_caller]
fn run_is_usage(run: &Run) {
    run.refused(1, "usage");
}

/// A bundle with what is held against it, by options; tensors; a receipt alone; at a time asserted; evidence by itself.
#[test]
fn every_form_that_can_be_judged() {
    let kept = Kept::<Machine>::new();
    let tensors = [
        "--expect",
        "answer/expect.json",
        "--input",
        "x=x.npy",
        "--output",
        "y=y.npy",
        "--count",
        "150",
    ];
    std::fs::write(kept.path("x.npy"), npy(&[1, 4], &[0.1, 0.5, -2.25, 3.0e-7])).unwrap();
    std::fs::write(kept.path("y.npy"), npy(&[1, 2], &[0.75, 0.25])).unwrap();
    let report = kept.proven("answer/bundle.json", &tensors);
    assert!(all(&report, "bit", "where").contains("tensor"));
    let report = kept.proven("answer", &["--receipt-only", "--count", "300"]);
    assert!(!all(&report, "bit", "where").contains("request"));
    // A session is judged at one's own clock alone: with another time it binds nothing, and that is said.
    let at = rfc3339(kept.world.at);
    let report = kept.proven("answer", &["--at", &at, "--count", "300"]);
    assert_eq!(report["session_left_out"], true);
    assert!(
        !all(&report, "bit", "where")
            .iter()
            .any(|part| part.starts_with("session"))
    );

    let mut evidence = kept.world.evidence(Purpose::Boot, None, Digest::ZERO);
    evidence.purpose = None;
    std::fs::write(kept.path("evidence.json"), evidence.to_file()).unwrap();
    let run = kept.run("evidence.json", &["--count", "300", "--json"]);
    assert_eq!(run.code, 6, "{}", run.stderr);
    let report = read(&run);
    assert_eq!(report["proven"], true);
    assert!(all(&report, "bit", "where").contains("evidence: report"));
    assert!(all(&report, "signed", "where").contains("evidence"));
    let run = kept.run("evidence.json", &["--json", "--nonce", "00"]);
    run.refused(1, "usage");
}

/// No mutant is the thing itself, nor says the same: what no verdict rests on is left alone.
#[test]
fn what_no_verdict_rests_on_is_left_alone() {
    let kept = Kept::<Machine>::new();
    let path = kept.path("answer/bundle.json");
    let mut bundle = touchstone_formats::Bundle::parse(&std::fs::read(&path).unwrap()).unwrap();
    let view = format!("{{\"for\":\"people\",\"text\":\"{}\"}}", "x".repeat(60_000));
    bundle.view = Some(view);
    std::fs::write(&path, bundle.to_file()).unwrap();
    // Most bits of this file are the view's.
    let report = kept.proven("answer", &["--seed", "6", "--count", "400"]);
    let mut seen = BTreeMap::new();
    for mutant in mutants(&report) {
        let same = (
            mutant["kind"].to_string(),
            mutant["where"].to_string(),
            mutant["change"].to_string(),
        );
        *seen.entry(same).or_insert(0) += 1;
    }
    let twice: Vec<_> = seen
        .iter()
        .filter(|((kind, ..), n)| **n > 1 && kind == "\"bit\"")
        .collect();
    assert!(twice.is_empty(), "{twice:?}");
}
