//! Everything a server can do wrong: what is said, the exit code and the check, and that nothing of it is kept.

use std::time::{Duration, Instant};

use touchstone_testkit::amd::{Pki, PkiKeys, Product, Tcb};
use touchstone_testkit::machine::Machine;
use touchstone_testkit::vendor::{Reply, Vendor, percent_encode, vcek_target};

use crate::place::{DAY, Place, now, snp_machine, tdx_machine};

const CRL: &str = "/vcek/v1/Genoa/crl";
const CHAIN: &str = "/vcek/v1/Genoa/cert_chain";

/// The fetch fails with this exit code and check and says this, and neither output nor cache has any of it. The twin
/// without the fault succeeds.
#[track_caller]
fn refused(
    place: &Place,
    target: &str,
    fault: Reply,
    exit: i32,
    check: &str,
    words: &str,
) -> usize {
    let good = place.vendor.reply(target);
    place.vendor.put(target, fault);
    let before = place.vendor.count(target);
    let run = place.fetch(&[]);
    run.refused(exit, check);
    assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    assert!(!place.path("collateral.json").exists() && !place.path("collateral").exists());
    let asked = place.vendor.count(target) - before;
    let held = place.cached();

    place.vendor.put(target, good);
    let run = place.fetch(&[]);
    assert_eq!(run.code, 0, "the twin: {}", run.stderr);
    let now_held = place.cached();
    assert!(held.len() < now_held.len(), "{held:?}");
    std::fs::remove_dir_all(place.path("collateral")).unwrap();
    std::fs::remove_file(place.path("collateral.json")).unwrap();
    std::fs::remove_dir_all(place.path("cache")).unwrap();
    asked
}

fn other_vendor() -> Pki {
    Pki::with_keys(Product::Genoa, now(), PkiKeys::shared("other"))
}

#[test]
fn answers_that_are_no_collateral() {
    let machine = snp_machine();
    let place = Place::snp(&machine);
    let format = "collateral.format";
    let html = || Reply::with("<html>sign in</html>", "Content-Type", "text/html");
    refused(
        &place,
        CRL,
        html(),
        2,
        format,
        "the Genoa revocation list: malformed",
    );
    refused(
        &place,
        CHAIN,
        html(),
        2,
        format,
        "the Genoa chain (ASK, ARK): malformed",
    );
    refused(
        &place,
        CHAIN,
        Reply::ok(""),
        2,
        format,
        "expected an intermediate and a root",
    );
    refused(
        &place,
        CRL,
        Reply::Endless,
        2,
        format,
        "larger than the 262144 bytes",
    );
    let crl = machine.collateral().crls.remove(0);
    let gzip = Reply::with(crl.clone(), "Content-Encoding", "gzip");
    refused(
        &place,
        CRL,
        gzip,
        2,
        format,
        "a Content-Encoding that nobody asked for",
    );
    let longer = [&crl[..], &[0]].concat();
    refused(&place, CRL, Reply::ok(longer), 2, format, "malformed");
    let half = crl[..crl.len() / 2].to_vec();
    refused(&place, CRL, Reply::ok(half), 2, format, "malformed");
}

#[test]
fn genuine_things_in_the_wrong_place() {
    let machine = snp_machine();
    let place = Place::snp(&machine);
    let authentic = "collateral.authentic";
    let vcek = vcek_target(&machine);

    // AMD's certificate for another chip, and for this chip at another TCB: both well signed.
    let product = machine.pki.product;
    let mut other = machine.clone();
    other.report.chip_id[0] ^= 1;
    other.reissue();
    let certificate = |machine: &Machine| Reply::ok(machine.collateral().vek);
    // A VCEK is asked for every ten seconds at most: each fault has a place of its own.
    let fresh = || Place::snp(&machine);
    let once = |fault: Reply, words: &str| {
        let place = fresh();
        place.vendor.put(&vcek, fault);
        let run = place.fetch(&[]);
        run.refused(3, authentic);
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
        assert!(!place.path("collateral.json").exists());
        assert_eq!(place.cached().len(), 2, "chain and list alone");
    };
    once(certificate(&other), "it is for another chip, ");
    let mut other = machine.clone();
    let mut tcb = Tcb::from_bytes(other.report.reported_tcb, product);
    tcb.snp -= 1;
    other.report.reported_tcb = tcb.to_bytes(product);
    other.reissue();
    once(certificate(&other), "it is for another TCB, ");
    let mut forged = machine.clone();
    forged.pki = other_vendor();
    forged.reissue();
    once(
        certificate(&forged),
        "AMD's intermediate (ASK) did not sign it",
    );
    let mut milan = Machine::new(Product::Milan, 5, now());
    milan.report.chip_id = machine.report.chip_id;
    milan.reissue();
    once(certificate(&milan), "it is for Milan");
    // The key of another chip under the right name: only the report can tell, and does.
    let mut stranger = machine.clone();
    stranger.key = touchstone_testkit::amd::VekKey::p384();
    stranger.reissue();
    let place2 = fresh();
    place2.vendor.put(&vcek, certificate(&stranger));
    place2.fetch(&[]).refused(3, "snp.signature");
    assert!(!place2.path("collateral.json").exists());

    let foreign = other_vendor();
    let crl = Reply::ok(foreign.crl_der());
    refused(
        &place,
        CRL,
        crl,
        3,
        authentic,
        "no trusted root of Genoa signed it",
    );
    let (ask, asvk) = (machine.pki.ask_der(), machine.pki.asvk_der());
    let pem = |der: &[u8]| touchstone_testkit::x509::pem("CERTIFICATE", der);
    let vlek_chain = Reply::ok(pem(&asvk) + &machine.root_pem());
    // The same place again would wait ten seconds for its VCEK.
    let place = fresh();
    refused(
        &place,
        CHAIN,
        vlek_chain,
        3,
        authentic,
        "it has the intermediate",
    );
    let place = fresh();
    let foreign_root = Reply::ok(pem(&ask) + &foreign.ark_pem());
    refused(
        &place,
        CHAIN,
        foreign_root,
        3,
        authentic,
        "is no trusted root of Genoa",
    );
    let place = fresh();
    let foreign_ask = Reply::ok(pem(&foreign.ask_der()) + &machine.root_pem());
    refused(
        &place,
        CHAIN,
        foreign_ask,
        3,
        authentic,
        "did not make its intermediate a CA",
    );
}

#[test]
fn lists_out_of_their_time() {
    let machine = snp_machine();
    let validity = "collateral.validity";
    let crl = |from: u64, to: u64| {
        let mut machine = machine.clone();
        machine.crl.this_update = from;
        machine.crl.next_update = Some(to);
        Reply::ok(machine.collateral().crls.remove(0))
    };
    let at = now();
    let place = Place::snp(&machine);
    let expired = crl(at - 30 * DAY, at - DAY);
    refused(
        &place,
        CRL,
        expired,
        5,
        validity,
        "the Genoa revocation list: expired: valid from",
    );
    let place = Place::snp(&machine);
    let future = crl(at + DAY, at + 30 * DAY);
    refused(&place, CRL, future, 5, validity, "not valid yet");
    // What is revoked is no secret to be kept, and no collateral to be used.
    let place = Place::snp(&machine);
    let mut revoked = machine.clone();
    revoked.crl.revoked = vec![touchstone_testkit::x509::Revoked {
        serial: machine.pki.ask.serial.clone(),
        date: at - DAY,
        reason: None,
    }];
    let reply = Reply::ok(revoked.collateral().crls.remove(0));
    place.vendor.put(CRL, reply);
    place.fetch(&[]).refused(3, "snp.chain.revoked");
    assert!(!place.path("collateral.json").exists());
}

#[test]
fn servers_that_do_not_answer() {
    let fetch = "collateral.fetch";
    let machine = snp_machine();
    let case = |fault: Reply, words: &str, attempts: usize| {
        let place = Place::snp(&machine);
        let asked = refused(&place, CRL, fault, 5, fetch, words);
        assert_eq!(asked, attempts, "{words}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            case(
                Reply::Status(404, vec![]),
                "answered 404: it knows no such thing",
                1,
            )
        });
        scope.spawn(|| case(Reply::Status(401, vec![]), "answered 401", 1));
        scope.spawn(|| {
            case(
                Reply::Status(500, vec![]),
                "answered 500: it is in trouble",
                4,
            )
        });
        scope.spawn(|| case(Reply::Hangup, "no answer from 127.0.0.1:", 4));
        scope.spawn(|| {
            case(
                Reply::Truncated(vec![b'x'; 1000]),
                "the answer broke off",
                4,
            )
        });
        scope.spawn(|| {
            let long = Reply::status(429, "Retry-After", "3600");
            case(long, "asks to wait 3600 s (status 429)", 1);
        });
        scope.spawn(|| {
            let never = Reply::status(503, "Retry-After", "99999999999999999999999");
            case(never, "(status 503); that is longer than the 60 s left", 1);
        });
        for status in [301, 302, 307, 308] {
            scope.spawn(move || {
                let machine = snp_machine();
                let elsewhere = Vendor::kds(&machine);
                let to = elsewhere.url() + CRL;
                let place = Place::snp(&machine);
                let reply = Reply::status(status, "Location", &to);
                refused(&place, CRL, reply, 5, fetch, "redirects are refused");
                assert!(elsewhere.asked().is_empty(), "never followed");
            });
        }
    });
    // Nobody there at all.
    let place = Place::snp(&machine);
    let run = place.run(&[
        "collateral",
        "fetch",
        "evidence.bin",
        "-o",
        "c.json",
        "--json",
        "--kds",
        "http://127.0.0.1:1",
        "--trust-simulated-root",
        "root.pem",
    ]);
    run.refused(5, fetch);
    assert!(run.stderr.contains("refused"), "{}", run.stderr);
}

#[test]
fn passing_trouble_is_sat_out_and_retry_after_obeyed() {
    let machine = snp_machine();
    let place = Place::snp(&machine);
    let good = place.vendor.reply(CRL);
    let trouble = vec![
        Reply::status(429, "Retry-After", "3"),
        Reply::Status(502, vec![]),
        Reply::Hangup,
        good,
    ];
    place.vendor.script(CRL, trouble);
    let begin = Instant::now();
    let run = place.fetch(&[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let asked = place.vendor.asked();
    let times: Vec<Instant> = asked
        .iter()
        .filter(|(_, t)| t == CRL)
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(times.len(), 4);
    assert!(times[1] - times[0] >= Duration::from_secs(3), "Retry-After");
    assert!(times[2] - times[1] >= Duration::from_millis(900), "a pause");
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[test]
fn intel_s_answers_changed() {
    let machine = tdx_machine();
    let place = Place::tdx(&machine);
    let (format, authentic) = ("collateral.format", "collateral.authentic");
    let fmspc = hex::encode(machine.platform.fmspc).to_uppercase();
    let tcb = format!("/tdx/certification/v4/tcb?fmspc={fmspc}");
    let qe = "/tdx/certification/v4/qe/identity";
    let pck = "/sgx/certification/v4/pckcrl?ca=platform&encoding=der";
    let root = "/sgx/certification/v4/rootcacrl";
    let chain = percent_encode(&machine.pki.tcb_chain_pem());
    let signed = |text: &str| {
        let signature = hex::encode(machine.pki.sign_json(text));
        let body = format!("{{\"tcbInfo\":{text},\"signature\":\"{signature}\"}}");
        Reply::with(body, "TCB-Info-Issuer-Chain", &chain)
    };
    let Reply::Ok { headers, body } = place.vendor.reply(&tcb) else {
        panic!("an answer");
    };
    let body = String::from_utf8(body).unwrap();

    let lie = body.replacen("UpToDate", "OutOfDate", 1);
    assert_ne!(lie, body);
    let lie = Reply::Ok {
        headers: headers.clone(),
        body: lie.into(),
    };
    refused(&place, &tcb, lie, 3, authentic, "did not sign this text");
    // Spaces change nothing that it means, and it is the text that is signed.
    let spaced = Reply::Ok {
        headers,
        body: body.replacen("\"id\":", "\"id\": ", 1).into(),
    };
    refused(&place, &tcb, spaced, 3, authentic, "did not sign this text");
    let bare = Reply::ok(body.clone());
    refused(&place, &tcb, bare, 2, format, "no issuer chain header");
    let mut other = machine.tcb_info.clone();
    other.fmspc[0] ^= 1;
    refused(
        &place,
        &tcb,
        signed(&other.to_json()),
        3,
        authentic,
        "it is for FMSPC",
    );
    let mut old = machine.tcb_info.clone();
    (old.issue_date, old.next_update) = (now() - 40 * DAY, now() - DAY);
    let old = signed(&old.to_json());
    refused(
        &place,
        &tcb,
        old,
        5,
        "collateral.validity",
        "TCB info of FMSPC",
    );
    let foreign = touchstone_testkit::intel::Pki::with_keys(
        now(),
        touchstone_testkit::intel::PkiKeys::shared("other"),
    );
    let text = machine.tcb_info.to_json();
    let forged = format!(
        "{{\"tcbInfo\":{text},\"signature\":\"{}\"}}",
        hex::encode(foreign.sign_json(&text))
    );
    let header = percent_encode(&foreign.tcb_chain_pem());
    let forged = Reply::with(forged, "TCB-Info-Issuer-Chain", &header);
    refused(&place, &tcb, forged, 3, authentic, "no trusted root");
    // SGX's identity instead of TDX's, and TCB info in the identity's place.
    refused(
        &place,
        qe,
        place.vendor.reply(&tcb),
        2,
        format,
        "identity: malformed",
    );
    let mut sgx = machine.qe_identity.clone();
    sgx.id = "QE".into();
    let text = sgx.to_json();
    let sgx = format!(
        "{{\"enclaveIdentity\":{text},\"signature\":\"{}\"}}",
        hex::encode(machine.pki.sign_json(&text))
    );
    let sgx = Reply::with(sgx, "SGX-Enclave-Identity-Issuer-Chain", &chain);
    refused(&place, qe, sgx, 2, format, "identity: malformed");
    // The list of the other CA.
    let ca = touchstone_testkit::intel::PckCa::Processor;
    let list = machine.pki.pck_crl(ca).sign(machine.pki.ca_key(ca));
    let list = Reply::with(
        list,
        "SGX-PCK-CRL-Issuer-Chain",
        &percent_encode(&machine.pki.ca_chain_pem(ca)),
    );
    refused(&place, pck, list, 3, authentic, "it is a list of");
    let foreign_root = Reply::ok(foreign.root_crl().sign(&foreign.keys.root));
    refused(
        &place,
        root,
        foreign_root,
        3,
        authentic,
        "its issuer did not sign it",
    );
    refused(&place, root, Reply::ok("zz"), 2, format, "malformed");
}
