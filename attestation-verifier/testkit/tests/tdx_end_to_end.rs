//! The real programs together on a simulated TDX machine: platform, enclave, host, and the command that judges.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use touchstone_testkit::events::event_type;
use touchstone_testkit::machine::{TdxMachine, TeeMachine as _};
use touchstone_testkit::stack::{Stack, StackBuilder};
use touchstone_testkit::tdx::{TdReport, attributes};

const MODEL: &str = "digits_mlp_plain";

type TdxStack = Stack<TdxMachine>;

/// Asks the digits model about its held-out rows, over attested TLS; gives what the command said.
fn ask(stack: &TdxStack, policy: &Path, folder: &str) -> Output {
    stack.ask(MODEL, policy, folder, &["--require", "logged quoted"])
}

/// Exit code and deciding check.
fn check(stack: &TdxStack, policy: &Path, folder: &str, more: &[&str]) -> (i32, Value) {
    let policy = policy.display().to_string();
    let arguments = ["check", folder, "--policy", &policy, "--json"];
    let output = stack.touchstone([&arguments[..], more].concat());
    let verdict: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap_or(-1), verdict)
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_answer_from_a_td_proves_itself_and_a_changed_one_does_not() {
    let test = "an_answer_from_a_td_proves_itself_and_a_changed_one_does_not";
    let Some(stack) = StackBuilder::tdx().model(MODEL).start(test) else {
        return;
    };
    let policy = stack.policy("policy.toml", &[]);
    let asked = ask(&stack, &policy, "answer");
    assert!(asked.status.success(), "{}", words(&asked));
    let root = stack.root().display().to_string();
    let trusted = ["--trust-simulated-root", root.as_str()];
    let (exit, verdict) = check(&stack, &policy, "answer", &trusted);
    assert_eq!(exit, 6, "{verdict:#}");
    assert_eq!(verdict["simulated"], true);
    assert_eq!(verdict["binding"], "tls-exporter");
    let achieved = serde_json::json!(["logged", "quoted", "signed"]);
    assert_eq!(verdict["achieved"], achieved);
    // Without its root it is not authentic.
    let (exit, verdict) = check(&stack, &policy, "answer", &[]);
    let deciding = verdict["deciding"].as_str();
    assert_eq!((exit, deciding), (3, Some("tdx.chain.root")));

    let file = stack.folder().join("answer/response.bin");
    let mut response = std::fs::read(&file).unwrap();
    let last = response.len() - 3;
    response[last] ^= 1;
    std::fs::write(&file, &response).unwrap();
    let (exit, verdict) = check(&stack, &policy, "answer", &trusted);
    let deciding = verdict["deciding"].as_str();
    assert_eq!((exit, deciding), (3, Some("compare.response")));
}

/// Each machine is genuine, and none of them gets a question.
#[test]
fn a_td_that_the_policy_does_not_accept_is_not_asked() {
    type Lie = (&'static str, fn(&mut TdxMachine));
    let lies: [Lie; 4] = [
        ("tdx.attributes.debug", |m| {
            m.report.report.td_attributes |= attributes::DEBUG;
        }),
        ("tdx.tcb.status", |m| {
            m.tcb_info.set_status("OutOfDate", &[])
        }),
        ("tdx.rtmr3", |m| {
            m.measure(3, event_type::EVENT_TAG, b"something else");
        }),
        ("tdx.mrtd", |m| m.report.report.mr_td = [0; 48]),
    ];
    let test = "a_td_that_the_policy_does_not_accept_is_not_asked";
    let honest = TdxMachine::new(4, TdReport::v1_0(), now());
    for (deciding, lie) in lies {
        let mut machine = honest.clone();
        lie(&mut machine);
        let builder = StackBuilder::tdx().machine(machine).model(MODEL);
        let Some(stack) = builder.start(test) else {
            return;
        };
        // What the caller knows of the image is what an honest machine measures.
        let expected: Vec<(&str, String)> = honest
            .reference_values()
            .into_iter()
            .map(|(key, value)| (key, format!("{{ expect = [{value:?}] }}")))
            .collect();
        let expected: Vec<(&str, &str)> = expected.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let policy = stack.policy("policy.toml", &expected);
        let asked = ask(&stack, &policy, "answer");
        let words = words(&asked);
        assert_eq!(asked.status.code(), Some(4), "{deciding}: {words}");
        assert!(words.contains(&format!("because {deciding}: ")), "{words}");
        assert!(!stack.folder().join("answer/response.bin").exists());
    }
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}
