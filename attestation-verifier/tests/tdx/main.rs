//! TDX evidence, from bytes to verdict.
