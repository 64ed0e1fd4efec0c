//! Bytes that were changed: a digest changes, or they are refused; nothing panics.

use touchstone_launch::Sha384;
use touchstone_launch::tdx::mrtd::PageAddOrder;
use touchstone_launch::tdx::rtmr::{BootError, Edk2, SetupHeader};

use crate::support::{Firmware, Kernel, MEMORY, PATCHED, boot, measure, put};

const EDK2: Edk2 = Edk2::Stable202508;

#[test]
fn a_changed_byte_of_code_changes_mrtd() {
    let firmware = Firmware::new(0x1000, 0x1000);
    let mut image = firmware.image();
    for order in PageAddOrder::ALL {
        let right = measure(&image, order).unwrap();
        for at in (0x1000..0x2000).step_by(5) {
            image[at] ^= 0x10;
            assert_ne!(measure(&image, order), Ok(right), "{at:#x}");
            image[at] ^= 0x10;
        }
        // Variables are measured by the firmware, into RTMR0.
        image[0x123] ^= 1;
        assert_eq!(measure(&image, order), Ok(right));
        image[0x123] ^= 1;
    }
}

#[test]
fn no_firmware_makes_it_panic() {
    let image = Firmware::new(0x1000, 0x1000).image();
    for pages in 0..2 {
        assert!(measure(&image[..pages * 0x1000], PageAddOrder::OnePass).is_err());
        assert!(measure(&image[pages * 0x1000 + 1..], PageAddOrder::OnePass).is_err());
    }
    // The metadata and the table of GUIDs, byte by byte.
    let metadata = 0x2000 - 0xc00;
    for at in (metadata..metadata + 16 + 6 * 32).chain(0x2000 - 32 - 40..0x2000 - 32) {
        for value in [0, 1, 2, 0x7f, 0x80, 0xff] {
            let mut image = image.clone();
            image[at] = value;
            for order in PageAddOrder::ALL {
                let _ = measure(&image, order);
            }
        }
        // As numbers of 32 and 64 bits.
        for wide in [u64::MAX, u64::MAX - 0xfff, 1 << 63, (1 << 32) - 1] {
            let mut image = image.clone();
            put(&mut image, at.min(0x2000 - 8), &wide.to_le_bytes());
            let _ = measure(&image, PageAddOrder::TwoPass);
        }
    }
}

fn boots(kernel: &[u8], header: SetupHeader) -> Result<[Sha384; 2], BootError> {
    boot(kernel, b"initrd", "quiet", header, EDK2)
}

#[test]
fn a_changed_byte_of_a_kernel_changes_rtmr1() {
    let kernel = Kernel::default().image();
    let header = 0x40;
    let checksum = header + 24 + 64..header + 24 + 68;
    let signature = kernel.len() - 0x5c0..kernel.len();
    // type_of_loader, ramdisk_image, ramdisk_size, heap_end_ptr, cmd_line_ptr: QEMU writes over them.
    let written = [0x210..0x211, 0x218..0x220, 0x224..0x226, 0x228..0x22c];
    for setup in [SetupHeader::AsIs, PATCHED] {
        let right = boots(&kernel, setup).unwrap();
        for at in (0..0x400).chain((0x400..kernel.len()).step_by(97)) {
            let mut changed = kernel.clone();
            changed[at] ^= 0x04;
            let found = boots(&changed, setup);
            let unmeasured = checksum.contains(&at)
                || signature.contains(&at)
                || (setup == PATCHED && written.iter().any(|range| range.contains(&at)));
            assert_eq!(found == Ok(right), unmeasured, "{at:#x}, {}", setup.name());
        }
    }
}

#[test]
fn no_kernel_makes_it_panic() {
    let kernel = Kernel::default().image();
    for size in (0..0x1000).chain((0x1000..kernel.len()).step_by(61)) {
        assert!(boots(&kernel[..size], PATCHED).is_err(), "{size:#x}");
    }
    for at in 0..0x400 {
        for value in [0, 0x7f, 0xff] {
            let mut changed = kernel.clone();
            changed[at] = value;
            let _ = boots(&changed, PATCHED);
            put(&mut changed, at, &[value; 4]);
            let _ = boots(&changed, SetupHeader::AsIs);
        }
    }
}

#[test]
fn initrd_and_command_line_change_rtmr2() {
    let kernel = Kernel::default().image();
    let measure =
        |initrd: &[u8], cmdline: &str| boot(&kernel, initrd, cmdline, PATCHED, EDK2).unwrap();
    let [rtmr1, rtmr2] = measure(b"initrd", "quiet");
    for (initrd, cmdline) in [
        ("initre", "quiet"),
        ("initrd", "quies"),
        ("initrd", "quiet "),
    ] {
        let [changed1, changed2] = measure(initrd.as_bytes(), cmdline);
        assert_eq!(changed1, rtmr1);
        assert_ne!(changed2, rtmr2);
    }
    // QEMU writes its size into the kernel, and its place, which another size of memory moves.
    let [longer, _] = measure(b"initrd.", "quiet");
    assert_ne!(longer, rtmr1);
    let more = SetupHeader::Patched {
        memory: MEMORY + 4096,
    };
    assert_ne!(
        boot(&kernel, b"initrd", "quiet", more, EDK2).unwrap()[0],
        rtmr1
    );
    let as_is = boot(&kernel, b"initrd", "quiet", SetupHeader::AsIs, EDK2).unwrap();
    assert_ne!(as_is[0], rtmr1);
    assert_eq!(as_is[1], rtmr2);
    let older = boot(&kernel, b"initrd", "quiet", PATCHED, Edk2::Stable202411).unwrap();
    assert_eq!(older[0], rtmr1);
    assert_ne!(older[1], rtmr2);
}
