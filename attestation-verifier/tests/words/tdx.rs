//! The same for TDX: explained out of its own tables, affirmed and contraindicated, turned by notices.

use attestation_verifier::ear::{Claim, ear};
use attestation_verifier::explain::explain;
use attestation_verifier::policy::{check_ids, template};
use attestation_verifier::{Policy, check};
use serde_json::{Value, json};
use touchstone_formats::Tee;
use touchstone_testkit::mint::{Exchange, World};
use touchstone_testkit::policy::edit;

use crate::regrade::{notice, turned, under};
use crate::support::{at, auditor};

/// The strict template with what this machine is expected to be.
fn policy(found: &[(&str, String)]) -> Policy {
    let mut changes = vec![
        (
            "nonce",
            "{ waive = \"judged by somebody who did not ask\" }",
        ),
        ("models", "{ waive = \"any\" }"),
    ];
    changes.extend(found.iter().map(|(id, value)| (*id, value.as_str())));
    Policy::parse(&edit(&template(Tee::Tdx), &changes)).expect("a policy that stands")
}

#[test]
fn tdx_is_explained_affirmed_and_regraded() {
    let world = World::tdx(1);
    let minted = world.mint(Exchange::json(1)).finish();
    let roots = attestation_verifier::Roots::pinned()
        .with_simulated_pem(world.root_pem().as_bytes())
        .unwrap();
    let judge = |policy: &Policy| check(&minted.file(), policy, &roots, &auditor(), at(&minted));
    // The template knows no software: what was found is put in, as somebody would who has established it.
    let strict = judge(&policy(&[]));
    assert_eq!(strict.exit(), 4, "{}", strict.words());
    let refusing = strict
        .checks
        .iter()
        .filter(|c| c.refuses() && c.id.starts_with("tdx."));
    let mut found: Vec<(&str, String)> = Vec::new();
    for check in refusing {
        let id = check_ids(Tee::Tdx)
            .iter()
            .find(|spec| spec.id == check.id)
            .expect("a check of policies")
            .id;
        if !found.iter().any(|(known, _)| *known == id) {
            found.push((id, format!("{{ expect = {} }}", check.found)));
        }
    }
    assert!(found.iter().any(|(id, _)| *id == "tdx.mrtd"), "{found:?}");
    let refused = explain(&strict);
    assert!(refused.checks[0].id.starts_with("tdx.") && refused.checks[0].advice.is_some());

    let policy = policy(&found);
    let mut verdict = judge(&policy);
    assert_eq!(verdict.exit(), 0, "{}", verdict.words());
    let explained = explain(&verdict);
    for spec in check_ids(Tee::Tdx) {
        let told = explained
            .checks
            .iter()
            .find(|told| told.id == spec.id)
            .expect(spec.id);
        assert_eq!(
            (told.why.as_str(), told.source.as_str()),
            (spec.why, spec.source)
        );
    }
    verdict.context.simulated = false;
    let appraisal = ear(&verdict)["submods"]["tdx"].clone();
    assert_eq!(
        appraisal["ear_trustworthiness_vector"]["runtime-opaque"],
        Claim::RuntimeOpaque.affirmed()
    );
    let mut debug = verdict.clone();
    let fault = attestation_verifier::Fault::Policy;
    debug
        .checks
        .fail("tdx.attributes.debug", fault, false, true, "debug");
    debug.conclusion = debug.checks.conclude(false, false);
    let appraisal = ear(&debug)["submods"]["tdx"].clone();
    assert_eq!(
        appraisal["ear_trustworthiness_vector"]["runtime-opaque"],
        96
    );
    assert_eq!(appraisal["ear_status"], "contraindicated");

    let platform = &verdict.context.platform;
    let module = platform["module"]["isvsvn"].as_u64().expect("isvsvn");
    let changes: [(&str, Value); 4] = [
        ("products", platform_list(&platform["fmspc"])),
        ("below", json!({ "tdx_module": module + 1 })),
        (
            "below",
            json!({ "pce_svn": platform["tcb"]["pce_svn"].as_u64().expect("pce_svn") + 1 }),
        ),
        ("statuses", platform_list(&platform["tcb"]["status"])),
    ];
    for (member, value) in changes {
        let mut fits = notice(None);
        fits["tee"] = json!("tdx");
        fits["products"] = json!(["any"]);
        fits["below"] = json!({});
        fits[member] = value;
        turned(&under(&minted, &fits, &policy, &roots));
    }
    let mut other = notice(None);
    other["tee"] = json!("tdx");
    other["products"] = json!(["any"]);
    other["below"] = json!({ "tdx_module": module });
    let stays = under(&minted, &other, &policy, &roots);
    assert_eq!(
        (stays.after.exit(), stays.notices.len()),
        (0, 0),
        "{}",
        stays.after.words()
    );
}

fn platform_list(value: &Value) -> Value {
    assert!(value.is_string(), "{value}");
    json!([value])
}
