//! What is there is had, once.

use touchstone_formats::{Collateral, CollateralFile, Evidence};
use touchstone_testkit::amd::{Product, Tcb};
use touchstone_testkit::intel::PckCa;
use touchstone_testkit::machine::{Endorsement, Machine};
use touchstone_testkit::snp::platform_info::ALIAS_CHECK_COMPLETE;
use touchstone_testkit::vendor::{Reply, vcek_target};

use crate::place::{Place, now, snp_machine, tdx_machine};

fn file(place: &Place) -> CollateralFile {
    CollateralFile::parse(&std::fs::read(place.path("collateral.json")).unwrap()).unwrap()
}

#[test]
fn a_vcek_its_chain_and_its_list() {
    for product in [Product::Genoa, Product::Turin, Product::Milan] {
        let machine = Machine::new(product, 5, now());
        let place = Place::snp(&machine);
        let run = place.fetch(&[]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let vek = place.served(&vcek_target(&machine));
        let crl = place.served(&format!("/vcek/v1/{product}/crl"));
        let Collateral::SevSnp(snp) = file(&place).collateral else {
            panic!("SEV-SNP");
        };
        assert_eq!(
            (snp.vek.as_ref(), &snp.crls),
            (Some(&vek), &vec![crl.clone()])
        );
        // The intermediate alone: roots are the verifier's own.
        let chain = place.served(&format!("/vcek/v1/{product}/cert_chain"));
        let pem = |der: &[u8]| touchstone_testkit::x509::pem("CERTIFICATE", der);
        assert_eq!(snp.chain.len(), 1);
        assert!(
            String::from_utf8(chain)
                .unwrap()
                .starts_with(&pem(&snp.chain[0]))
        );
        for (name, bytes) in [
            ("vek.der", &vek),
            ("chain/intermediate.der", &snp.chain[0]),
            ("crls/root.der", &crl),
        ] {
            let path = place.path("collateral").join(name);
            assert_eq!(&std::fs::read(path).unwrap(), bytes, "{name}");
        }
        assert!(run.stderr.contains("this platform will be refused on "));

        // The second time nobody is asked.
        let asked = place.vendor.asked().len();
        assert_eq!(asked, 3);
        let run = place.fetch(&[]);
        assert_eq!((run.code, place.vendor.asked().len()), (0, asked));
        assert!(
            run.stderr.contains("from the cache, fresh"),
            "{}",
            run.stderr
        );
        assert!(run.stderr.contains("collateral is up to date"));
    }
}

#[test]
fn tcb_info_identity_and_both_lists() {
    for ca in [PckCa::Platform, PckCa::Processor] {
        let mut machine = tdx_machine();
        machine.ca = ca;
        if ca == PckCa::Processor {
            machine.platform = machine.platform.of_processor_ca();
        }
        machine.reissue();
        let place = Place::tdx(&machine);
        let run = place.fetch(&[]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let Collateral::Tdx(tdx) = file(&place).collateral else {
            panic!("TDX");
        };
        let root = place.served("/sgx/certification/v4/rootcacrl");
        assert_eq!(hex::encode(tdx.root_ca_crl.unwrap().0).into_bytes(), root);
        let info = format!(
            "{{\"tcbInfo\":{},\"signature\":\"{}\"}}",
            tdx.tcb_info.unwrap(),
            hex::encode(tdx.tcb_info_signature.unwrap().0)
        );
        let fmspc = hex::encode(machine.platform.fmspc).to_uppercase();
        let target = format!("/tdx/certification/v4/tcb?fmspc={fmspc}");
        assert_eq!(info.into_bytes(), place.served(&target));
        let signer = tdx.tcb_info_issuer_chain.unwrap();
        assert_eq!(signer.matches("-----BEGIN CERTIFICATE-----\n").count(), 2);
        let text = std::fs::read(place.path("collateral/tdx.json")).unwrap();
        let member = serde_json::from_slice::<serde_json::Value>(&text).unwrap();
        assert_eq!(member["tcb_info"], machine.tcb_info.to_json());
        assert_eq!(place.vendor.asked().len(), 4);
    }
}

#[test]
fn evidence_may_be_a_file_with_zeros_after_it_or_an_evidence_file() {
    let machine = tdx_machine();
    let place = Place::tdx(&machine);
    let quote = std::fs::read(place.path("evidence.bin")).unwrap();
    place.write("evidence.bin", &[&quote[..], &[0; 70]].concat());
    assert_eq!(place.fetch(&[]).code, 0);
    let evidence = Evidence {
        purpose: None,
        nonce: None,
        tee: touchstone_formats::Tee::Tdx,
        quote: quote.clone(),
        collateral: None,
        event_log: None,
    };
    place.write("evidence.bin", &evidence.to_file());
    assert_eq!(place.fetch(&[]).code, 0);
    for bad in [
        &quote[..700],
        &[&quote[..], &[1]].concat(),
        b"{}",
        b"",
        &[7; 1184],
    ] {
        place.write("evidence.bin", bad);
        place.fetch(&[]).refused(
            2,
            match bad.len() {
                1184 | 700 => "collateral.format",
                _ => "evidence.format",
            },
        );
    }
}

#[test]
fn a_provider_s_key_needs_its_certificate_from_a_file() {
    let mut machine = snp_machine();
    machine.endorsement = Endorsement::Vlek {
        csp_id: "CN=cc-nowhere-1.simulated.invalid".into(),
    };
    machine.reissue();
    let place = Place::snp(&machine);
    let run = place.fetch(&[]);
    run.refused(1, "usage");
    assert!(run.stderr.contains("--vlek"), "{}", run.stderr);
    assert!(place.vendor.asked().is_empty(), "asked for nothing");

    place.write("vlek.der", &machine.collateral().vek);
    let run = place.fetch(&["--vlek", "vlek.der"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(place.vendor.count("/vlek/v1/Genoa/"), 2);
    // One for another TCB is the provider's, and does not fit.
    let mut other = machine.clone();
    let product = other.pki.product;
    let mut tcb = Tcb::from_bytes(other.report.reported_tcb, product);
    tcb.microcode -= 1;
    other.report.reported_tcb = tcb.to_bytes(product);
    other.reissue();
    place.write("vlek.der", &other.collateral().vek);
    let run = place.fetch(&["--vlek", "vlek.der"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(
        run.stderr
            .contains("with this collateral the evidence would be refused")
    );
    // And a machine with its own key has no use for one.
    let own = Place::snp(&snp_machine());
    own.write("vlek.der", &machine.collateral().vek);
    own.fetch(&["--vlek", "vlek.der"]).refused(1, "usage");
}

#[test]
fn a_report_that_does_not_say_its_product_is_asked_about() {
    let mut machine = Machine::new(Product::Milan, 2, now());
    // A bit that version 2 does not have.
    machine.report.platform_info &= !ALIAS_CHECK_COMPLETE;
    let place = Place::snp(&machine);
    let run = place.fetch(&[]);
    run.refused(1, "usage");
    assert!(run.stderr.contains("give --product"), "{}", run.stderr);
    assert_eq!(place.fetch(&["--product", "Milan"]).code, 0);
    let place = Place::snp(&snp_machine());
    let run = place.fetch(&["--product", "Milan"]);
    run.refused(1, "usage");
    assert!(run.stderr.contains("is from Genoa, not from Milan"));

    let mut masked = snp_machine();
    masked.report.chip_id = [0; 64];
    let run = Place::snp(&masked).fetch(&[]);
    run.refused(1, "usage");
    assert!(run.stderr.contains("CHIP_ID is masked"), "{}", run.stderr);
}

/// What the cache holds is looked at again; what was changed there is fetched again.
#[test]
fn a_cache_that_was_changed_does_no_harm() {
    let machine = snp_machine();
    let place = Place::snp(&machine);
    assert_eq!(place.fetch(&[]).code, 0);
    let names = place.cached();
    assert_eq!(names.len(), 3, "{names:?}");
    let crl = place.path("cache/vcek-crl-Genoa.json");
    let text = std::fs::read_to_string(&crl).unwrap();
    let mut entry: serde_json::Value = serde_json::from_str(&text).unwrap();
    let other = touchstone_testkit::amd::Pki::with_keys(
        Product::Genoa,
        now(),
        touchstone_testkit::amd::PkiKeys::shared("other"),
    );
    entry["body"] = touchstone_formats::text::base64_encode(&other.crl_der()).into();
    std::fs::write(&crl, entry.to_string()).unwrap();
    let asked = place.vendor.count("/crl");
    let run = place.fetch(&[]);
    assert_eq!((run.code, place.vendor.count("/crl")), (0, asked + 1));
    assert!(run.stderr.contains("does not pass"), "{}", run.stderr);
    assert_eq!(std::fs::read_to_string(&crl).unwrap().len(), text.len());
}

/// A server that is asked anew and fails does no harm while what is there holds; an older list does not replace a newer one.
#[test]
fn what_cannot_be_renewed_is_kept() {
    let machine = snp_machine();
    let place = Place::snp(&machine);
    assert_eq!(place.fetch(&[]).code, 0);
    let crl = "/vcek/v1/Genoa/crl";
    let newest = place.served(crl);
    let mut old = machine.clone();
    old.crl.this_update -= 10 * 86_400;
    for (reply, words) in [
        (Reply::Status(403, Vec::new()), "answered 403"),
        (Reply::ok(old.collateral().crls.remove(0)), "an older one"),
        (Reply::ok("<html>"), "malformed"),
    ] {
        place.vendor.put(crl, reply);
        let run = place.fetch(&["--renew"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(
            run.stderr.contains("NOT RENEWED") && run.stderr.contains(words),
            "{}",
            run.stderr
        );
        // One object on stdout, also where it went well.
        let value: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(value["exit"], 0);
        let pieces = value["pieces"].as_array().unwrap();
        let kept = pieces.iter().find(|piece| piece["how"] == "kept").unwrap();
        assert_eq!(kept["name"], "the Genoa revocation list");
        assert!(kept["failure"].as_str().unwrap().contains(words), "{kept}");
        let kept = std::fs::read(place.path("collateral/crls/root.der")).unwrap();
        assert_eq!(kept, newest);
    }
    // The VCEK was asked for four times in all, ten seconds apart, by four processes.
    let times: Vec<_> = place
        .vendor
        .asked()
        .into_iter()
        .filter(|(_, t)| t.contains("blSPL"))
        .collect();
    assert_eq!(times.len(), 4);
    for pair in times.windows(2) {
        let apart = pair[1].0 - pair[0].0;
        assert!(apart.as_millis() >= 9_900, "{apart:?}");
    }
}

#[test]
fn arguments_that_cannot_work_are_said() {
    let place = Place::snp(&snp_machine());
    let run = place.run(&["collateral", "fetch", "evidence.bin", "--json"]);
    run.refused(1, "usage");
    let run = place.fetch(&["--kds", "kds.example"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let run = place.run(&[
        "collateral",
        "fetch",
        "evidence.bin",
        "-o",
        "c.json",
        "--kds",
        "ftp://x",
        "--json",
    ]);
    run.refused(1, "usage");
    assert!(
        run.stderr.contains("expected https://HOST"),
        "{}",
        run.stderr
    );
    // Without the root nothing simulated is believed.
    let url = place.vendor.url();
    let run = place.run(&[
        "collateral",
        "fetch",
        "evidence.bin",
        "-o",
        "c.json",
        "--kds",
        &url,
        "--json",
    ]);
    run.refused(3, "collateral.authentic");
    assert!(
        run.stderr.contains("no trusted root of Genoa"),
        "{}",
        run.stderr
    );
}
