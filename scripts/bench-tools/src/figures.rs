//! Latencies and the rates that go with them.

use std::time::Duration;

/// Times that single answers took.
#[derive(Debug, Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    /// Notes one, in whole microseconds.
    pub fn note(&mut self, taken: Duration) {
        self.0
            .push(u32::try_from(taken.as_micros()).unwrap_or(u32::MAX));
    }

    /// Takes over what somebody else noted.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// `p50_us`, `p90_us`, `p99_us` and `max_us`, 0 where there are none.
    pub fn percentiles(mut self) -> serde_json::Value {
        self.0.sort_unstable();
        let percentile = |p: f64| {
            let last = self.0.len().saturating_sub(1);
            self.0
                .get((last as f64 * p).round() as usize)
                .copied()
                .unwrap_or(0)
        };
        serde_json::json!({
            "p50_us": percentile(0.50), "p90_us": percentile(0.90), "p99_us": percentile(0.99), "max_us": percentile(1.0),
        })
    }
}

/// One JSON object out of several.
pub fn joined(parts: impl IntoIterator<Item = serde_json::Value>) -> serde_json::Value {
    let members = parts.into_iter().filter_map(|part| match part {
        serde_json::Value::Object(members) => Some(members),
        _ => None,
    });
    members.flatten().collect()
}

/// `n / by`, 0 where nothing was used.
pub fn per(n: f64, by: Duration) -> f64 {
    if by.is_zero() {
        0.0
    } else {
        n / by.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_row() {
        let mut row = Latencies::default();
        (0..=100)
            .rev()
            .for_each(|n| row.note(Duration::from_micros(n)));
        let found = joined([row.percentiles(), serde_json::json!({ "answers": 101 })]);
        assert_eq!(
            found,
            serde_json::json!({ "p50_us": 50, "p90_us": 90, "p99_us": 99, "max_us": 100, "answers": 101 })
        );
        assert_eq!(per(1.0, Duration::ZERO), 0.0);
    }
}
