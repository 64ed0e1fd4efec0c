//! What came of it, as a table, in short, and as JSON.

use std::collections::BTreeMap;

use attestation_verifier::Verdict;
use attestation_verifier::verdict::Outcome;
use serde_json::{Value, json};

use super::mutant::{Kind, Mutant};
use crate::output::{Failure, clean};

/// How a mutant ended.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The exit code that `check` or `appraise` would have.
    pub exit: u8,
    /// The deciding check; none if it was accepted.
    pub check: Option<String>,
    /// Why, in words.
    pub reason: String,
}

impl Refusal {
    /// What a judgement gave.
    pub fn of(judgement: Result<Verdict, Failure>) -> Refusal {
        match judgement {
            Ok(verdict) => Refusal {
                exit: verdict.exit(),
                check: verdict.deciding().map(str::to_owned),
                reason: verdict
                    .checks
                    .deciding()
                    .map(|c| c.reason.clone())
                    .unwrap_or_default(),
            },
            Err(failure) => Refusal {
                exit: failure.fault.exit(),
                check: Some(failure.id.to_owned()),
                reason: format!("{:#}", failure.error),
            },
        }
    }

    /// Judged, and refused. What could not be judged at all (exit 1) proves nothing.
    pub fn refused(&self) -> bool {
        matches!(self.exit, 2..=5)
    }
}

/// A mutant and how it ended.
pub struct Judged {
    /// What was judged.
    pub mutant: Mutant,
    /// What came of it.
    pub refusal: Refusal,
}

/// Everything that a run has to say.
pub struct Report<'a> {
    /// What the mutants follow from.
    pub seed: u32,
    /// How many mutants there should be.
    pub wanted: usize,
    /// The verdict on the thing itself.
    pub subject: &'a Verdict,
    /// Parts of which no bit was changed.
    pub missed: Vec<String>,
    /// There is a record of a connection that binds nothing here.
    pub unproven_session: bool,
    /// All mutants.
    pub judged: Vec<Judged>,
}

impl Report<'_> {
    /// The exit code: that of the thing itself, or 4 if refusal is not proven.
    pub fn exit(&self) -> u8 {
        if self.proven() {
            self.subject.exit()
        } else {
            4
        }
    }

    fn proven(&self) -> bool {
        self.judged.len() >= self.wanted && self.accepted().next().is_none()
    }

    /// Mutants that were not refused, with their numbers.
    pub fn accepted(&self) -> impl Iterator<Item = (usize, &Judged)> {
        let all = self
            .judged
            .iter()
            .enumerate()
            .map(|(n, judged)| (n + 1, judged));
        all.filter(|(_, judged)| !judged.refusal.refused())
    }

    fn refused(&self) -> usize {
        self.judged.iter().filter(|j| j.refusal.refused()).count()
    }

    fn by_check(&self) -> BTreeMap<&str, usize> {
        let mut checks = BTreeMap::new();
        for judged in self.judged.iter().filter(|j| j.refusal.refused()) {
            *checks
                .entry(judged.refusal.check.as_deref().unwrap_or("?"))
                .or_default() += 1;
        }
        checks
    }

    fn waivers(&self) -> Vec<&str> {
        let checks = self.subject.checks.iter();
        let waived = checks.filter(|c| c.result == Outcome::Waived);
        let mut ids: Vec<&str> = waived.map(|c| c.id.as_ref()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The first line, and what else is short.
    pub fn summary(&self) -> String {
        let (refused, all) = (self.refused(), self.judged.len());
        let simulated = match self.subject.context.simulated {
            true => " (SIMULATED platform)",
            false => "",
        };
        let exit = self.exit();
        let mut out = if refused == all {
            format!("REFUSED {refused} of {all}{simulated}, exit {exit}\n")
        } else {
            format!(
                "NOT PROVEN: {} of {all} were accepted{simulated}, exit {exit}\n",
                all - refused
            )
        };
        out += &format!("seed {}\n", self.seed);
        if all < self.wanted {
            let wanted = self.wanted;
            out += &format!("NOT PROVEN: no more than {all} of {wanted} could be made\n");
        }
        for (number, Judged { mutant, refusal }) in self.accepted() {
            let word = match refusal.exit {
                1 => "not judged",
                _ => "ACCEPTED",
            };
            out += &clean(&format!(
                "{word} (exit {}): mutant {number}, {} of {}: {}{}\n",
                refusal.exit,
                mutant.kind.word(),
                mutant.place,
                mutant.change,
                match refusal.reason.as_str() {
                    "" => String::new(),
                    reason => format!(" ({reason})"),
                },
            ));
        }
        if refused != all {
            let waivers = self.waivers();
            out += &match waivers.is_empty() {
                true => {
                    "the policy waives nothing that was found: this is a fault of the verifier\n"
                        .to_owned()
                }
                false => format!(
                    "the policy waives {}: see whether that is why\n",
                    waivers.join(", ")
                ),
            };
        }
        if !self.missed.is_empty() {
            let missed = self.missed.join(", ");
            out += &format!("no bit was changed of: {missed} (a larger --count reaches them)\n");
        }
        if self.unproven_session {
            out += "session.json binds nothing here, and was left as it is\n";
        }
        out
    }

    /// For people.
    pub fn words(&self) -> String {
        let mut out = self.summary() + "\n";
        let rows = self.judged.iter().enumerate().map(|(n, judged)| {
            let Judged { mutant, refusal } = judged;
            [
                (n + 1).to_string(),
                mutant.kind.word().to_owned(),
                mutant.place.clone(),
                mutant.change.clone(),
                refusal.exit.to_string(),
                refusal
                    .check
                    .clone()
                    .unwrap_or_else(|| "ACCEPTED".to_owned()),
            ]
        });
        let head = ["", "kind", "where", "what was changed", "exit", "check"].map(str::to_owned);
        out += &table(std::iter::once(head).chain(rows).collect());
        out += "\n";
        let counts = self
            .by_check()
            .into_iter()
            .map(|(check, n)| [n.to_string(), check.to_owned()]);
        let head = ["refused", "by"].map(str::to_owned);
        out += &table(std::iter::once(head).chain(counts).collect());
        clean(&out)
    }

    /// For programs.
    pub fn json(&self) -> String {
        let mutants: Vec<Value> = self
            .judged
            .iter()
            .enumerate()
            .map(|(n, Judged { mutant, refusal })| {
                json!({
                    "number": n + 1,
                    "kind": mutant.kind,
                    "where": mutant.place,
                    "change": mutant.change,
                    "exit": refusal.exit,
                    "deciding": refusal.check,
                    "reason": refusal.reason,
                    "refused": refusal.refused(),
                })
            })
            .collect();
        let kinds: BTreeMap<&str, usize> = Kind::ALL
            .into_iter()
            .map(|kind| {
                let of_kind = |j: &&Judged| j.mutant.kind == kind;
                (kind.word(), self.judged.iter().filter(of_kind).count())
            })
            .collect();
        json!({
            "v": "touchstone/prove-refusal/1",
            "exit": self.exit(),
            "proven": self.proven(),
            "simulated": self.subject.context.simulated,
            "seed": self.seed,
            "count": self.judged.len(),
            "refused": self.refused(),
            "mutants": mutants,
            "by_check": self.by_check(),
            "by_kind": kinds,
            "missed": self.missed,
            "session_left_out": self.unproven_session,
            "waived": self.waivers(),
        })
        .to_string()
    }
}

/// Columns as wide as their widest cell; the last one is not padded.
fn table<const N: usize>(rows: Vec<[String; N]>) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(n, (cell, width))| {
                let width = if n + 1 == N { 0 } else { width };
                format!("{cell:width$}")
            });
        out += cells.collect::<Vec<_>>().join("  ").trim_end();
        out += "\n";
    }
    out
}
