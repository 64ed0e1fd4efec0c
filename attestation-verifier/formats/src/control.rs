//! The control protocol between host and enclave: JSON over HTTP/1.1, not necessarily canonical.
//! Nothing that the host can say here changes a catalog, an answer or a policy.

use crate::strict;
use crate::text::{Base64Bytes, Base64Digest, Hex16};
use crate::{Catalog, Digest, Evidence, Keyset};
use serde::{Deserialize, Serialize};

strict::version!(
    /// `touchstone/control/1`.
    pub V = "touchstone/control/1"
);

/// The path that all others start with.
pub const PATH: &str = "/control/v1";
/// The longest that a request for batches waits: seconds.
pub const MAX_WAIT: u64 = 30;
/// Where the enclave stops adding batches to one reply: bytes of JSON. One batch may pass it.
pub const MAX_BATCHES: usize = 8 << 20;

/// `GET /control/v1/status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The protocol.
    pub v: V,
    /// Random, one for each start of the enclave.
    pub boot: Hex16,
    /// Whether requests are admitted.
    pub serving: bool,
    /// Whether the enclave was told to stop.
    pub draining: bool,
    /// The current keyset; none before the first is quoted.
    pub keyset_digest: Option<Digest>,
    /// Receipts that wait to be sealed.
    pub pending: u64,
    /// Batches that are kept for the host.
    pub batches: BatchRange,
    /// How the last quote went.
    pub quote: QuoteHealth,
    /// Epoch of the catalog in force.
    pub catalog_epoch: u64,
    /// Digest of that catalog, which is to be had as an object; none while no keyset is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog_digest: Option<Digest>,
    /// What the quote source did since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quotes: Option<QuoteCounts>,
}

/// What a quote source did since the enclave's start, whatever for: boots, seals, receipts, sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuoteCounts {
    /// Quotes made.
    pub made: u64,
    /// Tries that gave none.
    pub failed: u64,
    /// Time that those made took, together: microseconds.
    pub microseconds: u64,
}

/// Numbers of the batches kept; both 0 when there is none yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchRange {
    /// The oldest not acknowledged.
    pub oldest: u64,
    /// The newest.
    pub newest: u64,
}

/// How quoting goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuoteHealth {
    /// The last quote was made.
    Ok,
    /// The last quote was not.
    Failing,
}

/// `GET /control/v1/keysets`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keysets {
    /// The boot they belong to.
    pub boot: Hex16,
    /// Every keyset of this boot that a kept receipt may name, the oldest first.
    pub keysets: Vec<KeysetEntry>,
}

/// A keyset and its boot quote.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysetEntry {
    /// The keyset.
    pub keyset: Keyset,
    /// Of purpose boot, without collateral.
    pub evidence: Evidence,
    /// Whether it still signs.
    pub state: KeysetState,
}

/// Whether a keyset signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeysetState {
    /// It does.
    Current,
    /// Its log is closed.
    Closed,
}

/// `GET /control/v1/batches?after=N&wait=S`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batches {
    /// The boot they belong to.
    pub boot: Hex16,
    /// Ascending, each number once.
    pub batches: Vec<Batch>,
}

/// What the enclave hands over at once: a seal, or quotes of single receipts alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// 1, 2, … for each boot.
    pub number: u64,
    /// The keyset whose log was sealed.
    pub keyset_digest: Digest,
    /// The signed note; none in a batch of quotes alone.
    pub checkpoint: Option<String>,
    /// Of purpose checkpoint, over that note.
    pub evidence: Option<Evidence>,
    /// Catalogs that were sealed.
    pub catalogs: Vec<Catalog>,
    /// Receipts that were sealed, in the order of the log.
    pub receipts: Vec<SealedReceipt>,
    /// Quotes of purpose receipt, for receipts handed over in this batch or another.
    pub quotes: Vec<ReceiptQuote>,
    /// Whether the log ended with this seal.
    pub closed: bool,
}

/// A receipt with its place in the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedReceipt {
    /// COSE_Sign1.
    pub receipt: Base64Bytes,
    /// Index of its entry.
    pub index: u64,
    /// Inclusion proof under the batch's checkpoint, the sibling first.
    pub proof: Vec<Base64Digest>,
}

/// A quote for one receipt alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptQuote {
    /// The receipt.
    pub id: Hex16,
    /// Of purpose receipt.
    pub evidence: Evidence,
}

/// `GET /control/v1/receipts/<id>`: a receipt that is not in an acknowledged batch yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingReceipt {
    /// COSE_Sign1.
    pub receipt: Base64Bytes,
    /// The keyset it is signed under.
    pub keyset_digest: Digest,
}

/// `POST /control/v1/ack`: batches up to this number are stored, and may be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The boot they belong to.
    pub boot: Hex16,
    /// The last number stored.
    pub through: u64,
}
