//! Receipts of one batch, packed: up to [`PACK`] consecutive receipts in one blob.
//!
//! Inclusion proofs of neighbours share nearly all their hashes, so a pack holds each hash once and
//! the receipts refer to them by number: about 120 bytes of proof a receipt instead of 32 for every
//! level of the tree. One row a pack also makes one insertion of 64.
//!
//! ```text
//! u16 receipts | u16 hashes | hashes × 32 bytes | receipts × u32 offset of record
//! record: u64 leaf index | u8 n | n × u16 number of hash | u16 length | COSE bytes
//! ```
//! All little-endian. The file is the host's own, and still nothing in it is believed: a damaged pack
//! is an error, never a panic.

use std::collections::HashMap;

use touchstone_formats::Digest;

/// Most receipts in one pack.
pub(super) const PACK: usize = 64;

/// A receipt as it was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Index of its leaf in the log.
    pub index: u64,
    /// Inclusion proof in the tree of the batch's checkpoint.
    pub proof: Vec<Digest>,
    /// The COSE_Sign1 bytes.
    pub cose: Vec<u8>,
}

/// Packs at most [`PACK`] receipts, each of at most 64 KiB and with at most 255 hashes; `None` when
/// they are more.
pub(super) fn pack<'a>(
    receipts: impl ExactSizeIterator<Item = &'a Sealed> + Clone,
) -> Option<Vec<u8>> {
    if receipts.len() > PACK {
        return None;
    }
    let mut numbers: HashMap<Digest, u16> = HashMap::new();
    let mut hashes: Vec<Digest> = Vec::new();
    for hash in receipts.clone().flat_map(|receipt| &receipt.proof) {
        if !numbers.contains_key(hash) {
            numbers.insert(*hash, u16::try_from(hashes.len()).ok()?);
            hashes.push(*hash);
        }
    }
    let mut out = Vec::with_capacity(4 + hashes.len() * 32 + receipts.len() * 512);
    out.extend_from_slice(&u16::try_from(receipts.len()).ok()?.to_le_bytes());
    out.extend_from_slice(&u16::try_from(hashes.len()).ok()?.to_le_bytes());
    for hash in &hashes {
        out.extend_from_slice(&hash.0);
    }
    let mut slot = out.len();
    out.resize(slot + receipts.len() * 4, 0);
    for receipt in receipts {
        let offset = u32::try_from(out.len()).ok()?;
        out.get_mut(slot..slot + 4)?
            .copy_from_slice(&offset.to_le_bytes());
        slot += 4;
        out.extend_from_slice(&receipt.index.to_le_bytes());
        out.push(u8::try_from(receipt.proof.len()).ok()?);
        for hash in &receipt.proof {
            out.extend_from_slice(&numbers.get(hash)?.to_le_bytes());
        }
        out.extend_from_slice(&u16::try_from(receipt.cose.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&receipt.cose);
    }
    Some(out)
}

/// How many receipts a pack holds.
pub(super) fn count(pack: &[u8]) -> Option<usize> {
    Reader(pack)
        .number()
        .map(|(count, _): (u16, _)| usize::from(count))
}

/// The receipt in one slot of a pack; `None` when the pack is damaged or has no such slot.
pub(super) fn unpack(pack: &[u8], slot: usize) -> Option<Sealed> {
    let (receipts, rest): (u16, _) = Reader(pack).number()?;
    let (count, rest): (u16, _) = rest.number()?;
    let (hashes, rest) = rest.0.split_at_checked(usize::from(count) * 32)?;
    if slot >= usize::from(receipts) {
        return None;
    }
    let (offset, _): (u32, _) = Reader(rest.get(slot * 4..)?).number()?;
    let (index, rest): (u64, _) = Reader(pack.get(usize::try_from(offset).ok()?..)?).number()?;
    let (levels, mut rest): (u8, _) = rest.number()?;
    let mut proof = Vec::with_capacity(usize::from(levels));
    for _ in 0..levels {
        let (number, after): (u16, _) = rest.number()?;
        let at = usize::from(number) * 32;
        proof.push(Digest(hashes.get(at..at + 32)?.try_into().ok()?));
        rest = after;
    }
    let (length, rest): (u16, _) = rest.number()?;
    let cose = rest.0.get(..usize::from(length))?.to_vec();
    Some(Sealed { index, proof, cose })
}

struct Reader<'a>(&'a [u8]);

trait Number: Sized {
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])>;
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
                let (number, rest) = bytes.split_first_chunk()?;
                Some((Self::from_le_bytes(*number), rest))
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64);

impl<'a> Reader<'a> {
    fn number<N: Number>(self) -> Option<(N, Reader<'a>)> {
        N::read(self.0).map(|(number, rest)| (number, Reader(rest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipts(count: usize) -> Vec<Sealed> {
        let hash = |n: usize| Digest::of(&n.to_le_bytes());
        (0..count)
            .map(|n| Sealed {
                index: n as u64 + 2,
                proof: (0..20)
                    .map(|level| hash((level << 8) + ((n >> level) ^ 1)))
                    .collect(),
                cose: vec![n as u8; 300 + n],
            })
            .collect()
    }

    #[test]
    fn packs_give_back_what_was_packed() {
        for count_ in [0, 1, 2, 63, PACK] {
            let receipts = receipts(count_);
            let packed = pack(receipts.iter()).unwrap();
            assert_eq!(count(&packed), Some(count_));
            for (slot, receipt) in receipts.iter().enumerate() {
                assert_eq!(unpack(&packed, slot).as_ref(), Some(receipt));
            }
            assert_eq!(unpack(&packed, count_), None);
        }
    }

    #[test]
    fn neighbours_share_hashes() {
        let receipts = receipts(PACK);
        let packed = pack(receipts.iter()).unwrap();
        let cose: usize = receipts.iter().map(|receipt| receipt.cose.len()).sum();
        assert!(
            (packed.len() - cose) / PACK < 130,
            "{}",
            (packed.len() - cose) / PACK
        );
    }

    #[test]
    fn what_does_not_fit_is_not_packed() {
        assert_eq!(pack(receipts(PACK + 1).iter()), None);
        let mut one = receipts(1);
        one[0].cose = vec![0; 65_535];
        assert!(pack(one.iter()).is_some());
        one[0].cose.push(0);
        assert_eq!(pack(one.iter()), None);
        let mut one = receipts(1);
        one[0].proof = vec![Digest::ZERO; 256];
        assert_eq!(pack(one.iter()), None);
    }

    #[test]
    fn damaged_packs_are_errors_and_no_panics() {
        let receipts = receipts(3);
        let packed = pack(receipts.iter()).unwrap();
        for cut in 0..packed.len() {
            for (slot, receipt) in receipts.iter().enumerate() {
                assert!(unpack(&packed[..cut], slot).is_none_or(|found| found == *receipt));
            }
        }
        for at in 0..packed.len() {
            for bit in 0..8 {
                let mut damaged = packed.clone();
                damaged[at] ^= 1 << bit;
                for slot in 0..4 {
                    let _ = unpack(&damaged, slot);
                }
            }
        }
    }
}
