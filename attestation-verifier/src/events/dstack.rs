//! dstack's log: a JSON list of `{imr, event_type, digest, event, event_payload}`, registers from 0 (dstack,
//! `cc-eventlog`). Events of firmware come with their digest. Runtime events, all of one type, may come
//! without: theirs is of what the log shows, in one of two ways that `version` tells apart.

use serde::Deserialize;
use touchstone_formats::text::{hex_array, hex_decode, hex_encode};

use super::{Digest384, Event, EventLogError, Replay, is_name, sha384};
use crate::parse::json;

/// The type of runtime events; TCG has none of that number.
const RUNTIME: u32 = 0x0800_0001;

#[derive(Deserialize)]
struct Entry {
    imr: u8,
    event_type: u32,
    #[serde(default)]
    digest: String,
    event: String,
    event_payload: String,
    version: Option<u32>,
}

pub(super) fn replay(log: &[u8]) -> Result<Replay, EventLogError> {
    let text = std::str::from_utf8(log).map_err(|_| EventLogError::Json("not UTF-8".into()))?;
    let entries: Vec<Entry> =
        json::read(text).map_err(|error| EventLogError::Json(error.to_string()))?;
    let mut replay = Replay::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let event = entry
            .event()
            .map_err(|what| EventLogError::Event { index, what })?;
        replay.extend(event)?;
    }
    Ok(replay)
}

impl Entry {
    fn event(self) -> Result<Event, &'static str> {
        let given: Option<Digest384> = match self.digest.as_str() {
            "" => None,
            hex => Some(hex_array(hex).map_err(|_| "its digest is not 96 lower-case hex digits")?),
        };
        let mut event = Event {
            register: self.imr,
            kind: self.event_type,
            digest: [0; 48],
            content: None,
        };
        if self.event_type != RUNTIME {
            event.digest = given.ok_or("it has no digest")?;
            return Ok(event);
        }
        let payload =
            hex_decode(&self.event_payload).map_err(|_| "its payload is not lower-case hex")?;
        let digest = match self.version {
            None | Some(1) => first(&self.event, &payload),
            Some(2) => second(&self.event, &payload),
            Some(_) => return Err("a runtime event of an unknown version"),
        };
        if given.is_some_and(|given| given != digest) {
            return Err("its digest is not of its name and payload");
        }
        event.digest = digest;
        event.content = is_name(&self.event).then_some((self.event, payload));
        Ok(event)
    }
}

/// Type, name and payload with colons between them.
fn first(name: &str, payload: &[u8]) -> Digest384 {
    sha384(&[&RUNTIME.to_le_bytes(), b":", name.as_bytes(), b":", payload])
}

/// A JSON object in canonical form (RFC 8785).
fn second(name: &str, payload: &[u8]) -> Digest384 {
    let name = serde_json::Value::from(name);
    let payload = hex_encode(payload);
    let text =
        format!(r#"{{"event":{name},"event_type":{RUNTIME},"payload":"{payload}","version":2}}"#);
    sha384(&[text.as_bytes()])
}
