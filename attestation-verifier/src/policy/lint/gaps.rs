//! The rules that leave a gap when they are loose, and what the gap lets through.

use std::sync::LazyLock;

use touchstone_formats::evidence::Tee;

use super::super::demand::{Bound, Demand, product_of};
use super::super::{Floor, Floors, Policy, diff::platform_rules, template};
use super::weakest::reachable;
use super::{Finding, Level, Part};

/// A rule that leaves a gap when it is like this.
struct Gap {
    id: &'static str,
    level: Level,
    open: Like,
    /// What follows, for a finding.
    words: &'static str,
    /// What the policy does not protect from because of it, a sentence.
    lets: Option<&'static str>,
    /// Another rule that covers for this one, unless it is waived as well.
    unless: Option<&'static str>,
    /// Another rule, without whose being like this there is no gap.
    given: Option<(&'static str, Like)>,
}

/// Whether a demand is like this.
type Like = fn(&Demand) -> bool;

const fn gap(
    id: &'static str,
    level: Level,
    open: Like,
    words: &'static str,
    lets: Option<&'static str>,
) -> Gap {
    Gap {
        id,
        level,
        open,
        words,
        lets,
        unless: None,
        given: None,
    }
}

impl Gap {
    const fn unless(mut self, id: &'static str) -> Gap {
        self.unless = Some(id);
        self
    }

    const fn given(mut self, id: &'static str, like: Like) -> Gap {
        self.given = Some((id, like));
        self
    }

    fn open(&self, part: &Part) -> bool {
        let covered = self
            .unless
            .is_some_and(|id| part.demand(id).is_some_and(|other| !waived(other)));
        let given = self
            .given
            .is_none_or(|(id, like)| part.demand(id).is_some_and(like));
        let open = |demand: &Demand| match demand {
            // A floor of a product that is not accepted is nobody's.
            Demand::Expected(Bound::Floors(floors)) => {
                let floors = reachable(floors, part);
                (self.open)(&Demand::Expected(Bound::Floors(floors)))
            }
            demand => (self.open)(demand),
        };
        !covered && given && part.demand(self.id).is_some_and(open)
    }
}

fn waived(demand: &Demand) -> bool {
    matches!(demand, Demand::Waived(_))
}

/// Platforms that are out of date are accepted, within their grace.
pub(super) fn out_of_date(demand: &Demand) -> bool {
    has(demand, "OutOfDate") || has(demand, "OutOfDateConfigurationNeeded")
}

/// Not the safer answer.
fn unsafe_answer(demand: &Demand) -> bool {
    match demand {
        Demand::Expected(Bound::Flag { value, safer }) => {
            safer.is_some_and(|safer| safer != *value)
        }
        demand => waived(demand),
    }
}

fn has(demand: &Demand, word: &str) -> bool {
    match demand {
        Demand::Expected(Bound::OneOf(list)) => list.contains(word),
        demand => waived(demand),
    }
}

/// Waived, or a list with something else than zeros in it.
fn not_zero(demand: &Demand) -> bool {
    match demand {
        Demand::Expected(Bound::OneOf(list)) => {
            list.iter().any(|hex| hex.bytes().any(|b| b != b'0'))
        }
        demand => waived(demand),
    }
}

/// A list that has zero in it.
fn zero(demand: &Demand) -> bool {
    let unused = |hex: &String| hex.bytes().all(|b| b == b'0');
    matches!(demand, Demand::Expected(Bound::OneOf(list)) if list.iter().any(unused))
}

fn lacks(demand: &Demand, word: &str) -> bool {
    match demand {
        Demand::Expected(Bound::AllOf(list)) => !list.contains(word),
        demand => waived(demand),
    }
}

/// Waived, or longer than this many days.
fn longer(demand: &Demand, days: u64) -> bool {
    match demand {
        Demand::Expected(Bound::AtMost(seconds)) => *seconds > days * 86_400,
        demand => waived(demand),
    }
}

/// Some product's microcode has no floor. Floors of other components do not make up for that: microcode is what is forged.
fn floorless(demand: &Demand) -> bool {
    match demand {
        Demand::Expected(Bound::Floors(floors)) => {
            floors.0.values().any(|floor| floor.microcode == 0)
        }
        demand => waived(demand),
    }
}

/// Some product's floor is below the template's, which has the levels of AMD-SB-3019.
fn below_bulletin(demand: &Demand) -> bool {
    static TEMPLATE: LazyLock<Option<Floors>> = LazyLock::new(|| {
        let policy = Policy::parse(&template(Tee::SevSnp)).ok()?;
        let rules = policy.platforms.first()?.clone();
        platform_rules(&rules, 0).find_map(|(id, demand)| match demand {
            Demand::Expected(Bound::Floors(floors)) if id == "snp.tcb.reported" => Some(floors),
            _ => None,
        })
    });
    let (Demand::Expected(Bound::Floors(floors)), Some(template)) = (demand, TEMPLATE.as_ref())
    else {
        return false;
    };
    let below = |(name, least): (&String, &Floor)| {
        let Some(floor) = floors
            .0
            .get(name)
            .or_else(|| floors.0.get(product_of(name)))
        else {
            return false;
        };
        floor.snp < least.snp || floor.microcode < least.microcode
    };
    !floorless(demand) && template.0.iter().any(below)
}

/// A number of Intel's evaluation below the template's.
fn old_evaluation(demand: &Demand) -> bool {
    static TEMPLATE: LazyLock<u64> = LazyLock::new(|| {
        let policy = Policy::parse(&template(Tee::Tdx)).ok();
        let first = policy.and_then(|policy| policy.platforms.first().cloned());
        let number = first.and_then(|platform| {
            platform_rules(&platform, 0).find_map(|(id, demand)| match demand {
                Demand::Expected(Bound::AtLeast(n)) if id == "tdx.tcb.evaluation_number" => Some(n),
                _ => None,
            })
        });
        number.unwrap_or(u64::MAX)
    });
    match demand {
        Demand::Expected(Bound::AtLeast(number)) => number < &TEMPLATE,
        demand => waived(demand),
    }
}

/// Events are named, and none of them need say anything.
fn any_events(demand: &Demand) -> bool {
    match demand {
        Demand::Expected(Bound::Events(events)) => {
            !events.is_empty() && events.iter().all(|event| event.ends_with("=*"))
        }
        demand => waived(demand),
    }
}

/// Waived, or a list with something else in it than that there is no migration agent.
fn not_ones(demand: &Demand) -> bool {
    match demand {
        Demand::Expected(Bound::OneOf(list)) => {
            list.iter().any(|hex| hex.bytes().any(|b| b != b'f'))
        }
        demand => waived(demand),
    }
}

const ANY_SOFTWARE: &str = "Other software than you mean: whoever runs any program at all on such a platform satisfies the policy.";
const OLD_FIRMWARE: &str = "Known holes in the platform: firmware is accepted that can be made to sign for what it does not run.";

/// In the order in which an attacker would choose: what [`not_protected`] names is taken from the top.
static GAPS: &[Gap] = &[
    gap(
        "snp.measurement",
        Level::Refuse,
        waived,
        "Any software is accepted: the evidence then shows that a guest is a guest, and nothing about what runs in it.",
        Some(ANY_SOFTWARE),
    ),
    gap(
        "tdx.mrtd",
        Level::Refuse,
        waived,
        "Any firmware of a TD is accepted, and it is the firmware that measures everything above it.",
        Some(ANY_SOFTWARE),
    ),
    gap(
        "tdx.rtmr1",
        Level::Refuse,
        waived,
        "Any boot loader and kernel is accepted: nothing above the firmware is known.",
        Some(ANY_SOFTWARE),
    ),
    gap(
        "tdx.rtmr2",
        Level::Refuse,
        waived,
        "Any command line and initial file system is accepted: a known kernel starts whatever they say.",
        Some(ANY_SOFTWARE),
    ),
    gap(
        "answer.models",
        Level::Refuse,
        waived,
        "Any model is accepted: the operator may answer with another, cheaper or rigged one.",
        Some("Another model than you mean: the operator chooses which one answers."),
    ),
    gap(
        "snp.policy.debug",
        Level::Refuse,
        unsafe_answer,
        "Guests are accepted that the host may debug: it reads and writes their memory, keys included.",
        Some(
            "The machine's owner: he may read and write the memory of the guest, and sign with its keys.",
        ),
    ),
    gap(
        "snp.vmpl",
        Level::Refuse,
        |demand| has(demand, "4294967295"),
        "Reports are accepted that the host asked for: they say nothing about who in the guest speaks.",
        Some("The machine's owner: he may ask for reports over what he likes."),
    ),
    gap(
        "snp.tcb.reported",
        Level::Refuse,
        floorless,
        "Any firmware is accepted, also such as is known to load forged microcode (CVE-2024-56161) and then signs anything.",
        Some(OLD_FIRMWARE),
    ),
    gap(
        "tdx.attributes.debug",
        Level::Refuse,
        unsafe_answer,
        "TDs are accepted that the host may debug: it reads and writes their memory and registers, keys included.",
        Some("The machine's owner: he may read and write the memory of the guest, and sign with its keys."),
    ),
    gap(
        "tdx.tcb.status",
        Level::Refuse,
        waived,
        "Any TCB status is accepted but Revoked, also such as Intel knows attacks on, whichever they are.",
        Some(OLD_FIRMWARE),
    ),
    gap(
        "tdx.rtmr3.events",
        Level::Refuse,
        any_events,
        "Neither RTMR3 is pinned nor what its events say: where software is chosen while the TD runs (dstack), any may have been.",
        Some("Software that was started later than what is measured at boot, such as an application's containers."),
    )
    .unless("tdx.rtmr3"),
    gap(
        "tdx.tcb.status",
        Level::Weak,
        out_of_date,
        "Platforms are accepted that are out of date: Intel has published attacks on them, and updates that they lack.",
        Some(OLD_FIRMWARE),
    ),
    gap(
        "tdx.tcb.advisories",
        Level::Weak,
        waived,
        "Whatever Intel's advisories say of the platform is tolerated, also what they will say tomorrow.",
        Some("Attacks that Intel publishes from now on, at a level that is tolerated today."),
    ),
    gap(
        "tdx.attributes.sept_ve_disable",
        Level::Weak,
        unsafe_answer,
        "TDs are accepted into which the host can inject #VE at any access to memory.",
        Some("Exceptions that the host injects: most guest kernels are not written for #VE at any access."),
    ),
    gap(
        "tdx.attributes.migratable",
        Level::Weak,
        unsafe_answer,
        "TDs are accepted that a migration TD may move: that TD's software is trusted too.",
        Some("The migration agent: it may take the state of the guest, keys included, to another place."),
    ),
    gap(
        "tdx.mr_service_td",
        Level::Weak,
        not_zero,
        "TDs are accepted that a service TD is bound to: it has powers over them, and its software is trusted too.",
        Some("The migration agent: it may take the state of the guest, keys included, to another place."),
    ),
    gap(
        "tdx.module.signer",
        Level::Weak,
        not_zero,
        "TDX modules are accepted that somebody else than Intel signed.",
        Some("Whoever signed the TDX module: it is what keeps the host out."),
    ),
    gap(
        "tdx.module.attributes",
        Level::Weak,
        not_zero,
        "TDX modules are accepted that are not for production.",
        Some("Whoever debugs the TDX module: it is what keeps the host out."),
    ),
    gap(
        "tdx.attributes.others",
        Level::Weak,
        unsafe_answer,
        "TDs are accepted with attributes that are not known here, some of which make a TD untrusted by definition.",
        None,
    ),
    gap(
        "snp.product",
        Level::Weak,
        |demand| has(demand, "Milan"),
        "Milan is accepted: the seed of its endorsement keys was extracted by software alone (arXiv 2605.12990).",
        Some(
            "Forged reports of Milan chips: whoever extracted one chip's seed signs what he likes for it.",
        ),
    ),
    gap(
        "session.binding",
        Level::Weak,
        |demand| has(demand, "none"),
        "Connections need not end in the enclave: whoever relays them may read what you ask, and what comes back.",
        Some("Whoever relays the connection: he may read your questions and the answers."),
    ),
    gap(
        "answer.nonce",
        Level::Weak,
        waived,
        "Your own nonce need not be in the receipt: an answer may be older than your question.",
        Some("An old answer to the same question, shown again."),
    ),
    gap(
        "snp.chain.crl",
        Level::Weak,
        waived,
        "No revocation list is needed: keys that AMD has revoked are accepted as long as nobody shows a list.",
        Some("Revoked keys: whoever leaves the revocation lists out is believed."),
    ),
    gap(
        "tdx.chain.crl",
        Level::Weak,
        waived,
        "No revocation list is needed: platforms that Intel has revoked are accepted as long as nobody shows a list.",
        Some("Revoked keys: whoever leaves the revocation lists out is believed."),
    ),
    gap(
        "tdx.tcb.evaluation_number",
        Level::Weak,
        old_evaluation,
        "An old evaluation of Intel's is accepted: the operator may choose it, and under it his platform looks up to date.",
        Some("An operator who shows an old evaluation of Intel's, from before an attack was known."),
    ),
    gap(
        "tdx.rtmr1",
        Level::Weak,
        zero,
        "RTMR1 may be unused (zero): nothing then shows which boot loader and kernel were started, unless they are part of the \
         firmware that MRTD measures.",
        Some("Another operating system than you mean, where the firmware measures none."),
    ),
    gap(
        "tdx.rtmr2",
        Level::Weak,
        zero,
        "RTMR2 may be unused (zero): nothing then shows the command line and the initial file system, unless they are part of what \
         is measured before.",
        Some("Another command line or initial file system than you mean, where what is started before measures none."),
    ),
    gap(
        "tdx.rtmr0",
        Level::Weak,
        waived,
        "Any configuration of the firmware is accepted, the host's tables included.",
        Some("A configuration that the host chose at launch."),
    ),
    gap(
        "snp.policy.migrate_ma",
        Level::Weak,
        unsafe_answer,
        "Guests are accepted that a migration agent may move: that agent's software is trusted too.",
        Some(
            "The migration agent: it may take the state of the guest, keys included, to another place.",
        ),
    ),
    gap(
        "snp.report_id_ma",
        Level::Weak,
        not_ones,
        "Guests are accepted that have a migration agent: that agent's software is trusted too.",
        Some(
            "The migration agent: it may take the state of the guest, keys included, to another place.",
        ),
    ),
    gap(
        "snp.tcb.reported",
        Level::Weak,
        below_bulletin,
        "Firmware below the levels of AMD-SB-3019 is accepted: it is known to load forged microcode (CVE-2024-56161).",
        Some(OLD_FIRMWARE),
    ),
    gap(
        "snp.platform.alias_check",
        Level::Weak,
        unsafe_answer,
        "Machines are accepted that did not look for aliased memory (BadRAM, CVE-2024-21944).",
        Some(
            "Memory modules that lie about their size (BadRAM): who has put them in rewrites the guest's memory.",
        ),
    ),
    gap(
        "manifest.signer",
        Level::Weak,
        |demand| matches!(demand, Demand::Expected(Bound::Signatures { threshold: 1, .. })),
        "One signature is enough for a manifest: whoever has one signer's key names the software and models that are accepted.",
        Some("A signer whose key was stolen, or who lies: one signature under a manifest is enough."),
    ),
    gap(
        "snp.vmpl",
        Level::Weak,
        |demand| matches!(demand, Demand::Expected(Bound::OneOf(list)) if list.iter().any(|v| v != "0" && v != "4294967295")),
        "Reports from a VMPL above 0 are accepted: something more privileged runs in the same guest, and is trusted too.",
        Some("What runs at VMPL 0 of the guest, such as a cloud provider's paravisor."),
    ),
    gap(
        "snp.tcb.committed",
        Level::Weak,
        floorless,
        "The committed firmware has no floor: the host can roll back below the level that it shows.",
        Some("A roll-back of the firmware after the report was made."),
    ),
    gap(
        "snp.tcb.launch",
        Level::Weak,
        floorless,
        "The firmware at launch has no floor: a guest may have been launched under firmware with known holes.",
        Some(OLD_FIRMWARE),
    ),
    gap(
        "snp.tcb.committed",
        Level::Weak,
        below_bulletin,
        "The committed firmware may be below the levels of AMD-SB-3019: the host can roll back to it.",
        Some("A roll-back of the firmware after the report was made."),
    ),
    gap(
        "snp.tcb.launch",
        Level::Weak,
        below_bulletin,
        "The firmware at launch may be below the levels of AMD-SB-3019: a guest may have been launched under firmware with known \
         holes.",
        Some(OLD_FIRMWARE),
    ),
    gap(
        "snp.tcb.provisional",
        Level::Weak,
        unsafe_answer,
        "Provisional firmware is accepted: it can be rolled back without a reboot.",
        Some("A roll-back of the firmware after the report was made."),
    ),
    gap(
        "snp.signing_key",
        Level::Weak,
        |demand| has(demand, "vlek"),
        "VLEKs are accepted: the report shows whose machine it was, not which.",
        Some(
            "The cloud provider's key (VLEK): whoever holds it signs for any of the provider's machines.",
        ),
    ),
    gap(
        "snp.vlek.csp",
        Level::Weak,
        waived,
        "The VLEK of any cloud provider is accepted, whoever that is.",
        Some(
            "The cloud provider's key (VLEK): whoever holds it signs for any of the provider's machines.",
        ),
    )
    .given("snp.signing_key", |demand| has(demand, "vlek")),
    gap(
        "snp.host_data",
        Level::Weak,
        waived,
        "Any HOST_DATA is accepted: software that takes it for its configuration may be configured by the host.",
        Some("A configuration that the host chose at launch."),
    ),
    gap(
        "tdx.mr_config_id",
        Level::Weak,
        waived,
        "Any MRCONFIGID is accepted: software that takes it for its configuration may be configured by the host.",
        Some("A configuration that the host chose at launch."),
    ),
    gap(
        "answer.keyset_span_seconds",
        Level::Weak,
        |demand| longer(demand, 30),
        "The enclave's keys may live for more than 30 days: a key that leaks is good for long.",
        Some("Keys that leaked long ago: a keyset may live for more than a month."),
    ),
    gap(
        "answer.collateral_age_seconds",
        Level::Weak,
        |demand| longer(demand, 90),
        "Revocation data may be older than 90 days: what was revoked since is accepted.",
        Some("Keys revoked since: revocation data may be months old."),
    ),
    gap(
        "answer.require",
        Level::Weak,
        |demand| lacks(demand, "logged") && lacks(demand, "quoted"),
        "Neither `logged` nor `quoted` is asked for: nothing fixes an answer's place among the others, or its time.",
        Some("Answers that are denied afterwards: no log has to hold them."),
    ),
    gap(
        "snp.chip_id.masked",
        Level::Note,
        unsafe_answer,
        "Reports are accepted that do not say which chip made them.",
        None,
    ),
    gap(
        "snp.chip_id",
        Level::Note,
        waived,
        "Any genuine chip is accepted. Chips that you know are the one defence here against somebody who holds one in his hands.",
        Some(
            "Somebody with a chip of his own: interposers on the memory bus (Battering RAM, TEE.fail) bring out what signs \
              reports, and any genuine chip is accepted.",
        ),
    ),
    gap(
        "tdx.platform.instance",
        Level::Note,
        waived,
        "Any genuine platform is accepted. Platforms that you know are the one defence here against somebody who holds one in his hands.",
        Some("Somebody with a chip of his own: interposers on the memory bus (Battering RAM, TEE.fail) bring out what signs \
              reports, and any genuine chip is accepted."),
    ),
    gap(
        "manifest.minimum_version",
        Level::Note,
        |demand| matches!(demand, Demand::Expected(Bound::AtLeast(0 | 1))),
        "Every version of the manifest is accepted that has not ended. Who keeps no record of accepted versions (--manifest-state) can be \
         shown one that was replaced: raise this with each manifest.",
        Some("An older manifest, which lists releases that were withdrawn since: no version is the least."),
    ),
    gap(
        "answer.configs",
        Level::Note,
        waived,
        "Any configuration of the models is accepted that the measured software can make.",
        Some("Another configuration (runtime, options, pre- and post-processing) than you mean."),
    ),
];

/// Checks that pin machines.
const CHIPS: &[&str] = &["snp.chip_id", "tdx.platform.instance"];
const ANOTHER_ENCLAVE: &str = "Another genuine enclave than you mean: no chip and no name is pinned, and whoever relays you may lead you to any \
     that satisfies the policy.";

/// What no policy closes.
static RESIDUAL: &[&str] = &[
    "Physical access to the machine: no bit of a report shows whether something sits on the memory bus.",
    "Side channels and injected interrupts (HECKLER, WeSee): whether the software withstands a hostile hypervisor is the \
     software's own merit.",
    "A model that is wrong, biased or rigged from the start: a receipt says what ran, not that it is any good.",
];

pub(super) fn of_part(part: &Part, findings: &mut Vec<Finding>) {
    if part.tee.is_some() && part.demands.iter().all(|(_, demand)| waived(demand)) {
        findings.push(Finding {
            level: Level::Refuse,
            key: part.name.clone(),
            words: "Every check is waived: any genuine chip in any state satisfies this platform."
                .into(),
        });
    }
    for gap in open(part) {
        findings.push(Finding {
            level: gap.level,
            key: part.key(gap.id),
            words: gap.words.to_owned(),
        });
    }
}

fn open(part: &Part) -> impl Iterator<Item = &'static Gap> {
    GAPS.iter().filter(|gap| gap.open(part))
}

/// Three things that a policy does not protect from: what it leaves open, the worst first, then what none
/// closes.
pub(super) fn not_protected(answer: &Part, platforms: &[Part]) -> Vec<&'static str> {
    let anywhere = |gap: &Gap| {
        let mut parts = std::iter::once(answer).chain(platforms);
        parts.any(|part| gap.open(part))
    };
    let own = GAPS
        .iter()
        .filter(|gap| anywhere(gap))
        .filter_map(|gap| gap.lets);
    let unnamed = answer.demand("session.name").is_some_and(waived);
    let strangers = unnamed
        && platforms
            .iter()
            .any(|part| CHIPS.iter().any(|id| part.demand(id).is_some_and(waived)));
    let own = own.chain(strangers.then_some(ANOTHER_ENCLAVE));
    let mut three = Vec::with_capacity(3);
    for words in own.chain(RESIDUAL.iter().copied()) {
        if three.len() < 3 && !three.contains(&words) {
            three.push(words);
        }
    }
    three
}

#[cfg(test)]
mod tests {
    use touchstone_formats::evidence::Tee;

    use super::*;
    use crate::policy::{Policy, check_ids, template};

    #[test]
    fn every_gap_is_about_a_rule_there_is() {
        let policy = Policy::parse(&template(Tee::SevSnp)).unwrap();
        let mut known: Vec<&str> = super::super::answer_rules(&policy, 0)
            .iter()
            .map(|(id, _)| *id)
            .collect();
        known.extend(
            [Tee::SevSnp, Tee::Tdx]
                .into_iter()
                .flat_map(check_ids)
                .map(|spec| spec.id),
        );
        known.extend(["manifest.minimum_version", "manifest.signer"]);
        for id in GAPS
            .iter()
            .flat_map(|gap| [Some(gap.id), gap.unless, gap.given.map(|(id, _)| id)])
            .flatten()
        {
            assert!(known.contains(&id), "{id}");
        }
    }
}
