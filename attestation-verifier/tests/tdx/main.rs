//! TDX evidence, from bytes to verdict.

#[path = "../corpus/case.rs"]
#[allow(dead_code)]
mod case;
mod chain;
mod checks;
mod checks_case;
mod checks_more;
mod events;
mod fixtures;
mod form;
mod pck;
mod policy;
mod quoting;
mod real_bytes;
mod revocation;
mod simulated;
mod support;
mod table;
mod texts;
mod verifier;

/// Judgements again, by a verifier that knows what was judged before.
#[path = "../common/warm.rs"]
mod warm;
