//! A release follows another, behind a real host that serves the manifest: proxies and clients go on by themselves, and nobody can take
//! them back.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use attestation_verifier::dates::rfc3339;
use serde_json::{Value, json};
use tempfile::TempDir;
use touchstone_formats::text::hex_encode;
use touchstone_testkit::stack::{Stack, StackBuilder};

use crate::client::{Connection, Response};
use crate::running::Proxy;
use crate::support::{Run, touchstone};

const MODEL: &str = "digits_mlp_plain";
const NEWER: [u8; 48] = [0x66; 48];

struct Running {
    stack: Stack,
    folder: TempDir,
    first: [u8; 48],
}

fn run(arguments: &[&str]) -> Run {
    let run = touchstone(arguments);
    assert_eq!(run.code, 0, "{arguments:?}\n{}", run.stderr);
    run
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Running {
    /// None where something is missing that a test may lack.
    fn start(test: &str) -> Option<Running> {
        let folder = tempfile::tempdir().unwrap();
        let served = json!(folder.path().join("served.jsonl")).to_string();
        let builder = StackBuilder::new().model(MODEL);
        let stack = builder
            .host("manifest.file", &served)
            .host("manifest.poll_ms", "20")
            .start(test)?;
        let first = stack.platform.machine().report.measurement;
        let running = Running {
            stack,
            folder,
            first,
        };
        for name in ["alice", "bob"] {
            let key = running.path(&format!("{name}.pem"));
            let public = run(&["manifest", "key", "-o", text(&key)]).stdout;
            std::fs::write(running.path(&format!("{name}.pub.pem")), public).unwrap();
        }
        Some(running)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a manifest of this version with these releases, signed by alice and bob.
    fn sign(&self, version: u64, releases: &[(&str, [u8; 48])]) -> PathBuf {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let end = rfc3339(now.as_secs() + 3600);
        let ingredient = |role: &str| json!({ "role": role, "name": role, "sha256": "01".repeat(32), "size": 1, "origin": "rebuilt", "source": "here" });
        let ingredients = ["firmware", "kernel", "initrd", "cmdline"].map(ingredient);
        let releases = releases.iter().map(|(name, measurement)| {
            json!({ "release": name, "not_after": end, "platforms": [{
                "name": "simulated", "tee": "sev-snp", "vmm": "qemu", "os_binding": "launch-digest", "quote_source": "exclusive",
                "ingredients": ingredients,
                "minimum_tcb": { "Genoa": { "bootloader": 1, "tee": 0, "snp": 1, "microcode": 1 } },
                "measurements": [{ "snp": { "measurement": hex_encode(measurement), "vcpus": 4, "cpu": "EPYC-Genoa",
                                             "guest_features": "0x1" } }] }] })
        });
        let releases: Vec<Value> = releases.collect();
        let draft = json!({ "v": "touchstone/manifest/1", "name": "enclave", "version": version,
            "issued": rfc3339(now.as_secs()), "not_after": end, "releases": releases, "models": [] });
        let (from, to) = (
            self.path("draft.json"),
            self.path(&format!("v{version}.jsonl")),
        );
        std::fs::write(&from, draft.to_string()).unwrap();
        let (alice, bob) = (self.path("alice.pem"), self.path("bob.pem"));
        run(&[
            "manifest",
            "sign",
            text(&from),
            "--key",
            text(&alice),
            "-o",
            text(&to),
        ]);
        run(&["manifest", "sign", text(&to), "--key", text(&bob)]);
        to
    }

    /// The host serves this from now on.
    fn serve(&self, manifest: &Path) {
        let (new, served) = (self.path("new"), self.path("served.jsonl"));
        std::fs::copy(manifest, &new).unwrap();
        std::fs::rename(&new, &served).unwrap();
        let bytes = std::fs::read(manifest).unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            let answer = self.stack.host().get("/v1/manifest");
            if answer.status == 200 && answer.body == bytes {
                return;
            }
            assert!(
                std::time::Instant::now() < until,
                "the host never served it"
            );
        }
    }

    /// Another release takes the place of the one that runs.
    fn deploy(&mut self, measurement: [u8; 48]) {
        self.stack.kill_enclave();
        let platform = &self.stack.platform;
        platform.change(|machine| machine.report.measurement = measurement);
        self.stack.start_enclave();
    }

    fn policy(&self) -> PathBuf {
        let changes = [("snp.measurement", "{ expect = \"manifest\" }")];
        let path = self.stack.policy("policy.toml", &changes);
        let mut table =
            "[manifest]\nname = \"enclave\"\nminimum_version = 1\nthreshold = 2\n".to_owned();
        for name in ["alice", "bob"] {
            let key = std::fs::read_to_string(self.path(&format!("{name}.pub.pem"))).unwrap();
            table += &format!("[[manifest.signer]]\nname = {name:?}\nkey = \"\"\"\n{key}\"\"\"\n");
        }
        let policy = std::fs::read_to_string(&path).unwrap();
        let policy = policy.replacen("\n[[platform]]", &format!("\n{table}\n[[platform]]"), 1);
        std::fs::write(&path, policy).unwrap();
        path
    }

    fn proxy(&self, kept: &str, more: &[&str]) -> Result<Proxy, (i32, String)> {
        let kept = self.path(kept);
        let (url, policy, root) = (self.stack.https_url(), self.policy(), self.stack.root());
        let mut arguments = vec![
            "--listen",
            "127.0.0.1:0",
            "--server",
            &url,
            "--policy",
            text(&policy),
            "--keep",
            text(&kept),
            "--trust-simulated-root",
            text(&root),
            "--expect-simulated",
            "--json-log",
        ];
        arguments.extend(more);
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        Proxy::start(&arguments, &kept)
    }
}

fn ask(client: &mut Connection) -> Response {
    let data = vec!["0.5"; 64].join(",");
    let question = format!(
        r#"{{"inputs":[{{"name":"X","datatype":"FP32","shape":[1,64],"data":[{data}]}}]}}"#
    );
    let target = format!("/v2/models/{MODEL}/infer");
    client.send("POST", &target, &[], question.as_bytes())
}

#[track_caller]
fn answers(proxy: &Proxy) {
    let answer = ask(&mut proxy.connect());
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 200, "{text}\n{}", proxy.said());
}

#[track_caller]
fn declines(proxy: &Proxy, check: &str) {
    let answer = ask(&mut proxy.connect());
    assert_eq!(answer.status, 502, "{}", proxy.said());
    assert_eq!(answer.json()["check"], check, "{}", proxy.said());
}

#[test]
fn a_release_follows_another_and_there_is_no_way_back() {
    let test = "a_release_follows_another_and_there_is_no_way_back";
    let Some(mut running) = Running::start(test) else {
        return;
    };
    let one = running.sign(1, &[("1", running.first)]);
    let two = running.sign(2, &[("2", NEWER), ("1", running.first)]);
    let three = running.sign(3, &[("2", NEWER)]);
    let state = running.path("state.json");
    let given = ["--manifest", text(&one), "--manifest-state", text(&state)];
    running.serve(&one);
    let proxy = running
        .proxy("kept", &given)
        .unwrap_or_else(|(code, said)| panic!("ended with {code}:\n{said}"));
    answers(&proxy);
    let status = proxy.status();
    assert_eq!(status["manifest"]["version"], 1, "{status:#}");
    assert_eq!(status["manifest"]["signed_by"], json!(["alice", "bob"]));
    assert_eq!(status["session"]["release"]["release"], "1");

    // Release 2 runs, and the manifest of the day does not list it: nothing is asked of it. Then it does.
    running.deploy(NEWER);
    declines(&proxy, "snp.measurement");
    running.serve(&two);
    answers(&proxy);
    let status = proxy.status();
    assert_eq!(status["manifest"]["version"], 2, "{status:#}");
    assert_eq!(status["session"]["release"]["release"], "2");
    let page = proxy.connect().send("GET", "/touchstone", &[], b"");
    assert!(page.has(b"<h2>Manifest</h2>"));
    // The overlap: release 1 is as good as before.
    running.deploy(running.first);
    answers(&proxy);

    // What was kept needs nobody's manifest.
    let root = running.stack.root();
    let judged: Vec<Value> = proxy
        .verified()
        .iter()
        .map(|kept| {
            let run = touchstone(&[
                "check",
                text(kept),
                "--policy",
                text(&running.policy()),
                "--trust-simulated-root",
                text(&root),
                "--expect-simulated",
                "--json",
            ]);
            assert_eq!(run.code, 0, "{}", run.stdout);
            serde_json::from_str::<Value>(&run.stdout).unwrap()
        })
        .collect();
    let mut releases: Vec<_> = judged
        .iter()
        .map(|v| {
            (
                v["release"]["version"].as_u64(),
                v["release"]["release"].as_str(),
            )
        })
        .collect();
    releases.sort();
    let expected = [(1, "1"), (2, "1"), (2, "2")].map(|(v, r)| (Some(v), Some(r)));
    assert_eq!(releases, expected);
    drop(proxy);

    // The host replays the first manifest. Who starts with nothing newer, but remembers, is not taken back.
    running.serve(&one);
    let (code, said) = running.proxy("kept-2", &given).err().expect("no proxy");
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("manifest.version"), "{said}");
    let (url, policy, out) = (
        running.stack.https_url(),
        running.policy(),
        running.path("asked"),
    );
    std::fs::write(running.path("x.npy"), npy()).unwrap();
    let input = format!("X={}", text(&running.path("x.npy")));
    let mut asking = vec![
        "ask",
        &url,
        MODEL,
        "--input",
        &input,
        "--policy",
        text(&policy),
        "--trust-simulated-root",
        text(&root),
        "-o",
        text(&out),
        "--force",
    ];
    asking.extend(given);
    let asked = touchstone(&asking);
    assert_eq!(asked.code, 4, "{}", asked.stderr);
    assert!(
        asked.stderr.contains("manifest.version"),
        "{}",
        asked.stderr
    );
    // And it is what it remembers that keeps it from that.
    std::fs::rename(&state, running.path("state.away")).unwrap();
    assert_eq!(touchstone(&asking).code, 0);
    std::fs::rename(running.path("state.away"), &state).unwrap();
    running.serve(&two);
    let asked = touchstone(&asking);
    assert_eq!(asked.code, 0, "{}", asked.stderr);

    let bundle = std::fs::read_to_string(out.join("bundle.json")).unwrap();
    assert!(bundle.contains("\"type\":\"touchstone/manifest/1\""));

    // One that runs hears of the end of release 1, of no step back, and goes on.
    let more = [&given[..], &["--manifest-refresh", "1"]].concat();
    let proxy = running
        .proxy("kept-2", &more)
        .unwrap_or_else(|(code, said)| panic!("ended with {code}:\n{said}"));
    answers(&proxy);
    running.serve(&one);
    let told = proxy.until(|proxy| {
        let told = proxy.events("manifest-not-refreshed");
        told.last().cloned()
    });
    assert_eq!(told["check"], "manifest.version");
    assert!(proxy.status()["manifest"]["not_refreshed"].is_string());
    answers(&proxy);
    running.serve(&three);
    proxy.until(|proxy| (proxy.status()["manifest"]["version"] == 3).then_some(()));
    declines(&proxy, "snp.measurement");
    running.deploy(NEWER);
    answers(&proxy);
}

/// 64 numbers in a row.
fn npy() -> Vec<u8> {
    let mut header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 64), }".to_owned();
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend([0.5f32; 64].iter().flat_map(|x| x.to_le_bytes()));
    file
}
