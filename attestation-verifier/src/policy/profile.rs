//! Profiles: whole policies for what people do with answers, every check named.
//!
//! A profile is the strict [`super::template`] with a few values changed, each with the reason
//! beside it. It is written out in full, so that its file says everything that it demands, and
//! carries its version (`serve/1`): a profile whose values change gets another number. It is made
//! from this crate alone. What only its author can know (launch measurements, models, chips) it
//! expects as empty lists, which accept nothing: never a value from the server it is about.

use std::fmt::Write as _;

use touchstone_formats::evidence::Tee;

use super::template::{comment, template};
use crate::dates::rfc3339;

/// What a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Trying out: any software and any model, for a while.
    Explore,
    /// A client that sends prompts and uses the answers at once.
    Serve,
    /// Judging kept bundles, also years later, also other people's.
    Audit,
    /// Answers that money depends on.
    Trade,
}

/// Days for which what [`Profile::Explore`] waives stays waived.
pub const EXPLORE_DAYS: u64 = 30;

/// One value of the template that a profile changes.
struct Change {
    key: &'static str,
    value: String,
    why: &'static str,
}

fn change(key: &'static str, value: &str, why: &'static str) -> Change {
    Change {
        key,
        value: value.to_owned(),
        why,
    }
}

/// What a profile accepts nothing without: the author fills it in.
const FILL_IN: &str = "{ expect = [] }";

impl Profile {
    /// All of them, from the loosest to the strictest.
    pub const ALL: [Profile; 4] = [
        Profile::Explore,
        Profile::Audit,
        Profile::Serve,
        Profile::Trade,
    ];

    /// Its name, without the version.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Explore => "explore",
            Profile::Serve => "serve",
            Profile::Audit => "audit",
            Profile::Trade => "trade",
        }
    }

    /// Name and version, as `profile` in the policy says it.
    pub fn versioned(self) -> String {
        format!("{}/1", self.name())
    }

    /// The profile that a policy's `profile` names, if it is one of this version's.
    pub fn from_versioned(text: &str) -> Option<Profile> {
        Profile::ALL.into_iter().find(|p| p.versioned() == text)
    }

    /// What it is for, in a sentence or two.
    pub fn summary(self) -> &'static str {
        match self {
            Profile::Explore => {
                "For trying out. ANY SOFTWARE AND ANY MODEL MAY ANSWER: a verdict under this policy says that \
                 something runs on genuine hardware, and nothing about what. Believe no answer because of it. \
                 These waivers end by themselves."
            }
            Profile::Serve => {
                "For a client that sends prompts and uses the answers at once: nobody reads along, the answer \
                 is to this question, and it is judged within the hour."
            }
            Profile::Audit => {
                "For judging kept bundles, also years later and also other people's: age and nonce are not \
                 asked for, everything else is. Judge as of the time of the answer (`--at`): certificates \
                 and revocation lists in a bundle are of that time."
            }
            Profile::Trade => {
                "For answers that money depends on: a quote for each answer, only chips and configurations \
                 that you name, judged within minutes."
            }
        }
    }

    /// The policy's text. `at`: unix seconds at which it is made, from which the waivers of
    /// [`Profile::Explore`] count; the others do not depend on it.
    pub fn text(self, tee: Tee, at: u64) -> String {
        let mut out = String::new();
        comment(
            &mut out,
            &format!("{}. {}", self.versioned(), self.summary()),
        );
        out.push_str("#\n");
        let changes = self.changes(tee, at);
        for line in template(tee).lines() {
            let key = line
                .split(" = ")
                .next()
                .unwrap_or_default()
                .trim_matches('"');
            if key == "profile" {
                let _ = writeln!(
                    out,
                    "profile = {:<31}# what it was made from, for people",
                    format!("{:?}", self.versioned())
                );
            } else if let Some(change) = changes.iter().find(|change| change.key == key) {
                comment(&mut out, &format!("{}: {}", self.versioned(), change.why));
                let name = line.split(" = ").next().unwrap_or_default();
                let _ = writeln!(out, "{name} = {}", change.value);
            } else {
                // The template's first words; a profile need not be strict.
                let line = line.replacen("# A strict policy for", "# A policy for", 1);
                let _ = writeln!(out, "{line}");
            }
        }
        out
    }

    fn changes(self, tee: Tee, at: u64) -> Vec<Change> {
        match self {
            Profile::Explore => explore(tee, at),
            Profile::Serve => vec![
                change(
                    "fresh_seconds",
                    "{ expect = 3600 }",
                    "judged within the hour. To judge what you kept later, use the profile audit.",
                ),
                change("answers", "{ expect = [\"tls-exporter\"] }", BOUND),
            ],
            Profile::Audit => vec![
                change(
                    "nonce",
                    "{ waive = \"who audits did not ask: whoever asked holds the nonce\" }",
                    "an auditor has no nonce of his own in the receipt. One that `check` is given is \
                     compared all the same.",
                ),
                change(
                    "fresh_seconds",
                    "{ waive = \"an archive is as old as it is\" }",
                    "the receipt says when it was made (iat), by the guest's clock, within the life of its keyset.",
                ),
            ],
            Profile::Trade => {
                let mut changes = vec![
                    change(
                        "require",
                        "[\"logged\", \"quoted\"]",
                        "the hardware itself vouches for this one answer, and the log for its place among the others.",
                    ),
                    change(
                        "fresh_seconds",
                        "{ expect = 300 }",
                        "an answer to act upon is minutes old.",
                    ),
                    change(
                        "configs",
                        FILL_IN,
                        "the same model can answer otherwise under another configuration. None is accepted until \
                         you put in those that you computed yourself.",
                    ),
                    change(
                        "keyset_span_seconds",
                        "{ expect = 86400 }",
                        "keys that live a day at most.",
                    ),
                    change("answers", "{ expect = [\"tls-exporter\"] }", BOUND),
                ];
                changes.push(match tee {
                    Tee::SevSnp => change("snp.chip_id", FILL_IN, CHIPS),
                    Tee::Tdx => change("tdx.platform.instance", FILL_IN, CHIPS),
                });
                changes
            }
        }
    }
}

const BOUND: &str =
    "nobody stood between you and the enclave. `ask` and `proxy` keep the record that shows it.";
const CHIPS: &str = "only machines that you know: whoever holds another genuine chip in his hands may have \
                     brought out what signs for it. None is accepted until you put in yours.";

/// Checks that say which software runs, and with what configuration.
fn identity(tee: Tee) -> &'static [&'static str] {
    match tee {
        Tee::SevSnp => &["snp.measurement", "snp.host_data"],
        Tee::Tdx => &[
            "tdx.mrtd",
            "tdx.rtmr0",
            "tdx.rtmr1",
            "tdx.rtmr2",
            "tdx.rtmr3",
            "tdx.rtmr3.events",
            "tdx.mr_config_id",
            "tdx.mr_owner",
            "tdx.mr_owner_config",
        ],
    }
}

fn explore(tee: Tee, at: u64) -> Vec<Change> {
    let end = rfc3339(at.saturating_add(EXPLORE_DAYS * 86_400));
    let day = end.split('T').next().unwrap_or_default();
    let waive = |key, reason: &str| Change {
        key,
        value: format!("{{ waive = \"trying out: {reason}\", until = \"{day}\" }}"),
        why: "not checked until the day below. Expect what you have found out for yourself, and take another \
              profile, before you rely on an answer.",
    };
    let mut changes = vec![waive("models", "ANY MODEL may have answered")];
    for id in identity(tee) {
        changes.push(waive(
            id,
            "ANY SOFTWARE may be running, whatever its configuration",
        ));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change whose key the template has not, or has twice, would change something else than it says.
    #[test]
    fn every_change_has_its_line_in_the_template() {
        for tee in [Tee::SevSnp, Tee::Tdx] {
            let text = template(tee);
            for profile in Profile::ALL {
                for change in profile.changes(tee, 1_790_000_000) {
                    let lines = text.lines().filter(|line| {
                        line.split(" = ")
                            .next()
                            .unwrap_or_default()
                            .trim_matches('"')
                            == change.key
                    });
                    assert_eq!(lines.count(), 1, "{tee} {} {}", profile.name(), change.key);
                }
            }
        }
    }
}
