//! `touchstone doctor`: whether this machine can quote, and what verifiers would say to its quotes.

mod advice;
mod agent;
mod judgement;
mod sources;
mod surroundings;
mod words;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use attestation_verifier::dates::rfc3339;
use attestation_verifier::parse::snp::{Report, SigningKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use touchstone_collateral::folder;
use touchstone_formats::certificate_table;
use touchstone_formats::report_data::report_data_of_doctor;
use touchstone_formats::text::hex_encode;
use touchstone_formats::{Collateral, Evidence, SnpCollateral, Tee};

use crate::output::{Failure, Outcome, paint, print, say_as_is};
use crate::{files, inputs};
use judgement::{Finding, Guarantee, Judgement, guarantees, judgement};
use sources::{Given, Sources, State, Tried};
use surroundings::{Fact, Root};

/// Say whether this machine can quote, and what verifiers would say to its quotes
#[derive(clap::Args)]
#[command(
    after_help = "Run it as root inside the VM, before an enclave is. It asks every quote source for one quote over fresh bytes that count for \
    nothing else, and judges it under the strict policy. Without certificates it cannot say whether the quote is genuine, and says so.\n\n\
    Exit codes: 0 quotes, and no default check fails · 4 some default checks fail · 5 something is missing to judge it by · 2, 3 what \
    it gives is no quote, or not genuine · 6 as 0, on a simulated platform · 7 no quote at all · 1 usage\n\n\
    Example:\n  touchstone doctor -o evidence.json\n  touchstone collateral fetch evidence.json -o collateral.json\n  \
    touchstone doctor --collateral collateral.json"
)]
pub struct Args {
    /// Folder of configfs-tsm [default: /sys/kernel/config/tsm/report]
    #[arg(long, value_name = "DIR")]
    tsm: Option<PathBuf>,
    /// Device of the SEV-SNP guest driver [default: /dev/sev-guest]
    #[arg(long, value_name = "PATH")]
    sev_guest: Option<PathBuf>,
    /// Unix socket of a quote agent; without it none is asked
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Privilege level (VMPL) to ask the kernel's interfaces for, 0 to 3 [default: theirs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=3))]
    privilege: Option<u8>,
    /// Longest time for one source, in seconds
    #[arg(long, value_name = "S", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Collateral to judge the quote with, as `collateral fetch` writes it
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    collateral: Option<PathBuf>,
    /// Collateral to judge the quote with: a host's folder
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Root certificates of a simulated platform (PEM), trusted beside the pinned ones
    #[arg(long, value_name = "FILE")]
    trust_simulated_root: Option<PathBuf>,
    /// Judge at this time instead of now
    #[arg(long, value_name = "RFC3339", value_parser = inputs::time)]
    at: Option<u64>,
    /// Look for proc, sys and dev in this folder
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Evidence file to write the quote to: collateral fetch takes it
    #[arg(short, long, value_name = "EVIDENCE")]
    output: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was found (`touchstone/doctor/1`).
#[derive(Serialize)]
struct Diagnosis {
    v: &'static str,
    verdict: &'static str,
    exit: u8,
    /// Id of the check that the exit code rests on.
    deciding: Option<String>,
    at: String,
    simulated: bool,
    /// 32 random bytes, hex: what the quotes were asked for over (formats §3).
    nonce: String,
    report_data: String,
    /// Which source gave the quote that was judged.
    source: Option<&'static str>,
    sources: Vec<Tried>,
    machine: Vec<Fact>,
    quote: Option<Judgement>,
    guarantees: Vec<Guarantee>,
    checks: Vec<Finding>,
    notes: Vec<String>,
    /// The evidence file that was written.
    wrote: Option<String>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let roots = inputs::roots(args.trust_simulated_root.as_deref())?;
    let file = args.collateral.as_deref().map(inputs::collateral);
    let file = file.transpose()?.map(|file| file.collateral);
    let root = Root(&args.root);
    let mut nonce = [0; 32];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| anyhow!("no random bytes"))?;
    let report_data = report_data_of_doctor(&nonce);
    let sources = Sources {
        tsm: args
            .tsm
            .unwrap_or_else(|| root.path("sys/kernel/config/tsm/report")),
        sev_guest: args.sev_guest.unwrap_or_else(|| root.path("dev/sev-guest")),
        agent: args.agent,
        privilege: args.privilege,
        root: &root,
        limit: Duration::from_secs(args.timeout),
    };
    let all = sources.tried(&report_data);
    let at = inputs::at(args.at)?;

    let mut checks = of_sources(&all);
    let mut notes = Vec::new();
    let mut quote = None;
    let mut took = None;
    let mut source = None;
    let mut wrote = None;
    let mut sources = Vec::new();
    for (tried, given) in all {
        if let (Some(given), None) = (given, source) {
            source = Some(tried.source);
            took = tried.milliseconds;
            let mine = match (&file, &args.folder) {
                (Some(collateral), _) => Some((collateral.clone(), "file")),
                (None, Some(path)) => folder::read(path, given.tee)
                    .map_err(|error| anyhow!("{error}"))?
                    .map(|collateral| (collateral, "folder")),
                (None, None) => of_the_report(&given, &mut notes),
            };
            let (mine, from) = mine.unzip();
            let evidence = evidence(given, mine)?;
            if let Some(path) = &args.output {
                files::write(path, &evidence.to_file())?;
                wrote = Some(path.display().to_string());
            }
            let judged = judgement(&evidence, from, &report_data, &roots, at)?;
            checks.extend(judged.findings.iter().cloned());
            quote = Some(judged);
        }
        sources.push(tried);
    }

    let decides = checks.iter().filter(|check| check.refuses);
    let deciding = decides.min_by_key(|check| check.rank());
    let simulated = quote.as_ref().is_some_and(|quote| quote.simulated);
    let exit = match deciding.and_then(|check| check.exit) {
        Some(code) => code,
        None if simulated => 6,
        None => 0,
    };
    let diagnosis = Diagnosis {
        v: "touchstone/doctor/1",
        verdict: word(exit),
        exit,
        deciding: deciding.map(|check| check.id.clone()),
        at: rfc3339(at.time),
        simulated,
        nonce: hex_encode(&nonce),
        report_data: hex_encode(&report_data),
        source,
        sources,
        machine: root.facts(),
        quote,
        guarantees: guarantees(exit, took),
        checks,
        notes,
        wrote,
    };
    let words = diagnosis.words();
    if args.json {
        let json = serde_json::to_string(&diagnosis).map_err(anyhow::Error::from)?;
        print(&(json + "\n"));
        say_as_is(&paint(&words, exit, std::io::stderr().is_terminal()));
    } else {
        print(&paint(&words, exit, std::io::stdout().is_terminal()));
    }
    Ok(Outcome::Exit(exit))
}

fn word(exit: u8) -> &'static str {
    match exit {
        0 | 6 => "ready",
        2 => "malformed",
        3 => "not-authentic",
        4 => "refused",
        5 => "collateral",
        _ => "no-quote",
    }
}

/// Whether some source gives a quote, and whether none gives something else for one.
fn of_sources(all: &[(Tried, Option<Given>)]) -> Vec<Finding> {
    let of = |state: State| {
        all.iter()
            .map(|(tried, _)| tried)
            .filter(move |t| t.state == state)
    };
    let quoted = of(State::Quoted).next().is_some();
    let lied = of(State::Malformed)
        .chain(of(State::WrongReportData))
        .next();
    let mut checks = Vec::new();
    if quoted {
        checks.push(Finding::made("quote.source", None));
    } else if lied.is_none() {
        let reason = "no quote source of this machine gives a quote".to_owned();
        checks.push(Finding::made("quote.source", Some((7, reason))));
    }
    let reason = |tried: &Tried| format!("{}: {}", tried.source, tried.found);
    for tried in of(State::Malformed) {
        checks.push(Finding::made("quote.answer", Some((2, reason(tried)))));
    }
    for tried in of(State::WrongReportData) {
        checks.push(Finding::made(
            "evidence.report_data",
            Some((3, reason(tried))),
        ));
    }
    checks
}

/// Certificates that the host put beside the report.
fn of_the_report(given: &Given, notes: &mut Vec<String>) -> Option<(Collateral, &'static str)> {
    let table = given.certificates.as_deref()?;
    let report = Report::parse(&given.quote).ok()?;
    let vlek = report.signing_key() == SigningKey::Vlek;
    match certificate_table::collateral(table, vlek) {
        Ok(none) if none == SnpCollateral::default() => None,
        Ok(collateral) => Some((Collateral::SevSnp(collateral), "report")),
        Err(error) => {
            notes.push(format!(
                "The certificates that came with the report are left out: {error}."
            ));
            None
        }
    }
}

/// What was given, and the collateral to judge it with.
fn evidence(given: Given, collateral: Option<Collateral>) -> Result<Evidence, Failure> {
    let fits = |collateral: &Collateral| {
        matches!(
            (collateral, given.tee),
            (Collateral::SevSnp(_), Tee::SevSnp) | (Collateral::Tdx(_), Tee::Tdx)
        )
    };
    if collateral
        .as_ref()
        .is_some_and(|collateral| !fits(collateral))
    {
        return Err(anyhow!("the collateral is for another kind of platform").into());
    }
    Ok(Evidence {
        purpose: None,
        nonce: None,
        tee: given.tee,
        quote: given.quote,
        collateral,
        event_log: given.event_log,
    })
}
