//! Openings, the comparison with what the caller holds, and what a verdict covers.

use attestation_verifier::{At, Comparison};
use touchstone_formats::{Digest, Salt};
use touchstone_testkit::mint::{Exchange, World};

use crate::support::{Case, all_refused, logged, world};

#[test]
fn openings_reproduce_their_commitments() {
    fn bit(salt: &mut Salt) {
        salt[15] ^= 1;
    }
    all_refused(
        logged,
        &[
            ("request salt", 3, "opening.request", |m| {
                m.bundle(|b| bit(&mut b.openings.request.as_mut().unwrap().salt))
            }),
            ("response salt", 3, "opening.response", |m| {
                m.bundle(|b| bit(&mut b.openings.response.as_mut().unwrap().salt))
            }),
            ("inputs salt", 3, "opening.inputs", |m| {
                m.bundle(|b| bit(&mut b.openings.inputs.as_mut().unwrap().salt))
            }),
            ("outputs salt", 3, "opening.outputs", |m| {
                m.bundle(|b| bit(&mut b.openings.outputs.as_mut().unwrap().salt))
            }),
            ("outputs digest", 3, "opening.outputs", |m| {
                m.bundle(|b| b.openings.outputs.as_mut().unwrap().digest = Digest::ZERO)
            }),
            ("openings exchanged", 3, "opening.inputs", |m| {
                m.bundle(|b| std::mem::swap(&mut b.openings.inputs, &mut b.openings.outputs))
            }),
            ("request commitment", 3, "opening.request", |m| {
                m.claims(|c| c.request = Digest::ZERO)
            }),
            ("response commitment", 3, "opening.response", |m| {
                m.claims(|c| c.response = Digest::ZERO)
            }),
            ("inputs commitment", 3, "opening.inputs", |m| {
                m.claims(|c| c.inputs = Some(Digest::ZERO))
            }),
            ("outputs commitment", 3, "opening.outputs", |m| {
                m.claims(|c| c.outputs = Some(Digest::ZERO))
            }),
            ("no opening of the request", 4, "compare.request", |m| {
                m.bundle(|b| b.openings.request = None)
            }),
            ("no opening of the response", 4, "compare.response", |m| {
                m.bundle(|b| b.openings.response = None)
            }),
            ("no opening of the inputs", 4, "compare.inputs", |m| {
                m.bundle(|b| b.openings.inputs = None)
            }),
            ("no opening of the outputs", 4, "compare.outputs", |m| {
                m.bundle(|b| b.openings.outputs = None)
            }),
            ("no openings", 4, "compare.request", |m| {
                m.bundle(|b| b.openings = Default::default())
            }),
        ],
    );
}

/// A change to what the caller holds.
type Change = fn(&mut Comparison);

#[test]
fn what_the_caller_holds_has_to_be_what_was_committed_to() {
    let world = world();
    for exchange in [Exchange::json(1), Exchange::binary(2)] {
        let case = Case::new(&world, world.mint(exchange).finish());
        case.holds();
        let lies: &[(&str, Change)] = &[
            ("compare.request", |c| {
                c.request.as_mut().unwrap().method = "PUT".into()
            }),
            ("compare.request", |c| {
                c.request.as_mut().unwrap().target.push('/')
            }),
            ("compare.request", |c| {
                c.request.as_mut().unwrap().body[0] ^= 1
            }),
            ("compare.request", |c| {
                c.request.as_mut().unwrap().body.push(b' ')
            }),
            ("compare.request", |c| {
                c.request.as_mut().unwrap().header_length = Some(1)
            }),
            ("compare.request", |c| c.request_sha256 = Some(Digest::ZERO)),
            ("compare.response", |c| {
                c.response.as_mut().unwrap().status = 201
            }),
            ("compare.response", |c| {
                c.response.as_mut().unwrap().body.clear()
            }),
            ("compare.response", |c| {
                *c.response.as_mut().unwrap().body.last_mut().unwrap() ^= 1
            }),
            ("compare.response", |c| {
                c.response.as_mut().unwrap().header_length = Some(1)
            }),
            ("compare.inputs", |c| {
                c.inputs.as_mut().unwrap()[0].name.push('x')
            }),
            ("compare.inputs", |c| {
                c.inputs.as_mut().unwrap()[0].data[0] ^= 1
            }),
            ("compare.inputs", |c| {
                c.inputs.as_mut().unwrap()[0].shape = vec![4, 1]
            }),
            ("compare.inputs", |c| c.inputs.as_mut().unwrap().clear()),
            ("compare.outputs", |c| {
                c.outputs.as_mut().unwrap()[0].data[7] ^= 128
            }),
        ];
        for (deciding, lie) in lies {
            case.clone().caller(lie).refused(3, deciding);
        }
        let body = case.comparison.request.as_ref().unwrap().body.clone();
        case.caller(|c| c.request_sha256 = Some(Digest::of(&body)))
            .holds();
    }
}

#[test]
fn tensors_that_cannot_be_hashed_are_the_callers_mistake() {
    let world = world();
    let case = Case::new(&world, logged(&world).finish());
    case.holds();
    case.clone()
        .caller(|c| {
            let twice = c.inputs.as_ref().unwrap()[0].clone();
            c.inputs.as_mut().unwrap().push(twice);
        })
        .refused(1, "compare.inputs");
}

/// All 32 sets of things a caller may hold: the request and the answer, each as bytes or tensors, and
/// the nonce have to be compared, unless the receipt alone is judged.
#[test]
fn a_verdict_covers_exactly_what_was_compared() {
    let world = world();
    let case = Case::new(&world, logged(&world).finish());
    for set in 0u8..32 {
        let has = |n: u8| set >> n & 1 == 1;
        let part = case.clone().caller(|c| {
            c.request = c.request.take().filter(|_| has(0));
            c.response = c.response.take().filter(|_| has(1));
            c.inputs = c.inputs.take().filter(|_| has(2));
            c.outputs = c.outputs.take().filter(|_| has(3));
            c.nonce = c.nonce.take().filter(|_| has(4));
        });
        let all = ["request", "response", "inputs", "outputs", "nonce"];
        let covers: Vec<&str> = (0..5)
            .filter(|n| has(*n))
            .map(|n| all[usize::from(n)])
            .collect();
        let enough = (has(0) || has(2)) && (has(1) || has(3)) && has(4);
        let verdict = if enough {
            part.holds()
        } else {
            part.refused(4, "compare.coverage")
        };
        assert_eq!(verdict.context.covers, covers);
        let alone = part.caller(|c| c.receipt_only = true).holds();
        assert_eq!(
            alone.context.covers, covers,
            "what is held is compared all the same"
        );
    }
}

#[test]
fn the_receipt_alone_is_judged_without_openings_and_still_needs_a_nonce() {
    let world = world();
    let only = |c: &mut Comparison| {
        *c = Comparison {
            receipt_only: true,
            expect_simulated: true,
            ..Comparison::default()
        };
    };
    let bare = logged(&world)
        .bundle(|b| b.openings = Default::default())
        .finish();
    Case::new(&world, bare).caller(only).holds();
    let mut silent = Exchange::json(1);
    silent.nonce = None;
    let silent = || Case::new(&world, world.mint(silent.clone()).finish());
    silent().caller(only).refused(4, "receipt.nonce");
    silent()
        .policy(&world, &[("nonce", "{ waive = \"none sent\" }")])
        .caller(only)
        .holds();
    // A file that is given is compared also here.
    let case = Case::new(&world, logged(&world).finish()).caller(|c| c.receipt_only = true);
    case.clone()
        .caller(|c| c.response.as_mut().unwrap().body[0] ^= 1)
        .refused(3, "compare.response");
    case.holds();
}

#[test]
fn a_waived_nonce_is_compared_where_the_caller_gives_one() {
    let world = world();
    let waived = [("nonce", "{ waive = \"none sent\" }")];
    let case = || Case::new(&world, logged(&world).finish()).policy(&world, &waived);
    let verdict = case().caller(|c| c.nonce = None).holds();
    assert!(
        verdict
            .checks
            .iter()
            .any(|c| c.id == "receipt.nonce" && !c.refuses())
    );
    case().holds();
    case()
        .caller(|c| c.nonce = Some(vec![9; 32]))
        .refused(4, "receipt.nonce");
}

#[test]
fn an_asserted_time_is_said_to_be_one() {
    const SENTENCE: &str = "time asserted by you; a key broken since could have made this";
    let world = world();
    let mut case = Case::new(&world, logged(&world).finish());
    let json = |case: &Case| serde_json::to_value(case.holds()).unwrap();
    let says = |json: &serde_json::Value| {
        json["residual_risks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|r| r == SENTENCE)
    };
    let clock = json(&case);
    assert_eq!(
        (clock["time_vouched_by"].as_str(), says(&clock)),
        (Some("clock"), false)
    );
    case.at = At {
        time: World::AT,
        asserted: true,
    };
    let caller = json(&case);
    assert_eq!(
        (caller["time_vouched_by"].as_str(), says(&caller)),
        (Some("caller"), true)
    );
}

#[test]
fn the_same_input_gives_the_same_verdict() {
    let world = world();
    let case = Case::new(&world, logged(&world).finish());
    assert_eq!(case.judge().to_json(), case.judge().to_json());
}
