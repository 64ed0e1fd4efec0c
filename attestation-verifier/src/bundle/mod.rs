//! The judgement of a whole bundle, offline (formats.md §1 to §7).
//!
//! All parts are decoded first; if one of them is malformed nothing else is looked at. Then
//! every check runs that can, in this order: the receipt under its keyset, each evidence object
//! with its REPORT_DATA recomputed, the log, the comparison with what the caller holds, and last
//! the guarantees, which follow from all the others. [`Checks::conclude`] does the rest.

mod compare;
mod evidence;
mod log;
mod receipt;

use serde_json::{Value, json};
use touchstone_formats::{
    Bundle, Checkpoint, Digest, FormatError, Guarantee, GuaranteeSet, Purpose, Receipt, TlogProof,
};

use crate::exchange::Comparison;
use crate::known::Known;
use crate::policy::Rule;
use crate::reference::ATTACHMENT;
use crate::session::{Binding, demand};
use crate::verdict::{Checks, Context, Fault, Verdict};
use crate::verifier::By;
use crate::{At, Policy, Roots};
use evidence::Evidenced;

/// Said with every verdict at a time that the caller asserted (formats.md §7, "Time").
pub(crate) const TIME_ASSERTED: &str =
    "time asserted by you; a key broken since could have made this";

/// How far ahead of the time of judgement an enclave's clock may be, seconds (formats.md §7, "Time").
pub(crate) const CLOCK_AHEAD: u64 = 300;

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
    let known = Known::new();
    check_by(bundle_file, By::new(policy, roots, &known), comparison, at)
}

/// [`check`], by what is known.
pub(crate) fn check_by(bundle_file: &[u8], by: By<'_>, comparison: &Comparison, at: At) -> Verdict {
    let mut checks = Checks::new();
    let mut context = Context {
        expect_simulated: comparison.expect_simulated,
        ..Context::default()
    };
    if let Some(parts) = Parts::parse(bundle_file, &mut checks) {
        by.ruled(&parts.bundle.attachments, at, |by| {
            let judging = Judging {
                parts: &parts,
                by,
                policy: by.policy,
                comparison,
                at,
            };
            judging.run(&mut checks, &mut context);
        });
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
        Some(Parts {
            receipt: receipt?,
            seal: seal?,
            keyset_digest: bundle.keyset.digest(),
            bundle,
        })
    }
}

pub(crate) fn decoded<T>(
    checks: &mut Checks,
    id: &'static str,
    parsed: Result<T, FormatError>,
) -> Option<T> {
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

/// One judgement: the parts of the bundle, and what they are judged by.
struct Judging<'a> {
    parts: &'a Parts,
    by: By<'a>,
    policy: &'a Policy,
    comparison: &'a Comparison,
    at: At,
}

impl Judging<'_> {
    fn run(&self, checks: &mut Checks, context: &mut Context) {
        context.manifest = self.by.begin(checks);
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
        self.connection(checks, context);
    }

    /// Whether the connection that the answer came over ended in the enclave that this bundle proves.
    fn connection(&self, checks: &mut Checks, context: &mut Context) {
        let demanded = self.policy.session.as_ref().map(|s| &s.answers);
        let expected = demanded.and_then(Rule::expected);
        let unless_none = |list: &&Vec<Binding>| !list.contains(&Binding::None);
        let missing = match &self.comparison.session {
            None => "you have no record of the connection that the answer came over",
            Some(_) if self.at.asserted => {
                "a session is judged only at your own clock, not at a time that you assert"
            }
            Some(bound) => {
                let proven = context
                    .achieved
                    .iter()
                    .any(|g| g == Guarantee::Signed.name());
                if proven && bound.keyset() == Some(self.parts.keyset_digest) {
                    context.binding = bound.binding();
                    context.simulated |= bound.simulated();
                }
                demand(checks, demanded, context.binding, self.at);
                return;
            }
        };
        match expected.filter(unless_none) {
            Some(list) => {
                checks.not_evaluated("session.binding", Fault::Policy, json!(list), missing);
            }
            None => demand(checks, demanded, Binding::None, self.at),
        }
    }

    /// Manifests, which count where the policy asks for one; and types this version does not know: listed, and they achieve
    /// nothing.
    fn attachments(&self, checks: &mut Checks) {
        for (n, attachment) in self.parts.bundle.attachments.iter().enumerate() {
            let id = format!("attachment.{n}");
            match (attachment.kind(), self.by.ruling) {
                (ATTACHMENT, Some(ruling)) => ruling.attachment(n, id, checks),
                (ATTACHMENT, None) => {
                    checks.unconsidered(id, "a manifest, and the policy asks for none");
                }
                (kind, _) => checks.unconsidered(
                    id,
                    format!("attachments of type {kind:?} are not known to this version"),
                ),
            }
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
pub(crate) fn rule<T>(
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
