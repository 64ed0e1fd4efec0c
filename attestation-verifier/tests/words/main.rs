//! What is said about verdicts: EARs, explanations, and verdicts under notices.

mod docs;
mod ear;
mod explain;
mod fields;
mod regrade;
mod support;
mod tdx;
