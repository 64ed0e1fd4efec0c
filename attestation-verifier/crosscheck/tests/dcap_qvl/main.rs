//! `dcap-qvl` as the second judge of what the verifier's own tests judge, and of everything that the test kit makes.
//!
//! These tests stand here and not beside the others because `dcap-qvl` turns on features of crates that Touchstone uses too
//! (`preserve_order` of serde_json), which no product has: in one workspace everything would be tested with them.

mod minted;
mod platforms;
mod verdicts;

/// What the verifier's own tests of TDX judge.
#[path = "../../../tests/corpus/case.rs"]
#[allow(dead_code)]
mod case;
#[path = "../../../tests/tdx/checks_case.rs"]
#[allow(dead_code)]
mod checks_case;
#[path = "../../../tests/tdx/simulated.rs"]
#[allow(dead_code)]
mod simulated;
#[path = "../../../tests/tdx/support.rs"]
#[allow(dead_code)]
mod support;
#[path = "../../../tests/tdx/table.rs"]
#[allow(dead_code)]
mod table;
#[path = "../../../tests/common/warm.rs"]
mod warm;

use dcap_qvl::QuoteCollateralV3;
use touchstone_crosscheck::tdx::as_theirs;
use touchstone_formats::evidence::TdxCollateral;

/// Collateral that is whole, as `dcap-qvl` takes it.
fn theirs(own: &TdxCollateral) -> QuoteCollateralV3 {
    as_theirs(own).unwrap()
}
