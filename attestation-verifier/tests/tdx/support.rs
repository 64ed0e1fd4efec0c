//! What the tests of bytes and signatures need: real items, policies, and the two steps that they are about.

use std::path::PathBuf;

use attestation_verifier::authenticate::intel::{AuthenticTdx, authenticate};
use attestation_verifier::parse::tdx;
use attestation_verifier::{Checks, Roots, policy};
use touchstone_formats::evidence::{Collateral, Evidence, TdxCollateral, Tee};
use touchstone_formats::text::HexBytes;

/// 2025-07-01, within the validity of [`v4`]'s collateral.
pub const V4_TIME: u64 = 1_751_328_000;
/// 2026-03-01, within the validity of [`v5`]'s collateral.
pub const V5_TIME: u64 = 1_772_323_200;

/// A file that has to be there.
pub fn file(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A committed item.
pub fn committed(name: &str) -> Vec<u8> {
    file(crate_root().join("testdata/tdx/dcap-qvl-0.7.1").join(name))
}

fn crate_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Without the zeros that a source appended, as `touchstone evidence` leaves them out.
pub fn trimmed(mut quote: Vec<u8>) -> Vec<u8> {
    let size: [u8; 4] = match quote[..2] {
        [4, 0] => quote[632..636].try_into().unwrap(),
        _ => {
            let body = u32::from_le_bytes(quote[50..54].try_into().unwrap()) as usize;
            quote[54 + body..58 + body].try_into().unwrap()
        }
    };
    let start = match quote[..2] {
        [4, 0] => 636,
        _ => 58 + u32::from_le_bytes(quote[50..54].try_into().unwrap()) as usize,
    };
    let end = start + u32::from_le_bytes(size) as usize;
    assert!(quote[end..].iter().all(|byte| *byte == 0), "zeros alone");
    quote.truncate(end);
    quote
}

/// Collateral as `dcap-qvl` writes it.
pub fn collateral(json: &[u8]) -> TdxCollateral {
    let json: serde_json::Value = serde_json::from_slice(json).unwrap();
    let text = |name: &str| Some(json[name].as_str().unwrap().to_owned());
    let bytes = |name: &str| {
        let hex = json[name].as_str().unwrap();
        Some(HexBytes(hex::decode(hex).unwrap()))
    };
    TdxCollateral {
        tcb_info: text("tcb_info"),
        tcb_info_signature: bytes("tcb_info_signature"),
        tcb_info_issuer_chain: text("tcb_info_issuer_chain"),
        qe_identity: text("qe_identity"),
        qe_identity_signature: bytes("qe_identity_signature"),
        qe_identity_issuer_chain: text("qe_identity_issuer_chain"),
        pck_crl: bytes("pck_crl"),
        pck_crl_issuer_chain: text("pck_crl_issuer_chain"),
        root_ca_crl: bytes("root_ca_crl"),
    }
}

/// The strict template.
pub fn template() -> String {
    policy::template(Tee::Tdx)
}

/// The policy with another value for one check. The check has to be there, once.
pub fn with(policy: &str, id: &str, value: &str) -> String {
    let starts = [format!("\"{id}\" = "), format!("{id} = ")];
    let mut seen = 0;
    let lines =
        policy.lines().map(
            |line| match starts.iter().find(|start| line.starts_with(*start)) {
                Some(start) => {
                    seen += 1;
                    format!("{start}{value}\n")
                }
                None => format!("{line}\n"),
            },
        );
    let text: String = lines.collect();
    assert_eq!(seen, 1, "{id} stands in the policy once");
    text
}

/// Evidence of no purpose.
pub fn evidence(quote: Vec<u8>, collateral: Option<TdxCollateral>) -> Evidence {
    Evidence {
        purpose: None,
        nonce: None,
        tee: Tee::Tdx,
        quote,
        collateral: collateral.map(Collateral::Tdx),
        event_log: None,
    }
}

/// The committed quote of version 4, with its collateral.
pub fn v4() -> Evidence {
    let own = collateral(&committed("tdx_quote_collateral.json"));
    evidence(trimmed(committed("tdx_quote")), Some(own))
}

/// The committed quote of version 5, with its collateral.
pub fn v5() -> Evidence {
    let own = collateral(&committed("tdx_quote_outdated_collateral.json"));
    evidence(trimmed(committed("tdx_quote_outdated")), Some(own))
}

/// Parse and authenticate, as the judgement begins.
pub fn seen(evidence: &Evidence, roots: &Roots, time: u64) -> (Checks, Option<AuthenticTdx>) {
    let mut checks = Checks::new();
    let parsed = tdx::parse(evidence, &mut checks);
    let authentic = parsed.and_then(|parsed| authenticate(parsed, roots, time, &mut checks));
    (checks, authentic)
}

/// Exit code and id of the deciding check; 0 and nothing when none refuses.
pub fn decided(checks: &Checks) -> (u8, String) {
    let conclusion = checks.conclude(false, false);
    (conclusion.exit, conclusion.deciding.unwrap_or_default())
}

/// The checks that refuse, one a line, for people.
pub fn words(checks: &Checks) -> String {
    let refusing = checks.iter().filter(|check| check.refuses());
    refusing
        .map(|check| format!("{}: {}\n", check.id, check.reason))
        .collect()
}
