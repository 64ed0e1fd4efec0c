//! The launch digest of SEV-SNP: what a report's MEASUREMENT is, computed from firmware, kernel, initrd and command line.
//!
//! AMD's secure processor extends the digest by every page that a VM begins with ([`page`]). In this order: the pages of the
//! firmware; the memory that its SEV metadata names, among it the page with the hashes of kernel, initrd and command line
//! ([`kernel`]); the registers of each virtual CPU ([`vmsa`]). Which type each page has, and what the registers hold, is
//! the VMM's choice: [`Vmm`].
//!
//! Sources: AMD 56860 (SEV-SNP firmware ABI) §8.17; AMD 24593 (APM volume 2) appendix B; QEMU, `target/i386/sev.c`; EDK II,
//! `OvmfPkg/ResetVector`.

pub mod cpu;
pub mod derivation;
pub mod kernel;
pub mod page;
pub mod vmsa;

pub use cpu::Cpu;
pub use derivation::Derivation;
pub use kernel::Kernel;
pub use page::{Page, PageKind};

use crate::hash::Sha384;
use crate::ovmf::{
    FOUR_GIB, HashTableArea, Ovmf, OvmfError, PAGE, Section, SectionKind, check_sections,
};

/// The most virtual CPUs that are measured: as many as KVM runs.
pub const MAX_VCPUS: u32 = 4096;

/// Bit 0 of SEV_FEATURES: SEV-SNP is active. Without it a guest is none of SEV-SNP's.
pub const SNP_ACTIVE: u64 = 1;

/// Why there is no launch digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnpError {
    /// Firmware that cannot be measured.
    #[error(transparent)]
    Firmware(#[from] OvmfError),
    /// A kernel for a VMM that starts firmware alone.
    #[error(
        "vmm {}: it puts no hashes of a kernel into guest memory, so the launch digest can bind none", vmm.name()
    )]
    NoKernelHashes {
        /// The VMM.
        vmm: Vmm,
    },
    /// A number of virtual CPUs that no VM has.
    #[error("vcpus: {found}; expected 1 to {MAX_VCPUS}")]
    Vcpus {
        /// How many.
        found: u32,
    },
    /// SEV_FEATURES of a guest that is none of SEV-SNP's.
    #[error("guest features: {found:#x}; expected bit 0 (SEV-SNP active) to be set")]
    GuestFeatures {
        /// The features.
        found: u64,
    },
    /// A digest that depends on the CPU, and no CPU.
    #[error("vmm {}: the launch digest depends on the CPU model, and none is given", vmm.name())]
    CpuMissing {
        /// The VMM.
        vmm: Vmm,
    },
    /// A CPU, and a digest that does not depend on it.
    #[error("vmm {}: the launch digest does not depend on the CPU model; give none", vmm.name())]
    CpuSuperfluous {
        /// The VMM.
        vmm: Vmm,
    },
    /// A command line that no kernel can be given.
    #[error("command line: a NUL at byte {at}; expected none, it ends the line")]
    Cmdline {
        /// Where.
        at: usize,
    },
}

/// Virtual machine monitors, which differ in how they launch a guest.
///
/// libkrun is not among them: it loads kernel and initrd into guest memory itself and boots no OVMF, so nothing that is derived
/// from an OVMF image is its launch digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vmm {
    /// QEMU with KVM.
    Qemu,
    /// Amazon EC2.
    Ec2,
    /// Google Compute Engine.
    Gce,
}

impl Vmm {
    /// All of them.
    pub const ALL: [Vmm; 3] = [Vmm::Qemu, Vmm::Ec2, Vmm::Gce];

    /// Its name on the command line and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Vmm::Qemu => "qemu",
            Vmm::Ec2 => "ec2",
            Vmm::Gce => "gce",
        }
    }

    /// Whether it puts the hashes of kernel, initrd and command line into the page that firmware has for them.
    pub fn hashes_kernel(self) -> bool {
        self == Vmm::Qemu
    }

    /// Whether registers at the start tell the CPU model.
    pub fn depends_on_cpu(self) -> bool {
        self == Vmm::Qemu
    }
}

/// Firmware, as far as it is measured.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// Its pages; none where only their digest is known.
    pages: Vec<Page>,
    /// The launch digest after them.
    digest: Sha384,
    sections: Vec<Section>,
    hash_table: Option<HashTableArea>,
    reset_eip: u32,
}

impl Firmware {
    /// Of an image: up to [`crate::ovmf::MAX_FIRMWARE`] bytes, hashed once.
    pub fn of(image: &[u8]) -> Result<Firmware, OvmfError> {
        let ovmf = Ovmf::parse(image)?;
        let sections = ovmf.sev_sections()?;
        let hash_table = ovmf.hash_table()?;
        let reset_eip = ovmf.reset_eip()?;
        let starts = (ovmf.gpa()..FOUR_GIB).step_by(PAGE);
        let pages: Vec<Page> = starts
            .zip(image.chunks_exact(PAGE))
            .map(|(gpa, bytes)| Page::normal(gpa, bytes))
            .collect();
        Ok(Firmware {
            digest: page::extend(Sha384::ZERO, &pages),
            pages,
            sections,
            hash_table,
            reset_eip,
        })
    }

    /// Of what somebody else computed from an image: the launch digest after its pages, and what it says about itself. `hash_table`
    /// is the address at which it looks for hashes, `None` if it looks for none. The image's size is not known, so sections are
    /// only held to end below 4 GiB.
    pub fn of_digest(
        digest: Sha384,
        sections: Vec<Section>,
        hash_table: Option<u32>,
        reset_eip: u32,
    ) -> Result<Firmware, OvmfError> {
        check_sections(&sections, FOUR_GIB)?;
        if reset_eip == 0 {
            return Err(OvmfError::Address {
                what: "SEV-ES reset block",
                gpa: 0,
                wrong: "application processors cannot begin there",
            });
        }
        Ok(Firmware {
            pages: Vec::new(),
            digest,
            sections,
            hash_table: hash_table.map(|gpa| HashTableArea {
                gpa,
                size: kernel::TABLE_SIZE as u32,
            }),
            reset_eip,
        })
    }

    /// The launch digest after the firmware's pages, which is what `sev-snp-measure` and dstack call its OVMF hash.
    pub fn digest(&self) -> Sha384 {
        self.digest
    }

    /// The memory that its metadata names, in the order it is measured in.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Where the table of hashes is put in the page of [`SectionKind::KernelHashes`]: an offset in that page.
    fn hash_table_offset(&self) -> Result<usize, OvmfError> {
        let what = "SEV hash table";
        let area = self.hash_table.ok_or(OvmfError::EntryMissing {
            what,
            guid: crate::ovmf::Guid::SEV_HASH_TABLE,
        })?;
        let kind = SectionKind::KernelHashes;
        let section = self.sections.iter().find(|section| section.kind == kind);
        let section = section.ok_or(OvmfError::SectionMissing { kind })?;
        let wrong = |wrong| OvmfError::Address {
            what,
            gpa: area.gpa.into(),
            wrong,
        };
        if (area.size as usize) < kernel::TABLE_SIZE {
            return Err(wrong("there is not enough room for the table"));
        }
        let offset = area.gpa.checked_sub(section.gpa).map(|at| at as usize);
        offset
            .filter(|at| at + kernel::TABLE_SIZE <= PAGE)
            .ok_or_else(|| wrong("the table would not be in the page of SNP_KERNEL_HASHES"))
    }
}

/// One shape of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Virtual CPUs: 1 to [`MAX_VCPUS`].
    pub vcpus: u32,
    /// Its CPU model; `None` exactly where the VMM's digest does not depend on it.
    pub cpu: Option<Cpu>,
    /// SEV_FEATURES (APM volume 2, table B-4); bit 0 is set.
    pub features: u64,
}

/// A launch, ready to be measured for guests of several shapes: what they have in common is hashed once.
#[derive(Clone, Debug)]
pub struct Launch {
    vmm: Vmm,
    firmware: Vec<Page>,
    firmware_digest: Sha384,
    sections: Vec<(SectionKind, Page)>,
    digest: Sha384,
    reset_eip: u32,
    kernel: Option<(u64, Kernel)>,
}

impl Launch {
    /// Of this firmware, and with this kernel where there is one: then it must be a VMM that hashes kernels, and firmware that
    /// looks for the hashes.
    pub fn new(firmware: Firmware, vmm: Vmm, kernel: Option<Kernel>) -> Result<Launch, SnpError> {
        if kernel.is_some() && !vmm.hashes_kernel() {
            return Err(SnpError::NoKernelHashes { vmm });
        }
        let hashes = match &kernel {
            None => None,
            Some(kernel) => Some(kernel.page(firmware.hash_table_offset()?)),
        };
        let mut sections: Vec<(SectionKind, Page)> = Vec::new();
        for section in &firmware.sections {
            let hashes = hashes.as_deref();
            let pages = (section.gpa..section.gpa.saturating_add(section.size)).step_by(PAGE);
            sections.extend(pages.map(|gpa| {
                let page = section_page(section.kind, gpa.into(), vmm, hashes);
                (section.kind, page)
            }));
        }
        if vmm == Vmm::Ec2 {
            // EC2 adds the CPUID page behind all others.
            sections.sort_by_key(|(kind, _)| *kind == SectionKind::Cpuid);
        }
        let digest = page::extend(firmware.digest, sections.iter().map(|(_, page)| page));
        let table = firmware.hash_table.map_or(0, |area| area.gpa.into());
        Ok(Launch {
            vmm,
            firmware_digest: firmware.digest,
            firmware: firmware.pages,
            sections,
            digest,
            reset_eip: firmware.reset_eip,
            kernel: kernel.map(|kernel| (table, kernel)),
        })
    }

    /// The VMM.
    pub fn vmm(&self) -> Vmm {
        self.vmm
    }

    /// The launch digest for a guest of this shape.
    pub fn digest(&self, guest: &Guest) -> Result<Sha384, SnpError> {
        let [first, other] = self.vmsa_pages(guest)?;
        let others = std::iter::repeat_n(&other, guest.vcpus.saturating_sub(1) as usize);
        let pages = std::iter::once(&first).chain(others);
        Ok(page::extend(self.digest, pages))
    }

    /// The evidence, signed by hardware, that confirms how this digest is computed; `None` if there is none.
    pub fn confirmed(&self, guest: &Guest) -> Option<&'static str> {
        let found = CONFIRMED.iter().find(|known| {
            known.vmm == self.vmm
                && known.kernel_hashes == self.kernel.is_some()
                && known.vcpus == guest.vcpus
                && known.cpu_signature == guest.cpu.as_ref().map(Cpu::signature)
                && known.features == guest.features
        });
        found.map(|known| known.evidence)
    }

    /// The pages of the first virtual CPU's registers, and of each other's.
    fn vmsa_pages(&self, guest: &Guest) -> Result<[Page; 2], SnpError> {
        Ok(self.registers(guest)?.map(|vmsa| Page::vmsa(&vmsa.page())))
    }

    /// The registers of the first virtual CPU, and of each other.
    fn registers(&self, guest: &Guest) -> Result<[vmsa::Vmsa; 2], SnpError> {
        let Guest {
            vcpus,
            cpu,
            features,
        } = guest;
        if !(1..=MAX_VCPUS).contains(vcpus) {
            return Err(SnpError::Vcpus { found: *vcpus });
        }
        if features & SNP_ACTIVE == 0 {
            return Err(SnpError::GuestFeatures { found: *features });
        }
        let vmm = self.vmm;
        let signature = match (cpu, vmm.depends_on_cpu()) {
            (Some(cpu), true) => cpu.signature(),
            (None, false) => 0,
            (None, true) => return Err(SnpError::CpuMissing { vmm }),
            (Some(_), false) => return Err(SnpError::CpuSuperfluous { vmm }),
        };
        Ok([vmsa::RESET_VECTOR, self.reset_eip]
            .map(|eip| vmsa::Vmsa::at_start(vmm, eip, signature, *features)))
    }
}

/// The page at `gpa` of a section. `hashes` is what the page for them holds, where there is a kernel.
fn section_page(kind: SectionKind, gpa: u64, vmm: Vmm, hashes: Option<&[u8]>) -> Page {
    match (kind, hashes) {
        (SectionKind::SecMemory, _) if vmm == Vmm::Gce => Page::empty(PageKind::Unmeasured, gpa),
        (SectionKind::Secrets, _) => Page::empty(PageKind::Secrets, gpa),
        (SectionKind::Cpuid, _) => Page::empty(PageKind::Cpuid, gpa),
        (SectionKind::KernelHashes, Some(bytes)) => Page::normal(gpa, bytes),
        _ => Page::empty(PageKind::Zero, gpa),
    }
}

/// A shape of launch for which a report signed by hardware was recomputed.
struct Confirmed {
    evidence: &'static str,
    vmm: Vmm,
    kernel_hashes: bool,
    vcpus: u32,
    cpu_signature: Option<u32>,
    features: u64,
}

/// Every one there is. `tests/hardware.rs` recomputes them.
const CONFIRMED: &[Confirmed] = &[Confirmed {
    evidence: "dstack-milan",
    vmm: Vmm::Qemu,
    kernel_hashes: true,
    vcpus: 2,
    cpu_signature: Some(cpu::signature(0x17, 1, 2)), // EPYC-v4
    features: SNP_ACTIVE,
}];
