//! What a genuine SEV-SNP report says, against one platform of a policy.
//!
//! For every check id there is one observation (`observe`), and for every form of expectation
//! one comparison (`compare`). A check id without an observation would be a required check that
//! was not evaluated, which refuses.

use serde_json::Value;
use touchstone_formats::text::hex_encode;

use super::rules::{self, CrlState, MISFIT, Observed, Plain, by_rules, listed};
use crate::At;
use crate::authenticate::vek::tcb_value;
use crate::authenticate::{Authentic, Window};
use crate::manifest::MinimumTcb;
use crate::parse::snp::{Report, SigningKey, TcbBytes, platform_info, policy};
use crate::parse::vek::{VekIdentity, VekTcb};
use crate::policy::{CheckSpec, Expect, Floors, Platform, Rule};
use crate::product::Product;
use crate::reference::{Measured, Registers, Ruling};
use crate::verdict::{Checks, Fault, object};

/// Appraises what is authentic against one platform of a policy. The evidence satisfies it if, and only if,
/// the checks that come back [`Checks::hold`]. `age` is `answer.collateral_age_seconds`. There is no manifest here: what
/// expects one is not evaluated, which refuses.
pub fn appraise(
    authentic: &Authentic,
    platform: &Platform,
    age: &Rule<u64>,
    at: At,
    about: Option<&'static str>,
) -> Checks {
    appraise_by(authentic, platform, age, None, at, about)
}

/// [`appraise`], by a manifest.
pub(super) fn appraise_by(
    authentic: &Authentic,
    platform: &Platform,
    age: &Rule<u64>,
    ruling: Option<&Ruling>,
    at: At,
    about: Option<&'static str>,
) -> Checks {
    let checks = about.map_or_else(Checks::new, Checks::about);
    let mut checks = checks.with_room(platform.rules().len() + 1);
    by_rules(&Facts::of(authentic), platform, ruling, at, &mut checks);
    collateral_age(authentic, platform, age, at, &mut checks);
    checks
}

/// What there is to look at: a report, and what its collateral adds to it.
pub(super) struct Facts<'a> {
    pub(super) report: &'a Report,
    /// None: the report alone does not say.
    pub(super) product: Option<Product>,
    /// Whose the endorsement key is; none without its certificate.
    pub(super) identity: Option<&'a VekIdentity>,
    /// Validity of the revocation lists that count; none without a chain that says which do.
    revocation: Option<&'a [Window]>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(authentic: &'a Authentic) -> Facts<'a> {
        Facts {
            report: authentic.report(),
            product: Some(authentic.product()),
            identity: Some(&authentic.vek().identity),
            revocation: Some(authentic.revocation()),
        }
    }

    /// What a report says of itself, of which nothing is proven.
    pub(super) fn claimed(report: &'a Report) -> Facts<'a> {
        Facts {
            report,
            product: report.product(),
            identity: None,
            revocation: None,
        }
    }

    /// The part whose TCB floors apply ([`Authentic::variant`]).
    pub(super) fn variant(&self) -> Option<&'static str> {
        let variant = self.report.cpuid().and_then(|cpuid| cpuid.variant());
        variant.or(self.product.map(Product::name))
    }
}

/// What a report (or its collateral) shows for one check.
pub(super) enum Seen {
    Plain(Plain),
    /// The provider of a VLEK; none for a VCEK.
    Provider(Option<String>),
    /// A mitigation vector; none before version 5.
    Vector(Option<u64>),
    /// A TCB, of the part whose floors apply; none if reserved bytes of it are set.
    Tcb(&'static str, Option<VekTcb>),
}

impl Observed for Facts<'_> {
    type Seen = Seen;

    fn observe(&self, id: &str, time: u64) -> Option<Seen> {
        observe(id, self, time)
    }

    fn value(seen: Seen) -> Value {
        match seen {
            Seen::Plain(plain) => plain.value(),
            Seen::Provider(provider) => provider.into(),
            Seen::Vector(vector) => vector.map_or(Value::Null, |v| format!("0x{v:x}").into()),
            Seen::Tcb(_, None) => Value::Null,
            Seen::Tcb(variant, Some(tcb)) => object([(variant, tcb_value(tcb))]),
        }
    }

    fn compare(spec: &CheckSpec, expected: &Expect, seen: &Seen) -> Result<String, String> {
        match (expected, seen) {
            (_, Seen::Plain(plain)) => plain.compare(spec, expected),
            (Expect::Words(_), Seen::Provider(None)) => Ok("a VCEK: no provider's key".to_owned()),
            (Expect::Words(list), Seen::Provider(Some(found))) => {
                listed(list.contains(found), list.is_empty())
            }
            (Expect::Mask(0), Seen::Vector(_)) => Ok(String::new()),
            (Expect::Mask(_), Seen::Vector(None)) => {
                Err("reports before version 5 have no mitigation vectors".to_owned())
            }
            (Expect::Mask(mask), Seen::Vector(Some(found))) => match mask & !found {
                0 => Ok(String::new()),
                missing => Err(format!("bits 0x{missing:x} of the mask are not set")),
            },
            (Expect::Floors(floors), Seen::Tcb(variant, tcb)) => {
                at_floor("policy", floors, variant, *tcb)
            }
            _ => Err(MISFIT.to_owned()),
        }
    }

    fn fault(spec: &CheckSpec, seen: Option<&Seen>) -> Fault {
        match seen {
            Some(Seen::Plain(Plain::Crl(crl))) => crl.fault(),
            None if spec.id == "snp.chain.crl" => Fault::CollateralExpired,
            _ if spec.operations => Fault::Platform,
            _ => Fault::Policy,
        }
    }
}

fn observe(id: &str, facts: &Facts<'_>, time: u64) -> Option<Seen> {
    let report = facts.report;
    let tcb = |tcb: TcbBytes| Some(Seen::Tcb(facts.variant()?, tcb.read(facts.product?)));
    let special = match id {
        "snp.vlek.csp" => Seen::Provider(match facts.identity {
            Some(VekIdentity::Provider(csp)) => Some(csp.clone()),
            Some(VekIdentity::Chip(_)) => None,
            // Only the certificate of a VLEK says whose it is.
            None if report.signing_key() == SigningKey::Vcek => None,
            None => return None,
        }),
        "snp.tcb.reported" => tcb(report.reported_tcb())?,
        "snp.tcb.committed" => tcb(report.committed_tcb())?,
        "snp.tcb.launch" => tcb(report.launch_tcb())?,
        "snp.mitigation.launch" => Seen::Vector(report.launch_mitigations()),
        "snp.mitigation.current" => Seen::Vector(report.current_mitigations()),
        _ => return plain(id, facts, time).map(Seen::Plain),
    };
    Some(special)
}

fn plain(id: &str, facts: &Facts<'_>, time: u64) -> Option<Plain> {
    use Plain::{Flag, Number, Text};
    let report = facts.report;
    let policy_bit = |bit| Flag(report.policy_bit(bit));
    let platform_bit = |bit| Flag(report.platform_bit(bit));
    let hex = |bytes: &[u8]| Text(hex_encode(bytes));
    Some(match id {
        "snp.version" => Number(report.version().into()),
        "snp.product" => Text(facts.product?.name().into()),
        "snp.signing_key" => Text(report.signing_key().word().into()),
        "snp.chain.crl" => Plain::Crl(crl_state(facts.revocation?, time)),
        "snp.chip_id.masked" => Flag(report.chip_id() == [0; 64]),
        "snp.chip_id" => hex(&report.chip_id()),
        "snp.tcb.provisional" => Flag(
            report.current_tcb() != report.committed_tcb()
                || report.current_firmware() != report.committed_firmware(),
        ),
        "snp.policy.debug" => policy_bit(policy::DEBUG),
        "snp.policy.migrate_ma" => policy_bit(policy::MIGRATE_MA),
        "snp.policy.abi" => {
            let firmware = [report.current_firmware(), report.committed_firmware()];
            let demanded = report.policy_abi();
            Flag(firmware.iter().all(|f| demanded <= (f.major, f.minor)))
        }
        "snp.policy.smt" => policy_bit(policy::SMT),
        "snp.policy.single_socket" => policy_bit(policy::SINGLE_SOCKET),
        "snp.policy.cxl" => policy_bit(policy::CXL),
        "snp.policy.mem_aes_256_xts" => policy_bit(policy::MEM_AES_256_XTS),
        "snp.policy.rapl_dis" => policy_bit(policy::RAPL_DIS),
        "snp.policy.ciphertext_hiding" => policy_bit(policy::CIPHERTEXT_HIDING),
        "snp.policy.page_swap_disable" => policy_bit(policy::PAGE_SWAP_DISABLE),
        "snp.platform.smt" => platform_bit(platform_info::SMT),
        "snp.platform.tsme" => platform_bit(platform_info::TSME),
        "snp.platform.ecc" => platform_bit(platform_info::ECC),
        "snp.platform.rapl_dis" => platform_bit(platform_info::RAPL_DIS),
        "snp.platform.ciphertext_hiding" => platform_bit(platform_info::CIPHERTEXT_HIDING),
        "snp.platform.alias_check" => platform_bit(platform_info::ALIAS_CHECK),
        "snp.report_id_ma" => hex(&report.report_id_ma()),
        "snp.vmpl" => Number(report.vmpl().into()),
        "snp.measurement" => hex(&report.measurement()),
        "snp.host_data" => hex(&report.host_data()),
        "snp.guest_svn" => Number(report.guest_svn().into()),
        "snp.family_id" => hex(&report.family_id()),
        "snp.image_id" => hex(&report.image_id()),
        "snp.id_key_digest" => hex(&report.id_key_digest()),
        "snp.author_key_digest" => hex(&report.author_key_digest()),
        _ => return None,
    })
}

impl Measured for Authentic {
    fn registers(&self) -> Registers {
        Registers::Snp(self.report().measurement())
    }

    fn reaches(&self, minimum: &MinimumTcb) -> (Value, Result<(), String>) {
        let report = self.report();
        let tcbs = [
            ("reported", report.reported_tcb()),
            ("committed", report.committed_tcb()),
            ("launch", report.launch_tcb()),
        ];
        let read = tcbs.map(|(name, tcb)| (name, tcb.read(self.product())));
        let found = read.map(|(name, tcb)| (name, tcb.map_or(Value::Null, tcb_value)));
        let found = Value::Object(
            found
                .map(|(name, tcb)| (name.to_owned(), tcb))
                .into_iter()
                .collect(),
        );
        let MinimumTcb::Snp(floors) = minimum else {
            return (
                found,
                Err("its minimum is of another kind of platform".to_owned()),
            );
        };
        let below: Vec<String> = read
            .into_iter()
            .filter_map(|(name, tcb)| {
                let reason = at_floor("manifest", floors, self.variant(), tcb).err()?;
                Some(format!("{name} TCB: {reason}"))
            })
            .collect();
        match below.is_empty() {
            true => (found, Ok(())),
            false => (found, Err(below.join("; "))),
        }
    }
}

/// Every component at or above its floor. `whose` floors they are, for the reason.
fn at_floor(
    whose: &str,
    floors: &Floors,
    variant: &str,
    tcb: Option<VekTcb>,
) -> Result<String, String> {
    let Some(tcb) = tcb else {
        return Err("reserved bytes of the TCB version are not zero".to_owned());
    };
    // `Genoa-X` and `Bergamo` fall back to their product.
    let product = match variant {
        "Bergamo" => "Genoa",
        other => other.split('-').next().unwrap_or(other),
    };
    let Some(floor) = floors.0.get(variant).or_else(|| floors.0.get(product)) else {
        return Err(format!("the {whose} has no floor for {variant}"));
    };
    let parts = [
        ("fmc", tcb.fmc.unwrap_or(0), floor.fmc.unwrap_or(0)),
        ("bootloader", tcb.bootloader, floor.bootloader),
        ("tee", tcb.tee, floor.tee),
        ("snp", tcb.snp, floor.snp),
        ("microcode", tcb.microcode, floor.microcode),
    ];
    let below: Vec<String> = parts
        .iter()
        .filter(|(_, found, floor)| found < floor)
        .map(|(name, found, floor)| format!("{name} {found} is below {floor}"))
        .collect();
    if below.is_empty() {
        Ok(String::new())
    } else {
        Err(format!("{variant}: {}", below.join(", ")))
    }
}

fn crl_state(windows: &[Window], time: u64) -> CrlState {
    let state = if windows.is_empty() {
        return CrlState::missing("no revocation list came with the evidence");
    } else if windows.iter().any(|window| window.holds(time)) {
        return CrlState::current();
    } else if windows.iter().all(|window| window.from > time) {
        "not-yet-valid"
    } else {
        "expired"
    };
    let words = rules::windows(windows.iter().copied(), ", or ");
    let reason = format!(
        "no revocation list that is good at the time of judgement: {state}; good from {words}"
    );
    CrlState { state, reason }
}

/// How old the newest revocation list is that is good now. Only where one is demanded at all.
fn collateral_age(
    authentic: &Authentic,
    platform: &Platform,
    age: &Rule<u64>,
    at: At,
    checks: &mut Checks,
) {
    // A list that may be missing may be old; and one that is out of date fails `snp.chain.crl`.
    if rules::waived(platform.rule("snp.chain.crl"), at.time) {
        return;
    }
    let lists = authentic.revocation().iter();
    let good = lists.filter(|window| window.holds(at.time));
    if let Some(newest) = good.map(|window| window.from).max() {
        let what = "the newest revocation list";
        rules::age("snp.collateral.age", what, newest, age, at.time, checks);
    }
}
