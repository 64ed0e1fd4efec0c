//! What of this machine bears on quotes. All of it is the kernel's and, in a VM, the host's word: hints, no evidence.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use touchstone_formats::evidence::EventLog;
use touchstone_formats::text::Base64Bytes;

/// Most bytes of a file under /proc or /sys that are looked at; of cpuinfo they hold the first processors.
const MOST: u64 = 64 << 10;
/// The Linux release that configfs-tsm came with.
const TSM_SINCE: (u32, u32) = (6, 7);

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    /// What.
    pub name: &'static str,
    /// What was found.
    pub found: String,
    /// Whether it is as a confidential VM needs it; none where there is no right and wrong.
    pub good: Option<bool>,
    /// What to do about it.
    pub advice: Option<&'static str>,
}

/// The folder that `/proc`, `/sys` and `/dev` are looked for in.
pub struct Root<'a>(pub &'a Path);

impl Root<'_> {
    /// A path of the machine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn exists(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// The beginning of a small text; none if it cannot be read.
    fn text(&self, name: &str) -> Option<String> {
        let bytes = read(&self.path(name), MOST)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The event log that firmware left at the ACPI table CCEL, within its bound.
    pub fn event_log(&self) -> Option<EventLog> {
        let data = read(&self.path(CCEL_LOG), MOST_LOG)?;
        let log = EventLog {
            format: "ccel".to_owned(),
            data: Base64Bytes(data),
        };
        log.check().ok()?;
        Some(log)
    }

    /// Whether configfs is mounted.
    pub fn configfs(&self) -> bool {
        let mounts = self.text("proc/mounts").unwrap_or_default();
        mounts.lines().any(|line| {
            let mut words = line.split(' ').skip(1);
            words.next() == Some("/sys/kernel/config") && words.next() == Some("configfs")
        })
    }

    /// Whether the kernel is new enough for configfs-tsm; none if it does not say.
    pub fn has_tsm_release(&self) -> Option<bool> {
        release(&self.text("proc/sys/kernel/osrelease")?).map(|release| release >= TSM_SINCE)
    }

    /// Everything.
    pub fn facts(&self) -> Vec<Fact> {
        let mut facts = vec![self.kernel()];
        facts.extend(self.processor());
        facts.extend([
            self.configfs_fact(),
            self.devices(),
            self.log_fact(),
            self.vsock(),
        ]);
        facts.extend(self.vendor());
        facts
    }

    fn kernel(&self) -> Fact {
        let text = self.text("proc/sys/kernel/osrelease");
        let good = self.has_tsm_release();
        let advice = "Boot Linux 6.7 or newer: configfs-tsm came with it. Before that /dev/sev-guest is the one way, and TDX has none.";
        fact(
            "kernel",
            text.map_or("unknown".into(), |text| text.trim().to_owned()),
            good,
            advice,
        )
    }

    fn processor(&self) -> Vec<Fact> {
        let text = self.text("proc/cpuinfo").unwrap_or_default();
        let line = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find_map(|(key, value)| (key.trim() == name).then(|| value.trim().to_owned()))
        };
        let flags = line("flags").unwrap_or_default();
        let flag = |name: &str| flags.split(' ').any(|flag| flag == name);
        let tees: Vec<&str> = ["sev_snp", "tdx_guest"]
            .into_iter()
            .filter(|name| flag(name))
            .collect();
        let found = |good: bool, yes: &str, no: &str| if good { yes } else { no }.to_owned();
        vec![
            Fact {
                name: "processor",
                found: line("model name").unwrap_or_else(|| "unknown".into()),
                good: None,
                advice: None,
            },
            fact(
                "virtual machine",
                found(flag("hypervisor"), "yes", "no sign of one"),
                Some(flag("hypervisor")),
                "Run doctor inside the confidential VM: hardware gives quotes there alone.",
            ),
            fact(
                "confidential VM",
                if tees.is_empty() {
                    "the processor shows neither sev_snp nor tdx_guest".into()
                } else {
                    tees.join(" ")
                },
                Some(!tees.is_empty()),
                "Launch the VM as a SEV-SNP guest or as a TD (docs/platforms.md). Some kernels do not show sev_snp: then the quote says it.",
            ),
            fact(
                "random numbers",
                found(flag("rdrand"), "rdrand", "no rdrand"),
                Some(flag("rdrand")),
                "Give the VM a processor model with RDRAND: entropy that the host cannot steer comes from it alone, and the guest image refuses to start without.",
            ),
        ]
    }

    fn configfs_fact(&self) -> Fact {
        let report = self.exists("sys/kernel/config/tsm/report");
        let found = match (self.configfs(), report) {
            (_, true) => "with tsm/report",
            (true, false) => "mounted, without tsm/report",
            (false, false) => "not mounted",
        };
        let advice = match self.configfs() {
            true => TSM_MODULE,
            false => MOUNT,
        };
        fact("configfs", found.into(), Some(report), advice)
    }

    fn devices(&self) -> Fact {
        let (sev, tdx) = (self.exists("dev/sev-guest"), self.exists("dev/tdx_guest"));
        let names: Vec<&str> = [("/dev/sev-guest", sev), ("/dev/tdx_guest", tdx)]
            .iter()
            .filter(|(_, there)| *there)
            .map(|(name, _)| *name)
            .collect();
        let tsm = self.exists("sys/kernel/config/tsm/report");
        let (good, advice) = match (sev, tdx) {
            (false, true) if !tsm => (
                false,
                "/dev/tdx_guest gives reports for this machine alone, no quotes: those need configfs-tsm (Linux 6.7, mounted, module tsm).",
            ),
            (false, false) => (
                false,
                "Load the guest driver (modprobe sev-guest, or modprobe tdx-guest); it refuses where the VM is no confidential one.",
            ),
            _ => (true, ""),
        };
        let found = if names.is_empty() {
            "neither /dev/sev-guest nor /dev/tdx_guest".into()
        } else {
            names.join(" ")
        };
        fact("guest driver", found, Some(good), advice)
    }

    fn log_fact(&self) -> Fact {
        let there = self.exists("sys/firmware/acpi/tables/CCEL");
        let log = self.event_log();
        let found = match (there, &log) {
            (_, Some(log)) => format!("CCEL, {} bytes", log.trimmed().len()),
            (true, None) => "the table CCEL without a log that can be read".into(),
            (false, None) => "none (SEV-SNP has none)".into(),
        };
        Fact {
            name: "event log",
            good: (there || log.is_some()).then_some(log.is_some()),
            found,
            advice: (there && log.is_none()).then_some(
                "Run doctor as root: /sys/firmware/acpi/tables/data/CCEL is not for everybody.",
            ),
        }
    }

    fn vsock(&self) -> Fact {
        let there = self.exists("dev/vsock");
        Fact {
            name: "vsock",
            found: if there { "/dev/vsock" } else { "none" }.into(),
            good: None,
            advice: (!there).then_some(
                "The guest image talks over vsock unless its command line says touchstone.net=: give the VM a vsock device, or say it.",
            ),
        }
    }

    /// What the VM says of who made it, and what follows for what it measures.
    fn vendor(&self) -> Option<Fact> {
        let vendor = self.text("sys/class/dmi/id/sys_vendor")?;
        let vendor = vendor.trim();
        let advice = match vendor {
            "Microsoft Corporation" => {
                "Azure: the report is the paravisor's, and says nothing of this system; not supported in this version (docs/platforms.md)."
            }
            "Amazon EC2" => {
                "AWS: SEV-SNP measures the firmware alone there, so that no claim about software can be proven (docs/platforms.md)."
            }
            "Google" => {
                "Google Cloud: only TDX measures the system there; with SEV-SNP no claim about software can be proven (docs/platforms.md)."
            }
            _ => "",
        };
        Some(Fact {
            name: "made by",
            found: vendor.to_owned(),
            good: (!advice.is_empty()).then_some(false),
            advice: (!advice.is_empty()).then_some(advice),
        })
    }
}

pub const MOUNT: &str = "Mount it: mount -t configfs configfs /sys/kernel/config.";
pub const TSM_MODULE: &str = "Load the guest driver, which brings tsm with it: modprobe sev-guest, or modprobe tdx-guest. A kernel before 6.7 has none.";

const CCEL_LOG: &str = "sys/firmware/acpi/tables/data/CCEL";
/// Most bytes of the log that are read, as of the enclave: its bound, and padding.
const MOST_LOG: u64 = 4 << 20;

fn fact(name: &'static str, found: String, good: Option<bool>, advice: &'static str) -> Fact {
    Fact {
        name,
        found,
        good,
        advice: (good == Some(false)).then_some(advice),
    }
}

/// At most `most` bytes of a file that is one.
fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    // Looked at first: opening a pipe would wait.
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(most)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// The first two numbers of a kernel's release, `6.12.117+deb13-cloud-amd64` for one.
fn release(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.trim().split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(release("6.12.117+deb13-cloud-amd64\n"), Some((6, 12)));
        assert_eq!(release("6.7-rc1"), Some((6, 7)));
        assert_eq!(release("5.19"), Some((5, 19)));
        for nonsense in ["", "6", "x.y", ".7", "99999999999.1"] {
            assert_eq!(release(nonsense), None, "{nonsense}");
        }
    }
}
