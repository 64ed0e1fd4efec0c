//! Keysets, catalogues and model manifests: canonical JSON whose digest is an identity.
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_formats::{Catalog, Keyset, ModelManifest};

fuzz_target!(|input: &[u8]| {
    if let Ok(keyset) = Keyset::parse(input) {
        assert_eq!(keyset.to_jcs(), input);
    }
    if let Ok(catalog) = Catalog::parse(input) {
        assert_eq!(catalog.to_jcs(), input);
    }
    if let Ok(manifest) = ModelManifest::parse(input) {
        assert_eq!(manifest.to_jcs(), input);
    }
});
