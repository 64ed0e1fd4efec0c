//! `touchstone check`: judges a bundle.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use attestation_verifier::exchange::{
    Comparison, Expect, RequestBytes, ResponseBytes, ResponseInfo,
};
use attestation_verifier::ohttp::ConnectionRecord;
use attestation_verifier::{At, Binding, Fault, SessionVerdict, Verdict};
use serde_json::Value;
use touchstone_formats::GuaranteeSet;
use touchstone_formats::limits::MAX_BUNDLE;

use crate::files::{self, Disk, Source};
use crate::inputs::{self, Basis, Hex, ManifestFiles, NamedFile};
use crate::output::{Failure, Outcome, Printed};

/// Judge offline whether a kept answer is what its receipt claims
///
/// Give the folder that `ask` wrote, or a bundle file and what you hold against it. A receipt
/// that is not compared with the request and the answer it is about is refused (exit 4), unless
/// you say --receipt-only.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  touchstone check answer --policy policy.toml\n  \
    touchstone check bundle.json --policy policy.toml --request request.bin --method POST \
    --path /v2/models/digits_cnn/infer --response response.bin --status 200 --nonce 5f0c… --json"
)]
pub struct Args {
    /// Folder written by `ask`, or a bundle file
    #[arg(value_name = "DIR|BUNDLE")]
    target: PathBuf,
    /// Policy file
    #[arg(long, value_name = "P.toml")]
    policy: PathBuf,
    #[command(flatten)]
    held: Held,
    #[command(flatten)]
    at: Judging,
    #[command(flatten)]
    printed: Printed,
}

/// What the caller holds against a bundle. Options come before the files of a folder.
#[derive(Clone, clap::Args)]
pub struct Held {
    /// What was asked (expect.json): method, target, nonce, guarantees, digest of the request
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Body of the request, as it was sent
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// HTTP method of the request
    #[arg(long, value_name = "M")]
    method: Option<String>,
    /// Request target, such as /v2/models/digits_cnn/infer
    #[arg(long, value_name = "T")]
    path: Option<String>,
    /// Inference-Header-Content-Length of the request
    #[arg(long, value_name = "N")]
    header_length: Option<u64>,
    /// Body of the answer, as it came
    #[arg(long, value_name = "FILE")]
    response: Option<PathBuf>,
    /// HTTP status of the answer; one outside 200–299 says that you expect this refusal
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(100..=599))]
    status: Option<u16>,
    /// Inference-Header-Content-Length of the answer
    #[arg(long, value_name = "N")]
    response_header_length: Option<u64>,
    /// Record of the connection that the answer came over (session.json); given here, it has to hold
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,
    /// Tensor that was sent (repeat for each; all of them)
    #[arg(long, value_name = "NAME=FILE.npy", value_parser = inputs::named_file)]
    input: Vec<NamedFile>,
    /// Tensor that came back (repeat for each; all of them)
    #[arg(long, value_name = "NAME=FILE.npy", value_parser = inputs::named_file)]
    output: Vec<NamedFile>,
    /// Your nonce
    #[arg(long, value_name = "HEX", value_parser = inputs::hex_bytes)]
    nonce: Option<Hex>,
    /// Guarantees you demand, beside the policy's: "logged signed"
    #[arg(long, value_name = "SET", value_parser = inputs::guarantees)]
    require: Option<GuaranteeSet>,
    /// Judge the receipt alone, without the request and the answer it is about
    #[arg(long)]
    receipt_only: bool,
    /// A simulated platform is what you want: exit 0 instead of 6
    #[arg(long, requires = "trust_simulated_root")]
    expect_simulated: bool,
}

/// When, and under which roots, something is judged.
#[derive(clap::Args)]
pub struct Judging {
    /// Judge at this time instead of now
    #[arg(long, value_name = "RFC3339", value_parser = inputs::time)]
    pub at: Option<u64>,
    /// Root certificates of a simulated platform (PEM), trusted beside the pinned ones
    #[arg(long, value_name = "FILE")]
    pub trust_simulated_root: Option<PathBuf>,
    #[command(flatten)]
    pub manifests: ManifestFiles,
}

impl Held {
    /// The same, and this record of the connection has to hold.
    pub fn demanding_session(&self, record: PathBuf) -> Held {
        Held {
            session: Some(record),
            ..self.clone()
        }
    }

    /// What is held against another answer: nothing that these options say about this one's own request, answer and
    /// connection.
    pub fn of_another(&self) -> Held {
        Held {
            expect: None,
            request: None,
            method: None,
            path: None,
            header_length: None,
            response: None,
            status: self.status,
            response_header_length: None,
            session: None,
            input: Vec::new(),
            output: Vec::new(),
            nonce: None,
            require: self.require,
            receipt_only: self.receipt_only,
            expect_simulated: self.expect_simulated,
        }
    }

    /// Whether an option says anything: none of them has a meaning for anything but a bundle.
    pub fn is_empty(&self) -> bool {
        let Held {
            expect,
            request,
            method,
            path,
            header_length,
            response,
            status,
            response_header_length,
            session,
            input,
            output,
            nonce,
            require,
            receipt_only,
            expect_simulated,
        } = self;
        [expect, request, response, session]
            .iter()
            .all(|f| f.is_none())
            && method.is_none()
            && path.is_none()
            && header_length.is_none()
            && status.is_none()
            && response_header_length.is_none()
            && input.is_empty()
            && output.is_empty()
            && nonce.is_none()
            && require.is_none()
            && !receipt_only
            && !expect_simulated
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let verdict = judge(&args.target, &args.policy, &args.held, &args.at)?;
    Ok(Outcome::Verdict(Box::new(verdict)))
}

/// Judges a folder or a bundle file.
pub fn judge(
    target: &Path,
    policy: &Path,
    args: &Held,
    judging: &Judging,
) -> Result<Verdict, Failure> {
    let basis = Basis::read(policy, judging)?;
    let verdict = judge_from(&Disk, target, &basis, args, || inputs::at(judging.at))?;
    judging.manifests.remember(&verdict)?;
    Ok(verdict)
}

/// As [`judge`], with what is read from `source` and judged by `basis`. `at` is asked when all is read.
pub fn judge_from(
    source: &dyn Source,
    target: &Path,
    basis: &Basis,
    args: &Held,
    at: impl FnOnce() -> Result<At>,
) -> Result<Verdict, Failure> {
    let verifier = basis.verifier();
    let mut comparison = comparison(source, args, target)?;
    let bundle = source.read_prefix(&bundle_path(target), "bundle", MAX_BUNDLE as u64)?;
    let at = at()?;
    let session = session_record(source, args, target)?
        .map(|record| verifier.check_connection_record(&record, at, args.expect_simulated));
    comparison.session = session.as_ref().map(SessionVerdict::bound);
    let mut verdict = verifier.check(&bundle, &comparison, at);
    if let Some(session) = session {
        let expected = basis
            .policy
            .session
            .as_ref()
            .and_then(|s| s.answers.expected());
        let demanded = args.session.is_some()
            || expected.is_some_and(|bindings| !bindings.contains(&Binding::None));
        add_session(&mut verdict, &session.verdict, demanded);
    }
    Ok(verdict)
}

/// What the judgement of the connection adds to that of the answer. A record that binds nothing refuses by what it
/// was refused itself where it was demanded (by the policy, or by naming it); else the verdict says why.
fn add_session(verdict: &mut Verdict, session: &Verdict, demanded: bool) {
    const OTHER: &str =
        "the record of the connection is of another keyset than the one this receipt proves";
    let risks = &mut verdict.context.residual_risks;
    if verdict.context.binding != Binding::None {
        for risk in &session.context.residual_risks {
            if !risks.contains(risk) {
                risks.push(risk.clone());
            }
        }
        return;
    }
    match (session.checks.deciding(), demanded) {
        (None, false) => risks.push(format!("{OTHER}: it binds nothing")),
        (Some(check), false) => risks.push(format!(
            "the record of the connection does not hold, and binds nothing ({}: {})",
            check.id, check.reason
        )),
        (None, true) => {
            let (id, null) = ("session.binding", Value::Null);
            verdict
                .checks
                .fail(id, Fault::Policy, null.clone(), null, OTHER);
        }
        (Some(_), true) => {
            let refusing = session.checks.iter().filter(|c| c.refuses());
            refusing.for_each(|check| verdict.checks.push(check.clone()));
        }
    }
    let context = &verdict.context;
    verdict.conclusion = verdict
        .checks
        .conclude(context.simulated, context.expect_simulated);
}

fn folder(target: &Path) -> Option<&Path> {
    target.is_dir().then_some(target)
}

/// The bundle of a folder; or the file itself.
pub fn bundle_path(target: &Path) -> PathBuf {
    folder(target).map_or(target.to_owned(), |folder| folder.join("bundle.json"))
}

/// The record of the connection: what was named, or what `ask` kept. Plaintext has none.
pub fn session_file(source: &dyn Source, args: &Held, target: &Path) -> Option<PathBuf> {
    let kept = || folder(target).map(|folder| folder.join("session.json"));
    args.session
        .clone()
        .or_else(|| kept().filter(|path| source.exists(path)))
}

/// Reads that record.
pub fn session_record(
    source: &dyn Source,
    args: &Held,
    target: &Path,
) -> Result<Option<ConnectionRecord>, Failure> {
    session_file(source, args, target)
        .map(|path| record(source, &path, "session.format", ConnectionRecord::parse))
        .transpose()
}

/// What the caller holds: the files of a folder, and the options, which come first. What the connection was bound to is
/// not in it: that is judged.
pub fn comparison(source: &dyn Source, args: &Held, target: &Path) -> Result<Comparison, Failure> {
    let folder = folder(target);
    // Who judges the receipt alone has the folder's files neither compared nor missed. What was demanded
    // stays demanded: a record that is there counts, or a stripped guarantee would go unnoticed.
    let kept_record = folder
        .map(|folder| folder.join("expect.json"))
        .filter(|path| !args.receipt_only || source.exists(path));
    let folder = folder.filter(|_| !args.receipt_only);
    let in_folder = |given: &Option<PathBuf>, name: &str| {
        given
            .clone()
            .or_else(|| folder.map(|folder| folder.join(name)))
    };
    let expect = args.expect.clone().or(kept_record);
    let expect = expect
        .map(|path| record(source, &path, "expect.format", Expect::parse))
        .transpose()?;
    let request = in_folder(&args.request, "request.bin");
    let response = in_folder(&args.response, "response.bin");
    // The folder's own record is not needed where the options say all of it.
    let info = match (folder, args.status) {
        (Some(folder), None) => Some(folder.join("response.json")),
        (Some(folder), Some(_)) if args.response.is_none() => Some(folder.join("response.json")),
        _ => None,
    };
    let info = info
        .map(|path| record(source, &path, "response.format", ResponseInfo::parse))
        .transpose()?;

    let tensors = |named: &[NamedFile]| {
        if named.is_empty() {
            Ok(None)
        } else {
            inputs::tensors_from(source, named).map(Some)
        }
    };
    let demanded = expect.as_ref().and_then(|e| e.require);
    Ok(Comparison {
        request: request_bytes(source, args, request.as_deref(), expect.as_ref())?,
        request_sha256: expect.as_ref().map(|e| e.request_sha256),
        response: response_bytes(source, args, response.as_deref(), info.as_ref())?,
        inputs: tensors(&args.input)?,
        outputs: tensors(&args.output)?,
        nonce: match &args.nonce {
            Some(nonce) => Some(nonce.0.clone()),
            None => expect.and_then(|e| e.nonce).map(|nonce| nonce.0),
        },
        require: match (demanded, args.require) {
            (Some(a), Some(b)) => Some(a.union(&b)),
            (a, b) => a.or(b),
        },
        receipt_only: args.receipt_only,
        expect_simulated: args.expect_simulated,
        expected_status: args
            .status
            .filter(|status| !(200..300).contains(status))
            .unwrap_or(0),
        // Judged by itself, before the bundle.
        session: None,
    })
}

/// Reads one of the JSON files that `ask` writes.
fn record<T>(
    source: &dyn Source,
    path: &Path,
    id: &'static str,
    parse: impl Fn(&[u8]) -> touchstone_formats::Result<T>,
) -> Result<T, Failure> {
    // Each has its own bound, none a larger one than a bundle.
    let file = source.read_prefix(path, "record", MAX_BUNDLE as u64)?;
    parse(&file).map_err(|error| Failure::malformed(id, anyhow!("{}: {error}", path.display())))
}

fn request_bytes(
    source: &dyn Source,
    args: &Held,
    body: Option<&Path>,
    expect: Option<&Expect>,
) -> Result<Option<RequestBytes>> {
    let Some(body) = body else {
        if args.method.is_some() || args.path.is_some() || args.header_length.is_some() {
            bail!("--method, --path and --header-length describe a request: give --request FILE");
        }
        return Ok(None);
    };
    let missing = |flag| format!("--request needs {flag} (or --expect FILE, which says it)");
    Ok(Some(RequestBytes {
        method: args
            .method
            .clone()
            .or_else(|| expect.map(|e| e.method.clone()))
            .with_context(|| missing("--method M"))?,
        target: args
            .path
            .clone()
            .or_else(|| expect.map(|e| e.target.clone()))
            .with_context(|| missing("--path T"))?,
        header_length: args
            .header_length
            .or_else(|| expect.and_then(|e| e.header_length)),
        body: source.read(body, "request", files::MAX_BODY)?,
    }))
}

fn response_bytes(
    source: &dyn Source,
    args: &Held,
    body: Option<&Path>,
    info: Option<&ResponseInfo>,
) -> Result<Option<ResponseBytes>> {
    let Some(body) = body else {
        if args.response_header_length.is_some() {
            bail!("--response-header-length describes an answer: give --response FILE");
        }
        return Ok(None);
    };
    Ok(Some(ResponseBytes {
        status: args
            .status
            .or(info.map(|i| i.status))
            .context("--response needs --status N, the answer's HTTP status")?,
        header_length: args
            .response_header_length
            .or(info.and_then(|i| i.header_length)),
        body: source.read(body, "response", files::MAX_BODY)?,
    }))
}
