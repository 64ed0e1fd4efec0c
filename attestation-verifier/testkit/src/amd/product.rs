//! AMD's server products and what differs between them.

use std::fmt;
use std::str::FromStr;

/// A product line of EPYC processors, by AMD's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Product {
    /// Third generation, family 19h models 00h–0Fh.
    Milan,
    /// Fourth generation, family 19h models 10h–1Fh.
    Genoa,
    /// Fifth generation, family 1Ah models 00h–1Fh.
    Turin,
}

impl Product {
    /// All of them.
    pub const ALL: [Product; 3] = [Product::Milan, Product::Genoa, Product::Turin];

    /// AMD's name, as in `ARK-Milan`.
    pub fn name(self) -> &'static str {
        match self {
            Product::Milan => "Milan",
            Product::Genoa => "Genoa",
            Product::Turin => "Turin",
        }
    }

    /// `productName` of a VCEK: real Milan certificates name a stepping, later ones do not.
    pub fn vcek_product_name(self) -> &'static str {
        match self {
            Product::Milan => "Milan-B0",
            other => other.name(),
        }
    }

    /// CPUID family, model and stepping as reports from version 3 on hold them.
    pub fn cpuid(self) -> [u8; 3] {
        match self {
            Product::Milan => [0x19, 0x01, 0x01],
            Product::Genoa => [0x19, 0x11, 0x01],
            Product::Turin => [0x1a, 0x02, 0x01],
        }
    }

    /// Length of `hwID` in a VCEK, and of the part of CHIP_ID that is not zero: 8 bytes on Turin, else 64.
    pub fn hwid_length(self) -> usize {
        if self == Product::Turin { 8 } else { 64 }
    }

    /// A TCB above every floor known in 2026 (AMD-SB-3019 and its neighbours), so that a strict policy has no
    /// quarrel with it.
    pub fn high_tcb(self) -> Tcb {
        match self {
            Product::Milan => Tcb {
                fmc: 0,
                bootloader: 4,
                tee: 0,
                snp: 0x1c,
                microcode: 0xdf,
            },
            Product::Genoa => Tcb {
                fmc: 0,
                bootloader: 0x0b,
                tee: 0,
                snp: 0x1d,
                microcode: 0x5a,
            },
            Product::Turin => Tcb {
                fmc: 1,
                bootloader: 2,
                tee: 1,
                snp: 5,
                microcode: 0x54,
            },
        }
    }

    /// Firmware versions (build, minor, major) that go with it, as in CURRENT_* and COMMITTED_*.
    pub fn firmware(self) -> [u8; 3] {
        match self {
            Product::Milan => [0x2d, 0x37, 1],
            Product::Genoa => [0x2d, 0x37, 1],
            Product::Turin => [0x3a, 0x37, 1],
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Product {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Product::ALL
            .into_iter()
            .find(|p| p.name() == text)
            .ok_or_else(|| format!("unknown product {text:?}: expected Milan, Genoa or Turin"))
    }
}

/// Security patch levels of one TCB version (AMD 56860, TCB_VERSION).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcb {
    /// FMC firmware; Turin only.
    pub fmc: u8,
    /// Boot loader.
    pub bootloader: u8,
    /// PSP operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

impl Tcb {
    /// The eight bytes of a report. Turin's layout is its own.
    pub fn to_bytes(self, product: Product) -> [u8; 8] {
        match product {
            Product::Turin => [
                self.fmc,
                self.bootloader,
                self.tee,
                self.snp,
                0,
                0,
                0,
                self.microcode,
            ],
            _ => [
                self.bootloader,
                self.tee,
                0,
                0,
                0,
                0,
                self.snp,
                self.microcode,
            ],
        }
    }

    /// The inverse of [`Tcb::to_bytes`]; reserved bytes are dropped.
    pub fn from_bytes(bytes: [u8; 8], product: Product) -> Self {
        let [a, b, c, d, _, _, g, h] = bytes;
        match product {
            Product::Turin => Tcb {
                fmc: a,
                bootloader: b,
                tee: c,
                snp: d,
                microcode: h,
            },
            _ => Tcb {
                fmc: 0,
                bootloader: a,
                tee: b,
                snp: g,
                microcode: h,
            },
        }
    }
}
