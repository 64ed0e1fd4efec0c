//! What the simulated machine says by default is what the strict policy template asks for, measurement aside; and what the
//! template is strict about, it refuses when the machine says otherwise.

use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;
use touchstone_formats::Evidence;
use touchstone_testkit::amd::Product;
use touchstone_testkit::events::event_type;
use touchstone_testkit::machine::{Machine, TdxMachine, TeeMachine};
use touchstone_testkit::mint::World;
use touchstone_testkit::snp::policy::DEBUG;
use touchstone_testkit::tdx::{TdReport, attributes};
use touchstone_testkit::{fixtures, policy, stack};

#[test]
fn default_reports_satisfy_the_strict_template() {
    let Some(set_up) = SetUp::new("default_reports_satisfy_the_strict_template", "sev-snp") else {
        return;
    };
    for (product, version) in [
        (Product::Genoa, 3),
        (Product::Genoa, 5),
        (Product::Turin, 3),
        (Product::Turin, 5),
    ] {
        let machine = Machine::new(product, version, set_up.at);
        let measurement = hex::encode(machine.report.measurement);
        let policy = policy::edit(
            &set_up.template,
            &[(
                "snp.measurement",
                &format!("{{ expect = [{measurement:?}] }}"),
            )],
        );
        let judge = |machine: &Machine| set_up.judge(&policy, machine);
        assert_eq!(judge(&machine), (6, None), "{product} v{version}");

        type Lie = fn(&mut Machine);
        let lies: [(Lie, &str); 5] = [
            (|m| m.report.policy |= DEBUG, "snp.policy.debug"),
            (
                |m| m.report.platform_info &= !(1 << 5),
                "snp.platform.alias_check",
            ),
            (|m| m.report.measurement = [0; 48], "snp.measurement"),
            (|m| m.report.launch_tcb = [0; 8], "snp.tcb.launch"),
            (|m| m.report.report_id_ma = [0; 32], "snp.report_id_ma"),
        ];
        for (lie, deciding) in lies {
            let mut machine = machine.clone();
            lie(&mut machine);
            assert_eq!(
                judge(&machine),
                (4, Some(deciding.into())),
                "{product} v{version}"
            );
        }
    }
}

#[test]
fn default_quotes_satisfy_the_strict_template() {
    let Some(set_up) = SetUp::new("default_quotes_satisfy_the_strict_template", "tdx") else {
        return;
    };
    for (version, report) in [
        (4, TdReport::v1_0()),
        (5, TdReport::v1_0()),
        (5, TdReport::v1_5()),
    ] {
        let machine = TdxMachine::new(version, report, set_up.at);
        let expected: Vec<(&str, String)> = machine
            .reference_values()
            .into_iter()
            .map(|(key, value)| (key, format!("{{ expect = [{value:?}] }}")))
            .collect();
        let expected: Vec<(&str, &str)> = expected.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let policy = policy::edit(&set_up.template, &expected);
        let judge = |machine: &TdxMachine| set_up.judge(&policy, machine);
        assert_eq!(judge(&machine), (6, None), "v{version}");

        type Lie = fn(&mut TdxMachine);
        let lies: [(Lie, &str); 8] = [
            (
                |m| m.report.report.td_attributes |= attributes::DEBUG,
                "tdx.attributes.debug",
            ),
            (
                |m| m.report.report.td_attributes = 0,
                "tdx.attributes.sept_ve_disable",
            ),
            (|m| m.report.report.mr_td = [0; 48], "tdx.mrtd"),
            (|m| m.report.report.mr_owner[47] = 1, "tdx.mr_owner"),
            (
                |m| m.tcb_info.set_status("OutOfDate", &[]),
                "tdx.tcb.status",
            ),
            (
                |m| m.tcb_info.tcb_evaluation_data_number = 1,
                "tdx.tcb.evaluation_number",
            ),
            (
                |m| m.measure(3, event_type::EVENT_TAG, b"unknown"),
                "tdx.rtmr3",
            ),
            (|m| m.events.events[0].digest[0] ^= 1, "tdx.event_log"),
        ];
        for (lie, deciding) in lies {
            let mut machine = machine.clone();
            lie(&mut machine);
            assert_eq!(judge(&machine), (4, Some(deciding.into())), "v{version}");
        }
    }
}

/// The command, and the strict template that it writes.
struct SetUp {
    program: PathBuf,
    folder: TempDir,
    template: String,
    /// Now, Unix seconds.
    at: u64,
}

impl SetUp {
    /// None, and a line that says so, where the command has not been built.
    fn new(test: &str, tee: &str) -> Option<SetUp> {
        let program = stack::programs().join("touchstone");
        if !program.is_file() {
            let why = format!(
                "no {}: build it first, or set TOUCHSTONE_BIN_DIR",
                program.display()
            );
            fixtures::skipped(test, &why);
            return None;
        }
        let template = Command::new(&program)
            .args(["policy", "init", "--tee", tee])
            .output()
            .unwrap();
        Some(SetUp {
            program,
            folder: tempfile::tempdir().unwrap(),
            template: String::from_utf8(template.stdout).unwrap(),
            at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_secs(),
        })
    }

    /// Exit code and deciding check for this machine's evidence.
    fn judge<M: TeeMachine>(&self, policy: &str, machine: &M) -> (i32, Option<String>) {
        let world = World::on(machine.clone(), 1, self.at);
        let bind = touchstone_formats::report_data::bind_boot();
        let evidence = Evidence {
            purpose: None,
            ..world.evidence(touchstone_formats::Purpose::Boot, None, bind)
        };
        let path = |name: &str| self.folder.path().join(name);
        std::fs::write(path("evidence.json"), evidence.to_file()).unwrap();
        std::fs::write(path("policy.toml"), policy).unwrap();
        std::fs::write(path("root.pem"), machine.root_pem()).unwrap();
        let output = Command::new(&self.program)
            .args([
                "appraise",
                "evidence.json",
                "--policy",
                "policy.toml",
                "--trust-simulated-root",
                "root.pem",
                "--json",
            ])
            .current_dir(&self.folder)
            .output()
            .unwrap();
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        let deciding = verdict["deciding"].as_str().map(str::to_owned);
        (output.status.code().unwrap(), deciding)
    }
}
