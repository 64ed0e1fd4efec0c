//! `measure snp`: what it computes and in which form, and what it refuses with which exit code.

mod support;

use std::path::Path;

use serde_json::Value;
use support::{Run, touchstone_in};
use tempfile::TempDir;
use touchstone_testkit::firmware::Firmware;

/// A folder with firmware, kernel, initrd and a command line.
struct Files(TempDir);

impl Files {
    fn new() -> Files {
        let files = Files(tempfile::tempdir().unwrap());
        files.put("OVMF.fd", &Firmware::amd_sev(64 << 10).build());
        files.put("generic.fd", &Firmware::generic(64 << 10).build());
        files.put("vmlinuz", b"a kernel");
        files.put("initrd.img", b"an initrd");
        files.put("cmdline", b"console=ttyS0 quiet\n");
        files
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn run(&self, args: &str) -> Run {
        let args: Vec<&str> = ["measure", "snp"]
            .into_iter()
            .chain(args.split_whitespace())
            .collect();
        touchstone_in(self.0.path(), &args)
    }

    fn json(&self, args: &str) -> Value {
        let run = self.run(&format!("{args} --json"));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args}");
        assert_eq!(run.stdout.lines().count(), 1);
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// The one digest that these arguments give.
    fn digest(&self, args: &str) -> String {
        let value = self.json(args);
        assert_eq!(value["measurements"].as_array().unwrap().len(), 1);
        value["measurements"][0]["snp"]["measurement"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

const SHAPE: &str = "--vcpus 2 --cpu EPYC-Genoa";
const BOOT: &str = "--kernel vmlinuz --initrd initrd.img --cmdline-file cmdline";

#[test]
fn a_table_of_every_combination() {
    let files = Files::new();
    let args = format!(
        "--firmware OVMF.fd {BOOT} --vcpus 1,2,4 --cpu EPYC-v4,EPYC-Genoa --guest-features 0x1,0x21"
    );
    let value = files.json(&args);
    assert_eq!(value["v"], "touchstone/measured/1");
    assert_eq!(
        (&value["tee"], &value["vmm"]),
        (&"sev-snp".into(), &"qemu".into())
    );
    assert_eq!(value["os_binding"], "launch-digest");
    assert_eq!(value["confirmed"], Value::Null);
    let roles: Vec<&str> = value["ingredients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["firmware", "kernel", "initrd", "cmdline"]);
    let kernel = &value["ingredients"][1];
    assert_eq!(
        (&kernel["name"], &kernel["size"]),
        (&"vmlinuz".into(), &8.into())
    );
    // SHA-256 of "a kernel", by sha256sum.
    assert_eq!(kernel["sha256"], KERNEL);
    // Without the line feed of the file, and without the NUL in memory.
    assert_eq!(value["ingredients"][3]["size"], 19);
    let measurements = value["measurements"].as_array().unwrap();
    assert_eq!(measurements.len(), 12);
    let words = files.run(&args);
    assert_eq!(words.code, 0);
    for measurement in measurements {
        let snp = &measurement["snp"];
        let row = words
            .stdout
            .lines()
            .find(|line| line.contains(snp["measurement"].as_str().unwrap()));
        let row: Vec<&str> = row.unwrap().split_whitespace().collect();
        assert_eq!(row[0], snp["vcpus"].to_string());
        assert_eq!(row[1], snp["cpu"]);
        assert_eq!(row[2], snp["guest_features"]);
    }
    // Said twice, computed once.
    assert_eq!(files.json(&args.replace("1,2,4", "4,1,2,4,1")), {
        let mut other = value.clone();
        let list = other["measurements"].as_array_mut().unwrap();
        list.chunks_mut(3).for_each(|shape| shape.rotate_right(1));
        other
    });
    // EPYC-v4, 2 vcpus, features 0x1: the one shape that hardware confirmed.
    assert_eq!(
        words.stdout.matches("not confirmed by hardware").count(),
        11
    );
    assert_eq!(words.stdout.matches("dstack-milan").count(), 1);
    let confirmed = files.json(&format!(
        "--firmware OVMF.fd {BOOT} --vcpus 2 --cpu EPYC-v4"
    ));
    assert_eq!(confirmed["confirmed"], "dstack-milan");
}

const KERNEL: &str = "4fff0d3e643b3894c17a0738fbdc591953aa722c9d42774425090accc4377126";

#[test]
fn every_file_counts() {
    let files = Files::new();
    let args = format!("--firmware OVMF.fd {BOOT} {SHAPE}");
    let base = files.digest(&args);
    for (name, bytes) in [
        ("vmlinuz", b"b kernel".as_slice()),
        ("initrd.img", b"bn initrd"),
        ("cmdline", b"console=ttyS1 quiet\n"),
        ("OVMF.fd", &changed(&Firmware::amd_sev(64 << 10).build())),
    ] {
        let path = files.0.path().join(name);
        let before = std::fs::read(&path).unwrap();
        files.put(name, bytes);
        assert_ne!(files.digest(&args), base, "{name}");
        files.put(name, &before);
        assert_eq!(files.digest(&args), base, "{name}");
    }
    // One line feed does not belong to it; a second one does.
    files.put("cmdline", b"console=ttyS0 quiet");
    assert_eq!(files.digest(&args), base);
    files.put("cmdline", b"console=ttyS0 quiet\n\n");
    assert_ne!(files.digest(&args), base);
    // As an argument, and no initrd is an empty one.
    files.put("cmdline", b"quiet");
    files.put("empty", b"");
    let with = |rest: &str| {
        files.digest(&format!(
            "--firmware OVMF.fd --kernel vmlinuz {SHAPE} {rest}"
        ))
    };
    assert_eq!(
        with("--cmdline quiet"),
        with("--cmdline-file cmdline --initrd empty")
    );
    // A signature is as good as a name.
    let sig = files.digest("--firmware OVMF.fd --vcpus 2 --cpu-sig 0x00a10f10");
    assert_eq!(sig, files.digest(&format!("--firmware OVMF.fd {SHAPE}")));
}

fn changed(image: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    image[5] ^= 1;
    image
}

#[test]
fn firmware_alone_binds_no_operating_system() {
    let files = Files::new();
    for (vmm, shape, cpu) in [
        ("qemu", SHAPE, "EPYC-Genoa"),
        ("ec2", "--vcpus 2", "any"),
        ("gce", "--vcpus 2", "any"),
    ] {
        let args = format!("--firmware generic.fd --vmm {vmm} {shape}");
        let value = files.json(&args);
        assert_eq!(
            (&value["os_binding"], &value["vmm"]),
            (&"none".into(), &vmm.into())
        );
        assert_eq!(value["measurements"][0]["snp"]["cpu"], cpu);
        assert_eq!(value["ingredients"].as_array().unwrap().len(), 1);
        assert!(files.run(&args).stdout.contains("bind firmware alone"));
    }
}

/// The exit code of each, with the check that says so, and what is said.
#[test]
fn what_is_refused() {
    let files = Files::new();
    let good = Firmware::amd_sev(64 << 10);
    let mut none = good.clone();
    none.sections = None;
    files.put("none.fd", &none.build());
    let mut unknown = good.clone();
    unknown.sections.as_mut().unwrap()[0].2 = 7;
    files.put("unknown.fd", &unknown.build());
    let mut overlap = good.clone();
    overlap.sections.as_mut().unwrap()[0].1 = 0x10000;
    files.put("overlap.fd", &overlap.build());
    files.put("short.fd", &good.build()[..65535]);
    files.put("front.fd", &good.build()[..32768]);
    files.put("large.fd", &Firmware::amd_sev((16 << 20) + 4096).build());
    files.put("nul", b"a\0b");
    files.put("inputs.json", b"{\"sev_snp_measurement\":{}}");
    assert_eq!(
        files
            .run(&format!("--firmware OVMF.fd {BOOT} {SHAPE}"))
            .code,
        0
    );
    assert_eq!(files.run(&format!("--firmware generic.fd {SHAPE}")).code, 0);
    let (firmware, usage) = ("measure.firmware", "usage");
    for (args, code, id, says) in [
        (
            format!("--firmware none.fd {SHAPE}"),
            2,
            firmware,
            "none.fd: firmware: no SEV metadata",
        ),
        (
            format!("--firmware unknown.fd {SHAPE}"),
            2,
            firmware,
            "section 0: unknown type 0x7",
        ),
        (
            format!("--firmware overlap.fd {SHAPE}"),
            2,
            firmware,
            "overlaps",
        ),
        (
            format!("--firmware short.fd {SHAPE}"),
            2,
            firmware,
            "65535 bytes, which is no multiple",
        ),
        (
            format!("--firmware front.fd {SHAPE}"),
            2,
            firmware,
            "no GUID table",
        ),
        (
            format!("--firmware large.fd {SHAPE}"),
            2,
            firmware,
            "fit below 4 GiB",
        ),
        (
            format!("--firmware generic.fd --kernel vmlinuz {SHAPE}"),
            2,
            firmware,
            "no SEV hash table",
        ),
        (
            format!("--firmware missing.fd {SHAPE}"),
            1,
            usage,
            "missing.fd",
        ),
        (format!("--firmware . {SHAPE}"), 1, usage, "folder"),
        (
            format!("--firmware OVMF.fd --kernel missing {SHAPE}"),
            1,
            usage,
            "kernel missing",
        ),
        (
            format!("--firmware OVMF.fd --kernel . {SHAPE}"),
            1,
            usage,
            "folder",
        ),
        (
            format!("--firmware OVMF.fd --initrd initrd.img {SHAPE}"),
            1,
            usage,
            "--kernel",
        ),
        (
            format!("--firmware OVMF.fd --cmdline quiet {SHAPE}"),
            1,
            usage,
            "--kernel",
        ),
        (
            format!("--firmware OVMF.fd {BOOT} --cmdline quiet {SHAPE}"),
            1,
            usage,
            "--cmdline",
        ),
        (
            format!("--firmware OVMF.fd --kernel vmlinuz --cmdline-file nul {SHAPE}"),
            1,
            usage,
            "a NUL at byte 1",
        ),
        (
            "--firmware OVMF.fd --kernel vmlinuz --vmm ec2 --vcpus 2".into(),
            1,
            usage,
            "puts no hashes of a kernel",
        ),
        (
            "--firmware OVMF.fd --kernel vmlinuz --vmm gce --vcpus 2".into(),
            1,
            usage,
            "puts no hashes of a kernel",
        ),
        (
            format!("--firmware OVMF.fd --vmm ec2 {SHAPE}"),
            1,
            usage,
            "does not depend on the CPU",
        ),
        (
            "--firmware OVMF.fd --vcpus 2".into(),
            1,
            usage,
            "depends on the CPU model, and none",
        ),
        (
            format!("--firmware OVMF.fd --vmm krun {SHAPE}"),
            1,
            usage,
            "libkrun boots no OVMF",
        ),
        (
            format!("--firmware OVMF.fd --vmm xen {SHAPE}"),
            1,
            usage,
            "qemu, ec2 or gce",
        ),
        (
            "--firmware OVMF.fd --vcpus 0 --cpu EPYC".into(),
            1,
            usage,
            "expected 1 to 4096",
        ),
        (
            "--firmware OVMF.fd --vcpus 2 --cpu EPYC-Naples".into(),
            1,
            usage,
            "--cpu-sig",
        ),
        (
            "--firmware OVMF.fd --vcpus 2 --cpu-sig 0x1ffffffff".into(),
            1,
            usage,
            "32 bits",
        ),
        (
            format!("--firmware OVMF.fd {SHAPE} --guest-features 0x20"),
            1,
            usage,
            "bit 0",
        ),
        (
            format!("--firmware OVMF.fd {SHAPE} --guest-features 0x+1"),
            1,
            usage,
            "0x1",
        ),
        (
            format!("--firmware OVMF.fd --inputs inputs.json {SHAPE}"),
            1,
            usage,
            "--inputs",
        ),
        (
            "--inputs inputs.json".into(),
            2,
            "measure.inputs",
            "inputs.json: missing field",
        ),
    ] {
        let run = files.run(&args);
        assert_eq!(run.code, code, "{args}: {}", run.stderr);
        assert!(run.stderr.contains(says), "{args}: {}", run.stderr);
        assert!(run.stdout.is_empty(), "{args}");
        files.run(&format!("{args} --json")).refused(code, id);
    }
}

#[test]
fn the_derivation_is_told_page_by_page() {
    let files = Files::new();
    let args = format!("--firmware OVMF.fd {BOOT} {SHAPE}");
    let digest = files.digest(&args);
    let words = files.run(&format!("{args} --explain")).stdout;
    for says in [
        "0x0000ffff0000 - 0x0000ffff7fff       8  NORMAL",
        "0x000000800000 - 0x000000808fff       9  ZERO        not hashed",
        "SECRETS",
        "CPUID",
        "SNP_KERNEL_HASHES",
        "table of hashes at 0x810c00",
        KERNEL,
        "0xfffffffff000 - 0xffffffffffff       1  VMSA",
        "vcpu 0 begins at 0xfffffff0, others at 0x80b004; RDX 0xa10f10",
        &format!("launch digest  {digest}  not confirmed by hardware"),
    ] {
        assert!(words.contains(says), "{says}:\n{words}");
    }
    let value = files.json(&format!("{args} --explain"));
    assert_eq!(value["v"], "touchstone/derivation/1");
    assert_eq!(value["kernel_hashes"]["kernel"], KERNEL);
    assert_eq!(value["guests"][0]["measurement"], digest);
    let last = value["guests"][0]["pages"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    assert_eq!(last["digest_after"], digest);
    // A zero of 96 digits: what the digest begins with.
    assert_eq!(value["begins_with"], "00".repeat(48));
}

/// Hashes in place of files: what dstack's guest carried gives what hardware signed.
#[test]
fn hashes_of_somebody_else_give_what_hardware_signed() {
    let folder = touchstone_testkit::fixtures::workspace_root();
    let folder: &Path = &folder.join("measurements/launch/testdata/dstack-milan");
    let run = |args: &[&str]| {
        touchstone_in(
            folder,
            &[&["measure", "snp", "--inputs", "launch_inputs.json"], args].concat(),
        )
    };
    let report = std::fs::read(folder.join("report.bin")).unwrap();
    let signed: String = report[0x90..0xc0]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let table = run(&[]);
    assert_eq!(table.code, 0, "{}", table.stderr);
    let row = table.stdout.lines().last().unwrap();
    assert!(
        row.contains(signed.as_str()) && row.ends_with("  dstack-milan"),
        "{row}"
    );
    let explained = run(&["--explain"]).stdout;
    assert!(
        explained.contains("begins with    ffb57e393469a497"),
        "{explained}"
    );
    assert!(explained.contains(signed.as_str()));
    // A manifest names files; there are none.
    run(&["--json"]).refused(1, "usage");
}
