//! The untrusted relay of Touchstone.
#![forbid(unsafe_code)]

pub mod address;
pub mod config;
