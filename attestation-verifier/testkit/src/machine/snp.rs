//! A simulated SEV-SNP machine: a chip with its endorsement key, firmware levels and one launched guest.

use std::io;
use std::path::Path;

use touchstone_formats::SnpCollateral;
use touchstone_formats::evidence::{Collateral, EventLog, Tee};

use super::{TeeMachine, put, remove};
use crate::amd::{Certificate, Crl, Pki, Product, VekKey};
use crate::snp::{Report, flags};

/// Which key endorses the reports of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endorsement {
    /// The chip's own, under the ASK.
    Vcek,
    /// One that AMD gave to a cloud provider, under the ASVK.
    Vlek {
        /// `cspID`, such as `CN=cc-nowhere-1.simulated.invalid`.
        csp_id: String,
    },
}

/// A simulated machine. All fields may be changed; after changing the chip, its TCB or the endorsement
/// call [`Machine::reissue`], unless a certificate that does not fit is what you want.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The vendor.
    pub pki: Pki,
    /// The endorsement key.
    pub key: VekKey,
    /// Which kind of key that is.
    pub endorsement: Endorsement,
    /// What every report says, report data aside.
    pub report: Report,
    /// The endorsement key's certificate, to be signed by the ASK or ASVK.
    pub vek: Certificate,
    /// The revocation list, to be signed by the ARK.
    pub crl: Crl,
}

/// Everything a verifier needs beside the quote, as DER. The root is not in it: that is the verifier's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollateralFiles {
    /// VCEK or VLEK.
    pub vek: Vec<u8>,
    /// The intermediate.
    pub chain: Vec<Vec<u8>>,
    /// The ARK's revocation list.
    pub crls: Vec<Vec<u8>>,
}

impl Machine {
    /// A machine with a VCEK, certificates valid around `at` (Unix seconds), and reports that a strict policy has no quarrel
    /// with but their measurement.
    pub fn new(product: Product, report_version: u32, at: u64) -> Self {
        Self::under(
            Pki::new(product, at),
            Report::new(product, report_version),
            Endorsement::Vcek,
        )
    }

    /// A machine of this vendor that makes these reports.
    pub fn under(pki: Pki, report: Report, endorsement: Endorsement) -> Self {
        let key = VekKey::p384();
        let (vek, crl) = (pki.vcek(&key, &report), pki.crl());
        let mut machine = Self {
            pki,
            key,
            endorsement,
            report,
            vek,
            crl,
        };
        machine.reissue();
        machine
    }

    /// Makes the endorsement certificate and the report's SIGNING_KEY field fit chip, TCB and endorsement again.
    pub fn reissue(&mut self) {
        self.report.flags &= !flags::SIGNING_KEY_MASK;
        match &self.endorsement {
            Endorsement::Vcek => self.vek = self.pki.vcek(&self.key, &self.report),
            Endorsement::Vlek { csp_id } => {
                self.report.flags |= flags::SIGNED_BY_VLEK;
                self.vek = self.pki.vlek(&self.key, &self.report, csp_id);
            }
        }
    }

    /// A signed report over `report_data`.
    pub fn quote(&self, report_data: [u8; 64]) -> Vec<u8> {
        TeeMachine::quote(self, report_data)
    }

    /// The simulated root as PEM: what `--trust-simulated-root` takes.
    pub fn root_pem(&self) -> String {
        self.pki.ark_pem()
    }

    /// What goes beside the quotes of this machine.
    pub fn collateral(&self) -> CollateralFiles {
        let keys = &self.pki.keys;
        let (issuer, intermediate) = match self.endorsement {
            Endorsement::Vcek => (&keys.ask, self.pki.ask_der()),
            Endorsement::Vlek { .. } => (&keys.asvk, self.pki.asvk_der()),
        };
        CollateralFiles {
            vek: self.vek.sign(issuer),
            chain: vec![intermediate],
            crls: vec![self.crl.sign(&keys.ark)],
        }
    }

    /// Writes `root.pem` for verifiers and `collateral/` for the host (`vek.der`, `chain/*.der`, `crls/*.der`) into `folder`. What an
    /// earlier machine left there is replaced, file by file, each at once: a host may be looking.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_to(&self, folder: &Path) -> io::Result<()> {
        let files = self.collateral();
        let (intermediate, other) = match self.endorsement {
            Endorsement::Vcek => ("ask.der", "asvk.der"),
            Endorsement::Vlek { .. } => ("asvk.der", "ask.der"),
        };
        let collateral = folder.join("collateral");
        let (chain, crls) = (collateral.join("chain"), collateral.join("crls"));
        std::fs::create_dir_all(&chain)?;
        std::fs::create_dir_all(&crls)?;
        let put = |path: &Path, bytes: &[u8]| put(folder, path, bytes);
        put(&folder.join("README"), README.as_bytes())?;
        put(&folder.join("root.pem"), self.root_pem().as_bytes())?;
        put(&collateral.join("README"), README.as_bytes())?;
        put(&collateral.join("vek.der"), &files.vek)?;
        remove(&chain.join(other))?;
        // Of a TDX machine that was here before.
        remove(&collateral.join("tdx.json"))?;
        for der in files.chain {
            put(&chain.join(intermediate), &der)?;
        }
        for der in files.crls {
            put(&crls.join("ark.der"), &der)?;
        }
        Ok(())
    }
}

impl TeeMachine for Machine {
    const TEE: Tee = Tee::SevSnp;
    type Report = Report;
    type Collateral = SnpCollateral;

    fn strict(at: u64) -> Self {
        Self::new(Product::Genoa, 5, at)
    }

    fn report(&self, report_data: [u8; 64]) -> Report {
        let mut report = self.report.clone();
        report.report_data = report_data;
        report
    }

    fn sign(&self, report: &Report) -> Vec<u8> {
        report.sign(&self.key)
    }

    fn attached(&self) -> SnpCollateral {
        let files = self.collateral();
        SnpCollateral {
            vek: Some(files.vek),
            chain: files.chain,
            crls: files.crls,
        }
    }

    fn evidence_collateral(collateral: SnpCollateral) -> Collateral {
        Collateral::SevSnp(collateral)
    }

    fn event_log(&self) -> Option<EventLog> {
        None
    }

    fn certificate_table(&self) -> Vec<u8> {
        let files = self.collateral();
        let kind = match self.endorsement {
            Endorsement::Vcek => VCEK,
            Endorsement::Vlek { .. } => VLEK,
        };
        let mut entries = vec![(kind, files.vek)];
        entries.extend(files.chain.into_iter().map(|der| (ASK, der)));
        certificate_table(&entries)
    }

    fn root_pem(&self) -> String {
        Machine::root_pem(self)
    }

    fn write_to(&self, folder: &Path) -> io::Result<()> {
        Machine::write_to(self, folder)
    }

    fn reference_values(&self) -> Vec<(&'static str, String)> {
        vec![("snp.measurement", hex::encode(self.report.measurement))]
    }

    fn name(&self) -> String {
        self.pki.product.to_string()
    }
}

// What a certificate table calls its entries: GUIDs, written as their text reads.
const VCEK: u128 = 0x63da758d_e664_4564_adc5_f4b93be8accd;
const VLEK: u128 = 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1;
const ASK: u128 = 0x4ab7b379_bbac_4fe4_a02f_05aef327c782;

/// Entries of 24 bytes (GUID, offset and length), one of zeros, and then what they lead to.
fn certificate_table(entries: &[(u128, Vec<u8>)]) -> Vec<u8> {
    let mut offset = 24 * (entries.len() + 1);
    let mut table = Vec::new();
    for (guid, der) in entries {
        table.extend(guid.to_be_bytes());
        table.extend((offset as u32).to_le_bytes());
        table.extend((der.len() as u32).to_le_bytes());
        offset += der.len();
    }
    table.extend([0; 24]);
    table.extend(entries.iter().flat_map(|(_, der)| der));
    table
}

const README: &str = "SIMULATED. No processor made the keys in this folder and no vendor signed them.\n\n\
`simulated-platform` of Touchstone's test kit wrote these files: a certificate chain in the shape of AMD's, made up\n\
for one run. A verifier accepts it only when somebody names root.pem to it with --trust-simulated-root, and its\n\
verdict then says so. Never name this root where an answer matters.\n\n\
root.pem                 the simulated root, for the verifier\n\
collateral/vek.der       the certificate of the key that signs the reports, for the host\n\
collateral/chain/*.der   the intermediate above it\n\
collateral/crls/*.der    the root's revocation list\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::TdxMachine;

    #[test]
    fn a_folder_holds_one_machine_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let list = |sub: &str| {
            let files = std::fs::read_dir(folder.path().join(sub)).unwrap();
            let mut names: Vec<_> = files
                .map(|f| f.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let mut machine = Machine::new(Product::Genoa, 5, 1_790_000_000);
        machine.write_to(folder.path()).unwrap();
        assert_eq!(list("collateral/chain"), ["ask.der"]);
        machine.endorsement = Endorsement::Vlek {
            csp_id: "CN=cc-x.simulated.invalid".into(),
        };
        machine.reissue();
        machine.write_to(folder.path()).unwrap();
        assert_eq!(list("collateral/chain"), ["asvk.der"]);
        assert_eq!(list("collateral/crls"), ["ark.der"]);
        assert_eq!(list("collateral"), ["README", "chain", "crls", "vek.der"]);
        assert_eq!(list(""), ["README", "collateral", "root.pem"]);
        let tdx = TdxMachine::strict(1_790_000_000);
        tdx.write_to(folder.path()).unwrap();
        let expected = ["README", "chain", "crls", "tdx.json"];
        assert_eq!(list("collateral"), expected);
        assert!(list("collateral/chain").is_empty() && list("collateral/crls").is_empty());
        machine.write_to(folder.path()).unwrap();
        assert_eq!(list("collateral"), ["README", "chain", "crls", "vek.der"]);
    }
}
