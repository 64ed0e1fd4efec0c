//! Firmware images: their TDX metadata, and MRTD in every order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_launch::ovmf::Ovmf;
use touchstone_launch::tdx::mrtd::{PageAddOrder, derivation, mrtd};
use touchstone_launch::tdx::tdvf::Tdvf;

fuzz_target!(|input: &[u8]| {
    let Ok(ovmf) = Ovmf::parse(input) else {
        return;
    };
    let Ok(tdvf) = Tdvf::parse(&ovmf) else {
        return;
    };
    for section in tdvf.sections() {
        assert!(section.data.len() as u64 <= section.size);
        assert!(!section.measured || section.data.len() as u64 == section.size);
    }
    // Thousands of pages are slow to measure and tell nothing that a few do not.
    let pages: u64 = tdvf.sections().iter().map(|section| section.pages()).sum();
    if pages > 256 {
        return;
    }
    for order in PageAddOrder::ALL {
        let steps = derivation(&tdvf, order);
        assert!(
            steps
                .iter()
                .all(|step| step.section < tdvf.sections().len())
        );
        assert_eq!(
            steps.last().map(|step| step.after),
            Some(mrtd(&tdvf, order))
        );
    }
});
