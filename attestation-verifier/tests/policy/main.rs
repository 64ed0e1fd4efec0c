//! Profiles, lint and comparison of policies: as texts, and by what they accept.

mod diff;
mod lint;
mod profiles;

use attestation_verifier::Policy;
use attestation_verifier::policy::template;
use touchstone_formats::evidence::Tee;
use touchstone_testkit::policy::edit;

/// A time in the middle of 2026.
const AT: u64 = 1_780_000_000;

const TEES: [Tee; 2] = [Tee::SevSnp, Tee::Tdx];

fn parse(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The strict template with these values.
fn with(tee: Tee, changes: &[(&str, &str)]) -> Policy {
    parse(&edit(&template(tee), changes))
}

/// Keys of a policy's text that have a rule, as they stand there.
fn keys(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let keys = lines.filter_map(|line| line.split_once(" = { "));
    keys.map(|(key, _)| key.trim_matches('"').to_owned())
        .collect()
}
