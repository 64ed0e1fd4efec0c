//! What is judged: one platform of each kind with many quotes, and bundles that share one checkpoint.

use anyhow::{Context, Result, ensure};
use attestation_verifier::{At, Comparison, Policy, Roots};
use touchstone_formats::merkle::{EntryKind, entry, leaf_hash};
use touchstone_formats::report_data::{bind_boot, bind_checkpoint, report_data as bound};
use touchstone_formats::{Bundle, Checkpoint, Digest, Evidence, Purpose, Tee};
use touchstone_testkit::machine::{Machine, TeeMachine};
use touchstone_testkit::mint::{Exchange, World, inclusion_path, sign_note, tree_root};
use touchstone_testkit::policy::edit;

/// As the verifier's own tests have it.
#[path = "../../../../attestation-verifier/tests/common/held.rs"]
mod held;
use held::held;

/// Quotes of one platform.
const QUOTES: usize = 192;

/// A platform, and what judges it.
pub struct Scene<M: TeeMachine> {
    pub world: World<M>,
    /// Of the same platform, each over [`report_data`] of its place.
    pub evidence: Vec<Evidence>,
    pub policy: Policy,
    pub roots: Roots,
    pub at: At,
}

/// What the quote at this place is over.
pub fn report_data(n: usize) -> [u8; 64] {
    let mut data = [0; 64];
    data[..8].copy_from_slice(&(n as u64).to_le_bytes());
    data
}

impl<M: TeeMachine> Scene<M> {
    /// The strict template with this platform's software, and no event log.
    pub fn new() -> Result<Scene<M>> {
        let world = World::on(M::strict(World::AT), 1, World::AT);
        let collateral = M::evidence_collateral(world.machine.attached());
        let mut evidence: Vec<Evidence> = (0..QUOTES)
            .map(|n| Evidence {
                purpose: None,
                nonce: None,
                tee: M::TEE,
                quote: world.machine.quote(report_data(n)),
                collateral: Some(collateral.clone()),
                event_log: world.machine.event_log(),
            })
            .collect();
        if M::TEE == Tee::Tdx {
            one_quoting_enclave(&mut evidence)?;
        }
        let (policy, roots) = judged_by(&world)?;
        Ok(Scene {
            evidence,
            policy,
            roots,
            at: at(&world),
            world,
        })
    }
}

/// A quoting enclave makes its key, and the report about it, once; the test kit's signs it anew for every quote. All get
/// the first one's.
fn one_quoting_enclave(evidence: &mut [Evidence]) -> Result<()> {
    // Header, body type and size, body, size, signature, key.
    const CERTIFICATION: usize = 48 + 6 + 648 + 4 + 64 + 64;
    let first = evidence.first().context("a quote")?.quote.clone();
    ensure!(first.get(..2) == Some(&[5, 0]), "a quote of version 5");
    let end = first.get(CERTIFICATION..).context("a quote")?;
    for evidence in evidence {
        evidence.quote.truncate(CERTIFICATION);
        evidence.quote.extend_from_slice(end);
    }
    Ok(())
}

fn at<M>(world: &World<M>) -> At {
    At {
        time: world.at,
        asserted: false,
    }
}

/// The strict template with this world's software and models, and its root.
fn judged_by<M: TeeMachine>(world: &World<M>) -> Result<(Policy, Roots)> {
    let models = world.models.iter().map(|m| m.model_digest.to_string());
    let models: Vec<String> = models.collect();
    let mut changes = vec![("models", format!("{{ expect = {models:?} }}"))];
    for (key, value) in world.machine.reference_values() {
        changes.push((key, format!("{{ expect = [{value:?}] }}")));
    }
    let changes: Vec<(&str, &str)> = changes.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let template = attestation_verifier::policy::template(M::TEE);
    let policy = Policy::parse(&edit(&template, &changes))?;
    let roots = Roots::pinned().with_simulated_pem(world.root_pem().as_bytes())?;
    Ok((policy, roots))
}

/// Bundles whose receipts stand in one log, under one checkpoint that was quoted once.
pub struct Bundles {
    pub files: Vec<Vec<u8>>,
    pub held: Vec<Comparison>,
    /// Boot and checkpoint evidence, with what each is over and its purpose.
    pub evidence: Vec<(Evidence, [u8; 64], &'static str)>,
    pub policy: Policy,
    pub roots: Roots,
    pub at: At,
}

impl Bundles {
    /// So many, on a SEV-SNP machine.
    pub fn new(count: usize) -> Result<Bundles> {
        let world: World<Machine> = World::new(1);
        let minted: Vec<_> = (0..count as u64)
            .map(|n| {
                world
                    .mint(Exchange::json(n))
                    .unsealed()
                    .among(n, 0)
                    .finish()
            })
            .collect();
        let mut entries = vec![
            entry(EntryKind::Boot, world.keyset.digest()),
            entry(EntryKind::Catalog, world.catalog().digest()),
        ];
        entries.extend(
            minted
                .iter()
                .map(|m| entry(EntryKind::Receipt, Digest::of(&m.bundle.receipt))),
        );
        let leaves: Vec<Digest> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let origin = world.keyset.log.name.clone();
        let text = Checkpoint {
            origin: origin.clone(),
            size: leaves.len() as u64,
            root: tree_root(&leaves),
        }
        .text();
        let note = sign_note(&world.log_seed, &origin, &text);
        let binds = [
            (Purpose::Boot, bind_boot()),
            (Purpose::Checkpoint, bind_checkpoint(&text)),
        ];
        let evidence = binds.map(|(purpose, bind)| {
            let expected = bound(purpose, world.keyset.digest(), None, bind);
            (
                world.evidence(purpose, None, bind),
                expected,
                purpose.name(),
            )
        });
        let mut bundles = Bundles {
            files: Vec::new(),
            held: Vec::new(),
            evidence: evidence.to_vec(),
            policy: judged_by(&world)?.0,
            roots: judged_by(&world)?.1,
            at: at(&world),
        };
        for (n, minted) in minted.into_iter().enumerate() {
            let index = n + 2;
            let hashes: String = inclusion_path(index, &leaves)
                .iter()
                .map(|hash| touchstone_formats::text::base64_encode(&hash.0) + "\n")
                .collect();
            let bundle = Bundle {
                proof: Some(format!(
                    "c2sp.org/tlog-proof@v1\nindex {index}\n{hashes}\n{note}"
                )),
                evidence: evidence.iter().map(|(e, ..)| e.clone()).collect(),
                ..minted.bundle
            };
            bundles.files.push(bundle.to_file());
            bundles.held.push(held(&minted.exchange));
        }
        Ok(bundles)
    }
}
