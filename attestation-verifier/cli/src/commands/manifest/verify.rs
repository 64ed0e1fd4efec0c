//! `touchstone manifest verify`: whether a manifest is one that the caller's signers stand for, now.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use attestation_verifier::dates::rfc3339;
use attestation_verifier::manifest::{
    Authentic, Demand, MAX_FILE, MinimumTcb, NotAuthentic, Signer, Signers,
};
use serde_json::{Value, json};

use super::public_key;
use super::state::State;
use crate::output::{Failure, Outcome, clean, print, say};
use crate::{files, inputs};

/// Say whether a manifest is authentic, in force, and no step back
///
/// Exits 0 if it is, 2 if it is malformed, 3 if a signature is not authentic or nobody you named signed, 5 if it is
/// expired or issued in the future, 4 if too few signed, if its name or version is not what you demand, or if a newer
/// version was accepted before.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  touchstone manifest verify manifest.jsonl --signer alice=alice.pub.pem \
    --signer bob=bob.pub.pem --threshold 2 --state accepted.json"
)]
#[command(group = clap::ArgGroup::new("by").required(true).args(["policy", "signers"]))]
pub struct Args {
    /// Manifest file
    file: PathBuf,
    /// Policy whose `[manifest]` says name, least version, signers and threshold
    #[arg(long, value_name = "P.toml", conflicts_with_all = ["signers", "threshold", "name"])]
    policy: Option<PathBuf>,
    /// A signer: what you call him, and his public key; repeat for each
    #[arg(long = "signer", value_name = "NAME=PUB.pem", value_parser = signer, requires = "threshold")]
    signers: Vec<(String, PathBuf)>,
    /// How many of the signers must have signed
    #[arg(long, value_name = "N", requires = "signers")]
    threshold: Option<usize>,
    /// The name that the manifest must have
    #[arg(long, value_name = "NAME", requires = "signers")]
    name: Option<String>,
    /// File that remembers accepted versions: refuses older ones, is made at first use and raised when all holds
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Judge at this time instead of now
    #[arg(long, value_name = "RFC3339", value_parser = inputs::time)]
    at: Option<u64>,
    /// Print what was found as one JSON object
    #[arg(long)]
    json: bool,
}

/// Reads `NAME=PUB.pem`.
pub fn signer(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), path.into()))
        }
        _ => Err("expected NAME=PUB.pem".into()),
    }
}

/// One thing that is wrong.
struct Fault {
    exit: u8,
    id: &'static str,
    reason: String,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let at = inputs::at(args.at)?;
    let (demand, signers) = demanded(&args)?;
    let file = files::read_prefix(&args.file, "manifest", MAX_FILE as u64)?;
    let authentic = match Authentic::read(&file, &signers) {
        Ok(authentic) => authentic,
        Err(error) => return Ok(refused(&args, &error)),
    };
    let mut state = args.state.as_deref().map(State::open).transpose()?;
    let manifest = authentic.manifest();
    let mut faults = Vec::new();
    if let Err(error) = authentic.validity(at.time) {
        faults.push(Fault {
            exit: 5,
            id: "manifest.validity",
            reason: error.to_string(),
        });
    }
    let mut refuse = |id, reason| {
        faults.push(Fault {
            exit: 4,
            id,
            reason,
        });
    };
    for refused in demand.iter().flat_map(|demand| demand.refuses(manifest)) {
        refuse(refused.id(), refused.to_string());
    }
    if let Some(expected) = args.name.as_ref().filter(|name| **name != manifest.name) {
        let found = &manifest.name;
        let reason = format!("it is named {found:?}, and {expected:?} is demanded");
        refuse("manifest.name", reason);
    }
    if let Some(Err(error)) = state.as_ref().map(|state| state.accepted.check(&authentic)) {
        refuse("manifest.version", error.to_string());
    }
    let mut notes = String::new();
    if let Some(state) = state.as_mut().filter(|_| faults.is_empty()) {
        let path = state_path(&args);
        if state
            .accepted
            .accept(&authentic)
            .map_err(|error| anyhow!("state {path}: {error}"))?
        {
            state.write()?;
            notes = match state.first {
                true => format!(
                    "note: {path} did not exist: this is the first version that it remembers\n"
                ),
                false => format!(
                    "{path}: version {} is the highest accepted now\n",
                    manifest.version
                ),
            };
        }
    }
    let exit = faults.first().map_or(0, |fault| fault.exit);
    let said = json!({
        "manifest": manifest.name,
        "version": manifest.version,
        "sha256": authentic.digest(),
        "issued": rfc3339(manifest.issued),
        "not_after": rfc3339(manifest.not_after),
        "signed_by": authentic.signed_by(),
        "threshold": authentic.threshold(),
        "signers": authentic.signers(),
        "unknown_signatures": authentic.unknown(),
        "releases": releases(&authentic, at.time),
        "models": models(&authentic),
    });
    let words = match exit {
        0 => holds(&authentic, at.time) + &notes,
        _ => refusal(&faults) + &holds(&authentic, at.time),
    };
    Ok(tell(&args, exit, &faults, said, &words))
}

fn state_path(args: &Args) -> String {
    let path = args.state.as_deref().unwrap_or(Path::new(""));
    path.display().to_string()
}

/// What the caller demands: of a policy everything, of arguments the signers.
fn demanded(args: &Args) -> Result<(Option<Demand>, Signers), Failure> {
    let Some(path) = &args.policy else {
        let threshold = args.threshold.unwrap_or_default();
        return Ok((None, signers(&args.signers, threshold)?));
    };
    let demand = demand(path).map_err(|error| Failure::unfit("policy.file", error))?;
    let signers = demand.signers.clone();
    Ok((Some(demand), signers))
}

/// Reads the keys of signers that were named on the command line.
pub fn signers(named: &[(String, PathBuf)], threshold: usize) -> anyhow::Result<Signers> {
    let keys = named.iter().map(|(name, path)| {
        let key = public_key(path).with_context(|| format!("signer {name}"))?;
        let name = name.clone();
        Ok(Signer { name, key })
    });
    let keys = keys.collect::<anyhow::Result<Vec<Signer>>>()?;
    Ok(Signers::new(keys, threshold)?)
}

/// The table `[manifest]` of a policy. Nothing else in it is about manifests, and nothing else is looked at.
pub fn demand(path: &Path) -> anyhow::Result<Demand> {
    let text = files::read_text(path, "policy", files::MAX_TEXT)?;
    let what = || format!("policy {}", path.display());
    Demand::from_policy(&text).with_context(what)
}

/// What cannot be believed is not repeated.
fn refused(args: &Args, error: &NotAuthentic) -> Outcome {
    let faults = [Fault {
        exit: error.exit(),
        id: error.id(),
        reason: error.to_string(),
    }];
    let said = match error {
        NotAuthentic::BelowThreshold {
            signed_by,
            threshold,
            signers,
        } => json!({ "signed_by": signed_by, "threshold": threshold, "signers": signers }),
        _ => json!({}),
    };
    tell(args, error.exit(), &faults, said, &refusal(&faults))
}

fn refusal(faults: &[Fault]) -> String {
    let mut words = String::new();
    for (index, Fault { exit, id, reason }) in faults.iter().enumerate() {
        let word = match exit {
            2 => "MALFORMED",
            3 => "NOT AUTHENTIC",
            5 => "EXPIRED",
            _ => "REFUSED",
        };
        let word = if index == 0 { word } else { "also" };
        words += &format!("{word}: {id}: {reason}\n");
    }
    words
}

fn tell(args: &Args, exit: u8, faults: &[Fault], mut said: Value, words: &str) -> Outcome {
    let words = clean(words);
    if !args.json {
        print(&words);
        return Outcome::Exit(exit);
    }
    let faults: Vec<Value> = faults
        .iter()
        .map(|fault| json!({ "id": fault.id, "exit": fault.exit, "reason": fault.reason }))
        .collect();
    if let Some(object) = said.as_object_mut() {
        object.insert("v".into(), json!("touchstone/manifest-verify/1"));
        object.insert("exit".into(), json!(exit));
        let deciding = faults.first().map(|fault| fault["id"].clone());
        object.insert("deciding".into(), json!(deciding));
        object.insert("faults".into(), json!(faults));
    }
    print(&(said.to_string() + "\n"));
    say(&words);
    Outcome::Exit(exit)
}

fn holds(authentic: &Authentic, at: u64) -> String {
    let manifest = authentic.manifest();
    let (by, signers) = (authentic.signed_by(), authentic.signers());
    let mut words = format!(
        "AUTHENTIC: {} version {}, signed by {} of {signers} ({}), {} demanded; until {}\n",
        manifest.name,
        manifest.version,
        by.len(),
        by.join(", "),
        authentic.threshold(),
        rfc3339(manifest.not_after)
    );
    words += &format!("  sha256 {}\n", authentic.digest());
    if authentic.unknown() > 0 {
        let n = authentic.unknown();
        words += &format!("  {n} signatures by keys that you did not name say nothing\n");
    }
    for release in &manifest.releases {
        let end = rfc3339(release.not_after);
        let ended = if release.ended(at) { ", ENDED" } else { "" };
        words += &format!("  release {} until {end}{ended}\n", release.release);
        for platform in &release.platforms {
            words += &format!(
                "    {}: {}, {}, os_binding {}, quotes {}, {} measurements, minimum TCB {}\n",
                platform.name,
                platform.tee.name(),
                platform.vmm,
                platform.os_binding.name(),
                platform.quote_source.name(),
                platform.measurements.len(),
                minimum(&platform.minimum_tcb)
            );
            for i in &platform.ingredients {
                let (role, origin) = (i.role.name(), i.origin.name());
                words += &format!("      {role} {} {origin}, {}\n", i.name, i.source);
            }
        }
    }
    for model in &manifest.models {
        let (name, version, digest) = (&model.name, &model.version, model.model_digest);
        words += &format!("  model {name} version {version}: {digest}\n");
    }
    words
}

fn minimum(tcb: &MinimumTcb) -> String {
    serde_json::to_string(tcb).unwrap_or_default()
}

fn releases(authentic: &Authentic, at: u64) -> Vec<Value> {
    let releases = authentic.manifest().releases.iter();
    releases
        .map(|release| {
            let mut value = json!(release);
            if let Some(object) = value.as_object_mut() {
                object.insert("ended".into(), json!(release.ended(at)));
            }
            value
        })
        .collect()
}

fn models(authentic: &Authentic) -> Value {
    json!(authentic.manifest().models)
}
