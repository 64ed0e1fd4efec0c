//! Runs mutants past several judges and compares what they say.
//!
//! One thing is held: what Touchstone accepts, every other judge accepts. What Touchstone refuses and others accept is counted on
//! a sample, for people.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use crate::random::Random;

/// Seed of the default run.
const SEED: u64 = 0x70c5_70e5_2026_0004;
/// One in so many of the mutants that Touchstone refuses is shown to the others.
const SAMPLE: usize = 64;
/// How often a mutant is made anew of which nothing came.
const TRIES: usize = 8;
/// Findings that are written out; the rest is counted.
const MOST_SHOWN: usize = 20;

/// How many mutants of what, from the environment: `TOUCHSTONE_MUTANTS` (of both platforms together, default 100,000) and
/// `TOUCHSTONE_MUTANT_SEED`.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Of one platform.
    pub count: u64,
    /// Where they come from.
    pub seed: u64,
    /// The mutants that the excuses were written for: then each of them has to be of use.
    pub full: bool,
}

impl Size {
    /// Half of what the environment asks for.
    ///
    /// # Panics
    /// When a variable is no number.
    pub fn from_env() -> Size {
        let read = |name: &str| {
            let text = std::env::var(name).ok()?.replace('_', "");
            Some(
                text.parse()
                    .unwrap_or_else(|e| panic!("{name}={text}: {e}")),
            )
        };
        let all = read("TOUCHSTONE_MUTANTS").unwrap_or(100_000);
        let seed = read("TOUCHSTONE_MUTANT_SEED").unwrap_or(SEED);
        Size {
            count: all / 2,
            seed,
            full: all >= 100_000 && seed == SEED,
        }
    }
}

/// A judge that is not ours.
pub struct Other<'a> {
    /// Its name.
    pub judge: &'static str,
    /// Whether Touchstone accepts as much of the mutant as this judge looks at.
    pub accepted: bool,
    /// Its verdict, with the reason of a refusal. Not asked unless there is something to compare.
    pub ask: Box<dyn Fn() -> Result<(), String> + 'a>,
}

/// A mutant and its judges.
pub struct Mutant<'a> {
    /// The kind of change: statistics are by it.
    pub kind: &'static str,
    /// What was done to what.
    pub what: String,
    /// Nothing came of the change: it compares nothing.
    pub unchanged: bool,
    /// The others.
    pub others: Vec<Other<'a>>,
    /// The evidence, for a file of its own where the judges disagree.
    pub file: Box<dyn Fn() -> Vec<u8> + 'a>,
}

/// Something that Touchstone accepts and another judge refuses.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which mutant.
    pub index: u64,
    /// Who refused it.
    pub judge: &'static str,
    /// What was done to what.
    pub what: String,
    /// Why it was refused.
    pub said: String,
}

/// A disagreement in which the other judge is wrong, or stricter than a verifier has to be.
pub struct Excuse {
    /// Whose refusal it excuses.
    pub judge: &'static str,
    /// Why Touchstone is right to accept.
    pub reason: &'static str,
    /// Whether it is this disagreement.
    pub fits: fn(&Finding) -> bool,
}

thread_local! {
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// Other judges panic on hostile bytes: that is a refusal, and not worth a line each. Touchstone's own panics are.
fn quiet_others() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !ASKING.get() {
                hook(info);
            }
        }));
    });
}

#[derive(Default)]
struct Tally {
    made: u64,
    accepted: u64,
    /// Refused by us and shown to others; accepted there.
    shown: u64,
    theirs: u64,
}

/// Makes `size.count` mutants, judges them, and prints what came of it.
///
/// # Panics
/// When there is a disagreement without an excuse, an excuse without a use, or a kind of mutant of which none was accepted
/// although `must_accept` names it, or one
/// was although `must_refuse` does.
pub fn run<'a>(
    name: &str,
    size: Size,
    make: impl Fn(&mut Random) -> Mutant<'a> + Sync,
    excuses: &[Excuse],
    must_accept: &[&str],
    must_refuse: &[&str],
) {
    println!("{name}: {} mutants, seed {:#x}", size.count, size.seed);
    let next = AtomicU64::new(0);
    let tallies: Mutex<BTreeMap<&'static str, Tally>> = Mutex::default();
    let findings: Mutex<Vec<Finding>> = Mutex::default();
    let uses: Vec<AtomicU64> = excuses.iter().map(|_| AtomicU64::new(0)).collect();
    let panics = AtomicU64::new(0);
    quiet_others();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= size.count {
                return;
            }
            let mut random = Random::new(size.seed, index);
            let mut mutant = make(&mut random);
            for _ in 0..TRIES {
                if mutant.unchanged {
                    mutant = make(&mut random);
                }
            }
            let accepted = mutant.others.iter().any(|other| other.accepted);
            let shown = !accepted && random.one_in(SAMPLE);
            let mut theirs = 0;
            for other in mutant.others.iter().filter(|other| shown || other.accepted) {
                let Other { judge, ask, .. } = other;
                ASKING.set(true);
                let said = catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|_| {
                    panics.fetch_add(1, Ordering::Relaxed);
                    Err("it panicked".to_owned())
                });
                ASKING.set(false);
                let Err(said) = said else {
                    theirs += 1;
                    continue;
                };
                if !other.accepted {
                    continue;
                }
                let what = format!("{}: {}", mutant.kind, mutant.what);
                let finding = Finding {
                    index,
                    judge,
                    what,
                    said,
                };
                let fits = |excuse: &Excuse| excuse.judge == *judge && (excuse.fits)(&finding);
                match excuses.iter().position(fits) {
                    Some(place) => _ = uses[place].fetch_add(1, Ordering::Relaxed),
                    None => {
                        keep(name, size, index, &(mutant.file)());
                        findings.lock().expect("no panics here").push(finding);
                    }
                }
            }
            let mut tallies = tallies.lock().expect("no panics here");
            let tally = tallies.entry(mutant.kind).or_default();
            tally.made += 1;
            match accepted {
                true => tally.accepted += 1,
                false if shown => {
                    tally.shown += 1;
                    tally.theirs += u64::from(theirs > 0);
                }
                false => {}
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    let tallies = tallies.into_inner().expect("no panics here");
    report(&tallies, panics.into_inner());
    let mut wrong = String::new();
    for (excuse, uses) in excuses.iter().zip(uses) {
        let uses = uses.into_inner();
        println!(
            "  excused {uses} times, {}: {}",
            excuse.judge, excuse.reason
        );
        if uses == 0 && size.full {
            _ = writeln!(
                wrong,
                "an excuse that is of no use, {}: {}",
                excuse.judge, excuse.reason
            );
        }
    }
    let mut findings = findings.into_inner().expect("no panics here");
    findings.sort_by_key(|finding| finding.index);
    for finding in findings.iter().take(MOST_SHOWN) {
        let Finding {
            index,
            judge,
            what,
            said,
        } = finding;
        _ = writeln!(
            wrong,
            "DISAGREE mutant {index}: Touchstone accepts, {judge} refuses: {said}\n  {what}"
        );
    }
    if findings.len() > MOST_SHOWN {
        _ = writeln!(wrong, "and {} more", findings.len() - MOST_SHOWN);
    }
    for kind in must_accept {
        if size.full && tallies.get(kind).is_none_or(|tally| tally.accepted == 0) {
            _ = writeln!(
                wrong,
                "no mutant of the kind {kind:?} was accepted: they compare nothing"
            );
        }
    }
    for kind in must_refuse {
        match tallies.get(kind).map(|tally| tally.accepted) {
            Some(0) => {}
            None if !size.full => {}
            found => {
                _ = writeln!(
                    wrong,
                    "of the kind {kind:?} none may be accepted; found {found:?}"
                )
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A line for each kind.
fn report(tallies: &BTreeMap<&'static str, Tally>, panics: u64) {
    for (kind, tally) in tallies {
        let Tally {
            made,
            accepted,
            shown,
            theirs,
        } = tally;
        println!(
            "  {kind}: {made} made, {accepted} accepted by Touchstone; of {shown} refused ones others accept {theirs}"
        );
    }
    println!("  other judges panicked {panics} times");
}

/// Keeps the evidence of a finding where the tests of this run put their files.
fn keep(name: &str, size: Size, index: u64, file: &[u8]) {
    let path = format!(
        "{}/{name}-{:x}-{index}.json",
        std::env::temp_dir().display(),
        size.seed
    );
    match std::fs::write(&path, file) {
        Ok(()) => println!("  kept {path}"),
        Err(error) => println!("  {path}: {error}"),
    }
}
