//! Lies about the SGX extensions of PCK certificates, each signed by the simulated vendor: exit 2.

use touchstone_testkit::intel::{Entry, SgxExtensions, oid, sgx_extension};
use touchstone_testkit::x509::{Extension, asn1};

use crate::simulated::{Lie, Scene, lie, processor, refuse, v5};

/// A change of the entries of the SGX extension, or of its TCB.
fn sgx(
    name: impl Into<String>,
    honest: fn() -> Scene,
    change: impl Fn(&SgxExtensions) -> Vec<Entry> + 'static,
) -> Lie {
    lie(name, honest, 2, "tdx.pck.extensions", move |s| {
        let extension = sgx_extension(&change(&s.machine.platform));
        *s.machine.pck.extension_mut(oid::SGX) = extension;
    })
}

/// The entries with one of them put in place of the one of the same OID.
fn with(mut entries: Vec<Entry>, oid: &str, value: Vec<u8>) -> Vec<Entry> {
    let entry = entries.iter_mut().find(|entry| entry.oid == oid).unwrap();
    entry.value = value;
    entries
}

/// The entries but for those of these OIDs.
fn without(mut entries: Vec<Entry>, oids: &[&str]) -> Vec<Entry> {
    entries.retain(|entry| !oids.contains(&entry.oid.as_str()));
    entries
}

/// What a certificate may leave out.
const OPTIONAL: [&str; 2] = [oid::PLATFORM_INSTANCE_ID, oid::CONFIGURATION];

/// Instance and configuration are there or not, each by itself, whichever CA it is.
#[test]
fn what_is_optional() {
    let [instance, configuration] = OPTIONAL;
    let all = v5().machine.platform.entries();
    for honest in [v5 as fn() -> Scene, processor] {
        for left_out in [
            vec![],
            vec![instance],
            vec![configuration],
            OPTIONAL.to_vec(),
        ] {
            let mut scene = honest();
            let entries = without(all.clone(), &left_out);
            *scene.machine.pck.extension_mut(oid::SGX) = sgx_extension(&entries);
            let authentic = scene.holds(&format!("without {left_out:?}"));
            let pck = authentic.pck();
            let there = |oid| !left_out.contains(&oid);
            assert_eq!(pck.platform_instance_id.is_some(), there(instance));
            assert_eq!(pck.configuration.is_some(), there(configuration));
        }
    }
}

#[test]
fn sgx_extensions() {
    // Written anew without a change it holds; so the lies below show something.
    let mut scene = v5();
    let same = sgx_extension(&scene.machine.platform.entries());
    *scene.machine.pck.extension_mut(oid::SGX) = same;
    let authentic = scene.holds("as it was");
    let (pck, platform) = (authentic.pck(), &scene.machine.platform);
    assert_eq!(pck.ppid, platform.ppid);
    assert_eq!(pck.comp_svn, platform.comp_svn);
    assert_eq!(pck.pce_svn, platform.pce_svn);
    assert_eq!(pck.cpu_svn, platform.cpu_svn);
    assert_eq!(pck.platform_instance_id, platform.platform_instance_id);

    let octets = |n: usize| asn1::tlv(asn1::OCTET_STRING, &vec![1; n]);
    let mut lies = Vec::new();
    for entry in scene.machine.platform.entries() {
        let oid = entry.oid.clone();
        if !OPTIONAL.contains(&oid.as_str()) {
            lies.push(sgx(format!("without {oid}"), v5, move |p| {
                without(p.entries(), &[&oid])
            }));
        }
        lies.push(sgx(format!("{} twice", entry.oid), v5, move |p| {
            let mut entries = p.entries();
            entries.push(entry.clone());
            entries
        }));
    }
    for entry in scene.machine.platform.tcb_entries() {
        let oid = entry.oid.clone();
        lies.push(sgx(format!("without {oid}"), v5, move |p| {
            let tcb: Vec<Entry> = p
                .tcb_entries()
                .into_iter()
                .filter(|e| e.oid != oid)
                .collect();
            with(p.entries(), oid::TCB, Entry::sequence(&tcb))
        }));
        lies.push(sgx(format!("{} twice", entry.oid), v5, move |p| {
            let mut tcb = p.tcb_entries();
            tcb.push(entry.clone());
            with(p.entries(), oid::TCB, Entry::sequence(&tcb))
        }));
    }
    // Fields of another length or type.
    let wrong: [(&'static str, Vec<u8>); 12] = [
        (oid::PPID, octets(15)),
        (oid::PPID, asn1::tlv(asn1::BIT_STRING, &[0; 16])),
        (oid::PCE_ID, octets(3)),
        (oid::FMSPC, octets(5)),
        (oid::FMSPC, octets(7)),
        (oid::SGX_TYPE, asn1::number(1)),
        (oid::SGX_TYPE, asn1::tlv(0x0a, &[3])),
        (oid::SGX_TYPE, asn1::tlv(0x0a, &[0, 0x81])),
        (oid::PLATFORM_INSTANCE_ID, octets(17)),
        (oid::CONFIGURATION, octets(1)),
        (oid::TCB, octets(16)),
        (oid::TCB, asn1::sequence(&[])),
    ];
    for (oid, value) in wrong {
        lies.push(sgx(format!("{oid} is {value:?}"), v5, move |p| {
            with(p.entries(), oid, value.clone())
        }));
    }
    let in_tcb: [(String, Vec<u8>); 6] = [
        (format!("{}.1", oid::TCB), asn1::number(256)),
        (
            format!("{}.16", oid::TCB),
            asn1::tlv(asn1::INTEGER, &[0x80]),
        ),
        (format!("{}.16", oid::TCB), octets(1)),
        (oid::PCE_SVN.to_owned(), asn1::number(65_536)),
        (oid::PCE_SVN.to_owned(), asn1::tlv(asn1::INTEGER, &[0xff])),
        (oid::CPU_SVN.to_owned(), octets(15)),
    ];
    for (oid, value) in in_tcb {
        lies.push(sgx(format!("{oid} is {value:?}"), v5, move |p| {
            let tcb = with(p.tcb_entries(), &oid, value.clone());
            with(p.entries(), oid::TCB, Entry::sequence(&tcb))
        }));
    }
    let flag = |oid: &str, value: Vec<u8>| Entry::sequence(&[Entry::new(oid, value)]);
    let boolean = asn1::tlv(asn1::BOOLEAN, &[0xff]);
    let flags = [
        flag(oid::SMT_ENABLED, asn1::number(1)),
        flag("1.2.840.113741.1.13.1.7.4", boolean.clone()),
        flag("1.2.3", boolean.clone()),
        [flag(oid::SMT_ENABLED, boolean.clone()), vec![0]].concat(),
    ];
    for value in flags {
        lies.push(sgx(format!("Configuration is {value:?}"), v5, move |p| {
            with(p.entries(), oid::CONFIGURATION, value.clone())
        }));
    }
    // Fields that nobody knows.
    for oid in ["1.2.840.113741.1.13.1.8", "1.2.840.113741.1.13.2", "1.2.3"] {
        lies.push(sgx(format!("with {oid}"), v5, move |p| {
            let mut entries = p.entries();
            entries.push(Entry::new(oid, asn1::number(1)));
            entries
        }));
    }
    lies.push(lie("no SGX extension", v5, 2, "tdx.pck.extensions", |s| {
        s.machine.pck.remove(oid::SGX);
    }));
    lies.push(lie(
        "an SGX extension that is no DER",
        v5,
        2,
        "tdx.pck.extensions",
        |s| {
            let value = [s.machine.platform.to_extension().value, vec![0]].concat();
            *s.machine.pck.extension_mut(oid::SGX) = Extension::new(oid::SGX, false, value);
        },
    ));
    // A reader that goes by the numbers of tags takes [16] for a SEQUENCE.
    lies.push(lie(
        "basicConstraints of another class",
        v5,
        2,
        "tdx.format",
        |s| {
            let value = vec![0xb0, 0];
            *s.machine.pck.extension_mut(oid::BASIC_CONSTRAINTS) =
                Extension::new(oid::BASIC_CONSTRAINTS, true, value);
        },
    ));
    for id in [oid::CRL_POINTS, oid::SUBJECT_KEY_ID, oid::AUTHORITY_KEY_ID] {
        let name = format!("{id} of another class");
        lies.push(lie(name, v5, 2, "tdx.format", move |s| {
            s.machine.pck.extension_mut(id).value[0] |= 0x40;
        }));
    }
    lies.push(lie("the SGX extension twice", v5, 2, "tdx.format", |s| {
        s.machine.pck.duplicate(oid::SGX);
    }));
    refuse(lies);
    // A flag that is left out is undefined, and the order says nothing.
    let mut scene = v5();
    let mut entries = scene.machine.platform.entries();
    let empty = Entry::sequence(&[]);
    entries = with(entries, oid::CONFIGURATION, empty);
    entries.reverse();
    *scene.machine.pck.extension_mut(oid::SGX) = sgx_extension(&entries);
    let configuration = scene.holds("no flags").pck().configuration.unwrap();
    assert_eq!(
        (
            configuration.dynamic_platform,
            configuration.cached_keys,
            configuration.smt_enabled
        ),
        (None, None, None)
    );
}
