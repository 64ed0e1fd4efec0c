//! What was found before, so that it need not be found again.
//!
//! Everything kept here is the answer of a function that depends on nothing but the bytes it was given: whether a
//! signature is one, what a certificate says, and, for one time and the one policy of a [`crate::Verifier`], what was
//! judged of an evidence object. An answer is used for the very same bytes alone, and of an evidence object for the same but for
//! what is checked anew ([`judged`]). What depends on time (validity, ages, waivers) is no such answer, and is asked at every
//! judgement. So a verdict is the same whatever is kept, and however little of it.
//!
//! Only good answers are kept: whoever sends lies finds them looked at from scratch each time, and pushes out nothing
//! but by telling the truth.

mod judged;

pub(crate) use judged::Judgement;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use touchstone_formats::LogKey;
use touchstone_formats::checkpoint::SignedNote;
use touchstone_formats::evidence::{SnpCollateral, TdxCollateral};
use touchstone_formats::text::HexBytes;

use crate::crypto::{sha256, sha256_parts};
use crate::parse::SnpParts;
use crate::parse::tdx::{PckChain, TdxParts};
use judged::Sentence;

/// What a signature check is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    P384 = 1,
    P256 = 2,
    P256Der = 3,
    RsaPss = 4,
    /// The checkpoint's signed note, by the log's key.
    Note = 5,
}

/// How much work signature checks were, since a [`crate::Verifier`] was made. For tests and metrics; no verdict depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Work {
    /// Signatures of evidence, certificates, revocation lists, collateral and checkpoints that were verified.
    pub signatures: u64,
    /// Those that were not verified again, because the same key, message and signature were before.
    pub remembered: u64,
    /// Evidence objects that were not judged again, because the very same were before, at the same time.
    pub judgements_remembered: u64,
}

/// Signatures kept: each is a digest.
const MOST_SIGNATURES: usize = 16 << 10;
/// Bytes kept of collateral of one kind, of PCK chains, and of evidence that was judged, about.
const MOST_BYTES: usize = 16 << 20;
/// What parsing makes of bytes takes about this many times their room, the bytes included.
const PARSED: usize = 4;
/// Answers to the questions that come again.
pub(crate) struct Known {
    /// None where one evidence object is all there will be: no question comes twice then.
    kept: Option<Kept>,
    checked: AtomicU64,
    remembered: AtomicU64,
    judgements: AtomicU64,
}

struct Kept {
    signatures: Shelf<()>,
    snp: Shelf<Arc<Read<SnpCollateral, Arc<SnpParts>>>>,
    tdx: Shelf<Arc<Read<TdxCollateral, Arc<TdxParts>>>>,
    pck: Shelf<Arc<Read<Vec<u8>, PckChain>>>,
    /// None where one bundle is all there will be.
    judged: Option<Shelf<Option<Arc<Sentence>>>>,
}

/// What was read, and from which bytes.
struct Read<B, P> {
    bytes: B,
    parts: P,
}

impl<B, P: Clone> Shelf<Arc<Read<B, P>>> {
    /// What was read from these very bytes.
    fn same<Q: ?Sized>(&self, key: &Key, bytes: &Q) -> Option<P>
    where
        B: PartialEq<Q>,
    {
        let found = self.find(key)?;
        (found.bytes == *bytes).then(|| found.parts.clone())
    }

    /// Keeps what was read. `size`: bytes that it was read from.
    fn keep_read(&self, key: Key, bytes: B, parts: P, size: usize) {
        let weight = size.saturating_mul(PARSED);
        self.keep(key, Arc::new(Read { bytes, parts }), weight);
    }
}

/// The digest of something that was signed and of its signature, made when it is first asked for and kept with them: what was read
/// once is judged many times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark(OnceLock<Key>);

impl Mark {
    fn of(&self, message: &[u8], signature: &[u8]) -> Key {
        *self.0.get_or_init(|| mark(message, signature))
    }
}

/// It says nothing that what it stands beside does not.
impl PartialEq for Mark {
    fn eq(&self, _: &Mark) -> bool {
        true
    }
}

impl Eq for Mark {}

fn mark(message: &[u8], signature: &[u8]) -> Key {
    key(0, &[message, signature])
}

impl Known {
    /// Nothing, now and later: for one evidence object.
    pub(crate) fn nothing() -> Known {
        Known {
            kept: None,
            checked: AtomicU64::new(0),
            remembered: AtomicU64::new(0),
            judgements: AtomicU64::new(0),
        }
    }

    /// Nothing yet; for one judgement of several evidence objects, which mostly share their collateral.
    pub(crate) fn new() -> Known {
        Known::keeping(None)
    }

    /// Nothing yet; for many judgements under one policy and the same roots.
    pub(crate) fn lasting() -> Known {
        Known::keeping(Some(Shelf::new(MOST_BYTES)))
    }

    fn keeping(judged: Option<Shelf<Option<Arc<Sentence>>>>) -> Known {
        Known {
            kept: Some(Kept {
                signatures: Shelf::new(MOST_SIGNATURES),
                snp: Shelf::new(MOST_BYTES),
                tdx: Shelf::new(MOST_BYTES),
                pck: Shelf::new(MOST_BYTES),
                judged,
            }),
            ..Known::nothing()
        }
    }

    /// Whether anything is kept.
    pub(crate) fn keeps(&self) -> bool {
        self.kept.is_some()
    }

    /// How much was verified, and how much not again.
    pub(crate) fn work(&self) -> Work {
        Work {
            signatures: self.checked.load(Relaxed),
            remembered: self.remembered.load(Relaxed),
            judgements_remembered: self.judgements.load(Relaxed),
        }
    }

    /// Whether a signature is one: known, or found by `verify` and known from now on. `verify` depends on `by`, message and
    /// signature, and on nothing else. `kept`: the digest of message and signature, where it is kept with them.
    pub(crate) fn signed(
        &self,
        fact: Fact,
        by: &[u8],
        message: &[u8],
        signature: &[u8],
        kept: Option<&Mark>,
        verify: impl FnOnce() -> bool,
    ) -> bool {
        let Some(shelves) = &self.kept else {
            self.checked.fetch_add(1, Relaxed);
            return verify();
        };
        let mark = kept.map_or_else(
            || mark(message, signature),
            |kept| kept.of(message, signature),
        );
        let key = key(fact as u8, &[by, &mark]);
        if shelves.signatures.find(&key).is_some() {
            self.remembered.fetch_add(1, Relaxed);
            return true;
        }
        self.checked.fetch_add(1, Relaxed);
        let right = verify();
        if right {
            shelves.signatures.keep(key, (), 1);
        }
        right
    }

    /// Whether a signed note is by this key, and by it once.
    pub(crate) fn note(&self, note: &SignedNote, key: &LogKey) -> bool {
        let mut signatures = Vec::new();
        for signature in &note.signatures {
            // Lengths first: names have any, ids and signatures each their own.
            signatures.extend_from_slice(&(signature.name.len() as u64).to_le_bytes());
            signatures.extend_from_slice(&(signature.signature.len() as u64).to_le_bytes());
            signatures.extend_from_slice(signature.name.as_bytes());
            signatures.extend_from_slice(&signature.key_id);
            signatures.extend_from_slice(&signature.signature);
        }
        let by = [&key.key[..], key.name.as_bytes()].concat();
        let text = note.text.as_bytes();
        self.signed(Fact::Note, &by, text, &signatures, None, || {
            note.verify(key)
        })
    }

    /// What AMD's collateral says, if it was read before in evidence that proved authentic.
    pub(crate) fn snp(&self, collateral: &SnpCollateral) -> Option<Arc<SnpParts>> {
        let shelf = &self.kept.as_ref()?.snp;
        shelf.same(&snp_key(collateral), collateral)
    }

    /// Keeps what collateral of authentic evidence says. `size`: its bytes.
    pub(crate) fn keep_snp(&self, bytes: &SnpCollateral, parts: Arc<SnpParts>, size: usize) {
        if let Some(shelves) = &self.kept {
            let key = snp_key(bytes);
            shelves.snp.keep_read(key, bytes.clone(), parts, size);
        }
    }

    /// What Intel's collateral says, if it was read before in evidence that proved authentic.
    pub(crate) fn tdx(&self, collateral: &TdxCollateral) -> Option<Arc<TdxParts>> {
        let shelf = &self.kept.as_ref()?.tdx;
        shelf.same(&tdx_key(collateral), collateral)
    }

    /// Keeps what collateral of authentic evidence says. `size`: its bytes.
    pub(crate) fn keep_tdx(&self, bytes: &TdxCollateral, parts: Arc<TdxParts>, size: usize) {
        if let Some(shelves) = &self.kept {
            let key = tdx_key(bytes);
            shelves.tdx.keep_read(key, bytes.clone(), parts, size);
        }
    }

    /// What the PCK chain of a quote says, if it was read before in evidence that proved authentic.
    pub(crate) fn pck(&self, pem: &[u8]) -> Option<PckChain> {
        self.kept.as_ref()?.pck.same(&pck_key(pem), pem)
    }

    /// Keeps what the PCK chain of authentic evidence says.
    pub(crate) fn keep_pck(&self, pem: Vec<u8>, chain: PckChain) {
        if let Some(shelves) = &self.kept {
            let (key, size) = (pck_key(&pem), pem.len());
            shelves.pck.keep_read(key, pem, chain, size);
        }
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Known({:?})", self.work())
    }
}

/// A digest.
pub(crate) type Key = [u8; 32];

/// A digest of a kind and of parts, each behind its length.
fn key(kind: u8, parts: &[&[u8]]) -> Key {
    let lengths: Vec<[u8; 8]> = parts
        .iter()
        .map(|part| (part.len() as u64).to_le_bytes())
        .collect();
    let mut all: Vec<&[u8]> = Vec::with_capacity(parts.len() + 2);
    all.push(std::slice::from_ref(&kind));
    all.push(lengths.as_flattened());
    all.extend(parts);
    sha256_parts(&all)
}

// Where something stands on its shelf. What is found there is compared byte by byte before it is used: these keys
// have to tell apart what is genuine, no more.

fn snp_key(collateral: &SnpCollateral) -> Key {
    sha256(collateral.vek.as_deref().unwrap_or_default())
}

fn tdx_key(collateral: &TdxCollateral) -> Key {
    fn signature(signature: &Option<HexBytes>) -> &[u8] {
        signature.as_ref().map_or(&[], |bytes| bytes.0.as_slice())
    }
    sha256_parts(&[
        signature(&collateral.tcb_info_signature),
        signature(&collateral.qe_identity_signature),
        // A list ends in its signature; both CAs' platforms share all the rest.
        collateral
            .pck_crl
            .as_ref()
            .and_then(|list| list.0.last_chunk::<64>())
            .map_or(&[], |end| end.as_slice()),
    ])
}

fn pck_key(pem: &[u8]) -> Key {
    // The PCK's own certificate comes first, and has its serial number in its first line.
    sha256(pem.get(..128).unwrap_or(pem))
}

/// A map with a bound on what all of it weighs. It has two halves: what is new or was asked for goes into the
/// young half, and when that is full it becomes the old one, and what nobody asked for since it became so is gone.
struct Shelf<V> {
    /// Of each half.
    most: usize,
    halves: RwLock<Halves<V>>,
}

struct Halves<V> {
    young: HashMap<Key, (V, usize)>,
    old: HashMap<Key, (V, usize)>,
    /// Of the young.
    weight: usize,
}

impl<V: Clone> Shelf<V> {
    fn new(most: usize) -> Shelf<V> {
        Shelf {
            most: most / 2,
            halves: RwLock::new(Halves {
                young: HashMap::new(),
                old: HashMap::new(),
                weight: 0,
            }),
        }
    }

    fn find(&self, key: &Key) -> Option<V> {
        // A thread that panicked while it held the lock left whole entries: there is no half-done one.
        let halves = self.halves.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((value, _)) = halves.young.get(key) {
            return Some(value.clone());
        }
        let (value, weight) = halves.old.get(key)?.clone();
        drop(halves);
        self.keep(*key, value.clone(), weight);
        Some(value)
    }

    fn keep(&self, key: Key, value: V, weight: usize) {
        if weight > self.most {
            return;
        }
        let mut halves = self.halves.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, before)) = halves.young.remove(&key) {
            halves.weight = halves.weight.saturating_sub(before);
        }
        halves.old.remove(&key);
        if halves.weight.saturating_add(weight) > self.most {
            halves.old = std::mem::take(&mut halves.young);
            halves.weight = 0;
        }
        halves.weight = halves.weight.saturating_add(weight);
        halves.young.insert(key, (value, weight));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn k(n: u64) -> Key {
        sha256(&n.to_le_bytes())
    }

    #[test]
    fn a_shelf_keeps_what_is_asked_for_and_is_never_over_its_weight() {
        let shelf = Shelf::new(200);
        shelf.keep(k(0), 0, 10);
        for n in 1..1000 {
            shelf.keep(k(n), n, 10);
            assert_eq!(shelf.find(&k(0)), Some(0), "{n}");
            assert_eq!(shelf.find(&k(n)), Some(n));
            let halves = shelf.halves.read().unwrap();
            let weigh = |half: &HashMap<Key, (u64, usize)>| half.values().map(|(_, w)| w).sum();
            let (young, old): (usize, usize) = (weigh(&halves.young), weigh(&halves.old));
            assert_eq!(young, halves.weight);
            assert!(young <= 100 && old <= 100, "{young} {old}");
        }
        assert_eq!(shelf.find(&k(1)), None);
    }

    #[test]
    fn what_is_too_heavy_is_not_kept_and_pushes_nothing_out() {
        let shelf = Shelf::new(200);
        shelf.keep(k(0), 0, 100);
        shelf.keep(k(1), 1, 101);
        assert_eq!((shelf.find(&k(0)), shelf.find(&k(1))), (Some(0), None));
        // The same key again weighs once.
        shelf.keep(k(0), 2, 100);
        assert_eq!(shelf.find(&k(0)), Some(2));
        assert!(shelf.halves.read().unwrap().old.is_empty());
    }

    #[test]
    fn signatures_are_known_for_the_same_parts_alone_and_only_if_right() {
        let known = Known::new();
        let ask = |fact,
                   [by, message, signature]: [&[u8]; 3],
                   kept: Option<&Mark>,
                   right: Option<bool>| {
            known.signed(fact, by, message, signature, kept, || right.expect("known"))
        };
        let own: [&[u8]; 3] = [b"k", b"m", b"s"];
        assert!(!ask(Fact::P256, own, None, Some(false)));
        assert!(ask(Fact::P256, own, None, Some(true)));
        let kept = Mark::default();
        for _ in 0..2 {
            assert!(ask(Fact::P256, own, None, None));
            assert!(ask(Fact::P256, own, Some(&kept), None));
        }
        let others: [(Fact, [&[u8]; 3]); 5] = [
            (Fact::P256Der, own),
            (Fact::P256, [b"km", b"", b"s"]),
            (Fact::P256, [b"", b"km", b"s"]),
            (Fact::P256, [b"k", b"ms", b""]),
            (Fact::P256, [b"k", b"m", b"t"]),
        ];
        for (fact, parts) in others {
            assert!(!ask(fact, parts, None, Some(false)), "{fact:?} {parts:?}");
            let kept = Mark::default();
            assert!(!ask(fact, parts, Some(&kept), Some(false)), "{parts:?}");
        }
        // The same by another key, whatever is kept with it.
        assert!(!ask(
            Fact::P256,
            [b"other", b"m", b"s"],
            Some(&kept),
            Some(false)
        ));
        let work = known.work();
        assert_eq!((work.signatures, work.remembered), (13, 4));

        let nothing = Known::nothing();
        assert!(nothing.signed(Fact::P256, b"k", b"m", b"s", None, || true));
        assert!(!nothing.signed(Fact::P256, b"k", b"m", b"s", None, || false));
    }
}
