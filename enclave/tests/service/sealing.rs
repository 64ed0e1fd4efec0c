//! Seals: order, group commit, sources that misbehave.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use hyper::Method;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use touchstone_formats::{evidence::quote_report_data, headers::State};

use super::{
    follower::{Follower, status},
    source::{Mood, Source},
    support::{INFER, Running, body, no_models, until},
};

const LOGGED: (&str, &str) = ("touchstone", "require=(logged signed)");
const SIGNED: (&str, &str) = ("touchstone", "require=(signed)");
const QUOTED: (&str, &str) = ("touchstone", "require=(quoted signed)");
const WAIT: (&str, &str) = ("prefer", "wait=10");

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_request_waits_for_one_quote() {
    let Some((running, _models)) =
        Running::with_models("a_lone_request_waits_for_one_quote", &[], 400).await
    else {
        return;
    };
    let mut client = running.client().await;
    // Without wait the answer comes at once: nothing can be quoted before it is here.
    running.source.hold();
    let at_once = client.infer(&[LOGGED]).await;
    assert_eq!(at_once.status, 200);
    assert_eq!(at_once.touchstone().state, State::Pending);
    running.source.release();

    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(1).await;
    let started = Instant::now();
    let held = client.infer(&[LOGGED, WAIT]).await;
    assert_eq!(held.touchstone().state, State::Sealed);
    assert!(started.elapsed() >= Duration::from_millis(400));
    follower.until_sealed(2).await;
    assert_eq!(follower.log().receipts[1].claims.cti, held.touchstone().id);
    // Boot, one seal with boot and catalog in it, one more.
    assert_eq!(running.source.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_shares_its_quotes() {
    let Some((running, _models)) =
        Running::with_models("a_flood_shares_its_quotes", &[], 300).await
    else {
        return;
    };
    // All of them are in before the first quote is made.
    running.source.hold();
    let mut tasks = Vec::new();
    for _ in 0..64 {
        let mut client = running.client().await;
        tasks.push(tokio::spawn(
            async move { client.infer(&[LOGGED, WAIT]).await },
        ));
    }
    until("all are in", async || {
        running.service.outbox.unsealed() == 64
    })
    .await;
    let started = Instant::now();
    running.source.release();
    for task in tasks {
        let reply = task.await.unwrap();
        assert_eq!(
            (reply.status, reply.touchstone().state),
            (200, State::Sealed)
        );
    }
    let took = started.elapsed();
    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(64).await;
    // One that was being quoted when the others came, and one for all of them.
    assert!(follower.log().seals <= 2, "{} seals", follower.log().seals);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(!running.source.overlapped(), "one quote at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_is_sealed_in_time_all_the_same() {
    let test = "what_nobody_waits_for_is_sealed_in_time_all_the_same";
    let Some((running, _models)) =
        Running::with_models(test, &["seal.interval_ms = 3000"], 0).await
    else {
        return;
    };
    let mut client = running.client().await;
    let mut follower = Follower::new(running.control).await;
    // Boot and catalog are due by themselves, too.
    until("the first seal", async || follower.fetch(0).await > 0).await;
    let quotes = running.source.asked().len();
    let started = Instant::now();
    for _ in 0..5 {
        let reply = client.infer(&[SIGNED]).await;
        assert_eq!(
            reply.touchstone().state,
            State::Sealed,
            "signed holds at once"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        follower.fetch(0).await,
        0,
        "nothing is sealed for the sake of signed alone"
    );
    follower.until_sealed(5).await;
    let took = started.elapsed();
    assert!(
        took > Duration::from_millis(2_250) && took < Duration::from_secs(6),
        "{took:?}: a tenth of the interval is left for the quote"
    );
    assert_eq!(
        running.source.asked().len(),
        quotes + 1,
        "one quote for all of them"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sequence_has_no_gaps_whoever_hangs_up() {
    let test = "the_sequence_has_no_gaps_whoever_hangs_up";
    let Some((running, _models)) = Running::with_models(test, &[], 2).await else {
        return;
    };
    let mut tasks = Vec::new();
    for worker in 0..8_u64 {
        let (public, mut client) = (running.public, running.client().await);
        tasks.push(tokio::spawn(async move {
            let mut answered = 0;
            for step in 0..40_u64 {
                // Some go away at once, some a moment later, some halfway through sending.
                let text = body([1.0, 2.0, 4.0, 8.0]);
                let request = format!(
                    "POST {INFER} HTTP/1.1\r\nhost: test\r\nprefer: wait=5\r\ncontent-length: {}\r\n\r\n{text}",
                    text.len()
                );
                let mut stream = TcpStream::connect(public).await.unwrap();
                let cut = if (worker + step) % 4 == 0 { request.len() - 10 } else { request.len() };
                stream.write_all(&request.as_bytes()[..cut]).await.unwrap();
                tokio::time::sleep(Duration::from_micros((worker * 131 + step * 77) % 1_500)).await;
                drop(stream);
                assert_eq!(client.infer(&[LOGGED]).await.status, 200);
                answered += 1;
            }
            answered
        }));
    }
    // Slow ones, that are cut off while the model runs.
    let matrix = vec![0.5_f32; 160 * 160];
    let text = format!(
        r#"{{"inputs":[{{"name":"X","datatype":"FP32","shape":[160,160],"data":{matrix:?}}}]}}"#
    );
    for wait in [1, 5, 10, 20] {
        let mut stream = TcpStream::connect(running.public).await.unwrap();
        let head = format!(
            "POST /v2/models/power/infer HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    let mut answered = 0;
    for task in tasks {
        answered += task.await.unwrap();
    }
    // Whatever was admitted is sealed; the follower checks that the sequence has no gap.
    until("everything sealed", async || {
        running.service.outbox.unsealed() == 0
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    until("everything sealed", async || {
        running.service.outbox.unsealed() == 0
    })
    .await;
    let mut follower = Follower::new(running.control).await;
    while follower.fetch(0).await > 0 {}
    let sealed = follower.sealed();
    assert!(sealed >= answered, "{sealed} of {answered}");
    assert!(
        sealed > answered,
        "some of those who hung up were answered to nobody, yet into the log"
    );
}

/// A source that does not work: nothing is published, what needs a quote is refused, what does not goes on, and
/// when it works again everything that waited is sealed.
async fn a_source_that(test: &str, mood: Mood) {
    let changes = [
        "quote.retries = 1",
        "quote.timeout_ms = 150",
        "seal.interval_ms = 500",
    ];
    let Some((running, _models)) = Running::with_models(test, &changes, 0).await else {
        return;
    };
    let mut client = running.client().await;
    let mut follower = Follower::new(running.control).await;
    assert_eq!(
        client.infer(&[LOGGED, WAIT]).await.touchstone().state,
        State::Sealed
    );
    follower.until_sealed(1).await;

    running.source.set(mood);
    // Admitted before anybody knows.
    let pending = client.infer(&[LOGGED, ("prefer", "wait=1")]).await;
    assert_eq!(
        (pending.status, pending.touchstone().state),
        (200, State::Pending)
    );
    until("failing", async || running.service.quoter.failing()).await;
    assert_eq!(
        status(running.control).await.quote,
        touchstone_formats::control::QuoteHealth::Failing
    );

    for needs_quote in [LOGGED, QUOTED] {
        let refused = client.infer(&[needs_quote]).await;
        assert_eq!(refused.status, 503);
        assert!(
            refused.problem().contains("no quotes"),
            "{}",
            refused.problem()
        );
        assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0);
        assert!(!refused.headers.contains_key("touchstone"));
    }
    // The default is logged.
    assert_eq!(client.infer(&[]).await.status, 503);
    assert_eq!(client.get("/v2/health/ready").await.status, 503);
    assert_eq!(client.get("/v2/health/live").await.status, 200);
    let signed = client.infer(&[SIGNED]).await;
    assert_eq!(
        (signed.status, signed.touchstone().state),
        (200, State::Sealed)
    );
    assert_eq!(
        follower.fetch(0).await,
        0,
        "nothing is published without its quote"
    );
    assert_eq!(status(running.control).await.pending, 2);
    if mood == Mood::Lies {
        assert!(
            running
                .service
                .quoter
                .counters()
                .wrong_report_data
                .load(Ordering::Relaxed)
                > 0
        );
    }

    running.source.set(Mood::Works);
    until("working", async || !running.service.quoter.failing()).await;
    follower.until_sealed(3).await;
    assert_eq!(
        client.infer(&[LOGGED, WAIT]).await.touchstone().state,
        State::Sealed
    );
    assert_eq!(client.get("/v2/health/ready").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_busy() {
    a_source_that("a_source_that_is_busy", Mood::Busy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails() {
    a_source_that("a_source_that_fails", Mood::Fails).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_hangs() {
    a_source_that("a_source_that_hangs", Mood::Hangs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lies() {
    a_source_that("a_source_that_lies", Mood::Lies).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_gives_too_little() {
    a_source_that("a_source_that_gives_too_little", Mood::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_busy_for_a_moment_is_not_failing() {
    let source = Source::new(Duration::ZERO);
    source.set(Mood::Busy);
    let running = Running::unbooted(&["quote.retries = 100"], source, no_models()).await;
    let service = running.service.clone();
    let boot = tokio::spawn(async move { service.boot().await });
    until("three tries", async || running.source.asked().len() >= 3).await;
    assert!(!running.service.quoter.failing());
    running.source.set(Mood::Works);
    boot.await.unwrap().unwrap();
    // The host is told so.
    let quotes = status(running.control).await.quotes.unwrap();
    assert!(quotes.made == 1 && quotes.failed >= 2, "{quotes:?}");
    assert!(quotes.microseconds < 60_000_000, "{quotes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quoted_gets_a_quote_of_its_own() {
    let test = "quoted_gets_a_quote_of_its_own";
    let Some((running, _models)) =
        Running::with_models(test, &["seal.interval_ms = 400"], 40).await
    else {
        return;
    };
    let mut client = running.client().await;
    let nonce = (
        "touchstone",
        "require=(quoted signed), nonce=:AAECAwQFBgcICQ==:",
    );
    let at_once = client.infer(&[nonce]).await;
    assert_eq!(
        (at_once.status, at_once.touchstone().state),
        (200, State::Pending)
    );
    assert_eq!(at_once.touchstone().require.to_string(), "quoted signed");
    let held = client.infer(&[QUOTED, WAIT]).await;
    assert_eq!(held.touchstone().state, State::Sealed);
    let both = client
        .infer(&[("touchstone", "require=(logged quoted signed)"), WAIT])
        .await;
    assert_eq!(both.touchstone().state, State::Sealed);

    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(3).await;
    assert_eq!(follower.quotes.len(), 3);
    follower.check_quotes();
    let nonces: Vec<_> = follower
        .quotes
        .values()
        .filter_map(|evidence| evidence.nonce.clone())
        .collect();
    assert_eq!(nonces, [(0..10).collect::<Vec<u8>>()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotes_for_single_receipts_are_bounded_and_do_not_starve_seals() {
    let test = "quotes_for_single_receipts_are_bounded_and_do_not_starve_seals";
    let changes = ["quote.queue = 8", "quote.timeout_ms = 30000"];
    let Some((running, _models)) = Running::with_models(test, &changes, 300).await else {
        return;
    };
    let mut client = running.client().await;
    // Boot and catalog out of the way.
    assert_eq!(
        client.infer(&[LOGGED, WAIT]).await.touchstone().state,
        State::Sealed
    );
    running.source.hold();
    let before = running.source.asked().len();
    for _ in 0..8 {
        assert_eq!(client.infer(&[QUOTED]).await.status, 200);
    }
    let ninth = client.infer(&[QUOTED]).await;
    assert_eq!(ninth.status, 503);
    assert!(
        ninth.problem().contains("quote of their own"),
        "{}",
        ninth.problem()
    );
    let held = tokio::spawn(async move {
        let reply = client.infer(&[LOGGED, WAIT]).await;
        (client, reply.touchstone().state)
    });
    until("the ninth receipt is in", async || {
        running.service.outbox.unsealed() == 9
    })
    .await;
    running.source.release();
    let (mut client, state) = held.await.unwrap();
    assert_eq!(state, State::Sealed);
    until("all quotes", async || {
        running.service.quoter.reserve_receipt().is_some()
    })
    .await;
    assert_eq!(
        client.infer(&[QUOTED, WAIT]).await.touchstone().state,
        State::Sealed
    );
    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(11).await;
    until("quotes delivered", async || {
        follower.fetch(0).await;
        follower.quotes.len() == 9
    })
    .await;
    follower.check_quotes();
    assert!(!running.source.overlapped());
    // The seal waited for the quote that was being made, not for all eight. That it was due is noticed within a few of them.
    let of_receipts: Vec<_> = follower
        .quotes
        .values()
        .map(|evidence| quote_report_data(evidence.tee, &evidence.quote).unwrap())
        .collect();
    let asked = &running.source.asked()[before..];
    let seal = asked.iter().position(|data| !of_receipts.contains(data));
    assert!(seal.is_some_and(|at| (1..=3).contains(&at)), "{seal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_byte_cap_admission_ends_until_the_host_takes_what_waits() {
    let test = "at_the_byte_cap_admission_ends_until_the_host_takes_what_waits";
    let changes = [
        "limits.unacknowledged_bytes = 65536",
        "seal.interval_ms = 50",
        "quote.timeout_ms = 30000",
    ];
    let Some((running, _models)) = Running::with_models(test, &changes, 0).await else {
        return;
    };
    let mut client = running.client().await;
    let mut answered = 0;
    // A receipt takes a little less once it is sealed: nothing is until all has been refused that is to be.
    running.source.hold();
    let refused = loop {
        let reply = client.infer(&[SIGNED]).await;
        if reply.status != 200 {
            break reply;
        }
        answered += 1;
        assert!(answered < 1_000, "the cap never came");
    };
    assert_eq!(refused.status, 503);
    assert!(
        refused.problem().contains("receipts wait"),
        "{}",
        refused.problem()
    );
    assert!(answered > 10, "{answered}");
    assert_eq!(client.get("/v2/health/ready").await.status, 503);
    running.source.release();
    // Sealing alone frees nothing: the host must say that it has them.
    let mut follower = Follower::new(running.control).await;
    until("sealed", async || running.service.outbox.unsealed() == 0).await;
    while follower.fetch(0).await > 0 {}
    assert_eq!(follower.sealed(), answered);
    follower.acknowledge().await;
    assert_eq!(running.service.outbox.held(), 0);
    assert_eq!(client.infer(&[SIGNED]).await.status, 200);
    follower.until_sealed(answered + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn big_batches_are_cut() {
    let test = "big_batches_are_cut";
    let changes = ["seal.max_entries = 16", "seal.interval_ms = 10000"];
    let Some((running, _models)) = Running::with_models(test, &changes, 5).await else {
        return;
    };
    let mut client = running.client().await;
    for _ in 0..62 {
        assert_eq!(client.infer(&[SIGNED]).await.status, 200);
    }
    // 62 receipts, boot and catalog: four full seals, although nobody asked for one.
    let mut follower = Follower::new(running.control).await;
    let started = Instant::now();
    follower.until_sealed(62).await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(follower.log().seals, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_another_method_or_target_spends_no_number() {
    let test = "a_request_with_another_method_or_target_spends_no_number";
    let Some((running, _models)) = Running::with_models(test, &[], 0).await else {
        return;
    };
    let mut client = running.client().await;
    assert_eq!(client.send(Method::GET, INFER, &[], "").await.status, 405);
    assert_eq!(client.send(Method::POST, INFER, &[], "{").await.status, 400);
    assert_eq!(
        client
            .send(Method::POST, "/v2/models/none/infer", &[], body([1.0; 4]))
            .await
            .status,
        404
    );
    assert_eq!(client.infer(&[LOGGED]).await.status, 200);
    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(1).await;
    assert_eq!(follower.log().receipts[0].claims.sequence, 0);
}
