//! An honest server: every client gets every answer, and can show it afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use attestation_verifier::exchange::Expect;
use serde_json::Value;
use touchstone_formats::headers::TouchstoneResponse;
use touchstone_testkit::mitm::Lie;

use crate::client::Response;
use crate::running::{INFER, Proxy, World, ask, binary, check, json, secret};

/// An answer that was passed on: what its headers say fits together. Gives the receipt's id.
#[track_caller]
fn passed(answer: &Response, require: &str) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 200, "{text}");
    let receipt = TouchstoneResponse::parse(answer.header("touchstone")).unwrap();
    assert_eq!(receipt.require.to_string(), require);
    let id = hex::encode(receipt.id);
    let verified = format!("id=\"{id}\", achieved=({require}), binding=tls-exporter, simulated");
    assert_eq!(answer.header("touchstone-verified"), verified);
    assert!(answer.header("touchstone-openings").contains("outputs=:"));
    id
}

#[track_caller]
fn checks(world: &World, proxy: &Proxy, answers: &[Response]) {
    let kept = proxy.verified();
    assert_eq!(kept.len(), answers.len());
    for folder in kept {
        let (exit, verdict) = check(&folder, &world.path("policy.toml"), &world.path("root.pem"));
        assert_eq!(exit, 0, "{verdict:#}");
        assert_eq!(verdict["binding"], "tls-exporter");
        let body = fs::read(folder.join("response.bin")).unwrap();
        assert!(answers.iter().any(|answer| answer.body == body));
    }
    assert_eq!(proxy.refused().len(), 0);
}

fn expect(folder: &Path) -> Expect {
    Expect::parse(&fs::read(folder.join("expect.json")).unwrap()).unwrap()
}

#[test]
fn json_and_binary_clients_get_what_the_enclave_said_and_can_show_it() {
    let world = World::new(Lie::None);
    let proxy = world.proxy(&[]);
    // Both on one connection, which stays.
    let mut client = proxy.connect();
    let binary = ask(&mut client);
    let id = passed(&binary, "logged signed");
    assert!(binary.body.ends_with(&secret()));
    assert_eq!(binary.header("content-type"), "application/octet-stream");
    let header: usize = binary
        .header("inference-header-content-length")
        .parse()
        .unwrap();
    assert_eq!(binary.body.len(), header + secret().len());
    // Byte for byte what was said inside TLS.
    assert!(world.made(&binary.body));

    let plain = client.send(
        "POST",
        INFER,
        &[("content-type", "application/json")],
        &json("{}"),
    );
    assert_ne!(passed(&plain, "logged signed"), id);
    assert!(world.made(&plain.body));
    assert_eq!(
        plain.json()["outputs"][0]["data"].as_array().unwrap().len(),
        4
    );

    let names: BTreeSet<String> = proxy
        .verified()
        .iter()
        .map(|folder| folder.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(names.contains(&id));
    checks(&world, &proxy, &[binary, plain]);

    // The host that carried all this read none of it.
    let numbers = secret();
    for seen in world.liar.record().connections() {
        assert!(!touchstone_testkit::mitm::contains(
            &seen.from_client,
            &numbers
        ));
        assert!(!touchstone_testkit::mitm::contains(
            &seen.to_client,
            &numbers
        ));
    }
    assert!(world.made(&numbers), "the record would have shown it");
}

#[test]
fn many_clients_at_once_each_get_their_own() {
    let world = World::new(Lie::None);
    let proxy = world.proxy(&["--connections", "4"]);
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = proxy.connect();
                    (0..4).map(|_| ask(&mut client)).collect::<Vec<_>>()
                })
            })
            .collect();
        let answers = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        answers.collect()
    });
    let ids: BTreeSet<String> = answers
        .iter()
        .map(|answer| passed(answer, "logged signed"))
        .collect();
    assert_eq!(ids.len(), 48);
    assert_eq!(proxy.verified().len(), 48);
    let nonces: BTreeSet<Vec<u8>> = proxy
        .verified()
        .iter()
        .map(|folder| expect(folder).nonce.unwrap().0)
        .collect();
    assert_eq!(nonces.len(), 48, "a fresh nonce for each");
    let status = proxy.status();
    assert_eq!(status["verified"], 48);
    assert_eq!(status["total_ms"]["answers"], 48);
    let sessions = status["connections"]["sessions"].as_u64().unwrap();
    assert!((1..=4).contains(&sessions), "{sessions}");
    assert_eq!(status["in_flight"], 0);
}

#[test]
fn clients_may_ask_for_more_and_bring_their_own_nonce() {
    let world = World::new(Lie::None);
    let proxy = world.proxy(&[]);
    let mut client = proxy.connect();
    let asked = [
        (
            "Touchstone",
            "require=(quoted signed), nonce=:q6urq6urq6s=:",
        ),
        ("Content-Type", "application/json"),
    ];
    let answer = client.send("POST", INFER, &asked, &json("{}"));
    let quoted = passed(&answer, "logged quoted signed");
    let parameters =
        r#"{"touchstone_require":"logged quoted signed","touchstone_nonce":"cdcdcdcdcdcdcdcd"}"#;
    let answer = client.send("POST", INFER, &[], &json(parameters));
    passed(&answer, "logged quoted signed");
    for folder in proxy.verified() {
        let nonce = expect(&folder).nonce.unwrap().0;
        let own = match folder.ends_with(&quoted) {
            true => [0xab; 8],
            false => [0xcd; 8],
        };
        assert_eq!(nonce, own);
        let (exit, verdict) = check(&folder, &world.path("policy.toml"), &world.path("root.pem"));
        assert_eq!(exit, 0, "{verdict:#}");
    }

    // Less than the policy is refused here, and nothing of it leaves.
    let before = world.liar.record().connections().len();
    let less = r#"{"touchstone_require":"signed","note":"a prompt of mine"}"#;
    let answer = client.send("POST", INFER, &[], &json(less));
    let problem = answer.json();
    assert_eq!(answer.status, 422);
    assert_eq!(problem["check"], "guarantees.required");
    assert_eq!(
        (problem["exit"].as_u64(), &problem["class"]),
        (Some(4), &Value::from("policy"))
    );
    assert!(
        problem["error"]
            .as_str()
            .unwrap()
            .contains("guarantees.required")
    );
    let seen = world.liar.record().connections();
    assert_eq!(seen.len(), before);
    assert!(!seen.iter().any(|seen| seen.sent(b"a prompt of mine")));
    let answer = client.send(
        "POST",
        INFER,
        &[("Touchstone", "nonce=:q6urq6urq6s=:")],
        &json(r#"{"touchstone_nonce":"cdcdcdcdcdcdcdcd"}"#),
    );
    assert_eq!(answer.status, 400);
}

#[test]
fn the_proxy_can_ask_for_more_than_the_policy() {
    let world = World::new(Lie::None);
    let proxy = world.proxy(&["--require", "quoted"]);
    passed(&ask(&mut proxy.connect()), "logged quoted signed");
    assert_eq!(proxy.status()["require"], "logged quoted signed");
}

#[test]
fn one_line_for_each_answer_and_nothing_secret_in_it() {
    let world = World::new(Lie::None);
    let proxy = world.proxy(&[]);
    let mut client = proxy.connect();
    let nonce = "q6urq6urq6s=";
    let touchstone = format!("nonce=:{nonce}:");
    let (body, length) = binary();
    let headers = [
        ("Touchstone", touchstone.as_str()),
        ("Inference-Header-Content-Length", length.as_str()),
    ];
    let answer = client.send("POST", INFER, &headers, &body);
    let id = passed(&answer, "logged signed");
    let unknown = client.send("POST", "/v2/models/other/infer", &[], &json("{}"));
    assert_eq!(unknown.status, 404);
    assert!(unknown.all("touchstone-verified").is_empty());

    let lines = proxy.answers(2);
    assert_eq!(lines.len(), 2);
    let first = &lines[0];
    assert_eq!(first["receipt"], id.as_str());
    assert_eq!(
        (&first["model"], &first["status"]),
        (&"digits".into(), &200.into())
    );
    assert_eq!(
        (&first["exit"], &first["achieved"]),
        (&0.into(), &"logged signed".into())
    );
    assert_eq!(
        (&first["binding"], &first["simulated"]),
        (&"tls-exporter".into(), &true.into())
    );
    assert!(first["total_ms"].as_f64().unwrap() >= first["seal_ms"].as_f64().unwrap());
    assert_eq!(
        (&lines[1]["model"], &lines[1]["status"]),
        (&"other".into(), &404.into())
    );

    let said = proxy.said();
    let salts = answer.header("touchstone-openings");
    let salt = salts.split(':').nth(1).unwrap();
    for secret in [
        nonce,
        "abababababababab",
        salt,
        "1234.56",
        "binary_data_size",
    ] {
        assert!(!said.contains(secret), "{secret} in\n{said}");
    }
}

#[test]
fn the_status_page_says_how_matters_stand_to_its_own_origin_alone() {
    let world = World::new(Lie::None);
    let proxy = world.proxy(&[]);
    let mut client = proxy.connect();
    passed(&ask(&mut client), "logged signed");

    let status = proxy.status();
    let keyset = &world.server.world().keyset;
    assert_eq!(status["v"], "touchstone/proxy-status/1");
    assert_eq!(status["session"]["name"], keyset.name.as_str());
    assert_eq!(status["session"]["keyset"], keyset.digest().to_string());
    assert_eq!(status["session"]["binding"], "tls-exporter");
    assert_eq!(status["session"]["simulated"], true);
    let policy = fs::read_to_string(world.path("policy.toml")).unwrap();
    let profile = format!("profile = {}", status["policy"]);
    assert!(policy.contains(&profile), "{profile}");
    assert_eq!(status["verified"], 1);

    let page = client.send(
        "GET",
        "/touchstone",
        &[("Origin", "https://evil.example")],
        b"",
    );
    let text = String::from_utf8(page.body.clone()).unwrap();
    assert_eq!(page.status, 200);
    assert!(text.contains("SIMULATED") && text.contains(&keyset.name));
    for outside in ["http://", "src=", "href=", "<script"] {
        assert!(
            !text
                .replace(&format!("https://{}", world.liar.address()), "")
                .contains(outside)
        );
    }
    assert!(page.all("access-control-allow-origin").is_empty());
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    // An answer may be read by scripts, and so may its verification.
    let answer = ask(&mut client);
    let exposed = answer.all("access-control-expose-headers").join(", ");
    assert!(exposed.contains("Touchstone-Verified"));
}

#[test]
fn what_is_under_way_is_finished_after_sigterm() {
    let world = World::with(Lie::Delay, &[], |config| {
        config.delay = std::time::Duration::from_millis(700);
    });
    let mut proxy = world.proxy(&[]);
    let mut client = proxy.connect();
    let (body, length) = binary();
    let asking = std::thread::spawn(move || {
        let headers = [("Inference-Header-Content-Length", length.as_str())];
        client.send("POST", INFER, &headers, &body)
    });
    proxy.until(|proxy| (proxy.status()["in_flight"] == 1).then_some(()));
    proxy.signal("TERM");
    proxy.until(|proxy| proxy.events("draining").first().cloned());
    let answer = asking.join().unwrap();
    passed(&answer, "logged signed");
    assert_eq!(proxy.code(), 0);
    assert_eq!(proxy.verified().len(), 1);
    assert_eq!(proxy.events("stopped")[0]["all_answered"], true);
}

#[test]
fn an_answer_is_kept_even_if_its_client_has_gone() {
    let world = World::with(Lie::Delay, &[], |config| {
        config.delay = std::time::Duration::from_millis(300);
    });
    let proxy = world.proxy(&[]);
    let (body, length) = binary();
    let head = format!(
        "POST {INFER} HTTP/1.1\r\nHost: {}\r\nInference-Header-Content-Length: {length}\r\nContent-Length: {}\r\n\r\n",
        proxy.address,
        body.len()
    );
    let mut stream = std::net::TcpStream::connect(proxy.address).unwrap();
    std::io::Write::write_all(&mut stream, &[head.as_bytes(), &body].concat()).unwrap();
    proxy.until(|proxy| (proxy.status()["in_flight"] == 1).then_some(()));
    drop(stream);
    assert_eq!(proxy.answers(1)[0]["status"], 200);
    assert_eq!(proxy.verified().len(), 1);
}
