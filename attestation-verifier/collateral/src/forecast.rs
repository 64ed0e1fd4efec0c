//! Until when verifiers will accept a platform, and why no longer.
//!
//! The verifier itself says so: judging is a pure function of evidence, collateral, policy and *time*, so the forecast asks it
//! about times to come. It cannot disagree with the verdict of that day, unless the vendor says something new until then.

use std::sync::Arc;

use attestation_verifier::authenticate::{self, Window};
use attestation_verifier::dates::{end_of_day, rfc3339};
use attestation_verifier::parse::cert::Certificate;
use attestation_verifier::parse::crl::Crl;
use attestation_verifier::parse::tdx::tcb::{QeIdentity, TcbInfo};
use attestation_verifier::policy::Rule;
use attestation_verifier::verdict::{Check, Checks};
use attestation_verifier::{At, Fault, Policy, Roots, parse};
use serde_json::{Value, json};
use touchstone_formats::evidence::{Collateral, Evidence, SnpCollateral, TdxCollateral, Tee};
use touchstone_formats::text::{HexBytes, printable};

const DAY: u64 = 86_400;
/// How far ahead is looked: seconds.
pub const HORIZON: u64 = 2 * 366 * DAY;
/// Beside the times at which something is known to end, the verifier is asked about each of these: seconds.
const STEP: u64 = 30 * DAY;
/// Parts and times that are looked at, at most: hostile collateral must not decide how long this takes.
const MOST: usize = 256;

/// One piece of collateral, and when it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is, for people.
    pub name: String,
    /// When it is good.
    pub window: Window,
    /// A policy's rule of age applies to it: lists and signed texts.
    pub ages: bool,
}

/// Why a platform is, or will be, refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The check that decides.
    pub check: String,
    /// Its reason, in a sentence.
    pub reason: String,
    /// What it means.
    pub fault: Fault,
}

/// What will become of a platform.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// The time it was made for, Unix seconds.
    pub at: u64,
    /// From when on it is refused, Unix seconds, and why; none: not within [`HORIZON`].
    pub refused: Option<(u64, Refusal)>,
    /// Every piece, the one that ends first before the others.
    pub parts: Vec<Part>,
    /// A policy decided; without one only signatures and validity did.
    pub by_policy: bool,
    /// What the platform says of itself, with a policy alone; null unless it is authentic.
    pub platform: Value,
    /// The platform's kind.
    pub tee: Tee,
}

/// Makes the forecast for evidence with its collateral.
pub fn forecast(evidence: &Evidence, policy: Option<&Policy>, roots: &Roots, at: u64) -> Forecast {
    let mut parts = parts(evidence);
    parts.truncate(MOST);
    parts.sort_by_key(|part| part.window.to);
    let refused_at = |time| refusal(evidence, policy, roots, time);
    let mut forecast = Forecast {
        at,
        refused: None,
        by_policy: policy.is_some(),
        platform: Value::Null,
        tee: evidence.tee,
        parts,
    };
    if let Some(policy) = policy {
        let at = At {
            time: at,
            asserted: false,
        };
        let judged = attestation_verifier::judge(evidence, policy, roots, None, at, None);
        forecast.platform = Arc::unwrap_or_clone(judged.platform);
    }
    if let Some(refusal) = refused_at(at) {
        forecast.refused = Some((at, refusal));
        return forecast;
    }
    let mut holds = at;
    for time in times(&forecast.parts, policy, at) {
        let Some(mut why) = refused_at(time) else {
            holds = time;
            continue;
        };
        // Between the two: the very second, also of an end that is not known here.
        let mut refused = time;
        while refused - holds > 1 {
            let middle = holds + (refused - holds) / 2;
            match refused_at(middle) {
                None => holds = middle,
                Some(earlier) => (refused, why) = (middle, earlier),
            }
        }
        forecast.refused = Some((refused, why));
        break;
    }
    forecast
}

impl Forecast {
    /// Whether it is refused already.
    pub fn is_refused(&self) -> bool {
        matches!(&self.refused, Some((from, _)) if *from <= self.at)
    }

    /// Seconds for which it still holds; none: for longer than is looked ahead.
    pub fn seconds_left(&self) -> Option<u64> {
        let (from, _) = self.refused.as_ref()?;
        Some(from.saturating_sub(self.at))
    }

    /// In one sentence. Names in it may be a stranger's: nothing in it controls a terminal.
    pub fn sentence(&self) -> String {
        match &self.refused {
            None => format!(
                "this platform's collateral holds until {} at least",
                rfc3339(self.at.saturating_add(HORIZON))
            ),
            Some((from, why)) => {
                let when = match self.is_refused() {
                    true => "is refused now".to_owned(),
                    false => format!("will be refused on {}", rfc3339(*from)),
                };
                let reason = printable(&why.reason);
                format!("this platform {when} because {reason} ({})", why.check)
            }
        }
    }

    /// In words, a line for each piece.
    pub fn words(&self) -> String {
        let mut out = self.sentence() + "\n";
        if !self.by_policy {
            out.push_str(
                "  without a policy: signatures and validity alone; policies have rules of age and of TCB besides\n",
            );
        }
        for part in &self.parts {
            out.push_str(&format!(
                "  {} to {}  {}\n",
                rfc3339(part.window.from),
                rfc3339(part.window.to),
                printable(&part.name)
            ));
        }
        out
    }

    /// As one JSON object (`touchstone/collateral-status/1`).
    pub fn to_json(&self) -> Value {
        let why = self.refused.as_ref().map(|(_, why)| why);
        let part = |part: &Part| {
            json!({
                "name": part.name,
                "from": rfc3339(part.window.from),
                "to": rfc3339(part.window.to),
            })
        };
        json!({
            "v": "touchstone/collateral-status/1",
            "at": rfc3339(self.at),
            "tee": self.tee.name(),
            "by_policy": self.by_policy,
            "refused_from": self.refused.as_ref().map(|(from, _)| rfc3339(*from)),
            "seconds_left": self.seconds_left(),
            "check": why.map(|why| &why.check),
            "reason": why.map(|why| &why.reason),
            "exit": why.filter(|_| self.is_refused()).map_or(0, |why| why.fault.exit()),
            "words": self.sentence(),
            "parts": self.parts.iter().map(part).collect::<Vec<Value>>(),
            "platform": self.platform,
        })
    }
}

/// Why the evidence is refused at a time, if it is.
fn refusal(
    evidence: &Evidence,
    policy: Option<&Policy>,
    roots: &Roots,
    time: u64,
) -> Option<Refusal> {
    let of = |check: &Check| Refusal {
        check: check.id.to_string(),
        reason: check.reason.clone(),
        fault: check.fault.unwrap_or(Fault::NotAuthentic),
    };
    if let Some(policy) = policy {
        let at = At {
            time,
            asserted: false,
        };
        let judged = attestation_verifier::judge(evidence, policy, roots, None, at, None);
        return judged.checks.deciding().map(of);
    }
    let mut checks = Checks::new();
    let lists: Option<Vec<Window>> = match evidence.tee {
        Tee::SevSnp => parse::parse(evidence, &mut checks)
            .and_then(|parsed| authenticate::authenticate(parsed, roots, time, &mut checks))
            .map(|authentic| authentic.revocation().to_vec()),
        Tee::Tdx => parse::tdx::parse(evidence, &mut checks)
            .and_then(|parsed| authenticate::intel::authenticate(parsed, roots, time, &mut checks))
            .map(|authentic| {
                let parts = authentic.windows().iter();
                parts
                    .filter(|part| part.kind == authenticate::intel::PartKind::Crl)
                    .map(|part| part.window)
                    .collect()
            }),
    };
    if let Some(check) = checks.deciding() {
        return Some(of(check));
    }
    // Whether a current list must be there is a policy's to say; every policy that waives nothing does.
    let current = match (evidence.tee, lists) {
        (_, None) => false,
        (Tee::SevSnp, Some(lists)) => lists.iter().any(|window| window.holds(time)),
        (Tee::Tdx, Some(lists)) => {
            lists.len() >= 2 && lists.iter().all(|window| window.holds(time))
        }
    };
    (!current).then(|| Refusal {
        check: match evidence.tee {
            Tee::SevSnp => "snp.chain.crl".into(),
            Tee::Tdx => "tdx.chain.crl".into(),
        },
        reason: "no revocation list that is current is there".into(),
        fault: Fault::CollateralExpired,
    })
}

/// The times after `at` to ask about, in their order.
fn times(parts: &[Part], policy: Option<&Policy>, at: u64) -> Vec<u64> {
    let mut times: Vec<u64> = (1..=HORIZON / STEP)
        .map(|n| at.saturating_add(n * STEP))
        .collect();
    times.push(at.saturating_add(HORIZON));
    let age = policy.and_then(|policy| policy.answer.collateral_age_seconds.expected());
    for part in parts {
        times.push(part.window.to.saturating_add(1));
        if let (true, Some(age)) = (part.ages, age) {
            times.push(part.window.from.saturating_add(*age).saturating_add(1));
        }
    }
    let rules = policy.into_iter().flat_map(|policy| &policy.platforms);
    for (_, rule) in rules.flat_map(|platform| platform.rules()) {
        if let Rule::Waive(waiver) = rule {
            let end = waiver.until.as_deref().and_then(end_of_day);
            times.extend(end.map(|end| end.saturating_add(1)));
        }
    }
    times.retain(|time| *time > at && *time <= at.saturating_add(HORIZON));
    times.sort_unstable();
    times.dedup();
    // The earliest are what counts; a policy has no more waivers than checks.
    times.truncate(4 * MOST);
    times
}

/// Every piece that can be read, and its window. What cannot be read the verifier refuses.
fn parts(evidence: &Evidence) -> Vec<Part> {
    match &evidence.collateral {
        Some(Collateral::SevSnp(snp)) => snp_parts(snp),
        Some(Collateral::Tdx(tdx)) => tdx_parts(evidence, tdx),
        None => Vec::new(),
    }
}

fn certificate(name: String, certificate: &Certificate) -> Part {
    Part {
        name,
        window: Window {
            from: certificate.not_before,
            to: certificate.not_after,
        },
        ages: false,
    }
}

fn list(name: String, der: &[u8]) -> Option<Part> {
    let crl = Crl::parse(der).ok()?;
    Some(Part {
        name,
        window: Window {
            from: crl.this_update,
            // Good strictly before nextUpdate (formats.md §7, "Time").
            to: crl.next_update.saturating_sub(1),
        },
        ages: true,
    })
}

fn snp_parts(snp: &SnpCollateral) -> Vec<Part> {
    let mut parts = Vec::new();
    let vek = snp.vek.iter().map(|der| ("endorsement key", der));
    let chain = snp.chain.iter().map(|der| ("intermediate", der));
    for (role, der) in vek.chain(chain) {
        if let Ok(parsed) = Certificate::parse(der) {
            let name = format!("certificate of the {role}, {}", parsed.subject_cn);
            parts.push(certificate(name, &parsed));
        }
    }
    for der in &snp.crls {
        let name = "revocation list of the root".to_owned();
        parts.extend(list(name, der));
    }
    parts
}

fn tdx_parts(evidence: &Evidence, tdx: &TdxCollateral) -> Vec<Part> {
    let mut parts = Vec::new();
    let quote = attestation_verifier::parse::tdx::quote::Quote::parse(&evidence.quote);
    for parsed in quote.iter().flat_map(|quote| quote.pck_chain.iter()) {
        parts.push(certificate(
            format!("certificate in the quote, {}", parsed.subject_cn),
            parsed,
        ));
    }
    let text = |name: &str, dates: Option<(u64, u64)>| {
        dates.map(|(from, next)| Part {
            name: name.to_owned(),
            window: Window {
                from,
                to: next.saturating_sub(1),
            },
            ages: true,
        })
    };
    let info = tdx.tcb_info.as_deref().map(TcbInfo::parse);
    let info = info.and_then(Result::ok);
    parts.extend(text(
        "TCB info",
        info.map(|i| (i.issue_date, i.next_update)),
    ));
    let identity = tdx.qe_identity.as_deref().map(QeIdentity::parse);
    let identity = identity.and_then(Result::ok);
    parts.extend(text(
        "identity of the quoting enclave",
        identity.map(|i| (i.issue_date, i.next_update)),
    ));
    let mut crl = |name: &str, der: &Option<HexBytes>| {
        let part = der.as_ref();
        parts.extend(part.and_then(|der| list(name.to_owned(), &der.0)));
    };
    crl("revocation list of the PCK CA", &tdx.pck_crl);
    crl("revocation list of Intel's root", &tdx.root_ca_crl);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of certificates are whoever's who made them; and what is refused only later has no exit code yet.
    #[test]
    fn what_is_said_controls_no_terminal_and_exits_when_it_is_refused() {
        let evil = "x\u{1b}[2J\u{202e}y\n";
        let forecast = |from| Forecast {
            at: 1000,
            refused: Some((
                from,
                Refusal {
                    check: "snp.chain.crl".into(),
                    reason: evil.into(),
                    fault: Fault::CollateralExpired,
                },
            )),
            parts: vec![Part {
                name: evil.into(),
                window: Window { from: 0, to: 1 },
                ages: true,
            }],
            by_policy: true,
            platform: Value::Null,
            tee: Tee::SevSnp,
        };
        let words = forecast(1000).words();
        assert!(!words.contains(['\u{1b}', '\u{202e}']), "{words:?}");
        assert_eq!(words.lines().count(), 2, "{words:?}");
        assert_eq!(forecast(1000).to_json()["exit"], 5);
        assert_eq!(forecast(1001).to_json()["exit"], 0);
    }
}
