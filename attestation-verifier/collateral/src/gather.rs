//! All that one platform needs, at once.

use attestation_verifier::product::Product;
use touchstone_formats::evidence::{Collateral, Evidence};

use crate::Error;
use crate::fetch::{Fetcher, Fresh, Had};
use crate::platform::{Platform, authenticated};
use crate::verify::Piece;

/// What a platform needs, and what only its operator knows.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its evidence; collateral in it is not looked at.
    pub evidence: Evidence,
    /// The product, for reports that do not say.
    pub product: Option<Product>,
    /// The certificate of a provider's key, DER.
    pub vlek: Option<Vec<u8>>,
}

/// What was had.
#[derive(Debug)]
pub struct Gathered {
    /// Which platform it is.
    pub platform: Platform,
    /// The evidence, with its collateral.
    pub evidence: Evidence,
    /// The collateral.
    pub collateral: Collateral,
    /// The pieces, and how each was had.
    pub pieces: Vec<Had>,
}

/// Gets everything, and looks whether together it makes the evidence authentic.
///
/// # Errors
/// The first piece that cannot be had, and why; or [`Error::Refused`].
pub async fn gather(fetcher: &Fetcher, wanted: &Wanted, fresh: Fresh) -> Result<Gathered, Error> {
    let platform = Platform::of(&wanted.evidence, wanted.product)?;
    if platform.needs_vlek() != wanted.vlek.is_some() {
        return Err(Error::Usage(
            match wanted.vlek {
                None => {
                    "the report is signed by a cloud provider's key (VLEK): AMD gives its certificate to the provider \
                     alone, so take it from the machine (SNP_GET_EXT_REPORT) or the provider, and give the file (--vlek)"
                }
                Some(_) => "the report is signed by the chip's own key: a VLEK certificate does not belong to it",
            }
            .into(),
        ));
    }
    let mut pieces = Vec::new();
    for item in platform.items() {
        pieces.push(fetcher.obtain(&item, fresh).await?);
    }
    let all: Vec<Piece> = pieces.iter().map(|had| had.piece.clone()).collect();
    let collateral = platform.assemble(&all, wanted.vlek.clone());
    let evidence = Evidence {
        collateral: Some(collateral.clone()),
        ..wanted.evidence.clone()
    };
    authenticated(&evidence, &fetcher.settings().roots, fetcher.now())?;
    Ok(Gathered {
        platform,
        evidence,
        collateral,
        pieces,
    })
}
