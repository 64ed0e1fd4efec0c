//! `touchstone collateral` against servers that answer as AMD's and Intel's do, and fail as servers fail.

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod honest;
mod place;
mod running;
mod status;
