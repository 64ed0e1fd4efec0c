//! The two children of PID 1, as it starts them: what becomes the enclave, and what asks for an address. Becoming another
//! user takes root.
#![allow(unsafe_code)]

use std::{
    io::Read,
    os::unix::net::UnixDatagram,
    process::{Command, Output, Stdio},
    sync::Mutex,
    time::Duration,
};

use touchstone_init::network::packet::{Client, parse_mac};

const INIT: &str = env!("CARGO_BIN_EXE_touchstone-init");
const MAC: &str = "52:54:00:12:34:56";

/// Whether this process may become another user; else says that the test was skipped.
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED: {test}: becoming another user takes root");
    }
    root
}

/// Children inherit what this process has open. One of the tests leaves something open on purpose: one at a time.
static OPEN: Mutex<()> = Mutex::new(());

/// Whatever runs these tests may have left descriptors open; children are not to have them.
fn close_on_exec() {
    // SAFETY: flags of descriptors, which no memory depends on.
    let closed = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    assert_eq!(closed, 0);
}

fn enclave(arguments: &[&str]) -> Output {
    close_on_exec();
    Command::new(INIT)
        .arg("enclave")
        .args(arguments)
        .env("LD_PRELOAD_NOT", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn what_becomes_the_enclave_has_no_rights() {
    if !is_root("what_becomes_the_enclave_has_no_rights") {
        return;
    }
    let _one = OPEN.lock();
    let said = |arguments: &[&str]| {
        let output = enclave(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let status = said(&["64999", "/bin/cat", "/proc/self/status"]);
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let none = "0000000000000000";
    let user = "64999\t64999\t64999\t64999";
    for (key, value) in [
        ("Uid", user),
        ("Gid", user),
        ("Groups", ""),
        ("CapInh", none),
        ("CapPrm", none),
        ("CapEff", none),
        ("CapBnd", none),
        ("CapAmb", none),
        ("NoNewPrivs", "1"),
        ("Umask", "0077"),
    ] {
        let of = |status: &str| {
            let prefix = format!("{key}:");
            let line = status.lines().find_map(|line| line.strip_prefix(&prefix));
            line.unwrap_or_else(|| panic!("no {key}")).trim().to_owned()
        };
        assert_eq!(of(&status), value, "{key}");
        // It is this program that makes the difference (but for sets that are empty to begin with).
        if !["Groups", "CapInh", "CapAmb", "NoNewPrivs"].contains(&key) {
            assert_ne!(of(&own), value, "{key}");
        }
    }
    let limits = said(&["64999", "/bin/cat", "/proc/self/limits"]);
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().split_whitespace().take(2).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    assert_eq!(said(&["64999", "/usr/bin/env"]), "");
    // `ls` has a descriptor of its own, for the folder.
    assert_eq!(said(&["64999", "/bin/ls", "/proc/self/fd"]), "0\n1\n2\n3\n");
}

#[test]
fn root_is_no_user_for_an_enclave() {
    let _one = OPEN.lock();
    for arguments in [
        &["0", "/bin/true"][..],
        &["-1", "/bin/true"],
        &["x", "/bin/true"],
        &["64999"],
        &[],
    ] {
        let output = enclave(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    if is_root("root_is_no_user_for_an_enclave") {
        assert!(enclave(&["64999", "/bin/true"]).status.success());
        // A program that is not there is said, too.
        let output = enclave(&["64999", "/bin/not-there"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("starting /bin/not-there"), "{said}");
    }
}

#[test]
fn nothing_that_is_open_is_handed_on() {
    if !is_root("nothing_that_is_open_is_handed_on") {
        return;
    }
    let _one = OPEN.lock();
    let run = || {
        Command::new(INIT)
            .args(["enclave", "64999", "/bin/true"])
            .output()
            .unwrap()
    };
    close_on_exec();
    assert!(run().status.success());
    // SAFETY: a second descriptor for standard error, which nothing else knows.
    let open = unsafe { libc::dup(2) };
    let output = run();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(&format!("descriptor {open} would be inherited")),
        "{said}"
    );
    close_on_exec();
    assert!(run().status.success());
}

/// A server's answer to what the client sent: the same packet, turned around.
fn answer(asked: &[u8], kind: u8, options: &[u8]) -> Vec<u8> {
    let (head, dhcp) = asked.split_at(42);
    let mut dhcp = dhcp[..236].to_vec();
    dhcp[0] = 2;
    dhcp[16..20].copy_from_slice(&[10, 0, 2, 15]);
    dhcp.extend([99, 130, 83, 99, 53, 1, kind, 54, 4, 10, 0, 2, 2]);
    dhcp.extend(options);
    dhcp.push(255);
    dhcp.resize(300, 0);
    let mut frame = head.to_vec();
    frame[34..38].copy_from_slice(&[0, 67, 0, 68]);
    frame.extend(dhcp);
    frame
}

#[test]
fn the_dhcp_client_gives_one_line_whatever_strangers_send() {
    let test = "the_dhcp_client_gives_one_line_whatever_strangers_send";
    if !is_root(test) {
        return;
    }
    let _one = OPEN.lock();
    close_on_exec();
    let (server, socket) = UnixDatagram::pair().unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut child = Command::new(INIT)
        .args(["dhcp", MAC, "16909060"])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut frame = [0; 2048];
    let mut receive = || {
        let length = server.recv(&mut frame).unwrap();
        frame[..length].to_vec()
    };
    let client = Client {
        mac: parse_mac(MAC).unwrap(),
        transaction: 16_909_060,
    };
    let discover = receive();
    assert_eq!(discover, client.ask(None));
    // It is confined before it hears anything: a user of its own, no rights, one filter more than this process has.
    let of = |id: &str, key: &str| -> String {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap().trim().to_owned()
    };
    let id = child.id().to_string();
    assert_eq!(of(&id, "Uid:"), "65533\t65533\t65533\t65533");
    assert_eq!(of(&id, "CapPrm:"), "0000000000000000");
    assert_eq!(of(&id, "Seccomp:"), "2");
    let filters = |id: &str| of(id, "Seccomp_filters:").parse::<u32>().unwrap();
    assert_eq!(filters(&id), filters("self") + 1);

    // Noise of every length, and then the conversation.
    for length in [0, 1, 13, 14, 42, 281, 282, 1514, 2000] {
        server.send(&vec![0x45; length]).unwrap();
    }
    let mut cut = answer(&discover, 2, &[]);
    cut.truncate(290);
    server.send(&cut).unwrap();
    server.send(&answer(&discover, 2, &[])).unwrap();
    let request = loop {
        // The client may have asked anew meanwhile.
        let asked = receive();
        if asked != discover {
            break asked;
        }
    };
    let options = [1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2, 26, 2, 5, 180];
    server.send(&answer(&request, 5, &options)).unwrap();
    let mut line = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut line)
        .unwrap();
    assert_eq!(line, "10.0.2.15/24,10.0.2.2,1460\n");
    assert!(child.wait().unwrap().success());
}
