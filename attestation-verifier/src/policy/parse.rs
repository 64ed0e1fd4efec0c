//! Reading a policy file.

use std::collections::BTreeMap;

use thiserror::Error;
use toml::{Table, Value};
use touchstone_formats::digest::Digest;
use touchstone_formats::evidence::Tee;
use touchstone_formats::guarantee::{Guarantee, GuaranteeSet};

use super::rules::MANIFEST;
use super::{
    AnswerPolicy, CheckSpec, Digests, EventPattern, Expect, Floor, Floors, Form, Platform, Policy,
    Present, Rule, SessionPolicy, Waiver, check_ids,
};
use crate::dates::end_of_day;
use crate::manifest::{Demand, DemandError};
use crate::product::FLOOR_KEYS;
use crate::session::Binding;

/// Why a policy does not stand (exit 1).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PolicyError {
    /// The file is no TOML.
    #[error("not TOML: {0}")]
    Toml(String),
    /// A key that has to be there is not.
    #[error(
        "{key} is missing; nothing is unchecked by omission: give it {{ expect = … }} or \
         {{ waive = \"reason\" }}"
    )]
    Missing {
        /// The key, with its table.
        key: String,
    },
    /// A key that has no place there.
    #[error("{key} is not a key of a policy")]
    Unknown {
        /// The key, with its table.
        key: String,
    },
    /// A value of the wrong form.
    #[error("{key} is {found}; expected {expected}")]
    Value {
        /// The key, with its table.
        key: String,
        /// What the file has.
        found: String,
        /// What belongs there.
        expected: String,
    },
    /// A table `[manifest]` that does not stand.
    #[error(transparent)]
    Manifest(#[from] DemandError),
    /// Something is expected of a manifest, and nothing says of which.
    #[error(
        "{key} expects \"manifest\", and there is no [manifest], which says whose: name, minimum_version, threshold and signers"
    )]
    NoManifest {
        /// The key, with its table.
        key: String,
    },
    /// Manifests are asked for, and nothing comes of it.
    #[error(
        "manifest is there, and nothing expects \"manifest\": it would be read and decide nothing"
    )]
    UnusedManifest,
}

/// Largest policy file.
const MOST_BYTES: usize = 1 << 20;
/// Most platforms of a policy: each one is appraised.
const MOST_PLATFORMS: usize = 64;
/// Longest text in a policy that a verdict repeats.
const MOST_TEXT: usize = 1024;
/// Largest number: what JSON carries exactly (formats.md, conventions).
const MOST_NUMBER: i64 = (1 << 53) - 1;

type Result<T> = std::result::Result<T, PolicyError>;

fn wrong<T>(key: &str, found: &Value, expected: impl Into<String>) -> Result<T> {
    let mut text = found.to_string();
    if text.len() > 200 {
        let end = (0..=200)
            .rev()
            .find(|&i| text.is_char_boundary(i))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    Err(PolicyError::Value {
        key: key.into(),
        found: text,
        expected: expected.into(),
    })
}

pub(super) fn policy(text: &str) -> Result<Policy> {
    if text.len() > MOST_BYTES {
        return Err(PolicyError::Toml("over 1 MiB".into()));
    }
    let mut top = Keys::new("", text.parse().map_err(toml_error)?);
    let version = top.take("v")?;
    if version.as_str() != Some("touchstone/policy/1") {
        return wrong("v", &version, "\"touchstone/policy/1\"");
    }
    let profile = text_of("profile", &top.take("profile")?)?;
    let answer = answer(top.take("answer")?)?;
    let session = top.take_if("session").map(session).transpose()?;
    let manifest = match top.take_if("manifest") {
        None => None,
        Some(Value::Table(table)) => Some(Demand::from_table(&table)?),
        Some(other) => return wrong("manifest", &other, "a table"),
    };
    let platforms = top.take("platform")?;
    top.end()?;
    let expected = "one [[platform]] or more, 64 at most";
    let list = match &platforms {
        Value::Array(list) if !list.is_empty() && list.len() <= MOST_PLATFORMS => list.clone(),
        _ => return wrong("platform", &platforms, expected),
    };
    let platforms = list
        .into_iter()
        .enumerate()
        .map(|(index, value)| platform(&format!("platform[{}]", index + 1), value));
    let policy = Policy {
        profile,
        answer,
        session,
        manifest,
        platforms: platforms.collect::<Result<_>>()?,
    };
    match (expects_manifest(&policy), &policy.manifest) {
        (Some(key), None) => Err(PolicyError::NoManifest { key }),
        (None, Some(_)) => Err(PolicyError::UnusedManifest),
        _ => Ok(policy),
    }
}

/// A key that expects what a manifest lists.
fn expects_manifest(policy: &Policy) -> Option<String> {
    let answer = &policy.answer;
    for (key, rule) in [
        ("answer.models", &answer.models),
        ("answer.configs", &answer.configs),
    ] {
        if rule.expected() == Some(&Digests::Manifest) {
            return Some(key.to_owned());
        }
    }
    let mut platforms = policy.platforms.iter().enumerate();
    platforms.find_map(|(index, platform)| {
        let mut rules = platform.rules().iter();
        let found = rules.find(|(_, rule)| rule.expected() == Some(&Expect::Manifest));
        found.map(|(spec, _)| format!("platform[{}].checks.\"{}\"", index + 1, spec.id))
    })
}

fn toml_error(error: toml::de::Error) -> PolicyError {
    PolicyError::Toml(error.to_string().trim_end().to_owned())
}

/// A table whose keys are taken one by one; none may be left.
struct Keys {
    at: String,
    table: Table,
}

impl Keys {
    fn new(at: &str, table: Table) -> Keys {
        Keys {
            at: at.to_owned(),
            table,
        }
    }

    fn of(at: &str, value: Value) -> Result<Keys> {
        match value {
            Value::Table(table) => Ok(Keys::new(at, table)),
            other => wrong(at, &other, "a table"),
        }
    }

    fn path(&self, key: &str) -> String {
        match (self.at.is_empty(), key.contains('.')) {
            (true, _) => key.to_owned(),
            (false, false) => format!("{}.{key}", self.at),
            (false, true) => format!("{}.\"{key}\"", self.at),
        }
    }

    fn take(&mut self, key: &str) -> Result<Value> {
        self.take_if(key).ok_or_else(|| PolicyError::Missing {
            key: self.path(key),
        })
    }

    fn take_if(&mut self, key: &str) -> Option<Value> {
        self.table.remove(key)
    }

    fn end(self) -> Result<()> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(key) => Err(PolicyError::Unknown {
                key: self.path(key),
            }),
        }
    }
}

fn answer(value: Value) -> Result<AnswerPolicy> {
    let mut keys = Keys::of("answer", value)?;
    let mut rule = |key: &str| -> Result<(String, Value)> { Ok((keys.path(key), keys.take(key)?)) };
    let parsed = AnswerPolicy {
        require: rule("require").and_then(|(at, value)| guarantees(&at, value))?,
        nonce: rule("nonce").and_then(|(at, value)| {
            ruled(&at, value, |at, value| match value.as_str() {
                Some("present") => Ok(Present),
                _ => wrong(at, value, "\"present\""),
            })
        })?,
        fresh_seconds: rule("fresh_seconds").and_then(|(at, v)| ruled(&at, v, number))?,
        models: rule("models").and_then(|(at, v)| ruled(&at, v, digests))?,
        configs: rule("configs").and_then(|(at, v)| ruled(&at, v, digests))?,
        keyset_span_seconds: rule("keyset_span_seconds")
            .and_then(|(at, v)| ruled(&at, v, number))?,
        collateral_age_seconds: rule("collateral_age_seconds")
            .and_then(|(at, v)| ruled(&at, v, number))?,
    };
    keys.end()?;
    Ok(parsed)
}

fn session(value: Value) -> Result<SessionPolicy> {
    let mut keys = Keys::of("session", value)?;
    let mut rule = |key: &str| -> Result<(String, Value)> { Ok((keys.path(key), keys.take(key)?)) };
    let texts = |at: &str, value: &Value| list(at, value, "a list of texts, or one", text_of);
    let parsed = SessionPolicy {
        binding: rule("binding").and_then(|(at, v)| ruled(&at, v, bindings))?,
        answers: rule("answers").and_then(|(at, v)| ruled(&at, v, bindings))?,
        name: rule("name").and_then(|(at, v)| ruled(&at, v, texts))?,
    };
    keys.end()?;
    Ok(parsed)
}

fn bindings(at: &str, value: &Value) -> Result<Vec<Binding>> {
    let expected = "a list of bindings out of tls-exporter, ohttp-key, spki-pin, none, or one";
    list(at, value, expected, |at, value| {
        let name = value.as_str().unwrap_or_default();
        Binding::from_name(name).map_or_else(|| wrong(at, value, expected), Ok)
    })
}

fn guarantees(at: &str, value: Value) -> Result<GuaranteeSet> {
    let expected = "a list of guarantees out of logged, quoted, recomputed, signed";
    let names = list(at, &value, expected, |at, value| {
        let name = value
            .as_str()
            .and_then(|name| name.parse::<Guarantee>().ok());
        name.map_or_else(|| wrong(at, value, expected), Ok)
    })?;
    match GuaranteeSet::close(names) {
        Ok(set) => Ok(set),
        Err(_) => wrong(at, &value, expected),
    }
}

fn platform(at: &str, value: Value) -> Result<Platform> {
    let mut keys = Keys::of(at, value)?;
    let tee = keys.take("tee")?;
    let tee = match tee.as_str() {
        Some("sev-snp") => Tee::SevSnp,
        Some("tdx") => Tee::Tdx,
        _ => return wrong(&keys.path("tee"), &tee, "\"sev-snp\" or \"tdx\""),
    };
    let mut checks = Keys::of(&keys.path("checks"), keys.take("checks")?)?;
    keys.end()?;
    let rules = check_ids(tee).iter().map(|spec| {
        let (at, value) = (checks.path(spec.id), checks.take(spec.id)?);
        let rule = ruled(&at, value.clone(), |at, value| expectation(at, spec, value))?;
        match &rule {
            // What is tolerated until a day is not tolerated for ever by way of a waiver.
            Rule::Waive(waiver) if spec.form == Form::Day && waiver.until.is_none() => {
                wrong(&at, &value, spec.form.words())
            }
            _ => Ok((spec, rule)),
        }
    });
    let rules = rules.collect::<Result<Vec<_>>>()?;
    whole(&checks, &rules)?;
    checks.end()?;
    Ok(Platform { tee, rules })
}

/// Checks whose values a manifest may list. They are one measurement, which a manifest has as a whole.
const MEASURED: &[&str] = &[
    "snp.measurement",
    "tdx.mrtd",
    "tdx.rtmr0",
    "tdx.rtmr1",
    "tdx.rtmr2",
];

/// All of a platform's measurement is the manifest's, or nothing of it.
fn whole(checks: &Keys, rules: &[(&'static CheckSpec, Rule<Expect>)]) -> Result<()> {
    let parts = || rules.iter().filter(|(spec, _)| MEASURED.contains(&spec.id));
    let listed = |rule: &Rule<Expect>| rule.expected() == Some(&Expect::Manifest);
    match (
        parts().find(|(_, rule)| listed(rule)),
        parts().find(|(_, rule)| !listed(rule)),
    ) {
        (Some((one, _)), Some((other, rule))) => Err(PolicyError::Value {
            key: checks.path(other.id),
            found: match rule {
                Rule::Expect(expected) => expected.to_value().to_string(),
                Rule::Waive(_) => "waived".to_owned(),
            },
            expected: format!(
                "{{ expect = \"manifest\" }}, as {} has it: a measurement is matched as a whole",
                one.id
            ),
        }),
        _ => Ok(()),
    }
}

/// `{ expect = … }` or `{ waive = "reason" }`, exactly one, `until` only with `waive`.
fn ruled<T>(
    at: &str,
    value: Value,
    expect: impl FnOnce(&str, &Value) -> Result<T>,
) -> Result<Rule<T>> {
    const EXPECTED: &str = "{ expect = … } or { waive = \"reason\" }, one of them";
    if !value.is_table() {
        return wrong(at, &value, EXPECTED);
    }
    let whole = value.clone();
    let mut keys = Keys::of(at, value)?;
    let rule = match (keys.take_if("expect"), keys.take_if("waive")) {
        (Some(value), None) => Rule::Expect(expect(&keys.path("expect"), &value)?),
        (None, Some(reason)) => {
            let reason = text_of(&keys.path("waive"), &reason)?;
            let until = keys
                .take_if("until")
                .map(|until| day(&keys.path("until"), &until));
            Rule::Waive(Waiver {
                reason,
                until: until.transpose()?,
            })
        }
        _ => return wrong(at, &whole, EXPECTED),
    };
    keys.end()?;
    Ok(rule)
}

fn day(at: &str, value: &Value) -> Result<String> {
    match value.as_str() {
        Some(day) if end_of_day(day).is_some() => Ok(day.to_owned()),
        _ => wrong(at, value, "a day, \"YYYY-MM-DD\""),
    }
}

fn text_of(at: &str, value: &Value) -> Result<String> {
    match value.as_str() {
        Some(text) if !text.trim().is_empty() && text.len() <= MOST_TEXT => Ok(text.to_owned()),
        _ => wrong(at, value, "a text that is not empty"),
    }
}

fn number(at: &str, value: &Value) -> Result<u64> {
    match value.as_integer() {
        Some(n) if (0..=MOST_NUMBER).contains(&n) => Ok(n.unsigned_abs()),
        _ => wrong(at, value, "a number from 0"),
    }
}

/// A list, or one bare value.
fn list<T>(
    at: &str,
    value: &Value,
    expected: &str,
    item: impl Fn(&str, &Value) -> Result<T>,
) -> Result<Vec<T>> {
    match value {
        Value::Array(values) => values.iter().map(|value| item(at, value)).collect(),
        Value::Table(_) => wrong(at, value, expected),
        bare => Ok(vec![item(at, bare)?]),
    }
}

fn hex_text(at: &str, value: &Value, bytes: usize) -> Result<String> {
    let right = |text: &&str| {
        text.len() == bytes * 2 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    match value.as_str().filter(right) {
        Some(text) => Ok(text.to_owned()),
        None => wrong(at, value, Form::Hexes(bytes).words()),
    }
}

fn digests(at: &str, value: &Value) -> Result<Digests> {
    if value.as_str() == Some(MANIFEST) {
        return Ok(Digests::Manifest);
    }
    let expected = "a list of SHA-256 digests, or one, or \"manifest\"";
    let these = list(at, value, expected, |at, value| {
        let text = hex_text(at, value, 32)?;
        Digest::from_hex(&text).or_else(|_| wrong(at, value, Form::Hexes(32).words()))
    });
    these.map(Digests::These)
}

fn expectation(at: &str, spec: &CheckSpec, value: &Value) -> Result<Expect> {
    if value.as_str() == Some(MANIFEST) && MEASURED.contains(&spec.id) {
        return Ok(Expect::Manifest);
    }
    let words = spec.form.words();
    let one_of = |at: &str, value: &Value, choices: &[&str]| match value.as_str() {
        Some(word) if choices.contains(&word) => Ok(word.to_owned()),
        _ => wrong(at, value, words.clone()),
    };
    Ok(match spec.form {
        Form::Flag => match value.as_bool() {
            Some(flag) => Expect::Flag(flag),
            None => return wrong(at, value, words),
        },
        Form::Number => Expect::Number(number(at, value)?),
        Form::Word(choices) => Expect::Word(one_of(at, value, choices)?),
        Form::Numbers => Expect::Numbers(list(at, value, &words, number)?),
        Form::Words(choices) => Expect::Words(list(at, value, &words, |at, value| {
            one_of(at, value, choices)
        })?),
        Form::Texts => Expect::Words(list(at, value, &words, text_of)?),
        Form::Hexes(bytes) => Expect::Words(list(at, value, &words, |at, value| {
            hex_text(at, value, bytes)
        })?),
        Form::Mask => match value.as_str().and_then(mask) {
            Some(mask) => Expect::Mask(mask),
            None => return wrong(at, value, words),
        },
        Form::Floors => Expect::Floors(floors(at, value)?),
        Form::Fields => Expect::Words(list(at, value, &words, |at, value| {
            let text = value.as_str().filter(|text| mask(text).is_some());
            text.map_or_else(
                || wrong(at, value, words.clone()),
                |text| Ok(text.to_owned()),
            )
        })?),
        Form::Day => match value.as_str() {
            Some("none") => Expect::Word("none".into()),
            _ => Expect::Word(day(at, value).or_else(|_| wrong(at, value, words))?),
        },
        Form::Events => Expect::Words(list(at, value, &words, |at, value| {
            let text = text_of(at, value)?;
            match EventPattern::read(&text) {
                Some(_) => Ok(text),
                None => wrong(at, value, words.clone()),
            }
        })?),
    })
}

/// `0x1f`: lower-case hex without leading zeros.
fn mask(text: &str) -> Option<u64> {
    let mask = u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()?;
    (format!("0x{mask:x}") == text).then_some(mask)
}

fn floors(at: &str, value: &Value) -> Result<Floors> {
    let Value::Table(table) = value else {
        return wrong(at, value, Form::Floors.words());
    };
    let mut floors = BTreeMap::new();
    for (name, value) in table {
        let at = format!("{at}.{name}");
        if !FLOOR_KEYS.contains(&name.as_str()) {
            return Err(PolicyError::Unknown { key: at });
        }
        let mut keys = Keys::of(&at, value.clone())?;
        let mut level = |key: &str| -> Result<u8> {
            let value = keys.take(key)?;
            let level = value.as_integer().and_then(|n| u8::try_from(n).ok());
            level.map_or_else(
                || wrong(&keys.path(key), &value, "a number from 0 to 255"),
                Ok,
            )
        };
        let fmc = if name.starts_with("Turin") {
            Some(level("fmc")?)
        } else {
            None
        };
        let floor = Floor {
            fmc,
            bootloader: level("bootloader")?,
            tee: level("tee")?,
            snp: level("snp")?,
            microcode: level("microcode")?,
        };
        keys.end()?;
        floors.insert(name.clone(), floor);
    }
    Ok(Floors(floors))
}
