//! Where collateral comes from: the vendors' services, or an operator's own in their place.

use hyper::Uri;

use crate::Error;
use crate::item::{Item, PCCS_ROOT_CRL, Vendor};

/// AMD's key distribution service.
pub const AMD_KDS: &str = "https://kdsintf.amd.com";
/// Intel's provisioning certification service.
pub const INTEL_PCS: &str = "https://api.trustedservices.intel.com";
/// Where Intel has its root's revocation list.
pub const INTEL_CERTIFICATES: &str = "https://certificates.trustedservices.intel.com";

/// The beginning of an address: scheme, host, port and a path before the vendor's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Whether there is TLS.
    pub tls: bool,
    /// The host's name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `host` or `host:port`, as it is said in `Host`.
    pub authority: String,
    /// Path before the vendor's: empty, or beginning and not ending with `/`.
    pub prefix: String,
}

impl Base {
    /// Reads `https://HOST[:PORT][/PATH]`, or `http://…`. Over `http` who listens learns which chip this is; nobody can
    /// change anything, because collateral is verified wherever it came from.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn parse(text: &str) -> Result<Base, Error> {
        let wrong = || {
            Error::Usage(format!(
                "{text:?}: expected https://HOST[:PORT][/PATH], or http://…"
            ))
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') || uri.query().is_some() || text.contains('#') {
            return Err(wrong());
        }
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Base {
            tls,
            host: bare.unwrap_or(host).to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// AMD's service, or one that answers like it.
    pub kds: Base,
    /// Intel's service, or a PCCS.
    pub pcs: Base,
    /// Where Intel's root's revocation list is, if elsewhere than at a PCCS.
    pub root_crl: Option<Base>,
}

impl Sources {
    /// The vendors themselves, or what stands in their place.
    ///
    /// # Errors
    /// [`Error::Usage`] for an address that is none.
    pub fn new(kds: Option<&str>, pcs: Option<&str>) -> Result<Sources, Error> {
        let pcs = Base::parse(pcs.unwrap_or(INTEL_PCS))?;
        let intel = pcs == Base::parse(INTEL_PCS)?;
        Ok(Sources {
            kds: Base::parse(kds.unwrap_or(AMD_KDS))?,
            root_crl: intel.then(|| Base::parse(INTEL_CERTIFICATES)).transpose()?,
            pcs,
        })
    }

    /// Who has this piece, and at which address, path and query.
    pub fn of(&self, item: &Item) -> (&Base, String) {
        let (base, target) = match (item, &self.root_crl) {
            (Item::IntelRootCrl, Some(base)) => (base, item.target()),
            (Item::IntelRootCrl, None) => (&self.pcs, PCCS_ROOT_CRL.to_owned()),
            _ if item.vendor() == Vendor::Kds => (&self.kds, item.target()),
            _ => (&self.pcs, item.target()),
        };
        (base, format!("{}{target}", base.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let base = Base::parse("https://pccs.example:8081/mirror/").unwrap();
        assert_eq!((base.tls, base.port), (true, 8081));
        assert_eq!(
            (base.host.as_str(), base.prefix.as_str()),
            ("pccs.example", "/mirror")
        );
        let base = Base::parse("http://[::1]:80").unwrap();
        assert_eq!(
            (base.host.as_str(), base.authority.as_str()),
            ("::1", "[::1]:80")
        );
        for bad in [
            "",
            "pccs.example",
            "ftp://x",
            "https://",
            "https://u@h",
            "https://h?q=1",
            "https://h#f",
        ] {
            assert!(matches!(Base::parse(bad), Err(Error::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn the_roots_list_is_where_its_service_has_it() {
        let address = |sources: Sources| {
            let (base, target) = sources.of(&Item::IntelRootCrl);
            format!("{}{target}", base.authority)
        };
        assert_eq!(
            address(Sources::new(None, None).unwrap()),
            "certificates.trustedservices.intel.com/IntelSGXRootCA.der"
        );
        assert_eq!(
            address(Sources::new(None, Some("https://pccs:8081/a")).unwrap()),
            "pccs:8081/a/sgx/certification/v4/rootcacrl"
        );
    }
}
