//! TCB info and the quoting enclave's identity (Intel PCS API v4, "TDX TCB Info V3" and "Enclave Identity V2").

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
