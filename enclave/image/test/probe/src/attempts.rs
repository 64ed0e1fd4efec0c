//! What is not to work, tried.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

use crate::kernel::over_tcp;
use crate::system::call;
use crate::{Found, Probe, SELF, read};
use enclave::config::Config;
use enclave::sandbox;

/// First argument of a copy of this program that makes one attempt, named by the second.
pub const ATTEMPT: &str = "--attempt";
/// The attempt that is a crash.
const CRASH: &str = "crash";

pub const PROBES: &[Probe] = &[
    ("powers", powers),
    ("no-core-dump", no_core_dump),
    ("filter-kills", filter_kills),
    ("filter-refuses", filter_refuses),
];

/// Exit code of a copy that could not set the filter, or knows no such attempt. No error has this number.
const NO_FILTER: i32 = 200;

/// An attempt: its name, the call, its arguments.
type Attempt = (&'static str, libc::c_long, &'static [libc::c_long]);

const EXEC: libc::c_long = libc::PROT_EXEC as libc::c_long;
const ANONYMOUS: libc::c_long = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as libc::c_long;
const STREAM: libc::c_long = libc::SOCK_STREAM as libc::c_long;

/// What the enclave's filter ends the process for. Without it each of these returns.
const KILLED: &[Attempt] = &[
    ("execve", libc::SYS_execve, &[]),
    ("execveat", libc::SYS_execveat, &[-1]),
    (
        "clone-of-a-process",
        libc::SYS_clone,
        &[libc::SIGCHLD as libc::c_long],
    ),
    ("ptrace", libc::SYS_ptrace, &[16]),
    ("mount", libc::SYS_mount, &[]),
    ("umount2", libc::SYS_umount2, &[]),
    ("chroot", libc::SYS_chroot, &[]),
    ("unshare", libc::SYS_unshare, &[]),
    ("setns", libc::SYS_setns, &[-1]),
    ("reboot", libc::SYS_reboot, &[]),
    ("init_module", libc::SYS_init_module, &[]),
    ("finit_module", libc::SYS_finit_module, &[-1]),
    ("kexec_load", libc::SYS_kexec_load, &[]),
    ("bpf", libc::SYS_bpf, &[]),
    ("io_uring_setup", libc::SYS_io_uring_setup, &[]),
    ("perf_event_open", libc::SYS_perf_event_open, &[]),
    ("userfaultfd", libc::SYS_userfaultfd, &[]),
    ("keyctl", libc::SYS_keyctl, &[]),
    ("setuid", libc::SYS_setuid, &[1000]),
    ("setresuid", libc::SYS_setresuid, &[-1, -1, -1]),
    ("capset", libc::SYS_capset, &[]),
    ("connect", libc::SYS_connect, &[-1]),
    (
        "socket-netlink",
        libc::SYS_socket,
        &[libc::AF_NETLINK as libc::c_long, STREAM],
    ),
    (
        "socket-packet",
        libc::SYS_socket,
        &[libc::AF_PACKET as libc::c_long, STREAM],
    ),
    (
        "socket-unix",
        libc::SYS_socket,
        &[libc::AF_UNIX as libc::c_long, STREAM],
    ),
    (
        "socket-inet6",
        libc::SYS_socket,
        &[libc::AF_INET6 as libc::c_long, STREAM],
    ),
    (
        "executable-memory",
        libc::SYS_mmap,
        &[0, 4096, EXEC | 3, ANONYMOUS],
    ),
    ("memory-made-executable", libc::SYS_mprotect, &[0, 0, EXEC]),
];

/// What the enclave's filter says does not exist, and one that it lets through.
const REFUSED: &[Attempt] = &[
    ("clone3", libc::SYS_clone3, &[]),
    ("memfd_create", libc::SYS_memfd_create, &[]),
    ("kill", libc::SYS_kill, &[1]),
    ("splice", libc::SYS_splice, &[]),
    ("rename", libc::SYS_rename, &[]),
    ("symlink", libc::SYS_symlink, &[]),
    (LET_THROUGH, libc::SYS_getuid, &[]),
];
const LET_THROUGH: &str = "getuid";

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
        match -call(*number, &[*first, *second]) {
            found if found == i64::from(libc::EPERM) => names.push(*name),
            found => return Err(format!("{name}: error {found}, expected EPERM")),
        }
    }
    // No namespace of users can be made, in which one would be root.
    match -call(libc::SYS_unshare, &[libc::CLONE_NEWUSER.into()]) {
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

/// In the copy: makes the attempt, and ends with the error's number (0: none).
pub fn attempt(name: &str) {
    if name == CRASH {
        std::process::abort();
    }
    let Some((_, number, arguments)) = KILLED
        .iter()
        .chain(REFUSED)
        .find(|attempt| attempt.0 == name)
    else {
        std::process::exit(NO_FILTER);
    };
    if let Err(error) = confine() {
        crate::say(format!("PROBE filter FAILED: {error}"));
        std::process::exit(NO_FILTER);
    }
    let result = call(*number, arguments);
    std::process::exit(i32::try_from(-result.min(0)).unwrap_or(NO_FILTER));
}

/// The filter that the enclave sets for the settings it is started with.
fn confine() -> Result<(), String> {
    let network = if over_tcp()? { "tcp" } else { "vsock" };
    let settings = read(&format!("/etc/touchstone/enclave-{network}.toml"))?;
    let config = Config::parse(&settings).map_err(|error| error.to_string())?;
    sandbox::apply(&sandbox::Needs::of(&config)).map_err(|error| error.to_string())
}

fn filter_kills() -> Found {
    for (name, _, _) in KILLED {
        let ended = copy(name)?;
        if ended.signal() != Some(libc::SIGSYS) {
            return Err(format!("{name} ended with {ended}, expected SIGSYS"));
        }
    }
    let names: Vec<_> = KILLED.iter().map(|attempt| attempt.0).collect();
    Ok(names.join(" "))
}

fn filter_refuses() -> Found {
    for (name, _, _) in REFUSED.iter().filter(|attempt| attempt.0 != LET_THROUGH) {
        let ended = copy(name)?;
        if ended.code() != Some(libc::ENOSYS) {
            return Err(format!(
                "{name} ended with {ended}, expected error {} (ENOSYS)",
                libc::ENOSYS
            ));
        }
    }
    // What is let through shows that it was the filter that refused.
    let ended = copy(LET_THROUGH)?;
    if ended.code() != Some(0) {
        return Err(format!("{LET_THROUGH} ended with {ended}"));
    }
    let names: Vec<_> = REFUSED
        .iter()
        .map(|attempt| attempt.0)
        .filter(|name| *name != LET_THROUGH)
        .collect();
    Ok(format!("{}; {LET_THROUGH} is let through", names.join(" ")))
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
