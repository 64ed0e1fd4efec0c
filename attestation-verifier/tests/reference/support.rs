//! A platform of either kind, a policy that leaves it to a manifest what may run there, a manifest, and the two assertions.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use attestation_verifier::manifest::{Accepted, Authentic};
use attestation_verifier::policy::template;
use attestation_verifier::{At, Comparison, Manifests, Policy, Roots, Verdict, Verifier};
use serde_json::{Value, json};
use touchstone_formats::text::base64_encode;
use touchstone_formats::{Attachment, Tee};
use touchstone_testkit::machine::{Machine, TdxMachine, TeeMachine};
use touchstone_testkit::mint::{Exchange, Mint, Minted, World};
use touchstone_testkit::policy::edit;

use crate::held::held;
use crate::signing::{Key, file, key, payload, signers, statement};

/// Alice, bob, carol, and somebody whom no policy names: the same in the whole process.
pub fn keys() -> &'static [Key; 4] {
    static KEYS: OnceLock<[Key; 4]> = OnceLock::new();
    KEYS.get_or_init(|| [key(), key(), key(), key()])
}

/// A machine whose software a manifest can list.
pub trait Listed: TeeMachine {
    /// What its evidence reports, as a manifest has it.
    fn measurement(&self) -> Value;
    /// The least TCB of a manifest that it just reaches.
    fn minimum() -> Value;
    /// How it binds its operating system.
    const BINDING: &'static str;
    /// The keys of a policy that a manifest stands for.
    const KEYS: &'static [&'static str];
    /// Another measurement of such a machine: this byte all over.
    fn other(byte: u8) -> Value;
}

fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(48)
}

impl Listed for Machine {
    fn measurement(&self) -> Value {
        json!({ "snp": { "measurement": hex::encode(self.report.measurement), "vcpus": 4, "cpu": "EPYC-Genoa",
                         "guest_features": "0x1" } })
    }

    fn minimum() -> Value {
        json!({ "Genoa": { "bootloader": 10, "tee": 0, "snp": 28, "microcode": 0x5a } })
    }

    const BINDING: &'static str = "launch-digest";
    const KEYS: &'static [&'static str] = &["snp.measurement"];

    fn other(byte: u8) -> Value {
        json!({ "snp": { "measurement": hex(byte), "vcpus": 4, "cpu": "EPYC-Genoa", "guest_features": "0x1" } })
    }
}

impl Listed for TdxMachine {
    fn measurement(&self) -> Value {
        let report = &self.report.report;
        let [rtmr0, rtmr1, rtmr2, _] = report.rtmr.map(hex::encode);
        json!({ "tdx": { "mrtd": hex::encode(report.mr_td), "rtmr0": [hex(0xee), rtmr0], "rtmr1": rtmr1, "rtmr2": rtmr2,
                         "page_add_order": "two-pass" } })
    }

    fn minimum() -> Value {
        json!({ "tcb_evaluation_data_number": EVALUATION })
    }

    const BINDING: &'static str = "rtmr";
    const KEYS: &'static [&'static str] = &["tdx.mrtd", "tdx.rtmr0", "tdx.rtmr1", "tdx.rtmr2"];

    fn other(byte: u8) -> Value {
        json!({ "tdx": { "mrtd": hex(byte), "rtmr0": [hex(byte)], "rtmr1": hex(byte), "rtmr2": hex(byte),
                         "page_add_order": "two-pass" } })
    }
}

/// One judgement in the making.
#[derive(Clone)]
pub struct Scene<M: TeeMachine> {
    pub world: World<M>,
    /// What the manifest says; signed by `signed_by`.
    pub predicate: Value,
    /// Places in [`keys`].
    pub signed_by: Vec<usize>,
    /// Whether the caller has that manifest.
    pub given: bool,
    /// Further files that he gives, after it.
    pub files: Vec<Vec<u8>>,
    pub known: Accepted,
    /// `threshold` and `minimum_version` of the policy.
    pub threshold: usize,
    pub minimum_version: u64,
    /// Changes of the policy.
    pub changes: Vec<(&'static str, String)>,
    pub attachments: Vec<String>,
    pub at: At,
}

/// Intel's evaluation that the test kit's collateral is of.
pub const EVALUATION: u64 = 30;

pub const NAME: &str = "touchstone-enclave";

impl<M: Listed> Scene<M> {
    /// What holds: alice and bob of three signed version 18.
    pub fn new() -> Scene<M> {
        let world = World::on(M::strict(World::AT), 1, World::AT);
        Scene {
            predicate: predicate(&world),
            signed_by: vec![0, 1],
            given: true,
            files: Vec::new(),
            known: Accepted::default(),
            threshold: 2,
            minimum_version: 12,
            changes: Vec::new(),
            attachments: Vec::new(),
            at: At {
                time: world.at,
                asserted: false,
            },
            world,
        }
    }

    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Scene<M>)) -> Scene<M> {
        change(&mut self);
        self
    }

    /// The first release's one platform.
    pub fn platform(&mut self) -> &mut Value {
        &mut self.predicate["releases"][0]["platforms"][0]
    }

    /// The manifest file.
    pub fn manifest(&self) -> Vec<u8> {
        self.signed(&self.predicate)
    }

    /// Another manifest by the same signers.
    pub fn signed(&self, predicate: &Value) -> Vec<u8> {
        let signers: Vec<&Key> = self.signed_by.iter().map(|n| &keys()[*n]).collect();
        file(&payload(&statement(predicate)), &signers)
    }

    pub fn policy_text(&self) -> String {
        let manifest = |key: &&'static str| (*key, "{ expect = \"manifest\" }".to_owned());
        let mut changes: Vec<(&str, String)> = M::KEYS.iter().map(manifest).collect();
        if M::TEE == Tee::Tdx {
            let values = self.world.machine.reference_values().into_iter();
            let rtmr3 = values.filter(|(key, _)| *key == "tdx.rtmr3");
            changes.extend(rtmr3.map(|(key, value)| (key, format!("{{ expect = {value:?} }}"))));
        }
        changes.extend(["models", "configs"].iter().map(manifest));
        changes.extend(self.changes.iter().cloned());
        let changes: Vec<(&str, &str)> = changes.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let mut text = template(M::TEE);
        for change in changes {
            text = edit(&text, &[change]);
        }
        text.replacen("\n[[platform]]", &(self.table() + "\n[[platform]]"), 1)
    }

    /// `[manifest]`.
    pub fn table(&self) -> String {
        let mut out = format!(
            "\n[manifest]\nname = {NAME:?}\nminimum_version = {}\nthreshold = {}\n",
            self.minimum_version, self.threshold
        );
        for (key, name) in keys().iter().zip(["alice", "bob", "carol"]) {
            let spki = base64_encode(&key.public.to_spki());
            out += &format!("[[manifest.signer]]\nname = {name:?}\nkey = {spki:?}\n");
        }
        out
    }

    pub fn policy(&self) -> Policy {
        Policy::parse(&self.policy_text()).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn roots(&self) -> Roots {
        Roots::pinned()
            .with_simulated_pem(self.world.root_pem().as_bytes())
            .unwrap()
    }

    pub fn manifests(&self) -> Manifests {
        let own = self.given.then(|| self.manifest());
        Manifests {
            files: own.into_iter().chain(self.files.clone()).collect(),
            known: self.known.clone(),
        }
    }

    /// A verifier that has seen nothing.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.policy(), self.roots()).with_manifests(&self.manifests())
    }

    pub fn mint(&self) -> Mint<'_, M> {
        let attachments = self.attachments.clone();
        let exchange = Exchange::json(1).requiring("logged quoted");
        self.world.mint(exchange).bundle(move |bundle| {
            let all = attachments.iter().map(|json| Attachment::parse(json));
            bundle.attachments = all.collect::<Result<_, _>>().unwrap();
        })
    }

    pub fn judge(&self) -> Verdict {
        self.judge_minted(&self.mint().finish())
    }

    /// Judges a bundle; and again by a verifier that has judged everything this process judged before under the same policy,
    /// by whatever manifests.
    pub fn judge_minted(&self, minted: &Minted) -> Verdict {
        static ALL: Mutex<Option<HashMap<String, Verifier>>> = Mutex::new(None);
        let (file, comparison) = (minted.file(), comparison(minted));
        let cold = self.verifier().check(&file, &comparison, self.at);
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Verifier::new(self.policy(), self.roots());
        let key = self.policy_text() + &self.world.root_pem();
        let warm = all.get_or_insert_default().entry(key).or_insert_with(make);
        warm.replace_manifests(&self.manifests());
        for _ in 0..3 {
            let again = warm.check(&file, &comparison, self.at);
            assert_eq!(again.to_json(), cold.to_json());
            assert_eq!(again, cold);
        }
        cold
    }

    #[track_caller]
    pub fn holds(&self) -> Verdict {
        let verdict = self.judge();
        let found = (verdict.exit(), verdict.deciding());
        assert_eq!(found, (0, None), "{}", verdict.words());
        verdict
    }

    #[track_caller]
    pub fn refused(&self, exit: u8, deciding: &str) -> Verdict {
        let verdict = self.judge();
        let found = (verdict.exit(), verdict.deciding());
        assert_eq!(found, (exit, Some(deciding)), "{}", verdict.words());
        // No word of a release where nothing may be relied on.
        assert!(
            !verdict.words().contains("software: "),
            "{}",
            verdict.words()
        );
        verdict
    }

    /// What of this scene's signers a caller has accepted: this manifest.
    pub fn accepted(&self, predicate: &Value) -> Accepted {
        let three = [&keys()[0], &keys()[1], &keys()[2]];
        let authentic = Authentic::read(&self.signed(predicate), &signers(&three, 1)).unwrap();
        let mut accepted = Accepted::default();
        assert_eq!(accepted.accept(&authentic), Ok(true));
        accepted
    }
}

/// What a caller of this exchange holds.
pub fn comparison(minted: &Minted) -> Comparison {
    held(&minted.exchange)
}

/// A release with this measurement.
pub fn release<M: Listed>(name: &str, measurement: Value) -> Value {
    let ingredient = |role: &str, byte: u8, origin: &str| {
        json!({ "role": role, "name": format!("{role}.bin"), "sha256": format!("{byte:02x}").repeat(32), "size": 1000,
                "origin": origin, "source": "https://example.com/src" })
    };
    json!({
        "release": name, "not_after": "2027-01-01T00:00:00Z",
        "platforms": [{
            "name": "qemu", "tee": M::TEE.name(), "vmm": "qemu", "os_binding": M::BINDING, "quote_source": "exclusive",
            "ingredients": [
                ingredient("firmware", 1, "rebuilt"), ingredient("kernel", 2, "rebuilt"), ingredient("initrd", 3, "rebuilt"),
                ingredient("cmdline", 4, "rebuilt"), ingredient("onnxruntime", 5, "pinned-binary"),
            ],
            "minimum_tcb": M::minimum(), "measurements": [measurement],
        }],
    })
}

/// 1.4.2 is what runs; an earlier release and the world's models are listed beside it.
fn predicate<M: Listed>(world: &World<M>) -> Value {
    let models = world.models.iter().map(|model| {
        json!({ "name": format!("{}-model", model.name), "version": model.version, "model_digest": model.model_digest,
                "config_digests": [model.config_digest] })
    });
    json!({
        "v": "touchstone/manifest/1", "name": NAME, "version": 18,
        "issued": "2026-09-01T00:00:00Z", "not_after": "2027-06-01T00:00:00Z",
        "releases": [release::<M>("1.4.2", world.machine.measurement()), release::<M>("1.4.1", M::other(0x41))],
        "models": models.collect::<Vec<_>>(),
    })
}

/// An attachment that is a manifest.
pub fn attached(file: &[u8]) -> String {
    let text = String::from_utf8(file.to_vec()).unwrap();
    json!({ "manifest": text, "type": "touchstone/manifest/1" }).to_string()
}
