//! What can be asked for: each piece of collateral by the address its vendor serves it at.
//!
//! Addresses are those of AMD's Key Distribution Service (AMD 57230, "Key Distribution Server API") and of Intel's
//! Provisioning Certification Service (Intel PCS API v4), which a PCCS answers too. An address is read
//! strictly, because a mirror gets them from strangers and a cache makes file names of them.

use attestation_verifier::parse::tdx::pck::PckCa;
use attestation_verifier::parse::vek::VekTcb;
use attestation_verifier::product::Product;
use touchstone_formats::text::{hex_decode, hex_encode};

/// Which endorsement key a chain or list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VekKind {
    /// The chip's own.
    Vcek,
    /// A cloud provider's.
    Vlek,
}

impl VekKind {
    /// As in addresses.
    pub fn word(self) -> &'static str {
        match self {
            VekKind::Vcek => "vcek",
            VekKind::Vlek => "vlek",
        }
    }
}

/// Whose service has a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// AMD's key distribution service.
    Kds,
    /// Intel's provisioning certification service.
    Pcs,
}

/// One piece of collateral.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The certificate of a chip's endorsement key at one TCB.
    Vcek {
        /// The product line.
        product: Product,
        /// The hardware id, [`Product::hwid_length`] bytes.
        hwid: Vec<u8>,
        /// The patch levels.
        tcb: VekTcb,
    },
    /// The intermediate and root above endorsement keys.
    AmdChain {
        /// The product line.
        product: Product,
        /// Which intermediate: ASK or ASVK.
        key: VekKind,
    },
    /// The root's revocation list.
    AmdCrl {
        /// The product line.
        product: Product,
        /// AMD publishes it at two addresses.
        key: VekKind,
    },
    /// TCB info of a family of TDX platforms.
    TcbInfo {
        /// The family.
        fmspc: [u8; 6],
    },
    /// The identity of Intel's quoting enclave for TDs.
    QeIdentity,
    /// The revocation list of a PCK CA.
    PckCrl {
        /// Which.
        ca: PckCa,
    },
    /// The revocation list of Intel's root.
    IntelRootCrl,
}

/// How a client wants a revocation list of Intel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Der,
    /// Lower-case hex, as a PCCS gives it.
    Hex,
}

/// Where Intel serves its root's revocation list, on a host of its own.
const ROOT_CRL: &str = "/IntelSGXRootCA.der";
/// Where a PCCS does.
pub(crate) const PCCS_ROOT_CRL: &str = "/sgx/certification/v4/rootcacrl";

impl Item {
    /// Whose it is.
    pub fn vendor(&self) -> Vendor {
        match self {
            Item::Vcek { .. } | Item::AmdChain { .. } | Item::AmdCrl { .. } => Vendor::Kds,
            Item::TcbInfo { .. } | Item::QeIdentity | Item::PckCrl { .. } | Item::IntelRootCrl => {
                Vendor::Pcs
            }
        }
    }

    /// Its address at the vendor's, path and query. The same item has the same address always.
    pub fn target(&self) -> String {
        match self {
            Item::Vcek { product, hwid, tcb } => {
                let fmc = tcb.fmc.map(|fmc| format!("fmcSPL={fmc:02}&"));
                format!(
                    "/vcek/v1/{product}/{}?{}blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
                    hex_encode(hwid),
                    fmc.unwrap_or_default(),
                    tcb.bootloader,
                    tcb.tee,
                    tcb.snp,
                    tcb.microcode
                )
            }
            Item::AmdChain { product, key } => format!("/{}/v1/{product}/cert_chain", key.word()),
            Item::AmdCrl { product, key } => format!("/{}/v1/{product}/crl", key.word()),
            Item::TcbInfo { fmspc } => {
                let fmspc = hex_encode(fmspc).to_uppercase();
                format!("/tdx/certification/v4/tcb?fmspc={fmspc}")
            }
            Item::QeIdentity => "/tdx/certification/v4/qe/identity".into(),
            Item::PckCrl { ca } => {
                format!("/sgx/certification/v4/pckcrl?ca={}&encoding=der", ca.word())
            }
            Item::IntelRootCrl => ROOT_CRL.into(),
        }
    }

    /// Which item an address means, and how it is wanted. Parameters may stand in any order, none twice, none unknown.
    pub fn of_target(target: &str) -> Option<(Item, Encoding)> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut query = Query::parse(query)?;
        let mut encoding = Encoding::Der;
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let item = match segments.as_slice() {
            [kind @ ("vcek" | "vlek"), "v1", product, last] => {
                let product = Product::from_name(product)?;
                let key = match *kind {
                    "vcek" => VekKind::Vcek,
                    _ => VekKind::Vlek,
                };
                match (*last, key) {
                    ("cert_chain", _) => Item::AmdChain { product, key },
                    ("crl", _) => Item::AmdCrl { product, key },
                    (hwid, VekKind::Vcek) => {
                        let hwid = hex_decode(&hwid.to_ascii_lowercase()).ok()?;
                        let tcb = VekTcb {
                            fmc: match product.has_fmc() {
                                true => Some(query.level("fmcSPL")?),
                                false => None,
                            },
                            bootloader: query.level("blSPL")?,
                            tee: query.level("teeSPL")?,
                            snp: query.level("snpSPL")?,
                            microcode: query.level("ucodeSPL")?,
                        };
                        (hwid.len() == product.hwid_length()).then_some(())?;
                        Item::Vcek { product, hwid, tcb }
                    }
                    _ => return None,
                }
            }
            ["tdx", "certification", "v4", "tcb"] => {
                let fmspc = hex_decode(&query.take("fmspc")?.to_ascii_lowercase()).ok()?;
                let fmspc = fmspc.try_into().ok()?;
                // The other kind, "early", is another text; nobody here has it.
                matches!(query.take("update"), None | Some("standard")).then_some(())?;
                Item::TcbInfo { fmspc }
            }
            ["tdx", "certification", "v4", "qe", "identity"] => {
                matches!(query.take("update"), None | Some("standard")).then_some(())?;
                Item::QeIdentity
            }
            ["sgx", "certification", "v4", "pckcrl"] => {
                let ca = match query.take("ca")? {
                    "processor" => PckCa::Processor,
                    "platform" => PckCa::Platform,
                    _ => return None,
                };
                encoding = match query.take("encoding") {
                    Some("der") => Encoding::Der,
                    None => Encoding::Hex,
                    Some(_) => return None,
                };
                Item::PckCrl { ca }
            }
            ["sgx", "certification", "v4", "rootcacrl"] => {
                encoding = Encoding::Hex;
                Item::IntelRootCrl
            }
            ["IntelSGXRootCA.der"] => Item::IntelRootCrl,
            _ => return None,
        };
        query.is_empty().then_some((item, encoding))
    }

    /// A file name for it, of letters, digits, `-` and `.` alone. Two items never have one name.
    pub fn file_name(&self) -> String {
        match self {
            Item::Vcek { product, hwid, tcb } => {
                let VekTcb {
                    fmc,
                    bootloader,
                    tee,
                    snp,
                    microcode,
                } = tcb;
                let fmc = fmc.map(|fmc| format!("-{fmc}")).unwrap_or_default();
                format!(
                    "vcek-{product}-{}{fmc}-{bootloader}-{tee}-{snp}-{microcode}.json",
                    hex_encode(hwid)
                )
            }
            Item::AmdChain { product, key } => format!("{}-chain-{product}.json", key.word()),
            Item::AmdCrl { product, key } => format!("{}-crl-{product}.json", key.word()),
            Item::TcbInfo { fmspc } => format!("tcb-{}.json", hex_encode(fmspc)),
            Item::QeIdentity => "qe-identity.json".into(),
            Item::PckCrl { ca } => format!("pck-crl-{}.json", ca.word()),
            Item::IntelRootCrl => "intel-root-crl.json".into(),
        }
    }

    /// Bytes that an answer may have at most. Together they stay under what a bundle may hold.
    pub fn most_bytes(&self) -> usize {
        match self {
            Item::Vcek { .. } => 16 << 10,
            Item::AmdChain { .. } => 32 << 10,
            Item::AmdCrl { .. } => 256 << 10,
            Item::TcbInfo { .. } => 256 << 10,
            Item::QeIdentity => 64 << 10,
            Item::PckCrl { .. } | Item::IntelRootCrl => 256 << 10,
        }
    }

    /// What it is, for people.
    pub fn words(&self) -> String {
        match self {
            Item::Vcek { product, hwid, tcb } => {
                let hwid = hex_encode(hwid);
                let short = hwid.get(..16).unwrap_or(&hwid);
                format!(
                    "the VCEK certificate of {product} chip {short}… at TCB {}",
                    tcb_words(*tcb)
                )
            }
            Item::AmdChain { product, key } => match key {
                VekKind::Vcek => format!("the {product} chain (ASK, ARK)"),
                VekKind::Vlek => format!("the {product} chain (ASVK, ARK)"),
            },
            Item::AmdCrl { product, .. } => format!("the {product} revocation list"),
            Item::TcbInfo { fmspc } => {
                format!("TCB info of FMSPC {}", hex_encode(fmspc).to_uppercase())
            }
            Item::QeIdentity => "the TD quoting enclave's identity".into(),
            Item::PckCrl { ca } => format!("the revocation list of the PCK {} CA", ca.word()),
            Item::IntelRootCrl => "the revocation list of Intel's root".into(),
        }
    }
}

/// `bl=10 tee=0 snp=24 ucode=88`, with `fmc=` where the product has one.
pub(crate) fn tcb_words(tcb: VekTcb) -> String {
    let fmc = tcb.fmc.map(|fmc| format!("fmc={fmc} ")).unwrap_or_default();
    format!(
        "{fmc}bl={} tee={} snp={} ucode={}",
        tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode
    )
}

/// The parameters of a query, each taken once.
struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    fn parse(text: &'a str) -> Option<Query<'a>> {
        const MOST: usize = 8;
        let mut list: Vec<(&str, &str)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            if list.len() == MOST || list.iter().any(|(other, _)| *other == name) {
                return None;
            }
            list.push((name, value));
        }
        Some(Query(list))
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(other, _)| *other == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// A patch level: decimal, 0 to 255.
    fn level(&mut self, name: &str) -> Option<u8> {
        let text = self.take(name)?;
        let digits = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcb(fmc: Option<u8>) -> VekTcb {
        VekTcb {
            fmc,
            bootloader: 3,
            tee: 0,
            snp: 20,
            microcode: 209,
        }
    }

    fn items() -> Vec<Item> {
        let (product, key) = (Product::Genoa, VekKind::Vlek);
        vec![
            Item::Vcek {
                product: Product::Milan,
                hwid: vec![0xab; 64],
                tcb: tcb(None),
            },
            Item::Vcek {
                product: Product::Turin,
                hwid: vec![0xcd; 8],
                tcb: tcb(Some(1)),
            },
            Item::AmdChain { product, key },
            Item::AmdChain {
                product,
                key: VekKind::Vcek,
            },
            Item::AmdCrl { product, key },
            Item::TcbInfo {
                fmspc: [0, 0x80, 0x6f, 5, 0, 0],
            },
            Item::QeIdentity,
            Item::PckCrl {
                ca: PckCa::Platform,
            },
            Item::PckCrl {
                ca: PckCa::Processor,
            },
            Item::IntelRootCrl,
        ]
    }

    #[test]
    fn addresses_are_the_vendors() {
        let targets: Vec<String> = items().iter().map(Item::target).collect();
        assert_eq!(
            targets[1],
            "/vcek/v1/Turin/cdcdcdcdcdcdcdcd?fmcSPL=01&blSPL=03&teeSPL=00&snpSPL=20&ucodeSPL=209"
        );
        assert!(targets[0].ends_with("abab?blSPL=03&teeSPL=00&snpSPL=20&ucodeSPL=209"));
        assert_eq!(targets[2], "/vlek/v1/Genoa/cert_chain");
        assert_eq!(targets[4], "/vlek/v1/Genoa/crl");
        assert_eq!(targets[5], "/tdx/certification/v4/tcb?fmspc=00806F050000");
        assert_eq!(
            targets[7],
            "/sgx/certification/v4/pckcrl?ca=platform&encoding=der"
        );
    }

    #[test]
    fn an_address_is_read_back_and_names_are_unique() {
        let mut names = std::collections::BTreeSet::new();
        for item in items() {
            assert_eq!(
                Item::of_target(&item.target()),
                Some((item.clone(), Encoding::Der))
            );
            let name = item.file_name();
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            assert!(name.chars().all(plain) && name.len() < 200, "{name}");
            assert!(names.insert(name));
        }
        let hex = "/sgx/certification/v4/rootcacrl";
        assert_eq!(
            Item::of_target(hex),
            Some((Item::IntelRootCrl, Encoding::Hex))
        );
        let hex = "/sgx/certification/v4/pckcrl?ca=processor";
        assert_eq!(Item::of_target(hex).unwrap().1, Encoding::Hex);
    }

    #[test]
    fn other_addresses_mean_nothing() {
        let vcek = items()[0].target();
        for bad in [
            "",
            "/",
            "/vcek/v1/Genoa/",
            "/vcek/v1/../cert_chain",
            "/vcek/v1/Naples/crl",
            "/vcek/v1/Genoa/crl?x=1",
            "/vlek/v1/Genoa/cert",
            "/vcek/v2/Genoa/crl",
            "/tdx/certification/v4/tcb",
            "/tdx/certification/v4/tcb?fmspc=00806F0500",
            "/tdx/certification/v4/tcb?fmspc=00806F050000&update=early",
            "/tdx/certification/v4/tcb?fmspc=00806F050000&fmspc=00806F050000",
            "/sgx/certification/v4/pckcrl?ca=root",
            "/sgx/certification/v4/pckcrl?ca=platform&encoding=pem",
            &vcek.replace("ucodeSPL=209", "ucodeSPL=256"),
            &vcek.replace("ucodeSPL=209", "ucodeSPL=+9"),
            &vcek.replace("ucodeSPL=209", "ucodeSPL="),
            &vcek.replace("&ucodeSPL=209", ""),
            &vcek.replace("abab?", "ab?"),
            &format!("{vcek}&fmcSPL=1"),
            &vcek.replace("Milan", "Turin"),
        ] {
            assert_eq!(Item::of_target(bad), None, "{bad}");
        }
    }
}
