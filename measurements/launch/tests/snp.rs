//! Launch digests: beside a second implementation, by every ingredient, and what is refused.

use std::path::Path;

use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType};
use touchstone_launch::ovmf::{Guid, OvmfError, SectionKind};
use touchstone_launch::snp::{Cpu, Firmware, Guest, Kernel, Launch, Page, PageKind, SnpError, Vmm};
use touchstone_launch::{Sha256, Sha384};
use touchstone_testkit::firmware::{self, pair};

const SIZES: [usize; 3] = [4096, 64 << 10, 1 << 20];

fn guest(vcpus: u32, cpu: &str, features: u64) -> Guest {
    let cpu = Cpu::named(cpu);
    Guest {
        vcpus,
        cpu,
        features,
    }
}

fn kernel(kernel: &[u8], initrd: Option<&[u8]>, cmdline: &str) -> Kernel {
    Kernel::new(
        Sha256::of(kernel),
        initrd.map(Sha256::of),
        cmdline.as_bytes(),
    )
    .unwrap()
}

/// The digest of a launch under QEMU.
fn measure(image: &[u8], kernel: Option<Kernel>, guest: &Guest) -> Result<Sha384, SnpError> {
    Launch::new(Firmware::of(image)?, Vmm::Qemu, kernel)?.digest(guest)
}

fn real_images() -> Vec<(&'static str, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/virtee-sev");
    ["ovmf_AmdSev_suffix.bin", "ovmf_OvmfX64_suffix.bin"]
        .map(|name| (name, std::fs::read(folder.join(name)).unwrap()))
        .to_vec()
}

/// What `sev` computes; files, because it reads nothing else.
struct Second {
    folder: tempfile::TempDir,
}

impl Second {
    fn new(image: &[u8]) -> Second {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("firmware"), image).unwrap();
        std::fs::write(folder.path().join("kernel"), b"a kernel").unwrap();
        std::fs::write(folder.path().join("initrd"), b"an initrd").unwrap();
        Second { folder }
    }

    fn digest(
        &self,
        vmm: VMMType,
        cpu: CpuType,
        vcpus: u32,
        features: u64,
        boot: Option<(bool, &str)>,
    ) -> String {
        let file = |name: &str| self.folder.path().join(name);
        let arguments = SnpMeasurementArgs {
            vcpus,
            vcpu_type: cpu,
            ovmf_file: file("firmware"),
            guest_features: GuestFeatures(features),
            kernel_file: boot.map(|_| file("kernel")),
            initrd_file: boot.filter(|(initrd, _)| *initrd).map(|_| file("initrd")),
            append: boot.map(|(_, line)| line).filter(|line| !line.is_empty()),
            ovmf_hash_str: None,
            vmm_type: Some(vmm),
        };
        snp_calc_launch_digest(arguments).unwrap().get_hex_ld()
    }
}

#[test]
fn qemu_digests_agree_with_a_second_implementation() {
    let cpus = [
        ("EPYC-v4", CpuType::EpycV4),
        ("EPYC-Rome", CpuType::EpycRome),
        ("EPYC-Milan", CpuType::EpycMilan),
        ("EPYC-Genoa-v1", CpuType::EpycGenoaV1),
        ("EPYC-Turin-v1", CpuType::EpycTurinV1),
    ];
    let mut images: Vec<Vec<u8>> = real_images().into_iter().map(|(_, image)| image).collect();
    images.extend(SIZES.map(|size| firmware::Firmware::amd_sev(size).build()));
    let mut compared = 0;
    for image in &images {
        let second = Second::new(image);
        let hashes = Firmware::of(image).unwrap();
        let hashes = hashes
            .sections()
            .iter()
            .any(|s| s.kind == SectionKind::KernelHashes);
        let boots = [
            None,
            Some((false, "")),
            Some((true, "")),
            Some((true, "console=ttyS0")),
        ];
        for boot in boots.into_iter().filter(|boot| hashes || boot.is_none()) {
            let kernel = boot
                .map(|(initrd, line)| kernel(b"a kernel", initrd.then_some(b"an initrd"), line));
            for (name, cpu) in cpus {
                for (vcpus, features) in [(1, 1), (2, 1), (7, 0x21)] {
                    let ours = measure(image, kernel, &guest(vcpus, name, features)).unwrap();
                    let theirs = second.digest(VMMType::QEMU, cpu, vcpus, features, boot);
                    assert_eq!(ours.to_string(), theirs, "{name}, {vcpus}, {boot:?}");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, (4 * 4 + 1) * 5 * 3);
}

/// `sev` 8.0 has what EC2 put into RDX before April 2026: 0. All else of EC2's launch is the same.
#[test]
fn ec2_differs_from_a_stale_second_implementation_in_rdx_alone() {
    let image = firmware::Firmware::amd_sev(64 << 10).build();
    let launch = Launch::new(Firmware::of(&image).unwrap(), Vmm::Ec2, None).unwrap();
    let of = |vcpus| Guest {
        vcpus,
        cpu: None,
        features: 1,
    };
    let theirs = Second::new(&image).digest(VMMType::EC2, CpuType::EpycV4, 2, 1, None);
    assert_ne!(launch.digest(&of(2)).unwrap().to_string(), theirs);

    let derivation = launch.derivation(&[of(2)]).unwrap();
    assert_eq!(derivation.guests[0].rdx, 0x600);
    let eips = derivation.guests[0].eip;
    let mut digest = derivation.common.last().unwrap().after;
    for eip in eips {
        let mut page = touchstone_launch::snp::vmsa::Vmsa::at_start(Vmm::Ec2, eip, 0, 1).page();
        assert_eq!(page[0x310..0x318], 0x600_u64.to_le_bytes());
        page[0x310..0x318].fill(0);
        digest = Page::vmsa(&page).extend(digest);
    }
    assert_eq!(digest.to_string(), theirs);
}

#[test]
fn every_ingredient_counts() {
    let image = firmware::Firmware::amd_sev(64 << 10).build();
    let (k, i, line) = (
        b"a kernel".as_slice(),
        Some(b"an initrd".as_slice()),
        "quiet",
    );
    let shape = guest(2, "EPYC-Genoa", 1);
    let all = |kernel, shape: &Guest| measure(&image, kernel, shape).unwrap();
    let base = all(Some(kernel(k, i, line)), &shape);
    assert_eq!(base, all(Some(kernel(k, i, line)), &shape));
    let mut seen = vec![base];
    let mut differs = |what: &str, digest: Sha384| {
        assert!(!seen.contains(&digest), "{what}");
        seen.push(digest);
    };
    differs("kernel", all(Some(kernel(b"b kernel", i, line)), &shape));
    differs(
        "initrd",
        all(Some(kernel(k, Some(b"bn initrd"), line)), &shape),
    );
    differs("no initrd", all(Some(kernel(k, None, line)), &shape));
    differs("line", all(Some(kernel(k, i, "quiet ")), &shape));
    differs("no line", all(Some(kernel(k, i, "")), &shape));
    differs("no kernel", all(None, &shape));
    differs(
        "vcpus",
        all(Some(kernel(k, i, line)), &guest(3, "EPYC-Genoa", 1)),
    );
    differs(
        "cpu",
        all(Some(kernel(k, i, line)), &guest(2, "EPYC-Milan", 1)),
    );
    differs(
        "features",
        all(Some(kernel(k, i, line)), &guest(2, "EPYC-Genoa", 3)),
    );
    // A byte of each page, the table at its end left as it is.
    for page in 0..16 {
        let mut image = image.clone();
        image[page * 4096 + 7] ^= 1;
        differs(
            "firmware",
            measure(&image, Some(kernel(k, i, line)), &shape).unwrap(),
        );
    }
    for vmm in [Vmm::Ec2, Vmm::Gce] {
        let launch = Launch::new(Firmware::of(&image).unwrap(), vmm, None).unwrap();
        let shape = Guest {
            cpu: None,
            ..shape.clone()
        };
        differs(vmm.name(), launch.digest(&shape).unwrap());
    }
}

/// Each change of an image that is measured, and what refuses it.
#[test]
fn firmware_that_cannot_be_measured_is_refused() {
    type Change = fn(&mut firmware::Firmware);
    let cases: &[(&str, Change, &str)] = &[
        (
            "no metadata",
            |f| f.sections = None,
            "no SEV metadata in its GUID table",
        ),
        ("signature", |f| f.signature = *b"ASEW", "signature is"),
        ("version", |f| f.version = 2, "version is 0x2, expected 0x1"),
        ("length", |f| f.excess = 12, "length is 0x64, expected 0x58"),
        ("no section", |f| f.sections = Some(vec![]), "0 sections"),
        (
            "many",
            |f| f.sections = Some(vec![(0, 4096, 1); 65]),
            "65 sections",
        ),
        (
            "outside",
            |f| f.metadata_from_end = 1 << 20,
            "is outside it",
        ),
        (
            "beginning at the end",
            |f| f.metadata_from_end = 0,
            "is outside it",
        ),
        (
            "cut off by the end",
            |f| f.metadata_from_end = 16,
            "is outside it",
        ),
        (
            "type",
            |f| f.sections.as_mut().unwrap()[0].2 = 5,
            "section 0: unknown type 0x5",
        ),
        (
            "misaligned",
            |f| f.sections.as_mut().unwrap()[1].0 += 1,
            "does not consist of pages",
        ),
        (
            "part of a page",
            |f| f.sections.as_mut().unwrap()[1].1 += 1,
            "does not consist of pages",
        ),
        (
            "empty",
            |f| f.sections.as_mut().unwrap()[1].1 = 0,
            "section 1 (0x80a000, 0x0 bytes): it is empty",
        ),
        (
            "overlap",
            |f| f.sections.as_mut().unwrap()[1].0 = 0x80_8000,
            "section 1 (0x808000, 0x3000 bytes): it overlaps",
        ),
        (
            "around",
            |f| f.sections.as_mut().unwrap()[4] = (0x80_c000, 0x8000, 1),
            "it overlaps",
        ),
        (
            "twice",
            |f| f.sections.as_mut().unwrap().push((0x90_0000, 4096, 2)),
            "one of its kind already",
        ),
        (
            "two pages of CPUID",
            |f| f.sections.as_mut().unwrap()[3] = (0x90_0000, 8192, 3),
            "its kind is one page",
        ),
        (
            "over 4 GiB",
            |f| f.sections.as_mut().unwrap()[0] = (0xffff_f000, 0x2000, 1),
            "reaches into the firmware",
        ),
        (
            "over firmware",
            |f| f.sections.as_mut().unwrap()[0] = (0xffff_0000, 0x1000, 1),
            "reaches into the firmware",
        ),
        (
            "much memory",
            |f| f.sections.as_mut().unwrap()[0] = (0x1000_0000, 0x0500_0000, 1),
            "more memory",
        ),
        (
            "no reset block",
            |f| f.entries.retain(|e| e.0 != firmware::SEV_ES_RESET_BLOCK),
            "no SEV-ES reset block",
        ),
        (
            "reset at 0",
            |f| f.set(firmware::SEV_ES_RESET_BLOCK, vec![0; 4]),
            "application processors cannot begin there",
        ),
        (
            "long reset block",
            |f| f.set(firmware::SEV_ES_RESET_BLOCK, vec![1; 5]),
            "5 bytes, expected 4",
        ),
        (
            "long hash table",
            |f| f.set(firmware::SEV_HASH_TABLE, vec![1; 9]),
            "9 bytes, expected 8",
        ),
        (
            "entry twice",
            |f| f.entries.push(f.entries[0].clone()),
            "stands twice",
        ),
    ];
    for (name, change, says) in cases {
        let mut firmware = firmware::Firmware::amd_sev(64 << 10);
        assert!(Firmware::of(&firmware.build()).is_ok());
        change(&mut firmware);
        let error = Firmware::of(&firmware.build()).expect_err(name).to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
}

/// The table of GUIDs: lengths that do not fit, and bytes that belong to no entry.
#[test]
fn tables_that_do_not_fit_are_refused() {
    let image = firmware::Firmware::amd_sev(4096).build();
    assert!(Firmware::of(&image).is_ok());
    // The footer's length is 50 bytes before the end; before it stands the SEV metadata's entry, of 4 + 18 bytes.
    let (footer, entry) = (4096 - 50, 4096 - 50 - 18);
    let length = u16::from_le_bytes([image[footer], image[footer + 1]]);
    for (at, length, says) in [
        (footer, 17, "length 17 is shorter than the entry itself"),
        (footer, 5000, "length 5000 is longer than the image"),
        (footer, 18, "no SEV metadata"),
        (
            footer,
            length + 1,
            "1 bytes before its first entry belong to none",
        ),
        (footer, length - 1, "longer than what is left of the table"),
        (entry, 17, "length 17 is shorter than the entry itself"),
        (
            entry,
            0xffff,
            "length 65535 is longer than what is left of the table",
        ),
    ] {
        let mut image = image.clone();
        image[at..at + 2].copy_from_slice(&length.to_le_bytes());
        let error = Firmware::of(&image).unwrap_err().to_string();
        assert!(error.contains(says), "{at}, {length}: {error}");
    }
}

#[test]
fn a_kernel_needs_firmware_that_looks_for_its_hashes() {
    let shape = guest(1, "EPYC-v4", 1);
    let boot = || Some(kernel(b"a kernel", None, ""));
    let refused = |image: &[u8]| {
        assert!(measure(image, None, &shape).is_ok());
        match measure(image, boot(), &shape) {
            Err(SnpError::Firmware(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let good = firmware::Firmware::amd_sev(64 << 10);
    assert!(measure(&good.build(), boot(), &shape).is_ok());
    // Real firmware: one of two looks for them.
    let [amd_sev, generic] = real_images().try_into().unwrap();
    assert!(measure(&amd_sev.1, boot(), &shape).is_ok());
    let missing = OvmfError::SectionMissing {
        kind: SectionKind::KernelHashes,
    };
    assert_eq!(refused(&generic.1), missing);
    let missing = OvmfError::EntryMissing {
        what: "SEV hash table",
        guid: Guid::SEV_HASH_TABLE,
    };
    assert_eq!(
        refused(&firmware::Firmware::generic(64 << 10).build()),
        missing
    );
    for (gpa, size, says) in [
        (0, 0x400, "would not be in the page"),
        (0x80_0c00, 0x400, "would not be in the page"),
        (0x81_1000, 0x400, "would not be in the page"),
        (0x81_0f51, 0x400, "would not be in the page"),
        (0x81_0c00, 175, "not enough room"),
    ] {
        let mut firmware = good.clone();
        firmware.set(firmware::SEV_HASH_TABLE, pair(gpa, size));
        let error = refused(&firmware.build()).to_string();
        assert!(error.contains(says), "{error}");
    }
    let mut edge = good.clone();
    edge.set(firmware::SEV_HASH_TABLE, pair(0x81_0f50, 176));
    assert!(measure(&edge.build(), boot(), &shape).is_ok());

    for vmm in [Vmm::Ec2, Vmm::Gce] {
        let firmware = Firmware::of(&good.build()).unwrap();
        assert!(Launch::new(firmware.clone(), vmm, None).is_ok());
        let refused = Launch::new(firmware, vmm, boot()).unwrap_err();
        assert_eq!(refused, SnpError::NoKernelHashes { vmm });
    }
}

#[test]
fn guests_that_cannot_be_are_refused() {
    let firmware = Firmware::of(&firmware::Firmware::amd_sev(64 << 10).build()).unwrap();
    let of = |vmm| Launch::new(firmware.clone(), vmm, None).unwrap();
    let (qemu, ec2) = (of(Vmm::Qemu), of(Vmm::Ec2));
    let good = guest(1, "EPYC-v4", 1);
    let bare = Guest {
        cpu: None,
        ..good.clone()
    };
    assert!(qemu.digest(&good).is_ok() && ec2.digest(&bare).is_ok());
    let vmm = Vmm::Qemu;
    assert_eq!(qemu.digest(&bare), Err(SnpError::CpuMissing { vmm }));
    let vmm = Vmm::Ec2;
    assert_eq!(ec2.digest(&good), Err(SnpError::CpuSuperfluous { vmm }));
    for found in [0, 4097, u32::MAX] {
        let shape = guest(found, "EPYC-v4", 1);
        assert_eq!(qemu.digest(&shape), Err(SnpError::Vcpus { found }));
        assert!(qemu.derivation(&[shape]).is_err());
    }
    assert!(qemu.digest(&guest(4096, "EPYC-v4", 1)).is_ok());
    let found = 0x20;
    let refused = qemu.digest(&guest(1, "EPYC-v4", found));
    assert_eq!(refused, Err(SnpError::GuestFeatures { found }));
    let refused = Kernel::new(Sha256::of(b""), None, b"a\0b");
    assert_eq!(refused, Err(SnpError::Cmdline { at: 1 }));
}

/// Who extends by the runs of a derivation comes to the digest.
#[test]
fn derivations_give_the_digest() {
    let image = firmware::Firmware::amd_sev(1 << 20).build();
    let shapes = [guest(1, "EPYC-v4", 1), guest(5, "EPYC-Turin", 1)];
    let boot = kernel(b"a kernel", None, "quiet");
    let launch = Launch::new(Firmware::of(&image).unwrap(), Vmm::Qemu, Some(boot)).unwrap();
    let derivation = launch.derivation(&shapes).unwrap();
    // The filler is one line, not 128.
    assert_eq!(derivation.common[0].count, 128);
    assert!(
        derivation
            .common
            .iter()
            .any(|run| run.first.kind == PageKind::Secrets)
    );
    for (ended, shape) in derivation.guests.iter().zip(&shapes) {
        let mut digest = Sha384::ZERO;
        for run in derivation.common.iter().chain(&ended.runs) {
            for nth in 0..u64::from(run.count) {
                let mut page = run.first;
                if page.kind != PageKind::Vmsa {
                    page.gpa += nth * 4096;
                }
                digest = page.extend(digest);
            }
            assert_eq!(digest, run.after, "{}", run.what);
        }
        assert_eq!(digest, ended.digest);
        assert_eq!(launch.digest(shape), Ok(digest));
    }
}

/// Who has only the digest of the firmware's pages comes to the same.
#[test]
fn the_firmwares_digest_stands_for_its_pages() {
    let image = firmware::Firmware::amd_sev(64 << 10).build();
    let whole = Firmware::of(&image).unwrap();
    let sections = whole.sections().to_vec();
    let short =
        |reset| Firmware::of_digest(whole.digest(), sections.clone(), Some(0x81_0c00), reset);
    let shape = guest(3, "EPYC-Rome", 1);
    let digest = |firmware: Firmware, boot| {
        Launch::new(firmware, Vmm::Qemu, boot)
            .unwrap()
            .digest(&shape)
            .unwrap()
    };
    for boot in [None, Some(kernel(b"a kernel", None, ""))] {
        let expected = digest(whole.clone(), boot);
        assert_eq!(digest(short(0x80_b004).unwrap(), boot), expected);
        assert_ne!(digest(short(0x80_b000).unwrap(), boot), expected);
    }
    assert!(short(0).is_err());
}

#[test]
fn names_and_signatures_of_cpus() {
    for (name, signature) in [
        ("EPYC-v4", 0x0080_0f12),
        ("EPYC-Rome", 0x0083_0f10),
        ("EPYC-Milan", 0x00a0_0f11),
        ("EPYC-Genoa", 0x00a1_0f10),
        ("EPYC-Turin", 0x00b0_0f00),
    ] {
        let cpu = Cpu::named(name).unwrap();
        assert_eq!(
            (cpu.signature(), cpu.to_string().as_str()),
            (signature, name)
        );
        assert_eq!(Cpu::named(&name.to_lowercase()), Some(cpu));
    }
    assert_eq!(Cpu::of_signature(0x00a1_0f10).to_string(), "0x00a10f10");
    assert_eq!(Cpu::named("EPYC-Naples"), None);
}
