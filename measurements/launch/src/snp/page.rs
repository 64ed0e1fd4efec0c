//! Pages, and how each extends the launch digest: AMD 56860 §8.17.2, the table PAGE_INFO.

use ring::digest::{Context, SHA384};

use crate::hash::Sha384;

/// The address that the pages of registers are recorded under: all ones, cut to the width of an address and to pages.
pub const VMSA_GPA: u64 = 0xffff_ffff_f000;

/// Length of PAGE_INFO in bytes.
const PAGE_INFO_SIZE: u16 = 0x70;

/// PAGE_TYPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Contents are measured.
    Normal = 1,
    /// The registers of a virtual CPU; contents are measured.
    Vmsa = 2,
    /// Zeros.
    Zero = 3,
    /// Contents are not measured.
    Unmeasured = 4,
    /// Filled by the secure processor; contents are not measured.
    Secrets = 5,
    /// CPUID values, which the secure processor checks; contents are not measured.
    Cpuid = 6,
}

impl PageKind {
    /// Its name in the ABI.
    pub fn name(self) -> &'static str {
        match self {
            PageKind::Normal => "NORMAL",
            PageKind::Vmsa => "VMSA",
            PageKind::Zero => "ZERO",
            PageKind::Unmeasured => "UNMEASURED",
            PageKind::Secrets => "SECRETS",
            PageKind::Cpuid => "CPUID",
        }
    }
}

/// A page, as it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its type.
    pub kind: PageKind,
    /// Guest physical address.
    pub gpa: u64,
    /// Digest of its contents; zeros where those are not measured.
    pub contents: Sha384,
}

impl Page {
    /// A page whose contents are measured.
    pub fn normal(gpa: u64, bytes: &[u8]) -> Page {
        let (kind, contents) = (PageKind::Normal, Sha384::of(bytes));
        Page {
            kind,
            gpa,
            contents,
        }
    }

    /// The page of a virtual CPU's registers.
    pub fn vmsa(bytes: &[u8]) -> Page {
        let (kind, gpa, contents) = (PageKind::Vmsa, VMSA_GPA, Sha384::of(bytes));
        Page {
            kind,
            gpa,
            contents,
        }
    }

    /// A page whose contents are not measured.
    pub fn empty(kind: PageKind, gpa: u64) -> Page {
        let contents = Sha384::ZERO;
        Page {
            kind,
            gpa,
            contents,
        }
    }

    /// The launch digest after this page: the digest of PAGE_INFO, which begins with the one before it.
    pub fn extend(&self, before: Sha384) -> Sha384 {
        let mut info = Context::new(&SHA384);
        info.update(&before.0); // DIGEST_CUR
        info.update(&self.contents.0); // CONTENTS
        info.update(&PAGE_INFO_SIZE.to_le_bytes()); // LENGTH
        info.update(&[self.kind as u8]); // PAGE_TYPE
        // IMI_PAGE, then the permissions of VMPL3 to VMPL1 and a reserved byte: no VMM here uses them.
        info.update(&[0; 5]);
        info.update(&self.gpa.to_le_bytes()); // GPA
        Sha384::finish(info)
    }
}

/// The launch digest after these pages.
pub fn extend<'a>(before: Sha384, pages: impl IntoIterator<Item = &'a Page>) -> Sha384 {
    let pages = pages.into_iter();
    pages.fold(before, |digest, page| page.extend(digest))
}
