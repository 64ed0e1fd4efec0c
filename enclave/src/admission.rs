//! Who is let in: what a request may ask for, and whether it can be given right now.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use touchstone_formats::guarantee::{Guarantee, GuaranteeSet};

use crate::{keyset::Guest, problem::Problem, quote::QuoteSlot, service::Service};

/// Seconds that a caller is told to wait when the platform gives no quotes.
const RETRY_QUOTE: u32 = 5;
/// Seconds that a caller is told to wait when it is a matter of load.
pub(crate) const RETRY_LOAD: u32 = 1;

/// The first guarantee of a set that this enclave cannot deliver by itself (formats.md §1):
/// `recomputed` needs a second enclave and is the verifier's to find, `proven` is reserved.
pub fn undeliverable(guarantees: &GuaranteeSet) -> Option<Guarantee> {
    guarantees
        .iter()
        .find(|guarantee| matches!(guarantee, Guarantee::Recomputed | Guarantee::Proven))
}

/// Bytes that requests hold, over all connections: bodies being read, waiting for a session, inferred
/// upon, and answers that wait for their seal or to be taken.
#[derive(Debug)]
pub struct Held {
    bytes: AtomicUsize,
    limit: usize,
}

impl Held {
    /// Nothing held; at most `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            limit,
        })
    }

    /// An empty share.
    pub fn share(self: &Arc<Self>) -> Share {
        Share {
            held: self.clone(),
            bytes: 0,
        }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// One request's share of the bytes held; given back when dropped.
#[derive(Debug)]
pub struct Share {
    held: Arc<Held>,
    bytes: usize,
}

impl Share {
    /// Adds to the share. False if all shares are then above the limit: the request should go. The bytes
    /// are counted either way, for as long as the share exists.
    pub fn take(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.held.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.held.limit
    }

    /// Makes the share this big, whatever the limit says.
    pub fn set(&mut self, bytes: usize) {
        self.held.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }

    /// Bytes of this share.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A request that was let in. What it holds is given back when it is dropped.
pub struct Admission {
    /// The keyset that its receipt will be made under.
    pub guest: Guest,
    /// The place for its own quote, if it asked for one.
    pub slot: Option<QuoteSlot>,
    /// Its place among the requests in flight.
    pub place: tokio::sync::OwnedSemaphorePermit,
}

/// Refuses a set with a guarantee that this enclave cannot deliver.
///
/// # Errors
/// 422.
pub fn deliverable(guarantees: &GuaranteeSet) -> Result<(), Problem> {
    match undeliverable(guarantees) {
        None => Ok(()),
        Some(guarantee) => Err(Problem::new(
            422,
            "Guarantee not deliverable",
            format!(
                "this enclave cannot deliver the guarantee {guarantee}; it delivers: logged quoted signed"
            ),
        )),
    }
}

/// Lets a request in that asks for this set, or says why not.
///
/// # Errors
/// 422 for a guarantee that cannot be delivered, 503 for what cannot be given now. Nothing less than what
/// was asked for is ever given instead.
pub fn admit(service: &Service, guarantees: &GuaranteeSet) -> Result<Admission, Problem> {
    deliverable(guarantees)?;
    let needs_quote =
        guarantees.contains(Guarantee::Logged) || guarantees.contains(Guarantee::Quoted);
    if needs_quote && service.quoter.failing() {
        return Err(no_quotes(
            "what was asked for needs one; nothing less is given instead",
        ));
    }
    if service.outbox.full() {
        return Err(Problem::unavailable(
            "Receipts not taken",
            "too many receipts wait for their seal or for the host to take them",
            RETRY_LOAD,
        ));
    }
    let Ok(place) = service.places.clone().try_acquire_owned() else {
        return Err(Problem::unavailable(
            "Too many requests in flight",
            "too many requests in flight",
            RETRY_LOAD,
        ));
    };
    let slot = if guarantees.contains(Guarantee::Quoted) {
        let slot = service.quoter.reserve_receipt();
        if slot.is_none() {
            return Err(Problem::unavailable(
                "Too many quotes waiting",
                "too many answers wait for a quote of their own",
                RETRY_LOAD,
            ));
        }
        slot
    } else {
        None
    };
    let guest = service.enter()?;
    if guest.issued_at().is_none() {
        return Err(expired());
    }
    Ok(Admission { guest, slot, place })
}

/// 503: the quote source is failing.
pub fn no_quotes(consequence: &str) -> Problem {
    Problem::unavailable(
        "No quotes",
        format!("the platform gives no quotes at the moment, and {consequence}"),
        RETRY_QUOTE,
    )
}

/// 503: the keyset's time is over, or has not come, by one of the guest's clocks.
pub fn expired() -> Problem {
    Problem::unavailable(
        "Keyset not valid now",
        "the keyset is outside its lifetime; the next one is not ready yet",
        RETRY_QUOTE,
    )
}
