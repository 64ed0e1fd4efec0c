//! From an admitted request to a signed answer, in one synchronous function.
//!
//! No await lies between taking a sequence number and lining the receipt up in the log. So a caller who
//! hangs up, at whatever moment, cannot leave a gap in the sequence: either nothing was
//! spent, or the receipt is in the log.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::oneshot;
use touchstone_formats::{
    commitment::{Role, Salt, commit, request_digest, response_digest, tensors_digest},
    digest::Digest,
    guarantee::{Guarantee, GuaranteeSet},
    headers::OpeningSalts,
    receipt::Claims,
    report_data::{Purpose, report_data},
};

use crate::{
    admission::{self, Admission, Share},
    keyset::{CatalogInForce, Guest},
    models::Model,
    problem::Problem,
    protocol::{InferRequest, encode_response},
    quote::QuoteSlot,
    runtime::Lease,
    seal::LoggedReceipt,
    service::Service,
};

/// An admitted request: everything that its receipt is about.
pub struct Exchange {
    /// What all requests share.
    pub service: Arc<Service>,
    /// What it was let in with.
    pub admission: Admission,
    /// The catalog at admission.
    pub catalog: Arc<CatalogInForce>,
    /// The model it resolved to.
    pub model: Arc<Model>,
    /// The request target as received. The method is POST.
    pub target: String,
    /// Its Inference-Header-Content-Length.
    pub header_length: Option<u64>,
    /// Its body after transfer decoding.
    pub body: Bytes,
    /// The body, parsed.
    pub request: InferRequest,
    /// The guarantees it asked for, or the default.
    pub guarantees: GuaranteeSet,
    /// Its nonce.
    pub nonce: Option<Vec<u8>>,
    /// Whether the answer's body names the receipt, for callers who do not read headers.
    pub name_receipt: bool,
    /// Its share of the bytes that requests hold.
    pub share: Share,
}

/// What was answered, with what the caller needs to check it.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
    /// Its Inference-Header-Content-Length: the body is then `application/octet-stream`.
    pub header_length: Option<u64>,
    /// The receipt's id.
    pub id: [u8; 16],
    /// Digest of the keyset it was made under.
    pub keyset: Digest,
    /// The guarantees it states.
    pub guarantees: GuaranteeSet,
    /// Salts of the commitments, given to the caller and to nobody else.
    pub salts: OpeningSalts,
    /// Fires when the receipt is sealed. Present if `logged` was asked for.
    pub sealed: Option<oneshot::Receiver<()>>,
    /// Fires when the receipt's own quote is made. Present if `quoted` was asked for.
    pub quoted: Option<oneshot::Receiver<()>>,
    /// The body's share of the bytes that requests hold, until the caller has taken it.
    pub share: Share,
}

/// What became of an inference: a body, or the problem that stands in its place.
struct Outcome {
    body: Bytes,
    header_length: Option<u64>,
    status: Option<u16>,
    /// Digests of inputs and outputs.
    tensors: Option<(Digest, Digest)>,
}

impl Outcome {
    fn refusal(problem: &Problem) -> Self {
        Self {
            body: problem.body(),
            header_length: None,
            status: Some(problem.status),
            tensors: None,
        }
    }
}

/// Runs the model and makes the answer. Takes as long as the model takes.
///
/// # Errors
/// 503 if no receipt can be made: the keyset's lifetime has passed, or there are no random bytes. Nothing
/// was spent then. Every other failure is an [`Answer`] with a refusal receipt.
pub fn answer(exchange: Exchange, mut lease: Lease) -> Result<Answer, Problem> {
    let random = Random::fill()?;
    let run = || infer(&exchange, &mut lease, &random);
    // The session is on loan and comes back to its pool by Drop, whatever state a panic left it in.
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        tracing::error!(model = exchange.model.name, "inference panicked");
        Outcome::refusal(&Problem::new(
            500,
            "Inference failed",
            "the inference failed inside the enclave",
        ))
    });
    drop(lease);
    finish(exchange, outcome, &random)
}

/// Refuses an admitted request, with a receipt that says so.
///
/// # Errors
/// As [`answer`].
pub fn refuse(exchange: Exchange, problem: &Problem) -> Result<Answer, Problem> {
    finish(exchange, Outcome::refusal(problem), &Random::fill()?)
}

/// Everything random in one answer, from one call to the generator.
struct Random {
    id: [u8; 16],
    salts: [Salt; 4],
}

impl Random {
    fn fill() -> Result<Self, Problem> {
        let mut bytes = [[0; 16]; 5];
        SystemRandom::new()
            .fill(bytes.as_flattened_mut())
            .map_err(|_| {
                Problem::unavailable("No random bytes", "the system gives no random bytes", 5)
            })?;
        let [id, salts @ ..] = bytes;
        Ok(Self { id, salts })
    }
}

fn infer(exchange: &Exchange, lease: &mut Lease, random: &Random) -> Outcome {
    let (model, request) = (&exchange.model, &exchange.request);
    let output = match lease.run(request) {
        Ok(output) => output,
        Err(error) => {
            return Outcome::refusal(&Problem::new(
                error.status(),
                error.title(),
                error.to_string(),
            ));
        }
    };
    let id = exchange.name_receipt.then(|| hex::encode(random.id));
    let encoded = match encode_response(model, request, &output, id.as_deref()) {
        Ok(encoded) => encoded,
        Err(error) => {
            return Outcome::refusal(&Problem::new(
                error.status(),
                error.title(),
                error.to_string(),
            ));
        }
    };
    let digests = tensors_digest(&request.tensor_refs())
        .and_then(|inputs| Ok((inputs, tensors_digest(&output.tensor_refs())?)));
    match digests {
        Ok(digests) => Outcome {
            body: encoded.body,
            header_length: encoded.header_length,
            status: None,
            tensors: Some(digests),
        },
        Err(error) => {
            tracing::error!(model = model.name, %error, "inputs or outputs have no digest");
            Outcome::refusal(&Problem::new(
                500,
                "Inference failed",
                "the inputs or outputs are not well formed",
            ))
        }
    }
}

fn finish(exchange: Exchange, outcome: Outcome, random: &Random) -> Result<Answer, Problem> {
    let Exchange {
        service,
        admission,
        catalog,
        model,
        guarantees,
        nonce,
        mut share,
        body,
        target,
        header_length,
        ..
    } = exchange;
    let Admission { guest, slot, place } = admission;
    let [request_salt, response_salt, inputs_salt, outputs_salt] = &random.salts;
    let status = outcome.status.unwrap_or(200);

    let request = request_digest("POST", &target, header_length, &body);
    let response = response_digest(status, outcome.header_length, &outcome.body);
    let iat = guest.issued_at().ok_or_else(admission::expired)?;

    let logged = guarantees.contains(Guarantee::Logged);
    let sequence = guest.next_sequence();
    let lined_up = MustLineUp;
    let claims = Claims {
        iss: guest.keyset.name.clone(),
        iat,
        cti: random.id,
        nonce: nonce.clone(),
        model_digest: Some(model.model_digest),
        config_digest: Some(model.config_digest),
        sequence,
        keyset_digest: guest.digest,
        guarantees,
        catalog: (catalog.catalog.epoch, catalog.digest),
        request: commit(Role::Request, request_salt, &request),
        response: commit(Role::Response, response_salt, &response),
        inputs: outcome
            .tensors
            .map(|(inputs, _)| commit(Role::Inputs, inputs_salt, &inputs)),
        outputs: outcome
            .tensors
            .map(|(_, outputs)| commit(Role::Outputs, outputs_salt, &outputs)),
        status: outcome.status.unwrap_or(0),
        payment: None,
    };
    let cose = guest.signer.sign(&claims);
    let object = Digest::of(&cose);
    let receipt = LoggedReceipt::new(random.id, cose, object, logged);
    service.outbox.add(guest.digest, &receipt);
    let sealed = guest.log.append(sequence, receipt);
    std::mem::forget(lined_up);

    let quoted = slot.map(|slot| quote_receipt(&service, &guest, slot, random.id, object, nonce));
    drop(place);
    // The request is done with; the answer may wait, for its seal and for its caller.
    share.set(outcome.body.len());
    Ok(Answer {
        status,
        body: outcome.body,
        header_length: outcome.header_length,
        id: random.id,
        keyset: guest.digest,
        guarantees,
        salts: OpeningSalts {
            request: Some(*request_salt),
            response: Some(*response_salt),
            inputs: outcome.tensors.map(|_| *inputs_salt),
            outputs: outcome.tensors.map(|_| *outputs_salt),
        },
        sealed: logged.then_some(sealed),
        quoted,
        share,
    })
}

/// Starts the quote over one receipt (purpose `receipt`, formats.md §3); it is made whether or not the
/// caller waits for it. The log stays open until the host can have it.
fn quote_receipt(
    service: &Arc<Service>,
    guest: &Guest,
    slot: QuoteSlot,
    id: [u8; 16],
    object: Digest,
    nonce: Option<Vec<u8>>,
) -> oneshot::Receiver<()> {
    let (made, signal) = oneshot::channel();
    let (service, guest) = (service.clone(), guest.another());
    // `object` is the SHA-256 of the receipt's bytes, which is what purpose `receipt` binds.
    let data = report_data(Purpose::Receipt, guest.digest, nonce.as_deref(), object);
    tokio::spawn(async move {
        let evidence = service
            .quoter
            .receipt(slot, data)
            .await
            .into_evidence(Purpose::Receipt, nonce);
        service.outbox.publish_quote(guest.digest, &id, &evidence);
        // The caller may have hung up.
        let _ = made.send(());
    });
    signal
}

/// Between a number taken and a receipt lined up nothing may fail. If it does all the same, the log of
/// this keyset could never be sealed again, so the process ends rather than promise what it
/// cannot keep.
struct MustLineUp;

impl Drop for MustLineUp {
    fn drop(&mut self) {
        tracing::error!("a receipt with a sequence number did not reach the log; ending");
        std::process::abort();
    }
}
