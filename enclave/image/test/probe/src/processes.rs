//! Who runs in the guest, and with which rights.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Found, PATIENCE, Probe, expect, read};

/// The user that init.toml names.
const ENCLAVE_ID: &str = "1000";
/// What holds of each thread that parses hostile input, as `/proc/<pid>/status` says it.
const RIGHTS: [(&str, &str); 10] = [
    ("Uid", "1000 1000 1000 1000"),
    ("Gid", "1000 1000 1000 1000"),
    ("Groups", ""),
    ("NoNewPrivs", "1"),
    ("CapInh", "0000000000000000"),
    ("CapPrm", "0000000000000000"),
    ("CapEff", "0000000000000000"),
    ("CapBnd", "0000000000000000"),
    ("CapAmb", "0000000000000000"),
    // A filter: SECCOMP_MODE_FILTER.
    ("Seccomp", "2"),
];

pub const PROBES: &[Probe] = &[
    ("enclave-rights", enclave_rights),
    ("processes", processes),
    ("environment", environment),
    ("descriptors", descriptors),
];

/// The enclave: this process's parent, which has become it.
fn enclave() -> u32 {
    std::os::unix::process::parent_id()
}

fn status(path: &str, field: &str) -> Result<String, String> {
    let text = read(path)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .ok_or_else(|| format!("{path} has no {field}"))?;
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn threads() -> Result<Vec<String>, String> {
    let folder = format!("/proc/{}/task", enclave());
    let entries = fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
    let mut paths: Vec<_> = entries
        .flatten()
        .map(|entry| format!("{}/status", entry.path().display()))
        .collect();
    paths.sort();
    Ok(paths)
}

/// Waits until all threads have the filter: the first one sets it before it starts the others.
fn enclave_rights() -> Found {
    let until = Instant::now() + PATIENCE;
    loop {
        let threads = threads()?;
        let filtered = threads
            .iter()
            .filter(|path| status(path, "Seccomp").is_ok_and(|mode| mode == "2"))
            .count();
        if filtered == threads.len() && threads.len() > 1 {
            break;
        }
        if Instant::now() > until {
            return Err(format!(
                "{filtered} of {} threads have a filter",
                threads.len()
            ));
        }
        sleep(Duration::from_millis(200));
    }
    // Those that have come since are looked at as well.
    let threads = threads()?;
    for path in &threads {
        for (field, expected) in RIGHTS {
            expect(status(path, field)?, expected)
                .map_err(|wrong| format!("{path}: {field}: {wrong}"))?;
        }
    }
    // This process was started as the enclave was, and has set no filter.
    for (field, expected) in &RIGHTS[..RIGHTS.len() - 1] {
        expect(status("/proc/self/status", field)?, expected)
            .map_err(|wrong| format!("before the filter: {field}: {wrong}"))?;
    }
    Ok(format!(
        "{} threads, uid {ENCLAVE_ID}, no capabilities, no new privileges, filtered",
        threads.len()
    ))
}

/// The enclave and this process are all that its user sees: PID 1, the only other one, belongs to root and is not shown.
fn processes() -> Found {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")
        .map_err(|error| error.to_string())?
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_digit()) || name == std::process::id().to_string() {
            continue;
        }
        // A process may end while it is looked at.
        let line = fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
        let program = line.split(|b| *b == 0).next().unwrap_or_default();
        found.push(format!("{name}:{}", String::from_utf8_lossy(program)));
    }
    found.sort();
    expect(found.join(" "), format!("{}:{}", enclave(), crate::ENCLAVE))
}

fn environment() -> Found {
    // This process has no more than it was started with; the enclave's own is read where the kernel lets its user read it.
    let mine: Vec<_> = std::env::vars_os().collect();
    if !mine.is_empty() {
        return Err(format!("{mine:?}"));
    }
    match fs::read(format!("/proc/{}/environ", enclave())) {
        Ok(bytes) => expect(String::from_utf8_lossy(&bytes), "").map(|_| "empty".into()),
        Err(_) => Ok("empty; the enclave's own cannot be read, even by its user".into()),
    }
}

/// Nothing of PID 1's is inherited but the console.
fn descriptors() -> Found {
    let mut found: Vec<_> = fs::read_dir("/proc/self/fd")
        .map_err(|error| error.to_string())?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let target = fs::read_link(entry.path()).ok()?;
            Some(format!("{name}={}", target.display()))
        })
        // The one that lists them.
        .filter(|found| !found.contains("/proc/"))
        .collect();
    found.sort();
    let only_three = found.len() <= 3 && found.iter().all(|fd| fd.starts_with(['0', '1', '2']));
    let words = found.join(" ");
    if only_three { Ok(words) } else { Err(words) }
}
