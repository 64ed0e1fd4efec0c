//! TCB info and the quoting enclave's identity (Intel PCS API v4, "TDX TCB Info V3" and "Enclave Identity V2").
//!
//! Both are texts that Intel signed. They are kept as they came, because the signature is over those bytes; what is read out of
//! them is [`TcbInfo`] and [`QeIdentity`].

use std::cmp::Reverse;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use thiserror::Error;

use crate::dates::parse_rfc3339;
use crate::parse::json::{self, JsonError};

/// Why a text is no TCB info for TDX, or no identity of the quoting enclave for TDs.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TcbError {
    /// Not JSON with the members that belong there, each once.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Of another kind or version.
    #[error("{member} is {found}; expected {expected}")]
    Kind {
        /// `id`, `version` or `tcbType`.
        member: &'static str,
        /// What it is.
        found: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A list that is longer than any that Intel publishes.
    #[error("{member} has {found} entries; expected {expected}")]
    Entries {
        /// The list.
        member: &'static str,
        /// How many entries it has.
        found: usize,
        /// How many it may have.
        expected: &'static str,
    },
    /// A text that is not of its form.
    #[error("{member} is {found:?}; expected {expected}")]
    Text {
        /// The member.
        member: &'static str,
        /// Its beginning.
        found: String,
        /// What belongs there.
        expected: &'static str,
    },
}

/// `tcbStatus`, the words exactly as Intel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TcbStatus {
    /// Nothing is known against this level.
    UpToDate,
    /// Software has to be hardened against known attacks.
    SwHardeningNeeded,
    /// The platform has to be configured otherwise.
    ConfigurationNeeded,
    /// Both.
    ConfigurationAndSwHardeningNeeded,
    /// There are known attacks that an update would close.
    OutOfDate,
    /// And the platform has to be configured otherwise.
    OutOfDateConfigurationNeeded,
    /// Broken for good.
    Revoked,
}

impl TcbStatus {
    /// All of them, best first.
    pub const ALL: [TcbStatus; 7] = [
        TcbStatus::UpToDate,
        TcbStatus::SwHardeningNeeded,
        TcbStatus::ConfigurationNeeded,
        TcbStatus::ConfigurationAndSwHardeningNeeded,
        TcbStatus::OutOfDate,
        TcbStatus::OutOfDateConfigurationNeeded,
        TcbStatus::Revoked,
    ];

    /// Intel's word.
    pub fn word(self) -> &'static str {
        match self {
            TcbStatus::UpToDate => "UpToDate",
            TcbStatus::SwHardeningNeeded => "SWHardeningNeeded",
            TcbStatus::ConfigurationNeeded => "ConfigurationNeeded",
            TcbStatus::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            TcbStatus::OutOfDate => "OutOfDate",
            TcbStatus::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            TcbStatus::Revoked => "Revoked",
        }
    }

    /// From Intel's word.
    pub fn from_word(word: &str) -> Option<TcbStatus> {
        TcbStatus::ALL
            .into_iter()
            .find(|status| status.word() == word)
    }
}

/// TCB info of a family of platforms, for TDX (`id` is `TDX`, `version` 3, `tcbType` 0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcbInfo {
    /// `issueDate`, Unix seconds.
    pub issue_date: u64,
    /// `nextUpdate`, Unix seconds.
    pub next_update: u64,
    /// `fmspc`.
    pub fmspc: [u8; 6],
    /// `pceId`.
    pub pce_id: [u8; 2],
    /// `tcbEvaluationDataNumber`.
    pub tcb_evaluation_data_number: u32,
    /// `tdxModule`: the TDX module of TDX 1.0.
    pub tdx_module: TdxModule,
    /// `tdxModuleIdentities`: a TDX module each, by major version; empty in older TCB info.
    pub tdx_module_identities: Vec<TdxModuleIdentity>,
    /// `tcbLevels`, in the order in which they stand there: the first that a platform reaches is its own.
    pub levels: Vec<TcbLevel>,
}

/// What a genuine TDX module reports of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdxModule {
    /// `mrsigner`: MRSIGNERSEAM.
    pub mrsigner: [u8; 48],
    /// `attributes`: SEAMATTRIBUTES under the mask.
    pub attributes: [u8; 8],
    /// `attributesMask`.
    pub attributes_mask: [u8; 8],
}

/// A TDX module of one major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxModuleIdentity {
    /// `id`: `TDX_` and the major version, two hexadecimal digits.
    pub id: String,
    /// What it reports of itself.
    pub module: TdxModule,
    /// `tcbLevels`, in the order in which they stand there.
    pub levels: Vec<IsvLevel>,
}

/// One level of an enclave or module that has one security version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsvLevel {
    /// `isvsvn`: reached by this security version and all above.
    pub isvsvn: u16,
    /// `tcbDate`, Unix seconds.
    pub tcb_date: u64,
    /// `tcbStatus`.
    pub status: TcbStatus,
    /// `advisoryIDs`.
    pub advisories: Vec<String>,
}

/// One TCB level of a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcbLevel {
    /// `sgxtcbcomponents`, compared with [`super::pck::PckExtensions::comp_svn`].
    pub sgx_svn: [u8; 16],
    /// `tdxtcbcomponents`, compared with TEE_TCB_SVN.
    pub tdx_svn: [u8; 16],
    /// `pcesvn`.
    pub pce_svn: u16,
    /// `tcbDate`, Unix seconds.
    pub tcb_date: u64,
    /// `tcbStatus`.
    pub status: TcbStatus,
    /// `advisoryIDs`.
    pub advisories: Vec<String>,
}

/// Identity of Intel's quoting enclave for TDs (`id` is `TD_QE`, `version` 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QeIdentity {
    /// `issueDate`, Unix seconds.
    pub issue_date: u64,
    /// `nextUpdate`, Unix seconds.
    pub next_update: u64,
    /// `tcbEvaluationDataNumber`.
    pub tcb_evaluation_data_number: u32,
    /// `miscselect` under the mask.
    pub miscselect: u32,
    /// `miscselectMask`.
    pub miscselect_mask: u32,
    /// `attributes` under the mask.
    pub attributes: [u8; 16],
    /// `attributesMask`.
    pub attributes_mask: [u8; 16],
    /// `mrsigner`.
    pub mrsigner: [u8; 32],
    /// `isvprodid`.
    pub isvprodid: u16,
    /// `tcbLevels`, in the order in which they stand there.
    pub levels: Vec<IsvLevel>,
}

/// Most `tcbLevels` anywhere, and most `tdxModuleIdentities`. Intel has about twenty.
const MOST_LEVELS: usize = 256;
/// Most `advisoryIDs` of one level.
const MOST_ADVISORIES: usize = 256;
/// Longest id of an advisory (`INTEL-SA-00960`) or of a module (`TDX_03`).
const LONGEST_ID: usize = 64;

impl TcbInfo {
    /// Reads the text of `tcbInfo`.
    ///
    /// # Errors
    /// [`TcbError`] says which rule of form is broken.
    pub fn parse(text: &str) -> Result<TcbInfo, TcbError> {
        let wire: InfoWire = read(text, "TDX")?;
        kind("id", &wire.id, "TDX")?;
        kind("version", &wire.version.to_string(), "3")?;
        // 0 is the only order of components that is defined.
        kind("tcbType", &wire.tcb_type.to_string(), "0")?;
        entries("tcbLevels", wire.tcb_levels.len(), true)?;
        entries(
            "tdxModuleIdentities",
            wire.tdx_module_identities.len(),
            false,
        )?;
        Ok(TcbInfo {
            issue_date: wire.issue_date.0,
            next_update: wire.next_update.0,
            fmspc: wire.fmspc.0,
            pce_id: wire.pce_id.0,
            tcb_evaluation_data_number: wire.tcb_evaluation_data_number,
            tdx_module: wire.tdx_module.module(),
            tdx_module_identities: wire
                .tdx_module_identities
                .into_iter()
                .map(|identity| {
                    let module = ModuleWire {
                        mrsigner: identity.mrsigner,
                        attributes: identity.attributes,
                        attributes_mask: identity.attributes_mask,
                    };
                    Ok(TdxModuleIdentity {
                        id: id("tdxModuleIdentities id", identity.id)?,
                        module: module.module(),
                        levels: isv_levels(identity.tcb_levels)?,
                    })
                })
                .collect::<Result<_, TcbError>>()?,
            levels: platform_levels(wire.tcb_levels)?,
        })
    }
}

impl QeIdentity {
    /// Reads the text of `enclaveIdentity`.
    ///
    /// # Errors
    /// [`TcbError`] says which rule of form is broken.
    pub fn parse(text: &str) -> Result<QeIdentity, TcbError> {
        let wire: IdentityWire = read(text, "TD_QE")?;
        kind("id", &wire.id, "TD_QE")?;
        kind("version", &wire.version.to_string(), "2")?;
        Ok(QeIdentity {
            issue_date: wire.issue_date.0,
            next_update: wire.next_update.0,
            tcb_evaluation_data_number: wire.tcb_evaluation_data_number,
            // Bytes in the order in which the report has them.
            miscselect: u32::from_le_bytes(wire.miscselect.0),
            miscselect_mask: u32::from_le_bytes(wire.miscselect_mask.0),
            attributes: wire.attributes.0,
            attributes_mask: wire.attributes_mask.0,
            mrsigner: wire.mrsigner.0,
            isvprodid: wire.isvprodid,
            levels: isv_levels(wire.tcb_levels)?,
        })
    }
}

/// Reads a text. One of another kind (`SGX`, `QE`) lacks members: it is told apart first.
fn read<T: serde::de::DeserializeOwned>(text: &str, expected: &'static str) -> Result<T, TcbError> {
    #[derive(Deserialize)]
    struct Head {
        id: String,
    }
    json::read(text).map_err(|error| match json::read::<Head>(text) {
        Ok(head) => match kind("id", &head.id, expected) {
            Ok(()) => error.into(),
            Err(other) => other,
        },
        Err(_) => error.into(),
    })
}

fn kind(member: &'static str, found: &str, expected: &'static str) -> Result<(), TcbError> {
    if found == expected {
        return Ok(());
    }
    Err(TcbError::Kind {
        member,
        found: found.chars().take(LONGEST_ID).collect(),
        expected,
    })
}

fn entries(member: &'static str, found: usize, required: bool) -> Result<(), TcbError> {
    if found > MOST_LEVELS || (required && found == 0) {
        return Err(TcbError::Entries {
            member,
            found,
            expected: "1 to 256; modules may be absent",
        });
    }
    Ok(())
}

/// Levels from the highest downward, in whatever order the text has them: the first that is reached is the one. The order is
/// that of Intel's own verifier: SGX components, PCESVN, TDX components.
fn platform_levels(wire: Vec<LevelWire>) -> Result<Vec<TcbLevel>, TcbError> {
    let mut levels: Vec<TcbLevel> = wire
        .into_iter()
        .map(|level| {
            Ok(TcbLevel {
                sgx_svn: level.tcb.sgxtcbcomponents.map(|component| component.svn),
                tdx_svn: level.tcb.tdxtcbcomponents.map(|component| component.svn),
                pce_svn: level.tcb.pcesvn,
                tcb_date: level.tcb_date.0,
                status: level.tcb_status.0,
                advisories: advisories(level.advisory_ids)?,
            })
        })
        .collect::<Result<_, TcbError>>()?;
    levels.sort_by_key(|level| Reverse((level.sgx_svn, level.pce_svn, level.tdx_svn)));
    Ok(levels)
}

fn isv_levels(wire: Vec<IsvLevelWire>) -> Result<Vec<IsvLevel>, TcbError> {
    entries("tcbLevels", wire.len(), true)?;
    let levels: Vec<IsvLevel> = wire
        .into_iter()
        .map(|level| {
            Ok(IsvLevel {
                isvsvn: level.tcb.isvsvn,
                tcb_date: level.tcb_date.0,
                status: level.tcb_status.0,
                advisories: advisories(level.advisory_ids)?,
            })
        })
        .collect::<Result<_, TcbError>>()?;
    // The first that is reached counts, and nothing says which Intel means of levels in another order than its own.
    let mut pairs = levels.iter().zip(levels.iter().skip(1));
    if let Some((above, below)) = pairs.find(|(above, below)| above.isvsvn <= below.isvsvn) {
        return Err(TcbError::Text {
            member: "tcbLevels isvsvn",
            found: format!("{}, then {}", above.isvsvn, below.isvsvn),
            expected: "the highest first, each once",
        });
    }
    Ok(levels)
}

fn advisories(ids: Vec<String>) -> Result<Vec<String>, TcbError> {
    if ids.len() > MOST_ADVISORIES {
        return Err(TcbError::Entries {
            member: "advisoryIDs",
            found: ids.len(),
            expected: "up to 256",
        });
    }
    ids.into_iter()
        .map(|text| id("advisoryIDs", text))
        .collect()
}

/// A name that will stand in verdicts and be compared with those in policies.
fn id(member: &'static str, text: String) -> Result<String, TcbError> {
    let plain = text.bytes().all(|b| b.is_ascii_graphic());
    if plain && (1..=LONGEST_ID).contains(&text.len()) {
        return Ok(text);
    }
    Err(TcbError::Text {
        member,
        found: text.chars().take(LONGEST_ID).collect(),
        expected: "1 to 64 printable characters without a space",
    })
}

/// N bytes, two hexadecimal digits each, in either case: Intel uses both.
struct Hex<const N: usize>([u8; N]);

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        touchstone_formats::text::hex_array(&text.to_ascii_lowercase())
            .map(Hex)
            .map_err(D::Error::custom)
    }
}

/// `YYYY-MM-DDThh:mm:ssZ` and no other way to say the same.
struct Date(u64);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let written = |seconds: &u64| crate::dates::rfc3339(*seconds) == text;
        parse_rfc3339(&text)
            .filter(written)
            .map(Date)
            .ok_or_else(|| D::Error::custom("a date not YYYY-MM-DDThh:mm:ssZ"))
    }
}

struct Status(TcbStatus);

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let word = String::deserialize(from)?;
        TcbStatus::from_word(&word)
            .map(Status)
            .ok_or_else(|| D::Error::custom("a tcbStatus that is none of Intel's"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InfoWire {
    id: String,
    version: u32,
    issue_date: Date,
    next_update: Date,
    fmspc: Hex<6>,
    pce_id: Hex<2>,
    tcb_type: u32,
    tcb_evaluation_data_number: u32,
    tdx_module: ModuleWire,
    #[serde(default)]
    tdx_module_identities: Vec<ModuleIdentityWire>,
    tcb_levels: Vec<LevelWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModuleWire {
    mrsigner: Hex<48>,
    attributes: Hex<8>,
    attributes_mask: Hex<8>,
}

impl ModuleWire {
    fn module(self) -> TdxModule {
        TdxModule {
            mrsigner: self.mrsigner.0,
            attributes: self.attributes.0,
            attributes_mask: self.attributes_mask.0,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModuleIdentityWire {
    id: String,
    mrsigner: Hex<48>,
    attributes: Hex<8>,
    attributes_mask: Hex<8>,
    tcb_levels: Vec<IsvLevelWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IsvLevelWire {
    tcb: IsvTcbWire,
    tcb_date: Date,
    tcb_status: Status,
    #[serde(default, rename = "advisoryIDs")]
    advisory_ids: Vec<String>,
}

#[derive(Deserialize)]
struct IsvTcbWire {
    isvsvn: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LevelWire {
    tcb: TcbWire,
    tcb_date: Date,
    tcb_status: Status,
    #[serde(default, rename = "advisoryIDs")]
    advisory_ids: Vec<String>,
}

#[derive(Deserialize)]
struct TcbWire {
    sgxtcbcomponents: [ComponentWire; 16],
    tdxtcbcomponents: [ComponentWire; 16],
    pcesvn: u16,
}

#[derive(Deserialize)]
struct ComponentWire {
    svn: u8,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityWire {
    id: String,
    version: u32,
    issue_date: Date,
    next_update: Date,
    tcb_evaluation_data_number: u32,
    miscselect: Hex<4>,
    miscselect_mask: Hex<4>,
    attributes: Hex<16>,
    attributes_mask: Hex<16>,
    mrsigner: Hex<32>,
    isvprodid: u16,
    tcb_levels: Vec<IsvLevelWire>,
}
