//! The synthetic Intel PKI and the quotes under it, read by code that is not ours, and compared with what Intel itself signed.
//! Another verifier judges them in `crosscheck/tests/dcap_qvl`.

mod real;
mod shapes;

use std::path::PathBuf;

use serde_json::Value;
use touchstone_testkit::fixtures;
use x509_parser::prelude::{FromDer, X509Certificate};

/// When everything here is judged.
pub const AT: u64 = 1_790_000_000;

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
