//! What a manifest says of one platform that evidence proves.

use serde_json::{Value, json};

use super::{NONE_GIVEN, Ruling, release, without};
use crate::At;
use crate::dates::rfc3339;
use crate::manifest::{
    Authentic, Entry, Manifest, Measurement, MinimumTcb, OsBinding, QuoteSource, Register, Release,
    Reported,
};
use crate::policy::{EventPattern, Expect, Platform, Rule};
use crate::verdict::{Checks, Fault};

/// The checks that every evidence object has whose platform's measurement is a manifest's, beside `manifest.validity`.
pub(crate) const OF_EVIDENCE: [&str; 4] = [
    "manifest.platform",
    "manifest.os_binding",
    "manifest.quote_source",
    "manifest.tcb",
];

/// Releases that a reason names before it counts the rest.
const NAMED: usize = 8;

/// What hardware measured, all of it.
pub(crate) enum Registers {
    /// MEASUREMENT.
    Snp([u8; 48]),
    /// MRTD and RTMR0 to RTMR2.
    Tdx([u8; 48], [[u8; 48]; 3]),
}

impl Registers {
    fn reported(&self) -> Reported<'_> {
        match self {
            Registers::Snp(measurement) => Reported::Snp(measurement),
            Registers::Tdx(mrtd, rtmr) => Reported::Tdx {
                mrtd,
                rtmr: rtmr.each_ref(),
            },
        }
    }
}

/// Authentic evidence, as a manifest sees it.
pub(crate) trait Measured {
    /// What was measured at launch.
    fn registers(&self) -> Registers;

    /// What of its TCB a minimum is about, and whether that is reached; else why not.
    fn reaches(&self, minimum: &MinimumTcb) -> (Value, Result<(), String>);
}

/// What a manifest makes of one platform.
pub(crate) struct Placed {
    pub(crate) checks: Checks,
    /// The verdict's `release`; null if the measurement is nowhere in the manifest.
    pub(crate) release: Value,
}

/// A rule that expects `"manifest"`: the value that was found is one of a release that counts now.
pub(crate) fn listed(
    ruling: Option<&Ruling>,
    checks: &mut Checks,
    id: &'static str,
    found: Value,
    at: At,
) {
    let manifest = match ruling.map_or(Err(NONE_GIVEN), Ruling::manifest) {
        Ok(manifest) => manifest,
        Err(why) => return without(checks, id, why),
    };
    let value = found.as_str().unwrap_or_default().to_owned();
    let releases = || manifest.releases.iter().filter(|r| !r.ended(at.time));
    let measurements = releases()
        .flat_map(|release| &release.platforms)
        .filter(|platform| provable(platform.os_binding))
        .flat_map(|platform| &platform.measurements);
    let mut registers = measurements.flat_map(|measurement| registers(id, measurement));
    let called = format!("{}, version {}", manifest.name, manifest.version);
    if registers.any(|register| register.to_string() == value) {
        let reason = format!("listed by the manifest {called}");
        return checks.pass_because(id, "manifest", found, reason);
    }
    let reason = format!(
        "not in the manifest {called}, which lists {}",
        releases_words(releases())
    );
    checks.fail(id, Fault::Policy, "manifest", found, reason);
}

/// What a measurement has for this check.
fn registers<'a>(id: &str, measurement: &'a Measurement) -> &'a [Register] {
    match (id, measurement) {
        ("snp.measurement", Measurement::Snp(snp)) => std::slice::from_ref(&snp.measurement),
        ("tdx.mrtd", Measurement::Tdx(tdx)) => std::slice::from_ref(&tdx.mrtd),
        ("tdx.rtmr0", Measurement::Tdx(tdx)) => &tdx.rtmr0,
        ("tdx.rtmr1", Measurement::Tdx(tdx)) => tdx.rtmr1.as_slice(),
        ("tdx.rtmr2", Measurement::Tdx(tdx)) => tdx.rtmr2.as_slice(),
        _ => &[],
    }
}

fn releases_words<'a>(releases: impl Iterator<Item = &'a Release>) -> String {
    let names: Vec<&str> = releases.map(|release| release.release.as_str()).collect();
    match (names.get(..NAMED), names.len()) {
        (_, 0) => "no release that has not ended".to_owned(),
        (Some(first), count) if count > NAMED => {
            format!("{} and {} more", first.join(", "), count - NAMED)
        }
        _ => names.join(", "),
    }
}

/// Whether this version can tell from evidence that the software is what was measured.
fn provable(binding: OsBinding) -> bool {
    match binding {
        OsBinding::LaunchDigest | OsBinding::Rtmr => true,
        OsBinding::VtpmPcr | OsBinding::None => false,
    }
}

/// The manifest's checks of one platform, and the policy's own (`checks`) with them: before those where the manifest has the
/// measurement, since it then says more; else behind.
pub(crate) fn place(
    ruling: Option<&Ruling>,
    genuine: &(impl Measured + ?Sized),
    platform: &Platform,
    checks: Checks,
    at: At,
    about: Option<&'static str>,
) -> Placed {
    let mut own = about.map_or_else(Checks::new, Checks::about);
    if !platform.by_manifest() {
        return Placed {
            checks,
            release: Value::Null,
        };
    }
    let registers = genuine.registers();
    let authentic = match ruling.map_or(Err(NONE_GIVEN), Ruling::used) {
        Ok(authentic) => authentic,
        Err(why) => {
            own.extend(checks);
            not_placed(&mut own, why);
            return Placed {
                checks: own,
                release: Value::Null,
            };
        }
    };
    let manifest = authentic.manifest();
    let mut last: Option<Entry<'_>> = None;
    let mut best: Option<(usize, Entry<'_>, Checks)> = None;
    for entry in manifest.entries(registers.reported()) {
        // A platform's measurements differ in nothing that is checked here.
        if last.is_some_and(|last| std::ptr::eq(last.platform, entry.platform)) {
            continue;
        }
        last = Some(entry);
        let found = of_entry(authentic, entry, genuine, platform, at, about);
        let refusing = found.iter().filter(|check| check.refuses()).count();
        if best.as_ref().is_none_or(|(least, ..)| refusing < *least) {
            best = Some((refusing, entry, found));
        }
        if refusing == 0 {
            break;
        }
    }
    match best {
        Some((_, entry, mut found)) => {
            found.extend(checks);
            Placed {
                checks: found,
                release: release::object(authentic, Some(entry)),
            }
        }
        None => {
            own.extend(checks);
            nowhere(&mut own, manifest, at);
            Placed {
                checks: own,
                release: Value::Null,
            }
        }
    }
}

/// The measurement as a whole is nowhere in the manifest.
fn nowhere(checks: &mut Checks, manifest: &Manifest, at: At) {
    let live = manifest.releases.iter().filter(|r| !r.ended(at.time));
    let reason = format!(
        "no entry of the manifest {}, version {}, is this measurement as a whole; it lists {}",
        manifest.name,
        manifest.version,
        releases_words(live)
    );
    let [platform, rest @ ..] = OF_EVIDENCE;
    checks.fail(platform, Fault::Policy, Value::Null, Value::Null, reason);
    for id in rest {
        let why = "the manifest does not have the measurement";
        checks.not_evaluated(id, Fault::Policy, Value::Null, why);
    }
}

/// Nothing got so far that a manifest could be asked.
pub(crate) fn not_placed(checks: &mut Checks, why: &str) {
    for id in OF_EVIDENCE {
        checks.not_evaluated(id, Fault::Policy, Value::Null, why);
    }
}

/// What one place of the manifest says of evidence with its measurement.
fn of_entry(
    authentic: &Authentic,
    entry: Entry<'_>,
    genuine: &(impl Measured + ?Sized),
    platform: &Platform,
    at: At,
    about: Option<&'static str>,
) -> Checks {
    let mut checks = about.map_or_else(Checks::new, Checks::about);
    let found = json!({ "release": entry.release.release, "platform": entry.platform.name });
    let manifest = authentic.manifest();
    let reason = format!(
        "release {} on {}, by the manifest {}, version {}",
        entry.release.release, entry.platform.name, manifest.name, manifest.version
    );
    checks.pass_because("manifest.platform", Value::Null, found, reason);
    let (end, now) = (rfc3339(entry.release.not_after), rfc3339(at.time));
    if entry.release.ended(at.time) {
        let reason = format!("release {} ended on {end}", entry.release.release);
        let fault = Fault::CollateralExpired;
        checks.fail("manifest.validity", fault, end, now, reason);
    } else {
        checks.pass("manifest.validity", end, now);
    }
    os_binding(&mut checks, entry.platform.os_binding);
    quote_source(&mut checks, entry.platform.quote_source, platform);
    let minimum = json!(entry.platform.minimum_tcb);
    match genuine.reaches(&entry.platform.minimum_tcb) {
        (found, Ok(())) => checks.pass("manifest.tcb", minimum, found),
        (found, Err(reason)) => {
            let reason = format!("below what the manifest demands: {reason}");
            checks.fail("manifest.tcb", Fault::Platform, minimum, found, reason);
        }
    }
    checks
}

fn os_binding(checks: &mut Checks, binding: OsBinding) {
    let id = "manifest.os_binding";
    let expected = json!([OsBinding::LaunchDigest.name(), OsBinding::Rtmr.name()]);
    let reason = match binding {
        _ if provable(binding) => return checks.pass(id, expected, binding.name()),
        OsBinding::VtpmPcr => {
            "a virtual TPM measures the operating system, which this version cannot judge: no claim about the software \
             that runs is provable"
        }
        _ => {
            "the launch measurement covers firmware alone, and nothing binds the operating system to it: no claim \
             about the software that runs is provable"
        }
    };
    checks.fail(id, Fault::Policy, expected, binding.name(), reason);
}

fn quote_source(checks: &mut Checks, source: QuoteSource, platform: &Platform) {
    let id = "manifest.quote_source";
    let expected = QuoteSource::Exclusive.name();
    match source {
        QuoteSource::Exclusive => checks.pass(id, expected, source.name()),
        QuoteSource::SharedAgent if pins_application(platform) => {
            let reason = "an agent quotes for others on the machine too; the policy pins which application it is by the \
                          event log (tdx.rtmr3.events)";
            checks.pass_because(id, expected, source.name(), reason);
        }
        QuoteSource::SharedAgent => {
            let reason = "an agent quotes for others on the machine too: whoever runs there can have quotes over what he \
                          likes, and the policy pins no application by the event log (tdx.rtmr3.events)";
            checks.fail(id, Fault::Policy, expected, source.name(), reason);
        }
    }
}

/// Whether the policy says which application was measured into RTMR3: by an event's payload or digest.
fn pins_application(platform: &Platform) -> bool {
    match platform.rule("tdx.rtmr3.events") {
        Some(Rule::Expect(Expect::Words(events))) => events.iter().any(|event| {
            !matches!(
                EventPattern::read(event),
                None | Some(EventPattern::Named(_, None))
            )
        }),
        _ => false,
    }
}
