//! Checkpoints, signed notes and inclusion proofs, as C2SP writes them (§6): `signed-note`,
//! `tlog-checkpoint` without extension lines, `tlog-proof` without an `extra` line.

use crate::backend::signature::Ed25519KeyPair;
use crate::error::bounded;
use crate::limits::{MAX_PROOF_HASHES, MAX_UNKNOWN_SIGNATURES};
use crate::strict;
use crate::text::{self, base64_array, base64_decode, base64_encode, hex_encode};
use crate::{Digest, FormatError, Result, ed25519};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// The longest signed note that is read: room for 17 signatures, post-quantum ones included.
pub(crate) const MAX_NOTE: usize = 128 << 10;
/// C2SP signed-note: the signature type of Ed25519.
const ED25519: u8 = 0x01;

/// The public key of a log and its name: a C2SP verifier key, `name+hash+base64(0x01 ‖ key)`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LogKey {
    /// The key's name, equal to the log's origin. ≤ 256 bytes.
    pub name: String,
    /// Raw Ed25519 public key.
    pub key: [u8; 32],
}

impl LogKey {
    /// The origin of the log with this key: the operator's prefix, `/`, the first 16 hex digits of
    /// SHA-256 of the key.
    pub fn origin(prefix: &str, key: &[u8; 32]) -> String {
        format!("{prefix}/{}", origin_suffix(key))
    }

    /// Whether the name ends as [`Self::origin`] makes it, which binds the name to the key.
    pub fn name_is_origin(&self) -> bool {
        self.name
            .strip_suffix(&origin_suffix(&self.key))
            .is_some_and(|prefix| prefix.len() > 1 && prefix.ends_with('/'))
    }

    /// C2SP key ID: the first four bytes of SHA-256 of name, newline, type and key.
    pub fn key_id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] =
            Digest::of_parts(&[self.name.as_bytes(), b"\n", &[ED25519], &self.key]).0;
        [a, b, c, d]
    }
}

fn origin_suffix(key: &[u8; 32]) -> String {
    let [a, b, c, d, e, f, g, h, ..] = Digest::of(key).0;
    hex_encode(&[a, b, c, d, e, f, g, h])
}

/// C2SP: not empty, no Unicode spaces, no plus; and none of the characters that a note cannot hold.
fn check_key_name(name: &str) -> Result<()> {
    strict::text("key name", name)?;
    if name.is_empty()
        || name
            .chars()
            .any(|c| c.is_whitespace() || c < ' ' || c == '+')
    {
        return Err(FormatError::value(
            "key name",
            name,
            "a name without spaces, control characters and plus",
        ));
    }
    Ok(())
}

impl FromStr for LogKey {
    type Err = FormatError;

    fn from_str(vkey: &str) -> Result<Self> {
        let refused = |expected| FormatError::value("verifier key", vkey, expected);
        const FORM: &str = "<name>+<8 hex>+<base64(0x01 ‖ key)>";
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refused(FORM));
        };
        check_key_name(name)?;
        let typed: [u8; 33] = base64_array(key)?;
        let [ED25519, key @ ..] = typed else {
            return Err(refused("a key of type 0x01, Ed25519"));
        };
        ed25519::check_public_key("log key", &key)?;
        let log_key = Self {
            name: name.to_owned(),
            key,
        };
        if hash != hex_encode(&log_key.key_id()) {
            return Err(refused("the key's own hash between the plus signs"));
        }
        Ok(log_key)
    }
}

impl fmt::Display for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut typed = vec![ED25519];
        typed.extend_from_slice(&self.key);
        write!(
            f,
            "{}+{}+{}",
            self.name,
            hex_encode(&self.key_id()),
            base64_encode(&typed)
        )
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for LogKey {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LogKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        text::deserialize_str(from, "a C2SP verifier key", str::parse)
    }
}

/// The head of a log's tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The log.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// RFC 6962 root hash.
    pub root: Digest,
}

impl Checkpoint {
    /// The text of the note: three lines, the last newline included.
    pub fn text(&self) -> String {
        format!(
            "{}\n{}\n{}\n",
            self.origin,
            self.size,
            base64_encode(&self.root.0)
        )
    }

    /// Reads the text of a note.
    ///
    /// # Errors
    /// Anything but three lines of origin, size without leading zeros, root.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = || {
            FormatError::value(
                "checkpoint",
                text,
                "three lines: origin, size, base64 root; no extension lines",
            )
        };
        let mut lines = text.strip_suffix('\n').ok_or_else(refused)?.split('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(refused());
        };
        strict::text("origin", origin)?;
        if origin.is_empty() {
            return Err(refused());
        }
        Ok(Self {
            origin: origin.to_owned(),
            size: decimal("tree size", size)?,
            root: Digest(base64_array(root)?),
        })
    }
}

/// ASCII decimal without leading zeros or sign.
fn decimal(field: &'static str, text: &str) -> Result<u64> {
    let canonical =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    match text.parse() {
        Ok(number) if canonical => Ok(number),
        _ => Err(FormatError::value(
            field,
            text,
            "a decimal number below 2^64 without leading zeros",
        )),
    }
}

/// One signature line of a note.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoteSignature {
    /// Name of the key.
    pub name: String,
    /// C2SP key ID.
    pub key_id: [u8; 4],
    /// The signature, by a key of any type.
    pub signature: Vec<u8>,
}

/// A text with signatures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedNote {
    /// What is signed, its last newline included.
    pub text: String,
    /// The signatures: at least one, at most the log's own and 16 others.
    pub signatures: Vec<NoteSignature>,
}

impl SignedNote {
    /// Reads a signed note.
    ///
    /// # Errors
    /// Not the form of C2SP signed-note; too many signatures; more than 128 KiB.
    pub fn parse(note: &str) -> Result<Self> {
        bounded("note", note.len(), MAX_NOTE)?;
        let refused = |expected| FormatError::value("note", note, expected);
        if note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(refused("no control characters other than newline"));
        }
        // The last empty line parts text and signatures; the text may hold others.
        let (text, signatures) = note
            .rfind("\n\n")
            .and_then(|at| Some((note.get(..=at)?, note.get(at + 2..)?)))
            .ok_or_else(|| refused("an empty line before the signatures"))?;
        let lines = signatures
            .strip_suffix('\n')
            .ok_or_else(|| refused("signature lines, each ending in a newline"))?;
        let mut parsed = Vec::new();
        for line in lines.split('\n') {
            bounded(
                "note signatures",
                parsed.len() + 1,
                MAX_UNKNOWN_SIGNATURES + 1,
            )?;
            parsed.push(NoteSignature::parse(line)?);
        }
        Ok(Self {
            text: text.to_owned(),
            signatures: parsed,
        })
    }

    /// The checkpoint that the text is.
    ///
    /// # Errors
    /// As [`Checkpoint::parse`].
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        Checkpoint::parse(&self.text)
    }

    /// Whether the note is signed by this key. Signatures of other keys are ignored, also those
    /// that share its name or its ID but not both; a second one by this key, or a false one, makes
    /// the note refused.
    pub fn verify(&self, key: &LogKey) -> bool {
        let id = key.key_id();
        let mut own = self
            .signatures
            .iter()
            .filter(|signature| signature.name == key.name && signature.key_id == id);
        match (own.next(), own.next()) {
            (Some(signature), None) => {
                ed25519::verify(&key.key, self.text.as_bytes(), &signature.signature)
            }
            _ => false,
        }
    }
}

impl FromStr for SignedNote {
    type Err = FormatError;

    fn from_str(note: &str) -> Result<Self> {
        Self::parse(note)
    }
}

impl NoteSignature {
    fn parse(line: &str) -> Result<Self> {
        let refused = || {
            FormatError::value(
                "note signature",
                line,
                "\u{2014} <key name> <base64 of key ID and signature>",
            )
        };
        let (name, base64) = line
            .strip_prefix("\u{2014} ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or_else(refused)?;
        check_key_name(name)?;
        let bytes = base64_decode(base64)?;
        match bytes.split_first_chunk() {
            Some((key_id, signature)) if !signature.is_empty() => Ok(Self {
                name: name.to_owned(),
                key_id: *key_id,
                signature: signature.to_vec(),
            }),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.key_id.as_slice(), &self.signature].concat();
        write!(f, "\u{2014} {} {}", self.name, base64_encode(&bytes))
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for signature in &self.signatures {
            writeln!(f, "{signature}")?;
        }
        Ok(())
    }
}

/// Signs the checkpoints of one log.
pub struct LogSigner {
    key: Ed25519KeyPair,
    log_key: LogKey,
}

impl LogSigner {
    /// The signer of a 32-byte Ed25519 seed, for the log whose origin starts with `prefix`. The
    /// caller erases the seed.
    ///
    /// # Errors
    /// A prefix that cannot be part of a key name, or makes one over 256 bytes.
    pub fn from_seed(seed: &[u8; 32], prefix: &str) -> Result<Self> {
        let (key, public) = ed25519::key_pair(seed)?;
        let name = LogKey::origin(prefix, &public);
        check_key_name(&name)?;
        Ok(Self {
            key,
            log_key: LogKey { name, key: public },
        })
    }

    /// Name and public key.
    pub fn log_key(&self) -> LogKey {
        self.log_key.clone()
    }

    /// A checkpoint of this log, for this many entries.
    pub fn checkpoint(&self, size: u64, root: Digest) -> Checkpoint {
        Checkpoint {
            origin: self.log_key.name.clone(),
            size,
            root,
        }
    }

    /// The signed note.
    pub fn sign(&self, checkpoint: &Checkpoint) -> String {
        let text = checkpoint.text();
        let signature = NoteSignature {
            name: self.log_key.name.clone(),
            key_id: self.log_key.key_id(),
            signature: self.key.sign(text.as_bytes()).as_ref().to_vec(),
        };
        format!("{text}\n{signature}\n")
    }
}

impl fmt::Debug for LogSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogSigner({})", self.log_key)
    }
}

/// An inclusion proof with its checkpoint: a C2SP tlog-proof.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlogProof {
    /// Index of the entry, from 0.
    pub index: u64,
    /// From the leaf's sibling up. ≤ 64.
    pub hashes: Vec<Digest>,
    /// The checkpoint that the proof leads to.
    pub note: SignedNote,
}

const HEADER: &str = "c2sp.org/tlog-proof@v1\n";

impl TlogProof {
    /// Reads a proof.
    ///
    /// # Errors
    /// Not the form of C2SP tlog-proof; an `extra` line; more than 64 hashes; a note that is no
    /// checkpoint.
    pub fn parse(proof: &str) -> Result<Self> {
        bounded("proof", proof.len(), crate::bundle::MAX_PROOF_TEXT)?;
        let refused = |expected| FormatError::value("proof", proof, expected);
        let (index, mut rest) = proof
            .strip_prefix(HEADER)
            .and_then(|rest| rest.strip_prefix("index "))
            .and_then(|rest| rest.split_once('\n'))
            .ok_or_else(|| refused("c2sp.org/tlog-proof@v1, then index <number>; no extra line"))?;
        let index = decimal("index", index)?;
        let mut hashes = Vec::new();
        loop {
            let (line, after) = rest
                .split_once('\n')
                .ok_or_else(|| refused("an empty line before the checkpoint"))?;
            rest = after;
            if line.is_empty() {
                break;
            }
            bounded("proof hashes", hashes.len() + 1, MAX_PROOF_HASHES)?;
            hashes.push(Digest(base64_array(line)?));
        }
        let note = SignedNote::parse(rest)?;
        note.checkpoint()?;
        Ok(Self {
            index,
            hashes,
            note,
        })
    }
}

impl FromStr for TlogProof {
    type Err = FormatError;

    fn from_str(proof: &str) -> Result<Self> {
        Self::parse(proof)
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", base64_encode(&hash.0))?;
        }
        write!(f, "\n{}", self.note)
    }
}
