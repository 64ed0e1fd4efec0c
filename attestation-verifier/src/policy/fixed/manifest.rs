//! The checks of manifests. A verdict has them where its policy has `[manifest]`.

use super::{FixedCheck, check};

const FILE: &str = "docs/manifests.md, The file";
const POLICY: &str = "docs/policies.md, Manifests";
const PREDICATE: &str = "docs/manifests.md, The predicate";

pub(super) static FIXED: &[FixedCheck] = &[
    check(
        "manifest.present",
        "5",
        "There is a manifest: the caller's, or one attached to the bundle.",
        POLICY,
    ),
    check(
        "manifest.format",
        "2",
        "The manifest is written as its format says, within its bounds.",
        FILE,
    ),
    check(
        "manifest.signature",
        "3",
        "Every signature that is said to be one of the policy's signers' is, and there is one at least.",
        "docs/manifests.md, The file; DSSE; sigstore bundle v0.3",
    ),
    check(
        "manifest.threshold",
        "4",
        "As many of the policy's signers signed it as the policy demands.",
        POLICY,
    ),
    check(
        "manifest.name",
        "4",
        "It has the name that the policy demands.",
        POLICY,
    ),
    check(
        "manifest.version",
        "4",
        "It is not older than the policy's minimum_version and than the version accepted before, and of its version there is no other.",
        POLICY,
    ),
    check(
        "manifest.validity",
        "5",
        "It was issued, and has not ended, at the time of judgement; and so has the release that evidence is of, for each evidence object.",
        PREDICATE,
    ),
    check(
        "manifest.platform",
        "4",
        "The whole measurement (of TDX MRTD and RTMR0 to RTMR2 together) is one entry of the manifest; which, is said. This and the next three are made of \
         each evidence object whose platform the policy leaves to the manifest.",
        PREDICATE,
    ),
    check(
        "manifest.os_binding",
        "4",
        "The measurement covers the operating system in a way that this version can judge. With none or vtpm-pcr no claim about software is provable.",
        PREDICATE,
    ),
    check(
        "manifest.quote_source",
        "4",
        "The measured software alone can have quotes; or the policy says by the event log (tdx.rtmr3.events) which application it is.",
        PREDICATE,
    ),
    check(
        "manifest.tcb",
        "4",
        "The platform reaches the manifest's least TCB: of SEV-SNP reported, committed and launch TCB, of TDX the number of Intel's evaluation. \
         It comes on top of the policy's own floors.",
        PREDICATE,
    ),
];
