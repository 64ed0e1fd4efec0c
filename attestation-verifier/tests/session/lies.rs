//! One lie each, about an honest connection that holds.

use attestation_verifier::{Binding, Policy, Roots, check_session};
use touchstone_formats::report_data::{bind_boot, bind_checkpoint, bind_receipt, bind_session};
use touchstone_formats::{
    Collateral, CollateralFile, Digest, Purpose, SnpCollateral, TdxCollateral, Tee,
};
use touchstone_testkit::mint::World;

use crate::support::{Scene, assert_refused, collateral, tls_world};

/// What it is, its exit code, the check that decides, and what changes.
type Lie = (&'static str, u8, &'static str, fn(&mut Scene));

/// The honest scene holds, and every lie about it is refused with its exit code by its check.
fn all_refused(lies: &[Lie]) {
    Scene::new().holds();
    for (name, exit, deciding, lie) in lies {
        let scene = Scene::new().with(lie);
        let session = scene.judge();
        let found = (session.verdict.exit(), session.verdict.deciding());
        let words = session.verdict.words();
        assert_eq!(found, (*exit, Some(*deciding)), "{name}\n{words}");
        assert_refused(&session, *exit, deciding);
        assert_eq!(session.record(&scene.caller, scene.at.time), None, "{name}");
    }
}

#[test]
fn an_honest_connection_holds_and_says_so() {
    let session = Scene::new().holds();
    let json = serde_json::to_value(&session.verdict).unwrap();
    assert_eq!(json["verdict"], "holds");
    assert_eq!(json["binding"], "tls-exporter");
    assert_eq!(json["simulated"], true);
    let keyset = tls_world().keyset;
    assert_eq!(json["model"]["keyset"], keyset.digest().to_string());
    assert_eq!(json["model"]["keyset_name"], "enclave.example");
    assert!(
        session
            .verdict
            .words()
            .contains("\nbinding: tls-exporter\n")
    );
    for id in ["evidence.report_data", "snp.signature", "snp.measurement"] {
        let check = session.verdict.checks.find(id).unwrap();
        assert_eq!(check.evidence, Some("session"), "{id}");
    }
}

#[test]
fn a_simulated_platform_is_said_to_be_one() {
    let scene = Scene::new().with(|s| s.expect_simulated = false);
    let session = scene.judge();
    assert_eq!(
        (session.verdict.exit(), session.verdict.deciding()),
        (6, None)
    );
    assert_eq!(session.bound().binding(), Binding::TlsExporter);
    scene
        .with(|s| s.roots = Roots::pinned())
        .refused(3, "snp.chain.root");
}

#[test]
fn what_the_quote_is_over() {
    all_refused(&[
        (
            "another TLS session of the same key: diverted, or relayed under the same certificate",
            3,
            "evidence.report_data",
            |s| s.quoted.exporter[31] ^= 1,
        ),
        (
            "a relay with a certificate of its own",
            3,
            "session.tls_key",
            |s| s.caller.tls_spki_sha256 = Digest::of(b"the relay's key"),
        ),
        (
            "the same, and the enclave's quote is over the relay's key",
            3,
            "session.tls_key",
            |s| {
                s.caller.tls_spki_sha256 = Digest::of(b"the relay's key");
                s.quoted = s.caller;
            },
        ),
        (
            "the same, and the keyset names the relay's key",
            3,
            "evidence.report_data",
            |s| {
                s.caller.tls_spki_sha256 = Digest::of(b"the relay's key");
                s.answered = |a| a.keyset.tls_spki_sha256 = Some(Digest::of(b"the relay's key"));
            },
        ),
        (
            "a quote over another TLS key",
            3,
            "evidence.report_data",
            |s| s.quoted.tls_spki_sha256 = Digest::of(b"another key"),
        ),
        ("a keyset without a TLS key", 3, "session.tls_key", |s| {
            s.world.keyset.tls_spki_sha256 = None
        }),
        (
            "the TLS key taken out of the keyset",
            3,
            "session.tls_key",
            |s| s.answered = |a| a.keyset.tls_spki_sha256 = None,
        ),
        (
            "another keyset with the same TLS key beside the quote",
            3,
            "evidence.report_data",
            |s| s.answered = |a| a.keyset.config = Digest::of(b"other settings"),
        ),
        (
            "another enclave's keyset beside the quote",
            3,
            "session.tls_key",
            |s| s.answered = |a| a.keyset = World::new(2).keyset,
        ),
        (
            "the evidence's label names another nonce",
            3,
            "session.nonce",
            |s| s.answered = |a| a.evidence.nonce = Some(vec![8; 32]),
        ),
        (
            "no nonce in the evidence's label",
            3,
            "session.nonce",
            |s| s.answered = |a| a.evidence.nonce = None,
        ),
        (
            "a nonce that yours is the beginning of",
            3,
            "session.nonce",
            |s| s.answered = |a| a.evidence.nonce = Some(vec![7; 33]),
        ),
        (
            "the quote is over another nonce, the label names yours",
            3,
            "evidence.report_data",
            |s| {
                s.quoted.nonce = [8; 32];
                s.answered = |a| a.evidence.nonce = Some(vec![7; 32]);
            },
        ),
        (
            "evidence of an earlier connection",
            3,
            "session.nonce",
            |s| {
                s.quoted.nonce = [8; 32];
                s.quoted.exporter = [8; 32];
            },
        ),
        (
            "reflection: the bind of a client's end",
            3,
            "evidence.report_data",
            |s| {
                let (key, exporter) = (s.quoted.tls_spki_sha256, s.quoted.exporter);
                s.bind = Some(Digest::of_parts(&[b"client\n", &key.0, &exporter]));
            },
        ),
        ("a bind without a label", 3, "evidence.report_data", |s| {
            let (key, exporter) = (s.quoted.tls_spki_sha256, s.quoted.exporter);
            s.bind = Some(Digest::of_parts(&[&key.0, &exporter]));
        }),
        (
            "key and exporter in each other's place",
            3,
            "evidence.report_data",
            |s| {
                let (key, exporter) = (s.quoted.tls_spki_sha256, s.quoted.exporter);
                s.bind = Some(bind_session(Digest(exporter), &key.0));
            },
        ),
        ("a name beyond its bound", 2, "session.format", |s| {
            s.answered = |a| a.keyset.name = "n".repeat(257)
        }),
    ]);
}

#[test]
fn evidence_of_every_other_purpose_is_refused() {
    all_refused(&[
        ("boot", 2, "evidence.purpose", |s| {
            (s.purpose, s.bind) = (Purpose::Boot, Some(bind_boot()))
        }),
        ("checkpoint", 2, "evidence.purpose", |s| {
            (s.purpose, s.bind) = (Purpose::Checkpoint, Some(bind_checkpoint("a note\n")))
        }),
        ("receipt", 2, "evidence.purpose", |s| {
            (s.purpose, s.bind) = (Purpose::Receipt, Some(bind_receipt(b"a receipt")))
        }),
        ("none", 2, "evidence.purpose", |s| {
            s.answered = |a| a.evidence.purpose = None
        }),
        ("boot over a session", 2, "evidence.purpose", |s| {
            s.purpose = Purpose::Boot
        }),
        // Renamed, so that REPORT_DATA alone tells.
        ("boot called session", 3, "evidence.report_data", |s| {
            (s.purpose, s.bind) = (Purpose::Boot, Some(bind_boot()));
            s.answered = |a| a.evidence.purpose = Some(Purpose::Session);
        }),
        (
            "checkpoint called session",
            3,
            "evidence.report_data",
            |s| {
                s.purpose = Purpose::Checkpoint;
                s.answered = |a| a.evidence.purpose = Some(Purpose::Session);
            },
        ),
        ("receipt called session", 3, "evidence.report_data", |s| {
            s.purpose = Purpose::Receipt;
            s.answered = |a| a.evidence.purpose = Some(Purpose::Session);
        }),
    ]);
}

#[test]
fn the_keyset_is_alive_now() {
    Scene::new()
        .with(|s| s.world.keyset.not_after = s.at.time)
        .holds();
    Scene::new()
        .with(|s| s.world.keyset.not_before = s.at.time + 300)
        .holds();
    let span =
        |s: &mut Scene, seconds| s.world.keyset.not_after = s.world.keyset.not_before + seconds;
    Scene::new().with(|s| span(s, 604_800)).holds();
    all_refused(&[
        ("over", 4, "keyset.lifetime", |s| {
            s.world.keyset.not_after = s.at.time - 1
        }),
        ("not begun", 4, "keyset.lifetime", |s| {
            s.world.keyset.not_before = s.at.time + 301
        }),
        ("never alive", 4, "keyset.lifetime", |s| {
            let keyset = &mut s.world.keyset;
            (keyset.not_before, keyset.not_after) = (keyset.not_after, keyset.not_before);
        }),
        ("too long", 4, "keyset.span", |s| {
            s.world.keyset.not_after = s.world.keyset.not_before + 604_801
        }),
        ("another name", 4, "keyset.name", |s| {
            s.changes
                .push(("name", "{ expect = [\"other.example\"] }".into()))
        }),
        ("no name is accepted", 4, "keyset.name", |s| {
            s.changes.push(("name", "{ expect = [] }".into()))
        }),
        ("a waiver of names that ended", 4, "keyset.name", |s| {
            let waiver = "{ waive = \"moving house\", until = \"2026-09-20\" }";
            s.changes.push(("name", waiver.into()));
        }),
    ]);
    let verdict = Scene::new()
        .with(|s| s.world.keyset.not_after = s.at.time - 1)
        .refused(4, "keyset.lifetime")
        .verdict;
    let json = serde_json::to_value(verdict).unwrap();
    assert_eq!(json["class"], "operations");
}

#[test]
fn the_policy_says_which_enclave_it_must_be() {
    let risk = |scene: &Scene| {
        let risks = scene.holds().verdict.context.residual_risks;
        let unpinned = "Which enclave was reached is not pinned";
        risks.iter().filter(|r| r.starts_with(unpinned)).count()
    };
    let chip = |scene: &Scene| {
        let chip = hex::encode(scene.world.machine.report.chip_id);
        format!("{{ expect = [\"{chip}\"] }}")
    };
    // Nothing pinned: zeros in HOST_DATA are what all have whose host gave none.
    assert_eq!(risk(&Scene::new()), 1);
    let named = Scene::new().policy("name", "{ expect = \"enclave.example\" }");
    assert_eq!(risk(&named), 0);
    let by_chip = Scene::new();
    let value = chip(&by_chip);
    let by_chip = by_chip.policy("snp.chip_id", value);
    assert_eq!(risk(&by_chip), 0);
    let host_data = |byte: u8| format!("{{ expect = \"{}\" }}", hex::encode([byte; 32]));
    let given = Scene::new()
        .with(|s| s.world.machine.report.host_data = [3; 32])
        .policy("snp.host_data", host_data(3));
    assert_eq!(risk(&given), 0);
    // Another genuine enclave: another chip of the same vendor, other host data, another name.
    let other_chip = |s: &mut Scene| {
        s.world.machine.report.chip_id[0] ^= 1;
        s.world.machine.reissue();
        s.collateral = Some(collateral(&s.world));
    };
    assert_eq!(risk(&Scene::new().with(other_chip)), 1);
    by_chip.with(other_chip).refused(4, "snp.chip_id");
    given
        .with(|s| s.world.machine.report.host_data = [4; 32])
        .refused(4, "snp.host_data");
    named
        .with(|s| s.world.keyset.name = "other.example".into())
        .refused(4, "keyset.name");
}

#[test]
fn what_must_bind_a_connection() {
    for holds in [
        "{ expect = \"tls-exporter\" }",
        "{ expect = [\"none\", \"spki-pin\", \"tls-exporter\"] }",
        "{ waive = \"any\" }",
    ] {
        Scene::new().policy("binding", holds).holds();
    }
    for refused in [
        "{ expect = \"spki-pin\" }",
        "{ expect = \"none\" }",
        "{ expect = [] }",
        "{ waive = \"for a day\", until = \"2026-09-20\" }",
    ] {
        let session = Scene::new()
            .policy("binding", refused)
            .refused(4, "session.binding");
        // It says what held all the same.
        assert_eq!(session.verdict.binding(), Binding::TlsExporter);
    }
    // What a waiver waives is not the connection's evidence.
    Scene::new()
        .policy("binding", "{ waive = \"any\" }")
        .with(|s| s.quoted.exporter = [0; 32])
        .refused(3, "evidence.report_data");
}

#[test]
fn a_policy_without_the_table_needs_tls_exporter() {
    let without = |scene: &Scene| {
        let text = scene.policy_text();
        let (head, rest) = text.split_once("[session]").unwrap();
        let (_, platforms) = rest.split_once("[[platform]]").unwrap();
        let policy = Policy::parse(&format!("{head}[[platform]]{platforms}")).unwrap();
        assert_eq!(policy.session, None);
        scene.judge_by(&policy, &scene.answer())
    };
    let session = without(&Scene::new());
    assert_eq!(session.verdict.exit(), 0, "{}", session.verdict.words());
    assert_eq!(session.bound().binding(), Binding::TlsExporter);
    let refused = without(&Scene::new().with(|s| s.quoted.exporter = [0; 32]));
    assert_refused(&refused, 3, "evidence.report_data");
    let binding = refused.verdict.checks.find("session.binding").unwrap();
    assert!(binding.refuses());
    assert_eq!(binding.expected, serde_json::json!(["tls-exporter"]));
}

#[test]
fn a_session_is_judged_at_the_callers_own_clock() {
    let session = Scene::new()
        .with(|s| s.at.asserted = true)
        .refused(4, "session.clock");
    let json = serde_json::to_value(session.verdict).unwrap();
    assert_eq!(
        (&json["time_vouched_by"], &json["class"]),
        (&"caller".into(), &"policy".into())
    );
}

fn snp(file: &mut CollateralFile) -> &mut SnpCollateral {
    match &mut file.collateral {
        Collateral::SevSnp(collateral) => collateral,
        other => panic!("SEV-SNP collateral, not {other:?}"),
    }
}

#[test]
fn collateral_comes_by_itself() {
    all_refused(&[
        ("none", 5, "snp.collateral", |s| s.collateral = None),
        ("of another TEE", 5, "snp.collateral", |s| {
            s.collateral = Some(CollateralFile {
                tee: Tee::Tdx,
                collateral: Collateral::Tdx(TdxCollateral::default()),
            })
        }),
        ("no certificate", 5, "snp.collateral", |s| {
            snp(s.collateral.as_mut().unwrap()).vek = None
        }),
        ("no revocation list", 5, "snp.chain.crl", |s| {
            snp(s.collateral.as_mut().unwrap()).crls.clear()
        }),
        ("a broken certificate", 2, "snp.collateral", |s| {
            snp(s.collateral.as_mut().unwrap())
                .vek
                .as_mut()
                .unwrap()
                .push(0)
        }),
        ("too late for it", 5, "snp.chain.crl", |s| {
            s.at.time += 400 * 86_400;
            s.world.keyset.not_before = s.at.time;
            s.world.keyset.not_after = s.at.time + 60;
        }),
        ("another chip's", 3, "snp.signature", |s| {
            let mut other = s.world.clone();
            other.machine.key = touchstone_testkit::amd::VekKey::p384();
            other.machine.reissue();
            s.collateral = Some(collateral(&other));
        }),
    ]);
    let session = Scene::new()
        .with(|s| s.collateral = None)
        .refused(5, "snp.collateral");
    let json = serde_json::to_value(session.verdict).unwrap();
    assert_eq!(json["class"], "retry");
}

#[test]
fn collateral_that_is_given_stands_in_for_what_the_evidence_carries() {
    let scene = Scene::new();
    let judge = |carried: Option<Collateral>, given: Option<CollateralFile>| {
        let mut answer = touchstone_formats::SessionAnswer::parse(&scene.answer()).unwrap();
        answer.evidence.collateral = carried;
        let policy = Policy::parse(&scene.policy_text()).unwrap();
        let (file, given) = (answer.to_file(), given.as_ref());
        check_session(
            &file,
            &scene.caller,
            given,
            &policy,
            &scene.roots,
            scene.at,
            true,
        )
    };
    let good = collateral(&scene.world);
    let empty = Collateral::SevSnp(SnpCollateral::default());
    let foreign = CollateralFile {
        tee: Tee::Tdx,
        collateral: Collateral::Tdx(TdxCollateral::default()),
    };
    assert_eq!(judge(Some(good.collateral.clone()), None).verdict.exit(), 0);
    let replaced = judge(Some(empty.clone()), Some(good.clone()));
    assert_eq!(replaced.verdict.exit(), 0);
    // What is kept is what it was judged by.
    let record = replaced.record(&scene.caller, scene.at.time).unwrap();
    assert_eq!(
        record.evidence.unwrap().collateral.as_ref(),
        Some(&good.collateral)
    );
    let given = CollateralFile {
        tee: Tee::SevSnp,
        collateral: empty,
    };
    assert_refused(
        &judge(Some(good.collateral.clone()), Some(given)),
        5,
        "snp.collateral",
    );
    // Of another TEE: it is left aside, and the verdict says so.
    let aside = judge(Some(good.collateral), Some(foreign));
    assert_eq!(aside.verdict.exit(), 0);
    let risks = aside.verdict.context.residual_risks;
    assert!(
        risks.iter().any(|r| r.contains("it was not used")),
        "{risks:?}"
    );
}

#[test]
fn the_platform_is_appraised_as_in_a_bundle() {
    all_refused(&[
        ("a debuggable guest", 4, "snp.policy.debug", |s| {
            s.world.machine.report.policy |= 1 << 19
        }),
        ("another image", 4, "snp.measurement", |s| {
            // The policy was written for the honest one.
            let honest = hex::encode(s.world.machine.report.measurement);
            s.changes
                .push(("snp.measurement", format!("{{ expect = \"{honest}\" }}")));
            s.world.machine.report.measurement[0] ^= 1;
        }),
        ("a quote of another length", 2, "snp.format", |s| {
            s.answered = |a| a.evidence.quote.push(0)
        }),
        ("a quote that nobody signed", 3, "snp.signature", |s| {
            s.answered = |a| a.evidence.quote[0x2a0] ^= 1
        }),
        ("a report that says it is a quote", 2, "tdx.format", |s| {
            s.answered = |a| a.evidence.tee = Tee::Tdx
        }),
    ]);
    // Nothing that a bundle's evidence has to satisfy is left out, also when nothing got that far.
    let broken = Scene::new().with(|s| s.answered = |a| a.evidence.quote.clear());
    let broken = broken.refused(2, "snp.format").verdict;
    let ids = |verdict: &attestation_verifier::Verdict| {
        let snp = verdict.checks.iter().filter(|c| c.id.starts_with("snp."));
        snp.map(|c| c.id.to_string())
            .collect::<std::collections::BTreeSet<_>>()
    };
    let mut honest = ids(&Scene::new().holds().verdict);
    // Made only where a revocation list is there.
    honest.remove("snp.collateral.age");
    assert_eq!(ids(&broken), honest);
}
