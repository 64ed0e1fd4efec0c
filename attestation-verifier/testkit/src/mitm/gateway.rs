//! The end of sealed requests in the kit's own server (Oblivious HTTP, formats.md §13).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use touchstone_formats::Digest;
use touchstone_formats::text::Base64Bytes;
use touchstone_ohttp::bhttp::{self, Bounds};
use touchstone_ohttp::{ANSWER_TYPE, Error, GatewayKey, KEY_PROBLEM, Opened};

use super::message::Message;
use super::record::Recorder;

/// What a message in Binary HTTP may have of header fields.
const BOUNDS: Bounds = Bounds {
    fields: 100,
    field_bytes: 64 << 10,
};

/// A key, and what was opened with it.
#[derive(Debug)]
pub(super) struct Gateway {
    key: GatewayKey,
    opened: Mutex<HashSet<[u8; 32]>>,
}

impl Gateway {
    /// One with a fresh key.
    pub(super) fn new() -> Self {
        Self {
            key: GatewayKey::generate(1).expect("randomness"),
            opened: Mutex::default(),
        }
    }

    /// The member `ohttp_keys` of its keyset.
    pub(super) fn published(&self) -> Base64Bytes {
        Base64Bytes(self.key.configurations())
    }

    /// What is in a sealed request, whether or not it was opened before; `None` when it is not for this key.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Opened> {
        self.key.open(sealed).ok()
    }

    /// Opens a request once, has it answered, and seals the answer. `keyset` is the one in force.
    pub(super) fn answer(
        &self,
        request: &Message,
        keyset: Digest,
        recorder: &Recorder,
        answer: impl FnOnce(&Message) -> Message,
    ) -> Message {
        let meant = request.header("touchstone-keyset");
        if meant.is_some_and(|meant| meant != keyset.to_string()) {
            return other_key();
        }
        let opened = match self.key.open(&request.body) {
            Ok(opened) => opened,
            Err(Error::OtherKey { .. }) => return other_key(),
            Err(error) => return Message::problem(400, &error.to_string()),
        };
        recorder.opened(true, &opened.content);
        let mut all = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let new = all.insert(opened.encapsulated);
        drop(all);
        let answer = match read(opened.content) {
            _ if !new => Message::problem(409, "this sealed request was answered before"),
            Some(request) => answer(&request),
            None => Message::problem(400, "the sealed message is no request"),
        };
        let content = written(&answer);
        recorder.opened(false, &content);
        let sealed = opened.responder.seal(&content).expect("a short answer");
        Message::answer(200, ANSWER_TYPE, sealed)
    }
}

/// What is said outside to whoever seals for another key (RFC 9458 §5.3).
pub(super) fn other_key() -> Message {
    let mut answer = Message::problem(422, "another keyset is in force");
    let body = String::from_utf8_lossy(&answer.body).replace("about:blank", KEY_PROBLEM);
    answer.body = body.into_bytes();
    answer
}

/// A request in Binary HTTP.
fn read(content: Vec<u8>) -> Option<Message> {
    let request = bhttp::Request::decode(content.into(), BOUNDS).ok()?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let fields = request.fields.iter();
    let headers = fields.map(|(name, value)| Some((text(name)?, text(value)?)));
    Some(Message {
        start: format!("{} {} -", text(&request.method)?, text(&request.path)?),
        headers: headers.collect::<Option<_>>()?,
        body: request.content.to_vec(),
    })
}

/// An answer in Binary HTTP.
fn written(answer: &Message) -> Vec<u8> {
    let fields = answer.headers.iter();
    let fields = fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    bhttp::Answer::encode(answer.status(), fields, &answer.body)
}
