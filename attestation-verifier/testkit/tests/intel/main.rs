//! The synthetic Intel PKI and the quotes under it, read and judged by code that is not ours, and compared with what Intel
//! itself signed.

mod judged;
mod minted;
mod real;
mod shapes;

use std::path::PathBuf;

use dcap_qvl::QuoteCollateralV3;
use serde_json::Value;
use touchstone_formats::evidence::TdxCollateral;
use touchstone_testkit::fixtures;
use x509_parser::prelude::{FromDer, X509Certificate};

/// When everything here is judged.
pub const AT: u64 = 1_790_000_000;

/// Our collateral as dcap-qvl takes it.
pub fn theirs(ours: &TdxCollateral) -> QuoteCollateralV3 {
    let ours = ours.clone();
    QuoteCollateralV3 {
        pck_crl_issuer_chain: ours.pck_crl_issuer_chain.unwrap(),
        root_ca_crl: ours.root_ca_crl.unwrap().0,
        pck_crl: ours.pck_crl.unwrap().0,
        tcb_info_issuer_chain: ours.tcb_info_issuer_chain.unwrap(),
        tcb_info: ours.tcb_info.unwrap(),
        tcb_info_signature: ours.tcb_info_signature.unwrap().0,
        qe_identity_issuer_chain: ours.qe_identity_issuer_chain.unwrap(),
        qe_identity: ours.qe_identity.unwrap(),
        qe_identity_signature: ours.qe_identity_signature.unwrap().0,
        pck_certificate_chain: None,
    }
}

/// The folder of real TDX evidence, or a line that says that the test was skipped.
pub fn real_folder(test: &str) -> Option<PathBuf> {
    let folder = fixtures::evidence();
    if folder.is_none() {
        fixtures::skipped(test, "no fixtures");
    }
    folder.map(|f| f.join("tdx"))
}

/// A real quote and a real collateral file.
pub fn real(folder: &std::path::Path, quote: &str, collateral: &str) -> (Vec<u8>, Value) {
    let quote = std::fs::read(folder.join(quote).join("quote.bin")).unwrap();
    let file = std::fs::read(folder.join(collateral).join("collateral.json")).unwrap();
    (quote, serde_json::from_slice(&file).unwrap())
}

/// The certificates in a text, DER.
pub fn from_pem(text: &[u8]) -> Vec<Vec<u8>> {
    x509_parser::pem::Pem::iter_from_buffer(text)
        .map_while(|block| block.ok())
        .map(|block| block.contents)
        .collect()
}

/// The PCK chain in a quote, DER.
pub fn pck_chain(quote: &[u8]) -> Vec<Vec<u8>> {
    let begin = b"-----BEGIN";
    let at = quote.windows(begin.len()).position(|w| w == begin);
    from_pem(&quote[at.expect("a PEM chain")..])
}

/// A certificate with nothing after it.
pub fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    certificate
}
