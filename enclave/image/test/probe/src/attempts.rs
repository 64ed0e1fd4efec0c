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

/// What nobody but root may, or nobody at all, tried with the enclave's rights and without its filter: name, number, first two
/// arguments.
const POWERS: &[(&str, libc::c_long, [libc::c_long; 2])] = &[
    ("init_module", libc::SYS_init_module, [0, 0]),
    ("finit_module", libc::SYS_finit_module, [0, 0]),
    ("delete_module", libc::SYS_delete_module, [0, 0]),
    ("kexec_load", libc::SYS_kexec_load, [0, 0]),
    ("kexec_file_load", libc::SYS_kexec_file_load, [0, 0]),
    ("setuid", libc::SYS_setuid, [0, 0]),
    ("setgid", libc::SYS_setgid, [0, 0]),
    ("reboot", libc::SYS_reboot, [0, 0]),
    ("swapon", libc::SYS_swapon, [0, 0]),
    ("iopl", libc::SYS_iopl, [3, 0]),
    ("bpf", libc::SYS_bpf, [0, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, [0, 0]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0]),
    (
        "unshare-mounts",
        libc::SYS_unshare,
        [libc::CLONE_NEWNS as libc::c_long, 0],
    ),
    ("ptrace-traceme", libc::SYS_ptrace, [0, 0]),
    ("kill-init", libc::SYS_kill, [1, 0]),
    // SYSLOG_ACTION_READ_ALL, of no bytes.
    ("syslog", libc::SYS_syslog, [3, 0]),
];

fn powers() -> Found {
    let mut names = Vec::new();
    for (name, number, [first, second]) in POWERS {
        match -call(*number, *first, *second) {
            found if found == i64::from(libc::EPERM) => names.push(*name),
            found => return Err(format!("{name}: error {found}, expected EPERM")),
        }
    }
    // No namespace of users can be made, in which one would be root.
    match -call(libc::SYS_unshare, libc::CLONE_NEWUSER.into(), 0) {
        found if found == i64::from(libc::ENOSPC) || found == i64::from(libc::EPERM) => {
            names.push("unshare-users")
        }
        found => return Err(format!("unshare-users: error {found}, expected ENOSPC")),
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
