//! Quotes from the Linux kernel's own interfaces, inside a confidential VM.
//!
//! - [`Tsm`]: configfs-tsm, for SEV-SNP and TDX (Linux 6.7 and later; the kernel's
//!   `Documentation/ABI/testing/configfs-tsm`).
//! - [`SevGuest`]: the device `/dev/sev-guest` (Linux 5.19 and later), for kernels without configfs-tsm.
//!
//! Calls block for as long as the platform takes, which for a throttled SEV-SNP guest is a minute: whoever cannot wait
//! calls them on a thread of its own. Everything read has a bound. What comes back is what the platform gave, unjudged:
//! the caller compares the report data in it, and a verifier the rest.
//!
//! **Why not the crate `sev` for the device.** Its `Firmware` opens one path that cannot be chosen, and follows the
//! offsets and lengths in the certificate table by raw pointers, unchecked (`parse_table`, 8.0.0). That table comes from
//! the *host*, from outside of what SEV-SNP protects: a hostile one could have the enclave's memory read and handed out
//! as a certificate. Here the table is bytes, and one `unsafe` call in `ioctl.rs` is all there is.

mod error;
mod files;
mod ioctl;
mod sev_guest;
mod tsm;

use std::fmt;

use touchstone_formats::evidence::Tee;

pub use error::SourceError;
pub use sev_guest::SevGuest;
pub use tsm::{Tsm, is_entry_name};

/// Most bytes of a report that are taken: configfs-tsm's own limit (`TSM_OUTBLOB_MAX`).
pub const MAX_REPORT: usize = 32 * 1024;
/// Most bytes of certificates that are taken: likewise. `/dev/sev-guest` gives at most 16 KiB.
pub const MAX_CERTIFICATES: usize = 32 * 1024;
/// The highest privilege level (SEV-SNP: VMPL) that can be asked for; 0 is the lowest number and the most privileged.
pub const MAX_PRIVILEGE: u8 = 3;

/// A quote as the platform gave it.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    /// The platform's kind, as the kernel says.
    pub tee: Tee,
    /// SEV-SNP: the attestation report. TDX: the quote, perhaps followed by zeros.
    pub quote: Vec<u8>,
    /// SEV-SNP: the certificate table (GHCB specification 2.03, section 4.1.8.1) that the **host** put beside the report,
    /// as it is. `None`: there is none, or nothing but zeros.
    pub certificates: Option<Vec<u8>>,
    /// The privilege level that was asked for.
    pub privilege: Option<u8>,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("tee", &self.tee)
            .field("quote_bytes", &self.quote.len())
            .field(
                "certificates_bytes",
                &self.certificates.as_ref().map(Vec::len),
            )
            .field("privilege", &self.privilege)
            .finish()
    }
}

/// What is behind configfs-tsm: its attribute `provider`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// `sev_guest`: AMD SEV-SNP.
    SevGuest,
    /// `tdx_guest`: Intel TDX.
    TdxGuest,
}

impl Provider {
    /// The provider of this name; `None`: one whose reports nothing here can read.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "sev_guest" => Some(Self::SevGuest),
            "tdx_guest" => Some(Self::TdxGuest),
            _ => None,
        }
    }

    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SevGuest => "sev_guest",
            Self::TdxGuest => "tdx_guest",
        }
    }

    /// What its reports are.
    pub fn tee(self) -> Tee {
        match self {
            Self::SevGuest => Tee::SevSnp,
            Self::TdxGuest => Tee::Tdx,
        }
    }
}

/// Either interface.
#[derive(Debug)]
pub enum Source {
    /// configfs-tsm.
    Tsm(Tsm),
    /// `/dev/sev-guest`.
    SevGuest(SevGuest),
}

impl Source {
    /// Asks for a quote over these 64 bytes.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn quote(&mut self, report_data: &[u8; 64]) -> Result<Report, SourceError> {
        match self {
            Self::Tsm(tsm) => tsm.quote(report_data),
            Self::SevGuest(device) => device.quote(report_data),
        }
    }

    /// The platform's kind.
    ///
    /// # Errors
    /// [`SourceError`]; configfs-tsm is asked again, since a provider can go.
    pub fn tee(&self) -> Result<Tee, SourceError> {
        match self {
            Self::Tsm(tsm) => Ok(tsm.provider()?.tee()),
            Self::SevGuest(_) => Ok(Tee::SevSnp),
        }
    }
}

/// A certificate table that says something: nothing but zeros is what the kernel gives where the host gave nothing.
fn some_certificates(table: Vec<u8>) -> Option<Vec<u8>> {
    table.iter().any(|&byte| byte != 0).then_some(table)
}
