//! The registers that a virtual CPU begins with: the page that is its save area (VMSA), AMD 24593 (APM volume 2) table B-4.

use super::Vmm;
use crate::ovmf::PAGE;

/// Where the first virtual CPU begins: 16 bytes below 4 GiB.
pub const RESET_VECTOR: u32 = 0xffff_fff0;

/// A segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    offset: usize,
    selector: u16,
    attributes: u16,
    limit: u32,
    base: u64,
}

/// A virtual CPU's registers at the start, as far as they are not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vmsa {
    eip: u32,
    segments: [Segment; 10],
    pat: u64,
    rdx: u64,
    features: u64,
    mxcsr: u32,
    x87_control: u16,
}

/// What VMMs let virtual CPUs begin with, where they differ.
struct Start {
    code: u16,
    stack: u16,
    task: u16,
    pat: u64,
    rdx: u64,
    mxcsr: u32,
    x87_control: u16,
}

impl Start {
    fn of(vmm: Vmm, eip: u32, signature: u32) -> Start {
        // PAT after reset: APM volume 2 §7.8.2.
        const PAT: u64 = 0x0007_0406_0007_0406;
        // What EDX holds after reset tells the CPU. QEMU writes its model's signature there. EC2 and Google leave what KVM puts
        // there before it knows a model, family 6 (`kvm_vcpu_reset` in Linux). On EC2 it was 0 once, which `sev` 8.0 still
        // computes; its owners corrected `sev-snp-measure` in April 2026 (virtee/sev-snp-measure, pull request 60).
        const NO_MODEL: u64 = 0x600;
        match vmm {
            Vmm::Qemu => Start {
                code: 0x9b,
                stack: 0x93,
                task: 0x8b,
                pat: PAT,
                rdx: signature.into(),
                mxcsr: 0x1f80,
                x87_control: 0x37f,
            },
            Vmm::Ec2 => Start {
                code: if eip == RESET_VECTOR { 0x9a } else { 0x9b },
                stack: 0x92,
                task: 0x83,
                pat: PAT,
                rdx: NO_MODEL,
                mxcsr: 0,
                x87_control: 0,
            },
            Vmm::Gce => Start {
                code: 0x9b,
                stack: 0x93,
                task: 0x8b,
                pat: 0x0007_0106,
                rdx: NO_MODEL,
                mxcsr: 0,
                x87_control: 0,
            },
        }
    }
}

impl Vmsa {
    /// Of a virtual CPU that begins at `eip`, on a CPU of this signature, with these SEV_FEATURES.
    pub fn at_start(vmm: Vmm, eip: u32, signature: u32, features: u64) -> Vmsa {
        let start = Start::of(vmm, eip, signature);
        let segment = |offset, attributes| Segment {
            offset,
            selector: 0,
            attributes,
            limit: 0xffff,
            base: 0,
        };
        let code = Segment {
            selector: 0xf000,
            base: (eip & 0xffff_0000).into(),
            ..segment(0x10, start.code)
        };
        let data = 0x93;
        Vmsa {
            eip,
            segments: [
                segment(0x00, data), // ES
                code,
                segment(0x20, start.stack),
                segment(0x30, data), // DS
                segment(0x40, data), // FS
                segment(0x50, data), // GS
                segment(0x60, 0),    // GDTR
                segment(0x70, 0x82), // LDTR
                segment(0x80, 0),    // IDTR
                segment(0x90, start.task),
            ],
            pat: start.pat,
            rdx: start.rdx,
            features,
            mxcsr: start.mxcsr,
            x87_control: start.x87_control,
        }
    }

    /// Where it begins.
    pub fn eip(&self) -> u32 {
        self.eip
    }

    /// What RDX holds.
    pub fn rdx(&self) -> u64 {
        self.rdx
    }

    /// The page.
    pub fn page(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        let mut put = |offset: usize, bytes: &[u8]| {
            let place = page.iter_mut().skip(offset).zip(bytes);
            place.for_each(|(place, byte)| *place = *byte);
        };
        for segment in &self.segments {
            put(segment.offset, &segment.selector.to_le_bytes());
            put(segment.offset + 2, &segment.attributes.to_le_bytes());
            put(segment.offset + 4, &segment.limit.to_le_bytes());
            put(segment.offset + 8, &segment.base.to_le_bytes());
        }
        for (offset, value) in [
            (0x0d0, 0x1000),                       // EFER: SVME, which KVM sets
            (0x148, 0x40),                         // CR4: MCE, which KVM sets
            (0x158, 0x10),                         // CR0: ET
            (0x160, 0x400),                        // DR7
            (0x168, 0xffff_0ff0),                  // DR6
            (0x170, 2),                            // RFLAGS: the bit that is always set
            (0x178, u64::from(self.eip & 0xffff)), // RIP
            (0x268, self.pat),                     // G_PAT
            (0x310, self.rdx),                     // RDX
            (0x3b0, self.features),                // SEV_FEATURES
            (0x3e8, 1),                            // XCR0: x87
        ] {
            put(offset, &value.to_le_bytes());
        }
        put(0x408, &self.mxcsr.to_le_bytes());
        put(0x410, &self.x87_control.to_le_bytes());
        page
    }
}
