//! MRTD: what the TDX module hashes while a VMM builds a trust domain. Source: Intel TDX Module Base Architecture
//! Specification, "MRTD: Build-Time Measurement Register", and the ABI Specification of TDH.MEM.PAGE.ADD and TDH.MR.EXTEND.
//!
//! One SHA-384 over a record of 128 bytes for each page added, which holds the name of the operation and the page's
//! address, and one such record and 256 bytes of memory for each part of a page that is extended, 16 to a page. It is over
//! the *sequence* of these operations, and that is the VMM's to choose.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA384};

use super::tdvf::Tdvf;
use crate::hash::Sha384;
use crate::ovmf::PAGE;

/// Bytes of memory that one TDH.MR.EXTEND measures.
const EXTENDED: usize = 256;

/// In which order a VMM adds the pages of a section and measures them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageAddOrder {
    /// Each page is measured when it has been added: `KVM_TDX_INIT_MEM_REGION` of Linux since 6.16, which QEMU uses since
    /// 10.1.
    OnePass,
    /// All pages of a section are added, then all are measured: `KVM_MEMORY_MAPPING` and `KVM_TDX_EXTEND_MEMORY` of the
    /// kernels and the QEMU 8.2 that Intel and Canonical gave out before.
    TwoPass,
}

impl PageAddOrder {
    /// Both of them.
    pub const ALL: [PageAddOrder; 2] = [PageAddOrder::OnePass, PageAddOrder::TwoPass];

    /// As it is named in arguments and manifests.
    pub fn name(self) -> &'static str {
        match self {
            PageAddOrder::OnePass => "one-pass",
            PageAddOrder::TwoPass => "two-pass",
        }
    }
}

impl fmt::Display for PageAddOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No order has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("page-add order {0:?}: expected one-pass or two-pass")]
pub struct UnknownOrder(pub String);

impl FromStr for PageAddOrder {
    type Err = UnknownOrder;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        PageAddOrder::ALL
            .into_iter()
            .find(|order| order.name() == name)
            .ok_or_else(|| UnknownOrder(name.to_owned()))
    }
}

/// What is done with all pages of a section, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Each is added.
    Add,
    /// Each is added, then measured.
    AddThenExtend,
    /// Each is measured; they have been added before.
    Extend,
}

impl Operation {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Add => "add",
            Operation::AddThenExtend => "add+extend",
            Operation::Extend => "extend",
        }
    }
}

/// One step of building a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which section, from 0.
    pub section: usize,
    /// What is done with its pages.
    pub operation: Operation,
    /// What MRTD would be if nothing followed.
    pub after: Sha384,
}

/// MRTD of a domain that is built out of this firmware, in this order.
pub fn mrtd(firmware: &Tdvf<'_>, order: PageAddOrder) -> Sha384 {
    // Firmware has a section at least.
    let steps = derivation(firmware, order);
    steps.last().map_or(Sha384::of(&[]), |step| step.after)
}

/// How that comes about.
pub fn derivation(firmware: &Tdvf<'_>, order: PageAddOrder) -> Vec<Step> {
    let mut context = Context::new(&SHA384);
    let mut steps = Vec::new();
    for (index, section) in firmware.sections().iter().enumerate() {
        let operations: &[Operation] = match (section.measured, order) {
            (false, _) => &[Operation::Add],
            (true, PageAddOrder::OnePass) => &[Operation::AddThenExtend],
            (true, PageAddOrder::TwoPass) => &[Operation::Add, Operation::Extend],
        };
        for operation in operations {
            // Of a section that is measured there are as many pages of data as of memory.
            let mut data = section.data.as_chunks::<PAGE>().0.iter();
            for gpa in section.memory().step_by(PAGE) {
                if *operation != Operation::Extend {
                    add(&mut context, gpa);
                }
                if *operation != Operation::Add
                    && let Some(page) = data.next()
                {
                    extend(&mut context, gpa, page);
                }
            }
            steps.push(Step {
                section: index,
                operation: *operation,
                after: Sha384::finish(context.clone()),
            });
        }
    }
    steps
}

/// TDH.MEM.PAGE.ADD.
fn add(context: &mut Context, gpa: u64) {
    context.update(&record(b"MEM.PAGE.ADD\0\0\0\0", gpa));
}

/// TDH.MR.EXTEND of all of a page.
fn extend(context: &mut Context, gpa: u64, page: &[u8; PAGE]) {
    let addresses = (gpa..).step_by(EXTENDED);
    for (gpa, part) in addresses.zip(page.as_chunks::<EXTENDED>().0) {
        context.update(&record(b"MR.EXTEND\0\0\0\0\0\0\0", gpa));
        context.update(part);
    }
}

/// The operation, zeros to 16 bytes, the address, zeros to 128.
fn record(operation: &[u8; 16], gpa: u64) -> [u8; 128] {
    let mut record = [0; 128];
    let (fields, _) = record.split_at_mut(24);
    let (name, address) = fields.split_at_mut(16);
    name.copy_from_slice(operation);
    address.copy_from_slice(&gpa.to_le_bytes());
    record
}
