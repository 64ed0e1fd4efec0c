//! What a manifest says (docs/manifests.md, "The predicate").

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use touchstone_formats::text::{hex_array, hex_encode};
use touchstone_formats::{Digest, Tee};

use crate::dates::{parse_rfc3339, rfc3339};
use crate::policy::Floors;

/// The software, platforms and models that somebody stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its name: versions are counted under it.
    pub name: String,
    /// Counts up with every manifest of this name; from 1.
    pub version: u64,
    /// When it was made, unix seconds.
    pub issued: u64,
    /// The last second in which it counts, unix seconds.
    pub not_after: u64,
    /// Releases that are accepted, each name once.
    pub releases: Vec<Release>,
    /// Models that are accepted, each digest once.
    pub models: Vec<Model>,
}

/// One release of the enclave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Its name, such as `1.4.2`.
    pub release: String,
    /// The last second in which it is accepted, unix seconds.
    #[serde(with = "moment")]
    pub not_after: u64,
    /// What it runs on, each name once; never empty.
    pub platforms: Vec<Platform>,
}

/// A release on one kind of platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// Its name, for people.
    pub name: String,
    /// The kind of TEE.
    pub tee: Tee,
    /// The virtual machine monitor that the measurements were computed for.
    pub vmm: String,
    /// What binds kernel, initial RAM disk and command line to what the hardware reports.
    pub os_binding: OsBinding,
    /// Who on the machine can have quotes.
    pub quote_source: QuoteSource,
    /// What the measurements were computed from, each role once; never empty.
    pub ingredients: Vec<Ingredient>,
    /// The least TCB that it may run on.
    pub minimum_tcb: MinimumTcb,
    /// What the hardware may report; never empty. One of them has to match whole.
    pub measurements: Vec<Measurement>,
}

/// What binds the operating system to the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OsBinding {
    /// SEV-SNP: hashes of kernel, initial RAM disk and command line are in the launch digest.
    LaunchDigest,
    /// TDX: the firmware measures them into RTMR1 and RTMR2.
    Rtmr,
    /// A virtual TPM measures them; this version cannot judge that.
    VtpmPcr,
    /// Nothing does: no claim about the software can be proven.
    None,
}

impl OsBinding {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            OsBinding::LaunchDigest => "launch-digest",
            OsBinding::Rtmr => "rtmr",
            OsBinding::VtpmPcr => "vtpm-pcr",
            OsBinding::None => "none",
        }
    }
}

/// Who can have quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuoteSource {
    /// The measured software alone.
    Exclusive,
    /// An agent that quotes for others on the machine too.
    SharedAgent,
}

impl QuoteSource {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            QuoteSource::Exclusive => "exclusive",
            QuoteSource::SharedAgent => "shared-agent",
        }
    }
}

/// Something that a measurement was computed from, or that is inside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingredient {
    /// What it is there for.
    pub role: Role,
    /// Its name, such as a file's.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Their number.
    pub size: u64,
    /// How the signers came by it.
    pub origin: Origin,
    /// Where it can be had, or what it was built from: an address or words.
    pub source: String,
}

/// What an ingredient is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The firmware of the virtual machine.
    Firmware,
    /// The kernel.
    Kernel,
    /// The initial RAM disk.
    Initrd,
    /// The kernel's command line.
    Cmdline,
    /// A file system that the initial RAM disk verifies.
    Rootfs,
    /// The enclave program.
    Enclave,
    /// ONNX Runtime: its vendor's binary, always.
    Onnxruntime,
}

impl Role {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Role::Firmware => "firmware",
            Role::Kernel => "kernel",
            Role::Initrd => "initrd",
            Role::Cmdline => "cmdline",
            Role::Rootfs => "rootfs",
            Role::Enclave => "enclave",
            Role::Onnxruntime => "onnxruntime",
        }
    }

    /// The role of this name.
    pub fn from_name(name: &str) -> Option<Role> {
        use Role as R;
        [
            R::Firmware,
            R::Kernel,
            R::Initrd,
            R::Cmdline,
            R::Rootfs,
            R::Enclave,
            R::Onnxruntime,
        ]
        .into_iter()
        .find(|role| role.name() == name)
    }
}

/// How the signers came by an ingredient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Built from source, to the same bytes.
    Rebuilt,
    /// Taken as somebody else built it, and pinned.
    PinnedBinary,
}

impl Origin {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Rebuilt => "rebuilt",
            Origin::PinnedBinary => "pinned-binary",
        }
    }

    /// The origin of this name.
    pub fn from_name(name: &str) -> Option<Origin> {
        [Origin::Rebuilt, Origin::PinnedBinary]
            .into_iter()
            .find(|origin| origin.name() == name)
    }
}

/// The least TCB that a platform may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MinimumTcb {
    /// SEV-SNP: floors by product or variant. A product that is not named is not accepted.
    Snp(Floors),
    /// TDX: the least `tcbEvaluationDataNumber` of the TCB info it is judged by.
    Tdx {
        /// Intel's number.
        tcb_evaluation_data_number: u64,
    },
}

/// What the hardware may report. Matched whole, never member by member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "MeasurementWire", into = "MeasurementWire")]
pub enum Measurement {
    /// Of SEV-SNP.
    Snp(SnpMeasurement),
    /// Of TDX.
    Tdx(TdxMeasurement),
}

/// A launch digest, and what gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpMeasurement {
    /// MEASUREMENT of the attestation report.
    pub measurement: Register,
    /// Virtual processors.
    pub vcpus: u32,
    /// Model of the virtual processors, as the monitor names it.
    pub cpu: String,
    /// SEV_FEATURES of the VMSA.
    #[serde(with = "mask")]
    pub guest_features: u64,
}

/// A TD's build-time and boot-time measurements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxMeasurement {
    /// MRTD.
    pub mrtd: Register,
    /// What RTMR0 may be: the firmware's configuration and ACPI tables, which are observed rather than computed.
    pub rtmr0: Vec<Register>,
    /// RTMR1; absent only where nothing binds the operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtmr1: Option<Register>,
    /// RTMR2; absent only where nothing binds the operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtmr2: Option<Register>,
    /// In which order the monitor adds pages, by name: MRTD depends on it.
    pub page_add_order: String,
}

/// A model that the signers stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its version: words, nothing is compared but for equality.
    pub version: String,
    /// Its identity (docs/formats.md §5).
    pub model_digest: Digest,
    /// Configurations that it may run with, each once.
    pub config_digests: Vec<Digest>,
}

impl Model {
    /// Whether it may run with this configuration.
    pub fn has_config(&self, config: &Digest) -> bool {
        self.config_digests.contains(config)
    }
}

/// 48 bytes that hardware measured: a launch digest, MRTD or an RTMR. 96 lower-case hex digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Register(pub [u8; 48]);

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex_encode(&self.0))
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Register {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Register {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        hex_array(&text)
            .map(Register)
            .map_err(serde::de::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeasurementWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snp: Option<SnpMeasurement>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tdx: Option<TdxMeasurement>,
}

impl TryFrom<MeasurementWire> for Measurement {
    type Error = &'static str;

    fn try_from(wire: MeasurementWire) -> Result<Self, Self::Error> {
        match wire {
            MeasurementWire {
                snp: Some(snp),
                tdx: None,
            } => Ok(Measurement::Snp(snp)),
            MeasurementWire {
                snp: None,
                tdx: Some(tdx),
            } => Ok(Measurement::Tdx(tdx)),
            _ => Err("expected one member, snp or tdx"),
        }
    }
}

impl From<Measurement> for MeasurementWire {
    fn from(measurement: Measurement) -> Self {
        let (snp, tdx) = match measurement {
            Measurement::Snp(snp) => (Some(snp), None),
            Measurement::Tdx(tdx) => (None, Some(tdx)),
        };
        MeasurementWire { snp, tdx }
    }
}

/// What authentic evidence says that the hardware measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported<'a> {
    /// MEASUREMENT of an attestation report.
    Snp(&'a [u8; 48]),
    /// MRTD and RTMR0 to RTMR2 of a quote.
    Tdx {
        /// MRTD.
        mrtd: &'a [u8; 48],
        /// RTMR0, RTMR1 and RTMR2.
        rtmr: [&'a [u8; 48]; 3],
    },
}

impl Measurement {
    /// The kind of TEE it is of.
    pub fn tee(&self) -> Tee {
        match self {
            Measurement::Snp(_) => Tee::SevSnp,
            Measurement::Tdx(_) => Tee::Tdx,
        }
    }

    /// Whether this is what was reported, all of it.
    ///
    /// A TDX measurement without RTMR1 and RTMR2 compares what it has; only a platform that binds no operating system has
    /// such ones.
    pub fn matches(&self, reported: &Reported<'_>) -> bool {
        match (self, reported) {
            (Measurement::Snp(own), Reported::Snp(measurement)) => {
                own.measurement.0 == **measurement
            }
            (Measurement::Tdx(own), Reported::Tdx { mrtd, rtmr }) => {
                let [rtmr0, rtmr1, rtmr2] = rtmr;
                let is = |own: &Option<Register>, reported: &[u8; 48]| {
                    own.is_none_or(|own| own.0 == *reported)
                };
                let known0 = own.rtmr0.iter().any(|own| own.0 == **rtmr0);
                own.mrtd.0 == **mrtd
                    && (known0 || (own.rtmr0.is_empty() && own.rtmr1.is_none()))
                    && is(&own.rtmr1, rtmr1)
                    && is(&own.rtmr2, rtmr2)
            }
            _ => false,
        }
    }
}

/// Where in a manifest a measurement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The release.
    pub release: &'a Release,
    /// The platform.
    pub platform: &'a Platform,
    /// The measurement.
    pub measurement: &'a Measurement,
}

impl Manifest {
    /// Every place at which the manifest has this measurement, in its order. Evidence satisfies the manifest if it
    /// satisfies one of them whole: its release has not ended, its platform's minimum TCB, its `os_binding`.
    pub fn entries<'a>(&'a self, reported: Reported<'a>) -> impl Iterator<Item = Entry<'a>> {
        self.releases.iter().flat_map(move |release| {
            release.platforms.iter().flat_map(move |platform| {
                let found = platform.measurements.iter();
                found
                    .filter(move |measurement| measurement.matches(&reported))
                    .map(move |measurement| Entry {
                        release,
                        platform,
                        measurement,
                    })
            })
        })
    }

    /// The model with this identity; a digest stands in a manifest once.
    pub fn model(&self, digest: &Digest) -> Option<&Model> {
        self.models
            .iter()
            .find(|model| model.model_digest == *digest)
    }
}

impl Release {
    /// Whether it is no longer accepted at this time (unix seconds).
    pub fn ended(&self, at: u64) -> bool {
        at > self.not_after
    }
}

/// `2026-11-21T00:00:00Z`: RFC 3339 in UTC, whole seconds, one way to write each.
pub(super) mod moment {
    use super::*;

    pub(in crate::manifest) fn serialize<S: Serializer>(
        seconds: &u64,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&rfc3339(*seconds))
    }

    pub(in crate::manifest) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        parse_rfc3339(&text)
            .filter(|seconds| rfc3339(*seconds) == text)
            .ok_or_else(|| {
                let found = touchstone_formats::text::shown(&text);
                serde::de::Error::custom(format_args!(
                    "found {found}, expected a time such as 2026-11-21T00:00:00Z"
                ))
            })
    }
}

/// `0x1`: hex without leading zeros.
mod mask {
    use super::*;

    pub(super) fn serialize<S: Serializer>(mask: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("0x{mask:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        let mask = text
            .strip_prefix("0x")
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .filter(|mask| format!("0x{mask:x}") == text);
        mask.ok_or_else(|| {
            let found = touchstone_formats::text::shown(&text);
            serde::de::Error::custom(format_args!("found {found}, expected a mask such as 0x1"))
        })
    }
}
