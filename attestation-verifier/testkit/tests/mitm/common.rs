//! A question that can be recognised, and who asks it.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation_verifier::exchange::OwnedTensor;
use attestation_verifier::{Policy, Roots};
use serde_json::Value;
use touchstone_client::{Builder, Client};
use touchstone_formats::Datatype;
use touchstone_testkit::amd::Product;
use touchstone_testkit::machine::Machine;
use touchstone_testkit::mint::World;
use touchstone_testkit::mitm::{Config, Lie, ManInTheMiddle, Record, Server, Upstream, contains};
use touchstone_testkit::stack::{Stack, StackBuilder, programs};
use touchstone_testkit::{fixtures, policy};

/// The model of the real stack.
pub const MODEL: &str = "digits_mlp_plain";

/// A policy that takes attested TLS and sealed requests alike.
pub const EITHER: [(&str, &str); 2] = [
    ("binding", "{ expect = [\"tls-exporter\", \"ohttp-key\"] }"),
    ("answers", "{ expect = [\"tls-exporter\", \"ohttp-key\"] }"),
];

/// Bytes that a client may send when it breaks a connection off: two alerts, each 24 bytes under TLS 1.3.
pub const ALERTS: usize = 64;

/// 64 numbers with many digits, none of which stands twice.
pub fn prompt() -> Vec<f32> {
    (1..=64u32)
        .map(|n| (n as f32 * 0.754_877_7).fract())
        .collect()
}

/// The prompt as a tensor.
pub fn tensor() -> OwnedTensor {
    OwnedTensor {
        name: "X".into(),
        datatype: Datatype::Fp32,
        shape: vec![1, 64],
        data: prompt().iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// All pieces of eight bytes by which the prompt would be known: little-endian, and as JSON.
pub fn traces() -> BTreeSet<Vec<u8>> {
    let text = prompt().iter().map(f32::to_string).collect::<Vec<_>>();
    let mut found = windows(&tensor().data);
    found.extend(windows(text.join(",").as_bytes()));
    found
}

/// All pieces of eight bytes that do not occur by chance (padding does).
pub fn windows(bytes: &[u8]) -> BTreeSet<Vec<u8>> {
    let telling = |w: &&[u8]| w.iter().collect::<BTreeSet<_>>().len() >= 5;
    bytes
        .windows(8)
        .filter(telling)
        .map(<[u8]>::to_vec)
        .collect()
}

/// How many of these pieces stand in `bytes`.
pub fn count(pieces: &BTreeSet<Vec<u8>>, bytes: &[u8]) -> usize {
    let there: BTreeSet<&[u8]> = bytes.windows(8).collect();
    pieces
        .iter()
        .filter(|p| there.contains(p.as_slice()))
        .count()
}

/// A folder with all that `touchstone ask` needs.
pub struct Caller {
    pub folder: tempfile::TempDir,
    program: PathBuf,
    policy: String,
    root: PathBuf,
    asked: AtomicU32,
}

/// What `touchstone ask` said.
#[derive(Debug)]
pub struct Asked {
    pub exit: i32,
    /// The check that decided, where one did.
    pub deciding: String,
    pub folder: PathBuf,
    pub words: String,
}

impl Asked {
    /// Finds that this lie was refused by its name.
    pub fn is_refused(&self, lie: Lie) {
        let found = (self.exit, self.deciding.as_str());
        let expected = (exit_of(lie.refused_by()), lie.refused_by());
        assert_eq!(found, expected, "{lie}: {}", self.words);
    }

    /// Finds that nothing is kept of a connection or of an answer.
    pub fn keeps_nothing(&self, lie: Lie) {
        assert!(!self.folder.join("session.json").exists(), "{lie}");
        assert!(!self.folder.join("response.bin").exists(), "{lie}");
    }
}

impl Caller {
    /// A caller who trusts this root and has this policy.
    pub fn new(policy: &str, root_pem: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root.pem");
        std::fs::write(&root, root_pem).unwrap();
        std::fs::write(folder.path().join("policy.toml"), policy).unwrap();
        let file = std::fs::File::create(folder.path().join("x.npy")).unwrap();
        npy(file, &prompt());
        Self {
            program: programs().join("touchstone"),
            policy: policy.into(),
            root,
            folder,
            asked: AtomicU32::new(0),
        }
    }

    /// Asks over attested TLS.
    pub fn ask(&self, middle: &ManInTheMiddle, model: &str, more: &[&str]) -> Asked {
        self.ask_url(&format!("https://{}", middle.address()), model, more)
    }

    pub fn ask_url(&self, url: &str, model: &str, more: &[&str]) -> Asked {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let folder = self.folder.path().join(format!("answer-{number}"));
        let input = format!("X={}", self.folder.path().join("x.npy").display());
        let output = Command::new(&self.program)
            .args(["ask", url, model, "--input", &input, "--policy"])
            .arg(self.folder.path().join("policy.toml"))
            .arg("--trust-simulated-root")
            .arg(&self.root)
            .arg("-o")
            .arg(&folder)
            .args(more)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let because = words.lines().find_map(|line| line.strip_prefix("because "));
        let deciding = because.and_then(|line| line.split(':').next());
        Asked {
            exit: output.status.code().unwrap_or(-1),
            deciding: deciding.unwrap_or_default().into(),
            folder,
            words,
        }
    }

    /// Seals the question (Oblivious HTTP).
    pub fn ask_sealed(&self, middle: &ManInTheMiddle, model: &str, more: &[&str]) -> Asked {
        let url = format!("http://{}", middle.address());
        self.ask_url(&url, model, &[&["--ohttp"], more].concat())
    }

    /// Exit code, deciding check and binding of `touchstone check`.
    pub fn check(&self, folder: &Path) -> (i64, String, String) {
        let output = Command::new(&self.program)
            .arg("check")
            .arg(folder)
            .arg("--policy")
            .arg(self.folder.path().join("policy.toml"))
            .arg("--trust-simulated-root")
            .arg(&self.root)
            .arg("--json")
            .output()
            .unwrap();
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        let word = |name: &str| verdict[name].as_str().unwrap_or_default().to_owned();
        (
            verdict["exit"].as_i64().unwrap(),
            word("deciding"),
            word("binding"),
        )
    }

    /// Asks, checks, and finds everything as it should be.
    pub fn is_answered(&self, middle: &ManInTheMiddle, model: &str, more: &[&str]) {
        let asked = self.ask(middle, model, more);
        assert_eq!(asked.exit, 0, "{}", asked.words);
        let found = self.check(&asked.folder);
        assert_eq!(found, (6, String::new(), "tls-exporter".into()));
    }

    /// The same, sealed.
    pub fn is_answered_sealed(&self, middle: &ManInTheMiddle, model: &str, more: &[&str]) {
        let asked = self.ask_sealed(middle, model, more);
        assert_eq!(asked.exit, 0, "{}", asked.words);
        let found = self.check(&asked.folder);
        assert_eq!(found, (6, String::new(), "ohttp-key".into()));
    }

    /// The same caller through the library, sealing its questions.
    pub fn sealing_builder(&self, middle: &ManInTheMiddle) -> Builder {
        self.builder_of(&format!("http://{}", middle.address()))
            .sealed()
    }

    /// The same caller through the library.
    pub fn builder(&self, middle: &ManInTheMiddle) -> Builder {
        self.builder_of(&format!("https://{}", middle.address()))
    }

    fn builder_of(&self, url: &str) -> Builder {
        let roots = Roots::pinned()
            .with_simulated_pem(&std::fs::read(&self.root).unwrap())
            .unwrap();
        Client::builder(url, Policy::parse(&self.policy).unwrap())
            .unwrap()
            .roots(roots)
            .expect_simulated(true)
    }
}

/// `touchstone policy init` with these values; `None`, said on stderr, without the program.
pub fn template(test: &str, changes: &[(&str, &str)]) -> Option<String> {
    let program = programs().join("touchstone");
    if !program.is_file() {
        let why = format!(
            "no {}: build it first, or set TOUCHSTONE_BIN_DIR",
            program.display()
        );
        fixtures::skipped(test, &why);
        return None;
    }
    let output = Command::new(program)
        .args(["policy", "init", "--tee", "sev-snp"])
        .output()
        .unwrap();
    Some(policy::edit(
        &String::from_utf8(output.stdout).unwrap(),
        changes,
    ))
}

/// A world of the kit's own, made once: keys of certificate authorities take their time.
pub fn world() -> World {
    static WORLD: LazyLock<World> = LazyLock::new(|| {
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        World::on(Machine::new(Product::Genoa, 5, at), at, at)
    });
    WORLD.clone()
}

/// A caller whose policy fits [`world`].
pub fn caller(test: &str, changes: &[(&str, &str)]) -> Option<Caller> {
    let world = world();
    let models = format!("{{ expect = [\"{}\"] }}", world.models[0].model_digest);
    let measurement = hex::encode(world.machine.report.measurement);
    let measurement = format!("{{ expect = [\"{measurement}\"] }}");
    let own = [
        ("models", models.as_str()),
        ("snp.measurement", &measurement),
    ];
    let policy = template(test, &[&own, changes].concat())?;
    Some(Caller::new(&policy, &world.root_pem()))
}

/// A liar before a server of the kit's own, over [`world`].
pub fn own(lie: Lie) -> Config {
    let server = Server::over(world(), lie);
    Config::before(Upstream::Own(Arc::new(server)), lie)
}

/// The real programs, shared by the tests that run at the same time.
pub fn shared_stack(test: &str) -> Option<Arc<Stack>> {
    static SHARED: Mutex<Weak<Stack>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(stack) = shared.upgrade() {
        return Some(stack);
    }
    let stack = Arc::new(StackBuilder::new().model(MODEL).start(test)?);
    *shared = Arc::downgrade(&stack);
    Some(stack)
}

/// A caller whose policy fits this stack.
pub fn caller_of(stack: &Stack, changes: &[(&str, &str)]) -> Caller {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    let policy = stack.policy(&format!("mitm-{number}.toml"), changes);
    Caller::new(
        &std::fs::read_to_string(policy).unwrap(),
        &std::fs::read_to_string(stack.root()).unwrap(),
    )
}

/// How long to wait for an answer that this lie is told about: briefly where none will ever come.
pub fn patience(lie: Lie) -> [&'static str; 2] {
    match lie {
        Lie::Drop | Lie::Delay => ["--timeout", "4"],
        _ => ["--timeout", "60"],
    }
}

/// The exit code that goes with a check.
pub fn exit_of(check: &str) -> i32 {
    match check {
        "connection.io" => 1,
        "evidence.purpose" | "answer.format" => 2,
        "snp.collateral" => 5,
        "connection.late"
        | "ohttp.refused"
        | "answer.refused"
        | "keyset.lifetime"
        | "keyset.name"
        | "snp.chip_id"
        | "snp.host_data"
        | "guarantees.stated"
        | "guarantees.required" => 4,
        _ => 3,
    }
}

/// Nobody was sent anything but a request for a session or for evidence of a key, and public requests for what proves itself.
pub fn nothing_was_sent(record: &Record, lie: Lie) {
    assert!(record.settle(Duration::from_secs(20)), "{lie}");
    assert!(record.complete());
    assert_eq!(record.leaked(), 0, "{lie}");
    let traces = traces();
    for seen in record.connections() {
        let notes = &seen.notes;
        assert!(!seen.offered_psk, "{lie}: offers to resume: {notes:?}");
        for side in [&seen.from_client, &seen.read] {
            assert_eq!(count(&traces, side), 0, "{lie}: {notes:?}");
        }
        if !seen.tls {
            let text = String::from_utf8_lossy(&seen.from_client);
            let public = ["GET /v1/collateral ", "POST /v1/boot "];
            assert!(public.iter().any(|s| text.starts_with(s)), "{lie}: {text}");
            assert!(seen.read.is_empty() && seen.unread == 0, "{lie}: {notes:?}");
            assert!(text.len() < 1_024, "{lie}: {text}");
        } else if !seen.read.is_empty() {
            let text = String::from_utf8_lossy(&seen.read);
            assert!(text.starts_with("POST /v1/session "), "{lie}: {text}");
            assert_eq!(seen.confided(), 0, "{lie}: {text}");
            assert!(text.len() < 1_024, "{lie}: {text}");
        }
    }
}

/// A file of NumPy's, version 1: one row of FP32.
fn npy(mut file: std::fs::File, values: &[f32]) {
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': (1, {}), }}",
        values.len()
    );
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    file.write_all(b"\x93NUMPY\x01\x00").unwrap();
    file.write_all(&(header.len() as u16).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    for value in values {
        file.write_all(&value.to_le_bytes()).unwrap();
    }
}

/// Whether the prompt, as the binary extension has it, stands in `bytes`.
pub fn holds_prompt(bytes: &[u8]) -> bool {
    contains(bytes, &tensor().data)
}
