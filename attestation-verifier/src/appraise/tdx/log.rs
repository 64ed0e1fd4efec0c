//! The event log beside a quote, and what it shows.

use touchstone_formats::evidence::EventLog;

use crate::events::{self, Event, EventLogError, Replay};
use crate::parse::tdx::quote::TdReport;
use crate::policy::EventPattern;

/// A log, measured against a genuine quote.
pub(in crate::appraise) enum Log {
    Absent,
    /// Nothing is taken from it. `malformed`, `unknown-format` or `mismatch`, and why.
    Useless(&'static str, String),
    /// It gives the quote's registers.
    Replayed(Replay),
}

impl Log {
    pub(in crate::appraise) fn of(log: Option<&EventLog>, report: &TdReport) -> Log {
        let Some(log) = log else {
            return Log::Absent;
        };
        let replay = match events::replay(log) {
            Ok(replay) => replay,
            Err(error @ EventLogError::Format(_)) => {
                return Log::Useless("unknown-format", error.to_string());
            }
            Err(error) => return Log::Useless("malformed", error.to_string()),
        };
        let registers = (0..4).zip(replay.rtmr.iter().zip(&report.rtmr));
        let others: Vec<String> = registers
            .filter(|(_, (replayed, quoted))| replayed != quoted)
            .map(|(n, _)| format!("RTMR{n}"))
            .collect();
        if others.is_empty() {
            return Log::Replayed(replay);
        }
        let reason = format!("the log does not give {}", others.join(", "));
        Log::Useless("mismatch", reason)
    }

    pub(super) fn state(&self) -> &'static str {
        match self {
            Log::Absent => "absent",
            Log::Useless(state, _) => state,
            Log::Replayed(_) => "replayed",
        }
    }

    /// The events in RTMR3. A register that is zero was never extended, whatever a log says.
    ///
    /// # Errors
    /// In words why they are not known.
    pub(super) fn runtime(&self, report: &TdReport) -> Result<Vec<&Event>, String> {
        let [.., rtmr3] = &report.rtmr;
        match self {
            _ if *rtmr3 == [0; 48] => Ok(Vec::new()),
            Log::Replayed(replay) => Ok(replay.events.iter().filter(|e| e.register == 3).collect()),
            Log::Absent => Err("RTMR3 was extended, and there is no event log".to_owned()),
            Log::Useless(_, reason) => Err(format!("RTMR3 was extended, and {reason}")),
        }
    }
}

/// Whether every event is known, none is there twice, and nothing is missing.
pub(super) fn known(list: &[String], events: &[Event]) -> Result<(), String> {
    // What does not read was refused with the policy; here it would match nothing.
    let patterns: Vec<EventPattern> = list
        .iter()
        .filter_map(|text| EventPattern::read(text))
        .collect();
    for (index, event) in events.iter().enumerate() {
        let fits = |pattern: &EventPattern| match (pattern, &event.content) {
            (EventPattern::Digest(digest), _) => *digest == event.digest,
            (EventPattern::Named(name, payload), Some((own, content))) => {
                name == own && payload.as_ref().is_none_or(|payload| payload == content)
            }
            (EventPattern::Named(..), None) => false,
        };
        if !patterns.iter().any(fits) {
            return Err(format!("nobody expects the event {}", shown(event)));
        }
        let same = |other: &Event| match (&event.content, &other.content) {
            (Some((name, _)), Some((other, _))) => name == other,
            _ => event.digest == other.digest,
        };
        if events.iter().take(index).any(same) {
            return Err(format!("twice in the log: the event {}", shown(event)));
        }
    }
    for pattern in &patterns {
        let there = |event: &Event| match (pattern, &event.content) {
            (EventPattern::Digest(digest), _) => *digest == event.digest,
            (EventPattern::Named(name, _), Some((own, _))) => name == own,
            (EventPattern::Named(..), None) => false,
        };
        if !events.iter().any(there) {
            return Err(match pattern {
                EventPattern::Digest(_) => {
                    "an event of the policy's list did not happen".to_owned()
                }
                EventPattern::Named(name, _) => format!("the event {name} did not happen"),
            });
        }
    }
    Ok(())
}

/// Longest form of an event that a verdict repeats.
const LONGEST: usize = 1024;
/// Most events that a verdict repeats.
const MOST_SHOWN: usize = 64;

/// As an entry of the policy's list; one whose payload is long by its digest.
fn shown(event: &Event) -> String {
    let words = event.words();
    if words.len() <= LONGEST {
        return words;
    }
    let content = None;
    Event {
        content,
        ..event.clone()
    }
    .words()
}

/// All of them as a list of the policy's; none if there are too many to repeat.
pub(super) fn entries(events: &[Event]) -> Option<Vec<String>> {
    (events.len() <= MOST_SHOWN).then(|| events.iter().map(shown).collect())
}
