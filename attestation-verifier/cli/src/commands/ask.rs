//! `touchstone ask`: asks, and keeps all that is needed to judge the answer later.
//!
//! What is asked is on disk before it is sent: the caller's own record is what a receipt is
//! measured against, so no answer may have a part in it. Nothing is judged here.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use attestation_verifier::exchange::{
    Expect, ExpectVersion, OwnedTensor, ResponseInfo, ResponseVersion, tensors as tensors_digest,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use ring::rand::{SecureRandom, SystemRandom};
use touchstone_formats::commitment::{request_digest, response_digest};
use touchstone_formats::headers::{OpeningSalts, TouchstoneRequest, TouchstoneResponse};
use touchstone_formats::limits::MAX_BUNDLE;
use touchstone_formats::text::{HexBytes, hex_encode};
use touchstone_formats::{Bundle, Digest, GuaranteeSet, Opening, Openings, Receipt, Salt};

use crate::files;
use crate::http::{Answer, Server};
use crate::inputs::{self, NamedFile};
use crate::oip::{self, Body, Encoding};
use crate::output::{Failure, Outcome, print, say};

/// How long a server may hold a question for a receipt.
const MAX_HOLD: Duration = Duration::from_secs(10);

/// The files of a folder, in the order in which they are written.
const FOLDER: [&str; 5] = [
    "request.bin",
    "expect.json",
    "response.bin",
    "response.json",
    "bundle.json",
];

/// Ask a model about tensors, and keep the answer with its receipt
///
/// Writes request.bin and expect.json (before anything is sent), response.bin, response.json and
/// bundle.json into a folder. Nothing is judged: that is what `check` is for.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  touchstone ask http://127.0.0.1:8080 digits_cnn \
    --input image=digits.npy --policy policy.toml -o answer\n  \
    touchstone check answer --policy policy.toml\n\n\
    Exit codes: 0 answered, sealed and kept · 1 usage or I/O · 2 the server's answer is malformed · \
    4 refused by the server, or not sealed in time (kept as it is)"
)]
pub struct Args {
    /// Server: http://HOST or http://HOST:PORT
    url: String,
    /// Model to ask
    model: String,
    /// Version of the model; the server's choice without it
    #[arg(long, value_name = "V")]
    model_version: Option<String>,
    /// Input tensor (repeat for each)
    #[arg(long, value_name = "NAME=FILE.npy", required = true, value_parser = inputs::named_file)]
    input: Vec<NamedFile>,
    /// Policy the answer will be judged by; says which guarantees to ask for
    #[arg(long, value_name = "P.toml")]
    policy: PathBuf,
    /// Guarantees to ask for instead of the policy's: "logged signed"
    #[arg(long, value_name = "SET", value_parser = inputs::guarantees)]
    require: Option<GuaranteeSet>,
    /// Seconds to wait for what was asked to hold (the seal)
    #[arg(long, value_name = "S", default_value_t = 30)]
    wait: u64,
    /// Seconds to wait for the answer itself
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Send tensors in the binary extension (the default)
    #[arg(long, conflicts_with = "json_encoding")]
    binary: bool,
    /// Send and receive tensors as JSON
    #[arg(long)]
    json_encoding: bool,
    /// Folder to write
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Replace the files of an earlier answer in the folder
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let policy = inputs::policy(&args.policy)?;
    let server = Server::parse(&args.url)?;
    let require = args.require.unwrap_or(policy.answer.require);
    if !require.is_superset(&policy.answer.require) {
        say(&format!(
            "note: the policy demands {}; asking for {require} alone may not satisfy it\n",
            policy.answer.require
        ));
    }
    let tensors = inputs::tensors(&args.input)?;
    let encoding = if args.json_encoding {
        Encoding::Json
    } else {
        Encoding::Binary
    };
    let body = oip::request(&tensors, encoding)?;
    let target = oip::target(&args.model, args.model_version.as_deref());
    let mut nonce = vec![0; 32];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| anyhow!("no randomness for a nonce"))?;

    let expect = Expect {
        v: ExpectVersion::One,
        method: "POST".into(),
        target,
        header_length: body.header_length,
        model: args.model.clone(),
        nonce: Some(HexBytes(nonce)),
        require: Some(require),
        request_sha256: Digest::of(&body.bytes),
        asked_at: inputs::now()?,
    };
    let folder = Folder::create(&args.output, args.force)?;
    folder.write("request.bin", &body.bytes)?;
    folder.write(
        "expect.json",
        &expect.to_file().map_err(anyhow::Error::from)?,
    )?;

    let asking = Asking {
        server,
        folder,
        tensors,
        body,
        expect,
        require,
        args,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("cannot start the I/O runtime")?;
    runtime.block_on(asking.ask())
}

/// The folder that is written.
struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, or takes an empty one; with `force` an earlier answer in it goes.
    fn create(path: &Path, force: bool) -> Result<Folder> {
        let name = path.display();
        std::fs::create_dir_all(path).with_context(|| format!("cannot create folder {name}"))?;
        let mut entries =
            std::fs::read_dir(path).with_context(|| format!("cannot read folder {name}"))?;
        if entries.next().is_some() {
            ensure!(
                force,
                "folder {name} is not empty; give another, or --force to replace the answer in it"
            );
            for file in FOLDER {
                let file = path.join(file);
                if file.exists() {
                    std::fs::remove_file(&file)
                        .with_context(|| format!("cannot remove {}", file.display()))?;
                }
            }
        }
        Ok(Folder(path.to_owned()))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        files::write(&self.0.join(name), bytes)
    }
}

/// One question, and where everything about it goes.
struct Asking {
    server: Server,
    folder: Folder,
    tensors: Vec<OwnedTensor>,
    body: Body,
    expect: Expect,
    require: GuaranteeSet,
    args: Args,
}

/// How far a bundle has come.
enum Progress {
    /// All that was asked for holds, says the server.
    Complete(Bundle),
    /// It does not yet; the bundle as it is, if there is one.
    Incomplete(Option<Bundle>, String),
}

impl Asking {
    async fn ask(&self) -> Result<Outcome, Failure> {
        let started = Instant::now();
        let answer = self.send().await?;
        let header_length = content_length(&answer).map_err(malformed)?;
        self.folder.write("response.bin", &answer.body)?;
        let info = ResponseInfo {
            v: ResponseVersion::One,
            status: answer.status,
            header_length,
        };
        self.folder.write(
            "response.json",
            &info.to_file().map_err(anyhow::Error::from)?,
        )?;
        let answered = (200..300).contains(&answer.status);
        if answered {
            framing(&answer, header_length).map_err(malformed)?;
        }
        say(&format!(
            "{} after {} ms: status {}, {} bytes\n",
            if answered { "answered" } else { "refused" },
            started.elapsed().as_millis(),
            answer.status,
            answer.body.len()
        ));
        if !answered {
            say(&problem(&answer.body));
        }

        let Some(header) = answer.header("touchstone").map_err(malformed)? else {
            if answered {
                return Err(malformed(anyhow!(
                    "the answer has no Touchstone header: this server gives no receipts"
                )));
            }
            print(&format!(
                "refused without a receipt; kept in {}\n",
                self.folder.0.display()
            ));
            return Ok(Outcome::Exit(4));
        };
        let header = TouchstoneResponse::parse(header)
            .map_err(|e| malformed(anyhow!("header Touchstone: {e}")))?;
        let salts = match answer.header("touchstone-openings").map_err(malformed)? {
            None => None,
            Some(text) => Some(
                OpeningSalts::parse(text)
                    .map_err(|e| malformed(anyhow!("header Touchstone-Openings: {e}")))?,
            ),
        };
        if salts.is_none() {
            say("note: the answer came without openings; it cannot be compared with its receipt\n");
        }
        if header.require != self.require {
            say(&format!(
                "note: asked for {}, and the answer says {}\n",
                self.require, header.require
            ));
        }
        let openings = salts.map_or_else(Openings::default, |s| self.openings(&s, &answer, &info));
        self.keep(&hex_encode(&header.id), openings, answered).await
    }

    async fn send(&self) -> Result<Answer> {
        let header = TouchstoneRequest {
            require: Some(self.require),
            nonce: self.expect.nonce.as_ref().map(|nonce| nonce.0.clone()),
        };
        let mut request = self
            .request("POST", &self.expect.target)
            .header("content-type", self.body.content_type())
            .header("touchstone", header.to_string());
        if let Some(length) = self.body.header_length {
            request = request.header("inference-header-content-length", length);
        }
        let request = request.body(Full::new(Bytes::from(self.body.bytes.clone())))?;
        let timeout = Duration::from_secs(self.args.timeout);
        self.server
            .send(request, files::MAX_BODY as usize, timeout)
            .await
    }

    fn request(&self, method: &str, target: &str) -> hyper::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(target)
            .header("host", &self.server.authority)
            .header(
                "user-agent",
                concat!("touchstone/", env!("CARGO_PKG_VERSION")),
            )
    }

    /// The salts that came with the answer, and digests of the caller's own bytes.
    fn openings(&self, salts: &OpeningSalts, answer: &Answer, info: &ResponseInfo) -> Openings {
        let open = |salt: Option<Salt>, digest: Digest| salt.map(|salt| Opening { salt, digest });
        let e = &self.expect;
        let request = request_digest(&e.method, &e.target, e.header_length, &self.body.bytes);
        let response = response_digest(info.status, info.header_length, &answer.body);
        let mut openings = Openings {
            request: open(salts.request, request),
            response: open(salts.response, response),
            ..Openings::default()
        };
        // A refusal commits to no tensors.
        if !(200..300).contains(&info.status) {
            return openings;
        }
        if let Ok(digest) = tensors_digest(&self.tensors) {
            openings.inputs = open(salts.inputs, digest);
        }
        if salts.outputs.is_some() {
            let outputs = oip::outputs(&answer.body, info.header_length)
                .and_then(|outputs| Ok(tensors_digest(&outputs)?));
            match outputs {
                Ok(digest) => openings.outputs = open(salts.outputs, digest),
                Err(e) => say(&format!("note: outputs are not opened: {e:#}\n")),
            }
        }
        openings
    }

    /// Waits for the bundle, adds the openings, and writes it.
    async fn keep(&self, id: &str, openings: Openings, answered: bool) -> Result<Outcome, Failure> {
        let (bundle, unfinished) = match self.poll(id).await? {
            Progress::Complete(bundle) => (Some(bundle), None),
            Progress::Incomplete(bundle, why) => (bundle, Some(why)),
        };
        if let Some(mut bundle) = bundle {
            bundle.openings = openings;
            self.folder.write("bundle.json", &bundle.to_file())?;
        } else {
            say("note: the server gave no bundle; there is nothing to check yet\n");
        }
        if let Some(why) = &unfinished {
            say(&format!("not complete: {why}\n"));
        }
        let folder = self.folder.0.display();
        print(&format!(
            "kept in {folder}, not judged; judge it with:\n  touchstone check {folder} --policy {}\n",
            self.args.policy.display()
        ));
        Ok(Outcome::Exit(if answered && unfinished.is_none() {
            0
        } else {
            4
        }))
    }

    /// Asks for the receipt's bundle until all that was asked for holds, or time is up.
    async fn poll(&self, id: &str) -> Result<Progress, Failure> {
        let target = format!("/v1/receipts/{id}");
        let deadline = Instant::now() + Duration::from_secs(self.args.wait);
        // A seal takes about one quote: some ten milliseconds here, some hundred there.
        let mut pause = Duration::from_millis(20);
        let mut latest = None;
        let mut shown = String::new();
        loop {
            // The first question is answered at once, to show how matters stand; the others may
            // be held by the server until there is something new (RFC 7240).
            let left = deadline.saturating_duration_since(Instant::now());
            let mut request = self.request("GET", &target);
            let hold = left.min(MAX_HOLD).as_secs();
            if latest.is_some() && hold > 0 {
                request = request.header("prefer", format!("wait={hold}"));
            }
            let request = request.body(Full::default()).map_err(anyhow::Error::from)?;
            let timeout = Duration::from_secs(self.args.timeout).min(MAX_HOLD * 3);
            let state = match self.server.send(request, MAX_BUNDLE, timeout).await {
                Err(error) => format!("{error:#}"),
                Ok(answer) => match answer.status {
                    200 => return Ok(Progress::Complete(bundle(id, &answer.body)?)),
                    202 => {
                        // Some servers give what there is, others a problem document.
                        latest = bundle(id, &answer.body).ok().or(latest);
                        latest
                            .as_ref()
                            .map_or_else(|| "waiting for the seal".into(), describe)
                    }
                    410 => {
                        let why = format!("it never will be: {}", problem(&answer.body));
                        return Ok(Progress::Incomplete(latest, why));
                    }
                    404 => "the server does not know the receipt yet".into(),
                    status => format!("status {status}: {}", problem(&answer.body).trim()),
                },
            };
            if state != shown {
                say(&format!("{state} …\n"));
                shown = state;
            }
            if Instant::now() + pause > deadline {
                let why = format!("not sealed within {} s ({shown})", self.args.wait);
                return Ok(Progress::Incomplete(latest, why));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_secs(1));
        }
    }
}

fn malformed(error: anyhow::Error) -> Failure {
    Failure::malformed("answer.format", error)
}

/// Reads a bundle that must be about this receipt.
fn bundle(id: &str, body: &[u8]) -> Result<Bundle, Failure> {
    let read = || -> Result<Bundle> {
        let bundle = Bundle::parse(body)?;
        let receipt = Receipt::parse(&bundle.receipt)?;
        if receipt.id() != id {
            bail!("expected receipt {id}, found {}", receipt.id());
        }
        Ok(bundle)
    };
    read().context("the server's bundle").map_err(malformed)
}

fn content_length(answer: &Answer) -> Result<Option<u64>> {
    const NAME: &str = "inference-header-content-length";
    let Some(text) = answer.header(NAME)? else {
        return Ok(None);
    };
    let number: u64 = text
        .parse()
        .with_context(|| format!("header {NAME}: {text:?}"))?;
    // One way to write it, since the digest is over the number's text.
    ensure!(
        number.to_string() == text,
        "header {NAME}: {text:?} is not canonical"
    );
    Ok(Some(number))
}

/// No header outside the response digest may change what the body means (formats.md §4): an answer
/// that needs one to be read is not the answer that was signed.
fn framing(answer: &Answer, header_length: Option<u64>) -> Result<()> {
    if let Some(encoding) = answer.header("content-encoding")? {
        ensure!(
            encoding.eq_ignore_ascii_case("identity"),
            "header Content-Encoding: expected none, found {encoding:?}"
        );
    }
    let expected = if header_length.is_some() {
        "application/octet-stream"
    } else {
        "application/json"
    };
    let found = answer.header("content-type")?.unwrap_or_default();
    let kind = found.split(';').next().unwrap_or_default().trim();
    ensure!(
        kind.eq_ignore_ascii_case(expected),
        "header Content-Type: expected {expected}, found {found:?}"
    );
    Ok(())
}

/// What a bundle has so far, in words.
fn describe(bundle: &Bundle) -> String {
    let purposes: Vec<_> = bundle
        .evidence
        .iter()
        .filter_map(|e| e.purpose)
        .map(|p| p.name())
        .collect();
    let seal = if bundle.proof.is_some() {
        "with its seal"
    } else {
        "without its seal"
    };
    format!(
        "the receipt is there, {seal}; quotes for: {}",
        purposes.join(", ")
    )
}

/// A problem document in a line, without what a terminal would act upon.
fn problem(body: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let mut parts = Vec::new();
    for member in ["title", "detail", "error"] {
        if let Some(text) = document.get(member).and_then(|value| value.as_str()) {
            let text: String = text.chars().filter(|c| !c.is_control()).take(500).collect();
            if !parts.contains(&text) {
                parts.push(text);
            }
        }
    }
    if parts.is_empty() {
        return "the server gave no reason\n".into();
    }
    parts.join("; ") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_one_harmless_line() {
        let body = br#"{"title":"Busy","detail":"\u001b[2Jtry again","error":"Busy","status":503}"#;
        assert_eq!(problem(body), "Busy; [2Jtry again\n");
        assert_eq!(problem(b"<html>"), "the server gave no reason\n");
    }

    #[test]
    fn header_lengths_are_canonical_or_refused() {
        let answer = |value: &str| {
            let mut headers = hyper::HeaderMap::new();
            headers.append("inference-header-content-length", value.parse().unwrap());
            Answer {
                status: 200,
                headers,
                body: Bytes::new(),
            }
        };
        assert_eq!(content_length(&answer("167")).unwrap(), Some(167));
        for bad in ["+167", "0167", "", "1e2", "-1"] {
            assert!(content_length(&answer(bad)).is_err(), "{bad}");
        }
        let mut twice = answer("1");
        twice
            .headers
            .append("inference-header-content-length", "1".parse().unwrap());
        assert!(content_length(&twice).is_err());
    }
}
