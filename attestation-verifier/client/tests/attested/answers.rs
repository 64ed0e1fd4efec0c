//! What makes an answer a verified one, and what the host can do about it: nothing but keep it from being one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use attestation_verifier::exchange::{Expect, ResponseInfo, SessionRecord};
use attestation_verifier::ohttp::ConnectionRecord;
use attestation_verifier::verdict::Class;
use touchstone_client::oip::Encoding;
use touchstone_client::{Client, Error, Question, Unverified, Waited};
use touchstone_formats::headers::State;
use touchstone_formats::{Bundle, GuaranteeSet};
use touchstone_testkit::mint::Exchange;

use crate::support::{Hook, Reply, Server, input, output, refused, served};

const ASKED: [f32; 4] = [0.25, -1.0, 8.0, 1e-9];

/// The same question to a server that answers as it should.
async fn works(server: &Server) -> Client {
    let client = server.builder().connect().await.unwrap();
    let answer = client.infer("digits", &[input(ASKED)]).await.unwrap();
    let answer = answer.verified().await.unwrap();
    assert_eq!(answer.outputs(), [output(ASKED)]);
    client
}

async fn verify(client: &Client) -> Unverified {
    let answer = client.infer("digits", &[input(ASKED)]).await.unwrap();
    answer.verified().await.expect_err("a lie")
}

#[track_caller]
fn decided(unverified: &Unverified, exit: u8, deciding: &str) {
    let verdict = &unverified.verdict;
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (exit, Some(deciding)),
        "{}",
        verdict.words()
    );
    assert!(unverified.to_string().contains(deciding), "{unverified}");
}

#[tokio::test]
async fn an_answer_that_is_altered_is_not_verified() {
    let server = Server::start().await;
    let client = works(&server).await;
    server.hooks().infer = Some(Box::new(|_, _, honest| {
        honest.with_body(|mut body| {
            *body.last_mut().unwrap() ^= 1;
            body
        })
    }));
    let unverified = verify(&client).await;
    decided(&unverified, 3, "opening.response");
    assert!(unverified.bundle.is_some());
    assert_eq!(client.counters().unverified, 1);
}

/// The answer before the last one, in place of the last.
fn swapped() -> Hook {
    let mut before: Option<Reply> = None;
    Box::new(move |_, _, honest| before.replace(honest.clone()).unwrap_or(honest))
}

#[tokio::test]
async fn somebody_elses_answer_is_not_verified() {
    let server = Server::start().await;
    let client = works(&server).await;
    server.hooks().infer = Some(swapped());
    let first = client.infer("digits", &[input([9.0; 4])]).await.unwrap();
    first.verified().await.unwrap();
    decided(&verify(&client).await, 3, "opening.request");
    // The same question twice: the nonce tells them apart.
    server.hooks().infer = Some(swapped());
    let first = client.infer("digits", &[input(ASKED)]).await.unwrap();
    first.verified().await.unwrap();
    decided(&verify(&client).await, 4, "receipt.nonce");
}

#[tokio::test]
async fn what_was_demanded_stays_demanded() {
    let server = Server::start().await;
    let client = works(&server).await;
    let question = || {
        let inputs = [input(ASKED)];
        Question::infer("digits", None, &inputs, Encoding::Binary).unwrap()
    };
    // Somebody strips the demand down to `signed`, and the seal is never made.
    let signed = GuaranteeSet::parse_words("signed").unwrap();
    server.hooks().exchange = Some(Box::new(move |exchange| exchange.require = signed));
    let answer = client.ask(question()).await.unwrap();
    assert_eq!(
        answer.notes(),
        ["asked for logged signed, and the answer says signed"]
    );
    let unverified = answer.verified().await.unwrap_err();
    decided(&unverified, 4, "guarantees.required");

    // More than the policy asks for: the caller's own demand counts as well.
    server.hooks().exchange = None;
    let quoted = GuaranteeSet::parse_words("logged quoted").unwrap();
    let answer = client.ask(question().require(quoted)).await.unwrap();
    let answer = answer.verified().await.unwrap();
    assert_eq!(
        answer.verdict().context.achieved,
        ["logged", "quoted", "signed"]
    );
}

#[tokio::test]
async fn a_nonce_of_the_callers_own_is_sent_and_compared() {
    let server = Server::start().await;
    let client = works(&server).await;
    let inputs = [input(ASKED)];
    let question = Question::infer("digits", None, &inputs, Encoding::Binary).unwrap();
    let answer = client.ask(question.nonce(vec![5; 16])).await.unwrap();
    let answer = answer.verified().await.unwrap();
    let nonce = answer.question().expect(0).nonce.unwrap();
    assert_eq!(nonce.0, [5; 16]);
}

#[tokio::test]
async fn an_answer_without_openings_cannot_be_compared() {
    let server = Server::start().await;
    let client = works(&server).await;
    server.hooks().infer = Some(Box::new(|_, _, honest| match honest {
        Reply::Http {
            status,
            mut headers,
            body,
        } => {
            headers.retain(|(name, _)| name != "touchstone-openings");
            Reply::Http {
                status,
                headers,
                body,
            }
        }
        other => other,
    }));
    let answer = client.infer("digits", &[input(ASKED)]).await.unwrap();
    assert!(answer.notes()[0].contains("without openings"));
    let unverified = answer.verified().await.unwrap_err();
    assert_eq!(unverified.verdict.exit(), 4, "{unverified}");
}

#[tokio::test]
async fn the_hosts_openings_are_not_the_callers() {
    let server = Server::start().await;
    let client = works(&server).await;
    let inner = server.inner.clone();
    server.hooks().receipt = Some(Box::new(move |_, _, honest| {
        honest.with_body(|body| {
            let mut bundle = Bundle::parse(&body).unwrap();
            let minted = inner.minted.lock().unwrap();
            let other = minted.values().next().unwrap().bundle.openings;
            bundle.openings = other;
            bundle.openings.request = None;
            bundle.to_file()
        })
    }));
    let answer = client.infer("digits", &[input(ASKED)]).await.unwrap();
    let answer = answer.verified().await.unwrap();
    assert!(answer.bundle().openings.request.is_some());
}

#[tokio::test]
async fn the_seal_is_waited_for() {
    let server = Server::start().await;
    let client = works(&server).await;
    let asked = Arc::new(AtomicU64::new(0));
    let (count, inner) = (asked.clone(), server.inner.clone());
    server.hooks().receipt = Some(Box::new(move |_, seen, honest| {
        let id = seen.target.rsplit('/').next().unwrap();
        let early = served(&inner.minted.lock().unwrap()[id], false);
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => {
                assert!(seen.headers["prefer"].starts_with("wait="));
                Reply::problem(404, "Unknown")
            }
            1 => Reply::problem(202, "Waiting"),
            2 => Reply::Raw(Vec::new()),
            3 => Reply::new(202, early),
            _ => honest,
        }
    }));
    let answer = client.infer("digits", &[input(ASKED)]).await.unwrap();
    assert_eq!(answer.state(), State::Pending);
    let answer = answer.verified().await.unwrap();
    assert_eq!(answer.outputs(), [output(ASKED)]);
    // A connection that was kept and broke off is tried again at once, on a new one.
    assert_eq!(asked.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn who_waits_for_ever_gets_his_answer() {
    let server = Server::start().await;
    let client = server.builder().wait(Duration::MAX).timeout(Duration::MAX);
    let client = client.connect().await.unwrap();
    let answer = client.infer("digits", &[input(ASKED)]).await.unwrap();
    assert!(answer.verified().await.is_ok());
}

/// Verification with a host that does this about receipts; it must come to an end in time.
async fn host(receipt: Hook, exit: u8, deciding: &str) -> Unverified {
    let server = Server::start().await;
    works(&server).await;
    let client = server.builder().wait(Duration::from_millis(300));
    let client = client.connect().await.unwrap();
    server.hooks().receipt = Some(receipt);
    let begun = Instant::now();
    let unverified = verify(&client).await;
    assert!(begun.elapsed() < Duration::from_secs(8));
    decided(&unverified, exit, deciding);
    unverified
}

#[tokio::test]
async fn a_host_that_withholds_rubs_out_or_lies_is_named() {
    let retry = Some(Class::Retry);
    for hook in [
        Box::new(|_: &_, _: &_, _| Reply::problem(404, "Unknown")) as Hook,
        Box::new(|_, _, _| Reply::problem(410, "The enclave ended")),
        Box::new(|_, _, _| Reply::problem(500, "Broken")),
        Box::new(|_, _, _| Reply::new(202, "rubbish")),
        Box::new(|_, _, _| Reply::Raw(b"rubbish\r\n\r\n".to_vec())),
        Box::new(|_, _, honest| honest.with_body(|_| vec![b' '; (4 << 20) + 1])),
        Box::new(|_, _, _| Reply::Silence),
    ] {
        let unverified = host(hook, 4, "connection.late").await;
        assert_eq!(unverified.verdict.conclusion.class, retry);
        assert!(unverified.bundle.is_none());
    }
    // A bundle, and another one than was asked for.
    host(
        Box::new(|_, _, _| Reply::new(200, "rubbish")),
        2,
        "answer.format",
    )
    .await;
    let mut before: Option<Reply> = None;
    let other = move |_: &_, _: &_, honest: Reply| {
        before
            .get_or_insert_with(|| honest.with_body(another))
            .clone()
    };
    host(Box::new(other), 2, "answer.format").await;
}

/// A sound bundle, for somebody else's question.
fn another(_: Vec<u8>) -> Vec<u8> {
    let world = touchstone_testkit::mint::World::new(1);
    served(&world.mint(Exchange::json(77)).finish(), true)
}

#[tokio::test]
async fn a_seal_that_does_not_come_is_not_made_up_for() {
    let server = Server::start().await;
    works(&server).await;
    let client = server.builder().wait(Duration::from_millis(200));
    let client = client.connect().await.unwrap();
    let inner = server.inner.clone();
    server.hooks().receipt = Some(Box::new(move |_, seen, _| {
        let id = seen.target.rsplit('/').next().unwrap();
        Reply::new(202, served(&inner.minted.lock().unwrap()[id], false))
    }));
    let unverified = verify(&client).await;
    decided(&unverified, 4, "guarantees.stated");
    assert_eq!(unverified.verdict.conclusion.class, Some(Class::Retry));
    assert!(unverified.bundle.is_some());
    // Nor does it help to call it complete.
    let inner = server.inner.clone();
    server.hooks().receipt = Some(Box::new(move |_, seen, _| {
        let id = seen.target.rsplit('/').next().unwrap();
        Reply::new(200, served(&inner.minted.lock().unwrap()[id], false))
    }));
    decided(&verify(&client).await, 4, "guarantees.stated");
}

#[tokio::test]
async fn a_refusal_with_a_receipt_is_no_answer_but_can_be_proven() {
    let server = Server::start().await;
    let client = works(&server).await;
    server.hooks().exchange = Some(Box::new(|exchange| {
        let refusal = Exchange::refusal(exchange.number, 422);
        exchange.status = refusal.status;
        exchange.response_body = refusal.response_body;
        exchange.response_header_length = None;
        exchange.outputs.clear();
    }));
    let question = [input(ASKED)];
    let ask = async || client.infer("digits", &question).await.unwrap();
    let refusal = ask().await;
    assert_eq!(refusal.refused(), Some(422));
    decided(&refusal.verified().await.unwrap_err(), 4, "receipt.status");
    let refusal = ask().await.verified_any_status().await.unwrap();
    assert_eq!((refusal.refused(), refusal.outputs().len()), (Some(422), 0));
}

#[tokio::test]
async fn answers_that_are_no_answers_are_named_and_kept() {
    let server = Server::start().await;
    let client = works(&server).await;
    server.hooks().infer = Some(Box::new(|_, _, _| Reply::problem(429, "Too many")));
    let error = client.infer("digits", &[input(ASKED)]).await;
    let error = refused(error, 4, "answer.refused");
    assert!(error.to_string().contains("Too many"), "{error}");
    let Error::Answered(answer) = error else {
        panic!("{error}");
    };
    assert_eq!(answer.status, 429);

    type Lie = fn(&mut Vec<(String, String)>);
    let changed = |change: Lie| -> Hook {
        Box::new(move |_, _, mut honest| {
            if let Reply::Http { headers, .. } = &mut honest {
                change(headers);
            }
            honest
        })
    };
    let lies: [Lie; 6] = [
        |headers| headers.retain(|(name, _)| name != "touchstone"),
        |headers| headers.push(headers[0].clone()),
        |headers| headers.push(("content-encoding".into(), "gzip".into())),
        |headers| headers.retain(|(name, _)| name != "content-type"),
        |headers| headers.retain(|(name, _)| name != "inference-header-content-length"),
        |headers| {
            for (name, value) in headers {
                if name == "inference-header-content-length" {
                    value.insert(0, '0');
                }
            }
        },
    ];
    for lie in lies {
        server.hooks().infer = Some(changed(lie));
        let error = client.infer("digits", &[input(ASKED)]).await;
        let error = refused(error, 2, "answer.format");
        assert!(matches!(
            error,
            Error::Malformed {
                answer: Some(_),
                ..
            }
        ));
    }
    server.hooks().infer = Some(changed(|_| {}));
    let answer = client.infer("digits", &[input(ASKED)]).await.unwrap();
    answer.verified().await.unwrap();
}

#[tokio::test]
async fn what_is_kept_is_all_that_check_needs() {
    let server = Server::start().await;
    let client = works(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("a/b");
    let read = |name: &str| std::fs::read(kept.join(name)).unwrap();

    let answer = client.infer("digits", &[input(ASKED)]).await.unwrap();
    answer.keep(&kept, None).unwrap();
    assert!(!kept.join("bundle.json").exists());
    let expect = Expect::parse(&read("expect.json")).unwrap();
    assert_eq!(expect, answer.question().expect(answer.asked_at()));
    assert_eq!(expect.require, Some(client.policy().answer.require));
    assert_eq!(&read("request.bin"), answer.question().body());
    assert_eq!(read("response.bin"), answer.read_unverified().body);
    assert_eq!(
        ResponseInfo::parse(&read("response.json")).unwrap().status,
        200
    );
    let record = SessionRecord::parse(&read("session.json")).unwrap();
    let attested = ConnectionRecord::Tls(record.clone());
    assert_eq!(attested, client.session().unwrap().record);
    assert!(record.evidence.unwrap().collateral.is_some());

    let mut said = Vec::new();
    let waited = answer.bundle(|state| said.push(state.to_owned())).await;
    let Waited::Complete(bundle) = waited.unwrap() else {
        panic!("{said:?}");
    };
    assert_eq!(answer.judge(&bundle).exit(), 0);
    let verified = answer.verified().await.unwrap();
    verified.keep(&kept).unwrap();
    assert_eq!(Bundle::parse(&read("bundle.json")).unwrap(), bundle);
    assert_eq!(verified.bundle(), &bundle);
}

#[tokio::test]
async fn a_question_somebody_else_wrote_is_sent_as_it_is() {
    let server = Server::start().await;
    let client = works(&server).await;
    let inputs = [input(ASKED)];
    let written = Question::infer("digits", None, &inputs, Encoding::Binary).unwrap();
    let raw = Question::raw(
        written.target(),
        written.header_length(),
        written.body().clone(),
    );
    let answer = client.ask(raw.unwrap()).await.unwrap();
    let answer = answer.verified().await.unwrap();
    assert_eq!(answer.outputs(), [output(ASKED)]);
    assert!(answer.bundle().openings.inputs.is_none());
}
