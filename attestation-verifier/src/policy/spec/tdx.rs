//! The checks of a policy for TDX.

use touchstone_formats::text::{hex_array, hex_decode};

use super::{CRL_STATES, CheckSpec, Form, platform_check, policy_check};

const BODY: &str = "Intel TDX DCAP Quoting Library API, appendix A.3.2 and A.4, TD Quote Body";
const ATTRIBUTES: &str = "Intel TDX DCAP Quoting Library API, appendix A.3.2, TD Attributes; Intel TDX Module ABI, ATTRIBUTES";
const PCS: &str = "Intel PCS API v4, TDX TCB Info V3 and Enclave Identity V2, tcbStatus";
const PCK: &str = "Intel SGX PCK Certificate and CRL Profile, SGX extensions";

/// What a policy may tolerate. `Revoked` is not among them: nothing makes it good.
const STATUSES: &[&str] = &[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
];

const KNOWN: &[&str] = &["yes", "no", "undefined"];

/// 48 zero bytes, as the one thing expected.
const ZERO: &str = "{ expect = [\"000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\"] }";

pub(super) static CHECKS: &[CheckSpec] = &[
    policy_check(
        "tdx.version",
        Form::Numbers,
        "The quote's version is one of these. Versions other than 4 and 5 are malformed whatever stands here.",
        "Version 5 can carry the body of TDX 1.5, which says more: the service TDs that are bound, and the TDX \
         module that runs now. A host that makes quotes of version 4 leaves that out.",
        "Intel TDX DCAP Quoting Library API, appendix A.3 and A.4",
        "{ expect = [4, 5] }",
    ),
    platform_check(
        "tdx.chain.crl",
        Form::Word(CRL_STATES),
        "The revocation list of the CA that issued the PCK certificate and that of the root are there, due \
         (nextUpdate) after the time of judgement, the first not older than answer.collateral_age_seconds. Failure is exit 5. \
         A list that is there is always used, also when this is waived.",
        "Without them a revoked platform, or a revoked CA, is accepted.",
        "Intel SGX PCK Certificate and CRL Profile, CRLs; RFC 5280 §6.3",
        "{ expect = \"current\" }",
    ),
    platform_check(
        "tdx.tcb.evaluation_number",
        Form::Number,
        "tcbEvaluationDataNumber of TCB info and of the QE identity are at least this.",
        "Intel keeps signing older evaluations, under which a platform looks up to date that no longer is; who serves the \
         collateral may choose. 17 is the evaluation of March 2024, the oldest that the template takes: raise it to the one \
         that is current, which Intel's service lists.",
        "Intel PCS API v4, TDX TCB Evaluation Data Numbers",
        "{ expect = 17 }",
    ),
    platform_check(
        "tdx.tcb.status",
        Form::Words(STATUSES),
        "The status of the whole (platform, TDX module and quoting enclave together, of which the worst counts, at launch and \
         now) is one of these. Revoked is none of them: it is refused whatever stands here, also when this is waived.",
        "Anything but UpToDate means known attacks. SWHardeningNeeded and ConfigurationNeeded leave the defence to the TD or \
         to the BIOS; OutOfDate means that nobody closed them.",
        PCS,
        "{ expect = [\"UpToDate\"] }",
    ),
    platform_check(
        "tdx.tcb.advisories",
        Form::Texts,
        "Every advisory that Intel names for these levels is in this list.",
        "Whoever tolerates a status has to say which attacks he means: a new advisory on the same level is then refused again.",
        "Intel PCS API v4, advisoryIDs",
        "{ expect = [] }",
    ),
    platform_check(
        "tdx.tcb.grace",
        Form::Day,
        "OutOfDate (also OutOfDateConfigurationNeeded) is tolerated until this day, the last one (UTC); \"none\": it is not. \
         Of every other status \"none\" is found, and holds.",
        "A platform that is behind has to be updated by a day; a policy that tolerates it for ever is forgotten.",
        PCS,
        "{ expect = \"none\" }",
    ),
    policy_check(
        "tdx.module.signer",
        Form::Hexes(48),
        "MRSIGNERSEAM is one of these; all zero means that Intel signed the TDX module.",
        "The TDX module keeps the host out of the TD. Whatever stands here, it has to be what Intel's signed TCB info names \
         (`tdx.module.identity`).",
        "Intel TDX DCAP Quoting Library API, appendix A.3.2, MRSIGNERSEAM",
        ZERO,
    ),
    policy_check(
        "tdx.module.attributes",
        Form::Hexes(8),
        "SEAMATTRIBUTES is one of these.",
        "All zero for a production module.",
        "Intel TDX DCAP Quoting Library API, appendix A.3.2, SEAMATTRIBUTES",
        "{ expect = [\"0000000000000000\"] }",
    ),
    policy_check(
        "tdx.module.measurement",
        Form::Hexes(48),
        "MRSEAM is one of these.",
        "Pins the TDX module itself; Intel publishes its source, and it can be built again to the same measurement.",
        "Intel TDX DCAP Quoting Library API, appendix A.3.2, MRSEAM",
        "{ waive = \"any module of Intel's at a level that is accepted\" }",
    ),
    policy_check(
        "tdx.attributes.debug",
        Form::Flag,
        "TDATTRIBUTES.DEBUG: the host may read and write the TD's memory and registers.",
        "A TD that may be debugged has no secrets and no integrity.",
        ATTRIBUTES,
        "{ expect = false }",
    ),
    policy_check(
        "tdx.attributes.sept_ve_disable",
        Form::Flag,
        "TDATTRIBUTES.SEPT_VE_DISABLE: a page that the host takes away stops the TD, instead of raising #VE in it.",
        "With it clear the host can inject #VE at any access to memory, and most guest kernels are not written for that.",
        ATTRIBUTES,
        "{ expect = true }",
    ),
    policy_check(
        "tdx.attributes.migratable",
        Form::Flag,
        "TDATTRIBUTES.MIGRATABLE: a migration TD may move the TD elsewhere.",
        "A migration TD is code that can carry the TD's state to another machine; see tdx.mr_service_td.",
        ATTRIBUTES,
        "{ expect = false }",
    ),
    policy_check(
        "tdx.attributes.perfmon",
        Form::Flag,
        "TDATTRIBUTES.PERFMON: the TD may use performance counters.",
        "Not the host's: it concerns what programs in the TD can observe of each other.",
        ATTRIBUTES,
        "{ expect = false }",
    ),
    policy_check(
        "tdx.attributes.key_locker",
        Form::Flag,
        "TDATTRIBUTES.KL: the TD may use Key Locker.",
        "It belongs to what the image is known to be launched with.",
        ATTRIBUTES,
        "{ expect = false }",
    ),
    policy_check(
        "tdx.attributes.pks",
        Form::Flag,
        "TDATTRIBUTES.PKS: the TD may use supervisor protection keys.",
        "It belongs to what the image is known to be launched with.",
        ATTRIBUTES,
        "{ expect = false }",
    ),
    policy_check(
        "tdx.attributes.others",
        Form::Flag,
        "Some bit of TDATTRIBUTES is set that has no check of its own here.",
        "Bits whose meaning is not known here may weaken the TD; those of bits 0 to 7 make it untrusted by definition.",
        ATTRIBUTES,
        "{ expect = false }",
    ),
    policy_check(
        "tdx.xfam.fixed",
        Form::Flag,
        "XFAM has the bits that are always set (x87 and SSE) and none outside 0x6dbe7.",
        "Another value is one that no TDX module known here launches.",
        "Intel TDX Module ABI, XFAM",
        "{ expect = true }",
    ),
    policy_check(
        "tdx.xfam",
        Form::Fields,
        "XFAM is one of these.",
        "Which extended processor states the TD has; pin it where the image's launch is known.",
        BODY,
        "{ waive = \"any processor features that the TDX module allows\" }",
    ),
    policy_check(
        "tdx.mrtd",
        Form::Hexes(48),
        "MRTD, the measurement of what the TD was built from (its firmware), is one of these.",
        "With RTMR0 to RTMR3 it is the software's identity. The template accepts none: put in what you built or \
         reproduced, never what a server told you. It depends on the order in which the host adds pages.",
        BODY,
        "{ expect = [] }",
    ),
    policy_check(
        "tdx.rtmr0",
        Form::Hexes(48),
        "RTMR0 is one of these; all zero if it is unused.",
        "The firmware measures its configuration and the tables that the host gives it.",
        BODY,
        "{ expect = [] }",
    ),
    policy_check(
        "tdx.rtmr1",
        Form::Hexes(48),
        "RTMR1 is one of these; all zero if it is unused.",
        "The firmware measures the boot loader or kernel.",
        BODY,
        "{ expect = [] }",
    ),
    policy_check(
        "tdx.rtmr2",
        Form::Hexes(48),
        "RTMR2 is one of these; all zero if it is unused.",
        "The boot loader or kernel's stub measures command line and initial file system.",
        BODY,
        "{ expect = [] }",
    ),
    policy_check(
        "tdx.rtmr3",
        Form::Hexes(48),
        "RTMR3 is one of these; all zero if it is unused.",
        "Software extends it while it runs. Where it measures something that differs between instances, waive this and \
         expect the events themselves (tdx.rtmr3.events).",
        BODY,
        ZERO,
    ),
    policy_check(
        "tdx.event_log",
        Form::Words(&["replayed", "absent"]),
        "The event log, replayed from zero, gives RTMR0 to RTMR3; or there is none. Found may also be mismatch, malformed or \
         unknown-format.",
        "A log that does not replay is about another TD, and nothing is taken from it. Expect \"replayed\" alone where the \
         log has to be there.",
        "TCG PC Client Platform Firmware Profile, §10; Intel TDX Virtual Firmware Design Guide, §8",
        "{ expect = [\"replayed\", \"absent\"] }",
    ),
    policy_check(
        "tdx.rtmr3.events",
        Form::Events,
        "Every event that the replayed log has for RTMR3 is in this list, no name stands there twice, and every name in \
         this list occurs. An RTMR3 of zero has no events, with a log or without one.",
        "What software measured while it ran is known one by one; an event that nobody expects is refused. Names and payloads \
         are known from dstack's logs alone, where the digest is of them.",
        "TCG PC Client Platform Firmware Profile, §10; dstack, cc-eventlog",
        "{ expect = [] }",
    ),
    policy_check(
        "tdx.mr_config_id",
        Form::Hexes(48),
        "MRCONFIGID is one of these; all zero if the host gave none.",
        "The host writes it at launch; software may take it for configuration.",
        BODY,
        ZERO,
    ),
    policy_check(
        "tdx.mr_owner",
        Form::Hexes(48),
        "MROWNER is one of these; all zero if the host gave none.",
        "A name of the TD's owner that the host writes at launch.",
        BODY,
        ZERO,
    ),
    policy_check(
        "tdx.mr_owner_config",
        Form::Hexes(48),
        "MROWNERCONFIG is one of these; all zero if the host gave none.",
        "Configuration by the owner that the host writes at launch.",
        BODY,
        ZERO,
    ),
    policy_check(
        "tdx.mr_service_td",
        Form::Hexes(48),
        "MRSERVICETD is one of these; all zero means that no service TD is bound. Bodies of TDX 1.0 do not say, and there \
         it holds if zero is in the list.",
        "A service TD (a migration TD, for one) has powers over this one, and with it its software is part of the trust.",
        "Intel TDX DCAP Quoting Library API, appendix A.4, TD Quote Body for TDX 1.5",
        ZERO,
    ),
    policy_check(
        "tdx.platform.instance",
        Form::Hexes(16),
        "The platform instance id (PIID) of the PCK certificate, or its PPID, is one of these.",
        "Pins the machines. Known machines are the one defence here against somebody who holds a genuine platform in his \
         hands.",
        PCK,
        "{ waive = \"any genuine platform; pin the platforms you know\" }",
    ),
    policy_check(
        "tdx.platform.fmspc",
        Form::Hexes(6),
        "FMSPC, the family of platforms, is one of these.",
        "Pins the kind of processor.",
        PCK,
        "{ waive = \"any family for which Intel signs TCB info\" }",
    ),
    policy_check(
        "tdx.platform.ca",
        Form::Words(&["processor", "platform"]),
        "The PCK certificate was issued by one of these CAs of Intel's.",
        "The Platform CA's platforms are registered with Intel, and their certificates say how they are configured.",
        PCK,
        "{ expect = [\"processor\", \"platform\"] }",
    ),
    policy_check(
        "tdx.platform.integrity",
        Form::Words(&["standard", "scalable", "scalable-with-integrity"]),
        "SGX Type of the platform, how its memory is protected, is one of these.",
        "scalable is encryption with a logical check of ownership; scalable-with-integrity has cryptographic integrity beside \
         it, and is stricter. Neither is fresh against somebody on the memory bus.",
        PCK,
        "{ expect = [\"scalable\", \"scalable-with-integrity\"] }",
    ),
    policy_check(
        "tdx.platform.smt",
        Form::Words(KNOWN),
        "SMT is on, says the PCK certificate. Certificates of the Processor CA do not say: undefined.",
        "Sibling threads share caches and predictors. \"no\" is stricter.",
        PCK,
        "{ waive = \"SMT on is usual; expect no where it is off\" }",
    ),
    policy_check(
        "tdx.platform.dynamic",
        Form::Words(KNOWN),
        "Processors can be added to the platform, says the PCK certificate.",
        "Added ones are registered with Intel anew. \"no\" is stricter.",
        PCK,
        "{ waive = \"a platform of several sockets is usually dynamic; Intel registers what is added\" }",
    ),
    policy_check(
        "tdx.platform.cached_keys",
        Form::Words(KNOWN),
        "Intel's registration service keeps the platform's root keys, says the PCK certificate.",
        "Who has them can make this platform's attestation keys. \"no\" is stricter.",
        PCK,
        "{ waive = \"Intel is trusted with these platforms in any case\" }",
    ),
];

/// An event that a policy knows ([`Form::Events`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EventPattern {
    /// One that has no name.
    Digest([u8; 48]),
    /// A name, and the payload if not any will do.
    Named(String, Option<Vec<u8>>),
}

impl EventPattern {
    /// Reads an entry of a list; `None` if it has none of the three forms.
    pub(crate) fn read(text: &str) -> Option<EventPattern> {
        if let Some(digest) = text.strip_prefix("sha384:") {
            return hex_array(digest).ok().map(EventPattern::Digest);
        }
        let (name, payload) = text.split_once('=')?;
        let payload = match payload {
            "*" => None,
            hex => Some(hex_decode(hex).ok()?),
        };
        crate::events::is_name(name).then(|| EventPattern::Named(name.to_owned(), payload))
    }
}
