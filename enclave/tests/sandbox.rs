//! What the sandbox ends, what it takes away, and what it leaves alone: each call in a process of its own, once under the
//! filter and once without.
#![allow(unsafe_code)]

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus},
};

use enclave::sandbox::{Needs, apply};
use libc::c_long;

/// Set in the process that a test starts of itself: whether it is confined, and the call's number and arguments.
const CHILD: &str = "TOUCHSTONE_TEST_SANDBOX";

/// A system call with up to four arguments.
type Call = (&'static str, c_long, [c_long; 4]);

const NONE: [c_long; 4] = [0; 4];
/// An address at which there is nothing: the kernel looks there only after it has let the call in.
const NOWHERE: c_long = 8;

fn needs() -> Needs {
    Needs {
        families: vec![libc::AF_INET, libc::AF_UNIX],
        connects: true,
    }
}

/// What the enclave of the guest image needs.
fn image() -> Needs {
    Needs {
        families: vec![libc::AF_VSOCK],
        connects: false,
    }
}

/// The child's part: confines itself if told to, calls, and ends with the error's number (0: none).
#[test]
fn child() {
    let Some(what) = std::env::var_os(CHILD) else {
        return;
    };
    let what = what.into_string().unwrap();
    let mut words = what.split(' ');
    match words.next().unwrap() {
        "image" => apply(&image()).unwrap(),
        "agent" => apply(&needs()).unwrap(),
        _ => {}
    }
    let numbers: Vec<c_long> = words.map(|word| word.parse().unwrap()).collect();
    let [number, a, b, c, d] = numbers[..] else {
        panic!("{what}")
    };
    // SAFETY: the calls below are given no memory of this process but the null pointer and an address that is not mapped.
    let result = unsafe { libc::syscall(number, a, b, c, d, -1, 0) };
    let error = match result {
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap(),
        _ => 0,
    };
    // SAFETY: ends this process, which is here for nothing else (after `fork` and its kin there are two of them).
    unsafe { libc::_exit(error) }
}

fn run(filter: &str, (_, number, [a, b, c, d]): Call) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--test-threads=1"])
        .env(CHILD, format!("{filter} {number} {a} {b} {c} {d}"))
        .output()
        .unwrap()
        .status
}

fn prot(write: bool, execute: bool) -> c_long {
    let bit = |on, bit| if on { c_long::from(bit) } else { 0 };
    c_long::from(libc::PROT_READ) | bit(write, libc::PROT_WRITE) | bit(execute, libc::PROT_EXEC)
}

const PRIVATE: c_long = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as c_long;

#[test]
fn what_only_an_attacker_calls_ends_the_process() {
    let inet = c_long::from(libc::AF_INET);
    let stream = c_long::from(libc::SOCK_STREAM);
    // None of these does anything: pointers are null or lead nowhere, descriptors are not open, numbers out of range.
    let calls: Vec<Call> = vec![
        ("execve", libc::SYS_execve, [NOWHERE, 0, 0, 0]),
        ("execveat", libc::SYS_execveat, [-1, NOWHERE, 0, 0]),
        ("fork", libc::SYS_fork, NONE),
        ("vfork", libc::SYS_vfork, NONE),
        (
            "clone of a process",
            libc::SYS_clone,
            [libc::SIGCHLD.into(), 0, 0, 0],
        ),
        ("ptrace", libc::SYS_ptrace, [16, 0, 0, 0]),
        (
            "process_vm_readv",
            libc::SYS_process_vm_readv,
            [0, NOWHERE, 1, NOWHERE],
        ),
        (
            "process_vm_writev",
            libc::SYS_process_vm_writev,
            [0, NOWHERE, 1, NOWHERE],
        ),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, -1, 0, 0]),
        ("personality", libc::SYS_personality, [0xffff_ffff, 0, 0, 0]),
        ("mount", libc::SYS_mount, [NOWHERE, NOWHERE, NOWHERE, 0]),
        ("umount2", libc::SYS_umount2, [NOWHERE, 0, 0, 0]),
        (
            "move_mount",
            libc::SYS_move_mount,
            [-1, NOWHERE, -1, NOWHERE],
        ),
        (
            "mount_setattr",
            libc::SYS_mount_setattr,
            [-1, NOWHERE, 0, NOWHERE],
        ),
        ("open_tree", libc::SYS_open_tree, [-1, NOWHERE, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [NOWHERE, 0, 0, 0]),
        ("fsconfig", libc::SYS_fsconfig, [-1, 0, NOWHERE, NOWHERE]),
        ("fsmount", libc::SYS_fsmount, [-1, 0, 0, 0]),
        ("fspick", libc::SYS_fspick, [-1, NOWHERE, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [NOWHERE, NOWHERE, 0, 0]),
        ("chroot", libc::SYS_chroot, [NOWHERE, 0, 0, 0]),
        ("mknod", libc::SYS_mknod, [NOWHERE, 0, 0, 0]),
        ("mknodat", libc::SYS_mknodat, [-1, NOWHERE, 0, 0]),
        (
            "open_by_handle_at",
            libc::SYS_open_by_handle_at,
            [-1, NOWHERE, 0, 0],
        ),
        ("unshare", libc::SYS_unshare, [-1, 0, 0, 0]),
        ("setns", libc::SYS_setns, [-1, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [NOWHERE, 0, 0, 0]),
        ("swapoff", libc::SYS_swapoff, [NOWHERE, 0, 0, 0]),
        ("reboot", libc::SYS_reboot, NONE),
        ("sethostname", libc::SYS_sethostname, [NOWHERE, -1, 0, 0]),
        (
            "setdomainname",
            libc::SYS_setdomainname,
            [NOWHERE, -1, 0, 0],
        ),
        (
            "settimeofday",
            libc::SYS_settimeofday,
            [NOWHERE, NOWHERE, 0, 0],
        ),
        (
            "clock_settime",
            libc::SYS_clock_settime,
            [99, NOWHERE, 0, 0],
        ),
        ("adjtimex", libc::SYS_adjtimex, [NOWHERE, 0, 0, 0]),
        (
            "clock_adjtime",
            libc::SYS_clock_adjtime,
            [99, NOWHERE, 0, 0],
        ),
        (
            "init_module",
            libc::SYS_init_module,
            [NOWHERE, 0, NOWHERE, 0],
        ),
        ("finit_module", libc::SYS_finit_module, [-1, NOWHERE, 0, 0]),
        ("delete_module", libc::SYS_delete_module, [NOWHERE, 0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 1, NOWHERE, -1]),
        (
            "kexec_file_load",
            libc::SYS_kexec_file_load,
            [-1, -1, 0, NOWHERE],
        ),
        ("bpf", libc::SYS_bpf, [-1, NOWHERE, 0, 0]),
        (
            "perf_event_open",
            libc::SYS_perf_event_open,
            [NOWHERE, 0, 0, -1],
        ),
        (
            "io_uring_setup",
            libc::SYS_io_uring_setup,
            [0, NOWHERE, 0, 0],
        ),
        ("userfaultfd", libc::SYS_userfaultfd, [-1, 0, 0, 0]),
        ("iopl", libc::SYS_iopl, [9, 0, 0, 0]),
        ("ioperm", libc::SYS_ioperm, [-1, -1, 0, 0]),
        ("modify_ldt", libc::SYS_modify_ldt, [99, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [NOWHERE, 0, 0, 0]),
        ("request_key", libc::SYS_request_key, [NOWHERE, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [99, 0, 0, 0]),
        ("setuid", libc::SYS_setuid, [-1, 0, 0, 0]),
        ("setgid", libc::SYS_setgid, [-1, 0, 0, 0]),
        ("setreuid", libc::SYS_setreuid, [-1, -1, 0, 0]),
        ("setregid", libc::SYS_setregid, [-1, -1, 0, 0]),
        ("setresuid", libc::SYS_setresuid, [-1, -1, -1, 0]),
        ("setresgid", libc::SYS_setresgid, [-1, -1, -1, 0]),
        ("setfsuid", libc::SYS_setfsuid, [-1, 0, 0, 0]),
        ("setfsgid", libc::SYS_setfsgid, [-1, 0, 0, 0]),
        ("setgroups", libc::SYS_setgroups, [1, NOWHERE, 0, 0]),
        ("capset", libc::SYS_capset, [NOWHERE, NOWHERE, 0, 0]),
        (
            "memory to write and run",
            libc::SYS_mmap,
            [0, 4096, prot(true, true), PRIVATE],
        ),
        (
            "memory to run from no file",
            libc::SYS_mmap,
            [0, 4096, prot(false, true), PRIVATE],
        ),
        (
            "memory made executable",
            libc::SYS_mprotect,
            [1 << 20, 0, prot(false, true), 0],
        ),
        (
            "the same with a key",
            libc::SYS_pkey_mprotect,
            [1 << 20, 0, prot(false, true), -1],
        ),
        (
            "a netlink socket",
            libc::SYS_socket,
            [libc::AF_NETLINK.into(), 3, 0, 0],
        ),
        (
            "a packet socket",
            libc::SYS_socket,
            [libc::AF_PACKET.into(), 3, 0, 0],
        ),
        (
            "a crypto socket",
            libc::SYS_socket,
            [libc::AF_ALG.into(), 5, 0, 0],
        ),
        (
            "a TCP socket where all is vsock",
            libc::SYS_socket,
            [inet, stream, 0, 0],
        ),
        (
            "connecting where there is no agent",
            libc::SYS_connect,
            [-1, NOWHERE, 0, 0],
        ),
        (
            "sending that connects",
            libc::SYS_sendto,
            [-1, NOWHERE, 0, libc::MSG_FASTOPEN.into()],
        ),
        (
            "the same with a message",
            libc::SYS_sendmsg,
            [-1, NOWHERE, libc::MSG_FASTOPEN.into(), 0],
        ),
    ];
    for call in calls {
        let confined = run("image", call);
        assert_eq!(
            confined.signal(),
            Some(libc::SIGSYS),
            "{}: {confined}",
            call.0
        );
        // Without the filter the kernel answers, with an error or without. (A child of `vfork` must not return from
        // the function that called it.)
        if call.1 == libc::SYS_vfork {
            continue;
        }
        let free = run("free", call);
        assert!(free.code().is_some(), "{}: {free}", call.0);
    }
}

#[test]
fn what_is_not_needed_does_not_exist() {
    let (unix, inet) = (c_long::from(libc::AF_UNIX), c_long::from(libc::AF_INET));
    let stream = c_long::from(libc::SOCK_STREAM);
    let datagram = c_long::from(libc::SOCK_DGRAM);
    let dumpable = c_long::from(libc::PR_GET_DUMPABLE);
    let calls: Vec<Call> = vec![
        // The C library then starts threads by `clone`, whose flags a filter sees.
        ("clone3", libc::SYS_clone3, NONE),
        ("seccomp", libc::SYS_seccomp, [99, 0, 0, 0]),
        ("prctl", libc::SYS_prctl, [dumpable, 0, 0, 0]),
        (
            "ioctl",
            libc::SYS_ioctl,
            [-1, libc::TIOCSTI as c_long, 0, 0],
        ),
        ("kill", libc::SYS_kill, NONE),
        ("memfd_create", libc::SYS_memfd_create, [NOWHERE, 0, 0, 0]),
        ("open", libc::SYS_open, [NOWHERE, 0, 0, 0]),
        ("unlink", libc::SYS_unlink, [NOWHERE, 0, 0, 0]),
        ("shmget", libc::SYS_shmget, [-1, 0, 0, 0]),
        (
            "a signal to another process",
            libc::SYS_tgkill,
            [1, 1, 0, 0],
        ),
        (
            "limits of another process",
            libc::SYS_prlimit64,
            [1, -1, 0, 0],
        ),
        (
            "a datagram socket",
            libc::SYS_socket,
            [unix, datagram, 0, 0],
        ),
        (
            "a filter for a socket",
            libc::SYS_setsockopt,
            [
                -1,
                libc::SOL_SOCKET.into(),
                libc::SO_ATTACH_FILTER.into(),
                NOWHERE,
            ],
        ),
        (
            "a protocol on top of TCP",
            libc::SYS_setsockopt,
            [-1, libc::IPPROTO_TCP.into(), libc::TCP_ULP.into(), NOWHERE],
        ),
        ("another protocol", libc::SYS_socket, [inet, stream, 132, 0]),
    ];
    for call in calls {
        let confined = run("agent", call);
        assert_eq!(
            confined.code(),
            Some(libc::ENOSYS),
            "{}: {confined}",
            call.0
        );
        let free = run("free", call);
        let exists = free.code().is_some_and(|code| code != libc::ENOSYS);
        assert!(exists, "{}: {free}", call.0);
    }
    // Numbers of the other ABI that an x86-64 kernel may have.
    let x32 = ("getpid of x32", 0x4000_0000 + libc::SYS_getpid, NONE);
    assert_eq!(run("agent", x32).code(), Some(libc::ENOSYS));
}

#[test]
fn what_is_needed_works() {
    let stream = c_long::from(libc::SOCK_STREAM);
    for (filter, family) in [
        ("agent", libc::AF_INET),
        ("agent", libc::AF_UNIX),
        ("image", libc::AF_VSOCK),
    ] {
        let call = (
            "a stream socket",
            libc::SYS_socket,
            [family.into(), stream, 0, 0],
        );
        assert_eq!(
            run(filter, call).code(),
            run("free", call).code(),
            "{family}"
        );
    }
    let refused = ("connect", libc::SYS_connect, [-1, NOWHERE, 0, 0]);
    assert_eq!(run("agent", refused).code(), Some(libc::EBADF));
    for (level, name) in [
        (libc::SOL_SOCKET, libc::SO_REUSEADDR),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    ] {
        let option = [-1, level.into(), name.into(), NOWHERE];
        let set = ("setsockopt", libc::SYS_setsockopt, option);
        assert_eq!(run("image", set).code(), Some(libc::EBADF), "{name}");
    }
    let data = (
        "memory",
        libc::SYS_mmap,
        [0, 4096, prot(true, false), PRIVATE],
    );
    assert_eq!(run("image", data).code(), Some(0));
}
