//! A verifier that is kept: it judges as the functions of this crate do, and verifies again only what is new.

use std::sync::{Arc, PoisonError, RwLock};

use touchstone_formats::{Attachment, CollateralFile, Evidence};

use crate::appraise::{Judged, appraise_by};
use crate::bundle::check_by;
use crate::exchange::{Comparison, SessionRecord};
use crate::known::{Known, Work};
use crate::manifest::Authentic;
use crate::ohttp::ConnectionRecord;
use crate::reference::{Given, Manifests, Ruling};
use crate::regrade::{Advisories, Regraded, regrade_by};
use crate::session::{
    Connection, SessionVerdict, check_ohttp_by, check_ohttp_record_by, check_record_by,
    check_session_by,
};
use crate::verdict::Checks;
use crate::{At, Policy, Roots, Verdict};

/// A policy, roots of trust, and what was verified under them so far.
///
/// Each method is the function of the same name in this crate, and gives the same verdict, byte for byte, whatever was judged
/// before. What it is faster by: a certificate, revocation list, signed text or signature that was verified is known when the
/// very same bytes come again (a VEK's chain, a TDX platform's PCK chain, collateral and QE report, the checkpoint of a log).
/// Of evidence that is judged at the same second as evidence of its platform was, and that differs from it in report data and
/// signature alone, these two are checked; of the very same evidence nothing is (the boot and checkpoint evidence that bundles
/// share). Everything that depends on time is judged at the time of each judgement.
///
/// It keeps at most about 64 MiB, and what was not used for the longest goes first. Threads may share it. It
/// reads no clock and no network.
///
/// ```
/// use attestation_verifier::{At, Comparison, Policy, Roots, Verifier};
/// # let policy = Policy::parse(&attestation_verifier::policy::template(touchstone_formats::Tee::SevSnp));
/// # let (Ok(policy), bundles) = (policy, [b"{}"]) else { return };
/// let verifier = Verifier::new(policy, Roots::pinned());
/// for bundle_file in bundles {
///     let at = At { time: 1_767_225_600, asserted: true };
///     let verdict = verifier.check(bundle_file, &Comparison::default(), at);
///     assert_ne!(verdict.exit(), 0);
/// }
/// ```
#[derive(Debug)]
pub struct Verifier {
    policy: Policy,
    roots: Roots,
    known: Known,
    manifests: RwLock<Arc<Given>>,
}

impl Verifier {
    /// A verifier that has seen nothing yet, and was given no manifests.
    pub fn new(policy: Policy, roots: Roots) -> Verifier {
        Verifier {
            policy,
            roots,
            known: Known::lasting(),
            manifests: RwLock::default(),
        }
    }

    /// The same, with manifests for a policy that asks for one. Under another policy they are not looked at.
    #[must_use]
    pub fn with_manifests(self, manifests: &Manifests) -> Verifier {
        self.replace_manifests(manifests);
        self
    }

    /// Judges by these manifests from now on, and by none of those it had: judgements that are under way end by the ones that
    /// they began with. Nothing is refused here; what is wrong with a manifest each verdict says.
    pub fn replace_manifests(&self, manifests: &Manifests) {
        let given = Arc::new(Given::new(&self.policy, manifests));
        *self
            .manifests
            .write()
            .unwrap_or_else(PoisonError::into_inner) = given;
    }

    /// The policy it judges by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The roots it trusts.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// How many signatures it verified, and how many not again.
    pub fn work(&self) -> Work {
        self.known.work()
    }

    /// Judges a bundle file: [`crate::check`].
    pub fn check(&self, bundle_file: &[u8], comparison: &Comparison, at: At) -> Verdict {
        self.by(|by| check_by(bundle_file, by, comparison, at))
    }

    /// Judges an evidence file: [`crate::appraise()`].
    pub fn appraise(
        &self,
        evidence_file: &[u8],
        report_data: Option<&[u8; 64]>,
        at: At,
    ) -> Verdict {
        self.by(|by| appraise_by(evidence_file, by, report_data, at))
    }

    /// Judges one evidence object: [`crate::judge`].
    pub fn judge(
        &self,
        evidence: &Evidence,
        report_data: Option<&[u8; 64]>,
        at: At,
        about: Option<&'static str>,
    ) -> Judged {
        self.by(|by| by.ruled(&[], at, |by| by.judge(evidence, report_data, at, about)))
    }

    /// Judges a kept bundle without notices and with them: [`crate::regrade::regrade`].
    pub fn regrade(
        &self,
        bundle_file: &[u8],
        advisories: &Advisories,
        comparison: &Comparison,
        at: At,
    ) -> Regraded {
        self.by(|by| regrade_by(bundle_file, advisories, by, comparison, at))
    }

    /// Judges the answer to `POST /v1/session`: [`crate::check_session`].
    pub fn check_session(
        &self,
        answer_file: &[u8],
        connection: &Connection,
        collateral: Option<&CollateralFile>,
        at: At,
        expect_simulated: bool,
    ) -> SessionVerdict {
        self.by(|by| {
            check_session_by(
                answer_file,
                connection,
                collateral,
                by,
                at,
                expect_simulated,
            )
        })
    }

    /// Judges what was kept of a connection: [`crate::check_session_record`].
    pub fn check_session_record(
        &self,
        record: &SessionRecord,
        at: At,
        expect_simulated: bool,
    ) -> SessionVerdict {
        self.by(|by| check_record_by(record, by, at, expect_simulated))
    }

    /// Judges boot evidence before any request is sealed to the keys it is about: [`crate::check_ohttp`].
    pub fn check_ohttp(
        &self,
        answer_file: &[u8],
        nonce: &[u8; 32],
        collateral: Option<&CollateralFile>,
        at: At,
        expect_simulated: bool,
    ) -> SessionVerdict {
        self.by(|by| check_ohttp_by(answer_file, nonce, collateral, by, at, expect_simulated))
    }

    /// Judges what was kept of what an answer came over: [`crate::check_session_record`] or [`crate::check_ohttp_record`].
    pub fn check_connection_record(
        &self,
        record: &ConnectionRecord,
        at: At,
        expect_simulated: bool,
    ) -> SessionVerdict {
        self.by(|by| match record {
            ConnectionRecord::Tls(record) => check_record_by(record, by, at, expect_simulated),
            ConnectionRecord::Ohttp(record) => {
                check_ohttp_record_by(record, by, at, expect_simulated)
            }
        })
    }

    fn by<T>(&self, judge: impl FnOnce(By<'_>) -> T) -> T {
        let manifests = self
            .manifests
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let given = Arc::clone(&manifests);
        drop(manifests);
        judge(By {
            given: Some(&given),
            ..By::new(&self.policy, &self.roots, &self.known)
        })
    }
}

/// What a judgement goes by.
#[derive(Clone, Copy)]
pub(crate) struct By<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) roots: &'a Roots,
    pub(crate) known: &'a Known,
    /// Manifests that the caller gave.
    given: Option<&'a Given>,
    /// The one that counts, once that is settled; none where the policy asks for none.
    pub(crate) ruling: Option<&'a Ruling>,
}

impl<'a> By<'a> {
    /// `known` may have been filled under this policy and these roots alone.
    pub(crate) fn new(policy: &'a Policy, roots: &'a Roots, known: &'a Known) -> By<'a> {
        By {
            policy,
            roots,
            known,
            given: None,
            ruling: None,
        }
    }

    /// Settles which manifest counts at this time, those in a bundle among them, and judges by it.
    pub(crate) fn ruled<T>(
        self,
        attachments: &[Attachment],
        at: At,
        judge: impl FnOnce(By<'_>) -> T,
    ) -> T {
        let none = Given::default();
        let given = self.given.unwrap_or(&none);
        let ruling = given.ruling(self.policy, attachments, at);
        judge(By {
            ruling: ruling.as_ref(),
            ..self
        })
    }

    /// Begins a verdict with the checks of the manifest; gives it if it can be used.
    pub(crate) fn begin(&self, checks: &mut Checks) -> Option<Arc<Authentic>> {
        let ruling = self.ruling?;
        checks.extend(ruling.checks().clone());
        ruling.used().ok().cloned()
    }
}
