//! TCB info version 3 and QE identity version 2 (Intel PCS API v4), as text in Intel's own order of members: the text is
//! what is signed.

use serde::Serialize;

use super::sgx::SgxExtensions;

const DAY: u64 = 86_400;

/// TCB info for TDX before it is written. Every field may be changed; for what no fields can say, change the text and
/// sign that ([`super::Pki::sign_json`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcbInfo {
    /// `TDX`.
    pub id: String,
    /// 3.
    pub version: u32,
    /// Unix seconds.
    #[serde(serialize_with = "date")]
    pub issue_date: u64,
    /// Unix seconds.
    #[serde(serialize_with = "date")]
    pub next_update: u64,
    /// Of the platforms it is about.
    #[serde(serialize_with = "hex")]
    pub fmspc: [u8; 6],
    /// Of their PCE.
    #[serde(serialize_with = "hex")]
    pub pce_id: [u8; 2],
    /// 0.
    pub tcb_type: u32,
    /// Rises with every TCB recovery.
    pub tcb_evaluation_data_number: u32,
    /// The TDX module of TDX 1.0.
    pub tdx_module: Option<TdxModule>,
    /// TDX modules by major version. Empty leaves the member away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tdx_module_identities: Vec<TdxModuleIdentity>,
    /// From the newest to the oldest.
    pub tcb_levels: Vec<TcbLevel>,
}

/// What a genuine TDX module reports of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TdxModule {
    /// MRSIGNERSEAM: zero is Intel.
    #[serde(serialize_with = "hex")]
    pub mrsigner: [u8; 48],
    /// SEAMATTRIBUTES.
    #[serde(serialize_with = "hex")]
    pub attributes: [u8; 8],
    /// Which bits of it count.
    #[serde(serialize_with = "hex")]
    pub attributes_mask: [u8; 8],
}

/// A TDX module of one major version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TdxModuleIdentity {
    /// `TDX_` and the major version as two hexadecimal digits.
    pub id: String,
    /// MRSIGNERSEAM: zero is Intel.
    #[serde(serialize_with = "hex")]
    pub mrsigner: [u8; 48],
    /// SEAMATTRIBUTES.
    #[serde(serialize_with = "hex")]
    pub attributes: [u8; 8],
    /// Which bits of it count.
    #[serde(serialize_with = "hex")]
    pub attributes_mask: [u8; 8],
    /// From the newest to the oldest.
    pub tcb_levels: Vec<IsvLevel>,
}

/// A level of something that has one security version: a TDX module, the quoting enclave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IsvLevel {
    /// Reached from this ISVSVN on.
    #[serde(rename = "tcb", serialize_with = "isvsvn")]
    pub isvsvn: u16,
    /// Unix seconds.
    #[serde(serialize_with = "date")]
    pub tcb_date: u64,
    /// A word of Intel's, or any other.
    pub tcb_status: String,
    /// Empty leaves the member away.
    #[serde(rename = "advisoryIDs", skip_serializing_if = "Vec::is_empty")]
    pub advisories: Vec<String>,
}

/// A level of a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcbLevel {
    /// What reaches it.
    pub tcb: Tcb,
    /// Unix seconds.
    #[serde(serialize_with = "date")]
    pub tcb_date: u64,
    /// A word of Intel's, or any other.
    pub tcb_status: String,
    /// Empty leaves the member away.
    #[serde(rename = "advisoryIDs", skip_serializing_if = "Vec::is_empty")]
    pub advisories: Vec<String>,
}

/// Security versions of a level. Component arrays of other lengths than 16 are written as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tcb {
    /// Compared with the PCK certificate's component SVNs.
    pub sgxtcbcomponents: Vec<Component>,
    /// Compared with its PCESVN.
    pub pcesvn: u16,
    /// Compared with TEE_TCB_SVN.
    pub tdxtcbcomponents: Vec<Component>,
}

/// One component of a TCB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Component {
    /// Its security version.
    pub svn: u8,
    /// Who updates it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// What it is.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

impl TcbInfo {
    /// TCB info about this platform, issued a day before `at` and good for 30 days, in which the platform's own versions are
    /// up to date, the versions one below are out of date, and the oldest revoked. TDX modules 1 (at the ISVSVN of
    /// `tee_tcb_svn`) and 3 are known.
    pub fn new(at: u64, sgx: &SgxExtensions, tee_tcb_svn: &[u8; 16]) -> Self {
        let mut tdx = *tee_tcb_svn;
        // Where module versions are known by identities, Intel's levels leave component 1 at zero.
        tdx[1] = 0;
        let level = |below: u8, tcb_status: &str, advisories: &[&str]| TcbLevel {
            tcb: Tcb::new(
                &sgx.comp_svn.map(|n| n.saturating_sub(below)),
                sgx.pce_svn,
                &tdx.map(|n| n.saturating_sub(below)),
            ),
            tcb_date: tcb_date(at, below),
            tcb_status: tcb_status.into(),
            advisories: texts(advisories),
        };
        let module = |major: u8, levels: Vec<IsvLevel>| TdxModuleIdentity {
            id: format!("TDX_{major:02X}"),
            mrsigner: [0; 48],
            attributes: [0; 8],
            attributes_mask: [0xff; 8],
            tcb_levels: levels,
        };
        let isv = u16::from(tee_tcb_svn[0]);
        Self {
            id: "TDX".into(),
            version: 3,
            issue_date: at.saturating_sub(DAY),
            next_update: at + 29 * DAY,
            fmspc: sgx.fmspc,
            pce_id: sgx.pce_id,
            tcb_type: 0,
            tcb_evaluation_data_number: EVALUATION_NUMBER,
            tdx_module: Some(TdxModule {
                mrsigner: [0; 48],
                attributes: [0; 8],
                attributes_mask: [0xff; 8],
            }),
            tdx_module_identities: vec![
                module(3, vec![IsvLevel::new(3, tcb_date(at, 0), "UpToDate", &[])]),
                module(
                    1,
                    vec![
                        IsvLevel::new(isv, tcb_date(at, 0), "UpToDate", &[]),
                        IsvLevel::new(
                            isv.saturating_sub(1),
                            tcb_date(at, 1),
                            "OutOfDate",
                            &["INTEL-SA-99001"],
                        ),
                    ],
                ),
            ],
            tcb_levels: vec![
                level(0, "UpToDate", &[]),
                level(1, "OutOfDate", &["INTEL-SA-99001", "INTEL-SA-99002"]),
                level(2, "Revoked", &["INTEL-SA-99003"]),
            ],
        }
    }

    /// Changes what the newest level, which an honest platform reaches, says.
    pub fn set_status(&mut self, status: &str, advisories: &[&str]) {
        let level = &mut self.tcb_levels[0];
        (level.tcb_status, level.advisories) = (status.into(), texts(advisories));
    }

    /// The text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text and numbers")
    }
}

impl TcbLevel {
    /// Sets the component SVNs.
    pub fn set_svns(&mut self, sgx: &[u8; 16], pce: u16, tdx: &[u8; 16]) {
        self.tcb = Tcb::new(sgx, pce, tdx);
    }
}

impl Tcb {
    fn new(sgx: &[u8; 16], pce: u16, tdx: &[u8; 16]) -> Self {
        Self {
            sgxtcbcomponents: components(sgx, &SGX),
            pcesvn: pce,
            tdxtcbcomponents: components(tdx, &TDX),
        }
    }
}

/// Identity of the quoting enclave before it is written. Every field may be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QeIdentity {
    /// `TD_QE`.
    pub id: String,
    /// 2.
    pub version: u32,
    /// Unix seconds.
    #[serde(serialize_with = "date")]
    pub issue_date: u64,
    /// Unix seconds.
    #[serde(serialize_with = "date")]
    pub next_update: u64,
    /// Rises with every TCB recovery.
    pub tcb_evaluation_data_number: u32,
    /// MISCSELECT.
    #[serde(serialize_with = "hex")]
    pub miscselect: [u8; 4],
    /// Which bits of it count.
    #[serde(serialize_with = "hex")]
    pub miscselect_mask: [u8; 4],
    /// ATTRIBUTES.
    #[serde(serialize_with = "hex")]
    pub attributes: [u8; 16],
    /// Which bits of it count.
    #[serde(serialize_with = "hex")]
    pub attributes_mask: [u8; 16],
    /// MRSIGNER.
    #[serde(serialize_with = "hex")]
    pub mrsigner: [u8; 32],
    /// ISVPRODID.
    pub isvprodid: u16,
    /// From the newest to the oldest.
    pub tcb_levels: Vec<IsvLevel>,
}

impl QeIdentity {
    /// The identity of the enclave in [`crate::tdx::QeReport::new`], issued a day before `at` and good for 30 days.
    pub fn new(at: u64) -> Self {
        let enclave = crate::tdx::QeReport::new();
        let mut attributes = [0; 16];
        attributes[0] = 0x11;
        let mut attributes_mask = [0; 16];
        attributes_mask[..8].copy_from_slice(&[0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        let svn = enclave.isv_svn;
        Self {
            id: "TD_QE".into(),
            version: 2,
            issue_date: at.saturating_sub(DAY),
            next_update: at + 29 * DAY,
            tcb_evaluation_data_number: EVALUATION_NUMBER,
            miscselect: [0; 4],
            miscselect_mask: [0xff; 4],
            attributes,
            attributes_mask,
            mrsigner: enclave.mr_signer,
            isvprodid: enclave.isv_prod_id,
            tcb_levels: vec![
                IsvLevel::new(svn, tcb_date(at, 0), "UpToDate", &[]),
                IsvLevel::new(svn - 2, tcb_date(at, 1), "OutOfDate", &["INTEL-SA-99004"]),
            ],
        }
    }

    /// Changes what the newest level, which an honest enclave reaches, says.
    pub fn set_status(&mut self, status: &str, advisories: &[&str]) {
        let level = &mut self.tcb_levels[0];
        (level.tcb_status, level.advisories) = (status.into(), texts(advisories));
    }

    /// The text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text and numbers")
    }
}

impl IsvLevel {
    /// A level.
    pub fn new(isvsvn: u16, tcb_date: u64, status: &str, advisories: &[&str]) -> Self {
        Self {
            isvsvn,
            tcb_date,
            tcb_status: status.into(),
            advisories: texts(advisories),
        }
    }
}

fn texts(advisories: &[&str]) -> Vec<String> {
    advisories.iter().map(|&a| a.into()).collect()
}

/// Above every number that Intel had given by the end of 2026.
const EVALUATION_NUMBER: u32 = 30;

/// Dates of levels: midnights, a hundred days ago and a year earlier for each level below.
fn tcb_date(at: u64, below: u8) -> u64 {
    let days = at / DAY;
    days.saturating_sub(100 + 365 * u64::from(below)) * DAY
}

type Described = [(usize, &'static str, Option<&'static str>)];

/// As Intel describes them for Xeons with TDX.
const SGX: [(usize, &str, Option<&str>); 7] = [
    (0, "BIOS", Some("Early Microcode Update")),
    (1, "OS/VMM", Some("SGX Late Microcode Update")),
    (2, "OS/VMM", Some("TXT SINIT")),
    (3, "BIOS", None),
    (4, "BIOS", None),
    (5, "BIOS", None),
    (7, "OS/VMM", Some("SEAMLDR ACM")),
];
const TDX: [(usize, &str, Option<&str>); 3] = [
    (0, "OS/VMM", Some("TDX Module")),
    (1, "OS/VMM", Some("TDX Module")),
    (2, "OS/VMM", Some("TDX Late Microcode Update")),
];

fn components(svns: &[u8; 16], described: &Described) -> Vec<Component> {
    let of = |n: usize| described.iter().find(|(at, ..)| *at == n);
    let component = |(n, svn): (usize, &u8)| Component {
        svn: *svn,
        category: of(n).map(|(_, category, _)| (*category).into()),
        kind: of(n).and_then(|(.., kind)| kind.map(Into::into)),
    };
    svns.iter().enumerate().map(component).collect()
}

fn hex<S: serde::Serializer>(bytes: &impl AsRef<[u8]>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&hex::encode_upper(bytes))
}

/// RFC 3339, whole seconds, `Z`.
fn date<S: serde::Serializer>(unix: &u64, s: S) -> Result<S::Ok, S::Error> {
    let time = time::OffsetDateTime::from_unix_timestamp(*unix as i64)
        .map_err(serde::ser::Error::custom)?;
    let text = time.format(&time::format_description::well_known::Rfc3339);
    s.serialize_str(&text.map_err(serde::ser::Error::custom)?)
}

fn isvsvn<S: serde::Serializer>(isvsvn: &u16, s: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeStruct as _;
    let mut tcb = s.serialize_struct("Tcb", 1)?;
    tcb.serialize_field("isvsvn", isvsvn)?;
    tcb.end()
}
