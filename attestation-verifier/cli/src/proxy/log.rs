//! One line on stderr for every answer, and for what happens to the proxy's sessions. A line never holds a body,
//! a nonce or a salt: of a refusal it has the check's id, not the reason, which may quote what was found.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation_verifier::dates::rfc3339;
use serde_json::{Map, Value, json};
use touchstone_formats::text::is_control;

/// Where lines go, and how they look.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    json: bool,
    colour: bool,
}

/// How something ended, for its colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    /// As it should.
    Good,
    /// Refused by the enclave, or simulated.
    Odd,
    /// Not verified, or refused by this proxy.
    Bad,
}

/// What there is to say of one inference.
#[derive(Clone, Debug, Default)]
pub struct Line<'a> {
    /// The receipt's id.
    pub receipt: Option<&'a str>,
    /// The model.
    pub model: &'a str,
    /// The HTTP status that the client was given.
    pub status: u16,
    /// The verdict's exit code, if something was judged.
    pub exit: Option<u8>,
    /// The deciding check of a refusal.
    pub check: Option<&'a str>,
    /// The guarantees that hold, with spaces between.
    pub achieved: &'a str,
    /// What bound the connection.
    pub binding: &'a str,
    /// Whether the platform is simulated.
    pub simulated: bool,
    /// From the request to the end.
    pub total: Duration,
    /// Of that, waiting for the seal and judging.
    pub seal: Option<Duration>,
}

impl Log {
    /// Lines of JSON, or of words (with colour on a terminal that wants it).
    pub fn new(json: bool) -> Log {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Log {
            json,
            colour: !json && !plain && std::io::stderr().is_terminal(),
        }
    }

    /// Says how an inference ended.
    pub fn answer(&self, line: &Line) {
        let mood = match (line.exit, line.status) {
            (Some(0), 200..=299) if !line.simulated => Mood::Good,
            (Some(0), _) => Mood::Odd,
            _ => Mood::Bad,
        };
        let ms = |time: Duration| time.as_micros() as f64 / 1_000.0;
        self.event(
            mood,
            "answer",
            &[
                ("receipt", json!(line.receipt)),
                ("model", json!(line.model)),
                ("status", json!(line.status)),
                ("exit", json!(line.exit)),
                ("check", json!(line.check)),
                ("achieved", json!(line.achieved)),
                ("binding", json!(line.binding)),
                ("simulated", json!(line.simulated)),
                ("total_ms", json!(ms(line.total))),
                ("seal_ms", json!(line.seal.map(ms))),
            ],
        );
    }

    /// Says that something happened.
    pub fn event(&self, mood: Mood, event: &str, members: &[(&str, Value)]) {
        let line = match self.json {
            true => as_json(event, members, now()),
            false => as_words(event, members, now(), self.colour.then_some(mood)),
        };
        // Nobody reads: no error of ours.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// RFC 3339 with milliseconds.
fn timestamp(since: Duration) -> String {
    let seconds = rfc3339(since.as_secs());
    format!(
        "{}.{:03}Z",
        seconds.trim_end_matches('Z'),
        since.subsec_millis()
    )
}

fn as_json(event: &str, members: &[(&str, Value)], at: Duration) -> String {
    let mut object = Map::new();
    object.insert("time".into(), timestamp(at).into());
    object.insert("event".into(), event.into());
    for (name, value) in members {
        object.insert((*name).to_owned(), value.clone());
    }
    Value::Object(object).to_string() + "\n"
}

fn as_words(event: &str, members: &[(&str, Value)], at: Duration, mood: Option<Mood>) -> String {
    let mut line = format!("{} ", timestamp(at));
    let colour = mood.map(|mood| match mood {
        Mood::Good => "32",
        Mood::Odd => "33",
        Mood::Bad => "31",
    });
    let _ = match colour {
        Some(colour) => write!(line, "\x1b[{colour}m{event}\x1b[0m"),
        None => write!(line, "{event}"),
    };
    for (name, value) in members {
        let text = match value {
            Value::Null | Value::Bool(false) => continue,
            Value::Bool(true) => {
                let _ = write!(line, " {name}");
                continue;
            }
            Value::String(text) if text.is_empty() => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // Names may be a stranger's: one line stays one line, and a terminal is told nothing.
        let plain = text
            .chars()
            .all(|c| !is_control(c) && !c.is_whitespace() && c != '"');
        let _ = match plain {
            true => write!(line, " {name}={text}"),
            false => write!(line, " {name}={text:?}"),
        };
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_lines() {
        let members = [
            ("receipt", json!("ab")),
            ("model", json!("a\u{1b}[2J\nb c")),
            ("check", Value::Null),
            ("achieved", json!("")),
            ("exit", json!(0)),
            ("simulated", json!(true)),
            ("total_ms", json!(1.5)),
        ];
        let at = Duration::from_millis(1_763_596_800_042);
        assert_eq!(
            as_words("answer", &members, at, None),
            "2025-11-20T00:00:00.042Z answer receipt=ab model=\"a\\u{1b}[2J\\nb c\" exit=0 simulated total_ms=1.5\n"
        );
        let coloured = as_words("answer", &members, at, Some(Mood::Bad));
        assert!(coloured.contains("\x1b[31manswer\x1b[0m"));
        let json = as_json("answer", &members, at);
        assert_eq!(json.lines().count(), 1);
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["time"], "2025-11-20T00:00:00.042Z");
        assert_eq!(value["model"], "a\u{1b}[2J\nb c");
    }
}
