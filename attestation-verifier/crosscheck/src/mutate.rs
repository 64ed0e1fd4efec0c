//! What mutants of both platforms are made with: where they start from, and the changes that are the same for both.

use touchstone_testkit::x509::{Certificate, Extension};

use crate::random::Random;

/// What mutants start from.
pub(crate) struct Honest<C, M> {
    pub(crate) case: C,
    /// None of genuine evidence: nobody else has its keys.
    pub(crate) machine: Option<M>,
}

impl<C, M> Honest<C, M> {
    /// What a mutant starts from, and what it takes parts of.
    pub(crate) fn two<'a>(random: &mut Random, all: &'a [Self]) -> (&'a Self, &'a C) {
        let honest = random.pick(all);
        (honest, &random.pick(all).case)
    }
}

/// One to `most` changes, in words.
pub(crate) fn several(
    random: &mut Random,
    most: usize,
    mut change: impl FnMut(&mut Random) -> String,
) -> String {
    let mut what = String::new();
    for _ in 0..=random.below(most) {
        what += &change(random);
        what += ", ";
    }
    what
}

/// One to four bytes anywhere in the first `length` of what is signed.
pub(crate) fn patch(
    random: &mut Random,
    length: usize,
    patches: &mut Vec<(usize, Vec<u8>)>,
) -> String {
    let at = random.below(length);
    let count = 1 + random.below(4.min(length - at));
    let bytes: Vec<u8> = (0..count).map(|_| random.byte()).collect();
    let what = format!("{} at {at:#x}", hex::encode(&bytes));
    patches.push((at, bytes));
    what
}

/// a − b, little-endian, modulo 2³⁸⁴.
pub(crate) fn subtract(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut borrow = false;
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            let (x, under) = a.overflowing_sub(*b);
            let (x, more) = x.overflowing_sub(u8::from(borrow));
            borrow = under || more;
            x
        })
        .collect()
}

/// Changes a certificate before it is signed.
pub(crate) fn change(random: &mut Random, certificate: &mut Certificate) -> String {
    let place = random.below(certificate.extensions.len().max(1));
    let name = certificate
        .extensions
        .get(place)
        .map_or("", |e| &e.oid)
        .to_owned();
    match random.below(16) {
        0 => {
            certificate.version = *random.pick(&[None, Some(0), Some(1), Some(3), Some(2)]);
            "version".into()
        }
        1 => {
            let length = random.below(24);
            certificate.serial = (0..length).map(|_| random.byte()).collect();
            format!("serial of {length} bytes")
        }
        2 => {
            random.scribble(&mut certificate.algorithm);
            "algorithm".into()
        }
        3 => {
            let mut other = certificate.algorithm.clone();
            random.scribble(&mut other);
            certificate.outer_algorithm = Some(other);
            "outer algorithm".into()
        }
        4 => {
            certificate.issuer.common_name = name;
            "issuer".into()
        }
        5 => {
            certificate.subject.common_name += *random.pick(&["", " ", "x", "é"]);
            "subject".into()
        }
        6 => {
            certificate.not_before = random.number() % (1 << 33);
            "notBefore".into()
        }
        7 => {
            certificate.not_after = random.number() % (1 << 33);
            "notAfter".into()
        }
        8 => {
            let at = random.below(certificate.spki.len());
            random.scribble(&mut certificate.spki[at..]);
            "key".into()
        }
        9 => {
            certificate.signature_unused_bits = random.below(9) as u8;
            "spare bits".into()
        }
        10 => {
            certificate.trailing = vec![random.byte()];
            "trailing".into()
        }
        11 if !name.is_empty() => {
            certificate.remove(&name);
            format!("without {name}")
        }
        12 if !name.is_empty() => {
            certificate.duplicate(&name);
            format!("{name} twice")
        }
        13 if !name.is_empty() => {
            let value = &mut certificate.extensions[place].value;
            random.damage(value, &[5, 0]);
            format!("value of {name}")
        }
        14 if !name.is_empty() => {
            certificate.extensions[place].critical ^= true;
            format!("critical of {name}")
        }
        _ => {
            let critical = random.one_in(3);
            let extension = Extension::new("1.3.6.1.4.1.99999.1", critical, vec![5, 0]);
            certificate.extensions.insert(place, extension);
            format!("unknown extension, critical {critical}")
        }
    }
}
