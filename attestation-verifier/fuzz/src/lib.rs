//! What the targets judge with: the simulated world of `seeds/world`, its roots, a strict policy and a fixed time;
//! and what some have in common.

use std::path::Path;
use std::sync::OnceLock;

use attestation_verifier::{At, Policy, Roots};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use touchstone_formats::{Evidence, LogKey};

pub mod http;

/// When all of it is judged: the seeds were made for this second.
pub const AT: At = At {
    time: 1_790_000_000,
    asserted: true,
};

/// A file of `seeds/world`. Read when a target starts, because the program that writes it is built with this library.
fn world(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/world");
    std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("seeds/world/{name}: {e}"))
}

fn text(name: &str) -> String {
    String::from_utf8(world(name)).expect("text")
}

/// The strict template for both platforms, with the measurements of the machines in the seeds.
pub fn policy() -> &'static Policy {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    POLICY.get_or_init(|| Policy::parse(&text("policy.toml")).expect("a policy"))
}

/// The simulated roots, each beside the pinned ones: AMD's shape, and Intel's.
pub fn roots() -> &'static [Roots; 2] {
    static ROOTS: OnceLock<[Roots; 2]> = OnceLock::new();
    ROOTS.get_or_init(|| {
        ["snp-root.pem", "tdx-root.pem"].map(|name| {
            Roots::pinned()
                .with_simulated_pem(&world(name))
                .expect("a root")
        })
    })
}

/// The key that lists of notices are signed with.
pub fn log_key() -> &'static LogKey {
    static KEY: OnceLock<LogKey> = OnceLock::new();
    KEY.get_or_init(|| text("log.vkey").trim_end().parse().expect("a key"))
}

/// Evidence of the simulated SEV-SNP machine.
pub fn snp_evidence() -> &'static Evidence {
    static EVIDENCE: OnceLock<Evidence> = OnceLock::new();
    EVIDENCE.get_or_init(|| Evidence::parse(&world("snp-evidence.json")).expect("evidence"))
}

/// The first 672 bytes of the input as a report that the simulated machine signed; `None` if there are fewer.
pub fn sign_report(input: &[u8]) -> Option<Vec<u8>> {
    static KEY: OnceLock<EcdsaKeyPair> = OnceLock::new();
    let rng = SystemRandom::new();
    let key = KEY.get_or_init(|| {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &world("vcek.pk8"), &rng)
            .expect("a key")
    });
    let signed = input.get(..0x2a0)?;
    let mut report = signed.to_vec();
    let signature = key.sign(&rng, signed).expect("randomness");
    // r and s, little-endian, in 72 bytes each.
    for part in signature.as_ref().chunks(48) {
        report.extend(part.iter().rev());
        report.resize(report.len() + 24, 0);
    }
    report.resize(0x4a0, 0);
    Some(report)
}
