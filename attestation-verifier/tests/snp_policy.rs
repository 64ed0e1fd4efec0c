//! What is genuine and refused: every check a policy decides, with a report that fails it and
//! carries a good signature. Exit 4 unless said otherwise.

mod common;

use attestation_verifier::policy::{Form, PolicyError, check_ids};
use attestation_verifier::verdict::{Class, Outcome};
use attestation_verifier::{Policy, policy};
use common::simulated::{CSP, Lie, NOW, Scene, genoa, genoa_v2, genoa_v3, lie, milan, refuse, turin, vlek};
use common::{at, template, with};
use touchstone_formats::evidence::Tee;
use touchstone_testkit::amd::{Product, Tcb};
use touchstone_testkit::snp::Report;

/// A report that says something a policy refuses.
fn says(id: &'static str, honest: fn() -> Scene, change: impl Fn(&mut Report) + 'static) -> Lie {
    lie(id, honest, move |s| s.report(&change), 4, id)
}

/// The report stays; the policy expects something else.
fn expects(id: &'static str, honest: fn() -> Scene, value: &'static str) -> Lie {
    lie(format!("{id} = {value}"), honest, move |s| s.set(id, value), 4, id)
}

#[test]
fn every_check_has_a_lie() {
    let lies = table();
    for spec in check_ids(Tee::SevSnp) {
        assert!(lies.iter().any(|lie| lie.deciding == spec.id), "no lie about {}", spec.id);
    }
    refuse(lies);
}

fn table() -> Vec<Lie> {
    let mut lies = vec![
        expects("snp.version", genoa, "{ expect = 3 }"),
        expects("snp.version", genoa_v2, "{ expect = [3, 5] }"),
        expects("snp.version", genoa, "{ expect = [] }"),
        expects("snp.product", genoa, "{ expect = \"Turin\" }"),
        expects("snp.product", milan, "{ expect = [\"Genoa\", \"Turin\"] }"),
        expects("snp.signing_key", vlek, "{ expect = [\"vcek\"] }"),
        expects("snp.signing_key", genoa, "{ expect = \"vlek\" }"),
        expects("snp.vlek.csp", vlek, "{ expect = [] }"),
        expects("snp.vlek.csp", vlek, "{ expect = [\"CN=cc-nowhere-2.simulated.invalid\"] }"),
        says("snp.chip_id.masked", vlek, |r| r.chip_id = [0; 64]),
        lie("a VCEK's CHIP_ID masked", genoa, |s| s.machine.report.chip_id = [0; 64], 4, "snp.chip_id.masked"),
        lie("a VCEK's CHIP_ID masked on Turin", turin, |s| s.machine.report.chip_id = [0; 64], 4, "snp.chip_id.masked"),
        lie("another chip than the pinned one", pinned, |s| s.report(|r| r.chip_id[0] ^= 1), 4, "snp.chip_id"),
        lie("nobody's revocation list", genoa, |s| s.collateral(|_, f| f.crls.clear()), 5, "snp.chain.crl"),
        says("snp.tcb.provisional", genoa, |r| r.current_tcb[7] += 1),
        says("snp.tcb.provisional", genoa, |r| r.current_version[0] += 1),
        says("snp.tcb.provisional", turin, |r| r.current_version[2] += 1),
        says("snp.policy.debug", genoa, |r| r.policy |= 1 << 19),
        says("snp.policy.debug", turin, |r| r.policy |= 1 << 19),
        says("snp.policy.migrate_ma", genoa, |r| r.policy |= 1 << 18),
        says("snp.policy.abi", genoa, |r| r.policy |= 2 << 8),
        says("snp.policy.abi", genoa, |r| r.policy |= 1 << 8 | 0x38),
        says("snp.policy.abi", genoa, |r| {
            r.policy |= 1 << 8 | 0x37;
            r.committed_version[1] -= 1;
            r.current_version[1] -= 1;
        }),
        says("snp.policy.smt", genoa, |r| r.policy &= !(1 << 16)),
        says("snp.policy.single_socket", genoa, |r| r.policy |= 1 << 20),
        says("snp.policy.cxl", genoa, |r| r.policy |= 1 << 21),
        says("snp.policy.mem_aes_256_xts", genoa, |r| r.policy |= 1 << 22),
        says("snp.policy.rapl_dis", genoa, |r| r.policy |= 1 << 23),
        says("snp.policy.ciphertext_hiding", genoa, |r| r.policy |= 1 << 24),
        says("snp.policy.page_swap_disable", genoa, |r| r.policy |= 1 << 25),
        expects("snp.policy.page_swap_disable", genoa_v3, "{ expect = true }"),
        says("snp.platform.smt", genoa, |r| r.platform_info &= !1),
        says("snp.platform.tsme", genoa, |r| r.platform_info |= 1 << 1),
        says("snp.platform.ecc", genoa, |r| r.platform_info &= !(1 << 2)),
        says("snp.platform.rapl_dis", genoa, |r| r.platform_info |= 1 << 3),
        says("snp.platform.ciphertext_hiding", genoa, |r| r.platform_info |= 1 << 4),
        says("snp.platform.alias_check", genoa, |r| r.platform_info &= !(1 << 5)),
        expects("snp.platform.alias_check", genoa_v2, "{ expect = true }"),
        says("snp.report_id_ma", genoa, |r| r.report_id_ma = [0; 32]),
        says("snp.report_id_ma", genoa, |r| r.report_id_ma[31] = 0xfe),
        says("snp.vmpl", genoa, |r| r.vmpl = 1),
        says("snp.vmpl", genoa, |r| r.vmpl = 3),
        says("snp.vmpl", genoa, |r| r.vmpl = u32::MAX),
        says("snp.measurement", genoa, |r| r.measurement[47] ^= 1),
        says("snp.measurement", genoa, |r| r.measurement = [0; 48]),
        expects("snp.measurement", genoa, "{ expect = [] }"),
        says("snp.host_data", genoa, |r| r.host_data[31] = 1),
        lie("GUEST_SVN below the floor", pinned, |s| s.report(|r| r.guest_svn = 6), 4, "snp.guest_svn"),
        lie("another FAMILY_ID", pinned, |s| s.report(|r| r.family_id[15] ^= 1), 4, "snp.family_id"),
        lie("another IMAGE_ID", pinned, |s| s.report(|r| r.image_id[0] ^= 1), 4, "snp.image_id"),
        lie("another ID key", pinned, |s| s.report(|r| r.id_key_digest[0] ^= 1), 4, "snp.id_key_digest"),
        lie("no ID key", pinned, |s| s.report(|r| r.id_key_digest = [0; 48]), 4, "snp.id_key_digest"),
        lie("another author key", pinned, |s| s.report(|r| r.author_key_digest[47] ^= 1), 4, "snp.author_key_digest"),
        lie("a mitigation missing at launch", pinned, |s| s.report(|r| r.launch_mit_vector = 0b01), 4, "snp.mitigation.launch"),
        lie("a mitigation missing now", pinned, |s| s.report(|r| r.current_mit_vector = 0b10), 4, "snp.mitigation.current"),
        expects("snp.mitigation.launch", genoa_v3, "{ expect = \"0x1\" }"),
        expects("snp.mitigation.current", genoa_v3, "{ expect = \"0x8000000000000000\" }"),
    ];
    lies.extend(floors());
    lies
}

/// Everything pinned that the template waives.
fn pinned() -> Scene {
    let mut scene = genoa();
    scene.report(|r| {
        r.guest_svn = 7;
        r.family_id = [1; 16];
        r.image_id = [2; 16];
        r.id_key_digest = [3; 48];
        r.author_key_digest = [4; 48];
        r.flags |= 1;
        r.launch_mit_vector = 0b111;
        r.current_mit_vector = 0b1011;
    });
    let report = scene.machine.report.clone();
    scene.set("snp.chip_id", &format!("{{ expect = \"{}\" }}", hex::encode(report.chip_id)));
    scene.set("snp.guest_svn", "{ expect = 7 }");
    scene.set("snp.family_id", &format!("{{ expect = \"{}\" }}", hex::encode([1; 16])));
    scene.set("snp.image_id", &format!("{{ expect = [\"{}\"] }}", hex::encode([2; 16])));
    scene.set("snp.id_key_digest", &format!("{{ expect = \"{}\" }}", hex::encode([3; 48])));
    scene.set("snp.author_key_digest", &format!("{{ expect = \"{}\" }}", hex::encode([4; 48])));
    scene.set("snp.mitigation.launch", "{ expect = \"0x3\" }");
    scene.set("snp.mitigation.current", "{ expect = \"0x3\" }");
    scene
}

/// Sets one of the three TCBs that have floors. What runs stays what is committed.
fn set_tcb(report: &mut Report, which: &str, tcb: [u8; 8]) {
    match which {
        "snp.tcb.reported" => report.reported_tcb = tcb,
        "snp.tcb.committed" => (report.committed_tcb, report.current_tcb) = (tcb, tcb),
        _ => report.launch_tcb = tcb,
    }
}

/// Each of the three TCBs, each component with a floor, each part with floors of its own.
fn floors() -> Vec<Lie> {
    let parts: [(Product, [u8; 3], fn() -> Scene, u8, u8); 7] = [
        (Product::Milan, [0x19, 0x01, 1], milan, 24, 219),
        (Product::Milan, [0x19, 0x01, 2], milan, 24, 68),
        (Product::Genoa, [0x19, 0x11, 1], genoa, 23, 84),
        (Product::Genoa, [0x19, 0x11, 2], genoa, 23, 79),
        (Product::Genoa, [0x19, 0xa0, 2], genoa, 23, 25),
        (Product::Turin, [0x1a, 0x02, 1], turin, 4, 80),
        (Product::Turin, [0x1a, 0x11, 0], turin, 4, 71),
    ];
    let mut lies = Vec::new();
    for (product, cpuid, honest, snp, microcode) in parts {
        let least = Tcb { fmc: 0, bootloader: 0, tee: 0, snp, microcode };
        // At the floor it holds: these are its numbers, not just some below.
        let mut scene = honest();
        scene.report(|r| {
            r.cpuid = cpuid;
            for which in ["snp.tcb.reported", "snp.tcb.committed", "snp.tcb.launch"] {
                set_tcb(r, which, least.to_bytes(product));
            }
        });
        let verdict = scene.judge();
        assert_eq!(verdict.exit(), 6, "{product} {cpuid:x?}: {}", verdict.words());

        for which in ["snp.tcb.reported", "snp.tcb.committed", "snp.tcb.launch"] {
            for below in [Tcb { snp: snp - 1, ..least }, Tcb { microcode: microcode - 1, ..least }] {
                lies.push(lie(
                    format!("{which} of {product} {cpuid:x?} at {below:?}"),
                    honest,
                    move |s| {
                        s.report(|r| {
                            r.cpuid = cpuid;
                            set_tcb(r, which, below.to_bytes(product));
                        });
                    },
                    4,
                    which,
                ));
            }
            lies.push(lie(format!("{which}: no floor for {product}"), honest, move |s| {
                let other = "Milan = { bootloader = 0, tee = 0, snp = 0, microcode = 0 }";
                let turin = "Turin = { fmc = 0, bootloader = 0, tee = 0, snp = 0, microcode = 0 }";
                let floor = if product == Product::Milan { turin } else { other };
                s.set(which, &format!("{{ expect = {{ {floor} }} }}"));
            }, 4, which));
            lies.push(lie(format!("{which}: no floors at all"), honest, move |s| {
                s.set(which, "{ expect = {} }");
            }, 4, which));
        }
    }
    for (name, floor) in [
        ("fmc", "fmc = 2, bootloader = 0, tee = 0, snp = 0, microcode = 0"),
        ("bootloader", "fmc = 0, bootloader = 3, tee = 0, snp = 0, microcode = 0"),
        ("tee", "fmc = 0, bootloader = 0, tee = 2, snp = 0, microcode = 0"),
        ("snp", "fmc = 0, bootloader = 0, tee = 0, snp = 6, microcode = 0"),
        ("microcode", "fmc = 0, bootloader = 0, tee = 0, snp = 0, microcode = 85"),
    ] {
        lies.push(lie(format!("Turin's {name}"), turin, move |s| {
            s.set("snp.tcb.launch", &format!("{{ expect = {{ Turin = {{ {floor} }} }} }}"));
        }, 4, "snp.tcb.launch"));
    }
    lies
}

/// A variant without floors of its own takes its product's.
#[test]
fn variants_fall_back_to_their_product() {
    let least = "Genoa = { bootloader = 0, tee = 0, snp = 23, microcode = 26 }";
    for (cpuid, microcode, exit) in [
        ([0x19, 0xa0, 2], 26, 6),
        ([0x19, 0xa0, 2], 25, 4),
        ([0x19, 0x11, 2], 26, 6),
        ([0x19, 0x11, 2], 25, 4),
    ] {
        let mut scene = genoa();
        scene.set("snp.tcb.reported", &format!("{{ expect = {{ {least} }} }}"));
        scene.report(|r| {
            r.cpuid = cpuid;
            r.reported_tcb = Tcb { snp: 23, microcode, ..Tcb::default() }.to_bytes(Product::Genoa);
        });
        // The other two are far above every floor.
        let verdict = scene.judge();
        assert_eq!(verdict.exit(), exit, "{}", verdict.words());
    }
}

/// A failed floor is the operator's to mend, a narrow rule the caller's own, a lie nobody's.
#[test]
fn classes() {
    let class = |change: fn(&mut Scene)| {
        let mut scene = genoa();
        change(&mut scene);
        scene.judge().conclusion.class
    };
    assert_eq!(class(|_| {}), None);
    assert_eq!(
        class(|s| s.report(|r| r.launch_tcb[7] = 1)),
        Some(Class::Operations)
    );
    assert_eq!(class(|s| s.report(|r| r.vmpl = 1)), Some(Class::Policy));
    assert_eq!(class(|s| s.collateral(|_, f| f.crls.clear())), Some(Class::Retry));
    assert_eq!(class(|s| s.machine.vek.not_after = NOW - 1), Some(Class::Operations));
    assert_eq!(class(|s| s.machine.report.chip_id[0] ^= 1), Some(Class::Tamper));
    assert_eq!(class(|s| s.machine.report.version = 9), Some(Class::Tamper));
}

#[test]
fn waivers_end() {
    let id = "snp.policy.debug";
    let until = |scene: &mut Scene, until: &str| {
        scene.set(id, &format!("{{ waive = \"a test guest\", until = \"{until}\" }}"));
    };
    // NOW is 2026-09-21: the last day counts whole.
    for (day, exit) in [("2026-09-21", 6), ("2026-09-22", 6), ("2026-09-20", 4)] {
        let mut scene = genoa();
        scene.report(|r| r.policy |= 1 << 19);
        until(&mut scene, day);
        let verdict = scene.judge();
        assert_eq!(verdict.exit(), exit, "{day}");
        let check = verdict.checks.find(id).unwrap();
        assert_eq!(check.found, true);
        if exit == 4 {
            assert_eq!(verdict.deciding(), Some(id));
            assert!(check.reason.contains("ended"), "{}", check.reason);
        } else {
            assert_eq!(check.result, Outcome::Waived);
            let json: serde_json::Value = serde_json::from_str(&verdict.to_json()).unwrap();
            let waivers = json["waivers"].as_array().unwrap();
            let waiver = waivers.iter().find(|w| w["id"] == id).unwrap();
            assert_eq!(waiver["reason"], "a test guest");
            assert_eq!(waiver["until"], day);
        }
    }
    // A waiver that ended fails also where what it waived would be right: there is no expectation.
    let mut scene = genoa();
    until(&mut scene, "2026-09-20");
    assert_eq!(scene.judge().deciding(), Some(id));
    // So does the age of collateral.
    let mut scene = genoa();
    scene.policy = with(
        &scene.policy,
        "collateral_age_seconds",
        "{ waive = \"archive\", until = \"2026-09-20\" }",
    );
    let verdict = scene.judge();
    assert_eq!((verdict.exit(), verdict.deciding()), (5, Some("snp.collateral.age")));
}

/// The evidence has to satisfy one platform whole; two halves are none.
#[test]
fn several_platforms() {
    let mut scene = genoa();
    let (head, platform) = scene.policy.split_once("[[platform]]").unwrap();
    let (head, platform) = (head.to_owned(), platform.to_owned());
    let good = |p: &str| format!("[[platform]]{p}\n");
    let wrong_vmpl = with(&good(&platform), "snp.vmpl", "{ expect = [1] }");
    let wrong_product = with(&good(&platform), "snp.product", "{ expect = \"Turin\" }");
    let twice_wrong = with(&wrong_product, "snp.vmpl", "{ expect = [1] }");

    scene.policy = format!("{head}{twice_wrong}{wrong_vmpl}{wrong_product}");
    let verdict = scene.judge();
    assert_eq!((verdict.exit(), verdict.deciding()), (4, Some("snp.vmpl")), "the nearest is shown");
    assert_eq!(verdict.context.platform["policy_platform"], 2);

    scene.policy = format!("{head}{twice_wrong}{}{wrong_vmpl}", good(&platform));
    let verdict = scene.judge();
    assert_eq!(verdict.exit(), 6, "{}", verdict.words());
    assert_eq!(verdict.context.platform["policy_platform"], 2);
}

#[test]
fn verdicts_say_what_they_found() {
    let verdict = genoa().judge();
    let json: serde_json::Value = serde_json::from_str(&verdict.to_json()).unwrap();
    let members: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = vec![
        "v", "verdict", "exit", "simulated", "class", "at", "time_vouched_by", "achieved", "required",
        "covers", "checks", "platform", "measurement", "model", "waivers", "residual_risks", "deciding",
    ];
    let mut members_sorted = members.clone();
    members_sorted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(members_sorted, expected);
    assert_eq!(json["v"], "touchstone/verdict/1");
    assert_eq!(json["verdict"], "holds");
    assert_eq!(json["exit"], 6);
    assert_eq!(json["simulated"], true);
    assert_eq!(json["class"], serde_json::Value::Null);
    assert_eq!(json["at"], "2026-09-21T14:13:20Z");
    assert_eq!(json["time_vouched_by"], "clock");
    assert_eq!(json["measurement"], hex::encode([0x5a; 48]));
    assert_eq!(json["platform"]["product"], "Genoa");
    assert_eq!(json["platform"]["tcb"]["reported"]["snp"], 0x1d);
    assert!(json["residual_risks"][0].as_str().unwrap().starts_with("SIMULATED"));

    // Every check of the policy is in the list, whatever happened before it came to be.
    let ids: Vec<&str> = check_ids(Tee::SevSnp).iter().map(|spec| spec.id).collect();
    let changes: [fn(&mut Scene); 4] = [
        |_| {},
        |s| s.machine.report.version = 9,
        |s| s.machine.report.chip_id[0] ^= 1,
        |s| s.collateral(|_, f| f.chain.clear()),
    ];
    for change in changes {
        let mut scene = genoa();
        change(&mut scene);
        let verdict = scene.judge();
        for id in &ids {
            let checks = verdict.checks.list().iter().filter(|c| c.id == *id);
            assert_eq!(checks.count(), 1, "{id}");
        }
        // What is not authentic is not shown as if it were.
        let authentic = matches!(verdict.exit(), 6);
        assert_eq!(verdict.context.measurement.is_some(), authentic);
        assert_eq!(verdict.context.platform.is_null(), !authentic);
        // A reason stands beside everything that refuses.
        for check in verdict.checks.list().iter().filter(|c| c.refuses()) {
            assert!(!check.reason.is_empty(), "{}", check.id);
        }
    }
}

/// What a verdict found, copied into a policy, is what that policy expects: for every check.
#[test]
fn found_is_what_expect_takes() {
    for honest in [genoa, turin, milan, pinned] {
        let mut scene = honest();
        let verdict = scene.judge();
        for spec in check_ids(Tee::SevSnp) {
            // A VCEK has no provider.
            if spec.id == "snp.vlek.csp" {
                continue;
            }
            // Reports of version 3 have no mitigation vectors.
            if spec.form == Form::Mask && scene.machine.report.version < 5 {
                continue;
            }
            scene.policy = common::as_found(&scene.policy, &verdict, spec.id);
        }
        let copied = scene.judge();
        assert_eq!(copied.exit(), 6, "{}", copied.words());
        let waived = copied.checks.list().iter().filter(|c| c.result == Outcome::Waived).count();
        assert_eq!(waived, if scene.machine.report.version < 5 { 2 } else { 0 });
    }
    let mut scene = vlek();
    let verdict = scene.judge();
    scene.policy = common::as_found(&scene.policy, &verdict, "snp.vlek.csp");
    assert!(scene.policy.contains(&format!("{{ expect = \"{CSP}\" }}")));
    assert_eq!(scene.judge().exit(), 6);
}

#[test]
fn the_template_stands_and_accepts_nothing() {
    let text = template();
    let parsed = Policy::parse(&text).unwrap();
    assert_eq!(parsed.platforms.len(), 1);
    assert_eq!(parsed.answer.require.names(), ["logged", "signed"]);
    let mut scene = genoa();
    scene.policy = text.clone();
    let verdict = scene.judge();
    assert_eq!((verdict.exit(), verdict.deciding()), (4, Some("snp.measurement")));
    // Every check is explained above its line, and names its source.
    for spec in check_ids(Tee::SevSnp) {
        let line = text.lines().position(|l| l.starts_with(&format!("\"{}\" = ", spec.id))).unwrap();
        let above = text.lines().nth(line - 1).unwrap();
        assert!(above.starts_with("# "), "{}", spec.id);
        assert!(text.lines().take(line).any(|l| l.contains("Source:")));
    }
    // Comments that people can read.
    for line in text.lines().filter(|l| l.starts_with('#')) {
        assert!(line.chars().count() <= 105, "{line}");
    }
    // A template for what cannot be judged yet says so when it is read.
    let error = Policy::parse(&policy::template(Tee::Tdx)).unwrap_err();
    assert!(error.to_string().contains("cannot judge TDX"), "{error}");
}

#[test]
fn policies_leave_nothing_out() {
    let text = template();
    let keys: Vec<String> = text
        .lines()
        .filter(|l| !l.starts_with('#') && l.contains(" = "))
        .map(|l| l.split(" = ").next().unwrap().to_owned())
        .collect();
    assert!(keys.len() > 40);
    for key in &keys {
        let without: String = text
            .lines()
            .filter(|l| !l.starts_with(&format!("{key} = ")))
            .map(|l| format!("{l}\n"))
            .collect();
        match Policy::parse(&without) {
            Err(PolicyError::Missing { key: missing }) => {
                assert!(missing.contains(key.trim_matches('"')), "{key}: {missing}");
            }
            other => panic!("{key}: {other:?}"),
        }
        // The same key twice is no TOML.
        let line = text.lines().find(|l| l.starts_with(&format!("{key} = "))).unwrap();
        let twice = text.replacen(line, &format!("{line}\n{line}"), 1);
        assert!(matches!(Policy::parse(&twice), Err(PolicyError::Toml(_))), "{key}");
    }
}

#[test]
fn policies_with_anything_wrong_are_refused() {
    let text = template();
    let parse = |text: &str| Policy::parse(text).map(|_| ());
    let value = |id: &str, value: &str| match Policy::parse(&with(&text, id, value)) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{id} = {value} was accepted"),
    };
    for (id, wrong) in [
        ("snp.policy.debug", "false"),
        ("snp.policy.debug", "{}"),
        ("snp.policy.debug", "{ expect = false, waive = \"both\" }"),
        ("snp.policy.debug", "{ expect = \"false\" }"),
        ("snp.policy.debug", "{ expect = 0 }"),
        ("snp.policy.debug", "{ expect = [false] }"),
        ("snp.policy.debug", "{ expect = false, until = \"2027-01-01\" }"),
        ("snp.policy.debug", "{ waive = \"\" }"),
        ("snp.policy.debug", "{ waive = \"  \" }"),
        ("snp.policy.debug", "{ waive = true }"),
        ("snp.policy.debug", "{ waive = \"r\", until = \"2027-02-30\" }"),
        ("snp.policy.debug", "{ waive = \"r\", until = 2027-01-01 }"),
        ("snp.policy.debug", "{ waive = \"r\", since = \"2027-01-01\" }"),
        ("snp.version", "{ expect = -3 }"),
        ("snp.version", "{ expect = 3.0 }"),
        ("snp.version", "{ expect = [\"3\"] }"),
        ("snp.version", "{ expect = 9007199254740992 }"),
        ("snp.product", "{ expect = \"Rome\" }"),
        ("snp.product", "{ expect = \"Genoa-X\" }"),
        ("snp.product", "{ expect = { Genoa = true } }"),
        ("snp.signing_key", "{ expect = \"none\" }"),
        ("snp.chain.crl", "{ expect = \"missing\" }"),
        ("snp.chain.crl", "{ expect = false }"),
        ("snp.measurement", "{ expect = \"\" }"),
        ("snp.measurement", "{ expect = [\"00\"] }"),
        ("snp.host_data", &format!("{{ expect = \"{}\" }}", "A".repeat(64))),
        ("snp.mitigation.launch", "{ expect = 1 }"),
        ("snp.mitigation.launch", "{ expect = \"1\" }"),
        ("snp.mitigation.launch", "{ expect = \"0x01\" }"),
        ("snp.mitigation.launch", "{ expect = \"0xA\" }"),
        ("snp.mitigation.launch", "{ expect = \"0x10000000000000000\" }"),
        ("snp.tcb.launch", "{ expect = [] }"),
        ("snp.tcb.launch", "{ expect = { Rome = { bootloader = 0, tee = 0, snp = 0, microcode = 0 } } }"),
        ("snp.tcb.launch", "{ expect = { Genoa = { bootloader = 0, tee = 0, snp = 0 } } }"),
        ("snp.tcb.launch", "{ expect = { Genoa = { fmc = 0, bootloader = 0, tee = 0, snp = 0, microcode = 0 } } }"),
        ("snp.tcb.launch", "{ expect = { Turin = { bootloader = 0, tee = 0, snp = 0, microcode = 0 } } }"),
        ("snp.tcb.launch", "{ expect = { Genoa = { bootloader = 0, tee = 0, snp = 0, microcode = 256 } } }"),
        ("require", "[]"),
        ("require", "[\"delivered\"]"),
        ("require", "{ waive = \"none\" }"),
        ("nonce", "{ expect = \"absent\" }"),
        ("nonce", "{ expect = true }"),
        ("models", "{ expect = [\"abc\"] }"),
        ("keyset_span_seconds", "{ expect = \"a week\" }"),
        ("v", "\"touchstone/policy/2\""),
        ("v", "1"),
        ("profile", "\"\""),
        ("tee", "\"sgx\""),
        ("tee", "\"tdx\""),
    ] {
        let error = value(id, wrong);
        assert!(error.contains(id), "{id} = {wrong}: {error}");
    }
    // Keys nobody knows, anywhere.
    for place in ["[answer]\n", "[[platform]]\n", "[platform.checks]\n"] {
        let more = text.replacen(place, &format!("{place}\"snp.policy.debugg\" = {{ expect = false }}\n"), 1);
        assert!(matches!(parse(&more), Err(PolicyError::Unknown { .. })), "{place}");
    }
    let more = format!("strict = true\n{text}");
    assert!(matches!(parse(&more), Err(PolicyError::Unknown { .. })));
    // What nothing may waive is no key.
    for id in ["snp.signature", "snp.chain.root", "evidence.report_data", "snp.chain.revoked"] {
        let more = format!("{text}\n\"{id}\" = {{ waive = \"please\" }}\n");
        assert!(matches!(parse(&more), Err(PolicyError::Unknown { .. })), "{id}");
    }
    let (head, _) = text.split_once("[[platform]]").unwrap();
    assert!(matches!(parse(head), Err(PolicyError::Missing { .. })));
    assert!(matches!(parse(&format!("platform = []\n{head}")), Err(PolicyError::Value { .. })));
    assert!(matches!(parse("not TOML at all ="), Err(PolicyError::Toml(_))));
    assert!(matches!(parse(&" ".repeat(1 << 21)), Err(PolicyError::Toml(_))));
}

/// A bare value is a list of one.
#[test]
fn bare_values_are_lists_of_one() {
    for (id, bare, list) in [
        ("snp.version", "{ expect = 5 }", "{ expect = [5] }"),
        ("snp.product", "{ expect = \"Genoa\" }", "{ expect = [\"Genoa\"] }"),
        ("require", "\"signed\"", "[\"signed\"]"),
    ] {
        let parse = |value| common::policy(&with(&template(), id, value));
        assert_eq!(parse(bare), parse(list), "{id}");
    }
}

/// Evidence of a TEE that this version does not judge is refused, not passed over.
#[test]
fn tdx_is_not_evaluated() {
    let mut evidence = common::evidence(&[0; 48], &[], &[], &[]);
    evidence.tee = Tee::Tdx;
    evidence.collateral = None;
    let policy = common::policy(&template());
    let roots = attestation_verifier::Roots::pinned();
    let verdict =
        attestation_verifier::appraise(&evidence.to_file(), &policy, &roots, None, at(NOW));
    assert_eq!((verdict.exit(), verdict.deciding()), (4, Some("tdx.supported")));
}

/// Without collateral there is something to wait for; malformed files are told apart from it.
#[test]
fn evidence_files() {
    let policy = common::policy(&template());
    let roots = attestation_verifier::Roots::pinned();
    let judge = |file: &[u8]| attestation_verifier::appraise(file, &policy, &roots, None, at(NOW));
    let scene = genoa();
    let mut evidence = common::evidence(&scene.machine.quote([0; 64]), &[], &[], &[]);
    evidence.collateral = None;
    let file = evidence.to_file();
    let verdict = judge(&file);
    assert_eq!((verdict.exit(), verdict.deciding()), (5, Some("snp.collateral")));
    assert_eq!(verdict.conclusion.class, Some(Class::Retry));
    for bad in [&b""[..], b"{}\n", b"nonsense", &file[..file.len() - 1], &[file.clone(), b" ".to_vec()].concat()] {
        let verdict = judge(bad);
        assert_eq!((verdict.exit(), verdict.deciding()), (2, Some("evidence.format")));
    }
}
