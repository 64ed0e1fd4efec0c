//! Several enclaves behind one host.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use host::{
    Host,
    config::Config,
    fleet::{Condition, DrainError},
};
use hyper::{Method, StatusCode};
use rusqlite::Connection;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use touchstone_formats::text::hex_encode;

use crate::{
    client::{Answer, get, send, until},
    enclave::{Enclave, Id},
    raw::{RawEnclave, nobody},
    run::Place,
};

const INFER: &str = "/v2/models/digits/infer";

pub struct Two {
    pub a: Arc<Enclave>,
    pub b: Arc<Enclave>,
    pub place: Place,
}

impl Two {
    pub async fn new() -> Self {
        let (a, b) = (Enclave::start().await, Enclave::start().await);
        let place = Place::several(&[
            ("a", a.public, a.control, None),
            ("b", b.public, b.control, None),
        ]);
        Self { a, b, place }
    }

    pub async fn started() -> (Self, Host) {
        let two = Self::new().await;
        let host = two.place.start().await;
        all_are(&host, Condition::Serving).await;
        (two, host)
    }
}

pub async fn all_are(host: &Host, condition: Condition) {
    for name in 0..host.fleet().members().len() {
        is(host, name, condition).await;
    }
}

pub async fn is(host: &Host, number: usize, condition: Condition) {
    let end = Instant::now() + Duration::from_secs(10);
    let member = &host.fleet().members()[number];
    while member.health().condition != condition || member.health().status.is_none() {
        assert!(Instant::now() < end, "{:?}", member.health());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn infer(address: SocketAddr, target: &str) -> Answer {
    let headers = [("touchstone", "require=(logged signed)")];
    send(address, Method::POST, target, &headers, b"question").await
}

/// The receipt that an answer promises.
fn id(answer: &Answer) -> Id {
    let said = answer.header("touchstone").unwrap();
    touchstone_formats::headers::TouchstoneResponse::parse(said)
        .unwrap()
        .id
}

fn receipt(id: Id) -> String {
    format!("/v1/receipts/{}", hex_encode(&id))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_to_the_one_with_the_least_to_do() {
    let (two, host) = Two::started().await;
    two.a.answers_after(Duration::from_millis(1_500));
    let address = host.address();
    // One is busy with four; what comes meanwhile goes to the other, which answers at once.
    let slow: Vec<_> = (0..8)
        .map(|_| tokio::spawn(async move { infer(address, INFER).await.status }))
        .collect();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let busy = two.a.seen_of("infer");
    assert!((1..=4).contains(&busy), "{busy}");
    for _ in 0..10 {
        assert_eq!(infer(address, INFER).await.status, StatusCode::OK);
    }
    assert_eq!(two.a.seen_of("infer"), busy);
    for answer in slow {
        assert_eq!(answer.await.unwrap(), StatusCode::OK);
    }
    // With nothing to do, each in its turn.
    two.a.answers_after(Duration::ZERO);
    let before = (two.a.seen_of("infer"), two.b.seen_of("infer"));
    for _ in 0..10 {
        assert_eq!(infer(address, INFER).await.status, StatusCode::OK);
    }
    let after = (two.a.seen_of("infer"), two.b.seen_of("infer"));
    assert_eq!((after.0 - before.0, after.1 - before.1), (5, 5));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_models_requests_go_to_enclaves_that_have_it() {
    let two = Two::new().await;
    two.b.has_models(&["cats", "digits"]);
    let host = two.place.start().await;
    all_are(&host, Condition::Serving).await;
    let address = host.address();
    for target in [
        "/v2/models/cats/infer",
        "/v2/models/cats/versions/1/infer",
        "/v2/models/cats/versions/1/infer",
    ] {
        assert_eq!(infer(address, target).await.status, StatusCode::OK);
    }
    assert_eq!((two.a.seen_of("cats"), two.b.seen_of("cats")), (0, 3));
    // What nobody has is some enclave's to refuse.
    infer(address, "/v2/models/cats/versions/2/infer").await;
    infer(address, "/v2/models/dogs/infer").await;
    let both = |part: &str| two.a.seen_of(part) + two.b.seen_of(part);
    assert_eq!((both("versions/2"), both("dogs")), (1, 1));
    // A catalog that is replaced is followed.
    two.a.has_models(&["birds"]);
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let before = two.b.seen_of("birds");
        infer(address, "/v2/models/birds/infer").await;
        infer(address, "/v2/models/birds/infer").await;
        if two.b.seen_of("birds") == before {
            break;
        }
        assert!(Instant::now() < end);
    }
    // That the only one that has it is away is not the same as that there is none.
    two.b.die().await;
    is(&host, 1, Condition::Away).await;
    let before = two.a.seen_of("cats");
    let answer = infer(address, "/v2/models/cats/infer").await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, Some("1"))
    );
    assert_eq!(two.a.seen_of("cats"), before);
    let other = infer(address, "/v2/models/birds/infer").await;
    assert_eq!(other.status, StatusCode::OK);
    host.stop().await;
}

/// Only what may be carried out twice goes to a second enclave, and only while no answer has begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_enclave_broke_off_goes_to_another_if_it_may() {
    for (method, target, length, again) in [
        (Method::POST, INFER, 8, true),
        (Method::GET, "/v2/models/digits", 0, true),
        (Method::POST, "/v1/session", 8, false),
        (Method::POST, "/v2/models/digits", 8, false),
        (Method::PUT, INFER, 8, false),
        // Too long to be kept for another attempt.
        (Method::POST, INFER, 100_000, false),
    ] {
        let (two, host) = Two::started().await;
        // Whichever is asked first breaks off; the other does not.
        let broken = Arc::new(AtomicUsize::new(0));
        for enclave in [&two.a, &two.b] {
            let broken = broken.clone();
            enclave.break_off(move |_, _| broken.fetch_add(1, SeqCst) == 0);
        }
        let body = vec![7; length];
        let answer = send(host.address(), method.clone(), target, &[], &body).await;
        let asked = two.a.seen_of(target) + two.b.seen_of(target);
        let what = format!("{method} {target} {length}");
        if again {
            assert_eq!((answer.status, asked), (StatusCode::OK, 2), "{what}");
            assert_eq!((two.a.seen_of(target), two.b.seen_of(target)), (1, 1));
        } else {
            assert_eq!(
                (answer.status, asked),
                (StatusCode::BAD_GATEWAY, 1),
                "{what}"
            );
            assert!(answer.problem().contains("may have been processed"));
        }
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_repeated_once() {
    let enclaves = [
        Enclave::start().await,
        Enclave::start().await,
        Enclave::start().await,
    ];
    let names = ["a", "b", "c"];
    let listeners: Vec<_> = names
        .iter()
        .zip(&enclaves)
        .map(|(name, enclave)| (*name, enclave.public, enclave.control, None))
        .collect();
    let place = Place::several(&listeners);
    let host = place.start().await;
    all_are(&host, Condition::Serving).await;
    for enclave in &enclaves {
        enclave.break_off(|method, _| method == Method::POST);
    }
    let answer = infer(host.address(), INFER).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    let asked: usize = enclaves.iter().map(|e| e.seen_of("infer")).sum();
    assert_eq!(asked, 2);
    host.stop().await;
}

/// What may have been processed is never said not to have been sent, though the second enclave was sent nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_attempt_that_fails_does_not_unsay_the_first() {
    let (two, host) = Two::started().await;
    let address = host.address();
    // Whoever is second is away before it is asked.
    let gone = [two.a.clone(), two.b.clone()];
    let first = Arc::new(AtomicBool::new(false));
    for (number, enclave) in gone.iter().enumerate() {
        let (other, first) = (gone[1 - number].clone(), first.clone());
        enclave.break_off(move |_, _| {
            if first.swap(true, SeqCst) {
                return false;
            }
            other.leave();
            true
        });
    }
    let answer = infer(address, INFER).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{answer:?}");
    assert!(answer.problem().contains("may have been processed"));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_enclave_does_not_admit_another_does() {
    let (two, host) = Two::started().await;
    two.a.refuses(true);
    for _ in 0..6 {
        assert_eq!(infer(host.address(), INFER).await.status, StatusCode::OK);
    }
    assert!(two.a.seen_of("infer") > 0 && two.b.seen_of("infer") == 6);
    // If none does, the refusal is the enclave's own.
    two.b.refuses(true);
    let answer = infer(host.address(), INFER).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body.is_empty(), "{answer:?}");
    host.stop().await;
}

/// An enclave that says it takes requests and refuses them all costs the long ones, which cannot be sent again, next to nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_refuses_is_asked_last() {
    let two = Two::new().await;
    let settings = two.place.settings();
    // Looked at once, and then not again.
    let rarely = settings.replace("health_interval_ms = 50", "health_interval_ms = 60000");
    let host = Host::start(&Config::parse(&rarely).unwrap()).await.unwrap();
    all_are(&host, Condition::Serving).await;
    two.a.refuses(true);
    let long = vec![7; 200_000];
    let mut refused = 0;
    for _ in 0..20 {
        let answer = send(host.address(), Method::PUT, "/x", &[], &long).await;
        refused += usize::from(answer.status == StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(refused <= 1, "{refused}");
    // Looked at again, it has its turn again.
    two.a.refuses(false);
    host.fleet().look_through().await;
    let seen = two.a.seen_of("/x");
    for _ in 0..4 {
        let answer = send(host.address(), Method::PUT, "/x", &[], &long).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert_eq!(two.a.seen_of("/x"), seen + 2);
    host.stop().await;
}

/// However long an enclave was away: what it makes once it is back is safe soon, not after the pause of the last failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_back_is_pulled_from_at_once() {
    let (two, host) = Two::started().await;
    for _ in 0..3 {
        two.a.die().await;
        tokio::time::sleep(Duration::from_millis(2_800)).await;
        two.a.rise().await;
        let back = Instant::now();
        two.a.answer("logged");
        two.a.seal();
        two.a.all_acknowledged().await;
        assert!(
            back.elapsed() < Duration::from_millis(400),
            "{:?}",
            back.elapsed()
        );
    }
    host.stop().await;
}

/// Two that are drained at the same moment are not both.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_is_left_whoever_drains_at_the_same_time() {
    let (two, host) = Two::started().await;
    let within = Duration::from_secs(5);
    let (a, b) = tokio::join!(
        host.fleet().drain("a", within, false),
        host.fleet().drain("b", within, false)
    );
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    assert!(matches!(a.and(b), Err(DrainError::Last)));
    assert_eq!(infer(host.address(), INFER).await.status, StatusCode::OK);
    drop(two);
    host.stop().await;
}

/// One that hangs cannot be told; nothing more is sent there, and the operator hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_is_not_drained_and_gets_nothing_more() {
    let (two, host) = Two::started().await;
    let hung = [RawEnclave::start([]).await, RawEnclave::start([]).await];
    let place = Place::several(&[
        ("a", hung[0].address, hung[1].address, None),
        ("b", two.b.public, two.b.control, None),
    ]);
    host.stop().await;
    let host = place.start().await;
    is(&host, 1, Condition::Serving).await;
    let began = Instant::now();
    let drained = host
        .fleet()
        .drain("a", Duration::from_millis(100), false)
        .await;
    assert!(
        matches!(drained, Err(DrainError::Control(_))),
        "{drained:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
    for _ in 0..4 {
        assert_eq!(infer(host.address(), INFER).await.status, StatusCode::OK);
    }
    assert!(host.fleet().members()[0].is_held());
    host.stop().await;
}

/// An enclave that cannot be reached was sent nothing: another gets the request, whatever it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enclave_that_is_away_is_passed_over() {
    let (two, host) = Two::started().await;
    two.a.die().await;
    let long = vec![7; 200_000];
    for _ in 0..5 {
        let answer = send(host.address(), Method::PUT, "/x", &[], &long).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body == long);
    }
    assert_eq!(two.b.seen_of("/x"), 5);
    // Back again, it gets its share within a moment.
    two.a.rise().await;
    let began = Instant::now();
    while two.a.seen_of("infer") == 0 {
        assert_eq!(infer(host.address(), INFER).await.status, StatusCode::OK);
        assert!(began.elapsed() < Duration::from_secs(2), "not found again");
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_of_all_are_served_from_one_store() {
    let two = Two::new().await;
    let host = two.place.spawn();
    let address = host.address();
    let mut ids = Vec::new();
    until(address, "/v2/models/digits", "there", |answer| {
        answer.status == StatusCode::OK
    })
    .await;
    while two.a.seen_of("infer") < 3 || two.b.seen_of("infer") < 3 {
        ids.push(id(&infer(address, INFER).await));
    }
    for id in &ids {
        let answer = get(address, &receipt(*id)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
    }
    two.a.seal();
    two.b.seal();
    let complete = |answer: &Answer| answer.status == StatusCode::OK;
    for id in &ids {
        until(address, &receipt(*id), "complete", complete).await;
    }
    two.a.all_acknowledged().await;
    two.b.all_acknowledged().await;

    // One promise each that is not sealed. The host is killed and both enclaves are away: what was stored
    // is there, what was promised is known.
    let (a, b) = loop {
        let before = two.a.seen_of("infer");
        let one = id(&infer(address, INFER).await);
        let a_first = two.a.seen_of("infer") > before;
        let other = id(&infer(address, INFER).await);
        if (two.a.seen_of("infer") - before, two.b.seen_of("infer") > 0) == (1, true) {
            break if a_first { (one, other) } else { (other, one) };
        }
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    host.kill();
    two.a.die().await;
    two.b.die().await;
    let host = two.place.spawn();
    let address = host.address();
    for id in &ids {
        assert!(complete(&get(address, &receipt(*id)).await));
    }
    // The one comes back as it was, the other anew: each keeps or loses its own.
    two.a.come_back().await;
    two.b.rise().await;
    let gone = |answer: &Answer| answer.status == StatusCode::GONE;
    until(address, &receipt(b), "gone", gone).await;
    assert_eq!(get(address, &receipt(a)).await.status, StatusCode::ACCEPTED);
    two.a.seal();
    until(address, &receipt(a), "complete", complete).await;
    assert!(gone(&get(address, &receipt(b)).await));

    // Objects that no enclave has any more.
    let digest = two.a.catalog().digest();
    let object = get(address, &format!("/v1/objects/{digest}")).await;
    assert_eq!(object.status, StatusCode::OK);
    assert_eq!(object.body, two.a.catalog().to_jcs());
    two.a.die().await;
    two.b.die().await;
    let again = get(address, &format!("/v1/objects/{digest}")).await;
    assert_eq!(again.body, object.body);
    let digest = two.a.keyset_digest();
    let keyset = get(address, &format!("/v1/objects/{digest}")).await;
    assert_eq!(touchstone_formats::Digest::of(&keyset.body), digest);
    // What keysets and catalogs name is fetched while it can be.
    let digest = touchstone_formats::Digest::of(b"config");
    let config = get(address, &format!("/v1/objects/{digest}")).await;
    assert_eq!(
        (config.status, &config.body[..]),
        (StatusCode::OK, &b"config"[..])
    );
    let none = format!("/v1/objects/{}", touchstone_formats::Digest::ZERO);
    let none = get(address, &none).await;
    assert_ne!(none.status, StatusCode::OK);
}

/// A store of the version before, of one enclave that has a name now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_one_enclave_becomes_one_of_many() {
    let (a, b) = (Enclave::start().await, Enclave::start().await);
    let one = Place::new(a.public, a.control);
    let host = one.spawn();
    let address = host.address();
    let there = |answer: &Answer| answer.status == StatusCode::OK;
    until(address, "/v2/models/digits", "there", there).await;
    let sealed = id(&infer(address, INFER).await);
    a.seal();
    until(address, &receipt(sealed), "complete", there).await;
    let promised = id(&infer(address, INFER).await);
    tokio::time::sleep(Duration::from_millis(200)).await;
    host.kill();
    let db = Connection::open(one.store()).unwrap();
    let promises = db
        .execute(
            "INSERT INTO pending (id, keyset, guarantees, boot)
             SELECT ids, keyset, guarantees, boot FROM notes",
            [],
        )
        .unwrap();
    assert_eq!(promises, 1);
    db.execute_batch(
        "DROP TABLE notes; DROP TABLE enclaves; DROP TABLE objects;
         ALTER TABLE pending DROP COLUMN enclave; PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(db);

    let several = Place {
        folder: one.folder,
        ..Place::several(&[
            ("left", b.public, b.control, None),
            ("right", a.public, a.control, None),
        ])
    };
    let host = several.spawn();
    let address = host.address();
    assert!(there(&get(address, &receipt(sealed)).await));
    let end = Instant::now() + Duration::from_secs(10);
    while !host.log().contains("\"right\"") && !host.log().contains("enclave=right boot") {
        assert!(Instant::now() < end, "{}", host.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let waits = get(address, &receipt(promised)).await;
    assert_eq!(waits.status, StatusCode::ACCEPTED);
    a.seal();
    until(address, &receipt(promised), "complete", there).await;
    // Taken out of the settings, an enclave's promises are lost.
    let lost = loop {
        let before = b.seen_of("infer");
        let id = id(&infer(address, INFER).await);
        if b.seen_of("infer") > before {
            break id;
        }
    };
    assert_eq!(
        get(address, &receipt(lost)).await.status,
        StatusCode::ACCEPTED
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    host.kill();
    let one = Place {
        folder: several.folder,
        ..Place::several(&[("right", a.public, a.control, None)])
    };
    let host = one.spawn();
    let gone = |answer: &Answer| answer.status == StatusCode::GONE;
    until(host.address(), &receipt(lost), "gone", gone).await;
    assert!(there(&get(host.address(), &receipt(promised)).await));
}

/// One after the other is drained, stopped and started anew, under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_restart_fails_no_request() {
    let (two, host) = Two::started().await;
    two.a.answers_after(Duration::from_millis(10));
    let address = host.address();
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut promised = Vec::new();
                while !stop.load(SeqCst) {
                    let answer = infer(address, INFER).await;
                    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
                    promised.push(id(&answer));
                }
                promised
            })
        })
        .collect();
    for (number, name, enclave) in [(0, "a", &two.a), (1, "b", &two.b), (0, "a", &two.a)] {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let within = Duration::from_secs(10);
        host.fleet().drain(name, within, false).await.unwrap();
        // All that it promised is stored; it can go.
        enclave.die().await;
        is_away(&host, number).await;
        enclave.rise().await;
        is(&host, number, Condition::Serving).await;
        assert!(!host.fleet().members()[number].is_held());
    }
    stop.store(true, SeqCst);
    let mut promised = Vec::new();
    for caller in callers {
        promised.extend(caller.await.unwrap());
    }
    two.a.seal();
    two.b.seal();
    two.a.all_acknowledged().await;
    two.b.all_acknowledged().await;
    assert!(promised.len() > 50, "{}", promised.len());
    for id in &promised {
        let answer = get(address, &receipt(*id)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    host.stop().await;
}

async fn is_away(host: &Host, number: usize) {
    is(host, number, Condition::Away).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_enclave_is_drained_only_by_force() {
    let (two, host) = Two::started().await;
    let fleet = host.fleet();
    let within = Duration::from_secs(5);
    assert!(matches!(
        fleet.drain("c", within, false).await,
        Err(DrainError::Unknown(_))
    ));
    fleet.drain("b", within, false).await.unwrap();
    assert!(matches!(
        fleet.drain("a", within, false).await,
        Err(DrainError::Last)
    ));
    assert!(!fleet.members()[0].is_held());
    assert_eq!(infer(host.address(), INFER).await.status, StatusCode::OK);
    fleet.drain("a", within, true).await.unwrap();
    let answer = infer(host.address(), INFER).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, Some("1"))
    );
    assert!(!fleet.is_ready());
    // Started anew it serves again, without a word.
    two.a.die().await;
    is_away(&host, 0).await;
    two.a.rise().await;
    is(&host, 0, Condition::Serving).await;
    assert_eq!(infer(host.address(), INFER).await.status, StatusCode::OK);
    assert!(fleet.is_ready());
    host.stop().await;
}

/// A server that says its letter and then echoes.
async fn lettered(letter: u8) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut buffer = [0; 100];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    buffer[..count].fill(letter);
                    if stream.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, task)
}

/// `None`: the connection was ended.
async fn says(stream: &mut TcpStream) -> Option<u8> {
    stream.write_all(&[0x16]).await.ok()?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await.ok()?;
    Some(byte[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_connections_are_spread_and_stay() {
    let (a, b) = (Enclave::start().await, Enclave::start().await);
    let ((tls_a, task_a), (tls_b, _task_b)) = (lettered(b'a').await, lettered(b'b').await);
    let place = Place::several(&[
        ("a", a.public, a.control, Some(tls_a)),
        ("b", b.public, b.control, Some(tls_b)),
        // Has no TLS, and gets none.
        ("c", nobody().await, nobody().await, None),
    ]);
    let host = place.start().await;
    is(&host, 0, Condition::Serving).await;
    is(&host, 1, Condition::Serving).await;
    let connect = async || TcpStream::connect(host.address()).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut stream = connect().await;
        let letter = says(&mut stream).await.unwrap();
        open.push((stream, letter));
    }
    assert_eq!(open.iter().filter(|(_, letter)| *letter == b'a').count(), 5);
    // Each stays where it is.
    for (stream, letter) in &mut open {
        assert_eq!(says(stream).await, Some(*letter));
    }
    // One that is drained gets no new ones, and keeps what it has for a while.
    let fleet = host.fleet().clone();
    let draining =
        tokio::spawn(async move { fleet.drain("a", Duration::from_secs(1), false).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    for (stream, letter) in &mut open {
        assert_eq!(says(stream).await, Some(*letter));
    }
    for _ in 0..4 {
        assert_eq!(says(&mut connect().await).await, Some(b'b'));
    }
    draining.await.unwrap().unwrap();
    host.fleet().resume("a").unwrap();
    // One that is gone takes its connections with it; new ones go to the other.
    task_a.abort();
    let _ = task_a.await;
    for (stream, letter) in &mut open {
        let said = says(stream).await;
        assert_eq!(said, (*letter == b'b').then_some(b'b'));
    }
    for _ in 0..4 {
        assert_eq!(says(&mut connect().await).await, Some(b'b'));
    }
    drop(open);
    host.stop().await;
}
