//! Sealed requests (formats.md §13): none is sealed before the key is proven, and whatever the host makes of one, it gets no answer
//! believed and nothing told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use attestation_verifier::ohttp::{ConnectionRecord, OhttpRecord};
use attestation_verifier::verdict::Class;
use attestation_verifier::{At, Binding, Policy, check_ohttp_record};
use touchstone_client::{Builder, Client, Error};
use touchstone_formats::Purpose;
use touchstone_formats::session::{SessionAnswer, SessionRequest};
use touchstone_formats::text::Base64Bytes;
use touchstone_testkit::mint::World;

use crate::support::{Enclave, Reply, Seen, Server, input, output, refused};

const ASKED: [f32; 4] = [0.1, 0.5, -2.25, 3.0e-7];
const EITHER: (&str, &str) = ("binding", "{ expect = [\"tls-exporter\", \"ohttp-key\"] }");

fn builder_with(server: &Server, policy: Policy) -> Builder {
    let url = server.url.replace("https://", "http://");
    Client::builder(&url, policy)
        .unwrap()
        .sealed()
        .roots(server.roots())
        .expect_simulated(true)
        .timeout(Duration::from_secs(10))
        .wait(Duration::from_secs(3))
        .clock(|| World::AT)
}

fn builder(server: &Server) -> Builder {
    builder_with(server, server.policy(&[EITHER]))
}

async fn ask(client: &Client) -> Result<(), Error> {
    let answer = client.infer("digits", &[input(ASKED)]).await?;
    let answer = answer.verified().await.unwrap();
    assert_eq!(answer.outputs(), [output(ASKED)]);
    assert_eq!(answer.verdict().binding(), Binding::OhttpKey);
    Ok(())
}

/// The server answers as it should, and all of it works.
async fn works(server: &Server) {
    ask(&builder(server).connect().await.unwrap())
        .await
        .unwrap();
}

/// How many sealed requests the host was given.
fn sealed(server: &Server) -> usize {
    server.host_was_asked("/v1/ohttp")
}

fn boots(server: &Server) -> usize {
    server.host_was_asked("/v1/boot")
}

#[tokio::test]
async fn sealed_questions_are_answered_and_the_host_reads_none() {
    let server = Server::start().await;
    let client = builder(&server).connect().await.unwrap();
    let session = client.session().unwrap();
    assert_eq!(session.verdict.binding(), Binding::OhttpKey);
    assert_eq!(session.bound().keyset(), Some(session.keyset()));
    assert_eq!((boots(&server), sealed(&server)), (1, 0));
    for _ in 0..3 {
        ask(&client).await.unwrap();
    }
    // One quote for all of them.
    assert_eq!((boots(&server), sealed(&server)), (1, 3));
    let counters = client.counters();
    assert_eq!(
        (counters.sessions, counters.answers, counters.resent),
        (1, 3, 0)
    );

    let needle = 0.1f32.to_le_bytes();
    let opened = server.inner.opened.lock().unwrap();
    assert!(opened.iter().all(|asked| {
        asked.target == "/v2/models/digits/infer" && asked.body.windows(4).any(|w| w == needle)
    }));
    for seen in server.inner.seen.lock().unwrap().iter() {
        let own = ["/v1/boot", "/v1/ohttp", "/v1/collateral", "/v1/receipts/"];
        assert!(
            own.iter().any(|own| seen.target.starts_with(own)),
            "{seen:?}"
        );
        assert!(!seen.body.windows(4).any(|w| w == needle), "{seen:?}");
        let told = ["touchstone", "inference-header-content-length", "prefer"];
        let told = told.iter().filter(|name| seen.headers.contains_key(**name));
        let may = usize::from(seen.target.starts_with("/v1/receipts/"));
        assert!(told.count() <= may, "{seen:?}");
        assert!(
            !seen.headers.values().any(|value| value.contains("digits")),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn many_at_once_share_one_attested_key() {
    let server = Server::start().await;
    let client = builder(&server).connections(4).connect().await.unwrap();
    let asking = (0..12).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { ask(&client).await.unwrap() })
    });
    for task in asking.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!((boots(&server), sealed(&server)), (1, 12));
}

#[tokio::test]
async fn what_is_kept_shows_the_same_again() {
    let server = Server::start().await;
    let client = builder(&server).connect().await.unwrap();
    let answer = client.infer("digits", &[input(ASKED)]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    answer.keep(folder.path(), None).unwrap();
    let file = std::fs::read(folder.path().join("session.json")).unwrap();
    let record = OhttpRecord::parse(&file).unwrap();
    let session = client.session().unwrap();
    assert_eq!(session.record, ConnectionRecord::Ohttp(record.clone()));
    let at = At {
        time: World::AT,
        asserted: false,
    };
    let again = check_ohttp_record(&record, client.policy(), &server.roots(), at, true);
    assert_eq!(again.verdict.exit(), 0, "{}", again.verdict.words());
    assert_eq!(again.bound(), session.bound());
}

/// One lie in the evidence: nothing is sealed.
async fn lie(
    exit: u8,
    deciding: &str,
    boot: impl FnMut(&Enclave, &Seen, Reply) -> Reply + Send + 'static,
) {
    let server = Server::start().await;
    works(&server).await;
    server.inner.seen.lock().unwrap().clear();
    server.hooks().boot = Some(Box::new(boot));
    refused(builder(&server).connect().await, exit, deciding);
    assert_eq!((boots(&server), sealed(&server)), (1, 0));
}

/// The honest answer with a change.
fn changed(reply: Reply, change: impl FnOnce(&mut SessionAnswer)) -> Reply {
    reply.with_body(|body| {
        let mut answer = SessionAnswer::parse(&body).unwrap();
        change(&mut answer);
        answer.to_file()
    })
}

fn nonce(seen: &Seen) -> [u8; 32] {
    SessionRequest::parse(&seen.body).unwrap().nonce
}

#[tokio::test]
async fn a_key_of_the_hosts_own_is_refused() {
    let own = touchstone_ohttp::GatewayKey::generate(1)
        .unwrap()
        .configurations();
    lie(3, "evidence.report_data", move |_, _, reply| {
        changed(reply, |answer| {
            answer.keyset.ohttp_keys = Some(Base64Bytes(own.clone()));
        })
    })
    .await;
    lie(3, "session.ohttp_key", |_, _, reply| {
        changed(reply, |answer| answer.keyset.ohttp_keys = None)
    })
    .await;
}

#[tokio::test]
async fn evidence_of_another_time_or_for_another_purpose_is_refused() {
    lie(3, "session.nonce", |enclave, _, _| {
        enclave.session(enclave.boot_evidence([7; 32]))
    })
    .await;
    lie(3, "evidence.report_data", |enclave, seen, _| {
        let reply = enclave.session(enclave.boot_evidence([7; 32]));
        let nonce = nonce(seen);
        changed(reply, |answer| answer.evidence.nonce = Some(nonce.to_vec()))
    })
    .await;
    lie(2, "evidence.purpose", |enclave, seen, _| {
        enclave.session(enclave.evidence(nonce(seen), [9; 32]))
    })
    .await;
    lie(3, "evidence.report_data", |enclave, seen, _| {
        let reply = enclave.session(enclave.evidence(nonce(seen), [9; 32]));
        changed(reply, |answer| {
            answer.evidence.purpose = Some(Purpose::Boot)
        })
    })
    .await;
    lie(2, "session.format", |_, _, reply| {
        reply.with_body(|mut body| {
            body.truncate(100);
            body
        })
    })
    .await;
    lie(4, "session.refused", |_, _, _| Reply::problem(404, "None")).await;
}

#[tokio::test]
async fn a_keyset_that_has_ended_is_refused() {
    let server = Server::start().await;
    works(&server).await;
    server.rotate(|world| {
        world.keyset.not_before = World::AT - 1000;
        world.keyset.not_after = World::AT - 1;
    });
    let before = sealed(&server);
    refused(builder(&server).connect().await, 4, "keyset.lifetime");
    assert_eq!(sealed(&server), before);
}

#[tokio::test]
async fn the_policy_has_to_accept_the_binding() {
    let server = Server::start().await;
    works(&server).await;
    let before = sealed(&server);
    let silent = Policy::parse(&server.policy_text_without_session()).unwrap();
    for policy in [server.policy(&[]), silent] {
        let refusal = builder_with(&server, policy).connect().await;
        refused(refusal, 4, "session.binding");
    }
    assert_eq!(sealed(&server), before);
    let url = |url: &str| Client::builder(url, server.policy(&[EITHER])).unwrap();
    refused(url(&server.url).sealed().connect().await, 1, "usage");
    let plain = server.url.replace("https://", "http://");
    let both = url(&plain).sealed().readable_by_the_host();
    refused(both.connect().await, 1, "usage");
}

/// What the host makes of the answer to a sealed request; the next one it leaves alone.
async fn meddles(
    exit: u8,
    deciding: &str,
    mut meddle: impl FnMut(Reply) -> Reply + Send + 'static,
) -> Error {
    let server = Server::start().await;
    works(&server).await;
    let client = builder(&server).connect().await.unwrap();
    let before = sealed(&server);
    let once = AtomicUsize::new(0);
    server.hooks().sealed = Some(Box::new(move |_, _, reply| {
        match once.fetch_add(1, Ordering::SeqCst) {
            0 => meddle(reply),
            _ => reply,
        }
    }));
    let error = refused(ask(&client).await, exit, deciding);
    // Sent once: who was lied to does not ask again by himself.
    assert_eq!(sealed(&server), before + 1);
    ask(&client).await.unwrap();
    error
}

#[tokio::test]
async fn answers_that_were_changed_are_refused() {
    meddles(3, "ohttp.answer", |reply| {
        reply.with_body(|mut body| {
            let last = body.len() - 1;
            body[last] ^= 1;
            body
        })
    })
    .await;
    for kept in [0, 10, 40] {
        meddles(3, "ohttp.answer", move |reply| {
            reply.with_body(|mut body| {
                body.truncate(kept);
                body
            })
        })
        .await;
    }
    meddles(3, "ohttp.answer", |reply| {
        reply.with_body(|mut body| {
            body.truncate(body.len() - 1);
            body
        })
    })
    .await;
    // Cut off on the way: the length that was announced does not come.
    meddles(1, "connection.io", |reply| {
        let Reply::Http { body, .. } = reply else {
            panic!("an answer")
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: message/ohttp-res\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Reply::Torn([head.as_bytes(), &body[..body.len() / 2]].concat())
    })
    .await;
}

#[tokio::test]
async fn an_answer_without_its_seal_is_none() {
    meddles(3, "ohttp.answer", |_| {
        Reply::new(200, "{\"outputs\":[]}").header("content-type", "application/json")
    })
    .await;
    meddles(3, "ohttp.answer", |reply| match reply {
        Reply::Http { body, .. } => Reply::new(200, body),
        other => other,
    })
    .await;
}

#[tokio::test]
async fn what_is_said_outside_the_seal_is_no_answer() {
    for status in [301, 400, 404, 500] {
        meddles(4, "ohttp.refused", move |_| Reply::problem(status, "no")).await;
    }
    for status in [429, 503] {
        let error = meddles(4, "ohttp.refused", move |_| Reply::problem(status, "busy")).await;
        assert_eq!(error.verdict().conclusion.class, Some(Class::Retry));
    }
}

#[tokio::test]
async fn answers_of_other_requests_are_refused() {
    let server = Server::start().await;
    works(&server).await;
    let client = builder(&server).connect().await.unwrap();
    // An earlier answer, and one of a request that is under way at the same time.
    let earlier = Arc::new(Mutex::new(None));
    let kept = earlier.clone();
    server.hooks().sealed = Some(Box::new(move |_, _, reply| {
        kept.lock().unwrap().replace(reply.clone());
        reply
    }));
    ask(&client).await.unwrap();
    let old = earlier.lock().unwrap().take().unwrap();
    let first = Mutex::new(Some(old));
    server.hooks().sealed = Some(Box::new(move |_, _, reply| {
        // Each gets the answer of the one before.
        first.lock().unwrap().replace(reply).unwrap()
    }));
    refused(ask(&client).await, 3, "ohttp.answer");
    refused(ask(&client).await, 3, "ohttp.answer");
    server.hooks().sealed = None;
    ask(&client).await.unwrap();
}

/// A host that sends a copy ahead keeps the answer, which it cannot read; what the caller gets says so, and is no word of the
/// enclave's about his question.
#[tokio::test]
async fn an_answer_that_was_given_for_a_copy_is_missed_by_name() {
    let server = Server::start().await;
    let client = builder(&server).connect().await.unwrap();
    for (status, exit, deciding) in [(409, 3, "ohttp.answer"), (404, 4, "answer.refused")] {
        server.hooks().infer = Some(Box::new(move |_, _, _| Reply::problem(status, "no")));
        let before = sealed(&server);
        refused(ask(&client).await, exit, deciding);
        assert_eq!(sealed(&server), before + 1);
    }
    server.hooks().infer = None;
    ask(&client).await.unwrap();
    // In TLS nobody sends a copy.
    server.hooks().infer = Some(Box::new(|_, _, _| Reply::problem(409, "no")));
    let attested = server.builder().connect().await.unwrap();
    refused(ask(&attested).await, 4, "answer.refused");
}

#[tokio::test]
async fn a_rotated_keyset_is_proven_before_the_next_request() {
    let server = Server::start().await;
    let client = builder(&server).connect().await.unwrap();
    ask(&client).await.unwrap();
    let old = client.session().unwrap().keyset();
    server.rotate(|_| {});
    ask(&client).await.unwrap();
    assert_ne!(client.session().unwrap().keyset(), old);
    assert_eq!((boots(&server), sealed(&server)), (2, 3));
    assert_eq!(client.counters().resent, 1);
    // What the enclave itself says inside the seal, when another keyset came while it worked.
    let once = AtomicUsize::new(0);
    server.hooks().infer = Some(Box::new(move |_, _, reply| {
        match once.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::problem(421, "Misdirected"),
            _ => reply,
        }
    }));
    ask(&client).await.unwrap();
    assert_eq!((boots(&server), sealed(&server)), (3, 5));
    assert_eq!(client.counters().resent, 2);
}

#[tokio::test]
async fn a_keyset_that_changes_while_it_is_proven_is_asked_for_again() {
    let server = Server::start().await;
    let once = AtomicUsize::new(0);
    server.hooks().boot = Some(Box::new(move |_, _, reply| {
        match once.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::problem(421, "Misdirected"),
            _ => reply,
        }
    }));
    works(&server).await;
    assert_eq!((boots(&server), sealed(&server)), (2, 1));
}

#[tokio::test]
async fn a_host_that_only_says_that_the_keyset_changed_is_refused() {
    meddles_with_keys(|_| Reply::problem(422, "Another keyset")).await;
}

/// As `meddles`; the key is proven again meanwhile, and found to be the same.
async fn meddles_with_keys(meddle: impl Fn(Reply) -> Reply + Send + 'static) {
    let server = Server::start().await;
    let client = builder(&server).connect().await.unwrap();
    ask(&client).await.unwrap();
    server.hooks().sealed = Some(Box::new(move |_, _, reply| meddle(reply)));
    refused(ask(&client).await, 4, "ohttp.refused");
    assert_eq!((boots(&server), sealed(&server)), (2, 2));
    server.hooks().sealed = None;
    ask(&client).await.unwrap();
    assert_eq!((boots(&server), sealed(&server)), (2, 3));
}

/// A host hands the question over, hides the answer and says that the keyset changed. When no other key is proven then, nobody is
/// told that nothing was sent.
#[tokio::test]
async fn what_was_sent_before_another_key_was_asked_for_is_not_forgotten() {
    type Boot = fn(Reply, &Seen) -> Reply;
    let lies: [(u8, &str, Boot); 3] = [
        (4, "session.refused", |_, _| Reply::problem(503, "busy")),
        (3, "session.nonce", |reply, _| {
            changed(reply, |a| a.evidence.nonce = Some(vec![9; 32]))
        }),
        (2, "session.format", |_, _| Reply::new(200, "{}")),
    ];
    for (exit, deciding, lie) in lies {
        let server = Server::start().await;
        let client = builder(&server).connect().await.unwrap();
        ask(&client).await.unwrap();
        server.hooks().sealed = Some(Box::new(|_, _, _| Reply::problem(422, "Another keyset")));
        server.hooks().boot = Some(Box::new(move |_, seen, reply| lie(reply, seen)));
        let error = refused(ask(&client).await, exit, deciding);
        assert!(matches!(error, Error::NotResealed(_)), "{error:?}");
        let words = error.verdict().words();
        assert!(
            words.contains("The question had been sent before"),
            "{words}"
        );
        // The enclave answered both.
        assert_eq!(server.inner.opened.lock().unwrap().len(), 2);
        // Now, and at the first time, nothing was sent.
        let before = sealed(&server);
        for error in [
            refused(ask(&client).await, exit, deciding),
            refused(builder(&server).connect().await, exit, deciding),
        ] {
            assert!(!matches!(error, Error::NotResealed(_)), "{error:?}");
            assert!(!error.verdict().words().contains("sent before"));
        }
        assert_eq!(sealed(&server), before);
        (server.hooks().sealed, server.hooks().boot) = (None, None);
        ask(&client).await.unwrap();
    }
}

/// Who has no evidence given holds all up for as long as one, and not each for as long as all before him.
#[tokio::test]
async fn evidence_that_does_not_come_is_waited_for_by_all_at_once() {
    let server = Server::start().await;
    let limit = Duration::from_secs(1);
    let client = builder(&server).connections(8).timeout(limit);
    let client = client.connect().await.unwrap();
    ask(&client).await.unwrap();
    server.rotate(|_| {});
    server.hooks().boot = Some(Box::new(|_, _, _| Reply::Silence));
    let began = Instant::now();
    let asking = (0..8).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { refused(ask(&client).await, 4, "connection.late") })
    });
    for task in asking.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    // One that asks, one whose turn comes in the last moment.
    assert!(began.elapsed() < 5 * limit, "{:?}", began.elapsed());
    server.hooks().boot = None;
    ask(&client).await.unwrap();
}
