//! Looks at a test image from inside, in the enclave's place. No release image holds it.
//!
//! The test image has this program where the release image has the enclave, and the enclave beside it as `enclave.real`. PID 1
//! starts it as it would start the enclave: the same user, no capabilities, the same limits, environment and arguments. It leaves a
//! copy of itself behind, which looks around once the enclave serves, and becomes the enclave. So what the copy may do is
//! what the enclave may do, but for the filter of system calls, which the enclave sets itself and the copy sets for the attempts that need it.
//!
//! What is found is one line each on the console: `PROBE <name> ok: <what was found>` or `PROBE <name> FAILED: <what was found>`, and at the
//! end `PROBES <right> of <all>`. `scripts/image-test` reads them.

mod attempts;
mod files;
mod kernel;
mod processes;
mod system;

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

/// Where the test image keeps the enclave.
const ENCLAVE: &str = "/usr/bin/enclave.real";
/// Where the test image has this program.
const SELF: &str = "/usr/bin/enclave";
/// First argument of the copy that looks around.
const LOOK: &str = "--look-around";

/// What was found, or what is wrong with it.
type Found = Result<String, String>;

/// One property of the image: its name and how it is found out.
type Probe = (&'static str, fn() -> Found);

const PROBES: &[&[Probe]] = &[
    processes::PROBES,
    kernel::PROBES,
    files::PROBES,
    attempts::PROBES,
    kernel::NETWORK,
];

/// How long the enclave may take until it is confined, and until it serves: an emulated CPU is slow.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(LOOK) => look_around(),
        Some(attempts::ATTEMPT) => attempts::attempt(arguments.get(1).map_or("", String::as_str)),
        _ => {
            if let Err(error) = Command::new(SELF).arg(LOOK).spawn() {
                say(format!("PROBE start FAILED: {error}"));
            }
            let error = Command::new(ENCLAVE).args(&arguments).exec();
            say(format!("PROBE enclave FAILED: {ENCLAVE}: {error}"));
            std::process::exit(1);
        }
    }
}

fn look_around() {
    let (mut right, mut all) = (0, 0);
    for (name, probe) in PROBES.iter().copied().flatten() {
        all += 1;
        match probe() {
            Ok(found) => {
                right += 1;
                say(format!("PROBE {name} ok: {found}"));
            }
            Err(found) => say(format!("PROBE {name} FAILED: {found}")),
        }
    }
    say(format!("PROBES {right} of {all}"));
}

/// One line in one piece: the enclave writes to the same console.
fn say(mut line: String) {
    line.push('\n');
    // There is nobody else to tell.
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

/// `found` if it is what it should be.
fn expect(found: impl AsRef<str>, expected: impl AsRef<str>) -> Found {
    let (found, expected) = (found.as_ref(), expected.as_ref());
    if found == expected {
        Ok(found.to_owned())
    } else {
        Err(format!("found `{found}`, expected `{expected}`"))
    }
}

/// A file of the kernel's, without the end of its last line.
fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map(|text| text.trim_end().to_owned())
        .map_err(|error| format!("{path}: {error}"))
}
