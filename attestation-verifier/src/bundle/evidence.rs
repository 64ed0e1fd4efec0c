//! Evidence in a bundle: what each object has to be about, and whether it stands (formats.md §3, §7).

use serde_json::{Value, json};
use touchstone_formats::report_data::{bind_boot, bind_checkpoint, bind_receipt, report_data};
use touchstone_formats::text::hex_encode;
use touchstone_formats::{Digest, Evidence, Purpose, Tee};

use super::Judging;
use crate::reference::release_object;
use crate::verdict::{Checks, Context, Fault};

/// What the evidence objects proved together.
#[derive(Default)]
pub(super) struct Evidenced {
    /// Purposes of evidence that was accepted.
    pub(super) purposes: Vec<Purpose>,
    /// Some evidence object was refused, and with it the bundle.
    pub(super) refused: bool,
}

/// What an evidence object of one purpose is about.
struct Subject<'a> {
    nonce: Option<&'a [u8]>,
    /// None where the bundle does not have what it is about.
    bind: Option<Digest>,
}

impl Judging<'_> {
    /// Judges every evidence object; one that fails fails the bundle.
    pub(super) fn evidence(&self, checks: &mut Checks, context: &mut Context) -> Evidenced {
        let mut evidenced = Evidenced::default();
        let mut platforms = Vec::new();
        for evidence in &self.parts.bundle.evidence {
            let Some((purpose, subject)) = self.subject(evidence) else {
                evidenced.refused = true;
                let reason = "evidence of this purpose never stands in a bundle";
                let found = evidence.purpose.map(Purpose::name);
                let expected = json!(["boot", "checkpoint", "receipt"]);
                checks.fail(
                    "evidence.purpose",
                    Fault::Malformed,
                    expected,
                    found,
                    reason,
                );
                continue;
            };
            let mut own = Checks::about(purpose.name());
            let expected = self.expected(&mut own, evidence, purpose, &subject);
            let about = Some(purpose.name());
            let judged = self.by.judge(evidence, expected.as_ref(), self.at, about);
            if own.hold() && judged.checks.hold() {
                evidenced.purposes.push(purpose);
            } else {
                evidenced.refused = true;
            }
            checks.extend(own);
            checks.extend(judged.checks);
            context.simulated |= judged.simulated;
            for risk in judged.residual_risks {
                if !context.residual_risks.contains(&risk) {
                    context.residual_risks.push(risk);
                }
            }
            platforms.push((judged.platform, judged.measurement));
            if context.release.is_null() {
                context.release = judged.release;
            }
        }
        let mut platforms = platforms.into_iter();
        if let Some(first) = platforms.next() {
            let another = platforms.any(|other| other != first);
            (context.platform, context.measurement) = first;
            if another {
                let risk = "the evidence objects describe different platforms, or one in different states; the first is shown";
                context.residual_risks.push(risk.to_owned());
            }
        }
        if let (true, Some(authentic)) = (context.release.is_null(), &context.manifest) {
            context.release = release_object(authentic, None);
        }
        evidenced
    }

    /// What the object has to be about; none for purposes that never stand in a bundle.
    fn subject(&self, evidence: &Evidence) -> Option<(Purpose, Subject<'_>)> {
        let purpose = evidence.purpose?;
        let (nonce, bind) = match purpose {
            Purpose::Boot => (None, Some(bind_boot())),
            Purpose::Checkpoint => {
                let seal = self.parts.seal.as_ref();
                (
                    None,
                    seal.map(|seal| bind_checkpoint(&seal.proof.note.text)),
                )
            }
            Purpose::Receipt => {
                let receipt = &self.parts.receipt;
                (
                    receipt.claims.nonce.as_deref(),
                    Some(bind_receipt(receipt.cose())),
                )
            }
            Purpose::Session => return None,
        };
        Some((purpose, Subject { nonce, bind }))
    }

    /// The REPORT_DATA that the object must carry, with the checks that lead there.
    fn expected(
        &self,
        checks: &mut Checks,
        evidence: &Evidence,
        purpose: Purpose,
        subject: &Subject,
    ) -> Option<[u8; 64]> {
        if evidence.nonce.as_deref() != subject.nonce {
            // A value said twice has to agree.
            let reason = match purpose {
                Purpose::Receipt => "the evidence names another nonce than the receipt",
                _ => "evidence of this purpose carries no nonce",
            };
            let (expected, found) = (subject.nonce.map(hex_encode), evidence.nonce.as_deref());
            let (fault, found) = (Fault::NotAuthentic, found.map(hex_encode));
            checks.fail("evidence.nonce", fault, expected, found, reason);
        }
        if evidence.event_log.is_some() && evidence.tee == Tee::SevSnp {
            let reason = "a SEV-SNP report measures no event log; nothing rests on it";
            checks.unconsidered("evidence.event_log", reason);
        }
        if subject.bind.is_none() {
            let reason =
                "the checkpoint that this evidence is about is not in the bundle (no proof)";
            checks.not_evaluated("evidence.report_data", Fault::NotYet, Value::Null, reason);
        }
        let keyset = self.parts.keyset_digest;
        subject
            .bind
            .map(|bind| report_data(purpose, keyset, subject.nonce, bind))
    }
}
