//! A pure judgement of attestation evidence.
//!
//! The same bytes, policy, roots and time give the same verdict: no sockets, no clock, no
//! unsafe code, and no panic on any input.
//!
//! The whole of it, for who has a bundle and what it is about:
//!
//! ```
//! use attestation_verifier::exchange::{Comparison, RequestBytes, ResponseBytes};
//! use attestation_verifier::{At, Policy, Roots, check, explain};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let world = touchstone_testkit::mint::World::new(1);
//! # let minted = world.exchange();
//! # let measurement = format!("{{ expect = [\"{}\"] }}", hex::encode(world.machine.report.measurement));
//! # let models = format!("{{ expect = [\"{}\"] }}", world.models[0].model_digest);
//! # let changes = [("snp.measurement", measurement.as_str()), ("models", models.as_str())];
//! # let template = attestation_verifier::policy::template(touchstone_formats::Tee::SevSnp);
//! # let policy_file = touchstone_testkit::policy::edit(&template, &changes);
//! # let (bundle_file, nonce, now) = (minted.file(), minted.claims.nonce.clone().unwrap_or_default(), minted.at);
//! # let exchange = &minted.exchange;
//! # let request = RequestBytes {
//! #     method: exchange.method.clone(),
//! #     target: exchange.target.clone(),
//! #     header_length: exchange.request_header_length,
//! #     body: exchange.request_body.clone(),
//! # };
//! # let response = ResponseBytes {
//! #     status: exchange.status,
//! #     header_length: exchange.response_header_length,
//! #     body: exchange.response_body.clone(),
//! # };
//!
//! let policy = Policy::parse(&policy_file)?; // what you accept
//! let roots = Roots::pinned(); // the vendors', compiled in
//! # let roots = roots.with_simulated_pem(minted.root_pem.as_bytes())?;
//! let at = At { time: now, asserted: false }; // your clock: nothing here reads one
//! let mut comparison = Comparison::default(); // what you hold
//! comparison.request = Some(request);
//! comparison.response = Some(response);
//! comparison.nonce = Some(nonce);
//! let verdict = check(&bundle_file, &policy, &roots, &comparison, at);
//! if verdict.exit() != 0 {
//!     eprint!("{}", explain::explain(&verdict).words()); // and believe nothing of it
//! }
//! # assert_eq!(verdict.exit(), 6, "{}", verdict.words()); // a simulated platform
//! # Ok(())
//! # }
//! ```
//!
//! [`appraise()`] judges evidence without a bundle, [`ear::ear`] makes of a verdict what other relying parties
//! read, [`regrade::regrade`] judges a kept bundle again under notices. Who judges more than once has a [`Verifier`], which
//! verifies again only what is new.
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
pub mod crypto;
pub mod dates;
pub mod describe;
pub mod ear;
pub mod events;
pub mod exchange;
pub mod explain;
pub mod fields;
mod keyset;
mod known;
pub mod manifest;
pub mod ohttp;
pub mod oms;
pub mod parse;
pub mod policy;
pub mod product;
mod reference;
pub mod regrade;
pub mod roots;
pub mod session;
pub mod verdict;
mod verifier;

pub use appraise::{Judged, appraise, judge};
pub use bundle::check;
pub use exchange::Comparison;
pub use known::Work;
pub use policy::Policy;
pub use reference::Manifests;
pub use roots::{RootError, Roots};
pub use session::{
    Binding, Bound, Connection, SessionVerdict, check_ohttp, check_ohttp_record, check_session,
    check_session_record,
};
pub use verdict::{Checks, Fault, Verdict};
pub use verifier::Verifier;

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
