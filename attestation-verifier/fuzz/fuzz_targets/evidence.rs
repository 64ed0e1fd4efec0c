//! Evidence and collateral files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_formats::evidence::quote_report_data;
use touchstone_formats::{CollateralFile, Evidence, Tee};

fuzz_target!(|input: &[u8]| {
    if let Ok(evidence) = Evidence::parse(input) {
        assert_eq!(Evidence::parse(&evidence.to_file()).as_ref(), Ok(&evidence));
    }
    if let Ok(file) = CollateralFile::parse(input) {
        assert_eq!(CollateralFile::parse(&file.to_file()).as_ref(), Ok(&file));
    }
    for tee in [Tee::SevSnp, Tee::Tdx] {
        let _ = quote_report_data(tee, input);
    }
});
