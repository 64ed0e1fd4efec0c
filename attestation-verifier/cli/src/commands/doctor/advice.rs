//! What an operator does about a check of the strict policy that his machine's evidence fails. `explain` speaks to who
//! judges; this speaks to who launches.

/// What to do, in a sentence or two; none for an id that evidence of a platform cannot fail under the strict policy.
pub fn advice(id: &str) -> Option<&'static str> {
    TABLE
        .iter()
        .find(|(ids, _)| ids.contains(&id))
        .map(|(_, advice)| *advice)
}

/// Values that the strict policy leaves to its owner, which no machine can hold right or wrong: where they come from.
pub const LEFT_OPEN: [(&str, &str); 5] = [
    ("snp.measurement", MEASURED),
    ("tdx.mrtd", MEASURED),
    (
        "tdx.rtmr0",
        "The strict policy lists none: its owner takes it from replayed event logs of this image on this kind of host (touchstone measure tdx --event-log).",
    ),
    ("tdx.rtmr1", MEASURED),
    ("tdx.rtmr2", MEASURED),
];

const MEASURED: &str = "The strict policy lists none: its owner puts in what touchstone measure computes from the image, or leaves it to a signed manifest. Never copy it from here.";

/// What the strict policy asks of a receipt, a log, a keyset or a connection, of which there is none here.
pub const OF_ANSWERS: [(&str, &str); 6] = [
    (
        "receipt.*",
        "There is no receipt here: the answers of an enclave have them.",
    ),
    (
        "keyset.*",
        "There is no keyset here: an enclave makes one as it starts, with a boot quote over it.",
    ),
    (
        "log.*",
        "There is no log here: an enclave keeps one for each keyset.",
    ),
    (
        "session.*",
        "There is no connection here: touchstone ask judges one before it sends anything.",
    ),
    (
        "manifest.*",
        "The strict policy leaves nothing to a manifest.",
    ),
    (
        "evidence.purpose",
        "This quote was made for doctor alone, and counts for nothing else.",
    ),
];

const FIRMWARE: &str = "Install BIOS (AGESA) and SEV firmware at or above the level of AMD-SB-3019 or newer on the host, commit it (SNP_COMMIT), and launch the VM anew; at a cloud, ask for a host that has it.";
const LAUNCH_POLICY: &str = "Launch the VM with the guest policy 0x30000 (QEMU: -object sev-snp-guest,policy=0x30000), or have your verifiers expect what you chose.";
const HOST_SETTING: &str = "It is a setting of the host's BIOS. Change it there, or have your verifiers expect this value once you know why it is so.";
const CERTIFICATES: &str = "Certificates that do not belong to this machine, or were changed: fetch them anew (touchstone collateral fetch). If it stays so, believe nothing of this machine, and say so to who owns it.";
const QUOTE_BROKEN: &str = "The quote is not what this platform's hardware makes: look for what stands between (a paravisor, a proxy, a broken agent). Believe nothing of it.";
const NEWER_COLLATERAL: &str =
    "Fetch it again (touchstone collateral fetch), and check this machine's clock.";
const FETCH: &str = "Write the quote to a file (-o evidence.json), fetch its certificates where there is a network (touchstone collateral fetch evidence.json -o collateral.json), and give them with --collateral.";
const ROOTS: &str = "The chain ends at a root that is not AMD's or Intel's: a simulated platform, whose root you name with --trust-simulated-root, or somebody's own. Verifiers refuse it.";
const REVOKED: &str = "The vendor has revoked this machine's key. Take the machine out of service, and ask its maker or cloud why.";
const INTEL_LEVEL: &str = "Bring the host to a level that Intel lists as UpToDate: BIOS, microcode and TDX module, then launch the TD anew; at a cloud, ask for such a host.";
const TD_ATTRIBUTES: &str = "Launch the TD without this attribute (QEMU: tdx-guest,attributes=…), or have your verifiers expect it once you know why it is set.";
const LAUNCH_FIELD: &str = "Launch the VM without it, or have your verifiers expect this very value: it is the host's word, and software may take it for configuration.";

/// Each with the checks that it is about.
const TABLE: &[(&[&str], &str)] = &[
    (
        &["quote.source"],
        "See to the sources one by one: each says above what it needs. Until one gives a quote an enclave here serves nothing.",
    ),
    (
        &["quote.answer"],
        "The source's answer is not what its interface says: update or replace it, and ask nothing of an enclave behind it until it is right.",
    ),
    (
        &["evidence.report_data"],
        "The quote is over other bytes than were asked for: the source lies, mixes up its answers, or (Azure's paravisor) puts its own hash there. No enclave behind it can prove anything.",
    ),
    (
        &["policy.platform"],
        "The policy has no platform of this kind: write one with touchstone policy init --tee.",
    ),
    (
        &["snp.version"],
        "Update the host's SEV firmware: reports of version 2 leave out which processor it is.",
    ),
    (
        &["snp.product"],
        "Use a host with Genoa or Turin: by default Milan is refused, because its keys were extracted (arXiv 2605.12990), and no update mends that.",
    ),
    (
        &["snp.signing_key"],
        "The provider signs with his own key (VLEK): take a dedicated host, where reports are signed by the chip's key, or have your verifiers expect \"vlek\", which shows whose machine it is, not which.",
    ),
    (
        &["snp.vlek.csp"],
        "Verifiers who accept VLEKs have to name your provider in snp.vlek.csp; by default none is named.",
    ),
    (
        &["snp.chain.crl"],
        "Fetch AMD's current revocation list (touchstone collateral fetch), and give it with the certificates; the host needs it in its collateral folder too.",
    ),
    (
        &["snp.chip_id.masked"],
        "The host masks CHIP_ID (MASK_CHIP_ID in SNP_CONFIG, or a VLEK's firmware): unmask it, or verifiers cannot tell which chip it is.",
    ),
    (
        &[
            "snp.tcb.reported",
            "snp.tcb.committed",
            "snp.tcb.launch",
            "snp.mitigation.launch",
            "snp.mitigation.current",
        ],
        FIRMWARE,
    ),
    (
        &["snp.tcb.provisional"],
        "The host runs firmware that it has not committed: commit it (SNP_COMMIT), or go back to the committed one.",
    ),
    (
        &["snp.policy.debug"],
        "Launch the VM without debugging (guest policy bit 19 clear): as it is, the host reads and writes its memory, and nothing here can be kept from it.",
    ),
    (
        &["snp.policy.migrate_ma", "snp.report_id_ma"],
        "Launch the VM without a migration agent (guest policy bit 18 clear): as it is, the agent can move its state elsewhere.",
    ),
    (
        &["snp.policy.abi"],
        "Launch the VM with an ABI version in its guest policy that the firmware has; as it is the report contradicts itself.",
    ),
    (
        &[
            "snp.policy.smt",
            "snp.policy.single_socket",
            "snp.policy.cxl",
            "snp.policy.mem_aes_256_xts",
            "snp.policy.rapl_dis",
            "snp.policy.ciphertext_hiding",
            "snp.policy.page_swap_disable",
        ],
        LAUNCH_POLICY,
    ),
    (
        &["snp.platform.smt"],
        "SMT is off, which is stricter than verifiers expect by default: have them expect false.",
    ),
    (
        &[
            "snp.platform.tsme",
            "snp.platform.rapl_dis",
            "snp.platform.ciphertext_hiding",
        ],
        HOST_SETTING,
    ),
    (
        &["snp.platform.ecc"],
        "Use a host whose memory has error correction, and turn it on in its BIOS; firmware that reports version 2 does not say, and has to be updated.",
    ),
    (
        &["snp.platform.alias_check"],
        "Install firmware on the host that looks for aliased memory (AMD-SB-3015, BadRAM), and restart it.",
    ),
    (
        &["snp.vmpl"],
        "Ask for reports at VMPL 0 (--privilege 0). If the guest runs below an SVSM or a paravisor, that one is part of the trust: have your verifiers expect its measurement and this level.",
    ),
    (
        &[
            "snp.host_data",
            "tdx.mr_config_id",
            "tdx.mr_owner",
            "tdx.mr_owner_config",
        ],
        LAUNCH_FIELD,
    ),
    (
        &["snp.guest_svn"],
        "Launch the VM with an ID block whose guest SVN is at least the policy's.",
    ),
    (&["snp.collateral", "tdx.collateral"], FETCH),
    (&["snp.chain.root", "tdx.chain.root"], ROOTS),
    (
        &[
            "snp.chain.signature",
            "snp.chain.constraints",
            "tdx.chain.signature",
            "tdx.chain.constraints",
            "tdx.chain.crl_signature",
            "tdx.tcb_info.signature",
            "tdx.tcb_info.fmspc",
            "tdx.qe_identity.signature",
            "snp.vek.extensions",
            "snp.vek.key",
            "snp.vek.product",
            "snp.vek.hwid",
            "tdx.pck.extensions",
        ],
        CERTIFICATES,
    ),
    (
        &["snp.vek.tcb"],
        "The certificate is for another firmware level: fetch the one for what the machine reports now (touchstone collateral fetch --renew).",
    ),
    (
        &[
            "snp.chain.validity",
            "snp.collateral.age",
            "tdx.chain.validity",
            "tdx.collateral.validity",
            "tdx.collateral.age",
        ],
        NEWER_COLLATERAL,
    ),
    (&["snp.chain.revoked", "tdx.chain.revoked"], REVOKED),
    (
        &[
            "snp.format",
            "snp.signature",
            "tdx.format",
            "tdx.signature",
            "tdx.qe.signature",
            "tdx.qe.binding",
            "tdx.qe.identity",
        ],
        QUOTE_BROKEN,
    ),
    (
        &["tdx.version"],
        "Update the host's quoting service (QGS, DCAP): quotes of versions 4 and 5 are judged.",
    ),
    (
        &["tdx.chain.crl"],
        "Fetch Intel's current revocation lists (touchstone collateral fetch), and give them with the collateral; the host needs them in its collateral folder too.",
    ),
    (
        &["tdx.tcb.evaluation_number"],
        "The collateral is of an old evaluation of Intel's: fetch it anew (touchstone collateral fetch --renew), from Intel or from a PCCS that is kept up to date.",
    ),
    (
        &[
            "tdx.tcb.status",
            "tdx.tcb.advisories",
            "tdx.tcb.grace",
            "tdx.tcb.level",
        ],
        INTEL_LEVEL,
    ),
    (
        &[
            "tdx.module.signer",
            "tdx.module.attributes",
            "tdx.module.measurement",
            "tdx.module.identity",
        ],
        "Run a production TDX module that Intel signed and lists, of a level that is accepted; at a cloud, ask for such a host.",
    ),
    (
        &["tdx.attributes.debug"],
        "Launch the TD without DEBUG: as it is, the host reads and writes its memory, and nothing here can be kept from it.",
    ),
    (
        &["tdx.attributes.sept_ve_disable"],
        "Launch the TD with SEPT_VE_DISABLE (QEMU: tdx-guest,sept-ve-disable=on): without it the host injects #VE at any access to memory.",
    ),
    (
        &["tdx.attributes.migratable", "tdx.mr_service_td"],
        "Launch the TD without migration and without a service TD: as it is, other software can carry its state away.",
    ),
    (
        &[
            "tdx.attributes.perfmon",
            "tdx.attributes.key_locker",
            "tdx.attributes.pks",
            "tdx.attributes.others",
        ],
        TD_ATTRIBUTES,
    ),
    (
        &["tdx.xfam.fixed", "tdx.xfam"],
        "Update the TDX module or the VMM: it launches TDs with processor states that no module known here has.",
    ),
    (
        &["tdx.rtmr3", "tdx.rtmr3.events"],
        "Software measured something into RTMR3 after the start. Boot an image that does not, or have your verifiers expect its events (tdx.rtmr3.events).",
    ),
    (
        &["tdx.event_log"],
        "The event log does not give the quote's registers: something extends them without logging it, or the log is another boot's. Without a log (the enclave's quote.event_log) verifiers still judge the registers.",
    ),
    (
        &[
            "tdx.platform.instance",
            "tdx.platform.fmspc",
            "tdx.platform.ca",
            "tdx.platform.integrity",
            "tdx.platform.smt",
            "tdx.platform.dynamic",
            "tdx.platform.cached_keys",
        ],
        "It belongs to the platform and its registration with Intel: use another host, or have your verifiers expect this value once you know why it is so.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use attestation_verifier::policy::{check_ids, fixed_checks};
    use touchstone_formats::Tee;

    use super::*;

    /// Checks of evidence that no policy decides.
    fn fixed() -> impl Iterator<Item = &'static str> {
        let kinds = ["snp.", "tdx."];
        fixed_checks()
            .iter()
            .map(|check| check.id)
            .filter(move |id| kinds.iter().any(|kind| id.starts_with(kind)))
            .chain([
                "evidence.report_data",
                "quote.source",
                "quote.answer",
                "policy.platform",
            ])
    }

    #[test]
    fn every_check_that_a_platform_can_fail_has_advice() {
        let specs = || [Tee::SevSnp, Tee::Tdx].into_iter().flat_map(check_ids);
        let open = |id: &str| LEFT_OPEN.iter().any(|(open, _)| *open == id);
        let mut asked = 0;
        for spec in specs().filter(|spec| spec.template.contains("expect")) {
            assert_eq!(advice(spec.id).is_none(), open(spec.id), "{}", spec.id);
            asked += 1;
        }
        // What is left open is left open by the template, too.
        for (id, _) in LEFT_OPEN {
            let spec = specs().find(|spec| spec.id == id).unwrap();
            assert_eq!(spec.template, "{ expect = [] }", "{id}");
        }
        for id in fixed() {
            assert!(advice(id).is_some(), "{id}");
            asked += 1;
        }
        assert!(asked > 80, "{asked}");
    }

    #[test]
    fn advice_is_about_checks_that_exist_and_each_once() {
        let known: BTreeSet<&str> = [Tee::SevSnp, Tee::Tdx]
            .into_iter()
            .flat_map(check_ids)
            .map(|spec| spec.id)
            .chain(fixed())
            .collect();
        let mut seen = BTreeSet::new();
        for (ids, advice) in TABLE {
            assert!(advice.ends_with('.') && advice.len() > 40, "{advice}");
            for id in *ids {
                assert!(known.contains(id), "{id} is no check of a platform");
                assert!(seen.insert(id), "{id} twice");
            }
        }
        for (id, _) in OF_ANSWERS {
            let start = id.trim_end_matches('*');
            let all = attestation_verifier::explain::all();
            assert!(all.iter().any(|about| about.id.starts_with(start)), "{id}");
        }
    }
}
