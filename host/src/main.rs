//! `host --config host.toml`: to be written.
fn main() {}
