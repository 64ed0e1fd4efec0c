//! What the kernel says of itself: settings that PID 1 made, the command line, devices, the network, the source of quotes.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Found, PATIENCE, Probe, expect, read};

/// Settings below `/proc/sys`, and what must stand there.
const SETTINGS: &[(&str, &str)] = &[
    ("kernel/modules_disabled", "1"),
    ("kernel/kexec_load_disabled", "1"),
    ("kernel/panic", "-1"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/core_pattern", "core"),
    ("fs/suid_dumpable", "0"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/io_uring_disabled", "2"),
    ("kernel/sysrq", "0"),
    ("kernel/randomize_va_space", "2"),
    ("user/max_user_namespaces", "0"),
    ("vm/unprivileged_userfaultfd", "0"),
    ("vm/memfd_noexec", "2"),
    ("dev/tty/ldisc_autoload", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "1"),
];
/// Ports of the enclave's listeners.
const PORTS: [u16; 3] = [8000, 8001, 8002];
const REPORTS: &str = "/sys/kernel/config/tsm/report";
/// The entry that init.toml names.
const ENTRY: &str = "touchstone";

pub const PROBES: &[Probe] = &[
    ("settings", settings),
    ("cmdline", cmdline),
    ("entropy", entropy),
    ("quote-source", quote_source),
    ("devices", devices),
];

/// These come last: by then the enclave serves, or soon will.
pub const NETWORK: &[Probe] = &[("interfaces", interfaces), ("listeners", listeners)];

fn settings() -> Found {
    for (name, expected) in SETTINGS {
        expect(read(&format!("/proc/sys/{name}"))?, expected)
            .map_err(|wrong| format!("{name}: {wrong}"))?;
    }
    Ok(SETTINGS
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(" "))
}

/// Compared by whoever reads the console: it knows with what the guest was started.
fn cmdline() -> Found {
    read("/proc/cmdline")
}

fn entropy() -> Found {
    let flags = read("/proc/cpuinfo")?;
    let has = |flag: &str| {
        flags.lines().any(|line| {
            line.starts_with("flags") && line.split_whitespace().any(|word| word == flag)
        })
    };
    if !has("rdrand") {
        return Err("the CPU has no RDRAND".into());
    }
    let line = read("/proc/cmdline")?;
    for word in ["random.trust_cpu=on", "random.trust_bootloader=off"] {
        if !line.split(' ').any(|found| found == word) {
            return Err(format!("the command line lacks {word}"));
        }
    }
    Ok("RDRAND, trusted; nothing from whoever loads the kernel".into())
}

/// Whether the guest is reached by TCP.
pub fn over_tcp() -> Result<bool, String> {
    Ok(read("/proc/cmdline")?.contains("touchstone.net="))
}

/// `lo` alone, unless the command line asks for a network.
fn interfaces() -> Found {
    let mut found: Vec<_> = fs::read_dir("/sys/class/net")
        .map_err(|error| error.to_string())?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let cards = found.iter().filter(|name| *name != "lo").count();
    let expected = usize::from(over_tcp()?);
    let words = found.join(" ");
    if cards == expected {
        Ok(words)
    } else {
        Err(words)
    }
}

/// Who listens where, over IP: the enclave's three listeners, once it serves, where it is reached by TCP; else nobody. (vsock has no
/// list; that the enclave answers there is seen from outside.)
fn listeners() -> Found {
    let expected: Vec<_> = if over_tcp()? {
        PORTS.map(|port| format!("tcp:{port}")).into()
    } else {
        Vec::new()
    };
    let until = Instant::now() + PATIENCE;
    while listening().len() < expected.len() && Instant::now() < until {
        sleep(Duration::from_millis(200));
    }
    let found = expect(listening().join(" "), expected.join(" "))?;
    Ok(if found.is_empty() {
        "none over IP".into()
    } else {
        found
    })
}

fn listening() -> Vec<String> {
    const LISTEN: &str = "0A";
    let mut found = Vec::new();
    for file in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet"] {
        // A kernel without the protocol has no list.
        let Ok(text) = fs::read_to_string(format!("/proc/net/{file}")) else {
            continue;
        };
        for line in text.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            let (Some(local), Some(state)) = (words.get(1), words.get(3)) else {
                continue;
            };
            if !file.starts_with("tcp") || *state == LISTEN {
                let port = local
                    .rsplit(':')
                    .next()
                    .and_then(|port| u16::from_str_radix(port, 16).ok());
                found.push(format!("{file}:{}", port.unwrap_or(0)));
            }
        }
    }
    found.sort();
    found
}

/// The one entry is the enclave's alone, nobody makes another, and no device beside it gives quotes.
fn quote_source() -> Found {
    let folder = Path::new(REPORTS);
    let mut entries: Vec<_> = fs::read_dir(folder)
        .map_err(|error| format!("{REPORTS}: {error}"))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    entries.sort();
    expect(entries.join(" "), ENTRY)?;
    let mut attributes = 0;
    for entry in fs::read_dir(folder.join(ENTRY))
        .map_err(|error| error.to_string())?
        .flatten()
    {
        let (path, about) = (
            entry.path(),
            entry.metadata().map_err(|error| error.to_string())?,
        );
        if about.uid() != 1000 || about.gid() != 1000 || about.mode() & 0o077 != 0 {
            return Err(format!(
                "{}: {}:{} {:o}",
                path.display(),
                about.uid(),
                about.gid(),
                about.mode()
            ));
        }
        attributes += 1;
    }
    if fs::create_dir(folder.join("another")).is_ok() {
        return Err("another entry can be made".into());
    }
    for device in ["/dev/sev-guest", "/dev/tdx_guest"] {
        if fs::File::options()
            .read(true)
            .write(true)
            .open(device)
            .is_ok()
        {
            return Err(format!("{device} can be opened"));
        }
    }
    let provider = read(&format!("{REPORTS}/{ENTRY}/provider"))?;
    Ok(format!(
        "{provider}, {attributes} files of the enclave's user"
    ))
}

/// Of the nodes in /dev the enclave's user can write to those without any power.
fn devices() -> Found {
    const HARMLESS: [&str; 8] = [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "vsock",
    ];
    let (mut open, mut wrong) = (Vec::new(), Vec::new());
    let mut folders = vec![Path::new("/dev").to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else {
                continue;
            };
            let kind = about.file_type();
            if kind.is_dir() {
                folders.push(entry.path());
            }
            if !kind.is_char_device() && !kind.is_block_device() {
                continue;
            }
            let writable = about.mode() & 0o002 != 0
                || (about.uid() == 1000 && about.mode() & 0o200 != 0)
                || (about.gid() == 1000 && about.mode() & 0o020 != 0);
            let readable = about.mode() & 0o004 != 0;
            let name = entry
                .path()
                .strip_prefix("/dev")
                .map(|path| path.display().to_string())
                .unwrap_or_default();
            if writable || (readable && kind.is_block_device()) {
                if HARMLESS.contains(&name.as_str()) {
                    &mut open
                } else {
                    &mut wrong
                }
                .push(name);
            }
        }
    }
    open.sort();
    wrong.sort();
    if wrong.is_empty() {
        Ok(open.join(" "))
    } else {
        Err(wrong.join(" "))
    }
}
