//! The first exchange on an attested TLS connection (`docs/formats.md` §10): the caller's fresh
//! nonce, and what binds this very connection to the enclave. Decoded here, judged by the verifier.

use crate::evidence::Evidence;
use crate::strict;
use crate::text::hex_array;
use crate::{Keyset, Result, jcs};
use serde::{Deserialize, Serialize};

/// Where a session is asked for, with POST.
pub const SESSION_TARGET: &str = "/v1/session";
/// Where boot evidence for a nonce of the caller's is asked for, with POST and the same request and answer.
pub const BOOT_TARGET: &str = "/v1/boot";
/// Where sealed requests go, with POST.
pub const OHTTP_TARGET: &str = "/v1/ohttp";
/// Label of the TLS exporter (RFC 8446 §7.5); the context is the nonce.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-touchstone-v1";
/// The exporter's length: bytes.
pub const EXPORTER_LENGTH: usize = 32;
/// The nonce of a session: bytes. Longer than a request's must be, for nothing else makes the quote fresh.
pub const SESSION_NONCE: usize = 32;
/// A request for a session: bytes.
pub const MAX_SESSION_REQUEST: usize = 1 << 10;

strict::version!(V = "touchstone/session/1");

/// What is sent to [`SESSION_TARGET`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionRequest {
    /// Fresh and random, never used before.
    pub nonce: [u8; SESSION_NONCE],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestWire {
    nonce: String,
    v: V,
}

impl SessionRequest {
    /// Reads a request: JCS, with or without a newline after it.
    ///
    /// # Errors
    /// Over 1 KiB, not canonical, members missing or unknown, a nonce that is not 32 bytes.
    pub fn parse(body: &[u8]) -> Result<Self> {
        crate::error::bounded("session request", body.len(), MAX_SESSION_REQUEST)?;
        let wire: RequestWire = jcs::from_slice(body.strip_suffix(b"\n").unwrap_or(body))?;
        Ok(Self {
            nonce: hex_array(&wire.nonce)?,
        })
    }

    /// Writes a request: JCS and one newline.
    pub fn to_file(&self) -> Vec<u8> {
        let wire = RequestWire {
            nonce: crate::text::hex_encode(&self.nonce),
            v: V,
        };
        jcs::must_write(jcs::to_file(&wire))
    }
}

/// What comes back: the keyset in force, and evidence of purpose `session`, without collateral, which is
/// the host's to give ([`crate::evidence::CollateralFile`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionAnswer {
    /// The keyset; its `tls_spki_sha256` must be the connection's.
    pub keyset: Keyset,
    /// Over keyset, TLS key, exporter and nonce.
    pub evidence: Evidence,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerWire {
    evidence: Evidence,
    keyset: Keyset,
    v: V,
}

impl SessionAnswer {
    /// Reads an answer: JCS and one newline. Evidence of another purpose is read all the same: the verifier
    /// refuses it by name.
    ///
    /// # Errors
    /// Over 4 MiB, not canonical, members missing or unknown, something out of its bounds.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let wire: AnswerWire = jcs::from_slice(jcs::file_content(file)?)?;
        Ok(Self {
            keyset: wire.keyset,
            evidence: wire.evidence,
        })
    }

    /// Writes an answer.
    pub fn to_file(&self) -> Vec<u8> {
        let wire = AnswerWire {
            evidence: self.evidence.clone(),
            keyset: self.keyset.clone(),
            v: V,
        };
        jcs::must_write(jcs::to_file(&wire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_in_one_way() {
        let request = SessionRequest { nonce: [0xab; 32] };
        let file = request.to_file();
        let expected = format!(
            "{{\"nonce\":\"{}\",\"v\":\"touchstone/session/1\"}}\n",
            "ab".repeat(32)
        );
        assert_eq!(String::from_utf8(file.clone()).unwrap(), expected);
        assert_eq!(SessionRequest::parse(&file).unwrap(), request);
        assert_eq!(
            SessionRequest::parse(expected.trim_end().as_bytes()).unwrap(),
            request
        );
        for bad in [
            expected.replace("ab\"", "\""),
            expected.replace("abab", "ABAB"),
            expected.replace("session/1", "session/2"),
            expected.replace("{\"nonce", "{\"a\":1,\"nonce"),
            expected.replace(":\"touch", ": \"touch"),
            expected.replace('\n', "\n\n"),
            " ".repeat(MAX_SESSION_REQUEST + 1),
            "{}".into(),
        ] {
            assert_ne!(bad, expected);
            assert!(SessionRequest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
