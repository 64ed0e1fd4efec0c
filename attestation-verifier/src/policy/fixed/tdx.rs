//! The checks that are made of every TDX evidence object.

use touchstone_formats::evidence::Tee;

use super::{FixedCheck, check};

const fn tdx(
    id: &'static str,
    exit: &'static str,
    summary: &'static str,
    source: &'static str,
) -> FixedCheck {
    FixedCheck {
        required_of: Some(Tee::Tdx),
        ..check(id, exit, summary, source)
    }
}

const QUOTE: &str = "Intel TDX DCAP Quoting Library API, appendix A.3 and A.4";
const CHAIN: &str = "Intel SGX PCK Certificate and CRL Profile; RFC 5280 §6";
const PCS: &str = "Intel PCS API v4, TDX TCB Info V3 and Enclave Identity V2";

pub(super) static FIXED: &[FixedCheck] = &[
    tdx(
        "tdx.format",
        "2",
        "Version 4 or 5, TEE type 0x81, attestation key type 2 (P-256), Intel's QE vendor id, body type and every size \
         exact, reserved bytes zero, certification data of type 6 with a PCK chain (type 5) in it, nothing after the end.",
        QUOTE,
    ),
    tdx(
        "tdx.pck.extensions",
        "2",
        "The SGX extensions of the PCK certificate: each there once and of its form; Platform Instance ID and Configuration \
         may be left out.",
        "Intel SGX PCK Certificate and CRL Profile, SGX extensions",
    ),
    tdx(
        "tdx.collateral",
        "2, 5",
        "TCB info, QE identity, their signatures, certificates and revocation lists are well-formed, no member twice; 5 if \
         TCB info, QE identity or what they are verified with is missing.",
        PCS,
    ),
    tdx(
        "tdx.chain.root",
        "3",
        "The PCK chain and those of the collateral end in a trusted root, and nothing else came along.",
        CHAIN,
    ),
    tdx(
        "tdx.chain.signature",
        "3",
        "Root signed CA and TCB signing certificate, the CA signed the PCK certificate: ECDSA P-256 with SHA-256, over the \
         bytes as received.",
        CHAIN,
    ),
    tdx(
        "tdx.chain.constraints",
        "3",
        "Names fit, and the PCK CA's is one of Intel's two; CAs are CAs with keyCertSign; PCK and TCB signing certificates \
         are none; no critical extension that is not understood.",
        CHAIN,
    ),
    tdx(
        "tdx.chain.validity",
        "5",
        "Every certificate is valid at the time of judgement; else the window in which all are.",
        CHAIN,
    ),
    tdx(
        "tdx.chain.crl_signature",
        "3",
        "Every revocation list that came is of the CA whose it has to be, signed by it, without critical extensions. Not \
         evaluated unless both came: then `tdx.chain.crl` decides.",
        "Intel SGX PCK Certificate and CRL Profile, CRLs; RFC 5280 §5, §6.3",
    ),
    tdx(
        "tdx.chain.revoked",
        "3",
        "No revocation list that came lists a certificate that is relied upon. Not evaluated unless both came: then \
         `tdx.chain.crl` decides.",
        "Intel SGX PCK Certificate and CRL Profile, CRLs; RFC 5280 §5, §6.3",
    ),
    tdx(
        "tdx.qe.signature",
        "3",
        "The PCK (P-256) signed the quoting enclave's report as received.",
        QUOTE,
    ),
    tdx(
        "tdx.qe.binding",
        "3",
        "The quoting enclave's REPORTDATA is SHA-256 of attestation key and authentication data, then 32 zero bytes.",
        QUOTE,
    ),
    tdx(
        "tdx.qe.identity",
        "3",
        "The quoting enclave is Intel's: MRSIGNER, ISVPRODID, ATTRIBUTES and MISCSELECT as the signed identity says. Its \
         ISVSVN counts for `tdx.tcb.level`.",
        PCS,
    ),
    tdx(
        "tdx.signature",
        "3",
        "The attestation key (P-256) signed header and body of the quote as received.",
        QUOTE,
    ),
    tdx(
        "tdx.tcb_info.signature",
        "3",
        "The TCB signing certificate's key signed the text of TCB info as received.",
        PCS,
    ),
    tdx(
        "tdx.tcb_info.fmspc",
        "3",
        "FMSPC and PCE id of TCB info are those of the PCK certificate.",
        PCS,
    ),
    tdx(
        "tdx.qe_identity.signature",
        "3",
        "The TCB signing certificate's key signed the text of the QE identity as received.",
        PCS,
    ),
    tdx(
        "tdx.collateral.validity",
        "5",
        "TCB info and QE identity are valid (issueDate to nextUpdate) at the time of judgement; else the window in which both \
         are.",
        PCS,
    ),
    tdx(
        "tdx.tcb.level",
        "4",
        "TCB info has a level that the platform reaches (SGX components, PCESVN, TDX components), one that the TDX module \
         reaches, at launch and now, the QE identity one that the quoting enclave reaches; none of them is Revoked, or of \
         a status that Intel does not give to such things. The first level that is reached, in Intel's order, is the one.",
        PCS,
    ),
    tdx(
        "tdx.module.identity",
        "4",
        "MRSIGNERSEAM and SEAMATTRIBUTES are what TCB info names for a TDX module of this major version \
         (tdxModuleIdentities; of version 0 tdxModule).",
        "Intel PCS API v4, tdxModule and tdxModuleIdentities",
    ),
    check(
        "tdx.collateral.age",
        "5",
        "TCB info, QE identity and, unless `tdx.chain.crl` is waived or fails, the PCK CA's revocation list are no \
         older than answer.collateral_age_seconds. The root's list, which Intel issues once a year, is not asked.",
        "formats §7, Time",
    ),
];
