//! TDX evidence, from bytes to verdict.

mod real_bytes;
mod support;
