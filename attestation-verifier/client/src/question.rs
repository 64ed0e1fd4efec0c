//! What is asked, and what of it the caller keeps to hold against the receipt.

use std::fmt;

use attestation_verifier::exchange::{Expect, ExpectVersion, OwnedTensor};
use bytes::Bytes;
use hyper::Request;
use ring::rand::{SecureRandom, SystemRandom};
use touchstone_formats::headers::TouchstoneRequest;
use touchstone_formats::limits::{MAX_NONCE, MIN_NONCE};
use touchstone_formats::text::HexBytes;
use touchstone_formats::{Digest, GuaranteeSet};

use crate::Error;
use crate::oip::{self, Body, Encoding};

/// One inference request (formats.md §4 and §9), with a nonce of its own.
#[derive(Clone)]
pub struct Question {
    target: String,
    header_length: Option<u64>,
    body: Bytes,
    model: String,
    require: Option<GuaranteeSet>,
    nonce: Vec<u8>,
    /// What is in the body, where that is known.
    pub(crate) inputs: Option<Vec<OwnedTensor>>,
}

impl Question {
    /// Asks a model about tensors, for all of its outputs. `version`: the server's choice without it.
    ///
    /// # Errors
    /// [`Error::Usage`]: tensors that the encoding cannot carry; no randomness for a nonce.
    pub fn infer(
        model: &str,
        version: Option<&str>,
        inputs: &[OwnedTensor],
        encoding: Encoding,
    ) -> Result<Question, Error> {
        let Body {
            bytes,
            header_length,
        } = oip::request(inputs, encoding)?;
        Ok(Question {
            model: model.to_owned(),
            inputs: Some(inputs.to_vec()),
            ..Question::raw(oip::target(model, version), header_length, bytes)?
        })
    }

    /// A request that somebody else has written: target (path alone), `Inference-Header-Content-Length`
    /// and body are sent as they are.
    ///
    /// # Errors
    /// [`Error::Usage`]: a target that is no path, or has a query; no randomness for a nonce.
    pub fn raw(
        target: impl Into<String>,
        header_length: Option<u64>,
        body: impl Into<Bytes>,
    ) -> Result<Question, Error> {
        let target = target.into();
        let path: Option<hyper::http::uri::PathAndQuery> = target.parse().ok();
        if !path.is_some_and(|path| path.path() == target && target.starts_with('/')) {
            return Err(Error::Usage(format!(
                "request target {target:?}: expected a path, without a query"
            )));
        }
        let model = target.strip_prefix("/v2/models/").unwrap_or_default();
        Ok(Question {
            model: model.split('/').next().unwrap_or_default().to_owned(),
            target,
            header_length,
            body: body.into(),
            require: None,
            nonce: random::<32>()?.to_vec(),
            inputs: None,
        })
    }

    /// Asks for these guarantees, instead of those that the client's policy demands.
    #[must_use]
    pub fn require(mut self, set: GuaranteeSet) -> Question {
        self.require = Some(set);
        self
    }

    /// Sends this nonce, 8 to 64 bytes, instead of 32 fresh random ones. A nonce that was used before
    /// does not show that the answer is new.
    #[must_use]
    pub fn nonce(mut self, nonce: Vec<u8>) -> Question {
        self.nonce = nonce;
        self
    }

    /// The request's target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// `Inference-Header-Content-Length`: bytes of JSON before binary tensors.
    pub fn header_length(&self) -> Option<u64> {
        self.header_length
    }

    /// The request's body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The model that is asked, for people. Of a raw question, what its target says.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The guarantees that are asked for; none until they are named, or until a client puts its policy's in.
    pub fn guarantees(&self) -> Option<GuaranteeSet> {
        self.require
    }

    /// The caller's record (`expect.json`). `asked_at`: Unix seconds on his clock.
    pub fn expect(&self, asked_at: u64) -> Expect {
        Expect {
            v: ExpectVersion::One,
            method: Question::METHOD.into(),
            target: self.target.clone(),
            header_length: self.header_length,
            model: self.model.clone(),
            nonce: Some(HexBytes(self.nonce.clone())),
            require: self.require,
            request_sha256: Digest::of(&self.body),
            asked_at,
        }
    }

    /// The one method that asks.
    pub(crate) const METHOD: &'static str = "POST";

    pub(crate) fn nonce_bytes(&self) -> &[u8] {
        &self.nonce
    }

    /// The request, as it is sent.
    pub(crate) fn request(&self) -> Result<Request<Bytes>, Error> {
        if !(MIN_NONCE..=MAX_NONCE).contains(&self.nonce.len()) {
            let found = self.nonce.len();
            return Err(Error::Usage(format!(
                "a nonce of {found} bytes: expected {MIN_NONCE} to {MAX_NONCE}"
            )));
        }
        let header = TouchstoneRequest {
            require: self.require,
            nonce: Some(self.nonce.clone()),
        };
        let mut request = Request::builder()
            .method(Question::METHOD)
            .uri(&self.target)
            .header("content-type", oip::content_type(self.header_length))
            .header("touchstone", header.to_string());
        if let Some(length) = self.header_length {
            request = request.header("inference-header-content-length", length);
        }
        request
            .body(self.body.clone())
            .map_err(|e| Error::Usage(format!("request target {:?}: {e}", self.target)))
    }
}

/// Without the body, which is nobody's business in a log.
impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Question({}, {} bytes)", self.target, self.body.len())
    }
}

/// Fresh random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Usage("no randomness for a nonce".into()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_have_a_nonce_each_and_say_what_they_ask() {
        let a = Question::raw("/v2/models/a%20b/infer", Some(2), "{}").unwrap();
        let b = Question::raw("/v2/models/a%20b/infer", Some(2), "{}").unwrap();
        assert_eq!((a.model(), a.target()), ("a%20b", "/v2/models/a%20b/infer"));
        assert_eq!(a.nonce_bytes().len(), 32);
        assert_ne!(a.nonce_bytes(), b.nonce_bytes());
        let request = a.require(GuaranteeSet::default_set()).request().unwrap();
        let header = |name| request.headers()[name].to_str().unwrap();
        assert_eq!(header("content-type"), "application/octet-stream");
        assert_eq!(header("inference-header-content-length"), "2");
        assert!(header("touchstone").starts_with("require=(logged signed), nonce=:"));
        let other = b.nonce(vec![7; 8]).request().unwrap();
        assert_eq!(other.headers()["touchstone"], "nonce=:BwcHBwcHBwc=:");
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for target in [
            "",
            "v2/models/a/infer",
            "/v2?x",
            "/a b",
            "http://example/v2",
        ] {
            let error = Question::raw(target, None, "{}").unwrap_err();
            assert_eq!(error.deciding(), "usage", "{target}");
        }
        let question = || Question::raw("/v2/models/a/infer", None, "{}").unwrap();
        assert!(question().request().is_ok());
        for length in [0, 7, 65] {
            let error = question().nonce(vec![0; length]).request().unwrap_err();
            assert_eq!(error.deciding(), "usage", "{length}");
        }
    }
}
