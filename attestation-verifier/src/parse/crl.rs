//! Certificate revocation lists, as far as their form goes (RFC 5280 §5).

use std::ops::Range;

use x509_parser::prelude::{FromDer, X509Extension, X509Version};
use x509_parser::revocation_list::CertificateRevocationList;

use super::cert::{
    CertError, Extension, Outer, critical, extension, form, is_ecdsa_sha256, is_pss_sha384,
    name_words, unix,
};
use super::der::{INTEGER, SEQUENCE};

/// A well-formed CRL. Nothing says yet that it is genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    der: Vec<u8>,
    tbs: Range<usize>,
    /// Contents of the signature BIT STRING.
    pub signature: Vec<u8>,
    /// Both algorithm identifiers say RSASSA-PSS with SHA-384, MGF1 of SHA-384, 48 bytes of salt.
    pub signed_with_pss_sha384: bool,
    /// Both algorithm identifiers say ECDSA with SHA-256.
    pub signed_with_ecdsa_sha256: bool,
    /// DER of the issuer's name.
    pub issuer: Vec<u8>,
    /// The issuer's name, for people.
    pub issuer_words: String,
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
        let mut inner = outer.tbs_reader;
        inner.optional(INTEGER)?;
        outer.same_algorithm(inner.expect(SEQUENCE)?.whole)?;

        let (rest, parsed) = CertificateRevocationList::from_der(bytes).map_err(|e| form(&e))?;
        if !rest.is_empty() {
            return Err(CertError::Form("bytes after the CRL".into()));
        }
        let tbs = &parsed.tbs_cert_list;
        if !matches!(tbs.version, None | Some(X509Version::V2)) {
            return Err(CertError::Form("a CRL of neither version 1 nor 2".into()));
        }
        let Some(next_update) = tbs.next_update else {
            return Err(CertError::Form("a CRL without nextUpdate".into()));
        };
        let entries = tbs.revoked_certificates.iter();
        let mut extended = entries.map(|entry| !entry.extensions().is_empty());
        if tbs.version.is_none() && (!tbs.extensions().is_empty() || extended.any(|any| any)) {
            return Err(CertError::Form(
                "extensions in a CRL of version 1".to_owned(),
            ));
        }
        let mut unknown = critical(tbs.extensions())?.or(of_a_part(tbs.extensions()));
        let mut revoked = Vec::with_capacity(tbs.revoked_certificates.len());
        for entry in &tbs.revoked_certificates {
            revoked.push(entry.raw_serial().to_vec());
            unknown = unknown.or(critical(entry.extensions())?);
        }
        Ok(Crl {
            der: bytes.to_vec(),
            tbs: outer.tbs.clone(),
            signature: outer.signature.to_vec(),
            signed_with_pss_sha384: is_pss_sha384(outer.algorithm),
            signed_with_ecdsa_sha256: is_ecdsa_sha256(outer.algorithm),
            issuer: tbs.issuer.as_raw().to_vec(),
            issuer_words: name_words(&tbs.issuer)?,
            this_update: unix(tbs.this_update),
            next_update: unix(next_update),
            revoked,
            critical: unknown,
        })
    }

    /// The whole CRL, as it was read.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The bytes its signature is over, as they were read.
    pub fn tbs(&self) -> &[u8] {
        self.der.get(self.tbs.clone()).unwrap_or_default()
    }
}
