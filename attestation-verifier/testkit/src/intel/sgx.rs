//! The SGX extensions of a PCK certificate (Intel SGX PCK Certificate and CRL Profile Specification, §1.3.5).

use crate::x509::{Extension, asn1};

/// Object identifiers of the extensions in Intel's certificates, standard ones included.
pub mod oid {
    pub use crate::x509::oid::*;

    /// SGX Extensions: the one extension that holds all below.
    pub const SGX: &str = "1.2.840.113741.1.13.1";
    /// PPID, 16 bytes.
    pub const PPID: &str = "1.2.840.113741.1.13.1.1";
    /// TCB: component SVNs (`.1` to `.16`), PCESVN and CPUSVN.
    pub const TCB: &str = "1.2.840.113741.1.13.1.2";
    /// PCESVN, within TCB.
    pub const PCE_SVN: &str = "1.2.840.113741.1.13.1.2.17";
    /// CPUSVN, within TCB.
    pub const CPU_SVN: &str = "1.2.840.113741.1.13.1.2.18";
    /// PCE-ID, 2 bytes.
    pub const PCE_ID: &str = "1.2.840.113741.1.13.1.3";
    /// FMSPC, 6 bytes.
    pub const FMSPC: &str = "1.2.840.113741.1.13.1.4";
    /// SGX Type.
    pub const SGX_TYPE: &str = "1.2.840.113741.1.13.1.5";
    /// Platform Instance ID, 16 bytes; Platform CA alone.
    pub const PLATFORM_INSTANCE_ID: &str = "1.2.840.113741.1.13.1.6";
    /// Configuration; Platform CA alone.
    pub const CONFIGURATION: &str = "1.2.840.113741.1.13.1.7";
    /// Dynamic Platform, within Configuration.
    pub const DYNAMIC_PLATFORM: &str = "1.2.840.113741.1.13.1.7.1";
    /// Cached Keys, within Configuration.
    pub const CACHED_KEYS: &str = "1.2.840.113741.1.13.1.7.2";
    /// SMT Enabled, within Configuration.
    pub const SMT_ENABLED: &str = "1.2.840.113741.1.13.1.7.3";
}

/// `ENUMERATED`, in which SGX Type is written.
const ENUMERATED: u8 = 0x0a;

/// What a PCK certificate says of its platform. Every field may be changed; for what no fields can say, change
/// [`SgxExtensions::entries`] and write them with [`sgx_extension`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SgxExtensions {
    /// PPID.
    pub ppid: [u8; 16],
    /// Security versions of the 16 TCB components.
    pub comp_svn: [u8; 16],
    /// PCESVN.
    pub pce_svn: u16,
    /// CPUSVN; on real platforms equal to `comp_svn`.
    pub cpu_svn: [u8; 16],
    /// PCE-ID.
    pub pce_id: [u8; 2],
    /// FMSPC.
    pub fmspc: [u8; 6],
    /// SGX Type: 0 standard, 1 scalable, 2 scalable with integrity.
    pub sgx_type: u8,
    /// Platform Instance ID; Platform CA alone.
    pub platform_instance_id: Option<[u8; 16]>,
    /// Configuration; Platform CA alone.
    pub configuration: Option<Configuration>,
}

/// Configuration of a platform; `None` leaves the member away, which says "undefined".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Packages can be added.
    pub dynamic_platform: Option<bool>,
    /// Intel keeps the platform's root keys.
    pub cached_keys: Option<bool>,
    /// SMT is on.
    pub smt_enabled: Option<bool>,
}

/// One member of the extension: an identifier and a value that is already DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Dotted object identifier; see [`oid`].
    pub oid: String,
    /// The value, DER.
    pub value: Vec<u8>,
}

impl Entry {
    /// An entry.
    pub fn new(oid: &str, value: Vec<u8>) -> Self {
        Self {
            oid: oid.into(),
            value,
        }
    }

    fn octets(oid: &str, value: &[u8]) -> Self {
        Self::new(oid, asn1::tlv(asn1::OCTET_STRING, value))
    }

    fn number(oid: &str, value: u64) -> Self {
        Self::new(oid, asn1::number(value))
    }

    fn boolean(oid: &str, value: bool) -> Self {
        let byte = if value { 0xff } else { 0 };
        Self::new(oid, asn1::tlv(asn1::BOOLEAN, &[byte]))
    }

    /// `SEQUENCE` of several entries, as TCB and Configuration hold and the extension itself.
    pub fn sequence(entries: &[Entry]) -> Vec<u8> {
        let entries: Vec<u8> = entries
            .iter()
            .flat_map(|e| asn1::sequence(&[&asn1::oid(&e.oid), &e.value]))
            .collect();
        asn1::tlv(asn1::SEQUENCE, &entries)
    }
}

/// The extension with these entries.
pub fn sgx_extension(entries: &[Entry]) -> Extension {
    Extension::new(oid::SGX, false, Entry::sequence(entries))
}

impl SgxExtensions {
    /// A platform with which a strict policy has no quarrel: high security versions, encryption with integrity, as the
    /// Platform CA describes it (SMT on, as on nearly every server; neither dynamic nor with keys at Intel).
    pub fn new() -> Self {
        let mut svn = [0; 16];
        svn[..8].copy_from_slice(&[4, 4, 2, 2, 4, 1, 0, 5]);
        Self {
            ppid: core::array::from_fn(|n| 0x70 ^ n as u8),
            comp_svn: svn,
            pce_svn: 13,
            cpu_svn: svn,
            pce_id: [0, 0],
            // 90C06F000000 is Emerald Rapids; this one is nobody's.
            fmspc: [0xf0, 0xc0, 0x6f, 0, 0, 0],
            sgx_type: 2,
            platform_instance_id: Some(core::array::from_fn(|n| 0xa1 ^ (n as u8).wrapping_mul(7))),
            configuration: Some(Configuration {
                dynamic_platform: Some(false),
                cached_keys: Some(false),
                smt_enabled: Some(true),
            }),
        }
    }

    /// The same platform as the Processor CA describes it: without instance and configuration.
    #[must_use]
    pub fn of_processor_ca(mut self) -> Self {
        (self.platform_instance_id, self.configuration) = (None, None);
        self
    }

    /// Sets a component's security version, in CPUSVN too, as on real platforms.
    pub fn set_svn(&mut self, component: usize, svn: u8) {
        (self.comp_svn[component], self.cpu_svn[component]) = (svn, svn);
    }

    /// The entries within TCB.
    pub fn tcb_entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = (1..)
            .zip(self.comp_svn)
            .map(|(n, svn)| Entry::number(&format!("{}.{n}", oid::TCB), svn.into()))
            .collect();
        entries.push(Entry::number(oid::PCE_SVN, self.pce_svn.into()));
        entries.push(Entry::octets(oid::CPU_SVN, &self.cpu_svn));
        entries
    }

    /// The entries of the extension, in Intel's order.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = vec![
            Entry::octets(oid::PPID, &self.ppid),
            Entry::new(oid::TCB, Entry::sequence(&self.tcb_entries())),
            Entry::octets(oid::PCE_ID, &self.pce_id),
            Entry::octets(oid::FMSPC, &self.fmspc),
            Entry::new(oid::SGX_TYPE, asn1::tlv(ENUMERATED, &[self.sgx_type])),
        ];
        if let Some(id) = &self.platform_instance_id {
            entries.push(Entry::octets(oid::PLATFORM_INSTANCE_ID, id));
        }
        if let Some(configuration) = self.configuration {
            let flags = [
                (oid::DYNAMIC_PLATFORM, configuration.dynamic_platform),
                (oid::CACHED_KEYS, configuration.cached_keys),
                (oid::SMT_ENABLED, configuration.smt_enabled),
            ];
            let flags: Vec<Entry> = flags
                .into_iter()
                .filter_map(|(oid, flag)| Some(Entry::boolean(oid, flag?)))
                .collect();
            entries.push(Entry::new(oid::CONFIGURATION, Entry::sequence(&flags)));
        }
        entries
    }

    /// The extension.
    pub fn to_extension(&self) -> Extension {
        sgx_extension(&self.entries())
    }
}

impl Default for SgxExtensions {
    fn default() -> Self {
        Self::new()
    }
}
