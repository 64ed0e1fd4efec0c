//! What a quote must look like before it is passed on: its size and the report data in it.
//!
//! This is no verification (the enclave has no roots and trusts no clock for that, and a verifier
//! judges the evidence anyway): it keeps a confused or lying source from making the enclave hand
//! out evidence that is worthless.

use touchstone_formats::{
    evidence::{EventLog, Tee, quote_report_data},
    limits::MAX_QUOTE,
};

use super::{Quote, QuoteError};

/// Bytes of an SEV-SNP attestation report (AMD 56860, table 23).
const SNP_REPORT: usize = 1_184;
/// Most zero bytes after a TDX quote that are taken for a fixed-size buffer's rest.
const PADDING_MAX: usize = 8_192;

/// Compares a quote with what was asked for. A TDX quote from a fixed-size buffer loses the zero
/// bytes that follow its declared end.
///
/// # Errors
/// [`QuoteError::Malformed`] or [`QuoteError::WrongReportData`].
pub fn check(mut quote: Quote, report_data: &[u8; 64]) -> Result<Quote, QuoteError> {
    let malformed = |what: String| Err(QuoteError::Malformed(what));
    match quote.tee {
        Tee::SevSnp => {
            if quote.quote.len() != SNP_REPORT {
                return malformed(format!(
                    "an SEV-SNP report of {} bytes, expected {SNP_REPORT}",
                    quote.quote.len()
                ));
            }
        }
        Tee::Tdx => {
            if quote.quote.len() > MAX_QUOTE + PADDING_MAX {
                return malformed(format!("a TDX quote of {} bytes", quote.quote.len()));
            }
            let Some(end) = tdx_length(&quote.quote) else {
                return malformed("a TDX quote whose version or lengths are wrong".into());
            };
            match quote.quote.get(end..) {
                Some(rest)
                    if end <= MAX_QUOTE
                        && rest.len() <= PADDING_MAX
                        && rest.iter().all(|&b| b == 0) => {}
                _ => return malformed("a TDX quote that does not end where it says".into()),
            }
            quote.quote.truncate(end);
        }
    }
    if let Some(Err(error)) = quote.event_log.as_ref().map(EventLog::check) {
        return malformed(error.to_string());
    }
    match quote_report_data(quote.tee, &quote.quote) {
        Some(found) if found == *report_data => Ok(quote),
        Some(_) => Err(QuoteError::WrongReportData),
        None => malformed("a quote without report data".into()),
    }
}

/// Declared length of a TDX quote (Intel TDX DCAP Quoting Library API, appendix 3): version 4 has a
/// 48-byte header and a 584-byte body, version 5 a body type and length before the body; then
/// come the u32 length of the signature data and that data.
fn tdx_length(quote: &[u8]) -> Option<usize> {
    let u32_at = |at: usize| -> Option<usize> {
        let bytes: [u8; 4] = quote.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let signature_length_at = match quote.get(..2)? {
        [4, 0] => 48 + 584,
        [5, 0] => 54usize.checked_add(u32_at(50)?)?,
        _ => return None,
    };
    signature_length_at
        .checked_add(4)?
        .checked_add(u32_at(signature_length_at)?)
}
