//! The client against an attested server: what it sends and when, what it believes and when.

mod answers;
mod connections;
mod manifests;
mod sessions;
mod support;
