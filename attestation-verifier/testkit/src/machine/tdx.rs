//! A simulated TDX machine: a platform with its PCK, a quoting enclave with its attestation key, one launched TD.

use std::io;
use std::path::Path;

use touchstone_formats::evidence::{Collateral, EventLog as EvidenceLog, TdxCollateral, Tee};
use touchstone_formats::jcs;
use touchstone_formats::text::HexBytes;

use super::{TeeMachine, put, remove};
use crate::events::{Event, EventLog};
use crate::intel::{PckCa, Pki, QeIdentity, SgxExtensions, TcbInfo};
use crate::tdx::{Quote, TdReport};
use crate::x509::{Certificate, Crl, EcKey, pem};

/// A simulated machine. All fields may be changed; after changing platform, authority or PCK call
/// [`TdxMachine::reissue`], unless a certificate that does not fit is what you want.
#[derive(Clone, Debug)]
pub struct TdxMachine {
    /// The vendor.
    pub pki: Pki,
    /// Which of its authorities vouches for the platform.
    pub ca: PckCa,
    /// The platform.
    pub platform: SgxExtensions,
    /// The platform's provisioning certification key: it signs the quoting enclave's report.
    pub pck_key: EcKey,
    /// The quoting enclave's key: it signs quotes.
    pub attestation_key: EcKey,
    /// The PCK certificate, to be signed by `ca`.
    pub pck: Certificate,
    /// What every quote says, report data aside. Its PCK chain is written anew into each quote.
    pub report: Quote,
    /// What was measured at run time; RTMRs follow from it when it is changed with [`TdxMachine::measure`].
    pub events: EventLog,
    /// TCB info about platforms of this kind.
    pub tcb_info: TcbInfo,
    /// Identity of the quoting enclave.
    pub qe_identity: QeIdentity,
    /// The root's revocation list.
    pub root_crl: Crl,
    /// The revocation list of `ca`.
    pub pck_crl: Crl,
}

impl TdxMachine {
    /// A machine with quotes of this version over this body, under the Platform CA, certificates and collateral valid around
    /// `at` (Unix seconds), with which a strict policy has no quarrel but its measurements. RTMR0 to 2 are those of its
    /// event log, RTMR3 is unused.
    pub fn new(version: u16, report: TdReport, at: u64) -> Self {
        Self::under(Pki::new(at), version, report)
    }

    /// A machine of this vendor.
    pub fn under(pki: Pki, version: u16, report: TdReport) -> Self {
        let (ca, platform) = (PckCa::Platform, SgxExtensions::new());
        let pck_key = EcKey::p256();
        let events = EventLog::boot();
        let mut quote = Quote::new(version, report, "");
        quote.qe_report.cpu_svn = platform.cpu_svn;
        quote.report.rtmr = [0, 1, 2, 3].map(|n| events.replay(n));
        Self {
            ca,
            attestation_key: EcKey::p256(),
            pck: pki.pck(&pck_key, ca, &platform),
            tcb_info: TcbInfo::new(pki.at, &platform, &quote.report.tee_tcb_svn),
            qe_identity: QeIdentity::new(pki.at),
            root_crl: pki.root_crl(),
            pck_crl: pki.pck_crl(ca),
            report: quote,
            pki,
            platform,
            pck_key,
            events,
        }
    }

    /// Makes the PCK certificate and the PCK CA's revocation list fit platform, PCK and authority again.
    pub fn reissue(&mut self) {
        self.pck = self.pki.pck(&self.pck_key, self.ca, &self.platform);
        self.pck_crl = self.pki.pck_crl(self.ca);
    }

    /// Extends RTMR `rtmr` (0 to 3) with an event, and logs it.
    pub fn measure(&mut self, rtmr: usize, event_type: u32, data: &[u8]) {
        self.events.events.push(Event::new(rtmr, event_type, data));
        self.report.report.rtmr[rtmr] = self.events.replay(rtmr);
    }

    /// PCK certificate, PCK CA and root, PEM, as quotes hold them.
    pub fn pck_chain(&self) -> String {
        let pck = self.pck.sign(self.pki.ca_key(self.ca));
        pem("CERTIFICATE", &pck) + &self.pki.ca_chain_pem(self.ca)
    }

    /// A signed quote over `report_data`.
    pub fn quote(&self, report_data: [u8; 64]) -> Vec<u8> {
        TeeMachine::quote(self, report_data)
    }

    /// The simulated root as PEM: what `--trust-simulated-root` takes.
    pub fn root_pem(&self) -> String {
        self.pki.root_pem()
    }

    /// What goes beside the quotes of this machine.
    pub fn collateral(&self) -> TdxCollateral {
        let (tcb_info, qe_identity) = (self.tcb_info.to_json(), self.qe_identity.to_json());
        let signature = |text: &str| Some(HexBytes(self.pki.sign_json(text)));
        let chain = self.pki.tcb_chain_pem();
        let pck_crl = self.pck_crl.sign(self.pki.ca_key(self.ca));
        TdxCollateral {
            tcb_info_signature: signature(&tcb_info),
            tcb_info: Some(tcb_info),
            tcb_info_issuer_chain: Some(chain.clone()),
            qe_identity_signature: signature(&qe_identity),
            qe_identity: Some(qe_identity),
            qe_identity_issuer_chain: Some(chain),
            pck_crl: Some(HexBytes(pck_crl)),
            pck_crl_issuer_chain: Some(self.pki.ca_chain_pem(self.ca)),
            root_ca_crl: Some(HexBytes(self.root_crl.sign(&self.pki.keys.root))),
        }
    }
}

impl TeeMachine for TdxMachine {
    const TEE: Tee = Tee::Tdx;
    type Report = Quote;
    type Collateral = TdxCollateral;

    /// Quotes of version 5 over a TDX 1.5 body.
    fn strict(at: u64) -> Self {
        Self::new(5, TdReport::v1_5(), at)
    }

    fn report(&self, report_data: [u8; 64]) -> Quote {
        let mut quote = self.report.clone();
        quote.report.report_data = report_data;
        quote.pck_chain = [self.pck_chain().as_bytes(), &[0]].concat();
        quote
    }

    fn sign(&self, report: &Quote) -> Vec<u8> {
        report.sign(&self.attestation_key, &self.pck_key)
    }

    fn attached(&self) -> TdxCollateral {
        self.collateral()
    }

    fn evidence_collateral(collateral: TdxCollateral) -> Collateral {
        Collateral::Tdx(collateral)
    }

    fn event_log(&self) -> Option<EvidenceLog> {
        Some(self.events.to_evidence())
    }

    fn root_pem(&self) -> String {
        TdxMachine::root_pem(self)
    }

    fn write_to(&self, folder: &Path) -> io::Result<()> {
        let collateral = folder.join("collateral");
        std::fs::create_dir_all(&collateral)?;
        // Of an SEV-SNP machine that was here before.
        for file in ["vek.der", "chain/ask.der", "chain/asvk.der", "crls/ark.der"] {
            remove(&collateral.join(file))?;
        }
        let json = jcs::to_file(&self.collateral()).map_err(io::Error::other)?;
        put(folder, &folder.join("README"), README.as_bytes())?;
        put(folder, &folder.join("root.pem"), self.root_pem().as_bytes())?;
        put(folder, &collateral.join("README"), README.as_bytes())?;
        put(folder, &collateral.join("tdx.json"), &json)
    }

    fn reference_values(&self) -> Vec<(&'static str, String)> {
        let report = &self.report.report;
        vec![
            ("tdx.mrtd", hex::encode(report.mr_td)),
            ("tdx.rtmr0", hex::encode(report.rtmr[0])),
            ("tdx.rtmr1", hex::encode(report.rtmr[1])),
            ("tdx.rtmr2", hex::encode(report.rtmr[2])),
            ("tdx.rtmr3", hex::encode(report.rtmr[3])),
        ]
    }

    fn name(&self) -> String {
        "TDX".into()
    }
}

const README: &str = "SIMULATED. No processor made the keys in this folder and no vendor signed them.\n\n\
`simulated-platform` of Touchstone's test kit wrote these files: certificates, revocation lists, TCB info and QE identity\n\
in the shape of Intel's, made up for one run. A verifier accepts them only when somebody names root.pem to it with\n\
--trust-simulated-root, and its verdict then says so. Never name this root where an answer matters.\n\n\
root.pem              the simulated root, for the verifier\n\
collateral/tdx.json   TCB info, QE identity and revocation lists, for the host\n";
