//! The file: JSON lines, each a sigstore bundle v0.3 in key mode.
//!
//! sigstore's bundle.proto and the proto3 JSON mapping say how a line is written. This is stricter where they leave a
//! choice: members are those below and lowerCamelCase, `hint` is there and is [`PublicKey::id`], there are no entries of a
//! transparency log, and base64 is padded; its alphabet may be either, as DSSE demands.

use serde::{Deserialize, Serialize};
use touchstone_formats::text::{base64_decode, base64_encode};

use super::dsse::{self, NotSigned, PAYLOAD_TYPE, SignatureForm};
use super::error::{ManifestError, Result, at_most};
use super::statement::{Statement, is};
use super::{MAX_FILE, MAX_LINES, MAX_PAYLOAD, Manifest, PublicKey, json};

/// `mediaType` of a line.
pub const BUNDLE_MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Longest signature that is looked at: DER of two numbers of 33 bytes, bytes.
const MAX_SIGNATURE: usize = 72;
/// Longest hint, bytes; ours have 44.
const MAX_HINT: usize = 256;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Material {
    public_key: Identifier,
    /// An array without entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tlog_entries: Option<[(); 0]>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identifier {
    hint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    /// One, says bundle.proto.
    signatures: [Signature; 1],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    sig: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyid: Option<String>,
}

/// One signer's line. Nothing in it is authenticated but what its signature proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which key, as the line says.
    pub hint: String,
    /// The signature, as written.
    pub signature: Vec<u8>,
}

/// A manifest file that is written as it should be: a statement and signatures, none of them verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedFile {
    statement: Statement,
    lines: Vec<Line>,
}

impl SignedFile {
    /// Reads a manifest file.
    ///
    /// # Errors
    /// Too large, no line or too many, a line that is no such bundle, lines about different bytes, a payload that is no
    /// manifest.
    pub fn parse(file: &[u8]) -> Result<SignedFile> {
        SignedFile::of_lines(file).map_err(|error| match Manifest::parse_draft(file) {
            Ok(_) => ManifestError::Draft,
            Err(_) => error,
        })
    }

    fn of_lines(file: &[u8]) -> Result<SignedFile> {
        at_most("manifest file, bytes", file.len(), MAX_FILE)?;
        // One newline may end the last line.
        let text = file.strip_suffix(b"\n").unwrap_or(file);
        let mut payload: Option<Vec<u8>> = None;
        let mut lines = Vec::new();
        for (index, text) in text.split(|byte| *byte == b'\n').enumerate() {
            let number = index.saturating_add(1);
            at_most("manifest file, lines", number, MAX_LINES)?;
            let (line, found) = line(number, text)?;
            match &payload {
                None => payload = Some(found),
                Some(payload) if *payload == found => {}
                Some(_) => return Err(ManifestError::PayloadsDiffer { line: number }),
            }
            lines.push(line);
        }
        Ok(SignedFile {
            statement: Statement::parse(&payload.unwrap_or_default())?,
            lines,
        })
    }

    /// What was signed, if anything was: **not authentic**. For people, and for who adds a signature.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The signatures.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub(super) fn into_statement(self) -> Statement {
        self.statement
    }
}

fn line(number: usize, text: &[u8]) -> Result<(Line, Vec<u8>)> {
    let at = |member: &str| format!("line {number}: {member}");
    let bundle: Bundle = json::read(&format!("line {number}"), MAX_FILE, text)?;
    is(&at("mediaType"), &bundle.media_type, BUNDLE_MEDIA_TYPE)?;
    let Envelope {
        payload,
        payload_type,
        signatures: [Signature { sig, keyid }],
    } = bundle.dsse_envelope;
    is(&at("payloadType"), &payload_type, PAYLOAD_TYPE)?;
    let hint = bundle.verification_material.public_key.hint;
    at_most(&at("hint, bytes"), hint.len(), MAX_HINT)?;
    if hint.is_empty() {
        return Err(ManifestError::value(at("hint"), "", "the id of a key"));
    }
    // "MUST be exactly the same"; one that is unset is none.
    if let Some(keyid) = keyid.filter(|keyid| !keyid.is_empty()) {
        is(&at("keyid"), &keyid, &hint)?;
    }
    let payload = base64(&at("payload"), &payload)?;
    at_most(&at("payload, bytes"), payload.len(), MAX_PAYLOAD)?;
    let signature = base64(&at("sig"), &sig)?;
    at_most(&at("sig, bytes"), signature.len(), MAX_SIGNATURE)?;
    Ok((Line { hint, signature }, payload))
}

/// Either alphabet, not both; padded, pad bits zero.
fn base64(field: &str, text: &str) -> Result<Vec<u8>> {
    let url_safe = text.contains(['-', '_']) && !text.contains(['+', '/']);
    let decoded = if url_safe {
        base64_decode(&text.replace('-', "+").replace('_', "/"))
    } else {
        base64_decode(text)
    };
    decoded.map_err(|error| ManifestError::json(field, error))
}

impl Statement {
    /// The line of a manifest file that says who signed this, and the form in which the signature came: DER, or r and s.
    /// A newline ends it.
    ///
    /// # Errors
    /// A signature that does not verify.
    pub fn signed_line(
        &self,
        key: &PublicKey,
        signature: &[u8],
    ) -> std::result::Result<(String, SignatureForm), NotSigned> {
        let (der, form) = dsse::settle(key, &self.to_sign(), signature)?;
        let hint = key.id();
        let bundle = Bundle {
            media_type: BUNDLE_MEDIA_TYPE.into(),
            verification_material: Material {
                public_key: Identifier { hint: hint.clone() },
                // Empty, and there: some readers of the format demand it.
                tlog_entries: Some([]),
            },
            dsse_envelope: Envelope {
                payload: base64_encode(self.payload()),
                payload_type: PAYLOAD_TYPE.into(),
                signatures: [Signature {
                    sig: base64_encode(&der),
                    keyid: Some(hint),
                }],
            },
        };
        // Strings and nothing else: there is nothing that could not be written.
        let text = serde_json::to_string(&bundle).unwrap_or_default();
        Ok((text + "\n", form))
    }
}
