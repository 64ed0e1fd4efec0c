//! Against a second implementation: `oracle.py`, which is ours too, and `goblin` for Authenticode.

use std::io::Write;
use std::process::{Command, Stdio};

use goblin::pe::PE;
use ring::digest::{Context, SHA384};
use serde_json::{Value, json};
use touchstone_launch::tdx::mrtd::PageAddOrder;
use touchstone_launch::tdx::pe::authenticode;
use touchstone_launch::tdx::rtmr::{Edk2, SetupHeader};
use touchstone_testkit::fixtures::skipped;

use crate::support::{Firmware, Kernel, boot, measure, noise};

/// What the other implementation says; `None`, and a line that says so, where there is no Python.
fn second(test: &str, cases: &[Value]) -> Option<Vec<Vec<String>>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tdx/oracle.py");
    let child = Command::new("python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        skipped(test, "there is no python3");
        return None;
    };
    let cases = serde_json::to_vec(cases).unwrap();
    child.stdin.take().unwrap().write_all(&cases).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn mrtd_is_what_a_second_implementation_says() {
    let mut images = Vec::new();
    for (variables, code) in [(0x2000, 0x3000), (0x1000, 0x9000), (0x2_0000, 0x3_0000)] {
        for seed in 1..4 {
            let mut firmware = Firmware::new(variables, code);
            firmware.seed = seed;
            images.push(firmware.image());
            // Other orders, other addresses, variables that are measured.
            firmware.sections.reverse();
            firmware.sections[4].attributes = 1;
            firmware.sections[1].gpa = 0x1_2345_6000 + seed * 0x1000;
            images.push(firmware.image());
        }
    }
    let mut cases = Vec::new();
    let mut ours = Vec::new();
    for image in &images {
        for order in PageAddOrder::ALL {
            cases.push(json!({ "firmware": hex::encode(image), "order": order.name() }));
            ours.push(vec![measure(image, order).unwrap().to_string()]);
        }
    }
    let mut different = ours.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), ours.len(), "each of them is another");
    if let Some(theirs) = second("mrtd_is_what_a_second_implementation_says", &cases) {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn rtmr1_and_rtmr2_are_what_a_second_implementation_says() {
    let low = Kernel {
        xloadflags: 0x7d,
        initrd_max: 0x37ff_ffff,
        ..Kernel::default()
    };
    let unsigned = Kernel {
        signature: 0,
        trailing: 0x123,
        ..Kernel::default()
    };
    let old_headers = Kernel {
        directories: 4,
        signature: 0,
        text: 0x1100,
        ..Kernel::default()
    };
    let trailing = Kernel {
        trailing: 0x40,
        ..Kernel::default()
    };
    let kernels = [Kernel::default(), low, unsigned, old_headers, trailing];
    let kernels = kernels.map(|kernel| kernel.image());
    let (small, large) = (noise(3, 77), noise(4, 1 << 16));
    let memories = [256 << 20, 2 << 30, 0xb000_0000 - 4096, 0xb000_0000, 1 << 40];
    let mut headers = vec![SetupHeader::AsIs];
    headers.extend(memories.map(|memory| SetupHeader::Patched { memory }));
    let mut cases = Vec::new();
    let mut ours = Vec::new();
    for kernel in &kernels {
        for (initrd, cmdline) in [(&small, ""), (&large, "console=hvc0 init=/enclave -- a")] {
            for header in &headers {
                for edk2 in [Edk2::Stable202411, Edk2::Stable202508] {
                    let memory = match header {
                        SetupHeader::Patched { memory } => *memory,
                        SetupHeader::AsIs => 0,
                    };
                    cases.push(json!({
                        "kernel": hex::encode(kernel),
                        "initrd": hex::encode(initrd),
                        "cmdline": cmdline,
                        "header": header.name(),
                        "memory": memory,
                        "edk2": edk2.name(),
                    }));
                    let registers = boot(kernel, initrd, cmdline, *header, edk2).unwrap();
                    ours.push(registers.map(|register| register.to_string()).to_vec());
                }
            }
        }
    }
    assert_eq!(ours.len(), 120);
    let name = "rtmr1_and_rtmr2_are_what_a_second_implementation_says";
    if let Some(theirs) = second(name, &cases) {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn the_kernels_digest_is_what_goblin_says() {
    for (trailing, signature) in [(0, 0), (0, 8), (0, 0x5c0), (0x40, 0x100)] {
        let kernel = Kernel {
            trailing,
            signature,
            ..Kernel::default()
        };
        let image = kernel.image();
        let pe = PE::parse(&image).unwrap();
        let mut context = Context::new(&SHA384);
        for range in pe.authenticode_ranges() {
            context.update(range);
        }
        let theirs = hex::encode(context.finish());
        assert_eq!(authenticode(&image).unwrap().to_string(), theirs);
    }
}
