//! Evidence and collateral files, and the certificate table of an SEV-SNP host.
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_formats::evidence::{Collateral, quote_report_data};
use touchstone_formats::limits::MAX_COLLATERAL_ITEMS;
use touchstone_formats::{CollateralFile, Evidence, Tee, certificate_table};

fuzz_target!(|input: &[u8]| {
    if let Ok(evidence) = Evidence::parse(input) {
        assert_eq!(Evidence::parse(&evidence.to_file()).as_ref(), Ok(&evidence));
    }
    if let Ok(file) = CollateralFile::parse(input) {
        assert_eq!(CollateralFile::parse(&file.to_file()).as_ref(), Ok(&file));
    }
    for vlek in [false, true] {
        if let Ok(found) = certificate_table::collateral(input, vlek) {
            let size = Collateral::SevSnp(found).size();
            assert!(size <= MAX_COLLATERAL_ITEMS * input.len());
        }
    }
    for tee in [Tee::SevSnp, Tee::Tdx] {
        let _ = quote_report_data(tee, input);
    }
});
