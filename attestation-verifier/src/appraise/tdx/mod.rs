//! What a genuine TDX quote says, against one platform of a policy.

pub(super) mod log;
pub(super) mod platform;
mod tcb;

use serde_json::Value;
use touchstone_formats::evidence::{EventLog, Evidence};
use touchstone_formats::text::hex_encode;

use super::rules::{self, CrlState, MISFIT, Observed, Plain, by_rules, listed};
use crate::At;
use crate::authenticate::intel::{AuthenticTdx, Part, PartKind};
use crate::dates::{end_of_day, rfc3339};
use crate::events::Event;
use crate::manifest::MinimumTcb;
use crate::parse::tdx::pck::PckExtensions;
use crate::parse::tdx::quote::{Quote, TdReport};
use crate::parse::tdx::tcb::TcbStatus;
use crate::policy::{CheckSpec, Expect, Platform, Rule};
use crate::reference::{Measured, Registers, Ruling};
use crate::verdict::{Checks, Fault, object};
use log::Log;
use tcb::Standing;

/// Bits of TDATTRIBUTES (Intel TDX DCAP Quoting Library API, appendix A.3.2; Intel TDX Module ABI, ATTRIBUTES).
pub mod attributes {
    /// DEBUG: the host may read and write the TD.
    pub const DEBUG: u64 = 1;
    /// SEPT_VE_DISABLE: no #VE at pages that the host takes away.
    pub const SEPT_VE_DISABLE: u64 = 1 << 28;
    /// MIGRATABLE: a migration TD may move it.
    pub const MIGRATABLE: u64 = 1 << 29;
    /// PKS: supervisor protection keys.
    pub const PKS: u64 = 1 << 30;
    /// KL: Key Locker.
    pub const KL: u64 = 1 << 31;
    /// PERFMON: performance counters.
    pub const PERFMON: u64 = 1 << 63;
    /// All of these.
    pub const KNOWN: u64 = DEBUG | SEPT_VE_DISABLE | MIGRATABLE | PKS | KL | PERFMON;
}

/// [`Part::name`] of the one piece of collateral whose age is not asked.
const ROOT_LIST: &str = "the root's revocation list";

/// Bits of XFAM that are always set: x87 and SSE.
const XFAM_FIXED_1: u64 = 0x3;
/// Bits of XFAM that may be set: x87, SSE, AVX, AVX-512, PT, PKRU, CET, user interrupts, LBR, AMX.
const XFAM_FIXED_0: u64 = 0x6_dbe7;

/// Appraises what is authentic against one platform of a policy, with the event log that came beside the quote. The
/// evidence satisfies it if, and only if, the checks that come back [`Checks::hold`]. `age` is
/// `answer.collateral_age_seconds`. There is no manifest here: what expects one is not evaluated, which refuses.
pub fn appraise(
    authentic: &AuthenticTdx,
    event_log: Option<&EventLog>,
    platform: &Platform,
    age: &Rule<u64>,
    at: At,
    about: Option<&'static str>,
) -> Checks {
    Genuine::new(authentic.clone(), event_log).appraise(platform, age, None, at, about)
}

/// What is authentic, with everything that follows from it and from the log.
pub(super) struct Genuine {
    pub(super) authentic: AuthenticTdx,
    standing: Result<Standing, String>,
    log: Log,
}

impl Genuine {
    pub(super) fn new(authentic: AuthenticTdx, event_log: Option<&EventLog>) -> Genuine {
        Genuine {
            standing: Standing::of(&authentic),
            log: Log::of(event_log, authentic.report()),
            authentic,
        }
    }

    pub(super) fn of(authentic: AuthenticTdx, evidence: &Evidence) -> Genuine {
        Genuine::new(authentic, evidence.event_log.as_ref())
    }

    pub(super) fn appraise(
        &self,
        platform: &Platform,
        age: &Rule<u64>,
        ruling: Option<&Ruling>,
        at: At,
        about: Option<&'static str>,
    ) -> Checks {
        let checks = about.map_or_else(Checks::new, Checks::about);
        let mut checks = checks.with_room(platform.rules().len() + 3);
        self.level(&mut checks);
        self.module(&mut checks);
        by_rules(&self.facts(), platform, ruling, at, &mut checks);
        self.collateral_age(platform, age, at, &mut checks);
        checks
    }

    fn report(&self) -> &TdReport {
        self.authentic.report()
    }

    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            quote: self.authentic.quote(),
            pck: self.authentic.pck(),
            log: &self.log,
            collateral: Some(self),
        }
    }

    /// The number of Intel's evaluation that the collateral is of.
    fn evaluation_number(&self) -> u64 {
        let info = self.authentic.tcb_info().tcb_evaluation_data_number;
        let identity = self.authentic.qe_identity().tcb_evaluation_data_number;
        info.min(identity).into()
    }

    /// `tdx.tcb.level`: there is a level for everything, and none is Revoked. No policy changes that.
    fn level(&self, checks: &mut Checks) {
        let id = "tdx.tcb.level";
        match &self.standing {
            Err(reason) => {
                checks.fail(
                    id,
                    Fault::Platform,
                    Value::Null,
                    Value::Null,
                    reason.as_str(),
                );
            }
            Ok(standing) => {
                let revoked = |part: &&tcb::Part| part.status == TcbStatus::Revoked;
                let found = standing.status.word();
                match standing.parts.iter().find(revoked) {
                    Some(part) => {
                        let reason = format!("Intel revoked the level of: {}", part.name);
                        checks.fail(id, Fault::Platform, Value::Null, found, reason);
                    }
                    None => checks.pass(id, Value::Null, found),
                }
            }
        }
    }

    /// `tdx.module.identity`: the TDX module is what the signed TCB info says, attributes that it does not name zero.
    fn module(&self, checks: &mut Checks) {
        let id = "tdx.module.identity";
        let report = self.report();
        let shown = |signer: &[u8], attributes: &[u8]| {
            object([
                ("signer", hex_encode(signer).into()),
                ("attributes", hex_encode(attributes).into()),
            ])
        };
        let found = shown(&report.mr_signer_seam, &report.seam_attributes);
        let module = match tcb::module(&self.authentic) {
            Ok(module) => module,
            Err(reason) => return checks.fail(id, Fault::Platform, Value::Null, found, reason),
        };
        let expected = shown(&module.mrsigner, &module.attributes);
        let masks = module.attributes.iter().zip(&module.attributes_mask);
        let attributes = report
            .seam_attributes
            .iter()
            .zip(masks)
            .all(|(found, (expected, mask))| *found == expected & mask);
        if report.mr_signer_seam == module.mrsigner && attributes {
            checks.pass(id, expected, found);
        } else {
            let reason = "the TDX module is not the one that Intel's TCB info names";
            checks.fail(id, Fault::Platform, expected, found, reason);
        }
    }

    /// The oldest piece of collateral. The PCK CA's revocation list counts only where lists are demanded at all, and are good. The
    /// root's is issued once a year: its own validity is all that can be asked of it.
    fn collateral_age(&self, platform: &Platform, age: &Rule<u64>, at: At, checks: &mut Checks) {
        let lists = !rules::waived(platform.rule("tdx.chain.crl"), at.time)
            && self.crl_state(at.time).state == "current";
        let parts = self.authentic.windows().iter();
        let counted = parts.filter(|part| match part.kind {
            PartKind::Certificate => false,
            PartKind::Crl => lists && part.name != ROOT_LIST,
            PartKind::Signed => true,
        });
        if let Some(oldest) = counted.min_by_key(|part| part.window.from) {
            let (id, issued) = ("tdx.collateral.age", oldest.window.from);
            rules::age(id, oldest.name, issued, age, at.time, checks);
        }
    }

    /// Both lists have to be there, and good.
    fn crl_state(&self, time: u64) -> CrlState {
        let parts = self.authentic.windows().iter();
        let lists: Vec<&Part> = parts.filter(|part| part.kind == PartKind::Crl).collect();
        if lists.len() < 2 {
            let reason = "the revocation lists of the PCK CA and of the root did not both come with the evidence";
            return CrlState::missing(reason);
        }
        let state = if lists.iter().all(|list| list.window.holds(time)) {
            return CrlState::current();
        } else if lists.iter().any(|list| list.window.from > time) {
            "not-yet-valid"
        } else {
            "expired"
        };
        let words: Vec<String> = lists
            .iter()
            .map(|list| format!("{} from {}", list.name, list.window.words()))
            .collect();
        let words = words.join(", ");
        let reason = format!(
            "not both revocation lists are good at the time of judgement: {state}; good is {words}"
        );
        CrlState { state, reason }
    }
}

impl Measured for Genuine {
    fn registers(&self) -> Registers {
        let [rtmr0, rtmr1, rtmr2, _] = self.report().rtmr;
        Registers::Tdx(self.report().mr_td, [rtmr0, rtmr1, rtmr2])
    }

    fn reaches(&self, minimum: &MinimumTcb) -> (Value, Result<(), String>) {
        let number = self.evaluation_number();
        let found = object([("tcb_evaluation_data_number", number.into())]);
        let result = match minimum {
            MinimumTcb::Tdx {
                tcb_evaluation_data_number: least,
            } if number >= *least => Ok(()),
            MinimumTcb::Tdx {
                tcb_evaluation_data_number: least,
            } => Err(format!(
                "the platform was judged by Intel's evaluation {number}, and {least} is the least"
            )),
            MinimumTcb::Snp(_) => Err("its minimum is of another kind of platform".to_owned()),
        };
        (found, result)
    }
}

/// What a quote, its collateral or its event log shows for one check.
pub(super) enum Seen {
    Plain(Plain),
    /// A word, and what to say if it is not expected.
    Because(&'static str, String),
    /// All of these have to be in the list.
    All(Vec<String>),
    /// One of these has to be in the list.
    Any(Vec<String>),
    /// The status needs a grace, at this time; or it needs none.
    Grace(Option<u64>),
    /// This body has no such field, and stands for one that is zero.
    NoField(String),
    Events(Result<Vec<Event>, String>),
    /// It cannot be told, and why.
    Unknown(String),
}

/// What there is to look at: a quote with its PCK certificate and log, and what Intel's collateral says of it.
pub(super) struct Facts<'a> {
    pub(super) quote: &'a Quote,
    pub(super) pck: &'a PckExtensions,
    pub(super) log: &'a Log,
    /// None: there is none, or it is not authentic.
    pub(super) collateral: Option<&'a Genuine>,
}

impl Observed for Facts<'_> {
    type Seen = Seen;

    fn observe(&self, id: &str, time: u64) -> Option<Seen> {
        let special = match id {
            "tdx.tcb.status" => self.collateral?.standing(|standing| {
                let reason = if standing.relaunch {
                    "the TD was launched under a TDX module that is out of date, and the one that runs now is not: launch \
                     the TD anew"
                        .to_owned()
                } else {
                    let flawed = |part: &&tcb::Part| part.status != TcbStatus::UpToDate;
                    let flawed = standing.parts.iter().filter(flawed);
                    let words: Vec<String> = flawed
                        .map(|part| format!("{}: {}", part.name, part.status.word()))
                        .collect();
                    words.join(", ")
                };
                Seen::Because(standing.status.word(), reason)
            }),
            "tdx.tcb.advisories" => self
                .collateral?
                .standing(|standing| Seen::All(standing.advisories.iter().cloned().collect())),
            "tdx.tcb.grace" => self.collateral?.standing(|standing| {
                Seen::Grace(tcb::out_of_date(standing.status).then_some(time))
            }),
            "tdx.event_log" => match self.log {
                Log::Useless(state, reason) => Seen::Because(state, reason.clone()),
                log => Seen::Because(log.state(), String::new()),
            },
            "tdx.rtmr3.events" => {
                let events = self.log.runtime(self.report());
                Seen::Events(events.map(|events| events.into_iter().cloned().collect()))
            }
            "tdx.mr_service_td" => match &self.report().mr_service_td {
                Some(digest) => Seen::Plain(Plain::Text(hex_encode(digest))),
                None => Seen::NoField(hex_encode(&[0; 48])),
            },
            "tdx.platform.instance" => {
                let instance = self.pck.platform_instance_id.iter();
                Seen::Any(instance.chain([&self.pck.ppid]).map(|id| hex_encode(id)).collect())
            }
            _ => return self.plain(id, time).map(Seen::Plain),
        };
        Some(special)
    }

    fn value(seen: Seen) -> Value {
        match seen {
            Seen::Plain(plain) => plain.value(),
            Seen::Because(word, _) => word.into(),
            Seen::All(list) | Seen::Any(list) => list.into(),
            Seen::Grace(None) => "none".into(),
            Seen::Grace(Some(time)) => rfc3339(time).split('T').next().into(),
            Seen::Events(Ok(events)) => log::entries(&events).into(),
            Seen::NoField(_) | Seen::Events(Err(_)) | Seen::Unknown(_) => Value::Null,
        }
    }

    fn compare(spec: &CheckSpec, expected: &Expect, seen: &Seen) -> Result<String, String> {
        match (expected, seen) {
            (_, Seen::Plain(plain)) => plain.compare(spec, expected),
            (_, Seen::Unknown(reason)) => Err(reason.clone()),
            (Expect::Words(list), Seen::Because(word, reason)) => {
                let right = list.iter().any(|expected| expected == word);
                match listed(right, list.is_empty()) {
                    Err(plain) if !reason.is_empty() => Err(format!("{plain}: {reason}")),
                    other => other,
                }
            }
            (Expect::Words(list), Seen::All(found)) => {
                let mut unnamed = found.iter().filter(|advisory| !list.contains(advisory));
                match unnamed.next() {
                    None => Ok(String::new()),
                    Some(advisory) => Err(format!("the policy does not name {advisory}")),
                }
            }
            (Expect::Words(list), Seen::Any(found)) => {
                listed(found.iter().any(|id| list.contains(id)), list.is_empty())
            }
            (Expect::Word(_), Seen::Grace(None)) => Ok(String::new()),
            (Expect::Word(day), Seen::Grace(Some(time))) => match end_of_day(day) {
                Some(end) if *time <= end => Ok(format!("out of date, tolerated until {day}")),
                Some(_) => Err(format!("out of date, and the grace ended on {day}")),
                None => Err("out of date, and the policy grants no grace".to_owned()),
            },
            (Expect::Words(list), Seen::NoField(zero)) if list.contains(zero) => {
                Ok("bodies of TDX 1.0 do not have this field".to_owned())
            }
            (Expect::Words(_), Seen::NoField(_)) => {
                Err("bodies of TDX 1.0 do not have this field, and stand for zero".to_owned())
            }
            (Expect::Words(list), Seen::Events(Ok(events))) => {
                log::known(list, events).map(|()| String::new())
            }
            (Expect::Words(_), Seen::Events(Err(reason))) => Err(reason.clone()),
            _ => Err(MISFIT.to_owned()),
        }
    }

    fn fault(spec: &CheckSpec, seen: Option<&Seen>) -> Fault {
        match seen {
            Some(Seen::Plain(Plain::Crl(crl))) => crl.fault(),
            None if spec.id == "tdx.chain.crl" => Fault::CollateralExpired,
            _ if spec.operations => Fault::Platform,
            _ => Fault::Policy,
        }
    }
}

impl Genuine {
    fn standing(&self, seen: impl FnOnce(&Standing) -> Seen) -> Seen {
        match &self.standing {
            Ok(standing) => seen(standing),
            Err(_) => Seen::Unknown("there is no TCB level: see tdx.tcb.level".to_owned()),
        }
    }
}

impl Facts<'_> {
    fn report(&self) -> &TdReport {
        &self.quote.report
    }

    fn plain(&self, id: &str, time: u64) -> Option<Plain> {
        use Plain::{Flag, Number, Text};
        let (report, pck) = (self.report(), self.pck);
        let hex = |bytes: &[u8]| Text(hex_encode(bytes));
        let attribute = |bit| Flag(report.td_attributes & bit != 0);
        let configuration = |known: fn(&Configuration) -> Option<bool>| {
            Text(match pck.configuration.as_ref().and_then(known) {
                Some(true) => "yes".into(),
                Some(false) => "no".into(),
                None => "undefined".into(),
            })
        };
        let [rtmr0, rtmr1, rtmr2, rtmr3] = &report.rtmr;
        Some(match id {
            "tdx.version" => Number(self.quote.version.into()),
            "tdx.chain.crl" => Plain::Crl(self.collateral?.crl_state(time)),
            "tdx.tcb.evaluation_number" => Number(self.collateral?.evaluation_number()),
            "tdx.module.signer" => hex(&report.mr_signer_seam),
            "tdx.module.attributes" => hex(&report.seam_attributes),
            "tdx.module.measurement" => hex(&report.mr_seam),
            "tdx.attributes.debug" => attribute(attributes::DEBUG),
            "tdx.attributes.sept_ve_disable" => attribute(attributes::SEPT_VE_DISABLE),
            "tdx.attributes.migratable" => attribute(attributes::MIGRATABLE),
            "tdx.attributes.perfmon" => attribute(attributes::PERFMON),
            "tdx.attributes.key_locker" => attribute(attributes::KL),
            "tdx.attributes.pks" => attribute(attributes::PKS),
            "tdx.attributes.others" => attribute(!attributes::KNOWN),
            "tdx.xfam.fixed" => {
                let set = report.xfam & XFAM_FIXED_1 == XFAM_FIXED_1;
                Flag(set && report.xfam & !XFAM_FIXED_0 == 0)
            }
            "tdx.xfam" => Text(format!("0x{:x}", report.xfam)),
            "tdx.mrtd" => hex(&report.mr_td),
            "tdx.rtmr0" => hex(rtmr0),
            "tdx.rtmr1" => hex(rtmr1),
            "tdx.rtmr2" => hex(rtmr2),
            "tdx.rtmr3" => hex(rtmr3),
            "tdx.mr_config_id" => hex(&report.mr_config_id),
            "tdx.mr_owner" => hex(&report.mr_owner),
            "tdx.mr_owner_config" => hex(&report.mr_owner_config),
            "tdx.platform.fmspc" => hex(&pck.fmspc),
            "tdx.platform.ca" => Text(pck.ca?.word().into()),
            "tdx.platform.integrity" => Text(pck.sgx_type.word().into()),
            "tdx.platform.smt" => configuration(|c| c.smt_enabled),
            "tdx.platform.dynamic" => configuration(|c| c.dynamic_platform),
            "tdx.platform.cached_keys" => configuration(|c| c.cached_keys),
            _ => return None,
        })
    }
}

type Configuration = crate::parse::tdx::pck::PlatformConfiguration;
