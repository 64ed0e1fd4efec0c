//! What measuring gives, in the form that goes into a manifest: `touchstone/measured/1`.

use serde::Serialize;

use crate::hash::{Sha256, Sha384};

/// Name and version of the form.
pub const VERSION: &str = "touchstone/measured/1";

/// Which part of the operating system a launch measurement binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OsBinding {
    /// SEV-SNP: kernel, initrd and command line are in the launch digest.
    LaunchDigest,
    /// TDX: they are in RTMR1 and RTMR2.
    Rtmr,
    /// Firmware alone is measured: whatever boots after it, the measurement is the same.
    None,
}

/// What an ingredient is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The firmware's image.
    Firmware,
    /// The kernel's file.
    Kernel,
    /// The initial RAM disk's file; empty where there is none.
    Initrd,
    /// The kernel's command line, without the NUL that ends it in memory.
    Cmdline,
}

/// Bytes that a measurement was computed from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ingredient {
    /// What it is.
    pub role: Role,
    /// The file's name, without its folder.
    pub name: String,
    /// Of its bytes.
    pub sha256: Sha256,
    /// In bytes.
    pub size: u64,
}

/// One set of values that hardware reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Measurement {
    /// Of an SEV-SNP guest.
    Snp(SnpMeasurement),
    /// Of a trust domain of TDX.
    Tdx(TdxMeasurement),
}

/// What an SEV-SNP report's MEASUREMENT is for one shape of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnpMeasurement {
    /// The launch digest.
    pub measurement: Sha384,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// CPU model, its signature as `0x…`, or `any` where the digest does not depend on it.
    pub cpu: String,
    /// SEV_FEATURES, as `0x…`.
    pub guest_features: String,
}

/// What a TDX quote's registers are for one way of starting a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TdxMeasurement {
    /// MRTD: the firmware.
    pub mrtd: Sha384,
    /// What RTMR0 may be. It is not computed, but taken from where it was seen; none where nobody has seen it yet, and then it
    /// must be added before anything can be judged by it.
    pub rtmr0: Vec<Sha384>,
    /// RTMR1: the kernel; absent where firmware alone was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtmr1: Option<Sha384>,
    /// RTMR2: command line and initrd; absent where firmware alone was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtmr2: Option<Sha384>,
    /// The order in which the VMM adds and measures pages: `one-pass` or `two-pass`.
    pub page_add_order: &'static str,
}

/// What measuring a release on one platform gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// [`VERSION`].
    pub v: &'static str,
    /// `sev-snp` or `tdx`.
    pub tee: &'static str,
    /// The virtual machine monitor whose way of launching this is.
    pub vmm: String,
    /// What of the operating system is bound.
    pub os_binding: OsBinding,
    /// The evidence, signed by hardware, that confirms how every one of these measurements is computed; `None` if one is not
    /// confirmed.
    pub confirmed: Option<&'static str>,
    /// What went in.
    pub ingredients: Vec<Ingredient>,
    /// What came out.
    pub measurements: Vec<Measurement>,
}
