//! The real enclave behind the real host, which reads nothing: `ask --ohttp` and `proxy --ohttp`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use touchstone_testkit::fixtures;
use touchstone_testkit::stack::{Stack, StackBuilder};

use crate::running::{Proxy, check};
use crate::support::touchstone;

const MODEL: &str = "digits_mlp_plain";
const EITHER: [(&str, &str); 2] = [
    ("binding", "{ expect = [\"tls-exporter\", \"ohttp-key\"] }"),
    ("answers", "{ expect = \"ohttp-key\" }"),
];

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// `touchstone ask`, into this folder.
fn ask(stack: &Stack, url: &str, policy: &str, folder: &str, more: &[&str]) -> (i32, String) {
    let held_out = fixtures::test_data().join(format!("held-out/{MODEL}_x.npy"));
    let input = format!("X={}", text(&held_out));
    let (policy, root) = (text(&stack.folder().join(policy)), text(&stack.root()));
    let folder = text(&stack.folder().join(folder));
    let mut arguments = vec!["ask", url, MODEL, "--input", &input, "--policy", &policy];
    arguments.extend(["-o", &folder, "--trust-simulated-root", &root]);
    arguments.extend(more);
    let run = touchstone(&arguments);
    (run.code, format!("{}{}", run.stdout, run.stderr))
}

#[test]
fn a_sealed_question_is_answered_kept_and_judged() {
    let test = "a_sealed_question_is_answered_kept_and_judged";
    let Some(stack) = StackBuilder::new().model(MODEL).start(test) else {
        return;
    };
    let policy = stack.policy("sealed.toml", &EITHER);
    stack.policy("strict.toml", &[]);
    let (url, sealed) = (stack.url(), ["--ohttp"]);
    let (code, said) = ask(&stack, &url, "sealed.toml", "answer", &sealed);
    assert_eq!(code, 0, "{said}\n{}", stack.enclave_process().tail());
    assert!(
        said.contains("connection: bound by ohttp-key to "),
        "{said}"
    );
    let folder = stack.folder().join("answer");
    let (exit, verdict) = check(&folder, &policy, &stack.root());
    assert_eq!(
        (exit, &verdict["binding"]),
        (0, &"ohttp-key".into()),
        "{verdict:#}"
    );
    let record = folder.join("session.json");
    let shown = touchstone(&["show", &text(&record)]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    assert!(
        shown.stdout.contains("OHTTP keys (sha256)"),
        "{}",
        shown.stdout
    );

    // No mutant of it is accepted, the record included.
    let (kept, rules, root) = (text(&folder), text(&policy), text(&stack.root()));
    let arguments = ["prove-refusal", &kept, "--policy", &rules, "--json"];
    let more = ["--trust-simulated-root", &root, "--seed", "1"];
    let run = touchstone(&[&arguments[..], &more].concat());
    assert_eq!(run.code, 6, "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let counted = (&report["refused"], &report["session_left_out"]);
    assert_eq!(counted, (&100.into(), &false.into()), "{}", run.stderr);

    // The record counts: without it, or with another key in it, the answer is not what the policy asks for.
    let kept = std::fs::read(&record).unwrap();
    std::fs::remove_file(&record).unwrap();
    let (exit, verdict) = check(&folder, &policy, &stack.root());
    assert_eq!((exit, &verdict["deciding"]), (4, &"session.binding".into()));
    let mut other: Value = serde_json::from_slice(&kept).unwrap();
    other["ohttp_keys_sha256"] = "00".repeat(32).into();
    std::fs::write(&record, format!("{other}\n")).unwrap();
    let (exit, verdict) = check(&folder, &policy, &stack.root());
    assert_eq!(
        (exit, &verdict["deciding"]),
        (3, &"session.ohttp_key".into()),
        "{verdict:#}"
    );
    std::fs::write(&record, kept).unwrap();
    assert_eq!(check(&folder, &policy, &stack.root()).0, 0);

    // Who accepts TLS alone is asked nothing; and the two ways are not mixed up.
    let (code, said) = ask(&stack, &url, "strict.toml", "refused", &sealed);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("session.binding"), "{said}");
    let (code, said) = ask(&stack, &stack.https_url(), "sealed.toml", "usage", &sealed);
    assert_eq!(code, 1, "{said}");
    let (code, said) = ask(&stack, &url, "sealed.toml", "usage", &[]);
    assert!(code == 1 && said.contains("--ohttp"), "{said}");
}

/// Keysets that live for six seconds, and a program that keeps asking: it notices nothing.
#[test]
fn a_proxy_seals_and_goes_on_when_keysets_rotate() {
    let test = "a_proxy_seals_and_goes_on_when_keysets_rotate";
    let builder = StackBuilder::new()
        .model(MODEL)
        .enclave("keyset.lifetime_seconds", "6")
        .enclave("keyset.rotate_before_seconds", "3");
    let Some(stack) = builder.start(test) else {
        return;
    };
    let policy = stack.policy("sealed.toml", &EITHER);
    let kept = stack.folder().join("kept");
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--ohttp",
        "--server",
        &stack.url(),
        "--policy",
        &text(&policy),
        "--keep",
        &text(&kept),
        "--trust-simulated-root",
        &text(&stack.root()),
        "--expect-simulated",
        "--json-log",
    ]
    .map(str::to_owned);
    let proxy = Proxy::start(&arguments, &kept)
        .unwrap_or_else(|(code, said)| panic!("ended with {code}:\n{said}"));
    let first = proxy.status()["session"]["keyset"].clone();
    assert_eq!(proxy.status()["session"]["binding"], "ohttp-key");
    let data = vec!["0.5"; 64].join(",");
    let question = format!(
        r#"{{"inputs":[{{"name":"X","datatype":"FP32","shape":[1,64],"data":[{data}]}}]}}"#
    );
    let target = format!("/v2/models/{MODEL}/infer");
    let until = Instant::now() + Duration::from_secs(8);
    let mut client = proxy.connect();
    while Instant::now() < until {
        let answer = client.send("POST", &target, &[], question.as_bytes());
        let body = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 200, "{body}\n{}", proxy.said());
        let verified = answer.header("touchstone-verified");
        assert!(
            verified.ends_with("binding=ohttp-key, simulated"),
            "{verified}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    let live = client.send("GET", "/v2/health/live", &[], b"");
    assert_eq!(live.status, 200);
    let status = proxy.status();
    assert_ne!(status["session"]["keyset"], first);
    let kept = proxy.verified();
    let (exit, verdict) = check(&kept[0], &policy, &stack.root());
    assert_eq!(
        (exit, &verdict["binding"]),
        (0, &"ohttp-key".into()),
        "{verdict:#}"
    );
}
