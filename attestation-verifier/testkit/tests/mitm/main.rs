//! Every lie of the man in the middle, told to the real clients: refused by name, and told nothing.

mod capture;
mod common;
mod diversion;
mod program;
mod records;
mod sealed;
mod sessions;
mod stack;
