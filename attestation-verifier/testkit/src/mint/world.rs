//! From a world and an exchange to a bundle.

use std::io;
use std::path::Path;

use serde_json::json;
use touchstone_formats::config::config_digest;
use touchstone_formats::merkle::{EntryKind, entry, leaf_hash};
use touchstone_formats::report_data::{bind_boot, bind_checkpoint, bind_receipt, report_data};
use touchstone_formats::text::base64_encode;
use touchstone_formats::{
    Bundle, Catalog, CatalogModel, Checkpoint, Claims, Digest, Evidence, Guarantee, Keyset,
    LogSigner, ModelFile, ModelManifest, Purpose, ReceiptKey, ReceiptSigner, Role,
};

use super::derive;
use super::exchange::Exchange;
use super::log::{inclusion_path, payload_of, sign_cose, sign_note, tree_root};
use crate::machine::{Machine, TdxMachine, TeeMachine};

/// What exists before anything is asked. Every field may be changed; what is minted follows.
#[derive(Clone, Debug)]
pub struct World<M = Machine> {
    /// The moment at which all of this is judged, Unix seconds. Receipts are five seconds older.
    pub at: u64,
    /// The machine the enclave runs on.
    pub machine: M,
    /// Seed of the receipt key.
    pub receipt_seed: [u8; 32],
    /// Seed of the log key.
    pub log_seed: [u8; 32],
    /// The keyset. Its keys belong to the seeds unless a test says otherwise.
    pub keyset: Keyset,
    /// The models of the catalog; the first one answers.
    pub models: Vec<CatalogModel>,
}

impl World {
    /// The moment at which [`World::new`]'s worlds are judged.
    pub const AT: u64 = 1_790_000_000;

    /// An enclave on a simulated Genoa with reports of version 5, at [`World::AT`].
    pub fn new(seed: u64) -> Self {
        Self::on(Machine::strict(Self::AT), seed, Self::AT)
    }
}

impl World<TdxMachine> {
    /// An enclave on a simulated TDX machine with quotes of version 5, at [`World::AT`].
    pub fn tdx(seed: u64) -> Self {
        Self::on(TdxMachine::strict(World::AT), seed, World::AT)
    }
}

impl<M: TeeMachine> World<M> {
    /// An enclave on this machine.
    pub fn on(machine: M, seed: u64, at: u64) -> Self {
        let receipt_seed = derive(seed, "receipt key");
        let log_seed = derive(seed, "log key");
        let receipt_key = ReceiptSigner::from_seed(&receipt_seed)
            .expect("a seed")
            .public_key();
        let log = LogSigner::from_seed(&log_seed, "enclave.example/log")
            .expect("a seed and a prefix")
            .log_key();
        let keyset = Keyset {
            name: "enclave.example".into(),
            previous: None,
            not_before: at - 3_600,
            not_after: at - 3_600 + 86_400,
            receipt_key: ReceiptKey(receipt_key),
            log,
            tls_spki_sha256: None,
            ohttp_keys: None,
            software: Digest(derive(0, "build statement")),
            config: Digest(derive(0, "configuration")),
        };
        let models = vec![model("digits", "1"), model("wine", "3")];
        Self {
            at,
            machine,
            receipt_seed,
            log_seed,
            keyset,
            models,
        }
    }

    /// What a verifier of this world must be told: the simulated root.
    pub fn root_pem(&self) -> String {
        self.machine.root_pem()
    }

    /// The first catalog under the keyset.
    pub fn catalog(&self) -> Catalog {
        Catalog {
            keyset_digest: self.keyset.digest(),
            epoch: 0,
            previous: Digest::ZERO,
            models: self.models.clone(),
        }
    }

    /// An honest exchange, number 1, in JSON, and its bundle.
    pub fn exchange(&self) -> Minted {
        self.mint(Exchange::json(1)).finish()
    }

    /// An evidence object: a quote of this machine with collateral.
    pub fn evidence(&self, purpose: Purpose, nonce: Option<Vec<u8>>, bind: Digest) -> Evidence {
        let data = report_data(purpose, self.keyset.digest(), nonce.as_deref(), bind);
        self.attach(
            purpose,
            nonce,
            self.machine.quote(data),
            self.machine.attached(),
        )
    }

    /// An evidence object over this quote.
    fn attach(
        &self,
        purpose: Purpose,
        nonce: Option<Vec<u8>>,
        quote: Vec<u8>,
        collateral: M::Collateral,
    ) -> Evidence {
        Evidence {
            purpose: Some(purpose),
            nonce,
            tee: M::TEE,
            quote,
            collateral: Some(M::evidence_collateral(collateral)),
            event_log: self.machine.event_log(),
        }
    }

    /// Starts a bundle for this exchange.
    pub fn mint(&self, exchange: Exchange) -> Mint<'_, M> {
        Mint::new(self, exchange)
    }
}

/// A change to an ingredient.
type Hook<'a, T> = Option<Box<dyn FnOnce(&mut T) + 'a>>;

/// A change to an ingredient that each evidence object has.
type EachHook<'a, T> = Option<Box<dyn FnMut(Purpose, &mut T) + 'a>>;

/// A bundle in the making. Each method registers a change to one ingredient, made before whatever depends on that ingredient is
/// signed; the order of the calls does not matter.
pub struct Mint<'a, M: TeeMachine = Machine> {
    world: &'a World<M>,
    exchange: Exchange,
    purposes: Option<Vec<Purpose>>,
    sealed: bool,
    earlier: u64,
    later: u64,
    receipt_seed: [u8; 32],
    log_seed: [u8; 32],
    catalog: Hook<'a, Catalog>,
    claims: Hook<'a, Claims>,
    payload: Hook<'a, Vec<u8>>,
    entries: Hook<'a, Vec<Vec<u8>>>,
    index: Hook<'a, u64>,
    path: Hook<'a, Vec<Digest>>,
    checkpoint: Hook<'a, Checkpoint>,
    note_text: Hook<'a, String>,
    note: Hook<'a, String>,
    report: EachHook<'a, M::Report>,
    collateral: EachHook<'a, M::Collateral>,
    evidence: Hook<'a, Vec<Evidence>>,
    bundle: Hook<'a, Bundle>,
}

/// Methods that take a change and keep it for later.
macro_rules! hooks {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, change: impl FnOnce(&mut $type) + 'a) -> Self {
            self.$name = Some(Box::new(change));
            self
        })*
    };
}

impl<'a, M: TeeMachine> Mint<'a, M> {
    fn new(world: &'a World<M>, exchange: Exchange) -> Self {
        Self {
            world,
            sealed: exchange.require.contains(Guarantee::Logged),
            exchange,
            purposes: None,
            earlier: 3,
            later: 2,
            receipt_seed: world.receipt_seed,
            log_seed: world.log_seed,
            catalog: None,
            claims: None,
            payload: None,
            entries: None,
            index: None,
            path: None,
            checkpoint: None,
            note_text: None,
            note: None,
            report: None,
            collateral: None,
            evidence: None,
            bundle: None,
        }
    }

    hooks! {
        /// The catalog in force; its digest is in the receipt and in the log.
        catalog: Catalog;
        /// What the receipt says, before it is signed.
        claims: Claims;
        /// The CBOR of the claims, before it is signed: for encodings that no claims have.
        payload: Vec<u8>;
        /// The log's entries, before the tree is made.
        entries: Vec<Vec<u8>>;
        /// The index that the proof names; path and leaf stay where they were.
        index: u64;
        /// The hashes of the proof.
        path: Vec<Digest>;
        /// The checkpoint, before it is signed and quoted.
        checkpoint: Checkpoint;
        /// The checkpoint's text, before it is signed and quoted: for forms that no checkpoint has.
        note_text: String;
        /// The signed note; the quote is over the text that was signed.
        note: String;
        /// The evidence objects, after everything in them is signed.
        evidence: Vec<Evidence>;
        /// The finished bundle.
        bundle: Bundle;
    }

    /// Every report (SEV-SNP) or quote (TDX), before it is signed (its REPORT_DATA included).
    #[must_use]
    pub fn report(mut self, change: impl FnMut(Purpose, &mut M::Report) + 'a) -> Self {
        self.report = Some(Box::new(change));
        self
    }

    /// The collateral of every evidence object.
    #[must_use]
    pub fn collateral(mut self, change: impl FnMut(Purpose, &mut M::Collateral) + 'a) -> Self {
        self.collateral = Some(Box::new(change));
        self
    }

    /// Which evidence objects there are. Without this: `boot`, `checkpoint` when sealed, `receipt` when `quoted` is asked for.
    #[must_use]
    pub fn purposes(mut self, purposes: &[Purpose]) -> Self {
        self.purposes = Some(purposes.to_vec());
        self
    }

    /// Before the seal: no proof, no evidence of the checkpoint.
    #[must_use]
    pub fn unsealed(mut self) -> Self {
        self.sealed = false;
        self
    }

    /// With a seal although `logged` is not asked for.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.sealed = true;
        self
    }

    /// How many receipts stand before (so many is the sequence number) and after this one in the log.
    #[must_use]
    pub fn among(mut self, earlier: u64, later: u64) -> Self {
        (self.earlier, self.later) = (earlier, later);
        self
    }

    /// Signs the receipt with another key than the keyset's.
    #[must_use]
    pub fn receipt_seed(mut self, seed: [u8; 32]) -> Self {
        self.receipt_seed = seed;
        self
    }

    /// Signs the checkpoint with another key than the keyset's, under the keyset's log name.
    #[must_use]
    pub fn log_seed(mut self, seed: [u8; 32]) -> Self {
        self.log_seed = seed;
        self
    }

    /// Signs everything, in order.
    pub fn finish(mut self) -> Minted {
        let world = self.world;
        let mut catalog = world.catalog();
        apply(self.catalog.take(), &mut catalog);
        let mut claims = honest_claims(world, &self.exchange, &catalog, self.earlier);
        apply(self.claims.take(), &mut claims);
        let signed = ReceiptSigner::from_seed(&self.receipt_seed)
            .expect("a seed")
            .sign(&claims);
        let mut payload = payload_of(&signed).to_vec();
        apply(self.payload.take(), &mut payload);
        let receipt = sign_cose(&self.receipt_seed, &payload);

        let seal = self.sealed.then(|| self.seal(&catalog, &receipt));
        let evidence = self.evidence_over(&receipt, seal.as_ref().map(|s| s.text.as_str()));
        let mut bundle = Bundle {
            receipt,
            keyset: world.keyset.clone(),
            evidence,
            proof: seal.map(|s| s.proof),
            catalog: Some(catalog),
            openings: self.exchange.openings(),
            attachments: Vec::new(),
            view: None,
        };
        apply(self.bundle.take(), &mut bundle);
        Minted {
            at: world.at,
            root_pem: world.root_pem(),
            exchange: self.exchange,
            claims,
            bundle,
        }
    }

    /// The log with its checkpoint, and the receipt's proof.
    fn seal(&mut self, catalog: &Catalog, receipt: &[u8]) -> Seal {
        let world = self.world;
        let filler = |n: u64| entry(EntryKind::Receipt, Digest(derive(n, "another receipt")));
        let mut entries = vec![
            entry(EntryKind::Boot, world.keyset.digest()),
            entry(EntryKind::Catalog, catalog.digest()),
        ];
        entries.extend((0..self.earlier).map(filler));
        let index = entries.len();
        entries.push(entry(EntryKind::Receipt, Digest::of(receipt)));
        entries.extend((self.earlier..self.earlier + self.later).map(filler));
        apply(self.entries.take(), &mut entries);
        let leaves: Vec<Digest> = entries.iter().map(|e| leaf_hash(e)).collect();

        let origin = world.keyset.log.name.clone();
        let mut checkpoint = Checkpoint {
            origin: origin.clone(),
            size: leaves.len() as u64,
            root: tree_root(&leaves),
        };
        apply(self.checkpoint.take(), &mut checkpoint);
        let mut text = checkpoint.text();
        apply(self.note_text.take(), &mut text);
        let mut note = sign_note(&self.log_seed, &origin, &text);
        apply(self.note.take(), &mut note);

        let mut path = inclusion_path(index.min(leaves.len() - 1), &leaves);
        apply(self.path.take(), &mut path);
        let mut index = index as u64;
        apply(self.index.take(), &mut index);
        let hashes: String = path
            .iter()
            .map(|hash| base64_encode(&hash.0) + "\n")
            .collect();
        Seal {
            text,
            proof: format!("c2sp.org/tlog-proof@v1\nindex {index}\n{hashes}\n{note}"),
        }
    }

    fn evidence_over(&mut self, receipt: &[u8], note_text: Option<&str>) -> Vec<Evidence> {
        let purposes = self.purposes.take().unwrap_or_else(|| {
            let mut purposes = vec![Purpose::Boot];
            purposes.extend(note_text.map(|_| Purpose::Checkpoint));
            purposes.extend(
                self.exchange
                    .require
                    .contains(Guarantee::Quoted)
                    .then_some(Purpose::Receipt),
            );
            purposes
        });
        let mut all = Vec::new();
        for purpose in purposes {
            let (nonce, bind) = match purpose {
                Purpose::Boot | Purpose::Session => (None, bind_boot()),
                Purpose::Checkpoint => (None, bind_checkpoint(note_text.unwrap_or_default())),
                Purpose::Receipt => (self.exchange.nonce.clone(), bind_receipt(receipt)),
            };
            let machine = &self.world.machine;
            let keyset = self.world.keyset.digest();
            let data = report_data(purpose, keyset, nonce.as_deref(), bind);
            let mut report = machine.report(data);
            if let Some(change) = &mut self.report {
                change(purpose, &mut report);
            }
            let mut collateral = machine.attached();
            if let Some(change) = &mut self.collateral {
                change(purpose, &mut collateral);
            }
            all.push(
                self.world
                    .attach(purpose, nonce, machine.sign(&report), collateral),
            );
        }
        apply(self.evidence.take(), &mut all);
        all
    }
}

struct Seal {
    text: String,
    proof: String,
}

/// A bundle with everything it was made from.
#[derive(Clone, Debug)]
pub struct Minted {
    /// The moment at which it is to be judged.
    pub at: u64,
    /// The simulated root, PEM.
    pub root_pem: String,
    /// Question and answer.
    pub exchange: Exchange,
    /// What the receipt says (a change of its CBOR payload aside).
    pub claims: Claims,
    /// The bundle.
    pub bundle: Bundle,
}

impl Minted {
    /// The bundle file.
    pub fn file(&self) -> Vec<u8> {
        self.bundle.to_file()
    }

    /// Writes a folder as `touchstone ask` does, with `bundle.json`, and `root.pem` beside it.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_to(&self, folder: &Path) -> io::Result<()> {
        self.exchange
            .write_to(folder, self.claims.iat.saturating_sub(1))?;
        std::fs::write(folder.join("bundle.json"), self.file())?;
        std::fs::write(folder.join("root.pem"), &self.root_pem)
    }
}

fn honest_claims<M: TeeMachine>(
    world: &World<M>,
    exchange: &Exchange,
    catalog: &Catalog,
    sequence: u64,
) -> Claims {
    let openings = exchange.openings();
    let commitment = |role: Role| {
        openings
            .of(role)
            .map(|o| touchstone_formats::commitment::commit(role, &o.salt, &o.digest))
    };
    let model = world.models.first();
    Claims {
        iss: world.keyset.name.clone(),
        iat: world.at - 5,
        cti: exchange.cti,
        nonce: exchange.nonce.clone(),
        model_digest: model.map(|m| m.model_digest),
        config_digest: model.map(|m| m.config_digest),
        sequence,
        keyset_digest: world.keyset.digest(),
        guarantees: exchange.require,
        catalog: (catalog.epoch, catalog.digest()),
        request: commitment(Role::Request).unwrap_or(Digest::ZERO),
        response: commitment(Role::Response).unwrap_or(Digest::ZERO),
        inputs: commitment(Role::Inputs),
        outputs: commitment(Role::Outputs),
        status: if exchange.refused() {
            exchange.status
        } else {
            0
        },
        payment: None,
    }
}

/// A catalog entry over a manifest and a configuration that are made up, but well formed.
fn model(name: &str, version: &str) -> CatalogModel {
    let file = ModelFile {
        name: "model.onnx".into(),
        sha256: Digest::of(name.as_bytes()),
        size: 4_096,
    };
    let manifest = ModelManifest::new(vec![file]).expect("one file, the entry");
    let config = json!({"v": "touchstone/config/1", "model": name, "threads": 1});
    let config = config.as_object().expect("an object");
    CatalogModel {
        name: name.into(),
        version: version.into(),
        model_digest: manifest.digest(),
        config_digest: config_digest(config).expect("a canonical object"),
    }
}

fn apply<T>(hook: Hook<'_, T>, value: &mut T) {
    if let Some(change) = hook {
        change(value);
    }
}
