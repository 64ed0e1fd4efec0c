//! The commands, one file each.

mod advisories;
mod appraise;
mod ask;
pub mod check;
mod collateral;
mod doctor;
pub mod evidence;
mod explain;
pub mod manifest;
mod measure;
mod model;
mod policy;
mod prove_refusal;
mod proxy;
mod regrade;
mod show;

use clap::Subcommand;

use crate::output::{Failure, Outcome};

/// A command and its arguments.
#[derive(Subcommand)]
pub enum Command {
    Ask(ask::Args),
    Proxy(proxy::Args),
    Check(check::Args),
    Appraise(appraise::Args),
    Explain(explain::Args),
    Regrade(regrade::Args),
    Advisories(advisories::Args),
    Evidence(evidence::Args),
    Show(show::Args),
    ProveRefusal(prove_refusal::Args),
    Model(model::Args),
    Policy(policy::Args),
    Manifest(manifest::Args),
    Collateral(collateral::Args),
    Doctor(doctor::Args),
    Measure(measure::Args),
}

impl Command {
    /// Runs it.
    pub fn run(self) -> Result<Outcome, Failure> {
        match self {
            Command::Ask(args) => ask::run(args),
            Command::Proxy(args) => proxy::run(args),
            Command::Check(args) => check::run(args),
            Command::Appraise(args) => appraise::run(args),
            Command::Explain(args) => explain::run(args),
            Command::Regrade(args) => regrade::run(args),
            Command::Advisories(args) => advisories::run(args),
            Command::Evidence(args) => evidence::run(args),
            Command::Show(args) => show::run(args),
            Command::ProveRefusal(args) => prove_refusal::run(args),
            Command::Model(args) => model::run(args),
            Command::Policy(args) => policy::run(args),
            Command::Manifest(args) => manifest::run(args),
            Command::Collateral(args) => collateral::run(args),
            Command::Doctor(args) => doctor::run(args),
            Command::Measure(args) => measure::run(args),
        }
    }
}
