//! What changed, and what of it asks for less.

use attestation_verifier::manifest::{Direction, Manifest, diff};
use serde_json::{Value, json};

use super::support::*;

fn changed(change: impl Fn(&mut Value)) -> Vec<(String, Direction, bool, bool)> {
    let draft =
        |predicate: &Value| Manifest::parse_draft(predicate.to_string().as_bytes()).unwrap();
    let mut second = predicate();
    change(&mut second);
    let found = diff(&draft(&predicate()), &draft(&second));
    let turned = diff(&draft(&second), &draft(&predicate()));
    assert_eq!(found.len(), turned.len(), "as many the other way");
    let found = found.into_iter();
    found
        .map(|c| (c.at, c.direction, c.before.is_some(), c.after.is_some()))
        .collect()
}

#[test]
fn every_difference_is_told_once_and_what_is_weaker_is_marked() {
    use Direction::{Other, Stricter, Weaker};
    assert_eq!(changed(|_| {}), []);
    let snp = "release 1.4.2, platform qemu-genoa";
    let tdx = "release 1.4.2, platform qemu-tdx";
    let cases: Vec<(&str, Value, String, Direction)> = vec![
        ("/version", json!(17), "version".into(), Weaker),
        ("/version", json!(19), "version".into(), Stricter),
        ("/name", json!("x"), "name".into(), Other),
        (
            "/not_after",
            json!("2028-06-01T00:00:00Z"),
            "not_after".into(),
            Other,
        ),
        (
            "/releases/0/platforms/0/minimum_tcb/Genoa/snp",
            json!(22),
            format!("{snp}, minimum_tcb, Genoa, snp"),
            Weaker,
        ),
        (
            "/releases/0/platforms/0/minimum_tcb/Genoa/microcode",
            json!(73),
            format!("{snp}, minimum_tcb, Genoa, microcode"),
            Stricter,
        ),
        (
            "/releases/0/platforms/1/minimum_tcb/tcb_evaluation_data_number",
            json!(16),
            format!("{tdx}, minimum_tcb, tcb_evaluation_data_number"),
            Weaker,
        ),
        (
            "/releases/0/platforms/0/os_binding",
            json!("none"),
            format!("{snp}, os_binding"),
            Weaker,
        ),
        (
            "/releases/0/platforms/0/quote_source",
            json!("shared-agent"),
            format!("{snp}, quote_source"),
            Weaker,
        ),
        (
            "/releases/0/platforms/1/quote_source",
            json!("exclusive"),
            format!("{tdx}, quote_source"),
            Stricter,
        ),
        (
            "/releases/0/platforms/0/ingredients/1/origin",
            json!("pinned-binary"),
            format!("{snp}, ingredient kernel"),
            Weaker,
        ),
        (
            "/releases/0/platforms/0/ingredients/1/sha256",
            json!("ff".repeat(32)),
            format!("{snp}, ingredient kernel"),
            Other,
        ),
        (
            "/releases/0/not_after",
            json!("2027-02-01T00:00:00Z"),
            "release 1.4.2, not_after".into(),
            Other,
        ),
        (
            "/models/0/model_digest",
            json!("ff".repeat(32)),
            "model fraud-score version 3, model_digest".into(),
            Other,
        ),
    ];
    for (pointer, value, at, direction) in cases {
        let found = changed(|p| *p.pointer_mut(pointer).unwrap() = value.clone());
        assert_eq!(found, [(at, direction, true, true)], "{pointer}");
    }
}

#[test]
fn what_came_and_what_went() {
    let went = |at: &str| (at.to_owned(), Direction::Other, true, false);
    let came = |at: &str| (at.to_owned(), Direction::Other, false, true);
    assert_eq!(
        changed(|p| p["releases"] = json!([])),
        [went("release 1.4.2")]
    );
    let found = changed(|p| p["releases"][0]["release"] = json!("1.4.3"));
    assert_eq!(found, [went("release 1.4.2"), came("release 1.4.3")]);
    let found = changed(|p| p["releases"][0]["platforms"][0]["name"] = json!("other"));
    let at = "release 1.4.2, platform";
    assert_eq!(
        found,
        [
            went(&format!("{at} qemu-genoa")),
            came(&format!("{at} other"))
        ]
    );
    let found = changed(|p| {
        let list = &mut p["releases"][0]["platforms"][0]["measurements"];
        list[0]["snp"]["measurement"] = json!("ee".repeat(48));
    });
    let at = "release 1.4.2, platform qemu-genoa, measurement";
    assert_eq!(found, [went(at), came(at)]);
    let found = changed(|p| p["models"][0]["version"] = json!("4"));
    assert_eq!(
        found,
        [
            went("model fraud-score version 3"),
            came("model fraud-score version 4")
        ]
    );
    let found = changed(|p| p["models"][0]["config_digests"] = json!([]));
    assert_eq!(found, [went("model fraud-score version 3, config_digest")]);
}
