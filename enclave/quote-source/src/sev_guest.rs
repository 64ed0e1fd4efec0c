//! `/dev/sev-guest`: the driver of SEV-SNP guests, asked directly.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use touchstone_formats::evidence::Tee;

use crate::{
    MAX_PRIVILEGE, Report, SourceError,
    ioctl::{self, CERTIFICATES, Outcome, REPORT_REQUEST, RESPONSE},
    some_certificates,
};

/// Bytes of an attestation report (AMD 56860, table 23).
const REPORT: usize = 1_184;
/// Where it stands in the response (`MSG_REPORT_RSP`, AMD 56860): after status, length and 24 reserved bytes.
const REPORT_AT: usize = 32;
/// The host wants more room for certificates (GHCB specification, section 4.1.8: `SNP_GUEST_VMM_ERR_INVALID_LEN`).
const HOST_INVALID_LENGTH: u32 = 1;
/// The host is throttling (`SNP_GUEST_VMM_ERR_BUSY`).
const HOST_BUSY: u32 = 2;

/// The device, open.
#[derive(Debug)]
pub struct SevGuest {
    device: File,
    path: PathBuf,
    vmpl: Option<u8>,
}

impl SevGuest {
    /// Opens the device (`/dev/sev-guest`). `vmpl` is the privilege level to ask for, 0 to 3, no more privileged than the
    /// guest runs at; `None` is 0.
    ///
    /// # Errors
    /// [`SourceError::Absent`] where there is no such device, [`SourceError::Privilege`]; the others as they come.
    pub fn open(device: &Path, vmpl: Option<u8>) -> Result<Self, SourceError> {
        if let Some(asked) = vmpl.filter(|&vmpl| vmpl > MAX_PRIVILEGE) {
            return Err(SourceError::Privilege {
                path: device.to_owned(),
                asked,
                expected: format!("expected 0 to {MAX_PRIVILEGE}"),
            });
        }
        let file = File::open(device).map_err(|error| SourceError::of(device, "opening", error))?;
        Ok(Self {
            device: file,
            path: device.to_owned(),
            vmpl,
        })
    }

    /// Asks for a quote over these 64 bytes, with the host's certificates if it has any and they fit into 16 KiB.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn quote(&mut self, report_data: &[u8; 64]) -> Result<Report, SourceError> {
        let mut request = [0; REPORT_REQUEST];
        request[..64].copy_from_slice(report_data);
        request[64..68].copy_from_slice(&u32::from(self.vmpl.unwrap_or(0)).to_le_bytes());
        let mut response = [0; RESPONSE];
        let mut certificates = Box::new([0; CERTIFICATES]);

        let called =
            ioctl::extended_report(&self.device, &request, &mut response, &mut certificates);
        // The driver has then asked for a plain report, so as not to encrypt twice with one number; kernels differ in
        // whether they hand it out.
        let too_many = called.host == HOST_INVALID_LENGTH;
        if too_many && called.result.is_err() {
            response = [0; RESPONSE];
            self.succeeded(ioctl::report(&self.device, &request, &mut response))?;
        } else if !too_many {
            self.succeeded(called)?;
        }
        let quote = self.read_response(&response)?;
        let certificates = (!too_many)
            .then(|| certificates.to_vec())
            .and_then(some_certificates);
        Ok(Report {
            tee: Tee::SevSnp,
            quote,
            certificates,
            privilege: self.vmpl,
        })
    }

    fn succeeded(&self, outcome: Outcome) -> Result<(), SourceError> {
        let Outcome {
            result,
            firmware,
            host,
        } = outcome;
        let error = match result {
            Ok(()) => return Ok(()),
            Err(errno) => SourceError::of(&self.path, "asking for a report", errno.into()),
        };
        match error {
            SourceError::Interface { path, source, .. } if host == HOST_BUSY => {
                Err(SourceError::Busy {
                    path,
                    operation: "asking for a report",
                    source,
                })
            }
            // The driver begins with 0xff for the firmware, and leaves it where it did not come to ask.
            SourceError::Interface { path, .. }
                if host != 0 || !matches!(firmware, 0 | 0xff | u32::MAX) =>
            {
                Err(SourceError::Refused {
                    path,
                    status: firmware,
                    host,
                })
            }
            error => Err(error),
        }
    }

    fn read_response(&self, response: &[u8; RESPONSE]) -> Result<Vec<u8>, SourceError> {
        let u32_at = |at: usize| {
            let bytes = [at, at + 1, at + 2, at + 3].map(|at| response[at]);
            u32::from_le_bytes(bytes)
        };
        let (status, length) = (u32_at(0), u32_at(4));
        if status != 0 {
            return Err(SourceError::Refused {
                path: self.path.clone(),
                status,
                host: 0,
            });
        }
        if length as usize != REPORT {
            return Err(SourceError::Malformed {
                path: self.path.clone(),
                what: "report",
                found: format!("{length} bytes"),
                expected: format!("{REPORT} bytes"),
            });
        }
        Ok(response[REPORT_AT..REPORT_AT + REPORT].to_vec())
    }
}
