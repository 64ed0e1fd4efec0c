//! `touchstone ask`: proves the enclave, asks, and keeps all that is needed to judge the answer later.
//!
//! What is asked is on disk before it is sent: the caller's own record is what a receipt is
//! measured against, so no answer may have a part in it. The connection is judged before anything is
//! sent on it; the answer is not judged here.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use attestation_verifier::exchange::{ResponseInfo, ResponseVersion};
use attestation_verifier::{Policy, Verdict};
use touchstone_client::oip::Encoding;
use touchstone_client::{Answer, Builder, Client, Error, Provisional, Question, Session, Waited};
use touchstone_formats::GuaranteeSet;
use touchstone_formats::text::printable;

use crate::files;
use crate::inputs::{self, ManifestFiles, NamedFile};
use crate::output::{self, Failure, Outcome, print, say};

/// The files of a folder, in the order in which they are written.
const FOLDER: [&str; 6] = [
    "request.bin",
    "expect.json",
    "session.json",
    "response.bin",
    "response.json",
    "bundle.json",
];

/// Prove an enclave, ask a model in it about tensors, and keep the answer with its receipt
///
/// Nothing is sent before the enclave has proven itself on this very connection. Writes request.bin and
/// expect.json (before anything is sent), session.json (the connection), response.bin, response.json and
/// bundle.json into a folder. The answer is not judged: that is what `check` is for.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  touchstone ask https://127.0.0.1:8080 digits_cnn \
    --input image=digits.npy --policy policy.toml -o answer\n  \
    touchstone check answer --policy policy.toml\n\n\
    Exit codes: 0 answered, sealed and kept · 1 usage or I/O · 2 the server's answer is malformed · \
    4 refused by the server, or not sealed in time (kept as it is) · a connection that is refused: \
    its verdict's exit code, and nothing was sent, or (--ohttp) it says that the question had been sent before"
)]
pub struct Args {
    /// Server: https://HOST or https://HOST:PORT; with --ohttp http://HOST:PORT
    url: String,
    /// Model to ask
    model: String,
    /// Seal the question to a key of the enclave's, and send it by way of the host's own HTTP (http://), which cannot
    /// read it (Oblivious HTTP). The policy has to accept the binding ohttp-key
    #[arg(long, conflicts_with = "plaintext")]
    ohttp: bool,
    /// Ask over http:// and let whoever relays it read question and answer
    #[arg(long)]
    plaintext: bool,
    /// Version of the model; the server's choice without it
    #[arg(long, value_name = "V")]
    model_version: Option<String>,
    /// Input tensor (repeat for each)
    #[arg(long, value_name = "NAME=FILE.npy", required = true, value_parser = inputs::named_file)]
    input: Vec<NamedFile>,
    /// Policy that the connection has to satisfy, and later the answer; says which guarantees to ask for
    #[arg(long, value_name = "P.toml")]
    policy: PathBuf,
    /// Root certificates of a simulated platform (PEM), trusted beside the pinned ones
    #[arg(long, value_name = "FILE")]
    trust_simulated_root: Option<PathBuf>,
    #[command(flatten)]
    manifests: ManifestFiles,
    /// The host's own HTTP, for receipts and collateral: http://HOST:PORT; the server's without it
    #[arg(long, value_name = "URL")]
    records: Option<String>,
    /// Collateral to judge the connection by, instead of asking the host for it
    #[arg(long, value_name = "FILE")]
    collateral: Option<PathBuf>,
    /// Folder for collateral that verified, which is used when the host has none or worse
    #[arg(long, value_name = "DIR")]
    collateral_cache: Option<PathBuf>,
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
    let demanded = policy.answer.require;
    let connecting = args.connecting(policy)?;
    let require = args.require.unwrap_or(demanded);
    if !require.is_superset(&demanded) {
        say(&format!(
            "note: the policy demands {demanded}; asking for {require} alone may not satisfy it\n"
        ));
    }
    let tensors = inputs::tensors(&args.input)?;
    let encoding = if args.json_encoding {
        Encoding::Json
    } else {
        Encoding::Binary
    };
    let version = args.model_version.as_deref();
    let question = Question::infer(&args.model, version, &tensors, encoding).map_err(usage)?;
    let question = question.require(require);

    let folder = Folder::create(&args.output, args.force)?;
    folder.write("request.bin", question.body())?;
    let expect = question.expect(inputs::now()?).to_file();
    folder.write("expect.json", &expect.map_err(anyhow::Error::from)?)?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("cannot start the I/O runtime")?;
    let policy = args.policy;
    runtime.block_on(async {
        match connecting.connect().await {
            Ok(client) => {
                let asking = Asking {
                    client,
                    folder,
                    policy,
                };
                asking.ask(question).await
            }
            Err(error) => refused(error),
        }
    })
}

impl Args {
    /// How the server is reached, and what it has to prove.
    fn connecting(&self, policy: Policy) -> Result<Builder, Failure> {
        let url = &self.url;
        let https = url.to_ascii_lowercase().starts_with("https://");
        if self.plaintext && https {
            let error =
                anyhow!("{url}: --plaintext is for http://; over https:// nobody reads along");
            return Err(error.into());
        }
        let manifests = self.manifests.read(&policy)?;
        let mut builder = Client::builder(url, policy)
            .map_err(usage)?
            .manifests(manifests);
        if self.ohttp && https {
            let error = anyhow!("{url}: --ohttp goes by way of the host's own HTTP: http://");
            return Err(error.into());
        }
        if !https && !self.plaintext && !self.ohttp {
            let error = anyhow!(
                "{url}: http:// would show your question to whoever relays it: use https:// \
                (attested TLS), --ohttp (each question sealed), or --plaintext"
            );
            return Err(error.into());
        }
        if self.plaintext {
            builder = builder.readable_by_the_host();
        }
        if self.ohttp {
            builder = builder.sealed();
        }
        if let Some(records) = &self.records {
            builder = builder.records(records);
        }
        if let Some(file) = &self.collateral {
            builder = builder.collateral(inputs::collateral(file)?);
        }
        if let Some(file) = self.manifests.state() {
            builder = builder.manifest_state(file);
        }
        if let Some(folder) = &self.collateral_cache {
            builder = builder.collateral_cache(folder);
        }
        let root = self.trust_simulated_root.as_deref();
        Ok(builder
            .roots(inputs::roots(root)?)
            // Who names a simulated root wants to ask what stands under it.
            .expect_simulated(root.is_some())
            .timeout(Duration::from_secs(self.timeout))
            .wait(Duration::from_secs(self.wait)))
    }
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

/// A server that may be asked, and where everything about the question goes.
struct Asking {
    client: Client,
    folder: Folder,
    policy: PathBuf,
}

impl Asking {
    async fn ask(&self, question: Question) -> Result<Outcome, Failure> {
        let proven = self.client.session();
        self.connected(proven.as_deref())?;
        let started = Instant::now();
        let provisional = match self.client.ask(question).await {
            Ok(provisional) => provisional,
            Err(ref error @ Error::Answered(ref answer)) => {
                self.keep_answer(answer, started)?;
                say(&format!("because {}: {error}\n", error.deciding()));
                let folder = self.folder.0.display();
                print(&format!("refused without a receipt; kept in {folder}\n"));
                return Ok(Outcome::Exit(4));
            }
            Err(Error::Late { limit, .. }) if proven.is_none() => {
                return Err(anyhow!("no answer within {} s", limit.as_secs_f32()).into());
            }
            Err(error) => {
                if let Error::Malformed { answer, .. } = &error
                    && let Some(answer) = answer
                {
                    self.folder.write("response.bin", &answer.body)?;
                }
                return refused(error);
            }
        };
        // The enclave had another keyset by then: the question went over a connection that was proven anew.
        let used = provisional.session().map(AsRef::as_ref);
        let record = |session: &Session| session.record.clone();
        if used.map(record) != proven.as_deref().map(record) {
            self.connected(used)?;
        }
        self.keep_answer(provisional.read_unverified(), started)?;
        for note in provisional.notes() {
            say(&format!("note: {note}\n"));
        }
        self.keep_bundle(&provisional).await
    }

    /// Says what the connection is, and keeps what it rests on.
    fn connected(&self, session: Option<&Session>) -> Result<()> {
        let Some(session) = session else {
            say(
                "connection: plaintext, bound by nothing: whoever relays it can read question and answer\n",
            );
            return Ok(());
        };
        say(&connection(&session.record.keyset().name, &session.verdict));
        self.folder
            .write("session.json", &session.record.to_file()?)
    }

    /// Keeps an answer as it came, whatever it is.
    fn keep_answer(&self, answer: &Answer, started: Instant) -> Result<()> {
        self.folder.write("response.bin", &answer.body)?;
        let length = answer.header("inference-header-content-length")?;
        let info = ResponseInfo {
            v: ResponseVersion::One,
            status: answer.status,
            header_length: length.map(str::parse).transpose()?,
        };
        self.folder.write("response.json", &info.to_file()?)?;
        let answered = answer.is_success();
        say(&format!(
            "{} after {} ms: status {}, {} bytes\n",
            if answered { "answered" } else { "refused" },
            started.elapsed().as_millis(),
            answer.status,
            answer.body.len()
        ));
        if !answered {
            say(&format!("{}\n", answer.problem()));
        }
        Ok(())
    }

    /// Waits for the bundle, and keeps it.
    async fn keep_bundle(&self, provisional: &Provisional) -> Result<Outcome, Failure> {
        let waited = provisional.bundle(|state| say(&format!("{state} …\n")));
        let (bundle, unfinished) = match waited.await {
            Ok(Waited::Complete(bundle)) => (Some(bundle), None),
            Ok(Waited::Incomplete(bundle, why)) => (bundle, Some(why)),
            Err(error) => return refused(error),
        };
        match bundle {
            Some(bundle) => self.folder.write("bundle.json", &bundle.to_file())?,
            None => say("note: the server gave no bundle; there is nothing to check yet\n"),
        }
        if let Some(why) = &unfinished {
            say(&format!("{why}\n"));
        }
        let folder = self.folder.0.display();
        print(&format!(
            "kept in {folder}, not judged; judge it with:\n  touchstone check {folder} --policy {}\n",
            self.policy.display()
        ));
        let complete = provisional.refused().is_none() && unfinished.is_none();
        Ok(Outcome::Exit(if complete { 0 } else { 4 }))
    }
}

/// What a connection is, in a line: what binds it, and to which enclave.
fn connection(name: &str, session: &Verdict) -> String {
    // All of these are chosen by whoever made the keyset and the report.
    let name = printable(name);
    let short = |hex: Option<&str>| match hex.and_then(|hex| hex.get(..16)) {
        Some(start) => format!("{start}…"),
        None => "not named".into(),
    };
    let context = &session.context;
    let simulated = if context.simulated {
        " (SIMULATED platform)"
    } else {
        ""
    };
    let id = |member: &str| context.platform[member].as_str();
    // A TDX platform has no chip's id, but what `tdx.platform.instance` compares: its instance's, if it has one, and its PPID.
    let platform = match id("tee") {
        Some("tdx") => format!("platform {}", short(id("instance_id").or(id("ppid")))),
        _ => format!("chip {}", short(id("chip_id"))),
    };
    // A manifest's names have no control characters.
    let release = match context.release["release"].as_str() {
        Some(release) => format!(", release {release}"),
        None => String::new(),
    };
    format!(
        "connection: bound by {} to {name}, {platform}, measurement {}{release}{simulated}\n",
        session.binding(),
        short(context.measurement.as_deref()),
    )
}

/// Ends with what the client says: a judgement, or what stands for one, in words.
fn refused(error: Error) -> Result<Outcome, Failure> {
    match error {
        Error::Usage(_) => Err(usage(error)),
        _ => Ok(output::refusal(&error.verdict())),
    }
}

fn usage(error: impl Into<anyhow::Error>) -> Failure {
    Failure::from(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use attestation_verifier::{Binding, verdict::usage};
    use serde_json::json;

    #[test]
    fn a_connection_is_said_in_one_harmless_line() {
        let mut verdict = usage("usage", "");
        let context = &mut verdict.context;
        context.binding = Binding::TlsExporter;
        context.platform = json!({"chip_id": "ab".repeat(64)}).into();
        context.measurement = Some("cd".repeat(48));
        context.simulated = true;
        assert_eq!(
            connection("a\u{1b}[2J\n", &verdict),
            "connection: bound by tls-exporter to a\\u{1b}[2J\\n, chip abababababababab…, \
             measurement cdcdcdcdcdcdcdcd… (SIMULATED platform)\n"
        );
        verdict.context.platform = json!({"tee": "tdx", "ppid": "ef".repeat(16)}).into();
        let said = connection("a", &verdict);
        assert!(
            said.contains("to a, platform efefefefefefefef…, "),
            "{said}"
        );
        verdict.context.platform =
            json!({"tee": "tdx", "ppid": "ef".repeat(16), "instance_id": "12".repeat(16)}).into();
        let said = connection("a", &verdict);
        assert!(
            said.contains("to a, platform 1212121212121212…, "),
            "{said}"
        );
        verdict.context.release = json!({ "release": "1.4.2" });
        let said = connection("a", &verdict);
        assert!(
            said.contains(", measurement cdcdcdcdcdcdcdcd…, release 1.4.2 (SIM"),
            "{said}"
        );
        let verdict = Verdict {
            context: Default::default(),
            ..verdict
        };
        let said = connection("a", &verdict);
        assert!(
            said.contains("bound by none to a, chip not named"),
            "{said}"
        );
    }
}
