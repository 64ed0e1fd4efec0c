//! Old bundles under notices: what applies refuses, what does not changes nothing, and only a signed list is read.

use attestation_verifier::regrade::{
    Advisories, AdvisoriesError, ListContent, NOTICE, Regraded, regrade,
};
use attestation_verifier::{Policy, Roots};
use serde_json::{Value, json};
use touchstone_formats::checkpoint::LogKey;
use touchstone_formats::{Purpose, jcs};
use touchstone_testkit::mint::{Minted, World, sign_note};

use crate::support::*;

const SEED: [u8; 32] = [7; 32];
const NAME: &str = "advisories.example";

fn key() -> LogKey {
    let signed = sign_note(&SEED, NAME, "x\n");
    let note = touchstone_formats::SignedNote::parse(&signed).unwrap();
    let public = ring_public(&SEED);
    let key = LogKey {
        name: NAME.into(),
        key: public,
    };
    assert_eq!(note.signatures[0].key_id, key.key_id());
    key
}

/// The public key of a seed, by way of a receipt signer's.
fn ring_public(seed: &[u8; 32]) -> [u8; 32] {
    touchstone_formats::ReceiptSigner::from_seed(seed)
        .unwrap()
        .public_key()
}

/// Genoa below microcode 255, since a time.
pub fn notice(since: Option<u64>) -> Value {
    json!({
        "advisories": [], "below": {"microcode": 255}, "id": "example-1", "not_trusted_since": since,
        "products": ["Genoa"], "source": "AMD-SB-0000", "statuses": [], "tee": "sev-snp",
        "words": "microcode before 255 leaks",
    })
}

fn text(notices: &[Value]) -> String {
    let list = json!({"issued_at": World::AT, "notices": notices, "v": "touchstone/advisories/1", "version": 7});
    String::from_utf8(jcs::to_file(&list).unwrap()).unwrap()
}

fn signed(notices: &[Value]) -> Advisories {
    let file = sign_note(&SEED, NAME, &text(notices));
    Advisories::parse(file.as_bytes(), &key()).unwrap()
}

fn regraded(world: &World, minted: &Minted, notices: &[Value]) -> Regraded {
    let policy = policy(world, &[]);
    regrade(
        &minted.file(),
        &signed(notices),
        &policy,
        &roots(world),
        &auditor(),
        at(minted),
    )
}

/// A bundle of any world under one notice.
pub fn under(minted: &Minted, notice: &Value, policy: &Policy, roots: &Roots) -> Regraded {
    let list = signed(std::slice::from_ref(notice));
    regrade(&minted.file(), &list, policy, roots, &auditor(), at(minted))
}

#[track_caller]
pub fn turned(regraded: &Regraded) {
    assert_eq!(regraded.before.exit(), 0, "{}", regraded.before.words());
    let after = &regraded.after;
    assert_eq!(
        (after.exit(), after.deciding()),
        (4, Some(NOTICE)),
        "{}",
        after.words()
    );
    assert_eq!(
        after.conclusion.class,
        Some(attestation_verifier::verdict::Class::Operations)
    );
    assert_eq!(regraded.notices, ["example-1"]);
    let mut own = after.checks.iter();
    let check = own.find(|c| c.id == NOTICE && c.refuses()).unwrap();
    assert_eq!(check.found, "example-1");
    assert!(
        check.reason.contains("microcode before 255 leaks") && check.reason.contains("AMD-SB-0000")
    );
}

#[track_caller]
fn stays(regraded: &Regraded) {
    assert_eq!(
        (regraded.before.exit(), regraded.after.exit()),
        (0, 0),
        "{}",
        regraded.after.words()
    );
    assert!(regraded.notices.is_empty());
    assert!(regraded.after.checks.find(NOTICE).is_some());
}

#[test]
fn a_notice_turns_what_it_is_about_and_nothing_else() {
    let world = world();
    let minted = mint(&world, |m| m);
    let iat = minted.claims.iat;
    turned(&regraded(&world, &minted, &[notice(Some(iat))]));
    turned(&regraded(&world, &minted, &[notice(Some(0))]));
    turned(&regraded(&world, &minted, &[notice(None)]));
    stays(&regraded(&world, &minted, &[]));
    stays(&regraded(&world, &minted, &[notice(Some(iat + 1))]));
    let with = |change: fn(&mut Value)| {
        let mut other = notice(None);
        change(&mut other);
        regraded(&world, &minted, &[other])
    };
    turned(&with(|n| n["products"] = json!(["any"])));
    turned(&with(|n| n["products"] = json!(["Turin", "Genoa"])));
    turned(&with(|n| n["below"] = json!({})));
    turned(&with(|n| n["below"] = json!({"snp": 0, "microcode": 91})));
    stays(&with(|n| n["below"] = json!({"microcode": 90})));
    stays(&with(|n| n["below"] = json!({"fmc": 255})));
    stays(&with(|n| n["products"] = json!(["Genoa-X", "Milan"])));
    stays(&with(|n| {
        n["tee"] = json!("tdx");
        n["products"] = json!(["any"]);
        n["below"] = json!({});
    }));
    // The nearest that fits decides, and each is named.
    let mut second = notice(None);
    second["id"] = json!("example-2");
    let both = regraded(&world, &minted, &[notice(None), second]);
    assert_eq!(both.notices, ["example-1", "example-2"]);
}

/// The lowest of reported, committed and launch TCB counts, of each evidence object.
#[test]
fn every_evidence_object_and_every_tcb_counts() {
    let world = world();
    let current = world.machine.report.launch_tcb[7];
    let mut since_launch = notice(None);
    since_launch["below"] = json!({"microcode": current});
    let honest = mint(&world, |m| m);
    stays(&regraded(&world, &honest, &[since_launch.clone()]));
    for purpose in [Purpose::Boot, Purpose::Checkpoint] {
        let minted = mint(&world, |m| {
            m.report(move |p, r| r.launch_tcb[7] -= u8::from(p == purpose))
        });
        let regraded = regraded(&world, &minted, &[since_launch.clone()]);
        turned(&regraded);
        let check = regraded
            .after
            .checks
            .iter()
            .find(|c| c.id == NOTICE && c.refuses());
        assert_eq!(check.unwrap().evidence, Some(purpose.name()));
        assert!(check.unwrap().reason.contains("launch microcode"));
    }
}

/// Turin's TCB_VERSION has another order, and one component more: each is compared with the byte that it is in.
#[test]
fn each_component_of_turin_is_its_own() {
    let product = touchstone_testkit::amd::Product::Turin;
    let at = World::AT;
    let mut machine = touchstone_testkit::machine::Machine::new(product, 5, at);
    // FMC, boot loader, TEE and SNP in the first bytes, microcode in the last (AMD 56860, TCB_VERSION of family 1Ah).
    let levels = [
        ("fmc", 3),
        ("bootloader", 7),
        ("tee", 11),
        ("snp", 40),
        ("microcode", 200),
    ];
    let raw = [3, 7, 11, 40, 0, 0, 0, 200];
    let report = &mut machine.report;
    (report.reported_tcb, report.committed_tcb) = (raw, raw);
    (report.launch_tcb, report.current_tcb) = (raw, raw);
    machine.reissue();
    let world = World::on(machine, 1, at);
    let minted = mint(&world, |m| m);
    let below = |component: &str, least: u8| {
        let mut notice = notice(None);
        notice["products"] = json!(["any"]);
        notice["below"] = json!({ component: least });
        regraded(&world, &minted, &[notice])
    };
    for (component, level) in levels {
        stays(&below(component, level));
        turned(&below(component, level + 1));
    }
}

/// A report of version 2 does not say which Genoa it is: a notice about any of them fits.
#[test]
fn an_unknown_variant_may_be_any() {
    let at = World::AT;
    let mut machine =
        touchstone_testkit::machine::Machine::new(touchstone_testkit::amd::Product::Genoa, 2, at);
    // Version 2 has no such bit.
    machine.report.platform_info &= !touchstone_testkit::snp::platform_info::ALIAS_CHECK_COMPLETE;
    let world = World::on(machine, 1, at);
    let minted = mint(&world, |m| m);
    let policy = policy(
        &world,
        &[
            ("snp.version", "{ expect = [2] }"),
            ("snp.platform.alias_check", "{ expect = false }"),
        ],
    );
    let mut bergamo = notice(None);
    bergamo["products"] = json!(["Bergamo"]);
    let under = |n: &Value| {
        regrade(
            &minted.file(),
            &signed(std::slice::from_ref(n)),
            &policy,
            &roots(&world),
            &auditor(),
            crate::support::at(&minted),
        )
    };
    turned(&under(&bergamo));
    bergamo["products"] = json!(["Turin-Dense"]);
    stays(&under(&bergamo));
}

/// A notice makes nothing better, and is told beside what refuses already.
#[test]
fn what_was_refused_stays_refused() {
    let world = world();
    let minted = mint(&world, |m| m.report(|_, r| r.policy |= 1 << 19));
    let refused = regraded(&world, &minted, &[]);
    assert_eq!((refused.before.exit(), refused.after.exit()), (4, 4));
    assert_eq!(refused.after.deciding(), Some("snp.policy.debug"));
    let forged = mint(&world, |m| m.report(|_, r| r.report_data[0] ^= 1));
    let refused = regraded(&world, &forged, &[notice(None)]);
    assert_eq!((refused.before.exit(), refused.after.exit()), (3, 3));
    let nonsense = regrade(
        b"{}\n",
        &signed(&[notice(None)]),
        &policy(&world, &[]),
        &roots(&world),
        &auditor(),
        at(&minted),
    );
    assert_eq!(
        (
            nonsense.before.exit(),
            nonsense.after.exit(),
            nonsense.issued_at
        ),
        (2, 2, None)
    );
}

#[test]
fn only_a_list_signed_by_the_named_key_is_read() {
    let text = text(&[notice(None)]);
    let honest = sign_note(&SEED, NAME, &text);
    let list = Advisories::parse(honest.as_bytes(), &key()).unwrap();
    assert_eq!(
        (list.version(), list.issued_at(), list.signer()),
        (7, World::AT, NAME)
    );
    assert_eq!(list.clone().at_least(7).unwrap(), list);
    let old = list.at_least(8).unwrap_err();
    assert_eq!((old.id(), old.fault().exit()), ("advisories.version", 4));

    let refused = |file: &str, id: &str, exit: u8| {
        let error = Advisories::parse(file.as_bytes(), &key()).unwrap_err();
        assert_eq!((error.id(), error.fault().exit()), (id, exit), "{error}");
        error.to_string()
    };
    refused(&text, "advisories.signature", 3);
    refused("", "advisories.signature", 3);
    refused(&sign_note(&[8; 32], NAME, &text), "advisories.signature", 3);
    let other = refused(
        &sign_note(&SEED, "another.example", &text),
        "advisories.signature",
        3,
    );
    assert!(
        other.contains("another.example") && other.contains(NAME),
        "{other}"
    );
    refused(
        &honest.replace("\"version\":7", "\"version\":8"),
        "advisories.signature",
        3,
    );
    refused(
        &honest.replace("255 leaks", "255 is fine"),
        "advisories.signature",
        3,
    );
    refused(&honest.replace("\n\n", "\n"), "advisories.format", 2);
    refused(&format!("{honest}\n"), "advisories.format", 2);
    // Signed nonsense is malformed, and nothing of it is used.
    for (text, what) in [
        (text.replace("{\"issued", "{ \"issued"), "canonical"),
        (text.replace("advisories/1", "advisories/2"), "list.v"),
        (text.replace("\"version\":7", "\"version\":\"7\""), ""),
        (text.replace("\"words\":", "\"wordy\":"), ""),
        (
            text.replace("\"Genoa\"", "\"Genua\""),
            "notices[0].products",
        ),
        (text.replace("[\"Genoa\"]", "[]"), "notices[0].products"),
        (
            text.replace("microcode\":255", "microcode\":256"),
            "notices[0].below",
        ),
        (
            text.replace("{\"microcode\":255}", "{\"ucode\":255}"),
            "notices[0].below",
        ),
        (
            text.replace("\"advisories\":[]", "\"advisories\":[\"INTEL-SA-00001\"]"),
            "notices[0].advisories",
        ),
        (text.replace("example-1", " "), "notices[0].id"),
        (text.replace("\"not_trusted_since\":null,", ""), ""),
        (text.trim_end().to_owned() + "\n\n", ""),
    ] {
        let error = refused(&sign_note(&SEED, NAME, &text), "advisories.format", 2);
        assert!(
            what == "canonical" || error.contains(what),
            "{what}: {error}"
        );
    }
    let twice = crate::regrade::text(&[notice(None), notice(Some(1))]);
    let error = refused(&sign_note(&SEED, NAME, &twice), "advisories.format", 2);
    assert!(error.contains("notices[1].id"), "{error}");
}

#[test]
fn what_an_author_writes_becomes_canonical() {
    let canonical = text(&[notice(Some(5))]);
    let pretty =
        serde_json::to_string_pretty(&serde_json::from_str::<Value>(&canonical).unwrap()).unwrap();
    let content = ListContent::parse(pretty.as_bytes()).unwrap();
    assert_eq!(content.text().unwrap(), canonical);
    let wrong = pretty.replace("Genoa", "Genua");
    let error = ListContent::parse(wrong.as_bytes()).unwrap_err();
    assert!(
        matches!(
            error,
            AdvisoriesError::Value {
                field: "products",
                ..
            }
        ),
        "{error}"
    );
    let unknown = pretty.replace("\"words\"", "\"notes\": 1, \"words\"");
    assert!(ListContent::parse(unknown.as_bytes()).is_err());
}

/// TDX notices say what they need; a platform whose description lacks it is not passed over.
#[test]
fn tdx_notices_are_read() {
    let tdx = |change: fn(&mut Value)| {
        let mut notice = json!({
            "advisories": ["INTEL-SA-01036"], "below": {"tdx_module": 5}, "id": "x", "not_trusted_since": null,
            "products": ["00806f050000"], "source": "Intel", "statuses": ["OutOfDate"], "tee": "tdx", "words": "w",
        });
        change(&mut notice);
        Advisories::parse(sign_note(&SEED, NAME, &text(&[notice])).as_bytes(), &key())
    };
    assert_eq!(tdx(|_| ()).unwrap().notices().len(), 1);
    assert!(tdx(|n| n["products"] = json!(["00806F050000"])).is_err());
    assert!(tdx(|n| n["products"] = json!(["Genoa"])).is_err());
    assert!(tdx(|n| n["statuses"] = json!(["outofdate"])).is_err());
    assert!(tdx(|n| n["below"] = json!({"microcode": 5})).is_err());
}
