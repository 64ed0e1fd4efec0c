//! SEV-SNP evidence, from bytes to verdict. One program, so that the simulated vendor's keys are
//! made once.

#[path = "../corpus/case.rs"]
#[allow(dead_code)]
mod case;
mod certificates;
mod chain;
mod checks;
mod common;
mod fixtures;
mod form;
mod policy_file;
mod real;
mod roots;
mod second_reader;
mod simulated;
mod verdicts;
mod verifier;

/// Judgements again, by a verifier that knows what was judged before.
#[path = "../common/warm.rs"]
mod warm;
