//! Machines, mounts and the judge.

use attestation_verifier::policy::template;
use attestation_verifier::{At, Policy, Roots, appraise};
use tempfile::TempDir;
use touchstone_formats::evidence::{EventLog, Evidence, quote_report_data};
use touchstone_formats::{Digest, Purpose};
use touchstone_simulated_guest::{Mounted, sev_guest, tsm, unusable};
use touchstone_testkit::fixtures;
use touchstone_testkit::machine::{Machine, TdxMachine, TeeMachine};
use touchstone_testkit::policy::edit;

pub const AT: u64 = 1_790_000_000;

pub fn snp() -> Machine {
    Machine::strict(AT)
}

pub fn tdx() -> TdxMachine {
    TdxMachine::strict(AT)
}

/// Whether a test can run; says so if not.
pub fn can_mount(test: &str) -> bool {
    match unusable() {
        None => true,
        Some(why) => {
            fixtures::skipped(test, &why);
            false
        }
    }
}

/// A mount, and the folder that it is on.
pub struct Place<S: touchstone_simulated_guest::Shared> {
    // Unmounted before its folder is removed.
    pub mounted: Mounted<S>,
    _folder: TempDir,
}

pub fn mount_tsm(tsm: tsm::Tsm) -> Place<tsm::Tsm> {
    let folder = tempfile::tempdir().unwrap();
    let mounted = tsm.mount(folder.path()).unwrap();
    Place {
        mounted,
        _folder: folder,
    }
}

pub fn mount_device(device: sev_guest::SevGuest) -> Place<sev_guest::SevGuest> {
    let folder = tempfile::tempdir().unwrap();
    let mounted = device.mount(folder.path()).unwrap();
    Place {
        mounted,
        _folder: folder,
    }
}

/// The verifier's exit code (6: it all holds, on a simulated platform) and deciding check for a quote of this machine.
pub fn judge<M: TeeMachine>(
    machine: &M,
    quote: &[u8],
    event_log: Option<EventLog>,
    report_data: &[u8; 64],
) -> (u8, Option<String>) {
    let models = format!("{{ expect = [\"{}\"] }}", Digest::of(b"a model"));
    let mut changes = vec![("models", models)];
    for (key, value) in machine.reference_values() {
        changes.push((key, format!("{{ expect = [{value:?}] }}")));
    }
    let changes: Vec<(&str, &str)> = changes.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let policy = Policy::parse(&edit(&template(M::TEE), &changes)).unwrap();
    let roots = Roots::pinned()
        .with_simulated_pem(machine.root_pem().as_bytes())
        .unwrap();
    let evidence = Evidence {
        purpose: Some(Purpose::Boot),
        nonce: None,
        tee: M::TEE,
        quote: quote.to_vec(),
        collateral: Some(M::evidence_collateral(machine.attached())),
        event_log,
    };
    let at = At {
        time: AT,
        asserted: true,
    };
    let verdict = appraise(&evidence.to_file(), &policy, &roots, Some(report_data), at);
    (verdict.exit(), verdict.deciding().map(str::to_owned))
}

/// The report data in a quote.
pub fn data_in<M: TeeMachine>(quote: &[u8]) -> Option<[u8; 64]> {
    quote_report_data(M::TEE, quote)
}
