//! What several tests need: evidence made of parts, and policies loosened one check at a time.

use std::path::{Path, PathBuf};

use attestation_verifier::policy::{self, Policy};
use attestation_verifier::{At, Roots, Verdict, appraise};
use touchstone_formats::evidence::{Collateral, Evidence, SnpCollateral, Tee};

/// The strict template.
pub fn template() -> String {
    policy::template(Tee::SevSnp)
}

/// The policy with another value for one check. The check has to be there, once.
pub fn with(policy: &str, id: &str, value: &str) -> String {
    let key = format!("\"{id}\" = ");
    let plain = format!("{id} = ");
    let mut seen = 0;
    let lines = policy.lines().map(|line| {
        if line.starts_with(&key) || line.starts_with(&plain) {
            seen += 1;
            let end = line.find(" = ").expect("an assignment");
            format!("{} = {value}\n", &line[..end])
        } else {
            format!("{line}\n")
        }
    });
    let text: String = lines.collect();
    assert_eq!(seen, 1, "{id} stands in the policy once");
    text
}

/// The policy with one check's expectation replaced by what a verdict found, copied as it is.
pub fn as_found(policy: &str, verdict: &Verdict, id: &str) -> String {
    let check = verdict
        .checks
        .find(id)
        .unwrap_or_else(|| panic!("no check {id}"));
    with(
        policy,
        id,
        &format!("{{ expect = {} }}", toml_of(&check.found)),
    )
}

/// A JSON value as TOML 1.0 on one line.
pub fn toml_of(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(map) => {
            let members: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k} = {}", toml_of(v)))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
        other => other.to_string(),
    }
}

/// Parses a policy that has to be right.
pub fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

/// Judgement time said by the caller.
pub fn at(time: u64) -> At {
    At {
        time,
        asserted: true,
    }
}

/// Evidence of no purpose.
pub fn evidence(report: &[u8], vek: &[u8], chain: &[Vec<u8>], crls: &[Vec<u8>]) -> Evidence {
    Evidence {
        purpose: None,
        nonce: None,
        tee: Tee::SevSnp,
        quote: report.to_vec(),
        collateral: Some(Collateral::SevSnp(SnpCollateral {
            vek: Some(vek.to_vec()),
            chain: chain.to_vec(),
            crls: crls.to_vec(),
        })),
        event_log: None,
    }
}

/// Judges it as the command would.
pub fn judged(evidence: &Evidence, policy_text: &str, roots: &Roots, time: u64) -> Verdict {
    appraise(
        &evidence.to_file(),
        &policy(policy_text),
        roots,
        None,
        at(time),
    )
}

/// All certificates of a PEM file, DER.
pub fn pem_file(path: &Path) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let ders = blocks.map(|block| {
        let body: String = block
            .split("-----END")
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        touchstone_formats::text::base64_decode(&body).expect("base64")
    });
    ders.collect()
}

/// A file that has to be there.
pub fn file(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Folder of the committed real items.
pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/snp")
}
