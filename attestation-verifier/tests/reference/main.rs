//! Judging by a manifest: what is honest holds on both kinds of platform, and every refusal is by the check that it is about.

mod attachments;
mod bundles;
#[path = "../common/held.rs"]
mod held;
mod policies;
mod rest;
mod sessions;
mod support;

/// Keys, statements and manifest files.
#[allow(dead_code, reason = "each test binary uses its own part")]
#[path = "../manifest/support.rs"]
mod signing;
