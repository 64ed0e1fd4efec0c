//! Simulated machines: a processor with its endorsement, firmware levels and one launched guest. [`Machine`] is SEV-SNP,
//! [`TdxMachine`] TDX; [`TeeMachine`] is what the rest of the test kit asks of either.

mod snp;
mod tdx;

use std::fmt;
use std::io;
use std::path::Path;

use touchstone_formats::evidence::{Collateral, EventLog, Tee};

pub use snp::{CollateralFiles, Endorsement, Machine};
pub use tdx::TdxMachine;

/// A simulated machine of either kind.
pub trait TeeMachine: Clone + fmt::Debug + Send + Sync + 'static {
    /// Its kind.
    const TEE: Tee;
    /// What a quote is before it is signed, every field open to change.
    type Report;
    /// Its kind of collateral.
    type Collateral;

    /// A machine with whose quotes a strict policy has no quarrel but their measurements, valid around `at` (Unix
    /// seconds).
    fn strict(at: u64) -> Self;

    /// A quote over `report_data`, not yet signed.
    fn report(&self, report_data: [u8; 64]) -> Self::Report;

    /// Signs a report with this machine's keys, whatever it says.
    fn sign(&self, report: &Self::Report) -> Vec<u8>;

    /// A signed quote over `report_data`.
    fn quote(&self, report_data: [u8; 64]) -> Vec<u8> {
        self.sign(&self.report(report_data))
    }

    /// What goes beside its quotes, as evidence holds it.
    fn attached(&self) -> Self::Collateral;

    /// That collateral as either kind.
    fn evidence_collateral(collateral: Self::Collateral) -> Collateral;

    /// What was measured at run time, where the platform keeps it.
    fn event_log(&self) -> Option<EventLog>;

    /// AMD's certificate table (GHCB specification, 4.1.8.1) that comes with a quote; empty where there is none.
    fn certificate_table(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The simulated root as PEM: what `--trust-simulated-root` takes.
    fn root_pem(&self) -> String;

    /// Writes `root.pem` for verifiers and `collateral/` for the host into `folder`. What an earlier machine left there is
    /// replaced, file by file, each at once: a host may be looking.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn write_to(&self, folder: &Path) -> io::Result<()>;

    /// What a policy has to expect of this machine because nobody else can know it: keys of a policy file with hexadecimal
    /// values, such as `snp.measurement`.
    fn reference_values(&self) -> Vec<(&'static str, String)>;

    /// For people: `Genoa`, `TDX`.
    fn name(&self) -> String;
}

/// Writes a file of a machine's folder at once. The new file begins its life outside of the folders that the host reads
/// whole.
fn put(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = folder.join(".new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, path)
}

/// Removes what may not be there.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
