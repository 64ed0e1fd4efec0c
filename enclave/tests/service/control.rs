//! The control listener: what it gives, and that nothing said there does harm.

use std::time::{Duration, Instant};

use hyper::Method;
use touchstone_formats::control::QuoteHealth;

use super::{
    follower::{Follower, status},
    source::Source,
    support::{Client, Running, no_models, until},
};

const SIGNED: [(&str, &str); 1] = [("touchstone", "require=(signed)")];

#[tokio::test(flavor = "multi_thread")]
async fn status_and_keysets() {
    let running = Running::start(
        &["seal.interval_ms = 50"],
        Source::new(Duration::ZERO),
        no_models(),
    )
    .await;
    let at = status(running.control).await;
    assert!(at.serving && !at.draining);
    assert_eq!(
        at.keyset_digest,
        running.service.current().map(|epoch| epoch.digest)
    );
    assert_eq!(
        (at.pending, at.quote, at.catalog_epoch),
        (0, QuoteHealth::Ok, 0)
    );
    let catalog = at.catalog_digest.unwrap();
    let catalog = running
        .control_get(&format!("/control/v1/objects/{catalog}"))
        .await;
    assert_eq!(catalog.status, 200);
    // Boot and catalog are sealed without anybody asking.
    until("a batch", async || {
        status(running.control).await.batches.newest == 1
    })
    .await;
    assert_eq!(status(running.control).await.batches.oldest, 1);
    let mut follower = Follower::new(running.control).await;
    assert_eq!(follower.fetch(0).await, 1);
    assert_eq!(follower.log().catalogs.len(), 1);
    follower.acknowledge().await;
    let after = status(running.control).await.batches;
    assert_eq!((after.oldest, after.newest), (0, 1));
    assert_eq!(status(running.control).await.boot, at.boot);
    // The same objects as in public, and the same bytes.
    let digest = at.keyset_digest.unwrap();
    let here = running
        .control_get(&format!("/control/v1/objects/{digest}"))
        .await;
    let there = running.get(&format!("/v1/objects/{digest}")).await;
    assert_eq!((here.status, &here.body), (200, &there.body));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_polls() {
    let test = "long_polls";
    let Some((running, _models)) = Running::with_models(test, &[], 0).await else {
        return;
    };
    let mut client = running.client().await;
    assert_eq!(client.infer(&[("prefer", "wait=5")]).await.status, 200);
    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(1).await;
    // Nothing new: held for as long as asked, then empty.
    let started = Instant::now();
    assert_eq!(follower.fetch(1).await, 0);
    assert!(started.elapsed() >= Duration::from_secs(1));
    // Something comes meanwhile: answered at once.
    let started = Instant::now();
    let poll = tokio::spawn(async move {
        follower.fetch(20).await;
        follower
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.infer(&[]).await.status, 200);
    let follower = poll.await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(follower.sealed(), 2);
    // What is not acknowledged is given again.
    let again = running
        .control_get(&format!(
            "/control/v1/batches?after={}",
            follower.through - 1
        ))
        .await
        .json();
    assert_eq!(again["batches"].as_array().unwrap().len(), 1);
    assert_eq!(again["batches"][0]["number"], follower.through);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_here_until_they_are_acknowledged() {
    let test = "receipts_are_here_until_they_are_acknowledged";
    let Some((running, _models)) = Running::with_models(test, &["seal.interval_ms = 300"], 0).await
    else {
        return;
    };
    let reply = running.client().await.infer(&SIGNED).await;
    let path = format!(
        "/control/v1/receipts/{}",
        hex::encode(reply.touchstone().id)
    );
    assert_eq!(
        running.control_get(&path).await.status,
        200,
        "before the seal"
    );
    let mut follower = Follower::new(running.control).await;
    while follower.sealed() == 0 {
        follower.fetch(1).await;
    }
    assert_eq!(
        running.control_get(&path).await.status,
        200,
        "sealed, not acknowledged"
    );
    follower.acknowledge().await;
    assert_eq!(running.control_get(&path).await.status, 404, "acknowledged");
    assert_eq!(running.service.outbox.held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests() {
    let running = Running::start(&[], Source::new(Duration::ZERO), no_models()).await;
    let boot = hex::encode(running.service.boot);
    let mut client = Client::new(running.control).await;
    for (method, path, body, expected) in [
        (Method::GET, "/control/v1/nothing", String::new(), 404),
        (Method::GET, "/control/v2/status", String::new(), 404),
        (Method::GET, "/v2/health/live", String::new(), 404),
        (Method::POST, "/control/v1/status", String::new(), 405),
        (Method::GET, "/control/v1/ack", String::new(), 405),
        (Method::GET, "/control/v1/drain", String::new(), 405),
        (Method::DELETE, "/control/v1/batches", String::new(), 405),
        (Method::GET, "/control/v1/status/more", String::new(), 404),
        (Method::GET, "/control/v1/objects/", String::new(), 400),
        (Method::GET, "/control/v1/objects/zz", String::new(), 400),
        (Method::GET, "/control/v1/receipts/zz", String::new(), 400),
        (
            Method::GET,
            "/control/v1/receipts/00112233445566778899aabbccddeeff",
            String::new(),
            404,
        ),
        (
            Method::GET,
            "/control/v1/batches?after=-1",
            String::new(),
            400,
        ),
        (
            Method::GET,
            "/control/v1/batches?after=x",
            String::new(),
            400,
        ),
        (
            Method::GET,
            "/control/v1/batches?other=1",
            String::new(),
            400,
        ),
        (
            Method::GET,
            "/control/v1/batches?after=99999999999999999999",
            String::new(),
            400,
        ),
        (Method::POST, "/control/v1/ack", String::new(), 400),
        (Method::POST, "/control/v1/ack", "{}".into(), 400),
        (
            Method::POST,
            "/control/v1/ack",
            format!(r#"{{"boot":"{boot}","through":-1}}"#),
            400,
        ),
        (
            Method::POST,
            "/control/v1/ack",
            format!(r#"{{"boot":"{boot}","through":1,"more":1}}"#),
            400,
        ),
        (
            Method::POST,
            "/control/v1/ack",
            format!(r#"{{"boot":"{}","through":1}}"#, "0".repeat(32)),
            409,
        ),
        // Of what does not exist yet nothing is lost.
        (
            Method::POST,
            "/control/v1/ack",
            format!(r#"{{"boot":"{boot}","through":18446744073709551615}}"#),
            204,
        ),
    ] {
        let reply = client.send(method.clone(), path, &[], body.clone()).await;
        assert_eq!(reply.status, expected, "{method} {path} {body}");
    }
    // Too long a body is refused; the connection may end with it.
    let reply = running
        .control_post("/control/v1/ack", &" ".repeat(100_000))
        .await;
    assert_eq!(reply.status, 400);
    assert!(status(running.control).await.serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_holds_no_more_than_its_bound() {
    let test = "a_reply_holds_no_more_than_its_bound";
    let Some((running, _models)) = Running::with_models(test, &["seal.max_entries = 16"], 0).await
    else {
        return;
    };
    let mut client = running.client().await;
    for _ in 0..64 {
        assert_eq!(client.infer(&SIGNED).await.status, 200);
    }
    until("four batches", async || {
        running.service.outbox.range().newest >= 4
    })
    .await;
    let outbox = &running.service.outbox;
    let all = outbox.after(0, Duration::ZERO, usize::MAX).await;
    let one = all[0].json.len();
    assert_eq!(
        outbox.after(0, Duration::ZERO, 1).await.len(),
        1,
        "at least one"
    );
    assert_eq!(outbox.after(0, Duration::ZERO, one + 1).await.len(), 1);
    let two = one + all[1].json.len();
    assert_eq!(outbox.after(0, Duration::ZERO, two).await.len(), 2);
}
