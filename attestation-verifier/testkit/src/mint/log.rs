//! Signatures and trees, straight from their specifications and without the formats crate, so that they will
//! also sign and prove what that crate would not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use touchstone_formats::Digest;

/// COSE_Sign1 (RFC 9052) over any payload, with the protected header of receipts: `{1: -19, 4: kid}`.
///
/// # Panics
/// When the payload is longer than 65,535 bytes.
pub fn sign_cose(seed: &[u8; 32], payload: &[u8]) -> Vec<u8> {
    let key = key(seed);
    let kid = &Digest::of(key.public_key().as_ref()).0[..8];
    let protected = [&[0xa2, 0x01, 0x32, 0x04, 0x48], kid].concat();
    let structure = [
        &[0x84, 0x6a],
        &b"Signature1"[..],
        &bytes(&protected),
        &bytes(&[]),
        &bytes(payload),
    ]
    .concat();
    let signature = key.sign(&structure);
    [
        &[0xd2, 0x84],
        &bytes(&protected)[..],
        &[0xa0],
        &bytes(payload),
        &bytes(signature.as_ref()),
    ]
    .concat()
}

/// The payload of COSE_Sign1 bytes written by [`sign_cose`] or by the formats crate.
///
/// # Panics
/// When they are not such bytes.
pub(super) fn payload_of(cose: &[u8]) -> &[u8] {
    // Tag, array, 13 bytes of protected header behind their length, empty map.
    let rest = &cose[2 + 14 + 1..];
    let (length, head) = match rest {
        [0x40..=0x57, ..] => (usize::from(rest[0] & 0x1f), 1),
        [0x58, n, ..] => (usize::from(*n), 2),
        [0x59, a, b, ..] => (usize::from(u16::from_be_bytes([*a, *b])), 3),
        _ => panic!("no COSE_Sign1 of a receipt"),
    };
    &rest[head..head + length]
}

/// A CBOR byte string.
fn bytes(content: &[u8]) -> Vec<u8> {
    let head = match content.len() {
        n @ 0..24 => vec![0x40 | n as u8],
        n @ 24..256 => vec![0x58, n as u8],
        n => [
            &[0x59],
            &u16::try_from(n)
                .expect("at most 65,535 bytes")
                .to_be_bytes()[..],
        ]
        .concat(),
    };
    [&head, content].concat()
}

/// A signed note (C2SP signed-note) over any text, under any key name.
pub fn sign_note(seed: &[u8; 32], name: &str, text: &str) -> String {
    let key = key(seed);
    let public = key.public_key().as_ref();
    let id = Digest::of_parts(&[name.as_bytes(), b"\n\x01", public]);
    let signature = [&id.0[..4], key.sign(text.as_bytes()).as_ref()].concat();
    format!("{text}\n\u{2014} {name} {}\n", STANDARD.encode(signature))
}

/// Root of the tree with these leaf hashes (RFC 6962 §2.1), by the recursion that defines it.
pub fn tree_root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of(&[]),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            Digest::of_parts(&[&[1], &tree_root(left).0, &tree_root(right).0])
        }
    }
}

/// Inclusion proof of one leaf (RFC 6962 §2.1.1), by the recursion that defines it.
///
/// # Panics
/// When there is no such leaf.
pub fn inclusion_path(index: usize, leaves: &[Digest]) -> Vec<Digest> {
    assert!(index < leaves.len(), "no leaf {index} in {}", leaves.len());
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, sibling) = match index < k {
        true => (inclusion_path(index, left), tree_root(right)),
        false => (inclusion_path(index - k, right), tree_root(left)),
    };
    path.push(sibling);
    path
}

/// The largest power of two smaller than `n`, which is above 1.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

fn key(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).expect("32 bytes are an Ed25519 seed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchstone_formats::merkle;

    /// Two implementations of the tree, one by recursion and one by batches, agree.
    #[test]
    fn the_tree_agrees_with_the_formats_crate() {
        let leaves: Vec<Digest> = (0..40u8).map(|n| Digest::of(&[n])).collect();
        for size in 1..=leaves.len() {
            let leaves = &leaves[..size];
            let (edge, proofs) = merkle::append_batch(&merkle::RightEdge::new(), leaves);
            assert_eq!(edge.root(), tree_root(leaves));
            for (index, leaf) in leaves.iter().enumerate() {
                let path = inclusion_path(index, leaves);
                assert_eq!(path, proofs.proof(index));
                let root = tree_root(leaves);
                assert!(merkle::verify_inclusion(
                    index as u64,
                    size as u64,
                    *leaf,
                    &path,
                    root
                ));
            }
        }
    }
}
