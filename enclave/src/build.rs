//! What this program was built from, as its build script saw it.

use measurements::build::{BuildFacts, BuildStatement};

/// The build statement, whose digest is the keyset's `software` (formats.md §2).
pub fn statement() -> BuildStatement {
    BuildStatement::new(BuildFacts {
        package: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        cargo_lock: include_bytes!("../../Cargo.lock"),
        rustc: env!("TOUCHSTONE_BUILD_RUSTC"),
        target: env!("TOUCHSTONE_BUILD_TARGET"),
        profile: env!("TOUCHSTONE_BUILD_PROFILE"),
        features: env!("TOUCHSTONE_BUILD_FEATURES"),
    })
}
