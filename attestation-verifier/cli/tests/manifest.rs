//! `touchstone manifest`: from measurements to a file that two signers stand for, and everything that is refused on the way.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use support::{Run, touchstone_in};
use tempfile::TempDir;

const AT: &str = "2026-11-22T00:00:00Z";

fn hex(byte: &str, count: usize) -> String {
    byte.repeat(count)
}

fn measured() -> Value {
    let ingredient = |role: &str, byte: &str| json!({ "role": role, "name": format!("{role}.bin"), "sha256": hex(byte, 32), "size": 7 });
    json!({ "v": "touchstone/measured/1", "tee": "sev-snp", "vmm": "qemu", "os_binding": "launch-digest",
        "confirmed": null,
        "ingredients": [ingredient("firmware", "01"), ingredient("kernel", "02"), ingredient("initrd", "03"), ingredient("cmdline", "04")],
        "measurements": [{ "snp": { "measurement": hex("a1", 48), "vcpus": 2, "cpu": "EPYC-Genoa", "guest_features": "0x1" } }] })
}

struct Place(TempDir);

impl Place {
    /// A folder with keys of alice and bob, and measurements.
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        for name in ["alice", "bob"] {
            let run = place.run(&["key", "-o", &format!("{name}.pem")]);
            assert_eq!(run.code, 0, "{}", run.stderr);
            place.write(&format!("{name}.pub.pem"), &run.stdout);
        }
        place.write("measured.json", measured().to_string());
        place.write("libonnxruntime.so", "a library");
        place
    }

    /// And a draft with a release and a model.
    fn with_draft() -> Place {
        let place = Place::new();
        assert_eq!(
            place.begin("draft.json", "18", "2027-06-01T00:00:00Z").code,
            0
        );
        let run = place.add(&[]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(
            run.stderr.contains("no hardware has confirmed"),
            "{}",
            run.stderr
        );
        let digest = hex("05", 32);
        let model = [
            "add-model",
            "draft.json",
            "--name",
            "fraud-score",
            "--version",
            "3",
            "--digest",
            &digest,
        ];
        assert_eq!(place.run(&model).code, 0);
        place
    }

    /// And alice's and bob's signatures.
    fn signed() -> Place {
        let place = Place::with_draft();
        for name in ["alice", "bob"] {
            let run = place.sign(&[
                "draft.json",
                "--key",
                &format!("{name}.pem"),
                "-o",
                "m.jsonl",
            ]);
            assert_eq!(run.code, 0, "{}", run.stderr);
        }
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn run(&self, args: &[&str]) -> Run {
        touchstone_in(self.path(), &[&["manifest"], args].concat())
    }

    fn begin(&self, output: &str, version: &str, not_after: &str) -> Run {
        self.run(&[
            "new",
            "--name",
            "touchstone-enclave",
            "--version",
            version,
            "--issued",
            "2026-11-21T00:00:00Z",
            "--not-after",
            not_after,
            "-o",
            output,
        ])
    }

    fn add(&self, more: &[&str]) -> Run {
        let mut args = vec![
            "add",
            "draft.json",
            "--release",
            "1.4.2",
            "--platform",
            "qemu-genoa",
            "--measured",
            "measured.json",
            "--minimum-tcb",
            "Genoa:bootloader=9,tee=0,snp=23,microcode=72",
            "--quote-source",
            "exclusive",
            "--ingredient",
            "onnxruntime=libonnxruntime.so",
            "--origin",
            "onnxruntime=pinned-binary",
            "--source",
            "onnxruntime=vendor's wheel",
        ];
        for said in [
            [
                "--origin",
                "firmware=pinned-binary",
                "--source",
                "firmware=https://example.com/OVMF.fd",
            ],
            [
                "--origin",
                "kernel=rebuilt",
                "--source",
                "kernel=linux.tar.xz",
            ],
            [
                "--origin",
                "initrd=rebuilt",
                "--source",
                "initrd=release 1.4.2",
            ],
            [
                "--origin",
                "cmdline=rebuilt",
                "--source",
                "cmdline=release 1.4.2",
            ],
        ] {
            args.extend(said);
        }
        args.extend(more);
        self.run(&args)
    }

    fn sign(&self, args: &[&str]) -> Run {
        self.run(&[&["sign"], args, &["--at", AT]].concat())
    }

    fn verify(&self, more: &[&str]) -> (Run, Value) {
        let signers = [
            "--signer",
            "alice=alice.pub.pem",
            "--signer",
            "bob=bob.pub.pem",
        ];
        let run = self.run(&[&["verify", "m.jsonl", "--json"], &signers[..], more].concat());
        let value = found(&run, "manifest-verify");
        (run, value)
    }
}

/// The one object on stdout, and that it says the exit code; words on stderr.
#[track_caller]
fn found(run: &Run, kind: &str) -> Value {
    assert_eq!(
        run.stdout.lines().count(),
        1,
        "{}{}",
        run.stdout,
        run.stderr
    );
    let value: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(value["v"], format!("touchstone/{kind}/1"), "{}", run.stderr);
    assert_eq!(value["exit"], run.code);
    assert!(!run.stderr.is_empty());
    value
}

#[test]
fn two_sign_and_everybody_can_verify() {
    let place = Place::signed();
    let (run, value) = place.verify(&["--threshold", "2", "--at", AT]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(value["signed_by"], json!(["alice", "bob"]));
    assert_eq!(
        (&value["manifest"], &value["version"]),
        (&json!("touchstone-enclave"), &json!(18))
    );
    assert_eq!(
        value["releases"][0]["platforms"][0]["ingredients"][4]["role"],
        "onnxruntime"
    );
    assert_eq!(value["releases"][0]["ended"], false);
    assert_eq!(value["models"][0]["name"], "fraud-score");
    let words = place.run(&[
        "verify",
        "m.jsonl",
        "--signer",
        "alice=alice.pub.pem",
        "--threshold",
        "1",
        "--at",
        AT,
    ]);
    assert!(
        words
            .stdout
            .starts_with("AUTHENTIC: touchstone-enclave version 18, signed by 1 of 1 (alice)"),
        "{}",
        words.stdout
    );
    assert!(
        words
            .stdout
            .contains("1 signatures by keys that you did not name say nothing"),
        "{}",
        words.stdout
    );
    // The draft's text is the same every time, and what is signed says the same.
    let diff = place.run(&["diff", "draft.json", "m.jsonl", "--json"]);
    assert_eq!(found(&diff, "manifest-diff")["same"], true);
    assert_eq!(diff.code, 0);
    let key = fs::metadata(place.path().join("alice.pem")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    assert_eq!(
        place.run(&["key", "-o", "alice.pem"]).code,
        1,
        "never over another"
    );
}

#[test]
fn what_does_not_hold_has_its_exit_code() {
    let place = Place::signed();
    let case = |more: &[&str], exit: i32, id: &str| {
        let (run, value) = place.verify(more);
        assert_eq!(
            (run.code, value["deciding"].as_str()),
            (exit, Some(id)),
            "{more:?} {}",
            run.stderr
        );
        assert!(run.stderr.contains(id), "{}", run.stderr);
    };
    let two = ["--threshold", "2"];
    let with = |more: &[&'static str]| [&two[..], more].concat();
    case(
        &with(&["--at", "2027-06-01T00:00:01Z"]),
        5,
        "manifest.validity",
    );
    case(
        &with(&["--at", "2026-11-20T00:00:00Z"]),
        5,
        "manifest.validity",
    );
    case(
        &with(&["--at", AT, "--name", "another"]),
        4,
        "manifest.name",
    );
    let whole = place.text("m.jsonl");
    let first = whole.lines().next().unwrap().to_owned() + "\n";
    place.write("m.jsonl", &first);
    case(&with(&["--at", AT]), 4, "manifest.threshold");
    // A letter in the middle of the signed text, then one in a signature.
    let value: Value = serde_json::from_str(&first).unwrap();
    let spoil = |pointer: &str| {
        let mut value = value.clone();
        let text = value.pointer(pointer).unwrap().as_str().unwrap();
        let at = text.len() / 2;
        let other = if &text[at..=at] == "A" { "B" } else { "A" };
        let text = format!("{}{other}{}", &text[..at], &text[at + 1..]);
        *value.pointer_mut(pointer).unwrap() = json!(text);
        place.write("m.jsonl", value.to_string());
    };
    spoil("/dsseEnvelope/signatures/0/sig");
    case(&["--threshold", "1", "--at", AT], 3, "manifest.signature");
    spoil("/verificationMaterial/publicKey/hint");
    case(&["--threshold", "1", "--at", AT], 2, "manifest.format");
    place.write("m.jsonl", "{}");
    case(&["--threshold", "1", "--at", AT], 2, "manifest.format");
    place.write("m.jsonl", &whole);
    let (run, _) = place.verify(&["--threshold", "2", "--at", AT]);
    assert_eq!(run.code, 0, "the twin: {}", run.stderr);
    for bad in [
        &["verify", "m.jsonl"][..],
        &["verify", "m.jsonl", "--signer", "alice=alice.pub.pem"],
        &[
            "verify",
            "m.jsonl",
            "--signer",
            "alice=alice.pub.pem",
            "--threshold",
            "0",
        ],
        &[
            "verify",
            "m.jsonl",
            "--signer",
            "alice=alice.pub.pem",
            "--threshold",
            "2",
        ],
        &[
            "verify",
            "m.jsonl",
            "--signer",
            "alice=alice.pem",
            "--threshold",
            "1",
        ],
        &[
            "verify",
            "missing",
            "--signer",
            "alice=alice.pub.pem",
            "--threshold",
            "1",
        ],
    ] {
        let run = place.run(&[bad, &["--json"]].concat());
        assert_eq!(run.code, 1, "{bad:?}");
        assert_eq!(run.verdict()["deciding"], "usage", "{bad:?}");
    }
}

#[test]
fn a_policy_says_who_has_to_sign() {
    let place = Place::signed();
    let signer = |name: &str| {
        let key = place.text(&format!("{name}.pub.pem"));
        format!("[[manifest.signer]]\nname = \"{name}\"\nkey = \"\"\"{key}\"\"\"\n")
    };
    let policy = |minimum: u32| {
        let head = format!(
            "[manifest]\nname = \"touchstone-enclave\"\nminimum_version = {minimum}\nthreshold = 2\n"
        );
        place.write("policy.toml", head + &signer("alice") + &signer("bob"));
        place.run(&[
            "verify",
            "m.jsonl",
            "--policy",
            "policy.toml",
            "--at",
            AT,
            "--json",
        ])
    };
    assert_eq!(policy(18).code, 0);
    let run = policy(19);
    assert_eq!(
        found(&run, "manifest-verify")["deciding"],
        "manifest.version"
    );
    assert_eq!(run.code, 4);
    place.write("policy.toml", "");
    let run = place.run(&["verify", "m.jsonl", "--policy", "policy.toml", "--json"]);
    run.refused(1, "policy.file");
}

#[test]
fn an_older_version_is_never_accepted_again() {
    let place = Place::signed();
    let state = ["--threshold", "2", "--at", AT, "--state", "state.json"];
    let (run, _) = place.verify(&state);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("did not exist"), "{}", run.stderr);
    let eighteen = place.text("m.jsonl");
    // What is refused does not raise it, nor does what is expired.
    let after_first = place.text("state.json");
    let next = [
        "new",
        "--from",
        "m.jsonl",
        "--name",
        "touchstone-enclave",
        "--version",
        "19",
        "--issued",
        "2026-11-21T00:00:00Z",
        "--not-after",
        "2027-06-01T00:00:00Z",
        "-o",
        "next.json",
    ];
    let run = place.run(&next);
    assert_eq!(run.code, 0, "{}", run.stderr);
    fs::remove_file(place.path().join("m.jsonl")).unwrap();
    assert_eq!(
        place
            .sign(&["next.json", "--key", "alice.pem", "-o", "m.jsonl"])
            .code,
        0
    );
    assert_eq!(place.verify(&state).0.code, 4, "one signature");
    assert_eq!(place.text("state.json"), after_first);
    assert_eq!(place.sign(&["m.jsonl", "--key", "bob.pem"]).code, 0);
    let late = [
        "--threshold",
        "2",
        "--at",
        "2027-07-01T00:00:00Z",
        "--state",
        "state.json",
    ];
    assert_eq!(place.verify(&late).0.code, 5);
    assert_eq!(place.text("state.json"), after_first);
    let nineteen = place.text("m.jsonl");
    assert_eq!(place.verify(&state).0.code, 0);
    assert_ne!(place.text("state.json"), after_first);
    place.write("m.jsonl", &eighteen);
    let (run, value) = place.verify(&state);
    assert_eq!(
        (run.code, &value["deciding"]),
        (4, &json!("manifest.version"))
    );
    assert_eq!(
        place.verify(&state[..4]).0.code,
        0,
        "without the state nobody knows"
    );
    place.write("m.jsonl", &nineteen);
    assert_eq!(place.verify(&state).0.code, 0);
    // A state that cannot be read is an error, and never "nothing was accepted".
    let whole = place.text("state.json");
    for damaged in ["", "{}", &whole[..whole.len() / 2]] {
        place.write("state.json", damaged);
        let signers = [
            "--signer",
            "alice=alice.pub.pem",
            "--signer",
            "bob=bob.pub.pem",
        ];
        let run = place.run(&[&["verify", "m.jsonl", "--json"], &signers[..], &state].concat());
        assert_eq!(run.code, 1, "{damaged:?}");
        assert!(run.stderr.contains("damaged"), "{}", run.stderr);
        assert_eq!(place.text("state.json"), damaged, "and stays as it is");
    }
    fs::remove_file(place.path().join("state.json")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.path().join("state.json")).unwrap();
    let signers = [
        "--signer",
        "alice=alice.pub.pem",
        "--signer",
        "bob=bob.pub.pem",
    ];
    let run = place.run(&[&["verify", "m.jsonl"], &signers[..], &state].concat());
    assert_eq!(run.code, 1, "a link to nothing is not nothing");
}

#[test]
fn nothing_unfit_is_signed() {
    let place = Place::with_draft();
    assert_eq!(
        place.begin("empty.json", "1", "2027-06-01T00:00:00Z").code,
        0
    );
    let run = place.sign(&[
        "empty.json",
        "--key",
        "alice.pem",
        "-o",
        "e.jsonl",
        "--json",
    ]);
    assert_eq!(run.verdict()["exit"], 1);
    assert!(run.stderr.contains("it is empty"), "{}", run.stderr);
    for (at, says) in [
        ("2027-06-02T00:00:00Z", "it is expired"),
        ("2026-11-20T00:00:00Z", "in the future"),
    ] {
        let run = place.run(&[
            "sign",
            "draft.json",
            "--key",
            "alice.pem",
            "-o",
            "m.jsonl",
            "--at",
            at,
        ]);
        assert_eq!(run.code, 1);
        assert!(run.stderr.contains(says), "{}", run.stderr);
        let run = place.run(&["sign", "draft.json", "--to-sign", "bytes", "--at", at]);
        assert_eq!(run.code, 1, "nor handed out to be signed");
    }
    assert!(!place.path().join("m.jsonl").exists() && !place.path().join("bytes").exists());
    let run = place.sign(&["draft.json", "--key", "alice.pem"]);
    assert!(
        run.code == 1 && run.stderr.contains("with -o"),
        "{}",
        run.stderr
    );
    assert_eq!(
        place
            .sign(&["draft.json", "--key", "alice.pub.pem", "-o", "m.jsonl"])
            .code,
        1
    );
    let run = place.sign(&[
        "draft.json",
        "--key",
        "alice.pem",
        "-o",
        "m.jsonl",
        "--json",
    ]);
    let value = found(&run, "manifest-sign");
    assert_eq!((run.code, &value["signatures"]), (0, &json!(1)));
    // The same key twice, and another manifest into the same file.
    let run = place.sign(&["draft.json", "--key", "alice.pem", "-o", "m.jsonl"]);
    assert!(
        run.code == 1 && run.stderr.contains("already"),
        "{}",
        run.stderr
    );
    let before = place.text("m.jsonl");
    let draft = place.text("draft.json");
    place.write(
        "other.json",
        draft.replace("\"version\": 18", "\"version\": 19"),
    );
    let run = place.sign(&["other.json", "--key", "bob.pem", "-o", "m.jsonl"]);
    assert!(
        run.code == 1 && run.stderr.contains("another manifest"),
        "{}",
        run.stderr
    );
    assert_eq!(place.text("m.jsonl"), before);
    place.write(
        "not.json",
        draft.replace("touchstone/manifest/1", "touchstone/manifest/2"),
    );
    place
        .sign(&["not.json", "--key", "bob.pem", "-o", "n.jsonl", "--json"])
        .refused(2, "manifest.format");
    let add = [
        "add-model",
        "m.jsonl",
        "--name",
        "x",
        "--version",
        "1",
        "--digest",
        &hex("07", 32),
    ];
    let run = place.run(&add);
    assert!(
        run.code == 1 && run.stderr.contains("is signed"),
        "{}",
        run.stderr
    );
}

/// An HSM is played by openssl: it gets bytes, and gives a signature.
#[test]
fn somebody_elses_signer_gets_bytes_and_gives_a_signature() {
    let place = Place::with_draft();
    let run = place.sign(&["draft.json", "--to-sign", "bytes", "--json"]);
    assert_eq!(
        (
            run.code,
            found(&run, "manifest-to-sign")["version"].as_u64()
        ),
        (0, Some(18))
    );
    let bytes = fs::read(place.path().join("bytes")).unwrap();
    assert!(bytes.starts_with(b"DSSEv1 28 application/vnd.in-toto+json "));
    let random = ring::rand::SystemRandom::new();
    let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair =
        ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
    let public = ring::signature::KeyPair::public_key(&pair).as_ref();
    let public = attestation_verifier::manifest::PublicKey::from_point(public).unwrap();
    place.write("hsm.pub.pem", public.to_pem());
    place.write("sig", pair.sign(&random, &bytes).unwrap());
    let take = |signature: &str, key: &str, output: &str| {
        place.sign(&[
            "draft.json",
            "--signature",
            signature,
            "--public-key",
            key,
            "-o",
            output,
        ])
    };
    let run = take("sig", "hsm.pub.pem", "m.jsonl");
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("came as r and s"), "{}", run.stderr);
    let run = place.run(&[
        "verify",
        "m.jsonl",
        "--signer",
        "hsm=hsm.pub.pem",
        "--threshold",
        "1",
        "--at",
        AT,
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    // Verified before it is written.
    let run = take("sig", "alice.pub.pem", "n.jsonl");
    assert!(
        run.code == 1 && run.stderr.contains("no signature of key"),
        "{}",
        run.stderr
    );
    place.write("other", pair.sign(&random, b"something else").unwrap());
    assert_eq!(take("other", "hsm.pub.pem", "n.jsonl").code, 1);
    assert!(!place.path().join("n.jsonl").exists());
    // The other signer's key, as a file.
    let run = place.sign(&["m.jsonl", "--key", "alice.pem"]);
    assert!(
        run.code == 0 && run.stderr.contains("2 signatures"),
        "{}",
        run.stderr
    );
}

#[test]
fn every_ingredient_is_accounted_for() {
    let place = Place::new();
    assert_eq!(
        place.begin("draft.json", "18", "2027-06-01T00:00:00Z").code,
        0
    );
    let empty = place.text("draft.json");
    for (more, says) in [
        (
            &["--origin", "kernel=rebuilt"][..],
            "kernel=… is given twice",
        ),
        (
            &["--origin", "rootfs=rebuilt"],
            "there is no ingredient rootfs",
        ),
        (
            &[
                "--minimum-tcb",
                "Genoa:bootloader=1,tee=1,snp=1,microcode=1",
            ],
            "Genoa is given twice",
        ),
        (
            &["--minimum-tcb", "tcb_evaluation_data_number=1"],
            "--minimum-tcb",
        ),
        (&["--minimum-tcb", "Genoa:bootloader=1"], "missing field"),
        (&["--rtmr0", &hex("00", 48)], "--rtmr0"),
        (&["--ingredient", "enclave=missing"], "ingredient missing"),
        (
            &["--ingredient", "enclave=libonnxruntime.so"],
            "--origin enclave=… is missing",
        ),
    ] {
        let run = place.add(more);
        assert_eq!(run.code, 1, "{more:?}");
        assert!(run.stderr.contains(says), "{more:?} {}", run.stderr);
        assert_eq!(place.text("draft.json"), empty, "nothing is written");
    }
    place.write(
        "measured.json",
        measured().to_string().replace("measured/1", "measured/2"),
    );
    assert_eq!(place.add(&[]).code, 2);
    let mut without = measured();
    without["ingredients"].as_array_mut().unwrap().remove(1);
    place.write("measured.json", without.to_string());
    let run = place.add(&[]);
    assert!(
        run.code == 1 && run.stderr.contains("there is no ingredient kernel"),
        "{}",
        run.stderr
    );
    place.write("measured.json", measured().to_string());
    assert_eq!(place.add(&["--json"]).code, 0);
    let run = place.add(&[]);
    assert!(
        run.code == 1 && run.stderr.contains("a second time"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_lowered_minimum_is_marked_as_weaker() {
    let place = Place::with_draft();
    let draft = place.text("draft.json");
    place.write("lower.json", draft.replace("\"snp\": 23", "\"snp\": 22"));
    let run = place.run(&["diff", "draft.json", "lower.json"]);
    assert_eq!(run.code, 4, "{}", run.stderr);
    assert!(run.stdout.starts_with("DIFFERENT: 1 changes, 1 of them weaker\nWEAKER: changed: release 1.4.2, platform qemu-genoa, minimum_tcb, Genoa, snp\n  - 23\n  + 22\n"), "{}", run.stdout);
    let run = place.run(&["diff", "lower.json", "draft.json", "--json"]);
    let value = found(&run, "manifest-diff");
    assert_eq!(
        (&value["weaker"], &value["changes"][0]["direction"]),
        (&json!(0), &json!("stricter"))
    );
    assert_eq!(place.run(&["diff", "draft.json", "draft.json"]).code, 0);
    place
        .run(&["diff", "draft.json", "measured.json", "--json"])
        .refused(2, "manifest.format");
}

#[test]
fn the_next_version_begins_with_the_one_before() {
    let place = Place::signed();
    let new = |version: &str, more: &[&str]| {
        let args = [
            "new",
            "--from",
            "m.jsonl",
            "--name",
            "touchstone-enclave",
            "--version",
            version,
            "--not-after",
            "2027-06-01T00:00:00Z",
            "-o",
            "next.json",
            "--json",
        ];
        place.run(&[&args[..], more].concat())
    };
    assert_eq!(new("18", &[]).code, 1, "not a higher version");
    assert_eq!(new("19", &["--drop-release", "9"]).code, 1);
    let run = new("19", &["--drop-release", "1.4.2"]);
    let value = found(&run, "manifest-new");
    assert_eq!(
        (&value["releases"], &value["models"]),
        (&json!(0), &json!(1))
    );
    let run = place.run(&["diff", "m.jsonl", "next.json"]);
    assert!(
        run.stdout.contains("removed: release 1.4.2\n"),
        "{}",
        run.stdout
    );
}
