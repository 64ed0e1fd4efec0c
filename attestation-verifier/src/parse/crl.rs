//! Certificate revocation lists, as far as their form goes (RFC 5280 §5).

use std::ops::Range;

use x509_parser::extensions::X509Extension;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use crate::crypto::Signed;
use crate::known::Mark;

use super::cert::{
    CertError, Extension, Outer, critical, extension, form, is_ecdsa_sha256, is_pss_sha384,
    name_words, short_name, unix,
};
use super::der::{Element, INTEGER, Reader, SEQUENCE};

/// A well-formed CRL. Nothing says yet that it is genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    der: Vec<u8>,
    tbs: Range<usize>,
    mark: Mark,
    /// Contents of the signature BIT STRING.
    pub signature: Vec<u8>,
    /// Both algorithm identifiers say RSASSA-PSS with SHA-384, MGF1 of SHA-384, 48 bytes of salt.
    pub signed_with_pss_sha384: bool,
    /// Both algorithm identifiers say ECDSA with SHA-256.
    pub signed_with_ecdsa_sha256: bool,
    /// DER of the issuer's name.
    pub issuer: Vec<u8>,
    /// When it was made, Unix seconds.
    pub this_update: u64,
    /// When the next one is due at the latest, Unix seconds.
    pub next_update: u64,
    /// Serial numbers that are revoked, contents of the INTEGERs.
    pub revoked: Vec<Vec<u8>>,
    /// A critical extension, of the list or of an entry: none is understood here, and one that is
    /// not understood may turn the meaning of the list around (RFC 5280 §5.2).
    pub critical: Option<Extension>,
}

/// deltaCRLIndicator and issuingDistributionPoint: the list is one of a part. They have to be critical (RFC 5280 §5.2.4, §5.2.5),
/// and count as that whether they say so or not.
const OF_A_PART: [&[u8]; 2] = [&[0x55, 0x1d, 0x1b], &[0x55, 0x1d, 0x1c]];

fn of_a_part(extensions: &[X509Extension<'_>]) -> Option<Extension> {
    let mut parts = extensions.iter();
    let found = parts.find(|extension| OF_A_PART.contains(&extension.oid.as_bytes()));
    found.map(extension)
}

impl Crl {
    /// Reads one CRL, exactly.
    ///
    /// # Errors
    /// [`CertError`] says which rule of form is broken.
    pub fn parse(bytes: &[u8]) -> Result<Crl, CertError> {
        let outer = Outer::split(bytes)?;
        let mut tbs = outer.tbs_reader;
        // Read part by part: a list read whole takes ten times its own room, and whoever sends it decides how long it is.
        let version = tbs.optional(INTEGER)?;
        if version.is_some_and(|version| version.contents != [1]) {
            return Err(CertError::Form("a CRL of neither version 1 nor 2".into()));
        }
        // Version 1 has none (RFC 5280 §5.1.2.1).
        let allowed = |extensions: &Option<Element<'_>>| match (version, extensions) {
            (None, Some(_)) => Err(CertError::Form("extensions in a CRL of version 1".into())),
            _ => Ok(()),
        };
        outer.same_algorithm(tbs.expect(SEQUENCE)?.whole)?;
        let (_, issuer) = X509Name::from_der(tbs.expect(SEQUENCE)?.whole).map_err(|e| form(&e))?;
        short_name(&issuer)?;
        let this_update = time(&mut tbs)?.ok_or_else(|| missing("thisUpdate"))?;
        let next_update = time(&mut tbs)?.ok_or_else(|| missing("nextUpdate"))?;
        let mut entries = tbs.optional(SEQUENCE)?.map(Element::reader);
        let extensions = match tbs.optional(EXTENSIONS)? {
            None => None,
            Some(tagged) => {
                let mut tagged = tagged.reader();
                let list = tagged.expect(SEQUENCE)?;
                tagged.end()?;
                Some(list)
            }
        };
        tbs.end()?;
        allowed(&extensions)?;
        let extensions = extensions_of(extensions)?;
        let mut unknown = critical(&extensions)?.or(of_a_part(&extensions));
        let mut revoked = Vec::new();
        while let Some(entry) = entries.as_mut().map(Reader::next).transpose()?.flatten() {
            if entry.tag != SEQUENCE {
                return Err(CertError::Form("an entry that is no SEQUENCE".into()));
            }
            let mut entry = entry.reader();
            revoked.push(entry.expect(INTEGER)?.contents.to_vec());
            if !is_date(next_time(&mut entry)?.ok_or_else(|| missing("revocationDate"))?) {
                return Err(CertError::Form("a revocationDate that is no date".into()));
            }
            let extensions = entry.optional(SEQUENCE)?;
            entry.end()?;
            allowed(&extensions)?;
            unknown = unknown.or(critical(&extensions_of(extensions)?)?);
        }
        Ok(Crl {
            der: bytes.to_vec(),
            tbs: outer.tbs.clone(),
            mark: Mark::default(),
            signature: outer.signature.to_vec(),
            signed_with_pss_sha384: is_pss_sha384(outer.algorithm),
            signed_with_ecdsa_sha256: is_ecdsa_sha256(outer.algorithm),
            issuer: issuer.as_raw().to_vec(),
            this_update: unix(this_update),
            next_update: unix(next_update),
            revoked,
            critical: unknown,
        })
    }

    /// The issuer's name, for people.
    pub fn issuer_words(&self) -> String {
        name_words(&self.issuer)
    }

    /// The whole CRL, as it was read.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The bytes its signature is over, as they were read.
    pub fn tbs(&self) -> &[u8] {
        self.der.get(self.tbs.clone()).unwrap_or_default()
    }

    /// For its signature to be verified.
    pub(crate) fn signed(&self) -> Signed<'_> {
        Signed {
            message: self.tbs(),
            signature: &self.signature,
            mark: Some(&self.mark),
        }
    }
}

/// The tag of a list's extensions, [0].
const EXTENSIONS: u8 = 0xa0;
/// Most bytes of a list's extensions, or of an entry's. The vendors' have less than 100.
const LONGEST_EXTENSIONS: usize = 4 << 10;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The element of a time, if one comes next.
fn next_time<'a>(reader: &mut Reader<'a>) -> Result<Option<Element<'a>>, CertError> {
    match reader.optional(UTC_TIME)? {
        None => Ok(reader.optional(GENERALIZED_TIME)?),
        utc => Ok(utc),
    }
}

/// A time, if one comes next.
fn time(reader: &mut Reader<'_>) -> Result<Option<ASN1Time>, CertError> {
    let Some(element) = next_time(reader)? else {
        return Ok(None);
    };
    let (_, time) = ASN1Time::from_der(element.whole).map_err(|e| form(&e))?;
    Ok(Some(time))
}

/// Whether a time, strict DER as far as its digits go, is one that a calendar has. Nothing rests on when an entry was revoked, and
/// there may be forty thousand.
fn is_date(time: Element<'_>) -> bool {
    let (pairs, _) = time.contents.as_chunks::<2>();
    let mut numbers = pairs.iter().map(|[tens, ones]| {
        u16::from(tens.wrapping_sub(b'0')) * 10 + u16::from(ones.wrapping_sub(b'0'))
    });
    // UTCTime has no century, and goes from 1950 to 2049: 2000 is the one with a leap day at its turn.
    let century = match time.tag {
        GENERALIZED_TIME => numbers.next(),
        _ => Some(20),
    };
    let mut next = || numbers.next().unwrap_or(u16::MAX);
    let (year, month, day) = (next(), next(), next());
    let (hour, minute, second) = (next(), next(), next());
    let turn = year == 0 && century.is_some_and(|century| century % 4 != 0);
    let days = match month {
        2 if year % 4 == 0 && !turn => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day) && hour < 24 && minute < 60 && second < 60
}

/// A sequence of extensions, one by one.
fn extensions_of(list: Option<Element<'_>>) -> Result<Vec<X509Extension<'_>>, CertError> {
    if list
        .as_ref()
        .is_some_and(|list| list.whole.len() > LONGEST_EXTENSIONS)
    {
        return Err(CertError::Form("over 4 KiB of extensions".into()));
    }
    let mut parsed = Vec::new();
    let mut reader = list.map(Element::reader);
    while let Some(next) = reader.as_mut().map(Reader::next).transpose()?.flatten() {
        let (rest, extension) = X509Extension::from_der(next.whole).map_err(|e| form(&e))?;
        if !rest.is_empty() {
            return Err(CertError::Form("bytes after an extension".into()));
        }
        parsed.push(extension);
    }
    Ok(parsed)
}

fn missing(field: &str) -> CertError {
    CertError::Form(format!("a CRL without {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of every date that has the form of one, and many that a calendar has not, the same is said as by the library that reads the
    /// other times.
    #[test]
    fn dates_of_entries_are_those_of_a_calendar() {
        let mut dates = 0;
        let mut ask = |tag: u8, text: String| {
            let der = [&[tag, text.len() as u8], text.as_bytes()].concat();
            let element = crate::parse::der::strict(&der).unwrap();
            let right = ASN1Time::from_der(&der).is_ok();
            assert_eq!(is_date(element), right, "{text}");
            dates += u32::from(right);
        };
        for year in [
            1900, 1949, 1950, 1996, 1999, 2000, 2001, 2024, 2049, 2050, 2100, 2400,
        ] {
            for month in 0..=13 {
                for day in 0..=32 {
                    let date = format!("{month:02}{day:02}000000Z");
                    ask(UTC_TIME, format!("{:02}{date}", year % 100));
                    ask(GENERALIZED_TIME, format!("{year}{date}"));
                }
            }
        }
        for clock in ["235959", "240000", "236000", "235960", "995959"] {
            ask(UTC_TIME, format!("240101{clock}Z"));
            ask(GENERALIZED_TIME, format!("20240101{clock}Z"));
        }
        assert!(dates > 8000, "{dates}");
    }
}
