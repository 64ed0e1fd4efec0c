//! Newer manifests, now and then: a proxy runs for months, and learns from the host that releases came and went.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use attestation_verifier::dates::rfc3339;
use serde_json::json;
use touchstone_client::Client;
use touchstone_client::manifest::Refreshed;

use super::log::{Log, Mood};

/// Asks the host at once and then every so often, for as long as it is let; returns where the policy asks for no manifest. A failure leaves the
/// client with what it had, and is told.
pub async fn keep_new(client: Client, every: Duration, log: Log) {
    while client.manifest().is_some() {
        let outcome = client.refresh_manifest().await;
        let ends = client.manifest().and_then(|in_use| in_use.manifest);
        let ends = ends.map(|(_, ends)| rfc3339(ends));
        match outcome {
            Ok(Refreshed::Newer { from, to }) => {
                let members = [
                    ("from", json!(from)),
                    ("version", json!(to)),
                    ("ends", json!(ends)),
                ];
                log.event(Mood::Good, "manifest", &members);
            }
            Ok(_) => {}
            // Of a refusal the check: its reason may quote what a stranger wrote.
            Err(error) => {
                let members = [("check", json!(error.check())), ("ends", json!(ends))];
                log.event(Mood::Bad, "manifest-not-refreshed", &members);
            }
        }
        tokio::time::sleep(jittered(every)).await;
    }
}

/// Between 0.9 and 1.1 of a time, so that proxies that were started together do not ask together.
fn jittered(every: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    every.mul_f64(0.9 + 0.2 * (random as f64 / u64::MAX as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_differ_and_not_by_much() {
        let hour = Duration::from_secs(3600);
        let times: Vec<Duration> = (0..100).map(|_| jittered(hour)).collect();
        assert!(times.iter().all(|t| (3240..=3960).contains(&t.as_secs())));
        assert!(times.iter().any(|t| *t != times[0]));
    }
}
