//! What is said about verdicts: EARs, explanations, and verdicts under notices.

mod claims;
mod docs;
mod ear;
mod explain;
mod fields;
mod regrade;
mod risks;
mod support;
mod tdx;
