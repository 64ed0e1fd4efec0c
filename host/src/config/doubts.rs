//! What `check-config` says of settings that stand: how much they come to, and what in them cannot be meant.

use std::time::Duration;

use super::Config;

/// How long an enclave keeps an idle connection, as it is shipped (`limits.header_timeout_ms`).
const ENCLAVE_HEADER_TIMEOUT: Duration = Duration::from_secs(30);

impl Config {
    /// What these settings come to, in bytes, when callers take all that they may (docs/host.md, "Memory").
    pub fn memory(&self) -> u64 {
        let limits = &self.limits;
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let head = number(limits.header_bytes).max(64 << 10);
        [
            number(limits.connections).saturating_mul(head.saturating_mul(2)),
            number(limits.buffered_bytes),
            number(limits.in_flight).saturating_mul(256 << 10),
            200 << 20,
            number(self.store.pending).saturating_mul(200),
            number(self.enclaves.len()).saturating_mul(64 << 20),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// What stands, and cannot be what was meant: each with the keys and what they are.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let limits = &self.limits;
        for (key, client, all) in [
            ("connections", limits.client_connections, limits.connections),
            ("in_flight", limits.client_in_flight, limits.in_flight),
        ] {
            if client > all {
                doubts.push(format!(
                    "limits.client_{key}: found {client}, which is more than limits.{key} ({all}): one client can take everything"
                ));
            }
        }
        let idle = self.enclave.idle_timeout;
        if idle >= ENCLAVE_HEADER_TIMEOUT {
            doubts.push(format!(
                "enclave.idle_timeout_ms: found {}, expected less than the enclaves' limits.header_timeout_ms, which is {} unless they say otherwise",
                idle.as_millis(),
                ENCLAVE_HEADER_TIMEOUT.as_millis()
            ));
        }
        if let Some(listen) = self.operation.listen
            && listen.ip().is_unspecified()
        {
            doubts.push(format!(
                "operation.listen: found tcp://{listen}, which is every address of this machine; expected one that callers do not reach"
            ));
        }
        let tls = self.enclaves.iter().filter(|enclave| enclave.tls.is_some());
        let tls = tls.count();
        if tls > 0 && tls < self.enclaves.len() {
            doubts.push(format!(
                "enclaves: {tls} of {} have tls: callers' TLS comes to those alone",
                self.enclaves.len()
            ));
        }
        doubts
    }
}
