//! TDX quotes (Intel TDX DCAP Quoting Library API, appendix A), TCB info and QE identity (Intel PCS API v4).

use std::fmt::Display;

use touchstone_formats::text::hex_encode;

use super::{Malformed, Structure, names, x509};
use crate::dates::rfc3339;
use crate::parse::tdx::tcb::{IsvLevel, QeIdentity, TcbInfo};
use crate::parse::tdx::{Quote, QuoteError};

const QUOTE: &str = "Intel TDX DCAP Quoting Library API, appendix A";
const PCS: &str = "Intel PCS API v4";

/// A quote's fields, in the order of its bytes.
///
/// # Errors
/// The bytes are no well-formed quote.
pub fn tdx_quote(bytes: &[u8]) -> Result<Structure, Malformed> {
    let quote = Quote::parse(bytes).map_err(|error| place(bytes, &error))?;
    let mut out = Structure::new(format!("TDX quote, version {}", quote.version), QUOTE);
    out.parts.push(header(bytes, &quote));
    out.parts.push(body(&quote));
    let at = Places::of(bytes);
    let mut signature = Structure::new("Signature data", QUOTE);
    signature.at(at.signed, "Size", number(bytes, at.signed, 4));
    signature.at(
        at.signature,
        "Quote Signature",
        hex_encode(&quote.signature),
    );
    let key = hex_encode(&quote.attestation_key);
    signature.at_means(at.signature + 64, "Attestation Key", key, "P-256, x and y");
    let kind = at.signature + 128;
    signature.at_means(kind, "Cert Data Type", 6, "QE report and its certification");
    signature.at(kind + 2, "Cert Data Size", number(bytes, kind + 2, 4));
    out.parts.push(signature);
    out.parts.push(qe_report(&quote, at.qe_report));
    let mut certification = Structure::new("QE report certification", QUOTE);
    let sig = hex_encode(&quote.qe_report_signature);
    certification.at(at.qe_report + 384, "QE Report Signature", sig);
    let auth = at.qe_report + 448;
    certification.at(auth, "QE Auth Data Size", quote.qe_auth_data.len());
    certification.at(auth + 2, "QE Auth Data", hex_encode(&quote.qe_auth_data));
    let kind = auth + 2 + quote.qe_auth_data.len();
    certification.at_means(kind, "Cert Data Type", 5, "PCK chain");
    certification.at(kind + 2, "Cert Data Size", number(bytes, kind + 2, 4));
    for certificate in quote.pck_chain.iter() {
        certification.parts.push(x509::of(certificate));
    }
    out.parts.push(certification);
    Ok(out)
}

fn header(bytes: &[u8], quote: &Quote) -> Structure {
    let mut out = Structure::new("Header", QUOTE);
    out.at(0, "Version", quote.version);
    out.at_means(2, "Attestation Key Type", 2, "ECDSA with P-256");
    out.at_means(4, "TEE Type", "0x81", "TDX");
    let vendor = bytes.get(12..28).unwrap_or_default();
    out.at_means(12, "QE Vendor ID", hex_encode(vendor), "Intel");
    out.at(28, "User Data", hex_encode(&quote.user_data));
    if quote.version == 5 {
        let td = quote.report.version;
        let kind = number(bytes, 48, 2);
        out.at_means(48, "Body Type", kind, format!("TD {}", td.name()));
        out.at(50, "Body Size", td.length());
    }
    out
}

fn body(quote: &Quote) -> Structure {
    let report = &quote.report;
    let mut out = Structure::new(format!("TD report, TD {}", report.version.name()), QUOTE);
    let start = if quote.version == 5 { 54 } else { 48 };
    let mut hex = |offset: usize, name: &str, bytes: &[u8]| {
        out.at(start + offset, name, hex_encode(bytes));
    };
    hex(0, "TEE_TCB_SVN", &report.tee_tcb_svn);
    hex(16, "MRSEAM", &report.mr_seam);
    hex(64, "MRSIGNERSEAM", &report.mr_signer_seam);
    hex(112, "SEAMATTRIBUTES", &report.seam_attributes);
    let attributes = format!("0x{:016x}", report.td_attributes);
    let bits = names(report.td_attributes, ATTRIBUTES);
    out.at_means(start + 120, "TDATTRIBUTES", attributes, bits);
    let xfam = format!("0x{:016x}", report.xfam);
    out.at_means(start + 128, "XFAM", xfam, names(report.xfam, XFAM));
    let mut hex = |offset: usize, name: &str, bytes: &[u8]| {
        out.at(start + offset, name, hex_encode(bytes));
    };
    hex(136, "MRTD", &report.mr_td);
    hex(184, "MRCONFIGID", &report.mr_config_id);
    hex(232, "MROWNER", &report.mr_owner);
    hex(280, "MROWNERCONFIG", &report.mr_owner_config);
    for (n, rtmr) in report.rtmr.iter().enumerate() {
        hex(328 + n * 48, &format!("RTMR{n}"), rtmr);
    }
    hex(520, "REPORTDATA", &report.report_data);
    if let Some(svn) = &report.tee_tcb_svn_2 {
        hex(584, "TEE_TCB_SVN_2", svn);
    }
    if let Some(service) = &report.mr_service_td {
        hex(600, "MRSERVICETD", service);
    }
    out
}

fn qe_report(quote: &Quote, start: usize) -> Structure {
    let report = &quote.qe_report;
    let mut out = Structure::new("QE report", "Intel SDM volume 3D, table REPORT");
    out.at(start, "CPUSVN", hex_encode(&report.cpu_svn()));
    let miscselect = format!("0x{:08x}", report.miscselect());
    out.at(start + 16, "MISCSELECT", miscselect);
    out.at(start + 48, "ATTRIBUTES", hex_encode(&report.attributes()));
    out.at(start + 64, "MRENCLAVE", hex_encode(&report.mrenclave()));
    out.at(start + 128, "MRSIGNER", hex_encode(&report.mrsigner()));
    out.at(start + 256, "ISVPRODID", report.isvprodid());
    out.at(start + 258, "ISVSVN", report.isvsvn());
    let data = hex_encode(&report.report_data());
    let means = "SHA-256 of attestation key and authentication data, then zeros";
    out.at_means(start + 320, "REPORTDATA", data, means);
    out
}

/// Bits of TDATTRIBUTES (Intel TDX Module ABI, table ATTRIBUTES).
const ATTRIBUTES: &[(u32, &str)] = &[
    (0, "DEBUG"),
    (27, "LASS"),
    (28, "SEPT_VE_DISABLE"),
    (29, "MIGRATABLE"),
    (30, "PKS"),
    (31, "KL"),
    (63, "PERFMON"),
];

/// Bits of XFAM: those of XCR0 and IA32_XSS (Intel SDM volume 1, chapter 13).
const XFAM: &[(u32, &str)] = &[
    (0, "x87"),
    (1, "SSE"),
    (2, "AVX"),
    (5, "AVX-512 opmask"),
    (6, "AVX-512 ZMM_Hi256"),
    (7, "AVX-512 Hi16_ZMM"),
    (8, "PT"),
    (9, "PKRU"),
    (11, "CET_U"),
    (12, "CET_S"),
    (14, "UINTR"),
    (15, "LBR"),
    (17, "AMX TILECFG"),
    (18, "AMX TILEDATA"),
];

/// Where the parts of a quote begin that have no fixed place.
struct Places {
    /// Behind header and body: the size of the signature data.
    signed: usize,
    signature: usize,
    qe_report: usize,
}

impl Places {
    /// By version and body type alone, so that it also serves quotes that are not well-formed.
    fn of(bytes: &[u8]) -> Places {
        let signed = match (number(bytes, 0, 2), number(bytes, 48, 2)) {
            (5, 3) => 54 + 648,
            (5, _) => 54 + 584,
            _ => 48 + 584,
        };
        let signature = signed + 4;
        Places {
            signed,
            signature,
            qe_report: signature + 64 + 64 + 6,
        }
    }
}

/// A little-endian number of up to 8 bytes; bytes that are not there are zero.
fn number(bytes: &[u8], offset: usize, length: usize) -> u64 {
    let bytes = bytes.iter().skip(offset).take(length.min(8));
    let shifted = bytes.enumerate().map(|(n, b)| u64::from(*b) << (8 * n));
    shifted.fold(0, |all, byte| all | byte)
}

/// Where a quote goes wrong.
fn place(bytes: &[u8], error: &QuoteError) -> Malformed {
    let at = Places::of(bytes);
    let auth = at.qe_report + 448;
    let chain = auth + 2 + usize::try_from(number(bytes, auth, 2)).unwrap_or(0);
    // Every length that a quote declares ends where the quote does, or it is malformed there already: what is left
    // of the one is what is left of the other.
    let from_end = |left: usize| Some(bytes.len().saturating_sub(left));
    let (offset, field) = match error {
        QuoteError::Short { field, found, .. } => (from_end(*found), *field),
        QuoteError::Trailing { field, found } => (from_end(*found), *field),
        QuoteError::Value {
            field, expected, ..
        } => (known(field, expected, &at, chain), *field),
        QuoteError::Vendor { .. } => (Some(12), "QE Vendor ID"),
        QuoteError::Reserved { field, offset, .. } if *field == "the QE report" => {
            (Some(at.qe_report + offset), *field)
        }
        QuoteError::Reserved { field, offset, .. } => (Some(*offset), *field),
        QuoteError::Pem(_) | QuoteError::Certificate { .. } => (Some(chain + 6), "PCK chain"),
    };
    Malformed {
        what: "TDX quote",
        offset,
        field: field.trim_start_matches("the ").to_owned(),
        reason: error.to_string(),
    }
}

/// Where a field is that says a kind, a version or a size.
fn known(field: &str, expected: &str, at: &Places, chain: usize) -> Option<usize> {
    match field {
        "the version" => Some(0),
        "the attestation key type" => Some(2),
        "the TEE type" => Some(4),
        "the body type" => Some(48),
        "the body size" => Some(50),
        _ if expected.starts_with('6') => Some(at.signature + 128),
        _ if expected.starts_with('5') => Some(chain),
        _ => None,
    }
}

/// The fields of a TCB info for TDX.
///
/// # Errors
/// The text is none.
pub fn tcb_info(text: &str) -> Result<Structure, Malformed> {
    let info = TcbInfo::parse(text).map_err(|e| signed_text("TCB info", &e))?;
    let mut out = Structure::new("TCB info for TDX", PCS);
    dates(&mut out, info.issue_date, info.next_update);
    out.field("fmspc", hex_encode(&info.fmspc));
    out.field("pceId", hex_encode(&info.pce_id));
    let number = info.tcb_evaluation_data_number;
    out.field("tcbEvaluationDataNumber", number);
    let signer = hex_encode(&info.tdx_module.mrsigner);
    out.field("tdxModule.mrsigner", signer);
    for level in &info.levels {
        let mut part = Structure::new(format!("TCB level: {}", level.status.word()), PCS);
        part.field("tcbDate", rfc3339(level.tcb_date));
        part.field("sgxtcbcomponents", hex_encode(&level.sgx_svn));
        part.field("tdxtcbcomponents", hex_encode(&level.tdx_svn));
        part.field("pcesvn", level.pce_svn);
        part.field("advisoryIDs", list(&level.advisories));
        out.parts.push(part);
    }
    for identity in &info.tdx_module_identities {
        let mut part = Structure::new(format!("TDX module {}", identity.id), PCS);
        part.field("mrsigner", hex_encode(&identity.module.mrsigner));
        isv_levels(&mut part, &identity.levels);
        out.parts.push(part);
    }
    Ok(out)
}

/// The fields of an identity of Intel's quoting enclave.
///
/// # Errors
/// The text is none.
pub fn qe_identity(text: &str) -> Result<Structure, Malformed> {
    let identity = QeIdentity::parse(text).map_err(|e| signed_text("QE identity", &e))?;
    let mut out = Structure::new("Identity of the quoting enclave for TDs", PCS);
    dates(&mut out, identity.issue_date, identity.next_update);
    let number = identity.tcb_evaluation_data_number;
    out.field("tcbEvaluationDataNumber", number);
    let masked = |value: u32, mask: u32| format!("0x{value:08x} under 0x{mask:08x}");
    out.field(
        "miscselect",
        masked(identity.miscselect, identity.miscselect_mask),
    );
    let (value, mask) = (identity.attributes, identity.attributes_mask);
    let attributes = format!("{} under {}", hex_encode(&value), hex_encode(&mask));
    out.field("attributes", attributes);
    out.field("mrsigner", hex_encode(&identity.mrsigner));
    out.field("isvprodid", identity.isvprodid);
    isv_levels(&mut out, &identity.levels);
    Ok(out)
}

fn signed_text(what: &'static str, error: &impl Display) -> Malformed {
    Malformed {
        what,
        offset: None,
        field: "JSON".to_owned(),
        reason: error.to_string(),
    }
}

fn dates(out: &mut Structure, issued: u64, next: u64) {
    out.field("issueDate", rfc3339(issued));
    out.field("nextUpdate", rfc3339(next));
}

fn isv_levels(out: &mut Structure, levels: &[IsvLevel]) {
    for level in levels {
        let (date, advisories) = (rfc3339(level.tcb_date), list(&level.advisories));
        let words = format!("{}, {date}, advisories: {advisories}", level.status.word());
        out.field(&format!("isvsvn {} and above", level.isvsvn), words);
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" ")
    }
}
