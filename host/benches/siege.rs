//! What honest callers notice of 8,000 idle and 2,000 slow connections, and of floods.
//!
//! `cargo bench -p host --bench siege [-- IDLE SLOW SECONDS]`. Prints one line of JSON for each measurement; exit code 1
//! when a target is missed: p99 below twice that of a host left alone, recovery within 5 s, memory bounded. Needs
//! some 11,000 open files in this process, and as many in the host's.

#[path = "../tests/host/enclave.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod enclave;
#[path = "../tests/host/run.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod run;
#[path = "../tests/host/siege.rs"]
mod siege;

use std::{process::ExitCode, time::Duration};

use siege::{Figures, Size};

/// Bytes that the host may take for 10,000 connections, beyond what it takes alone.
const MEMORY: u64 = 512 << 20;

fn print(name: &str, figures: &Figures, more: &str) {
    println!(
        "{{\"measured\":\"{name}\",\"answered\":{},\"failed\":{},\"median_us\":{},\"p99_us\":{},\"memory_mb\":{}{more}}}",
        figures.answered,
        figures.failed,
        figures.median.as_micros(),
        figures.p99.as_micros(),
        figures.memory >> 20,
    );
}

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).filter(|a| !a.starts_with('-'));
    let numbers: Vec<usize> = arguments.filter_map(|a| a.parse().ok()).collect();
    let number = |place: usize, default| numbers.get(place).copied().unwrap_or(default);
    let size = Size {
        idle: number(0, 8_000),
        slow: number(1, 2_000),
        time: Duration::from_secs(number(2, 5) as u64),
    };
    host::limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let outcome = runtime.block_on(siege::siege(size));
    print("alone", &outcome.alone, "");
    let besieged = &outcome.besieged;
    print(
        "besieged",
        besieged,
        &format!(",\"idle_open\":{}", outcome.idle_open),
    );
    let mut held = besieged.failed == 0
        && besieged.p99 < outcome.alone.p99 * 2
        && besieged.memory < outcome.alone.memory + MEMORY;
    for flood in &outcome.floods {
        let more = format!(
            ",\"made\":{},\"recovered_ms\":{}",
            flood.made,
            flood.recovered.as_millis()
        );
        print(flood.name, &flood.during, &more);
        held &= flood.recovered < Duration::from_secs(5);
        held &= flood.during.memory < outcome.alone.memory + MEMORY;
    }
    println!("{{\"memory_after_mb\":{}}}", outcome.memory_after >> 20);
    runtime.shutdown_background();
    match held {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
