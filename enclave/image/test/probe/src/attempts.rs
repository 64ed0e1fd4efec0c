//! What is not to work, tried.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

use crate::system::call;
use crate::{Found, Probe, SELF, read};

/// First argument of a copy of this program that makes one attempt, named by the second.
pub const ATTEMPT: &str = "--attempt";
/// The attempt that is a crash.
const CRASH: &str = "crash";

pub const PROBES: &[Probe] = &[("powers", powers), ("no-core-dump", no_core_dump)];

/// What only root may, tried with the enclave's rights and without its filter.
const POWERS: &[(&str, libc::c_long, libc::c_long)] = &[
    ("init_module", libc::SYS_init_module, 0),
    ("finit_module", libc::SYS_finit_module, 0),
    ("delete_module", libc::SYS_delete_module, 0),
    ("kexec_load", libc::SYS_kexec_load, 0),
    ("kexec_file_load", libc::SYS_kexec_file_load, 0),
    ("setuid", libc::SYS_setuid, 0),
    ("setgid", libc::SYS_setgid, 0),
    ("chroot", libc::SYS_chroot, 0),
    ("mount", libc::SYS_mount, 0),
    ("reboot", libc::SYS_reboot, 0),
    ("swapon", libc::SYS_swapon, 0),
    ("iopl", libc::SYS_iopl, 3),
    ("bpf", libc::SYS_bpf, 0),
];

fn powers() -> Found {
    let mut names = Vec::new();
    for (name, number, argument) in POWERS {
        match -call(*number, *argument, 0) {
            // chroot looks at the path before it looks at who asks.
            found
                if found == i64::from(libc::EPERM)
                    || (*name == "chroot" && found == i64::from(libc::EFAULT)) =>
            {
                names.push(*name)
            }
            found => return Err(format!("{name}: error {found}, expected EPERM")),
        }
    }
    Ok(format!("refused: {}", names.join(" ")))
}

/// A copy of this program makes the attempt.
fn copy(attempt: &str) -> Result<ExitStatus, String> {
    Command::new(SELF)
        .args([ATTEMPT, attempt])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("{attempt}: {error}"))
}

/// In the copy: makes the attempt.
pub fn attempt(name: &str) {
    if name == CRASH {
        std::process::abort();
    }
}

fn no_core_dump() -> Found {
    let limits = read("/proc/self/limits")?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap_or_default();
    let words: Vec<_> = line.split_whitespace().collect();
    if words.get(4..6) != Some(&["0", "0"]) {
        return Err(line.to_owned());
    }
    let ended = copy(CRASH)?;
    if ended.signal() != Some(libc::SIGABRT) || ended.core_dumped() {
        return Err(format!("a crash ended with {ended}"));
    }
    Ok("limit 0; a crash left none".into())
}
