//! Liars in the middle: refused by name, and never a byte of an answer that did not verify.

use std::fs;
use std::sync::Arc;

use serde_json::Value;
use touchstone_formats::evidence::{Collateral, CollateralFile, SnpCollateral, Tee};
use touchstone_testkit::amd::VekKey;
use touchstone_testkit::mint;
use touchstone_testkit::mitm::{Kind, Lie, Server, Upstream};

use crate::client::Response;
use crate::running::{Proxy, World, ask, secret};
use crate::support::policy_for;

/// Nothing of an answer is in here: a problem document with this status and deciding check.
#[track_caller]
fn withheld(answer: &Response, status: u16, check: &str) -> Value {
    let problem = answer.json();
    let found = (answer.status, problem["check"].as_str());
    assert_eq!(found, (status, Some(check)), "{problem:#}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.all("retry-after").len(), usize::from(status == 503));
    for header in ["touchstone", "touchstone-verified", "touchstone-openings"] {
        assert!(answer.all(header).is_empty(), "{header}");
    }
    for part in [&secret()[..], b"model_name", b"outputs\"", b"1234.5"] {
        assert!(!answer.has(part));
    }
    let reason = problem["reason"].as_str().unwrap();
    assert_eq!(problem["error"], format!("{check}: {reason}"));
    assert!(problem["verdict"].as_str().unwrap().contains(check));
    problem
}

/// What was kept as evidence says the same.
#[track_caller]
fn kept_as_evidence(proxy: &Proxy, check: &str) {
    assert_eq!(proxy.verified().len(), 0);
    let refused = proxy.refused();
    assert!(!refused.is_empty());
    for folder in refused {
        let verdict = fs::read(folder.join("verdict.json")).unwrap();
        let verdict: Value = serde_json::from_slice(&verdict).unwrap();
        assert_eq!(verdict["deciding"], check);
        assert!(folder.join("response.bin").exists());
    }
}

/// Every lie about a connection is refused before the proxy listens, and nothing but the request for a session is sent.
#[test]
fn a_liar_is_refused_at_the_start() {
    let mut told = 0;
    for lie in Lie::ALL.iter().copied() {
        let collateral = matches!(lie, Lie::CollateralForeign | Lie::CollateralNone);
        let at_the_start = matches!(lie.kind(), Kind::Relay | Kind::Server) || collateral;
        if !at_the_start || matches!(lie, Lie::Resumption | Lie::Divert) {
            continue;
        }
        let world = World::new(lie);
        let started = Proxy::start(&world.arguments(), &world.path("kept"));
        let (code, said) = match started {
            Ok(_) => panic!("{lie}: it listens"),
            Err(ended) => ended,
        };
        let because = format!("because {}: ", lie.refused_by());
        assert!(said.contains(&because), "{lie}: {said}");
        assert!(said.contains("not listening"), "{lie}: {said}");
        assert!((2..=5).contains(&code), "{lie}: {code}");
        told += 1;
    }
    assert!(told >= 12, "{told} lies");
    // The honest twin of all of them.
    let world = World::new(Lie::None);
    assert_eq!(ask(&mut world.proxy(&[]).connect()).status, 200);
}

/// No binding tells two genuine enclaves apart; a policy that pins the chip does.
#[test]
fn another_genuine_enclave_is_refused_by_the_policy_alone() {
    for pinned in [true, false] {
        let mut collateral = None;
        let world = World::with(Lie::Divert, &[], |config| {
            let Upstream::Own(server) = &config.upstream else {
                panic!("a server of the kit's own");
            };
            let mut machine = server.world().machine.clone();
            machine.report.chip_id = [7; 64];
            machine.key = VekKey::p384();
            machine.reissue();
            let files = machine.collateral();
            collateral = Some(CollateralFile {
                tee: Tee::SevSnp,
                collateral: Collateral::SevSnp(SnpCollateral {
                    vek: Some(files.vek),
                    chain: files.chain,
                    crls: files.crls,
                }),
            });
            let at = server.world().at;
            let other = Server::over(mint::World::on(machine, at + 1, at), Lie::None);
            config.other = Some(Upstream::Own(Arc::new(other)));
        });
        // The liar would serve it; the proxy is given it here.
        let file = world.path("other.json");
        fs::write(&file, collateral.unwrap().to_file()).unwrap();
        if pinned {
            let chip = hex::encode(world.server.world().machine.report.chip_id);
            let pin = format!("{{ expect = [\"{chip}\"] }}");
            let policy = policy_for(world.server.world(), &[("snp.chip_id", &pin)]);
            fs::write(world.path("policy.toml"), policy).unwrap();
        }
        let mut arguments = world.arguments();
        arguments.extend(["--collateral".to_owned(), file.display().to_string()]);
        match Proxy::start(&arguments, &world.path("kept")) {
            Err((code, said)) if pinned => {
                assert_eq!(code, 4, "{said}");
                assert!(said.contains("because snp.chip_id: "), "{said}");
            }
            Ok(proxy) if !pinned => {
                assert_eq!(
                    proxy.status()["session"]["platform"]["chip_id"],
                    "07".repeat(64)
                );
            }
            Ok(_) => panic!("it listens"),
            Err((_, said)) => panic!("{said}"),
        }
    }
}

/// What was proven at the start is broken at the first answer.
#[test]
fn a_damaged_connection_gives_no_answer() {
    for (lie, status, check) in [
        (Lie::Alter, 502, "connection.tls"),
        (Lie::Drop, 503, "connection.late"),
        (Lie::Double, 502, "connection.tls"),
        (Lie::Delay, 503, "connection.late"),
        (Lie::Truncate, 502, "connection.io"),
    ] {
        assert_eq!(lie.refused_by(), check);
        let world = World::new(lie);
        let proxy = world.proxy(&["--timeout", "2"]);
        let answer = ask(&mut proxy.connect());
        let problem = withheld(&answer, status, check);
        let retry = status == 503;
        assert_eq!(problem["class"] == "retry", retry, "{lie}: {problem}");
        assert_eq!(proxy.verified().len(), 0, "{lie}");
        let line = &proxy.answers(1)[0];
        assert_eq!(
            (&line["check"], &line["status"]),
            (&check.into(), &status.into()),
            "{lie}"
        );
        assert_eq!(proxy.status()["refused"][check], 1, "{lie}");
    }
}

#[test]
fn two_clients_never_get_each_others_answers() {
    for lie in [Lie::Swap, Lie::ReceiptSwap] {
        let world = World::new(lie);
        let proxy = world.proxy(&["--timeout", "5", "--wait", "3"]);
        let answers: Vec<Response> = std::thread::scope(|scope| {
            let clients = [(); 2].map(|()| scope.spawn(|| ask(&mut proxy.connect())));
            clients.map(|client| client.join().unwrap()).to_vec()
        });
        for answer in answers {
            let check = match lie {
                Lie::Swap => "connection.tls",
                // Another receipt's bundle is not what was asked for, whatever is in it.
                _ => "answer.format",
            };
            withheld(&answer, 502, check);
        }
        assert_eq!(proxy.verified().len(), 0, "{lie}");
    }
}

#[test]
fn a_receipt_that_does_not_hold_withholds_the_answer() {
    for (lie, status, check) in [
        (Lie::ReceiptAlter, 502, "receipt.signature"),
        (Lie::ReceiptWithhold, 503, "guarantees.stated"),
        (Lie::ReceiptStale, 503, "guarantees.stated"),
    ] {
        assert_eq!(lie.refused_by(), check);
        let world = World::new(lie);
        let proxy = world.proxy(&["--wait", "1"]);
        let answer = ask(&mut proxy.connect());
        assert!(world.made(&secret()), "{lie}: the proxy had the answer");
        withheld(&answer, status, check);
        kept_as_evidence(&proxy, check);
        let status = proxy.status();
        assert_eq!(status["refused"][check], 1);
        assert_eq!(status["last_refusals"][0]["check"], check);
        assert_eq!(status["verified"], 0);
    }
    // The first client's receipt for everybody: the first gets his answer, the second does not.
    let world = World::new(Lie::ReceiptOfAnother);
    let proxy = world.proxy(&["--wait", "1"]);
    let mut client = proxy.connect();
    assert_eq!(ask(&mut client).status, 200);
    withheld(&ask(&mut client), 502, "answer.format");
    assert_eq!(proxy.verified().len(), 1);
}

/// A server that sends its client to a new connection, and resumes there.
#[test]
fn resumption_is_refused_on_the_second_connection() {
    let world = World::new(Lie::Resumption);
    let proxy = world.proxy(&[]);
    let answer = ask(&mut proxy.connect());
    withheld(&answer, 502, Lie::Resumption.refused_by());
    let status = proxy.status();
    assert!(status["session_refused"]["check"].is_string(), "{status:#}");
    assert!(status["connections"]["sessions_refused"].as_u64().unwrap() >= 1);
    let page = proxy.connect().send("GET", "/touchstone", &[], b"");
    assert!(page.has(b"No attested session"));
}
