//! TDX evidence, from bytes to verdict.

mod chain;
mod checks;
mod checks_case;
mod checks_more;
mod events;
mod fixtures;
mod form;
mod pck;
mod policy;
mod quoting;
mod real_bytes;
mod revocation;
mod simulated;
mod support;
mod texts;
