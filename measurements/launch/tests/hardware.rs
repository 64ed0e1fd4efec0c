//! What hardware signed: its measurement recomputes from what the guest was launched from. See `testdata/PROVENANCE.md`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use touchstone_launch::ovmf::{Section, SectionKind};
use touchstone_launch::snp::{Cpu, Firmware, Guest, Kernel, Launch, Vmm};
use touchstone_launch::{Sha256, Sha384};

struct Inputs(Value);

impl Inputs {
    fn number(&self, name: &str) -> u32 {
        self.0[name].as_u64().unwrap().try_into().unwrap()
    }

    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap()
    }

    fn launch(&self) -> Launch {
        let sections = self.0["ovmf_sections"].as_array().unwrap().iter();
        let sections = sections.map(|section| {
            let section = Inputs(section.clone());
            Section {
                gpa: section.number("gpa"),
                size: section.number("size"),
                kind: SectionKind::of(section.number("section_type")).unwrap(),
            }
        });
        let firmware = Firmware::of_digest(
            self.text("ovmf_hash").parse().unwrap(),
            sections.collect(),
            Some(self.number("sev_hashes_table_gpa")),
            self.number("sev_es_reset_eip"),
        );
        let hash = |name| self.text(name).parse::<Sha256>().unwrap();
        let line = self.text("base_cmdline").as_bytes();
        let kernel = Kernel::new(hash("kernel_hash"), Some(hash("initrd_hash")), line);
        Launch::new(firmware.unwrap(), Vmm::Qemu, Some(kernel.unwrap())).unwrap()
    }

    fn guest(&self) -> Guest {
        Guest {
            vcpus: self.number("vcpus"),
            cpu: Cpu::named(self.text("vcpu_type")),
            features: self.number("guest_features").into(),
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/dstack-milan")
}

fn inputs() -> Inputs {
    let text = std::fs::read_to_string(folder().join("launch_inputs.json")).unwrap();
    let whole: Value = serde_json::from_str(&text).unwrap();
    Inputs(whole["sev_snp_measurement"].clone())
}

#[test]
fn a_measurement_that_hardware_signed_recomputes() {
    let report = std::fs::read(folder().join("report.bin")).unwrap();
    let signed = Sha384(report[0x90..0xc0].try_into().unwrap());
    let (launch, guest) = (inputs().launch(), inputs().guest());
    assert_eq!(launch.digest(&guest), Ok(signed));

    // Any ingredient but the right one gives another.
    for (name, value) in [
        ("kernel_hash", Value::from("00".repeat(32))),
        ("initrd_hash", Value::from("00".repeat(32))),
        ("ovmf_hash", Value::from("00".repeat(48))),
        ("base_cmdline", Value::from("console=ttyS0")),
        ("sev_es_reset_eip", Value::from(0x80_b000)),
        ("sev_hashes_table_gpa", Value::from(0x81_0c10)),
    ] {
        let mut changed = inputs();
        changed.0[name] = value;
        assert_ne!(changed.launch().digest(&guest), Ok(signed), "{name}");
    }
}

/// Confirmed is the shape that was recomputed, and none that differs in anything.
#[test]
fn only_what_hardware_signed_is_confirmed() {
    let (launch, guest) = (inputs().launch(), inputs().guest());
    assert_eq!(launch.confirmed(&guest), Some("dstack-milan"));
    for other in [
        Guest {
            vcpus: 1,
            ..guest.clone()
        },
        Guest {
            vcpus: 3,
            ..guest.clone()
        },
        Guest {
            cpu: Cpu::named("EPYC-Milan"),
            ..guest.clone()
        },
        Guest {
            features: 0x21,
            ..guest.clone()
        },
    ] {
        assert!(launch.digest(&other).is_ok());
        assert_eq!(launch.confirmed(&other), None, "{other:?}");
    }
    let image = touchstone_testkit::firmware::Firmware::amd_sev(64 << 10).build();
    let firmware = Firmware::of(&image).unwrap();
    let bare = Launch::new(firmware.clone(), Vmm::Qemu, None).unwrap();
    assert_eq!(bare.confirmed(&guest), None);
    let ec2 = Launch::new(firmware, Vmm::Ec2, None).unwrap();
    assert_eq!(ec2.confirmed(&Guest { cpu: None, ..guest }), None);
}
