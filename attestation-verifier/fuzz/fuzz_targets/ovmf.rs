//! Firmware images: what they say about themselves, and their launch digests under every VMM.
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_launch::Sha256;
use touchstone_launch::ovmf::{MAX_SECTIONS, Ovmf};
use touchstone_launch::snp::{Cpu, Firmware, Guest, Kernel, Launch, Vmm};

fuzz_target!(|input: &[u8]| {
    if let Ok(ovmf) = Ovmf::parse(input) {
        let _ = (ovmf.reset_eip(), ovmf.hash_table());
        if let Ok(Some(offset)) = ovmf.tdx_metadata_offset() {
            assert!(offset < input.len());
        }
        if let Ok(sections) = ovmf.sev_sections() {
            assert!(sections.len() <= MAX_SECTIONS);
        }
    }
    let Ok(firmware) = Firmware::of(input) else {
        return;
    };
    // Thousands of pages of sections are slow to measure and tell nothing that a few do not.
    let memory: u32 = firmware.sections().iter().map(|section| section.size).sum();
    if memory > 1 << 20 {
        return;
    }
    let kernel = Kernel::new(Sha256::of(b"kernel"), None, b"").expect("no NUL");
    for vmm in Vmm::ALL {
        let guest = Guest {
            vcpus: 2,
            cpu: vmm.depends_on_cpu().then(|| Cpu::of_signature(0x00a1_0f10)),
            features: 1,
        };
        let kernel = vmm.hashes_kernel().then_some(kernel);
        if let Ok(launch) = Launch::new(firmware.clone(), vmm, kernel) {
            let derivation = launch
                .derivation(std::slice::from_ref(&guest))
                .expect("a guest that can be");
            assert_eq!(launch.digest(&guest), Ok(derivation.guests[0].digest));
        }
    }
});
