//! The checks that no policy decides: they are no keys, cannot be waived, and stand in verdicts
//! beside those of the policy. With [`super::check_ids`] these are all check ids there are.

mod files;
mod manifest;
mod model;
mod tdx;

use std::sync::LazyLock;

use touchstone_formats::evidence::Tee;

/// One check that is always made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FixedCheck {
    /// Stable id.
    pub id: &'static str,
    /// What holds if it passes.
    pub summary: &'static str,
    /// Exit codes of its failure.
    pub exit: &'static str,
    /// Where it is specified.
    pub source: &'static str,
    /// Every evidence object of this TEE has it, evaluated or not.
    pub(crate) required_of: Option<Tee>,
}

const fn check(
    id: &'static str,
    exit: &'static str,
    summary: &'static str,
    source: &'static str,
) -> FixedCheck {
    FixedCheck {
        id,
        summary,
        exit,
        source,
        required_of: None,
    }
}

const fn snp(
    id: &'static str,
    exit: &'static str,
    summary: &'static str,
    source: &'static str,
) -> FixedCheck {
    FixedCheck {
        required_of: Some(Tee::SevSnp),
        ..check(id, exit, summary, source)
    }
}

/// All of them. An id that ends in `.*` stands for one with a number in its place.
pub fn fixed_checks() -> &'static [FixedCheck] {
    static ALL: LazyLock<Vec<FixedCheck>> = LazyLock::new(|| {
        [
            FIXED,
            files::FIXED,
            manifest::FIXED,
            model::FIXED,
            tdx::FIXED,
        ]
        .concat()
    });
    &ALL
}

const REPORT: &str = "AMD 56860, table ATTESTATION_REPORT";
const CHAIN: &str = "AMD 57230; RFC 5280 §6";
const EXTENSIONS: &str = "AMD 57230, tables of VCEK and VLEK extensions";

static FIXED: &[FixedCheck] = &[
    check(
        "usage",
        "1",
        "The command line and the files it names are right.",
        "the command's help",
    ),
    check(
        "policy.file",
        "1",
        "The policy file stands.",
        "docs/checks.md",
    ),
    check(
        "policy.platform",
        "4",
        "The policy has a platform of the evidence's kind.",
        "docs/checks.md",
    ),
    check(
        "root.simulated",
        "1, 4",
        "The file of simulated roots stands and names no pinned one; what is expected to be simulated is.",
        "docs/checks.md",
    ),
    check(
        "bundle.format",
        "2",
        "The bundle is canonical, within its bounds, and every part decodes.",
        "formats §7",
    ),
    check(
        "receipt.format",
        "2",
        "The receipt is canonical COSE of the right profile.",
        "formats §4",
    ),
    check(
        "receipt.signature",
        "3",
        "The keyset's receipt key signed the receipt.",
        "formats §4",
    ),
    check(
        "receipt.keyset",
        "3",
        "The receipt names this keyset (iss, keyset_digest).",
        "formats §2, §4",
    ),
    check(
        "keyset.lifetime",
        "4",
        "not_before ≤ iat ≤ not_after; of a connection: it was opened (for one that is being judged: now is) between \
         300 seconds before not_before and not_after.",
        "formats §7, Time; §10",
    ),
    check(
        "keyset.span",
        "4",
        "The keyset lives no longer than answer.keyset_span_seconds.",
        "formats §7, Time",
    ),
    check(
        "keyset.name",
        "4",
        "The keyset's name is in session.name. Listed only where the policy has no [session].",
        "formats §2, §10",
    ),
    check(
        "receipt.status",
        "4",
        "The receipt is for an answer, or for the refusal that the caller expects.",
        "formats §4",
    ),
    check(
        "receipt.clock",
        "4",
        "iat is at most 300 seconds after the time of judgement.",
        "formats §7, Time",
    ),
    check(
        "receipt.fresh",
        "4",
        "iat is at most answer.fresh_seconds ago.",
        "formats §7, Time",
    ),
    check(
        "receipt.nonce",
        "4",
        "The caller's own nonce is in the receipt (answer.nonce).",
        "formats §4",
    ),
    check(
        "receipt.model",
        "4",
        "The model digest is in answer.models.",
        "formats §5",
    ),
    check(
        "receipt.config",
        "4",
        "The configuration digest is in answer.configs.",
        "formats §5",
    ),
    check(
        "receipt.catalog",
        "3",
        "A catalog in the bundle is the one the receipt names, and holds its pair of digests.",
        "formats §5",
    ),
    check(
        "receipt.payment",
        "none",
        "Listed only: this version evaluates no payment.",
        "formats §8",
    ),
    check(
        "log.proof.format",
        "2",
        "The proof is a C2SP tlog-proof with a checkpoint, without extra lines.",
        "formats §6",
    ),
    check(
        "log.signature",
        "3",
        "The keyset's log key signed the checkpoint.",
        "formats §6",
    ),
    check(
        "log.origin",
        "3",
        "Origin and key name of the checkpoint are the log's.",
        "formats §6",
    ),
    check(
        "log.inclusion",
        "3",
        "The receipt's entry is in the tree of the checkpoint.",
        "RFC 6962; formats §6",
    ),
    check(
        "log.index",
        "3",
        "The entry's index is at least sequence + 2.",
        "formats §1, §6",
    ),
    check(
        "guarantees.stated",
        "4",
        "What the receipt states under it was made holds.",
        "formats §1",
    ),
    check(
        "guarantees.required",
        "4",
        "What the caller and the policy (answer.require) demand holds.",
        "formats §1",
    ),
    check(
        "opening.request",
        "3",
        "The opening reproduces the commitment.",
        "formats §4, Commitments",
    ),
    check(
        "opening.response",
        "3",
        "The opening reproduces the commitment.",
        "formats §4, Commitments",
    ),
    check(
        "opening.inputs",
        "3",
        "The opening reproduces the commitment.",
        "formats §4, Commitments",
    ),
    check(
        "opening.outputs",
        "3",
        "The opening reproduces the commitment.",
        "formats §4, Commitments",
    ),
    check(
        "compare.request",
        "3, 4",
        "The caller's request is the one committed to; 4 if it could not be compared.",
        "formats §4, Commitments",
    ),
    check(
        "compare.response",
        "3, 4",
        "The caller's response is the one committed to; 4 if it could not be compared.",
        "formats §4, Commitments",
    ),
    check(
        "compare.inputs",
        "1, 3, 4",
        "The caller's input tensors are those committed to; 1 if they are no tensors, 4 if they could \
         not be compared.",
        "formats §4, Commitments",
    ),
    check(
        "compare.outputs",
        "1, 3, 4",
        "The caller's output tensors are those committed to; 1 if they are no tensors, 4 if they could \
         not be compared.",
        "formats §4, Commitments",
    ),
    check(
        "compare.coverage",
        "4",
        "Request and response (and nonce, where the policy expects one) were compared with the \
         caller's own, unless he judges the receipt alone.",
        "formats §1",
    ),
    check(
        "attachment.*",
        "none",
        "Listed only: a type this version does not know achieves nothing.",
        "formats §7",
    ),
    check(
        "session.format",
        "2",
        "The answer to the request for a session, or the record of one, is canonical and within its bounds.",
        "formats §10",
    ),
    check(
        "session.clock",
        "4",
        "The connection is judged at the caller's own clock, and its record is not dated more than 300 \
         seconds after it.",
        "formats §7, Time; §10",
    ),
    check(
        "session.tls_key",
        "3",
        "The key that signed the TLS handshake is the keyset's.",
        "formats §2, §10",
    ),
    check(
        "session.ohttp_key",
        "3",
        "The key that requests are sealed to is the keyset's.",
        "RFC 9458 §3; formats §2, §13",
    ),
    check(
        "session.nonce",
        "3",
        "The evidence names the caller's nonce.",
        "formats §10",
    ),
    check(
        "session.binding",
        "4",
        "What binds the connection is in session.binding before anything is sent (without a [session]: it is \
         tls-exporter), and in session.answers for a kept answer (without: listed only).",
        "formats §10",
    ),
    check(
        "connection.io",
        "1",
        "The server can be reached, and says all that it has to say. Made by clients.",
        "formats §10",
    ),
    check(
        "connection.tls",
        "3",
        "TLS 1.3, without resumption, the handshake signed by the key that came with it, no record altered. \
         Made by clients.",
        "RFC 8446; formats §10",
    ),
    check(
        "connection.late",
        "4",
        "The server answers in time. Made by clients.",
        "formats §10",
    ),
    check(
        "session.refused",
        "4",
        "The server does not refuse the request for a session. Made by clients.",
        "formats §10",
    ),
    check(
        "ohttp.refused",
        "4",
        "Neither host nor enclave refuses the sealed request unopened. Made by clients.",
        "RFC 9458 §5; formats §13",
    ),
    check(
        "ohttp.answer",
        "3",
        "The answer is sealed for this very request, whole and unaltered, and no copy of the request came first. Made by clients.",
        "RFC 9458 §4.4; formats §13",
    ),
    check(
        "answer.format",
        "2",
        "The answer is HTTP, of the form that an answer to this request has. Made by clients.",
        "formats §9",
    ),
    check(
        "answer.refused",
        "4",
        "The enclave does not refuse the request. Made by clients.",
        "formats §9",
    ),
    check(
        "evidence.format",
        "2",
        "The evidence file is canonical and within its bounds.",
        "formats §7",
    ),
    check(
        "evidence.purpose",
        "2",
        "Evidence in a bundle has the purpose boot, checkpoint or receipt, evidence of a connection session, \
         of a key for sealed requests boot.",
        "formats §1, §7, §10",
    ),
    check(
        "evidence.nonce",
        "3",
        "The nonce beside evidence is the one it is bound to.",
        "formats §3, §7",
    ),
    check(
        "evidence.report_data",
        "3, 4",
        "REPORT_DATA is what it must be, all 64 bytes; 4 if what it is about is not in the bundle.",
        "formats §3",
    ),
    check(
        "evidence.event_log",
        "none",
        "Listed only: no SEV-SNP report binds an event log. Of TDX evidence `tdx.event_log` is made instead.",
        "formats §7",
    ),
    snp(
        "snp.format",
        "2",
        "1184 bytes, version 2, 3 or 5, algorithm 1, a known processor, every byte and bit that the \
         version does not define zero (also behind r and s), bit 17 of POLICY one.",
        REPORT,
    ),
    snp(
        "snp.vek.extensions",
        "2",
        "AMD's extensions of the endorsement key's certificate: each there once and of its form.",
        EXTENSIONS,
    ),
    snp(
        "snp.collateral",
        "2, 5",
        "Certificates and revocation lists are strict DER, nothing twice, nothing after the end; 5 if \
         the endorsement key's certificate or its intermediate is missing.",
        CHAIN,
    ),
    snp(
        "snp.chain.root",
        "3",
        "The one intermediate that came with the evidence was issued by a trusted root, and nothing \
         else came along.",
        CHAIN,
    ),
    snp(
        "snp.chain.signature",
        "3",
        "Root signed intermediate, intermediate signed certificate: RSASSA-PSS, SHA-384, MGF1-SHA-384, \
         48 bytes of salt, over the bytes as received.",
        CHAIN,
    ),
    snp(
        "snp.chain.constraints",
        "3",
        "Names fit; the intermediate is a CA with keyCertSign; the endorsement key's certificate is no \
         CA; no critical extension that is not understood.",
        CHAIN,
    ),
    snp(
        "snp.chain.validity",
        "5",
        "All three certificates are valid at the time of judgement; else the window in which they are.",
        CHAIN,
    ),
    snp(
        "snp.chain.revoked",
        "3",
        "Every revocation list that came is the root's own, signed by it, without critical extensions, \
         none twice, four at most, and lists none of the three certificates. Not evaluated without \
         a list: then `snp.chain.crl` decides.",
        "AMD 57230; RFC 5280 §5, §6.3",
    ),
    check(
        "snp.collateral.age",
        "5",
        "The newest revocation list that is good is no older than answer.collateral_age_seconds. Not \
         made where `snp.chain.crl` is waived or fails.",
        "formats §7, Time",
    ),
    snp(
        "snp.signature",
        "3",
        "The endorsement key (P-384) signed bytes 0x000 to 0x29F as received; the report does not say \
         that it is unsigned.",
        REPORT,
    ),
    snp(
        "snp.vek.key",
        "3",
        "SIGNING_KEY, the certificate's name and extensions, and its intermediate mean one kind of key: \
         VCEK under ASK, VLEK under ASVK.",
        "AMD 56860, KEY_INFO.SIGNING_KEY; AMD 57230",
    ),
    snp(
        "snp.vek.product",
        "3",
        "CPUID fields (from version 3), productName, intermediate and root mean one product. The \
         stepping in productName is not compared: certificates are known where it is wrong.",
        "AMD 56860, CPUID_FAM_ID; AMD 57230, productName",
    ),
    snp(
        "snp.vek.hwid",
        "3",
        "hwID is CHIP_ID; on Turin 8 bytes, the rest of CHIP_ID zero. Nothing to compare under a VLEK; \
         not evaluated if CHIP_ID is masked: then `snp.chip_id.masked` decides.",
        EXTENSIONS,
    ),
    snp(
        "snp.vek.tcb",
        "2, 3",
        "The levels in the certificate are REPORTED_TCB; 2 if a report of version 2 has reserved bytes \
         set in the TCB layout of the product that its certificate names.",
        EXTENSIONS,
    ),
];
