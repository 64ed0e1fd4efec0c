//! configfs-tsm.

use std::fs;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use touchstone_formats::evidence::Tee;
use touchstone_quote_source::{Provider, SourceError, Tsm};
use touchstone_simulated_guest::certificate_table;
use touchstone_simulated_guest::tsm::{Fault, Tsm as Kernel};
use touchstone_testkit::machine::{Machine, TeeMachine};
use touchstone_testkit::snp::Report;

use crate::common::{Place, can_mount, data_in, judge, mount_tsm, snp, tdx};

/// A kernel on this machine, and a source in it.
fn opened(machine: &Machine) -> (Place<Kernel>, Tsm) {
    let place = mount_tsm(Kernel::new(Tee::SevSnp, machine.clone()));
    let tsm = Tsm::open(place.mounted.path(), "touchstone", None).unwrap();
    (place, tsm)
}

#[test]
fn quotes_of_both_platforms_are_accepted() {
    if !can_mount("quotes_of_both_platforms_are_accepted") {
        return;
    }
    let machine = snp();
    let (_place, mut tsm) = opened(&machine);
    let report = tsm.quote(&[7; 64]).unwrap();
    assert_eq!((report.tee, report.privilege), (Tee::SevSnp, None));
    assert_eq!(judge(&machine, &report.quote, None, &[7; 64]), (6, None));
    let table = certificate_table(&machine.endorsement, &machine.collateral());
    assert_eq!(report.certificates, Some(table));
    // It is about these bytes and no others.
    assert_eq!(
        judge(&machine, &report.quote, None, &[8; 64]),
        (3, Some("evidence.report_data".into()))
    );

    let machine = tdx();
    let place = mount_tsm(Kernel::new(Tee::Tdx, machine.clone()));
    let mut tsm = Tsm::open(place.mounted.path(), "touchstone", None).unwrap();
    let report = tsm.quote(&[7; 64]).unwrap();
    assert_eq!((report.tee, report.certificates), (Tee::Tdx, None));
    let log = machine.event_log();
    assert_eq!(judge(&machine, &report.quote, log, &[7; 64]), (6, None));
}

#[test]
fn a_thousand_quotes_in_a_row() {
    if !can_mount("a_thousand_quotes_in_a_row") {
        return;
    }
    let (place, mut tsm) = opened(&snp());
    let began = Instant::now();
    for n in 0..1_000_u32 {
        let mut data = [0; 64];
        data[..4].copy_from_slice(&n.to_le_bytes());
        let report = tsm.quote(&data).unwrap();
        assert_eq!(data_in::<Machine>(&report.quote), Some(data));
    }
    println!("1,000 quotes in {:?}", began.elapsed());
    assert_eq!(place.mounted.state().reports, 1_000);
}

#[test]
fn the_simulated_interface_is_as_particular_as_the_kernels() {
    if !can_mount("the_simulated_interface_is_as_particular_as_the_kernels") {
        return;
    }
    let (place, _tsm) = opened(&snp());
    let entry = place.mounted.path().join("touchstone");
    let read = |name: &str| fs::read(entry.join(name));
    let write = |name: &str, bytes: &[u8]| {
        use std::io::Write;
        let file = fs::OpenOptions::new().write(true).open(entry.join(name));
        file.and_then(|mut file| file.write_all(bytes))
    };
    let errno = |result: std::io::Result<()>| result.err().and_then(|error| error.raw_os_error());
    assert_eq!(read("outblob").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(errno(write("inblob", &[1; 65])), Some(27), "EFBIG");
    assert_eq!(read("generation").unwrap(), b"0\n");
    write("inblob", &[1; 64]).unwrap();
    assert_eq!(read("generation").unwrap(), b"1\n");
    write("privlevel", b"2\n").unwrap();
    assert_eq!(read("generation").unwrap(), b"2\n");
    assert_eq!(errno(write("privlevel", b"4")), Some(22), "EINVAL");
    assert_eq!(read("provider").unwrap(), b"sev_guest\n");
    // Kept until the next write.
    let first = read("outblob").unwrap();
    assert_eq!(read("outblob").unwrap(), first);
    assert_eq!(place.mounted.state().reports, 1);
    assert_eq!(errno(read("inblob").map(drop)), Some(13), "EACCES");
    assert_eq!(errno(write("outblob", b"x")), Some(13), "EACCES");
}

#[test]
fn an_entry_is_used_if_it_is_there_and_else_made_and_removed() {
    if !can_mount("an_entry_is_used_if_it_is_there_and_else_made_and_removed") {
        return;
    }
    let (place, tsm) = opened(&snp());
    assert_eq!(place.mounted.state().entries(), ["touchstone"]);
    drop(tsm);
    assert!(place.mounted.state().entries().is_empty());
    place.mounted.state().make_entry("touchstone");
    let mut tsm = Tsm::open(place.mounted.path(), "touchstone", None).unwrap();
    tsm.quote(&[1; 64]).unwrap();
    drop(tsm);
    assert_eq!(place.mounted.state().entries(), ["touchstone"]);
}

#[test]
fn without_a_provider_nothing_is_opened() {
    if !can_mount("without_a_provider_nothing_is_opened") {
        return;
    }
    let place = mount_tsm(Kernel::new(Tee::SevSnp, snp()));
    let open = || Tsm::open(place.mounted.path(), "touchstone", None);
    assert_eq!(open().unwrap().provider().unwrap(), Provider::SevGuest);
    place.mounted.state().provider = None;
    assert!(matches!(open(), Err(SourceError::NoProvider { .. })));
    for name in ["arm_cca_guest", "sev_guest2", "", "tdx_guest\ttdx_guest"] {
        place.mounted.state().provider = Some(name.into());
        let refused = open().unwrap_err();
        assert!(
            matches!(
                refused,
                SourceError::UnknownProvider { .. } | SourceError::Malformed { .. }
            ),
            "{name:?}: {refused}"
        );
    }
    place.mounted.state().provider = Some("tdx_guest".into());
    assert_eq!(open().unwrap().provider().unwrap(), Provider::TdxGuest);

    // No configfs-tsm at all, and a folder that is none.
    let nowhere = place.mounted.path().join("nowhere");
    let absent = Tsm::open(&nowhere, "touchstone", None);
    assert!(matches!(absent, Err(SourceError::Absent { .. })));
    let plain = tempfile::tempdir().unwrap();
    let absent = Tsm::open(plain.path(), "touchstone", None);
    assert!(matches!(absent, Err(SourceError::Absent { .. })));
    assert_eq!(fs::read_dir(plain.path()).unwrap().count(), 0);
    for name in ["", "..", "a/b", ".a"] {
        let refused = Tsm::open(place.mounted.path(), name, None);
        assert!(matches!(refused, Err(SourceError::Malformed { .. })));
    }
}

#[test]
fn another_writer_is_noticed() {
    if !can_mount("another_writer_is_noticed") {
        return;
    }
    let (place, mut tsm) = opened(&snp());
    // An error may be the answer to what the other one wrote, too.
    for fault in [Fault::Race, Fault::LateRace, Fault::RaceErrno(5)] {
        // It goes away.
        place.mounted.state().faults.set(fault, Some(3));
        let report = tsm.quote(&[1; 64]).unwrap();
        assert_eq!(data_in::<Machine>(&report.quote), Some([1; 64]));
        // It does not.
        place.mounted.state().faults.set(fault, None);
        let raced = tsm.quote(&[2; 64]).unwrap_err();
        let SourceError::Raced {
            expected,
            found,
            tries,
            ..
        } = &raced
        else {
            panic!("{raced}")
        };
        assert!(found > expected && *tries == 4, "{raced}");
        place.mounted.state().clear_fault();
        tsm.quote(&[3; 64]).unwrap();
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_real_concurrent_writer_never_gets_its_quote_taken_for_ours() {
    if !can_mount("a_real_concurrent_writer_never_gets_its_quote_taken_for_ours") {
        return;
    }
    let (place, mut tsm) = opened(&snp());
    let inblob = place.mounted.path().join("touchstone/inblob");
    let stop = AtomicBool::new(false);
    let (mut made, mut raced) = (0, 0);
    std::thread::scope(|scope| {
        // Stops the writer also when an assertion fails, or the scope would wait for it.
        let _stop = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::write(&inblob, [0xBB; 64]).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        });
        let began = Instant::now();
        for n in 0_u8.. {
            match tsm.quote(&[n; 64]) {
                Ok(report) => {
                    assert_eq!(data_in::<Machine>(&report.quote), Some([n; 64]));
                    made += 1;
                }
                Err(SourceError::Raced { .. }) => raced += 1,
                Err(error) => panic!("{error}"),
            }
            if n == 0xBA || began.elapsed().as_secs() > 20 {
                break;
            }
        }
    });
    println!("{made} made, {raced} raced");
    assert!(made + raced > 0);
}

#[test]
fn errors_of_the_kernel_have_their_meaning() {
    if !can_mount("errors_of_the_kernel_have_their_meaning") {
        return;
    }
    type Meaning = fn(&SourceError) -> bool;
    let busy: Meaning = |error| matches!(error, SourceError::Busy { .. });
    let none: Meaning = |error| matches!(error, SourceError::NoProvider { .. });
    let other: Meaning = |error| matches!(error, SourceError::Interface { .. });
    let denied: Meaning = |error| matches!(error, SourceError::Denied { .. });
    let (place, mut tsm) = opened(&snp());
    for (errno, meaning, transient) in [
        (16, busy, true),   // EBUSY
        (11, busy, true),   // EAGAIN, EWOULDBLOCK
        (110, busy, true),  // ETIMEDOUT
        (6, none, false),   // ENXIO
        (25, none, false),  // ENOTTY
        (19, none, false),  // ENODEV
        (5, other, false),  // EIO
        (22, other, false), // EINVAL
        (61, other, false), // ENODATA
        (13, denied, false),
    ] {
        place
            .mounted
            .state()
            .faults
            .set(Fault::Errno(errno), Some(1));
        let error = tsm.quote(&[1; 64]).unwrap_err();
        assert!(meaning(&error), "{errno}: {error}");
        assert_eq!(error.is_transient(), transient, "{errno}");
        tsm.quote(&[1; 64]).unwrap();
    }
    // The driver goes while the entry is there.
    let provider = place.mounted.state().provider.take();
    let gone = tsm.quote(&[1; 64]).unwrap_err();
    assert!(none(&gone), "{gone}");
    place.mounted.state().provider = provider;
    tsm.quote(&[1; 64]).unwrap();
}

#[test]
fn reports_without_end_or_bytes_are_malformed() {
    if !can_mount("reports_without_end_or_bytes_are_malformed") {
        return;
    }
    let (place, mut tsm) = opened(&snp());
    for fault in [Fault::Endless, Fault::Empty] {
        place.mounted.state().faults.set(fault, Some(1));
        let error = tsm.quote(&[1; 64]).unwrap_err();
        assert!(
            matches!(error, SourceError::Malformed { what: "length", .. }),
            "{error}"
        );
        tsm.quote(&[1; 64]).unwrap();
    }
}

#[test]
fn privilege_levels_are_asked_for_and_refused() {
    if !can_mount("privilege_levels_are_asked_for_and_refused") {
        return;
    }
    let place = mount_tsm(Kernel::new(Tee::SevSnp, snp()));
    place.mounted.state().privilege_floor = Some(1);
    let open = |level| Tsm::open(place.mounted.path(), "touchstone", Some(level));
    for level in [1, 2, 3] {
        let report = open(level).unwrap().quote(&[1; 64]).unwrap();
        assert_eq!(report.privilege, Some(level));
        let read = Report::from_bytes(&report.quote).unwrap();
        assert_eq!(read.vmpl, u32::from(level));
    }
    for level in [0, 4, 255] {
        let refused = open(level).unwrap_err();
        assert!(
            matches!(refused, SourceError::Privilege { asked, .. } if asked == level),
            "{refused}"
        );
    }
    // The floor rises.
    let mut tsm = open(1).unwrap();
    tsm.quote(&[1; 64]).unwrap();
    place.mounted.state().privilege_floor = Some(2);
    let refused = tsm.quote(&[1; 64]).unwrap_err();
    assert!(matches!(refused, SourceError::Privilege { asked: 1, .. }));
    // Nothing like it on TDX.
    let place = mount_tsm(Kernel::new(Tee::Tdx, tdx()));
    let open = |level| Tsm::open(place.mounted.path(), "touchstone", level);
    open(None).unwrap().quote(&[1; 64]).unwrap();
    let refused = open(Some(0)).unwrap_err();
    assert!(matches!(refused, SourceError::Privilege { asked: 0, .. }));
}
