//! The least that a policy accepts, in words.

use touchstone_formats::evidence::Tee;

use super::super::Floors;
use super::super::demand::{Bound, Demand, floors_words, product_of};
use super::{Aspect, Part, Weakest};

/// How an aspect of a part is said.
enum Line {
    /// What the rule accepts.
    Plain(&'static str, &'static str),
    /// Of a rule that is yes or no: what each answer means.
    Flag(&'static str, &'static str, [&'static str; 2]),
}

use Line::{Flag, Plain};

static ANSWER: &[Line] = &[
    Plain("guarantees", "answer.require"),
    Plain("models", "answer.models"),
    Plain("configurations", "answer.configs"),
    Plain("your nonce", "answer.nonce"),
    Plain("age of an answer", "answer.fresh_seconds"),
    Plain("life of the enclave's keys", "answer.keyset_span_seconds"),
    Plain("age of revocation data", "answer.collateral_age_seconds"),
];

static MANIFEST: &[Line] = &[
    Plain("name", "manifest.name"),
    Plain("version", "manifest.minimum_version"),
    Plain("signed by", "manifest.signer"),
];

static CONNECTION: &[Line] = &[
    Plain("bound before anything is sent", "session.binding"),
    Plain("bound for kept answers", "session.answers"),
    Plain("name of the enclave", "session.name"),
];

static SNP: &[Line] = &[
    Plain("product", "snp.product"),
    Plain("signed by", "snp.signing_key"),
    Plain("chips", "snp.chip_id"),
    Plain("revocation lists", "snp.chain.crl"),
    Plain("firmware, reported", "snp.tcb.reported"),
    Plain("firmware, committed", "snp.tcb.committed"),
    Plain("firmware, at launch", "snp.tcb.launch"),
    Flag(
        "provisional firmware",
        "snp.tcb.provisional",
        ["no", "yes: it can be rolled back without a reboot"],
    ),
    Flag(
        "debugging",
        "snp.policy.debug",
        ["off", "ON: the host reads and writes the guest's memory"],
    ),
    Flag(
        "migration agent",
        "snp.policy.migrate_ma",
        ["none", "allowed"],
    ),
    Plain("VMPL", "snp.vmpl"),
    Flag("SMT", "snp.platform.smt", ["off", "on"]),
    Flag(
        "aliased memory (BadRAM)",
        "snp.platform.alias_check",
        [
            "need not have been looked for",
            "looked for, and none found",
        ],
    ),
    Plain("software", "snp.measurement"),
    Plain("host data", "snp.host_data"),
    Plain("version of the image", "snp.guest_svn"),
];

static TDX: &[Line] = &[
    Plain("TCB status", "tdx.tcb.status"),
    Plain("advisories tolerated", "tdx.tcb.advisories"),
    Plain("OutOfDate tolerated", "tdx.tcb.grace"),
    Plain("number of Intel's evaluation", "tdx.tcb.evaluation_number"),
    Plain("platforms", "tdx.platform.instance"),
    Plain("families", "tdx.platform.fmspc"),
    Plain("memory protection", "tdx.platform.integrity"),
    Plain("SMT", "tdx.platform.smt"),
    Plain("revocation lists", "tdx.chain.crl"),
    Plain("TDX module", "tdx.module.measurement"),
    Flag(
        "debugging",
        "tdx.attributes.debug",
        ["off", "ON: the host reads and writes the TD's memory"],
    ),
    Flag(
        "SEPT_VE_DISABLE",
        "tdx.attributes.sept_ve_disable",
        ["off: the host can inject #VE", "on"],
    ),
    Flag("migration", "tdx.attributes.migratable", ["no", "allowed"]),
    Plain("service TD", "tdx.mr_service_td"),
    Plain("firmware (MRTD)", "tdx.mrtd"),
    Plain("firmware's configuration (RTMR0)", "tdx.rtmr0"),
    Plain("boot loader and kernel (RTMR1)", "tdx.rtmr1"),
    Plain("command line and initial file system (RTMR2)", "tdx.rtmr2"),
    Plain("what software measured (RTMR3)", "tdx.rtmr3"),
    Plain("events of RTMR3", "tdx.rtmr3.events"),
    Plain("event log", "tdx.event_log"),
    Plain("configuration by the host (MRCONFIGID)", "tdx.mr_config_id"),
    Plain("owner (MROWNER)", "tdx.mr_owner"),
    Plain(
        "owner's configuration (MROWNERCONFIG)",
        "tdx.mr_owner_config",
    ),
];

pub(super) fn of_part(part: &Part) -> Vec<Weakest> {
    match part.tee {
        None => {
            let mut all = vec![
                weakest(part, "answer", ANSWER),
                weakest(part, "connection", CONNECTION),
            ];
            if part.demand("manifest.signer").is_some() {
                all.push(weakest(part, "manifest", MANIFEST));
            }
            all
        }
        Some(Tee::SevSnp) => vec![weakest(part, &part.name, SNP)],
        Some(Tee::Tdx) => vec![weakest(part, &part.name, TDX)],
    }
}

fn weakest(part: &Part, name: &str, lines: &[Line]) -> Weakest {
    let mut accepts: Vec<Aspect> = Vec::new();
    for line in lines {
        let (aspect, id) = match line {
            Plain(aspect, id) | Flag(aspect, id, _) => (*aspect, *id),
        };
        let Some(demand) = part.demand(id) else {
            continue;
        };
        let mut words = match (line, demand) {
            (Flag(_, _, [no, yes]), Demand::Expected(Bound::Flag { value, .. })) => {
                if *value { yes } else { no }.to_string()
            }
            (_, Demand::Expected(Bound::Floors(floors))) => floors_words(&reachable(floors, part)),
            _ => demand.brief(),
        };
        // Floors are long, and mostly the same three times.
        let same = accepts.iter().find(|other| other.words == words);
        if let (Demand::Expected(Bound::Floors(_)), Some(other)) = (demand, same) {
            words = format!("as {}", other.aspect);
        }
        accepts.push(Aspect { aspect, words });
    }
    Weakest {
        part: name.to_owned(),
        tee: part.tee,
        accepts,
    }
}

/// The floors of the products that are accepted.
pub(super) fn reachable(floors: &Floors, part: &Part) -> Floors {
    let Some(Demand::Expected(Bound::OneOf(products))) = part.demand("snp.product") else {
        return floors.clone();
    };
    let kept = floors
        .0
        .iter()
        .filter(|(name, _)| products.contains(product_of(name)));
    Floors(kept.map(|(name, floor)| (name.clone(), *floor)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Form, check_ids};

    #[test]
    fn every_aspect_is_a_check_of_its_platform() {
        for (tee, lines) in [(Tee::SevSnp, SNP), (Tee::Tdx, TDX)] {
            for line in lines {
                let (id, flag) = match line {
                    Plain(_, id) => (id, false),
                    Flag(_, id, _) => (id, true),
                };
                let spec = check_ids(tee).iter().find(|spec| spec.id == *id);
                let form = spec
                    .unwrap_or_else(|| panic!("{id} is no check of {tee}"))
                    .form;
                assert_eq!(form == Form::Flag, flag, "{id}");
            }
        }
    }
}
