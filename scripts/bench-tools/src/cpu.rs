//! CPU time of processes, from `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// User and system time that the process has used so far, its threads included, children not.
///
/// # Errors
/// When the process is gone or `/proc` cannot be read.
pub fn process_cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid}"))?;
    // proc(5): the name, in parentheses, may hold spaces; utime and stime are fields 14 and 15.
    let (_, rest) = stat
        .rsplit_once(')')
        .context("/proc/<pid>/stat has no name")?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = || -> Result<u64> {
        Ok(fields
            .next()
            .context("/proc/<pid>/stat is short")?
            .parse()?)
    };
    let total = ticks()? + ticks()?;
    // USER_HZ is 100 on every Linux that this runs on.
    Ok(Duration::from_millis(total * 10))
}

/// Resident set of the process, in bytes.
///
/// # Errors
/// When the process is gone or `/proc` cannot be read.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid}"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_can_be_read() {
        let before = process_cpu(std::process::id()).unwrap();
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        let spent = process_cpu(std::process::id()).unwrap() - before;
        assert!(
            spent >= Duration::from_millis(10),
            "spun for 60 ms, accounted {spent:?}"
        );
        assert!(resident_bytes(std::process::id()).unwrap() > 1 << 20);
    }
}
