//! The answer's headers (formats.md §9).
//!
//! Written by hand into one buffer: through the formatting machinery they would cost as much as all
//! four commitments. A test compares them with what `touchstone_formats::headers` writes.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, LINK},
};
use tokio::{sync::oneshot, time::Instant};
use touchstone_formats::{
    digest::Digest,
    guarantee::GuaranteeSet,
    headers::{OpeningSalts, State},
};

use super::{Reply, framing};
use crate::{admission::Share, answer::Answer, problem::PROBLEM_JSON};

/// `Touchstone`, in requests and answers.
pub(super) const TOUCHSTONE: HeaderName = HeaderName::from_static("touchstone");
const OPENINGS: HeaderName = HeaderName::from_static("touchstone-openings");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Bytes that all values together seldom exceed.
const VALUES: usize = 512;

/// Holds the answer until everything it asked for holds, no longer than `wait`, and writes it.
pub(super) async fn reply(answer: Answer, wait: Duration) -> Reply {
    let state = state(answer.sealed, answer.quoted, wait).await;
    let mut values = Values(BytesMut::with_capacity(VALUES));
    let touchstone = values.touchstone(&answer.id, &answer.keyset, &answer.guarantees, state);
    let openings = values.openings(&answer.salts);
    let link = values.link(&answer.id);
    let digest = values.content_digest(&answer.body);

    let body = Bytes::from_owner(Counted(answer.body, answer.share));
    let mut reply: Reply = Response::new(Full::new(body));
    *reply.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = reply.headers_mut();
    headers.reserve(12);
    let content_type = match (answer.status, answer.header_length) {
        (200, None) => super::JSON,
        (200, Some(_)) => HeaderValue::from_static("application/octet-stream"),
        _ => PROBLEM_JSON,
    };
    headers.insert(CONTENT_TYPE, content_type);
    if let Some(length) = answer.header_length {
        headers.insert(framing::HEADER_LENGTH, length.into());
    }
    for (name, value) in [
        (TOUCHSTONE, touchstone),
        (OPENINGS, openings),
        (LINK, link),
        (CONTENT_DIGEST, digest),
    ] {
        headers.insert(name, value);
    }
    reply
}

/// A body that counts among the bytes held until the connection has taken its last byte: callers who
/// read slowly would otherwise hold as much as there are connections.
pub(super) struct Counted(
    pub(super) Bytes,
    #[allow(dead_code, reason = "held for its Drop")] pub(super) Share,
);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Waits for what was asked for, no longer than `wait`.
async fn state(
    sealed: Option<oneshot::Receiver<()>>,
    quoted: Option<oneshot::Receiver<()>>,
    wait: Duration,
) -> State {
    let deadline = Instant::now() + wait;
    for mut signal in [sealed, quoted].into_iter().flatten() {
        let fired = if wait.is_zero() {
            signal.try_recv().is_ok()
        } else {
            matches!(tokio::time::timeout_at(deadline, signal).await, Ok(Ok(())))
        };
        if !fired {
            return State::Pending;
        }
    }
    State::Sealed
}

/// The buffer that the values are written into, one after the other.
struct Values(BytesMut);

impl Values {
    fn touchstone(
        &mut self,
        id: &[u8; 16],
        keyset: &Digest,
        require: &GuaranteeSet,
        state: State,
    ) -> HeaderValue {
        self.0.put_slice(b"id=\"");
        self.hex(id);
        self.0.put_slice(b"\", keyset=:");
        self.base64(&keyset.0);
        self.0.put_slice(b":, require=(");
        for (at, guarantee) in require.iter().enumerate() {
            if at > 0 {
                self.0.put_u8(b' ');
            }
            self.0.put_slice(guarantee.name().as_bytes());
        }
        self.0.put_slice(match state {
            State::Pending => b"), state=pending",
            State::Sealed => b"), state=sealed",
        });
        self.take()
    }

    fn openings(&mut self, salts: &OpeningSalts) -> HeaderValue {
        let all = [
            (&b"inputs=:"[..], &salts.inputs),
            (b"outputs=:", &salts.outputs),
            (b"request=:", &salts.request),
            (b"response=:", &salts.response),
        ];
        for (key, salt) in all {
            let Some(salt) = salt else { continue };
            if !self.0.is_empty() {
                self.0.put_slice(b", ");
            }
            self.0.put_slice(key);
            self.base64(salt);
            self.0.put_u8(b':');
        }
        self.take()
    }

    fn link(&mut self, id: &[u8; 16]) -> HeaderValue {
        self.0.put_slice(b"</v1/receipts/");
        self.hex(id);
        self.0
            .put_slice(b">; rel=\"https://touchstone.invalid/rel/receipt\"");
        self.take()
    }

    fn content_digest(&mut self, body: &[u8]) -> HeaderValue {
        self.0.put_slice(b"sha-256=:");
        self.base64(&Digest::of(body).0);
        self.0.put_u8(b':');
        self.take()
    }

    /// Lower-case hex of an id.
    fn hex(&mut self, id: &[u8; 16]) {
        let mut digits = [0; 32];
        // 16 bytes are 32 digits.
        if hex::encode_to_slice(id, &mut digits).is_ok() {
            self.0.put_slice(&digits);
        }
    }

    /// Padded base64 of at most 32 bytes.
    fn base64(&mut self, bytes: &[u8]) {
        let mut text = [0; 44];
        if let Ok(length) = STANDARD.encode_slice(bytes, &mut text) {
            self.0.put_slice(&text[..length]);
        }
    }

    /// What was written since the last call.
    fn take(&mut self) -> HeaderValue {
        // Everything above writes printable ASCII alone.
        HeaderValue::from_maybe_shared(self.0.split().freeze()).unwrap_or_else(|_| {
            tracing::error!("a header could not be written");
            HeaderValue::from_static("")
        })
    }
}

#[cfg(test)]
mod tests {
    use touchstone_formats::headers::{TouchstoneResponse, content_digest};

    use super::*;

    #[test]
    fn values_are_what_the_formats_crate_writes() {
        let mut values = Values(BytesMut::with_capacity(8));
        let keyset = Digest::of(b"keyset");
        for words in ["signed", "logged signed", "logged quoted signed"] {
            for state in [State::Pending, State::Sealed] {
                let require = GuaranteeSet::parse_words(words).unwrap();
                let expected = TouchstoneResponse {
                    id: [0xab; 16],
                    keyset,
                    require,
                    state,
                };
                let found = values.touchstone(&[0xab; 16], &keyset, &require, state);
                assert_eq!(found, expected.to_string());
            }
        }
        let salt = |n: u8| Some([n; 16]);
        for salts in [
            OpeningSalts {
                request: salt(1),
                response: salt(2),
                inputs: salt(3),
                outputs: salt(4),
            },
            OpeningSalts {
                request: salt(5),
                response: salt(6),
                inputs: None,
                outputs: None,
            },
        ] {
            assert_eq!(values.openings(&salts), salts.to_string());
        }
        assert_eq!(values.content_digest(b"body"), content_digest(b"body"));
        assert_eq!(
            values.link(&[1; 16]),
            format!(
                "</v1/receipts/{}>; rel=\"https://touchstone.invalid/rel/receipt\"",
                "01".repeat(16)
            )
        );
    }
}
