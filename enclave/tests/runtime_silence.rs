//! The library must keep to itself: no telemetry, nothing written, nothing read but what it was given.
//!
//! Each test runs itself in a process of its own, because what is looked at belongs to a process: its
//! environment, its folder, its threads.

mod runtime_common;

use std::{fs, path::Path, process::Command};

use enclave::runtime::{Runtime, RuntimeError};
use runtime_common::*;

/// Set in the process that a test starts of itself.
const CHILD: &str = "TOUCHSTONE_TEST_CHILD";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs the test of this name in a child in `folder`, with `folder/home` as its home.
fn child(test: &str, folder: &Path, variable: Option<(&str, &str)>) {
    fs::create_dir(folder.join("home")).expect("a home");
    fs::create_dir(folder.join("tmp")).expect("a folder for temporary files");
    let library = library()
        .expect("checked before")
        .canonicalize()
        .expect("it exists");
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .current_dir(folder)
        .env(CHILD, "1")
        .env("TOUCHSTONE_ONNXRUNTIME", library)
        .env("HOME", folder.join("home"))
        .env("TMPDIR", folder.join("tmp"))
        .env_remove("XDG_CACHE_HOME")
        .env_remove("ORT_DISABLE_TELEMETRY")
        .envs(variable);
    let output = command.output().expect("the child runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{errors}"
    );
}

#[test]
fn the_library_writes_nothing_and_talks_to_nobody() {
    if is_child() {
        return runs_a_model();
    }
    if runtime("the_library_writes_nothing_and_talks_to_nobody").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    child(
        "the_library_writes_nothing_and_talks_to_nobody",
        folder.path(),
        None,
    );
    // Telemetry makes a device id and a database below the home folder, and a file in the
    // temporary one, as soon as the environment is created.
    for name in ["home", "tmp"] {
        let left: Vec<_> = fs::read_dir(folder.path().join(name))
            .expect("the folder")
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn nothing_is_read_from_the_working_directory() {
    if is_child() {
        return loads_external_data();
    }
    if runtime("nothing_is_read_from_the_working_directory").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    // What the runtime would find, were it left to resolve locations by itself.
    fs::create_dir(folder.path().join("data")).expect("a folder");
    for decoy in ["w.bin", "data/w.bin"] {
        fs::write(folder.path().join(decoy), [0x40; 512]).expect("written");
    }
    child(
        "nothing_is_read_from_the_working_directory",
        folder.path(),
        None,
    );
}

#[test]
fn variables_that_the_library_obeys_are_refused() {
    if is_child() {
        return has_a_variable();
    }
    if runtime("variables_that_the_library_obeys_are_refused").is_none() {
        return;
    }
    let test = "variables_that_the_library_obeys_are_refused";
    for variable in ["ORT_LOAD_CONFIG_FROM_MODEL", "ORT_QMOE_CPU_QNBIT_GEMM"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        child(test, folder.path(), Some((variable, "1")));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let test = "the_library_writes_nothing_and_talks_to_nobody";
    child(test, folder.path(), Some(("ORT_DISABLE_TELEMETRY", "0")));
    let left = fs::read_dir(folder.path().join("home"))
        .expect("the home")
        .count();
    assert_eq!(left, 0, "telemetry stays off whatever the variable said");
}

#[test]
fn a_library_with_another_digest_is_never_loaded() {
    if is_child() {
        return refuses_another_library();
    }
    if runtime("a_library_with_another_digest_is_never_loaded").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    child(
        "a_library_with_another_digest_is_never_loaded",
        folder.path(),
        None,
    );
}

fn runs_a_model() {
    let threads = || fs::read_dir("/proc/self/task").expect("Linux").count();
    let before = threads();
    let runtime = runtime("child").expect("the library is here");
    let models = load(&runtime, &data("models")).expect("the test models");
    let model = models.find("digits_mlp_plain", None).expect("it");
    run(model, &request([fp32("X", &[1, 64], [0.; 64])])).expect("an answer");
    assert_eq!(threads(), before, "one intra-op thread is the caller's own");
    for entry in fs::read_dir("/proc/self/fd").expect("Linux") {
        let target = fs::read_link(entry.expect("an entry").path()).unwrap_or_default();
        assert!(
            !target.to_string_lossy().starts_with("socket:"),
            "{target:?}"
        );
    }
}

fn loads_external_data() {
    let runtime = runtime("child").expect("the library is here");
    assert!(Path::new("w.bin").exists(), "the decoy lies here");
    let cases = [
        "external",
        "external_subgraph",
        "external_attribute",
        "external_function",
    ];
    for (case, factor) in cases
        .map(|case| (case, 2.))
        .into_iter()
        .chain([("external_shared", 12.)])
    {
        let model = tiny(&runtime, case);
        let x = fp32("X", &[1, 64], (0..64).map(|i| i as f32));
        let output = run(&model, &request([x])).expect(case);
        let expected: Vec<f32> = (0..64).map(|i| factor * i as f32).collect();
        assert_eq!(numbers(&output.outputs[0]), expected, "{case}");
    }
    // And a missing file is not looked for here either.
    let root = repository(&[("m/1", "tiny/refused_missing")]);
    let error = load(&runtime, root.path())
        .err()
        .expect("missing")
        .to_string();
    assert!(error.contains("w.bin: missing"), "{error}");
}

fn has_a_variable() {
    let library = library().expect("the library is here");
    let error = Runtime::load(&library, pinned())
        .err()
        .expect("a variable that is obeyed");
    assert!(
        matches!(&error, RuntimeError::Variable(name) if name.starts_with("ORT_")),
        "{error}"
    );
}

fn refuses_another_library() {
    let library = library().expect("the library is here");
    let mut bytes = fs::read(&library).expect("readable");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write("changed.so", &bytes).expect("written");
    let error = Runtime::load(Path::new("changed.so"), pinned())
        .err()
        .expect("one bit changed");
    assert!(
        matches!(error, RuntimeError::Digest { expected, .. } if expected == pinned()),
        "{error}"
    );
    assert!(
        error.to_string().starts_with("changed.so: SHA-256 is "),
        "{error}"
    );

    let error = Runtime::load(Path::new("absent.so"), pinned())
        .err()
        .expect("no file");
    assert!(
        error.to_string().starts_with("absent.so: No such file"),
        "{error}"
    );

    fs::write("text.so", "no library").expect("written");
    let digest = touchstone_formats::digest::Digest::of(b"no library");
    let error = Runtime::load(Path::new("text.so"), digest)
        .err()
        .expect("no library");
    assert!(
        error.to_string().starts_with("text.so cannot be loaded: "),
        "{error}"
    );
    let maps = fs::read_to_string("/proc/self/maps").expect("Linux");
    assert!(
        !maps.contains("changed.so") && !maps.contains("onnxruntime"),
        "nothing was mapped"
    );

    // None of it stands in the way of the right one.
    Runtime::load(&library, pinned()).expect("the twin");
}
