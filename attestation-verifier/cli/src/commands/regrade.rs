//! `touchstone regrade`: judges kept bundles again under a signed list of notices.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use attestation_verifier::dates::rfc3339;
use attestation_verifier::regrade::{Advisories, SIGNED_LIST_LIMIT, receipt_time};
use attestation_verifier::verdict::{Verdict, usage};
use attestation_verifier::{At, Comparison, Verifier};
use serde_json::{Value, json};
use touchstone_formats::limits::MAX_BUNDLE;
use touchstone_formats::{Digest, LogKey};

use crate::inputs::ManifestFiles;
use crate::output::{Failure, Outcome, clean, print, print_painted};
use crate::{files, inputs};

/// Judge old bundles again, under a signed list of notices
///
/// Each bundle is judged by the policy alone and with the notices: one that is about its platform, at the time of
/// its receipt, refuses it (exit 4, check advisories.notice). The receipt alone is judged, as with `check --receipt-only`. The
/// exit code is the worst of all bundles, in the order 1, 2, 3, 5, 4, 6, 0.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  touchstone regrade archive/*/bundle.json --policy audit.toml --at-receipt \
    --advisories notices.txt --advisories-key advisories.example+1f2e3d4c+AZ… --advisories-min-version 7"
)]
pub struct Args {
    /// Bundle files, or folders written by `ask`
    #[arg(value_name = "DIR|BUNDLE", required = true)]
    bundles: Vec<PathBuf>,
    /// The signed list of notices
    #[arg(long, value_name = "FILE")]
    advisories: PathBuf,
    /// The key that must have signed it: a C2SP verifier key, or a file with one
    #[arg(long, value_name = "KEY|FILE")]
    advisories_key: String,
    /// Refuse a list that is older than this version: the highest you have seen
    #[arg(long, value_name = "N")]
    advisories_min_version: Option<u64>,
    /// Policy file
    #[arg(long, value_name = "P.toml")]
    policy: PathBuf,
    /// Judge at this time instead of now
    #[arg(long, value_name = "RFC3339", value_parser = inputs::time)]
    at: Option<u64>,
    /// Judge each bundle at the time that its own receipt states; nothing vouches for that time
    #[arg(long, conflicts_with = "at")]
    at_receipt: bool,
    /// Root certificates of a simulated platform (PEM), trusted beside the pinned ones
    #[arg(long, value_name = "FILE")]
    trust_simulated_root: Option<PathBuf>,
    #[command(flatten)]
    manifests: ManifestFiles,
    /// A simulated platform is what you want: exit 0 instead of 6
    #[arg(long, requires = "trust_simulated_root")]
    expect_simulated: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let key = key(&args.advisories_key)?;
    let list = files::read_prefix(&args.advisories, "advisories", SIGNED_LIST_LIMIT as u64)?;
    let advisories = Advisories::parse(&list, &key)
        .and_then(|list| list.at_least(args.advisories_min_version.unwrap_or(0)))
        .map_err(|error| Failure {
            fault: error.fault(),
            id: error.id(),
            error: anyhow!("{}: {error}", args.advisories.display()),
        })?;
    let policy = inputs::policy(&args.policy)?;
    let manifests = args.manifests.read(&policy)?;
    let roots = inputs::roots(args.trust_simulated_root.as_deref())?;
    let court = Court {
        advisories,
        verifier: Verifier::new(policy, roots).with_manifests(&manifests),
        comparison: Comparison {
            receipt_only: true,
            expect_simulated: args.expect_simulated,
            ..Comparison::default()
        },
        at: inputs::at(args.at)?,
        at_receipt: args.at_receipt,
    };
    let rows: Vec<Row> = args.bundles.iter().map(|path| court.judge(path)).collect();
    for row in &rows {
        args.manifests.remember(&row.before)?;
    }
    let exit = rows
        .iter()
        .map(|row| row.after.exit())
        .min_by_key(|exit| rank(*exit))
        .unwrap_or(0);
    if args.json {
        print(&(court.json(&list, exit, &rows).to_string() + "\n"));
    } else {
        print_painted(&court.words(exit, &rows), exit);
    }
    Ok(Outcome::Exit(exit))
}

/// Place in the order 1, 2, 3, 5, 4, 6, 0.
fn rank(exit: u8) -> usize {
    let order = [1, 2, 3, 5, 4, 6, 0];
    order.iter().position(|code| *code == exit).unwrap_or(0)
}

/// A verifier key, or a file that holds one.
fn key(given: &str) -> Result<LogKey, Failure> {
    let unfit = |error: anyhow::Error| Failure::from(error.context("--advisories-key"));
    let path = Path::new(given);
    let text = if path.is_file() {
        files::read_text(path, "verifier key", files::MAX_TEXT).map_err(unfit)?
    } else {
        given.to_owned()
    };
    let parsed = text.trim_end().parse();
    parsed.map_err(|error| unfit(anyhow!("neither a file nor a verifier key: {error}")))
}

/// All that bundles are judged by.
struct Court {
    advisories: Advisories,
    verifier: Verifier,
    comparison: Comparison,
    at: At,
    at_receipt: bool,
}

/// A bundle, before and after.
struct Row {
    path: PathBuf,
    issued_at: Option<u64>,
    before: Verdict,
    after: Verdict,
    notices: Vec<String>,
}

impl Court {
    fn judge(&self, path: &Path) -> Row {
        let bundle_path = if path.is_dir() {
            path.join("bundle.json")
        } else {
            path.to_owned()
        };
        let file = match files::read_prefix(&bundle_path, "bundle", MAX_BUNDLE as u64) {
            Ok(file) => file,
            Err(error) => {
                // One that cannot be read does not hide what there is to say of the others.
                let verdict = usage("usage", format!("{error:#}"));
                return Row {
                    path: path.to_owned(),
                    issued_at: None,
                    before: verdict.clone(),
                    after: verdict,
                    notices: Vec::new(),
                };
            }
        };
        let at = match receipt_time(&file) {
            Some(time) if self.at_receipt => At {
                time,
                asserted: true,
            },
            _ => self.at,
        };
        let (list, comparison) = (&self.advisories, &self.comparison);
        let regraded = self.verifier.regrade(&file, list, comparison, at);
        Row {
            path: path.to_owned(),
            issued_at: regraded.issued_at,
            before: regraded.before,
            after: regraded.after,
            notices: regraded.notices,
        }
    }

    fn words(&self, exit: u8, rows: &[Row]) -> String {
        let turned = rows
            .iter()
            .filter(|row| row.before.exit() != row.after.exit())
            .count();
        let list = &self.advisories;
        let mut out = format!(
            "{} bundles, {turned} turned by a notice, exit {exit}\n",
            rows.len()
        );
        out += &clean(&format!(
            "advisories: version {} of {}, signed by {}, {} notices",
            list.version(),
            rfc3339(list.issued_at()),
            list.signer(),
            list.notices().len()
        ));
        out += "\n";
        if self.at_receipt {
            out += "Each is judged at the time that its own receipt states: nothing vouches for it, and a key broken \
                    since could have made this.\n";
        } else if self.at.asserted {
            out += "Time asserted by you; a key broken since could have made this.\n";
        }
        let mut table =
            vec![["bundle", "receipt of", "before", "after", "because"].map(str::to_owned)];
        table.extend(rows.iter().map(|row| {
            let because = match row.after.checks.deciding() {
                Some(check) => format!("{}: {}", check.id, check.reason),
                None => String::new(),
            };
            [
                clean(&row.path.display().to_string()),
                row.issued_at.map_or_else(|| "?".to_owned(), rfc3339),
                word(&row.before),
                word(&row.after),
                clean(&because),
            ]
        }));
        let width = |column: usize| {
            let cells = table.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths = [width(0), width(1), width(2), width(3)];
        for [bundle, time, before, after, because] in &table {
            let [w0, w1, w2, w3] = widths;
            let line =
                format!("{bundle:<w0$}  {time:<w1$}  {before:<w2$}  {after:<w3$}  {because}");
            out += line.trim_end();
            out += "\n";
        }
        out
    }

    fn json(&self, list: &[u8], exit: u8, rows: &[Row]) -> Value {
        let brief = |verdict: &Verdict| {
            json!({
                "verdict": verdict.conclusion.word,
                "exit": verdict.exit(),
                "class": verdict.conclusion.class,
                "deciding": verdict.deciding(),
                "reason": verdict.checks.deciding().map(|check| &check.reason),
            })
        };
        let bundles: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "bundle": row.path.display().to_string(),
                    "issued_at": row.issued_at.map(rfc3339),
                    "at": row.after.at.map(|at| rfc3339(at.time)),
                    "simulated": row.after.context.simulated,
                    "before": brief(&row.before),
                    "after": brief(&row.after),
                    "notices": row.notices,
                })
            })
            .collect();
        json!({
            "v": "touchstone/regrade/1",
            "exit": exit,
            "advisories": {
                "version": self.advisories.version(),
                "issued_at": rfc3339(self.advisories.issued_at()),
                "signed_by": self.advisories.signer(),
                "sha256": Digest::of(list),
            },
            "bundles": bundles,
        })
    }
}

/// `holds (0)`.
fn word(verdict: &Verdict) -> String {
    let word = serde_json::to_value(verdict.conclusion.word).unwrap_or_default();
    format!("{} ({})", word.as_str().unwrap_or("?"), verdict.exit())
}

/// Reads what an author of notices wrote, for `advisories sign`.
pub fn content(path: &Path) -> Result<String, Failure> {
    use attestation_verifier::regrade::ListContent;
    let json = files::read(path, "notices", SIGNED_LIST_LIMIT as u64)?;
    let text = ListContent::parse(&json).and_then(|content| content.text());
    text.map_err(|error| Failure {
        fault: error.fault(),
        id: error.id(),
        error: anyhow!("{}: {error}", path.display()),
    })
}

/// Reads a seed: 64 hex digits.
pub fn seed(path: &Path) -> Result<[u8; 32], Failure> {
    let text = files::read_text(path, "key", 1 << 10)?;
    let bytes = hex::decode(text.trim_end()).ok();
    let seed = bytes.and_then(|bytes| bytes.try_into().ok());
    let expected = "expected an Ed25519 seed: 64 hex digits";
    Ok(seed.with_context(|| format!("key {}: {expected}", path.display()))?)
}
