//! Where things stand in a report and in a quote (AMD 56860, ATTESTATION_REPORT; Intel TDX DCAP Quoting Library API, A.3,
//! A.4), and how a liar signs one again.

use std::ops::Range;

use attestation_verifier::parse::tdx::quote::Quote;
use touchstone_formats::Tee;

use super::mutant::Numbers;

/// A field: its name, where it begins, its length. In a quote it is counted from the body's beginning.
pub type Field = (&'static str, usize, usize);

/// Fields of a SEV-SNP report.
pub const SNP_FIELDS: [Field; 10] = [
    ("GUEST_SVN", 0x04, 4),
    ("POLICY", 0x08, 3),
    ("FAMILY_ID", 0x10, 16),
    ("CURRENT_TCB", 0x38, 8),
    ("REPORT_DATA", 0x50, 64),
    ("MEASUREMENT", 0x90, 48),
    ("HOST_DATA", 0xc0, 32),
    ("REPORTED_TCB", 0x180, 8),
    ("CHIP_ID", 0x1a0, 64),
    ("LAUNCH_TCB", 0x1f0, 8),
];

/// Fields of a TD report.
pub const TDX_FIELDS: [Field; 10] = [
    ("TEE_TCB_SVN", 0, 16),
    ("MRSEAM", 16, 48),
    ("TDATTRIBUTES", 120, 4),
    ("XFAM", 128, 3),
    ("MRTD", 136, 48),
    ("MRCONFIGID", 184, 48),
    ("MROWNER", 232, 48),
    ("RTMR1", 376, 48),
    ("RTMR3", 472, 48),
    ("REPORTDATA", 520, 64),
];

/// Fields of a TEE's report, and where REPORT_DATA is, from the quote's beginning.
pub fn fields(tee: Tee, quote: &[u8]) -> Vec<(&'static str, Range<usize>)> {
    let (list, body) = match tee {
        Tee::SevSnp => (SNP_FIELDS, 0),
        Tee::Tdx => (TDX_FIELDS, tdx_body(quote)),
    };
    list.map(|(name, at, length)| (name, body + at..body + at + length))
        .to_vec()
}

/// Gives a field another plausible value: another digest, the next version, debugging allowed or not.
pub fn set_other(field: &str, bytes: &mut [u8], numbers: &mut Numbers) -> Option<()> {
    match field {
        // DEBUG is bit 19 of SEV-SNP's policy, bit 0 of TDATTRIBUTES.
        "POLICY" => *bytes.get_mut(2)? ^= 0x08,
        "TDATTRIBUTES" => *bytes.first_mut()? ^= 1,
        "XFAM" => *bytes.get_mut(1)? ^= 1,
        _ if bytes.len() <= 16 => *bytes.first_mut()? = bytes.first()?.wrapping_add(1),
        _ => bytes
            .iter_mut()
            .for_each(|byte| *byte = numbers.next() as u8),
    }
    Some(())
}

/// Puts REPORT_DATA into a quote.
pub fn set_report_data(tee: Tee, quote: &mut [u8], report_data: &[u8; 64]) -> Option<()> {
    let (_, range) = fields(tee, quote)
        .into_iter()
        .find(|(name, _)| matches!(*name, "REPORT_DATA" | "REPORTDATA"))?;
    quote.get_mut(range)?.copy_from_slice(report_data);
    Some(())
}

fn tdx_body(quote: &[u8]) -> usize {
    match quote.first() {
        Some(5) => 54,
        _ => 48,
    }
}

/// The parts of a quote that are signed or sign, one after the other. Lengths and types between them are counted to the part before.
pub fn parts(quote: &[u8]) -> Vec<(&'static str, Range<usize>)> {
    let Ok(parsed) = Quote::parse(quote) else {
        return Vec::new();
    };
    let mut at = parsed.signed.len();
    let mut parts = vec![("header and TD report", 0..at)];
    // Length of what follows; signature; key; type and length; the QE's report, its signature, length of its data, data;
    // type and length; certificates.
    for (name, length) in [
        ("signature", 4 + 64),
        ("attestation key", 64 + 6),
        ("QE report", 384),
        ("QE report signature", 64 + 2),
        ("QE authentication data", parsed.qe_auth_data.len() + 6),
    ] {
        parts.push((name, at..at + length));
        at += length;
    }
    parts.push(("PCK chain", at..quote.len()));
    parts
}

/// What a quote is put together from.
pub struct Pieces {
    /// Header and body.
    pub signed: Vec<u8>,
    /// The attestation key's signature over it.
    pub signature: [u8; 64],
    /// The attestation key, x ‖ y.
    pub attestation_key: [u8; 64],
    /// The quoting enclave's report.
    pub qe_report: [u8; 384],
    /// The PCK's signature over it.
    pub qe_report_signature: [u8; 64],
    /// What the quoting enclave bound beside the key.
    pub qe_auth_data: Vec<u8>,
    /// The certificates.
    pub pck_chain: Vec<u8>,
}

impl Pieces {
    /// Takes a quote to pieces.
    pub fn of(quote: &[u8]) -> Option<Pieces> {
        let parsed = Quote::parse(quote).ok()?;
        let (_, chain) = parts(quote).pop()?;
        Some(Pieces {
            signature: parsed.signature,
            attestation_key: parsed.attestation_key,
            qe_report: *parsed.qe_report.raw(),
            qe_report_signature: parsed.qe_report_signature,
            qe_auth_data: parsed.qe_auth_data,
            signed: parsed.signed,
            pck_chain: quote.get(chain)?.to_vec(),
        })
    }

    /// Puts them together.
    pub fn quote(&self) -> Option<Vec<u8>> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map(u32::to_le_bytes).ok();
        let auth_length = u16::try_from(self.qe_auth_data.len()).ok()?.to_le_bytes();
        let certified = [
            self.qe_report.as_slice(),
            &self.qe_report_signature,
            &auth_length,
            &self.qe_auth_data,
            &5_u16.to_le_bytes(),
            &length(&self.pck_chain)?,
            &self.pck_chain,
        ]
        .concat();
        let data = [
            self.signature.as_slice(),
            &self.attestation_key,
            &6_u16.to_le_bytes(),
            &length(&certified)?,
            &certified,
        ]
        .concat();
        Some([self.signed.as_slice(), &length(&data)?, &data].concat())
    }
}
