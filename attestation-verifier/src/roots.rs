//! Roots of trust: AMD's ARKs and Intel's SGX Root CA, compiled in and pinned by digest, and roots a caller names.
//!
//! The only difference a named root makes is [`Anchor::simulated`]: parsing, authentication and
//! appraisal are the same code for both, and the verdict says which kind the chain reached.

use std::fmt;

use thiserror::Error;
use touchstone_formats::evidence::Tee;
use touchstone_formats::text::base64_decode;

use crate::authenticate::issued;
use crate::crypto::{Budget, sha256};
use crate::known::Known;
use crate::parse::cert::{Certificate, PublicKey};
use crate::product::Product;

/// Why a file of roots was refused; all of these are exit 1 (check `root.simulated`).
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RootError {
    /// The file is no PEM with certificates and nothing else.
    #[error("not a PEM file of certificates: {0}")]
    Pem(String),
    /// A certificate in it is a pinned root: naming it could only blur what is simulated.
    #[error("certificate {index} is the pinned root {name}: a simulated root must be another")]
    Pinned {
        /// Place in the file, from 1.
        index: usize,
        /// Which pinned root.
        name: String,
    },
    /// A certificate in it is no well-formed, self-signed root in the shape of AMD's or Intel's.
    #[error("certificate {index}: {reason}")]
    Unfit {
        /// Place in the file, from 1.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The same certificate, or the same name, stands in it twice.
    #[error("certificate {index} repeats one that is already trusted")]
    Twice {
        /// Place in the file, from 1.
        index: usize,
    },
}

/// A set of trusted roots.
#[derive(Clone, Debug)]
pub struct Roots {
    anchors: Vec<Anchor>,
}

/// One trusted root.
#[derive(Clone)]
pub struct Anchor {
    /// The root's certificate.
    pub certificate: Certificate,
    /// The kind of platform it is for; that of a root a caller names follows from its key.
    pub tee: Tee,
    /// The product it is for: AMD's alone have one each, and a root that a caller names may leave it open.
    pub product: Option<Product>,
    /// Named by the caller, not pinned.
    pub simulated: bool,
}

impl Anchor {
    /// What kind of root this is, in words.
    pub fn kind(&self) -> &'static str {
        if self.simulated {
            "a root that you named, of a simulated platform"
        } else {
            "a pinned root"
        }
    }

    /// What a verdict has to say of every chain that ends here; nothing of the pinned ones.
    pub fn note(&self) -> Option<&'static str> {
        self.simulated.then_some(
            "SIMULATED: the chain ends at a root that you named. No hardware stands behind any of this.",
        )
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.simulated { "named" } else { "pinned" };
        write!(f, "Anchor({kind} {})", self.certificate.subject_cn)
    }
}

/// The pinned roots with their digests; where they are from is in `roots/README.md`.
const PINNED: [(Option<Product>, &[u8], [u8; 32]); 4] = [
    (
        Some(Product::Milan),
        include_bytes!("roots/ark-milan.der"),
        hex_literal(b"69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"),
    ),
    (
        Some(Product::Genoa),
        include_bytes!("roots/ark-genoa.der"),
        hex_literal(b"4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"),
    ),
    (
        Some(Product::Turin),
        include_bytes!("roots/ark-turin.der"),
        hex_literal(b"1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"),
    ),
    (
        None,
        include_bytes!("roots/intel-sgx-root-ca.der"),
        hex_literal(b"44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"),
    ),
];

/// Largest file of named roots.
const MOST_BYTES: usize = 1 << 18;
/// Most roots a caller may name.
const MOST_NAMED: usize = 8;

impl Roots {
    /// AMD's roots for Milan, Genoa and Turin and Intel's for SGX and TDX, as compiled in.
    pub fn pinned() -> Roots {
        let anchors = PINNED
            .iter()
            // A root that is not the pinned one is no root; a test holds that none is lost.
            .filter(|(_, der, digest)| sha256(der) == *digest)
            .filter_map(|(product, der, _)| {
                let certificate = Certificate::parse(der).ok()?;
                Some(Anchor {
                    tee: tee_of(&certificate.key)?,
                    certificate,
                    product: *product,
                    simulated: false,
                })
            })
            .collect();
        Roots { anchors }
    }

    /// Adds the roots of a simulated platform, from a PEM file (several certificates allowed).
    ///
    /// # Errors
    /// [`RootError`] if one of them is a pinned root, or no well-formed self-signed root in the shape of AMD's (RSA) or
    /// Intel's (P-256).
    pub fn with_simulated_pem(mut self, pem: &[u8]) -> Result<Roots, RootError> {
        for (index, der) in (1..).zip(read_pem(pem)?) {
            let unfit = |reason: &str| RootError::Unfit {
                index,
                reason: reason.to_owned(),
            };
            let certificate = Certificate::parse(&der).map_err(|e| unfit(&e.to_string()))?;
            for anchor in &self.anchors {
                // The key is what is trusted, whatever certificate is around it.
                if anchor.certificate.key != certificate.key {
                    continue;
                }
                return Err(if anchor.simulated {
                    RootError::Twice { index }
                } else {
                    RootError::Pinned {
                        index,
                        name: anchor.certificate.subject_cn.clone(),
                    }
                });
            }
            let tee = fit(&certificate).map_err(unfit)?;
            let product = match tee {
                Tee::SevSnp => product_of(&certificate.subject_cn),
                Tee::Tdx => None,
            };
            self.anchors.push(Anchor {
                certificate,
                tee,
                product,
                simulated: true,
            });
        }
        Ok(self)
    }

    /// The roots, pinned ones first.
    pub fn anchors(&self) -> &[Anchor] {
        &self.anchors
    }

    /// The roots for one kind of platform, pinned ones first.
    pub(crate) fn of(&self, tee: Tee) -> impl Iterator<Item = &Anchor> {
        self.anchors.iter().filter(move |anchor| anchor.tee == tee)
    }

    /// No roots: for who reads and trusts nothing.
    pub(crate) fn none() -> Roots {
        let anchors = Vec::new();
        Roots { anchors }
    }

    /// The root of these bytes, whatever platform it is for.
    pub(crate) fn find(&self, der: &[u8]) -> Option<&Certificate> {
        let mut all = self.anchors.iter().map(|anchor| &anchor.certificate);
        all.find(|root| root.der() == der)
    }

    /// Whether these bytes are one of the roots for this kind of platform.
    pub(crate) fn hold(&self, tee: Tee, der: &[u8]) -> bool {
        self.of(tee).any(|anchor| anchor.certificate.der() == der)
    }
}

/// Which hierarchy a key of this kind is the root of.
fn tee_of(key: &PublicKey) -> Option<Tee> {
    match key {
        PublicKey::Rsa(_) => Some(Tee::SevSnp),
        PublicKey::P256(_) => Some(Tee::Tdx),
        PublicKey::P384(_) | PublicKey::Other => None,
    }
}

/// What a root must be: a self-signed CA in the shape of AMD's, with an RSA key, or of Intel's, on P-256.
fn fit(certificate: &Certificate) -> Result<Tee, &'static str> {
    if certificate.issuer != certificate.subject {
        return Err("not self-issued");
    }
    if !certificate.may_sign_certificates() {
        return Err("not a CA with keyCertSign");
    }
    if certificate.basic_constraints == Some((true, Some(0))) {
        return Err("its path length leaves no room for an intermediate");
    }
    if certificate.unknown_critical().is_some() {
        return Err("it has a critical extension that is not understood");
    }
    let Some(tee) = tee_of(&certificate.key) else {
        return Err("its key is neither RSA, as AMD's, nor on P-256, as Intel's");
    };
    if issued(
        certificate,
        certificate.into(),
        &mut Budget::new(&Known::nothing()),
    ) {
        return Ok(tee);
    }
    Err(match tee {
        Tee::SevSnp => "not self-signed with RSASSA-PSS and SHA-384",
        Tee::Tdx => "not self-signed with ECDSA and SHA-256",
    })
}

/// `ARK-Genoa`, `SIM-ARK-Genoa`: the one product that is a word of the name.
pub(crate) fn product_of(common_name: &str) -> Option<Product> {
    let mut words = common_name
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter_map(Product::from_name);
    let product = words.next()?;
    words.next().is_none().then_some(product)
}

/// The certificates of a PEM file (RFC 7468). Text between them is allowed, other blocks are not.
fn read_pem(pem: &[u8]) -> Result<Vec<Vec<u8>>, RootError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let error = |what: &str| RootError::Pem(what.to_owned());
    if pem.len() > MOST_BYTES {
        return Err(error("over 256 KiB"));
    }
    let text = std::str::from_utf8(pem).map_err(|_| error("not UTF-8"))?;
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines().map(str::trim_end) {
        match &mut open {
            None if line == BEGIN => open = Some(String::new()),
            None if line.starts_with("-----") => return Err(error("a block of another kind")),
            None => {}
            Some(body) if line == END => {
                found.push(base64_decode(body).map_err(|e| error(&e.to_string()))?);
                open = None;
            }
            Some(body) => body.push_str(line),
        }
    }
    if open.is_some() {
        return Err(error("a certificate that does not end"));
    }
    if found.is_empty() {
        return Err(error("no certificate"));
    }
    if found.len() > MOST_NAMED {
        return Err(error("more than 8 certificates"));
    }
    Ok(found)
}

/// Hex to bytes at compile time.
const fn hex_literal(hex: &[u8; 64]) -> [u8; 32] {
    let mut out = [0; 32];
    let mut rest: &[u8] = hex;
    let mut i = 0;
    while let [high, low, tail @ ..] = rest {
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler alone")]
        {
            out[i] = nibble(*high) << 4 | nibble(*low);
        }
        i += 1;
        rest = tail;
    }
    out
}

const fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_roots_are_the_vendors_and_fit() {
        let roots = Roots::pinned();
        let names: Vec<&str> = roots
            .anchors()
            .iter()
            .map(|a| a.certificate.subject_cn.as_str())
            .collect();
        assert_eq!(
            names,
            ["ARK-Milan", "ARK-Genoa", "ARK-Turin", "Intel SGX Root CA"]
        );
        for anchor in roots.anchors() {
            assert_eq!(fit(&anchor.certificate), Ok(anchor.tee));
            assert_eq!(product_of(&anchor.certificate.subject_cn), anchor.product);
            assert_eq!(anchor.product.is_some(), anchor.tee == Tee::SevSnp);
            assert!(!anchor.simulated);
        }
    }

    /// The key that Intel prints in its documents (SGX PCK Certificate and CRL Profile, "Intel SGX Root CA").
    #[test]
    fn the_key_of_intels_root_is_the_published_one() {
        let published = "0ba9c4c0c0c86193a3fe23d6b02cda10a8bbd4e88e48b4458561a36e705525f5\
                         67918e2edc88e40d860bd0cc4ee26aacc988e505a953558c453f6b0904ae7394";
        let roots = Roots::pinned();
        let mut intel = roots.of(Tee::Tdx);
        let key = &intel.next().unwrap().certificate.key;
        let PublicKey::P256(point) = key else {
            panic!("{key:?}");
        };
        assert_eq!(touchstone_formats::text::hex_encode(&point[1..]), published);
        assert!(intel.next().is_none());
    }

    #[test]
    fn a_name_says_one_product_or_none() {
        assert_eq!(product_of("SIM-ARK-Genoa"), Some(Product::Genoa));
        assert_eq!(product_of("ARK-Genoa-Turin"), None);
        assert_eq!(product_of("ARK-Genoax"), None);
        assert_eq!(product_of(""), None);
    }
}
