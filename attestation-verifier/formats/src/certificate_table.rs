//! The certificate table that an SEV-SNP host puts beside its guests' reports (GHCB specification 2.03, section 4.1.8.1).
//!
//! It comes from a host that is not trusted, like all collateral, and like all collateral it proves itself.

use crate::evidence::SnpCollateral;
use crate::limits::MAX_COLLATERAL_ITEMS;
use crate::{FormatError, Result};

/// Bytes of an entry: GUID, offset, length.
const ENTRY: usize = 24;
const VCEK: [u8; 16] = 0x63da_758d_e664_4564_adc5_f4b9_3be8_accd_u128.to_be_bytes();
const VLEK: [u8; 16] = 0xa807_4bc2_a25a_483e_aae6_39c0_45a0_b8a1_u128.to_be_bytes();
const ASK: [u8; 16] = 0x4ab7_b379_bbac_4fe4_a02f_05ae_f327_c782_u128.to_be_bytes();
const CRL: [u8; 16] = 0x92f8_1bc3_5811_4d3d_97ff_d19f_88dc_67ea_u128.to_be_bytes();

/// What of the table is collateral for a report that is signed by a VLEK, or (`false`) by a VCEK: the key's certificate, the
/// intermediate, the revocation lists. Left out is what is no DER, what nobody here knows, and the root, which is the
/// verifier's own. Where a table has one kind twice, the first counts.
///
/// # Errors
/// A table without an end, with more than 16 entries, or with one that points outside of it.
pub fn collateral(table: &[u8], vlek: bool) -> Result<SnpCollateral> {
    let mut found = SnpCollateral::default();
    let key = if vlek { VLEK } else { VCEK };
    for index in 0..=MAX_COLLATERAL_ITEMS {
        let at = index * ENTRY;
        let (guid, offset, length) = entry(table, at).ok_or(FormatError::Syntax {
            field: "certificate table",
            offset: at,
            found: "the end".into(),
            expected: "an entry, or 24 zeros",
        })?;
        if guid == [0; 16] {
            return Ok(found);
        }
        let bytes = offset
            .checked_add(length)
            .and_then(|end| table.get(offset..end))
            .ok_or_else(|| FormatError::Syntax {
                field: "certificate table",
                offset: at,
                found: format!("{length} bytes at {offset}"),
                expected: "bytes of the table",
            })?;
        if bytes.first() != Some(&0x30) {
            continue;
        }
        match guid {
            guid if guid == key => {
                found.vek.get_or_insert_with(|| bytes.to_vec());
            }
            ASK if found.chain.is_empty() => found.chain.push(bytes.to_vec()),
            CRL => found.crls.push(bytes.to_vec()),
            _ => {}
        }
    }
    Err(FormatError::TooLong {
        field: "certificate table",
        found: MAX_COLLATERAL_ITEMS + 1,
        limit: MAX_COLLATERAL_ITEMS,
    })
}

fn entry(table: &[u8], at: usize) -> Option<([u8; 16], usize, usize)> {
    let bytes: &[u8; ENTRY] = table.get(at..at.checked_add(ENTRY)?)?.try_into().ok()?;
    let (guid, rest) = bytes.split_first_chunk::<16>()?;
    let (offset, length) = rest.split_first_chunk::<4>()?;
    let length: &[u8; 4] = length.try_into().ok()?;
    let size = |bytes: &[u8; 4]| usize::try_from(u32::from_le_bytes(*bytes)).ok();
    Some((*guid, size(offset)?, size(length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARK: [u8; 16] = 0xc0b4_06a4_a803_4952_9743_3fb6_014c_d0ae_u128.to_be_bytes();

    fn table(entries: &[([u8; 16], &[u8])]) -> Vec<u8> {
        let mut table = Vec::new();
        let mut offset = ENTRY * (entries.len() + 1);
        for (guid, bytes) in entries {
            table.extend(guid);
            table.extend((offset as u32).to_le_bytes());
            table.extend((bytes.len() as u32).to_le_bytes());
            offset += bytes.len();
        }
        table.extend([0; ENTRY]);
        entries.iter().for_each(|(_, bytes)| table.extend(*bytes));
        table
    }

    #[test]
    fn the_key_that_signed_is_taken_and_the_root_is_not() {
        let all: &[([u8; 16], &[u8])] = &[
            (ARK, b"0root"),
            (ASK, b"0intermediate"),
            (VCEK, b"0chip"),
            (VLEK, b"0provider"),
            ([7; 16], b"0unknown"),
            (CRL, b"0list"),
        ];
        let mut padded = table(all);
        padded.resize(0x4000, 0);
        for table in [table(all), padded] {
            for (vlek, key) in [(false, b"0chip".to_vec()), (true, b"0provider".to_vec())] {
                let found = collateral(&table, vlek).unwrap();
                assert_eq!(found.vek, Some(key));
                assert_eq!(found.chain, [b"0intermediate".to_vec()]);
                assert_eq!(found.crls, [b"0list".to_vec()]);
            }
        }
        let pem = table(&[(VCEK, b"-----BEGIN CERTIFICATE-----")]);
        assert_eq!(collateral(&pem, false), Ok(SnpCollateral::default()));
        let twice = table(&[(VCEK, b"0first"), (VCEK, b"0second")]);
        let found = collateral(&twice, false).unwrap();
        assert_eq!(found.vek, Some(b"0first".to_vec()));
    }

    #[test]
    fn a_hostile_table_is_refused() {
        let good = table(&[(VCEK, b"0chip"), (ASK, b"0intermediate")]);
        collateral(&good, false).unwrap();
        // Offsets and lengths outside, one by one; no end; too many.
        for (at, value) in [
            (16, u32::MAX),
            (20, u32::MAX),
            (16, 91),
            (20, 200),
            (44, 14),
        ] {
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert!(collateral(&bad, false).is_err(), "{at} {value}");
        }
        for length in 0..good.len() {
            assert!(collateral(&good[..length], false).is_err(), "{length}");
        }
        assert!(collateral(&[0xFF; 0x4000], false).is_err());
        let entry: ([u8; 16], &[u8]) = (CRL, b"0list");
        collateral(&table(&[entry; MAX_COLLATERAL_ITEMS]), false).unwrap();
        let many = table(&[entry; MAX_COLLATERAL_ITEMS + 1]);
        assert!(matches!(
            collateral(&many, false),
            Err(FormatError::TooLong { .. })
        ));
    }
}
