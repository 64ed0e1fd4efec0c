//! The judgement of a whole bundle, offline (formats.md §1 to §7).
//!
//! All parts are decoded first; if one of them is malformed nothing else is looked at. Then
//! every check runs that can, in this order: the receipt under its keyset, each evidence object
//! with its REPORT_DATA recomputed, the log, the comparison with what the caller holds, and last
//! the guarantees, which follow from all the others. [`Checks::conclude`] does the rest.

mod compare;
mod log;
mod receipt;

use serde_json::{Value, json};
use touchstone_formats::evidence::Evidence;
use touchstone_formats::report_data::{bind_boot, bind_checkpoint, bind_receipt, report_data};
use touchstone_formats::text::hex_encode;
use touchstone_formats::{
    Bundle, Checkpoint, Digest, FormatError, Guarantee, GuaranteeSet, Purpose, Receipt, Tee,
    TlogProof,
};

use crate::exchange::Comparison;
use crate::policy::Rule;
use crate::verdict::{Checks, Context, Fault, Verdict};
use crate::{At, Judged, Policy, Roots, judge};

/// What is always so, whatever the evidence says.
const TIME_ASSERTED: &str = "time asserted by you; a key broken since could have made this";

/// Judges a bundle file against a policy, roots of trust, what the caller holds, and a time.
///
/// A pure function: the same arguments give the same verdict. Work is bounded by the limits of
/// formats.md, which are checked before anything is parsed.
pub fn check(
    bundle_file: &[u8],
    policy: &Policy,
    roots: &Roots,
    comparison: &Comparison,
    at: At,
) -> Verdict {
    let mut checks = Checks::new();
    let mut context = Context {
        expect_simulated: comparison.expect_simulated,
        ..Context::default()
    };
    if let Some(parts) = Parts::parse(bundle_file, &mut checks) {
        let judging = Judging {
            parts: &parts,
            policy,
            roots,
            comparison,
            at,
        };
        judging.run(&mut checks, &mut context);
    }
    if at.asserted {
        context.residual_risks.push(TIME_ASSERTED.to_owned());
    }
    Verdict::new(checks, context, at)
}

/// A bundle, all of whose parts decode.
struct Parts {
    bundle: Bundle,
    receipt: Receipt,
    seal: Option<Seal>,
    /// Recomputed from the keyset in the bundle, never taken from a claim.
    keyset_digest: Digest,
}

/// The proof of inclusion, and the checkpoint it ends in.
struct Seal {
    proof: TlogProof,
    checkpoint: Checkpoint,
}

impl Parts {
    /// Decodes every part; `None`, with the checks that say why, if one is malformed.
    fn parse(bundle_file: &[u8], checks: &mut Checks) -> Option<Parts> {
        let bundle = decoded(checks, "bundle.format", Bundle::parse(bundle_file))?;
        let receipt = decoded(checks, "receipt.format", Receipt::parse(&bundle.receipt));
        let seal = match &bundle.proof {
            None => Some(None),
            Some(text) => {
                let seal = TlogProof::parse(text).and_then(|proof| {
                    let checkpoint = proof.note.checkpoint()?;
                    Ok(Seal { proof, checkpoint })
                });
                decoded(checks, "log.proof.format", seal).map(Some)
            }
        };
        let purposes = bundle.evidence.iter().map(|e| purpose_is_right(checks, e));
        // All of them, so that every malformed part is named.
        let purposes = purposes.fold(true, |all, one| all && one);
        let keyset_digest = bundle.keyset.digest();
        (purposes && checks.hold())
            .then(|| {
                Some(Parts {
                    receipt: receipt?,
                    seal: seal?,
                    keyset_digest,
                    bundle,
                })
            })
            .flatten()
    }
}

fn decoded<T>(checks: &mut Checks, id: &'static str, parsed: Result<T, FormatError>) -> Option<T> {
    match parsed {
        Ok(value) => {
            checks.pass(id, Value::Null, Value::Null);
            Some(value)
        }
        Err(error) => {
            checks.fail(
                id,
                Fault::Malformed,
                Value::Null,
                Value::Null,
                error.to_string(),
            );
            None
        }
    }
}

/// Session evidence, and evidence of other systems (no purpose), never stand in a bundle.
fn purpose_is_right(checks: &mut Checks, evidence: &Evidence) -> bool {
    let right = matches!(
        evidence.purpose,
        Some(Purpose::Boot | Purpose::Checkpoint | Purpose::Receipt)
    );
    if !right {
        let expected = json!(["boot", "checkpoint", "receipt"]);
        let found = evidence.purpose.map_or(Value::Null, |p| json!(p.name()));
        let reason = "evidence of this purpose never stands in a bundle";
        checks.fail(
            "evidence.purpose",
            Fault::Malformed,
            expected,
            found,
            reason,
        );
    }
    right
}

/// One judgement: the parts of the bundle, and what they are judged by.
struct Judging<'a> {
    parts: &'a Parts,
    policy: &'a Policy,
    roots: &'a Roots,
    comparison: &'a Comparison,
    at: At,
}

/// What the evidence objects proved together.
#[derive(Default)]
struct Evidenced {
    /// Purposes of evidence that was accepted.
    purposes: Vec<Purpose>,
    /// Some evidence object was refused.
    refused: bool,
}

impl Judging<'_> {
    fn run(&self, checks: &mut Checks, context: &mut Context) {
        let signed = self.receipt_under_keyset(checks);
        self.keyset_lifetime(checks);
        self.claims(checks);
        let nonce = self.nonce(checks);
        context.model = self.model(checks);

        let evidenced = self.evidence(checks, context);
        let logged = self.log(checks);
        context.covers = self.compare(checks, nonce);
        self.attachments(checks);
        self.guarantees(checks, context, signed, &evidenced, logged);
    }

    /// Judges every evidence object; one that fails fails the bundle.
    fn evidence(&self, checks: &mut Checks, context: &mut Context) -> Evidenced {
        let mut evidenced = Evidenced::default();
        let mut platforms = Vec::new();
        for evidence in &self.parts.bundle.evidence {
            // Another purpose was refused when the parts were decoded.
            let Some(purpose) = evidence.purpose else {
                continue;
            };
            let (own, judged) = self.one_evidence(evidence, purpose);
            if own.hold() && judged.checks.hold() {
                evidenced.purposes.push(purpose);
            } else {
                evidenced.refused = true;
            }
            context.simulated |= judged.simulated;
            context.measurement = context.measurement.take().or(judged.measurement.clone());
            for risk in judged.residual_risks {
                if !context.residual_risks.contains(&risk) {
                    context.residual_risks.push(risk);
                }
            }
            platforms.push((judged.platform, judged.measurement));
            checks.extend(own);
            checks.extend(judged.checks);
        }
        if let Some((first, rest)) = platforms.split_first() {
            context.platform = first.0.clone();
            if rest.iter().any(|other| other != first) {
                context.residual_risks.push(
                    "the evidence objects describe different platforms or platform states; the first is shown"
                        .to_owned(),
                );
            }
        }
        evidenced
    }

    /// The evidence's REPORT_DATA, recomputed, and everything about its platform.
    fn one_evidence(&self, evidence: &Evidence, purpose: Purpose) -> (Checks, Judged) {
        let mut own = Checks::about(purpose.name());
        let claims = &self.parts.receipt.claims;
        let keyset = self.parts.keyset_digest;
        let (nonce, bind) = match purpose {
            Purpose::Boot => (None, Some(bind_boot())),
            Purpose::Checkpoint => (
                None,
                self.parts
                    .seal
                    .as_ref()
                    .map(|seal| bind_checkpoint(&seal.proof.note.text)),
            ),
            Purpose::Receipt => (
                claims.nonce.as_deref(),
                Some(bind_receipt(self.parts.receipt.cose())),
            ),
            // Refused when the parts were decoded; here it would bind nothing.
            Purpose::Session => (None, None),
        };
        if evidence.nonce.as_deref() != nonce {
            // A value said twice has to agree.
            let show = |n: Option<&[u8]>| n.map_or(Value::Null, |n| json!(hex_encode(n)));
            own.fail(
                "evidence.nonce",
                Fault::NotAuthentic,
                show(nonce),
                show(evidence.nonce.as_deref()),
                match purpose {
                    Purpose::Receipt => "the evidence names another nonce than the receipt",
                    _ => "evidence of this purpose carries no nonce",
                },
            );
        }
        if evidence.event_log.is_some() && evidence.tee == Tee::SevSnp {
            own.unconsidered(
                "evidence.event_log",
                "a SEV-SNP report measures no event log; nothing rests on it",
            );
        }
        let expected = bind.map(|bind| report_data(purpose, keyset, nonce, bind));
        if expected.is_none() {
            own.not_evaluated(
                "evidence.report_data",
                Fault::NotYet,
                Value::Null,
                "the checkpoint that this evidence is about is not in the bundle (no proof)",
            );
        }
        let judged = judge(
            evidence,
            self.policy,
            self.roots,
            expected.as_ref(),
            self.at,
            Some(purpose.name()),
        );
        (own, judged)
    }

    /// Types this version does not know: listed, and they achieve nothing.
    fn attachments(&self, checks: &mut Checks) {
        for (n, attachment) in self.parts.bundle.attachments.iter().enumerate() {
            checks.unconsidered(
                format!("attachment.{n}"),
                format!(
                    "attachments of type {:?} are not known to this version",
                    attachment.kind()
                ),
            );
        }
    }

    /// achieved ⊇ what the receipt states ∪ what the caller demands (§1).
    fn guarantees(
        &self,
        checks: &mut Checks,
        context: &mut Context,
        signed: bool,
        evidenced: &Evidenced,
        logged: bool,
    ) {
        let mut achieved = Vec::new();
        if signed && !evidenced.refused && !evidenced.purposes.is_empty() {
            achieved.push(Guarantee::Signed);
            if logged && evidenced.purposes.contains(&Purpose::Checkpoint) {
                achieved.push(Guarantee::Logged);
            }
            if evidenced.purposes.contains(&Purpose::Receipt) {
                achieved.push(Guarantee::Quoted);
            }
        }
        let stated = self.parts.receipt.claims.guarantees;
        let mut demanded = self.policy.answer.require;
        if let Some(require) = &self.comparison.require {
            demanded = demanded.union(require);
        }
        achieved.sort();
        context.achieved = achieved.iter().map(ToString::to_string).collect();
        context.required = stated
            .union(&demanded)
            .names()
            .into_iter()
            .map(str::to_owned)
            .collect();

        // When everything that is there was accepted, what is missing may still come.
        let fault = if signed && !evidenced.refused {
            Fault::NotYet
        } else {
            Fault::Policy
        };
        for (id, set, who) in [
            ("guarantees.stated", stated, "the receipt states"),
            ("guarantees.required", demanded, "you or your policy demand"),
        ] {
            require(checks, id, set, who, &achieved, fault);
        }
    }
}

fn require(
    checks: &mut Checks,
    id: &'static str,
    set: GuaranteeSet,
    who: &str,
    achieved: &[Guarantee],
    fault: Fault,
) {
    let found: Vec<String> = achieved.iter().map(ToString::to_string).collect();
    let missing: Vec<Guarantee> = set.iter().filter(|g| !achieved.contains(g)).collect();
    if missing.is_empty() {
        checks.pass(id, json!(set.names()), found);
        return;
    }
    let why = missing
        .iter()
        .map(|g| format!("{g} ({})", what_is_missing(*g)))
        .collect::<Vec<_>>();
    // What this version cannot evaluate will not come by waiting.
    let never = missing
        .iter()
        .any(|g| matches!(g, Guarantee::Proven | Guarantee::Recomputed));
    let fault = if never { Fault::Policy } else { fault };
    let reason = format!("{who} what this bundle does not prove: {}", why.join(", "));
    checks.fail(id, fault, json!(set.names()), found, reason);
}

fn what_is_missing(guarantee: Guarantee) -> &'static str {
    match guarantee {
        Guarantee::Signed => "needs accepted evidence over the keyset that signed the receipt",
        Guarantee::Logged => "needs the seal: a proof, and accepted evidence over its checkpoint",
        Guarantee::Quoted => "needs accepted evidence over this very receipt",
        Guarantee::Recomputed => "needs a second bundle; this version compares none",
        Guarantee::Proven => "reserved; this version refuses it",
    }
}

/// Applies one rule of a policy: `judge` runs when it expects something; a waiver in force and
/// one that has ended are dealt with here.
fn rule<T>(
    checks: &mut Checks,
    id: &'static str,
    rule: &Rule<T>,
    at: At,
    found: Value,
    judge: impl FnOnce(&mut Checks, &T, Value),
) {
    match rule {
        Rule::Expect(expected) => judge(checks, expected, found),
        Rule::Waive(waiver) if waiver.holds_at(at.time) => {
            checks.waived(id, found, waiver.reason.clone(), waiver.until.clone());
        }
        Rule::Waive(waiver) => {
            let until = waiver.until.as_deref().unwrap_or_default();
            let reason = format!("the policy's waiver ended on {until} ({})", waiver.reason);
            checks.fail(id, Fault::Policy, Value::Null, found, reason);
        }
    }
}
