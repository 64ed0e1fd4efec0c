//! `/dev/sev-guest`.

use std::time::Instant;

use touchstone_formats::evidence::Tee;
use touchstone_quote_source::{SevGuest, SourceError};
use touchstone_simulated_guest::certificate_table;
use touchstone_simulated_guest::sev_guest::{Fault, SevGuest as Device};
use touchstone_testkit::machine::Machine;
use touchstone_testkit::snp::Report;

use crate::common::{Place, can_mount, data_in, judge, mount_device, snp};

fn opened(machine: &Machine) -> (Place<Device>, SevGuest) {
    let place = mount_device(Device::new(machine.clone()));
    let device = SevGuest::open(&place.mounted.device(), None).unwrap();
    (place, device)
}

#[test]
fn reports_of_the_device_are_accepted() {
    if !can_mount("reports_of_the_device_are_accepted") {
        return;
    }
    let machine = snp();
    let (_place, mut device) = opened(&machine);
    let report = device.quote(&[7; 64]).unwrap();
    assert_eq!(report.tee, Tee::SevSnp);
    assert_eq!(judge(&machine, &report.quote, None, &[7; 64]), (6, None));
    assert_eq!(
        judge(&machine, &report.quote, None, &[8; 64]),
        (3, Some("evidence.report_data".into()))
    );
    let mut table = certificate_table(&machine.endorsement, &machine.collateral());
    table.resize(0x4000, 0);
    assert_eq!(report.certificates, Some(table));
}

#[test]
fn a_thousand_reports_in_a_row() {
    if !can_mount("a_thousand_reports_in_a_row") {
        return;
    }
    let (place, mut device) = opened(&snp());
    let began = Instant::now();
    for n in 0..1_000_u32 {
        let mut data = [0; 64];
        data[..4].copy_from_slice(&n.to_le_bytes());
        let report = device.quote(&data).unwrap();
        assert_eq!(data_in::<Machine>(&report.quote), Some(data));
    }
    println!("1,000 reports in {:?}", began.elapsed());
    assert_eq!(place.mounted.state().reports, 1_000);
}

#[test]
fn the_hosts_certificates_are_bytes_that_nobody_follows() {
    if !can_mount("the_hosts_certificates_are_bytes_that_nobody_follows") {
        return;
    }
    let (place, mut device) = opened(&snp());
    // An entry that points far outside of the table, and no end of the table.
    let mut hostile = vec![0xFF; 0x4000];
    hostile[..16].fill(7);
    for (given, taken) in [
        (hostile.clone(), Some(hostile)),
        (vec![0; 100], None),
        (Vec::new(), None),
    ] {
        place.mounted.state().certificates = Some(given);
        let report = device.quote(&[1; 64]).unwrap();
        assert_eq!(data_in::<Machine>(&report.quote), Some([1; 64]));
        assert!(report.certificates == taken);
    }
}

#[test]
fn certificates_that_do_not_fit_are_left_out() {
    if !can_mount("certificates_that_do_not_fit_are_left_out") {
        return;
    }
    let (place, mut device) = opened(&snp());
    assert!(device.quote(&[1; 64]).unwrap().certificates.is_some());
    place.mounted.state().certificates = Some(vec![1; 0x4001]);
    for report_all_the_same in [false, true] {
        place.mounted.state().report_despite_certificates = report_all_the_same;
        let report = device.quote(&[1; 64]).unwrap();
        assert_eq!(report.certificates, None);
        assert_eq!(data_in::<Machine>(&report.quote), Some([1; 64]));
    }
}

#[test]
fn the_vmpl_is_asked_for_and_refused() {
    if !can_mount("the_vmpl_is_asked_for_and_refused") {
        return;
    }
    let place = mount_device(Device::new(snp()));
    place.mounted.state().vmpl_floor = 2;
    let open = |vmpl| SevGuest::open(&place.mounted.device(), vmpl);
    let report = open(Some(2)).unwrap().quote(&[1; 64]).unwrap();
    assert_eq!(Report::from_bytes(&report.quote).unwrap().vmpl, 2);
    for vmpl in [None, Some(0), Some(1)] {
        let refused = open(vmpl).unwrap().quote(&[1; 64]).unwrap_err();
        assert!(
            matches!(
                refused,
                SourceError::Refused {
                    status: 0x16,
                    host: 0,
                    ..
                }
            ),
            "{refused}"
        );
    }
    let refused = open(Some(4)).unwrap_err();
    assert!(matches!(refused, SourceError::Privilege { asked: 4, .. }));
}

#[test]
fn errors_of_driver_firmware_and_host_have_their_meaning() {
    if !can_mount("errors_of_driver_firmware_and_host_have_their_meaning") {
        return;
    }
    type Meaning = fn(&SourceError) -> bool;
    let busy: Meaning = |error| matches!(error, SourceError::Busy { .. });
    let none: Meaning = |error| matches!(error, SourceError::NoProvider { .. });
    let other: Meaning = |error| matches!(error, SourceError::Interface { .. });
    let refused: Meaning = |error| matches!(error, SourceError::Refused { .. });
    let malformed: Meaning = |error| matches!(error, SourceError::Malformed { .. });
    let (place, mut device) = opened(&snp());
    for (fault, meaning) in [
        (Fault::Errno(16, 0xff), busy),
        (Fault::Errno(110, 0xff), busy),
        (Fault::Errno(5, 2 << 32), busy), // the host is throttling
        (Fault::Errno(25, 0xff), none),   // the driver's key is gone
        (Fault::Errno(5, 0xff), other),   // before anybody was asked
        (Fault::Errno(5, 0x16), refused), // by the firmware
        (Fault::Errno(5, 3 << 32), refused), // by the host
        (Fault::Status(0x27), refused),
        (Fault::Length(0), malformed),
        (Fault::Length(1_183), malformed),
        (Fault::Length(u32::MAX), malformed),
    ] {
        place.mounted.state().faults.set(fault, Some(1));
        let error = device.quote(&[1; 64]).unwrap_err();
        assert!(meaning(&error), "{fault:?}: {error}");
        device.quote(&[1; 64]).unwrap();
    }
}

#[test]
fn what_is_no_such_device_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let absent = SevGuest::open(&folder.path().join("sev-guest"), None);
    assert!(matches!(absent, Err(SourceError::Absent { .. })));
    let file = folder.path().join("file");
    std::fs::write(&file, "no device").unwrap();
    let error = SevGuest::open(&file, None)
        .unwrap()
        .quote(&[1; 64])
        .unwrap_err();
    assert!(matches!(error, SourceError::NoProvider { .. }), "{error}");
}
