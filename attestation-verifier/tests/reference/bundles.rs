//! Bundles: every check of a manifest, on both kinds of platform.

use attestation_verifier::dates::rfc3339;
use attestation_verifier::verdict::Outcome;
use attestation_verifier::{At, Verdict};
use serde_json::{Value, json};
use touchstone_testkit::machine::{Machine, TdxMachine};
use touchstone_testkit::mint::World;

use crate::support::{Listed, Scene, release};

/// A change to what holds that captures nothing.
type Lie<M> = fn(&mut Scene<M>);

/// Refusals: what it is, exit code, deciding check.
fn lies<M: Listed>() -> Vec<(&'static str, u8, &'static str, Lie<M>)> {
    let listed = M::KEYS[0];
    vec![
        ("no manifest", 5, "manifest.present", |s| s.given = false),
        ("no manifest at all", 2, "manifest.format", |s| {
            s.given = false;
            s.files = vec![b"{}".to_vec()];
        }),
        ("a changed byte", 3, "manifest.signature", |s| {
            let text = String::from_utf8(s.manifest()).unwrap();
            // Another signature of the right form.
            let other = Scene::<M>::new().with(|s| s.predicate["version"] = json!(19));
            let other = String::from_utf8(other.manifest()).unwrap();
            let of = |text: &str| {
                let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
                line["dsseEnvelope"]["signatures"][0]["sig"].to_string()
            };
            s.files = vec![text.replacen(&of(&text), &of(&other), 1).into_bytes()];
            s.given = false;
        }),
        ("signed by strangers", 3, "manifest.signature", |s| {
            s.signed_by = vec![3]
        }),
        ("signed by one of two", 4, "manifest.threshold", |s| {
            s.signed_by = vec![1]
        }),
        ("one of two, and a stranger", 4, "manifest.threshold", |s| {
            s.signed_by = vec![1, 3]
        }),
        ("one of two, twice", 4, "manifest.threshold", |s| {
            s.signed_by = vec![1, 1]
        }),
        ("another name", 4, "manifest.name", |s| {
            s.predicate["name"] = json!("touchstone-toy")
        }),
        ("below minimum_version", 4, "manifest.version", |s| {
            s.minimum_version = 19
        }),
        ("below what was accepted", 4, "manifest.version", |s| {
            let mut newer = s.predicate.clone();
            newer["version"] = json!(19);
            s.known = s.accepted(&newer);
        }),
        ("another of the same version", 4, "manifest.version", |s| {
            let mut other = s.predicate.clone();
            other["not_after"] = json!("2027-06-02T00:00:00Z");
            s.known = s.accepted(&other);
        }),
        ("two of one version", 4, "manifest.version", |s| {
            let mut other = s.predicate.clone();
            other["not_after"] = json!("2027-06-02T00:00:00Z");
            s.files = vec![s.signed(&other)];
        }),
        ("ended", 5, "manifest.validity", |s| {
            s.predicate["not_after"] = json!("2026-09-02T00:00:00Z")
        }),
        ("of the future", 5, "manifest.validity", |s| {
            s.predicate["issued"] = json!("2026-12-01T00:00:00Z")
        }),
        ("a release that ended", 5, "manifest.validity", |s| {
            s.predicate["releases"][0]["not_after"] = json!("2026-09-02T00:00:00Z")
        }),
        ("binds nothing", 4, "manifest.os_binding", |s| {
            s.platform()["os_binding"] = json!("none")
        }),
        ("binds by a virtual TPM", 4, "manifest.os_binding", |s| {
            s.platform()["os_binding"] = json!("vtpm-pcr")
        }),
        ("a shared agent", 4, "manifest.quote_source", |s| {
            s.platform()["quote_source"] = json!("shared-agent")
        }),
        ("not listed", 4, listed, |s| {
            s.platform()["measurements"] = json!([M::other(0x42)])
        }),
        ("no release", 4, listed, |s| {
            s.predicate["releases"] = json!([])
        }),
        ("a model that is not listed", 4, "receipt.model", |s| {
            s.predicate["models"].as_array_mut().unwrap().remove(0);
        }),
        ("another model's configuration", 4, "receipt.config", |s| {
            let models = s.predicate["models"].as_array_mut().unwrap();
            let other = models[1]["config_digests"].clone();
            models[1]["config_digests"] = models[0]["config_digests"].clone();
            models[0]["config_digests"] = other;
        }),
        ("a model without configurations", 4, "receipt.config", |s| {
            s.predicate["models"][0]["config_digests"] = json!([])
        }),
    ]
}

fn all_refused<M: Listed>() {
    let scene = Scene::<M>::new();
    scene.holds();
    for (name, exit, deciding, lie) in lies::<M>() {
        let verdict = scene.clone().with(lie).judge();
        let found = (verdict.exit(), verdict.deciding());
        assert_eq!(found, (exit, Some(deciding)), "{name}\n{}", verdict.words());
        assert!(!verdict.words().contains("software: "), "{name}");
    }
}

#[test]
fn lies_about_snp() {
    all_refused::<Machine>();
}

#[test]
fn lies_about_tdx() {
    all_refused::<TdxMachine>();
}

/// Where a lie ends, the truth begins: the same changes, as far as they may go.
fn edges<M: Listed>() {
    let honest = || Scene::<M>::new();
    for signed_by in [vec![1, 2], vec![2, 0, 3], vec![0, 1, 2], vec![0, 0, 1]] {
        honest().with(|s| s.signed_by = signed_by).holds();
    }
    honest()
        .with(|s| s.threshold = 3)
        .refused(4, "manifest.threshold");
    honest().with(|s| s.minimum_version = 18).holds();
    honest()
        .with(|s| s.known = s.accepted(&s.predicate))
        .holds();
    // The last second, of the manifest and of the release.
    for place in ["/not_after", "/releases/0/not_after"] {
        let until = |end: u64| {
            let end = json!(rfc3339(end));
            honest().with(|s| *s.predicate.pointer_mut(place).unwrap() = end)
        };
        until(World::AT).holds();
        until(World::AT - 1).refused(5, "manifest.validity");
    }
    // Clocks differ.
    for (ahead, holds) in [(300, true), (301, false)] {
        let issued = rfc3339(World::AT + ahead);
        let scene = honest().with(|s| s.predicate["issued"] = json!(issued));
        match holds {
            true => drop(scene.holds()),
            false => drop(scene.refused(5, "manifest.validity")),
        }
    }
}

#[test]
fn edges_of_snp() {
    edges::<Machine>();
}

#[test]
fn edges_of_tdx() {
    edges::<TdxMachine>();
}

/// Two releases of one manifest, and their machines.
fn overlap<M: Listed>(changed: &str, other: impl FnOnce(&mut M)) {
    let old = Scene::<M>::new();
    let mut new = old.clone();
    other(&mut new.world.machine);
    assert_ne!(
        old.world.machine.measurement(),
        new.world.machine.measurement()
    );
    let both = json!([
        release::<M>("1.4.2", old.world.machine.measurement()),
        release::<M>("1.5.0", new.world.machine.measurement()),
    ]);
    for (scene, name) in [(&old, "1.4.2"), (&new, "1.5.0")] {
        let scene = scene
            .clone()
            .with(|s| s.predicate["releases"] = both.clone());
        let verdict = scene.holds();
        assert_eq!(verdict.context.release["release"], name);
        let words = verdict.words();
        let line = format!(
            "software: enclave {name} (signed by 2 of 3), model digits-model version 1\n\
             pinned as a binary, rebuilt by nobody: onnxruntime (onnxruntime.bin)\n"
        );
        assert!(words.contains(&line), "{words}");
    }
    // The next version drops the older release.
    let next = |s: &mut Scene<M>| {
        s.predicate["version"] = json!(19);
        s.predicate["releases"] = json!([both[1]]);
    };
    let verdict = old.clone().with(next).refused(4, changed);
    let check = verdict.checks.find(changed).unwrap();
    assert_eq!(
        check.reason,
        "not in the manifest touchstone-enclave, version 19, which lists 1.5.0"
    );
    assert_eq!(check.expected, "manifest");
    new.with(next).holds();
}

#[test]
fn releases_overlap() {
    overlap::<Machine>("snp.measurement", |machine| {
        machine.report.measurement[47] ^= 1
    });
    overlap::<TdxMachine>("tdx.rtmr2", |machine| {
        machine.measure(2, 0xd, b"another command line")
    });
}

/// The whole tuple is one entry's, and a changed byte of any ingredient (which is another digest) is none's.
#[test]
fn a_tdx_measurement_is_matched_whole() {
    let scene = Scene::<TdxMachine>::new();
    let own = scene.world.machine.measurement();
    let other = TdxMachine::other(0x42);
    scene.holds();
    for member in ["mrtd", "rtmr0", "rtmr1", "rtmr2"] {
        let (mut a, mut b) = (own.clone(), other.clone());
        a["tdx"][member] = other["tdx"][member].clone();
        b["tdx"][member] = own["tdx"][member].clone();
        // Of two releases, of two platforms of one, and of two entries of one platform: each value is listed.
        let releases = json!([
            release::<TdxMachine>("1", a.clone()),
            release::<TdxMachine>("2", b.clone())
        ]);
        let mut platforms = release::<TdxMachine>("1", a.clone());
        let mut second = release::<TdxMachine>("2", b.clone())["platforms"][0].clone();
        second["name"] = json!("qemu-2");
        platforms["platforms"].as_array_mut().unwrap().push(second);
        let mut entries = release::<TdxMachine>("1", a.clone());
        entries["platforms"][0]["measurements"] = json!([a, b]);
        for releases in [releases, json!([platforms]), json!([entries])] {
            let verdict = scene
                .clone()
                .with(|s| s.predicate["releases"] = releases)
                .refused(4, "manifest.platform");
            for key in TdxMachine::KEYS {
                assert_eq!(verdict.checks.find(key).unwrap().result, Outcome::Pass);
            }
            assert_eq!(verdict.context.release["release"], Value::Null);
        }
        // One value alone that is not listed refuses by its own check.
        let key = format!("tdx.{member}");
        let verdict = scene
            .clone()
            .with(|s| {
                let mut a = own.clone();
                a["tdx"][member] = other["tdx"][member].clone();
                s.predicate["releases"] = json!([release::<TdxMachine>("1", a)]);
            })
            .refused(4, &key);
        let check = verdict.checks.find("manifest.platform").unwrap();
        assert_eq!(check.result, Outcome::Fail);
    }
}

#[test]
fn any_byte_of_a_launch_digest_counts() {
    let scene = Scene::<Machine>::new();
    scene.holds();
    for byte in [0, 23, 47] {
        let mut lie = scene.clone();
        lie.world.machine.report.measurement[byte] ^= 0x10;
        lie.refused(4, "snp.measurement");
    }
}

/// A TD of which the firmware alone is known.
#[test]
fn firmware_alone_shows_no_software() {
    let firmware = |s: &mut Scene<TdxMachine>, binding: &str| {
        let own = s.world.machine.measurement();
        let mrtd = own["tdx"]["mrtd"].clone();
        s.platform()["os_binding"] = json!(binding);
        s.platform()["measurements"] = json!([
            { "tdx": { "mrtd": mrtd, "rtmr0": [], "page_add_order": "two-pass" } }
        ]);
    };
    let scene = Scene::<TdxMachine>::new();
    scene.holds();
    let none = scene.clone().with(|s| firmware(s, "none"));
    none.refused(4, "manifest.os_binding");
    // Such an entry does not help one that is not listed.
    let beside = none.with(|s| s.world.machine.report.report.mr_td[0] ^= 1);
    beside.refused(4, "tdx.mrtd");
    // And a manifest that claims more than it lists is none.
    let lie = scene.with(|s| firmware(s, "rtmr"));
    lie.refused(2, "manifest.format");
}

/// An agent that quotes for others too will do where the policy pins the application by the event log.
#[test]
fn a_shared_agent_needs_a_pinned_application() {
    let mut scene = Scene::<TdxMachine>::new();
    scene.platform()["quote_source"] = json!("shared-agent");
    scene.world.machine.measure(3, 0x6, b"application");
    let event = scene.world.machine.events.events.last().unwrap().digest;
    let pinned = format!("{{ expect = \"sha384:{}\" }}", hex::encode(event));
    let pins = |value: String| {
        scene
            .clone()
            .with(|s| s.changes.push(("tdx.rtmr3.events", value)))
    };
    let verdict = pins(pinned).holds();
    let check = verdict.checks.find("manifest.quote_source").unwrap();
    assert!(
        check.reason.contains("tdx.rtmr3.events"),
        "{}",
        check.reason
    );
    let waived = "{ waive = \"any application\" }".to_owned();
    let verdict = pins(waived.clone()).refused(4, "manifest.quote_source");
    let refusing = verdict.checks.iter().filter(|c| c.refuses());
    let others = refusing.filter(|c| c.id != "manifest.quote_source");
    assert!(others.clone().all(|c| c.id.starts_with("guarantees.")));
    // The same machine, quoting for nobody else.
    pins(waived)
        .with(|s| s.platform()["quote_source"] = json!("exclusive"))
        .holds();
}

#[test]
fn the_least_tcb_is_of_reported_committed_and_launch_tcb() {
    // The policy's own floors are lower.
    let scene = Scene::<Machine>::new();
    scene.holds();
    fn lower(tcb: &mut [u8; 8]) {
        tcb[7] -= 1;
    }
    let committed = |s: &mut Scene<Machine>| {
        lower(&mut s.world.machine.report.committed_tcb);
        // Else provisional firmware would be the policy's to refuse.
        s.world.machine.report.current_tcb = s.world.machine.report.committed_tcb;
    };
    let reported = |s: &mut Scene<Machine>| {
        lower(&mut s.world.machine.report.reported_tcb);
        s.world.machine.reissue();
    };
    let launch = |s: &mut Scene<Machine>| lower(&mut s.world.machine.report.launch_tcb);
    let all: [(&str, Lie<Machine>); 3] = [
        ("committed", committed),
        ("reported", reported),
        ("launch", launch),
    ];
    for (name, change) in all {
        let verdict = scene.clone().with(change).refused(4, "manifest.tcb");
        let check = verdict.checks.find("manifest.tcb").unwrap();
        let reason =
            format!("below what the manifest demands: {name} TCB: Genoa: microcode 89 is below 90");
        assert_eq!(check.reason, reason);
        // The same machine under a manifest that demands no more.
        let lowered = |s: &mut Scene<Machine>| {
            change(s);
            for release in [0, 1] {
                let least = &mut s.predicate["releases"][release]["platforms"][0]["minimum_tcb"];
                least["Genoa"]["microcode"] = json!(89);
            }
        };
        scene.clone().with(lowered).holds();
    }
    // A product that the manifest has no floor for is not accepted.
    let other = |s: &mut Scene<Machine>| {
        let mut floor = Machine::minimum()["Genoa"].clone();
        floor["fmc"] = json!(0);
        s.platform()["minimum_tcb"] = json!({ "Turin": floor });
    };
    scene.with(other).refused(4, "manifest.tcb");
}

#[test]
fn the_least_evaluation_of_tdx() {
    let scene = Scene::<TdxMachine>::new();
    let at_least = |n: u64| {
        let least = json!({ "tcb_evaluation_data_number": n });
        scene.clone().with(|s| s.platform()["minimum_tcb"] = least)
    };
    let own = u64::from(scene.world.machine.tcb_info.tcb_evaluation_data_number);
    at_least(own).holds();
    at_least(own + 1).refused(4, "manifest.tcb");
}

/// One measurement at two places: evidence satisfies the manifest if it satisfies one of them whole.
fn two_places<M: Listed>() {
    let scene = Scene::<M>::new();
    let twice = |binding: &'static str, not_after: &'static str| {
        scene.clone().with(|s| {
            let mut first = s.predicate["releases"][0].clone();
            first["release"] = json!("1.4.0");
            first["platforms"][0]["os_binding"] = json!(binding);
            first["not_after"] = json!(not_after);
            s.predicate["releases"]
                .as_array_mut()
                .unwrap()
                .insert(0, first);
        })
    };
    let verdict = twice("none", "2027-01-01T00:00:00Z").holds();
    assert_eq!(verdict.context.release["release"], "1.4.2");
    let verdict = twice(M::BINDING, "2026-09-02T00:00:00Z").holds();
    assert_eq!(verdict.context.release["release"], "1.4.2");
}

#[test]
fn one_measurement_at_two_places() {
    two_places::<Machine>();
    two_places::<TdxMachine>();
}

/// `os_binding = none` says of no software that it runs, in words.
#[test]
fn without_a_binding_nothing_is_provable() {
    let none = Scene::<Machine>::new().with(|s| s.platform()["os_binding"] = json!("none"));
    let words = none.refused(4, "manifest.os_binding").words();
    assert!(
        words.contains("no claim about the software that runs is provable"),
        "{words}"
    );
}

fn json_of(verdict: &Verdict) -> Value {
    serde_json::from_str(&verdict.to_json()).unwrap()
}

#[test]
fn a_verdict_says_which_release_it_is() {
    let scene = Scene::<Machine>::new();
    let verdict = json_of(&scene.holds());
    let release = &verdict["release"];
    let expected = json!({
        "manifest": "touchstone-enclave", "version": 18, "release": "1.4.2", "platform": "qemu",
        "os_binding": "launch-digest", "signed_by": ["alice", "bob"], "threshold": 2, "signers": 3,
        "not_after": "2027-01-01T00:00:00Z",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&release[name], value, "{name}");
    }
    assert_eq!(release["ingredients"][0]["sha256"], "01".repeat(32));
    assert_eq!(release["ingredients"][4]["origin"], "pinned-binary");
    assert_eq!(verdict["model"]["name"], "digits-model");
    assert_eq!(verdict["model"]["version"], "1");
    // The earlier end counts.
    let end = "2026-12-24T00:00:00Z";
    let scene = scene.with(|s| s.predicate["not_after"] = json!(end));
    assert_eq!(json_of(&scene.holds())["release"]["not_after"], end);
}

/// Of several files the highest version that counts is used; what does not count, changes nothing.
#[test]
fn the_highest_version_that_counts_is_used() {
    let scene = Scene::<Machine>::new();
    let version = |s: &Scene<Machine>, n: u64| {
        let mut other = s.predicate.clone();
        other["version"] = json!(n);
        other
    };
    let used = |s: &Scene<Machine>| s.holds().context.release["version"].clone();
    let mut several = scene.clone();
    several.files = vec![
        several.signed(&version(&several, 20)),
        b"junk".to_vec(),
        several.signed(&version(&several, 19)),
        // Newer still, and signed by one.
        scene
            .clone()
            .with(|s| s.signed_by = vec![0])
            .signed(&version(&scene, 21)),
    ];
    assert_eq!(used(&several), 20);
    several.files.reverse();
    assert_eq!(used(&several), 20);
    // It is not passed over for a reason of its own: it replaced the others.
    let mut ended = version(&several, 22);
    ended["not_after"] = json!("2026-09-02T00:00:00Z");
    several.files.push(several.signed(&ended));
    several.refused(5, "manifest.validity");
}

/// What was accepted once is not told from what is judged by another manifest.
#[test]
fn what_is_remembered_is_of_one_manifest() {
    let scene = Scene::<Machine>::new();
    let minted = scene.mint().finish();
    let verifier = scene.verifier();
    let judge = || {
        verifier.check(
            &minted.file(),
            &crate::support::comparison(&minted),
            scene.at,
        )
    };
    for _ in 0..3 {
        assert_eq!(judge().exit(), 0);
    }
    assert!(verifier.work().judgements_remembered > 0);
    let dropped = scene.clone().with(|s| {
        s.predicate["version"] = json!(19);
        s.predicate["releases"].as_array_mut().unwrap().remove(0);
    });
    verifier.replace_manifests(&dropped.manifests());
    for _ in 0..3 {
        assert_eq!(judge().deciding(), Some("snp.measurement"));
    }
    verifier.replace_manifests(&Default::default());
    assert_eq!(judge().deciding(), Some("manifest.present"));
    // By other signers the release is signed by others.
    verifier.replace_manifests(&scene.clone().with(|s| s.signed_by = vec![1, 2]).manifests());
    for _ in 0..3 {
        let verdict = judge();
        assert_eq!(verdict.exit(), 0);
        assert_eq!(
            verdict.context.release["signed_by"],
            json!(["bob", "carol"])
        );
    }
}

/// At another time the manifest counts as it did then.
#[test]
fn time_is_the_time_of_judgement() {
    let scene = Scene::<Machine>::new().with(|s| {
        s.predicate["issued"] = json!("2026-09-21T14:30:00Z");
        s.at = At {
            time: World::AT,
            asserted: true,
        };
    });
    // World::AT is 14:13:20 of that day.
    scene.refused(5, "manifest.validity");
    scene.with(|s| s.at.time += 1800).holds();
}
