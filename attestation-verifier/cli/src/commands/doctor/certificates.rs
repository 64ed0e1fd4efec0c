//! The certificate table that comes with an extended report (GHCB specification, "SNP Extended Guest Request", and AMD's
//! GUIDs of certificates): the host put it there, so that it proves itself or is worth nothing.

use touchstone_formats::SnpCollateral;

/// Length of an entry of the table: GUID, offset, length.
const ENTRY: usize = 24;
/// Most entries that are looked at. There are seven kinds.
const MOST_ENTRIES: usize = 64;
/// Longest certificate that is taken, bytes.
const MOST_CERTIFICATE: usize = 16 << 10;
/// Most certificates above the endorsement key's that are taken.
const MOST_CHAIN: usize = 4;

/// GUIDs, in the order in which they are written: AMD's own tools and the crate `sev` take and make tables so.
const VCEK: [u8; 16] = 0x63da758d_e664_4564_adc5_f4b93be8accd_u128.to_be_bytes();
const VLEK: [u8; 16] = 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1_u128.to_be_bytes();
const ASK: [u8; 16] = 0x4ab7b379_bbac_4fe4_a02f_05aef327c782_u128.to_be_bytes();
const CRL: [u8; 16] = 0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea_u128.to_be_bytes();

/// What of the table verifiers use: endorsement key, what stands above it (never a root), revocation lists.
///
/// # Errors
/// In words what of it cannot be.
pub fn read(table: &[u8]) -> Result<Option<SnpCollateral>, String> {
    let mut found = SnpCollateral::default();
    for (number, entry) in table.chunks_exact(ENTRY).enumerate() {
        let (guid, rest) = entry.split_at(16);
        if guid == [0; 16] {
            return Ok((found != SnpCollateral::default()).then_some(found));
        }
        if number >= MOST_ENTRIES {
            return Err(format!("more than {MOST_ENTRIES} entries"));
        }
        let [offset, length] = numbers(rest).ok_or("an entry that is cut off")?;
        let place = offset..offset.saturating_add(length);
        let bytes = table
            .get(place)
            .ok_or_else(|| format!("entry {number} lies outside of the table"))?;
        if length > MOST_CERTIFICATE {
            return Err(format!(
                "entry {number} has {length} bytes; a certificate has {MOST_CERTIFICATE} at most"
            ));
        }
        let list = match guid {
            _ if guid == VCEK || guid == VLEK => {
                if found.vek.replace(bytes.to_vec()).is_some() {
                    return Err("two certificates of endorsement keys".into());
                }
                continue;
            }
            _ if guid == ASK => &mut found.chain,
            _ if guid == CRL => &mut found.crls,
            // Roots are the verifier's own; other kinds say nothing to it.
            _ => continue,
        };
        if list.len() >= MOST_CHAIN {
            return Err(format!("more than {MOST_CHAIN} of one kind"));
        }
        list.push(bytes.to_vec());
    }
    // An empty table may be nothing at all.
    if table.is_empty() {
        Ok(None)
    } else {
        Err("the table has no end".into())
    }
}

fn numbers(bytes: &[u8]) -> Option<[usize; 2]> {
    let (first, rest) = bytes.split_first_chunk()?;
    let second = rest.first_chunk()?;
    Some([first, second].map(|number| u32::from_le_bytes(*number) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of these entries, as a host lays it out.
    fn table(entries: &[([u8; 16], &[u8])]) -> Vec<u8> {
        let mut at = ENTRY * (entries.len() + 1);
        let (mut head, mut body) = (Vec::new(), Vec::new());
        for (guid, bytes) in entries {
            head.extend_from_slice(guid);
            head.extend_from_slice(&(at as u32).to_le_bytes());
            head.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            body.extend_from_slice(bytes);
            at += bytes.len();
        }
        head.extend_from_slice(&[0; ENTRY]);
        [head, body].concat()
    }

    const ARK: [u8; 16] = 0xc0b406a4_a803_4952_9743_3fb6014cd0ae_u128.to_be_bytes();

    #[test]
    fn what_counts_is_taken_and_roots_are_not() {
        let whole = table(&[
            (ARK, b"root"),
            (ASK, b"ask"),
            (VCEK, b"vcek"),
            (CRL, b"crl"),
        ]);
        let expected = SnpCollateral {
            vek: Some(b"vcek".to_vec()),
            chain: vec![b"ask".to_vec()],
            crls: vec![b"crl".to_vec()],
        };
        assert_eq!(read(&whole), Ok(Some(expected)));
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[0; ENTRY]), Ok(None));
        assert_eq!(read(&table(&[(ARK, b"root")])), Ok(None));
    }

    #[test]
    fn hostile_tables_are_refused() {
        let good = table(&[(VCEK, b"vcek")]);
        assert!(read(&good).is_ok());
        // Without its end; beyond it; a length that overflows.
        assert!(read(&good[..ENTRY]).is_err());
        let mut far = good.clone();
        far[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(read(&far).unwrap_err().contains("outside"));
        far[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(read(&far).unwrap_err().contains("outside"));
        let twice = table(&[(VCEK, b"a"), (VLEK, b"b")]);
        assert!(read(&twice).unwrap_err().contains("two"));
        let many = vec![(ASK, &b"x"[..]); MOST_CHAIN + 1];
        assert!(read(&table(&many)).unwrap_err().contains("more than"));
        let large = vec![0; MOST_CERTIFICATE + 1];
        assert!(
            read(&table(&[(VCEK, &large)]))
                .unwrap_err()
                .contains("at most")
        );
        let endless: Vec<u8> = good[..ENTRY].repeat(MOST_ENTRIES + 2);
        assert!(read(&endless).is_err());
        // Every truncation is refused or says less; none panics.
        for length in 0..good.len() {
            let _ = read(&good[..length]);
        }
    }
}
