//! Header fields (§9): Structured Fields (RFC 9651) through the `sfv` crate, and what of RFC 7240
//! is needed.
//!
//! A dictionary parser keeps the last of repeated keys; here a repeated key is an error, so that two
//! readers of one field cannot see two values.

use crate::error::bounded;
use crate::limits::MAX_HEADER;
use crate::strict;
use crate::text::shown;
use crate::text::{base64_encode, hex_array, hex_encode};
use crate::{Digest, FormatError, GuaranteeSet, Result, Salt};
use sfv::visitor::{
    DictionaryVisitor, EntryVisitor, InnerListVisitor, ItemVisitor, ParameterVisitor,
};
use sfv::{BareItemFromInput, KeyRef, Parser};
use std::fmt;

/// `Touchstone` of a request: what is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TouchstoneRequest {
    /// The set asked for, closed; none means the operator's default.
    pub require: Option<GuaranteeSet>,
    /// The caller's, 8 to 64 bytes.
    pub nonce: Option<Vec<u8>>,
}

/// `Touchstone` of a response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TouchstoneResponse {
    /// The receipt's id.
    pub id: [u8; 16],
    /// Digest of the keyset it is signed under.
    pub keyset: Digest,
    /// The set it was made under.
    pub require: GuaranteeSet,
    /// Whether all of that holds yet.
    pub state: State,
}

/// Whether what was asked for holds yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Not yet: the answer is provisional.
    Pending,
    /// It does.
    Sealed,
}

/// `Touchstone-Openings` of a response: the salts, given once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpeningSalts {
    /// Of claim -65604.
    pub request: Option<Salt>,
    /// Of claim -65605.
    pub response: Option<Salt>,
    /// Of claim -65606.
    pub inputs: Option<Salt>,
    /// Of claim -65607.
    pub outputs: Option<Salt>,
}

impl TouchstoneRequest {
    /// Reads the field's value.
    ///
    /// # Errors
    /// Not a dictionary; a repeated key; an unknown key; parameters; a nonce that is not 8 to 64
    /// bytes; a set that is not written as sets on the wire are; [`FormatError::UnknownGuarantee`].
    pub fn parse(field: &str) -> Result<Self> {
        let mut members = Members::parse(field, &["nonce", "require"])?;
        let nonce = members.bytes("nonce")?;
        if let Some(nonce) = &nonce {
            strict::nonce(nonce)?;
        }
        let require = members
            .tokens("require")?
            .map(|names| GuaranteeSet::parse_wire(&names))
            .transpose()?;
        Ok(Self { require, nonce })
    }
}

impl fmt::Display for TouchstoneRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(require) = &self.require {
            write!(f, "require=({require})")?;
        }
        if let Some(nonce) = &self.nonce {
            let comma = if self.require.is_some() { ", " } else { "" };
            write!(f, "{comma}nonce=:{}:", base64_encode(nonce))?;
        }
        Ok(())
    }
}

impl TouchstoneResponse {
    /// Reads the field's value.
    ///
    /// # Errors
    /// As [`TouchstoneRequest::parse`]; a member missing; a set that is not written as sets on the
    /// wire are.
    pub fn parse(field: &str) -> Result<Self> {
        let mut members = Members::parse(field, &["id", "keyset", "require", "state"])?;
        let id = members.text("id")?.ok_or_else(|| missing("id"))?;
        let keyset = members.bytes("keyset")?.ok_or_else(|| missing("keyset"))?;
        let require = members
            .tokens("require")?
            .ok_or_else(|| missing("require"))?;
        let state = match members.token("state")?.ok_or_else(|| missing("state"))? {
            "pending" => State::Pending,
            "sealed" => State::Sealed,
            other => return Err(FormatError::value("state", other, "pending or sealed")),
        };
        Ok(Self {
            id: hex_array(&id)?,
            keyset: Digest(fixed("keyset", keyset)?),
            require: GuaranteeSet::parse_wire(&require)?,
            state,
        })
    }
}

impl fmt::Display for TouchstoneResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "id=\"{}\", keyset=:{}:, require=({}), state={}",
            hex_encode(&self.id),
            base64_encode(&self.keyset.0),
            self.require,
            match self.state {
                State::Pending => "pending",
                State::Sealed => "sealed",
            }
        )
    }
}

impl OpeningSalts {
    /// Reads the field's value.
    ///
    /// # Errors
    /// As [`TouchstoneRequest::parse`]; a salt that is not 16 bytes.
    pub fn parse(field: &str) -> Result<Self> {
        let mut members = Members::parse(field, &["inputs", "outputs", "request", "response"])?;
        let mut salt = |key| {
            members
                .bytes(key)?
                .map(|bytes| fixed("salt", bytes))
                .transpose()
        };
        Ok(Self {
            request: salt("request")?,
            response: salt("response")?,
            inputs: salt("inputs")?,
            outputs: salt("outputs")?,
        })
    }
}

impl fmt::Display for OpeningSalts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (key, salt) in [
            ("inputs", &self.inputs),
            ("outputs", &self.outputs),
            ("request", &self.request),
            ("response", &self.response),
        ] {
            if let Some(salt) = salt {
                write!(f, "{comma}{key}=:{}:", base64_encode(salt))?;
                comma = ", ";
            }
        }
        Ok(())
    }
}

/// How long the caller is ready to wait: the `wait` preference of `Prefer` (RFC 7240 §4.3), seconds.
/// None without one. As RFC 7240 asks, the first of repeated preferences counts and what is not
/// understood is passed over: a preference is never a reason to refuse.
pub fn parse_prefer_wait(field: &str) -> Option<u64> {
    let wait = field.split(',').find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("wait")
            .then(|| value.trim())
    })?;
    let digits = wait
        .strip_prefix('"')
        .and_then(|wait| wait.strip_suffix('"'))
        .unwrap_or(wait);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Too many digits for the type are still "long".
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// The `Content-Digest` of a body (RFC 9530).
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", base64_encode(&Digest::of(body).0))
}

fn missing(key: &'static str) -> FormatError {
    FormatError::value("header field", format_args!("no {key}"), "every member")
}

fn fixed<const N: usize>(field: &'static str, bytes: Vec<u8>) -> Result<[u8; N]> {
    bytes.try_into().map_err(|bytes: Vec<u8>| {
        FormatError::value(
            field,
            format_args!("{} bytes", bytes.len()),
            "as many bytes as the member has",
        )
    })
}

/// One member of a dictionary, of the kinds that our fields have.
enum Value<'a> {
    Bytes(Vec<u8>),
    Text(String),
    Token(&'a str),
    Tokens(Vec<&'a str>),
}

/// The members of a dictionary, each key once.
struct Members<'a> {
    field: &'a str,
    known: &'static [&'static str],
    members: Vec<(&'a str, Value<'a>)>,
}

impl<'a> Members<'a> {
    fn parse(field: &'a str, known: &'static [&'static str]) -> Result<Self> {
        bounded("header field", field.len(), MAX_HEADER)?;
        let members = Members {
            field,
            known,
            members: Vec::new(),
        };
        Parser::new(field)
            .parse_dictionary_with_visitor(members)
            .map_err(|error| FormatError::Value {
                field: "header field",
                found: format!("{}: {error}", shown(field)),
                expected: "a dictionary of RFC 9651 with known members, each once",
            })
    }

    fn take(&mut self, key: &str) -> Option<Value<'a>> {
        let at = self.members.iter().position(|(found, _)| *found == key)?;
        Some(self.members.swap_remove(at).1)
    }

    fn bytes(&mut self, key: &'static str) -> Result<Option<Vec<u8>>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bytes(bytes)) => {
                // The sfv parser also takes base64 without padding, or with pad bits; we do not.
                if !self.field.contains(&format!(":{}:", base64_encode(&bytes))) {
                    return Err(wrong(key, "base64 with padding and zero pad bits"));
                }
                Ok(Some(bytes))
            }
            Some(_) => Err(wrong(key, "a byte sequence")),
        }
    }

    fn text(&mut self, key: &'static str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(key, "a string")),
        }
    }

    fn token(&mut self, key: &'static str) -> Result<Option<&'a str>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Token(token)) => Ok(Some(token)),
            Some(_) => Err(wrong(key, "a token")),
        }
    }

    fn tokens(&mut self, key: &'static str) -> Result<Option<Vec<&'a str>>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Tokens(tokens)) => Ok(Some(tokens)),
            Some(_) => Err(wrong(key, "an inner list of tokens")),
        }
    }
}

fn wrong(key: &'static str, expected: &'static str) -> FormatError {
    FormatError::value(key, "another type or encoding", expected)
}

/// Why a dictionary that RFC 9651 allows is not one of ours.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(&'static str);

impl<'a> DictionaryVisitor<'a> for Members<'a> {
    type Out = Self;
    type Error = Refused;

    fn entry(&mut self, key: &'a KeyRef) -> std::result::Result<impl EntryVisitor<'a>, Refused> {
        let key = key.as_str();
        if !self.known.contains(&key) {
            return Err(Refused("unknown key"));
        }
        if self.members.iter().any(|(found, _)| *found == key) {
            return Err(Refused("repeated key"));
        }
        Ok(Entry {
            key,
            members: &mut self.members,
        })
    }

    fn finish(self) -> std::result::Result<Self, Refused> {
        Ok(self)
    }
}

struct Entry<'m, 'a> {
    key: &'a str,
    members: &'m mut Vec<(&'a str, Value<'a>)>,
}

impl<'a> EntryVisitor<'a> for Entry<'_, 'a> {
    type Error = Refused;

    fn item(self) -> std::result::Result<impl ItemVisitor<'a>, Refused> {
        Ok(self)
    }

    fn inner_list(self) -> std::result::Result<impl InnerListVisitor<'a>, Refused> {
        self.members.push((self.key, Value::Tokens(Vec::new())));
        match self.members.last_mut() {
            Some((_, Value::Tokens(tokens))) => Ok(Tokens(tokens)),
            _ => Err(Refused("no list")),
        }
    }
}

impl<'a> ItemVisitor<'a> for Entry<'_, 'a> {
    type Out = ();
    type Error = Refused;

    fn bare_item(
        self,
        item: BareItemFromInput<'a>,
    ) -> std::result::Result<impl ParameterVisitor<'a, Out = ()>, Refused> {
        let value = match item {
            BareItemFromInput::ByteSequence(bytes) => Value::Bytes(bytes),
            BareItemFromInput::String(text) => Value::Text(text.as_str().to_owned()),
            BareItemFromInput::Token(token) => Value::Token(token.as_str()),
            _ => return Err(Refused("a value of another type")),
        };
        self.members.push((self.key, value));
        Ok(NoParameters)
    }
}

struct Tokens<'m, 'a>(&'m mut Vec<&'a str>);

impl<'a> InnerListVisitor<'a> for Tokens<'_, 'a> {
    type Error = Refused;

    fn item(&mut self) -> std::result::Result<impl ItemVisitor<'a>, Refused> {
        Ok(|item: BareItemFromInput<'a>| match item {
            BareItemFromInput::Token(token) => {
                self.0.push(token.as_str());
                Ok(NoParameters)
            }
            _ => Err(Refused("a list item that is no token")),
        })
    }

    fn finish(self) -> std::result::Result<impl ParameterVisitor<'a>, Refused> {
        Ok(NoParameters)
    }
}

/// No member of our fields has parameters.
struct NoParameters;

impl<'a> ParameterVisitor<'a> for NoParameters {
    type Out = ();
    type Error = Refused;

    fn parameter(
        &mut self,
        _key: &'a KeyRef,
        _value: BareItemFromInput<'a>,
    ) -> std::result::Result<(), Refused> {
        Err(Refused("a parameter"))
    }

    fn finish(self) -> std::result::Result<(), Refused> {
        Ok(())
    }
}
