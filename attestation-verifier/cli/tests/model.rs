//! `model digest` and `model verify`: the identity of a folder, and what is no model's folder. Signatures by OpenSSF Model
//! Signing's own program are judged in scripts/tests/model_signing_test.py.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{touchstone, touchstone_in};
use touchstone_testkit::fixtures;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A folder that may be spoilt: `tiny/<case>` as `model`.
fn tiny(case: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&fixtures::test_data().join("tiny").join(case), &model);
    (folder, model)
}

fn digest(folder: &Path) -> Value {
    let run = touchstone(&["model", "digest", folder.to_str().unwrap(), "--json"]);
    assert_eq!(run.code, 0, "{}: {}", folder.display(), run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

fn verify(folder: &Path, more: &[&str]) -> support::Run {
    let folder = folder.to_str().unwrap();
    touchstone(&[&["model", "verify", folder, "--json"], more].concat())
}

/// The enclave's own test reads the same table.
#[test]
fn every_folder_has_the_digest_that_the_enclave_gives_it() {
    let data = fixtures::test_data();
    let table = fs::read_to_string(data.join("model-digests.tsv")).unwrap();
    let (mut held, mut refused) = (0, 0);
    for row in table.lines().filter(|row| !row.starts_with('#')) {
        let (folder, expected) = row.split_once('\t').unwrap();
        let folder = data.join(folder);
        if expected == "refused" {
            let run = touchstone(&["model", "digest", folder.to_str().unwrap(), "--json"]);
            run.refused(2, "model.format");
            refused += 1;
        } else {
            assert_eq!(digest(&folder)["model_digest"], expected, "{row}");
            assert_eq!(verify(&folder, &["--digest", expected]).code, 0);
            held += 1;
        }
    }
    assert!(held >= 15 && refused >= 15, "{held} {refused}");
    // Every folder there is stands in the table.
    let folders = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!(
        held + refused,
        folders(&data.join("tiny")) + folders(&data.join("models"))
    );
}

#[test]
fn a_real_model_of_many_megabytes() {
    let test = "a_real_model_of_many_megabytes";
    let models = match std::env::var_os("TOUCHSTONE_MODELS") {
        Some(path) => PathBuf::from(path),
        None => fixtures::workspace_root().join("../shared/models"),
    };
    let entry = models.join("minilm/model.onnx");
    if !entry.exists() {
        fixtures::skipped(test, "no larger models (TOUCHSTONE_MODELS)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::copy(&entry, folder.path().join("model.onnx")).unwrap();
    let found = digest(folder.path());
    let size = fs::metadata(&entry).unwrap().len();
    assert!(size > 1 << 20, "{size}");
    assert_eq!(found["files"][0]["size"], size);
    let hash = touchstone_formats::Digest::of(&fs::read(&entry).unwrap());
    let identity = format!(
        "{{\"entry\":\"model.onnx\",\"files\":[{{\"name\":\"model.onnx\",\"sha256\":\"{hash}\",\"size\":{size}}}],\
         \"scheme\":\"sha256-manifest/1\"}}"
    );
    let expected = touchstone_formats::Digest::of(identity.as_bytes());
    assert_eq!(found["model_digest"], expected.to_string());
}

#[test]
fn what_is_printed_can_be_hashed_by_anyone() {
    let (folder, model) = tiny("external_shared");
    let path = model.to_str().unwrap();
    let expected = digest(&model)["model_digest"].as_str().unwrap().to_owned();
    let identity = touchstone(&["model", "digest", path, "--identity"]);
    let hashed = touchstone_formats::Digest::of(identity.stdout.as_bytes());
    assert_eq!((identity.code, hashed.to_string()), (0, expected.clone()));
    let words = touchstone(&["model", "digest", path]).stdout;
    assert!(words.starts_with(&format!("{expected}\n")), "{words}");
    assert!(words.contains("  data/w.bin\n") && words.contains("  model.onnx\n"));

    // settings.toml changes how the model is run, not which it is.
    fs::write(model.join("settings.toml"), "sessions = 2\n").unwrap();
    let with = touchstone(&["model", "digest", path]);
    assert!(with.stdout.starts_with(&expected) && with.stderr.contains("settings.toml is no part"));
    drop(folder);
}

#[test]
fn what_is_no_models_folder_is_exit_2_and_named() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 9] = [
        ("model.onnx: missing", |model| {
            fs::remove_file(model.join("model.onnx")).unwrap()
        }),
        ("w.bin: missing", |model| {
            fs::remove_file(model.join("w.bin")).unwrap()
        }),
        ("w.bin: a symbolic link", |model| {
            fs::rename(model.join("w.bin"), model.join("../w.bin")).unwrap();
            std::os::unix::fs::symlink("../w.bin", model.join("w.bin")).unwrap();
        }),
        ("README.md: neither", |model| {
            fs::write(model.join("README.md"), "x").unwrap()
        }),
        ("d/x: neither", |model| {
            fs::create_dir(model.join("d")).unwrap();
            fs::write(model.join("d/x"), "x").unwrap();
        }),
        ("nested too deeply", |model| {
            fs::create_dir_all(model.join("1/2/3/4/5/6/7/8/9")).unwrap()
        }),
        ("neither a file nor a folder", |model| {
            let socket = std::os::unix::net::UnixListener::bind(model.join("s")).unwrap();
            drop(socket);
        }),
        ("is outside \"w.bin\" of 255 bytes", |model| {
            let bytes = fs::read(model.join("w.bin")).unwrap();
            fs::write(model.join("w.bin"), &bytes[..255]).unwrap();
        }),
        ("not a folder", |model| {
            fs::rename(model, model.with_file_name("aside")).unwrap();
            std::os::unix::fs::symlink("aside", model).unwrap();
        }),
    ];
    for (says, spoil) in spoils {
        let (_folder, model) = tiny("external");
        let twin = digest(&model)["model_digest"].as_str().unwrap().to_owned();
        spoil(&model);
        let path = model.to_str().unwrap();
        for args in [
            &["model", "digest", path, "--json"][..],
            &["model", "verify", path, "--digest", &twin, "--json"],
        ] {
            let verdict = touchstone(args).refused(2, "model.format");
            let reason = verdict["checks"][0]["reason"].as_str().unwrap();
            assert!(reason.contains(says), "{says}: {reason}");
        }
    }
    // Depth that the enclave takes.
    let (_folder, model) = tiny("external");
    fs::create_dir_all(model.join("1/2/3/4/5/6/7/8")).unwrap();
    digest(&model);
}

#[test]
fn another_model_is_exit_3_and_the_file_is_named() {
    let (folder, model) = tiny("external");
    let expected = digest(&model)["model_digest"].as_str().unwrap().to_owned();
    let path = model.to_str().unwrap();
    let list = folder.path().join("list.json");
    let identity = touchstone(&["model", "digest", path, "--identity"]).stdout;
    fs::write(&list, identity.clone() + "\n").unwrap();
    let list = list.to_str().unwrap();
    let held = verify(&model, &["--digest", &expected, "--files", list]);
    assert_eq!(held.verdict()["model"]["model_digest"], expected);
    let words = touchstone(&["model", "verify", path, "--digest", &expected]).stdout;
    assert_eq!(words, format!("HOLDS, exit 0\nmodel_digest: {expected}\n"));

    let mut bytes = fs::read(model.join("w.bin")).unwrap();
    bytes[0] ^= 1;
    fs::write(model.join("w.bin"), &bytes).unwrap();
    verify(&model, &["--digest", &expected]).refused(3, "model.digest");
    let verdict = verify(&model, &["--files", list]).refused(3, "model.files");
    let reason = verdict["checks"][1]["reason"].as_str().unwrap();
    assert_eq!(reason, "w.bin is another file");
    // The list is believed before the digest: it can say which.
    verify(&model, &["--digest", &expected, "--files", list]).refused(3, "model.files");

    // A list of other names.
    let (_other, renamed) = tiny("external_shared");
    let verdict = verify(&renamed, &["--files", list]).refused(3, "model.files");
    let reason = verdict["checks"][1]["reason"].as_str().unwrap();
    assert!(reason.ends_with("2 more differ"), "{reason}");

    // What is no list, and what is nothing to compare with.
    fs::write(list, identity.replace(':', ": ")).unwrap();
    verify(&model, &["--files", list]).refused(2, "model.files");
    assert_eq!(verify(&model, &[]).code, 1);
    assert_eq!(verify(&model, &["--digest", "00"]).code, 1);
    assert_eq!(verify(&model, &["--oms", list]).code, 1, "a key is missing");
    assert_eq!(
        verify(&folder.path().join("none"), &["--digest", &expected]).code,
        1
    );
}

/// A folder is a release's model if a manifest lists it that counts: the policy's signers stand for it, now.
#[test]
fn a_model_of_a_manifest() {
    let (folder, model) = tiny("external");
    let run = |args: &str| {
        let args: Vec<&str> = args.split_whitespace().collect();
        touchstone_in(folder.path(), &args)
    };
    let ok = |args: &str| {
        let run = run(args);
        assert_eq!(run.code, 0, "{args}: {}", run.stderr);
        run
    };
    for name in ["alice", "bob"] {
        let key = ok(&format!("manifest key -o {name}.pem"));
        fs::write(folder.path().join(format!("{name}.pub.pem")), key.stdout).unwrap();
    }
    let policy = |file: &str, name: &str, threshold: u8| {
        ok(&format!(
            "policy init --manifest-signer alice=alice.pub.pem --manifest-signer bob=bob.pub.pem --threshold {threshold} \
             --manifest-name {name} -o {file}"
        ));
    };
    policy("policy.toml", "enclave", 2);
    let expected = digest(&model)["model_digest"].as_str().unwrap().to_owned();
    let manifest = |file: &str, times: &str, digest: &str, signers: &[&str]| {
        ok(&format!(
            "manifest new --name enclave --version 3 {times} -o {file}.draft"
        ));
        ok(&format!(
            "manifest add-model {file}.draft --name tiny --version 7 --digest {digest}"
        ));
        for name in signers {
            let sign = format!("manifest sign {file}.draft --key {name}.pem -o {file}");
            ok(&format!("{sign} --at 2026-01-01T00:00:00Z"));
        }
    };
    let both = ["alice", "bob"];
    let now = "--issued 2026-01-01T00:00:00Z --not-after 2100-01-01T00:00:00Z";
    manifest("right.jsonl", now, &expected, &both);
    let judge = |manifest: &str, policy: &str| {
        run(&format!(
            "model verify model --manifest {manifest} --policy {policy} --json"
        ))
    };
    let holds = judge("right.jsonl", "policy.toml").verdict();
    let name = serde_json::json!({ "model_digest": expected, "name": "tiny", "version": "7" });
    assert_eq!((&holds["exit"], &holds["model"]), (&0.into(), &name));
    let words = ok("model verify model --manifest right.jsonl --policy policy.toml").stdout;
    assert!(
        words.ends_with(&format!("model_digest: {expected}\nmodel tiny version 7\n")),
        "{words}"
    );

    manifest("other.jsonl", now, &"5e".repeat(32), &both);
    judge("other.jsonl", "policy.toml").refused(3, "model.manifest");
    manifest("alone.jsonl", now, &expected, &["alice"]);
    judge("alone.jsonl", "policy.toml").refused(4, "manifest.threshold");
    let ended = "--issued 2026-01-01T00:00:00Z --not-after 2026-01-02T00:00:00Z";
    manifest("ended.jsonl", ended, &expected, &both);
    judge("ended.jsonl", "policy.toml").refused(5, "manifest.validity");
    judge("right.jsonl.draft", "policy.toml").refused(2, "manifest.format");
    policy("named.toml", "another", 2);
    judge("right.jsonl", "named.toml").refused(4, "manifest.name");
    let text = fs::read_to_string(folder.path().join("policy.toml")).unwrap();
    let newer = text.replace("minimum_version = ", "minimum_version = 4 # ");
    fs::write(folder.path().join("newer.toml"), newer).unwrap();
    judge("right.jsonl", "newer.toml").refused(4, "manifest.version");
    ok("manifest key -o mallory.pem");
    manifest("strange.jsonl", now, &expected, &["mallory"]);
    judge("strange.jsonl", "policy.toml").refused(3, "manifest.signature");

    assert_eq!(run("model verify model --manifest right.jsonl").code, 1);
    assert_eq!(judge("nowhere", "policy.toml").code, 1);
    // Another byte is another model, whatever else is said.
    let mut bytes = fs::read(model.join("w.bin")).unwrap();
    bytes[0] ^= 1;
    fs::write(model.join("w.bin"), &bytes).unwrap();
    judge("right.jsonl", "policy.toml").refused(3, "model.manifest");
}
