//! Manifests: what is authentic, what is refused and why. Everything is signed with keys of the test's own, so that what
//! refuses a lie is the rule it breaks and not its signature.

mod diffs;
mod lies;
mod signatures;
mod states;
mod support;
