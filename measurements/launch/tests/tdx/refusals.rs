//! What is refused, and as what. Each stands beside a twin that is not.

use touchstone_launch::ovmf::OvmfError;
use touchstone_launch::tdx::kernel::KernelError;
use touchstone_launch::tdx::mrtd::PageAddOrder;
use touchstone_launch::tdx::pe::PeError;
use touchstone_launch::tdx::rtmr::{BootError, Edk2, MAX_CMDLINE, SetupHeader};
use touchstone_launch::tdx::tdvf::{SectionKind, TdvfError};

use touchstone_testkit::firmware::SEV_METADATA;

use crate::support::{Entry, Firmware, Kernel, PATCHED, boot, measure, put};

/// Changes firmware that is measured before the change.
fn firmware(change: impl FnOnce(&mut Firmware)) -> TdvfError {
    let mut firmware = Firmware::new(0x2000, 0x2000);
    let measured = |firmware: &Firmware| measure(&firmware.image(), PageAddOrder::OnePass);
    measured(&firmware).unwrap();
    change(&mut firmware);
    measured(&firmware).unwrap_err()
}

#[test]
fn firmware_without_tdx_metadata() {
    let found = firmware(|firmware| firmware.guid = SEV_METADATA);
    assert_eq!(found, TdvfError::NoMetadata);
    let found = measure(&[0; 0x4000], PageAddOrder::OnePass).unwrap_err();
    assert!(matches!(found, TdvfError::Ovmf(OvmfError::NoTable { .. })));
}

#[test]
fn headers_of_another_form() {
    let signature = u32::from_le_bytes(*b"TDVG");
    for (field, index, found, expected) in [
        ("signature", 0, signature, u32::from_le_bytes(*b"TDVF")),
        ("length", 1, 16 + 6 * 32 + 1, 16 + 6 * 32),
        ("version", 2, 2, 1),
    ] {
        let error = firmware(|firmware| firmware.header[index] = Some(found));
        let wrong = TdvfError::Header {
            field,
            found,
            expected,
        };
        assert_eq!(error, wrong);
    }
    for found in [0, 65, u32::MAX] {
        let error = firmware(|firmware| firmware.header[3] = Some(found));
        assert_eq!(error, TdvfError::SectionCount { found });
    }
}

#[test]
fn sections_that_cannot_be_measured() {
    let error = firmware(|firmware| firmware.sections[2].kind = 4);
    assert_eq!(error, TdvfError::SectionType { index: 2, found: 4 });
    let error = firmware(|firmware| firmware.sections[0].attributes = 3);
    assert_eq!(error, TdvfError::Attributes { index: 0, found: 3 });
    for (index, change, expected) in [
        (2, (|s| s.size = 0) as fn(&mut Entry), "it is empty"),
        (2, |s| s.gpa += 8, "it does not consist of pages"),
        (2, |s| s.size += 8, "it does not consist of pages"),
        (
            2,
            |s| s.gpa = u64::MAX - 0xfff,
            "it reaches behind the last address",
        ),
        (0, |s| s.raw += 1, "its bytes are more than its memory"),
        (0, |s| s.raw = 0, "its kind has bytes in the image"),
        (2, |s| s.raw = 1, "its kind has no bytes in the image"),
        (4, |s| s.raw = 1, "its kind has no bytes in the image"),
        (0, |s| s.offset += 1, "its bytes end outside the image"),
        (
            0,
            |s| s.offset = u32::MAX,
            "its bytes end outside the image",
        ),
        (
            0,
            |s| s.raw -= 1,
            "it is measured, and not all of its memory is bytes of the image",
        ),
        (
            2,
            |s| s.attributes = 1,
            "it is measured, and not all of its memory is bytes of the image",
        ),
        (0, |s| s.attributes = 0, "it is code, and not measured"),
        (3, |s| s.gpa -= 0x1000, "it overlaps another"),
        (3, |s| s.gpa = 0xffff_f000, "it overlaps another"),
        (
            5,
            |s| {
                s.kind = 2;
            },
            "there is one of its kind already",
        ),
        (
            5,
            |s| {
                s.gpa = 1 << 40;
                s.size = 1 << 30;
            },
            "there is more memory in sections than firmware can need",
        ),
    ] {
        let error = firmware(|firmware| change(&mut firmware.sections[index]));
        let TdvfError::Section {
            index: at, wrong, ..
        } = error
        else {
            panic!("{error}");
        };
        assert!(wrong.starts_with(expected), "{wrong}; expected {expected}");
        // Of two that overlap, the later one is named.
        assert!(at == index || expected == "it overlaps another");
    }
    for (index, kind) in [(0, SectionKind::Bfv), (4, SectionKind::TdHob)] {
        let error = firmware(|firmware| {
            firmware.sections.remove(index);
        });
        assert_eq!(error, TdvfError::Missing { kind });
    }
}

/// Changes a kernel that is measured before the change.
fn kernel(change: impl FnOnce(&mut Vec<u8>)) -> BootError {
    let mut image = Kernel::default().image();
    let measured = |image: &[u8]| boot(image, b"initrd", "", SetupHeader::AsIs, Edk2::Stable202411);
    measured(&image).unwrap();
    change(&mut image);
    measured(&image).unwrap_err()
}

#[test]
fn kernels_that_are_none_or_too_old() {
    let error = kernel(|image| image[0x202] = b'h');
    assert_eq!(error, KernelError::NotLinux.into());
    let error = kernel(|image| put(image, 0x206, &0x20bu16.to_le_bytes()));
    assert_eq!(error, KernelError::Protocol { found: 0x20b }.into());
    let error = kernel(|image| image[0x211] = 0x40);
    assert_eq!(error, KernelError::LoadedLow { found: 0x40 }.into());
    let error = kernel(|image| image.truncate(0xfff));
    let short = KernelError::TooShort {
        found: 0xfff,
        expected: 0x1000,
    };
    assert_eq!(error, short.into());
    for (at, byte, field) in [
        (0, b'Z', "DOS signature"),
        (0x40, b'Q', "signature"),
        (0x44, 0x63, "machine"),
        (0x58, 0x0c, "format"),
    ] {
        let error = kernel(|image| image[at] = byte);
        let BootError::Kernel(KernelError::Pe(PeError::Field { field: found, .. })) = error else {
            panic!("{error}");
        };
        assert_eq!(found, field);
    }
}

#[test]
fn kernels_of_which_bytes_would_not_be_measured() {
    // The table of sections: .text first, then .setup; the place is behind name and two numbers, then size and offset.
    let table = 0x40 + 24 + 112 + 8 * 6;
    let size_of = |index: usize| table + 40 * index + 16;
    for (at, number, what) in [
        (size_of(0) + 4, 0x1200u32, "section"),
        (size_of(0) + 4, 0xe00, "section"),
        (size_of(1), 0xa00, "section"),
        (size_of(0), 0x1_0000, "section"),
        (size_of(0), 0x2201, "signature"),
        (0x40 + 24 + 60, 0x100, "headers"),
        (0x40 + 24 + 60, 0x1_0000, "headers"),
        (0x40 + 24 + 112 + 32, 0x3000, "signature"),
        (0x40 + 24 + 112 + 36, 0x5c1, "signature"),
        (0x40 + 24 + 112 + 36, 0, "section"),
    ] {
        let error = kernel(|image| {
            put(image, at, &number.to_le_bytes());
            // Without a signature, what is left must still be refused for itself.
            if number == 0 {
                put(image, size_of(0), &0x1_0000u32.to_le_bytes());
            }
        });
        let BootError::Kernel(KernelError::Pe(PeError::Layout { what: found, .. })) = error else {
            panic!("{at:#x}: {error}");
        };
        assert_eq!(found, what, "{at:#x}");
    }
    let error = kernel(|image| put(image, 0x46, &97u16.to_le_bytes()));
    let many = KernelError::from(PeError::SectionCount { found: 97 });
    assert_eq!(error, many.into());
}

#[test]
fn boots_that_qemu_or_firmware_would_change() {
    let kernel = Kernel::default().image();
    let boot = |initrd: &[u8], cmdline: &str, header| {
        boot(&kernel, initrd, cmdline, header, Edk2::Stable202508)
    };
    boot(b"i", "a=b", PATCHED).unwrap();
    assert_eq!(boot(b"", "a=b", PATCHED), Err(BootError::NoInitrd));
    assert_eq!(boot(b"i", "vga=0x123", PATCHED), Err(BootError::Vga));
    boot(b"i", "vga=0x123", SetupHeader::AsIs).unwrap();
    for (cmdline, offset, found) in [("a\n", 1, b'\n'), ("a\0b", 1, 0), ("é", 0, 0xc3)] {
        let wrong = BootError::CmdlineByte { offset, found };
        assert_eq!(boot(b"i", cmdline, SetupHeader::AsIs), Err(wrong));
    }
    boot(b"i", &"a".repeat(MAX_CMDLINE), PATCHED).unwrap();
    let found = MAX_CMDLINE + 1;
    let long = BootError::CmdlineLength { found };
    assert_eq!(boot(b"i", &"a".repeat(found), PATCHED), Err(long));
    // Memory: what QEMU keeps for ACPI tables, a page for the initrd, and one byte.
    let fits = |memory| boot(b"i", "", SetupHeader::Patched { memory });
    fits(0x2_8000 + 3).unwrap();
    for memory in [0, 1, 0x2_8000, 0x2_8000 + 2] {
        let error = fits(memory).unwrap_err();
        let BootError::Kernel(KernelError::InitrdDoesNotFit { size: 1, .. }) = error else {
            panic!("{error}");
        };
    }
}
