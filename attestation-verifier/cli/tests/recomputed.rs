//! From files to a verdict, with nothing in between but the commands: `measure`, `manifest`, `policy init`, `check`. One changed
//! byte of any file is another measurement, and what ran before is refused.

mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use support::{Run, touchstone_in};
use touchstone_launch::tdx::rtmr::{Boot, Edk2, SetupHeader};
use touchstone_testkit::events::{Event, EventLog};
use touchstone_testkit::firmware::Firmware;
use touchstone_testkit::machine::{Machine, TdxMachine, TeeMachine};
use touchstone_testkit::mint::{Exchange, World};
use touchstone_testkit::tdx_boot::{LinuxKernel, TdxFirmware};

const FILES: [(&str, &str); 4] = [
    ("firmware", "OVMF.fd"),
    ("kernel", "vmlinuz"),
    ("initrd", "initrd.img"),
    ("cmdline", "cmdline"),
];
const CMDLINE: &str = "console=hvc0 quiet";
const END: &str = "2100-01-01T00:00:00Z";

/// A kind of machine that boots firmware, kernel, initrd and command line.
trait Boots: TeeMachine {
    const KIND: &'static str;
    /// How `policy init` calls it.
    const POLICY: &'static str;
    const MINIMUM: &'static str;
    /// The check that refuses when this file is not the one that ran; the manifest has no such measurement then.
    fn deciding(role: &str) -> &'static str;
    fn firmware() -> Vec<u8>;
    /// A byte of the firmware that is measured.
    const IN_FIRMWARE: usize;
    /// The options of `measure` beside the files.
    fn shape(&self) -> String;
    /// Boots: has its hardware report this measurement, as `measure` gave it.
    fn boot(&mut self, measured: &Value, kernel: &[u8], initrd: &[u8]);
}

fn register(value: &Value) -> [u8; 48] {
    let bytes = hex::decode(value.as_str().expect("hex")).unwrap();
    bytes.try_into().expect("48 bytes")
}

impl Boots for Machine {
    const KIND: &'static str = "snp";
    const POLICY: &'static str = "sev-snp";
    const MINIMUM: &'static str = "Genoa:bootloader=9,tee=0,snp=23,microcode=72";
    const IN_FIRMWARE: usize = 5;

    fn deciding(_: &str) -> &'static str {
        "snp.measurement"
    }

    fn firmware() -> Vec<u8> {
        Firmware::amd_sev(64 << 10).build()
    }

    fn shape(&self) -> String {
        "--vcpus 1,2 --cpu EPYC-Genoa".into()
    }

    fn boot(&mut self, measured: &Value, _: &[u8], _: &[u8]) {
        // The second of the shapes: two virtual CPUs.
        self.report.measurement = register(&measured["measurements"][1]["snp"]["measurement"]);
    }
}

impl Boots for TdxMachine {
    const KIND: &'static str = "tdx";
    const POLICY: &'static str = "tdx";
    const MINIMUM: &'static str = "tcb_evaluation_data_number=1";
    const IN_FIRMWARE: usize = 0x2345;

    fn deciding(role: &str) -> &'static str {
        match role {
            "firmware" => "tdx.mrtd",
            "kernel" => "tdx.rtmr1",
            _ => "tdx.rtmr2",
        }
    }

    fn firmware() -> Vec<u8> {
        TdxFirmware::new(0x2000, 0x3000).image()
    }

    fn shape(&self) -> String {
        // As seen once: what the simulated firmware logs.
        let rtmr0 = hex::encode(EventLog::boot().replay(0));
        format!("--page-add-order one-pass --setup-header as-is --edk2 202508 --rtmr0 {rtmr0}")
    }

    fn boot(&mut self, measured: &Value, kernel: &[u8], initrd: &[u8]) {
        let measured = &measured["measurements"][0]["tdx"];
        let boot = Boot::new(kernel, initrd, CMDLINE).unwrap();
        let events = boot.events(SetupHeader::AsIs, Edk2::Stable202508).unwrap();
        self.events.events.retain(|event| event.mr_index == 1);
        self.events.events.extend(events.iter().map(|event| Event {
            mr_index: u32::from(event.register) + 1,
            event_type: event.kind,
            digest: event.digest.0,
            data: Vec::new(),
        }));
        let report = &mut self.report.report;
        report.mr_td = register(&measured["mrtd"]);
        report.rtmr = [0, 1, 2, 3].map(|n| self.events.replay(n));
        // The log is of this boot.
        assert_eq!(report.rtmr[0], register(&measured["rtmr0"][0]));
        assert_eq!(report.rtmr[1], register(&measured["rtmr1"]));
        assert_eq!(report.rtmr[2], register(&measured["rtmr2"]));
    }
}

/// A folder with everything that somebody has who pins and somebody who judges.
struct Place<M: TeeMachine> {
    folder: tempfile::TempDir,
    world: World<M>,
}

impl<M: Boots> Place<M> {
    /// What boots is what is measured here.
    fn new() -> Place<M> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap().as_secs();
        let mut place = Place {
            folder: tempfile::tempdir().unwrap(),
            world: World::on(M::strict(now), 1, now),
        };
        let (kernel, initrd) = (LinuxKernel::default().image(), b"an initrd".to_vec());
        place.write("OVMF.fd", M::firmware());
        place.write("vmlinuz", &kernel);
        place.write("initrd.img", &initrd);
        place.write("cmdline", format!("{CMDLINE}\n"));
        let measured = place.measure();
        place.world.machine.boot(&measured, &kernel, &initrd);
        let minted = place.world.mint(Exchange::json(1)).finish();
        minted.write_to(&place.path("answer")).unwrap();
        place.write("root.pem", minted.root_pem);
        for name in ["alice", "bob"] {
            let run = place.ok(&format!("manifest key -o {name}.pem"));
            place.write(&format!("{name}.pub.pem"), run.stdout);
        }
        place.ok(&format!(
            "policy init --tee {} --manifest-signer alice=alice.pub.pem --manifest-signer bob=bob.pub.pem --threshold 2 \
             --manifest-name touchstone-enclave -o policy.toml",
            M::POLICY
        ));
        place
    }

    /// `measure`, of the files as they are.
    fn measure(&self) -> Value {
        let shape = self.world.machine.shape();
        let run = self.ok(&format!(
            "measure {} --firmware OVMF.fd --kernel vmlinuz --initrd initrd.img --cmdline-file cmdline {shape} --json",
            M::KIND
        ));
        self.write("measured.json", &run.stdout);
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// Measures and drafts; both sign.
    fn manifest(&self, version: u64) -> String {
        let measured = self.measure();
        let file = format!("manifest-{version}.jsonl");
        self.ok(&format!(
            "manifest new --name touchstone-enclave --version {version} --not-after {END} -o draft-{version}.json"
        ));
        let told: Vec<String> = FILES
            .iter()
            .map(|(role, _)| format!("--origin {role}=rebuilt --source {role}=here"))
            .collect();
        self.ok(&format!(
            "manifest add draft-{version}.json --release 1.4.{version} --release-not-after {END} --platform qemu \
             --measured measured.json --quote-source exclusive --minimum-tcb {} {}",
            M::MINIMUM,
            told.join(" ")
        ));
        let model = &self.world.models[0];
        self.ok(&format!(
            "manifest add-model draft-{version}.json --name fraud-score --version 3 --digest {} --config {}",
            model.model_digest, model.config_digest
        ));
        for name in ["alice", "bob"] {
            self.ok(&format!(
                "manifest sign draft-{version}.json --key {name}.pem -o {file}"
            ));
        }
        // What was measured is what is signed, whole.
        let verified = self.ok(&format!(
            "manifest verify {file} --signer alice=alice.pub.pem --signer bob=bob.pub.pem --threshold 2 --json"
        ));
        let verified: Value = serde_json::from_str(&verified.stdout).unwrap();
        assert_eq!(verified["deciding"], Value::Null, "{verified}");
        let draft = fs::read(self.path(&format!("draft-{version}.json"))).unwrap();
        let draft: Value = serde_json::from_slice(&draft).unwrap();
        let platform = &draft["releases"][0]["platforms"][0];
        assert_eq!(platform["measurements"], measured["measurements"]);
        file
    }

    fn check(&self, more: &str) -> Run {
        self.run(&format!(
            "check answer --policy policy.toml --trust-simulated-root root.pem --json {more}"
        ))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    fn run(&self, args: &str) -> Run {
        let args: Vec<&str> = args.split_whitespace().collect();
        touchstone_in(self.folder.path(), &args)
    }

    #[track_caller]
    fn ok(&self, args: &str) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args}\n{}", run.stderr);
        run
    }
}

fn what_runs_is_what_was_measured<M: Boots>() {
    let place = Place::<M>::new();
    let right = place.manifest(1);
    let holds = || {
        let run = place.check(&format!("--manifest {right}"));
        let verdict = run.verdict();
        assert_eq!(run.code, 6, "{}", run.stderr);
        assert_eq!(verdict["release"]["release"], "1.4.1");
        assert_eq!(
            verdict["release"]["signed_by"],
            serde_json::json!(["alice", "bob"])
        );
        let line = "software: enclave 1.4.1 (signed by 2 of 2), model fraud-score version 3\n";
        assert!(run.stderr.contains(line), "{}", run.stderr);
        assert!(!run.stderr.contains("rebuilt by nobody"), "{}", run.stderr);
    };
    holds();
    place.check("").refused(5, "manifest.present");

    let base = place.measure();
    for (version, (role, name)) in (2..).zip(FILES) {
        let whole = fs::read(place.path(name)).unwrap();
        let mut changed = whole.clone();
        let at = if role == "firmware" {
            M::IN_FIRMWARE
        } else {
            whole.len() / 2
        };
        changed[at] ^= 1;
        place.write(name, &changed);
        let measured = place.measure();
        let (was, is) = (&base["measurements"], &measured["measurements"]);
        let (was, is) = (was.as_array().unwrap(), is.as_array().unwrap());
        assert_eq!(was.len(), is.len());
        assert!(is.iter().all(|one| !was.contains(one)), "{role}");
        let other = place.manifest(version);
        place.write(name, &whole);

        let run = place.check(&format!("--manifest {other}"));
        let verdict = run.refused(4, M::deciding(role));
        assert_eq!(verdict["release"]["release"], Value::Null, "{role}");
        let failed: Vec<&str> = verdict["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|check| check["result"] == "fail")
            .map(|check| check["id"].as_str().unwrap())
            .collect();
        assert!(failed.contains(&"manifest.platform"), "{role}: {failed:?}");
        assert!(
            run.stderr.contains(&format!("1.4.{version}")),
            "{}",
            run.stderr
        );
    }
    assert_eq!(place.measure(), base);
    holds();
}

#[test]
fn of_sev_snp() {
    what_runs_is_what_was_measured::<Machine>();
}

#[test]
fn of_tdx() {
    what_runs_is_what_was_measured::<TdxMachine>();
}
