//! What the strict policy says to a quote of this machine, as far as it can be said here.

use attestation_verifier::appraise::{Claims, claimed};
use attestation_verifier::policy::template;
use attestation_verifier::verdict::{Check, Fault, Outcome};
use attestation_verifier::{At, Policy, Roots, judge};
use serde::Serialize;
use serde_json::Value;
use touchstone_formats::Evidence;

use super::advice::{LEFT_OPEN, OF_ANSWERS, advice};

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub id: String,
    pub result: Outcome,
    pub expected: Value,
    pub found: Value,
    pub reason: String,
    /// Whether a verifier with the strict policy would refuse for it.
    pub refuses: bool,
    /// What was found is signed, up to a root. If not, it is what the quote says of itself.
    pub proven: bool,
    /// What to do about it; none where it does not refuse.
    pub advice: Option<&'static str>,
    /// Exit code of its failure.
    #[serde(skip)]
    pub exit: Option<u8>,
}

impl Finding {
    fn of(check: &Check, proven: bool) -> Finding {
        let refuses = check.refuses();
        // What was not looked at needs what decides, and no advice of its own.
        let failed = refuses && check.result == Outcome::Fail;
        Finding {
            id: check.id.to_string(),
            result: check.result,
            expected: check.expected.clone(),
            found: check.found.clone(),
            reason: check.reason.clone(),
            refuses,
            proven,
            advice: advice(&check.id).filter(|_| failed),
            exit: check.fault.filter(|_| refuses).map(Fault::exit),
        }
    }

    /// A check of the sources, which the command makes.
    pub fn made(id: &'static str, failure: Option<(u8, String)>) -> Finding {
        let (exit, reason) = failure.map_or((None, String::new()), |(exit, why)| (Some(exit), why));
        let refuses = exit.is_some();
        Finding {
            id: id.to_owned(),
            result: if refuses {
                Outcome::Fail
            } else {
                Outcome::Pass
            },
            expected: Value::Null,
            found: Value::Null,
            reason,
            refuses,
            proven: true,
            advice: advice(id).filter(|_| refuses),
            exit,
        }
    }

    /// Place in the order 1, 7, 2, 3, 5, 4; the first decides.
    pub fn rank(&self) -> Option<usize> {
        let exit = self.exit?;
        [1, 7, 2, 3, 5, 4].iter().position(|code| *code == exit)
    }
}

/// A check that cannot be asked of a machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NotApplicable {
    pub id: &'static str,
    /// What the quote says, where it says something; nothing compared it.
    pub found: Value,
    pub why: &'static str,
}

/// How far the chain up to the vendor's root was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chain {
    /// All of it holds: the quote is what the vendor's hardware made.
    Verified,
    /// Something is missing to follow it: the quote may be anybody's.
    NotChecked,
    /// It does not hold.
    Refused,
}

/// What was found out about a quote.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    pub tee: &'static str,
    pub chain: Chain,
    /// Where the collateral is from; null where there was none.
    pub collateral: Option<&'static str>,
    pub simulated: bool,
    /// As in verdicts.
    pub platform: Value,
    /// Launch measurement (of TDX MRTD), hex.
    pub measurement: Option<String>,
    pub not_applicable: Vec<NotApplicable>,
    pub residual_risks: Vec<String>,
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// Judges evidence that holds `report_data`, under the policy that `touchstone policy init` writes.
pub fn judgement(
    evidence: &Evidence,
    collateral: Option<&'static str>,
    report_data: &[u8; 64],
    roots: &Roots,
    at: At,
) -> anyhow::Result<Judgement> {
    let policy = Policy::parse(&template(evidence.tee))?;
    let judged = judge(evidence, &policy, roots, Some(report_data), at, None);
    let proven = !judged.platform.is_null();
    let claims = if proven {
        None
    } else {
        claimed(evidence, &policy, at)
    };
    let claim = |id: &str| {
        let claims: Option<&Claims> = claims.as_ref();
        claims.and_then(|claims| claims.checks.iter().find(|check| check.id == id))
    };
    let told = judged.checks.iter().map(|check| match claim(&check.id) {
        Some(claim) if check.result == Outcome::NotEvaluated => Finding::of(claim, false),
        _ => Finding::of(check, proven),
    });
    let (open, findings): (Vec<Finding>, Vec<Finding>) =
        told.partition(|finding| left_open(&finding.id).is_some());
    let not_applicable = open
        .into_iter()
        .filter_map(|finding| {
            let (id, why) = left_open(&finding.id)?;
            let found = finding.found;
            Some(NotApplicable { id, found, why })
        })
        .chain(OF_ANSWERS.map(|(id, why)| NotApplicable {
            id,
            found: Value::Null,
            why,
        }))
        .collect();
    let refused = |finding: &Finding| matches!(finding.exit, Some(2 | 3));
    let chain = match proven {
        true => Chain::Verified,
        false if findings.iter().any(refused) => Chain::Refused,
        false => Chain::NotChecked,
    };
    let mut residual_risks = judged.residual_risks;
    if chain != Chain::Verified {
        residual_risks.insert(0, UNPROVEN.to_owned());
    }
    let (platform, measurement) = match claims {
        Some(claims) => (claims.platform, Some(claims.measurement)),
        None => (judged.platform.as_ref().clone(), judged.measurement),
    };
    Ok(Judgement {
        tee: evidence.tee.name(),
        chain,
        collateral,
        simulated: judged.simulated,
        platform,
        measurement,
        not_applicable,
        residual_risks,
        findings,
    })
}

const UNPROVEN: &str = "THE CHAIN DOES NOT STAND: platform, product and TCB above are what the quote says of itself. Anybody could have written it.";

fn left_open(id: &str) -> Option<(&'static str, &'static str)> {
    LEFT_OPEN.into_iter().find(|(open, _)| *open == id)
}

/// Whether an enclave on this machine could deliver a guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deliverable {
    /// And verifiers with the strict policy accept it, once they expect the software.
    Yes,
    /// The enclave makes it, and verifiers with the strict policy refuse it.
    Refused,
    /// The enclave makes it; whether verifiers accept it is not known without collateral.
    Unknown,
    No,
}

/// A guarantee, and what stands in its way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guarantee {
    pub guarantee: &'static str,
    pub deliverable: Deliverable,
    pub why: String,
}

/// What follows for guarantees (formats §1) from how it all ended, and from how long a quote took.
pub fn guarantees(exit: u8, milliseconds: Option<u64>) -> Vec<Guarantee> {
    let (deliverable, because) = match exit {
        0 | 6 => (
            Deliverable::Yes,
            "once verifiers expect the measurement of your image",
        ),
        4 => (
            Deliverable::Refused,
            "verifiers with the strict policy refuse it until the checks that fail are seen to",
        ),
        5 => (
            Deliverable::Unknown,
            "whether verifiers accept it is not known without the collateral that is missing here",
        ),
        7 => (
            Deliverable::No,
            "without a quote there is no boot quote, and an enclave serves nothing",
        ),
        _ => (
            Deliverable::No,
            "what this machine gives as quotes is refused by every verifier",
        ),
    };
    let took = milliseconds.map_or(String::new(), |ms| format!("; this one took {ms} ms"));
    let three = [
        (
            "signed",
            "needs a keyset that a boot quote proves, then no quote an answer".to_owned(),
        ),
        (
            "logged",
            "needs one quote for each checkpoint, which answers share".to_owned(),
        ),
        (
            "quoted",
            format!("needs one quote for each answer, made one after the other{took}"),
        ),
    ];
    let mut all: Vec<Guarantee> = three
        .into_iter()
        .map(|(guarantee, needs)| Guarantee {
            guarantee,
            deliverable,
            why: format!("{needs}: {because}"),
        })
        .collect();
    all.push(Guarantee {
        guarantee: "recomputed",
        deliverable: Deliverable::No,
        why: "no enclave gives it alone: whoever compares two signed answers, or runs the model himself, comes to it"
            .into(),
    });
    all.push(Guarantee {
        guarantee: "proven",
        deliverable: Deliverable::No,
        why: "reserved: no version delivers it yet, on any machine".into(),
    });
    all
}
