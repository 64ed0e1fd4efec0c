//! The right edge and its proofs against the definitions of RFC 6962 §2.1, written out.

use proptest::prelude::*;
use touchstone_formats::Digest;
use touchstone_formats::merkle::{
    RightEdge, append_batch, leaf_hash, verify_consistency, verify_inclusion,
};

fn leaf(i: u64) -> Digest {
    leaf_hash(&i.to_be_bytes())
}

fn leaves(range: std::ops::Range<u64>) -> Vec<Digest> {
    range.map(leaf).collect()
}

/// The largest power of two below n.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// MTH(D[n]).
fn root(d: &[Digest]) -> Digest {
    match d {
        [] => Digest::of(b""),
        [one] => *one,
        _ => {
            let (left, right) = d.split_at(split(d.len()));
            Digest::of_parts(&[&[1], &root(left).0, &root(right).0])
        }
    }
}

/// PATH(m, D[n]).
fn path(m: usize, d: &[Digest]) -> Vec<Digest> {
    if d.len() == 1 {
        return Vec::new();
    }
    let k = split(d.len());
    let (left, right) = d.split_at(k);
    let (mut proof, sibling) = if m < k {
        (path(m, left), root(right))
    } else {
        (path(m - k, right), root(left))
    };
    proof.push(sibling);
    proof
}

/// SUBPROOF(m, D[n], b).
fn subproof(m: usize, d: &[Digest], whole: bool) -> Vec<Digest> {
    if m == d.len() {
        return if whole { Vec::new() } else { vec![root(d)] };
    }
    let k = split(d.len());
    let (left, right) = d.split_at(k);
    let (mut proof, sibling) = if m <= k {
        (subproof(m, left, whole), root(right))
    } else {
        (subproof(m - k, right, false), root(left))
    };
    proof.push(sibling);
    proof
}

#[test]
fn every_batch_up_to_70_leaves() {
    for old in 0..=70_u64 {
        let mut edge = RightEdge::new();
        for i in 0..old {
            edge.append(leaf(i));
        }
        assert_eq!(edge.size(), old);
        assert_eq!(edge.root(), root(&leaves(0..old)), "{old}");
        for new in old..=70 {
            let all = leaves(0..new);
            let (after, proofs) = append_batch(&edge, &leaves(old..new));
            assert_eq!(after.size(), new);
            assert_eq!(after.root(), root(&all), "{old}..{new}");
            assert_eq!((proofs.first_index(), proofs.len()), (old, new - old));
            for index in old..new {
                let proof = proofs.proof((index - old) as usize);
                assert_eq!(proof, path(index as usize, &all), "{index} of {old}..{new}");
                assert!(verify_inclusion(
                    index,
                    new,
                    leaf(index),
                    &proof,
                    after.root()
                ));
            }
            assert!(proofs.proof((new - old) as usize).is_empty());

            // The edge that a batch leaves is the one that single appends leave.
            let mut one_by_one = edge.clone();
            for i in old..new {
                one_by_one.append(leaf(i));
            }
            assert_eq!(after, one_by_one);
        }
    }
}

proptest! {
    #[test]
    fn batches_one_after_another(sizes in proptest::collection::vec(0_u64..40, 1..12)) {
        let mut edge = RightEdge::new();
        let mut size = 0;
        for batch in sizes {
            let (after, proofs) = append_batch(&edge, &leaves(size..size + batch));
            let all = leaves(0..size + batch);
            prop_assert_eq!(after.root(), root(&all));
            for i in 0..batch {
                prop_assert_eq!(
                    proofs.proof(i as usize),
                    path((size + i) as usize, &all)
                );
            }
            edge = after;
            size += batch;
        }
    }
}

#[test]
fn inclusion_is_refused_when_anything_differs() {
    let all = leaves(0..13);
    let expected = root(&all);
    for index in 0..13_u64 {
        let proof = path(index as usize, &all);
        let holds = |index, size, leaf, proof: &[Digest], root| {
            verify_inclusion(index, size, leaf, proof, root)
        };
        assert!(holds(index, 13, leaf(index), &proof, expected));
        for other in (0..16).filter(|other| *other != index) {
            assert!(!holds(other, 13, leaf(index), &proof, expected));
        }
        assert!(!holds(index, 13, leaf(99), &proof, expected));
        assert!(!holds(index, 13, leaf(index), &proof, leaf(0)));
        assert!(!holds(index, 0, leaf(index), &proof, expected));
        assert!(!holds(index, u64::MAX, leaf(index), &proof, expected));
        let longer = [proof.as_slice(), &[leaf(1)]].concat();
        assert!(!holds(index, 13, leaf(index), &longer, expected));
        assert!(!holds(index, 13, leaf(index), &proof[1..], expected));
        assert!(!holds(
            index,
            13,
            leaf(index),
            &proof[..proof.len() - 1],
            expected
        ));
        for at in 0..proof.len() {
            let mut changed = proof.clone();
            changed[at].0[31] ^= 1;
            assert!(!holds(index, 13, leaf(index), &changed, expected));
        }
    }
}

#[test]
fn consistency_of_all_sizes() {
    for new in 1..=40_usize {
        let all = leaves(0..new as u64);
        let new_root = root(&all);
        for old in 1..=new {
            let old_root = root(&all[..old]);
            let proof = subproof(old, &all, true);
            let holds = |old: usize, new: usize, old_root, new_root, proof: &[Digest]| {
                verify_consistency(old as u64, new as u64, old_root, new_root, proof)
            };
            assert!(holds(old, new, old_root, new_root, &proof), "{old} {new}");
            assert!(!holds(old, new, leaf(99), new_root, &proof));
            assert!(!holds(old, new, old_root, leaf(99), &proof));
            let longer = [proof.as_slice(), &[leaf(1)]].concat();
            assert!(!holds(old, new, old_root, new_root, &longer));
            for at in 0..proof.len() {
                let mut changed = proof.clone();
                changed[at].0[0] ^= 1;
                assert!(!holds(old, new, old_root, new_root, &changed));
                assert!(!holds(old, new, old_root, new_root, &proof[..at]));
            }
            if old < new {
                assert!(!holds(new, old, new_root, old_root, &proof));
            }
        }
        let empty = Digest::of(b"");
        assert!(verify_consistency(0, new as u64, empty, new_root, &[]));
        assert!(!verify_consistency(0, new as u64, new_root, new_root, &[]));
        assert!(!verify_consistency(
            0,
            new as u64,
            empty,
            new_root,
            &[empty]
        ));
    }
    let empty = Digest::of(b"");
    assert!(verify_consistency(0, 0, empty, empty, &[]));
    assert!(!verify_consistency(0, 0, empty, leaf(0), &[]));
    assert_eq!(RightEdge::new().root(), empty);
}
