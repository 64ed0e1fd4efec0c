//! The authorities and what they issue.

use std::io;
use std::path::Path;

use super::product::{Product, Tcb};
use super::{Certificate, Crl, Extension, Name, RsaKey, VekKey, asn1, oid, pem, pss_sha384};
use crate::snp::Report;

const DAY: u64 = 86_400;
const YEAR: u64 = 365 * DAY;

/// The three private keys of a synthetic PKI.
#[derive(Clone, Debug)]
pub struct PkiKeys {
    /// The root's.
    pub ark: RsaKey,
    /// The intermediate's, over VCEKs.
    pub ask: RsaKey,
    /// The intermediate's, over VLEKs.
    pub asvk: RsaKey,
}

impl PkiKeys {
    /// New keys, made now, in parallel.
    pub fn generate() -> Self {
        Self::in_parallel(|_| Ok(RsaKey::generate())).expect("generation does no input or output")
    }

    /// The keys of this name in this process ([`RsaKey::shared`]). Two names are two unrelated PKIs.
    pub fn shared(name: &str) -> Self {
        Self::in_parallel(|role| Ok(RsaKey::shared(&format!("{name}-{role}")))).expect("as above")
    }

    /// Keys kept in a folder between runs ([`RsaKey::kept_in`]).
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn kept_in(folder: &Path, name: &str) -> io::Result<Self> {
        Self::in_parallel(|role| RsaKey::kept_in(folder, &format!("{name}-{role}")))
    }

    fn in_parallel(make: impl Fn(&str) -> io::Result<RsaKey> + Sync) -> io::Result<Self> {
        std::thread::scope(|s| {
            let ark = s.spawn(|| make("ark"));
            let ask = s.spawn(|| make("ask"));
            let asvk = make("asvk")?;
            let join = |t: std::thread::ScopedJoinHandle<'_, io::Result<RsaKey>>| {
                t.join().expect("no panic")
            };
            Ok(Self {
                ark: join(ark)?,
                ask: join(ask)?,
                asvk,
            })
        })
    }
}

/// A synthetic PKI of one product. The three certificates are descriptions: change them before asking for DER.
#[derive(Clone, Debug)]
pub struct Pki {
    /// The product it is for.
    pub product: Product,
    /// The time around which everything is valid, Unix seconds.
    pub at: u64,
    /// The private keys.
    pub keys: PkiKeys,
    /// The root.
    pub ark: Certificate,
    /// The intermediate over VCEKs.
    pub ask: Certificate,
    /// The intermediate over VLEKs.
    pub asvk: Certificate,
}

impl Pki {
    /// A PKI valid around `at`, with the keys of this product that the whole process shares.
    pub fn new(product: Product, at: u64) -> Self {
        Self::with_keys(product, at, PkiKeys::shared(product.name()))
    }

    /// A PKI valid around `at`, with these keys.
    pub fn with_keys(product: Product, at: u64, keys: PkiKeys) -> Self {
        // AMD's serial numbers: 01, 02, 03 for the product, then 0000 ARK, 0001 or 0002 ASK, 0101 ASVK.
        let family = match product {
            Product::Milan => 1,
            Product::Genoa => 2,
            Product::Turin => 3,
        };
        let root = Name::amd(&format!("SIM-ARK-{product}"));
        let authority = |subject: Name,
                         serial: [u8; 2],
                         key: &RsaKey,
                         extensions: Vec<Extension>| Certificate {
            version: Some(2),
            serial: vec![family, serial[0], serial[1]],
            algorithm: pss_sha384(true),
            outer_algorithm: None,
            issuer: root.clone(),
            not_before: at.saturating_sub(4 * YEAR),
            not_after: at + 20 * YEAR,
            subject,
            spki: key.spki(),
            extensions,
            signature_unused_bits: 0,
            trailing: Vec::new(),
        };
        let intermediate = |name: &str, serial: [u8; 2], key: &RsaKey, path: &str| {
            let extensions = vec![
                Extension::subject_key_id(key.public_key()),
                Extension::authority_key_id(keys.ark.public_key()),
                Extension::basic_constraints(true, Some(0)),
                Extension::key_usage(false),
                Extension::crl_point(&crl_url(path, product)),
            ];
            authority(
                Name::amd(&format!("{name}-{product}")),
                serial,
                key,
                extensions,
            )
        };
        let ark_extensions = vec![
            Extension::key_usage(true),
            Extension::subject_key_id(keys.ark.public_key()),
            Extension::basic_constraints(true, None),
            Extension::crl_point(&crl_url("vcek", product)),
        ];
        Self {
            product,
            at,
            ark: authority(root.clone(), [0, 0], &keys.ark, ark_extensions),
            ask: intermediate("SIM-SEV", [0, 1], &keys.ask, "vcek"),
            asvk: intermediate("SIM-SEV-VLEK", [1, 1], &keys.asvk, "vlek"),
            keys,
        }
    }

    /// The root, self-signed.
    pub fn ark_der(&self) -> Vec<u8> {
        self.ark.sign(&self.keys.ark)
    }

    /// The root as PEM: what `--trust-simulated-root` takes.
    pub fn ark_pem(&self) -> String {
        pem("CERTIFICATE", &self.ark_der())
    }

    /// The intermediate over VCEKs, signed by the root.
    pub fn ask_der(&self) -> Vec<u8> {
        self.ask.sign(&self.keys.ark)
    }

    /// The intermediate over VLEKs, signed by the root.
    pub fn asvk_der(&self) -> Vec<u8> {
        self.asvk.sign(&self.keys.ark)
    }

    /// A VCEK certificate for `key` that goes with `report`: its CHIP_ID and its REPORTED_TCB. Sign it with
    /// `pki.keys.ask`.
    pub fn vcek(&self, key: &VekKey, report: &Report) -> Certificate {
        let hwid = &report.chip_id[..self.product.hwid_length()];
        self.vcek_of(
            key,
            hwid,
            Tcb::from_bytes(report.reported_tcb, self.product),
        )
    }

    /// A VCEK certificate for `key` on the chip `hwid` at these patch levels.
    pub fn vcek_of(&self, key: &VekKey, hwid: &[u8], tcb: Tcb) -> Certificate {
        let mut certificate = self.vek(key, "SEV-VCEK", self.product.vcek_product_name(), tcb);
        certificate.issuer = self.ask.subject.clone();
        // Not wrapped in an OCTET STRING of its own: AMD writes the bytes bare.
        certificate
            .extensions
            .push(Extension::new(oid::HWID, false, hwid.to_vec()));
        certificate
    }

    /// A VLEK certificate for `key`, for the cloud provider `csp_id` (AMD writes `CN=cc-<region>.<domain>`), at the
    /// REPORTED_TCB of `report`. Sign it with `pki.keys.asvk`.
    pub fn vlek(&self, key: &VekKey, report: &Report, csp_id: &str) -> Certificate {
        let tcb = Tcb::from_bytes(report.reported_tcb, self.product);
        let mut certificate = self.vek(key, "SEV-VLEK", self.product.name(), tcb);
        certificate.issuer = self.asvk.subject.clone();
        certificate.not_before = self.at.saturating_sub(30 * DAY);
        certificate.not_after = certificate.not_before + YEAR;
        let csp = asn1::tlv(asn1::IA5_STRING, csp_id.as_bytes());
        certificate
            .extensions
            .push(Extension::new(oid::CSP_ID, false, csp));
        certificate
    }

    /// The root's revocation list: empty, a day old, good for four weeks. Sign it with `pki.keys.ark`.
    pub fn crl(&self) -> Crl {
        Crl {
            version: Some(1),
            algorithm: pss_sha384(true),
            outer_algorithm: None,
            issuer: self.ark.subject.clone(),
            this_update: self.at.saturating_sub(DAY),
            next_update: Some(self.at + 28 * DAY),
            revoked: Vec::new(),
            extensions: vec![
                Extension::authority_key_id(self.keys.ark.public_key()),
                Extension::new(oid::CRL_NUMBER, false, asn1::number(1)),
            ],
            signature_unused_bits: 0,
            trailing: Vec::new(),
        }
    }

    /// [`Pki::crl`], signed by the root.
    pub fn crl_der(&self) -> Vec<u8> {
        self.crl().sign(&self.keys.ark)
    }

    /// What VCEK and VLEK have in common: P-384, seven years, serial 0 as AMD gives to every one of them, no extension but
    /// AMD's own.
    fn vek(&self, key: &VekKey, subject: &str, product_name: &str, tcb: Tcb) -> Certificate {
        let spl = |oid: &str, value: u8| Extension::new(oid, false, asn1::number(value.into()));
        let turin = self.product == Product::Turin;
        let mut extensions = vec![
            Extension::new(oid::STRUCT_VERSION, false, asn1::number(turin.into())),
            Extension::new(
                oid::PRODUCT_NAME,
                false,
                asn1::tlv(asn1::IA5_STRING, product_name.as_bytes()),
            ),
        ];
        // The order is AMD's; on Turin fmcSPL comes first and spl4 is gone.
        extensions.extend(match turin {
            true => vec![
                spl(oid::FMC_SPL, tcb.fmc),
                spl(oid::BL_SPL, tcb.bootloader),
                spl(oid::TEE_SPL, tcb.tee),
                spl(oid::SNP_SPL, tcb.snp),
                spl(oid::SPL5, 0),
                spl(oid::SPL6, 0),
                spl(oid::SPL7, 0),
                spl(oid::UCODE_SPL, tcb.microcode),
            ],
            false => vec![
                spl(oid::BL_SPL, tcb.bootloader),
                spl(oid::TEE_SPL, tcb.tee),
                spl(oid::SPL4, 0),
                spl(oid::SPL5, 0),
                spl(oid::SPL6, 0),
                spl(oid::SPL7, 0),
                spl(oid::SNP_SPL, tcb.snp),
                spl(oid::UCODE_SPL, tcb.microcode),
            ],
        });
        Certificate {
            version: Some(2),
            serial: vec![0],
            algorithm: pss_sha384(true),
            outer_algorithm: None,
            issuer: self.ask.subject.clone(),
            not_before: self.at.saturating_sub(YEAR),
            not_after: self.at + 6 * YEAR,
            subject: Name::amd(subject),
            spki: key.spki(),
            extensions,
            signature_unused_bits: 0,
            trailing: Vec::new(),
        }
    }
}

/// Where such a CRL would be fetched, under a name that can never resolve (RFC 2606).
fn crl_url(path: &str, product: Product) -> String {
    format!("https://simulated.invalid/{path}/v1/{product}/crl")
}
