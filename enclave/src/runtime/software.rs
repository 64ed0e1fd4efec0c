//! The enclave's build statement.

use measurements::build::{BuildFacts, BuildStatement};

/// What this program was built from and with; its digest is the keyset's `software`.
pub fn build_statement() -> BuildStatement {
    BuildStatement::new(BuildFacts {
        package: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        cargo_lock: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")),
        rustc: env!("TOUCHSTONE_BUILD_RUSTC"),
        target: env!("TOUCHSTONE_BUILD_TARGET"),
        profile: env!("TOUCHSTONE_BUILD_PROFILE"),
        features: env!("TOUCHSTONE_BUILD_FEATURES"),
    })
}
