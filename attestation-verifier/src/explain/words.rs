//! An explanation as text for people.

use serde_json::Value;
use touchstone_formats::text::printable;

use super::{About, Explanation, Told};
use crate::verdict::{Class, Outcome};

impl Explanation {
    /// Several lines, each ending in a newline. Nothing in them controls a terminal, whatever the evidence holds.
    pub fn words(&self) -> String {
        let mut out = Lines::default();
        self.head(&mut out);
        let of = |wanted: &dyn Fn(&Told) -> bool| -> Vec<&Told> {
            self.checks.iter().filter(|told| wanted(told)).collect()
        };
        let refusing = of(&|told| told.refuses && told.result == Outcome::Fail);
        let open = of(&|told| told.refuses && told.result == Outcome::NotEvaluated);
        let waived = of(&|told| told.result == Outcome::Waived);
        let listed = of(&|told| !told.refuses && told.result == Outcome::NotEvaluated);
        let passed = of(&|told| told.result == Outcome::Pass);
        section(&mut out, "Failed", &refusing);
        section(&mut out, "Required, and could not be evaluated", &open);
        section(&mut out, "Waived by the policy", &waived);
        let title = if self.from_file {
            "Not evaluated"
        } else {
            "Listed only: nothing rests on it"
        };
        section(&mut out, title, &listed);
        section(&mut out, "Passed", &passed);
        out.blank();
        out.line(0, "What no check shows");
        if self.residual_risks.is_empty() {
            out.line(
                1,
                "Nothing more is said about it: nothing authentic was found to say it of.",
            );
        }
        for risk in &self.residual_risks {
            out.wrapped(1, "- ", risk);
        }
        out.text
    }

    fn head(&self, out: &mut Lines) {
        let simulated = if self.simulated {
            " (SIMULATED platform)"
        } else {
            ""
        };
        let word = serde_json::to_value(self.verdict).unwrap_or_default();
        let word = word.as_str().unwrap_or_default().to_uppercase();
        out.line(0, &format!("{word}{simulated}, exit {}", self.exit));
        if self.from_file {
            out.line(0, "This verdict was read from a file and is repeated as it stands: nothing was judged again.");
        }
        match self.checks.first().filter(|told| told.refuses) {
            Some(told) => {
                out.wrapped(0, "", &format!("It rests on {}: {}", told.id, told.reason));
                if let Some(class) = self.class {
                    out.wrapped(0, "", class_words(class));
                }
            }
            None if self.exit == 6 => out.wrapped(
                0,
                "",
                "Every check holds, on a platform that is simulated: never rely on it where an answer matters.",
            ),
            None => out.line(0, "Every check that the policy asks for holds."),
        }
        if let Some(at) = &self.at {
            out.line(0, &format!("Judged at {at}."));
        }
    }
}

impl About {
    /// What is known about a check, several lines, each ending in a newline.
    pub fn words(&self) -> String {
        let mut out = Lines::default();
        out.line(0, &self.id);
        let parts = [
            ("checked:", Some(&self.summary)),
            ("why:", Some(&self.why)),
            ("expects:", self.expects.as_ref()),
            ("strict:", self.template.as_ref()),
            ("exit:", Some(&self.exit)),
            ("source:", Some(&self.source)),
        ];
        for (label, text) in parts {
            if let Some(text) = text {
                out.wrapped(1, &format!("{label:<10}"), text);
            }
        }
        if self.expects.is_none() {
            out.line(1, "No policy decides it, and nothing waives it.");
        }
        out.text
    }
}

fn class_words(class: Class) -> &'static str {
    match class {
        Class::Retry => "Class retry: something is not there yet. Ask again.",
        Class::Operations => "Class operations: the operator of the platform has to act.",
        Class::Policy => "Class policy: genuine, and refused by your own rules.",
        Class::Tamper => "Class tamper: somebody lied, or bytes were changed.",
    }
}

fn section(out: &mut Lines, title: &str, checks: &[&Told]) {
    if checks.is_empty() {
        return;
    }
    out.blank();
    out.line(0, &format!("{title} ({})", checks.len()));
    for told in checks {
        check(out, told);
    }
}

fn check(out: &mut Lines, told: &Told) {
    let about = told.evidence.as_ref().map(|e| format!(" [{e}]"));
    let result = match told.result {
        Outcome::Pass => "passed",
        Outcome::Fail => "FAILED",
        Outcome::Waived => "waived",
        Outcome::NotEvaluated => "not evaluated",
    };
    out.blank();
    out.line(
        1,
        &format!("{}{}: {result}", told.id, about.unwrap_or_default()),
    );
    let field = |out: &mut Lines, label: &str, text: &str| {
        if !text.is_empty() {
            out.wrapped(2, &format!("{label:<10}"), text);
        }
    };
    field(out, "checked:", &told.summary);
    field(out, "expected:", &value(&told.expected));
    field(out, "found:", &value(&told.found));
    let label = if told.result == Outcome::Waived {
        "because:"
    } else {
        "reason:"
    };
    field(out, label, &told.reason);
    field(out, "why:", &told.why);
    if let Some(advice) = &told.advice {
        field(out, "do:", advice);
    }
    field(out, "source:", &told.source);
}

/// A value as a policy writes it; nothing for null.
fn value(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Widest line, columns. Words longer than it (digests) stay whole, so that they can be copied.
const WIDTH: usize = 100;

#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn blank(&mut self) {
        self.text.push('\n');
    }

    fn line(&mut self, indent: usize, line: &str) {
        self.text.push_str(&"  ".repeat(indent));
        self.clean(line);
        self.text.push('\n');
    }

    /// `label` and a text of many words, later lines under the text's first word.
    fn wrapped(&mut self, indent: usize, label: &str, text: &str) {
        let start = indent * 2 + label.chars().count();
        let mut column = start;
        self.text.push_str(&"  ".repeat(indent));
        self.clean(label);
        let mut first = true;
        for word in text.split_whitespace() {
            let width = word.chars().count();
            if !first && column + 1 + width > WIDTH {
                self.text.push('\n');
                self.text.push_str(&" ".repeat(start));
                column = start;
            } else if !first {
                self.text.push(' ');
                column += 1;
            }
            self.clean(word);
            column += width;
            first = false;
        }
        self.text.push('\n');
    }

    /// Names and texts may be a liar's: no control character gets out, nor one that turns text around.
    fn clean(&mut self, text: &str) {
        self.text.push_str(&printable(text));
    }
}
