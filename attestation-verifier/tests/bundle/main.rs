//! The judgement of whole bundles: honest ones hold, and every lie is refused by the check it is
//! about, also when the liar holds all keys and signs it again.

mod bits;
mod claims;
mod comparing;
mod evidence;
#[path = "../common/held.rs"]
mod held;
mod log;
mod order;
mod support;
mod swaps;
mod verifier;

/// Judgements again, by a verifier that knows what was judged before.
#[path = "../common/warm.rs"]
mod warm;
