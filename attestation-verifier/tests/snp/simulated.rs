//! Lies that are re-signed: a simulated machine, a policy and a time, of which a test changes
//! one thing. The un-mutated twin has to hold, or the lie shows nothing.

use attestation_verifier::{At, Roots, Verdict, appraise};
use touchstone_testkit::amd::{Pki, PkiKeys, Product, VekKey};
use touchstone_testkit::machine::{CollateralFiles, Endorsement, Machine};
use touchstone_testkit::snp::Report;

use crate::common::{evidence, policy, template, with};
use crate::warm;

/// When everything is valid: 2026-09-21.
pub const NOW: u64 = 1_790_000_000;

/// A change of signed collateral; gets the machine, to sign with its keys.
pub type CollateralChange = Box<dyn Fn(&Machine, &mut CollateralFiles)>;

/// What is judged, and by what. Everything may be changed.
pub struct Scene {
    /// Report, keys and certificates, signed when the scene is judged.
    pub machine: Machine,
    /// The policy, TOML.
    pub policy: String,
    /// Time of judgement.
    pub time: u64,
    /// The roots that are trusted.
    pub roots: Roots,
    /// What REPORT_DATA must be.
    pub report_data: Option<[u8; 64]>,
    /// Signs the report in place of the machine's key.
    pub forger: Option<VekKey>,
    /// Changes the signed report.
    pub after_signing: Option<fn(&mut Vec<u8>)>,
    /// Changes of the signed collateral.
    pub collateral: Vec<CollateralChange>,
}

/// Keys of the simulated vendor, the same for all products: the names differ.
pub fn keys() -> PkiKeys {
    PkiKeys::shared("vendor")
}

/// Keys of somebody else.
pub fn rogue_keys() -> PkiKeys {
    PkiKeys::shared("rogue")
}

/// A machine that the strict template has no quarrel with, once its measurement is filled in.
pub fn scene(product: Product, version: u32, endorsement: Endorsement) -> Scene {
    let pki = Pki::with_keys(product, NOW, keys());
    let machine = Machine::under(pki, Report::new(product, version), endorsement);
    let measurement = hex::encode(machine.report.measurement);
    let policy = with(
        &template(),
        "snp.measurement",
        &format!("{{ expect = [\"{measurement}\"] }}"),
    );
    Scene {
        roots: Roots::pinned()
            .with_simulated_pem(machine.root_pem().as_bytes())
            .unwrap(),
        machine,
        policy,
        time: NOW,
        report_data: None,
        forger: None,
        after_signing: None,
        collateral: Vec::new(),
    }
}

/// Genoa, report of version 5, VCEK: the machine most tests lie with.
pub fn genoa() -> Scene {
    scene(Product::Genoa, 5, Endorsement::Vcek)
}

/// Genoa, version 3.
pub fn genoa_v3() -> Scene {
    scene(Product::Genoa, 3, Endorsement::Vcek)
}

/// Genoa, version 2, with a policy that accepts that version and what it cannot say.
pub fn genoa_v2() -> Scene {
    let mut scene = scene(Product::Genoa, 2, Endorsement::Vcek);
    scene.machine.report.platform_info &= 0x1f;
    scene.set("snp.version", "{ expect = [2, 3, 5] }");
    scene.set("snp.platform.alias_check", "{ expect = false }");
    scene
}

/// Turin, version 5.
pub fn turin() -> Scene {
    scene(Product::Turin, 5, Endorsement::Vcek)
}

/// Milan, version 3, with a policy that accepts Milan.
pub fn milan() -> Scene {
    let mut scene = scene(Product::Milan, 3, Endorsement::Vcek);
    scene.set(
        "snp.product",
        "{ expect = [\"Milan\", \"Genoa\", \"Turin\"] }",
    );
    scene
}

/// The provider of [`vlek`].
pub const CSP: &str = "CN=cc-nowhere-1.simulated.invalid";

/// Genoa with a VLEK, and a policy that accepts this provider's.
pub fn vlek() -> Scene {
    let endorsement = Endorsement::Vlek { csp_id: CSP.into() };
    let mut scene = scene(Product::Genoa, 5, endorsement);
    scene.set("snp.signing_key", "{ expect = [\"vcek\", \"vlek\"] }");
    scene.set("snp.vlek.csp", &format!("{{ expect = [\"{CSP}\"] }}"));
    scene
}

/// Everything pinned that the template waives.
pub fn pinned() -> Scene {
    let mut scene = genoa();
    scene.report(|r| {
        r.guest_svn = 7;
        r.family_id = [1; 16];
        r.image_id = [2; 16];
        r.id_key_digest = [3; 48];
        r.author_key_digest = [4; 48];
        r.flags |= 1;
        r.launch_mit_vector = 0b111;
        r.current_mit_vector = 0b1011;
    });
    let report = scene.machine.report.clone();
    scene.set(
        "snp.chip_id",
        &format!("{{ expect = \"{}\" }}", hex::encode(report.chip_id)),
    );
    scene.set("snp.guest_svn", "{ expect = 7 }");
    scene.set(
        "snp.family_id",
        &format!("{{ expect = \"{}\" }}", hex::encode([1; 16])),
    );
    scene.set(
        "snp.image_id",
        &format!("{{ expect = [\"{}\"] }}", hex::encode([2; 16])),
    );
    scene.set(
        "snp.id_key_digest",
        &format!("{{ expect = \"{}\" }}", hex::encode([3; 48])),
    );
    scene.set(
        "snp.author_key_digest",
        &format!("{{ expect = \"{}\" }}", hex::encode([4; 48])),
    );
    scene.set("snp.mitigation.launch", "{ expect = \"0x3\" }");
    scene.set("snp.mitigation.current", "{ expect = \"0x3\" }");
    scene
}

impl Scene {
    /// Gives one check of the policy another value.
    pub fn set(&mut self, id: &str, value: &str) {
        self.policy = with(&self.policy, id, value);
    }

    /// Changes the report and makes the certificate fit it again.
    pub fn report(&mut self, change: impl FnOnce(&mut Report)) {
        change(&mut self.machine.report);
        self.machine.reissue();
    }

    /// Adds a change of the signed collateral.
    pub fn collateral(&mut self, change: impl Fn(&Machine, &mut CollateralFiles) + 'static) {
        self.collateral.push(Box::new(change));
    }

    /// Signs everything and judges it.
    pub fn judge(&self) -> Verdict {
        let machine = &self.machine;
        let mut report = machine
            .report
            .sign(self.forger.as_ref().unwrap_or(&machine.key));
        if let Some(change) = self.after_signing {
            change(&mut report);
        }
        let mut files = machine.collateral();
        for change in &self.collateral {
            change(machine, &mut files);
        }
        let evidence = evidence(&report, &files.vek, &files.chain, &files.crls);
        let at = At {
            time: self.time,
            asserted: false,
        };
        let policy = policy(&self.policy);
        let (file, report_data) = (evidence.to_file(), self.report_data.as_ref());
        let verdict = appraise(&file, &policy, &self.roots, report_data, at);
        warm::alike(&verdict, &policy, &self.roots, |verifier| {
            verifier.appraise(&file, report_data, at)
        });
        verdict
    }
}

/// One row of a table of lies.
pub struct Lie {
    /// What is changed.
    pub name: String,
    /// The honest twin.
    pub honest: fn() -> Scene,
    /// The change.
    pub change: Box<dyn Fn(&mut Scene)>,
    /// Exit code it leads to.
    pub exit: u8,
    /// The check that decides.
    pub deciding: &'static str,
}

/// A row.
pub fn lie(
    name: impl Into<String>,
    honest: fn() -> Scene,
    change: impl Fn(&mut Scene) + 'static,
    exit: u8,
    deciding: &'static str,
) -> Lie {
    Lie {
        name: name.into(),
        honest,
        change: Box::new(change),
        exit,
        deciding,
    }
}

/// Judges every lie and its honest twin.
pub fn refuse(lies: Vec<Lie>) {
    assert!(!lies.is_empty());
    for lie in lies {
        let honest = (lie.honest)();
        let verdict = honest.judge();
        assert_eq!(
            verdict.exit(),
            6,
            "the honest twin of {:?}: {}",
            lie.name,
            verdict.words()
        );
        let mut scene = honest;
        (lie.change)(&mut scene);
        let verdict = scene.judge();
        assert_eq!(
            (verdict.exit(), verdict.deciding()),
            (lie.exit, Some(lie.deciding)),
            "{}: {}",
            lie.name,
            verdict.words()
        );
    }
}
