//! Worlds, policies and the two assertions: what holds, and what is refused by which check.

use crate::held::held;
use crate::warm;
use attestation_verifier::exchange::OwnedTensor;
use attestation_verifier::policy::template;
use attestation_verifier::{At, Comparison, Policy, Roots, Verdict, check};
use touchstone_formats::Tee;
use touchstone_testkit::mint::{Exchange, Mint, Minted, Tensor, World};

/// The strict template with this world's software and models, and changes: (key, value as TOML).
pub fn policy_text(world: &World, changes: &[(&str, &str)]) -> String {
    let measurement = format!(
        "{{ expect = [\"{}\"] }}",
        hex::encode(world.machine.report.measurement)
    );
    let models: Vec<String> = world
        .models
        .iter()
        .map(|m| format!("\"{}\"", m.model_digest))
        .collect();
    let models = format!("{{ expect = [{}] }}", models.join(", "));
    let mut all = vec![
        ("snp.measurement", measurement.as_str()),
        ("models", models.as_str()),
    ];
    all.extend_from_slice(changes);
    let mut text = template(Tee::SevSnp);
    for (key, value) in all {
        text = replaced(&text, key, value);
    }
    text
}

fn replaced(text: &str, key: &str, value: &str) -> String {
    let mut found = 0;
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let name = line.split(" = ").next().unwrap_or_default();
            if name.trim_matches('"') != key {
                return line.to_owned();
            }
            found += 1;
            format!("{name} = {value}")
        })
        .collect();
    assert_eq!(found, 1, "one line for {key} in the template");
    lines.join("\n") + "\n"
}

/// One judgement in the making: everything that `check` takes.
#[derive(Clone)]
pub struct Case {
    pub minted: Minted,
    pub file: Vec<u8>,
    pub policy: String,
    pub comparison: Comparison,
    pub roots: Roots,
    pub at: At,
}

impl Case {
    /// The caller holds everything about the exchange, and expects the simulated platform.
    pub fn new(world: &World, minted: Minted) -> Case {
        let roots = Roots::pinned()
            .with_simulated_pem(minted.root_pem.as_bytes())
            .unwrap();
        Case {
            file: minted.file(),
            policy: policy_text(world, &[]),
            comparison: comparison(&minted.exchange),
            roots,
            at: At {
                time: minted.at,
                asserted: false,
            },
            minted,
        }
    }

    /// The same case with another policy.
    pub fn policy(mut self, world: &World, changes: &[(&str, &str)]) -> Case {
        self.policy = policy_text(world, changes);
        self
    }

    /// The same case for a caller who holds other things.
    pub fn caller(mut self, change: impl FnOnce(&mut Comparison)) -> Case {
        change(&mut self.comparison);
        self
    }

    /// The same case with other bytes in the bundle file.
    pub fn file(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Case {
        change(&mut self.file);
        self
    }

    pub fn judge(&self) -> Verdict {
        let policy = Policy::parse(&self.policy).expect("a policy that stands");
        let verdict = check(&self.file, &policy, &self.roots, &self.comparison, self.at);
        warm::alike(&verdict, &policy, &self.roots, |verifier| {
            verifier.check(&self.file, &self.comparison, self.at)
        });
        verdict
    }

    /// It holds; returns the verdict.
    #[track_caller]
    pub fn holds(&self) -> Verdict {
        let verdict = self.judge();
        assert_eq!(
            (verdict.exit(), verdict.deciding()),
            (0, None),
            "{}",
            verdict.words()
        );
        verdict
    }

    /// It is refused with this exit code, and this check decides; returns the verdict.
    #[track_caller]
    pub fn refused(&self, exit: u8, deciding: &str) -> Verdict {
        let verdict = self.judge();
        let found = (verdict.exit(), verdict.deciding());
        assert_eq!(found, (exit, Some(deciding)), "{}", verdict.words());
        verdict
    }
}

/// What a caller of this exchange holds.
pub fn comparison(exchange: &Exchange) -> Comparison {
    Comparison {
        inputs: (!exchange.refused()).then(|| owned(&exchange.inputs)),
        outputs: (!exchange.refused()).then(|| owned(&exchange.outputs)),
        ..held(exchange)
    }
}

fn owned(tensors: &[Tensor]) -> Vec<OwnedTensor> {
    let owned = |t: &Tensor| OwnedTensor {
        name: t.name.clone(),
        datatype: t.datatype,
        shape: t.shape.clone(),
        data: t.data.clone(),
    };
    tensors.iter().map(owned).collect()
}

/// A world, the same keys in the whole process.
pub fn world() -> World {
    World::new(1)
}

/// An honest exchange for `logged signed`.
pub fn logged(world: &World) -> Mint<'_> {
    world.mint(Exchange::json(1))
}

/// An honest exchange for `logged quoted signed`: all three evidence objects.
pub fn quoted(world: &World) -> Mint<'_> {
    world.mint(Exchange::json(1).requiring("logged quoted"))
}

/// A change to a bundle in the making that captures nothing.
pub type Lie = for<'a> fn(Mint<'a>) -> Mint<'a>;

/// The honest case holds, and every lie about it is refused with its exit code by its check.
#[track_caller]
pub fn all_refused(honest: impl for<'a> Fn(&'a World) -> Mint<'a>, lies: &[(&str, u8, &str, Lie)]) {
    let world = world();
    Case::new(&world, honest(&world).finish()).holds();
    for (name, exit, deciding, lie) in lies {
        let verdict = Case::new(&world, lie(honest(&world)).finish()).judge();
        let found = (verdict.exit(), verdict.deciding());
        assert_eq!(
            found,
            (*exit, Some(*deciding)),
            "{name}\n{}",
            verdict.words()
        );
    }
}
