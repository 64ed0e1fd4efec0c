//! A small daemon beside a host: it keeps the host's folder fresh, and answers for the vendors' services out of its cache.

mod keeper;
mod mirror;

use std::sync::{Arc, PoisonError, RwLock};

use attestation_verifier::dates::rfc3339;

use crate::forecast::Forecast;

pub use keeper::Keeper;
pub use mirror::Mirror;

/// What is known of the platform that is kept; shared by who keeps and who answers.
#[derive(Clone, Debug, Default)]
pub struct State(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    forecast: Option<Forecast>,
    /// When everything was last had, Unix seconds.
    succeeded: Option<u64>,
    /// Rounds in which something could not be had.
    failures: u64,
    /// Why the last round failed; none if it did not.
    error: Option<String>,
}

impl State {
    fn update(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The forecast, with what became of the last round, as one JSON object; none before the first.
    pub fn to_json(&self) -> Option<serde_json::Value> {
        self.read(|known| {
            let mut value = known.forecast.as_ref()?.to_json();
            let object = value.as_object_mut()?;
            object.insert("fetched".into(), known.succeeded.map(rfc3339).into());
            object.insert("failure".into(), known.error.clone().into());
            Some(value)
        })
    }

    /// The same for a monitor, in Prometheus's text format. `now`: Unix seconds.
    pub fn metrics(&self, now: u64) -> String {
        const PREFIX: &str = "touchstone_collateral";
        let mut out = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
            out.push_str(&format!(
                "# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} {kind}\n"
            ));
            for (labels, value) in samples {
                out.push_str(&format!("{PREFIX}_{name}{labels} {value}\n"));
            }
        };
        let plain = |value: u64| vec![(String::new(), value)];
        self.read(|known| {
            let failures = plain(known.failures);
            let help = "Rounds in which something could not be fetched.";
            metric("failures_total", "counter", help, &failures);
            let succeeded = known.succeeded.map(plain).unwrap_or_default();
            let help = "When everything was last at hand.";
            metric("succeeded_timestamp_seconds", "gauge", help, &succeeded);
            let Some(forecast) = &known.forecast else {
                return;
            };
            // The forecast may be of some time ago: where nothing can be fetched any more, its day comes all the same.
            let is_over = |(from, _): &(u64, _)| *from <= now;
            let refused = plain(forecast.refused.as_ref().is_some_and(is_over).into());
            let help = "1 while verifiers refuse this platform.";
            metric("refused", "gauge", help, &refused);
            let from = match &forecast.refused {
                Some((from, why)) => vec![(format!("{{check=\"{}\"}}", label(&why.check)), *from)],
                None => Vec::new(),
            };
            let help = "When verifiers begin to refuse this platform, and the check that will; absent beyond two years.";
            metric("refused_timestamp_seconds", "gauge", help, &from);
            let parts: Vec<(String, u64)> = forecast
                .parts
                .iter()
                .map(|part| (format!("{{part=\"{}\"}}", label(&part.name)), part.window.to))
                .collect();
            let help = "When a piece of collateral ends.";
            metric("part_ends_timestamp_seconds", "gauge", help, &parts);
        });
        out
    }
}

/// What may stand in a label's value: names in certificates are a stranger's words.
fn label(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || " .,_-'()".contains(c);
    text.chars().filter(|c| plain(*c)).take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_the_format() {
        assert_eq!(label("CN=\"x\"\n\\ y's"), "CNx y's");
    }
}
