//! Which crate may know which: the walls of ARCHITECTURE.md, held by what the manifests say.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use touchstone_testkit::fixtures::workspace_root;

#[derive(Default)]
struct Crate {
    /// What it is built from: normal and build dependencies, of this workspace.
    linked: BTreeSet<String>,
    /// What only its tests use.
    tests: BTreeSet<String>,
}

#[test]
fn dependencies_run_downward_only() {
    let crates = crates();
    let linked = |name: &str| -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut todo = vec![name];
        while let Some(name) = todo.pop() {
            for dependency in &crates[name].linked {
                if found.insert(dependency.as_str()) {
                    todo.push(dependency);
                }
            }
        }
        found
    };
    let set = |names: &[&'static str]| names.iter().copied().collect::<BTreeSet<&str>>();
    assert_eq!(linked("touchstone-formats"), set(&[]));
    assert_eq!(linked("measurements"), set(&["touchstone-formats"]));
    assert_eq!(linked("touchstone-launch"), set(&[]));
    assert_eq!(linked("touchstone-settings"), set(&[]));
    assert_eq!(linked("touchstone-init"), set(&["touchstone-settings"]));
    assert_eq!(
        linked("touchstone-quote-source"),
        set(&["touchstone-formats"])
    );
    assert_eq!(linked("touchstone-ohttp"), set(&[]));
    assert_eq!(
        linked("enclave"),
        set(&[
            "measurements",
            "touchstone-formats",
            "touchstone-ohttp",
            "touchstone-quote-source",
            "touchstone-settings"
        ])
    );
    assert_eq!(
        linked("host"),
        set(&["touchstone-formats", "touchstone-settings"])
    );
    assert_eq!(linked("attestation-verifier"), set(&["touchstone-formats"]));
    assert_eq!(
        linked("touchstone-client"),
        set(&[
            "attestation-verifier",
            "touchstone-formats",
            "touchstone-ohttp"
        ])
    );
    assert_eq!(
        linked("touchstone-collateral"),
        set(&["attestation-verifier", "touchstone-formats"])
    );
    assert_eq!(
        linked("touchstone-cli"),
        set(&[
            "attestation-verifier",
            "touchstone-client",
            "touchstone-collateral",
            "touchstone-formats",
            "touchstone-launch",
            "touchstone-ohttp",
            "touchstone-quote-source"
        ])
    );
    assert_eq!(
        linked("touchstone-testkit"),
        set(&["touchstone-formats", "touchstone-ohttp"])
    );
    assert_eq!(
        linked("touchstone-simulated-guest"),
        set(&[
            "touchstone-formats",
            "touchstone-ohttp",
            "touchstone-testkit"
        ])
    );

    // The program that looks around in test images is in nothing else.
    for name in crates.keys() {
        assert!(!linked(name).contains("touchstone-image-probe"), "{name}");
    }

    // Not even the enclave's tests and those of what it links: what they are built with must not change what is measured.
    for name in [
        "enclave",
        "touchstone-init",
        "touchstone-formats",
        "touchstone-ohttp",
        "touchstone-quote-source",
        "touchstone-settings",
        "measurements",
    ] {
        for forbidden in [
            "touchstone-testkit",
            "touchstone-simulated-guest",
            "attestation-verifier",
            "touchstone-client",
            "touchstone-collateral",
        ] {
            assert!(
                !crates[name].tests.contains(forbidden),
                "{name} tests with {forbidden}"
            );
        }
    }
}

/// Features are shared by all crates of a workspace: what another verifier turns on would be in every test here, and in no
/// product. Such peers are judges in `crosscheck`, a workspace of its own, or optional (`scripts/bench-tools/verify`).
#[test]
fn tests_run_with_the_features_of_products() {
    for package in packages() {
        for dependency in package["dependencies"].as_array().unwrap() {
            let features = dependency["features"].as_array().unwrap();
            let (name, crate_name) = (&dependency["name"], &package["name"]);
            let ordered = name == "serde_json" && features.iter().any(|f| f == "preserve_order");
            let peer = name == "dcap-qvl" && dependency["optional"] == false;
            assert!(
                !ordered && !peer,
                "{crate_name} turns on preserve_order of serde_json, by {name}"
            );
        }
    }
}

/// The packages of the workspace. `--no-deps` reads manifests alone, so this needs no network.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
            "--manifest-path",
        ])
        .arg(workspace_root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// The crates of the workspace by name.
fn crates() -> BTreeMap<String, Crate> {
    let mut crates = BTreeMap::new();
    for package in packages() {
        let mut entry = Crate::default();
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["path"].is_null() {
                continue;
            }
            let name = dependency["name"].as_str().unwrap().to_owned();
            match dependency["kind"].as_str() {
                Some("dev") => entry.tests.insert(name),
                _ => entry.linked.insert(name),
            };
        }
        crates.insert(package["name"].as_str().unwrap().to_owned(), entry);
    }
    assert!(crates.len() >= 7, "{:?}", crates.keys());
    crates
}

/// SPECIFICATION.md cites tests as `file: name`; a promise whose test is gone is no promise.
#[test]
fn every_promise_names_tests_that_exist() {
    let root = workspace_root();
    let page = std::fs::read_to_string(root.join("SPECIFICATION.md")).unwrap();
    let mut cited = 0;
    let mut promises = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [number, _, tests] = cells.as_slice() else {
            panic!("a row has three cells: {row}");
        };
        if ["| no.", "| ---"].contains(number) {
            continue;
        }
        assert!(promises.insert(number.to_owned()), "{number} stands twice");
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{number} has no test");
        for test in tests {
            let (file, name) = test.split_once(": ").expect("`file: name`");
            let text = std::fs::read_to_string(root.join(file))
                .unwrap_or_else(|error| panic!("{number} cites {file}: {error}"));
            let defined = ["fn ", "mod ", "def ", "```"]
                .iter()
                .any(|word| text.contains(&format!("{word}{name}")));
            assert!(defined, "{number} cites {test}, which does not exist");
            cited += 1;
        }
    }
    assert!(
        cited > 50,
        "only {cited} tests cited: has the page's form changed?"
    );
}
