//! Which mutants are made: one bit of every part first, then a share of every other kind.

use std::collections::{BTreeMap, BTreeSet};

use super::mutant::{Kind, Mutant, Numbers};
use super::places::{self, Place};
use super::subject::Subject;
use super::{fields, forms, lies, swaps};

/// How often another bit is tried where one says the same as before.
const TRIES: usize = 256;

/// What is to be judged.
pub struct Plan {
    /// In the order of the table.
    pub mutants: Vec<Mutant>,
    /// Parts of which no bit is among them, for want of room.
    pub missed: Vec<String>,
}

/// Makes `count` mutants.
pub fn plan(subject: &Subject, other: Option<&Subject>, seed: u32, count: usize) -> Plan {
    let mut numbers = Numbers::new(seed.into());
    let mut parts = places::places(subject);
    numbers.shuffle(&mut parts);
    let mut others = by_kind(subject, other, &parts, &mut numbers);
    let mut chosen = Chosen {
        subject,
        mutants: Vec::new(),
        seen: BTreeSet::new(),
    };

    // Where there is little room, other kinds get a third of it.
    let room = parts.len().min((count * 2).div_ceil(3));
    let mut missed = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        if n >= room || !chosen.take(bit(subject, part, &mut numbers)) {
            missed.push(part.name.clone());
        }
    }
    while chosen.mutants.len() < count && !others.is_empty() {
        for list in others.values_mut() {
            // The first of this kind that is new and says something else.
            while chosen.mutants.len() < count
                && let Some(mutant) = list.pop()
                && !chosen.take(Some(mutant))
            {}
        }
        others.retain(|_, list| !list.is_empty());
    }
    let mut turn = parts.iter().cycle();
    let mut failures = 0;
    while chosen.mutants.len() < count
        && failures < TRIES * parts.len()
        && let Some(part) = turn.next()
    {
        if !chosen.take(bit(subject, part, &mut numbers)) {
            failures += 1;
        }
    }
    chosen.mutants.sort_by_key(|mutant| mutant.kind);
    Plan {
        mutants: chosen.mutants,
        missed,
    }
}

/// Everything that is not a bit.
fn by_kind(
    subject: &Subject,
    other: Option<&Subject>,
    parts: &[Place],
    numbers: &mut Numbers,
) -> BTreeMap<Kind, Vec<Mutant>> {
    let mut kinds: BTreeMap<Kind, Vec<Mutant>> = BTreeMap::new();
    let all = fields::mutants(subject, numbers)
        .into_iter()
        .chain(swaps::mutants(subject, other))
        .chain(forms::lengths(parts))
        .chain(forms::encodings(subject))
        .chain(forms::collateral(subject))
        .chain(lies::mutants(subject, numbers));
    for mutant in all {
        kinds.entry(mutant.kind).or_default().push(mutant);
    }
    for list in kinds.values_mut() {
        numbers.shuffle(list);
        in_turns(list);
    }
    kinds
}

/// Orders mutants, which are taken from the end, so that each place has its turn before one has its second.
fn in_turns(list: &mut Vec<Mutant>) {
    let mut turns = BTreeMap::new();
    let mut numbered: Vec<(usize, Mutant)> = Vec::with_capacity(list.len());
    for mutant in list.drain(..) {
        let turn = turns.entry(mutant.place.clone()).or_insert(0_usize);
        *turn += 1;
        numbered.push((*turn, mutant));
    }
    numbered.sort_by_key(|(turn, _)| std::cmp::Reverse(*turn));
    list.extend(numbered.into_iter().map(|(_, mutant)| mutant));
}

/// One bit of a part that makes it say something else.
fn bit(subject: &Subject, part: &Place, numbers: &mut Numbers) -> Option<Mutant> {
    (0..TRIES).find_map(|_| {
        let (at, bit) = (numbers.below(part.bytes.len()), numbers.below(8));
        let mut bytes = part.bytes.clone();
        *bytes.get_mut(at)? ^= 1 << bit;
        let what = format!("bit {bit} of byte {at} (0x{at:x})");
        let mutant = Mutant::new(Kind::Bit, &*part.name, what, part.with(bytes)?);
        (!subject.says_the_same(&mutant)).then_some(mutant)
    })
}

/// What was taken so far.
struct Chosen<'a> {
    subject: &'a Subject,
    mutants: Vec<Mutant>,
    /// Digests of files and times.
    seen: BTreeSet<[u8; 32]>,
}

impl Chosen<'_> {
    /// Takes a mutant that is new and says something else; whether it did.
    fn take(&mut self, mutant: Option<Mutant>) -> bool {
        let Some(mutant) = mutant.filter(|m| !self.subject.says_the_same(m)) else {
            return false;
        };
        let new = self.seen.insert(mutant.digest());
        if new {
            self.mutants.push(mutant);
        }
        new
    }
}
