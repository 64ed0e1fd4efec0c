//! The authorities and what they issue.

use std::io;
use std::path::Path;

use super::sgx::{SgxExtensions, oid};
use crate::x509::{Certificate, Crl, EcKey, Extension, Name, asn1, key_id, pem};

const DAY: u64 = 86_400;
const YEAR: u64 = 365 * DAY;
/// keyUsage: digitalSignature and nonRepudiation.
const SIGNS: u8 = 0xc0;
/// keyUsage: keyCertSign and cRLSign.
const CERTIFIES: u8 = 0x06;

/// Which authority issues a PCK certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PckCa {
    /// Intel SGX PCK Platform CA: platforms that registered with Intel, servers all of them.
    Platform,
    /// Intel SGX PCK Processor CA: platforms of one package.
    Processor,
}

impl PckCa {
    /// Both.
    pub const ALL: [PckCa; 2] = [PckCa::Platform, PckCa::Processor];

    /// `Platform` or `Processor`.
    pub fn name(self) -> &'static str {
        match self {
            PckCa::Platform => "Platform",
            PckCa::Processor => "Processor",
        }
    }
}

/// The private keys of a synthetic PKI.
#[derive(Clone, Debug)]
pub struct PkiKeys {
    /// The root's.
    pub root: EcKey,
    /// The Platform CA's.
    pub platform_ca: EcKey,
    /// The Processor CA's.
    pub processor_ca: EcKey,
    /// Of TCB info and QE identity.
    pub tcb_signing: EcKey,
}

impl PkiKeys {
    /// New keys, made now.
    pub fn generate() -> Self {
        Self::each(|_| Ok(EcKey::p256())).expect("generation does no input or output")
    }

    /// The keys of this name in this process ([`EcKey::shared`]). Two names are two unrelated PKIs.
    pub fn shared(name: &str) -> Self {
        Self::each(|role| Ok(EcKey::shared(&format!("{name}-{role}")))).expect("as above")
    }

    /// Keys kept in a folder between runs ([`EcKey::kept_in`]).
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn kept_in(folder: &Path, name: &str) -> io::Result<Self> {
        Self::each(|role| EcKey::kept_in(folder, &format!("{name}-{role}")))
    }

    fn each(make: impl Fn(&str) -> io::Result<EcKey>) -> io::Result<Self> {
        Ok(Self {
            root: make("root")?,
            platform_ca: make("platform-ca")?,
            processor_ca: make("processor-ca")?,
            tcb_signing: make("tcb-signing")?,
        })
    }
}

/// A synthetic PKI. The certificates are descriptions: change them before asking for DER.
#[derive(Clone, Debug)]
pub struct Pki {
    /// The time around which everything is valid, Unix seconds.
    pub at: u64,
    /// The private keys.
    pub keys: PkiKeys,
    /// The root.
    pub root: Certificate,
    /// The Platform CA.
    pub platform_ca: Certificate,
    /// The Processor CA.
    pub processor_ca: Certificate,
    /// The signer of TCB info and QE identity.
    pub tcb_signing: Certificate,
}

impl Pki {
    /// A PKI valid around `at`, with the keys that the whole process shares.
    pub fn new(at: u64) -> Self {
        Self::with_keys(at, PkiKeys::shared("Intel"))
    }

    /// A PKI valid around `at`, with keys kept in this folder, and the very root certificate of the first that was made
    /// with them: quotes hold it, and it is compared with the one that is trusted.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn kept_in(folder: &Path, at: u64) -> io::Result<Self> {
        let pki = Self::with_keys(at, PkiKeys::kept_in(folder, "Intel")?);
        let root = pki.root.to_be_signed();
        pki.keys
            .root
            .sign_once_in(folder, "Intel-root.signature", &root)?;
        Ok(pki)
    }

    /// A PKI valid around `at`, with these keys.
    pub fn with_keys(at: u64, keys: PkiKeys) -> Self {
        let root = Name::intel("SIM Intel SGX Root CA");
        let certificate = |subject: Name, key: &EcKey, years: u64| Certificate {
            version: Some(2),
            // Intel's authorities carry their key's identifier as their serial number.
            serial: key_id(key.public_key()),
            algorithm: ecdsa_with_sha256(),
            outer_algorithm: None,
            issuer: root.clone(),
            not_before: at.saturating_sub(YEAR),
            not_after: at + (years - 1) * YEAR,
            subject,
            spki: key.spki(),
            extensions: extensions(&keys.root, ROOT_CRL, key),
            signature_unused_bits: 0,
            trailing: Vec::new(),
        };
        let authority = |subject: Name, key: &EcKey, years: u64, path_length: u64| {
            let mut certificate = certificate(subject, key, years);
            certificate.extensions.extend([
                Extension::key_usage_bits(CERTIFIES),
                Extension::basic_constraints(true, Some(path_length)),
            ]);
            certificate
        };
        let pck_ca = |ca: PckCa, key: &EcKey| {
            let name = format!("SIM Intel SGX PCK {} CA", ca.name());
            authority(Name::intel(&name), key, 15, 0)
        };
        let mut tcb_signing = certificate(
            Name::intel("SIM Intel SGX TCB Signing"),
            &keys.tcb_signing,
            7,
        );
        tcb_signing.extensions.extend([
            Extension::key_usage_bits(SIGNS),
            Extension::basic_constraints(false, None),
        ]);
        // The one certificate that is the same whenever the others are made, as the real one is.
        let root = Certificate {
            not_before: ROOT_NOT_BEFORE,
            not_after: ROOT_NOT_AFTER,
            ..authority(root.clone(), &keys.root, 31, 1)
        };
        Self {
            at,
            root,
            platform_ca: pck_ca(PckCa::Platform, &keys.platform_ca),
            processor_ca: pck_ca(PckCa::Processor, &keys.processor_ca),
            tcb_signing,
            keys,
        }
    }

    /// The root, self-signed.
    pub fn root_der(&self) -> Vec<u8> {
        self.root.sign(&self.keys.root)
    }

    /// The root as PEM: what `--trust-simulated-root` takes.
    pub fn root_pem(&self) -> String {
        pem("CERTIFICATE", &self.root_der())
    }

    /// The description of a PCK CA.
    pub fn ca(&self, ca: PckCa) -> &Certificate {
        match ca {
            PckCa::Platform => &self.platform_ca,
            PckCa::Processor => &self.processor_ca,
        }
    }

    /// The key of a PCK CA.
    pub fn ca_key(&self, ca: PckCa) -> &EcKey {
        match ca {
            PckCa::Platform => &self.keys.platform_ca,
            PckCa::Processor => &self.keys.processor_ca,
        }
    }

    /// A PCK CA, signed by the root.
    pub fn ca_der(&self, ca: PckCa) -> Vec<u8> {
        self.ca(ca).sign(&self.keys.root)
    }

    /// The PCK CA and the root, PEM: the issuer chain of its revocation list, and the upper part of a PCK chain.
    pub fn ca_chain_pem(&self, ca: PckCa) -> String {
        pem("CERTIFICATE", &self.ca_der(ca)) + &self.root_pem()
    }

    /// The TCB signing certificate and the root, PEM: the issuer chain of TCB info and QE identity.
    pub fn tcb_chain_pem(&self) -> String {
        let signing = self.tcb_signing.sign(&self.keys.root);
        pem("CERTIFICATE", &signing) + &self.root_pem()
    }

    /// Signs TCB info or a QE identity, whatever text is given: `r ‖ s`.
    pub fn sign_json(&self, text: &str) -> Vec<u8> {
        self.keys.tcb_signing.sign_once(text.as_bytes())
    }

    /// A PCK certificate for `key` on this platform. Sign it with [`Pki::ca_key`].
    pub fn pck(&self, key: &EcKey, ca: PckCa, sgx: &SgxExtensions) -> Certificate {
        let lower = ca.name().to_lowercase();
        let crl = format!(
            "https://api.simulated.invalid/sgx/certification/v4/pckcrl?ca={lower}&encoding=der"
        );
        let mut extensions = extensions(self.ca_key(ca), &crl, key);
        extensions.extend([
            Extension::key_usage_bits(SIGNS),
            Extension::basic_constraints(false, None),
            sgx.to_extension(),
        ]);
        Certificate {
            version: Some(2),
            // Intel derives it from platform and TCB; here the key is new with each of these anyway.
            serial: key_id(&key.spki()),
            algorithm: ecdsa_with_sha256(),
            outer_algorithm: None,
            issuer: self.ca(ca).subject.clone(),
            not_before: self.at.saturating_sub(YEAR),
            not_after: self.at + 6 * YEAR,
            subject: Name::intel("Intel SGX PCK Certificate"),
            spki: key.spki(),
            extensions,
            signature_unused_bits: 0,
            trailing: Vec::new(),
        }
    }

    /// The root's revocation list: empty, a day old, good for a year. Sign it with `pki.keys.root`.
    pub fn root_crl(&self) -> Crl {
        self.crl(&self.root, &self.keys.root, 364)
    }

    /// A PCK CA's revocation list: empty, a day old, good for four weeks. Sign it with [`Pki::ca_key`].
    pub fn pck_crl(&self, ca: PckCa) -> Crl {
        self.crl(self.ca(ca), self.ca_key(ca), 28)
    }

    fn crl(&self, issuer: &Certificate, key: &EcKey, days: u64) -> Crl {
        Crl {
            version: Some(1),
            algorithm: ecdsa_with_sha256(),
            outer_algorithm: None,
            issuer: issuer.subject.clone(),
            this_update: self.at.saturating_sub(DAY),
            next_update: Some(self.at + days * DAY),
            revoked: Vec::new(),
            extensions: vec![
                Extension::new(oid::CRL_NUMBER, false, asn1::number(1)),
                Extension::authority_key_id(key.public_key()),
            ],
            signature_unused_bits: 0,
            trailing: Vec::new(),
        }
    }
}

/// 2018-05-21T10:45:10Z, as in Intel's own root.
const ROOT_NOT_BEFORE: u64 = 1_526_899_510;
/// 2049-12-31T23:59:59Z.
const ROOT_NOT_AFTER: u64 = 2_524_607_999;

/// Where the root's list would be fetched, under a name that can never resolve (RFC 2606).
const ROOT_CRL: &str = "https://certificates.simulated.invalid/IntelSGXRootCA.der";

/// What every certificate of Intel's begins with.
fn extensions(issuer: &EcKey, crl: &str, subject: &EcKey) -> Vec<Extension> {
    vec![
        Extension::authority_key_id(issuer.public_key()),
        Extension::crl_point(crl),
        Extension::subject_key_id(subject.public_key()),
    ]
}

/// `AlgorithmIdentifier` of ECDSA with SHA-256 (RFC 5758 §3.2), without parameters.
fn ecdsa_with_sha256() -> Vec<u8> {
    asn1::sequence(&[&asn1::oid("1.2.840.10045.4.3.2")])
}
