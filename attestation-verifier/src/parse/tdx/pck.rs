//! The SGX extensions of PCK certificates (Intel SGX PCK Certificate and CRL Profile Specification, §1.3.5).

/// Which CA issued a PCK certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PckCa {
    /// Intel SGX PCK Processor CA: platforms of one package, and those whose keys Intel does not register.
    Processor,
    /// Intel SGX PCK Platform CA: platforms that registered.
    Platform,
}

impl PckCa {
    /// `processor`, `platform`, as in the names of Intel's service.
    pub fn word(self) -> &'static str {
        match self {
            PckCa::Processor => "processor",
            PckCa::Platform => "platform",
        }
    }
}

/// SGX Type: how memory is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SgxType {
    /// 0: with integrity and freshness, small.
    Standard,
    /// 1: encryption alone.
    Scalable,
    /// 2: encryption and integrity.
    ScalableWithIntegrity,
}

impl SgxType {
    /// `standard`, `scalable`, `scalable-with-integrity`.
    pub fn word(self) -> &'static str {
        match self {
            SgxType::Standard => "standard",
            SgxType::Scalable => "scalable",
            SgxType::ScalableWithIntegrity => "scalable-with-integrity",
        }
    }
}

/// Configuration of a platform; certificates by the Platform CA alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformConfiguration {
    /// Packages can be added to the platform. `None`: undefined.
    pub dynamic_platform: Option<bool>,
    /// Intel keeps the platform's root keys. `None`: undefined.
    pub cached_keys: Option<bool>,
    /// SMT is on. `None`: undefined.
    pub smt_enabled: Option<bool>,
}

/// What the SGX extensions say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PckExtensions {
    /// PPID.
    pub ppid: [u8; 16],
    /// Security version of each of the 16 TCB components.
    pub comp_svn: [u8; 16],
    /// PCESVN.
    pub pce_svn: u16,
    /// CPUSVN.
    pub cpu_svn: [u8; 16],
    /// PCE-ID, bytes as in `pceId` of TCB info.
    pub pce_id: [u8; 2],
    /// FMSPC: family, model, stepping, platform type and custom SKU.
    pub fmspc: [u8; 6],
    /// SGX Type.
    pub sgx_type: SgxType,
    /// Platform Instance ID; Platform CA alone.
    pub platform_instance_id: Option<[u8; 16]>,
    /// Configuration; Platform CA alone.
    pub configuration: Option<PlatformConfiguration>,
    /// Which CA the certificate says issued it.
    pub ca: PckCa,
}
