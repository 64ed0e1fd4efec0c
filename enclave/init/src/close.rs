//! What the kernel is told before the enclave starts, so that nothing more enters the guest. Each is read back.

use std::{fs, io, path::Path};

use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount},
};

use crate::error::{Doing, InitError, read_text};

/// Kernel settings, below `/proc/sys`. All of them exist in the image's kernel.
const SYSCTLS: [(&str, &str); 26] = [
    // Neither another kernel nor, below, another module.
    ("kernel/kexec_load_disabled", "1"),
    // No core file: the limit is 0, set-uid programs make none, and no program is started to take one.
    ("kernel/core_pattern", "core"),
    ("fs/suid_dumpable", "0"),
    // An error in the kernel ends the guest.
    ("kernel/panic_on_oops", "1"),
    ("kernel/panic", "-1"),
    // Nothing of the kernel's inside is shown.
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/yama/ptrace_scope", "3"),
    // Less of the kernel is within reach.
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("net/core/bpf_jit_harden", "2"),
    ("user/max_user_namespaces", "0"),
    ("kernel/io_uring_disabled", "2"),
    ("vm/unprivileged_userfaultfd", "0"),
    ("vm/memfd_noexec", "2"),
    ("dev/tty/ldisc_autoload", "0"),
    ("dev/tty/legacy_tiocsti", "0"),
    ("kernel/sysrq", "0"),
    ("kernel/randomize_va_space", "2"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    // No word of the network changes routes.
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/all/accept_source_route", "0"),
    ("net/ipv4/conf/default/accept_source_route", "0"),
    // Last: from here on no module is loaded.
    ("kernel/modules_disabled", "1"),
];

/// Switches IPv6 off, which would otherwise take addresses and routes from whoever sends them. Before any card is on.
///
/// # Errors
/// What the system refuses, or what is read back.
pub fn no_ipv6() -> Result<(), InitError> {
    set_sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
    set_sysctl("net/ipv6/conf/default/disable_ipv6", "1")
}

/// Sets everything that is only ever set once.
///
/// # Errors
/// What the system refuses, or what is read back.
pub fn kernel() -> Result<(), InitError> {
    for (name, value) in SYSCTLS {
        set_sysctl(name, value)?;
    }
    lockdown()
}

fn set_sysctl(name: &str, value: &str) -> Result<(), InitError> {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).doing(|| format!("writing {value} to {path}"))?;
    let found = read_text(&path, 256)?;
    if found.trim() == value {
        Ok(())
    } else {
        Err(InitError::ReadBack {
            what: path,
            found: found.trim().into(),
            expected: value.into(),
        })
    }
}

/// The kernel's lockdown: not even root reads or writes the kernel's memory from here on.
fn lockdown() -> Result<(), InitError> {
    let (folder, level) = ("/sys/kernel/security", "confidentiality");
    let doing = || "switching lockdown on".to_owned();
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("securityfs", folder, "securityfs", flags, None).doing(doing)?;
    let path = format!("{folder}/lockdown");
    let found = read_text(&path, 256)?;
    // The command line may have said so already; then it cannot be said again.
    if !found.contains("[confidentiality]") {
        fs::write(&path, level).doing(doing)?;
    }
    let found = read_text(&path, 256)?;
    unmount(folder, UnmountFlags::empty()).doing(doing)?;
    if found.contains("[confidentiality]") {
        Ok(())
    } else {
        Err(InitError::ReadBack {
            what: path,
            found: found.trim().into(),
            expected: format!("[{level}]"),
        })
    }
}

/// Makes every file system read-only but the quote entry's, and tries.
///
/// # Errors
/// What the system refuses, or what is read back.
pub fn file_systems() -> Result<(), InitError> {
    let closed = MountFlags::RDONLY | MountFlags::NOSUID;
    let mounts = [
        ("/run", MountFlags::NODEV | MountFlags::NOEXEC),
        ("/sys", MountFlags::NODEV | MountFlags::NOEXEC),
        ("/dev", MountFlags::NOEXEC),
        ("/proc", MountFlags::NODEV | MountFlags::NOEXEC),
        ("/", MountFlags::NODEV),
    ];
    for (folder, more) in mounts {
        let doing = || format!("making {folder} read-only");
        mount_remount(folder, MountFlags::BIND | closed | more, "").doing(doing)?;
    }
    // The root's file system itself too, and not only the way to it.
    mount_remount("/", closed | MountFlags::NODEV, "")
        .doing(|| "making the root file system read-only".into())?;
    for (folder, more) in mounts {
        let flags = statvfs(folder)
            .doing(|| format!("looking at {folder}"))?
            .f_flag;
        let mut expected = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID;
        if more.contains(MountFlags::NOEXEC) {
            expected |= StatVfsMountFlags::NOEXEC;
        }
        if !flags.contains(expected) {
            return Err(InitError::ReadBack {
                what: format!("how {folder} is mounted"),
                found: format!("{flags:?}"),
                expected: format!("{expected:?}"),
            });
        }
    }
    for folder in ["/", "/run", "/dev", "/etc/touchstone"] {
        let path = Path::new(folder).join("touchstone-writable");
        match fs::write(&path, "") {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
            found => {
                return Err(InitError::ReadBack {
                    what: format!("writing {}", path.display()),
                    found: format!("{found:?}"),
                    expected: io::ErrorKind::ReadOnlyFilesystem.to_string(),
                });
            }
        }
    }
    Ok(())
}
