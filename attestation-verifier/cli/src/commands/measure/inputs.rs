//! What goes into a launch digest, as somebody else hashed it: `sev_snp_measurement` as dstack's guests carry it.

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use touchstone_launch::ovmf::{MAX_SECTIONS, OvmfError, Section, SectionKind};
use touchstone_launch::snp::{Cpu, Firmware, Guest, Kernel, SnpError};
use touchstone_launch::{Sha256, Sha384};

/// Hashes in place of files.
pub struct Inputs {
    firmware: Sha384,
    sections: Vec<Section>,
    hash_table: u32,
    reset_eip: u32,
    kernel: Sha256,
    initrd: Sha256,
    cmdline: String,
    /// The one shape they are of.
    pub guest: Guest,
}

/// The file; what else dstack keeps in it is not looked at.
#[derive(Deserialize)]
struct File {
    sev_snp_measurement: Written,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    ovmf_hash: String,
    ovmf_sections: Vec<WrittenSection>,
    sev_hashes_table_gpa: u32,
    sev_es_reset_eip: u32,
    kernel_hash: String,
    initrd_hash: String,
    base_cmdline: String,
    vcpus: u32,
    vcpu_type: String,
    guest_features: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSection {
    gpa: u32,
    size: u32,
    section_type: u32,
}

impl Inputs {
    /// Reads them.
    pub fn parse(text: &str) -> Result<Inputs> {
        let File {
            sev_snp_measurement: written,
        } = serde_json::from_str(text)?;
        let count = written.ovmf_sections.len();
        if count > MAX_SECTIONS {
            return Err(anyhow!(
                "ovmf_sections: {count}; expected at most {MAX_SECTIONS}"
            ));
        }
        let sections = written.ovmf_sections.iter().map(|section| {
            let WrittenSection {
                gpa,
                size,
                section_type,
            } = *section;
            let kind = SectionKind::of(section_type)
                .ok_or_else(|| anyhow!("ovmf_sections: unknown section_type {section_type}"))?;
            Ok(Section { gpa, size, kind })
        });
        let cpu = Cpu::named(&written.vcpu_type)
            .ok_or_else(|| anyhow!("vcpu_type {:?} is unknown", written.vcpu_type))?;
        Ok(Inputs {
            firmware: written.ovmf_hash.parse().context("ovmf_hash")?,
            sections: sections.collect::<Result<_>>()?,
            hash_table: written.sev_hashes_table_gpa,
            reset_eip: written.sev_es_reset_eip,
            kernel: written.kernel_hash.parse().context("kernel_hash")?,
            initrd: written.initrd_hash.parse().context("initrd_hash")?,
            cmdline: written.base_cmdline,
            guest: Guest {
                vcpus: written.vcpus,
                cpu: Some(cpu),
                features: written.guest_features,
            },
        })
    }

    /// The firmware.
    pub fn firmware(&self) -> Result<Firmware, OvmfError> {
        let sections = self.sections.clone();
        Firmware::of_digest(
            self.firmware,
            sections,
            Some(self.hash_table),
            self.reset_eip,
        )
    }

    /// What boots after it.
    pub fn kernel(&self) -> Result<Kernel, SnpError> {
        Kernel::new(self.kernel, Some(self.initrd), self.cmdline.as_bytes())
    }
}
