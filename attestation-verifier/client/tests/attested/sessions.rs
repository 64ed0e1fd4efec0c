//! Nothing but the request for a session reaches a server whose session does not hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use attestation_verifier::ohttp::ConnectionRecord;
use attestation_verifier::verdict::Class;
use attestation_verifier::{At, Binding, Policy, check_session_record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use touchstone_client::{Client, Error};
use touchstone_formats::evidence::{Collateral, CollateralFile};
use touchstone_formats::report_data::bind_boot;
use touchstone_formats::session::{SessionAnswer, SessionRequest};
use touchstone_formats::{Digest, Purpose};
use touchstone_testkit::mint::World;

use crate::support::{Enclave, Hook, Reply, Seen, Server, input, output, refused};

const ASKED: [f32; 4] = [0.1, 0.5, -2.25, 3.0e-7];

/// The server answers as it should, and all of it works.
async fn works(server: &Server) {
    let client = server.builder().connect().await.unwrap();
    let answer = client.infer("digits", &[input(ASKED)]).await.unwrap();
    let answer = answer.verified().await.unwrap();
    assert_eq!(answer.outputs(), [output(ASKED)]);
}

/// Nothing but requests for a session came over TLS, not a byte beside them.
#[track_caller]
fn nothing_sent(server: &Server) {
    let over = server.over_tls();
    assert!(
        over.iter().all(|line| line == "POST /v1/session"),
        "{over:?}"
    );
    assert_eq!(server.inner.stray.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_attested_connection_carries_questions() {
    let server = Server::start().await;
    let client = server.builder().connect().await.unwrap();
    assert_eq!(server.over_tls(), ["POST /v1/session"]);
    let session = client.session().unwrap();
    assert_eq!(session.verdict.exit(), 0);
    assert_eq!(session.verdict.binding(), Binding::TlsExporter);
    assert_eq!(session.bound().keyset(), Some(session.keyset()));

    let provisional = client.infer("digits", &[input(ASKED)]).await.unwrap();
    assert!(Arc::ptr_eq(provisional.session().unwrap(), &session));
    let answer = provisional.verified().await.unwrap();
    assert_eq!(answer.outputs(), [output(ASKED)]);
    assert_eq!(answer.verdict().binding(), Binding::TlsExporter);
    assert_eq!(answer.verdict().context.covers.len(), 5);

    // What is kept of the session shows the same again.
    let at = At {
        time: World::AT,
        asserted: false,
    };
    let ConnectionRecord::Tls(record) = &session.record else {
        panic!("a TLS connection")
    };
    let again = check_session_record(record, client.policy(), &server.roots(), at, true);
    assert_eq!(again.verdict.exit(), 0, "{}", again.verdict.words());

    let counters = client.counters();
    assert_eq!((counters.sessions, counters.answers), (1, 1));
    assert_eq!((counters.verified, counters.unverified), (1, 0));
}

/// One lie in the first exchange: the server's answer in place of the honest one.
async fn lie(
    exit: u8,
    deciding: &str,
    session: impl FnMut(&Enclave, &Seen, Reply) -> Reply + Send + 'static,
) -> Error {
    let server = Server::start().await;
    works(&server).await;
    server.inner.seen.lock().unwrap().clear();
    server.hooks().session = Some(Box::new(session));
    let error = refused(server.builder().connect().await, exit, deciding);
    server.quiet().await;
    nothing_sent(&server);
    assert_eq!(server.sessions(), 1);
    error
}

fn nonce(seen: &Seen) -> [u8; 32] {
    SessionRequest::parse(&seen.body).unwrap().nonce
}

#[tokio::test]
async fn evidence_over_another_exporter_is_refused() {
    lie(3, "evidence.report_data", |enclave, seen, _| {
        enclave.session(enclave.evidence(nonce(seen), [7; 32]))
    })
    .await;
}

#[tokio::test]
async fn evidence_for_another_nonce_is_refused() {
    lie(3, "session.nonce", |enclave, seen, _| {
        enclave.session(enclave.evidence([7; 32], seen.exporter))
    })
    .await;
}

#[tokio::test]
async fn evidence_of_another_purpose_is_refused() {
    lie(2, "evidence.purpose", |enclave, _, _| {
        let mut evidence = enclave.world.evidence(Purpose::Boot, None, bind_boot());
        evidence.collateral = None;
        enclave.session(evidence)
    })
    .await;
}

#[tokio::test]
async fn another_tls_key_than_the_keysets_is_refused() {
    lie(3, "session.tls_key", |enclave, seen, _| {
        let mut world = enclave.world.clone();
        world.keyset.tls_spki_sha256 = Some(Digest([9; 32]));
        let bind = touchstone_formats::report_data::bind_session(Digest([9; 32]), &seen.exporter);
        let nonce = Some(nonce(seen).to_vec());
        let evidence = world.evidence(Purpose::Session, nonce, bind);
        let keyset = world.keyset;
        Reply::new(200, SessionAnswer { keyset, evidence }.to_file())
    })
    .await;
}

#[tokio::test]
async fn a_certificate_without_its_key_is_worth_nothing() {
    let honest = Server::start().await;
    works(&honest).await;
    let mut enclave = Enclave::new(World::new(1));
    enclave.show_certificate_of(&honest.enclave());
    let server = Server::with(enclave).await;
    refused(server.builder().connect().await, 3, "connection.tls");
    assert!(server.over_tls().is_empty());
}

#[tokio::test]
async fn what_is_no_session_answer_is_refused() {
    lie(2, "session.format", |_, _, reply| {
        reply.with_body(|mut body| {
            body.pop();
            body
        })
    })
    .await;
    lie(2, "answer.format", |_, _, reply| {
        reply.with_body(|_| vec![b' '; (4 << 20) + 1])
    })
    .await;
    lie(2, "answer.format", |_, _, _| {
        Reply::Raw(b"SSH-2.0-x\r\n\r\n".to_vec())
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_an_io_error() {
    lie(1, "connection.io", |_, _, _| Reply::Raw(Vec::new())).await;
    // Inside the answer: fewer bytes than were announced.
    lie(1, "connection.io", |_, _, _| {
        Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_vec())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_refuses_sessions_is_named_and_its_words_are_harmless() {
    let error = lie(4, "session.refused", |_, _, _| {
        Reply::problem(503, "Too many\u{1b}[2J").header("retry-after", "3")
    })
    .await;
    assert_eq!(error.verdict().conclusion.class, Some(Class::Retry));
    let Error::SessionRefused {
        status,
        reason,
        retry_after,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((status, retry_after), (503, Some(3)));
    assert_eq!(reason, "Too many\\u{1b}[2J");

    let error = lie(4, "session.refused", |_, _, _| {
        Reply::problem(404, "No such")
    })
    .await;
    assert_eq!(error.verdict().conclusion.class, Some(Class::Policy));
}

#[tokio::test]
async fn a_server_that_is_silent_is_given_up() {
    let server = Server::start().await;
    works(&server).await;
    server.inner.seen.lock().unwrap().clear();
    server.hooks().session = Some(Box::new(|_, _, _| Reply::Silence));
    let limit = Duration::from_millis(300);
    let error = refused(
        server.builder().timeout(limit).connect().await,
        4,
        "connection.late",
    );
    assert_eq!(error.verdict().conclusion.class, Some(Class::Retry));
    server.quiet().await;
    nothing_sent(&server);
}

#[tokio::test]
async fn a_keyset_whose_life_is_over_or_has_not_begun_is_refused() {
    for (at, exit) in [
        (World::AT - 3_600 - 300, 0),
        (World::AT - 3_600 - 301, 4),
        (World::AT + 82_800, 0),
        (World::AT + 82_801, 4),
    ] {
        let server = Server::start().await;
        let connected = server.builder().clock(move || at).connect().await;
        match exit {
            0 => drop(connected.unwrap()),
            _ => drop(refused(connected, exit, "keyset.lifetime")),
        }
        server.quiet().await;
        nothing_sent(&server);
    }
}

#[tokio::test]
async fn a_policy_that_does_not_hold_lets_nothing_out() {
    let server = Server::start().await;
    let zeros = format!("{{ expect = \"{}\" }}", "00".repeat(48));
    let exporter = ("binding", r#"{ expect = "tls-exporter" }"#);
    type Changes<'a> = &'a [(&'a str, &'a str)];
    let cases: [(u8, &str, Changes); 8] = [
        (0, "", &[]),
        (
            0,
            "",
            &[exporter, ("name", r#"{ expect = "enclave.example" }"#)],
        ),
        (
            4,
            "keyset.name",
            &[exporter, ("name", r#"{ expect = "another" }"#)],
        ),
        (0, "", &[("binding", r#"{ waive = "any" }"#)]),
        (
            4,
            "session.binding",
            &[("binding", r#"{ expect = "spki-pin" }"#)],
        ),
        (4, "snp.measurement", &[("snp.measurement", &zeros)]),
        (0, "", &[("keyset_span_seconds", "{ expect = 86400 }")]),
        (
            4,
            "keyset.span",
            &[("keyset_span_seconds", "{ expect = 86399 }")],
        ),
    ];
    for (exit, deciding, changes) in cases {
        let policy = server.policy(changes);
        let connected = server.builder_with(policy).connect().await;
        match exit {
            0 => drop(connected.unwrap()),
            _ => drop(refused(connected, exit, deciding)),
        }
        server.quiet().await;
        nothing_sent(&server);
    }
    // A policy that says nothing of connections wants them attested all the same.
    let silent = || Policy::parse(&server.policy_text_without_session()).unwrap();
    let client = server.builder_with(silent()).connect().await.unwrap();
    let binding = client.session().unwrap().verdict.binding();
    assert_eq!(binding, Binding::TlsExporter);
    server.hooks().session = Some(Box::new(|enclave, seen, _| {
        enclave.session(enclave.evidence(nonce(seen), [7; 32]))
    }));
    let connected = server.builder_with(silent()).connect().await;
    refused(connected, 3, "evidence.report_data");
}

#[tokio::test]
async fn a_simulated_platform_has_to_be_asked_for() {
    let server = Server::start().await;
    let connect = |expected| server.builder().expect_simulated(expected).connect();
    drop(connect(true).await.unwrap());
    let error = refused(connect(false).await, 6, "root.simulated");
    assert!(error.to_string().contains("simulated"), "{error}");
    // Nor is its root one of AMD's.
    let policy = server.policy(&[]);
    let pinned = Client::builder(&server.url, policy)
        .unwrap()
        .clock(|| World::AT);
    assert_eq!(pinned.connect().await.unwrap_err().exit(), 3);
    server.quiet().await;
    nothing_sent(&server);
}

#[tokio::test]
async fn nothing_is_resumed_however_much_is_offered() {
    use tokio_rustls::rustls::HandshakeKind;
    let server = Server::start().await;
    // Each request on a connection of its own.
    let client = server.builder().session_life(Duration::ZERO);
    let client = client.connect().await.unwrap();
    for _ in 0..3 {
        let answer = client.infer("digits", &[input(ASKED)]).await.unwrap();
        answer.verified().await.unwrap();
    }
    let handshakes = server.inner.handshakes.lock().unwrap();
    assert_eq!(*handshakes, [HandshakeKind::Full; 4]);
    assert_eq!(server.sessions(), 4);
}

/// Answers every connection with these bytes, and says what came after the first read.
async fn raw(answer: &'static [u8]) -> (String, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = vec![0; 16_384];
        let n = stream.read(&mut hello).await.unwrap();
        assert_eq!(hello[0], 0x16, "a TLS handshake");
        assert!(n > 100);
        stream.write_all(answer).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        rest
    });
    (url, serving)
}

#[tokio::test]
async fn older_tls_and_other_protocols_are_refused() {
    let server = Server::start().await;
    works(&server).await;
    // A ServerHello of TLS 1.2: no supported_versions, ECDHE-ECDSA with AES-128-GCM.
    const TLS12: &[u8] = &{
        let mut hello = [0x5a; 5 + 4 + 2 + 32 + 1 + 3];
        let head = [0x16, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3];
        let mut i = 0;
        while i < head.len() {
            hello[i] = head[i];
            i += 1;
        }
        [hello[43], hello[44], hello[45], hello[46]] = [0, 0xc0, 0x2b, 0];
        hello
    };
    // "protocol_version", as a server says it that has no TLS 1.3.
    const ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2, 70];
    const HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    for answer in [TLS12, ALERT, HTTP] {
        let (url, serving) = raw(answer).await;
        let client = Client::builder(&url, server.policy(&[])).unwrap();
        refused(client.connect().await, 3, "connection.tls");
        // At most an alert in the clear, which says why: 7 bytes.
        let rest = serving.await.unwrap();
        assert!(rest.len() <= 7, "{rest:?}");
    }
    // Nobody there at all.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::builder(&url, server.policy(&[])).unwrap();
    refused(client.connect().await, 1, "connection.io");
}

#[tokio::test]
async fn a_keyset_that_is_replaced_meanwhile_is_asked_again_once() {
    let server = Server::start().await;
    let asked = Arc::new(AtomicU64::new(0));
    let hook = |least: u64| -> Hook {
        let asked = asked.clone();
        Box::new(
            move |_, _, honest| match asked.fetch_add(1, Ordering::SeqCst) {
                n if n < least => Reply::problem(421, "Misdirected").header("connection", "close"),
                _ => honest,
            },
        )
    };
    server.hooks().session = Some(hook(1));
    server.builder().connect().await.unwrap();
    assert_eq!(asked.swap(0, Ordering::SeqCst), 2);
    server.hooks().session = Some(hook(9));
    refused(server.builder().connect().await, 4, "session.refused");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    nothing_sent(&server);
}

fn without_collateral() -> Hook {
    Box::new(|_, _, _| Reply::problem(404, "No collateral"))
}

#[tokio::test]
async fn collateral_is_the_callers_or_the_hosts_or_what_verified_before() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");

    // The host's, and it is kept.
    let client = server.builder().collateral_cache(&cache);
    client.connect().await.unwrap();
    assert_eq!(server.host_was_asked("/v1/collateral"), 1);
    let kept: Vec<_> = std::fs::read_dir(&cache).unwrap().collect();
    assert_eq!(kept.len(), 1, "one file, and nothing half-written");
    let file = kept.into_iter().next().unwrap().unwrap().path();
    let kept = CollateralFile::parse(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept, server.enclave().collateral_file());

    // The host has none: what was kept will do, and without it nothing is sent.
    server.hooks().collateral = Some(without_collateral());
    let client = server.builder().collateral_cache(&cache);
    let client = client.connect().await.unwrap();
    let risks = &client.session().unwrap().verdict.context.residual_risks;
    assert!(
        risks.iter().any(|risk| risk.contains("No collateral")),
        "{risks:?}"
    );
    drop(client);
    let error = server.builder().connect().await.unwrap_err();
    assert_eq!(error.exit(), 5, "{error}");
    assert_eq!(error.verdict().conclusion.class, Some(Class::Retry));

    // The caller's own: the host is not even asked.
    let before = server.host_was_asked("/v1/collateral");
    let own = server.enclave().collateral_file();
    server.builder().collateral(own).connect().await.unwrap();
    assert_eq!(server.host_was_asked("/v1/collateral"), before);
    server.quiet().await;
    nothing_sent(&server);
}

#[tokio::test]
async fn collateral_that_is_out_of_date_gives_way_to_what_is_kept() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let with_cache = || server.builder().collateral_cache(folder.path());
    with_cache().connect().await.unwrap();
    let kept = |()| {
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap();
        std::fs::read(file.unwrap().path()).unwrap()
    };
    let before = kept(());

    // From here on the host has revocation lists of long ago.
    server.hooks().collateral = Some(Box::new(|enclave, _, _| {
        let mut machine = enclave.world.machine.clone();
        machine.crl.this_update = World::AT - 90 * 86_400;
        machine.crl.next_update = Some(World::AT - 60 * 86_400);
        let mut file = enclave.collateral_file();
        if let Collateral::SevSnp(snp) = &mut file.collateral {
            snp.crls = machine.collateral().crls;
        }
        Reply::new(200, file.to_file())
    }));
    let error = server.builder().connect().await.unwrap_err();
    assert_eq!(error.exit(), 5, "{error}");
    assert_eq!(error.verdict().conclusion.class, Some(Class::Operations));
    with_cache().connect().await.unwrap();
    assert_eq!(kept(()), before, "what did not verify is not kept");

    // What is in the folder proves itself, too.
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap();
    std::fs::write(file.unwrap().path(), "rubbish").unwrap();
    assert_eq!(with_cache().connect().await.unwrap_err().exit(), 5);
    server.quiet().await;
    nothing_sent(&server);
}

/// A host that shows an old list, still in date, hides what was revoked since.
#[tokio::test]
async fn an_older_list_does_not_take_the_place_of_a_newer_one_that_is_kept() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let with_cache = || server.builder().collateral_cache(folder.path());
    with_cache().connect().await.unwrap();
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap();
    let file = file.unwrap().path();
    let kept = std::fs::read(&file).unwrap();

    // The host goes back by a day: what is kept serves in its place, and stays.
    server.hooks().collateral = Some(Box::new(|enclave, _, _| {
        let mut machine = enclave.world.machine.clone();
        machine.crl.this_update -= 86_400;
        let mut file = enclave.collateral_file();
        if let Collateral::SevSnp(snp) = &mut file.collateral {
            snp.crls = machine.collateral().crls;
        }
        Reply::new(200, file.to_file())
    }));
    let client = with_cache().connect().await.unwrap();
    let risks = &client.session().unwrap().verdict.context.residual_risks;
    assert!(
        risks.iter().any(|risk| risk.contains("older collateral")),
        "{risks:?}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), kept);
    drop(client);

    // The list that is kept revokes the key: the older one, by which it is good, does not prevail.
    let mut machine = server.enclave().world.machine.clone();
    machine.crl.this_update += 60;
    machine.crl.revoke(&machine.vek.serial);
    let mut revoking = CollateralFile::parse(&kept).unwrap();
    if let Collateral::SevSnp(snp) = &mut revoking.collateral {
        snp.crls = machine.collateral().crls;
    }
    std::fs::write(&file, revoking.to_file()).unwrap();
    refused(with_cache().connect().await, 3, "snp.chain.revoked");
    assert_eq!(std::fs::read(&file).unwrap(), revoking.to_file());
    // The twin, without the folder.
    server.builder().connect().await.unwrap();
    server.quiet().await;
    nothing_sent(&server);
}

#[tokio::test]
async fn collateral_of_another_machine_is_refused() {
    let server = Server::start().await;
    let other = Enclave::new(World::new(2));
    let own = server.enclave().collateral_file();
    server.builder().collateral(own).connect().await.unwrap();
    let builder = server.builder().collateral(other.collateral_file());
    assert_eq!(builder.connect().await.unwrap_err().exit(), 3);
    server.quiet().await;
    nothing_sent(&server);
}

#[tokio::test]
async fn plain_http_has_to_be_asked_for_and_the_policy_has_to_agree() {
    let server = Server::start().await;
    let plain = server.url.replace("https://", "http://");
    let policy = |binding: Option<&str>, answers: &str| match binding {
        Some(binding) => server.policy(&[("binding", binding), ("answers", answers)]),
        None => Policy::parse(&server.policy_text_without_session()).unwrap(),
    };
    let builder = |url: &str, policy| {
        Client::builder(url, policy)
            .unwrap()
            .roots(server.roots())
            .expect_simulated(true)
            .clock(|| World::AT)
    };
    let waived = "{ waive = \"a test\" }";
    let ended = "{ waive = \"a test\", until = \"2001-01-01\" }";
    let expected = "{ expect = [\"tls-exporter\"] }";

    refused(
        builder(&plain, policy(None, waived)).connect().await,
        1,
        "usage",
    );
    let builder = |url, policy| builder(url, policy).readable_by_the_host();
    refused(
        builder(&server.url, policy(None, waived)).connect().await,
        1,
        "usage",
    );
    for demanding in [expected, ended] {
        let policy = policy(Some(demanding), waived);
        refused(
            builder(&plain, policy).connect().await,
            4,
            "session.binding",
        );
    }
    assert!(
        server.inner.seen.lock().unwrap().is_empty(),
        "nothing came at all"
    );

    for (binding, answers, exit) in [
        (None, waived, 0),
        (Some(waived), waived, 0),
        (Some("{ expect = [\"none\", \"tls-exporter\"] }"), waived, 0),
        (Some(waived), expected, 4),
    ] {
        let policy = policy(binding, answers);
        let client = builder(&plain, policy).connect().await.unwrap();
        let asked = client.infer("digits", &[input(ASKED)]).await.unwrap();
        assert!(asked.session().is_none());
        match asked.verified().await {
            Ok(answer) => {
                assert_eq!(exit, 0);
                assert_eq!(answer.verdict().binding(), Binding::None);
            }
            Err(unverified) => {
                let verdict = unverified.verdict;
                assert_eq!(
                    (verdict.exit(), verdict.deciding()),
                    (exit, Some("session.binding"))
                );
            }
        }
    }
    assert!(server.over_tls().is_empty());
}
