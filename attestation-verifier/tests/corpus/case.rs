//! One case of the published corpus: what is judged, by what, when, and what has to come out.

use std::fs;
use std::path::{Path, PathBuf};

use attestation_verifier::dates::rfc3339;
use attestation_verifier::{At, Policy, Roots, Verdict, appraise};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use touchstone_formats::Digest;
use touchstone_formats::evidence::Evidence;
use touchstone_formats::text::{base64_encode, hex_encode};

use crate::warm;

/// Where the corpus is written to, when the tests that sign its cases are to write it.
pub const WRITE: &str = "TOUCHSTONE_WRITE_CORPUS";

/// Cases about one check at most: the rest of a table differs in a byte or two.
const MOST: usize = 10;

/// What is judged, and by what.
#[derive(Clone)]
pub struct Inputs {
    /// The evidence.
    pub evidence: Evidence,
    /// The policy, TOML.
    pub policy: String,
    /// The roots that are trusted: the pinned ones, and simulated ones.
    pub roots: Roots,
    /// What REPORT_DATA must be.
    pub report_data: Option<[u8; 64]>,
    /// Time of judgement, Unix seconds.
    pub time: u64,
}

impl Inputs {
    /// The judgement, which is the same for a verifier that knows what came before.
    pub fn judge(&self) -> Verdict {
        let policy = Policy::parse(&self.policy).unwrap_or_else(|e| panic!("{e}"));
        let at = At {
            time: self.time,
            asserted: false,
        };
        let file = self.evidence.to_file();
        let report_data = self.report_data.as_ref();
        let verdict = appraise(&file, &policy, &self.roots, report_data, at);
        warm::alike(&verdict, &policy, &self.roots, |verifier| {
            verifier.appraise(&file, report_data, at)
        });
        verdict
    }

    /// Writes them as a case of the corpus, if that is wanted.
    pub fn publish(&self, says: &str, verdict: &Verdict) {
        let Some(folder) = std::env::var_os(WRITE) else {
            return;
        };
        let folder = PathBuf::from(folder);
        let deciding = verdict.deciding();
        let tee = self.evidence.tee.name();
        let words: Vec<&str> = says
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        let about = deciding.unwrap_or("holds").replace('.', "-");
        let mut slug = words.join("-").to_lowercase();
        slug.truncate(60);
        let roots: String = self.roots.anchors().iter().map(pem).collect();
        let case = Case {
            v: "touchstone/corpus/1".into(),
            says: says.into(),
            tee: tee.into(),
            evidence: serde_json::from_slice(&self.evidence.to_file()).unwrap(),
            report_data: self.report_data.map(|bytes| hex_encode(&bytes)),
            policy: named(&folder, "policies", "toml", &self.policy),
            simulated_roots: (!roots.is_empty()).then(|| named(&folder, "roots", "pem", &roots)),
            at: rfc3339(self.time),
            expected: Expected {
                verdict: word(verdict),
                exit: verdict.exit(),
                deciding: deciding.map(str::to_owned),
            },
        };
        let text = serde_json::to_string_pretty(&case).unwrap() + "\n";
        let cases = folder.join("cases").join(tee).join(about);
        fs::create_dir_all(&cases).unwrap();
        let there = fs::read_dir(&cases).unwrap().count();
        if there < MOST {
            fs::write(cases.join(format!("{:02}-{slug}.json", there + 1)), text).unwrap();
        }
    }
}

/// The verdict's one word, as its JSON has it.
pub fn word(verdict: &Verdict) -> String {
    let json: Value = serde_json::from_str(&verdict.to_json()).unwrap();
    json["verdict"].as_str().unwrap().to_owned()
}

/// A file named after what is in it; returns its path below the corpus.
fn named(folder: &Path, kind: &str, ending: &str, content: &str) -> String {
    let digest = Digest::of(content.as_bytes()).to_string();
    let path = format!("{kind}/{}.{ending}", &digest[..12]);
    fs::create_dir_all(folder.join(kind)).unwrap();
    fs::write(folder.join(&path), content).unwrap();
    path
}

fn pem(anchor: &attestation_verifier::roots::Anchor) -> String {
    if !anchor.simulated {
        return String::new();
    }
    let base64 = base64_encode(anchor.certificate.der());
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// A case as its file has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// `touchstone/corpus/1`.
    pub v: String,
    /// What is true, or wrong, in it.
    pub says: String,
    /// `sev-snp` or `tdx`.
    pub tee: String,
    /// The evidence, as formats.md §7 has it.
    pub evidence: Value,
    /// What REPORT_DATA must be, hex; null: it is compared with nothing.
    pub report_data: Option<String>,
    /// The policy's file.
    pub policy: String,
    /// The file of roots that are trusted beside the pinned ones.
    pub simulated_roots: Option<String>,
    /// Time of judgement.
    pub at: String,
    /// What has to come out.
    pub expected: Expected,
}

/// What has to come out.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The verdict's word.
    pub verdict: String,
    /// The exit code.
    pub exit: u8,
    /// The check that decides; null if it holds.
    pub deciding: Option<String>,
}
