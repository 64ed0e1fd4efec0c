//! AMD products, as the CPUID fields of a report and the names in certificates say them.

use std::fmt;

/// A product line: one line has one ARK at AMD's key distribution service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// EPYC 7003 (Zen 3).
    Milan,
    /// EPYC 9004, 97x4, 8004 (Zen 4).
    Genoa,
    /// EPYC 9005 (Zen 5).
    Turin,
}

/// Words of `snp.product`.
pub(crate) const PRODUCTS: &[&str] = &["Milan", "Genoa", "Turin"];

/// Keys of TCB floors: products, and the variants whose microcode numbers run separately.
pub(crate) const FLOOR_KEYS: &[&str] = &[
    "Milan",
    "Milan-X",
    "Genoa",
    "Genoa-X",
    "Bergamo",
    "Turin",
    "Turin-Dense",
];

impl Product {
    /// The name AMD's key distribution service knows.
    pub fn name(self) -> &'static str {
        match self {
            Product::Milan => "Milan",
            Product::Genoa => "Genoa",
            Product::Turin => "Turin",
        }
    }

    /// The product whose name this is, exactly.
    pub fn from_name(name: &str) -> Option<Product> {
        match name {
            "Milan" => Some(Product::Milan),
            "Genoa" => Some(Product::Genoa),
            "Turin" => Some(Product::Turin),
            _ => None,
        }
    }

    /// Product of a CPUID family and model (extended ones included), as a report has them.
    ///
    /// AMD ABI 56860, ATTESTATION_REPORT, CPUID_FAM_ID and CPUID_MOD_ID; model ranges from AMD's
    /// processor programming references.
    pub fn from_cpuid(family: u8, model: u8) -> Option<Product> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Product::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Product::Genoa),
            (0x1a, 0x00..=0x1f) => Some(Product::Turin),
            _ => None,
        }
    }

    /// Whether TCB versions have the layout that begins with the FMC, and HWIDs have 8 bytes.
    pub fn has_fmc(self) -> bool {
        self == Product::Turin
    }

    /// Length of the HWID in a VCEK certificate (AMD 57230, table of extensions).
    pub fn hwid_length(self) -> usize {
        if self.has_fmc() { 8 } else { 64 }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// CPUID family, model and stepping, as a report of version 3 or later has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpuid {
    /// Extended family plus family.
    pub family: u8,
    /// Extended model and model.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

impl Cpuid {
    /// The name under which TCB floors of this part are kept: the product, or the variant whose
    /// microcode revisions run apart from it (their low byte is the microcode's TCB component).
    pub fn variant(self) -> Option<&'static str> {
        let product = Product::from_cpuid(self.family, self.model)?;
        Some(match (product, self.model, self.stepping) {
            (Product::Milan, 0x01, 2) => "Milan-X",
            (Product::Genoa, 0x11, 2) => "Genoa-X",
            (Product::Genoa, 0xa0..=0xaf, _) => "Bergamo",
            (Product::Turin, 0x10..=0x1f, _) => "Turin-Dense",
            (product, _, _) => product.name(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_have_floors_of_their_own() {
        let variant = |family, model, stepping| {
            Cpuid {
                family,
                model,
                stepping,
            }
            .variant()
        };
        assert_eq!(variant(0x19, 0x01, 1), Some("Milan"));
        assert_eq!(variant(0x19, 0x01, 2), Some("Milan-X"));
        assert_eq!(variant(0x19, 0x11, 1), Some("Genoa"));
        assert_eq!(variant(0x19, 0x11, 2), Some("Genoa-X"));
        assert_eq!(variant(0x19, 0xa0, 2), Some("Bergamo"));
        assert_eq!(variant(0x1a, 0x02, 1), Some("Turin"));
        assert_eq!(variant(0x1a, 0x11, 0), Some("Turin-Dense"));
        assert_eq!(variant(0x1a, 0x50, 0), None);
        assert_eq!(variant(0x19, 0x20, 0), None);
        assert_eq!(variant(0x17, 0x31, 0), None);
    }
}
