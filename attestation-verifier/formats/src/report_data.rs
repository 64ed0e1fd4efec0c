//! REPORT_DATA: what a quote is about (§3).

use crate::Digest;
use crate::backend::digest::{SHA512, digest};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a quote was made for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// That the keyset was made inside.
    Boot,
    /// That this very TLS session ends inside.
    Session,
    /// That this checkpoint of the log was made inside.
    Checkpoint,
    /// That this one receipt was made inside.
    Receipt,
}

impl Purpose {
    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Boot => "boot",
            Purpose::Session => "session",
            Purpose::Checkpoint => "checkpoint",
            Purpose::Receipt => "receipt",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The 64 bytes that a quote of this purpose must carry. `nonce` is the caller's, unhashed.
pub fn report_data(
    purpose: Purpose,
    keyset: Digest,
    nonce: Option<&[u8]>,
    bind: Digest,
) -> [u8; 64] {
    let nonce = nonce.map_or_else(|| "-".to_owned(), |nonce| Digest::of(nonce).to_string());
    sha512(&format!(
        "touchstone/report-data/v1\npurpose {purpose}\nkeyset sha256:{keyset}\nnonce {nonce}\nbind sha256:{bind}\n"
    ))
}

/// The 64 bytes of a quote that is asked for to see whether a machine can quote (`touchstone doctor`). Their text begins
/// with another line than that of every [`Purpose`]: such a quote counts for no keyset, session, checkpoint or receipt.
pub fn report_data_of_doctor(nonce: &[u8; 32]) -> [u8; 64] {
    let nonce = Digest::of(nonce);
    sha512(&format!("touchstone/doctor/v1\nnonce sha256:{nonce}\n"))
}

fn sha512(text: &str) -> [u8; 64] {
    let mut out = [0; 64];
    for (to, from) in out
        .iter_mut()
        .zip(digest(&SHA512, text.as_bytes()).as_ref())
    {
        *to = *from;
    }
    out
}

/// `bind` of purpose boot: SHA-256 of 32 zero bytes.
pub fn bind_boot() -> Digest {
    Digest::of(&[0; 32])
}

/// `bind` of purpose session: over the digest of the TLS key's SubjectPublicKeyInfo and the
/// session's exporter (label `EXPORTER-touchstone-v1`, context the caller's nonce).
pub fn bind_session(spki: Digest, exporter: &[u8; 32]) -> Digest {
    Digest::of_parts(&[b"server\n", &spki.0, exporter])
}

/// `bind` of purpose checkpoint: the exact text of the note, its last newline included, without
/// signatures.
pub fn bind_checkpoint(note_text: &str) -> Digest {
    Digest::of(note_text.as_bytes())
}

/// `bind` of purpose receipt: the COSE_Sign1 bytes.
pub fn bind_receipt(cose: &[u8]) -> Digest {
    Digest::of(cose)
}
