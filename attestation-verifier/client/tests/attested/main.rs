//! The client against an attested server: what it sends and when, what it believes and when.

mod answers;
mod connections;
mod manifests;
mod ohttp;
mod refreshing;
mod sessions;
mod support;

/// Keys, statements and manifest files.
#[allow(dead_code, reason = "each test binary uses its own part")]
#[path = "../../../tests/manifest/support.rs"]
mod signing;
