//! What the caller has of an exchange: the files that `touchstone ask` keeps beside a bundle, and
//! what a bundle is compared with.
//!
//! The folder that `ask` writes holds `request.bin` and `response.bin` (bodies, exactly as they
//! travelled), `expect.json` ([`Expect`], written before anything was sent), `session.json`
//! ([`SessionRecord`], of the connection it all went over, if that was attested), `response.json`
//! ([`ResponseInfo`]) and `bundle.json`. None of it is evidence: it is the caller's own word, and
//! what a host may have rewritten on the way is measured against it.

use serde::{Deserialize, Deserializer, Serialize};
use touchstone_formats::commitment::{
    Datatype, TensorRef, request_digest, response_digest, tensors_digest,
};
use touchstone_formats::text::HexBytes;
use touchstone_formats::{Digest, Evidence, FormatError, GuaranteeSet, Keyset, jcs};

use crate::session::Bound;

/// Bound on `expect.json` and `response.json`: bytes.
pub const MAX_RECORD: usize = 64 << 10;

/// `expect.json`: what was asked, as the caller recorded it before it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Always `touchstone/expect/1`.
    pub v: ExpectVersion,
    /// HTTP method.
    pub method: String,
    /// Request target, as sent.
    pub target: String,
    /// `Inference-Header-Content-Length`, if there was one.
    #[serde(deserialize_with = "nullable")]
    pub header_length: Option<u64>,
    /// Name of the model that was asked, for people.
    pub model: String,
    /// The caller's nonce.
    #[serde(deserialize_with = "nullable")]
    pub nonce: Option<HexBytes>,
    /// The guarantees that were asked for.
    #[serde(deserialize_with = "nullable")]
    pub require: Option<GuaranteeSet>,
    /// SHA-256 of the request's body.
    pub request_sha256: Digest,
    /// When it was asked, unix seconds on the caller's clock.
    pub asked_at: u64,
}

impl Expect {
    /// Reads the file: JCS and one newline.
    ///
    /// # Errors
    /// Too long, another encoding, members missing or unknown.
    pub fn parse(file: &[u8]) -> touchstone_formats::Result<Expect> {
        record("expect.json", file)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// A number that JSON cannot carry.
    pub fn to_file(&self) -> touchstone_formats::Result<Vec<u8>> {
        jcs::to_file(self)
    }
}

/// `response.json`: what of the answer stands outside its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseInfo {
    /// Always `touchstone/response/1`.
    pub v: ResponseVersion,
    /// HTTP status of the answer.
    pub status: u16,
    /// `Inference-Header-Content-Length`, if there was one.
    #[serde(deserialize_with = "nullable")]
    pub header_length: Option<u64>,
}

impl ResponseInfo {
    /// Reads the file: JCS and one newline.
    ///
    /// # Errors
    /// Too long, another encoding, members missing or unknown.
    pub fn parse(file: &[u8]) -> touchstone_formats::Result<ResponseInfo> {
        record("response.json", file)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// A number that JSON cannot carry.
    pub fn to_file(&self) -> touchstone_formats::Result<Vec<u8>> {
        jcs::to_file(self)
    }
}

/// Version of `expect.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpectVersion {
    /// The only one.
    #[default]
    #[serde(rename = "touchstone/expect/1")]
    One,
}

/// Version of `response.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseVersion {
    /// The only one.
    #[default]
    #[serde(rename = "touchstone/response/1")]
    One,
}

/// `session.json`: the connection that an answer came over, as the caller saw it at his own end. `v` is
/// implied: `touchstone/session-record/1`.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRecord {
    /// The nonce that he sent.
    pub nonce: [u8; 32],
    /// The TLS exporter over it; there if, and only if, `evidence` is.
    pub exporter: Option<[u8; 32]>,
    /// SHA-256 of the SubjectPublicKeyInfo (DER) of the key that signed the handshake.
    pub tls_spki_sha256: Digest,
    /// When the connection was opened, Unix seconds on the caller's clock.
    pub opened_at: u64,
    /// The keyset of the enclave at the other end.
    pub keyset: Keyset,
    /// Evidence of purpose `session`, with its collateral; none if the TLS key alone is known.
    pub evidence: Option<Evidence>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionWire {
    v: SessionVersion,
    nonce: HexBytes,
    #[serde(deserialize_with = "nullable")]
    exporter: Option<HexBytes>,
    tls_spki_sha256: Digest,
    opened_at: u64,
    keyset: Keyset,
    #[serde(deserialize_with = "nullable")]
    evidence: Option<Evidence>,
}

#[derive(Serialize, Deserialize)]
enum SessionVersion {
    #[serde(rename = "touchstone/session-record/1")]
    One,
}

impl SessionRecord {
    /// Reads the file: JCS and one newline.
    ///
    /// # Errors
    /// Over 4 MiB, another encoding, members missing or unknown, an exporter without evidence or evidence
    /// without an exporter.
    pub fn parse(file: &[u8]) -> touchstone_formats::Result<SessionRecord> {
        let wire: SessionWire = jcs::from_slice(jcs::check_file(file)?)?;
        let value = |field, found: String, expected| FormatError::Value {
            field,
            found,
            expected,
        };
        if wire.exporter.is_some() != wire.evidence.is_some() {
            let found = "one of them".to_owned();
            return Err(value("exporter, evidence", found, "both or neither"));
        }
        let bytes = |field, bytes: &HexBytes| {
            let found = || format!("{} bytes", bytes.0.len());
            <[u8; 32]>::try_from(bytes.0.as_slice()).map_err(|_| value(field, found(), "32 bytes"))
        };
        Ok(SessionRecord {
            nonce: bytes("nonce", &wire.nonce)?,
            exporter: wire.exporter.map(|e| bytes("exporter", &e)).transpose()?,
            tls_spki_sha256: wire.tls_spki_sha256,
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
        jcs::to_file(&SessionWire {
            v: SessionVersion::One,
            nonce: HexBytes(self.nonce.to_vec()),
            exporter: self.exporter.map(|e| HexBytes(e.to_vec())),
            tls_spki_sha256: self.tls_spki_sha256,
            opened_at: self.opened_at,
            keyset: self.keyset.clone(),
            evidence: self.evidence.clone(),
        })
    }
}

fn record<T: serde::de::DeserializeOwned>(
    field: &'static str,
    file: &[u8],
) -> touchstone_formats::Result<T> {
    if file.len() > MAX_RECORD {
        return Err(FormatError::TooLong {
            field,
            found: file.len(),
            limit: MAX_RECORD,
        });
    }
    jcs::from_slice(jcs::check_file(file)?)
}

/// The member may be null, never absent: a record that forgets one is not a record of `null`.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

/// What the caller holds against a bundle. Whatever is `None` is not compared; [`crate::check`]
/// then refuses unless it need not be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// The request as it was sent.
    pub request: Option<RequestBytes>,
    /// SHA-256 of the request's body, from the caller's record; has to agree with `request`.
    pub request_sha256: Option<Digest>,
    /// The answer as it came.
    pub response: Option<ResponseBytes>,
    /// The tensors that were sent.
    pub inputs: Option<Vec<OwnedTensor>>,
    /// The tensors that came back.
    pub outputs: Option<Vec<OwnedTensor>>,
    /// The caller's nonce.
    pub nonce: Option<Vec<u8>>,
    /// What the caller demands, beside the policy.
    pub require: Option<GuaranteeSet>,
    /// The caller judges the receipt alone: nothing has to be compared with it.
    pub receipt_only: bool,
    /// A simulated platform is what the caller wants: exit 0 instead of 6.
    pub expect_simulated: bool,
    /// Status that the receipt should have: 0 for an answer, else the HTTP status of a refusal.
    pub expected_status: u16,
    /// What the judgement of the connection gave that the answer came over.
    pub session: Option<Bound>,
}

/// A request: what formats.md §4 hashes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestBytes {
    /// HTTP method.
    pub method: String,
    /// Request target, as sent.
    pub target: String,
    /// `Inference-Header-Content-Length`.
    pub header_length: Option<u64>,
    /// The body, after transfer decoding.
    pub body: Vec<u8>,
}

impl RequestBytes {
    /// The request digest.
    pub fn digest(&self) -> Digest {
        request_digest(&self.method, &self.target, self.header_length, &self.body)
    }
}

/// An answer: what formats.md §4 hashes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseBytes {
    /// HTTP status.
    pub status: u16,
    /// `Inference-Header-Content-Length`.
    pub header_length: Option<u64>,
    /// The body, after transfer decoding.
    pub body: Vec<u8>,
}

impl ResponseBytes {
    /// The response digest.
    pub fn digest(&self) -> Digest {
        response_digest(self.status, self.header_length, &self.body)
    }
}

/// A tensor, its data as in the protocol's binary extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedTensor {
    /// Its name.
    pub name: String,
    /// Its datatype.
    pub datatype: Datatype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its elements: row-major, little-endian.
    pub data: Vec<u8>,
}

/// The tensors digest of formats.md §4.
///
/// # Errors
/// A name twice, or data that does not fit datatype and shape.
pub fn tensors(tensors: &[OwnedTensor]) -> touchstone_formats::Result<Digest> {
    let refs: Vec<TensorRef> = tensors
        .iter()
        .map(|t| TensorRef {
            name: &t.name,
            datatype: t.datatype,
            shape: &t.shape,
            data: &t.data,
        })
        .collect();
    tensors_digest(&refs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect() -> Expect {
        Expect {
            v: ExpectVersion::One,
            method: "POST".into(),
            target: "/v2/models/m/infer".into(),
            header_length: Some(7),
            model: "m".into(),
            nonce: Some(HexBytes(vec![1; 32])),
            require: Some(GuaranteeSet::default_set()),
            request_sha256: Digest::of(b"{}"),
            asked_at: 9,
        }
    }

    #[test]
    fn records_read_back() {
        let record = expect();
        assert_eq!(Expect::parse(&record.to_file().unwrap()).unwrap(), record);
        let info = ResponseInfo {
            v: ResponseVersion::One,
            status: 200,
            header_length: None,
        };
        assert_eq!(ResponseInfo::parse(&info.to_file().unwrap()).unwrap(), info);
    }

    #[test]
    fn records_that_say_less_or_other_things_are_refused() {
        let good = String::from_utf8(expect().to_file().unwrap()).unwrap();
        assert!(Expect::parse(good.as_bytes()).is_ok());
        for bad in [
            good.trim_end().to_owned(),
            good.replace("expect/1", "expect/2"),
            good.replace("\"header_length\":7,", ""),
            good.replace("\"model\":\"m\",", ""),
            good.replace("\"v\":", "\"u\":1,\"v\":"),
            good.replace("logged", "legged"),
            good.replace("\"asked_at\":9", "\"asked_at\":-9"),
        ] {
            assert_ne!(bad, good);
            assert!(Expect::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Expect::parse(&vec![b' '; MAX_RECORD + 1]).is_err());
    }
}
