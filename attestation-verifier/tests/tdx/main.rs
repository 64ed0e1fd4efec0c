//! TDX evidence, from bytes to verdict.

mod chain;
mod form;
mod pck;
mod quoting;
mod real_bytes;
mod revocation;
mod simulated;
mod support;
mod texts;
