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
            time(&mut entry)?.ok_or_else(|| missing("revocationDate"))?;
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

/// A time, if one comes next.
fn time(reader: &mut Reader<'_>) -> Result<Option<ASN1Time>, CertError> {
    let mut element = reader.optional(UTC_TIME)?;
    if element.is_none() {
        element = reader.optional(GENERALIZED_TIME)?;
    }
    let Some(element) = element else {
        return Ok(None);
    };
    let (_, time) = ASN1Time::from_der(element.whole).map_err(|e| form(&e))?;
    Ok(Some(time))
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
