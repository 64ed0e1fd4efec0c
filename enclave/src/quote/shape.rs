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

#[cfg(test)]
mod tests {
    use touchstone_formats::text::Base64Bytes;

    use super::*;

    const DATA: [u8; 64] = [7; 64];

    fn snp() -> Quote {
        let mut quote = vec![0; SNP_REPORT];
        quote[0x50..0x90].copy_from_slice(&DATA);
        Quote {
            tee: Tee::SevSnp,
            quote,
            event_log: None,
        }
    }

    /// A version 4 quote with so many bytes of signature data.
    fn tdx4(signature: usize) -> Quote {
        let mut quote = vec![0; 632];
        (quote[0], quote[4]) = (4, 0x81);
        quote[568..632].copy_from_slice(&DATA);
        quote.extend_from_slice(&(signature as u32).to_le_bytes());
        quote.extend(vec![9; signature]);
        Quote {
            tee: Tee::Tdx,
            quote,
            event_log: None,
        }
    }

    /// A version 5 quote with a TD 1.0 or 1.5 body.
    fn tdx5(body_type: u16, body: usize) -> Quote {
        let mut quote = vec![0; 54 + body];
        (quote[0], quote[4]) = (5, 0x81);
        quote[48..50].copy_from_slice(&body_type.to_le_bytes());
        quote[50..54].copy_from_slice(&(body as u32).to_le_bytes());
        quote[574..638].copy_from_slice(&DATA);
        quote.extend_from_slice(&100_u32.to_le_bytes());
        quote.extend([9; 100]);
        Quote {
            tee: Tee::Tdx,
            quote,
            event_log: None,
        }
    }

    fn malformed(quote: Quote) -> bool {
        matches!(check(quote, &DATA), Err(QuoteError::Malformed(_)))
    }

    #[test]
    fn what_has_the_right_shape_and_report_data_passes_unchanged() {
        for quote in [snp(), tdx4(4_000), tdx5(2, 584), tdx5(3, 648)] {
            assert_eq!(check(quote.clone(), &DATA), Ok(quote.clone()));
            let mut other = DATA;
            for at in 0..64 {
                other[at] ^= 0x80;
                assert_eq!(
                    check(quote.clone(), &other),
                    Err(QuoteError::WrongReportData)
                );
                other[at] ^= 0x80;
            }
        }
    }

    #[test]
    fn padding_of_a_tdx_quote_is_cut_and_nothing_else_is() {
        let quote = tdx4(4_000);
        let mut padded = quote.clone();
        padded.quote.extend(vec![0; PADDING_MAX]);
        assert_eq!(check(padded.clone(), &DATA), Ok(quote.clone()));
        padded.quote.push(0);
        assert!(malformed(padded));
        let mut trailing = quote;
        trailing.quote.push(1);
        assert!(malformed(trailing));
        let mut snp = snp();
        snp.quote.push(0);
        assert!(malformed(snp));
    }

    #[test]
    fn no_length_and_no_truncation_panics() {
        for quote in [snp(), tdx4(50), tdx5(3, 648)] {
            for length in 0..quote.quote.len() {
                let mut short = quote.clone();
                short.quote.truncate(length);
                assert!(malformed(short), "{length}");
            }
        }
        let mut huge = tdx4(50);
        huge.quote[632..636].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(malformed(huge));
        let mut huge = tdx5(3, 648);
        huge.quote[50..54].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(malformed(huge));
        assert!(malformed(tdx4(MAX_QUOTE)));
        let mut unknown = tdx4(50);
        unknown.quote[0] = 6;
        assert!(malformed(unknown));
    }

    #[test]
    fn an_event_log_has_a_bound() {
        let with = |bytes: usize| Quote {
            event_log: Some(EventLog {
                format: "ccel".into(),
                data: Base64Bytes(vec![1; bytes]),
            }),
            ..tdx4(50)
        };
        assert!(check(with(1 << 20), &DATA).is_ok());
        assert!(malformed(with((1 << 20) + 1)));
    }
}
