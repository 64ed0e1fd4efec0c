//! Keysets that follow one another, and the end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use touchstone_formats::digest::Digest;

use super::{
    follower::{Follower, Log, status},
    source::{Mood, Source},
    support::{Running, no_models, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn keysets_rotate_under_load() {
    let changes = [
        "keyset.lifetime_seconds = 3",
        "keyset.rotate_before_seconds = 2",
    ];
    let Some((running, _models)) =
        Running::with_models("keysets_rotate_under_load", &changes, 5).await
    else {
        return;
    };
    tokio::spawn(running.service.clone().rotate_in_time());
    let first = Arc::downgrade(&running.service.current().unwrap());
    let deadline = Instant::now() + Duration::from_secs(4);
    let mut tasks = Vec::new();
    for worker in 0..6 {
        let mut client = running.client().await;
        tasks.push(tokio::spawn(async move {
            let mut answered = 0;
            while Instant::now() < deadline {
                let require = if worker % 2 == 0 {
                    "require=(logged signed)"
                } else {
                    "require=(quoted signed)"
                };
                let headers = [("touchstone", require), ("prefer", "wait=2")];
                let reply = client
                    .infer(if worker < 4 { &headers } else { &headers[..0] })
                    .await;
                assert_eq!(reply.status, 200, "{reply:?}");
                answered += 1;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            answered
        }));
    }
    let mut follower = Follower::new(running.control).await;
    while Instant::now() < deadline {
        follower.fetch(1).await;
        follower.acknowledge().await;
    }
    let mut answered = 0;
    for task in tasks {
        answered += task.await.unwrap();
    }
    follower.until_sealed(answered).await;
    follower.check_quotes();
    assert!(
        follower.keysets.len() >= 4,
        "{} keysets",
        follower.keysets.len()
    );
    for pair in follower.keysets.windows(2) {
        assert_eq!(
            pair[1].previous,
            Some(pair[0].digest()),
            "each names the one before"
        );
        assert_ne!(pair[0].receipt_key, pair[1].receipt_key);
        assert_ne!(pair[0].log, pair[1].log);
    }
    assert_eq!(follower.keysets[0].previous, None);
    // Every log but the one in force has its end.
    until("the ends of all logs but one", async || {
        follower.fetch(0).await;
        let current = running.service.current().unwrap().digest;
        let closed = |(digest, log): (&Digest, &Log)| log.closed == (*digest != current);
        follower.logs.iter().all(closed)
    })
    .await;
    // Nothing holds the first keyset's receipt key any more.
    assert!(first.upgrade().is_none());
    assert!(
        follower
            .logs
            .values()
            .filter(|log| !log.receipts.is_empty())
            .count()
            >= 3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn work_under_the_old_keyset_ends_under_it() {
    let test = "work_under_the_old_keyset_ends_under_it";
    let Some((running, _models)) = Running::with_models(test, &[], 0).await else {
        return;
    };
    let old = running.service.current().unwrap();
    let guest = running.service.enter().ok().unwrap();
    running.service.rotate().await.unwrap();
    let new = running.service.current().unwrap();
    assert_ne!(old.digest, new.digest);
    // A request now is the new keyset's; the old log waits for its guest.
    let reply = running.client().await.infer(&[("prefer", "wait=5")]).await;
    assert_eq!(reply.touchstone().keyset, new.digest);
    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    follower.fetch(0).await;
    assert!(!follower.logs.get(&old.digest).is_some_and(|log| log.closed));
    drop(guest);
    until("the old log's end", async || {
        follower.fetch(1).await;
        follower.logs.get(&old.digest).is_some_and(|log| log.closed)
    })
    .await;
    let keysets = running.control_get("/control/v1/keysets").await.json();
    let states: Vec<&str> = keysets["keysets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|k| k["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["closed", "current"]);
    // An old keyset stays to be had by its digest.
    let object = running.get(&format!("/v1/objects/{}", old.digest)).await;
    assert_eq!(touchstone_formats::Digest::of(&object.body), old.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_boot_quote_the_old_keyset_serves_until_its_end_and_no_longer() {
    let test = "without_a_boot_quote_the_old_keyset_serves_until_its_end_and_no_longer";
    let changes = [
        "keyset.lifetime_seconds = 4",
        "keyset.rotate_before_seconds = 2",
        "quote.retries = 0",
    ];
    let Some((running, _models)) = Running::with_models(test, &changes, 0).await else {
        return;
    };
    tokio::spawn(running.service.clone().rotate_in_time());
    let mut client = running.client().await;
    let signed = [("touchstone", "require=(signed)")];
    let first = client.infer(&signed).await.touchstone().keyset;
    running.source.set(Mood::Fails);
    until("failing", async || running.service.quoter.failing()).await;
    assert_eq!(client.infer(&signed).await.touchstone().keyset, first);
    let mut last = None;
    until("the end of its lifetime", async || {
        let reply = client.infer(&signed).await;
        let ended = reply.status == 503;
        last = Some(reply);
        ended
    })
    .await;
    assert!(last.unwrap().problem().contains("lifetime"));
    assert_eq!(client.get("/v2/health/ready").await.status, 503);
    running.source.set(Mood::Works);
    until("the next keyset", async || {
        client.infer(&signed).await.status == 200
    })
    .await;
    assert_ne!(client.infer(&signed).await.touchstone().keyset, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_before_the_boot_quote() {
    let source = Source::new(Duration::ZERO);
    source.set(Mood::Fails);
    let running = Running::unbooted(&[], source, no_models()).await;
    let service = running.service.clone();
    let boot = tokio::spawn(async move { service.boot().await });
    until("some tries", async || running.source.asked().len() >= 3).await;
    let mut client = running.client().await;
    assert_eq!(client.get("/v2/health/live").await.status, 200);
    for path in [
        "/v2",
        "/v2/health/ready",
        "/v2/models/reciprocal",
        "/v1/keyset",
    ] {
        assert_eq!(client.get(path).await.status, 503, "{path}");
    }
    let reply = client.infer(&[]).await;
    assert_eq!(reply.status, 503);
    assert!(
        reply.problem().contains("no boot quote"),
        "{}",
        reply.problem()
    );
    let at = status(running.control).await;
    assert!(!at.serving && at.keyset_digest.is_none());
    let keysets = running.control_get("/control/v1/keysets").await.json();
    assert_eq!(keysets["keysets"], serde_json::json!([]));

    running.source.set(Mood::Works);
    boot.await.unwrap().unwrap();
    assert_eq!(client.get("/v2").await.status, 200);
    assert_eq!(client.get("/v2/health/ready").await.status, 200);
    assert!(status(running.control).await.serving);
    // The same keys all along: one report data, asked for again and again.
    let asked = running.source.asked();
    assert!(asked.iter().all(|data| data == &asked[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_seals_everything_and_closes_the_log() {
    let test = "a_drain_seals_everything_and_closes_the_log";
    let Some((running, _models)) = Running::with_models(test, &[], 20).await else {
        return;
    };
    let mut client = running.client().await;
    let signed = [("touchstone", "require=(signed)")];
    for _ in 0..10 {
        assert_eq!(client.infer(&signed).await.status, 200);
    }
    let quoted = client
        .infer(&[("touchstone", "require=(quoted signed)")])
        .await;
    assert_eq!(quoted.status, 200);
    // One that is under way keeps the log open until it has ended.
    let matrix = vec![0.1_f32; 500 * 500];
    let text = format!(
        r#"{{"inputs":[{{"name":"X","datatype":"FP32","shape":[500,500],"data":{matrix:?}}}]}}"#
    );
    let mut slow = running.client().await;
    let slow = tokio::spawn(async move {
        slow.send(
            hyper::Method::POST,
            "/v2/models/power/infer",
            &[("prefer", "wait=5")],
            text,
        )
        .await
    });
    let full = running.service.config.limits.in_flight;
    until("the slow one is in", async || {
        running.service.places.available_permits() < full
    })
    .await;

    assert_eq!(
        running.control_post("/control/v1/drain", "").await.status,
        202
    );
    // A second time changes nothing.
    assert_eq!(
        running.control_post("/control/v1/drain", "").await.status,
        202
    );
    until("draining", async || status(running.control).await.draining).await;
    let refused = client.infer(&signed).await;
    assert_eq!(refused.status, 503);
    assert!(
        refused.problem().contains("shut down"),
        "{}",
        refused.problem()
    );
    assert_eq!(client.get("/v2/health/ready").await.status, 503);
    assert_eq!(client.get("/v2/health/live").await.status, 200);
    assert_eq!(client.get("/v1/keyset").await.status, 200);

    let slow = slow.await.unwrap();
    assert!([200, 422].contains(&slow.status), "{slow:?}");
    let mut follower = Follower::new(running.control).await;
    until("the log's end", async || {
        follower.fetch(1).await;
        follower.logs.values().any(|log| log.closed)
    })
    .await;
    assert_eq!(follower.log().receipts.len(), 12);
    assert_eq!(follower.quotes.len(), 1);
    follower.check_quotes();
    let at = status(running.control).await;
    assert!(!at.serving && at.pending == 0);
    // Done when the host has everything.
    let service = running.service.clone();
    let drained = tokio::spawn(async move { service.outbox.drained().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!drained.is_finished());
    follower.acknowledge().await;
    drained.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_end_and_let_the_last_answers_out() {
    let test = "listeners_end_and_let_the_last_answers_out";
    let Some((running, _models)) = Running::with_models(test, &[], 300).await else {
        return;
    };
    let mut idle = running.client().await;
    assert_eq!(idle.get("/v2").await.status, 200);
    let mut client = running.client().await;
    let held = tokio::spawn(async move { client.infer(&[("prefer", "wait=5")]).await });
    until("the request is in", async || {
        running.service.outbox.unsealed() > 0
    })
    .await;
    running.stop.send_replace(true);
    let reply = held.await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.touchstone().state,
        touchstone_formats::headers::State::Sealed
    );
    until("nobody is let in", async || {
        tokio::net::TcpStream::connect(running.public)
            .await
            .is_err()
    })
    .await;
}
