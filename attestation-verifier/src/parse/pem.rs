//! PEM of certificates, in one form but for empty lines.
//!
//! Around the DER of a certificate PEM has room for anything: text between the blocks, lines of any length, white space. None
//! of it is signed, so what comes with evidence has to be the strict form of RFC 7468 (section 3, "stricttextualmsg"): blocks one
//! after another, lines of 64 characters, one kind of line end throughout. Where blocks were put together there may be empty
//! lines behind each.

use thiserror::Error;
use touchstone_formats::text::base64_decode;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Characters of base64 in every line but the last.
const LINE: usize = 64;

/// Why bytes are no PEM of certificates.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PemError {
    /// Something else than certificates one after another.
    #[error("not PEM at byte {offset}: {reason}")]
    Form {
        /// Where the block begins that is wrong.
        offset: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More certificates than belong there, or fewer.
    #[error("{found} certificates; expected {expected}")]
    Count {
        /// How many there are; counting ends at the first that is too many.
        found: usize,
        /// How many there should be.
        expected: &'static str,
    },
}

/// The DER of each certificate, at most `most` of them. The line end of the last line may be missing.
///
/// # Errors
/// [`PemError::Form`]; [`PemError::Count`] for none, or for more than `most`.
pub(crate) fn certificates(pem: &[u8], most: usize) -> Result<Vec<Vec<u8>>, PemError> {
    let form = |offset, reason| PemError::Form { offset, reason };
    let text = std::str::from_utf8(pem).map_err(|e| form(e.valid_up_to(), "not text"))?;
    let eol = if text.contains('\r') { "\r\n" } else { "\n" };
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let wrong = |reason| form(text.len() - rest.len(), reason);
        if found.len() == most {
            let (found, expected) = (most + 1, "fewer");
            return Err(PemError::Count { found, expected });
        }
        let body = rest
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.strip_prefix(eol))
            .ok_or_else(|| wrong("no certificate begins here"))?;
        // base64 has no hyphen: the first one begins the end.
        let (body, after) = body
            .find('-')
            .and_then(|end| body.split_at_checked(end))
            .and_then(|(body, end)| Some((body, end.strip_prefix(END)?)))
            .ok_or_else(|| wrong("a certificate that does not end"))?;
        let lines = body
            .strip_suffix(eol)
            .ok_or_else(|| wrong("the certificate's last line does not end"))?;
        let base64 =
            joined(lines, eol).ok_or_else(|| wrong("lines of other than 64 characters"))?;
        found.push(base64_decode(&base64).map_err(|_| wrong("not base64 in its one form"))?);
        if !after.is_empty() && !after.starts_with(eol) {
            return Err(wrong("more than a line end behind the certificate"));
        }
        rest = after.trim_start_matches(eol);
    }
    if found.is_empty() {
        return Err(PemError::Count {
            found: 0,
            expected: "one at least",
        });
    }
    Ok(found)
}

/// The lines without their ends, if each has 64 characters and the last 1 to 64. A line end in the last is no base64.
fn joined(lines: &str, eol: &str) -> Option<String> {
    let mut out = String::with_capacity(lines.len());
    let mut rest = lines;
    while rest.len() > LINE {
        let (line, after) = rest.split_at_checked(LINE)?;
        out.push_str(line);
        rest = after.strip_prefix(eol)?;
    }
    out.push_str(rest);
    (!rest.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchstone_formats::text::base64_encode;

    fn pem(der: &[u8], eol: &str) -> String {
        let base64 = base64_encode(der);
        let lines: Vec<&str> = base64
            .as_bytes()
            .chunks(LINE)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        format!("{BEGIN}{eol}{}{eol}{END}{eol}", lines.join(eol))
    }

    #[test]
    fn one_form_with_either_line_end() {
        for length in [1, 47, 48, 49, 96, 300] {
            let der: Vec<u8> = (0..length).map(|i| i as u8).collect();
            for eol in ["\n", "\r\n"] {
                let text = pem(&der, eol);
                assert_eq!(certificates(text.as_bytes(), 1), Ok(vec![der.clone()]));
                let twice = text.repeat(2);
                assert_eq!(
                    certificates(twice.as_bytes(), 2),
                    Ok(vec![der.clone(), der.clone()])
                );
                assert!(certificates(twice.as_bytes(), 1).is_err());
                let open = text.strip_suffix(eol).unwrap();
                for end in ["", eol, &eol.repeat(3)] {
                    let text = format!("{open}{end}");
                    assert_eq!(certificates(text.as_bytes(), 1), Ok(vec![der.clone()]));
                }
                let joined = format!("{text}{eol}{eol}{text}");
                assert_eq!(
                    certificates(joined.as_bytes(), 2),
                    Ok(vec![der.clone(), der.clone()])
                );
            }
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let good = pem(&[7; 100], "\n");
        let (line, _) = good[28..].split_once('\n').unwrap();
        let bad = [
            String::new(),
            format!("\n{good}"),
            format!(" {good}"),
            format!("{good} "),
            format!("{good}\n "),
            format!("{good} \n"),
            format!("{good}\r\n"),
            format!("{good}text\n"),
            format!("{good}\ntext\n"),
            format!("{good}\0"),
            format!("{good}\0\n"),
            good.replace("CERTIFICATE", "certificate"),
            good.replace("CERTIFICATE", "PRIVATE KEY"),
            good.replace(
                &format!("{line}\n"),
                &format!("{}\n{}\n", &line[..60], &line[60..]),
            ),
            good.replace(&format!("{line}\n"), &format!("{line} \n")),
            good.replace(&format!("{line}\n"), &format!("{line}\r\n")),
            good.replace(&format!("{line}\n"), line),
            good.replace(&format!("{line}\n"), &format!("{line}\n\n")),
            good.replace("=\n", "\n"),
            good.replace(&format!("{BEGIN}\n"), BEGIN),
            good.replace(END, ""),
            format!("{BEGIN}\n{END}\n"),
            format!("{BEGIN}\n\n{END}\n"),
        ];
        for text in bad {
            assert!(certificates(text.as_bytes(), 9).is_err(), "{text:?}");
        }
        assert!(certificates(&[0xff], 9).is_err());
    }

    #[test]
    fn no_bit_of_it_can_be_flipped_unnoticed() {
        let good = pem(&[0x5a; 100], "\n").into_bytes();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = certificates(&bytes, 9);
            assert!(read.is_err() || read != Ok(vec![vec![0x5a; 100]]), "{bit}");
        }
    }
}
