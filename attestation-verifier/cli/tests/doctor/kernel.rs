//! The kernel's own interfaces, by FUSE in front of simulated machines: honest, absent, busy, forbidden, slow, and lying.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use touchstone_formats::Tee;
use touchstone_simulated_guest::sev_guest::{Fault as DeviceFault, SevGuest};
use touchstone_simulated_guest::tsm::{Fault, Tsm};
use touchstone_simulated_guest::{Mounted, unusable};
use touchstone_testkit::fixtures;
use touchstone_testkit::machine::{Machine, TdxMachine, TeeMachine};

use crate::running::{Diagnosis, NOW, doctor};

/// A machine's folder with what stands for its interfaces in it.
struct Guest {
    tsm: Option<Mounted<Tsm>>,
    device: Option<Mounted<SevGuest>>,
    // Unmounted first.
    folder: tempfile::TempDir,
}

/// A folder, unless nothing can be mounted here.
fn guest(test: &str, machine: &impl TeeMachine) -> Option<Guest> {
    // Asked once: tests run side by side.
    static WHY: LazyLock<Option<String>> = LazyLock::new(unusable);
    if let Some(why) = WHY.as_deref() {
        fixtures::skipped(test, why);
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["tsm", "dev", "machine"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    machine.write_to(folder.path()).unwrap();
    Some(Guest {
        tsm: None,
        device: None,
        folder,
    })
}

impl Guest {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn with_tsm(mut self, tsm: Tsm) -> Guest {
        self.tsm = Some(tsm.mount(&self.path().join("tsm")).unwrap());
        self
    }

    fn with_device(mut self, device: SevGuest) -> Guest {
        self.device = Some(device.mount(&self.path().join("dev")).unwrap());
        self
    }

    fn tsm<T>(&self, change: impl FnOnce(&mut Tsm) -> T) -> T {
        change(&mut self.tsm.as_ref().unwrap().state())
    }

    fn device(&self, change: impl FnOnce(&mut SevGuest)) {
        change(&mut self.device.as_ref().unwrap().state());
    }

    /// With the simulated root named.
    #[track_caller]
    fn doctor(&self, more: &[&str]) -> Diagnosis {
        let mut args = vec!["--root", "machine", "--trust-simulated-root", "root.pem"];
        if self.tsm.is_some() {
            args.extend(["--tsm", "tsm"]);
        }
        if self.device.is_some() {
            args.extend(["--sev-guest", "dev/sev-guest"]);
        }
        args.extend(more);
        doctor(self.path(), &args)
    }

    #[track_caller]
    fn with_collateral(&self) -> Diagnosis {
        self.doctor(&["--folder", "collateral"])
    }
}

#[test]
fn configfs_tsm_of_sev_snp() {
    let machine = Machine::strict(NOW);
    let Some(guest) = guest("configfs_tsm_of_sev_snp", &machine) else {
        return;
    };
    let guest = guest.with_tsm(Tsm::new(Tee::SevSnp, machine));
    let found = guest.with_collateral();
    assert_eq!(
        (found.exit(), found.deciding()),
        (6, None),
        "{}",
        found.words
    );
    assert_eq!(found.json["source"], "configfs-tsm");
    assert_eq!(found.json["quote"]["platform"]["product"], "Genoa");
    assert_eq!(found.source("sev-guest")["state"], "absent");
    // The entry that it made is gone.
    guest.tsm(|tsm| assert!(tsm.entries().is_empty(), "{:?}", tsm.entries()));

    // The host's certificates are enough to follow the chain; they bring no revocation list.
    let found = guest.doctor(&[]);
    assert_eq!((found.exit(), found.deciding()), (5, Some("snp.chain.crl")));
    assert_eq!(found.json["quote"]["collateral"], "report");
    assert_eq!(found.json["quote"]["chain"], "verified");
    assert_eq!(found.check("snp.policy.debug")["proven"], true);

    // Another level than 0.
    let found = guest.doctor(&["--folder", "collateral", "--privilege", "2"]);
    assert_eq!((found.exit(), found.deciding()), (4, Some("snp.vmpl")));
    guest.tsm(|tsm| tsm.privilege_floor = Some(2));
    let found = guest.doctor(&["--privilege", "1"]);
    assert_eq!((found.exit(), found.deciding()), (7, Some("quote.source")));
    let advice = found.source("configfs-tsm")["advice"].as_str().unwrap();
    assert!(advice.contains("--privilege"), "{advice}");
}

#[test]
fn configfs_tsm_of_tdx() {
    let machine = TdxMachine::strict(NOW);
    let Some(guest) = guest("configfs_tsm_of_tdx", &machine) else {
        return;
    };
    let log = machine.event_log().unwrap();
    let guest = guest.with_tsm(Tsm::new(Tee::Tdx, machine));
    let found = guest.with_collateral();
    assert_eq!(
        (found.exit(), found.deciding()),
        (6, None),
        "{}",
        found.words
    );
    assert_eq!(found.json["quote"]["platform"]["event_log"], "absent");
    let tables = guest.path().join("machine/sys/firmware/acpi/tables/data");
    fs::create_dir_all(&tables).unwrap();
    fs::write(tables.join("CCEL"), &log.data.0).unwrap();
    let found = guest.with_collateral();
    assert_eq!(found.exit(), 6, "{}", found.words);
    assert_eq!(found.json["quote"]["platform"]["event_log"], "replayed");
    assert_eq!(found.fact("event log")["good"], true);
    // A log of another boot.
    let mut other = log.data.0.clone();
    let place = other.len() / 2;
    other[place] ^= 1;
    fs::write(tables.join("CCEL"), other).unwrap();
    let found = guest.with_collateral();
    assert_eq!((found.exit(), found.deciding()), (4, Some("tdx.event_log")));
    let found = guest.doctor(&[]);
    assert_eq!(
        (found.exit(), found.deciding()),
        (5, Some("tdx.collateral"))
    );
}

#[test]
fn the_device_of_sev_snp() {
    let machine = Machine::strict(NOW);
    let Some(guest) = guest("the_device_of_sev_snp", &machine) else {
        return;
    };
    let guest = guest.with_device(SevGuest::new(machine));
    let found = guest.with_collateral();
    assert_eq!(
        (found.exit(), found.deciding()),
        (6, None),
        "{}",
        found.words
    );
    assert_eq!(found.json["source"], "sev-guest");
    assert_eq!(found.source("configfs-tsm")["state"], "absent");
    let found = guest.doctor(&[]);
    assert_eq!((found.exit(), found.deciding()), (5, Some("snp.chain.crl")));
    assert_eq!(found.json["quote"]["collateral"], "report");
    // What the host puts there in place of certificates is left out, and said.
    guest.device(|device| device.certificates = Some(vec![0xa5; 1000]));
    let found = guest.doctor(&[]);
    assert_eq!(
        (found.exit(), found.deciding()),
        (5, Some("snp.collateral"))
    );
    assert_eq!(found.json["quote"]["chain"], "not-checked");
    assert!(
        found.json["notes"][0]
            .as_str()
            .unwrap()
            .contains("left out")
    );

    for (fault, state, exit) in [
        (DeviceFault::Lie, "wrong-report-data", 3),
        (DeviceFault::Errno(libc::EBUSY, 2 << 32), "failed", 7),
        (DeviceFault::Errno(libc::EIO, 0), "failed", 7),
        (DeviceFault::Status(0x16), "failed", 7),
        (DeviceFault::Length(7), "malformed", 2),
    ] {
        guest.device(|device| device.faults.set(fault, None));
        let found = guest.with_collateral();
        assert_eq!(
            found.source("sev-guest")["state"],
            state,
            "{fault:?}: {}",
            found.words
        );
        assert_eq!(found.exit(), exit, "{fault:?}: {}", found.words);
    }
    guest.device(SevGuest::clear_fault);
    assert_eq!(guest.with_collateral().exit(), 6);
}

#[test]
fn faults_of_configfs_tsm() {
    let machine = Machine::strict(NOW);
    let Some(guest) = guest("faults_of_configfs_tsm", &machine) else {
        return;
    };
    let guest = guest.with_tsm(Tsm::new(Tee::SevSnp, machine));
    for (fault, state, exit, advice) in [
        (Fault::Errno(libc::EBUSY), "failed", 7, "run doctor again"),
        (Fault::Errno(libc::EACCES), "failed", 7, "as root"),
        (Fault::Errno(libc::EIO), "failed", 7, "kernel's log"),
        (Fault::Race, "failed", 7, "Another process"),
        (Fault::Lie, "wrong-report-data", 3, "Believe nothing"),
        (Fault::Truncate, "malformed", 2, "Believe nothing"),
        (Fault::Endless, "malformed", 2, "does not behave"),
        (Fault::Empty, "malformed", 2, "does not behave"),
    ] {
        guest.tsm(|tsm| tsm.faults.set(fault, None));
        let found = guest.with_collateral();
        let source = found.source("configfs-tsm");
        assert_eq!(source["state"], state, "{fault:?}: {}", found.words);
        assert_eq!(found.exit(), exit, "{fault:?}: {}", found.words);
        let said = source["advice"].as_str().unwrap();
        assert!(said.contains(advice), "{fault:?}: {said}");
        assert!(found.json["quote"].is_null());
    }
    // What passes is waited for.
    guest.tsm(|tsm| tsm.faults.set(Fault::Errno(libc::EBUSY), Some(1)));
    assert_eq!(guest.with_collateral().exit(), 6);
    guest.tsm(|tsm| tsm.faults.clear());

    guest.tsm(|tsm| tsm.provider = Some("arm_cca_guest".into()));
    let found = guest.with_collateral();
    let said = found.source("configfs-tsm")["found"].as_str().unwrap();
    assert!(said.contains("arm_cca_guest"), "{said}");
    assert_eq!(found.exit(), 7);
    guest.tsm(|tsm| tsm.provider = None);
    let found = guest.with_collateral();
    assert_eq!((found.exit(), found.deciding()), (7, Some("quote.source")));
    let advice = found.source("configfs-tsm")["advice"].as_str().unwrap();
    assert!(advice.contains("no confidential VM"), "{advice}");
}

#[test]
fn a_source_that_hangs_is_given_up() {
    let machine = Machine::strict(NOW);
    let Some(guest) = guest("a_source_that_hangs_is_given_up", &machine) else {
        return;
    };
    let guest = guest.with_tsm(Tsm::new(Tee::SevSnp, machine));
    guest.tsm(|tsm| tsm.faults.set(Fault::Hang, None));
    std::thread::scope(|scope| {
        // A process ends when the kernel has answered it.
        scope.spawn(|| {
            let began = Instant::now();
            while guest.tsm(|tsm| tsm.hanging()) == 0 && began.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_secs(3));
            guest.tsm(Tsm::clear_fault);
        });
        let found = guest.doctor(&["--timeout", "1"]);
        assert_eq!((found.exit(), found.deciding()), (7, Some("quote.source")));
        let said = found.source("configfs-tsm")["found"].as_str().unwrap();
        assert!(said.contains("no answer within 1 s"), "{said}");
    });
}

/// A source that lies decides, also where another one is honest.
#[test]
fn one_liar_of_two_sources() {
    let machine = Machine::strict(NOW);
    let Some(guest) = guest("one_liar_of_two_sources", &machine) else {
        return;
    };
    let guest = guest
        .with_tsm(Tsm::new(Tee::SevSnp, machine.clone()))
        .with_device(SevGuest::new(machine));
    let found = guest.with_collateral();
    assert_eq!(found.exit(), 6, "{}", found.words);
    assert_eq!(found.json["source"], "configfs-tsm");
    assert_eq!(found.source("sev-guest")["state"], "quoted");
    guest.device(|device| device.faults.set(DeviceFault::Lie, None));
    let found = guest.with_collateral();
    assert_eq!(
        (found.exit(), found.deciding()),
        (3, Some("evidence.report_data"))
    );
    assert_eq!(found.json["source"], "configfs-tsm");
    guest.device(SevGuest::clear_fault);
    guest.tsm(|tsm| tsm.faults.set(Fault::Lie, None));
    let found = guest.with_collateral();
    assert_eq!(
        (found.exit(), found.deciding()),
        (3, Some("evidence.report_data"))
    );
    assert_eq!(found.json["source"], "sev-guest");
}
