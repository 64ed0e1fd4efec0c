//! Intel TDX evidence: bytes to fields, with every rule of form and no judgement.
//!
//! [`quote`] reads the quote, [`pck`] the extensions of the certificate that its chain begins with,
//! [`tcb`] the two signed texts of Intel's collateral. What is read here is trusted only after
//! [`crate::authenticate::intel`] has seen it.

pub mod pck;
pub mod quote;
pub mod tcb;

use touchstone_formats::evidence::Evidence;

use crate::verdict::Checks;
use quote::{Quote, TdReport};

/// TDX evidence all of whose parts are well-formed. It can only be made by [`parse`], and only be
/// used by [`crate::authenticate::intel::authenticate`].
#[derive(Clone, Debug)]
pub struct Parsed {
    pub(crate) quote: Quote,
}

impl Parsed {
    /// The quote, of which nothing is proven.
    pub fn quote(&self) -> &Quote {
        &self.quote
    }

    /// The TD's report in it, of which nothing is proven.
    pub fn report(&self) -> &TdReport {
        &self.quote.report
    }
}

/// Parses TDX evidence. `None`, with the checks that say why, if any part is malformed.
pub fn parse(evidence: &Evidence, checks: &mut Checks) -> Option<Parsed> {
    let _ = (evidence, checks);
    None
}
