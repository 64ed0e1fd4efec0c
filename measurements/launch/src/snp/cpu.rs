//! CPU models and their signatures: what CPUID says in EAX of leaf 1, and what QEMU lets a virtual CPU begin with in EDX.

use std::fmt;

/// A CPU model of QEMU's, or a bare signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    name: Option<&'static str>,
    signature: u32,
}

/// Names, and the family, model and stepping of each (QEMU, `builtin_x86_defs` in `target/i386/cpu.c`). The versions of a model
/// differ in features and caches, never in these three.
#[rustfmt::skip]
const MODELS: &[(&str, u32)] = &[
    ("EPYC", signature(0x17, 1, 2)),
    ("EPYC-v1", signature(0x17, 1, 2)),
    ("EPYC-v2", signature(0x17, 1, 2)),
    ("EPYC-IBPB", signature(0x17, 1, 2)),
    ("EPYC-v3", signature(0x17, 1, 2)),
    ("EPYC-v4", signature(0x17, 1, 2)),
    ("EPYC-v5", signature(0x17, 1, 2)),
    ("EPYC-Rome", signature(0x17, 49, 0)),
    ("EPYC-Rome-v1", signature(0x17, 49, 0)),
    ("EPYC-Rome-v2", signature(0x17, 49, 0)),
    ("EPYC-Rome-v3", signature(0x17, 49, 0)),
    ("EPYC-Rome-v4", signature(0x17, 49, 0)),
    ("EPYC-Rome-v5", signature(0x17, 49, 0)),
    ("EPYC-Milan", signature(0x19, 1, 1)),
    ("EPYC-Milan-v1", signature(0x19, 1, 1)),
    ("EPYC-Milan-v2", signature(0x19, 1, 1)),
    ("EPYC-Milan-v3", signature(0x19, 1, 1)),
    ("EPYC-Genoa", signature(0x19, 17, 0)),
    ("EPYC-Genoa-v1", signature(0x19, 17, 0)),
    ("EPYC-Genoa-v2", signature(0x19, 17, 0)),
    ("EPYC-Turin", signature(0x1a, 0, 0)),
    ("EPYC-Turin-v1", signature(0x1a, 0, 0)),
];

/// The signature of family, model and stepping, as CPUID gives it (AMD 25481, Fn0000_0001_EAX). Families from 15 up to
/// 15 + 255, models up to 255, steppings up to 15.
pub const fn signature(family: u32, model: u32, stepping: u32) -> u32 {
    let (base, extended) = match family.checked_sub(0xf) {
        Some(extended) => (0xf, extended & 0xff),
        None => (family, 0),
    };
    extended << 20 | (model >> 4 & 0xf) << 16 | base << 8 | (model & 0xf) << 4 | (stepping & 0xf)
}

impl Cpu {
    /// The model of this name, in either case.
    pub fn named(name: &str) -> Option<Cpu> {
        let found = MODELS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(name, signature)| Cpu {
            name: Some(name),
            signature: *signature,
        })
    }

    /// One that has no name here.
    pub fn of_signature(signature: u32) -> Cpu {
        Cpu {
            name: None,
            signature,
        }
    }

    /// The names that [`Cpu::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MODELS.iter().map(|(name, _)| *name)
    }

    /// Its signature.
    pub fn signature(&self) -> u32 {
        self.signature
    }
}

/// The name, or else the signature in hexadecimal.
impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#010x}", self.signature),
        }
    }
}
