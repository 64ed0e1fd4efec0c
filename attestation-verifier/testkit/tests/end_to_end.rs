//! The real programs together: platform, enclave, host, and the command that judges.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use attestation_verifier::exchange::OwnedTensor;
use attestation_verifier::{Binding, Policy, Roots};
use serde_json::Value;
use touchstone_client::{Builder, Client, Verified};
use touchstone_formats::headers::TouchstoneResponse;
use touchstone_formats::{Datatype, Digest};
use touchstone_testkit::platform::Fault;
use touchstone_testkit::stack::{self, Response, Stack, StackBuilder};

const MODEL: &str = "digits_mlp_plain";

/// Asks the digits model about its held-out rows, over attested TLS; gives what the command said.
fn ask(stack: &Stack, policy: &Path, folder: &str, more: &[&str]) -> Output {
    stack.ask(MODEL, policy, folder, more)
}

fn check(stack: &Stack, policy: &Path, folder: &str, more: &[&str]) -> (i32, Value) {
    let policy = policy.display().to_string();
    let mut arguments = vec!["check", folder, "--policy", &policy, "--json"];
    arguments.extend(more);
    let output = stack.touchstone(arguments);
    let verdict = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {} {}", text(&output.stdout), text(&output.stderr)));
    (output.status.code().unwrap_or(-1), verdict)
}

fn logs(stack: &Stack) -> String {
    format!(
        "{}\n{}",
        stack.enclave_process().tail(),
        stack.host_process().tail()
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_answer_proves_itself_and_a_changed_one_does_not() {
    let test = "an_answer_proves_itself_and_a_changed_one_does_not";
    let Some(stack) = StackBuilder::new().model(MODEL).start(test) else {
        return;
    };
    let strict = stack.policy("policy.toml", &[]);
    let signed = stack.policy("signed.toml", &[("require", "[\"signed\"]")]);
    let root = stack.root().display().to_string();
    let trusted = ["--trust-simulated-root", root.as_str()];
    for (folder, policy, more, achieved) in [
        ("signed", &signed, vec!["--require", "signed"], "signed"),
        ("json", &strict, vec!["--json-encoding"], "logged signed"),
        (
            "binary",
            &strict,
            vec!["--binary", "--require", "logged quoted"],
            "logged quoted signed",
        ),
    ] {
        let asked = ask(&stack, policy, folder, &more);
        assert!(
            asked.status.success(),
            "{}\n{}",
            text(&asked.stderr),
            logs(&stack)
        );

        let (exit, verdict) = check(&stack, policy, folder, &trusted);
        assert_eq!(exit, 6, "{verdict:#}");
        assert_eq!(verdict["simulated"], true);
        assert_eq!(verdict["binding"], "tls-exporter");
        let found: BTreeSet<&str> = verdict["achieved"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(
            achieved.split(' ').all(|name| found.contains(name)),
            "{found:?}"
        );
        let (exit, _) = check(
            &stack,
            policy,
            folder,
            &[&trusted[..], &["--expect-simulated"]].concat(),
        );
        assert_eq!(exit, 0);
        // Without its root it is not authentic.
        let (exit, verdict) = check(&stack, policy, folder, &[]);
        assert_eq!(
            (exit, verdict["deciding"].as_str()),
            (3, Some("snp.chain.root")),
            "{verdict:#}"
        );

        // One bit of the answer.
        let file = stack.folder().join(folder).join("response.bin");
        let mut response = std::fs::read(&file).unwrap();
        let last = response.len() - 3;
        response[last] ^= 1;
        std::fs::write(&file, &response).unwrap();
        let (exit, verdict) = check(&stack, policy, folder, &trusted);
        assert_eq!(
            (exit, verdict["deciding"].as_str()),
            (3, Some("compare.response")),
            "{verdict:#}"
        );
    }
}

/// What the enclave does with every way in which a quote source can be bad: it goes on, refuses what needs a quote, never gives
/// less than was asked, and seals what waited as soon as the source is well again.
#[test]
fn no_fault_of_the_quote_source_loses_or_weakens_anything() {
    let test = "no_fault_of_the_quote_source_loses_or_weakens_anything";
    let builder = StackBuilder::new()
        .model(MODEL)
        .enclave("quote.timeout_ms", "300")
        .enclave("quote.retries", "1");
    let Some(stack) = builder.start(test) else {
        return;
    };
    let policy = stack.policy(
        "policy.toml",
        &[("nonce", "{ waive = \"asked without one\" }")],
    );
    let root = stack.root().display().to_string();
    let mut receipts = Vec::new();
    for fault in Fault::ALL {
        stack.platform.set_fault(fault, None);
        let first = infer(&stack, "logged signed", None);
        assert_eq!(
            first.status, 200,
            "{fault:?}: the source was well when this was asked"
        );
        assert_eq!(state(&first), "pending");
        receipts.push((fault, id(&first)));

        let refused = until(&format!("{fault:?} to be noticed"), || {
            let answer = infer(&stack, "logged signed", None);
            match answer.status {
                200 => {
                    assert_eq!(
                        state(&answer),
                        "pending",
                        "{fault:?}: nothing can be sealed"
                    );
                    receipts.push((fault, id(&answer)));
                    None
                }
                _ => Some(answer),
            }
        });
        assert_eq!(refused.status, 503, "{fault:?}");
        assert!(refused.header("retry-after").is_some(), "{fault:?}");
        assert_eq!(
            infer(&stack, "quoted signed", None).status,
            503,
            "{fault:?}"
        );
        // What needs no further quote is answered.
        let signed = infer(&stack, "signed", None);
        assert_eq!(signed.status, 200, "{fault:?}");

        stack.platform.clear_fault();
        until(&format!("recovery from {fault:?}"), || {
            let answer = infer(&stack, "logged signed", Some(20));
            (answer.status == 200 && state(&answer) == "sealed").then_some(())
        });
    }
    for (fault, id) in receipts {
        let bundle = until(&format!("the receipt made under {fault:?}"), || {
            let answer = stack.host().get(&format!("/v1/receipts/{id}"));
            (answer.status == 200).then_some(answer.body)
        });
        let file = format!("{id}.json");
        std::fs::write(stack.folder().join(&file), bundle).unwrap();
        let arguments = [
            "--receipt-only",
            "--trust-simulated-root",
            &root,
            "--expect-simulated",
        ];
        let (exit, verdict) = check(&stack, &policy, &file, &arguments);
        assert_eq!(exit, 0, "{fault:?}: {verdict:#}");
    }
    let counters = stack.platform.counters();
    assert!(counters.faults >= Fault::ALL.len() as u64, "{counters:?}");
    assert_eq!(counters.malformed, 0, "the enclave keeps to the protocol");
}

#[test]
fn a_killed_host_forgets_nothing_and_a_killed_enclave_is_not_papered_over() {
    let test = "a_killed_host_forgets_nothing_and_a_killed_enclave_is_not_papered_over";
    let Some(mut stack) = StackBuilder::new().model(MODEL).start(test) else {
        return;
    };
    let sealed = id(&infer(&stack, "logged signed", Some(20)));
    let receipt = |stack: &Stack, id: &str| stack.host().get(&format!("/v1/receipts/{id}"));
    let before = until("the receipt", || {
        Some(receipt(&stack, &sealed)).filter(|a| a.status == 200)
    });

    stack.kill_host();
    stack.start_host();
    let after = receipt(&stack, &sealed);
    assert_eq!((after.status, &after.body), (200, &before.body));

    // A receipt whose seal never comes: the platform hangs, and the enclave dies waiting.
    stack.platform.set_fault(Fault::Hang, None);
    let lost = id(&infer(&stack, "logged signed", None));
    assert_eq!(receipt(&stack, &lost).status, 202);
    stack.kill_enclave();
    stack.platform.clear_fault();
    stack.start_enclave();
    let gone = until("the end of the other enclave to be noticed", || {
        Some(receipt(&stack, &lost)).filter(|answer| answer.status != 202)
    });
    assert_eq!(gone.status, 410, "{}", text(&gone.body));
    assert_eq!(
        receipt(&stack, &sealed).status,
        200,
        "what was sealed under the old boot stays"
    );

    // And the new enclave serves, under another keyset.
    let answer = infer(&stack, "logged signed", Some(20));
    assert_eq!(state(&answer), "sealed");
    assert_ne!(id(&answer), sealed);
    let unknown = stack
        .host()
        .get("/v1/receipts/00000000000000000000000000000000");
    assert_eq!(unknown.status, 404);
}

/// Killed enclave and killed host, again and again, while callers ask: who was given a bundle once is given it ever after, and what
/// an enclave promised and took with it is said to be gone. Three times; `TOUCHSTONE_KILLS` says otherwise.
#[test]
fn programs_killed_under_load_lose_nothing_that_was_acknowledged() {
    let test = "programs_killed_under_load_lose_nothing_that_was_acknowledged";
    let Some(mut stack) = StackBuilder::new().model(MODEL).start(test) else {
        return;
    };
    let kills = std::env::var("TOUCHSTONE_KILLS").ok();
    let kills = kills.and_then(|kills| kills.parse().ok()).unwrap_or(3);
    let (host, stop) = (stack.host(), AtomicBool::new(false));
    let bundle = |id: &str| host.try_get(&format!("/v1/receipts/{id}"));
    // What callers were promised; and of that, with which bundle it was acknowledged.
    let caller = || {
        let mut promised = Vec::new();
        while !stop.load(Relaxed) {
            let Ok(answer) = try_infer(host, "logged signed", None) else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            if answer.status != 200 {
                assert!(answer.status >= 500, "{}", text(&answer.body));
                continue;
            }
            let id = id(&answer);
            let sealed = (0..50).find_map(|_| {
                std::thread::sleep(Duration::from_millis(10));
                bundle(&id).ok().filter(|found| found.status == 200)
            });
            promised.push((id, sealed.map(|found| found.body)));
        }
        promised
    };
    let (promised, [of_enclaves, of_hosts]) = std::thread::scope(|scope| {
        let callers = [(); 3].map(|()| scope.spawn(caller));
        let mut longest = [Duration::ZERO; 2];
        for number in 0..2 * kills {
            std::thread::sleep(Duration::from_millis(200));
            let began = Instant::now();
            match number % 2 {
                0 => {
                    stack.kill_enclave();
                    stack.start_enclave();
                }
                _ => {
                    stack.kill_host();
                    stack.start_host();
                }
            }
            until("answers again", || {
                try_infer(host, "signed", None)
                    .ok()
                    .filter(|a| a.status == 200)
            });
            longest[number % 2] = longest[number % 2].max(began.elapsed());
        }
        stop.store(true, Relaxed);
        let promised = callers.map(|caller| caller.join().unwrap());
        (promised.concat(), longest)
    });
    let acknowledged = promised.iter().filter(|(_, bundle)| bundle.is_some());
    println!(
        "{kills} kills of each: {} promised, {} acknowledged; answers again after at most {of_enclaves:?} (enclave, started anew), \
         {of_hosts:?} (host, started anew)",
        promised.len(),
        acknowledged.count()
    );
    for (id, before) in &promised {
        let now = until("the end of a receipt", || {
            bundle(id).ok().filter(|answer| answer.status != 202)
        });
        match before {
            Some(before) => assert_eq!((now.status, &now.body), (200, before), "{id}"),
            // A host that is killed takes the promises of its last moment with it.
            None => assert!(
                [200, 404, 410].contains(&now.status),
                "{id}: {}",
                now.status
            ),
        }
    }
}

/// A client of the real host that demands all its policy's template does.
async fn client(stack: &Stack) -> Client {
    let policy = std::fs::read_to_string(stack.policy("client.toml", &[])).unwrap();
    let policy = Policy::parse(&policy).unwrap();
    let builder = Client::builder(&stack.https_url(), policy).unwrap();
    connected(stack, builder).await
}

async fn connected(stack: &Stack, builder: Builder) -> Client {
    let root = std::fs::read(stack.root()).unwrap();
    builder
        .roots(Roots::pinned().with_simulated_pem(&root).unwrap())
        .expect_simulated(true)
        .connect()
        .await
        .unwrap()
}

/// Asks about 64 zeros and waits for the seal; gives the digest of the keyset that the connection was bound to.
async fn verified(client: &Client) -> Digest {
    verified_as(client, Binding::TlsExporter).await
}

async fn verified_as(client: &Client, binding: Binding) -> Digest {
    let zeros = OwnedTensor {
        name: "X".into(),
        datatype: Datatype::Fp32,
        shape: vec![1, 64],
        data: vec![0; 256],
    };
    let provisional = client.infer(MODEL, &[zeros]).await;
    let provisional = provisional.unwrap_or_else(|e| panic!("{}: {e}", e.deciding()));
    let answer: Verified = match provisional.verified().await {
        Ok(answer) => answer,
        Err(unverified) => panic!("{unverified}"),
    };
    assert_eq!(answer.verdict().binding(), binding);
    answer.session().unwrap().keyset()
}

/// Keysets that live for six seconds, and callers who keep asking: nobody is given an answer that does not verify, and nobody
/// notices but by the sessions.
#[tokio::test]
async fn keysets_rotate_under_callers_who_keep_asking() {
    let test = "keysets_rotate_under_callers_who_keep_asking";
    let builder = StackBuilder::new()
        .model(MODEL)
        .enclave("keyset.lifetime_seconds", "6")
        .enclave("keyset.rotate_before_seconds", "3");
    let Some(stack) = builder.start(test) else {
        return;
    };
    let client = client(&stack).await;
    let until = Instant::now() + Duration::from_secs(11);
    let callers = (0..4).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let (mut keysets, mut answers) = (BTreeSet::new(), 0);
            while Instant::now() < until {
                keysets.insert(verified(&client).await.0);
                answers += 1;
            }
            (keysets, answers)
        })
    });
    let mut total = 0;
    for caller in callers.collect::<Vec<_>>() {
        let (keysets, answers) = caller
            .await
            .unwrap_or_else(|e| panic!("{e}\n{}", logs(&stack)));
        assert!(
            keysets.len() >= 3,
            "{} keysets in {answers} answers",
            keysets.len()
        );
        total += answers;
    }
    let counters = client.counters();
    assert_eq!((counters.verified, counters.unverified), (total, 0));
    assert!(counters.sessions >= 3, "{counters:?}");
    assert_eq!(counters.sessions_refused, 0, "{counters:?}");
}

/// On threads of its own the client sees an idle connection end while this test waits for programs.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_enclave_is_proven_anew() {
    let test = "a_restarted_enclave_is_proven_anew";
    let Some(mut stack) = StackBuilder::new().model(MODEL).start(test) else {
        return;
    };
    let client = client(&stack).await;
    let before = verified(&client).await;
    assert_eq!(verified(&client).await, before);
    assert_eq!(client.counters().sessions, 1, "one connection serves both");
    stack.kill_enclave();
    stack.start_enclave();
    let after = verified(&client).await;
    assert_ne!(after, before, "no key outlives its enclave");
    assert_eq!(client.counters().sessions, 2);
    // As long as there is none, nothing is sent.
    stack.kill_enclave();
    let error = client.infer(MODEL, &[]).await.unwrap_err();
    assert_eq!((error.deciding(), error.exit()), ("connection.io", 1));
}

/// One host, two enclaves: sealed requests reach the one whose key was proven, and when that one stops, or dies, the other's
/// key is proven and nobody notices.
#[tokio::test(flavor = "multi_thread")]
async fn sealed_requests_find_their_enclave_among_two() {
    let test = "sealed_requests_find_their_enclave_among_two";
    let builder = StackBuilder::new().model(MODEL).without_host();
    let Some(mut stack) = builder.start(test) else {
        return;
    };
    let machine = (*stack.platform.machine()).clone();
    let other = StackBuilder::new().model(MODEL).without_host();
    let Some(mut other) = other.machine(machine).start(test) else {
        return;
    };
    stack.join(&[&other]);
    stack.start_host();
    let either = "{ expect = [\"tls-exporter\", \"ohttp-key\"] }";
    let changes = [("binding", either), ("answers", either)];
    let policy = stack.policy("sealed.toml", &changes);
    let text_of = std::fs::read_to_string(&policy).unwrap();

    // Whoever comes next proves the key of the one whose turn it is.
    let (mut of, mut clients) = (BTreeSet::new(), Vec::new());
    let began = Instant::now();
    while of.len() < 2 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{}",
            logs(&stack)
        );
        let builder = Client::builder(&stack.url(), Policy::parse(&text_of).unwrap());
        let client = connected(&stack, builder.unwrap().sealed()).await;
        if of.insert(verified_as(&client, Binding::OhttpKey).await) {
            clients.push(client);
        }
    }
    for _ in 0..5 {
        let first = verified_as(&clients[0], Binding::OhttpKey).await;
        assert_ne!(verified_as(&clients[1], Binding::OhttpKey).await, first);
    }
    for client in &clients {
        assert_eq!(client.counters().sessions, 1);
    }

    // Told to stop, by somebody else than the host.
    let drained = stack.enclave_control().post("/control/v1/drain", &[], b"");
    assert_eq!(drained.status, 202);
    let left = verified_as(&clients[0], Binding::OhttpKey).await;
    assert_eq!(verified_as(&clients[1], Binding::OhttpKey).await, left);
    stack.kill_enclave();
    stack.start_enclave();
    until("the enclave that was started anew", || {
        let ready = stack.host_process().tail();
        (ready.matches("after=Serving").count() >= 3).then_some(())
    });
    // Killed, with callers who had its key.
    other.kill_enclave();
    let after = verified_as(&clients[0], Binding::OhttpKey).await;
    assert_eq!(verified_as(&clients[1], Binding::OhttpKey).await, after);
    assert!(after != left && !of.contains(&after));

    // And the command.
    let url = stack.url();
    let asked = stack.ask_at(&url, MODEL, &policy, "sealed", &["--ohttp"]);
    assert!(asked.status.success(), "{}", text(&asked.stderr));
    let root = stack.root().display().to_string();
    let trusted = ["--trust-simulated-root", root.as_str()];
    let (exit, verdict) = check(&stack, &policy, "sealed", &trusted);
    assert_eq!(exit, 6, "{verdict:#}");
    assert_eq!(verdict["binding"], "ohttp-key");
}

/// Asks about 64 zeros under these guarantees, waiting so many seconds for them to hold. Over plain HTTP, deliberately: these
/// tests are about what the host and the enclave's seal do, and see the headers as they come.
fn infer(stack: &Stack, require: &str, wait: Option<u32>) -> Response {
    try_infer(stack.host(), require, wait).expect("an answer")
}

fn try_infer(host: stack::Client, require: &str, wait: Option<u32>) -> std::io::Result<Response> {
    let data = vec!["0"; 64].join(",");
    let body = format!(
        r#"{{"inputs":[{{"name":"X","datatype":"FP32","shape":[1,64],"data":[{data}]}}]}}"#
    );
    let touchstone = format!("require=({require})");
    let prefer = wait.map(|seconds| format!("wait={seconds}"));
    let mut headers = vec![
        ("content-type", "application/json"),
        ("touchstone", &touchstone),
    ];
    headers.extend(prefer.as_deref().map(|prefer| ("prefer", prefer)));
    host.try_request(
        "POST",
        &format!("/v2/models/{MODEL}/infer"),
        &headers,
        body.as_bytes(),
    )
}

fn id(answer: &Response) -> String {
    touchstone(answer)
        .id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn state(answer: &Response) -> String {
    format!("{:?}", touchstone(answer).state).to_lowercase()
}

fn touchstone(answer: &Response) -> TouchstoneResponse {
    let header = answer
        .header("touchstone")
        .unwrap_or_else(|| panic!("{} {}", answer.status, text(&answer.body)));
    TouchstoneResponse::parse(header).unwrap()
}

/// Tries for up to a minute.
fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "waited in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
