//! The list of notices: canonical JSON in a signed note.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use touchstone_formats::checkpoint::LogKey;
use touchstone_formats::limits::MAX_TEXT;
use touchstone_formats::{FormatError, SignedNote, Tee, jcs};

use crate::parse::tdx::tcb::TcbStatus;
use crate::product::FLOOR_KEYS;
use crate::verdict::Fault;

/// The longest signed list that is read: bytes (that of any signed note).
pub const SIGNED_LIST_LIMIT: usize = 128 << 10;
/// Most notices of one list.
const MAX_NOTICES: usize = 256;
/// Most products, states or advisories that one notice names.
const MAX_NAMES: usize = 64;
/// The longest sentence of a notice: bytes.
const MAX_WORDS: usize = 1024;
const V: &str = "touchstone/advisories/1";

/// The components that `below` may name for SEV-SNP: those of TCB_VERSION, 0 to 255 each.
const SNP_COMPONENTS: &[&str] = &["fmc", "bootloader", "tee", "snp", "microcode"];
/// The components that `below` may name for TDX.
pub(super) const TDX_COMPONENTS: &[&str] = &["evaluation_number", "pce_svn", "tdx_module"];

/// Why a list of notices is not used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AdvisoriesError {
    /// No signed note, or not canonical JSON in it.
    #[error("advisories: {0}")]
    Format(#[from] FormatError),
    /// No UTF-8.
    #[error("advisories: byte {offset} is not UTF-8")]
    Utf8 {
        /// Where it ends to be UTF-8.
        offset: usize,
    },
    /// A member with a value that it cannot have.
    #[error("advisories: {place}.{field}: found {found}, expected {expected}")]
    Value {
        /// The list, or the notice with its number from 0.
        place: String,
        /// The member.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// The file holds no signature at all.
    #[error("advisories: not signed; expected a signature by {key}")]
    Unsigned {
        /// Name of the key that should have signed.
        key: String,
    },
    /// No signature by this key, or a false one.
    #[error("advisories: found signatures in the name of {found:?}, none of which is {key}'s")]
    Signature {
        /// Name of the key that should have signed.
        key: String,
        /// The names there are.
        found: Vec<String>,
    },
    /// Older than what is demanded.
    #[error(
        "advisories: version {found}, expected {least} or later: somebody hands out an old list"
    )]
    Version {
        /// The list's.
        found: u64,
        /// The least that will do.
        least: u64,
    },
}

impl AdvisoriesError {
    /// What follows from it: exit 2, 3 or 4.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Format(_) | Self::Utf8 { .. } | Self::Value { .. } => Fault::Malformed,
            Self::Unsigned { .. } | Self::Signature { .. } => Fault::NotAuthentic,
            Self::Version { .. } => Fault::Policy,
        }
    }

    /// The check that it fails.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Format(_) | Self::Utf8 { .. } | Self::Value { .. } => "advisories.format",
            Self::Unsigned { .. } | Self::Signature { .. } => "advisories.signature",
            Self::Version { .. } => "advisories.version",
        }
    }
}

/// One notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// Advisories (`INTEL-SA-…`) of the platform's TCB level; one of them fits. TDX alone.
    pub advisories: Vec<String>,
    /// Components with the least value that is trusted; one that is lower fits. Of SEV-SNP the reported, the committed
    /// and the launch TCB count, whichever is lowest.
    pub below: BTreeMap<String, u64>,
    /// Its name within the list, and, hopefully, within the world. ≤ 256 bytes.
    pub id: String,
    /// Receipts of this time or later are not trusted, Unix seconds; none: no receipt is, whenever it was made.
    #[serde(deserialize_with = "nullable")]
    pub not_trusted_since: Option<u64>,
    /// SEV-SNP: parts as in TCB floors (`Genoa-X`). TDX: FMSPCs, 12 lower-case hex digits. Or `any`, alone.
    pub products: Vec<String>,
    /// Whose word this rests on: a bulletin, a paper. ≤ 256 bytes.
    pub source: String,
    /// TCB states in Intel's words; one of them fits. TDX alone.
    pub statuses: Vec<String>,
    /// The kind of TEE.
    pub tee: Tee,
    /// What is wrong, for people: one sentence. ≤ 1024 bytes.
    pub words: String,
}

fn nullable<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<u64>, D::Error> {
    Option::deserialize(from)
}

/// A list before it is signed: what its author writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListContent {
    /// When it was made, Unix seconds.
    pub issued_at: u64,
    /// The notices.
    pub notices: Vec<Notice>,
    v: String,
    /// Rises with each list of one author: of two lists the higher one counts.
    pub version: u64,
}

impl ListContent {
    /// Reads what an author wrote: JSON with any white space, every member there, none unknown.
    ///
    /// # Errors
    /// Too long, not JSON of that form, a notice that could not be evaluated.
    pub fn parse(json: &[u8]) -> Result<ListContent, AdvisoriesError> {
        if json.len() > SIGNED_LIST_LIMIT {
            return Err(refused(
                "list",
                "length",
                json.len(),
                "at most 131072 bytes",
            ));
        }
        let content: ListContent = serde_json::from_slice(json)
            .map_err(|e| refused("list", "json", e, "an object as docs/formats.md has it"))?;
        content.check()?;
        Ok(content)
    }

    /// The text that is signed: canonical JSON and a newline.
    ///
    /// # Errors
    /// A number over 2^53 − 1.
    pub fn text(&self) -> Result<String, AdvisoriesError> {
        let file = jcs::to_file(self)?;
        String::from_utf8(file).map_err(|e| AdvisoriesError::Utf8 {
            offset: e.utf8_error().valid_up_to(),
        })
    }

    fn check(&self) -> Result<(), AdvisoriesError> {
        if self.v != V {
            return Err(refused("list", "v", &self.v, V));
        }
        if self.notices.len() > MAX_NOTICES {
            let found = self.notices.len();
            return Err(refused("list", "notices", found, "at most 256"));
        }
        for (n, notice) in self.notices.iter().enumerate() {
            let place = format!("notices[{n}]");
            notice.check(&place)?;
            let earlier = self.notices.iter().take(n);
            if earlier.into_iter().any(|other| other.id == notice.id) {
                return Err(refused(
                    &place,
                    "id",
                    &notice.id,
                    "an id that no other notice has",
                ));
            }
        }
        Ok(())
    }
}

fn refused(
    place: &str,
    field: &'static str,
    found: impl std::fmt::Display,
    expected: impl Into<String>,
) -> AdvisoriesError {
    let found: String = found.to_string().chars().take(200).collect();
    AdvisoriesError::Value {
        place: place.to_owned(),
        field,
        found: format!("{found:?}"),
        expected: expected.into(),
    }
}

impl Notice {
    fn check(&self, place: &str) -> Result<(), AdvisoriesError> {
        let texts = [
            ("id", &self.id, MAX_TEXT),
            ("source", &self.source, MAX_TEXT),
            ("words", &self.words, MAX_WORDS),
        ];
        for (field, text, most) in texts {
            if text.trim().is_empty() || text.len() > most {
                let expected = format!("a text of 1 to {most} bytes");
                return Err(refused(place, field, text, expected));
            }
        }
        for (field, list) in [
            ("products", &self.products),
            ("statuses", &self.statuses),
            ("advisories", &self.advisories),
        ] {
            if list.len() > MAX_NAMES {
                return Err(refused(place, field, list.len(), "at most 64 names"));
            }
        }
        if self.products.is_empty() {
            return Err(refused(place, "products", "[]", "at least one, or \"any\""));
        }
        if self.products != ["any"] {
            for product in &self.products {
                self.check_product(place, product)?;
            }
        }
        let components = match self.tee {
            Tee::SevSnp => SNP_COMPONENTS,
            Tee::Tdx => TDX_COMPONENTS,
        };
        for (component, least) in &self.below {
            if !components.contains(&component.as_str()) {
                let expected = format!("components out of {components:?}");
                return Err(refused(place, "below", component, expected));
            }
            if self.tee == Tee::SevSnp && *least > 255 {
                return Err(refused(place, "below", least, "0 to 255"));
            }
        }
        if self.tee == Tee::SevSnp {
            for (field, list) in [
                ("statuses", &self.statuses),
                ("advisories", &self.advisories),
            ] {
                if let Some(first) = list.first() {
                    return Err(refused(place, field, first, "nothing: SEV-SNP has none"));
                }
            }
        }
        for status in &self.statuses {
            if TcbStatus::from_word(status).is_none() {
                return Err(refused(
                    place,
                    "statuses",
                    status,
                    "Intel's words for TCB states",
                ));
            }
        }
        Ok(())
    }

    fn check_product(&self, place: &str, product: &str) -> Result<(), AdvisoriesError> {
        let (known, expected) = match self.tee {
            Tee::SevSnp => (
                FLOOR_KEYS.contains(&product),
                format!("parts out of {FLOOR_KEYS:?}, or \"any\" alone"),
            ),
            Tee::Tdx => (
                product.len() == 12
                    && product
                        .bytes()
                        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
                "FMSPCs of 12 lower-case hex digits, or \"any\" alone".to_owned(),
            ),
        };
        if known {
            return Ok(());
        }
        Err(refused(place, "products", product, expected))
    }
}

/// A list whose signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advisories {
    content: ListContent,
    signer: String,
}

impl Advisories {
    /// Reads a signed list. The signature is verified over the bytes as received, before anything in
    /// them is looked at.
    ///
    /// # Errors
    /// [`AdvisoriesError`]; its [`AdvisoriesError::fault`] gives the exit code.
    pub fn parse(file: &[u8], key: &LogKey) -> Result<Advisories, AdvisoriesError> {
        let text = std::str::from_utf8(file).map_err(|e| AdvisoriesError::Utf8 {
            offset: e.valid_up_to(),
        })?;
        if !text.lines().any(|line| line.starts_with('\u{2014}')) {
            return Err(AdvisoriesError::Unsigned {
                key: key.name.clone(),
            });
        }
        let note = SignedNote::parse(text)?;
        if !note.verify(key) {
            return Err(AdvisoriesError::Signature {
                key: key.name.clone(),
                found: note.signatures.into_iter().map(|s| s.name).collect(),
            });
        }
        let json = jcs::check_file(note.text.as_bytes())?;
        let content: ListContent = jcs::from_slice(json)?;
        content.check()?;
        Ok(Advisories {
            content,
            signer: key.name.clone(),
        })
    }

    /// Refuses a list that is older than `least`.
    ///
    /// # Errors
    /// [`AdvisoriesError::Version`].
    pub fn at_least(self, least: u64) -> Result<Advisories, AdvisoriesError> {
        let found = self.content.version;
        if found < least {
            return Err(AdvisoriesError::Version { found, least });
        }
        Ok(self)
    }

    /// The list's version.
    pub fn version(&self) -> u64 {
        self.content.version
    }

    /// When it was made, Unix seconds.
    pub fn issued_at(&self) -> u64 {
        self.content.issued_at
    }

    /// Name of the key that signed it.
    pub fn signer(&self) -> &str {
        &self.signer
    }

    /// The notices.
    pub fn notices(&self) -> &[Notice] {
        &self.content.notices
    }
}
