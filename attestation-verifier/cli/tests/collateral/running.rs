//! `collateral serve`: the folder is kept, and who asks the mirror gets what the vendor would give.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use touchstone_testkit::vendor::{Reply, vcek_target};

use crate::place::{Place, now, snp_machine, tdx_machine};

/// A daemon that runs, and ends with this.
struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn start(place: &Place, more: &[&str]) -> Daemon {
        let mut child = Command::new(env!("CARGO_BIN_EXE_touchstone"))
            .args(["collateral", "serve", "--listen", "127.0.0.1:0"])
            .args(place.sources())
            .args(more)
            .current_dir(place.folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let address = line
            .strip_prefix("listening on http://")
            .expect(&line)
            .to_owned();
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Daemon { child, address }
    }

    fn get(&self, target: &str) -> (u16, String, Vec<u8>) {
        self.ask("GET", target)
    }

    fn ask(&self, method: &str, target: &str) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, answer[end + 4..].to_vec())
    }

    fn until(&self, target: &str, words: &str) -> String {
        let begin = Instant::now();
        loop {
            let (_, _, body) = self.get(target);
            let body = String::from_utf8(body).unwrap();
            if body.contains(words) {
                return body;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "{target}: {body}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const KEEP: [&str; 4] = ["--evidence", "evidence.bin", "--folder", "collateral"];

#[test]
fn the_folder_is_kept_and_the_end_is_told() {
    let machine = snp_machine();
    let place = Place::snp(&machine);
    let daemon = Daemon::start(&place, &KEEP);
    let status = daemon.until("/status", "refused_from");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["check"], "snp.chain.crl");
    assert_eq!(status["failure"], serde_json::Value::Null);
    let vek = std::fs::read(place.path("collateral/vek.der")).unwrap();
    assert_eq!(vek, place.served(&vcek_target(&machine)));
    let file = std::fs::read_to_string(place.path("collateral/status.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&file).unwrap();
    assert_eq!(file["refused_from"], status["refused_from"]);

    let metrics = daemon.until("/metrics", "refused_timestamp_seconds{");
    let value = |name: &str| -> u64 {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(name))
            .expect(name);
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let ends = machine.crl.next_update.unwrap();
    let from = value("touchstone_collateral_refused_timestamp_seconds{check=\"snp.chain.crl\"}");
    assert!(from.abs_diff(ends) <= 1);
    assert_eq!(value("touchstone_collateral_refused "), 0);
    assert_eq!(value("touchstone_collateral_failures_total"), 0);
    assert!(value("touchstone_collateral_succeeded_timestamp_seconds") >= now() - 60);
    daemon.stop();
}

#[test]
fn a_mirror_answers_as_the_vendors_do() {
    // One mirror for both vendors would do; each of these has its own.
    let snp = Place::snp(&snp_machine());
    let daemon = Daemon::start(&snp, &[]);
    let url = format!("http://{}", daemon.address);
    let through = |place: &Place, option: &str| {
        place.run(&[
            "collateral",
            "fetch",
            "evidence.bin",
            "-o",
            "through.json",
            option,
            &url,
            "--trust-simulated-root",
            "root.pem",
        ])
    };
    let run = through(&snp, "--kds");
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(snp.vendor.asked().len(), 3);
    let again = through(&snp, "--kds");
    assert_eq!(
        (again.code, snp.vendor.asked().len()),
        (0, 3),
        "out of the cache"
    );

    assert_eq!(daemon.get("/vcek/v1/Milan/crl").0, 404);
    let asked = snp.vendor.asked().len();
    assert_eq!(daemon.get("/vcek/v1/Milan/crl").0, 404);
    assert_eq!(snp.vendor.asked().len(), asked, "a refusal is remembered");
    assert_eq!(daemon.get("/etc/passwd").0, 404);
    assert_eq!(daemon.get("/status").0, 404);
    assert_eq!(daemon.ask("POST", "/vcek/v1/Genoa/crl").0, 405);
    snp.vendor.put("/vlek/v1/Genoa/crl", Reply::ok("<html>"));
    let (status, head, body) = daemon.get("/vlek/v1/Genoa/crl");
    assert_eq!(status, 502);
    assert!(head.to_lowercase().contains("retry-after: 60"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("malformed"));
    daemon.stop();

    let machine = tdx_machine();
    let tdx = Place::tdx(&machine);
    let daemon = Daemon::start(&tdx, &[]);
    let url = format!("http://{}", daemon.address);
    let run = tdx.run(&[
        "collateral",
        "fetch",
        "evidence.bin",
        "-o",
        "through.json",
        "--pcs",
        &url,
        "--trust-simulated-root",
        "root.pem",
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let list = tdx.served("/sgx/certification/v4/rootcacrl");
    assert_eq!(daemon.get("/sgx/certification/v4/rootcacrl").2, list);
    let der = daemon.get("/IntelSGXRootCA.der").2;
    assert_eq!(hex::encode(der).into_bytes(), list);
    let (_, head, body) = daemon.get("/tdx/certification/v4/qe/identity");
    assert!(head.contains("sgx-enclave-identity-issuer-chain: -----BEGIN%20CERTIFICATE-----%0A"));
    let text = machine.qe_identity.to_json();
    assert!(String::from_utf8(body).unwrap().contains(&text));
    daemon.stop();
}

#[test]
fn trouble_is_counted_and_the_folder_is_not_touched() {
    let machine = snp_machine();
    let place = Place::snp(&machine);
    place
        .vendor
        .put("/vcek/v1/Genoa/crl", Reply::Status(403, Vec::new()));
    let daemon = Daemon::start(&place, &KEEP);
    daemon.until("/metrics", "failures_total 1");
    assert!(!place.path("collateral").exists());
    daemon.stop();
}

#[test]
fn other_machines_are_let_in_only_when_told() {
    let place = Place::snp(&snp_machine());
    let run = place.run(&[
        "collateral",
        "serve",
        "--listen",
        "0.0.0.0:0",
        "--kds",
        &place.vendor.url(),
    ]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("--listen-anywhere"), "{}", run.stderr);
    let run = place.run(&["collateral", "serve"]);
    assert_eq!(run.code, 1);
}
