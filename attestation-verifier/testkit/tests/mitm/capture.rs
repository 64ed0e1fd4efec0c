//! Both sides of the real host, byte for byte: it relays what it cannot read.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use touchstone_testkit::mitm::{Config, Lie, ManInTheMiddle, Upstream, contains};
use touchstone_testkit::stack::{Stack, StackBuilder};

use crate::common::{Caller, EITHER, MODEL, caller_of, count, traces, windows};

/// Passes everything on and keeps it.
fn tap(address: SocketAddr) -> ManInTheMiddle {
    ManInTheMiddle::start(Config::before(Upstream::Address(address), Lie::None)).unwrap()
}

/// All that passed, in both directions.
fn passed(taps: &[&ManInTheMiddle]) -> Vec<u8> {
    let mut all = Vec::new();
    for tap in taps {
        assert!(tap.record().complete());
        for seen in tap.record().connections() {
            all.extend(seen.from_client);
            // So that nothing is found where one stream ends and another begins.
            all.extend([0; 8]);
            all.extend(seen.to_client);
            all.extend([0; 8]);
        }
    }
    all
}

/// All pieces of the answer's tensors, as they came: little-endian or JSON.
fn answer_traces(folder: &Path) -> BTreeSet<Vec<u8>> {
    let body = std::fs::read(folder.join("response.bin")).unwrap();
    let info = std::fs::read(folder.join("response.json")).unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    let found = match info["header_length"].as_u64() {
        Some(length) => windows(&body[usize::try_from(length).unwrap()..]),
        None => {
            let text = String::from_utf8(body).unwrap();
            let data = text.split("\"data\":[").skip(1);
            data.flat_map(|rest| windows(rest.split(']').next().unwrap().as_bytes()))
                .collect()
        }
    };
    assert!(found.len() > 25, "an answer that can be recognised");
    found
}

/// Starts the host before these taps of the enclave's listeners, and gives a tap of the host.
fn start_between(stack: &mut Stack, inner: &[(&str, ManInTheMiddle)]) -> ManInTheMiddle {
    for (key, tap) in inner {
        stack.set_host(key, &format!("\"tcp://{}\"", tap.address()));
    }
    stack.start_host();
    tap(stack.host().address())
}

#[test]
fn both_sides_of_the_host_hold_nothing_of_prompts_and_answers() {
    let test = "both_sides_of_the_host_hold_nothing_of_prompts_and_answers";
    let builder = StackBuilder::new().model(MODEL).without_host();
    let Some(mut stack) = builder.start(test) else {
        return;
    };
    let inner = [
        ("enclave.public", tap(stack.enclave_public().address())),
        ("enclave.control", tap(stack.enclave_control().address())),
        ("enclave.tls", tap(stack.enclave_tls())),
    ];
    let outer = start_between(&mut stack, &inner);
    let taps: Vec<&ManInTheMiddle> = inner.iter().map(|(_, t)| t).chain([&outer]).collect();

    let caller = caller_of(&stack, &[]);
    let mut secret = traces();
    assert!(secret.len() > 700);
    for more in [vec!["--binary"], vec!["--json-encoding"]] {
        let asked = caller.ask(
            &outer,
            MODEL,
            &[&more[..], &["--require", "logged quoted"]].concat(),
        );
        assert_eq!(asked.exit, 0, "{}", asked.words);
        assert_eq!(caller.check(&asked.folder).0, 6);
        secret.extend(answer_traces(&asked.folder));
    }
    let captured = passed(&taps);
    assert!(
        captured.len() > 50_000,
        "TLS, batches and bundles: {}",
        captured.len()
    );
    assert!(inner.iter().all(|(_, tap)| !tap.record().is_empty()));
    assert_eq!(count(&secret, &captured), 0, "of {} pieces", secret.len());

    control(&stack, &outer, &taps);
}

/// Both sides of the real host, which passes sealed requests on without TLS.
#[test]
fn both_sides_of_the_host_hold_nothing_of_sealed_prompts_and_answers() {
    let test = "both_sides_of_the_host_hold_nothing_of_sealed_prompts_and_answers";
    let builder = StackBuilder::new().model(MODEL).without_host();
    let Some(mut stack) = builder.start(test) else {
        return;
    };
    let inner = [
        ("enclave.public", tap(stack.enclave_public().address())),
        ("enclave.control", tap(stack.enclave_control().address())),
    ];
    let outer = start_between(&mut stack, &inner);
    let taps: Vec<&ManInTheMiddle> = inner.iter().map(|(_, t)| t).chain([&outer]).collect();

    let caller = caller_of(&stack, &EITHER);
    let mut secret = traces();
    for more in ["--binary", "--json-encoding"] {
        let asked = caller.ask_sealed(&outer, MODEL, &[more, "--require", "logged quoted"]);
        assert_eq!(asked.exit, 0, "{}", asked.words);
        assert_eq!(caller.check(&asked.folder).0, 6);
        secret.extend(answer_traces(&asked.folder));
    }
    // Requests and answers passed here, sealed, through both sides.
    for side in [&taps[..1], &taps[taps.len() - 1..]] {
        let captured = passed(side);
        for part in [&b"POST /v1/ohttp "[..], b"message/ohttp-res"] {
            assert!(contains(&captured, part));
        }
        // Nor where they go inside.
        assert!(!contains(&captured, b"/infer"));
    }
    let captured = passed(&taps);
    assert_eq!(count(&secret, &captured), 0, "of {} pieces", secret.len());

    control(&stack, &outer, &taps);
}

/// The same capture of the same question that the host may read finds all of it, on both sides.
fn control(stack: &Stack, outer: &ManInTheMiddle, taps: &[&ManInTheMiddle]) {
    let plain = "{ waive = \"the host may read this one\" }";
    let caller: Caller = caller_of(stack, &[("binding", plain)]);
    let mut secret = traces();
    for more in ["--binary", "--json-encoding"] {
        let url = format!("http://{}", outer.address());
        let asked = caller.ask_url(&url, MODEL, &["--plaintext", more]);
        assert_eq!(asked.exit, 0, "{}", asked.words);
        secret.extend(answer_traces(&asked.folder));
    }
    for side in [&taps[..1], &taps[taps.len() - 1..]] {
        let found = count(&secret, &passed(side));
        assert_eq!(found, secret.len(), "{:?}", side[0].address());
    }
}
