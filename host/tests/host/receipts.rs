//! The states of `GET /v1/receipts/<id>`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode};
use touchstone_formats::{
    Bundle, Collateral, CollateralFile, GuaranteeSet, Purpose, Receipt, SnpCollateral, Tee,
    TlogProof,
    headers::{State, TouchstoneResponse},
    merkle::{EntryKind, entry, leaf_hash, verify_inclusion},
    text::hex_encode,
};

use crate::{
    client::{Answer, get, send, until},
    enclave::{Enclave, Id},
    run::Place,
};

fn target(id: Id) -> String {
    format!("/v1/receipts/{}", hex_encode(&id))
}

/// A bundle that was served: it must be one by formats.md, written as the formats crate writes it.
fn bundle(answer: &Answer) -> Bundle {
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let bundle = Bundle::parse(&answer.body).unwrap();
    assert_eq!(
        bundle.to_file(),
        answer.body,
        "canonical, nothing more and nothing less"
    );
    assert!(bundle.openings.is_empty() && bundle.attachments.is_empty());
    bundle
}

fn purposes(bundle: &Bundle) -> Vec<Purpose> {
    bundle
        .evidence
        .iter()
        .filter_map(|evidence| evidence.purpose)
        .collect()
}

/// All that `logged` needs holds of this bundle.
fn assert_logged(enclave: &Enclave, bundle: &Bundle, id: Id) {
    assert_eq!(bundle.keyset.digest(), enclave.keyset_digest());
    let receipt = Receipt::parse(&bundle.receipt).unwrap();
    assert_eq!(receipt.claims.cti, id);
    assert!(receipt.verify(&bundle.keyset.receipt_key.0));
    assert_eq!(bundle.catalog, Some(enclave.catalog()));
    let proof = TlogProof::parse(bundle.proof.as_ref().unwrap()).unwrap();
    assert!(proof.note.verify(&bundle.keyset.log));
    let checkpoint = proof.note.checkpoint().unwrap();
    let leaf = leaf_hash(&entry(EntryKind::Receipt, receipt.digest()));
    assert!(verify_inclusion(
        proof.index,
        checkpoint.size,
        leaf,
        &proof.hashes,
        checkpoint.root
    ));
    assert_eq!(proof.index, receipt.claims.sequence + 2);
}

async fn started() -> (Arc<Enclave>, Place, host::Host) {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.start().await;
    // The keysets are there.
    let probe = enclave.answer("signed");
    until(host.address(), &target(probe), "ready", |answer| {
        answer.status == StatusCode::OK
    })
    .await;
    (enclave, place, host)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logged_receipt_grows_from_202_to_200() {
    let (enclave, _place, host) = started().await;
    let address = host.address();
    let answer = send(address, Method::POST, "/v2/models/m/infer", &[], b"{}").await;
    assert!(
        answer.headers.contains_key("touchstone-openings"),
        "they pass by"
    );
    let said = TouchstoneResponse::parse(answer.header("touchstone").unwrap()).unwrap();
    assert_eq!(said.state, State::Pending);

    let so_far = get(address, &target(said.id)).await;
    assert_eq!(
        (so_far.status, so_far.header("retry-after")),
        (StatusCode::ACCEPTED, Some("1"))
    );
    let so_far = bundle(&so_far);
    assert_eq!(
        (purposes(&so_far), &so_far.proof),
        (vec![Purpose::Boot], &None)
    );
    assert_eq!(so_far.receipt, enclave.cose(said.id));
    assert_eq!(
        so_far.catalog,
        Some(enclave.catalog()),
        "asked for: it is in no stored batch yet"
    );

    enclave.seal();
    let whole = until(address, &target(said.id), "sealed", |answer| {
        answer.status == StatusCode::OK
    })
    .await;
    assert_eq!(whole.header("retry-after"), None);
    let whole = bundle(&whole);
    assert_eq!(purposes(&whole), [Purpose::Boot, Purpose::Checkpoint]);
    assert_logged(&enclave, &whole, said.id);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_guarantee_is_complete_with_what_it_needs() {
    let (enclave, _place, host) = started().await;
    let address = host.address();
    let [signed, quoted, both] =
        ["signed", "quoted", "logged quoted"].map(|words| enclave.answer(words));
    let status = async |id| get(address, &target(id)).await.status;

    assert_eq!(status(signed).await, StatusCode::OK);
    assert_eq!(status(quoted).await, StatusCode::ACCEPTED);
    assert_eq!(status(both).await, StatusCode::ACCEPTED);

    // The quotes come before the seal.
    enclave.quote(&[quoted, both]);
    enclave.all_acknowledged().await;
    let answer = get(address, &target(quoted)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        purposes(&bundle(&answer)),
        [Purpose::Boot, Purpose::Receipt]
    );
    let answer = get(address, &target(both)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(
        purposes(&bundle(&answer)),
        [Purpose::Boot, Purpose::Receipt]
    );

    enclave.seal();
    enclave.all_acknowledged().await;
    let answer = get(address, &target(both)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let all = bundle(&answer);
    assert_eq!(
        purposes(&all),
        [Purpose::Boot, Purpose::Checkpoint, Purpose::Receipt]
    );
    assert_logged(&enclave, &all, both);

    // The seal before the quote.
    let late = enclave.answer("logged quoted");
    enclave.seal();
    enclave.all_acknowledged().await;
    let answer = get(address, &target(late)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(
        purposes(&bundle(&answer)),
        [Purpose::Boot, Purpose::Checkpoint]
    );
    enclave.quote(&[late]);
    enclave.all_acknowledged().await;
    assert_eq!(status(late).await, StatusCode::OK);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_name_no_receipt() {
    let (_enclave, _place, host) = started().await;
    let address = host.address();
    let known = "/v1/receipts/0123456789abcdef0123456789abcdef";
    for bad in [
        "/v1/receipts/",
        "/v1/receipts/0123456789abcdef0123456789abcde",
        "/v1/receipts/0123456789abcdef0123456789abcdef0",
        "/v1/receipts/0123456789ABCDEF0123456789abcdef",
        "/v1/receipts/0123456789abcdef0123456789abcdeg",
        "/v1/receipts/0123456789abcdef0123456789abcdef/",
        "/v1/receipts/%30123456789abcdef0123456789abcdef",
        "/v1/receipts/0123456789abcdef0123456789abcdef?",
        "/v1/receipts/0123456789abcdef0123456789abcdef?wait=1",
    ] {
        let answer = get(address, bad).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}");
        answer.problem();
    }
    let answer = get(address, known).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    answer.problem();
    for method in [Method::POST, Method::DELETE, Method::PUT] {
        let answer = send(address, method, known, &[], b"").await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (StatusCode::METHOD_NOT_ALLOWED, Some("GET, HEAD, OPTIONS"))
        );
    }
    // Not the host's: relayed like everything else.
    assert_eq!(get(address, "/v1/receipts").await.status, StatusCode::OK);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_ends_with_the_seal_or_with_patience() {
    let (enclave, _place, host) = started().await;
    let address = host.address();
    let answer = send(address, Method::POST, "/v2/models/m/infer", &[], b"{}").await;
    let id = TouchstoneResponse::parse(answer.header("touchstone").unwrap())
        .unwrap()
        .id;

    let began = Instant::now();
    let answer = send(
        address,
        Method::GET,
        &target(id),
        &[("prefer", "wait=1")],
        b"",
    )
    .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(bundle(&answer).receipt, enclave.cose(id));
    assert!(began.elapsed() >= Duration::from_secs(1) && began.elapsed() < Duration::from_secs(3));

    let began = Instant::now();
    let waiting = tokio::spawn({
        let target = target(id);
        async move {
            send(
                address,
                Method::GET,
                &target,
                &[("Prefer", "respond-async, wait=20")],
                b"",
            )
            .await
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    // What happens to others wakes nobody in vain, and ends nobody's wait.
    enclave.quote(&[[9; 16]]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    enclave.seal();
    let answer = waiting.await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_logged(&enclave, &bundle(&answer), id);
    assert!(began.elapsed() < Duration::from_secs(5));

    // Nothing to wait for.
    let began = Instant::now();
    let unknown = "/v1/receipts/00000000000000000000000000000000";
    let answer = send(address, Method::GET, unknown, &[("prefer", "wait=20")], b"").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(began.elapsed() < Duration::from_secs(5));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collateral_is_the_newest_there_is() {
    let (enclave, place, host) = started().await;
    let address = host.address();
    let id = enclave.answer("logged quoted");
    enclave.quote(&[id]);
    enclave.seal();
    enclave.all_acknowledged().await;
    let bare = bundle(&get(address, &target(id)).await);
    assert_eq!(bare.evidence.len(), 3);
    assert!(
        bare.evidence
            .iter()
            .all(|evidence| evidence.collateral.is_none())
    );

    let folder = place.path("collateral");
    std::fs::create_dir_all(folder.join("crls")).unwrap();
    let der = |byte: u8| [&[0x30, 100][..], &[byte; 100]].concat();
    std::fs::write(folder.join("vek.der"), der(1)).unwrap();
    for version in [2, 3] {
        std::fs::write(folder.join("crls/list.crl"), der(version)).unwrap();
        let has_it = |answer: &Answer| {
            let found = bundle(answer);
            found
                .evidence
                .iter()
                .all(|evidence| match &evidence.collateral {
                    Some(Collateral::SevSnp(snp)) => {
                        snp.vek == Some(der(1)) && snp.crls == [der(version)]
                    }
                    _ => false,
                })
        };
        let whole = until(address, &target(id), "with collateral", has_it).await;
        // Nothing else has changed.
        let mut whole = bundle(&whole);
        whole
            .evidence
            .iter_mut()
            .for_each(|evidence| evidence.collateral = None);
        assert_eq!(whole, bare);
    }
    host.stop().await;
}

/// What the platform's host put beside its reports, in place of what the operator has not: nothing more of it, and never in
/// place of what he has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_in_the_folder_comes_from_the_platform() {
    let (enclave, place, host) = started().await;
    let address = host.address();
    let target = "/v1/collateral";
    let folder = place.path("collateral");
    std::fs::create_dir_all(folder.join("chain")).unwrap();
    let der = |byte: u8| [&[0x30, 100][..], &[byte; 100]].concat();
    std::fs::write(folder.join("chain/ark.der"), der(1)).unwrap();
    let file = |vek: Option<u8>, chain: u8| {
        let snp = SnpCollateral {
            vek: vek.map(der),
            chain: vec![der(chain)],
            crls: Vec::new(),
        };
        let file = CollateralFile {
            tee: Tee::SevSnp,
            collateral: Collateral::SevSnp(snp),
        };
        file.to_file()
    };
    let is = |file: Vec<u8>| move |answer: &Answer| answer.body == file;
    until(address, target, "the folder's", is(file(None, 1))).await;
    // What is no collateral changes nothing.
    enclave.gives(b"{}\n".to_vec());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(is(file(None, 1))(&get(address, target).await));

    enclave.gives(file(Some(2), 9));
    until(address, target, "the platform's", is(file(Some(2), 1))).await;
    // With the firmware another one comes.
    enclave.gives(file(Some(3), 9));
    until(address, target, "the next", is(file(Some(3), 1))).await;
    // The operator's own counts.
    std::fs::write(folder.join("vek.der"), der(4)).unwrap();
    until(address, target, "the operator's", is(file(Some(4), 1))).await;
    std::fs::remove_file(folder.join("vek.der")).unwrap();
    until(address, target, "the platform's", is(file(Some(3), 1))).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collateral_is_to_be_had_by_itself() {
    let (enclave, place, host) = started().await;
    let address = host.address();
    let target = "/v1/collateral";
    let answer = get(address, target).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.problem().contains("no collateral"), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));

    let folder = place.path("collateral");
    std::fs::create_dir_all(folder.join("crls")).unwrap();
    let der = |byte: u8| [&[0x30, 100][..], &[byte; 100]].concat();
    std::fs::write(folder.join("vek.der"), der(1)).unwrap();
    for version in [2, 3] {
        std::fs::write(folder.join("crls/list.crl"), der(version)).unwrap();
        let snp = SnpCollateral {
            vek: Some(der(1)),
            chain: Vec::new(),
            crls: vec![der(version)],
        };
        let expected = CollateralFile {
            tee: Tee::SevSnp,
            collateral: Collateral::SevSnp(snp),
        };
        let answer = until(address, target, "the newest", |answer| {
            answer.status == StatusCode::OK
                && CollateralFile::parse(&answer.body).unwrap() == expected
        })
        .await;
        assert_eq!(expected.to_file(), answer.body);
        for (name, value) in [
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("access-control-allow-origin", "*"),
        ] {
            assert_eq!(answer.header(name), Some(value));
        }
        let head = send(address, Method::HEAD, target, &[], b"").await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
        let length = answer.body.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()));
    }

    for method in [Method::POST, Method::DELETE, Method::PUT] {
        let answer = send(address, method, target, &[], b"").await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (StatusCode::METHOD_NOT_ALLOWED, Some("GET, HEAD, OPTIONS"))
        );
        answer.problem();
    }
    let answer = get(address, "/v1/collateral?tee=sev-snp").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    answer.problem();
    let preflight = send(address, Method::OPTIONS, target, &[], b"").await;
    assert_eq!(preflight.status, StatusCode::NO_CONTENT);
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, HEAD, OPTIONS"),
    ] {
        assert_eq!(preflight.header(name), Some(value));
    }
    // All of it came from the host itself; what only looks alike is the enclave's.
    assert_eq!(get(address, "/v1/collateral/").await.status, StatusCode::OK);
    let seen = enclave.seen.lock().unwrap().clone();
    let seen: Vec<_> = seen.iter().filter(|to| to.contains("collateral")).collect();
    assert_eq!(seen, ["/v1/collateral/"]);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enclave_that_ends_before_sealing_leaves_410() {
    let (enclave, _place, host) = started().await;
    let address = host.address();
    let infer = async |require: &str| {
        let require = GuaranteeSet::parse_words(require).unwrap();
        let header = format!("require=({require})");
        let answer = send(
            address,
            Method::POST,
            "/v2/models/m/infer",
            &[("touchstone", &header)],
            b"{}",
        )
        .await;
        TouchstoneResponse::parse(answer.header("touchstone").unwrap())
            .unwrap()
            .id
    };
    let sealed = infer("logged").await;
    enclave.seal();
    enclave.all_acknowledged().await;
    let unquoted = infer("quoted").await;
    enclave.seal();
    enclave.all_acknowledged().await;
    let (quoted, logged, fetched, signed) = (
        infer("quoted").await,
        infer("logged").await,
        infer("logged").await,
        infer("signed").await,
    );
    enclave.quote(&[quoted]);
    enclave.all_acknowledged().await;
    // These two were seen before the end, one of them complete.
    assert_eq!(
        get(address, &target(fetched)).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(get(address, &target(signed)).await.status, StatusCode::OK);
    let waiting = tokio::spawn({
        let target = target(logged);
        async move { send(address, Method::GET, &target, &[("prefer", "wait=20")], b"").await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;

    enclave.die().await;
    // Nobody knows yet whether it comes back.
    for id in [logged, fetched] {
        assert_eq!(get(address, &target(id)).await.status, StatusCode::ACCEPTED);
    }
    let promised = get(address, &target(logged)).await;
    assert_eq!(
        promised.body,
        format!(
            "{{\"id\":\"{}\",\"state\":\"pending\",\"v\":\"touchstone/pending/1\"}}\n",
            hex_encode(&logged)
        )
    );
    let unknown = get(address, "/v1/receipts/00000000000000000000000000000000").await;
    assert_eq!(
        (unknown.status, unknown.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, Some("1"))
    );

    enclave.rise().await;
    let [sealing, quoting] =
        ["sealing", "quoting"].map(|what| format!("the enclave ended before {what}"));
    for (id, reason) in [
        (logged, &sealing),
        (fetched, &sealing),
        (unquoted, &quoting),
    ] {
        let answer = until(address, &target(id), "gone", |answer| {
            answer.status == StatusCode::GONE
        })
        .await;
        assert_eq!(answer.problem(), *reason);
    }
    assert_eq!(
        waiting.await.unwrap().status,
        StatusCode::GONE,
        "who waited is told"
    );
    for id in [sealed, quoted, signed] {
        let answer = get(address, &target(id)).await;
        assert_eq!(answer.status, StatusCode::OK);
        bundle(&answer);
    }
    let unknown = get(address, "/v1/receipts/00000000000000000000000000000000").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    // The new enclave's receipts are as good as the old one's.
    let new = infer("logged").await;
    assert_eq!(
        get(address, &target(new)).await.status,
        StatusCode::ACCEPTED
    );
    enclave.seal();
    enclave.all_acknowledged().await;
    assert_logged(&enclave, &bundle(&get(address, &target(new)).await), new);
    host.stop().await;
}

/// The same enclave after a break in the network is the same boot: nothing is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_break_in_the_network_loses_nothing() {
    let (enclave, _place, host) = started().await;
    let address = host.address();
    let answer = send(address, Method::POST, "/v2/models/m/infer", &[], b"{}").await;
    let id = TouchstoneResponse::parse(answer.header("touchstone").unwrap())
        .unwrap()
        .id;
    enclave.die().await;
    assert_eq!(get(address, &target(id)).await.status, StatusCode::ACCEPTED);
    enclave.come_back().await;
    enclave.seal();
    until(address, &target(id), "sealed", |answer| {
        answer.status == StatusCode::OK
    })
    .await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ended_without_a_receipt_leaves_410() {
    let (enclave, _place, host) = started().await;
    let address = host.address();
    // Promised on the wire, and never made: what a misbehaving enclave could do.
    let answer = send(address, Method::POST, "/v2/models/m/infer", &[], b"{}").await;
    let id = TouchstoneResponse::parse(answer.header("touchstone").unwrap())
        .unwrap()
        .id;
    enclave.forget(id);
    assert_eq!(get(address, &target(id)).await.status, StatusCode::ACCEPTED);
    enclave.close();
    let answer = until(address, &target(id), "gone", |answer| {
        answer.status == StatusCode::GONE
    })
    .await;
    assert!(answer.problem().contains("log of its keyset ended"));
    host.stop().await;
}

/// An answer whose receipt the store holds already (it was sealed before it was sent) is not pending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_that_are_kept_already_are_not_noted() {
    let (enclave, place, host) = started().await;
    let address = host.address();
    enclave.answers_after(Duration::from_millis(50));
    for _ in 0..3 {
        let answer = send(address, Method::POST, "/v2/models/m/infer", &[], b"{}").await;
        let id = TouchstoneResponse::parse(answer.header("touchstone").unwrap())
            .unwrap()
            .id;
        enclave.seal();
        enclave.all_acknowledged().await;
        assert_eq!(get(address, &target(id)).await.status, StatusCode::OK);
        // The same answer again, as a late head would be.
        enclave.say_again(id);
        let again = send(address, Method::POST, "/v2/models/m/infer", &[], b"{}").await;
        assert!(
            again
                .header("touchstone")
                .unwrap()
                .contains(&hex_encode(&id))
        );
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    host.stop().await;
    let rows: i64 = rusqlite::Connection::open(place.store())
        .unwrap()
        .query_row(
            "SELECT (SELECT count(*) FROM pending) + (SELECT count(*) FROM notes)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(rows, 0);
}
