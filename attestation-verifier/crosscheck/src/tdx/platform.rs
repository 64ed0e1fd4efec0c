//! Mutants of platforms: certificates and their SGX extensions, signed again.

use touchstone_testkit::intel::{Configuration, PckCa, oid, sgx_extension};
use touchstone_testkit::machine::TdxMachine;
use touchstone_testkit::x509::Certificate;

use super::{Case, DATA};
use crate::mutate::change;
use crate::random::Random;

pub(super) fn reissued(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let mut machine = machine.clone();
    let (name, certificate): (_, &mut Certificate) = match random.below(4) {
        0 | 1 => ("PCK", &mut machine.pck),
        2 => match machine.ca {
            PckCa::Platform => ("Platform CA", &mut machine.pki.platform_ca),
            PckCa::Processor => ("Processor CA", &mut machine.pki.processor_ca),
        },
        _ => ("TCB signing", &mut machine.pki.tcb_signing),
    };
    let what = change(random, certificate);
    (case.quote, case.collateral) = (machine.quote(DATA), machine.collateral());
    format!("{name}: {what}")
}

/// A platform that Intel describes otherwise: in what its certificate says, or in how.
pub(super) fn described(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let mut machine = machine.clone();
    let sgx = &mut machine.platform;
    if random.one_in(3) {
        let mut entries = sgx.entries();
        let place = random.below(entries.len());
        let what = match random.below(5) {
            0 => {
                let entry = entries.remove(place);
                format!("without {}", entry.oid)
            }
            1 => {
                let entry = entries[place].clone();
                let what = format!("{} twice", entry.oid);
                entries.push(entry);
                what
            }
            2 => {
                entries.reverse();
                "another order".into()
            }
            3 => {
                random.damage(&mut entries[place].value, &[5, 0]);
                format!("value of {}", entries[place].oid)
            }
            _ => {
                let mut unknown = entries[place].clone();
                unknown.oid = format!("{}.99", oid::SGX);
                entries.insert(place, unknown);
                "an unknown one".into()
            }
        };
        *machine.pck.extension_mut(oid::SGX) = sgx_extension(&entries);
        case.quote = machine.quote(DATA);
        return format!("entries: {what}");
    }
    let what = match random.below(8) {
        0 => {
            random.scribble(&mut sgx.ppid);
            "PPID"
        }
        1 => {
            let component = random.below(16);
            sgx.set_svn(component, random.below(16) as u8);
            "a component"
        }
        2 => {
            random.scribble(&mut sgx.comp_svn);
            "components, not CPUSVN"
        }
        3 => {
            sgx.pce_svn = random.below(20) as u16;
            "PCESVN"
        }
        4 => {
            random.scribble(&mut sgx.fmspc);
            "FMSPC"
        }
        5 => {
            sgx.sgx_type = random.below(5) as u8;
            "SGX type"
        }
        6 => {
            sgx.platform_instance_id = random.one_in(2).then_some([7; 16]);
            "instance"
        }
        _ => {
            let mut flag = || *random.pick(&[None, Some(false), Some(true)]);
            let [dynamic_platform, cached_keys, smt_enabled] = [flag(), flag(), flag()];
            let configuration = Configuration {
                dynamic_platform,
                cached_keys,
                smt_enabled,
            };
            sgx.configuration = random
                .one_in(3)
                .then_some(configuration)
                .or(sgx.configuration);
            "configuration"
        }
    };
    machine.pck = machine
        .pki
        .pck(&machine.pck_key, machine.ca, &machine.platform);
    case.quote = machine.quote(DATA);
    what.into()
}
