//! Answers: provisional when they come, verified when a judgement says so.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use attestation_verifier::Comparison;
use attestation_verifier::exchange::{
    OwnedTensor, RequestBytes, ResponseBytes, ResponseInfo, ResponseVersion,
};
use attestation_verifier::verdict::{Fault, Verdict, refusal};
use touchstone_formats::headers::{State, TouchstoneResponse};
use touchstone_formats::text::hex_encode;
use touchstone_formats::{Bundle, Digest, Openings};

use crate::client::{Client, count};
use crate::error::because;
use crate::form::Form;
use crate::http::Answer;
use crate::question::Question;
use crate::receipts::{self, Waited};
use crate::session::Session;
use crate::{Error, keep, manifest};

/// An answer that nothing is known of yet: it says which receipt it has, and whether what was asked for
/// holds, but whoever stood between may have written that.
///
/// Its outputs cannot be read. [`Provisional::verified`] gives the type that has them:
///
/// ```compile_fail,E0599
/// # async fn f(client: touchstone_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let answer = client.infer("digits", &[]).await?;
/// println!("{:?}", answer.outputs()); // there is no such method
/// # Ok(()) }
/// ```
///
/// ```no_run
/// # async fn f(client: touchstone_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let answer = client.infer("digits", &[]).await?.verified().await?;
/// println!("{:?}", answer.outputs());
/// # Ok(()) }
/// ```
///
/// And nobody but the judgement makes that type:
///
/// ```compile_fail,E0308
/// # async fn f(client: touchstone_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let answer: touchstone_client::Verified = client.infer("digits", &[]).await?;
/// # Ok(()) }
/// ```
///
/// ```compile_fail,E0423
/// # fn f(provisional: touchstone_client::Provisional) {
/// let answer = touchstone_client::Verified(provisional);
/// # }
/// ```
#[derive(Clone)]
#[must_use = "an answer is worth nothing before it is verified"]
pub struct Provisional(Arc<Asked>);

/// A question, its answer, and all that is needed to judge it but the bundle.
struct Asked {
    client: Client,
    question: Question,
    asked_at: u64,
    answer: Answer,
    header: TouchstoneResponse,
    id: String,
    header_length: Option<u64>,
    /// None of a refusal.
    outputs: Option<Vec<OwnedTensor>>,
    openings: Openings,
    session: Option<Arc<Session>>,
}

impl Provisional {
    /// Reads an answer: its form alone.
    pub(crate) fn read(
        client: Client,
        question: Question,
        asked_at: u64,
        answer: Answer,
        session: Option<Arc<Session>>,
    ) -> Result<Provisional, Error> {
        let asked = match Form::of(&answer) {
            Ok(Some(form)) => {
                let openings = form.openings(&question, &answer);
                Asked {
                    id: hex_encode(&form.header.id),
                    header: form.header,
                    header_length: form.header_length,
                    outputs: form.outputs,
                    openings,
                    client,
                    question,
                    asked_at,
                    answer,
                    session,
                }
            }
            Ok(None) => return Err(Error::Answered(Box::new(answer))),
            Err(reason) => {
                return Err(Error::Malformed {
                    reason,
                    answer: Some(Box::new(answer)),
                });
            }
        };
        Ok(Provisional(Arc::new(asked)))
    }

    /// Id of the receipt that the answer names: 32 hex digits.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Whether all that was asked for holds already, says the answer.
    pub fn state(&self) -> State {
        self.0.header.state
    }

    /// What the connection rests on that the answer came over, or the key of its sealed request; none in plain HTTP.
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.0.session.as_ref()
    }

    /// The question.
    pub fn question(&self) -> &Question {
        &self.0.question
    }

    /// When it was asked, Unix seconds on the caller's clock.
    pub fn asked_at(&self) -> u64 {
        self.0.asked_at
    }

    /// The answer as it came, whoever wrote it. **Nothing is known of it.** For those who keep it and judge
    /// it later.
    pub fn read_unverified(&self) -> &Answer {
        &self.0.answer
    }

    /// The status of a refusal that has a receipt; none of an answer. Not verified.
    pub fn refused(&self) -> Option<u16> {
        self.0.refused()
    }

    /// What a person would want to know before there is a judgement: the answer came without openings, or
    /// for another set of guarantees. A sentence each.
    pub fn notes(&self) -> Vec<String> {
        let asked = &self.0;
        let mut notes = Vec::new();
        if asked.openings.is_empty() {
            let note = "the answer came without openings; it cannot be compared with its receipt";
            notes.push(note.to_owned());
        }
        let stated = asked.header.require;
        match asked.question.guarantees() {
            Some(require) if require != stated => {
                notes.push(format!("asked for {require}, and the answer says {stated}"));
            }
            _ => {}
        }
        notes
    }

    /// Waits until all that was asked for holds, for as long as the client was told to, then judges: the
    /// receipt by question, answer, nonce and connection, all of it by the client's policy, roots and clock.
    ///
    /// # Errors
    /// Whatever does not end in exit 0, with the deciding check. A refusal is no answer: its receipt fails
    /// `receipt.status` ([`Provisional::verified_any_status`] accepts it).
    pub async fn verified(self) -> Result<Verified, Unverified> {
        self.settle(0).await
    }

    /// As [`Provisional::verified`], but a refusal will do as well, if its receipt shows that the enclave
    /// refused with this status: see [`Verified::refused`].
    ///
    /// # Errors
    /// As [`Provisional::verified`].
    pub async fn verified_any_status(self) -> Result<Verified, Unverified> {
        let status = self.0.expected_status();
        self.settle(status).await
    }

    /// Waits until all that was asked for holds, says the server, for as long as the client was told to, and
    /// gives the bundle with the caller's openings in it. Nothing is judged. `progress` is told, in words,
    /// how matters stand whenever that changes.
    ///
    /// # Errors
    /// [`Error::Malformed`]: what came as the bundle is none, or is about another receipt.
    pub async fn bundle(&self, progress: impl FnMut(&str)) -> Result<Waited, Error> {
        self.0.bundle(false, progress).await
    }

    /// Judges a bundle now, by all that the client knows of this answer. Of a refusal, the receipt must show
    /// that the enclave refused with this status.
    pub fn judge(&self, bundle: &Bundle) -> Verdict {
        self.0.judge(bundle, self.0.expected_status())
    }

    /// Writes what `touchstone check` reads: `request.bin`, `expect.json`, `session.json` (of an attested
    /// connection), `response.bin`, `response.json` and `bundle.json` (if there is one), each made durable.
    /// The folder is made if it is not there; files of those names in it are replaced.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn keep(&self, folder: &Path, bundle: Option<&Bundle>) -> std::io::Result<()> {
        self.0.keep(folder, bundle)
    }

    async fn settle(self, expected_status: u16) -> Result<Verified, Unverified> {
        let settled = self.judged(expected_status).await;
        let counts = &self.0.client.0.counts;
        match settled {
            (Some(bundle), verdict) if verdict.exit() == 0 => {
                count(&counts.verified);
                Ok(Verified {
                    asked: self.0,
                    bundle,
                    verdict,
                })
            }
            (bundle, verdict) => {
                count(&counts.unverified);
                Err(Unverified {
                    provisional: self,
                    bundle: bundle.map(Box::new),
                    verdict: Box::new(verdict),
                })
            }
        }
    }

    async fn judged(&self, expected_status: u16) -> (Option<Bundle>, Verdict) {
        let at = Some(self.0.client.0.settings.at());
        let (bundle, unfinished) = match self.0.bundle(true, |_| {}).await {
            Ok(Waited::Complete(bundle)) => (bundle, None),
            Ok(Waited::Incomplete(Some(bundle), why)) => (bundle, Some(why)),
            Ok(Waited::Incomplete(None, why)) => {
                let why = format!("no bundle: {why}");
                return (None, refusal("connection.late", Fault::NotYet, why, at));
            }
            Err(error) => return (None, error.verdict()),
        };
        // Milliseconds of signatures, which would hold up all else on this thread.
        let judge = async |mut bundle: Bundle| {
            let asked = self.0.clone();
            let judging = tokio::task::spawn_blocking(move || {
                let verdict = asked.judge(&bundle, expected_status);
                if let Some(manifests) = &asked.client.0.settings.manifests {
                    manifests.attach(&mut bundle);
                }
                (bundle, verdict)
            });
            judging.await
        };
        let settings = &self.0.client.0.settings;
        let since = settings.manifests.as_ref().map_or(0, |m| m.asked());
        let mut judged = judge(bundle).await;
        let mut notes =
            Vec::from_iter(unfinished.map(|why| format!("Waiting for the bundle: {why}.")));
        // The connection was judged by its platform alone; a model may be newer than the manifest.
        if let (Some(manifests), Ok((_, verdict))) = (&settings.manifests, &judged)
            && manifest::may_help(verdict)
        {
            match (manifests.refresh(settings, since).await, judged) {
                (Ok(_), Ok((bundle, _))) => judged = judge(bundle).await,
                (outcome, first) => {
                    judged = first;
                    let why = outcome.err();
                    notes.extend(why.map(|why| format!("There is no newer manifest: {why}.")));
                }
            }
        }
        match judged {
            Ok((bundle, mut verdict)) => {
                verdict.context.residual_risks.extend(notes);
                (Some(bundle), verdict)
            }
            Err(error) => {
                let why = format!("the judgement did not come to its end: {error}");
                (None, refusal("usage", Fault::Usage, why, at))
            }
        }
    }
}

/// Which answer it is. What it says can be read in no such way.
impl fmt::Debug for Provisional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Provisional({})", self.id())
    }
}

/// Which answer it is; what it says is nobody's business in a log.
impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({})", self.id())
    }
}

impl Asked {
    fn refused(&self) -> Option<u16> {
        (!self.answer.is_success()).then_some(self.answer.status)
    }

    /// As receipts say it: 0 for an answer.
    fn expected_status(&self) -> u16 {
        self.refused().unwrap_or(0)
    }

    async fn bundle(&self, hold: bool, progress: impl FnMut(&str)) -> Result<Waited, Error> {
        let settings = &self.client.0.settings;
        let waited = receipts::wait(settings, &self.id, hold, progress).await?;
        // The host has no salts; whatever it put there is not the caller's.
        let open = |mut bundle: Bundle| {
            bundle.openings = self.openings;
            if let Some(manifests) = &settings.manifests {
                manifests.attach(&mut bundle);
            }
            bundle
        };
        Ok(match waited {
            Waited::Complete(bundle) => Waited::Complete(open(bundle)),
            Waited::Incomplete(bundle, why) => Waited::Incomplete(bundle.map(open), why),
        })
    }

    fn judge(&self, bundle: &Bundle, expected_status: u16) -> Verdict {
        let settings = &self.client.0.settings;
        let question = &self.question;
        let answered = self.refused().is_none();
        let comparison = Comparison {
            request: Some(RequestBytes {
                method: Question::METHOD.into(),
                target: question.target().to_owned(),
                header_length: question.header_length(),
                body: question.body().to_vec(),
            }),
            request_sha256: Some(Digest::of(question.body())),
            response: Some(ResponseBytes {
                status: self.answer.status,
                header_length: self.header_length,
                body: self.answer.body.to_vec(),
            }),
            // A refusal commits to no tensors.
            inputs: question.inputs.clone().filter(|_| answered),
            outputs: self.outputs.clone(),
            nonce: Some(question.nonce_bytes().to_vec()),
            require: question.guarantees(),
            receipt_only: false,
            expect_simulated: settings.expect_simulated,
            expected_status,
            session: self.session.as_ref().map(|session| session.bound()),
        };
        // The client has its manifests, and the one attached is of these.
        let file = match &settings.manifests {
            None => bundle.to_file(),
            Some(_) => {
                let mut bundle = bundle.clone();
                manifest::detach(&mut bundle);
                bundle.to_file()
            }
        };
        settings.verifier.check(&file, &comparison, settings.at())
    }

    fn keep(&self, folder: &Path, bundle: Option<&Bundle>) -> std::io::Result<()> {
        let info = ResponseInfo {
            v: ResponseVersion::One,
            status: self.answer.status,
            header_length: self.header_length,
        };
        let expect = self.question.expect(self.asked_at);
        let mut files = vec![
            ("request.bin", self.question.body().to_vec()),
            ("expect.json", keep::written(expect.to_file())?),
            ("response.bin", self.answer.body.to_vec()),
            ("response.json", keep::written(info.to_file())?),
        ];
        if let Some(session) = &self.session {
            files.push(("session.json", keep::written(session.record.to_file())?));
        }
        if let Some(bundle) = bundle {
            files.push(("bundle.json", bundle.to_file()));
        }
        keep::write(folder, &files)
    }
}

/// An answer that was judged, and holds: exit 0 under the client's policy, roots and clock.
///
/// There is no way to make one but [`Provisional::verified`] and its twin.
#[derive(Clone)]
pub struct Verified {
    asked: Arc<Asked>,
    bundle: Bundle,
    verdict: Verdict,
}

impl Verified {
    /// The outputs, as the enclave committed to them; none of a refusal.
    pub fn outputs(&self) -> &[OwnedTensor] {
        self.asked.outputs.as_deref().unwrap_or_default()
    }

    /// The answer as it came; its body is what the enclave committed to. Headers beside
    /// `Inference-Header-Content-Length` are covered by nothing but the connection.
    pub fn answer(&self) -> &Answer {
        &self.asked.answer
    }

    /// The status of a refusal ([`Provisional::verified_any_status`]); none of an answer.
    pub fn refused(&self) -> Option<u16> {
        self.asked.refused()
    }

    /// The judgement.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// The bundle, with the caller's openings: what shows it to others.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Id of the receipt: 32 hex digits.
    pub fn id(&self) -> &str {
        &self.asked.id
    }

    /// The question.
    pub fn question(&self) -> &Question {
        &self.asked.question
    }

    /// What the connection rests on that the answer came over, or the key of its sealed request; none in plain HTTP.
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.asked.session.as_ref()
    }

    /// Writes all of it into a folder, as [`Provisional::keep`] does.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn keep(&self, folder: &Path) -> std::io::Result<()> {
        self.asked.keep(folder, Some(&self.bundle))
    }
}

/// An answer that did not hold, with all there is to say about it.
#[derive(Debug)]
pub struct Unverified {
    /// The answer. Nothing is known of it.
    pub provisional: Provisional,
    /// The bundle, as far as there is one, with the caller's openings.
    pub bundle: Option<Box<Bundle>>,
    /// The judgement: never exit 0.
    pub verdict: Box<Verdict>,
}

impl fmt::Display for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the answer is not verified: {}", because(&self.verdict))
    }
}

impl std::error::Error for Unverified {}
