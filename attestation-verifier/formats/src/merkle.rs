//! The log's Merkle tree: RFC 6962 §2.1 over SHA-256 (§6).
//!
//! The enclave holds a tree as its right edge, O(log n) hashes, and works out the proofs of what
//! it appends; the verifier checks proofs. Nobody here holds a whole tree.

use crate::Digest;
use std::collections::BTreeMap;

/// What a log entry is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EntryKind {
    /// Entry 0: the JCS of the keyset.
    Boot,
    /// The JCS of a catalog.
    Catalog,
    /// A receipt's COSE_Sign1 bytes.
    Receipt,
    /// Reserved for corrections.
    Amend,
    /// The last entry of a log.
    Close,
}

impl EntryKind {
    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            EntryKind::Boot => "boot",
            EntryKind::Catalog => "catalog",
            EntryKind::Receipt => "receipt",
            EntryKind::Amend => "amend",
            EntryKind::Close => "close",
        }
    }
}

/// A log entry: its kind and the SHA-256 of the object it is about.
pub fn entry(kind: EntryKind, object: Digest) -> Vec<u8> {
    [
        b"touchstone/entry/v1\n",
        kind.name().as_bytes(),
        b"\n",
        object.as_ref(),
    ]
    .concat()
}

/// Hash of a leaf: SHA-256(0x00 ‖ entry).
pub fn leaf_hash(entry: &[u8]) -> Digest {
    Digest::of_parts(&[&[0], entry])
}

/// Hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
fn node_hash(left: Digest, right: Digest) -> Digest {
    Digest::of_parts(&[&[1], &left.0, &right.0])
}

/// A tree held as the roots of its full subtrees, the largest first: one for each bit of its size.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RightEdge {
    size: u64,
    peaks: Vec<Digest>,
}

impl RightEdge {
    /// The empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root hash; SHA-256 of nothing for the empty tree.
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev().copied();
        let Some(last) = peaks.next() else {
            return Digest::of(b"");
        };
        peaks.fold(last, |right, left| node_hash(left, right))
    }

    /// Appends one leaf hash.
    pub fn append(&mut self, leaf: Digest) {
        let mut node = leaf;
        // As in adding one to a binary number: each trailing one bit is a full subtree that
        // becomes the left half of a larger one.
        for _ in 0..self.size.trailing_ones() {
            match self.peaks.pop() {
                Some(left) => node = node_hash(left, node),
                None => break,
            }
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The full subtrees: (level, hash), the largest first.
    fn subtrees(&self) -> impl Iterator<Item = (u32, Digest)> {
        let size = self.size;
        (0..64)
            .rev()
            .filter(move |level| size >> level & 1 == 1)
            .zip(self.peaks.iter().copied())
    }
}

/// The inclusion proofs of the leaves that [`append_batch`] appended.
#[derive(Clone, Debug)]
pub struct BatchProofs {
    first: u64,
    size: u64,
    levels: Vec<Level>,
    /// For each level, the root of what lies right of the level's full nodes, where anything does.
    remainders: Vec<Option<Digest>>,
}

/// The full nodes of one level that a proof may need: of the old tree the one on its right edge, if
/// it has one there, then all new ones.
#[derive(Clone, Debug, Default)]
struct Level {
    first: u64,
    nodes: Vec<Digest>,
}

impl Level {
    fn node(&self, index: u64) -> Option<Digest> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.nodes.get(at).copied()
    }
}

/// Appends leaves to a tree, and gives what their inclusion proofs are made of. Each node is hashed
/// once, whatever the number of proofs.
pub fn append_batch(edge: &RightEdge, leaves: &[Digest]) -> (RightEdge, BatchProofs) {
    let old = edge.size;
    let size = old + leaves.len() as u64;
    let peaks: BTreeMap<u32, Digest> = edge.subtrees().collect();

    let mut levels: Vec<Level> = Vec::new();
    let mut new: Vec<Digest> = leaves.to_vec();
    for level in 0..64 {
        let full = size >> level;
        if full == 0 {
            break;
        }
        let mut nodes = Vec::with_capacity(new.len() + 1);
        nodes.extend(peaks.get(&level));
        let first = (old >> level) - nodes.len() as u64;
        nodes.append(&mut new);
        // Pairs start at an even index: the peak's own is even, for its bit is the last of an odd
        // number of full nodes; without a peak the first new index is even.
        new = nodes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[left, right]| node_hash(*left, *right))
            .collect();
        levels.push(Level { first, nodes });
    }

    let mut remainders = Vec::with_capacity(levels.len());
    let mut remainder: Option<Digest> = None;
    let mut new_peaks = Vec::new();
    for (level, nodes) in levels.iter().enumerate() {
        remainders.push(remainder);
        let full = size >> level;
        if full & 1 == 1
            && let Some(peak) = nodes.node(full - 1)
        {
            new_peaks.push(peak);
            remainder = Some(remainder.map_or(peak, |right| node_hash(peak, right)));
        }
    }
    new_peaks.reverse();
    let edge = RightEdge {
        size,
        peaks: new_peaks,
    };
    let proofs = BatchProofs {
        first: old,
        size,
        levels,
        remainders,
    };
    (edge, proofs)
}

impl BatchProofs {
    /// Number of leaves that were appended.
    pub fn len(&self) -> u64 {
        self.size - self.first
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Index in the log of the first leaf appended.
    pub fn first_index(&self) -> u64 {
        self.first
    }

    /// The inclusion proof, in the new tree, of the `i`-th leaf appended (from 0), its sibling
    /// first. Empty for a leaf that was not appended here, and for a tree of one leaf.
    pub fn proof(&self, i: usize) -> Vec<Digest> {
        let mut proof = Vec::with_capacity(self.levels.len());
        let Some(mut node) = self.first.checked_add(i as u64) else {
            return proof;
        };
        if node >= self.size {
            return proof;
        }
        for (level, (nodes, remainder)) in self.levels.iter().zip(&self.remainders).enumerate() {
            let full = self.size >> level;
            let sibling = node ^ 1;
            if sibling < full {
                proof.extend(nodes.node(sibling));
            } else if sibling == full {
                // Our node is the last full one, and a left one; right of it lies the remainder,
                // which is smaller, if anything does.
                proof.extend(*remainder);
            }
            // Else our node is itself the remainder, with nothing right of it.
            node >>= 1;
        }
        proof
    }
}

/// Whether `proof` shows that `leaf` is entry `index` of the tree of `size` leaves with this
/// `root` (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: Digest,
    proof: &[Digest],
    root: Digest,
) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(*sibling, hash);
            // Up to where this node is a right child: levels without a sibling.
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(hash, *sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == root
}

/// Whether `proof` shows that the tree of `new_size` leaves and `new_root` begins with the tree of
/// `old_size` and `old_root` (RFC 9162 §2.1.4.2). The empty tree begins every tree, with an empty
/// proof.
pub fn verify_consistency(
    old_size: u64,
    new_size: u64,
    old_root: Digest,
    new_root: Digest,
    proof: &[Digest],
) -> bool {
    if old_size > new_size {
        return false;
    }
    if old_size == 0 {
        let empty = Digest::of(b"");
        return old_root == empty && proof.is_empty() && (new_size > 0 || new_root == empty);
    }
    if old_size == new_size {
        return old_root == new_root && proof.is_empty();
    }
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    // If the old tree is full, its root starts the walk, and the proof leaves it out.
    let mut siblings = proof.iter().copied();
    let Some(start) = (if node == 0 {
        Some(old_root)
    } else {
        siblings.next()
    }) else {
        return false;
    };
    let (mut old_hash, mut new_hash) = (start, start);
    for sibling in siblings {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, old_hash);
            new_hash = node_hash(sibling, new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == old_root && new_hash == new_root
}
