//! The bundle: what a caller keeps, and what a verifier needs, offline (§7).

use crate::limits::{MAX_ATTACHMENTS, MAX_EVIDENCE, MAX_PROOF_HASHES};
use crate::strict::{self, at_most, present};
use crate::text::{Base64Bytes, Hex16, base64_encode};
use crate::{Catalog, Digest, Evidence, FormatError, Keyset, Purpose, Result, Role, Salt, jcs};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A receipt and all that stands with it. `v` is implied: `touchstone/bundle/1`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bundle {
    /// The COSE_Sign1 bytes, not parsed yet: [`crate::Receipt::parse`].
    pub receipt: Vec<u8>,
    /// The keyset it was made under.
    pub keyset: Keyset,
    /// Quotes, at most one of each purpose, of `boot`, `checkpoint` and `receipt`.
    pub evidence: Vec<Evidence>,
    /// The tlog-proof with its checkpoint, not parsed yet: [`crate::TlogProof::parse`]. Absent until
    /// sealed.
    pub proof: Option<String>,
    /// The catalog that was in force.
    pub catalog: Option<Catalog>,
    /// What the caller knows and adds.
    pub openings: Openings,
    /// Room for what version 1 does not know.
    pub attachments: Vec<Attachment>,
    /// For people; canonical JSON that verifiers ignore. May hold booleans.
    pub view: Option<String>,
}

/// Salt and digest that a commitment was made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opening {
    /// 16 random bytes.
    pub salt: Salt,
    /// The digest behind the commitment.
    pub digest: Digest,
}

/// The openings that a caller put into a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Openings {
    /// Of claim -65604.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub request: Option<Opening>,
    /// Of claim -65605.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub response: Option<Opening>,
    /// Of claim -65606.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Opening>,
    /// Of claim -65607.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Opening>,
}

impl Openings {
    /// The opening of one role.
    pub fn of(&self, role: Role) -> Option<Opening> {
        match role {
            Role::Request => self.request,
            Role::Response => self.response,
            Role::Inputs => self.inputs,
            Role::Outputs => self.outputs,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireOpening {
    salt: Hex16,
    digest: Digest,
}

impl Serialize for Opening {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        WireOpening {
            salt: Hex16(self.salt),
            digest: self.digest,
        }
        .serialize(to)
    }
}

impl<'de> Deserialize<'de> for Opening {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let wire = WireOpening::deserialize(from)?;
        Ok(Self {
            salt: wire.salt.0,
            digest: wire.digest,
        })
    }
}

/// An object of a type that version 1 need not know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    kind: String,
    json: String,
}

impl Attachment {
    /// Takes an attachment as canonical JSON: an object with a text member `type`.
    ///
    /// # Errors
    /// Not canonical, no object, no `type`, or one over 256 bytes.
    pub fn parse(json: &str) -> Result<Self> {
        // One level down, so that the depth counts as it will in the bundle.
        let list = format!("{{\"attachments\":[{json}]}}");
        let checked = jcs::check_with_view(list.as_bytes(), None)?;
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wire<'a> {
            #[serde(borrow)]
            attachments: [jcs::Raw<'a>; 1],
        }
        let Wire {
            attachments: [raw], ..
        } = jcs::from_checked(checked)?;
        Self::from_raw(raw)
    }

    fn from_raw(raw: jcs::Raw<'_>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            r#type: String,
        }
        let head: Head = jcs::from_checked(raw.0)?;
        strict::text("attachment type", &head.r#type)?;
        Ok(Self {
            kind: head.r#type,
            json: raw.0.to_owned(),
        })
    }

    /// The `type` member.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The whole object, canonical.
    pub fn json(&self) -> &str {
        &self.json
    }
}

/// For people, and ignored: may hold booleans, which no other JSON of ours does.
const VIEW: Option<&str> = Some("view");

strict::version!(V = "touchstone/bundle/1");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[serde(rename = "v")]
    _v: V,
    receipt: Base64Bytes,
    keyset: Keyset,
    #[serde(deserialize_with = "at_most::<_, _, MAX_EVIDENCE>")]
    evidence: Vec<Evidence>,
    #[serde(default, deserialize_with = "present")]
    proof: Option<String>,
    #[serde(default, deserialize_with = "present")]
    catalog: Option<Catalog>,
    #[serde(default)]
    openings: Openings,
    #[serde(borrow, default, deserialize_with = "at_most::<_, _, MAX_ATTACHMENTS>")]
    attachments: Vec<jcs::Raw<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    view: Option<jcs::Raw<'a>>,
}

impl Bundle {
    /// Reads a bundle file: at most 4 MiB, JCS, one newline.
    ///
    /// # Errors
    /// Not canonical, members missing or unknown, something out of its bounds, evidence without a
    /// purpose, of purpose `session`, or two of one purpose.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let json = jcs::check_with_view(jcs::file_content(file)?, VIEW)?;
        let wire: Wire<'_> = jcs::from_checked(json)?;
        check_purposes(&wire.evidence)?;
        Ok(Self {
            receipt: wire.receipt.0,
            keyset: wire.keyset,
            evidence: wire.evidence,
            proof: wire.proof,
            catalog: wire.catalog,
            openings: wire.openings,
            attachments: wire
                .attachments
                .into_iter()
                .map(Attachment::from_raw)
                .collect::<Result<_>>()?,
            view: wire.view.map(|raw| raw.0.to_owned()),
        })
    }

    /// Writes a bundle file. `view` must be canonical JSON, as [`Self::parse`] leaves it.
    pub fn to_file(&self) -> Vec<u8> {
        // Members in their canonical order; what is absent or empty is left out.
        let mut out = Members::default();
        if !self.attachments.is_empty() {
            let list: Vec<_> = self.attachments.iter().map(Attachment::json).collect();
            out.raw("attachments", format!("[{}]", list.join(",")).as_bytes());
        }
        if let Some(catalog) = &self.catalog {
            out.raw("catalog", &catalog.to_jcs());
        }
        out.value("evidence", &self.evidence);
        out.raw("keyset", &self.keyset.to_jcs());
        if !self.openings.is_empty() {
            out.value("openings", &self.openings);
        }
        if let Some(proof) = &self.proof {
            out.value("proof", proof);
        }
        out.value("receipt", &base64_encode(&self.receipt));
        out.value("v", &V);
        if let Some(view) = &self.view {
            out.raw("view", view.as_bytes());
        }
        out.finish()
    }

    /// The evidence of one purpose.
    pub fn evidence_of(&self, purpose: Purpose) -> Option<&Evidence> {
        self.evidence
            .iter()
            .find(|evidence| evidence.purpose == Some(purpose))
    }
}

fn check_purposes(evidence: &[Evidence]) -> Result<()> {
    let mut seen = Vec::with_capacity(MAX_EVIDENCE);
    for object in evidence {
        const EXPECTED: &str = "boot, checkpoint or receipt, each once";
        let found = match object.purpose {
            None => "null",
            Some(Purpose::Session) => "session",
            Some(purpose) if seen.contains(&purpose) => purpose.name(),
            Some(purpose) => {
                seen.push(purpose);
                continue;
            }
        };
        return Err(FormatError::value("evidence.purpose", found, EXPECTED));
    }
    Ok(())
}

/// Writes the members of one object in the order they come.
#[derive(Default)]
struct Members(Vec<u8>);

impl Members {
    fn raw(&mut self, name: &str, json: &[u8]) {
        self.0
            .extend_from_slice(if self.0.is_empty() { b"{" } else { b"," });
        self.0.extend_from_slice(format!("\"{name}\":").as_bytes());
        self.0.extend_from_slice(json);
    }

    fn value(&mut self, name: &str, value: &impl Serialize) {
        // Text alone in what is written through here.
        self.raw(name, &jcs::must_write(jcs::to_vec(value)));
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"}\n");
        self.0
    }
}

/// An upper bound of a tlog-proof's text: hashes of 45 bytes a line, a note with its signatures.
pub(crate) const MAX_PROOF_TEXT: usize = 128 + MAX_PROOF_HASHES * 45 + crate::checkpoint::MAX_NOTE;
