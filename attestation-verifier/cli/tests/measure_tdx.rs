//! `measure tdx`: what it computes and in which form, and what it refuses with which exit code.

mod support;

use serde_json::{Value, json};
use support::{Run, touchstone_in};
use tempfile::TempDir;
use touchstone_launch::Sha384;
use touchstone_launch::ovmf::Ovmf;
use touchstone_launch::tdx::mrtd::{PageAddOrder, mrtd};
use touchstone_launch::tdx::rtmr::{Boot, Edk2, SetupHeader, replay};
use touchstone_launch::tdx::tdvf::Tdvf;
use touchstone_testkit::fixtures::{evidence, skipped};
use touchstone_testkit::tdx_boot::{LinuxKernel, TdxFirmware};

const CMDLINE: &str = "console=hvc0 quiet";
const FIRMWARE: &str = "--firmware OVMF.fd --page-add-order one-pass";
const FILES: &str = "--kernel vmlinuz --initrd initrd.img --cmdline-file cmdline";
const BOOT: &str = "--kernel vmlinuz --initrd initrd.img --cmdline-file cmdline --setup-header as-is --edk2 202508";

/// A folder with firmware, kernel, initrd and a command line.
struct Files {
    folder: TempDir,
    firmware: Vec<u8>,
    kernel: Vec<u8>,
}

impl Files {
    fn new() -> Files {
        let files = Files {
            folder: tempfile::tempdir().unwrap(),
            firmware: TdxFirmware::new(0x2000, 0x3000).image(),
            kernel: LinuxKernel::default().image(),
        };
        files.put("OVMF.fd", &files.firmware);
        files.put("vmlinuz", &files.kernel);
        files.put("initrd.img", b"an initrd");
        files.put("cmdline", format!("{CMDLINE}\n").as_bytes());
        files
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    fn run(&self, args: &str) -> Run {
        let args = ["measure", "tdx"]
            .into_iter()
            .chain(args.split_whitespace());
        touchstone_in(self.folder.path(), &args.collect::<Vec<_>>())
    }

    fn json(&self, args: &str) -> Value {
        let run = self.run(&format!("{args} --json"));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args}");
        assert_eq!(run.stdout.lines().count(), 1);
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// What the library says, as the member `tdx`.
    fn expected(&self, order: PageAddOrder, boot: Option<(SetupHeader, Edk2)>) -> Value {
        let ovmf = Ovmf::parse(&self.firmware).unwrap();
        let mrtd = mrtd(&Tdvf::parse(&ovmf).unwrap(), order);
        let mut value = json!({ "mrtd": mrtd, "rtmr0": [], "page_add_order": order.name() });
        if let Some((header, edk2)) = boot {
            let boot = Boot::new(&self.kernel, b"an initrd", CMDLINE).unwrap();
            let events = boot.events(header, edk2).unwrap();
            value["rtmr1"] = json!(replay(&events, 1));
            value["rtmr2"] = json!(replay(&events, 2));
        }
        json!({ "tdx": value })
    }

    /// An event log of this boot, in dstack's form, with these digests in RTMR0.
    fn log(&self, rtmr0: &[(u32, Sha384)], boot: (SetupHeader, Edk2)) -> String {
        let events = Boot::new(&self.kernel, b"an initrd", CMDLINE).unwrap();
        let events = events.events(boot.0, boot.1).unwrap();
        let mut list: Vec<(u8, u32, Sha384)> = rtmr0
            .iter()
            .map(|(kind, digest)| (0, *kind, *digest))
            .collect();
        list.extend(
            events
                .iter()
                .map(|event| (event.register, event.kind, event.digest)),
        );
        let list = list.into_iter().map(|(imr, kind, digest)| {
            json!({ "imr": imr, "event_type": kind, "digest": digest, "event": "", "event_payload": "" })
        });
        Value::from_iter(list).to_string()
    }
}

#[test]
fn every_combination_in_the_form_of_a_manifest() {
    let files = Files::new();
    let args = format!(
        "--firmware OVMF.fd --page-add-order one-pass,two-pass {FILES} --setup-header patched --edk2 202411 --memory 512M,2G"
    );
    let value = files.json(&args);
    let members: Vec<&String> = value.as_object().unwrap().keys().collect();
    let expected = [
        "v",
        "tee",
        "vmm",
        "os_binding",
        "confirmed",
        "ingredients",
        "measurements",
    ];
    assert_eq!(members.len(), expected.len());
    assert!(
        members
            .iter()
            .all(|member| expected.contains(&member.as_str()))
    );
    assert_eq!(value["v"], "touchstone/measured/1");
    assert_eq!(
        (&value["tee"], &value["vmm"]),
        (&json!("tdx"), &json!("qemu"))
    );
    assert_eq!(value["os_binding"], "rtmr");
    assert_eq!(value["confirmed"], Value::Null);
    let roles = value["ingredients"].as_array().unwrap().iter();
    let roles: Vec<&str> = roles.map(|one| one["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["firmware", "kernel", "initrd", "cmdline"]);
    assert_eq!(value["ingredients"][3]["size"], CMDLINE.len());
    let mut expected = Vec::new();
    for order in PageAddOrder::ALL {
        for memory in [512 << 20, 2 << 30] {
            let boot = (SetupHeader::Patched { memory }, Edk2::Stable202411);
            expected.push(files.expected(order, Some(boot)));
        }
    }
    assert_eq!(value["measurements"], Value::from(expected));

    // What does not differ is one measurement.
    let value = files.json(&args.replace("512M,2G", "2G,8G,2G"));
    assert_eq!(value["measurements"].as_array().unwrap().len(), 2);

    let words = files.run(&args);
    assert_eq!(words.code, 0);
    assert_eq!(words.stdout.matches("not confirmed by hardware").count(), 4);
    assert!(words.stdout.contains("RTMR0  not computed"));
}

#[test]
fn firmware_alone_binds_no_software() {
    let files = Files::new();
    let value = files.json(FIRMWARE);
    assert_eq!(value["os_binding"], "none");
    let expected = files.expected(PageAddOrder::OnePass, None);
    assert_eq!(value["measurements"], json!([expected]));
    assert!(files.run(FIRMWARE).stdout.contains("binding   none"));
}

#[test]
fn derivations_end_in_the_measurements() {
    let files = Files::new();
    let measured = files.json(&format!("{FIRMWARE} {BOOT}"));
    let measured = &measured["measurements"][0]["tdx"];
    let value = files.json(&format!("{FIRMWARE} {BOOT} --explain"));
    assert_eq!(value["v"], "touchstone/derivation/1");
    assert_eq!(value["sections"].as_array().unwrap().len(), 6);
    let steps = value["orders"][0]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 6);
    assert_eq!(steps[0]["operation"], "add+extend");
    assert_eq!(steps[5]["mrtd_after"], measured["mrtd"]);
    let events = value["boots"][0]["events"].as_array().unwrap();
    assert_eq!(events.len(), 7);
    assert_eq!(events[4]["register_after"], measured["rtmr2"]);
    assert_eq!(events[6]["register_after"], measured["rtmr1"]);
    let words = files.run(&format!("{FIRMWARE} {BOOT} --explain"));
    assert_eq!(words.code, 0);
    for what in [
        "BFV",
        "TD_HOB",
        "add+extend",
        "Exit Boot Services Invocation",
        "kernel, Authenticode",
    ] {
        assert!(words.stdout.contains(what), "{what}");
    }
    let two = files.json("--firmware OVMF.fd --page-add-order two-pass --explain");
    assert_eq!(two["orders"][0]["steps"][1]["operation"], "extend");
}

#[test]
fn rtmr0_is_what_was_seen() {
    let files = Files::new();
    let boot = (SetupHeader::AsIs, Edk2::Stable202508);
    let variables = Sha384::of(&files.firmware[..0x2000]);
    let tables = Sha384::of(b"ACPI tables");
    let log = files.log(&[(0x8000_000a, variables), (10, tables)], boot);
    files.put("log.json", log.as_bytes());
    let value = files.json(&format!("{FIRMWARE} {BOOT} --event-log log.json"));
    let seen = &value["measurements"][0]["tdx"]["rtmr0"];
    // By hand: SHA-384 of the register and the digest, twice.
    let first = Sha384::of(&[[0; 48], variables.0].concat());
    let second = Sha384::of(&[first.0, tables.0].concat());
    assert_eq!(*seen, json!([second]));
    // Given twice it is there once, beside another.
    let other = "ab".repeat(48);
    let value = files.json(&format!(
        "{FIRMWARE} {BOOT} --event-log log.json --rtmr0 {other} --rtmr0 {second}"
    ));
    let mut both = [second.to_string(), other];
    both.sort();
    assert_eq!(value["measurements"][0]["tdx"]["rtmr0"], json!(both));

    let refused = |name: &str, text: &str, code: i32, words: &str| {
        files.put(name, text.as_bytes());
        let run = files.run(&format!("{FIRMWARE} {BOOT} --event-log {name} --json"));
        assert_eq!(run.code, code, "{}", run.stderr);
        assert_eq!(run.verdict()["deciding"], "measure.event_log");
        assert!(run.stderr.contains(words), "{}", run.stderr);
    };
    refused(
        "variables.json",
        &files.log(&[(0x8000_000a, tables)], boot),
        4,
        "another firmware",
    );
    refused(
        "type.json",
        &files.log(&[(10, variables)], boot),
        4,
        "another firmware",
    );
    let older = (SetupHeader::AsIs, Edk2::Stable202411);
    let log = files.log(&[(0x8000_000a, variables)], older);
    refused("older.json", &log, 4, "RTMR2 is");
    refused("broken.json", "[{]", 2, "broken.json");
    refused("broken.bin", "CCEL", 2, "broken.bin");
}

#[test]
fn the_log_of_another_machine_is_refused() {
    let Some(folder) = evidence() else {
        return skipped("the_log_of_another_machine_is_refused", "no fixtures");
    };
    let files = Files::new();
    let text = std::fs::read_to_string(folder.join("tdx/dstack-lite/getquote.json")).unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    files.put(
        "dstack.json",
        answer["event_log"].as_str().unwrap().as_bytes(),
    );
    std::fs::copy(
        folder.join("tdx/trustee-quote4/CCEL_data"),
        files.folder.path().join("ccel.bin"),
    )
    .unwrap();
    for name in ["dstack.json", "ccel.bin"] {
        let run = files.run(&format!("{FIRMWARE} {BOOT} --event-log {name} --json"));
        assert_eq!(run.code, 4, "{}", run.stderr);
        assert_eq!(run.verdict()["deciding"], "measure.event_log");
        assert!(run.stderr.contains("another firmware"), "{}", run.stderr);
    }
}

#[test]
fn what_is_refused() {
    let files = Files::new();
    let measured = |args: &str| assert_eq!(files.run(args).code, 0, "{args}");
    let refused = |args: &str, code: i32, id: &str, words: &str| {
        let run = files.run(&format!("{args} --json"));
        assert_eq!(run.code, code, "{args}: {}", run.stderr);
        assert_eq!(run.verdict()["deciding"], id, "{args}");
        assert!(run.stderr.contains(words), "{args}: {}", run.stderr);
    };
    measured(&format!("{FIRMWARE} {BOOT}"));
    let patched = format!("{FIRMWARE} {FILES} --edk2 202508 --setup-header patched");
    measured(&format!("{patched} --memory 2G"));

    // Firmware: of something else, of which only the code is given, of which a section is of an unknown type.
    let mut other = TdxFirmware::new(0x2000, 0x3000);
    other.sections[2].kind = 4;
    files.put("type.fd", &other.image());
    files.put("code.fd", &files.firmware[0x2000..]);
    files.put("zeros.fd", &[0; 0x5000]);
    let sev = touchstone_testkit::firmware::Firmware::amd_sev(64 << 10);
    files.put("sev.fd", &sev.build());
    for (name, words) in [
        ("type.fd", "section 2: unknown type 0x4"),
        ("code.fd", "end outside the image"),
        ("zeros.fd", "no GUID table"),
        ("sev.fd", "not built for TDX"),
    ] {
        let args = format!("--firmware {name} --page-add-order two-pass");
        refused(&args, 2, "measure.firmware", words);
        refused(&args, 2, "measure.firmware", name);
    }

    // Kernels: none, too old, not whole.
    let old = LinuxKernel {
        protocol: 0x20b,
        ..LinuxKernel::default()
    };
    for (name, image, words) in [
        ("text", b"#!/bin/sh".to_vec(), "not a Linux kernel"),
        ("old", old.image(), "0x020b, older than"),
        ("part", files.kernel[..0x2000].to_vec(), "PE"),
    ] {
        files.put(name, &image);
        let args = format!("{FIRMWARE} {}", BOOT.replace("vmlinuz", name));
        let words = if name == "part" { "signature" } else { words };
        refused(&args, 2, "measure.kernel", words);
    }

    // Arguments.
    files.put("empty", b"");
    files.put("two-lines", b"a\nb");
    for (args, words) in [
        ("--firmware OVMF.fd".to_owned(), "--page-add-order"),
        (
            "--firmware OVMF.fd --page-add-order backwards".to_owned(),
            "one-pass or two-pass",
        ),
        (format!("{FIRMWARE} --vmm ec2"), "qemu"),
        (format!("{FIRMWARE} {FILES}"), "--setup-header"),
        (format!("{FIRMWARE} --kernel vmlinuz"), "--initrd"),
        (format!("{FIRMWARE} --initrd initrd.img"), "--kernel"),
        (
            format!("{FIRMWARE} --rtmr0 {}", "00".repeat(48)),
            "--kernel",
        ),
        (format!("{FIRMWARE} {BOOT} --rtmr0 00"), "--rtmr0"),
        (patched.clone(), "--memory"),
        (format!("{patched} --memory 2048"), "such as 2G"),
        (
            format!("{patched} --memory {}", vec!["1G"; 65].join(",")),
            "at most 64",
        ),
        (
            format!("{FIRMWARE} {BOOT} --memory 2G"),
            "nothing depends on it",
        ),
        (
            format!("{FIRMWARE} {}", BOOT.replace("initrd.img", "empty")),
            "initrd: it is empty",
        ),
        (
            format!(
                "{FIRMWARE} {}",
                BOOT.replace("-file cmdline", "-file two-lines")
            ),
            "0x0a",
        ),
        (
            format!("{FIRMWARE} {}", BOOT.replace("vmlinuz", "nowhere")),
            "nowhere",
        ),
    ] {
        refused(&args, 1, "usage", words);
    }
}

#[test]
fn every_file_counts() {
    let files = Files::new();
    let args = format!("{FIRMWARE} {BOOT}");
    let right = files.json(&args)["measurements"].clone();
    for (name, at) in [
        ("OVMF.fd", 0x2345),
        ("vmlinuz", 0x1234),
        ("initrd.img", 3),
        ("cmdline", 3),
    ] {
        let path = files.folder.path().join(name);
        let bytes = std::fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        files.put(name, &changed);
        assert_ne!(files.json(&args)["measurements"], right, "{name}");
        files.put(name, &bytes);
    }
    assert_eq!(files.json(&args)["measurements"], right);
}
