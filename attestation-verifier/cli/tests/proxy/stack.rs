//! The real enclave behind the real host: what passes without a receipt, refusals, restarts, new keys.

use std::path::Path;
use std::time::{Duration, Instant};

use touchstone_testkit::stack::{Stack, StackBuilder};

use crate::client::{Connection, Response};
use crate::running::{Proxy, check};
use crate::support::touchstone;

const MODEL: &str = "digits_mlp_plain";

struct Running {
    stack: Stack,
    proxy: Proxy,
}

impl Running {
    /// None where something is missing that a test may lack.
    fn start(test: &str, change: impl FnOnce(StackBuilder) -> StackBuilder) -> Option<Running> {
        let stack = change(StackBuilder::new().model(MODEL)).start(test)?;
        let path = |path: &Path| path.display().to_string();
        let kept = stack.folder().join("kept");
        let arguments = [
            "--listen",
            "127.0.0.1:0",
            "--server",
            &stack.https_url(),
            "--policy",
            &path(&stack.policy("policy.toml", &[])),
            "--keep",
            &path(&kept),
            "--trust-simulated-root",
            &path(&stack.root()),
            "--expect-simulated",
            "--json-log",
            "--timeout",
            "20",
        ]
        .map(str::to_owned);
        let proxy = Proxy::start(&arguments, &kept)
            .unwrap_or_else(|(code, said)| panic!("ended with {code}:\n{said}"));
        Some(Running { stack, proxy })
    }

    fn policy(&self) -> std::path::PathBuf {
        self.stack.folder().join("policy.toml")
    }

    #[track_caller]
    fn answers(&self) -> Response {
        let answer = ask(&mut self.proxy.connect());
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 200, "{text}\n{}", self.proxy.said());
        answer
    }
}

fn question(columns: usize) -> String {
    let data = vec!["0.5"; columns].join(",");
    format!(
        r#"{{"inputs":[{{"name":"X","datatype":"FP32","shape":[1,{columns}],"data":[{data}]}}]}}"#
    )
}

fn ask(client: &mut Connection) -> Response {
    let target = format!("/v2/models/{MODEL}/infer");
    client.send("POST", &target, &[], question(64).as_bytes())
}

#[test]
fn metadata_preflights_and_refusals_come_from_the_enclave() {
    let test = "metadata_preflights_and_refusals_come_from_the_enclave";
    let Some(running) = Running::start(test, |builder| builder) else {
        return;
    };
    let mut client = running.proxy.connect();
    for (target, part) in [
        ("/v2", "binary_tensor_data"),
        ("/v2/health/live", "true"),
        ("/v2/health/ready", "true"),
        ("/v2/models/digits_mlp_plain", "digits_mlp_plain"),
        ("/v2/models/digits_mlp_plain/versions/1/ready", "true"),
        ("/v1/keyset", "touchstone/keyset/1"),
    ] {
        let answer = client.send("GET", target, &[], b"");
        assert_eq!(answer.status, 200, "{target}");
        assert!(answer.has(part.as_bytes()), "{target}");
        // Nothing vouches for it but the connection.
        assert!(answer.all("touchstone-verified").is_empty());
        let length = answer.header("content-length").to_owned();
        let head = client.send("HEAD", target, &[], b"");
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, length.as_str())
        );
    }
    let target = format!("/v2/models/{MODEL}/infer");
    let asked = [
        ("Origin", "http://app.example"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type,touchstone"),
    ];
    let preflight = client.send("OPTIONS", &target, &asked, b"");
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    assert!(
        preflight
            .header("access-control-allow-methods")
            .contains("POST")
    );
    assert!(
        preflight
            .header("access-control-allow-headers")
            .contains("Touchstone")
    );
    assert_eq!(running.proxy.verified().len(), 0);
    assert_eq!(running.proxy.status()["relayed"], 13);

    // Refused before admission: as it is. After admission: with a receipt, which holds.
    let unknown = client.send(
        "POST",
        "/v2/models/none/infer",
        &[],
        question(64).as_bytes(),
    );
    assert_eq!(unknown.status, 404);
    assert!(unknown.json()["error"].is_string());
    assert!(unknown.all("touchstone").is_empty());
    let refused = client.send("POST", &target, &[], question(63).as_bytes());
    assert_eq!(
        refused.status,
        400,
        "{:?}",
        String::from_utf8_lossy(&refused.body)
    );
    assert!(
        refused
            .header("touchstone-verified")
            .contains("achieved=(logged signed)")
    );
    let kept = running.proxy.verified();
    assert_eq!(kept.len(), 1);
    let root = running.stack.root();
    let (exit, verdict) = check(&kept[0], &running.policy(), &root);
    assert_eq!(
        (exit, verdict["deciding"].as_str()),
        (4, Some("receipt.status"))
    );
    let run = touchstone(&[
        "check",
        kept[0].to_str().unwrap(),
        "--policy",
        running.policy().to_str().unwrap(),
        "--trust-simulated-root",
        root.to_str().unwrap(),
        "--expect-simulated",
        "--status",
        "400",
    ]);
    assert_eq!(run.code, 0, "{}", run.stdout);

    let answer = running.answers();
    assert!(
        answer
            .header("touchstone-verified")
            .ends_with("binding=tls-exporter, simulated")
    );
    let status = running.proxy.status();
    assert_eq!(
        (&status["verified"], &status["enclave_refusals"]),
        (&2.into(), &2.into())
    );
}

#[test]
fn a_restarted_enclave_is_proven_anew_and_another_one_is_refused() {
    let test = "a_restarted_enclave_is_proven_anew_and_another_one_is_refused";
    let Some(mut running) = Running::start(test, |builder| builder) else {
        return;
    };
    running.answers();
    let keyset = running.proxy.status()["session"]["keyset"].clone();

    running.stack.kill_enclave();
    let answer = ask(&mut running.proxy.connect());
    assert_eq!(answer.status, 502);
    let check = answer.json()["check"].as_str().unwrap().to_owned();
    assert!(check.starts_with("connection."), "{check}");

    running.stack.start_enclave();
    running.answers();
    let status = running.proxy.status();
    assert_ne!(status["session"]["keyset"], keyset);
    running
        .proxy
        .until(|proxy| (proxy.events("attested").len() >= 2).then_some(()));

    // Other software in its place: nothing is asked of it.
    let honest = running.stack.platform.machine().report.measurement;
    running.stack.kill_enclave();
    running
        .stack
        .platform
        .change(|machine| machine.report.measurement = [0x66; 48]);
    running.stack.start_enclave();
    let kept = running.proxy.verified().len();
    for _ in 0..2 {
        let answer = ask(&mut running.proxy.connect());
        let problem = answer.json();
        assert_eq!(
            (answer.status, &problem["check"]),
            (502, &"snp.measurement".into())
        );
        assert_eq!(
            (&problem["exit"], &problem["class"]),
            (&4.into(), &"policy".into())
        );
        assert!(!answer.has(b"\"outputs\""));
    }
    let live = running
        .proxy
        .connect()
        .send("GET", "/v2/health/live", &[], b"");
    assert_eq!(
        (live.status, &live.json()["check"]),
        (502, &"snp.measurement".into())
    );
    let status = running.proxy.status();
    assert_eq!(status["session_refused"]["check"], "snp.measurement");
    assert_eq!(running.proxy.verified().len(), kept);

    running.stack.kill_enclave();
    running
        .stack
        .platform
        .change(|machine| machine.report.measurement = honest);
    running.stack.start_enclave();
    running.answers();
    assert!(running.proxy.status()["session_refused"].is_null());
}

#[test]
fn new_keys_interrupt_nobody() {
    let test = "new_keys_interrupt_nobody";
    let rotating = |builder: StackBuilder| {
        builder
            .enclave("keyset.lifetime_seconds", "6")
            .enclave("keyset.rotate_before_seconds", "4")
    };
    let Some(running) = Running::start(test, rotating) else {
        return;
    };
    let mut client = running.proxy.connect();
    let (began, mut keysets) = (Instant::now(), std::collections::BTreeSet::new());
    while keysets.len() < 4 {
        let answer = ask(&mut client);
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 200, "{text}\n{}", running.proxy.said());
        let header = answer.header("touchstone").to_owned();
        keysets.insert(header.split("keyset=").nth(1).unwrap()[..46].to_owned());
        assert!(began.elapsed() < Duration::from_secs(60), "no new keys");
    }
    let status = running.proxy.status();
    assert!(
        status["connections"]["sessions"].as_u64().unwrap() >= 4,
        "{status:#}"
    );
    assert_eq!(status["refused"], serde_json::json!({}));
}
