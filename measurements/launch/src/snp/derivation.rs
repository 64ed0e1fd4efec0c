//! A launch digest, page by page.

use super::{Guest, Kernel, Launch, Page, PageKind, SnpError};
use crate::hash::Sha384;
use crate::ovmf::PAGE;

/// Pages of the same kind and contents, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What they are: `firmware`, a section's name, `registers of vcpu 0`.
    pub what: String,
    /// The first of them.
    pub first: Page,
    /// How many.
    pub count: u32,
    /// The launch digest after the last.
    pub after: Sha384,
}

impl Run {
    /// Guest physical address of the last byte. Pages of registers are all recorded under one address.
    pub fn last_byte(&self) -> u64 {
        let pages = match self.first.kind {
            PageKind::Vmsa => 1,
            _ => u64::from(self.count),
        };
        self.first.gpa + pages * PAGE as u64 - 1
    }

    /// Whether this page of this name is the next of this run.
    fn goes_on(&self, what: &str, page: &Page) -> bool {
        let next = match page.kind {
            PageKind::Vmsa => self.first.gpa,
            _ => self.last_byte() + 1,
        };
        self.what == what
            && (self.first.kind, self.first.contents) == (page.kind, page.contents)
            && next == page.gpa
    }
}

/// How a launch digest comes about. Its runs, extended one after the other from zeros (or from the firmware's digest, where its
/// pages are not known), give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// What extending begins with.
    pub before: Sha384,
    /// The firmware's pages, then those of sections: the same for guests of every shape.
    pub common: Vec<Run>,
    /// Address of the table of hashes, and the hashes; where there is a kernel.
    pub kernel: Option<(u64, Kernel)>,
    /// For each guest: its registers.
    pub guests: Vec<GuestDerivation>,
}

/// The end of a guest's launch digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestDerivation {
    /// Its shape.
    pub guest: Guest,
    /// Where its first virtual CPU begins, and each other.
    pub eip: [u32; 2],
    /// What each begins with in RDX.
    pub rdx: u64,
    /// The pages of registers.
    pub runs: Vec<Run>,
    /// The launch digest.
    pub digest: Sha384,
}

impl Launch {
    /// How the digests of these guests come about.
    pub fn derivation(&self, guests: &[Guest]) -> Result<Derivation, SnpError> {
        let known = !self.firmware.is_empty();
        let before = if known {
            Sha384::ZERO
        } else {
            self.firmware_digest
        };
        let firmware = self.firmware.iter().map(|page| ("firmware", *page));
        let sections = self.sections.iter();
        let sections = sections.map(|(kind, page)| (kind.name(), *page));
        let mut guest_derivations = Vec::with_capacity(guests.len());
        for guest in guests {
            let [first, other] = self.vmsa_pages(guest)?;
            let registers = self.registers(guest)?;
            let others = (1..guest.vcpus).map(|_| ("registers of each other vcpu", other));
            let pages = std::iter::once(("registers of vcpu 0", first)).chain(others);
            guest_derivations.push(GuestDerivation {
                guest: guest.clone(),
                eip: registers.each_ref().map(|vmsa| vmsa.eip()),
                rdx: registers[0].rdx(),
                runs: runs(self.digest, pages),
                digest: self.digest(guest)?,
            });
        }
        Ok(Derivation {
            before,
            common: runs(before, firmware.chain(sections)),
            kernel: self.kernel,
            guests: guest_derivations,
        })
    }
}

/// Pages with what they are, as runs; `before` is the launch digest before the first.
fn runs<'a>(before: Sha384, pages: impl Iterator<Item = (&'a str, Page)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut digest = before;
    for (what, page) in pages {
        digest = page.extend(digest);
        match runs.last_mut() {
            Some(run) if run.goes_on(what, &page) => {
                run.count += 1;
                run.after = digest;
            }
            _ => runs.push(Run {
                what: what.to_owned(),
                first: page,
                count: 1,
                after: digest,
            }),
        }
    }
    runs
}
