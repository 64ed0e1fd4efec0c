//! What is known about each check id, out of the tables of policies, and what to do when it refuses.

use std::sync::LazyLock;

use touchstone_formats::Tee;

use crate::policy::{check_ids, fixed_checks};
use crate::verdict::{Class, Outcome};

/// What is known about one check.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct About {
    /// Stable id; one that ends in `.*` stands for ids with a number in its place.
    pub id: String,
    /// What holds if it passes.
    pub summary: String,
    /// Why it matters.
    pub why: String,
    /// Where it is specified.
    pub source: String,
    /// Exit codes of its failure, as `docs/checks.md` has them.
    pub exit: String,
    /// What `expect` takes; none for checks that no policy decides.
    pub expects: Option<String>,
    /// The strict policy's value, as TOML; none for checks that no policy decides.
    pub template: Option<String>,
}

/// What is known about the check of this id; none for an id that no version of this verifier makes.
pub fn about(id: &str) -> Option<About> {
    all()
        .iter()
        .find(|about| match about.id.strip_suffix(".*") {
            Some(start) => id
                .strip_prefix(start)
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(|number| number == "*" || is_number(number)),
            None => about.id == id,
        })
        .cloned()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// All checks there are: those of policies, and those that no policy decides.
pub fn all() -> &'static [About] {
    static ALL: LazyLock<Vec<About>> = LazyLock::new(gathered);
    &ALL
}

fn gathered() -> Vec<About> {
    let policy = [Tee::SevSnp, Tee::Tdx].into_iter().flat_map(check_ids);
    let policy = policy.map(|spec| About {
        id: spec.id.to_owned(),
        summary: spec.summary.to_owned(),
        why: spec.why.to_owned(),
        source: spec.source.to_owned(),
        exit: if spec.id.ends_with(".chain.crl") {
            "5"
        } else {
            "4"
        }
        .to_owned(),
        expects: Some(spec.form.words()),
        template: Some(spec.template.to_owned()),
    });
    let fixed = fixed_checks().iter().map(|check| About {
        id: check.id.to_owned(),
        summary: check.summary.to_owned(),
        why: why(check.id).to_owned(),
        source: check.source.to_owned(),
        exit: check.exit.to_owned(),
        expects: None,
        template: None,
    });
    policy.chain(fixed).collect()
}

/// Why a check that no policy decides matters: by what its id begins or ends with, the first that fits.
fn why(id: &str) -> &'static str {
    let fits = |rule: &str| match (rule.strip_prefix('*'), rule.strip_suffix('*')) {
        (Some(end), _) => id.ends_with(end),
        (None, Some(start)) => id.starts_with(start),
        (None, None) => id == rule,
    };
    let found = WHY.iter().find(|(rule, _)| fits(rule));
    found.map_or(
        "Nothing can stand on evidence that does not satisfy it, so no policy can waive it.",
        |(_, why)| why,
    )
}

const WHY: &[(&str, &str)] = &[
    (
        "advisories.notice",
        "Somebody you chose to listen to has withdrawn trust from such platforms.",
    ),
    (
        "advisories.signature",
        "Anybody could have written the list, or left a notice out of it.",
    ),
    (
        "advisories.version",
        "An older list lacks the newest notices; whoever hands it out may want that.",
    ),
    (
        "model.digest",
        "Another model may answer alike and be worth nothing; the digest is what receipts and policies name.",
    ),
    (
        "model.files",
        "Another model may answer alike and be worth nothing; the list says which of its files is another.",
    ),
    (
        "model.manifest",
        "Another model may answer alike and be worth nothing; whoever signed the manifest did not speak for this one.",
    ),
    (
        "oms.signature",
        "Anybody could have written the list of files.",
    ),
    (
        "oms.method",
        "Other lists would have to be compared in other ways; one that was not compared proves nothing.",
    ),
    (
        "oms.files",
        "Who signed one set of files has said nothing about another, nor about the same bytes under other names.",
    ),
    (
        "oms.covers",
        "Whoever can change a file that the runtime opens and nobody signed decides what the model answers.",
    ),
    (
        "manifest.present",
        "Your policy leaves it to a manifest what may run; without one nothing says so.",
    ),
    (
        "manifest.signature",
        "Anybody can write a manifest that lists what he runs himself.",
    ),
    (
        "manifest.threshold",
        "Whoever has the keys of fewer signers than you demand must not be able to name your software.",
    ),
    (
        "manifest.name",
        "The same signers may sign for other software too.",
    ),
    (
        "manifest.version",
        "An older manifest lists what was withdrawn since; whoever hands it out may want that.",
    ),
    (
        "manifest.validity",
        "What has ended nobody answers for any more, and what its makers found in it since is not said in it.",
    ),
    (
        "manifest.platform",
        "Values that are each listed, of two releases, are together of none: somebody mixed what was never measured as one.",
    ),
    (
        "manifest.os_binding",
        "A measurement of firmware alone is the same whatever system it starts.",
    ),
    (
        "manifest.quote_source",
        "Where others on the machine have quotes too, a quote does not show who asked for it.",
    ),
    (
        "manifest.tcb",
        "The signers know a hole in older firmware that reaches this release.",
    ),
    (
        "quote.*",
        "Without a quote nothing about a machine can be proven, and an enclave on it serves nothing.",
    ),
    ("usage", "Nothing was judged."),
    (
        "policy.file",
        "A policy that can be read in two ways, or leaves something out, would judge by accident.",
    ),
    (
        "measure.*",
        "A number that no platform would report, or that another platform reports, would be pinned in place of what runs.",
    ),
    (
        "policy.platform",
        "A kind of platform that the policy does not name is one that nobody decided to trust.",
    ),
    (
        "root.simulated",
        "A simulated platform protects nothing; whoever trusts its root has to say so by name.",
    ),
    (
        "collateral.fetch",
        "Without it verifiers have nothing to verify the evidence by, and refuse it (exit 5).",
    ),
    (
        "collateral.authentic",
        "A server in between can withhold collateral, and must not be able to replace it.",
    ),
    (
        "collateral.validity",
        "An old list lacks what was revoked since; whoever hands it out may want that.",
    ),
    (
        "*.format",
        "What is not written as its specification says can be read in two ways, and was not made by what it claims.",
    ),
    (
        "receipt.signature",
        "Without it anybody could have written the receipt.",
    ),
    (
        "receipt.keyset",
        "A receipt under another keyset says nothing about this enclave.",
    ),
    (
        "keyset.lifetime",
        "Keys are trusted for as long as their enclave meant to hold them, and no longer.",
    ),
    (
        "keyset.span",
        "The longer a key lives, the longer a leaked one can be used unnoticed.",
    ),
    (
        "keyset.name",
        "Two genuine enclaves look alike; the name is how their operator tells them apart.",
    ),
    (
        "receipt.status",
        "A receipt for a refusal is no receipt for an answer.",
    ),
    (
        "receipt.clock",
        "A receipt of the future was made by a clock that is wrong, or by somebody who prepares one.",
    ),
    ("receipt.fresh", "An old answer may be a replay."),
    (
        "receipt.nonce",
        "Your nonce shows that the answer is younger than your question.",
    ),
    (
        "receipt.model",
        "The answer of another model may look the same and be worth nothing.",
    ),
    (
        "receipt.config",
        "The same model under another configuration can answer differently.",
    ),
    (
        "receipt.catalog",
        "The catalog gives names to digests; one of somebody else's would give wrong names.",
    ),
    (
        "log.*",
        "The log is what keeps an enclave from telling different stories about what it answered.",
    ),
    (
        "guarantees.*",
        "Somebody relies on it: what was promised or demanded, and is not proven, counts as not there.",
    ),
    (
        "opening.*",
        "An opening of other bytes would let somebody pass off another question or answer.",
    ),
    (
        "compare.coverage",
        "A receipt that was compared with nothing of yours shows only that some enclave said something.",
    ),
    (
        "compare.*",
        "The receipt is about one question and one answer: these must be the ones you hold.",
    ),
    (
        "session.nonce",
        "Evidence for another nonce was made for somebody else, or earlier.",
    ),
    (
        "session.clock",
        "Whether a connection is live can only be told at the time it is used.",
    ),
    (
        "session.*",
        "Whoever stands between you and the enclave can read and answer, unless the connection is bound to it.",
    ),
    (
        "connection.*",
        "Without a connection that stands nothing is sent.",
    ),
    (
        "ohttp.refused",
        "What is said outside the seal is nobody's word: the host may have made it up, and whether the enclave answered is not known.",
    ),
    (
        "ohttp.answer",
        "Only the enclave that opened your request can seal an answer for it: this is not one, or not all of it, or says that a copy came first.",
    ),
    ("answer.*", "An answer that is not one proves nothing."),
    (
        "evidence.purpose",
        "A quote made for one purpose must not serve for another.",
    ),
    (
        "evidence.nonce",
        "A nonce beside evidence that it is not bound to pretends freshness.",
    ),
    (
        "evidence.report_data",
        "REPORT_DATA is what ties genuine evidence to this keyset, log or connection. Without it any genuine machine's evidence would do.",
    ),
    (
        "*.collateral",
        "Certificates and revocation lists decide whose signature it is: they have to be there, whole, and read in one way.",
    ),
    (
        "*.collateral.validity",
        "Old collateral knows nothing of what has been revoked since.",
    ),
    (
        "*.collateral.age",
        "Old collateral knows nothing of what has been revoked since.",
    ),
    (
        "*.chain.root",
        "A chain that ends at a root of the sender's own proves that he can make certificates.",
    ),
    (
        "*.chain.signature",
        "Each signature hands the vendor's trust on; one that is missing ends it.",
    ),
    (
        "*.chain.constraints",
        "A certificate that was not issued to sign others must not be used to.",
    ),
    (
        "*.chain.validity",
        "Outside their validity nobody answers for the certificates.",
    ),
    (
        "*.chain.revoked",
        "The vendor has withdrawn the key: whoever holds it may not be who it was given to.",
    ),
    (
        "*.crl_signature",
        "A revocation list of the sender's own would hide what the vendor revoked.",
    ),
    (
        "*.signature",
        "Without it every field of the evidence could have been written by anybody.",
    ),
    (
        "snp.vek.*",
        "The endorsement key must be the one of this chip, this product and this firmware level.",
    ),
    (
        "tdx.qe.*",
        "The quoting enclave vouches for the report: it must be Intel's own, and hold the key that signed the quote.",
    ),
    (
        "tdx.tcb_info.*",
        "TCB info of another platform would hide the state of this one.",
    ),
    (
        "tdx.tcb.level",
        "A platform that reaches no level of Intel's list is one that Intel says nothing good about.",
    ),
    (
        "tdx.module.identity",
        "The TDX module is the firmware that keeps host and guest apart: it must be one that Intel names.",
    ),
    (
        "tdx.pck.*",
        "The PCK certificate says which platform signed, and at which security versions.",
    ),
    ("attachment.*", "Nothing rests on it."),
    ("receipt.payment", "Nothing rests on it."),
    ("evidence.event_log", "Nothing rests on it."),
];

/// What to do about a check that refuses.
pub(super) fn advice(id: &str, result: Outcome, class: Option<Class>) -> &'static str {
    let fits = |rule: &str| match rule.strip_suffix('*') {
        Some(start) => id.starts_with(start),
        None => id == rule,
    };
    // Being told to update firmware does not help where nothing was looked at.
    if result == Outcome::NotEvaluated && class != Some(Class::Retry) {
        return "It could not be looked at: see to what refuses before it, and judge again.";
    }
    let special = ADVICE
        .iter()
        .find(|(rule, of, _)| fits(rule) && class == *of);
    if let Some((_, _, advice)) = special {
        return advice;
    }
    match class {
        Some(Class::Retry) => {
            "Not there yet, or late: fetch it again (receipts from /v1/receipts/<id>, collateral from the host or the \
             vendor) and judge again."
        }
        Some(Class::Operations) => {
            "Tell the operator of the platform; it is his to mend. Do not lower the expectation to get through."
        }
        Some(Class::Policy) => {
            "Genuine, and not what your policy accepts. Find out by other means whether what was found is right; only \
             then put it into the policy."
        }
        Some(Class::Tamper) => {
            "Somebody lied, or bytes were changed on the way. Believe nothing of it, keep everything, and ask elsewhere."
        }
        None => "Mend the command, the policy or the file that is named, and run it again.",
    }
}

/// Advice that is more than its class's: rule, class, words.
const ADVICE: &[(&str, Option<Class>, &str)] = &[
    (
        "snp.tcb.*",
        Some(Class::Operations),
        "The operator has to install newer firmware and microcode, commit it (SNP_COMMIT), and launch the guest anew: a \
         launch TCB never rises. Do not lower the floor to get through.",
    ),
    (
        "snp.platform.alias_check",
        Some(Class::Operations),
        "The operator has to install firmware that looks for aliased memory at boot (AMD-SB-3015), and restart the machine.",
    ),
    (
        "snp.measurement",
        Some(Class::Policy),
        "Other software than you expect. Build or reproduce the release that is said to run, and compare its launch digest; \
         never copy it from the server it is about.",
    ),
    (
        "receipt.model",
        Some(Class::Policy),
        "Another model answered. Hash the model you mean yourself, and put its digest into answer.models.",
    ),
    (
        "receipt.nonce",
        Some(Class::Tamper),
        "The receipt is not for your question. Compare which answer and which record you named; else it is a replay.",
    ),
    (
        "compare.coverage",
        Some(Class::Policy),
        "Give the request and the answer that you hold, or say --receipt-only if the receipt alone is what you judge.",
    ),
    (
        "tdx.tcb.*",
        Some(Class::Operations),
        "The operator has to bring the platform to a level that Intel lists as good: BIOS, microcode, TDX module. \
         Tolerate an advisory or a grace only if you know why it does not reach you.",
    ),
    (
        "tdx.mrtd",
        Some(Class::Policy),
        "Other firmware than you expect. Build or reproduce the release that is said to run, and compare its measurement; \
         never copy it from the server it is about.",
    ),
    (
        "tdx.rtmr*",
        Some(Class::Policy),
        "Other software, or another configuration, than you expect. Replay the event log of a release that you built or \
         reproduced, and compare; never copy it from the server it is about.",
    ),
    (
        "manifest.present",
        Some(Class::Retry),
        "Give the manifest with --manifest FILE. Wherever it comes from, its signatures are what counts.",
    ),
    (
        "manifest.validity",
        Some(Class::Operations),
        "Get the newest manifest. If it has ended too, its signers have to issue one, or the operator to run a release that \
         has not ended.",
    ),
    (
        "manifest.version",
        Some(Class::Policy),
        "Get the newest manifest. If the host hands out none but this, ask its signers which is the newest.",
    ),
    (
        "manifest.platform",
        Some(Class::Policy),
        "Other software than your signers stand for, or a release that they dropped. Ask them; never take its measurement from the \
         server it is about.",
    ),
    (
        "manifest.tcb",
        Some(Class::Operations),
        "The operator has to bring the platform to the least TCB that the manifest names, and launch the guest anew.",
    ),
    (
        "advisories.notice",
        Some(Class::Operations),
        "The platform stood as the notice says when the receipt was made: do not rely on this answer. The operator has to \
         bring the platform to where the notice ends, and the question be asked again.",
    ),
];

/// Ids that come near a misspelt one, the nearest first; at most five.
pub fn near(id: &str) -> Vec<String> {
    let wanted: Vec<char> = id.to_ascii_lowercase().chars().take(MOST).collect();
    let wanted_text: String = wanted.iter().collect();
    let mut found: Vec<(usize, String)> = all()
        .iter()
        .filter_map(|about| {
            let name: Vec<char> = about.id.chars().collect();
            let distance = distance(&wanted, &name);
            let inside = !wanted_text.is_empty()
                && (about.id.contains(&wanted_text)
                    || about
                        .id
                        .replace(['.', '_'], "")
                        .contains(&wanted_text.replace(['.', '_', '-'], "")));
            // A part of the name is as good as two letters that are wrong.
            let distance = if inside { distance.min(2) } else { distance };
            (distance <= (name.len() / 3).max(3)).then(|| (distance, about.id.clone()))
        })
        .collect();
    found.sort();
    found.dedup();
    found.truncate(5);
    found.into_iter().map(|(_, id)| id).collect()
}

/// Longest id that is compared, characters.
const MOST: usize = 64;

/// Levenshtein's distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(x != y);
            left = replaced.min(left + 1).min(above + 1);
            next.push(left);
            diagonal = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_says_why_and_where() {
        for about in all() {
            for part in [&about.summary, &about.why, &about.source, &about.exit] {
                assert!(!part.trim().is_empty(), "{}", about.id);
            }
            let found = super::about(&about.id).expect("found by its own id");
            assert_eq!(found.id, about.id, "two entries of one id");
        }
        assert_eq!(super::about("attachment.3").unwrap().id, "attachment.*");
        assert_eq!(super::about("attachment.x"), None);
        assert_eq!(super::about("attachment"), None);
        assert_eq!(super::about("snp.policy.debugs"), None);
    }

    #[test]
    fn every_reason_is_used() {
        for (_, why) in WHY
            .iter()
            .filter(|(rule, _)| !rule.starts_with("tdx.") && !rule.starts_with('*'))
        {
            assert!(
                fixed_checks()
                    .iter()
                    .any(|check| super::why(check.id) == *why),
                "{why}"
            );
        }
    }

    #[test]
    fn misspelt_ids_have_neighbours() {
        assert_eq!(near("snp.polcy.debug")[0], "snp.policy.debug");
        assert_eq!(near("snp.policy.debug")[0], "snp.policy.debug");
        assert!(near("debug").contains(&"snp.policy.debug".to_owned()));
        assert!(near("reportdata").contains(&"evidence.report_data".to_owned()));
        assert!(near("SNP.POLICY.DEBUG").contains(&"snp.policy.debug".to_owned()));
        assert!(near("wholly unlike anything here").is_empty());
        assert!(near(&"x".repeat(100_000)).is_empty());
        assert!(near("").len() <= 5);
    }

    #[test]
    fn distances() {
        let d = |a: &str, b: &str| {
            distance(
                &a.chars().collect::<Vec<_>>(),
                &b.chars().collect::<Vec<_>>(),
            )
        };
        assert_eq!(d("kitten", "sitting"), 3);
        assert_eq!((d("", "abc"), d("abc", ""), d("abc", "abc")), (3, 3, 0));
    }

    #[test]
    fn advice_is_by_class() {
        let fail = |id, class| advice(id, Outcome::Fail, Some(class));
        assert!(fail("snp.tcb.launch", Class::Operations).contains("launch the guest anew"));
        assert!(fail("snp.vmpl", Class::Policy).contains("Find out by other means"));
        assert!(fail("snp.signature", Class::Tamper).contains("Believe nothing"));
        assert!(fail("snp.chain.crl", Class::Retry).contains("again"));
        assert!(advice("usage", Outcome::Fail, None).contains("Mend"));
        let open = advice("snp.tcb.launch", Outcome::NotEvaluated, Some(Class::Policy));
        assert!(open.contains("could not be looked at"));
    }
}
