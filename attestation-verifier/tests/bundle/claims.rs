//! What a receipt says, signed by the very key of the keyset.

use touchstone_formats::receipt::PaymentClaim;
use touchstone_formats::{Catalog, Digest, GuaranteeSet, Purpose};
use touchstone_testkit::mint::{Exchange, World};

use crate::support::{Case, all_refused, logged, quoted, world};

#[test]
fn honest_bundles_hold() {
    let world = world();
    for exchange in [
        Exchange::json(1),
        Exchange::binary(2),
        Exchange::json(3).requiring("signed"),
        Exchange::binary(4).requiring("quoted"),
        Exchange::json(5).requiring("logged quoted"),
    ] {
        let stated = exchange.require;
        let verdict = Case::new(&world, world.mint(exchange).finish())
            .policy(&world, &[("require", "[\"signed\"]")])
            .holds();
        assert_eq!(verdict.context.achieved, stated.names());
        assert_eq!(
            verdict.context.covers,
            ["request", "response", "inputs", "outputs", "nonce"]
        );
        assert!(verdict.context.simulated);
        let measurement = hex::encode(world.machine.report.measurement);
        assert_eq!(verdict.context.measurement, Some(measurement));
        let model = &verdict.context.model;
        assert_eq!(model["served_as"][0]["name"], "digits");
        assert_eq!(
            model["model_digest"],
            world.models[0].model_digest.to_string()
        );
    }
}

#[test]
fn every_place_in_the_log_holds() {
    let world = world();
    for (earlier, later) in [(0, 0), (0, 1), (1, 0), (6, 6), (30, 2), (300, 700)] {
        let minted = logged(&world).among(earlier, later).finish();
        Case::new(&world, minted).holds();
    }
}

#[test]
fn more_than_was_stated_is_achieved_where_it_is_proven() {
    // Every receipt is logged, whatever it asked for: the formula is achieved ⊇ stated ∪ demanded.
    let world = world();
    let minted = world
        .mint(Exchange::json(1).requiring("signed"))
        .sealed()
        .finish();
    let verdict = Case::new(&world, minted)
        .caller(|c| c.require = Some(GuaranteeSet::default_set()))
        .holds();
    assert_eq!(verdict.context.achieved, ["logged", "signed"]);
}

#[test]
fn lies_in_claims_are_refused() {
    all_refused(
        logged,
        &[
            ("another key", 3, "receipt.signature", |m| {
                m.receipt_seed([9; 32])
            }),
            ("another name", 3, "receipt.keyset", |m| {
                m.claims(|c| c.iss = "other".into())
            }),
            ("another keyset", 3, "receipt.keyset", |m| {
                m.claims(|c| c.keyset_digest = Digest::of(b"other"))
            }),
            ("before its keyset", 4, "keyset.lifetime", |m| {
                m.claims(|c| c.iat = World::AT - 3_601)
            }),
            ("from the future", 4, "receipt.clock", |m| {
                m.claims(|c| c.iat = World::AT + 301)
            }),
            ("somebody else's nonce", 4, "receipt.nonce", |m| {
                m.claims(|c| c.nonce = Some(vec![7; 32]))
            }),
            ("a nonce cut short", 4, "receipt.nonce", |m| {
                m.claims(|c| c.nonce.as_mut().unwrap().truncate(31))
            }),
            ("no nonce", 4, "receipt.nonce", |m| {
                m.claims(|c| c.nonce = None)
            }),
            ("another epoch", 3, "receipt.catalog", |m| {
                m.claims(|c| c.catalog.0 += 1)
            }),
            ("another catalog", 3, "receipt.catalog", |m| {
                m.claims(|c| c.catalog.1 = Digest::of(b"other"))
            }),
            ("a model outside the catalog", 3, "receipt.catalog", |m| {
                m.claims(|c| c.model_digest = Some(Digest::of(b"other")))
            }),
            (
                "a configuration outside the catalog",
                3,
                "receipt.catalog",
                |m| m.claims(|c| c.config_digest = Some(Digest::of(b"other"))),
            ),
            ("a catalog of another keyset", 3, "receipt.catalog", |m| {
                m.catalog(|c| c.keyset_digest = Digest::of(b"other"))
            }),
            ("a catalog without the model", 3, "receipt.catalog", |m| {
                m.catalog(|c| c.models.retain(|m| m.name != "digits"))
            }),
            ("a pair out of two models", 3, "receipt.catalog", |m| {
                m.catalog(|c| {
                    let other = c.models[1].config_digest;
                    c.models[0].config_digest = other;
                })
            }),
            ("a refusal", 2, "receipt.format", |m| {
                m.claims(|c| c.status = 503)
            }),
            ("quoted, without a quote", 4, "guarantees.stated", |m| {
                m.claims(|c| c.guarantees = GuaranteeSet::parse_words("logged quoted").unwrap())
            }),
            ("proven", 4, "guarantees.stated", |m| {
                m.claims(|c| c.guarantees = GuaranteeSet::parse_words("proven signed").unwrap())
            }),
            ("recomputed", 4, "guarantees.stated", |m| {
                m.claims(|c| c.guarantees = GuaranteeSet::parse_words("recomputed signed").unwrap())
            }),
            ("a receipt that is cut", 2, "receipt.format", |m| {
                m.bundle(|b| b.receipt.truncate(b.receipt.len() - 1))
            }),
            ("a receipt with a byte too many", 2, "receipt.format", |m| {
                m.bundle(|b| b.receipt.push(0))
            }),
            ("claims with a byte too many", 2, "receipt.format", |m| {
                m.payload(|p| p.push(0))
            }),
        ],
    );
}

#[test]
fn what_will_not_come_by_waiting_is_no_reason_to_retry() {
    let world = world();
    let class = |minted| {
        let verdict = Case::new(&world, minted).refused(4, "guarantees.stated");
        serde_json::to_value(&verdict).unwrap()["class"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(class(logged(&world).unsealed().finish()), "retry");
    assert_eq!(
        class(
            quoted(&world)
                .purposes(&[Purpose::Boot, Purpose::Checkpoint])
                .finish()
        ),
        "retry"
    );
    let proven = GuaranteeSet::parse_words("proven").unwrap();
    assert_eq!(
        class(logged(&world).claims(|c| c.guarantees = proven).finish()),
        "policy"
    );
}

#[test]
fn times_hold_to_the_second() {
    let world = world();
    let at = |iat: u64| Case::new(&world, logged(&world).claims(|c| c.iat = iat).finish());
    at(World::AT - 3_600).holds();
    at(World::AT - 3_601).refused(4, "keyset.lifetime");
    at(World::AT + 300).holds();
    at(World::AT + 301).refused(4, "receipt.clock");

    let fresh = |most: u64| {
        let rule = format!("{{ expect = {most} }}");
        at(World::AT - 100).policy(&world, &[("fresh_seconds", &rule)])
    };
    fresh(100).holds();
    fresh(99).refused(4, "receipt.fresh");
}

#[test]
fn keysets_that_ended_or_live_too_long_are_refused() {
    let with = |not_before: u64, not_after: u64| {
        let mut world = world();
        (world.keyset.not_before, world.keyset.not_after) = (not_before, not_after);
        Case::new(&world, logged(&world).finish())
    };
    let iat = World::AT - 5;
    with(iat, iat).holds();
    with(iat - 10, iat - 1).refused(4, "keyset.lifetime");
    with(iat + 1, iat + 10).refused(4, "keyset.lifetime");
    with(iat + 10, iat - 10).refused(4, "keyset.lifetime");
    with(iat, iat + 604_800).holds();
    with(iat, iat + 604_801).refused(4, "keyset.span");
}

#[test]
fn models_and_configurations_are_pinned_by_digest() {
    let world = world();
    let case = || Case::new(&world, logged(&world).finish());
    let pin = |digest: Digest| format!("{{ expect = [\"{digest}\"] }}");
    let (own, other) = (&world.models[0], &world.models[1]);
    case()
        .policy(&world, &[("models", &pin(own.model_digest))])
        .holds();
    case()
        .policy(&world, &[("models", &pin(other.model_digest))])
        .refused(4, "receipt.model");
    case()
        .policy(&world, &[("configs", &pin(own.config_digest))])
        .holds();
    case()
        .policy(&world, &[("configs", &pin(other.config_digest))])
        .refused(4, "receipt.config");
    let waived = "{ waive = \"any\", until = \"2020-01-01\" }";
    case()
        .policy(&world, &[("models", "{ waive = \"any\" }")])
        .holds();
    case()
        .policy(&world, &[("models", waived)])
        .refused(4, "receipt.model");
}

#[test]
fn found_can_be_copied_into_a_policy() {
    let world = world();
    let case = || Case::new(&world, logged(&world).finish());
    let wrong = format!("{{ expect = [\"{}\"] }}", Digest::ZERO);
    let verdict = case()
        .policy(&world, &[("models", &wrong)])
        .refused(4, "receipt.model");
    let found = &verdict.checks.find("receipt.model").unwrap().found;
    case()
        .policy(&world, &[("models", &format!("{{ expect = {found} }}"))])
        .holds();
}

#[test]
fn refusals_are_no_answers_unless_expected() {
    let world = world();
    let refusal = || Case::new(&world, world.mint(Exchange::refusal(1, 503)).finish());
    refusal().refused(4, "receipt.status");
    let verdict = refusal().caller(|c| c.expected_status = 503).holds();
    assert_eq!(verdict.context.model["status"], 503);
    refusal()
        .caller(|c| c.expected_status = 422)
        .refused(4, "receipt.status");
    let answer = Case::new(&world, logged(&world).finish());
    answer
        .clone()
        .caller(|c| c.expected_status = 503)
        .refused(4, "receipt.status");
    answer.holds();
    // A refusal that resolved no model says nothing about models.
    let unresolved = world.mint(Exchange::refusal(1, 404)).claims(|c| {
        c.model_digest = None;
        c.config_digest = None;
    });
    Case::new(&world, unresolved.finish())
        .caller(|c| c.expected_status = 404)
        .holds();
}

#[test]
fn payments_and_attachments_achieve_nothing_and_are_listed() {
    let world = world();
    let payment = PaymentClaim {
        mode: "bound".into(),
        payer: "0x1".into(),
        network: "eip155:8453".into(),
        asset: "0x2".into(),
        pay_to: "0x3".into(),
        amount: "1".into(),
        nonce: [1; 32],
        payload: Digest::of(b"payload"),
    };
    let attachment = touchstone_formats::Attachment::parse("{\"type\":\"voucher/1\"}").unwrap();
    let minted = logged(&world)
        .claims(|c| c.payment = Some(payment))
        .bundle(|b| b.attachments.push(attachment))
        .finish();
    let verdict = Case::new(&world, minted).holds();
    let json = serde_json::to_value(&verdict).unwrap();
    for id in ["receipt.payment", "attachment.0"] {
        let found = json["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["id"] == id);
        assert_eq!(found.expect(id)["result"], "not-evaluated");
    }
    assert_eq!(verdict.context.achieved, ["logged", "signed"]);
}

#[test]
fn catalogs_may_be_absent_and_may_be_of_any_epoch() {
    let world = world();
    let none = Case::new(&world, logged(&world).bundle(|b| b.catalog = None).finish()).holds();
    assert_eq!(none.context.model["served_as"], serde_json::json!([]));
    let later = |c: &mut Catalog| (c.epoch, c.previous) = (7, Digest::of(b"epoch 6"));
    Case::new(&world, logged(&world).catalog(later).finish()).holds();
}

#[test]
fn the_callers_demand_comes_from_the_caller() {
    let world = world();
    let demand = |words: &str| Some(GuaranteeSet::parse_words(words).unwrap());
    // A host that strips `require` from the request gets an honest receipt for less.
    let signed = || {
        let minted = world.mint(Exchange::json(1).requiring("signed")).finish();
        Case::new(&world, minted).policy(&world, &[("require", "[\"signed\"]")])
    };
    signed().holds();
    signed()
        .caller(|c| c.require = demand("logged"))
        .refused(4, "guarantees.required");
    let full = || Case::new(&world, logged(&world).finish());
    full()
        .caller(|c| c.require = demand("quoted"))
        .refused(4, "guarantees.required");
    full().caller(|c| c.require = None).holds();
    full()
        .policy(&world, &[("require", "[\"quoted\", \"signed\"]")])
        .refused(4, "guarantees.required");
    let all = Case::new(&world, quoted(&world).finish());
    all.caller(|c| c.require = demand("quoted logged")).holds();
}
