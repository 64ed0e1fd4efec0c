//! `touchstone`: ask an enclave, keep what it said, and judge it offline.
//!
//! One file per command under `commands/`. Judging is all in the `attestation-verifier` library;
//! this program reads files and the clock, and turns verdicts into words and exit codes.

mod commands;
mod files;
mod inputs;
mod npy;
mod output;
mod proxy;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// Ask an enclave, and judge offline whether its answers are what they claim to be.
#[derive(Parser)]
#[command(name = "touchstone", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 holds · 1 usage or I/O · 2 malformed · 3 not authentic · \
    4 refused · 5 collateral missing or expired · 6 holds, on a simulated platform\n\n\
    Example:\n  touchstone policy init --tee sev-snp -o policy.toml\n  \
    touchstone ask https://127.0.0.1:8080 digits_cnn --input image=digits.npy --policy policy.toml -o answer\n  \
    touchstone check answer --policy policy.toml"
)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // Usage errors have to be told in the form that was asked for too, before the arguments are understood.
    let format = output::Format::of(&args);
    let code = match Cli::try_parse_from(&args) {
        Ok(cli) => match cli.command.run() {
            Ok(outcome) => output::outcome(outcome, format),
            Err(failure) => output::failure(&failure, format),
        },
        Err(error) => output::arguments(&error, format),
    };
    ExitCode::from(code)
}
