//! Genuine things in the place of others.

use serde_json::Value;
use touchstone_formats::{Collateral, Evidence, jcs};

use super::fields::edited;
use super::mutant::{Kind, Mutant};
use super::subject::{Files, Slot, Subject};

/// Swaps within one thing, and between two if there is another.
pub fn mutants(subject: &Subject, other: Option<&Subject>) -> Vec<Mutant> {
    let mut all = Vec::new();
    quotes(subject, &mut all);
    within(subject, &mut all);
    if let Some(other) = other {
        between(subject, other, &mut all);
    }
    all
}

fn add(all: &mut Vec<Mutant>, place: &str, change: String, files: Option<Files>) {
    all.extend(files.map(|files| Mutant::new(Kind::Swap, place, change, files)));
}

/// The quote of one purpose in the evidence of another, and evidence under another's label.
fn quotes(subject: &Subject, all: &mut Vec<Mutant>) {
    let evidence = subject.all_evidence();
    for (slot, name, own) in &evidence {
        for (from, other_name, other) in &evidence {
            if from == slot || own.tee != other.tee {
                continue;
            }
            let quote = other.quote.clone();
            let files = subject.with_evidence(
                *slot,
                Evidence {
                    quote,
                    ..(*own).clone()
                },
            );
            add(all, name, format!("the quote of {other_name}"), files);
            let labelled = Evidence {
                purpose: own.purpose,
                ..(*other).clone()
            };
            let files = subject.with_evidence(*slot, labelled);
            add(
                all,
                name,
                format!("{other_name}, under this one's purpose"),
                files,
            );
        }
        if let Some(Collateral::SevSnp(snp)) = &own.collateral
            && let (Some(vek), Some(first)) = (&snp.vek, snp.chain.first())
        {
            let mut swapped = snp.clone();
            (swapped.vek, swapped.chain) = (Some(first.clone()), vec![vek.clone()]);
            let evidence = Evidence {
                collateral: Some(Collateral::SevSnp(swapped)),
                ..(*own).clone()
            };
            let files = subject.with_evidence(*slot, evidence);
            add(
                all,
                name,
                "VEK and chain certificate change places".into(),
                files,
            );
        }
        if let Some(Collateral::Tdx(tdx)) = &own.collateral {
            let (mut texts, mut lists) = (tdx.clone(), tdx.clone());
            std::mem::swap(
                &mut texts.tcb_info_signature,
                &mut texts.qe_identity_signature,
            );
            std::mem::swap(&mut lists.pck_crl, &mut lists.root_ca_crl);
            for (what, tdx) in [
                (
                    "signatures of TCB info and QE identity change places",
                    texts,
                ),
                ("the two revocation lists change places", lists),
            ] {
                let evidence = Evidence {
                    collateral: Some(Collateral::Tdx(tdx)),
                    ..(*own).clone()
                };
                let files = subject.with_evidence(*slot, evidence);
                add(all, name, what.into(), files);
            }
        }
    }
}

fn within(subject: &Subject, all: &mut Vec<Mutant>) {
    if let (Some(request), Some(response)) = (subject.file("request"), subject.file("response")) {
        let put = |to: &super::subject::Named, from: &super::subject::Named| {
            Some(Files::from([(to.path.clone(), from.bytes.clone())]))
        };
        add(
            all,
            "request",
            "the response".into(),
            put(request, response),
        );
        add(
            all,
            "response",
            "the request".into(),
            put(response, request),
        );
    }
    let Some(file) = &subject.bundle else { return };
    const ROLES: [&str; 4] = ["request", "response", "inputs", "outputs"];
    for (n, one) in ROLES.into_iter().enumerate() {
        for two in ROLES.into_iter().skip(n + 1) {
            let swapped = |json: &mut Value| {
                let openings = json.get_mut("openings")?.as_object_mut()?;
                let (a, b) = (openings.get(one)?.clone(), openings.get(two)?.clone());
                openings.insert(one.into(), b);
                openings.insert(two.into(), a);
                Some(())
            };
            let files = edited(subject, "bundle.json", swapped);
            add(
                all,
                "openings",
                format!("{one} and {two} change places"),
                files,
            );
        }
    }
    if let Some(proof) = &file.proof {
        for n in 1..proof.hashes.len() {
            let mut swapped = proof.clone();
            swapped.hashes.swap(n - 1, n);
            let files = subject.with_bundle(|b| b.proof = Some(swapped.to_string()));
            let what = format!("hashes {n} and {} change places", n + 1);
            add(all, "inclusion proof", what, files);
        }
    }
    let evidence = subject.all_evidence();
    let of_record = evidence.iter().find(|(slot, ..)| *slot == Slot::Session);
    if let Some((.., evidence)) = of_record {
        let files = subject.with_bundle(|b| {
            // A bundle has one object of each purpose.
            b.evidence.truncate(2);
            b.evidence.push((*evidence).clone());
        });
        add(
            all,
            "bundle.json",
            "evidence of the session beside the others".into(),
            files,
        );
    }
}

/// What is put in the place of a part of this answer.
const OTHER: &str = "that of another answer";

/// Parts of another genuine answer. What is the same in both, or says the same, is no swap.
fn between(subject: &Subject, other: &Subject, all: &mut Vec<Mutant>) {
    for (slot, name, own) in subject.all_evidence() {
        for (_, other_name, from) in other.all_evidence() {
            if name != other_name || own.tee != from.tee || own.purpose != from.purpose {
                continue;
            }
            let quote = from.quote.clone();
            let about_the_same =
                touchstone_formats::evidence::quote_report_data(own.tee, &own.quote)
                    == touchstone_formats::evidence::quote_report_data(from.tee, &from.quote);
            if about_the_same && subject.evidence.is_none() {
                continue;
            }
            let files = subject.with_evidence(
                slot,
                Evidence {
                    quote,
                    ..own.clone()
                },
            );
            // Two quotes of evidence alone are equally good; with each other's certificates of one chip, too.
            if subject.evidence.is_none() {
                add(all, &name, "the quote of another answer".into(), files);
                let files = subject.with_evidence(slot, from.clone());
                add(all, &name, "the evidence of another answer".into(), files);
            }
        }
    }
    for name in ["request", "response", "expect.json"] {
        if let (Some(own), Some(from)) = (subject.file(name), other.file(name)) {
            let files = Files::from([(own.path.clone(), from.bytes.clone())]);
            add(all, name, OTHER.into(), Some(files));
        }
    }
    // Two connections to one enclave are equally good for both answers.
    if let (Some((_, own)), Some((_, from))) = (&subject.session, &other.session)
        && own.keyset() != from.keyset()
    {
        let files = subject.with_session(|record| *record = from.clone());
        add(all, "session.json", OTHER.into(), files);
    }
    let (Some(own), Some(from)) = (&subject.bundle, &other.bundle) else {
        return;
    };
    let (own, from) = (&own.bundle, from.bundle.clone());
    let mut put = |place: &str, differs: bool, files: Option<Files>| {
        if differs {
            add(all, place, OTHER.into(), files);
        }
    };
    let bundle = subject.with_bundle(|b| *b = from.clone());
    put("bundle.json", subject.file("response").is_some(), bundle);
    let receipt = subject.with_bundle(|b| b.receipt.clone_from(&from.receipt));
    put("receipt", own.receipt != from.receipt, receipt);
    let keyset = subject.with_bundle(|b| b.keyset = from.keyset.clone());
    put("keyset", own.keyset != from.keyset, keyset);
    if from.proof.is_some() && own.proof.is_some() {
        let proof = subject.with_bundle(|b| b.proof.clone_from(&from.proof));
        put("inclusion proof", own.proof != from.proof, proof);
    }
    if from.catalog.is_some() && own.catalog.is_some() {
        let catalog = subject.with_bundle(|b| b.catalog.clone_from(&from.catalog));
        put("catalog", own.catalog != from.catalog, catalog);
    }
    let same = jcs::to_vec(&own.openings).ok() == jcs::to_vec(&from.openings).ok();
    let openings = subject.with_bundle(|b| b.openings = from.openings);
    put("openings", !same && !from.openings.is_empty(), openings);
}
