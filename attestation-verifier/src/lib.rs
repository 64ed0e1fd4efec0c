//! A pure judgement of attestation evidence.
//!
//! The same bytes, policy, roots and time give the same verdict: no sockets, no clock, no
//! unsafe code, and no panic on any input.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod appraise;
pub mod authenticate;
pub mod bundle;
mod crypto;
pub mod dates;
pub mod describe;
pub mod ear;
pub mod exchange;
pub mod explain;
pub mod fields;
mod keyset;
pub mod parse;
pub mod policy;
pub mod product;
pub mod regrade;
pub mod roots;
pub mod session;
pub mod verdict;

pub use appraise::{Judged, appraise, judge};
pub use bundle::check;
pub use exchange::Comparison;
pub use policy::Policy;
pub use roots::{RootError, Roots};
pub use session::{
    Binding, Bound, Connection, SessionVerdict, check_session, check_session_record,
};
pub use verdict::{Checks, Fault, Verdict};

use verdict::Voucher;

/// The time of judgement. Always an input: nothing here reads a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Unix seconds.
    pub time: u64,
    /// The caller said which time to judge at (`--at`), instead of his clock's.
    pub asserted: bool,
}

impl At {
    /// Who vouches for this time.
    pub fn voucher(self) -> Voucher {
        if self.asserted {
            Voucher::Caller
        } else {
            Voucher::Clock
        }
    }

    fn words(self) -> &'static str {
        if self.asserted {
            "time asserted by you; a key broken since could have made this"
        } else {
            "your clock"
        }
    }
}
