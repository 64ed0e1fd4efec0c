//! What `touchstone measure` prints: `touchstone/measured/1`, from which a manifest's platform is made.

use serde::{Deserialize, Serialize};
use touchstone_formats::{Digest, Tee};

use super::error::{ManifestError, Result, at_most};
use super::statement::is;
use super::types::{Measurement, OsBinding, Role};
use super::{MAX_FILE, MAX_MEASUREMENTS, check, json};

/// Measurements that were computed, and from what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The kind of TEE.
    pub tee: Tee,
    /// The virtual machine monitor they are of.
    pub vmm: String,
    /// What binds the operating system: never `vtpm-pcr`.
    pub os_binding: OsBinding,
    /// By which evidence of real hardware the derivation was confirmed; none where no hardware has.
    pub confirmed: Option<String>,
    /// What they were computed from, each role once.
    pub ingredients: Vec<MeasuredIngredient>,
    /// What hardware would report.
    pub measurements: Vec<Measurement>,
}

/// Something that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredIngredient {
    /// What it is there for.
    pub role: Role,
    /// Its name, such as a file's.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Their number.
    pub size: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: String,
    tee: Tee,
    vmm: String,
    os_binding: OsBinding,
    confirmed: Option<String>,
    ingredients: Vec<MeasuredIngredient>,
    measurements: Vec<Measurement>,
}

impl Measured {
    /// Reads one.
    ///
    /// # Errors
    /// Another version, anything more or less than the format has, measurements of another TEE.
    pub fn parse(text: &[u8]) -> Result<Measured> {
        let wire: Wire = json::read("measurements", MAX_FILE, text)?;
        is("v", &wire.v, "touchstone/measured/1")?;
        check::name("vmm", &wire.vmm)?;
        let binds = match wire.os_binding {
            OsBinding::None => true,
            OsBinding::LaunchDigest => wire.tee == Tee::SevSnp,
            OsBinding::Rtmr => wire.tee == Tee::Tdx,
            OsBinding::VtpmPcr => false,
        };
        if !binds {
            let found = wire.os_binding.name();
            let expected = format!("what can be measured of {}", wire.tee.name());
            return Err(ManifestError::value("os_binding", found, expected));
        }
        if let Some(confirmed) = &wire.confirmed {
            check::name("confirmed", confirmed)?;
        }
        if wire.measurements.is_empty() {
            return Err(ManifestError::value("measurements", "none", "one or more"));
        }
        at_most("measurements", wire.measurements.len(), MAX_MEASUREMENTS)?;
        for (index, one) in wire.measurements.iter().enumerate() {
            check::measurement(&format!("measurements[{index}]"), one, wire.tee)?;
        }
        check::once("ingredients", wire.ingredients.iter().map(|i| i.role))?;
        for (index, one) in wire.ingredients.iter().enumerate() {
            let at = format!("ingredients[{index}]");
            check::measured_ingredient(&at, &one.name, one.size)?;
        }
        Ok(Measured {
            tee: wire.tee,
            vmm: wire.vmm,
            os_binding: wire.os_binding,
            confirmed: wire.confirmed,
            ingredients: wire.ingredients,
            measurements: wire.measurements,
        })
    }
}
