//! What a manifest may say at all, and what should not be signed although it may.

use std::collections::BTreeSet;

use serde::Serialize;
use touchstone_formats::Tee;
use touchstone_formats::limits::MAX_INTEGER;

use super::error::{ManifestError, Result, at_most};
use super::types::{
    Ingredient, Manifest, Measurement, MinimumTcb, Origin, OsBinding, Platform, QuoteSource, Role,
};
use super::{
    CLOCK_SKEW, MAX_CONFIGS, MAX_MEASUREMENTS, MAX_MODELS, MAX_NAME, MAX_PLATFORMS, MAX_RELEASES,
    MAX_RTMR0, MAX_SOURCE,
};
use crate::dates::rfc3339;

/// Every rule that the types do not hold.
pub(super) fn manifest(manifest: &Manifest) -> Result<()> {
    name("name", &manifest.name)?;
    if !(1..=MAX_INTEGER).contains(&manifest.version) {
        let found = manifest.version.to_string();
        return Err(ManifestError::value("version", found, "1 to 2^53−1"));
    }
    if manifest.not_after <= manifest.issued {
        let found = rfc3339(manifest.not_after);
        return Err(ManifestError::value(
            "not_after",
            found,
            "later than issued",
        ));
    }
    at_most("releases", manifest.releases.len(), MAX_RELEASES)?;
    once(
        "releases",
        manifest.releases.iter().map(|r| r.release.as_str()),
    )?;
    for (index, release) in manifest.releases.iter().enumerate() {
        let at = format!("releases[{index}]");
        name(&format!("{at}.release"), &release.release)?;
        let platforms = format!("{at}.platforms");
        some(&platforms, release.platforms.len())?;
        at_most(&platforms, release.platforms.len(), MAX_PLATFORMS)?;
        once(
            &platforms,
            release.platforms.iter().map(|p| p.name.as_str()),
        )?;
        for (index, one) in release.platforms.iter().enumerate() {
            platform(&format!("{platforms}[{index}]"), one)?;
        }
    }
    at_most("models", manifest.models.len(), MAX_MODELS)?;
    once("models", manifest.models.iter().map(|m| m.model_digest))?;
    once(
        "models",
        manifest.models.iter().map(|m| (&m.name, &m.version)),
    )?;
    for (index, model) in manifest.models.iter().enumerate() {
        let at = format!("models[{index}]");
        name(&format!("{at}.name"), &model.name)?;
        name(&format!("{at}.version"), &model.version)?;
        let configs = format!("{at}.config_digests");
        at_most(&configs, model.config_digests.len(), MAX_CONFIGS)?;
        once(&configs, model.config_digests.iter())?;
    }
    Ok(())
}

fn platform(at: &str, platform: &Platform) -> Result<()> {
    name(&format!("{at}.name"), &platform.name)?;
    name(&format!("{at}.vmm"), &platform.vmm)?;
    let tee_of_binding = match platform.os_binding {
        OsBinding::LaunchDigest => Some(Tee::SevSnp),
        OsBinding::Rtmr => Some(Tee::Tdx),
        OsBinding::VtpmPcr | OsBinding::None => None,
    };
    if tee_of_binding.is_some_and(|tee| tee != platform.tee) {
        return Err(ManifestError::value(
            format!("{at}.os_binding"),
            platform.os_binding.name(),
            format!("what {} can have", platform.tee),
        ));
    }
    let list = format!("{at}.ingredients");
    some(&list, platform.ingredients.len())?;
    // There are no more roles than these, so that this bounds the list too.
    once(&list, platform.ingredients.iter().map(|i| i.role))?;
    for (index, one) in platform.ingredients.iter().enumerate() {
        ingredient(&format!("{list}[{index}]"), one)?;
    }
    // More would be said than is measured.
    if tee_of_binding.is_some() {
        for role in [Role::Firmware, Role::Kernel, Role::Initrd, Role::Cmdline] {
            if !platform.ingredients.iter().any(|i| i.role == role) {
                let expected = format!(
                    "one of role {}: os_binding {} says that it is measured",
                    role.name(),
                    platform.os_binding.name()
                );
                return Err(ManifestError::value(list, "none of that role", expected));
            }
        }
    }
    let fits = matches!(
        (&platform.minimum_tcb, platform.tee),
        (MinimumTcb::Snp(_), Tee::SevSnp) | (MinimumTcb::Tdx { .. }, Tee::Tdx)
    );
    if !fits {
        return Err(ManifestError::value(
            format!("{at}.minimum_tcb"),
            "another TEE's",
            format!("that of {}", platform.tee),
        ));
    }
    let list = format!("{at}.measurements");
    some(&list, platform.measurements.len())?;
    at_most(&list, platform.measurements.len(), MAX_MEASUREMENTS)?;
    for (index, one) in platform.measurements.iter().enumerate() {
        let at = format!("{list}[{index}]");
        measurement(&at, one, platform.tee)?;
        registers(&at, one, platform.os_binding)?;
    }
    Ok(())
}

fn ingredient(at: &str, ingredient: &Ingredient) -> Result<()> {
    let Ingredient {
        role,
        name: called,
        size,
        origin,
        source,
        ..
    } = ingredient;
    measured_ingredient(at, called, *size)?;
    if *role == Role::Onnxruntime && *origin == Origin::Rebuilt {
        return Err(ManifestError::value(
            format!("{at}.origin"),
            origin.name(),
            "pinned-binary: ONNX Runtime is its vendor's",
        ));
    }
    let at = format!("{at}.source");
    at_most(&at, source.chars().count(), MAX_SOURCE)?;
    text(&at, source)
}

/// What a `touchstone/measured/1` says of an ingredient too.
pub(super) fn measured_ingredient(at: &str, called: &str, size: u64) -> Result<()> {
    name(&format!("{at}.name"), called)?;
    if size > MAX_INTEGER {
        let field = format!("{at}.size");
        let found = size.to_string();
        return Err(ManifestError::value(field, found, "at most 2^53−1"));
    }
    Ok(())
}

/// What holds of a measurement wherever it stands.
pub(super) fn measurement(at: &str, measurement: &Measurement, tee: Tee) -> Result<()> {
    if measurement.tee() != tee {
        let found = measurement.tee().name();
        return Err(ManifestError::value(
            at,
            found,
            format!("one of {}", tee.name()),
        ));
    }
    match measurement {
        Measurement::Snp(snp) => {
            name(&format!("{at}.snp.cpu"), &snp.cpu)?;
            some(
                &format!("{at}.snp.vcpus"),
                usize::try_from(snp.vcpus).unwrap_or(usize::MAX),
            )
        }
        Measurement::Tdx(tdx) => {
            let at = format!("{at}.tdx");
            name(&format!("{at}.page_add_order"), &tdx.page_add_order)?;
            let list = format!("{at}.rtmr0");
            at_most(&list, tdx.rtmr0.len(), MAX_RTMR0)?;
            once(&list, tdx.rtmr0.iter())?;
            if tdx.rtmr1.is_some() != tdx.rtmr2.is_some() {
                return Err(ManifestError::value(
                    at,
                    "one of rtmr1 and rtmr2",
                    "both, or none",
                ));
            }
            Ok(())
        }
    }
}

/// A platform that binds its operating system by RTMRs has all of them.
fn registers(at: &str, measurement: &Measurement, binding: OsBinding) -> Result<()> {
    match measurement {
        Measurement::Tdx(tdx)
            if binding == OsBinding::Rtmr && (tdx.rtmr0.is_empty() || tdx.rtmr1.is_none()) =>
        {
            Err(ManifestError::value(
                format!("{at}.tdx"),
                "no value for rtmr0, or no rtmr1 and rtmr2",
                "all of them, as os_binding is rtmr",
            ))
        }
        _ => Ok(()),
    }
}

/// A name: 1 to 256 bytes, one line.
pub(super) fn name(field: &str, found: &str) -> Result<()> {
    at_most(&format!("{field}, bytes"), found.len(), MAX_NAME)?;
    text(field, found)
}

/// Text that says something, and does nothing to a terminal or to its reader's eye.
fn text(field: &str, found: &str) -> Result<()> {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if found.trim().is_empty() || found.chars().any(|c| c.is_control() || turns(c)) {
        let expected = "text of one line that is not empty, without control characters";
        return Err(ManifestError::value(field, found, expected));
    }
    Ok(())
}

fn some(field: &str, count: usize) -> Result<()> {
    if count == 0 {
        return Err(ManifestError::value(field, "none", "one or more"));
    }
    Ok(())
}

pub(super) fn once<T: Ord>(field: &str, items: impl Iterator<Item = T>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (index, item) in items.enumerate() {
        if !seen.insert(item) {
            let field = format!("{field}[{index}]");
            let expected = "each name, role and digest once";
            return Err(ManifestError::value(field, "it a second time", expected));
        }
    }
    Ok(())
}

/// Something to know before a manifest is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it must not be signed for this.
    pub refuses: bool,
    /// What it is.
    pub words: String,
}

/// What is wrong with signing this manifest at this time (unix seconds); empty where nothing is.
pub fn lint(manifest: &Manifest, at: u64) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |refuses: bool, words: String| found.push(Finding { refuses, words });
    if manifest.releases.is_empty() && manifest.models.is_empty() {
        add(
            true,
            "it is empty: it has no release and no model".to_owned(),
        );
    }
    if at > manifest.not_after {
        let end = rfc3339(manifest.not_after);
        add(true, format!("it is expired: not_after is {end}"));
    }
    if manifest.issued > at.saturating_add(CLOCK_SKEW) {
        let issued = rfc3339(manifest.issued);
        add(true, format!("it is issued in the future: {issued}"));
    }
    for release in &manifest.releases {
        let called = &release.release;
        if release.ended(at) {
            let end = rfc3339(release.not_after);
            add(true, format!("release {called} ended on {end}: drop it"));
        }
        for platform in &release.platforms {
            let at = format!("release {called}, platform {}", platform.name);
            match platform.os_binding {
                OsBinding::None => add(
                    false,
                    format!(
                        "{at}: os_binding none: no claim about its software can be proven, and verifiers refuse it"
                    ),
                ),
                OsBinding::VtpmPcr => add(
                    false,
                    format!(
                        "{at}: os_binding vtpm-pcr is not judged by this version: verifiers refuse it"
                    ),
                ),
                OsBinding::LaunchDigest | OsBinding::Rtmr => {}
            }
            if platform.quote_source == QuoteSource::SharedAgent {
                add(
                    false,
                    format!(
                        "{at}: quotes come from a shared agent: others on the machine can have them too"
                    ),
                );
            }
        }
    }
    found
}
