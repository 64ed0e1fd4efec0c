//! Lies that are re-signed: a simulated machine and a time, of which a test changes one thing. The un-mutated twin has to hold,
//! or the lie shows nothing.

use attestation_verifier::authenticate::intel::AuthenticTdx;
use attestation_verifier::{Checks, Roots};
use touchstone_formats::evidence::{Evidence, TdxCollateral};
use touchstone_testkit::intel::{PckCa, Pki, PkiKeys};
use touchstone_testkit::machine::{TdxMachine, TeeMachine};
use touchstone_testkit::tdx::{Quote, TdReport};
use touchstone_testkit::x509::{EcKey, pem};

use crate::policy::{judged, template};
use crate::support::{decided, evidence, seen, words};

/// When everything is valid: 2026-09-21.
pub const NOW: u64 = 1_790_000_000;

/// A change of a quote before it is signed; gets the machine, to sign with its keys.
pub type QuoteChange = Box<dyn Fn(&TdxMachine, &mut Quote)>;
/// A change of signed collateral.
pub type CollateralChange = Box<dyn Fn(&TdxMachine, &mut TdxCollateral)>;

/// What is judged. Everything may be changed.
pub struct Scene {
    /// Quote, keys, certificates and collateral, signed when the scene is judged.
    pub machine: TdxMachine,
    /// Time of judgement.
    pub time: u64,
    /// The roots that are trusted.
    pub roots: Roots,
    /// Changes of the quote before it is signed.
    pub quote: Vec<QuoteChange>,
    /// Signs the quote in place of the attestation key.
    pub quote_forger: Option<EcKey>,
    /// Signs the QE report in place of the PCK.
    pub qe_forger: Option<EcKey>,
    /// Changes the signed quote.
    pub after_signing: Option<fn(&mut Vec<u8>)>,
    /// Changes of the signed collateral.
    pub collateral: Vec<CollateralChange>,
}

/// Keys of the simulated vendor.
pub fn keys() -> PkiKeys {
    PkiKeys::shared("vendor")
}

/// Keys of somebody else.
pub fn rogue_keys() -> PkiKeys {
    PkiKeys::shared("rogue")
}

fn scene(version: u16, report: TdReport) -> Scene {
    let machine = TdxMachine::under(Pki::with_keys(NOW, keys()), version, report);
    Scene {
        roots: trusted(&machine.root_pem()),
        machine,
        time: NOW,
        quote: Vec::new(),
        quote_forger: None,
        qe_forger: None,
        after_signing: None,
        collateral: Vec::new(),
    }
}

/// PCK certificate, PCK CA and root, honest.
pub fn ders(m: &TdxMachine) -> [Vec<u8>; 3] {
    [
        m.pck.sign(m.pki.ca_key(m.ca)),
        m.pki.ca_der(m.ca),
        m.pki.root_der(),
    ]
}

/// The PCK chain of these DERs, as quotes hold it.
pub fn pck_chain(ders: &[Vec<u8>]) -> Vec<u8> {
    [chain_pem(ders).as_bytes(), &[0]].concat()
}

/// An issuer chain of these DERs.
pub fn chain_pem(ders: &[Vec<u8>]) -> String {
    ders.iter().map(|der| pem("CERTIFICATE", der)).collect()
}

/// The pinned roots and this one.
pub fn trusted(pem: &str) -> Roots {
    Roots::pinned().with_simulated_pem(pem.as_bytes()).unwrap()
}

/// Version 5 over a TD 1.5 report, Platform CA: the machine most tests lie with.
pub fn v5() -> Scene {
    scene(5, TdReport::v1_5())
}

/// Version 5 over a TD 1.0 report.
pub fn v5_td10() -> Scene {
    scene(5, TdReport::v1_0())
}

/// Version 4.
pub fn v4() -> Scene {
    scene(4, TdReport::v1_0())
}

/// A platform under the Processor CA.
pub fn processor() -> Scene {
    let mut scene = v5();
    scene.machine.ca = PckCa::Processor;
    scene.machine.platform = scene.machine.platform.clone().of_processor_ca();
    scene.machine.reissue();
    scene
}

impl Scene {
    /// Adds a change of the quote before it is signed.
    pub fn quote(&mut self, change: impl Fn(&TdxMachine, &mut Quote) + 'static) {
        self.quote.push(Box::new(change));
    }

    /// Adds a change of the signed collateral.
    pub fn collateral(&mut self, change: impl Fn(&TdxMachine, &mut TdxCollateral) + 'static) {
        self.collateral.push(Box::new(change));
    }

    /// Signs everything.
    pub fn evidence(&self) -> Evidence {
        let machine = &self.machine;
        let mut report = machine.report([0x77; 64]);
        for change in &self.quote {
            change(machine, &mut report);
        }
        let own = (&machine.attestation_key, &machine.pck_key);
        let mut quote = report.sign(
            self.quote_forger.as_ref().unwrap_or(own.0),
            self.qe_forger.as_ref().unwrap_or(own.1),
        );
        if let Some(change) = self.after_signing {
            change(&mut quote);
        }
        let mut collateral = machine.collateral();
        for change in &self.collateral {
            change(machine, &mut collateral);
        }
        evidence(quote, Some(collateral))
    }

    /// Signs everything; parses and authenticates it.
    pub fn seen(&self) -> (Checks, Option<AuthenticTdx>) {
        let evidence = self.evidence();
        let (checks, authentic) = seen(&evidence, &self.roots, self.time);
        // The whole judgement refuses it too, and is the same for a verifier that knows what came before.
        let whole = judged(&evidence, &template(), &self.roots, self.time);
        assert!(checks.hold() || !matches!(whole.exit(), 0 | 6));
        (checks, authentic)
    }

    /// Signs everything and expects it to be authentic.
    pub fn holds(&self, name: &str) -> AuthenticTdx {
        let (checks, authentic) = self.seen();
        assert!(checks.hold(), "{name}: {}", words(&checks));
        authentic.unwrap_or_else(|| panic!("{name}: holds, and is not authentic"))
    }
}

/// One row of a table of lies.
pub struct Lie {
    name: String,
    honest: fn() -> Scene,
    change: Box<dyn Fn(&mut Scene)>,
    exit: u8,
    deciding: &'static str,
}

/// A row: what is changed of which honest twin, the exit code it leads to and the check that decides.
pub fn lie(
    name: impl Into<String>,
    honest: fn() -> Scene,
    exit: u8,
    deciding: &'static str,
    change: impl Fn(&mut Scene) + 'static,
) -> Lie {
    Lie {
        name: name.into(),
        honest,
        change: Box::new(change),
        exit,
        deciding,
    }
}

/// Not authentic.
pub fn forged(name: &str, deciding: &'static str, change: impl Fn(&mut Scene) + 'static) -> Lie {
    lie(name, v5, 3, deciding, change)
}

/// A change of the quote before it is signed.
pub fn quoted(
    name: &str,
    deciding: &'static str,
    change: impl Fn(&TdxMachine, &mut Quote) + Clone + 'static,
) -> Lie {
    forged(name, deciding, move |s| s.quote(change.clone()))
}

/// A change of the collateral after it was signed.
pub fn sent(
    name: &str,
    exit: u8,
    deciding: &'static str,
    change: impl Fn(&TdxMachine, &mut TdxCollateral) + Clone + 'static,
) -> Lie {
    lie(name, v5, exit, deciding, move |s| {
        s.collateral(change.clone())
    })
}

/// Judges every lie and its honest twin.
pub fn refuse(lies: Vec<Lie>) {
    assert!(!lies.is_empty());
    for lie in lies {
        let mut scene = (lie.honest)();
        scene.holds(&format!("the honest twin of {:?}", lie.name));
        (lie.change)(&mut scene);
        let (checks, authentic) = scene.seen();
        assert_eq!(
            decided(&checks),
            (lie.exit, lie.deciding.to_owned()),
            "{}: {}",
            lie.name,
            words(&checks)
        );
        // Exit 5 for something outside its validity leaves the evidence authentic; all else does not.
        let outdated = lie.exit == 5 && lie.deciding.ends_with(".validity");
        assert_eq!(authentic.is_some(), outdated, "{}", lie.name);
    }
}
