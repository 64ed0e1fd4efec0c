//! The sigstore bundle around the statement: DSSE, one signature, made with a key.

use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;
use touchstone_formats::text::base64_decode;

use super::MAX_BYTES;
use crate::crypto::p256_sha256_der;
use crate::manifest::{BUNDLE_MEDIA_TYPE, PAYLOAD_TYPE, PublicKey, pae};
use crate::parse::json;

/// Why a bundle gives no payload.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum EnvelopeError {
    /// Not such a bundle.
    #[error("not a sigstore bundle v0.3 with one DSSE signature: {0}")]
    Form(String),
    /// Signed by a certificate's key.
    #[error(
        "signed with a certificate ({0}), which is NOT SUPPORTED in this version: nothing here can say whose it is. \
         Only signatures by a key that you name are verified"
    )]
    Certificate(&'static str),
    /// Signed by another key, or changed since.
    #[error("the key that you named did not sign this")]
    Signature,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

/// The hint of `publicKey` is not signed, and so not asked: the key is the user's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Option<IgnoredAny>,
    certificate: Option<IgnoredAny>,
    x509_certificate_chain: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

/// The payload of a bundle that `key` signed.
pub(super) fn open(bundle: &[u8], key: &PublicKey) -> Result<Vec<u8>, EnvelopeError> {
    let form = |what: &str| EnvelopeError::Form(what.to_owned());
    let text = std::str::from_utf8(bundle).map_err(|_| form("not UTF-8"))?;
    let bundle: Bundle =
        json::read_within(text, MAX_BYTES).map_err(|error| form(&error.to_string()))?;
    if bundle.media_type != BUNDLE_MEDIA_TYPE {
        return Err(form("mediaType is another"));
    }
    let material = &bundle.verification_material;
    if material.certificate.is_some() {
        return Err(EnvelopeError::Certificate("certificate"));
    }
    if material.x509_certificate_chain.is_some() {
        return Err(EnvelopeError::Certificate("x509CertificateChain"));
    }
    if material.public_key.is_none() {
        return Err(form("verificationMaterial has no publicKey"));
    }
    let envelope = &bundle.dsse_envelope;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(form("payloadType is another"));
    }
    let [signature] = envelope.signatures.as_slice() else {
        return Err(form("not exactly one signature"));
    };
    let decoded = |text: &str| base64_decode(text).map_err(|_| form("not base64 in its one form"));
    let (payload, signature) = (decoded(&envelope.payload)?, decoded(&signature.sig)?);
    if !p256_sha256_der(key.point(), &pae(&payload), &signature) {
        return Err(EnvelopeError::Signature);
    }
    Ok(payload)
}
