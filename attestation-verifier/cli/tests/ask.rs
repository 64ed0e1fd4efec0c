//! `ask` against servers that answer, take their time, refuse, and lie.

#[path = "support/server.rs"]
mod server;
mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use attestation_verifier::dates::rfc3339;
use attestation_verifier::exchange::Expect;
use server::{INPUT, Received, Reply, Server, answer, enclave, served};
use support::{Run, npy, policy_for, touchstone_in};
use touchstone_formats::Bundle;
use touchstone_testkit::mint::{Exchange, Minted, World};

/// A folder with an input tensor, a policy and the simulated root.
struct Caller {
    folder: tempfile::TempDir,
    world: World,
}

impl Caller {
    fn new() -> Caller {
        let folder = tempfile::tempdir().unwrap();
        let world = World::new(1);
        std::fs::write(folder.path().join("x.npy"), npy(&[1, 4], &INPUT)).unwrap();
        let plain = (
            "binding",
            "{ waive = \"the servers here speak plain HTTP\" }",
        );
        let policy = policy_for(&world, &[plain]);
        std::fs::write(folder.path().join("policy.toml"), policy).unwrap();
        std::fs::write(folder.path().join("root.pem"), world.root_pem()).unwrap();
        Caller { folder, world }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ask(&self, server: &Server, more: &[&str]) -> Run {
        let mut args = vec!["ask", &server.url, "digits", "--input", "x=x.npy"];
        args.push("--plaintext");
        args.extend(["--policy", "policy.toml", "-o", "answer"]);
        args.extend(more);
        touchstone_in(self.folder.path(), &args)
    }

    fn check(&self, more: &[&str]) -> Run {
        let at = rfc3339(World::AT);
        let mut args = vec![
            "check",
            "answer",
            "--policy",
            "policy.toml",
            "--json",
            "--at",
            &at,
        ];
        args.extend(["--trust-simulated-root", "root.pem"]);
        args.extend(more);
        touchstone_in(self.folder.path(), &args)
    }

    fn bundle(&self) -> Bundle {
        Bundle::parse(&std::fs::read(self.path("answer/bundle.json")).unwrap()).unwrap()
    }
}

/// A server with an enclave behind it. `receipts` says what the n-th question for the receipt gets.
fn honest(
    world: &World,
    exchange: fn(u64) -> Exchange,
    mut receipts: impl FnMut(usize, &Minted) -> Reply + Send + 'static,
) -> Server {
    let world = world.clone();
    let (mut questions, mut asked, mut last) = (0, 0, None);
    Server::start(move |request| {
        if request.method == "POST" {
            questions += 1;
            let (reply, minted) = enclave(&world, request, exchange(questions));
            last = Some(minted);
            return reply;
        }
        let minted = last.as_ref().expect("asked before");
        assert_eq!(
            request.target,
            format!("/v1/receipts/{}", hex::encode(minted.exchange.cti))
        );
        asked += 1;
        receipts(asked - 1, minted)
    })
}

fn sealed_at_once(_: usize, minted: &Minted) -> Reply {
    Reply::new(200, served(minted, true))
}

#[test]
fn what_is_asked_is_kept_and_holds() {
    let encodings: [&[&str]; 3] = [&[], &["--binary"], &["--json-encoding"]];
    for options in encodings {
        let binary = options != ["--json-encoding"];
        let exchange = if binary {
            Exchange::binary
        } else {
            Exchange::json
        };
        let caller = Caller::new();
        let server = honest(&caller.world, exchange, sealed_at_once);
        let run = caller.ask(&server, options);
        assert_eq!(run.code, 0, "{}", run.stderr);
        // It does not judge, and says how to.
        assert!(run.stdout.contains("not judged"), "{}", run.stdout);
        assert!(
            run.stdout
                .contains("touchstone check answer --policy policy.toml")
        );
        let verdict = caller.check(&[]).verdict();
        assert_eq!(verdict["exit"], 6);
        assert_eq!(
            verdict["covers"],
            serde_json::json!(["request", "response", "nonce"])
        );
        // All four openings were made from the caller's own bytes.
        let openings = caller.bundle().openings;
        for role in touchstone_formats::Role::ALL {
            assert!(openings.of(role).is_some(), "{}", role.name());
        }
        let sent = server.received.lock().unwrap()[0].clone();
        assert_eq!(
            std::fs::read(caller.path("answer/request.bin")).unwrap(),
            sent.body
        );
        assert_eq!(sent.target, "/v2/models/digits/infer");
        let binary = options != ["--json-encoding"];
        assert_eq!(
            sent.headers.contains_key("inference-header-content-length"),
            binary
        );
        let kind = if binary {
            "application/octet-stream"
        } else {
            "application/json"
        };
        assert_eq!(sent.headers["content-type"], kind);
    }
}

#[test]
fn the_record_is_written_before_anything_is_sent() {
    let caller = Caller::new();
    let folder = caller.path("answer");
    let seen = Arc::new(Mutex::new(None));
    let (world, writer) = (caller.world.clone(), seen.clone());
    let server = Server::start(move |request| {
        let (reply, _) = enclave(&world, request, Exchange::binary(1));
        if request.method == "POST" {
            let record = std::fs::read(folder.join("expect.json")).expect("expect.json is there");
            assert_eq!(
                std::fs::read(folder.join("request.bin")).unwrap(),
                request.body
            );
            *writer.lock().unwrap() = Some((Expect::parse(&record).unwrap(), request.clone()));
        }
        reply
    });
    caller.ask(&server, &["--wait", "0"]);
    let (expect, request): (Expect, Received) = seen.lock().unwrap().clone().expect("a request");
    assert_eq!(
        (expect.method.as_str(), expect.target),
        ("POST", request.target)
    );
    let nonce = expect.nonce.unwrap().0;
    assert_eq!(nonce.len(), 32);
    let header = &request.headers["touchstone"];
    let header = touchstone_formats::headers::TouchstoneRequest::parse(header).unwrap();
    assert_eq!(
        (header.nonce, header.require),
        (Some(nonce), expect.require)
    );
    // Nothing that came back changed it.
    let after = std::fs::read(caller.path("answer/expect.json")).unwrap();
    assert_eq!(
        Expect::parse(&after).unwrap().request_sha256,
        expect.request_sha256
    );
}

#[test]
fn every_question_has_a_nonce_of_its_own() {
    let caller = Caller::new();
    let server = honest(&caller.world, Exchange::binary, sealed_at_once);
    let mut nonces = Vec::new();
    for _ in 0..3 {
        assert_eq!(caller.ask(&server, &["--force"]).code, 0);
        let expect = std::fs::read(caller.path("answer/expect.json")).unwrap();
        nonces.push(Expect::parse(&expect).unwrap().nonce.unwrap().0);
    }
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 3);
}

#[test]
fn the_seal_is_waited_for() {
    let caller = Caller::new();
    let server = honest(&caller.world, Exchange::binary, |n, minted| match n {
        0 => Reply::new(404, "{\"title\":\"not known yet\"}"),
        1 => Reply::new(202, served(minted, false)).header("retry-after", "1"),
        2 => Reply::new(202, "{\"title\":\"a document without a bundle\"}"),
        3 => Reply::new(503, "{\"title\":\"busy\"}"),
        _ => Reply::new(200, served(minted, true)),
    });
    let run = caller.ask(&server, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("without its seal"), "{}", run.stderr);
    assert_eq!(server.count("GET"), 5);
    assert_eq!(caller.check(&[]).code, 6);
}

#[test]
fn what_is_not_sealed_in_time_is_kept_as_it_is() {
    let caller = Caller::new();
    let server = honest(&caller.world, Exchange::binary, |_, minted| {
        Reply::new(202, served(minted, false))
    });
    let run = caller.ask(&server, &["--wait", "1"]);
    assert_eq!(run.code, 4);
    let said: Vec<&str> = run.stderr.lines().collect();
    let last = "not complete within 1 s (the receipt is there, without its seal; quotes for: boot)";
    assert_eq!(said.last(), Some(&last), "{}", run.stderr);
    assert_eq!(caller.bundle().proof, None);
    let verdict = caller.check(&[]).refused(4, "guarantees.stated");
    assert_eq!(verdict["class"], "retry");
}

#[test]
fn what_a_server_says_is_harmless_on_a_terminal() {
    let caller = Caller::new();
    let bundle = "{\"\u{9b}2J\\nHOLDS, exit 0\":1}\n";
    let server = honest(&caller.world, Exchange::binary, move |_, _| {
        Reply::new(200, bundle)
    });
    let run = caller.ask(&server, &[]);
    assert_eq!(run.code, 2);
    let said = "because answer.format: the server's bundle: JSON: byte 1: unknown field `\\u{9b}2J\\nHOLDS, exit 0`";
    assert!(run.stderr.contains(said), "{}", run.stderr);
}

#[test]
fn what_never_will_be_sealed_is_said_to_be_so() {
    let caller = Caller::new();
    let server = honest(&caller.world, Exchange::binary, |n, minted| match n {
        0 => Reply::new(202, served(minted, false)),
        _ => Reply::new(410, "{\"title\":\"the enclave ended before sealing\"}"),
    });
    let run = caller.ask(&server, &[]);
    assert_eq!(run.code, 4);
    let said: Vec<&str> = run.stderr.lines().collect();
    let last = "it never will be complete: the enclave ended before sealing";
    assert_eq!(said.last(), Some(&last), "{}", run.stderr);
    assert_eq!(server.count("GET"), 2);
    assert_eq!(caller.bundle().proof, None);
}

#[test]
fn refusals_are_shown_and_kept() {
    let caller = Caller::new();
    let server = Server::start(|_| {
        Reply::new(
            422,
            "{\"title\":\"Unknown model\",\"detail\":\"\\u001b[31mno such model\"}",
        )
    });
    let run = caller.ask(&server, &[]);
    assert_eq!(run.code, 4);
    assert!(
        run.stderr
            .contains("Unknown model; \\u{1b}[31mno such model"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr
            .contains("because answer.refused: refused without a receipt: status 422"),
        "{}",
        run.stderr
    );
    assert!(caller.path("answer/response.bin").exists());
    assert!(!caller.path("answer/bundle.json").exists());

    // A refusal after admission has a receipt, which proves the refusal and no answer.
    let caller = Caller::new();
    let server = honest(&caller.world, |n| Exchange::refusal(n, 503), sealed_at_once);
    let run = caller.ask(&server, &[]);
    assert_eq!(run.code, 4, "{}", run.stderr);
    caller.check(&[]).refused(4, "receipt.status");
    assert_eq!(caller.check(&["--status", "503"]).code, 6);
}

#[test]
fn answers_that_are_none_of_ours_are_malformed() {
    type Lie = fn(Reply, &Minted) -> Reply;
    let lies: [(&str, Lie); 9] = [
        ("no Touchstone header", |mut r, _| {
            r.headers.remove(0);
            r
        }),
        ("header Touchstone", |mut r, _| {
            r.headers[0].1 = "id=1".into();
            r
        }),
        ("header touchstone stands twice", |r, _| {
            let again = r.headers[0].1.clone();
            r.header("touchstone", again)
        }),
        ("header Touchstone-Openings", |mut r, _| {
            r.headers[1].1.push_str(", more=1");
            r
        }),
        ("is not canonical", |mut r, _| {
            r.headers[3].1.insert(0, '0');
            r
        }),
        (
            "header Content-Type: expected application/octet-stream",
            |mut r, _| {
                r.headers[2].1 = "application/json".into();
                r
            },
        ),
        ("header Content-Encoding", |r, _| {
            r.header("content-encoding", "gzip")
        }),
        ("the server's bundle", |r, minted| {
            if r.body.is_empty() {
                r
            } else {
                // The header names another receipt than the bundle that follows.
                let mut other = minted.clone();
                other.exchange.cti = [9; 16];
                answer(&other)
            }
        }),
        ("the server's bundle", |r, _| r),
    ];
    for (n, (says, lie)) in lies.into_iter().enumerate() {
        let caller = Caller::new();
        let world = caller.world.clone();
        let mut last = None;
        let server = Server::start(move |request| {
            if request.method == "POST" {
                let (reply, minted) = enclave(&world, request, Exchange::binary(1));
                last = Some(minted.clone());
                return lie(reply, &minted);
            }
            let bundle = served(last.as_ref().unwrap(), true);
            // The last case: a bundle that is cut.
            Reply::new(
                200,
                if n == 8 {
                    &bundle[..bundle.len() - 1]
                } else {
                    &bundle[..]
                },
            )
        });
        let run = caller.ask(&server, &[]);
        assert_eq!(run.code, 2, "{says}: {}", run.stderr);
        assert!(run.stderr.contains(says), "{says}: {}", run.stderr);
        assert!(!caller.path("answer/bundle.json").exists());
    }
}

#[test]
fn a_stripped_guarantee_is_noticed_by_the_check() {
    // A host that rewrites the header gets the enclave to promise less.
    let caller = Caller::new();
    let world = caller.world.clone();
    let mut last = None;
    let server = Server::start(move |request| {
        if request.method == "POST" {
            let mut request = request.clone();
            let header = request.headers.get_mut("touchstone").unwrap();
            *header = header.replace("logged ", "");
            let (reply, minted) = enclave(&world, &request, Exchange::binary(1));
            last = Some(minted);
            return reply;
        }
        Reply::new(200, served(last.as_ref().unwrap(), true))
    });
    let run = caller.ask(&server, &[]);
    assert_eq!(run.code, 0);
    assert!(
        run.stderr
            .contains("asked for logged signed, and the answer says signed")
    );
    caller.check(&[]).refused(4, "guarantees.required");
}

#[test]
fn redirects_are_not_followed() {
    let elsewhere = Server::start(|_| Reply::new(200, ""));
    let url = elsewhere.url.clone();
    let server = Server::start(move |_| Reply::new(307, "").header("location", url.clone()));
    let caller = Caller::new();
    assert_eq!(caller.ask(&server, &[]).code, 4);
    assert_eq!(
        (
            server.count("POST"),
            elsewhere.received.lock().unwrap().len()
        ),
        (1, 0)
    );
}

#[test]
fn nothing_is_sent_where_something_is_missing() {
    let caller = Caller::new();
    let server = honest(&caller.world, Exchange::binary, sealed_at_once);
    let ask = |args: &[&str]| {
        let run = touchstone_in(
            caller.folder.path(),
            &[&["ask", &server.url, "--plaintext"], args].concat(),
        );
        assert_eq!(run.code, 1, "{}", run.stderr);
        run.stderr
    };
    let policy = ["--policy", "policy.toml", "-o", "out"];
    assert!(ask(&["digits", "--input", "x=x.npy", "-o", "out"]).contains("--policy"));
    assert!(ask(&[&["digits"], &policy[..]].concat()).contains("--input"));
    let missing = [&["digits", "--input", "x=none.npy"], &policy[..]].concat();
    assert!(ask(&missing).contains("none.npy"));
    let wrong = [&["digits", "--input", "x=policy.toml"], &policy[..]].concat();
    assert!(ask(&wrong).contains("policy.toml"));
    let twice = [
        &["digits", "--input", "x=x.npy", "--input", "x=x.npy"],
        &policy[..],
    ]
    .concat();
    assert!(ask(&twice).contains("given twice"));
    assert!(!caller.path("out").exists(), "nothing was written");
    assert_eq!(server.received.lock().unwrap().len(), 0, "nothing was sent");
    // The twin.
    assert_eq!(caller.ask(&server, &[]).code, 0);
}

#[test]
fn an_earlier_answer_is_not_overwritten() {
    let caller = Caller::new();
    let server = honest(&caller.world, Exchange::binary, sealed_at_once);
    std::fs::create_dir(caller.path("answer")).unwrap();
    assert_eq!(caller.ask(&server, &[]).code, 0, "an empty folder is taken");
    let first = std::fs::read(caller.path("answer/bundle.json")).unwrap();
    let again = caller.ask(&server, &[]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("not empty") && again.stderr.contains("--force"));
    assert_eq!(server.count("POST"), 1);
    assert_eq!(
        std::fs::read(caller.path("answer/bundle.json")).unwrap(),
        first
    );
    std::fs::write(caller.path("answer/notes.txt"), "mine").unwrap();
    assert_eq!(caller.ask(&server, &["--force"]).code, 0);
    assert_ne!(
        std::fs::read(caller.path("answer/bundle.json")).unwrap(),
        first
    );
    assert!(
        caller.path("answer/notes.txt").exists(),
        "what is not ours stays"
    );
    assert_eq!(caller.check(&[]).code, 6);
}

#[test]
fn servers_that_are_not_there_or_never_answer() {
    let caller = Caller::new();
    let gone = Server {
        url: "http://127.0.0.1:1".into(),
        received: Default::default(),
    };
    let run = caller.ask(&gone, &[]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("connection.io") && run.stderr.contains("127.0.0.1:1:"),
        "{}",
        run.stderr
    );
    let silent = Server::start(|_| {
        std::thread::sleep(std::time::Duration::from_secs(20));
        Reply::new(200, "")
    });
    let run = caller.ask(&silent, &["--timeout", "1", "--force"]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("no answer within 1 s"),
        "{}",
        run.stderr
    );
}

#[test]
fn demands_beyond_the_policy_are_asked_for() {
    let caller = Caller::new();
    let server = honest(&caller.world, Exchange::binary, sealed_at_once);
    assert_eq!(caller.ask(&server, &["--require", "quoted,logged"]).code, 0);
    let verdict = caller.check(&[]).verdict();
    assert_eq!(
        verdict["achieved"],
        serde_json::json!(["logged", "quoted", "signed"])
    );
    let run = caller.ask(&server, &["--require", "signed", "--force"]);
    assert!(
        run.stderr.contains("the policy demands logged signed"),
        "{}",
        run.stderr
    );
    caller.check(&[]).refused(4, "guarantees.required");
    let run = caller.ask(&server, &["--model-version", "1", "--force"]);
    assert_eq!(run.code, 0);
    let sent = server.received.lock().unwrap();
    let last = sent.iter().rev().find(|r| r.method == "POST").unwrap();
    assert_eq!(last.target, "/v2/models/digits/versions/1/infer");
    assert!(Path::new(&caller.path("answer/bundle.json")).exists());
}
