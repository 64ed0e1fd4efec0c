//! What the process may ask of the kernel: seccomp, applied before there are threads, for good.
//!
//! Three answers. What an enclave never calls and an attacker would, such as `execve` or memory that is both writable and
//! executable, ends the process (`forbidden`). What it needs is let through (`needed`). For all else the kernel has no such call
//! (`ENOSYS`): libraries that try it find another way, as on an older kernel.
//!
//! The first and the second are one filter each, because a filter has one answer for what it lists; of two answers the kernel
//! takes the stricter one. A filter sees a call's numbers and not what its pointers point to: paths are the business of who
//! mounts file systems, and addresses of the choice between `connect` and none.

use std::{collections::BTreeMap, net::SocketAddr};

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};
use thiserror::Error;

use crate::config::{Address, Config, QuoteSourceConfig};

/// Why the process is not confined. Then it must not go on.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The filters do not compile.
    #[error("the filters cannot be made: {0}")]
    Filter(#[from] BackendError),
    /// The kernel does not take them.
    #[error("the kernel does not take the filters: {0}")]
    Kernel(#[from] seccompiler::Error),
}

/// What depends on the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Families of the sockets that are opened (`AF_INET`, …).
    pub families: Vec<i32>,
    /// Whether it connects, which it does to the quote agent alone.
    pub connects: bool,
}

impl Needs {
    /// What these settings need.
    pub fn of(config: &Config) -> Self {
        let listen = &config.listen;
        let addresses = [
            Some(&listen.public),
            Some(&listen.control),
            listen.tls.as_ref(),
        ];
        let mut families: Vec<i32> = addresses
            .into_iter()
            .flatten()
            .map(|address| match address {
                Address::Tcp(SocketAddr::V4(_)) => libc::AF_INET,
                Address::Tcp(SocketAddr::V6(_)) => libc::AF_INET6,
                Address::Vsock { .. } => libc::AF_VSOCK,
            })
            .collect();
        let connects = matches!(config.quote.source, QuoteSourceConfig::Agent(_));
        if connects {
            families.push(libc::AF_UNIX);
        }
        families.sort_unstable();
        families.dedup();
        Self { families, connects }
    }
}

/// Confines this thread, and all that it starts from now on. There is no way back.
///
/// # Errors
/// [`SandboxError`]
pub fn apply(needs: &Needs) -> Result<(), SandboxError> {
    let program = |rules, otherwise, listed| -> Result<BpfProgram, BackendError> {
        SeccompFilter::new(rules, otherwise, listed, TargetArch::x86_64)?.try_into()
    };
    let (allow, kill) = (SeccompAction::Allow, SeccompAction::KillProcess);
    let forbidden = program(forbidden(needs)?, allow.clone(), kill)?;
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let needed = program(needed(needs)?, missing, allow)?;
    // The second one takes the call away by which filters are applied.
    apply_filter(&forbidden)?;
    apply_filter(&needed)?;
    Ok(())
}

/// Calls, each with the rules of which one must hold; no rules: the call, whatever its arguments.
type Calls = BTreeMap<c_long, Vec<SeccompRule>>;

/// One rule: all of these hold.
type Conditions = Vec<SeccompCondition>;

/// Argument `number` is `value`, looked at through `mask`.
fn masked(number: u8, mask: i32, value: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(
        number,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(mask as u32 as u64),
        value as u32 as u64,
    )
}

fn compared(number: u8, how: SeccompCmpOp, value: u32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(number, SeccompCmpArgLen::Dword, how, value.into())
}

fn rules(rules: impl IntoIterator<Item = Conditions>) -> Result<Vec<SeccompRule>, BackendError> {
    rules.into_iter().map(SeccompRule::new).collect()
}

/// What only an attacker calls.
fn forbidden(needs: &Needs) -> Result<Calls, BackendError> {
    let mut calls: Calls = [
        // Other programs, other processes, and their memory.
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_personality,
        // What the system is made of.
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_move_mount,
        libc::SYS_mount_setattr,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_mknod,
        libc::SYS_mknodat,
        libc::SYS_open_by_handle_at,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_reboot,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_adjtimex,
        libc::SYS_clock_adjtime,
        // The kernel itself.
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_io_uring_setup,
        libc::SYS_userfaultfd,
        libc::SYS_iopl,
        libc::SYS_ioperm,
        libc::SYS_modify_ldt,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        // Other users and rights.
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setreuid,
        libc::SYS_setregid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setfsuid,
        libc::SYS_setfsgid,
        libc::SYS_setgroups,
        libc::SYS_capset,
    ]
    .into_iter()
    .map(|call| (call, Vec::new()))
    .collect();

    // A process, where only threads are started. (What clone3 is asked for no filter sees: it does not exist.)
    let no_thread = masked(0, libc::CLONE_THREAD, 0)?;
    calls.insert(libc::SYS_clone, rules([vec![no_thread]])?);

    // Code that is made at run time. The linker maps code from files, and makes none executable afterwards.
    let (write, execute) = (libc::PROT_WRITE, libc::PROT_EXEC);
    let both = masked(2, write | execute, write | execute)?;
    let from_no_file = vec![
        masked(2, execute, execute)?,
        masked(3, libc::MAP_ANONYMOUS, libc::MAP_ANONYMOUS)?,
    ];
    calls.insert(libc::SYS_mmap, rules([vec![both], from_no_file])?);
    for call in [libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        calls.insert(call, rules([vec![masked(2, execute, execute)?]])?);
    }

    // Other networks, and other peers.
    let none_of_them = needs
        .families
        .iter()
        .map(|family| compared(0, SeccompCmpOp::Ne, *family as u32))
        .collect::<Result<Conditions, _>>()?;
    calls.insert(libc::SYS_socket, rules([none_of_them])?);
    if !needs.connects {
        calls.insert(libc::SYS_connect, Vec::new());
    }
    // Which would be connecting by another name.
    let opening = |flags| masked(flags, libc::MSG_FASTOPEN, libc::MSG_FASTOPEN);
    calls.insert(libc::SYS_sendto, rules([vec![opening(3)?]])?);
    calls.insert(libc::SYS_sendmsg, rules([vec![opening(2)?]])?);
    Ok(calls)
}

/// What the enclave, tokio, rustls, the C library and ONNX Runtime call.
fn needed(needs: &Needs) -> Result<Calls, BackendError> {
    let mut calls: Calls = [
        // Memory.
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        // Files: models, settings, the quote entry's attributes, and what ONNX Runtime reads about the CPU.
        libc::SYS_openat,
        libc::SYS_close,
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_lseek,
        libc::SYS_fcntl,
        libc::SYS_flock,
        libc::SYS_stat,
        libc::SYS_lstat,
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_access,
        libc::SYS_faccessat,
        libc::SYS_faccessat2,
        libc::SYS_readlink,
        libc::SYS_readlinkat,
        libc::SYS_getdents64,
        libc::SYS_getcwd,
        // A quote entry that nobody made yet.
        libc::SYS_mkdir,
        libc::SYS_rmdir,
        // Sockets, once they are open.
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_accept4,
        libc::SYS_getsockname,
        libc::SYS_getpeername,
        libc::SYS_getsockopt,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_shutdown,
        // Waiting.
        libc::SYS_epoll_create1,
        libc::SYS_epoll_ctl,
        libc::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_eventfd2,
        libc::SYS_pipe2,
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_futex,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_restart_syscall,
        // Threads and signals.
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_set_tid_address,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_yield,
        libc::SYS_getcpu,
        libc::SYS_membarrier,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_exit,
        libc::SYS_exit_group,
        // What time it is, who this is, and random bytes.
        libc::SYS_clock_gettime,
        libc::SYS_clock_getres,
        libc::SYS_gettimeofday,
        libc::SYS_time,
        libc::SYS_getrandom,
        libc::SYS_getuid,
        libc::SYS_geteuid,
        libc::SYS_getgid,
        libc::SYS_getegid,
        libc::SYS_getppid,
        libc::SYS_uname,
        libc::SYS_sysinfo,
        libc::SYS_getrusage,
    ]
    .into_iter()
    .map(|call| (call, Vec::new()))
    .collect();

    // Threads, in the namespaces that there are.
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    let flags = libc::CLONE_THREAD | namespaces;
    let thread = masked(0, flags, libc::CLONE_THREAD)?;
    calls.insert(libc::SYS_clone, rules([vec![thread]])?);

    // Streams alone, of the family's own protocol: no raw packets, no datagrams, nothing that connects when it sends.
    let stream = |family: i32| -> Result<Conditions, BackendError> {
        Ok(vec![
            compared(0, SeccompCmpOp::Eq, family as u32)?,
            masked(1, 0xf, libc::SOCK_STREAM)?,
            compared(2, SeccompCmpOp::Eq, 0)?,
        ])
    };
    let streams: Vec<Conditions> = needs
        .families
        .iter()
        .map(|family| stream(*family))
        .collect::<Result<_, _>>()?;
    calls.insert(libc::SYS_socket, rules(streams)?);
    // What a signal handler writes to, and tokio reads from.
    calls.insert(libc::SYS_socketpair, rules([stream(libc::AF_UNIX)?])?);
    if needs.connects {
        calls.insert(libc::SYS_connect, Vec::new());
    }

    // Sockets, set as they are when they listen and are accepted. Others load filters into the kernel (SO_ATTACH_FILTER), or put
    // protocols on top (TCP_ULP).
    let option = |level: i32, name: i32| -> Result<Conditions, BackendError> {
        Ok(vec![
            compared(1, SeccompCmpOp::Eq, level as u32)?,
            compared(2, SeccompCmpOp::Eq, name as u32)?,
        ])
    };
    let options = [
        option(libc::SOL_SOCKET, libc::SO_REUSEADDR)?,
        option(libc::IPPROTO_TCP, libc::TCP_NODELAY)?,
    ];
    calls.insert(libc::SYS_setsockopt, rules(options)?);

    let one_of = |number, values: &[u32]| {
        let equal = |value: &u32| Ok(vec![compared(number, SeccompCmpOp::Eq, *value)?]);
        let each: Result<Vec<Conditions>, BackendError> = values.iter().map(equal).collect();
        rules(each?)
    };
    // This process alone: its threads are signalled when it aborts, its limit of open files is raised.
    calls.insert(libc::SYS_tgkill, one_of(0, &[std::process::id()])?);
    calls.insert(libc::SYS_prlimit64, one_of(0, &[0])?);
    let names = [libc::PR_SET_NAME as u32, libc::PR_GET_NAME as u32];
    calls.insert(libc::SYS_prctl, one_of(0, &names)?);
    // Non-blocking sockets, close on exec, whether standard error is a terminal, this machine's context id, and the two
    // requests of /dev/sev-guest for a report (linux/sev-guest.h).
    let requests = [
        libc::FIONBIO as u32,
        libc::FIOCLEX as u32,
        libc::TCGETS as u32,
        0x7b9,
        0xc020_5300,
        0xc020_5302,
    ];
    calls.insert(libc::SYS_ioctl, one_of(1, &requests)?);
    Ok(calls)
}
