//! Certificates and revocation lists as plain descriptions: change any field, then sign.

use ring::digest;

use super::asn1;
use super::keys::Signer;

/// Object identifiers of the standard extensions (RFC 5280 §4.2, §5.2, §5.3).
pub mod oid {
    /// subjectKeyIdentifier
    pub const SUBJECT_KEY_ID: &str = "2.5.29.14";
    /// keyUsage
    pub const KEY_USAGE: &str = "2.5.29.15";
    /// basicConstraints
    pub const BASIC_CONSTRAINTS: &str = "2.5.29.19";
    /// cRLNumber
    pub const CRL_NUMBER: &str = "2.5.29.20";
    /// cRLReason, of an entry
    pub const CRL_REASON: &str = "2.5.29.21";
    /// cRLDistributionPoints
    pub const CRL_POINTS: &str = "2.5.29.31";
    /// authorityKeyIdentifier
    pub const AUTHORITY_KEY_ID: &str = "2.5.29.35";
}

/// A distinguished name in the shape of one vendor: which attributes, in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Whose shape.
    pub vendor: Vendor,
    /// O
    pub organization: String,
    /// CN
    pub common_name: String,
}

/// Who writes names like that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// `OU=Engineering, C=US, L=Santa Clara, ST=CA, O=…, CN=…`
    Amd,
    /// `CN=…, O=…, L=Santa Clara, ST=CA, C=US`
    Intel,
}

impl Name {
    /// `OU=Engineering, C=US, L=Santa Clara, ST=CA, O=Advanced Micro Devices, CN=<common_name>`.
    pub fn amd(common_name: &str) -> Self {
        Self {
            vendor: Vendor::Amd,
            organization: "Advanced Micro Devices".into(),
            common_name: common_name.into(),
        }
    }

    /// `CN=<common_name>, O=Intel Corporation, L=Santa Clara, ST=CA, C=US`.
    pub fn intel(common_name: &str) -> Self {
        Self {
            vendor: Vendor::Intel,
            organization: "Intel Corporation".into(),
            common_name: common_name.into(),
        }
    }

    /// The name as DER.
    pub fn to_der(&self) -> Vec<u8> {
        let attribute = |oid: &str, tag: u8, value: &str| {
            asn1::tlv(
                asn1::SET,
                &asn1::sequence(&[&asn1::oid(oid), &asn1::tlv(tag, value.as_bytes())]),
            )
        };
        let common_name = attribute("2.5.4.3", asn1::UTF8_STRING, &self.common_name);
        let organization = attribute("2.5.4.10", asn1::UTF8_STRING, &self.organization);
        let country = attribute("2.5.4.6", asn1::PRINTABLE_STRING, "US");
        let locality = attribute("2.5.4.7", asn1::UTF8_STRING, "Santa Clara");
        let state = attribute("2.5.4.8", asn1::UTF8_STRING, "CA");
        match self.vendor {
            Vendor::Amd => asn1::sequence(&[
                &attribute("2.5.4.11", asn1::UTF8_STRING, "Engineering"),
                &country,
                &locality,
                &state,
                &organization,
                &common_name,
            ]),
            Vendor::Intel => {
                asn1::sequence(&[&common_name, &organization, &locality, &state, &country])
            }
        }
    }
}

/// One extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Dotted object identifier; see [`oid`].
    pub oid: String,
    /// Marked critical.
    pub critical: bool,
    /// What stands inside the OCTET STRING, raw.
    pub value: Vec<u8>,
}

impl Extension {
    /// An extension.
    pub fn new(oid: &str, critical: bool, value: Vec<u8>) -> Self {
        Self {
            oid: oid.to_owned(),
            critical,
            value,
        }
    }

    /// subjectKeyIdentifier of a key's SHA-1 (RFC 5280 §4.2.1.2, method 1).
    pub fn subject_key_id(public_key: &[u8]) -> Self {
        Self::new(
            oid::SUBJECT_KEY_ID,
            false,
            asn1::tlv(asn1::OCTET_STRING, &key_id(public_key)),
        )
    }

    /// authorityKeyIdentifier holding only the key's identifier.
    pub fn authority_key_id(public_key: &[u8]) -> Self {
        let id = asn1::tlv(0x80, &key_id(public_key));
        Self::new(oid::AUTHORITY_KEY_ID, false, asn1::sequence(&[&id]))
    }

    /// basicConstraints, critical. `ca: false` is an empty sequence.
    pub fn basic_constraints(ca: bool, path_length: Option<u64>) -> Self {
        let ca = if ca {
            asn1::tlv(asn1::BOOLEAN, &[0xff])
        } else {
            Vec::new()
        };
        let path = path_length.map(asn1::number).unwrap_or_default();
        Self::new(oid::BASIC_CONSTRAINTS, true, asn1::sequence(&[&ca, &path]))
    }

    /// keyUsage, critical, with these bits (0x80 is digitalSignature, 0x40 nonRepudiation, 0x04 keyCertSign, 0x02
    /// cRLSign), as DER asks: spare bits are those after the last that is set.
    pub fn key_usage_bits(bits: u8) -> Self {
        let spare = bits.trailing_zeros() as u8 % 8;
        let value = asn1::bit_string_with_unused(&[bits], spare);
        Self::new(oid::KEY_USAGE, true, value)
    }

    /// keyUsage of an AMD authority, critical: keyCertSign, and cRLSign if asked for. AMD always claims one spare bit, which DER
    /// forbids where cRLSign is not set (X.690 §11.2.2); a reader must live with it.
    pub fn key_usage(crl_sign: bool) -> Self {
        let bits = if crl_sign { 0x06 } else { 0x04 };
        Self::new(
            oid::KEY_USAGE,
            true,
            asn1::bit_string_with_unused(&[bits], 1),
        )
    }

    /// cRLDistributionPoints with one address. Nobody ever fetches it.
    pub fn crl_point(url: &str) -> Self {
        let full_name = asn1::explicit(0, &asn1::tlv(0x86, url.as_bytes()));
        let point = asn1::sequence(&[&asn1::explicit(0, &full_name)]);
        Self::new(oid::CRL_POINTS, false, asn1::sequence(&[&point]))
    }

    fn to_der(&self) -> Vec<u8> {
        let critical = if self.critical {
            asn1::tlv(asn1::BOOLEAN, &[0xff])
        } else {
            Vec::new()
        };
        asn1::sequence(&[
            &asn1::oid(&self.oid),
            &critical,
            &asn1::tlv(asn1::OCTET_STRING, &self.value),
        ])
    }
}

/// An X.509 certificate before it is signed. Every field may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The version as encoded: 2 says v3. `None` leaves the field away (v1).
    pub version: Option<u64>,
    /// Serial number, big-endian.
    pub serial: Vec<u8>,
    /// `AlgorithmIdentifier` inside the signed part, DER.
    pub algorithm: Vec<u8>,
    /// `AlgorithmIdentifier` outside the signed part, DER; `None`: the same.
    pub outer_algorithm: Option<Vec<u8>>,
    /// Issuer.
    pub issuer: Name,
    /// Start of validity, Unix seconds.
    pub not_before: u64,
    /// End of validity, Unix seconds.
    pub not_after: u64,
    /// Subject.
    pub subject: Name,
    /// `SubjectPublicKeyInfo`, DER.
    pub spki: Vec<u8>,
    /// Extensions, in order.
    pub extensions: Vec<Extension>,
    /// Spare bits that the signature BIT STRING claims; 0 is honest.
    pub signature_unused_bits: u8,
    /// Bytes after the end of the certificate; empty is honest.
    pub trailing: Vec<u8>,
}

impl Certificate {
    /// The first extension of this identifier.
    ///
    /// # Panics
    /// When there is none: a test that changes what is not there would test nothing.
    pub fn extension_mut(&mut self, oid: &str) -> &mut Extension {
        self.extensions
            .iter_mut()
            .find(|e| e.oid == oid)
            .unwrap_or_else(|| panic!("no extension {oid}"))
    }

    /// Removes every extension of this identifier.
    ///
    /// # Panics
    /// When there is none.
    pub fn remove(&mut self, oid: &str) {
        let before = self.extensions.len();
        self.extensions.retain(|e| e.oid != oid);
        assert!(self.extensions.len() < before, "no extension {oid}");
    }

    /// Puts a second copy of an extension at the end.
    ///
    /// # Panics
    /// When there is none.
    pub fn duplicate(&mut self, oid: &str) {
        let copy = self.extension_mut(oid).clone();
        self.extensions.push(copy);
    }

    /// Changes the INTEGER inside an extension (AMD's SPL values).
    ///
    /// # Panics
    /// When there is none.
    pub fn set_number(&mut self, oid: &str, value: u64) {
        self.extension_mut(oid).value = asn1::number(value);
    }

    /// The signed part.
    pub fn to_be_signed(&self) -> Vec<u8> {
        let version = self
            .version
            .map(|v| asn1::explicit(0, &asn1::number(v)))
            .unwrap_or_default();
        let extensions: Vec<u8> = self.extensions.iter().flat_map(Extension::to_der).collect();
        let extensions = match self.extensions.is_empty() {
            true => Vec::new(),
            false => asn1::explicit(3, &asn1::tlv(asn1::SEQUENCE, &extensions)),
        };
        asn1::sequence(&[
            &version,
            &asn1::unsigned(&self.serial),
            &self.algorithm,
            &self.issuer.to_der(),
            &asn1::sequence(&[&asn1::time(self.not_before), &asn1::time(self.not_after)]),
            &self.subject.to_der(),
            &self.spki,
            &extensions,
        ])
    }

    /// Signs with `key`, whoever's it is, and gives the DER. The signature is of the key's own kind whatever
    /// [`Certificate::algorithm`] says.
    pub fn sign(&self, key: &impl Signer) -> Vec<u8> {
        self.sign_with(|message| key.sign_x509(message))
    }

    /// As [`Certificate::sign`], with any signature at all.
    pub fn sign_with(&self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let outer = Outer {
            algorithm: self.outer_algorithm.as_ref().unwrap_or(&self.algorithm),
            unused: self.signature_unused_bits,
            trailing: &self.trailing,
        };
        outer.seal(self.to_be_signed(), sign)
    }
}

/// One entry of a revocation list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The serial number, big-endian.
    pub serial: Vec<u8>,
    /// When it was revoked, Unix seconds.
    pub date: u64,
    /// CRLReason, if given.
    pub reason: Option<u8>,
}

/// A certificate revocation list before it is signed. Every field may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    /// The version as encoded: 1 says v2. `None` leaves the field away (v1).
    pub version: Option<u64>,
    /// `AlgorithmIdentifier` inside the signed part, DER.
    pub algorithm: Vec<u8>,
    /// `AlgorithmIdentifier` outside the signed part, DER; `None`: the same.
    pub outer_algorithm: Option<Vec<u8>>,
    /// Issuer.
    pub issuer: Name,
    /// Unix seconds.
    pub this_update: u64,
    /// Unix seconds; `None` leaves the field away.
    pub next_update: Option<u64>,
    /// Entries; none leaves the list away, as RFC 5280 asks.
    pub revoked: Vec<Revoked>,
    /// Extensions of the list, in order.
    pub extensions: Vec<Extension>,
    /// Spare bits that the signature BIT STRING claims; 0 is honest.
    pub signature_unused_bits: u8,
    /// Bytes after the end; empty is honest.
    pub trailing: Vec<u8>,
}

impl Crl {
    /// Adds an entry without a reason, dated at `this_update`.
    pub fn revoke(&mut self, serial: &[u8]) {
        self.revoked.push(Revoked {
            serial: serial.to_vec(),
            date: self.this_update,
            reason: None,
        });
    }

    /// The signed part.
    pub fn to_be_signed(&self) -> Vec<u8> {
        let entry = |r: &Revoked| {
            let reason = r.reason.map(|code| {
                let reason = Extension::new(oid::CRL_REASON, false, asn1::tlv(0x0a, &[code]));
                asn1::sequence(&[&reason.to_der()])
            });
            asn1::sequence(&[
                &asn1::unsigned(&r.serial),
                &asn1::time(r.date),
                &reason.unwrap_or_default(),
            ])
        };
        let revoked: Vec<u8> = self.revoked.iter().flat_map(entry).collect();
        let extensions: Vec<u8> = self.extensions.iter().flat_map(Extension::to_der).collect();
        asn1::sequence(&[
            &self.version.map(asn1::number).unwrap_or_default(),
            &self.algorithm,
            &self.issuer.to_der(),
            &asn1::time(self.this_update),
            &self.next_update.map(asn1::time).unwrap_or_default(),
            &if revoked.is_empty() {
                Vec::new()
            } else {
                asn1::tlv(asn1::SEQUENCE, &revoked)
            },
            &if extensions.is_empty() {
                Vec::new()
            } else {
                asn1::explicit(0, &asn1::tlv(asn1::SEQUENCE, &extensions))
            },
        ])
    }

    /// Signs with `key`, whoever's it is, and gives the DER.
    pub fn sign(&self, key: &impl Signer) -> Vec<u8> {
        self.sign_with(|message| key.sign_x509(message))
    }

    /// As [`Crl::sign`], with any signature at all.
    pub fn sign_with(&self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let outer = Outer {
            algorithm: self.outer_algorithm.as_ref().unwrap_or(&self.algorithm),
            unused: self.signature_unused_bits,
            trailing: &self.trailing,
        };
        outer.seal(self.to_be_signed(), sign)
    }
}

/// What stands around the signed part of a certificate or a CRL.
struct Outer<'a> {
    algorithm: &'a [u8],
    unused: u8,
    trailing: &'a [u8],
}

impl Outer<'_> {
    fn seal(&self, signed_part: Vec<u8>, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let signature = sign(&signed_part);
        let mut der = asn1::sequence(&[
            &signed_part,
            self.algorithm,
            &asn1::bit_string_with_unused(&signature, self.unused),
        ]);
        der.extend_from_slice(self.trailing);
        der
    }
}

/// SHA-1 of the key, as an identifier only.
pub fn key_id(public_key: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, public_key)
        .as_ref()
        .to_vec()
}
