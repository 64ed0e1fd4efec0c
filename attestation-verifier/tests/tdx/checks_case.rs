//! A simulated machine and the policy that its evidence is held against, of which a test changes one thing.

use attestation_verifier::verdict::Verdict;
use touchstone_formats::evidence::{EventLog, Evidence};
use touchstone_testkit::events::event_type;
use touchstone_testkit::intel::{Configuration, SgxExtensions};
use touchstone_testkit::machine::{TdxMachine, TeeMachine};
use touchstone_testkit::tdx::TdReport;

use crate::case::Inputs;
use crate::simulated::{Scene, chain_pem, ders, processor, v4, v5};
use crate::support::{template, with};

/// A machine, and the policy that its evidence is held against.
pub struct Case {
    /// Quote, keys, certificates and collateral, signed when the case is judged.
    pub scene: Scene,
    /// The policy, TOML.
    pub policy: String,
    /// The event log beside the quote.
    pub log: fn(&TdxMachine) -> Option<EventLog>,
}

/// An honest machine under the strict template, its measurements filled in.
pub fn case(scene: Scene) -> Case {
    Case {
        policy: policy_for(&scene.machine),
        scene,
        log: TeeMachine::event_log,
    }
}

/// The strict template, with the measurements of this machine.
pub fn policy_for(machine: &TdxMachine) -> String {
    let report = &machine.report.report;
    let mut policy = with(&template(), "tdx.mrtd", &one(&report.mr_td));
    for (id, rtmr) in ["tdx.rtmr0", "tdx.rtmr1", "tdx.rtmr2"]
        .into_iter()
        .zip(report.rtmr)
    {
        policy = with(&policy, id, &one(&rtmr));
    }
    policy
}

pub fn one(bytes: &[u8]) -> String {
    format!("{{ expect = \"{}\" }}", hex::encode(bytes))
}

pub fn strict() -> Case {
    case(v5())
}

pub fn strict_v4() -> Case {
    case(v4())
}

/// A platform that its CA says nothing of.
pub fn undefined() -> Case {
    case(processor())
}

/// A PCK certificate by the Platform CA that says neither instance nor configuration.
pub fn brief() -> Case {
    let mut case = strict();
    case.platform(|p| *p = p.clone().of_processor_ca());
    case
}

/// Chains with empty lines between and behind their certificates.
pub fn joined() -> Case {
    fn empty_lines(pem: &str) -> String {
        pem.replace("E-----\n-", "E-----\n\n-") + "\n"
    }
    let mut case = strict();
    case.scene.quote(|m, q| {
        q.pck_chain = empty_lines(&chain_pem(&ders(m))).into_bytes();
    });
    case.scene.collateral(|_, c| {
        let chains = [
            &mut c.tcb_info_issuer_chain,
            &mut c.qe_identity_issuer_chain,
            &mut c.pck_crl_issuer_chain,
        ];
        for chain in chains.into_iter().flatten() {
            *chain = empty_lines(chain);
        }
    });
    case
}

/// Everything pinned that the template waives.
pub fn pinned() -> Case {
    let mut case = strict();
    let (report, platform) = (
        &case.scene.machine.report.report,
        &case.scene.machine.platform,
    );
    for (id, value) in [
        ("tdx.module.measurement", one(&report.mr_seam)),
        (
            "tdx.xfam",
            format!("{{ expect = \"0x{:x}\" }}", report.xfam),
        ),
        ("tdx.platform.instance", one(&platform.ppid)),
        ("tdx.platform.fmspc", one(&platform.fmspc)),
        ("tdx.platform.smt", "{ expect = \"yes\" }".into()),
        ("tdx.platform.dynamic", "{ expect = [\"no\"] }".into()),
        ("tdx.platform.cached_keys", "{ expect = [\"no\"] }".into()),
    ] {
        case.policy = with(&case.policy, id, &value);
    }
    case
}

/// A level that is tolerated: out of date, with every advisory named and a grace until the day of judgement.
pub fn tolerated() -> Case {
    let mut case = strict();
    case.report(|r| {
        r.tee_tcb_svn[2] -= 1;
        r.v1_5.as_mut().expect("a 1.5 body").tee_tcb_svn_2 = r.tee_tcb_svn;
    });
    case.platform(|p| p.comp_svn = p.comp_svn.map(|n| n.saturating_sub(1)));
    case.set("tdx.tcb.status", "{ expect = [\"OutOfDate\"] }");
    let named = "{ expect = [\"INTEL-SA-99001\", \"INTEL-SA-99002\"] }";
    case.set("tdx.tcb.advisories", named);
    case.set("tdx.tcb.grace", "{ expect = \"2026-09-21\" }");
    case
}

/// Software that measured two things into RTMR3, known by their digests.
pub fn measured() -> Case {
    let mut case = strict();
    for data in [b"application", b"settings   "] {
        case.scene.machine.measure(3, event_type::EVENT_TAG, data);
    }
    let events = &case.scene.machine.events.events;
    let own: Vec<String> = events
        .iter()
        .filter(|event| event.mr_index == 4)
        .map(|event| format!("sha384:{}", hex::encode(event.digest)))
        .collect();
    case.set("tdx.rtmr3.events", &format!("{{ expect = {own:?} }}"));
    case.set(
        "tdx.rtmr3",
        &one(&case.scene.machine.report.report.rtmr[3].clone()),
    );
    case
}

impl Case {
    pub fn set(&mut self, id: &str, value: &str) {
        self.policy = with(&self.policy, id, value);
    }

    pub fn report(&mut self, change: impl FnOnce(&mut TdReport)) {
        change(&mut self.scene.machine.report.report);
    }

    pub fn platform(&mut self, change: impl FnOnce(&mut SgxExtensions)) {
        change(&mut self.scene.machine.platform);
        self.scene.machine.reissue();
    }

    pub fn configuration(&mut self, change: impl FnOnce(&mut Configuration)) {
        self.platform(|p| change(p.configuration.as_mut().expect("by the Platform CA")));
    }

    pub fn evidence(&self) -> Evidence {
        let mut evidence = self.scene.evidence();
        evidence.event_log = (self.log)(&self.scene.machine);
        evidence
    }

    pub fn inputs(&self) -> Inputs {
        self.scene.inputs(self.evidence(), self.policy.clone())
    }

    pub fn judge(&self) -> Verdict {
        self.inputs().judge()
    }
}
