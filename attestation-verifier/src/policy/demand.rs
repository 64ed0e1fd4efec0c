//! What a rule asks for at a time, so that two rules can be compared and said in words.

use std::collections::{BTreeMap, BTreeSet};

use super::diff::Relation;
use super::{Digests, Expect, Floors, Rule, Waiver};
use crate::manifest::{self, Signers};
use crate::product::FLOOR_KEYS;

/// What satisfies a rule at a given time.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Demand {
    /// Anything: the rule is waived.
    Waived(Waiver),
    /// Nothing: the rule's waiver has ended.
    Ended(Waiver),
    /// What is expected.
    Expected(Bound),
}

/// An expectation, in the way in which it bounds what is found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Bound {
    /// One of these.
    OneOf(BTreeSet<String>),
    /// Whatever is found is among these; where nothing is found, that is good too.
    Within(BTreeSet<String>),
    /// Exactly the events of these names, each as one of these says.
    Events(BTreeSet<String>),
    /// Something is tolerated until this day; none: never.
    Until(Option<String>),
    /// All of these.
    AllOf(BTreeSet<String>),
    AtLeast(u64),
    /// At most this, in seconds.
    AtMost(u64),
    /// All bits of this mask.
    Bits(u64),
    /// This answer; and the one that is safer, where that is known.
    Flag {
        value: bool,
        safer: Option<bool>,
    },
    Floors(Floors),
    /// What a manifest lists, signed by these; nobody where that is said elsewhere.
    Manifest(String),
    /// Signatures by so many of these keys, each in hex, with their names.
    Signatures {
        threshold: usize,
        keys: BTreeMap<String, String>,
    },
}

impl Demand {
    /// What `[manifest]` asks for, by key.
    pub(super) fn of_manifest(demand: &manifest::Demand) -> [(&'static str, Demand); 3] {
        let name = BTreeSet::from([demand.name.clone()]);
        let keys = demand.signers.keys().iter();
        let keys = keys.map(|signer| (signer.key.id(), signer.name.clone()));
        let signatures = Bound::Signatures {
            threshold: demand.signers.threshold(),
            keys: keys.collect(),
        };
        [
            ("manifest.name", Demand::Expected(Bound::OneOf(name))),
            (
                "manifest.minimum_version",
                Demand::Expected(Bound::AtLeast(demand.minimum_version)),
            ),
            ("manifest.signer", Demand::Expected(signatures)),
        ]
    }

    /// As [`Demand::of`], for digests.
    pub(super) fn digests(rule: &Rule<Digests>, at: u64) -> Demand {
        Demand::from(rule, at, |digests| match digests {
            Digests::These(list) => Bound::OneOf(list.iter().map(ToString::to_string).collect()),
            Digests::Manifest => Bound::Manifest(String::new()),
        })
    }

    /// The same, where a manifest is signed by these.
    pub(super) fn signed_by(mut self, who: &str) -> Demand {
        if let Demand::Expected(Bound::Manifest(signers)) = &mut self {
            who.clone_into(signers);
        }
        self
    }

    /// What a rule asks for at this time (unix seconds).
    pub(super) fn of<T>(rule: &Rule<T>, at: u64, expect: impl FnOnce(&T) -> Expect) -> Demand {
        Demand::from(rule, at, |value| match expect(value) {
            Expect::Flag(value) => Bound::Flag { value, safer: None },
            Expect::Number(least) => Bound::AtLeast(least),
            Expect::Mask(bits) => Bound::Bits(bits),
            Expect::Word(word) => Bound::OneOf([word].into()),
            Expect::Numbers(list) => Bound::OneOf(list.iter().map(u64::to_string).collect()),
            Expect::Words(list) => Bound::OneOf(list.into_iter().collect()),
            Expect::Floors(floors) => Bound::Floors(floors),
            Expect::Manifest => Bound::Manifest(String::new()),
        })
    }

    /// As [`Demand::of`], for an age or a span.
    pub(super) fn at_most(rule: &Rule<u64>, at: u64) -> Demand {
        Demand::from(rule, at, |seconds| Bound::AtMost(*seconds))
    }

    /// A demand for all of these.
    pub(super) fn all_of(names: Vec<&str>) -> Demand {
        Demand::Expected(Bound::AllOf(names.into_iter().map(str::to_owned).collect()))
    }

    fn from<T>(rule: &Rule<T>, at: u64, bound: impl FnOnce(&T) -> Bound) -> Demand {
        match rule {
            Rule::Expect(value) => Demand::Expected(bound(value)),
            Rule::Waive(waiver) if waiver.holds_at(at) => Demand::Waived(waiver.clone()),
            Rule::Waive(waiver) => Demand::Ended(waiver.clone()),
        }
    }

    /// The same, with what is known of this check.
    pub(super) fn of_check(mut self, id: &str) -> Demand {
        if let Demand::Expected(bound) = &mut self {
            match (id, &mut *bound) {
                (_, Bound::Flag { safer, .. }) => *safer = safer_answer(id),
                ("snp.vlek.csp" | "tdx.tcb.advisories", Bound::OneOf(list)) => {
                    *bound = Bound::Within(std::mem::take(list));
                }
                ("tdx.rtmr3.events", Bound::OneOf(list)) => {
                    *bound = Bound::Events(std::mem::take(list));
                }
                ("tdx.tcb.grace", Bound::OneOf(list)) => {
                    *bound = Bound::Until(list.pop_first().filter(|day| day != "none"));
                }
                _ => {}
            }
        }
        self
    }

    /// Whether nothing satisfies it.
    pub(super) fn accepts_nothing(&self) -> bool {
        match self {
            Demand::Waived(_) => false,
            Demand::Ended(_) => true,
            Demand::Expected(Bound::OneOf(list)) => list.is_empty(),
            Demand::Expected(Bound::Floors(floors)) => floors.0.is_empty(),
            Demand::Expected(_) => false,
        }
    }

    /// How `other` stands to this.
    pub(super) fn relation(&self, other: &Demand) -> Relation {
        match (self, other) {
            (Demand::Waived(a), Demand::Waived(b)) => match (&a.until, &b.until) {
                (a, b) if a == b => Relation::Same,
                (None, Some(_)) => Relation::Stricter,
                (Some(_), None) => Relation::Looser,
                // Days are written so that they sort as text.
                (a, b) if a > b => Relation::Stricter,
                _ => Relation::Looser,
            },
            (a, b) if a.accepts_nothing() && b.accepts_nothing() => Relation::Same,
            (a, _) if a.accepts_nothing() => Relation::Looser,
            (_, b) if b.accepts_nothing() => Relation::Stricter,
            (Demand::Waived(_), _) => Relation::Stricter,
            (_, Demand::Waived(_)) => Relation::Looser,
            (Demand::Expected(a), Demand::Expected(b)) => a.relation(b),
            // Ended waivers accept nothing, and were compared above.
            _ => Relation::Incomparable,
        }
    }

    /// What changes from this to `other`, where that says more than the two by themselves.
    pub(super) fn change(&self, other: &Demand) -> Option<String> {
        let (Demand::Expected(a), Demand::Expected(b)) = (self, other) else {
            return None;
        };
        match (a, b) {
            (Bound::OneOf(a), Bound::OneOf(b))
            | (Bound::Within(a), Bound::Within(b))
            | (Bound::Events(a), Bound::Events(b)) => moved(a, b, "accepts"),
            (Bound::AllOf(a), Bound::AllOf(b)) => moved(a, b, "asks for"),
            (Bound::Signatures { keys: a, .. }, Bound::Signatures { keys: b, .. }) => {
                moved(&names_of(a), &names_of(b), "counts")
            }
            (Bound::Flag { safer: None, .. }, Bound::Flag { .. }) if a != b => {
                Some("neither answer is the safer".into())
            }
            (Bound::Flag { .. }, Bound::Flag { .. }) => None,
            (Bound::Floors(a), Bound::Floors(b)) => floors_change(a, b),
            _ => None,
        }
    }

    /// As [`Demand::words`], for a summary: without the reason of a waiver, digests cut short.
    pub(super) fn brief(&self) -> String {
        match self {
            Demand::Waived(waiver) => match &waiver.until {
                None => "ANY (waived)".into(),
                Some(day) => format!("ANY (waived until {day})"),
            },
            Demand::Ended(waiver) => {
                let day = waiver.until.as_deref().unwrap_or_default();
                format!("none (the waiver ended on {day})")
            }
            Demand::Expected(Bound::OneOf(list) | Bound::Events(list)) if !list.is_empty() => {
                let short = |word: &String| match word.char_indices().nth(LONG) {
                    Some(_) if !word.bytes().all(|b| b.is_ascii_hexdigit()) => word.clone(),
                    Some(_) if word.bytes().all(|b| b == b'0') => "all zero".into(),
                    Some((at, _)) => format!("{}…", word.get(..at).unwrap_or_default()),
                    None => word.clone(),
                };
                listed(list.len(), list.iter().map(short), "or")
            }
            Demand::Expected(bound) => bound.words(),
        }
    }

    /// In words: what has to be found.
    pub(super) fn words(&self) -> String {
        match self {
            Demand::Waived(waiver) => match &waiver.until {
                None => format!("anything: waived ({})", waiver.reason),
                Some(day) => format!("anything: waived until {day} ({})", waiver.reason),
            },
            Demand::Ended(waiver) => {
                let day = waiver.until.as_deref().unwrap_or_default();
                format!("nothing: its waiver ended on {day} ({})", waiver.reason)
            }
            Demand::Expected(bound) => bound.words(),
        }
    }
}

impl Bound {
    fn relation(&self, other: &Bound) -> Relation {
        match (self, other) {
            (a, b) if a == b => Relation::Same,
            (Bound::OneOf(a), Bound::OneOf(b)) | (Bound::Within(a), Bound::Within(b)) => {
                by(b.is_subset(a), a.is_subset(b))
            }
            (Bound::Events(a), Bound::Events(b)) if names(a) == names(b) => {
                by(within(b, a), within(a, b))
            }
            // Days are written so that they sort as text, and none at all is before each.
            (Bound::Until(a), Bound::Until(b)) => by(b <= a, b >= a),
            (Bound::AllOf(a), Bound::AllOf(b)) => by(a.is_subset(b), b.is_subset(a)),
            (Bound::AtLeast(a), Bound::AtLeast(b)) => by(b >= a, b <= a),
            (Bound::AtMost(a), Bound::AtMost(b)) => by(b <= a, b >= a),
            (Bound::Bits(a), Bound::Bits(b)) => by(a & !b == 0, b & !a == 0),
            (
                Bound::Flag {
                    safer: Some(safer), ..
                },
                Bound::Flag { value, .. },
            ) => {
                // They differ: one of them is the safer.
                by(value == safer, value != safer)
            }
            (Bound::Floors(a), Bound::Floors(b)) => floors(a, b),
            (
                Bound::Signatures { threshold, keys },
                Bound::Signatures {
                    threshold: other_threshold,
                    keys: other_keys,
                },
            ) => by(
                enough((*other_threshold, other_keys), (*threshold, keys)),
                enough((*threshold, keys), (*other_threshold, other_keys)),
            ),
            _ => Relation::Incomparable,
        }
    }

    fn words(&self) -> String {
        match self {
            Bound::OneOf(list) => listed(list.len(), list.iter().cloned(), "or"),
            Bound::AllOf(list) => listed(list.len(), list.iter().cloned(), "and"),
            Bound::Within(list) | Bound::Events(list) if list.is_empty() => "none".into(),
            Bound::Within(list) => listed(list.len(), list.iter().cloned(), "or"),
            Bound::Events(list) => listed(list.len(), list.iter().cloned(), "and"),
            Bound::Until(None) => "never".into(),
            Bound::Until(Some(day)) => format!("until {day}"),
            Bound::AtLeast(least) => format!("{least} or more"),
            Bound::AtMost(most) => format!("{} or less", seconds(*most)),
            Bound::Bits(0) => "any bits".into(),
            Bound::Bits(bits) => format!("all bits of 0x{bits:x}"),
            Bound::Flag { value, .. } => value.to_string(),
            Bound::Floors(floors) => floors_words(floors),
            Bound::Manifest(who) if who.is_empty() => "whatever a manifest lists".into(),
            // Names have no spaces in them.
            Bound::Manifest(who) if !who.contains(' ') || who.starts_with("1 of ") => {
                format!("whatever {who} signs")
            }
            Bound::Manifest(who) => format!("whatever {who} sign"),
            Bound::Signatures { threshold, keys } => {
                let names = listed(keys.len(), names_of(keys).into_iter(), "and");
                format!("{threshold} of {}: {names}", keys.len())
            }
        }
    }
}

/// Whether whatever has the first's signatures has the second's: the fewest of the second's keys that can be among them.
fn enough(
    (threshold, keys): (usize, &BTreeMap<String, String>),
    (demanded, others): (usize, &BTreeMap<String, String>),
) -> bool {
    let foreign = keys.keys().filter(|key| !others.contains_key(*key)).count();
    threshold.saturating_sub(foreign) >= demanded
}

/// Names, sorted.
fn names_of(keys: &BTreeMap<String, String>) -> BTreeSet<String> {
    keys.values().cloned().collect()
}

/// Who signs, so that it can stand before "sign": `alice and bob`, `2 of alice, bob and carol`.
pub(super) fn who_signs(signers: &Signers) -> String {
    let names = signers.keys().iter().map(|signer| signer.name.clone());
    let all = listed(signers.keys().len(), names, "and");
    match signers.threshold() {
        threshold if threshold == signers.keys().len() => all,
        threshold => format!("{threshold} of {all}"),
    }
}

/// Whether the second is within the first, and the first within the second.
fn by(stricter: bool, looser: bool) -> Relation {
    match (stricter, looser) {
        (true, true) => Relation::Same,
        (true, false) => Relation::Stricter,
        (false, true) => Relation::Looser,
        (false, false) => Relation::Incomparable,
    }
}

/// How many entries of a list words name before they count the rest.
const NAMED: usize = 4;
/// Digits of a digest that a summary shows: it is recognised by as many.
const LONG: usize = 16;

fn listed(count: usize, words: impl Iterator<Item = String>, between: &str) -> String {
    let named: Vec<String> = words.take(NAMED).collect();
    match (named.as_slice(), count.saturating_sub(NAMED)) {
        ([], _) => "none: the list is empty".into(),
        ([one], _) => one.clone(),
        ([most @ .., last], 0) => format!("{} {between} {last}", most.join(", ")),
        (_, more) => format!("{} {between} {more} more", named.join(", ")),
    }
}

/// The names of events; an event without a name is its own.
fn names(events: &BTreeSet<String>) -> BTreeSet<&str> {
    events.iter().map(|event| name(event)).collect()
}

fn name(event: &str) -> &str {
    event.split_once('=').map_or(event, |(name, _)| name)
}

/// Whether each event of the first is one of the second, where `name=*` is any of that name.
fn within(first: &BTreeSet<String>, second: &BTreeSet<String>) -> bool {
    first
        .iter()
        .all(|event| second.contains(event) || second.contains(&format!("{}=*", name(event))))
}

/// What is added to a set and what is taken out of it.
fn moved(a: &BTreeSet<String>, b: &BTreeSet<String>, does: &str) -> Option<String> {
    let all = |list: Vec<&String>| {
        let count = list.len();
        listed(count, list.into_iter().cloned(), "and")
    };
    let added: Vec<&String> = b.difference(a).collect();
    let dropped: Vec<&String> = a.difference(b).collect();
    match (added.is_empty(), dropped.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("also {does} {}", all(added))),
        (true, false) => Some(format!("no longer {does} {}", all(dropped))),
        (false, false) => Some(format!("{does} {}, no longer {}", all(added), all(dropped))),
    }
}

/// `90 s`, `2 h`, `30 days`: the greatest unit that says it exactly.
pub(super) fn seconds(seconds: u64) -> String {
    match seconds {
        0 => "0 s".into(),
        s if s % 86_400 == 0 && s / 86_400 == 1 => "1 day".into(),
        s if s % 86_400 == 0 => format!("{} days", s / 86_400),
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// The product of a key of floors (see [`crate::product`]).
pub(super) fn product_of(name: &str) -> &str {
    match name {
        "Bergamo" => "Genoa",
        other => other.split('-').next().unwrap_or(other),
    }
}

/// The floor that counts for a product: its own, or that of the product it is a variant of.
fn floor(floors: &Floors, name: &str) -> Option<[u8; 5]> {
    let floor = floors
        .0
        .get(name)
        .or_else(|| floors.0.get(product_of(name)))?;
    Some([
        floor.fmc.unwrap_or(0),
        floor.bootloader,
        floor.tee,
        floor.snp,
        floor.microcode,
    ])
}

fn floors(a: &Floors, b: &Floors) -> Relation {
    let each = FLOOR_KEYS
        .iter()
        .map(|name| match (floor(a, name), floor(b, name)) {
            (None, None) => Relation::Same,
            (None, Some(_)) => Relation::Looser,
            (Some(_), None) => Relation::Stricter,
            (Some(a), Some(b)) => {
                let parts = || a.iter().zip(&b);
                by(parts().all(|(a, b)| b >= a), parts().all(|(a, b)| b <= a))
            }
        });
    each.fold(Relation::Same, Relation::and)
}

/// `Genoa microcode 84 → 90; …`
fn floors_change(a: &Floors, b: &Floors) -> Option<String> {
    const PARTS: [&str; 5] = ["fmc", "bootloader", "tee", "snp", "microcode"];
    let mut words = Vec::new();
    for name in FLOOR_KEYS {
        match (floor(a, name), floor(b, name)) {
            (Some(before), Some(after)) => {
                for (part, (before, after)) in PARTS.iter().zip(before.iter().zip(&after)) {
                    if before != after {
                        words.push(format!("{name} {part} {before} → {after}"));
                    }
                }
            }
            (Some(_), None) => words.push(format!("no {name} any more")),
            (None, Some(_)) => words.push(format!("{name} is new")),
            (None, None) => {}
        }
    }
    (!words.is_empty()).then(|| words.join("; "))
}

/// `Genoa: snp 23, microcode 84; …`, without the components that have no floor.
pub(super) fn floors_words(floors: &Floors) -> String {
    let each = floors.0.iter().map(|(name, floor)| {
        let parts = [
            ("fmc", floor.fmc.unwrap_or(0)),
            ("bootloader", floor.bootloader),
            ("tee", floor.tee),
            ("snp", floor.snp),
            ("microcode", floor.microcode),
        ];
        let words: Vec<String> = parts
            .iter()
            .filter(|(_, least)| *least > 0)
            .map(|(part, least)| format!("{part} {least}"))
            .collect();
        if words.is_empty() {
            format!("{name} at any level")
        } else {
            format!("{name} {}", words.join(" "))
        }
    });
    let words: Vec<String> = each.collect();
    if words.is_empty() {
        "none: no product has a floor".into()
    } else {
        words.join("; ")
    }
}

/// Of a check that is yes or no, the answer under which an attacker can do less. None for one that is only
/// a description.
fn safer_answer(id: &str) -> Option<bool> {
    SAFER
        .iter()
        .find(|(known, _)| *known == id)
        .map(|(_, safer)| *safer)
}

const SAFER: &[(&str, bool)] = &[
    ("snp.chip_id.masked", false),
    ("snp.tcb.provisional", false),
    ("snp.policy.debug", false),
    ("snp.policy.migrate_ma", false),
    ("snp.policy.abi", true),
    ("snp.policy.smt", false),
    ("snp.policy.single_socket", true),
    ("snp.policy.cxl", false),
    ("snp.policy.mem_aes_256_xts", true),
    ("snp.policy.rapl_dis", true),
    ("snp.policy.ciphertext_hiding", true),
    ("snp.policy.page_swap_disable", true),
    ("snp.platform.smt", false),
    ("snp.platform.ecc", true),
    ("snp.platform.rapl_dis", true),
    ("snp.platform.ciphertext_hiding", true),
    ("snp.platform.alias_check", true),
    ("tdx.attributes.debug", false),
    ("tdx.attributes.sept_ve_disable", true),
    ("tdx.attributes.migratable", false),
    ("tdx.attributes.others", false),
    ("tdx.xfam.fixed", true),
];

#[cfg(test)]
mod tests {
    use touchstone_formats::evidence::Tee;

    use super::*;
    use crate::policy::{Form, check_ids};

    /// Checks that are yes or no, and neither answer is the safer.
    const DESCRIPTIONS: &[&str] = &[
        "snp.platform.tsme",
        "tdx.attributes.perfmon",
        "tdx.attributes.key_locker",
        "tdx.attributes.pks",
    ];

    #[test]
    fn every_check_that_is_yes_or_no_has_a_safer_answer_or_is_a_description() {
        let flags: Vec<&str> = [Tee::SevSnp, Tee::Tdx]
            .into_iter()
            .flat_map(check_ids)
            .filter(|spec| spec.form == Form::Flag)
            .map(|spec| spec.id)
            .collect();
        for id in &flags {
            assert_ne!(
                safer_answer(id).is_some(),
                DESCRIPTIONS.contains(id),
                "{id}"
            );
        }
        for (id, _) in SAFER {
            assert!(flags.contains(id), "{id} is no check that is yes or no");
        }
    }

    #[test]
    fn spans_in_words_are_exact() {
        for (n, words) in [
            (0, "0 s"),
            (90, "90 s"),
            (300, "5 min"),
            (7200, "2 h"),
            (86_400, "1 day"),
            (604_800, "7 days"),
            (86_401, "86401 s"),
        ] {
            assert_eq!(seconds(n), words);
        }
    }
}
