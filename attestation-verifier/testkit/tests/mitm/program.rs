//! The kit as an outsider runs it.

use std::process::Command;
use std::time::Duration;

use touchstone_testkit::mitm::Lie;
use touchstone_testkit::stack::Process;

use crate::common::{Caller, template};

const PROGRAM: &str = env!("CARGO_BIN_EXE_man-in-the-middle");

#[test]
fn the_list_names_every_lie_and_its_check() {
    let output = Command::new(PROGRAM).arg("--list").output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    for lie in Lie::ALL {
        assert!(list.contains(&format!("  {} ", lie.name())), "{lie}");
        assert!(list.contains(lie.about()), "{lie}");
        assert!(list.contains(lie.refused_by()), "{lie}");
    }
    let unknown = Command::new(PROGRAM).args(["--lie", "white"]).output();
    assert!(!unknown.unwrap().status.success());
}

/// With `--dir` it leaves all that a client needs to be honestly answered, or lied to.
#[test]
fn a_client_of_its_own_server_needs_nothing_else() {
    let test = "a_client_of_its_own_server_needs_nothing_else";
    if template(test, &[]).is_none() {
        return;
    }
    for (lie, sealed, exit, deciding) in [
        ("none", false, 0, ""),
        ("none", true, 0, ""),
        ("wrong-spki", false, 3, "session.tls_key"),
        ("ohttp-own-key", true, 3, "evidence.report_data"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = Command::new(PROGRAM);
        command.args(["--lie", lie, "--listen", "127.0.0.1:0", "--dir"]);
        command.arg(folder.path()).arg("--log").arg(&log);
        let program = Process::start("man-in-the-middle", &mut command);
        let line = program.wait_for_line(&[" on 127.0.0.1:"], Duration::from_secs(60));
        let address = line.split([' ', ':']).nth(3).unwrap();
        let file = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let caller = Caller::new(&file("policy.toml"), &file("root.pem"));
        let asked = match sealed {
            false => caller.ask_url(&format!("https://127.0.0.1:{address}"), "digits", &[]),
            true => {
                let url = format!("http://127.0.0.1:{address}");
                caller.ask_url(&url, "digits", &["--ohttp"])
            }
        };
        let found = (asked.exit, asked.deciding.as_str());
        assert_eq!(found, (exit, deciding), "{}", asked.words);
        if exit == 0 {
            assert_eq!(caller.check(&asked.folder).0, 6);
        }
        program.signal("TERM");
        assert!(program.wait(Duration::from_secs(20)).success());
        let first = if sealed { "plain HTTP" } else { "TLS" };
        let first = format!("connection 0: {first}");
        program.wait_for_line(&[&first], Duration::from_secs(20));
        let log = std::fs::read_to_string(log).unwrap();
        assert!(
            log.lines().count() > 1 && log.contains("\"connection\":0"),
            "{log}"
        );
    }
}

/// `docs/man-in-the-middle.md` has a row for each lie, with its check.
#[test]
fn the_page_names_every_lie_and_its_check() {
    let page = touchstone_testkit::fixtures::workspace_root().join("docs/man-in-the-middle.md");
    let page = std::fs::read_to_string(page).unwrap();
    for lie in Lie::ALL.iter().filter(|lie| **lie != Lie::None) {
        let row = format!("| `{lie}` | `{}` |", lie.refused_by());
        assert!(page.contains(&row), "{row}");
    }
    let rows = page.lines().filter(|line| line.contains("` | `"));
    assert_eq!(
        rows.count(),
        Lie::ALL.len() - 1,
        "no row of a lie that is gone"
    );
}
