//! Runs `doctor`, and knows the shape of what it prints.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use touchstone_formats::text::printable;
use touchstone_testkit::machine::TeeMachine;
use touchstone_testkit::platform::{PlatformConfig, PlatformHandle, SimulatedPlatform};

use crate::support::touchstone_in;

/// 2026-09-21, when simulated machines are made and judged.
pub const NOW: u64 = 1_790_000_000;
pub const AT: &str = "2026-09-21T14:13:20Z";

/// What a run gave.
pub struct Diagnosis {
    pub json: Value,
    pub words: String,
}

/// Runs `doctor --json` in a folder; what it prints has the shape that docs/cli.md says, and words and JSON agree.
#[track_caller]
pub fn doctor(folder: &Path, args: &[&str]) -> Diagnosis {
    let all = [&["doctor", "--json", "--at", AT], args].concat();
    let run = touchstone_in(folder, &all);
    assert_eq!(
        run.stdout.lines().count(),
        1,
        "{}{}",
        run.stdout,
        run.stderr
    );
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    let diagnosis = Diagnosis {
        json,
        words: run.stderr,
    };
    diagnosis.has_its_shape(run.code);
    diagnosis
}

/// White space is the words' own.
pub fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Diagnosis {
    #[track_caller]
    fn has_its_shape(&self, code: i32) {
        let json = &self.json;
        let mut members: Vec<&str> = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        members.sort_unstable();
        let expected = [
            "at",
            "checks",
            "deciding",
            "exit",
            "guarantees",
            "machine",
            "nonce",
            "notes",
            "quote",
            "report_data",
            "simulated",
            "source",
            "sources",
            "v",
            "verdict",
            "wrote",
        ];
        assert_eq!(members, expected);
        assert_eq!(json["v"], "touchstone/doctor/1");
        assert_eq!(json["exit"], code, "{}", self.words);
        let word = match code {
            0 | 6 => "ready",
            2 => "malformed",
            3 => "not-authentic",
            4 => "refused",
            5 => "collateral",
            7 => "no-quote",
            other => panic!("exit {other} is not documented"),
        };
        assert_eq!(json["verdict"], word);
        assert_eq!(json["deciding"].is_null(), matches!(code, 0 | 6));

        // Words say what JSON says.
        let words = plain(&self.words);
        let says = |text: &str| {
            let text = printable(&plain(text));
            assert!(words.contains(&text), "{text}\nin {}", self.words);
        };
        says(&format!("exit {code}"));
        for source in json["sources"].as_array().unwrap() {
            says(source["source"].as_str().unwrap());
            says(source["path"].as_str().unwrap());
            assert_eq!(source["state"] == "quoted", source["advice"].is_null());
            if let Some(advice) = source["advice"].as_str() {
                says(advice);
            }
        }
        for check in json["checks"].as_array().unwrap() {
            says(check["id"].as_str().unwrap());
            let failed = check["refuses"] == true && check["result"] == "fail";
            let advice = check["advice"].as_str();
            assert_eq!(advice.is_some(), failed, "{check}");
            if failed {
                says(advice.unwrap());
                says(check["reason"].as_str().unwrap());
            }
        }
        for fact in json["machine"].as_array().unwrap() {
            says(fact["name"].as_str().unwrap());
        }
        for guarantee in json["guarantees"].as_array().unwrap() {
            says(guarantee["why"].as_str().unwrap());
        }
        for list in ["not_applicable", "residual_risks"] {
            for entry in json["quote"][list].as_array().into_iter().flatten() {
                says(entry["why"].as_str().or(entry.as_str()).unwrap());
            }
        }
        // Nothing in either controls a terminal: neither is one here.
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!self.words.contains(control), "{:?}", self.words);
    }

    pub fn exit(&self) -> i64 {
        self.json["exit"].as_i64().unwrap()
    }

    pub fn deciding(&self) -> Option<&str> {
        self.json["deciding"].as_str()
    }

    /// Ids of checks that failed, and whether what was found is proven.
    pub fn failed(&self) -> BTreeSet<(String, bool)> {
        let checks = self.json["checks"].as_array().unwrap().iter();
        checks
            .filter(|check| check["refuses"] == true && check["result"] == "fail")
            .map(|check| {
                let id = check["id"].as_str().unwrap().to_owned();
                (id, check["proven"].as_bool().unwrap())
            })
            .collect()
    }

    /// A check.
    #[track_caller]
    pub fn check(&self, id: &str) -> &Value {
        let mut checks = self.json["checks"].as_array().unwrap().iter();
        checks.find(|check| check["id"] == id).unwrap()
    }

    /// What became of a source.
    #[track_caller]
    pub fn source(&self, name: &str) -> &Value {
        let mut sources = self.json["sources"].as_array().unwrap().iter();
        sources.find(|source| source["source"] == name).unwrap()
    }

    /// What was found about this machine.
    #[track_caller]
    pub fn fact(&self, name: &str) -> &Value {
        let mut facts = self.json["machine"].as_array().unwrap().iter();
        facts.find(|fact| fact["name"] == name).unwrap()
    }

    /// `yes`, `refused`, `unknown` or `no` of a guarantee.
    #[track_caller]
    pub fn guarantee(&self, name: &str) -> &str {
        let mut all = self.json["guarantees"].as_array().unwrap().iter();
        let found = all.find(|guarantee| guarantee["guarantee"] == name);
        found.unwrap()["deliverable"].as_str().unwrap()
    }
}

/// A machine behind an agent's socket, its root and collateral, in a folder whose `machine` has no proc, sys or dev.
pub struct Place<M: TeeMachine> {
    pub folder: tempfile::TempDir,
    pub platform: PlatformHandle<M>,
}

impl<M: TeeMachine> Place<M> {
    pub fn new(machine: M) -> Place<M> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("machine")).unwrap();
        machine.write_to(folder.path()).unwrap();
        let socket = folder.path().join("agent.sock");
        let platform = SimulatedPlatform::start(PlatformConfig::new(socket, machine)).unwrap();
        Place { folder, platform }
    }

    /// Asks the agent alone.
    #[track_caller]
    pub fn doctor(&self, more: &[&str]) -> Diagnosis {
        let args = ["--agent", "agent.sock", "--root", "machine"];
        doctor(self.folder.path(), &[&args, more].concat())
    }

    /// With the collateral and the root that the machine left.
    #[track_caller]
    pub fn with_collateral(&self) -> Diagnosis {
        self.doctor(&[
            "--folder",
            "collateral",
            "--trust-simulated-root",
            "root.pem",
        ])
    }
}
