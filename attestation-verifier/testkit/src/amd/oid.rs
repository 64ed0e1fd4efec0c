//! Object identifiers of the extensions in AMD's certificates, standard ones included.

pub use crate::x509::oid::*;

/// structVersion (AMD 57230, table of VCEK and VLEK extensions; so are all below)
pub const STRUCT_VERSION: &str = "1.3.6.1.4.1.3704.1.1";
/// productName
pub const PRODUCT_NAME: &str = "1.3.6.1.4.1.3704.1.2";
/// blSPL: boot loader
pub const BL_SPL: &str = "1.3.6.1.4.1.3704.1.3.1";
/// teeSPL
pub const TEE_SPL: &str = "1.3.6.1.4.1.3704.1.3.2";
/// snpSPL
pub const SNP_SPL: &str = "1.3.6.1.4.1.3704.1.3.3";
/// spl4 (not on Turin)
pub const SPL4: &str = "1.3.6.1.4.1.3704.1.3.4";
/// spl5
pub const SPL5: &str = "1.3.6.1.4.1.3704.1.3.5";
/// spl6
pub const SPL6: &str = "1.3.6.1.4.1.3704.1.3.6";
/// spl7
pub const SPL7: &str = "1.3.6.1.4.1.3704.1.3.7";
/// ucodeSPL: microcode
pub const UCODE_SPL: &str = "1.3.6.1.4.1.3704.1.3.8";
/// fmcSPL (Turin)
pub const FMC_SPL: &str = "1.3.6.1.4.1.3704.1.3.9";
/// hwID: the chip's identity, bare bytes (VCEK)
pub const HWID: &str = "1.3.6.1.4.1.3704.1.4";
/// cspID: the cloud provider's identity (VLEK)
pub const CSP_ID: &str = "1.3.6.1.4.1.3704.1.5";
