//! Runs the command, and knows the shape of what it prints.
#![allow(dead_code)] // Each test file uses a part.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use touchstone_testkit::mint::{Minted, World};

/// What a run of the command gave.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `touchstone` with these arguments in this folder.
pub fn touchstone_in(folder: &Path, args: &[&str]) -> Run {
    let out = Command::new(env!("CARGO_BIN_EXE_touchstone"))
        .args(args)
        .current_dir(folder)
        .output()
        .expect("the command starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8 output");
    let run = Run {
        code: out.status.code().expect("an exit code, no signal"),
        stdout: text(out.stdout),
        stderr: text(out.stderr),
    };
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    run
}

/// Runs `touchstone` with these arguments.
pub fn touchstone(args: &[&str]) -> Run {
    touchstone_in(Path::new("."), args)
}

impl Run {
    /// The one JSON object on stdout, checked against the shape of verdicts.
    #[track_caller]
    pub fn verdict(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("one JSON object on stdout: {e}\n{}", self.stdout));
        assert_eq!(self.stdout.lines().count(), 1, "one line");
        let mut members: Vec<&str> = value
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        let mut expected = [
            "v",
            "verdict",
            "exit",
            "simulated",
            "class",
            "deciding",
            "at",
            "time_vouched_by",
            "achieved",
            "required",
            "covers",
            "binding",
            "checks",
            "platform",
            "measurement",
            "model",
            "waivers",
            "residual_risks",
        ];
        // There where a policy judges by a manifest.
        members.retain(|member| *member != "release");
        members.sort_unstable();
        expected.sort_unstable();
        assert_eq!(members, expected);
        assert_eq!(value["v"], "touchstone/verdict/1");
        assert_eq!(value["exit"], self.code);
        let word = match self.code {
            0 | 6 => "holds",
            1 => "usage",
            2 => "malformed",
            3 => "not-authentic",
            4 => "refused",
            5 => "collateral",
            other => panic!("exit {other} is not documented"),
        };
        assert_eq!(value["verdict"], word);
        let refuses = !matches!(self.code, 0 | 6);
        assert_eq!(value["deciding"].is_string(), refuses);
        assert_eq!(value["class"].is_string(), refuses && self.code != 1);
        for list in [
            "achieved",
            "required",
            "covers",
            "checks",
            "waivers",
            "residual_risks",
        ] {
            assert!(value[list].is_array(), "{list}");
        }
        for check in value["checks"].as_array().unwrap() {
            assert!(check["id"].is_string());
            let result = check["result"].as_str().unwrap();
            assert!(
                ["pass", "fail", "waived", "not-evaluated"].contains(&result),
                "{result}"
            );
            assert!(check.get("expected").is_some() && check.get("found").is_some());
            assert!(
                result == "pass" || !check["reason"].as_str().unwrap().is_empty(),
                "{check}"
            );
        }
        assert!(!self.stderr.is_empty(), "words on stderr");
        value
    }

    /// The exit code and deciding check of a verdict in JSON.
    #[track_caller]
    pub fn refused(&self, exit: i32, deciding: &str) -> Value {
        let verdict = self.verdict();
        assert_eq!(
            (self.code, verdict["deciding"].as_str()),
            (exit, Some(deciding)),
            "{}",
            self.stderr
        );
        verdict
    }
}

/// The strict template, with lines replaced: (key, value as TOML).
pub fn policy(changes: &[(&str, &str)]) -> String {
    let template = touchstone(&["policy", "init", "--tee", "sev-snp"]).stdout;
    let mut text = template;
    for (key, value) in changes {
        let mut found = 0;
        text = text
            .lines()
            .map(|line| {
                let name = line.split(" = ").next().unwrap_or_default();
                if name.trim_matches('"') != *key {
                    return line.to_owned() + "\n";
                }
                found += 1;
                format!("{name} = {value}\n")
            })
            .collect();
        assert_eq!(found, 1, "one line for {key}");
    }
    text
}

/// The strict template with a minted world's software and models.
pub fn policy_for(world: &World, changes: &[(&str, &str)]) -> String {
    let measurement = format!(
        "{{ expect = \"{}\" }}",
        hex::encode(world.machine.report.measurement)
    );
    let model = format!("{{ expect = \"{}\" }}", world.models[0].model_digest);
    let mut all = vec![
        ("snp.measurement", measurement.as_str()),
        ("models", model.as_str()),
    ];
    all.extend_from_slice(changes);
    policy(&all)
}

/// An FP32 array as NumPy writes it.
pub fn npy(shape: &[u64], values: &[f32]) -> Vec<u8> {
    let shape: Vec<String> = shape.iter().map(u64::to_string).collect();
    let header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}\n",
        shape.join(", ")
    );
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    out
}

/// A folder as `ask` leaves it, a policy and the simulated root, in a temporary place.
pub struct Kept {
    pub folder: tempfile::TempDir,
    pub world: World,
    pub at: String,
}

impl Kept {
    /// `answer/`, `policy.toml`, `root.pem`.
    pub fn new(world: World, minted: &Minted) -> Kept {
        let folder = tempfile::tempdir().unwrap();
        minted.write_to(&folder.path().join("answer")).unwrap();
        std::fs::write(folder.path().join("root.pem"), &minted.root_pem).unwrap();
        std::fs::write(folder.path().join("policy.toml"), policy_for(&world, &[])).unwrap();
        let at = attestation_verifier::dates::rfc3339(minted.at);
        Kept { folder, world, at }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// `check answer …` with the simulated root, at the world's time, as JSON.
    pub fn check(&self, more: &[&str]) -> Run {
        let mut args = vec!["check", "answer", "--json", "--policy", "policy.toml"];
        args.extend(["--trust-simulated-root", "root.pem", "--at", &self.at]);
        args.extend(more);
        touchstone_in(self.folder.path(), &args)
    }
}
