//! Verdicts: what was checked, what was found, and the one exit code that follows.
//!
//! Everything that judges writes into one list, [`Checks`]; nothing else can influence a
//! verdict. [`Checks::conclude`] is the only place where checks turn into an exit code, and it
//! treats a required check that was not evaluated exactly like one that failed.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::Value;
use touchstone_formats::text::printable;

use crate::At;
use crate::dates::rfc3339;
use crate::manifest::Authentic;
use crate::reference::software_words;
use crate::session::Binding;

/// Outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Evaluated, and as expected.
    Pass,
    /// Evaluated, and not as expected.
    Fail,
    /// The policy waived it with a reason. A waiver never hides what was found.
    Waived,
    /// Could not be evaluated. If the check is required this counts as a failure.
    NotEvaluated,
}

/// What a program should do about a refusal (`class` of a verdict).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Not there yet: not sealed, or collateral late. Ask again.
    Retry,
    /// The platform's operator has to act: TCB, expiry.
    Operations,
    /// The caller's own rules refuse it.
    Policy,
    /// Someone lied, or bytes were changed.
    Tamper,
}

/// What it means when a check fails: which exit code, and which class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Exit 1: usage, I/O, or a policy that does not stand. No class.
    Usage,
    /// Exit 2: structure, version, length, reserved bits, non-canonical encoding.
    Malformed,
    /// Exit 3: a signature, chain, root, revocation or binding does not hold.
    NotAuthentic,
    /// Exit 5, class retry: collateral is missing.
    CollateralMissing,
    /// Exit 5, class operations: collateral is outside its validity, or too old.
    CollateralExpired,
    /// Exit 4, class retry: something that may still come (a seal, a quote).
    NotYet,
    /// Exit 4, class operations: genuine, but the platform is behind (TCB) or expired.
    Platform,
    /// Exit 4, class policy: genuine, and refused by the caller's rules.
    Policy,
    /// Exit 4, class tamper: genuine parts, put together by someone who lies (another nonce).
    Dishonest,
}

impl Fault {
    /// The exit code this fault leads to.
    pub fn exit(self) -> u8 {
        match self {
            Fault::Usage => 1,
            Fault::Malformed => 2,
            Fault::NotAuthentic => 3,
            Fault::CollateralMissing | Fault::CollateralExpired => 5,
            Fault::NotYet | Fault::Platform | Fault::Policy | Fault::Dishonest => 4,
        }
    }

    /// The class a program acts upon; none for a usage error.
    pub fn class(self) -> Option<Class> {
        match self {
            Fault::Usage => None,
            Fault::Malformed | Fault::NotAuthentic | Fault::Dishonest => Some(Class::Tamper),
            Fault::CollateralMissing | Fault::NotYet => Some(Class::Retry),
            Fault::CollateralExpired | Fault::Platform => Some(Class::Operations),
            Fault::Policy => Some(Class::Policy),
        }
    }

    /// Place in the order 1, 2, 3, 5, 4: the lowest one that applies decides.
    fn rank(self) -> u8 {
        match self.exit() {
            1 => 0,
            2 => 1,
            3 => 2,
            5 => 3,
            _ => 4,
        }
    }
}

/// One check: what was expected, what was found, how it ended and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Stable id, dotted lower case.
    pub id: Cow<'static, str>,
    /// How it ended.
    pub result: Outcome,
    /// What was expected, in the form the policy's `expect` takes (or null).
    pub expected: Value,
    /// What was found, in the form the policy's `expect` takes (or null).
    pub found: Value,
    /// One sentence; never empty for a check that did not pass.
    pub reason: String,
    /// Purpose of the evidence object this check is about (`boot`, `checkpoint`, `receipt`,
    /// `session`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<&'static str>,
    /// What its failure means. `None`: listed only, and cannot decide (an attachment of a type
    /// that this verifier does not know).
    #[serde(skip)]
    pub fault: Option<Fault>,
    /// For a waived check: until when the waiver holds, as the policy wrote it.
    #[serde(skip)]
    pub until: Option<String>,
}

impl Check {
    /// Whether this check refuses: it failed, or it is required and was not evaluated.
    pub fn refuses(&self) -> bool {
        matches!(self.result, Outcome::Fail | Outcome::NotEvaluated) && self.fault.is_some()
    }
}

/// The accumulator everything that judges writes into.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// Those that stand in other lists as well, in their order; all of them before `list`.
    shared: Vec<Arc<[Check]>>,
    list: Vec<Check>,
    about: Option<&'static str>,
}

impl PartialEq for Checks {
    fn eq(&self, other: &Checks) -> bool {
        self.about == other.about && self.iter().eq(other.iter())
    }
}

impl Serialize for Checks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl Checks {
    /// An empty list, about no evidence object in particular.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty list whose checks are about the evidence object of this purpose.
    pub fn about(purpose: &'static str) -> Self {
        Checks {
            about: Some(purpose),
            ..Checks::default()
        }
    }

    /// With room for so many more.
    pub(crate) fn with_room(mut self, more: usize) -> Self {
        self.list.reserve(more);
        self
    }

    /// Adds a finished check.
    pub fn push(&mut self, check: Check) {
        self.list.push(check);
    }

    fn add(
        &mut self,
        id: impl Into<Cow<'static, str>>,
        result: Outcome,
        fault: Option<Fault>,
        expected: Value,
        found: Value,
        reason: String,
    ) {
        let (id, evidence) = (id.into(), self.about);
        self.list.push(Check {
            id,
            result,
            expected,
            found,
            reason,
            evidence,
            fault,
            until: None,
        });
    }

    /// The check was evaluated and is as expected.
    pub fn pass(
        &mut self,
        id: impl Into<Cow<'static, str>>,
        expected: impl Into<Value>,
        found: impl Into<Value>,
    ) {
        self.add(
            id,
            Outcome::Pass,
            None,
            expected.into(),
            found.into(),
            String::new(),
        );
    }

    /// The check was evaluated and is as expected; `reason` says what that rests on.
    pub fn pass_because(
        &mut self,
        id: impl Into<Cow<'static, str>>,
        expected: impl Into<Value>,
        found: impl Into<Value>,
        reason: impl Into<String>,
    ) {
        self.add(
            id,
            Outcome::Pass,
            None,
            expected.into(),
            found.into(),
            reason.into(),
        );
    }

    /// The check failed; `fault` says what follows from that.
    pub fn fail(
        &mut self,
        id: impl Into<Cow<'static, str>>,
        fault: Fault,
        expected: impl Into<Value>,
        found: impl Into<Value>,
        reason: impl Into<String>,
    ) {
        self.add(
            id,
            Outcome::Fail,
            Some(fault),
            expected.into(),
            found.into(),
            reason.into(),
        );
    }

    /// A required check that could not be evaluated; it refuses with `fault`.
    pub fn not_evaluated(
        &mut self,
        id: impl Into<Cow<'static, str>>,
        fault: Fault,
        expected: impl Into<Value>,
        reason: impl Into<String>,
    ) {
        self.add(
            id,
            Outcome::NotEvaluated,
            Some(fault),
            expected.into(),
            Value::Null,
            reason.into(),
        );
    }

    /// Something listed that was not evaluated and that nothing depends on.
    pub fn unconsidered(&mut self, id: impl Into<Cow<'static, str>>, reason: impl Into<String>) {
        self.add(
            id,
            Outcome::NotEvaluated,
            None,
            Value::Null,
            Value::Null,
            reason.into(),
        );
    }

    /// The policy waives the check, with its reason; what was found is reported all the same.
    pub fn waived(
        &mut self,
        id: impl Into<Cow<'static, str>>,
        found: impl Into<Value>,
        reason: impl Into<String>,
        until: Option<String>,
    ) {
        self.add(
            id,
            Outcome::Waived,
            None,
            Value::Null,
            found.into(),
            reason.into(),
        );
        if let Some(check) = self.list.last_mut() {
            check.until = until;
        }
    }

    /// Appends the checks of another list, in their order.
    pub fn extend(&mut self, other: Checks) {
        if other.shared.is_empty() {
            self.list.extend(other.list);
            return;
        }
        self.share();
        self.shared.extend(other.shared);
        self.list = other.list;
    }

    /// Makes copies of the list cheap: they will have the same checks, not checks of their own.
    pub(crate) fn share(&mut self) {
        if !self.list.is_empty() {
            self.shared.push(std::mem::take(&mut self.list).into());
        }
    }

    /// The same, and the check of this id shared by itself, for [`Self::replace`].
    pub(crate) fn share_but(&mut self, id: &str) {
        if let Some(place) = self.list.iter().position(|check| check.id == id) {
            let mut own = self.list.split_off(place);
            let after = own.split_off(1);
            self.share();
            self.list = own;
            self.share();
            self.list = after;
        }
        self.share();
    }

    /// Puts a check where [`Self::share_but`] left the one of its id.
    pub(crate) fn replace(&mut self, own: Checks) -> bool {
        let [check] = own.list.as_slice() else {
            return false;
        };
        let alone = |piece: &&mut Arc<[Check]>| matches!(&***piece, [one] if one.id == check.id);
        let Some(piece) = self.shared.iter_mut().find(alone) else {
            return false;
        };
        *piece = own.list.into();
        true
    }

    /// The checks so far, in the order they were made.
    pub fn iter(&self) -> impl Iterator<Item = &Check> + Clone {
        let shared = self.shared.iter().flat_map(|list| list.iter());
        shared.chain(&self.list)
    }

    /// How many checks there are.
    pub fn len(&self) -> usize {
        self.list.len() + self.shared.iter().map(|list| list.len()).sum::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first check with this id.
    pub fn find(&self, id: &str) -> Option<&Check> {
        self.iter().find(|check| check.id == id)
    }

    /// Whether nothing refuses so far.
    pub fn hold(&self) -> bool {
        !self.iter().any(Check::refuses)
    }

    /// The deciding check: the first that refuses with the exit code that comes first in the
    /// order 1, 2, 3, 5, 4.
    pub fn deciding(&self) -> Option<&Check> {
        self.iter()
            .filter(|check| check.refuses())
            // min_by_key returns the first of equals.
            .min_by_key(|check| check.fault.map_or(u8::MAX, Fault::rank))
    }

    /// Turns the checks into exit code, word, class and deciding check.
    ///
    /// `simulated`: some evidence stands under a root that the caller named.
    /// `expect_simulated`: the caller said that this is what he wants (exit 0 instead of 6).
    pub fn conclude(&self, simulated: bool, expect_simulated: bool) -> Conclusion {
        if let Some(check) = self.deciding() {
            let fault = check.fault.unwrap_or(Fault::Usage);
            let word = match fault.exit() {
                1 => Word::Usage,
                2 => Word::Malformed,
                3 => Word::NotAuthentic,
                5 => Word::Collateral,
                _ => Word::Refused,
            };
            return Conclusion {
                exit: fault.exit(),
                word,
                class: fault.class(),
                deciding: Some(check.id.to_string()),
            };
        }
        let exit = if simulated && !expect_simulated { 6 } else { 0 };
        Conclusion {
            exit,
            word: Word::Holds,
            class: None,
            deciding: None,
        }
    }

    fn waivers(&self) -> Vec<WaiverLine> {
        let mut seen = BTreeSet::new();
        self.iter()
            .filter(|check| check.result == Outcome::Waived)
            .filter(|check| seen.insert((check.id.clone(), check.reason.clone())))
            .map(|check| WaiverLine {
                id: check.id.to_string(),
                reason: check.reason.clone(),
                until: check.until.clone(),
            })
            .collect()
    }
}

/// The word of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// Exit 0 and 6.
    Holds,
    /// Exit 4.
    Refused,
    /// Exit 3.
    NotAuthentic,
    /// Exit 2.
    Malformed,
    /// Exit 5.
    Collateral,
    /// Exit 1.
    Usage,
}

impl Word {
    fn text(self) -> &'static str {
        match self {
            Word::Holds => "holds",
            Word::Refused => "refused",
            Word::NotAuthentic => "not-authentic",
            Word::Malformed => "malformed",
            Word::Collateral => "collateral",
            Word::Usage => "usage",
        }
    }
}

/// What [`Checks::conclude`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// Exit code.
    pub exit: u8,
    /// Word of the verdict.
    pub word: Word,
    /// What a program should do; none when it holds or on a usage error.
    pub class: Option<Class>,
    /// Id of the deciding check; none when it holds.
    pub deciding: Option<String>,
}

/// Who vouches for the time of judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Voucher {
    /// The verifier's own clock.
    Clock,
    /// A witness's timestamped cosignature that the policy names (a later version).
    Witness,
    /// The caller's word.
    Caller,
}

/// One waiver that was made use of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaiverLine {
    /// Id of the check that is waived.
    pub id: String,
    /// The policy's reason.
    pub reason: String,
    /// The date after which it no longer waives.
    pub until: Option<String>,
}

/// Everything a verdict says beside its checks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    /// Some evidence stands under a root that the caller named.
    pub simulated: bool,
    /// The caller expects simulation: exit 0 instead of 6.
    pub expect_simulated: bool,
    /// Guarantees that hold.
    pub achieved: Vec<String>,
    /// Guarantees that had to hold.
    pub required: Vec<String>,
    /// What the caller's own bytes were compared with (`request`, `response`, `nonce`, …).
    pub covers: Vec<String>,
    /// What held between the caller's connection and the enclave that this is about.
    pub binding: Binding,
    /// The platform that the evidence is about.
    pub platform: Arc<Value>,
    /// Launch measurement, lower-case hex.
    pub measurement: Option<String>,
    /// The release that this is, by a manifest; null where the policy asks for none, or none could be used.
    pub release: Value,
    /// The manifest that was judged by, authentic, demanded and in force: what to remember as accepted. Not written.
    pub manifest: Option<Arc<Authentic>>,
    /// Model digests and names.
    pub model: Value,
    /// What no check can show, a sentence each.
    pub residual_risks: Vec<String>,
}

/// A JSON object of these members. (The macro `json!` writes every value that it is given a second time.)
pub(crate) fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let members = members
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    Value::Object(members.collect())
}

/// A verdict: `touchstone/verdict/1`.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Exit code, word, class and deciding check.
    pub conclusion: Conclusion,
    /// Time of judgement; none when nothing was judged.
    pub at: Option<At>,
    /// All checks, in the order they were made.
    pub checks: Checks,
    /// All the rest.
    pub context: Context,
}

impl Verdict {
    /// Concludes from the checks.
    pub fn new(checks: Checks, context: Context, at: At) -> Verdict {
        let conclusion = checks.conclude(context.simulated, context.expect_simulated);
        Verdict {
            conclusion,
            at: Some(at),
            checks,
            context,
        }
    }

    /// The exit code.
    pub fn exit(&self) -> u8 {
        self.conclusion.exit
    }

    /// Id of the deciding check, if something refuses.
    pub fn deciding(&self) -> Option<&str> {
        self.conclusion.deciding.as_deref()
    }

    /// What held between the caller's connection and the enclave: found, whether or not the policy is content
    /// with it, so look at [`Self::exit`] first.
    pub fn binding(&self) -> Binding {
        self.context.binding
    }

    /// One JSON object, as `--json` prints it (no trailing newline).
    pub fn to_json(&self) -> String {
        // Serialising strings, numbers and `Value`s with string keys cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The verdict in words, for people; several lines, each ending in a newline.
    pub fn words(&self) -> String {
        let mut out = Words(String::new());
        let c = &self.conclusion;
        let simulated = if self.context.simulated {
            " (SIMULATED platform)"
        } else {
            ""
        };
        out.line(format!(
            "{}{simulated}, exit {}",
            c.word.text().to_uppercase(),
            c.exit
        ));
        if let Some(check) = self.checks.deciding() {
            out.line(format!("because {}: {}", check.id, check.reason));
            if !check.expected.is_null() {
                out.line(format!("  expected {}", check.expected));
            }
            if !check.found.is_null() {
                out.line(format!("  found    {}", check.found));
            }
        }
        if let Some(at) = &self.at {
            out.line(format!("judged at {} ({})", rfc3339(at.time), at.words()));
        }
        if !self.context.required.is_empty() {
            out.line(format!("required: {}", self.context.required.join(" ")));
            out.line(format!("achieved: {}", self.context.achieved.join(" ")));
        }
        // A verdict on something else than an exchange or its connection has nothing to say here.
        let binding = self.context.binding;
        if binding != Binding::None || !self.context.required.is_empty() {
            out.line(format!("binding: {binding}"));
        }
        if let Some(measurement) = &self.context.measurement {
            out.line(format!("measurement: {measurement}"));
        }
        // Of what is refused a release says nothing that could be relied on.
        if c.word == Word::Holds {
            for line in software_words(&self.context.release, &self.context.model) {
                out.line(line);
            }
        }
        let refusing = || self.checks.iter().filter(|check| check.refuses());
        let failed = || refusing().filter(|check| check.result == Outcome::Fail);
        if failed().count() > 1 {
            out.line("all that failed:".to_owned());
            for check in failed() {
                let about = check
                    .evidence
                    .map(|p| format!(" [{p}]"))
                    .unwrap_or_default();
                out.line(format!("  {}{about}: {}", check.id, check.reason));
            }
        }
        let open = refusing().count() - failed().count();
        if open > 0 {
            out.line(format!("{open} required checks could not be evaluated"));
        }
        for waiver in self.checks.waivers() {
            let until = waiver
                .until
                .map(|until| format!(" (until {until})"))
                .unwrap_or_default();
            out.line(format!("waived {}: {}{until}", waiver.id, waiver.reason));
        }
        for risk in &self.context.residual_risks {
            out.line(format!("note: {risk}"));
        }
        out.0
    }
}

/// Lines for a terminal. Names and texts in them may be a liar's: no control character gets out.
struct Words(String);

impl Words {
    fn line(&mut self, line: String) {
        self.0.push_str(&printable(&line));
        self.0.push('\n');
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// The members, in the order in which they are written.
        #[derive(Serialize)]
        struct Wire<'a> {
            v: &'static str,
            verdict: Word,
            exit: u8,
            simulated: bool,
            class: Option<Class>,
            deciding: Option<&'a str>,
            at: Option<String>,
            time_vouched_by: Option<Voucher>,
            achieved: &'a [String],
            required: &'a [String],
            covers: &'a [String],
            binding: Binding,
            checks: &'a Checks,
            platform: &'a Value,
            measurement: Option<&'a str>,
            #[serde(skip_serializing_if = "Value::is_null")]
            release: &'a Value,
            model: &'a Value,
            waivers: Vec<WaiverLine>,
            residual_risks: &'a [String],
        }
        let (c, x) = (&self.conclusion, &self.context);
        Wire {
            v: "touchstone/verdict/1",
            verdict: c.word,
            exit: c.exit,
            simulated: x.simulated,
            class: c.class,
            deciding: c.deciding.as_deref(),
            at: self.at.map(|at| rfc3339(at.time)),
            time_vouched_by: self.at.map(|at| at.voucher()),
            achieved: &x.achieved,
            required: &x.required,
            covers: &x.covers,
            binding: x.binding,
            checks: &self.checks,
            platform: &x.platform,
            measurement: x.measurement.as_deref(),
            release: &x.release,
            model: &x.model,
            waivers: self.checks.waivers(),
            residual_risks: &x.residual_risks,
        }
        .serialize(serializer)
    }
}

/// The verdict of a usage error, an I/O error or a policy that does not stand (exit 1); `id` is
/// the check it is reported under (`usage`, `policy.file`, `root.simulated`).
pub fn usage(id: &'static str, message: impl Into<String>) -> Verdict {
    refusal(id, Fault::Usage, message, None)
}

/// A verdict of one check, which failed: what clients make of what happens before there is anything to
/// judge, such as a connection that breaks off. `at` is the caller's clock, if he looked.
pub fn refusal(
    id: &'static str,
    fault: Fault,
    message: impl Into<String>,
    at: Option<At>,
) -> Verdict {
    let mut checks = Checks::new();
    checks.fail(id, fault, Value::Null, Value::Null, message);
    let conclusion = checks.conclude(false, false);
    Verdict {
        conclusion,
        at,
        checks,
        context: Context::default(),
    }
}
