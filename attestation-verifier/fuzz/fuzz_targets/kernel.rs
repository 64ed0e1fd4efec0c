//! Kernels: setup header, PE headers, and what a boot measures. The first byte is the guest's memory in units of 64 MiB.
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_launch::tdx::rtmr::{Boot, Edk2, SetupHeader, replay};

fuzz_target!(|input: &[u8]| {
    let Some((memory, kernel)) = input.split_first() else {
        return;
    };
    let Ok(boot) = Boot::new(kernel, b"initrd", "console=hvc0") else {
        return;
    };
    let as_is = boot.events(SetupHeader::AsIs, Edk2::Stable202508);
    let as_is = as_is.expect("a kernel that was read");
    let memory = u64::from(*memory) << 26;
    if let Ok(patched) = boot.events(SetupHeader::Patched { memory }, Edk2::Stable202508) {
        assert_eq!(patched.len(), as_is.len());
        assert_eq!(replay(&patched, 2), replay(&as_is, 2));
    }
});
