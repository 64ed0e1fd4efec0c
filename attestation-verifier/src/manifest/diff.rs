//! What changed from one manifest to another.

use serde::Serialize;

use super::types::{
    Ingredient, Manifest, Measurement, MinimumTcb, Model, Origin, OsBinding, Platform, QuoteSource,
    Release,
};
use crate::dates::rfc3339;
use crate::policy::{Floor, Floors};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is about: `release 1.4.2, platform qemu-genoa, ingredient kernel`.
    pub at: String,
    /// What was there; none where something was added.
    pub before: Option<String>,
    /// What is there; none where something was removed.
    pub after: Option<String>,
    /// Whether less or more is asked of a platform than before.
    pub direction: Direction,
}

/// Whether a change asks for less, or for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Less is asked of a platform that was accepted before.
    Weaker,
    /// More is asked of it.
    Stricter,
    /// Something else is accepted, or is said otherwise.
    Other,
}

/// The differences from the first to the second, in the order of what they are about. Empty if they say the same.
pub fn diff(first: &Manifest, second: &Manifest) -> Vec<Change> {
    let mut out = Changes::default();
    out.text("name", &first.name, &second.name);
    let rank = |version: u64| i128::from(version);
    out.ranked(
        "version",
        rank,
        first.version,
        second.version,
        u64::to_string,
    );
    // Times change with every version: neither is weaker.
    out.time("issued", first.issued, second.issued);
    out.time("not_after", first.not_after, second.not_after);
    for (before, after) in pairs(&first.releases, &second.releases, |r| r.release.clone()) {
        match (before, after) {
            (Some(before), Some(after)) => release(&mut out, before, after),
            (before, after) => {
                let one = before.or(after).map(|r| r.release.clone());
                let at = format!("release {}", one.unwrap_or_default());
                out.push(
                    at,
                    before.map(release_words),
                    after.map(release_words),
                    Direction::Other,
                );
            }
        }
    }
    let key = |model: &Model| (model.name.clone(), model.version.clone());
    for (before, after) in pairs(&first.models, &second.models, key) {
        model(&mut out, before, after);
    }
    out.0
}

/// A release that came or went, with everything that it accepts.
fn release_words(release: &Release) -> String {
    let platforms = release.platforms.iter().map(|platform| {
        let count = platform.measurements.len();
        format!("{} ({count} measurements)", platform.name)
    });
    let platforms: Vec<String> = platforms.collect();
    let end = rfc3339(release.not_after);
    format!("until {end}, platforms {}", platforms.join(", "))
}

fn release(out: &mut Changes, before: &Release, after: &Release) {
    let at = format!("release {}", before.release);
    out.time(
        &format!("{at}, not_after"),
        before.not_after,
        after.not_after,
    );
    let both = pairs(&before.platforms, &after.platforms, |p| p.name.clone());
    for (before, after) in both {
        let called = before.or(after).map(|p| p.name.clone()).unwrap_or_default();
        let at = format!("{at}, platform {called}");
        match (before, after) {
            (Some(before), Some(after)) => platform(out, &at, before, after),
            (before, after) => {
                let words = |p: &Platform| {
                    let count = p.measurements.len();
                    let (tee, binding) = (p.tee, p.os_binding.name());
                    format!(
                        "{tee}, {}, os_binding {binding}, {count} measurements",
                        p.vmm
                    )
                };
                out.push(at, before.map(words), after.map(words), Direction::Other);
            }
        }
    }
}

fn platform(out: &mut Changes, at: &str, before: &Platform, after: &Platform) {
    out.text(&format!("{at}, tee"), before.tee.name(), after.tee.name());
    out.text(&format!("{at}, vmm"), &before.vmm, &after.vmm);
    let bound = |binding: OsBinding| match binding {
        OsBinding::LaunchDigest | OsBinding::Rtmr => 1,
        OsBinding::VtpmPcr | OsBinding::None => 0,
    };
    out.ranked(
        &format!("{at}, os_binding"),
        bound,
        before.os_binding,
        after.os_binding,
        |binding| binding.name().to_owned(),
    );
    let exclusive = |source: QuoteSource| i128::from(source == QuoteSource::Exclusive);
    out.ranked(
        &format!("{at}, quote_source"),
        exclusive,
        before.quote_source,
        after.quote_source,
        |source| source.name().to_owned(),
    );
    for (before, after) in pairs(&before.ingredients, &after.ingredients, |i| i.role) {
        ingredient(out, at, before, after);
    }
    minimum_tcb(out, at, &before.minimum_tcb, &after.minimum_tcb);
    // What identifies a measurement is all of it.
    let text = |m: &Measurement| serde_json::to_string(m).unwrap_or_default();
    for (before, after) in pairs(&before.measurements, &after.measurements, text) {
        if before.is_none() || after.is_none() {
            out.push(
                format!("{at}, measurement"),
                before.map(text),
                after.map(text),
                Direction::Other,
            );
        }
    }
}

fn ingredient(
    out: &mut Changes,
    at: &str,
    before: Option<&Ingredient>,
    after: Option<&Ingredient>,
) {
    if before == after {
        return;
    }
    let words = |i: &Ingredient| {
        format!(
            "{} sha256 {}, {} bytes, {}, from {}",
            i.name,
            i.sha256,
            i.size,
            i.origin.name(),
            i.source
        )
    };
    let role = before.or(after).map_or("", |i| i.role.name());
    let direction = match (before.map(|i| i.origin), after.map(|i| i.origin)) {
        (Some(Origin::Rebuilt), Some(Origin::PinnedBinary)) => Direction::Weaker,
        (Some(Origin::PinnedBinary), Some(Origin::Rebuilt)) => Direction::Stricter,
        _ => Direction::Other,
    };
    out.push(
        format!("{at}, ingredient {role}"),
        before.map(words),
        after.map(words),
        direction,
    );
}

fn minimum_tcb(out: &mut Changes, at: &str, before: &MinimumTcb, after: &MinimumTcb) {
    let at = format!("{at}, minimum_tcb");
    match (before, after) {
        (
            MinimumTcb::Tdx {
                tcb_evaluation_data_number: before,
            },
            MinimumTcb::Tdx {
                tcb_evaluation_data_number: after,
            },
        ) => out.ranked(
            &format!("{at}, tcb_evaluation_data_number"),
            i128::from,
            *before,
            *after,
            u64::to_string,
        ),
        (MinimumTcb::Snp(Floors(before)), MinimumTcb::Snp(Floors(after))) => {
            let (before, after): (Vec<_>, Vec<_>) =
                (before.iter().collect(), after.iter().collect());
            for (before, after) in pairs(&before, &after, |(product, _)| (*product).clone()) {
                match (before, after) {
                    (Some((product, before)), Some((_, after))) => {
                        floors(out, &format!("{at}, {product}"), before, after);
                    }
                    (before, after) => {
                        let product = before.or(after).map_or("", |(product, _)| product);
                        let words = |(_, floor): &(&String, &Floor)| floor.to_value().to_string();
                        out.push(
                            format!("{at}, {product}"),
                            before.map(words),
                            after.map(words),
                            Direction::Other,
                        );
                    }
                }
            }
        }
        // Of another TEE: that is said where the platform's is.
        _ => {}
    }
}

fn floors(out: &mut Changes, at: &str, before: &Floor, after: &Floor) {
    let components = |floor: &Floor| {
        [
            ("fmc", floor.fmc.unwrap_or_default()),
            ("bootloader", floor.bootloader),
            ("tee", floor.tee),
            ("snp", floor.snp),
            ("microcode", floor.microcode),
        ]
    };
    for ((name, before), (_, after)) in components(before).into_iter().zip(components(after)) {
        out.ranked(
            &format!("{at}, {name}"),
            i128::from,
            before,
            after,
            u8::to_string,
        );
    }
}

fn model(out: &mut Changes, before: Option<&Model>, after: Option<&Model>) {
    let one = before.or(after);
    let called = one.map(|model| format!("model {} version {}", model.name, model.version));
    let at = called.unwrap_or_default();
    let (Some(before), Some(after)) = (before, after) else {
        let words = |model: &Model| {
            let configs = model.config_digests.len();
            format!("{}, {configs} configurations", model.model_digest)
        };
        return out.push(at, before.map(words), after.map(words), Direction::Other);
    };
    let digest = |model: &Model| model.model_digest.to_string();
    out.text(
        &format!("{at}, model_digest"),
        &digest(before),
        &digest(after),
    );
    let both = pairs(&before.config_digests, &after.config_digests, |d| *d);
    for (before, after) in both {
        if before != after {
            out.push(
                format!("{at}, config_digest"),
                before.map(ToString::to_string),
                after.map(ToString::to_string),
                Direction::Other,
            );
        }
    }
}

#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    fn push(
        &mut self,
        at: String,
        before: Option<String>,
        after: Option<String>,
        direction: Direction,
    ) {
        self.0.push(Change {
            at,
            before,
            after,
            direction,
        });
    }

    fn text(&mut self, at: &str, before: &str, after: &str) {
        if before != after {
            let (before, after) = (Some(before.to_owned()), Some(after.to_owned()));
            self.push(at.to_owned(), before, after, Direction::Other);
        }
    }

    fn time(&mut self, at: &str, before: u64, after: u64) {
        self.text(at, &rfc3339(before), &rfc3339(after));
    }

    /// A value of which less is weaker.
    fn ranked<T: Copy + PartialEq>(
        &mut self,
        at: &str,
        rank: impl Fn(T) -> i128,
        before: T,
        after: T,
        words: impl Fn(&T) -> String,
    ) {
        if before == after {
            return;
        }
        let direction = match rank(before).cmp(&rank(after)) {
            std::cmp::Ordering::Greater => Direction::Weaker,
            std::cmp::Ordering::Less => Direction::Stricter,
            std::cmp::Ordering::Equal => Direction::Other,
        };
        let (before, after) = (Some(words(&before)), Some(words(&after)));
        self.push(at.to_owned(), before, after, direction);
    }
}

/// What the first has, with what the second has under the same key, then what only the second has.
fn pairs<'a, T, K: Ord>(
    first: &'a [T],
    second: &'a [T],
    key: impl Fn(&T) -> K,
) -> Vec<(Option<&'a T>, Option<&'a T>)> {
    let index = |items: &'a [T]| -> std::collections::BTreeMap<K, &'a T> {
        items.iter().map(|item| (key(item), item)).collect()
    };
    let (before, after) = (index(first), index(second));
    let kept = first.iter().map(|item| {
        let other = after.get(&key(item)).copied();
        (Some(item), other)
    });
    let added = second
        .iter()
        .filter(|item| !before.contains_key(&key(item)))
        .map(|item| (None, Some(item)));
    kept.chain(added).collect()
}
