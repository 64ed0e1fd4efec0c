//! Bundles of a simulated machine, judged as an auditor does: the receipt alone.

use attestation_verifier::policy::template;
use attestation_verifier::{At, Comparison, Policy, Roots, Verdict, check};
use touchstone_formats::Tee;
use touchstone_testkit::mint::{Exchange, Mint, Minted, World};
use touchstone_testkit::policy::edit;

pub fn world() -> World {
    World::new(1)
}

/// The strict template that accepts this world, with changes.
pub fn policy(world: &World, changes: &[(&str, &str)]) -> Policy {
    let measurement = hex::encode(world.machine.report.measurement);
    let measurement = format!("{{ expect = [\"{measurement}\"] }}");
    let models = format!("{{ expect = [\"{}\"] }}", world.models[0].model_digest);
    let nonce = "{ waive = \"judged by somebody who did not ask\" }";
    // What comes last counts.
    let mut all = vec![
        ("snp.measurement", measurement.as_str()),
        ("models", models.as_str()),
        ("nonce", nonce),
    ];
    all.extend_from_slice(changes);
    Policy::parse(&edit(&template(Tee::SevSnp), &all)).expect("a policy that stands")
}

/// What the template waives, expected instead: this world's own values.
pub fn nothing_waived(world: &World) -> Policy {
    let report = &world.machine.report;
    let hexes = |bytes: &[u8]| format!("{{ expect = [\"{}\"] }}", hex::encode(bytes));
    let (chip, family, image) = (
        hexes(&report.chip_id),
        hexes(&report.family_id),
        hexes(&report.image_id),
    );
    let (id_key, author) = (
        hexes(&report.id_key_digest),
        hexes(&report.author_key_digest),
    );
    let none = "{ expect = \"0x0\" }";
    let config = format!("{{ expect = [\"{}\"] }}", world.models[0].config_digest);
    policy(
        world,
        &[
            ("snp.chip_id", &chip),
            ("snp.family_id", &family),
            ("snp.image_id", &image),
            ("snp.id_key_digest", &id_key),
            ("snp.author_key_digest", &author),
            ("snp.mitigation.launch", none),
            ("snp.mitigation.current", none),
            ("nonce", "{ expect = \"present\" }"),
            ("fresh_seconds", "{ expect = 600 }"),
            ("configs", &config),
            ("answers", "{ expect = [\"none\"] }"),
            ("name", "{ expect = [\"enclave.example\"] }"),
        ],
    )
}

pub fn roots(world: &World) -> Roots {
    Roots::pinned()
        .with_simulated_pem(world.root_pem().as_bytes())
        .unwrap()
}

pub fn auditor() -> Comparison {
    Comparison {
        receipt_only: true,
        expect_simulated: true,
        ..Comparison::default()
    }
}

pub fn at(minted: &Minted) -> At {
    At {
        time: minted.at,
        asserted: false,
    }
}

/// An exchange of this world after a change.
pub fn mint<'a>(world: &'a World, change: impl FnOnce(Mint<'a>) -> Mint<'a>) -> Minted {
    change(world.mint(Exchange::json(1))).finish()
}

pub fn judge(world: &World, minted: &Minted, policy: &Policy) -> Verdict {
    let mut comparison = auditor();
    comparison.nonce = minted.claims.nonce.clone();
    check(
        &minted.file(),
        policy,
        &roots(world),
        &comparison,
        at(minted),
    )
}
