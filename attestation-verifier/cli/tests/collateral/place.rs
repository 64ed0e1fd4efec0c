//! A folder with evidence of a simulated machine, and the vendors' services beside it.

use std::path::PathBuf;

use tempfile::TempDir;
use touchstone_testkit::amd::Product;
use touchstone_testkit::machine::{Machine, TdxMachine};
use touchstone_testkit::tdx::TdReport;
use touchstone_testkit::vendor::{Reply, Vendor};

use crate::support::{Run, touchstone_in};

pub const DAY: u64 = 86_400;

pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// An evidence file (`evidence.bin`, bare), `root.pem`, and a service.
pub struct Place {
    pub folder: TempDir,
    pub vendor: Vendor,
    option: &'static str,
}

impl Place {
    pub fn snp(machine: &Machine) -> Place {
        let place = Place::new(Vendor::kds(machine), "--kds");
        place.write("evidence.bin", &machine.quote([7; 64]));
        place.write("root.pem", machine.root_pem().as_bytes());
        place
    }

    pub fn tdx(machine: &TdxMachine) -> Place {
        let place = Place::new(Vendor::pcs(machine), "--pcs");
        let quote = machine.quote([7; 64]);
        place.write("root.pem", root_in(&quote).as_bytes());
        place.write("evidence.bin", &quote);
        place
    }

    fn new(vendor: Vendor, option: &'static str) -> Place {
        Place {
            folder: tempfile::tempdir().unwrap(),
            vendor,
            option,
        }
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn run(&self, args: &[&str]) -> Run {
        touchstone_in(self.folder.path(), args)
    }

    /// The arguments that every fetch has.
    pub fn sources(&self) -> Vec<String> {
        let url = self.vendor.url();
        [
            self.option,
            &url,
            "--cache",
            "cache",
            "--trust-simulated-root",
            "root.pem",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// `collateral fetch evidence.bin --folder collateral -o collateral.json --json …`.
    pub fn fetch(&self, more: &[&str]) -> Run {
        let sources = self.sources();
        let mut args = vec!["collateral", "fetch", "evidence.bin", "--json"];
        args.extend(["--folder", "collateral", "-o", "collateral.json"]);
        args.extend(sources.iter().map(String::as_str));
        args.extend(more);
        self.run(&args)
    }

    /// What the service has at an address: signatures are random, and each asking of the machine would sign anew.
    pub fn served(&self, target: &str) -> Vec<u8> {
        match self.vendor.reply(target) {
            Reply::Ok { body, .. } => body,
            other => panic!("{target}: {other:?}"),
        }
    }

    /// Names of what the cache holds.
    pub fn cached(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("cache")) else {
            return Vec::new();
        };
        let name = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().into_string();
        let mut names: Vec<String> = entries.map(|e| name(e).unwrap()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }
}

pub fn snp_machine() -> Machine {
    Machine::new(Product::Genoa, 5, now())
}

pub fn tdx_machine() -> TdxMachine {
    TdxMachine::new(4, TdReport::v1_0(), now())
}

/// The root that stands in a quote: each time it is written it is signed anew, and only one of them is trusted.
pub fn root_in(quote: &[u8]) -> String {
    let text = String::from_utf8_lossy(quote);
    let at = text.rfind("-----BEGIN CERTIFICATE-----").unwrap();
    text[at..].trim_end_matches('\0').to_owned()
}
