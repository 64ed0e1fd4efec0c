//! Settings that decide who is let in.

use super::{follower::Follower, support::Running};

#[tokio::test(flavor = "multi_thread")]
async fn the_default_is_the_operators() {
    let test = "the_default_is_the_operators";
    for (words, expected) in [
        ("signed", "signed"),
        ("logged", "logged signed"),
        ("quoted logged", "logged quoted signed"),
    ] {
        let change = format!("answers.default_guarantees = {words:?}");
        let Some((running, _models)) = Running::with_models(test, &[&change], 0).await else {
            return;
        };
        let reply = running.client().await.infer(&[]).await;
        assert_eq!(reply.touchstone().require.to_string(), expected);
        // What is asked for counts, less than the default included.
        let reply = running
            .client()
            .await
            .infer(&[("touchstone", "require=(signed)")])
            .await;
        assert_eq!(reply.touchstone().require.to_string(), "signed");
        let nonce_only = running
            .client()
            .await
            .infer(&[("touchstone", "nonce=:AAECAwQFBgc=:")])
            .await;
        assert_eq!(nonce_only.touchstone().require.to_string(), expected);
        let mut follower = Follower::new(running.control).await;
        if expected != "signed" {
            while follower.sealed() < 3 {
                follower.fetch(1).await;
            }
            assert_eq!(
                follower.log().receipts[2].claims.guarantees.to_string(),
                expected
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_cut_to_the_operators_maximum() {
    let test = "a_wait_is_cut_to_the_operators_maximum";
    let changes = ["answers.max_wait_seconds = 1", "quote.timeout_ms = 5000"];
    let Some((running, _models)) = Running::with_models(test, &changes, 0).await else {
        return;
    };
    running
        .source
        .latency(std::time::Duration::from_millis(4_000));
    let started = std::time::Instant::now();
    let reply = running
        .client()
        .await
        .infer(&[("prefer", "respond-async, wait=20")])
        .await;
    assert_eq!(
        reply.touchstone().state,
        touchstone_formats::headers::State::Pending
    );
    let took = started.elapsed().as_millis();
    assert!((1_000..3_500).contains(&took), "{took} ms");
}
