//! `touchstone policy`: starts a policy, says what one would accept at the least, compares two.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use attestation_verifier::manifest::Demand;
use attestation_verifier::policy::{
    Diff, Difference, Level, Lint, Policy, Profile, Relation, by_manifest, diff, lint, template,
};
use serde::Serialize;
use serde_json::json;
use touchstone_formats::Tee;
use touchstone_formats::text::printable;

use crate::output::{Failure, Outcome, paint, print, say};
use crate::{files, inputs};

/// Write, lint and compare the policies that answers are judged by
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(
    after_help = "Example:\n  touchstone policy init --profile serve --tee sev-snp -o policy.toml\n  \
    touchstone policy lint policy.toml\n  touchstone policy diff old.toml policy.toml"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Write a policy, every check named and explained
    #[command(
        after_help = "Nothing in it comes from a server. It refuses everything until you fill in what only you \
        can know: the software you built or reproduced, the models you hashed (trade: also chips and \
        configurations). Only explore accepts any of them, loudly, for 30 days.\n\n\
        Example:\n  touchstone policy init --profile serve --tee sev-snp -o policy.toml"
    )]
    Init {
        /// What it is for; strict without it
        #[arg(long, value_enum)]
        profile: Option<ProfileName>,
        /// Kind of platform
        #[arg(long, value_enum, default_value = "sev-snp")]
        tee: TeeName,
        /// A signer of manifests, which then say what may run: what you call him, and his public key; repeat for each
        #[arg(long, value_name = "NAME=PUB.pem", value_parser = super::manifest::signer, requires_all = ["threshold", "manifest_name"])]
        manifest_signer: Vec<(String, PathBuf)>,
        /// How many of the signers must have signed
        #[arg(long, value_name = "N", requires = "manifest_signer")]
        threshold: Option<usize>,
        /// The name that the manifest must have
        #[arg(long, value_name = "NAME", requires = "manifest_signer")]
        manifest_name: Option<String>,
        /// File to write, which must not exist; stdout without it
        #[arg(short, long, value_name = "P.toml")]
        output: Option<PathBuf>,
        /// Print one JSON object: what was made, and what is to be filled in
        #[arg(long)]
        json: bool,
    },
    /// Say what a policy accepts at the least, and refuse one that accepts anything
    #[command(
        after_help = "Exits 0 if the policy is fit to judge by, 4 if it accepts anything, 1 if it does not \
        stand.\n\nExample:\n  touchstone policy lint policy.toml"
    )]
    Lint {
        /// Policy file
        policy: PathBuf,
        /// Lint as of this time instead of now: waivers end
        #[arg(long, value_name = "RFC3339", value_parser = inputs::time)]
        at: Option<u64>,
        /// Print what was found as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Compare two policies check by check: is the second stricter or looser than the first?
    #[command(
        after_help = "Compared is what the policies accept, not their text. Exits 0 if that is the same, 4 if it \
        is not, 1 if one of them does not stand.\n\n\
        Example:\n  touchstone policy diff old.toml new.toml --allow-stricter"
    )]
    Diff {
        /// The policy to compare with
        first: PathBuf,
        /// The policy that is compared
        second: PathBuf,
        /// Exit 0 also if the second is stricter in everything that differs
        #[arg(long)]
        allow_stricter: bool,
        /// Compare as of this time instead of now: waivers end
        #[arg(long, value_name = "RFC3339", value_parser = inputs::time)]
        at: Option<u64>,
        /// Print the differences as one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum TeeName {
    SevSnp,
    Tdx,
}

impl TeeName {
    fn tee(self) -> Tee {
        match self {
            TeeName::SevSnp => Tee::SevSnp,
            TeeName::Tdx => Tee::Tdx,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ProfileName {
    /// Try out: any software and any model, loudly, for 30 days
    Explore,
    /// A client that sends prompts and uses the answers at once
    Serve,
    /// Judge kept answers, also years later
    Audit,
    /// Answers that money depends on
    Trade,
}

impl ProfileName {
    fn profile(self) -> Profile {
        match self {
            ProfileName::Explore => Profile::Explore,
            ProfileName::Serve => Profile::Serve,
            ProfileName::Audit => Profile::Audit,
            ProfileName::Trade => Profile::Trade,
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    match args.command {
        Command::Init {
            profile,
            tee,
            manifest_signer,
            threshold,
            manifest_name,
            output,
            json,
        } => {
            let demand = match (threshold, manifest_name) {
                (Some(threshold), Some(name)) => Some(Demand {
                    name,
                    minimum_version: 1,
                    signers: super::manifest::signers(&manifest_signer, threshold)?,
                }),
                _ => None,
            };
            init(
                profile.map(ProfileName::profile),
                tee.tee(),
                demand,
                output,
                json,
            )
        }
        Command::Lint { policy, at, json } => {
            let found = lint(&inputs::policy(&policy)?, inputs::at(at)?.time);
            Ok(linted(&policy, &found, json))
        }
        Command::Diff {
            first,
            second,
            allow_stricter,
            at,
            json,
        } => {
            let (a, b) = (inputs::policy(&first)?, inputs::policy(&second)?);
            let found = diff(&a, &b, inputs::at(at)?.time);
            Ok(compared([&first, &second], &found, allow_stricter, json))
        }
    }
}

fn init(
    profile: Option<Profile>,
    tee: Tee,
    demand: Option<Demand>,
    output: Option<PathBuf>,
    json: bool,
) -> Result<Outcome, Failure> {
    let now = inputs::now()?;
    let mut text = match profile {
        None => template(tee),
        Some(profile) => profile.text(tee, now),
    };
    if let Some(demand) = &demand {
        if profile == Some(Profile::Explore) {
            return Err(
                anyhow!("explore accepts any software: it leaves nothing to a manifest").into(),
            );
        }
        text = by_manifest(&text, demand);
        Policy::parse(&text)
            .map_err(|error| anyhow!("--manifest-name, --manifest-signer: {error}"))?;
    }
    if let Some(path) = &output {
        files::write_new(path, text.as_bytes())?;
    }
    let what = profile.map_or("strict".to_owned(), Profile::versioned);
    // What has to be filled in is what the policy itself says that it accepts none of.
    let open = Policy::parse(&text).map(|policy| lint(&policy, now));
    let open = open.map_or_else(|_| Vec::new(), |found| found.accepts_none);
    if json {
        let made = json!({
            "v": "touchstone/policy-made/1",
            "exit": 0,
            "profile": what,
            "tee": tee.name(),
            "fill_in": open,
            "wrote": output.as_ref().map(|path| path.display().to_string()),
            "policy": text,
        });
        print(&format!("{made}\n"));
    }
    let Some(path) = output else {
        if !json {
            print(&text);
        }
        return Ok(Outcome::Exit(0));
    };
    let path = path.display();
    let words = match open.as_slice() {
        [] => format!(
            "wrote {path}: {what}. {}\n",
            profile.map_or("", Profile::summary)
        ),
        open => format!(
            "wrote {path}: {what}, and refusing everything until you fill in what you expect: {}\n",
            open.join(", ")
        ),
    };
    say(&words);
    Ok(Outcome::Exit(0))
}

/// What `lint` found, in words or as JSON, and the exit code.
fn linted(path: &Path, found: &Lint, json: bool) -> Outcome {
    #[derive(Serialize)]
    struct Wire<'a> {
        v: &'static str,
        fit: bool,
        exit: u8,
        #[serde(flatten)]
        found: &'a Lint,
    }
    let exit = if found.fit() { 0 } else { 4 };
    if json {
        let wire = Wire {
            v: "touchstone/policy-lint/1",
            fit: found.fit(),
            exit,
            found,
        };
        print(&(json!(wire).to_string() + "\n"));
    } else {
        let words = lint_words(path, found);
        print(&paint(&words, exit, std::io::stdout().is_terminal()));
    }
    Outcome::Exit(exit)
}

fn lint_words(path: &Path, found: &Lint) -> String {
    let mut out = Lines::default();
    let verdict = if found.fit() {
        "FIT TO JUDGE BY"
    } else {
        "ACCEPTS ANYTHING"
    };
    out.add(format!(
        "{verdict}: {} (profile {})",
        path.display(),
        found.profile
    ));
    for finding in &found.findings {
        let level = match finding.level {
            Level::Refuse => "REFUSED",
            Level::Weak => "weak",
            Level::Note => "note",
        };
        out.add(format!("{level}: {}: {}", finding.key, finding.words));
    }
    for part in &found.weakest {
        let tee = part.tee.map(|tee| format!(" ({tee})")).unwrap_or_default();
        out.add(String::new());
        out.add(format!("The weakest that it accepts, {}{tee}:", part.part));
        for aspect in &part.accepts {
            out.add(format!("  {}: {}", aspect.aspect, aspect.words));
        }
    }
    if !found.waived.is_empty() {
        out.add(String::new());
        out.add("Waived:".to_owned());
    }
    for waived in &found.waived {
        let until = match (&waived.until, waived.ended) {
            (None, _) => "without end".to_owned(),
            (Some(day), false) => format!("until {day}"),
            (Some(day), true) => format!("ended on {day}: refuses everything"),
        };
        out.add(format!("  {} ({until}): {}", waived.key, waived.reason));
    }
    out.add(String::new());
    out.add("It does not protect from, among others:".to_owned());
    for (n, words) in found.not_protected.iter().enumerate() {
        out.add(format!("  {}. {words}", n + 1));
    }
    out.0
}

/// Lines for a terminal. A policy may be somebody else's: no control character of its texts gets out.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, line: String) {
        self.0.push_str(&printable(&line));
        self.0.push('\n');
    }
}

/// What `diff` found, in words or as JSON, and the exit code.
fn compared(paths: [&Path; 2], found: &Diff, allow_stricter: bool, json: bool) -> Outcome {
    #[derive(Serialize)]
    struct Wire<'a> {
        v: &'static str,
        exit: u8,
        #[serde(flatten)]
        found: &'a Diff,
    }
    let exit = match found.relation {
        Relation::Same => 0,
        Relation::Stricter if allow_stricter => 0,
        _ => 4,
    };
    if json {
        let wire = Wire {
            v: "touchstone/policy-diff/1",
            exit,
            found,
        };
        print(&(json!(wire).to_string() + "\n"));
    } else {
        let words = diff_words(paths, found);
        print(&paint(&words, exit, std::io::stdout().is_terminal()));
    }
    Outcome::Exit(exit)
}

fn diff_words([first, second]: [&Path; 2], found: &Diff) -> String {
    let mut out = Lines::default();
    let (first, second) = (first.display(), second.display());
    out.add(match found.relation {
        Relation::Same => format!("SAME: {second} accepts what {first} accepts"),
        Relation::Stricter => {
            format!("STRICTER: {second} asks for more than {first} in everything that differs")
        }
        Relation::Looser => {
            format!("LOOSER: {second} asks for less than {first} in everything that differs")
        }
        Relation::Incomparable => {
            format!("INCOMPARABLE: {second} accepts things that {first} refuses, and refuses others that it accepts")
        }
    });
    for difference in &found.differences {
        let Difference {
            key,
            platform,
            relation,
            before,
            after,
            change,
        } = difference;
        let place = match platform {
            None => String::new(),
            Some((Some(a), Some(b))) if a == b => format!(" [platform {a}]"),
            Some((Some(a), Some(b))) => format!(" [platform {a}, then {b}]"),
            Some((Some(n), None)) => format!(" [{n} of the first]"),
            Some((_, n)) => format!(" [{} of the second]", n.unwrap_or_default()),
        };
        let relation = match relation {
            Relation::Same => "same in effect".to_owned(),
            other => other.to_string(),
        };
        out.add(format!("{relation}: {key}{place}"));
        out.add(format!("  - {before}"));
        out.add(format!("  + {after}"));
        if let Some(change) = change {
            out.add(format!("    {change}"));
        }
    }
    out.0
}
