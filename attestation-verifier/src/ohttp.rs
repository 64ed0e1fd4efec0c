//! What is kept of Oblivious HTTP beside an answer (formats.md §13), and `session.json` of either kind.

use serde::{Deserialize, Serialize};
use touchstone_formats::text::HexBytes;
use touchstone_formats::{Digest, Evidence, FormatError, Keyset, jcs};

use crate::exchange::SessionRecord;

/// `session.json` of requests that were sealed to a keyset's key. `v` is implied: `touchstone/ohttp-record/1`.
#[derive(Clone, Debug, PartialEq)]
pub struct OhttpRecord {
    /// The nonce that the caller sent to have the evidence made.
    pub nonce: [u8; 32],
    /// SHA-256 of the `application/ohttp-keys` that he sealed requests to.
    pub ohttp_keys_sha256: Digest,
    /// When he was given the evidence, Unix seconds on his clock.
    pub opened_at: u64,
    /// The keyset whose keys those are.
    pub keyset: Keyset,
    /// Evidence of purpose `boot` over it and the nonce, with its collateral.
    pub evidence: Evidence,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: Version,
    nonce: HexBytes,
    ohttp_keys_sha256: Digest,
    opened_at: u64,
    keyset: Keyset,
    evidence: Evidence,
}

#[derive(Serialize, Deserialize)]
enum Version {
    #[serde(rename = "touchstone/ohttp-record/1")]
    One,
}

impl OhttpRecord {
    /// Reads the file: JCS and one newline.
    ///
    /// # Errors
    /// Over 4 MiB, another encoding, members missing or unknown.
    pub fn parse(file: &[u8]) -> touchstone_formats::Result<OhttpRecord> {
        let wire: Wire = jcs::from_slice(jcs::check_file(file)?)?;
        let nonce = wire.nonce.0.as_slice();
        let nonce = nonce.try_into().map_err(|_| FormatError::Value {
            field: "nonce",
            found: format!("{} bytes", nonce.len()),
            expected: "32 bytes",
        })?;
        Ok(OhttpRecord {
            nonce,
            ohttp_keys_sha256: wire.ohttp_keys_sha256,
            opened_at: wire.opened_at,
            keyset: wire.keyset,
            evidence: wire.evidence,
        })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// A number that JSON cannot carry.
    pub fn to_file(&self) -> touchstone_formats::Result<Vec<u8>> {
        jcs::to_file(&Wire {
            v: Version::One,
            nonce: HexBytes(self.nonce.to_vec()),
            ohttp_keys_sha256: self.ohttp_keys_sha256,
            opened_at: self.opened_at,
            keyset: self.keyset.clone(),
            evidence: self.evidence.clone(),
        })
    }
}

/// `session.json`: what an answer came over.
#[derive(Clone, Debug, PartialEq)]
pub enum ConnectionRecord {
    /// A TLS connection.
    Tls(SessionRecord),
    /// Requests sealed to a keyset's key.
    Ohttp(OhttpRecord),
}

impl ConnectionRecord {
    /// Reads the file, of whichever kind its `v` says.
    ///
    /// # Errors
    /// As [`SessionRecord::parse`] and [`OhttpRecord::parse`].
    pub fn parse(file: &[u8]) -> touchstone_formats::Result<ConnectionRecord> {
        #[derive(Deserialize)]
        struct Kind {
            v: String,
        }
        let kind: Kind = jcs::from_slice(jcs::check_file(file)?)?;
        match kind.v.as_str() {
            "touchstone/ohttp-record/1" => OhttpRecord::parse(file).map(ConnectionRecord::Ohttp),
            _ => SessionRecord::parse(file).map(ConnectionRecord::Tls),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// A number that JSON cannot carry.
    pub fn to_file(&self) -> touchstone_formats::Result<Vec<u8>> {
        match self {
            ConnectionRecord::Tls(record) => record.to_file(),
            ConnectionRecord::Ohttp(record) => record.to_file(),
        }
    }

    /// The keyset of the enclave at the other end.
    pub fn keyset(&self) -> &Keyset {
        match self {
            ConnectionRecord::Tls(record) => &record.keyset,
            ConnectionRecord::Ohttp(record) => &record.keyset,
        }
    }

    /// When it was attested, Unix seconds on the caller's clock.
    pub fn opened_at(&self) -> u64 {
        match self {
            ConnectionRecord::Tls(record) => record.opened_at,
            ConnectionRecord::Ohttp(record) => record.opened_at,
        }
    }
}
