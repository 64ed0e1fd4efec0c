//! What makes the reports behind the kernel's interfaces.

use touchstone_formats::evidence::Tee;
use touchstone_testkit::machine::{Machine, TdxMachine, TeeMachine};

use crate::certificate_table;

/// A report, and what comes beside it.
#[derive(Clone, Debug)]
pub struct Made {
    /// The platform's kind.
    pub tee: Tee,
    /// The report or quote.
    pub quote: Vec<u8>,
    /// SEV-SNP: the host's certificate table.
    pub certificates: Vec<u8>,
}

/// A platform's firmware, as the kernel's driver talks to it.
pub trait Firmware: Send + 'static {
    /// Makes a report at this privilege level.
    ///
    /// # Errors
    /// An `errno` for the caller.
    fn report(&mut self, report_data: [u8; 64], privilege: u8) -> Result<Made, i32>;
}

impl Firmware for Machine {
    fn report(&mut self, report_data: [u8; 64], privilege: u8) -> Result<Made, i32> {
        let mut report = TeeMachine::report(self, report_data);
        report.vmpl = privilege.into();
        Ok(Made {
            tee: Tee::SevSnp,
            quote: self.sign(&report),
            certificates: certificate_table(&self.endorsement, &self.collateral()),
        })
    }
}

impl Firmware for TdxMachine {
    fn report(&mut self, report_data: [u8; 64], _: u8) -> Result<Made, i32> {
        Ok(Made {
            tee: Tee::Tdx,
            quote: TeeMachine::quote(self, report_data),
            certificates: Vec::new(),
        })
    }
}
