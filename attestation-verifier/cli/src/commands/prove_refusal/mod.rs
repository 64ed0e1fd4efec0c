//! `touchstone prove-refusal`: changes something that holds in a hundred ways, and shows that each is refused.

mod fields;
mod forms;
mod lies;
mod mutant;
mod places;
mod plan;
mod quote;
mod report;
mod subject;
mod swaps;
mod x509;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, anyhow};
use attestation_verifier::Verdict;
use ring::rand::{SecureRandom, SystemRandom};

use super::check::{Held, Judging};
use crate::inputs::{self, Basis};
use crate::output::{Failure, Outcome, print, print_painted, refusal, say, say_as_is};
use mutant::Mutant;
use report::{Judged, Report};
use subject::Subject;

/// Show that nothing passes but the very thing: change what holds in a hundred ways, and judge each
///
/// Judges a kept answer, a bundle or an evidence file, with the options of `check` or `appraise`. If it holds, mutants of it are
/// made and judged by the same policy: single bits of every part, fields, swaps, other encodings, collateral that is gone,
/// and lies that are signed again by keys made on the spot. Every one has to be refused; the table says by which check. Exit
/// 4 if one was accepted, else the code of the thing itself.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  touchstone prove-refusal answer --policy policy.toml\n  \
    touchstone prove-refusal answer --policy policy.toml --other answer2 --count 1000 --seed 7 --keep accepted\n  \
    touchstone prove-refusal evidence.json --policy policy.toml --json"
)]
pub struct Args {
    /// Folder written by `ask` or `proxy`, a bundle, or an evidence file
    #[arg(value_name = "DIR|BUNDLE|EVIDENCE")]
    target: PathBuf,
    /// Policy file
    #[arg(long, value_name = "P.toml")]
    policy: PathBuf,
    /// How many mutants to make
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Number that the mutants follow from; without it a random one, which is printed
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// A second answer of the same kind that holds: parts of it are put into the first
    #[arg(long, value_name = "DIR|BUNDLE|EVIDENCE")]
    other: Option<PathBuf>,
    /// Folder to write every mutant into that was accepted, for inspection
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// What the 64 bytes of REPORT_DATA must be (of an evidence file)
    #[arg(long, value_name = "HEX", value_parser = inputs::report_data)]
    report_data: Option<[u8; 64]>,
    #[command(flatten)]
    held: Held,
    #[command(flatten)]
    at: Judging,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let basis = Basis::read(&args.policy, &args.at)?;
    // One time for all judgements.
    let at = inputs::at(args.at.at)?;
    let seed = args.seed.map_or_else(random, Ok)?;
    let (subject, verdict) = Subject::open(&args.target, &basis, &args.held, args.report_data, at)?;
    if !matches!(verdict.exit(), 0 | 6) {
        let what = args.target.display();
        return Ok(unproven(
            verdict,
            args.json,
            &format!("{what} does not hold"),
        ));
    }
    let other = match &args.other {
        None => None,
        Some(path) => {
            let (other, verdict) = other(path, &args, &basis, at)?;
            if !matches!(verdict.exit(), 0 | 6) {
                let what = path.display();
                return Ok(unproven(
                    verdict,
                    args.json,
                    &format!("{what} does not hold"),
                ));
            }
            Some(other)
        }
    };
    if let Some(folder) = &args.keep {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let plan = plan::plan(&subject, other.as_ref(), seed, args.count as usize);
    let judged = judge_all(&subject, &basis, plan.mutants, !args.json);
    let report = Report {
        seed,
        wanted: args.count as usize,
        subject: &verdict,
        missed: plan.missed,
        unproven_session: subject.unproven_session(),
        judged,
    };
    keep(&args, &subject, &report)?;
    if args.json {
        print(&(report.json() + "\n"));
        say(&report.summary());
    } else {
        print_painted(&report.words(), report.exit());
    }
    Ok(Outcome::Exit(report.exit()))
}

/// Reads and judges a second thing. Options that name files are about the first; those of a folder are its own.
fn other(
    path: &std::path::Path,
    args: &Args,
    basis: &Basis,
    at: attestation_verifier::At,
) -> Result<(Subject, Verdict), Failure> {
    if path.is_dir() != args.target.is_dir() {
        let error = "both have to be folders, or both files";
        return Err(anyhow!("--other {}: {error}", path.display()).into());
    }
    Subject::open(path, basis, &args.held.of_another(), None, at)
}

/// A thing that does not hold, or not as it should: its own verdict is all there is to say.
fn unproven(verdict: Verdict, json: bool, why: &str) -> Outcome {
    say(&format!("nothing to prove: {why}\n"));
    if json {
        print(&(verdict.to_json() + "\n"));
    }
    refusal(&verdict)
}

fn random() -> anyhow::Result<u32> {
    let mut bytes = [0; 4];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow!("this machine gives no random numbers: use --seed"))?;
    Ok(u32::from_le_bytes(bytes))
}

/// Judges all mutants, on as many threads as there are processors. The order stays.
fn judge_all(
    subject: &Subject,
    basis: &Basis,
    mutants: Vec<Mutant>,
    progress: bool,
) -> Vec<Judged> {
    let progress = progress && std::io::stderr().is_terminal();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(mutants.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(mutants.len()) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(n) else { return };
                    let outcome = report::Refusal::of(subject.judge(basis, mutant));
                    if progress {
                        say_as_is(&format!("\r{} of {} judged", n + 1, mutants.len()));
                    }
                    if let Ok(mut results) = results.lock() {
                        results.push((n, outcome));
                    }
                }
            });
        }
    });
    if progress {
        say_as_is("\r\u{1b}[K");
    }
    let mut results = results.into_inner().unwrap_or_default();
    results.sort_by_key(|(n, _)| *n);
    let outcomes = results.into_iter().map(|(_, outcome)| outcome);
    let judged = mutants.into_iter().zip(outcomes);
    judged
        .map(|(mutant, refusal)| Judged { mutant, refusal })
        .collect()
}

/// Writes down what was accepted.
fn keep(args: &Args, subject: &Subject, report: &Report) -> anyhow::Result<()> {
    let Some(folder) = &args.keep else {
        return Ok(());
    };
    for (number, judged) in report.accepted() {
        let folder = folder.join(format!("mutant-{number}"));
        subject.write(&judged.mutant, &folder)?;
    }
    Ok(())
}
