//! Genuine parts of two genuine bundles, put together.

use touchstone_formats::Bundle;
use touchstone_testkit::mint::{Exchange, World};

use crate::support::{Case, world};

/// Takes one part out of another bundle.
type Swap = fn(&mut Bundle, &Bundle);

const PARTS: [(&str, Swap); 6] = [
    ("receipt", |to, from| to.receipt = from.receipt.clone()),
    ("keyset", |to, from| to.keyset = from.keyset.clone()),
    ("evidence", |to, from| to.evidence = from.evidence.clone()),
    ("proof", |to, from| to.proof = from.proof.clone()),
    ("catalog", |to, from| to.catalog = from.catalog.clone()),
    ("openings", |to, from| to.openings = from.openings),
];

fn refused_all(to: &World, from: &World, skip: &[&str], expected: &[(&str, &str)]) {
    let quoted = |world: &World, n| {
        world
            .mint(Exchange::json(n).requiring("logged quoted"))
            .among(n, 2)
            .finish()
    };
    let (mine, other) = (quoted(to, 1), quoted(from, 2));
    Case::new(to, mine.clone()).holds();
    Case::new(from, other.clone()).holds();
    for (part, swap) in PARTS {
        let mut minted = mine.clone();
        swap(&mut minted.bundle, &other.bundle);
        let case = Case::new(to, minted);
        if skip.contains(&part) {
            case.holds();
            continue;
        }
        let deciding = expected.iter().find(|(p, _)| *p == part).expect(part).1;
        case.refused(3, deciding);
    }
}

#[test]
fn parts_of_another_answer_of_the_same_enclave() {
    let world = world();
    refused_all(
        &world,
        &world,
        &["keyset", "catalog"],
        &[
            ("receipt", "evidence.nonce"),
            ("evidence", "evidence.report_data"),
            ("proof", "evidence.report_data"),
            ("openings", "opening.request"),
        ],
    );
}

#[test]
fn parts_of_another_enclave() {
    refused_all(
        &world(),
        &World::new(2),
        &[],
        &[
            ("receipt", "receipt.signature"),
            ("keyset", "receipt.signature"),
            ("evidence", "evidence.report_data"),
            ("proof", "evidence.report_data"),
            ("catalog", "receipt.catalog"),
            ("openings", "opening.request"),
        ],
    );
}
