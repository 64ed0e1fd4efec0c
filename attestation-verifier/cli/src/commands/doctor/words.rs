//! A diagnosis as tables of words. What hosts, agents and quotes say in it controls no terminal.

use attestation_verifier::verdict::Outcome;
use serde_json::Value;
use touchstone_formats::text::printable;

use super::Diagnosis;
use super::judgement::{Chain, Deliverable, Finding, Judgement};
use super::sources::State;

/// Widest line, columns. Longer words (digests) stay whole.
const WIDTH: usize = 110;
/// Characters of a value that are shown. JSON has all of it.
const VALUE: usize = 160;

impl Diagnosis {
    /// Several lines, each ending in a newline.
    pub(super) fn words(&self) -> String {
        let mut out = Page::default();
        self.head(&mut out);
        self.tried(&mut out);
        out.title("This machine (the kernel's and the host's word, no evidence)");
        for fact in &self.machine {
            let mark = if fact.good == Some(false) { "!" } else { " " };
            out.entry(&format!("{mark} {:<17}", fact.name), &fact.found);
            out.advice(fact.advice);
        }
        if let Some(quote) = &self.quote {
            self.quote(quote, &mut out);
        }
        out.title("Guarantees that an enclave here could deliver");
        for guarantee in &self.guarantees {
            let state = match guarantee.deliverable {
                Deliverable::Yes => "yes",
                Deliverable::Refused => "refused",
                Deliverable::Unknown => "unknown",
                Deliverable::No => "no",
            };
            let label = format!("  {:<12} {state:<8}", guarantee.guarantee);
            out.entry(&label, &guarantee.why);
        }
        self.checks(&mut out);
        if let Some(quote) = &self.quote {
            out.title("Not applicable here (neither passed nor failed)");
            for check in &quote.not_applicable {
                out.entry(&format!("  {:<18}", check.id), check.why);
                if !check.found.is_null() {
                    out.entry("      found: ", &value(&check.found));
                }
            }
            out.title("What no check shows");
            for risk in &quote.residual_risks {
                out.entry("  - ", risk);
            }
        }
        out.text
    }

    fn head(&self, out: &mut Page) {
        let simulated = if self.simulated {
            " (SIMULATED platform)"
        } else {
            ""
        };
        let words = match self.exit {
            0 | 6 => "READY",
            2 => "MALFORMED: what a source gives is no quote",
            3 => "NOT AUTHENTIC: what a source gives proves nothing",
            4 => "REFUSED: this machine quotes, and default checks fail",
            5 => "UNPROVEN: this machine quotes, and something is missing to judge it by",
            _ => "NO QUOTE: nothing can be proven on this machine",
        };
        out.entry("", &format!("{words}{simulated}, exit {}", self.exit));
        let deciding = self
            .checks
            .iter()
            .find(|check| check.refuses && Some(&check.id) == self.deciding.as_ref());
        match deciding {
            Some(check) => out.entry("because ", &format!("{}: {}", check.id, check.reason)),
            None => out.entry(
                "",
                "No default check fails that this machine's evidence can fail.",
            ),
        }
        for note in &self.notes {
            out.entry("note: ", note);
        }
        out.entry("", &format!("Judged at {}.", self.at));
        if let Some(wrote) = &self.wrote {
            out.entry("", &format!("The quote is in {wrote}."));
        }
    }

    fn tried(&self, out: &mut Page) {
        out.title("Quote sources");
        for tried in &self.sources {
            let state = match tried.state {
                State::Quoted => "quotes",
                State::Absent => "absent",
                State::Failed => "FAILED",
                State::Malformed => "MALFORMED",
                State::WrongReportData => "LIES",
            };
            let took = tried.milliseconds.map(|ms| format!(", {ms} ms"));
            let found = format!("{}{}", tried.found, took.unwrap_or_default());
            out.entry(&format!("  {:<13} {state:<9} ", tried.source), &found);
            out.entry("      at ", &tried.path);
            out.advice(tried.advice.as_deref());
        }
        if self
            .sources
            .iter()
            .all(|tried| tried.source != "quote-agent")
        {
            out.entry("  quote-agent   not asked ", "no --agent");
        }
    }

    fn quote(&self, quote: &Judgement, out: &mut Page) {
        let source = self.source.unwrap_or_default();
        out.title(&format!("The quote of {source}"));
        let chain = match (quote.chain, quote.simulated) {
            (Chain::Verified, false) => "verified up to the vendor's root",
            (Chain::Verified, true) => "verified up to the SIMULATED root that you named",
            (Chain::NotChecked, _) => {
                "NOT CHECKED, something is missing: what follows is what the quote says of itself, and anybody could have written it"
            }
            (Chain::Refused, _) => {
                "DOES NOT HOLD: what follows is what the quote says of itself, and worth nothing"
            }
        };
        out.entry("  chain        ", chain);
        let from = match quote.collateral {
            Some("file") => "the file that you named",
            Some("folder") => "the folder that you named",
            Some(_) => "what the host put beside the report",
            None => "none",
        };
        out.entry("  collateral   ", from);
        out.entry("  TEE          ", quote.tee);
        let platform = |path: &str| quote.platform.pointer(path).filter(|v| !v.is_null());
        for (name, path) in [
            ("product", "/variant"),
            ("signed by", "/signing_key"),
            ("chip", "/chip_id"),
            ("TCB reported", "/tcb/reported"),
            ("TCB committed", "/tcb/committed"),
            ("TCB launch", "/tcb/launch"),
            ("firmware", "/firmware/current"),
            ("VMPL", "/vmpl"),
            ("FMSPC", "/fmspc"),
            ("platform", "/instance_id"),
            ("TCB status", "/tcb/status"),
            ("TCB SGX", "/tcb/sgx"),
            ("TCB TDX", "/tcb/tdx"),
            ("attributes", "/td_attributes"),
            ("event log", "/event_log"),
        ] {
            if let Some(found) = platform(path) {
                out.entry(&format!("  {name:<13}"), &value(found));
            }
        }
        if let Some(measurement) = &quote.measurement {
            out.entry("  measurement  ", measurement);
        }
    }

    fn checks(&self, out: &mut Page) {
        let of = |wanted: &dyn Fn(&Finding) -> bool| -> Vec<&Finding> {
            self.checks.iter().filter(|check| wanted(check)).collect()
        };
        let failed = of(&|check| check.refuses && check.result == Outcome::Fail);
        if !failed.is_empty() {
            out.title(&format!("Default checks that fail ({})", failed.len()));
        }
        for check in failed {
            let claimed = if check.proven {
                ""
            } else {
                " (as the quote says of itself)"
            };
            out.entry("  ", &format!("{}{claimed}", check.id));
            for (label, text) in [("expected", &check.expected), ("found", &check.found)] {
                if !text.is_null() {
                    out.entry(&format!("      {label}: "), &value(text));
                }
            }
            out.entry("      ", &check.reason);
            out.advice(check.advice);
        }
        let open = of(&|check| check.refuses && check.result == Outcome::NotEvaluated);
        if !open.is_empty() {
            out.title(&format!("Could not be looked at ({})", open.len()));
            out.list(open);
        }
        let listed = of(&|check| !check.refuses && check.result == Outcome::NotEvaluated);
        if !listed.is_empty() {
            out.title(&format!(
                "Listed only: nothing rests on it ({})",
                listed.len()
            ));
            out.list(listed);
        }
        let waived = of(&|check| check.result == Outcome::Waived);
        if !waived.is_empty() {
            out.title(&format!("Waived by the strict policy ({})", waived.len()));
            out.list(waived);
        }
        let (proven, claimed): (Vec<&Finding>, Vec<&Finding>) =
            of(&|check| check.result == Outcome::Pass)
                .into_iter()
                .partition(|check| check.proven);
        if !claimed.is_empty() {
            let title = "As the policy expects, if the quote is true of itself";
            out.title(&format!("{title} ({})", claimed.len()));
            out.list(claimed);
        }
        if !proven.is_empty() {
            out.title(&format!("Passed ({})", proven.len()));
            out.list(proven);
        }
    }
}

/// A value as a policy writes it, cut where it is long.
fn value(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(VALUE) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn title(&mut self, title: &str) {
        self.text.push('\n');
        self.entry("", title);
    }

    fn advice(&mut self, advice: Option<&str>) {
        if let Some(advice) = advice {
            self.entry("      do: ", advice);
        }
    }

    fn list(&mut self, checks: Vec<&Finding>) {
        let ids: Vec<&str> = checks.iter().map(|check| check.id.as_str()).collect();
        self.entry("  ", &ids.join(" "));
    }

    /// `label` and a text, later lines under the text's first word.
    fn entry(&mut self, label: &str, text: &str) {
        let start = label.chars().count();
        let mut column = start;
        self.text.push_str(&printable(label));
        for (number, word) in text.split_whitespace().enumerate() {
            let width = word.chars().count();
            if number > 0 && column + 1 + width > WIDTH {
                self.text.push('\n');
                self.text.push_str(&" ".repeat(start));
                column = start;
            } else if number > 0 {
                self.text.push(' ');
                column += 1;
            }
            self.text.push_str(&printable(word));
            column += width;
        }
        self.text.push('\n');
    }
}
