//! `touchstone doctor` on machines without quotes, behind agents of simulated platforms, and behind kernel interfaces that stand
//! in for the real ones.

#[path = "../support/mod.rs"]
mod support;

mod agents;
mod kernel;
mod nothing;
mod platforms;
mod running;
