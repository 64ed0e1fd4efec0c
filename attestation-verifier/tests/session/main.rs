//! The judgement of attested connections: the honest one holds, and every lie about it is refused by the
//! check it is about, also where a genuine chip signed it.

mod answers;
mod bits;
#[path = "../common/held.rs"]
mod held;
mod lies;
mod ohttp;
mod records;
mod support;

/// Whole bundles, as the tests of bundles make and judge them.
#[allow(dead_code, reason = "each test binary uses its own part")]
#[path = "../bundle/support.rs"]
mod bundles;

/// Judgements again, by a verifier that knows what was judged before.
#[path = "../common/warm.rs"]
mod warm;
