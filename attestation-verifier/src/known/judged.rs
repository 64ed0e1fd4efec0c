//! What came of evidence that was accepted: for the same evidence at the same second, and for what the same platform
//! quotes for others in that second.
//!
//! What a platform quotes for others differs in REPORT_DATA and in the quote's signature alone. If every other byte is the
//! same, then of all checks two can end differently: whether REPORT_DATA is what it must be, and whether the signature is one.
//! Both are made each time; if either does not pass, the evidence is judged from the beginning.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use touchstone_formats::evidence::{Collateral, Tee};
use touchstone_formats::{Digest, Evidence};

use super::{Key, Known};
use crate::At;
use crate::appraise::{BOUND, Judged, bound};
use crate::crypto::{Budget, Signed, sha256_parts};
use crate::parse::cert::PublicKey;
use crate::parse::snp::signature_numbers;
use crate::parse::tdx::quote::body;
use crate::verdict::Checks;

/// Room that it takes to know that evidence was accepted before.
const SEEN: usize = 128;
/// Room that the checks of one evidence object take, bytes, about.
const CHECKS: usize = 16 << 10;

/// What evidence is judged by, beside policy and roots.
#[derive(Clone, Copy)]
pub(crate) struct Judgement<'a> {
    pub(crate) report_data: Option<&'a [u8; 64]>,
    pub(crate) at: At,
    pub(crate) about: Option<&'static str>,
    /// The manifest that counts, and whose signatures stand under it; none without one.
    pub(crate) manifest: Option<Digest>,
}

/// An evidence object, everything beside policy and roots that it was judged by, and what came of it.
pub(super) struct Sentence {
    evidence: Evidence,
    place: Place,
    /// The point that the quote's signature is by.
    signer: Option<Vec<u8>>,
    report_data: Option<[u8; 64]>,
    at: At,
    about: Option<&'static str>,
    manifest: Option<Digest>,
    judged: Judged,
}

/// Where a quote has what differs from one to the next.
struct Place {
    report_data: usize,
    /// Length of what is signed, from the quote's beginning.
    signed: usize,
    /// The signature's two numbers.
    numbers: [Range<usize>; 2],
}

impl Place {
    fn of(evidence: &Evidence) -> Option<Place> {
        match evidence.tee {
            Tee::SevSnp => Some(Place {
                report_data: 0x50,
                signed: crate::parse::snp::SIGNED_LENGTH,
                numbers: signature_numbers(),
            }),
            Tee::Tdx => {
                let body = body(&evidence.quote)?;
                // Behind the body: the size of what follows, then r and s.
                let [r, s, end] = [4, 36, 68].map(|behind| body.end + behind);
                Some(Place {
                    report_data: body.start + 520,
                    signed: body.end,
                    numbers: [r..s, s..end],
                })
            }
        }
    }

    fn report_data<'a>(&self, quote: &'a [u8]) -> Option<&'a [u8; 64]> {
        quote.get(self.report_data..)?.first_chunk()
    }

    /// All but REPORT_DATA and the signature, in four pieces.
    fn rest<'a>(&self, quote: &'a [u8]) -> Option<[&'a [u8]; 4]> {
        let [r, s] = &self.numbers;
        Some([
            quote.get(..self.report_data)?,
            quote.get(self.report_data + 64..r.start)?,
            quote.get(r.end..s.start)?,
            quote.get(s.end..)?,
        ])
    }

    /// Where a sentence stands on its shelf: by much of what was measured, and by the guest (SEV-SNP's REPORT_ID) or the attestation
    /// key. What is found there is compared byte by byte.
    fn key(&self, quote: &[u8], about: Option<&'static str>) -> Option<Key> {
        let [head, body, _, tail] = self.rest(quote)?;
        let registers = head.last_chunk::<192>().map_or(head, |end| end.as_slice());
        let guest = body.get(..256).unwrap_or(body);
        let about = about.unwrap_or_default().as_bytes();
        Some(sha256_parts(&[about, registers, guest, tail.get(..64)?]))
    }

    /// Whether the signer's point signed the quote.
    fn signed(&self, tee: Tee, quote: &[u8], point: &[u8], known: &Known) -> Option<bool> {
        let message = quote.get(..self.signed)?;
        let [r, s] = &self.numbers;
        let (r, s) = (quote.get(r.clone())?, quote.get(s.clone())?);
        let mut budget = Budget::new(known);
        Some(match tee {
            Tee::SevSnp => {
                let mut r_s = [0; 96];
                // Little-endian in a report.
                let numbers = r.iter().rev().chain(s.iter().rev());
                r_s.iter_mut()
                    .zip(numbers)
                    .for_each(|(to, from)| *to = *from);
                budget.p384_sha384(point, message, &r_s)
            }
            Tee::Tdx => budget.p256_sha256(point, Signed::once(message, &[r, s].concat())),
        })
    }
}

impl Sentence {
    /// What judging this evidence gives, if nothing but REPORT_DATA and a good signature makes it another.
    fn of(&self, evidence: &Evidence, by: &Judgement<'_>, known: &Known) -> Option<Judged> {
        let Evidence {
            tee,
            quote,
            collateral,
            event_log,
            // What REPORT_DATA has to be follows from them, and nothing else does.
            purpose: _,
            nonce: _,
        } = evidence;
        let own = &self.evidence;
        let alike = self.at == by.at
            && self.about == by.about
            && self.manifest == by.manifest
            && own.tee == *tee
            && self.place.rest(&own.quote)? == self.place.rest(quote)?
            && own.event_log == *event_log
            && own.collateral == *collateral;
        if !alike {
            return None;
        }
        if own.quote == *quote && self.report_data.as_ref() == by.report_data {
            known.judgements.fetch_add(1, Relaxed);
            return Some(self.judged.clone());
        }
        let mut judged = self.judged.clone();
        match (by.report_data, &self.report_data) {
            (None, None) => {}
            (Some(expected), Some(_)) => {
                let mut own = by.about.map_or_else(Checks::new, Checks::about);
                let found = self.place.report_data(quote)?;
                bound(found, Some(expected), by.about.is_some(), &mut own);
                if !own.hold() || !judged.checks.replace(own) {
                    return None;
                }
            }
            _ => return None,
        }
        let signer = self.signer.as_ref()?;
        let signed = self.place.signed(*tee, quote, signer, known)?;
        signed.then_some(judged)
    }
}

impl Known {
    /// What was judged of this evidence object by the same policy and roots at the same time, or of another quote of its platform; else
    /// whatever [`Self::keep_judged`] needs.
    pub(crate) fn judged(&self, evidence: &Evidence, by: &Judgement<'_>) -> Result<Judged, Sight> {
        let Some(shelf) = self.kept.as_ref().and_then(|kept| kept.judged.as_ref()) else {
            return Err(Sight::Never);
        };
        let place = Place::of(evidence);
        let key = place.and_then(|place| place.key(&evidence.quote, by.about));
        let Some(key) = key else {
            return Err(Sight::Never);
        };
        match shelf.find(&key) {
            None => Err(Sight::First(key)),
            Some(None) => Err(Sight::Again(key)),
            Some(Some(sentence)) => sentence.of(evidence, by, self).ok_or(Sight::Again(key)),
        }
    }

    /// Keeps what was judged of an evidence object, if it was accepted. The first time it keeps no more than that its
    /// platform's was: most platforms never come again.
    pub(crate) fn keep_judged(
        &self,
        sight: Sight,
        evidence: &Evidence,
        by: Judgement<'_>,
        judged: &mut Judged,
    ) {
        let shelf = self.kept.as_ref().and_then(|kept| kept.judged.as_ref());
        let Some(shelf) = shelf.filter(|_| judged.checks.hold()) else {
            return;
        };
        match sight {
            Sight::Never => {}
            Sight::First(key) => shelf.keep(key, None, SEEN),
            Sight::Again(key) => {
                let Some(place) = Place::of(evidence) else {
                    return;
                };
                judged.checks.share_but(BOUND);
                let sentence = Sentence {
                    signer: self.signer(evidence, &place),
                    evidence: evidence.clone(),
                    place,
                    report_data: by.report_data.copied(),
                    at: by.at,
                    about: by.about,
                    manifest: by.manifest,
                    judged: judged.clone(),
                };
                let weight = evidence.size().saturating_add(CHECKS);
                shelf.keep(key, Some(Arc::new(sentence)), weight);
            }
        }
    }

    /// The point that the signature of an accepted quote is by.
    fn signer(&self, evidence: &Evidence, place: &Place) -> Option<Vec<u8>> {
        match &evidence.collateral {
            Some(Collateral::SevSnp(collateral)) => {
                match &self.snp(collateral)?.vek.as_ref()?.0.key {
                    PublicKey::P384(point) => Some(point.clone()),
                    _ => None,
                }
            }
            Some(Collateral::Tdx(_)) => {
                let [_, s] = &place.numbers;
                let key = evidence.quote.get(s.end..)?.first_chunk::<64>()?;
                Some([&[4], key.as_slice()].concat())
            }
            None => None,
        }
    }
}

/// Whether evidence of a platform was accepted before.
pub(crate) enum Sight {
    /// Nobody will ask.
    Never,
    First(Key),
    Again(Key),
}
