//! A verdict as an EAR: the claims-set of an EAT Attestation Result (draft-ietf-rats-ear-03) with the
//! trustworthiness vector of AR4SI (draft-ietf-rats-ar4si).
//!
//! The claims-set is **not signed**: whoever passes it on signs it as a JWT or CWT of his own, and vouches by
//! that for having run this verifier. It says less than the verdict it is made from, whose exit code
//! stays the one thing to act upon; the vector says what about the *platform* was affirmed.
//!
//! Which check counts for which claim is [`RULES`]; `docs/auditors.md` has the table.

use serde_json::{Map, Value, json};
use touchstone_formats::Tee;

use crate::policy::check_ids;
use crate::verdict::{Check, Class, Fault, Outcome, Verdict, Word};

/// The `eat_profile` of draft-ietf-rats-ear-03.
pub const PROFILE: &str = "tag:ietf.org,2026:rats/ear#03";

/// A claim of the trustworthiness vector that this verifier can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// Which machine it is.
    InstanceIdentity,
    /// How guest and host are set up.
    Configuration,
    /// What was measured at launch.
    Executables,
    /// Processor and firmware, and their security versions.
    Hardware,
    /// Whether the host can see into the guest's memory.
    RuntimeOpaque,
}

impl Claim {
    /// All of them. `file-system`, `storage-opaque` and `sourced-data` are never claimed (0): no check here
    /// stands for them.
    pub const ALL: [Claim; 5] = [
        Claim::InstanceIdentity,
        Claim::Configuration,
        Claim::Executables,
        Claim::Hardware,
        Claim::RuntimeOpaque,
    ];

    /// The member of the vector.
    pub fn name(self) -> &'static str {
        match self {
            Claim::InstanceIdentity => "instance-identity",
            Claim::Configuration => "configuration",
            Claim::Executables => "executables",
            Claim::Hardware => "hardware",
            Claim::RuntimeOpaque => "runtime-opaque",
        }
    }

    /// The value that affirms it. Executables are those of the boot (3): what a launch measurement covers.
    pub fn affirmed(self) -> i8 {
        match self {
            Claim::Executables => 3,
            _ => 2,
        }
    }

    /// The value that says that a check of it failed. An instance is then "not recognized" (97).
    pub fn contraindicated(self) -> i8 {
        match self {
            Claim::InstanceIdentity => 97,
            _ => 96,
        }
    }
}

/// What a check counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stands {
    /// One claim.
    For(Claim),
    /// All of them: without it the evidence is nobody's.
    Foundation,
}

/// AR4SI: evidence contains elements that cannot be evaluated (malformed). Tier none.
const UNEXPECTED: i8 = 1;
/// AR4SI: cryptographic validation of the evidence failed.
const CRYPTO_FAILED: i8 = 99;
/// AR4SI: hardware is not recognized. Here: the platform is simulated, and nobody said to expect that.
const UNRECOGNIZED: i8 = 97;
/// A warning of a reason of our own (AR4SI, −33 to −96): the policy waives a check.
const WAIVED: i8 = -33;
/// A warning of a reason of our own: the platform is simulated, as the caller expects.
const SIMULATED: i8 = -34;

/// Which checks count for which claim. The first rule whose id is the check's, or, where it ends in `*`, begins it.
/// Checks that no rule names are about a receipt, a connection or the caller's own
/// bytes: they decide `ear_status`, not the vector.
pub const RULES: &[(&str, Stands)] = {
    use Claim::*;
    use Stands::{For, Foundation};
    &[
        ("evidence.format", Foundation),
        ("evidence.purpose", Foundation),
        ("evidence.nonce", Foundation),
        ("evidence.report_data", Foundation),
        ("manifest.platform", For(Executables)),
        ("manifest.os_binding", For(Executables)),
        ("manifest.quote_source", For(Executables)),
        ("manifest.tcb", For(Hardware)),
        ("snp.chip_id*", For(InstanceIdentity)),
        ("snp.signing_key", For(InstanceIdentity)),
        ("snp.vlek.csp", For(InstanceIdentity)),
        ("snp.product", For(Hardware)),
        ("snp.tcb.*", For(Hardware)),
        ("snp.mitigation.*", For(Hardware)),
        ("snp.platform.alias_check", For(Hardware)),
        ("snp.platform.ecc", For(Hardware)),
        ("advisories.notice", For(Hardware)),
        ("snp.policy.debug", For(RuntimeOpaque)),
        ("snp.policy.migrate_ma", For(RuntimeOpaque)),
        ("snp.report_id_ma", For(RuntimeOpaque)),
        ("snp.policy.mem_aes_256_xts", For(RuntimeOpaque)),
        ("snp.policy.ciphertext_hiding", For(RuntimeOpaque)),
        ("snp.platform.ciphertext_hiding", For(RuntimeOpaque)),
        ("snp.vmpl", For(RuntimeOpaque)),
        ("snp.policy.*", For(Configuration)),
        ("snp.platform.*", For(Configuration)),
        ("snp.host_data", For(Configuration)),
        ("snp.measurement", For(Executables)),
        ("snp.guest_svn", For(Executables)),
        ("snp.family_id", For(Executables)),
        ("snp.image_id", For(Executables)),
        ("snp.id_key_digest", For(Executables)),
        ("snp.author_key_digest", For(Executables)),
        ("snp.*", Foundation),
        ("tdx.platform.instance*", For(InstanceIdentity)),
        ("tdx.tcb.*", For(Hardware)),
        ("tdx.module.*", For(Hardware)),
        ("tdx.platform.integrity", For(Hardware)),
        ("tdx.platform.fmspc", For(Hardware)),
        ("tdx.platform.ca", For(Hardware)),
        ("tdx.attributes.debug", For(RuntimeOpaque)),
        ("tdx.attributes.migratable", For(RuntimeOpaque)),
        ("tdx.mr_service_td", For(RuntimeOpaque)),
        ("tdx.attributes.*", For(Configuration)),
        ("tdx.xfam*", For(Configuration)),
        ("tdx.platform.*", For(Configuration)),
        ("tdx.mr_config_id", For(Configuration)),
        ("tdx.mr_owner*", For(Configuration)),
        ("tdx.mrtd", For(Executables)),
        ("tdx.rtmr*", For(Executables)),
        ("tdx.event_log*", For(Executables)),
        ("tdx.*", Foundation),
    ]
};

/// What the check of this id counts for; none for checks that are not about the platform.
pub fn stands_for(id: &str) -> Option<Stands> {
    let rule = RULES.iter().find(|(rule, _)| match rule.strip_suffix('*') {
        Some(start) => id.starts_with(start),
        None => id == *rule,
    });
    rule.map(|(_, stands)| *stands)
}

/// The claims-set, as JSON. `iat` is the time of judgement, and is missing where nothing was judged (usage
/// errors). The one appraisal in `submods` is named after the kind of TEE, or `platform` where none was proven.
pub fn ear(verdict: &Verdict) -> Value {
    let tee = proven_tee(verdict);
    let vector = vector(verdict, tee);
    let status = status(verdict, &vector);
    let members = Claim::ALL.iter().zip(vector);
    let mut named: Map<String, Value> = members
        .map(|(claim, value)| (claim.name().to_owned(), json!(value)))
        .collect();
    for never in ["file-system", "storage-opaque", "sourced-data"] {
        named.insert(never.to_owned(), json!(0));
    }
    let conclusion = &verdict.conclusion;
    let context = &verdict.context;
    let mut appraisal = json!({
        "ear_status": status,
        "ear_trustworthiness_vector": named,
        "touchstone_verdict": {
            "v": "touchstone/verdict/1",
            "verdict": conclusion.word,
            "exit": conclusion.exit,
            "class": conclusion.class,
            "deciding": conclusion.deciding,
            "simulated": context.simulated,
            "achieved": context.achieved,
            "required": context.required,
            "covers": context.covers,
            "binding": context.binding,
            "measurement": context.measurement,
            "platform": &*context.platform,
            "residual_risks": context.residual_risks,
        },
    });
    let own = appraisal.get_mut("touchstone_verdict");
    if let (Some(Value::Object(own)), false) = (own, context.release.is_null()) {
        own.insert("release".into(), context.release.clone());
    }
    let label = tee.map_or("platform", Tee::name);
    let mut submods = Map::new();
    submods.insert(label.to_owned(), appraisal);
    let mut claims = Map::new();
    claims.insert("eat_profile".into(), json!(PROFILE));
    claims.insert("ear_status".into(), json!(status));
    if let Some(at) = verdict.at {
        claims.insert("iat".into(), json!(at.time));
    }
    let build = concat!("attestation-verifier ", env!("CARGO_PKG_VERSION"));
    claims.insert(
        "ear_verifier_id".into(),
        json!({ "developer": "Touchstone", "build": build }),
    );
    claims.insert("submods".into(), Value::Object(submods));
    Value::Object(claims)
}

/// The kind of platform that was proven. Only authentic evidence gives a verdict a `platform`.
fn proven_tee(verdict: &Verdict) -> Option<Tee> {
    let name = verdict.context.platform.get("tee")?.as_str()?;
    [Tee::SevSnp, Tee::Tdx]
        .into_iter()
        .find(|tee| tee.name() == name)
}

fn vector(verdict: &Verdict, tee: Option<Tee>) -> [i8; 5] {
    let checks = || {
        let list = verdict.checks.iter();
        list.filter_map(|check| Some((check, stands_for(&check.id)?)))
    };
    let failed = |fault: Fault| {
        checks().any(|(check, stands)| {
            stands == Stands::Foundation && check.fault == Some(fault) && check.refuses()
        })
    };
    let foundation = checks()
        .filter(|(_, stands)| *stands == Stands::Foundation)
        .map(|(check, _)| check);
    let founded = tee.is_some() && !foundation.clone().any(Check::refuses);
    Claim::ALL.map(|claim| {
        if failed(Fault::Malformed) {
            return UNEXPECTED;
        }
        if failed(Fault::NotAuthentic) {
            return CRYPTO_FAILED;
        }
        let own = || {
            checks()
                .filter(move |(_, stands)| *stands == Stands::For(claim))
                .map(|(check, _)| check)
        };
        if own().any(|check| check.result == Outcome::Fail && !may_come(check)) {
            return claim.contraindicated();
        }
        let complete = tee.is_some_and(|tee| {
            check_ids(tee)
                .iter()
                .filter(|spec| stands_for(spec.id) == Some(Stands::For(claim)))
                .all(|spec| own().any(|check| check.id == spec.id))
        });
        if !founded || !complete || own().next().is_none() || own().any(Check::refuses) {
            return 0;
        }
        let hidden = [Claim::Hardware, Claim::RuntimeOpaque].contains(&claim);
        match (verdict.context.simulated, verdict.context.expect_simulated) {
            (true, false) if hidden => return UNRECOGNIZED,
            (true, true) if hidden => return SIMULATED,
            _ => {}
        }
        let waived = |check: &Check| check.result == Outcome::Waived;
        if own().any(waived) || foundation.clone().any(waived) {
            return WAIVED;
        }
        claim.affirmed()
    })
}

/// What is missing and may still come says nothing against the platform.
fn may_come(check: &Check) -> bool {
    matches!(check.fault, Some(Fault::CollateralMissing | Fault::NotYet))
}

/// The tier of the whole: the worst of the vector, and never better than the verdict and its waivers are. A verdict that
/// rests on what may still come says nothing either way.
fn status(verdict: &Verdict, vector: &[i8; 5]) -> &'static str {
    let tiers = vector.map(tier);
    if tiers.contains(&Tier::Contraindicated) {
        return "contraindicated";
    }
    let conclusion = &verdict.conclusion;
    if conclusion.word != Word::Holds {
        return match conclusion.class {
            None | Some(Class::Retry) => "none",
            Some(_) => "contraindicated",
        };
    }
    if tiers.contains(&Tier::None) {
        return "none";
    }
    let mut list = verdict.checks.iter();
    let waived = list.any(|check| check.result == Outcome::Waived);
    if tiers.contains(&Tier::Warning) || waived || verdict.context.simulated {
        return "warning";
    }
    "affirming"
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tier {
    None,
    Affirming,
    Warning,
    Contraindicated,
}

/// AR4SI, section "Enumeration Encoding".
fn tier(value: i8) -> Tier {
    match value {
        -1..=1 => Tier::None,
        2..=31 | -32..=-2 => Tier::Affirming,
        32..=95 | -96..=-33 => Tier::Warning,
        96..=127 | -128..=-97 => Tier::Contraindicated,
    }
}
