//! What a genuine SEV-SNP report says, against one platform of a policy.
//!
//! For every check id there is one observation (`observe`), and for every form of expectation
//! one comparison (`compare`). A check id without an observation would be a required check that
//! was not evaluated, which refuses.

use serde_json::{Value, json};
use touchstone_formats::text::hex_encode;

use crate::At;
use crate::authenticate::Authentic;
use crate::authenticate::vek::tcb_value;
use crate::dates::rfc3339;
use crate::parse::snp::{TcbBytes, platform_info, policy};
use crate::parse::vek::{VekIdentity, VekTcb};
use crate::policy::{CheckSpec, Expect, Floors, Platform, Rule};
use crate::verdict::{Checks, Fault};

/// Appraises what is authentic against one platform of a policy. The evidence satisfies it if, and only if,
/// the checks that come back [`Checks::hold`]. `age` is `answer.collateral_age_seconds`.
pub fn appraise(
    authentic: &Authentic,
    platform: &Platform,
    age: &Rule<u64>,
    at: At,
    about: Option<&'static str>,
) -> Checks {
    let mut checks = about.map_or_else(Checks::new, Checks::about);
    for (spec, rule) in platform.rules() {
        let seen = observe(spec.id, authentic, at.time);
        let found = seen.as_ref().map_or(Value::Null, Seen::to_value);
        match (rule, seen) {
            (Rule::Waive(waiver), _) if waiver.holds_at(at.time) => {
                checks.waived(spec.id, found, waiver.reason.clone(), waiver.until.clone());
            }
            (Rule::Waive(waiver), _) => {
                let until = waiver.until.as_deref().unwrap_or_default();
                let reason = format!("the policy's waiver ended on {until} ({})", waiver.reason);
                checks.fail(spec.id, fault(spec, None), Value::Null, found, reason);
            }
            (Rule::Expect(expected), None) => {
                let reason = "this version has no way to evaluate it";
                checks.not_evaluated(spec.id, Fault::Policy, expected.to_value(), reason);
            }
            (Rule::Expect(expected), Some(seen)) => {
                let value = expected.to_value();
                match compare(spec, expected, &seen) {
                    Ok(reason) => checks.pass_because(spec.id, value, found, reason),
                    Err(reason) => {
                        checks.fail(spec.id, fault(spec, Some(&seen)), value, found, reason);
                    }
                }
            }
        }
        if spec.id == "snp.chain.crl" {
            collateral_age(authentic, rule, age, at, &mut checks);
        }
    }
    checks
}

fn fault(spec: &CheckSpec, seen: Option<&Seen>) -> Fault {
    match seen {
        Some(Seen::Crl("missing", _)) => Fault::CollateralMissing,
        Some(Seen::Crl(..)) => Fault::CollateralExpired,
        None if spec.id == "snp.chain.crl" => Fault::CollateralExpired,
        _ if spec.operations => Fault::Platform,
        _ => Fault::Policy,
    }
}

/// What a report (or its collateral) shows for one check.
enum Seen {
    Flag(bool),
    Number(u64),
    Text(String),
    /// The provider of a VLEK; none for a VCEK.
    Provider(Option<String>),
    /// A mitigation vector; none before version 5.
    Vector(Option<u64>),
    /// A TCB, of the part whose floors apply; none if reserved bytes of it are set.
    Tcb(&'static str, Option<VekTcb>),
    /// `current`, `missing`, `expired` or `not-yet-valid`; and when the lists are good, in words.
    Crl(&'static str, String),
}

impl Seen {
    /// In the form `expect` takes.
    fn to_value(&self) -> Value {
        match self {
            Seen::Flag(flag) => json!(flag),
            Seen::Number(number) => json!(number),
            Seen::Text(text) => json!(text),
            Seen::Provider(provider) => json!(provider),
            Seen::Vector(vector) => vector.map_or(Value::Null, |v| json!(format!("0x{v:x}"))),
            Seen::Tcb(_, None) => Value::Null,
            Seen::Tcb(variant, Some(tcb)) => json!({ *variant: tcb_value(*tcb) }),
            Seen::Crl(state, _) => json!(state),
        }
    }
}

fn observe(id: &str, authentic: &Authentic, time: u64) -> Option<Seen> {
    let report = authentic.report();
    let policy_bit = |bit| Seen::Flag(report.policy_bit(bit));
    let platform_bit = |bit| Seen::Flag(report.platform_bit(bit));
    let hex = |bytes: &[u8]| Seen::Text(hex_encode(bytes));
    let tcb = |tcb: TcbBytes| Seen::Tcb(authentic.variant(), tcb.read(authentic.product()));
    Some(match id {
        "snp.version" => Seen::Number(report.version().into()),
        "snp.product" => Seen::Text(authentic.product().name().into()),
        "snp.signing_key" => Seen::Text(report.signing_key().word().into()),
        "snp.vlek.csp" => Seen::Provider(match &authentic.vek().identity {
            VekIdentity::Provider(csp) => Some(csp.clone()),
            VekIdentity::Chip(_) => None,
        }),
        "snp.chain.crl" => {
            let windows = authentic.revocation().iter().map(|window| window.words());
            let words: Vec<String> = windows.collect();
            Seen::Crl(crl_state(authentic, time), words.join(", or "))
        }
        "snp.chip_id.masked" => Seen::Flag(report.chip_id() == [0; 64]),
        "snp.chip_id" => hex(&report.chip_id()),
        "snp.tcb.reported" => tcb(report.reported_tcb()),
        "snp.tcb.committed" => tcb(report.committed_tcb()),
        "snp.tcb.launch" => tcb(report.launch_tcb()),
        "snp.tcb.provisional" => Seen::Flag(
            report.current_tcb() != report.committed_tcb()
                || report.current_firmware() != report.committed_firmware(),
        ),
        "snp.policy.debug" => policy_bit(policy::DEBUG),
        "snp.policy.migrate_ma" => policy_bit(policy::MIGRATE_MA),
        "snp.policy.abi" => {
            let firmware = [report.current_firmware(), report.committed_firmware()];
            let demanded = report.policy_abi();
            Seen::Flag(firmware.iter().all(|f| demanded <= (f.major, f.minor)))
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
        "snp.vmpl" => Seen::Number(report.vmpl().into()),
        "snp.measurement" => hex(&report.measurement()),
        "snp.host_data" => hex(&report.host_data()),
        "snp.guest_svn" => Seen::Number(report.guest_svn().into()),
        "snp.family_id" => hex(&report.family_id()),
        "snp.image_id" => hex(&report.image_id()),
        "snp.id_key_digest" => hex(&report.id_key_digest()),
        "snp.author_key_digest" => hex(&report.author_key_digest()),
        "snp.mitigation.launch" => Seen::Vector(report.launch_mitigations()),
        "snp.mitigation.current" => Seen::Vector(report.current_mitigations()),
        _ => return None,
    })
}

/// Whether what was seen is as expected; in words why (empty if there is nothing to say).
fn compare(spec: &CheckSpec, expected: &Expect, seen: &Seen) -> Result<String, String> {
    let listed = |right: bool, empty: bool| match (right, empty) {
        (true, _) => Ok(String::new()),
        (false, true) => Err("the policy's list is empty: it accepts none".to_owned()),
        (false, false) => Err("not in the policy's list".to_owned()),
    };
    match (expected, seen) {
        (Expect::Flag(expected), Seen::Flag(found)) if expected == found => Ok(String::new()),
        (Expect::Flag(expected), Seen::Flag(found)) => {
            let summary = spec.summary.trim_end_matches('.');
            Err(format!(
                "{summary}: found {found}, the policy expects {expected}"
            ))
        }
        (Expect::Numbers(list), Seen::Number(found)) => {
            listed(list.contains(found), list.is_empty())
        }
        (Expect::Words(list), Seen::Text(found)) => listed(list.contains(found), list.is_empty()),
        (Expect::Words(_), Seen::Provider(None)) => Ok("a VCEK: no provider's key".to_owned()),
        (Expect::Words(list), Seen::Provider(Some(found))) => {
            listed(list.contains(found), list.is_empty())
        }
        (Expect::Number(floor), Seen::Number(found)) if found >= floor => Ok(String::new()),
        (Expect::Number(floor), Seen::Number(found)) => {
            Err(format!("{found} is below the policy's floor, {floor}"))
        }
        (Expect::Word(expected), Seen::Crl(found, _)) if expected == found => Ok(String::new()),
        (Expect::Word(_), Seen::Crl("missing", _)) => {
            Err("no revocation list came with the evidence".into())
        }
        (Expect::Word(_), Seen::Crl(found, windows)) => Err(format!(
            "no revocation list that is good at the time of judgement: {found}; good from {windows}"
        )),
        (Expect::Mask(0), Seen::Vector(_)) => Ok(String::new()),
        (Expect::Mask(_), Seen::Vector(None)) => {
            Err("reports before version 5 have no mitigation vectors".to_owned())
        }
        (Expect::Mask(mask), Seen::Vector(Some(found))) => match mask & !found {
            0 => Ok(String::new()),
            missing => Err(format!("bits 0x{missing:x} of the mask are not set")),
        },
        (Expect::Floors(floors), Seen::Tcb(variant, tcb)) => at_floor(floors, variant, *tcb),
        // Forms are fixed by the table of checks; a mismatch must not pass.
        _ => Err("the policy's expectation does not fit this check".to_owned()),
    }
}

/// Every component at or above its floor.
fn at_floor(floors: &Floors, variant: &str, tcb: Option<VekTcb>) -> Result<String, String> {
    let Some(tcb) = tcb else {
        return Err("reserved bytes of the TCB version are not zero".to_owned());
    };
    // `Genoa-X` and `Bergamo` fall back to their product.
    let product = match variant {
        "Bergamo" => "Genoa",
        other => other.split('-').next().unwrap_or(other),
    };
    let Some(floor) = floors.0.get(variant).or_else(|| floors.0.get(product)) else {
        return Err(format!("the policy has no floor for {variant}"));
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

fn crl_state(authentic: &Authentic, time: u64) -> &'static str {
    let windows = authentic.revocation();
    if windows.is_empty() {
        "missing"
    } else if windows.iter().any(|window| window.holds(time)) {
        "current"
    } else if windows.iter().all(|window| window.from > time) {
        "not-yet-valid"
    } else {
        "expired"
    }
}

/// How old the newest revocation list is that is good now. Only where one is demanded at all.
fn collateral_age(
    authentic: &Authentic,
    crl: &Rule<Expect>,
    age: &Rule<u64>,
    at: At,
    checks: &mut Checks,
) {
    let id = "snp.collateral.age";
    // A list that may be missing may be old; and one that is out of date fails `snp.chain.crl`.
    if matches!(crl, Rule::Waive(waiver) if waiver.holds_at(at.time)) {
        return;
    }
    let good = authentic
        .revocation()
        .iter()
        .filter(|window| window.holds(at.time));
    let Some(newest) = good.map(|window| window.from).max() else {
        return;
    };
    let found = at.time.saturating_sub(newest);
    match age {
        Rule::Expect(most) if found <= *most => checks.pass(id, *most, found),
        Rule::Expect(most) => {
            let last = rfc3339(newest.saturating_add(*most));
            let reason = format!(
                "the newest revocation list is older than the policy allows, in seconds; it is young \
                 enough until {last}"
            );
            checks.fail(id, Fault::CollateralExpired, *most, found, reason);
        }
        Rule::Waive(waiver) if waiver.holds_at(at.time) => {
            checks.waived(id, found, waiver.reason.clone(), waiver.until.clone());
        }
        Rule::Waive(waiver) => {
            let until = waiver.until.as_deref().unwrap_or_default();
            let reason = format!("the policy's waiver ended on {until} ({})", waiver.reason);
            checks.fail(id, Fault::CollateralExpired, Value::Null, found, reason);
        }
    }
}
