//! How a command ends: words for people, one JSON object for programs, and the exit code.

use std::io::{IsTerminal, Write};

use attestation_verifier::verdict::{self, Fault, Verdict, usage};

/// What a command that ran to its end has to say.
pub enum Outcome {
    /// A judgement.
    Verdict(Box<Verdict>),
    /// Anything else: it has said what it did; this is the exit code.
    Exit(u8),
}

/// A command that could not do its work.
#[derive(Debug)]
pub struct Failure {
    /// Usage (1) or malformed (2).
    pub fault: Fault,
    /// The check this is reported under.
    pub id: &'static str,
    /// What is wrong, and with what.
    pub error: anyhow::Error,
}

impl Failure {
    /// A file that is not written as it should be (exit 2).
    pub fn malformed(id: &'static str, error: anyhow::Error) -> Failure {
        Failure {
            fault: Fault::Malformed,
            id,
            error,
        }
    }

    /// A policy or a root file that does not stand (exit 1).
    pub fn unfit(id: &'static str, error: anyhow::Error) -> Failure {
        Failure {
            fault: Fault::Usage,
            id,
            error,
        }
    }

    fn verdict(&self) -> Verdict {
        verdict::refusal(self.id, self.fault, format!("{:#}", self.error), None)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure {
            fault: Fault::Usage,
            id: "usage",
            error,
        }
    }
}

/// What a judgement on the way refused, in words on stderr.
pub fn refusal(verdict: &Verdict) -> Outcome {
    say(&paint(
        &verdict.words(),
        verdict.exit(),
        std::io::stderr().is_terminal(),
    ));
    Outcome::Exit(verdict.exit())
}

/// Ends a command that ran; returns the exit code.
pub fn outcome(outcome: Outcome, json: bool) -> u8 {
    match outcome {
        Outcome::Exit(code) => code,
        Outcome::Verdict(verdict) => {
            let words = verdict.words();
            if json {
                print(&(verdict.to_json() + "\n"));
                say(&paint(
                    &words,
                    verdict.exit(),
                    std::io::stderr().is_terminal(),
                ));
            } else {
                print(&paint(
                    &words,
                    verdict.exit(),
                    std::io::stdout().is_terminal(),
                ));
            }
            verdict.exit()
        }
    }
}

/// Ends a command that could not do its work; returns the exit code.
pub fn failure(failure: &Failure, json: bool) -> u8 {
    let verdict = failure.verdict();
    if json {
        print(&(verdict.to_json() + "\n"));
    }
    say(&printable(&format!("error: {:#}\n", failure.error)));
    verdict.exit()
}

/// Ends a command whose arguments were not understood, or that was asked for help.
pub fn arguments(error: &clap::Error, json: bool) -> u8 {
    if !error.use_stderr() {
        // --help and --version: nothing went wrong.
        let _ = error.print();
        return 0;
    }
    if json {
        let text = error.render().to_string();
        print(&(usage("usage", summary(&text)).to_json() + "\n"));
    }
    let _ = error.print();
    1
}

/// What is wrong with the arguments, on one line: everything before clap's usage and hints.
fn summary(text: &str) -> String {
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let joined = lines.join(" ");
    let message = joined.strip_prefix("error: ").unwrap_or(&joined);
    if message.is_empty() {
        "no command was given".into()
    } else {
        message.to_owned()
    }
}

/// Writes to stdout. A reader that went away is no error of ours.
pub fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes to stderr.
pub fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// A message of several lines, perhaps, that may quote a stranger: nothing in it that a terminal would act upon.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() && c != '\n' {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// Colours the first line of a verdict, for terminals that want it.
fn paint(words: &str, exit: u8, terminal: bool) -> String {
    if !terminal || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) {
        return words.to_owned();
    }
    let colour = match exit {
        0 => "32",
        6 => "33",
        _ => "31",
    };
    let (first, rest) = words.split_once('\n').unwrap_or((words, ""));
    format!("\x1b[1;{colour}m{first}\x1b[0m\n{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_only_on_a_terminal() {
        assert_eq!(paint("HOLDS\nrest\n", 0, false), "HOLDS\nrest\n");
    }

    #[test]
    fn a_terminal_is_told_nothing() {
        assert_eq!(
            printable("error: a\u{1b}[2Jb\u{9b}31m\u{7f}\r\nc ä\n"),
            "error: a\\u{1b}[2Jb\\u{9b}31m\\u{7f}\\r\nc ä\n"
        );
    }

    #[test]
    fn failures_are_verdicts() {
        let usage = Failure::from(anyhow::anyhow!("no such file")).verdict();
        assert_eq!((usage.exit(), usage.deciding()), (1, Some("usage")));
        let malformed = Failure::malformed("expect.format", anyhow::anyhow!("x")).verdict();
        assert_eq!(
            (malformed.exit(), malformed.deciding()),
            (2, Some("expect.format"))
        );
    }
}
