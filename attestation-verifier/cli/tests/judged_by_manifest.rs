//! From measuring to verdicts: a policy of `policy init` that leaves to a manifest what may run, the manifest, and the commands
//! that judge by it.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Run, touchstone_in};
use touchstone_formats::{Attachment, Bundle, Digest, Purpose};
use touchstone_testkit::machine::{Machine, TeeMachine as _};
use touchstone_testkit::mint::{Exchange, World};

/// A folder with a kept answer of this very hour, a policy, keys and a manifest.
struct Place {
    folder: tempfile::TempDir,
    world: World,
}

const MANIFEST: &str = "m.jsonl";

impl Place {
    fn new() -> Place {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap().as_secs();
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
            world: World::on(Machine::strict(now), 1, now),
        };
        let minted = place.world.mint(Exchange::json(1)).finish();
        minted.write_to(&place.path("answer")).unwrap();
        place.write("root.pem", minted.root_pem);
        let evidence = place.world.evidence(Purpose::Boot, None, Digest::ZERO);
        place.write("evidence.json", evidence.to_file());
        for name in ["alice", "bob"] {
            let run = place.ok(&["manifest", "key", "-o", &format!("{name}.pem")]);
            place.write(&format!("{name}.pub.pem"), run.stdout);
        }
        place.ok(&[
            "policy",
            "init",
            "--manifest-signer",
            "alice=alice.pub.pem",
            "--manifest-signer",
            "bob=bob.pub.pem",
            "--threshold",
            "2",
            "--manifest-name",
            "touchstone-enclave",
            "-o",
            "policy.toml",
        ]);
        place.manifest(MANIFEST, 18);
        place
    }

    /// Measures, drafts and signs a manifest of this version.
    fn manifest(&self, file: &str, version: u64) {
        let ingredient = |role: &str| json!({ "role": role, "name": format!("{role}.bin"), "sha256": "01".repeat(32), "size": 7 });
        let roles = ["firmware", "kernel", "initrd", "cmdline"].map(ingredient);
        let measurement = hex::encode(self.world.machine.report.measurement);
        let measured = json!({
            "v": "touchstone/measured/1", "tee": "sev-snp", "vmm": "qemu", "os_binding": "launch-digest", "confirmed": null,
            "ingredients": roles,
            "measurements": [{ "snp": { "measurement": measurement, "vcpus": 2, "cpu": "EPYC-Genoa", "guest_features": "0x1" } }],
        });
        self.write("measured.json", measured.to_string());
        let version = version.to_string();
        let end = "2100-01-01T00:00:00Z";
        let _ = fs::remove_file(self.path("draft.json"));
        let new = [
            "manifest",
            "new",
            "--name",
            "touchstone-enclave",
            "--version",
            &version,
        ];
        self.ok(&[&new[..], &["--not-after", end, "-o", "draft.json"]].concat());
        let mut add = vec![
            "manifest",
            "add",
            "draft.json",
            "--release",
            "1.4.2",
            "--platform",
            "qemu",
        ];
        add.extend(["--release-not-after", end]);
        add.extend(["--measured", "measured.json", "--quote-source", "exclusive"]);
        add.extend([
            "--minimum-tcb",
            "Genoa:bootloader=9,tee=0,snp=23,microcode=72",
        ]);
        let sources: Vec<String> = ["firmware", "kernel", "initrd", "cmdline"]
            .iter()
            .flat_map(|role| {
                let origin = if *role == "firmware" {
                    "pinned-binary"
                } else {
                    "rebuilt"
                };
                let pair = [("--origin", origin), ("--source", "here")];
                pair.map(|(flag, word)| [flag.to_owned(), format!("{role}={word}")])
            })
            .flatten()
            .collect();
        add.extend(sources.iter().map(String::as_str));
        self.ok(&add);
        let model = &self.world.models[0];
        let (digest, config) = (
            model.model_digest.to_string(),
            model.config_digest.to_string(),
        );
        let model = [
            "manifest",
            "add-model",
            "draft.json",
            "--name",
            "fraud-score",
            "--version",
            "3",
        ];
        self.ok(&[&model[..], &["--digest", &digest, "--config", &config]].concat());
        for name in ["alice.pem", "bob.pem"] {
            self.ok(&["manifest", "sign", "draft.json", "--key", name, "-o", file]);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    fn run(&self, args: &[&str]) -> Run {
        touchstone_in(self.folder.path(), args)
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}\n{}", run.stderr);
        run
    }

    /// Judges the kept answer.
    fn check(&self, more: &[&str]) -> Run {
        let mut args = vec![
            "check",
            "answer",
            "--policy",
            "policy.toml",
            "--json",
            "--expect-simulated",
        ];
        args.extend(["--trust-simulated-root", "root.pem"]);
        self.run(&[&args[..], more].concat())
    }

    fn version_in(&self, state: &str) -> u64 {
        let text = fs::read(self.path(state)).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        value["manifests"][0]["version"].as_u64().unwrap()
    }
}

fn is_there(folder: &Path) -> bool {
    folder.exists()
}

#[test]
fn a_policy_a_manifest_and_verdicts() {
    let place = Place::new();
    let run = place.check(&["--manifest", MANIFEST]);
    let verdict: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(verdict["release"]["release"], "1.4.2");
    let line = "software: enclave 1.4.2 (signed by 2 of 2), model fraud-score version 3\n\
                pinned as a binary, rebuilt by nobody: firmware (firmware.bin)\n";
    assert!(run.stderr.contains(line), "{}", run.stderr);
    place.check(&[]).refused(5, "manifest.present");

    let appraise = |more: &[&str]| {
        let args = [
            "appraise",
            "evidence.json",
            "--policy",
            "policy.toml",
            "--json",
        ];
        place.run(&[&args[..], &["--trust-simulated-root", "root.pem"], more].concat())
    };
    assert_eq!(appraise(&["--manifest", MANIFEST]).code, 6);
    appraise(&[]).refused(5, "manifest.present");

    let explain = |more: &[&str]| {
        let args = [
            "explain",
            "answer",
            "--policy",
            "policy.toml",
            "--expect-simulated",
        ];
        place.run(&[&args[..], &["--trust-simulated-root", "root.pem"], more].concat())
    };
    let run = explain(&["--manifest", MANIFEST]);
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(
        run.stdout
            .contains("release 1.4.2 on qemu, by the manifest touchstone-enclave"),
        "{}",
        run.stdout
    );
    let run = explain(&[]);
    assert_eq!(run.code, 5);
    assert!(
        run.stdout
            .contains("Give the manifest with --manifest FILE."),
        "{}",
        run.stdout
    );

    let lint = place.ok(&["policy", "lint", "policy.toml"]);
    assert!(
        lint.stdout.contains("whatever alice and bob sign"),
        "{}",
        lint.stdout
    );
    assert!(
        lint.stdout.contains("manifest.minimum_version"),
        "{}",
        lint.stdout
    );
}

#[test]
fn accepted_versions_are_remembered() {
    let place = Place::new();
    place.manifest("older.jsonl", 17);
    let with = |file: &str, more: &[&str]| {
        place.check(
            &[
                &["--manifest", file, "--manifest-state", "state.json"],
                more,
            ]
            .concat(),
        )
    };
    // What is judged as of another time leaves no trace.
    let at = attestation_verifier::dates::rfc3339(place.world.at + 1);
    assert_eq!(with(MANIFEST, &["--at", &at]).code, 0);
    assert!(!is_there(&place.path("state.json")));
    assert_eq!(with("older.jsonl", &[]).code, 0);
    assert_eq!(place.version_in("state.json"), 17);
    assert_eq!(with(MANIFEST, &[]).code, 0);
    assert_eq!(place.version_in("state.json"), 18);
    with("older.jsonl", &[]).refused(4, "manifest.version");
    assert_eq!(place.version_in("state.json"), 18);
    // Both: the newer counts.
    assert_eq!(with("older.jsonl", &["--manifest", MANIFEST]).code, 0);
    // It is remembered too where something else refuses: the manifest itself counts.
    place.manifest("newer.jsonl", 19);
    let nonce = with("newer.jsonl", &["--nonce", "00"]);
    nonce.refused(4, "receipt.nonce");
    assert_eq!(place.version_in("state.json"), 19);
    with(MANIFEST, &[]).refused(4, "manifest.version");
    // One that is not believed changes nothing.
    let signed = fs::read_to_string(place.path("newer.jsonl")).unwrap();
    place.write("one.jsonl", signed.lines().next().unwrap());
    with("one.jsonl", &[]).refused(4, "manifest.threshold");
    assert_eq!(place.version_in("state.json"), 19);
    // A state that is damaged is not an empty one.
    place.write("state.json", "{}\n");
    let run = with("newer.jsonl", &[]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("damaged"), "{}", run.stderr);
}

/// By whatever name: there is one memory, and nobody is shown an older manifest by the other.
#[test]
fn a_state_behind_a_link_is_the_same_state() {
    let place = Place::new();
    place.manifest("older.jsonl", 17);
    let with =
        |file: &str, state: &str| place.check(&["--manifest", file, "--manifest-state", state]);
    assert_eq!(with("older.jsonl", "state.json").code, 0);
    std::os::unix::fs::symlink("state.json", place.path("link.json")).unwrap();
    assert_eq!(with(MANIFEST, "link.json").code, 0);
    assert_eq!(place.version_in("state.json"), 18);
    with("older.jsonl", "state.json").refused(4, "manifest.version");
    with("older.jsonl", "link.json").refused(4, "manifest.version");
    assert!(place.path("link.json").is_symlink());
    // One that leads nowhere is no first use.
    fs::remove_file(place.path("state.json")).unwrap();
    assert_eq!(with(MANIFEST, "link.json").code, 1);
}

#[test]
fn a_policy_that_asks_for_none_takes_none() {
    let place = Place::new();
    let policy = support::policy_for(&place.world, &[]);
    place.write("policy.toml", policy);
    assert_eq!(place.check(&[]).code, 0);
    let run = place.check(&["--manifest", MANIFEST]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("the policy has no [manifest]"),
        "{}",
        run.stderr
    );
    let run = place.check(&["--manifest-state", "state.json"]);
    assert_eq!(run.code, 1);
    assert!(!is_there(&place.path("state.json")));
}

#[test]
fn kept_bundles_are_judged_again_by_a_manifest() {
    let place = Place::new();
    // Everything the folder has, the nonce included, is compared by check alone: an auditor's policy.
    let text = fs::read_to_string(place.path("policy.toml")).unwrap();
    let text = touchstone_testkit::policy::edit(&text, &[("nonce", "{ waive = \"an auditor\" }")]);
    place.write("audit.toml", text);
    place.write("seed", "07".repeat(32));
    let list = json!({ "v": "touchstone/advisories/1", "issued_at": 1_790_000_000, "version": 1, "notices": [] });
    place.write("notices.json", list.to_string());
    let sign = [
        "advisories",
        "sign",
        "notices.json",
        "--key",
        "seed",
        "--name",
        "advisories.example",
        "-o",
        "notices.txt",
    ];
    let signed = place.ok(&sign);
    let key = signed
        .stderr
        .strip_prefix("verifier key: ")
        .unwrap()
        .trim_end();
    let regrade = |more: &[&str]| {
        let args = [
            "regrade",
            "answer",
            "--policy",
            "audit.toml",
            "--advisories",
            "notices.txt",
            "--advisories-key",
            key,
        ];
        let simulated = ["--trust-simulated-root", "root.pem", "--expect-simulated"];
        place.run(&[&args[..], &simulated, more].concat())
    };
    let run = regrade(&["--manifest", MANIFEST, "--manifest-state", "state.json"]);
    assert_eq!(run.code, 0, "{}\n{}", run.stdout, run.stderr);
    assert_eq!(place.version_in("state.json"), 18);
    let run = regrade(&[]);
    assert_eq!(run.code, 5, "{}", run.stdout);
    assert!(run.stdout.contains("manifest.present"), "{}", run.stdout);
}

/// Given by the caller, or attached to the answer: what holds by a manifest holds for nothing but itself.
#[test]
fn nothing_else_holds_by_a_manifest() {
    let place = Place::new();
    let prove = |more: &[&str]| {
        let args = ["prove-refusal", "answer", "--policy", "policy.toml"];
        let simulated = ["--trust-simulated-root", "root.pem"];
        place.run(&[&args[..], &simulated, &["--seed", "5", "--json"], more].concat())
    };
    let proven = |run: &Run| {
        assert_eq!(run.code, 6, "{}", run.stderr);
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(report["proven"], true);
        assert_eq!(
            (&report["count"], &report["refused"]),
            (&json!(100), &json!(100))
        );
        // Judged in 1971 it is the manifest that is not in force yet.
        assert_eq!(report["by_check"]["manifest.validity"], 1, "{}", run.stderr);
    };
    proven(&prove(&["--manifest", MANIFEST]));
    let none = prove(&[]);
    assert_eq!(none.code, 5, "{}", none.stderr);
    assert!(none.stderr.contains("does not hold"), "{}", none.stderr);

    let path = place.path("answer/bundle.json");
    let mut bundle = Bundle::parse(&fs::read(&path).unwrap()).unwrap();
    let manifest = fs::read_to_string(place.path(MANIFEST)).unwrap();
    let attached = json!({ "manifest": manifest, "type": "touchstone/manifest/1" });
    bundle
        .attachments
        .push(Attachment::parse(&attached.to_string()).unwrap());
    fs::write(&path, bundle.to_file()).unwrap();
    proven(&prove(&[]));
    proven(&prove(&["--manifest", MANIFEST]));
}

#[test]
fn init_says_what_it_needs() {
    let place = Place::new();
    let init = |more: &[&str]| {
        let mut args = vec!["policy", "init", "--manifest-signer", "alice=alice.pub.pem"];
        args.extend(more);
        place.run(&args)
    };
    let name = ["--manifest-name", "touchstone-enclave", "--threshold"];
    for tee in ["sev-snp", "tdx"] {
        for profile in ["serve", "audit", "trade"] {
            let run = init(&[&name[..], &["1", "--tee", tee, "--profile", profile]].concat());
            assert_eq!(run.code, 0, "{}", run.stderr);
            place.write("init.toml", &run.stdout);
            assert_eq!(place.run(&["policy", "lint", "init.toml"]).code, 0);
        }
    }
    assert_eq!(init(&[&name[..], &["2"]].concat()).code, 1);
    assert_eq!(init(&[]).code, 1);
    let explore = init(&[&name[..], &["1", "--profile", "explore"]].concat());
    assert_eq!(explore.code, 1);
    assert!(
        explore.stderr.contains("explore accepts any software"),
        "{}",
        explore.stderr
    );
}
