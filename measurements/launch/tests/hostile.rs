//! Firmware that nobody would write: no panic, no unbounded work, whatever the bytes.

use std::path::Path;

use touchstone_launch::Sha256;
use touchstone_launch::ovmf::{MAX_FIRMWARE, MAX_SECTIONS, Ovmf, OvmfError};
use touchstone_launch::snp::{Cpu, Firmware, Guest, Kernel, Launch, Vmm};
use touchstone_testkit::firmware;

/// Reads and measures it in every way; returns whether it could be measured at all.
fn endure(image: &[u8]) -> bool {
    if let Ok(ovmf) = Ovmf::parse(image) {
        let _ = (
            ovmf.tdx_metadata_offset(),
            ovmf.reset_eip(),
            ovmf.hash_table(),
        );
        if let Ok(sections) = ovmf.sev_sections() {
            assert!(!sections.is_empty() && sections.len() <= MAX_SECTIONS);
        }
    }
    let Ok(firmware) = Firmware::of(image) else {
        return false;
    };
    let kernel = Kernel::new(Sha256::of(b"kernel"), None, b"").unwrap();
    for (vmm, kernel) in [
        (Vmm::Qemu, None),
        (Vmm::Qemu, Some(kernel)),
        (Vmm::Ec2, None),
        (Vmm::Gce, None),
    ] {
        let guest = Guest {
            vcpus: 2,
            cpu: vmm.depends_on_cpu().then(|| Cpu::named("EPYC-v4").unwrap()),
            features: 1,
        };
        if let Ok(launch) = Launch::new(firmware.clone(), vmm, kernel) {
            assert_eq!(
                launch
                    .derivation(std::slice::from_ref(&guest))
                    .unwrap()
                    .guests[0]
                    .digest,
                launch.digest(&guest).unwrap()
            );
        }
    }
    true
}

fn images() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/virtee-sev");
    let real = ["ovmf_AmdSev_suffix.bin", "ovmf_OvmfX64_suffix.bin"];
    let mut images: Vec<Vec<u8>> = real
        .iter()
        .map(|name| std::fs::read(folder.join(name)).unwrap())
        .collect();
    images.push(firmware::Firmware::amd_sev(8192).build());
    images
}

#[test]
fn every_truncation_is_refused() {
    for image in images() {
        assert!(endure(&image));
        for length in 0..image.len() {
            // From either side: the table is at the end.
            assert!(!endure(&image[..length]), "the first {length}");
            let tail = &image[image.len() - length..];
            assert!(length == 4096 || !endure(tail), "the last {length}");
        }
    }
}

#[test]
fn random_changes_are_endured() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut measured, mut refused) = (0, 0);
    for image in images() {
        // What is read is in the last 1,600 bytes.
        let first = image.len() - 1600;
        for _ in 0..3000 {
            let mut image = image.clone();
            for _ in 0..=random(4) {
                let at = first + random(1600 - 32);
                image[at] = match random(4) {
                    0 => 0,
                    1 => 0xff,
                    2 => image[at] ^ 1 << random(8),
                    _ => random(256) as u8,
                };
            }
            match endure(&image) {
                true => measured += 1,
                false => refused += 1,
            }
        }
    }
    assert!(measured > 500 && refused > 500, "{measured}, {refused}");
}

#[test]
fn sizes_are_bounded() {
    let fits = firmware::Firmware::amd_sev(MAX_FIRMWARE).build();
    assert!(Ovmf::parse(&fits).is_ok());
    let found = MAX_FIRMWARE + 4096;
    let large = firmware::Firmware::amd_sev(found).build();
    assert_eq!(
        Firmware::of(&large).unwrap_err(),
        OvmfError::TooLarge { found }
    );
    for found in [0, 1, 4095, 4097, 6144] {
        assert_eq!(
            Ovmf::parse(&vec![0; found]).unwrap_err(),
            OvmfError::NotPages { found }
        );
    }
    assert!(matches!(
        Ovmf::parse(&[0; 4096]),
        Err(OvmfError::NoTable { .. })
    ));
}
