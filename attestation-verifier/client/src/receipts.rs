//! Waiting for a receipt's bundle (formats.md §9).
//!
//! Whoever answers here is not trusted: he may delay, know nothing, send rubbish or another receipt. All he
//! can do is to keep the caller from a bundle, and for no longer than the caller is ready to wait.

use std::time::Duration;

use tokio::time::Instant;
use touchstone_formats::limits::MAX_BUNDLE;
use touchstone_formats::{Bundle, Receipt};

use crate::Error;
use crate::client::Settings;

/// How long a server may hold a question for a receipt.
const MAX_HOLD: Duration = Duration::from_secs(10);
/// What a server may take beyond that, and for a question that it need not hold.
const GRACE: Duration = Duration::from_secs(5);
/// Between questions, at first and at most. A seal takes about one quote: some ten milliseconds here, some
/// hundred there.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Who waits for longer waits for ever, and clocks need not reach beyond it.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// How far a bundle has come.
#[derive(Clone, Debug)]
pub enum Waited {
    /// All that was asked for holds, says the server.
    Complete(Bundle),
    /// It does not: the bundle as it is, if there is one, and what came of waiting, in words.
    Incomplete(Option<Bundle>, String),
}

/// Asks for a receipt's bundle until all that was asked for holds, or time is up. `hold`: let the server
/// hold the first question, too; without it the first shows how matters stand.
pub(crate) async fn wait(
    settings: &Settings,
    id: &str,
    hold: bool,
    mut progress: impl FnMut(&str),
) -> Result<Waited, Error> {
    let target = format!("/v1/receipts/{id}");
    let deadline = Instant::now() + settings.wait.min(FOREVER);
    let mut pause = PAUSES.0;
    let mut latest = None;
    let mut may_hold = hold;
    let mut shown = String::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let seconds = left.min(MAX_HOLD).as_secs();
        // When, never what (RFC 7240).
        let prefer = (may_hold && seconds > 0).then(|| format!("wait={seconds}"));
        let limit = left.min(MAX_HOLD) + GRACE;
        let asked = settings.records.read(&target, prefer, MAX_BUNDLE, limit);
        let state = match asked.await {
            Err(error) => error.to_string(),
            Ok(answer) => match answer.status {
                200 => return Ok(Waited::Complete(bundle(id, &answer.body)?)),
                202 => {
                    // Some servers give what there is, others a problem document.
                    latest = bundle(id, &answer.body).ok().or(latest);
                    match &latest {
                        None => "waiting for the seal".into(),
                        Some(bundle) => describe(bundle),
                    }
                }
                410 => {
                    let why = format!("it never will be complete: {}", answer.problem());
                    return Ok(Waited::Incomplete(latest, why));
                }
                404 => "the server does not know the receipt yet".into(),
                status => format!("status {status}: {}", answer.problem()),
            },
        };
        may_hold = true;
        if state != shown {
            progress(&state);
            shown = state;
        }
        if Instant::now() + pause > deadline {
            let waited = settings.wait.as_secs_f32();
            let why = format!("not complete within {waited} s ({shown})");
            return Ok(Waited::Incomplete(latest, why));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(PAUSES.1);
    }
}

/// Reads a bundle that must be about this receipt.
fn bundle(id: &str, body: &[u8]) -> Result<Bundle, Error> {
    let wrong = |what: String| Error::malformed(format!("the server's bundle: {what}"));
    let bundle = Bundle::parse(body).map_err(|e| wrong(e.to_string()))?;
    let receipt = Receipt::parse(&bundle.receipt).map_err(|e| wrong(e.to_string()))?;
    if receipt.id() != id {
        return Err(wrong(format!(
            "expected receipt {id}, found {}",
            receipt.id()
        )));
    }
    Ok(bundle)
}

/// What a bundle has so far, in words.
fn describe(bundle: &Bundle) -> String {
    let purposes: Vec<_> = bundle
        .evidence
        .iter()
        .filter_map(|e| e.purpose)
        .map(|p| p.name())
        .collect();
    let seal = match bundle.proof {
        Some(_) => "with its seal",
        None => "without its seal",
    };
    format!(
        "the receipt is there, {seal}; quotes for: {}",
        purposes.join(", ")
    )
}
