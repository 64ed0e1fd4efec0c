//! The host's certificate table (GHCB specification 2.03, section 4.1.8.1).

use touchstone_testkit::machine::{CollateralFiles, Endorsement};

const VCEK: &str = "63da758de6644564adc5f4b93be8accd";
const VLEK: &str = "a8074bc2a25a483eaae639c045a0b8a1";
const ASK: &str = "4ab7b379bbac4fe4a02f05aef327c782";

/// The table that a host with these certificates puts beside reports: the endorsement key's, and the intermediate's.
pub fn certificate_table(endorsement: &Endorsement, files: &CollateralFiles) -> Vec<u8> {
    let vek = match endorsement {
        Endorsement::Vcek => VCEK,
        Endorsement::Vlek { .. } => VLEK,
    };
    let mut entries = vec![(vek, &files.vek)];
    entries.extend(files.chain.first().map(|intermediate| (ASK, intermediate)));
    let mut table = Vec::new();
    let mut offset = 24 * (entries.len() + 1);
    for (guid, der) in &entries {
        table.extend((0..32).step_by(2).map(|at| {
            u8::from_str_radix(&guid[at..at + 2], 16).expect("GUIDs above are hexadecimal")
        }));
        table.extend((offset as u32).to_le_bytes());
        table.extend((der.len() as u32).to_le_bytes());
        offset += der.len();
    }
    table.extend([0; 24]);
    entries.iter().for_each(|(_, der)| table.extend(*der));
    table
}
