//! How a command ends: words for people, one JSON object for programs, and the exit code.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};

use attestation_verifier::ear::ear;
use attestation_verifier::verdict::{self, Fault, Verdict, usage};
use touchstone_formats::text::printable_lines;

/// What a command that ran to its end has to say.
pub enum Outcome {
    /// A judgement.
    Verdict(Box<Verdict>),
    /// Anything else: it has said what it did; this is the exit code.
    Exit(u8),
}

/// The form in which a verdict goes to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Words for people
    Text,
    /// One JSON object
    Json,
    /// The claims-set of an EAR: JSON, unsigned
    Ear,
}

/// How a verdict is printed.
#[derive(clap::Args)]
pub struct Printed {
    /// Print the verdict as one JSON object: the same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Print the verdict as words, as one JSON object, or as an EAR (an EAT Attestation Result, unsigned)
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Format {
    /// What the arguments ask for, understood or not.
    pub fn of(args: &[OsString]) -> Format {
        let after = args.iter().skip(1).map(Some).chain([None]);
        for (arg, next) in args.iter().zip(after) {
            let arg = arg.to_string_lossy();
            let value = match arg.strip_prefix("--format=") {
                Some(value) => Some(value.to_owned()),
                None if arg == "--format" => next.map(|next| next.to_string_lossy().into_owned()),
                None if arg == "--json" => return Format::Json,
                None => None,
            };
            match value.as_deref() {
                Some("json") => return Format::Json,
                Some("ear") => return Format::Ear,
                _ => {}
            }
        }
        Format::Text
    }

    /// The verdict as one line; none where words are wanted.
    fn line(self, verdict: &Verdict) -> Option<String> {
        match self {
            Format::Text => None,
            Format::Json => Some(verdict.to_json() + "\n"),
            Format::Ear => Some(ear(verdict).to_string() + "\n"),
        }
    }
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

impl From<touchstone_client::manifest::StateFileError> for Failure {
    fn from(error: touchstone_client::manifest::StateFileError) -> Self {
        anyhow::Error::from(error).into()
    }
}

/// What a judgement on the way refused, in words on stderr.
pub fn refusal(verdict: &Verdict) -> Outcome {
    say_as_is(&paint(
        &verdict.words(),
        verdict.exit(),
        std::io::stderr().is_terminal(),
    ));
    Outcome::Exit(verdict.exit())
}

/// Ends a command that ran; returns the exit code.
pub fn outcome(outcome: Outcome, format: Format) -> u8 {
    match outcome {
        Outcome::Exit(code) => code,
        Outcome::Verdict(verdict) => {
            let words = verdict.words();
            if let Some(line) = format.line(&verdict) {
                print(&line);
                say_as_is(&paint(
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
pub fn failure(failure: &Failure, format: Format) -> u8 {
    let verdict = failure.verdict();
    if let Some(line) = format.line(&verdict) {
        print(&line);
    }
    say(&format!("error: {:#}\n", failure.error));
    verdict.exit()
}

/// Ends a command whose arguments were not understood, or that was asked for help.
pub fn arguments(error: &clap::Error, format: Format) -> u8 {
    if !error.use_stderr() {
        // --help and --version: nothing went wrong.
        let _ = error.print();
        return 0;
    }
    let text = error.render().to_string();
    if let Some(line) = format.line(&usage("usage", summary(&text))) {
        print(&line);
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

/// Writes to stdout, the first line coloured by exit code if stdout is a terminal.
pub fn print_painted(words: &str, exit: u8) {
    print(&paint(words, exit, std::io::stdout().is_terminal()));
}

/// Text of somebody else's for a terminal: what would control it is escaped, newlines aside.
pub fn clean(text: &str) -> String {
    printable_lines(text)
}

/// Writes words to stderr. Names in them may be a stranger's: nothing in them controls a terminal.
pub fn say(text: &str) {
    say_as_is(&clean(text));
}

/// Writes to stderr what is meant to control a terminal.
pub fn say_as_is(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Colours the first line of what is said by its exit code, for terminals that want it.
pub fn paint(words: &str, exit: u8, terminal: bool) -> String {
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
    fn formats_are_found_before_arguments_are_understood() {
        let of = |args: &[&str]| {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            Format::of(&args)
        };
        assert_eq!(of(&["touchstone", "check", "--nonsense"]), Format::Text);
        assert_eq!(
            of(&["touchstone", "check", "--json", "--nonsense"]),
            Format::Json
        );
        assert_eq!(of(&["touchstone", "check", "--format", "ear"]), Format::Ear);
        assert_eq!(of(&["touchstone", "check", "--format=json"]), Format::Json);
        assert_eq!(of(&["touchstone", "check", "--format"]), Format::Text);
        assert_eq!(
            of(&["touchstone", "check", "--format", "--json"]),
            Format::Json
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
