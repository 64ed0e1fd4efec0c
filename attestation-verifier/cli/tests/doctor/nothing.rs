//! Machines that give no quote: why, source by source, and what to do about it.

use std::fs;
use std::path::Path;

use crate::running::doctor;
use crate::support::touchstone_in;

/// A folder that stands in for `/`, with these files.
fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn advice(folder: &Path, source: &str) -> String {
    let found = doctor(folder, &["--root", "."]);
    assert_eq!((found.exit(), found.deciding()), (7, Some("quote.source")));
    found.source(source)["advice"].as_str().unwrap().to_owned()
}

#[test]
fn a_machine_without_any_interface() {
    let folder = machine(&[]);
    let found = doctor(folder.path(), &["--root", "."]);
    assert_eq!((found.exit(), found.deciding()), (7, Some("quote.source")));
    assert_eq!(found.source("configfs-tsm")["state"], "absent");
    assert_eq!(found.source("sev-guest")["state"], "absent");
    assert_eq!(found.json["sources"].as_array().unwrap().len(), 2);
    assert!(found.json["quote"].is_null() && found.json["source"].is_null());
    for guarantee in ["signed", "logged", "quoted", "recomputed", "proven"] {
        assert_eq!(found.guarantee(guarantee), "no");
    }
    // The machine that runs this test has no TEE either, or has one: what is said is never 0 without a chain.
    let here = doctor(folder.path(), &[]);
    assert!([3, 4, 5, 7].contains(&here.exit()), "{}", here.words);
    // An agent that is not there is a source without a quote.
    let found = doctor(folder.path(), &["--root", ".", "--agent", "no.sock"]);
    assert_eq!(found.exit(), 7);
    assert_eq!(found.source("quote-agent")["state"], "absent");
}

#[test]
fn why_configfs_tsm_is_not_there() {
    let old = machine(&[("proc/sys/kernel/osrelease", "5.15.0-91-generic\n")]);
    assert!(advice(old.path(), "configfs-tsm").contains("Linux 6.7"));
    let found = doctor(old.path(), &["--root", "."]);
    assert_eq!(found.fact("kernel")["good"], false);

    let unmounted = machine(&[
        ("proc/sys/kernel/osrelease", "6.12.117+deb13-cloud-amd64\n"),
        ("proc/mounts", "tmpfs /run tmpfs rw 0 0\n"),
    ]);
    assert!(advice(unmounted.path(), "configfs-tsm").contains("mount -t configfs"));
    let found = doctor(unmounted.path(), &["--root", "."]);
    assert_eq!(found.fact("kernel")["good"], true);
    assert_eq!(found.fact("configfs")["found"], "not mounted");

    let unloaded = machine(&[
        ("proc/sys/kernel/osrelease", "6.12.117+deb13-cloud-amd64\n"),
        (
            "proc/mounts",
            "configfs /sys/kernel/config configfs rw,nosuid 0 0\n",
        ),
    ]);
    assert!(advice(unloaded.path(), "configfs-tsm").contains("modprobe"));
    let found = doctor(unloaded.path(), &["--root", "."]);
    assert_eq!(
        found.fact("configfs")["found"],
        "mounted, without tsm/report"
    );
}

#[test]
fn what_stands_in_the_place_of_an_interface() {
    // A folder that is no configfs: an entry can be made, and has no attributes.
    let folder = machine(&[("tsm/readme", ""), ("dev/sev-guest", "no device")]);
    let found = doctor(folder.path(), &["--root", ".", "--tsm", "tsm"]);
    assert_eq!((found.exit(), found.deciding()), (7, Some("quote.source")));
    assert_eq!(found.source("configfs-tsm")["path"], "tsm");
    assert_eq!(fs::read_dir(folder.path().join("tsm")).unwrap().count(), 1);
    // A file that is no device answers no request.
    assert_eq!(found.source("sev-guest")["state"], "failed");
    let said = found.source("sev-guest")["found"].as_str().unwrap();
    assert!(said.contains("sev-guest"), "{said}");
}

#[test]
fn what_is_found_of_the_machine() {
    let flags = "fpu rdrand hypervisor";
    let cpu = |more: &str| {
        format!(
            "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}{more}\n\nprocessor\t: 1\n"
        )
    };
    let bare = machine(&[("proc/cpuinfo", &cpu(""))]);
    let found = doctor(bare.path(), &["--root", "."]);
    assert_eq!(found.fact("confidential VM")["good"], false);
    assert_eq!(found.fact("virtual machine")["good"], true);
    assert_eq!(found.fact("random numbers")["good"], true);
    assert_eq!(found.fact("processor")["found"], "Some CPU");

    let mut log = vec![1; 300];
    log.extend([0xff; 100]);
    let td = machine(&[
        ("proc/cpuinfo", &cpu(" tdx_guest")),
        ("dev/tdx_guest", ""),
        ("dev/vsock", ""),
        ("sys/firmware/acpi/tables/CCEL", "CCEL"),
        ("sys/class/dmi/id/sys_vendor", "Google\n"),
    ]);
    let found = doctor(td.path(), &["--root", "."]);
    assert_eq!(found.fact("confidential VM")["found"], "tdx_guest");
    assert_eq!(found.fact("event log")["good"], false);
    assert!(
        found.fact("guest driver")["advice"]
            .as_str()
            .unwrap()
            .contains("no quotes")
    );
    assert!(
        found.fact("made by")["advice"]
            .as_str()
            .unwrap()
            .contains("Google Cloud")
    );
    assert!(found.fact("vsock")["advice"].is_null());
    fs::create_dir_all(td.path().join("sys/firmware/acpi/tables/data")).unwrap();
    fs::write(td.path().join("sys/firmware/acpi/tables/data/CCEL"), log).unwrap();
    let found = doctor(td.path(), &["--root", "."]);
    assert_eq!(found.fact("event log")["found"], "CCEL, 300 bytes");
}

/// What a machine says of itself controls no terminal.
#[test]
fn a_machine_that_lies_about_its_name() {
    let evil = "Evil\u{1b}[2J\u{202e}corp\n";
    let folder = machine(&[
        ("sys/class/dmi/id/sys_vendor", evil),
        ("proc/sys/kernel/osrelease", "6.12\u{7}\u{9b}31m"),
    ]);
    let found = doctor(folder.path(), &["--root", "."]);
    assert!(found.words.contains("\\u{1b}"), "{}", found.words);
    assert!(!found.words.contains('\u{202e}'));
}

#[test]
fn usage() {
    let folder = machine(&[("bad.json", "{}")]);
    for (args, code) in [
        (&["--privilege", "4"][..], 1),
        (&["--timeout", "0"], 1),
        (&["--collateral", "none.json"], 1),
        (&["--collateral", "a", "--folder", "b"], 1),
        (&["--trust-simulated-root", "none.pem"], 1),
        (&["--collateral", "bad.json"], 2),
        (&["--at", "yesterday"], 1),
    ] {
        let all = [&["doctor", "--root", ".", "--json"], args].concat();
        let run = touchstone_in(folder.path(), &all);
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        assert_eq!(run.verdict()["exit"], code);
    }
}
