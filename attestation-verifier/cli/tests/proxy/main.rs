//! `touchstone proxy`, as its clients meet it: honest servers, liars in the middle, and clients that misbehave.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod honest;
mod lies;
mod limits;
mod manifests;
mod running;
mod sealed;
mod stack;
