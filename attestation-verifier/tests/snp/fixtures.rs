//! Real evidence that is not committed, and what EXPECTED.tsv says of it.
//!
//! Every case is judged twice: under the strict template, and under a policy that differs from
//! it in exactly the checks that the table below names. That both the exit code and the set of
//! refusing checks are compared keeps "loosened" from growing.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{as_found, evidence, file, judged, pem_file, template, with};
use attestation_verifier::Roots;
use attestation_verifier::dates::parse_rfc3339;
use attestation_verifier::parse::cert::{CertError, Certificate};
use attestation_verifier::parse::vek::{VekExtensions, VekIdentity};
use attestation_verifier::product::Product;
use attestation_verifier::verdict::Outcome;
use touchstone_testkit::fixtures;

/// Checks that refuse under the strict template beside `snp.chain.crl` (no revocation list is
/// among the fixtures) and `snp.measurement` (the template accepts none).
const REFUSING: &[(&str, &[&str])] = &[
    // Azure's guest policy bits are 0x3001f, minimum ABI 0.31: nothing a check objects to.
    ("snp/azure-genoa", &["snp.platform.smt"]),
    (
        "snp/azure-hcl-raw",
        &[
            "snp.version",
            "snp.product",
            "snp.tcb.reported",
            "snp.tcb.committed",
            "snp.tcb.launch",
            "snp.tcb.provisional",
            "snp.platform.ecc",
            "snp.platform.alias_check",
        ],
    ),
    ("snp/azure-v0", &["snp.product"]),
    (
        "snp/dstack-milan",
        &[
            "snp.product",
            "snp.tcb.reported",
            "snp.tcb.committed",
            "snp.tcb.launch",
            "snp.host_data",
        ],
    ),
    (
        "snp/go-sev-guest-milan-v2",
        &[
            "snp.version",
            "snp.product",
            "snp.tcb.reported",
            "snp.tcb.committed",
            "snp.tcb.launch",
            "snp.policy.debug",
            "snp.platform.ecc",
            "snp.platform.alias_check",
        ],
    ),
    ("snp/oak-genoa_oc", &[]),
    ("snp/oak-milan_oc_release", &["snp.product"]),
    (
        "snp/trustee-milan-v2",
        &[
            "snp.version",
            "snp.product",
            "snp.tcb.reported",
            "snp.tcb.committed",
            "snp.tcb.launch",
            "snp.tcb.provisional",
            "snp.platform.ecc",
            "snp.platform.alias_check",
        ],
    ),
    (
        "snp/virtee-milan-v2",
        &[
            "snp.version",
            "snp.product",
            "snp.tcb.reported",
            "snp.tcb.committed",
            "snp.tcb.launch",
            "snp.platform.ecc",
            "snp.platform.alias_check",
        ],
    ),
    (
        "snp/trustee-vlek",
        &[
            "snp.product",
            "snp.signing_key",
            "snp.vlek.csp",
            "snp.chip_id.masked",
            "snp.tcb.reported",
            "snp.tcb.provisional",
            "snp.platform.tsme",
            "snp.vmpl",
        ],
    ),
];

/// Judges one case of EXPECTED.tsv both ways.
fn case(root: &Path, name: &str, at: &str, strict_exit: u8, refusing: &[&str]) {
    let amd = root.join("snp/_amd");
    let vek = file(root.join(name).join("vek.der"));
    let report = file(root.join(name).join("report.bin"));
    let extensions = VekExtensions::read(&Certificate::parse(&vek).unwrap()).unwrap();
    let product = extensions.product.name().to_lowercase();
    // The whole file of a published chain, root and all: roots in it are passed over.
    let chain = match extensions.identity {
        VekIdentity::Chip(_) => {
            let mut chain = pem_file(&amd.join(format!("{product}_ask.pem")));
            chain.extend(pem_file(&amd.join(format!("{product}_ark.pem"))));
            chain
        }
        VekIdentity::Provider(_) => pem_file(&amd.join(format!("ask_ark_{product}_vlek.pem"))),
    };
    let time = parse_rfc3339(at).unwrap();
    let evidence = evidence(&report, &vek, &chain, &[]);
    let roots = Roots::pinned();

    let strict = judged(&evidence, &template(), &roots, time);
    assert_eq!(strict.exit(), strict_exit, "{name}: {}", strict.words());
    assert_eq!(strict.deciding(), Some("snp.chain.crl"), "{name}");
    let mut expected: Vec<&str> = ["snp.chain.crl", "snp.measurement"].to_vec();
    expected.extend(refusing);
    expected.sort_unstable();
    let mut found: Vec<&str> = strict
        .checks
        .iter()
        .filter(|c| c.refuses())
        .map(|c| c.id.as_ref())
        .collect();
    found.sort_unstable();
    assert_eq!(found, expected, "{name}");

    let mut policy = with(
        &template(),
        "snp.chain.crl",
        "{ waive = \"none among the fixtures\" }",
    );
    for id in expected.iter().filter(|id| **id != "snp.chain.crl") {
        policy = as_found(&policy, &strict, id);
    }
    let loose = judged(&evidence, &policy, &roots, time);
    assert_eq!(loose.exit(), 0, "{name}: {}", loose.words());
    assert!(!loose.context.simulated);
    let waived: Vec<_> = loose
        .checks
        .iter()
        .filter(|c| c.result == Outcome::Waived)
        .map(|c| &c.id)
        .collect();
    assert!(waived.iter().any(|id| *id == "snp.chain.crl"));

    // None of it is there by luck: without any one of them it is refused, by that very check.
    for id in &expected {
        let original = template()
            .lines()
            .find_map(|l| l.strip_prefix(&format!("\"{id}\" = ")).map(str::to_owned));
        let one_strict = with(&policy, id, &original.unwrap());
        let verdict = judged(&evidence, &one_strict, &roots, time);
        assert_eq!(verdict.deciding(), Some(*id), "{name}");
    }
}

#[test]
fn every_case_of_the_table() {
    let Some(root) = fixtures::evidence() else {
        return fixtures::skipped("every_case_of_the_table", "no evidence fixtures");
    };
    let table = std::fs::read_to_string(root.join("EXPECTED.tsv")).unwrap();
    let refusing: BTreeMap<&str, &[&str]> = REFUSING.iter().copied().collect();
    let mut judged = Vec::new();
    for row in table.lines().skip(1).filter(|row| row.starts_with("snp/")) {
        let columns: Vec<&str> = row.split('\t').collect();
        let [name, _, _, at, exit, ..] = columns[..] else {
            panic!("{row}")
        };
        // Two rows are about certificates without a report; the tests below have them.
        let Some(refusing) = refusing.get(name) else {
            continue;
        };
        case(&root, name, at, exit.parse().unwrap(), refusing);
        judged.push(name.to_owned());
    }
    let mut all: Vec<&str> = REFUSING.iter().map(|(name, _)| *name).collect();
    all.sort_unstable();
    judged.sort_unstable();
    assert_eq!(judged, all);
}

#[test]
fn a_vlek_holds_in_its_year_only() {
    let Some(root) = fixtures::evidence() else {
        return fixtures::skipped("a_vlek_holds_in_its_year_only", "no evidence fixtures");
    };
    let folder = root.join("snp/trustee-vlek");
    let chain = pem_file(&root.join("snp/_amd/ask_ark_milan_vlek.pem"));
    let evidence = evidence(
        &file(folder.join("report.bin")),
        &file(folder.join("vek.der")),
        &chain,
        &[],
    );
    let policy = with(
        &template(),
        "snp.chain.crl",
        "{ waive = \"none among the fixtures\" }",
    );
    for (at, exit, deciding) in [
        ("2024-12-10T22:14:20Z", 5, "snp.chain.validity"),
        ("2024-12-10T22:14:21Z", 4, "snp.product"),
        ("2025-12-10T22:14:21Z", 4, "snp.product"),
        ("2025-12-10T22:14:22Z", 5, "snp.chain.validity"),
    ] {
        let verdict = judged(
            &evidence,
            &policy,
            &Roots::pinned(),
            parse_rfc3339(at).unwrap(),
        );
        assert_eq!(
            (verdict.exit(), verdict.deciding()),
            (exit, Some(deciding)),
            "{at}"
        );
        if exit == 5 {
            let check = verdict.checks.find("snp.chain.validity").unwrap();
            let window = "2024-12-10T22:14:21Z to 2025-12-10T22:14:21Z";
            assert!(check.reason.contains(window), "{}", check.reason);
        }
    }
}

#[test]
fn malformed_extensions() {
    let Some(root) = fixtures::evidence() else {
        return fixtures::skipped("malformed_extensions", "no evidence fixtures");
    };
    let folder = root.join("snp/trustee-bad-vcek");
    // hwID inside an OCTET STRING of its own: 66 bytes instead of 64.
    let der = file(folder.join("vek-invalid-new.der"));
    let certificate = Certificate::parse(&der).unwrap();
    match VekExtensions::read(&certificate) {
        Err(CertError::Extension { name, .. }) => assert_eq!(name, "hwID"),
        other => panic!("{other:?}"),
    }
}

/// Its neighbour has nothing malformed: hwID is bare as AMD writes it, every level is a DER INTEGER. What
/// is wrong with it is the signature, which belongs to other bytes; that is exit 3, not 2.
#[test]
fn a_certificate_with_a_signature_of_other_bytes() {
    let Some(root) = fixtures::evidence() else {
        return fixtures::skipped(
            "a_certificate_with_a_signature_of_other_bytes",
            "no fixtures",
        );
    };
    let vek = file(root.join("snp/trustee-bad-vcek/vek-invalid-legacy.der"));
    VekExtensions::read(&Certificate::parse(&vek).unwrap()).unwrap();
    let report = file(root.join("snp/trustee-milan-v2/report.bin"));
    let chain = pem_file(&root.join("snp/_amd/milan_ask.pem"));
    let time = parse_rfc3339("2026-01-15T00:00:00Z").unwrap();
    let verdict = judged(
        &evidence(&report, &vek, &chain, &[]),
        &template(),
        &Roots::pinned(),
        time,
    );
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (3, Some("snp.chain.signature"))
    );
}

#[test]
fn turin_certificates() {
    let Some(root) = fixtures::evidence() else {
        return fixtures::skipped("turin_certificates", "no evidence fixtures");
    };
    let der = file(root.join("snp/virtee-turin-cert-only/vek.der"));
    let extensions = VekExtensions::read(&Certificate::parse(&der).unwrap()).unwrap();
    assert_eq!(extensions.product, Product::Turin);
    assert_eq!(extensions.tcb.fmc, Some(0));
    assert_eq!(extensions.tcb.microcode, 9);
    let VekIdentity::Chip(hwid) = extensions.identity else {
        panic!("a VCEK")
    };
    assert_eq!(hex::encode(hwid), "1e550a8ee5cf9f4d");
}

#[test]
fn pinned_roots_are_in_every_published_chain() {
    let Some(root) = fixtures::evidence() else {
        return fixtures::skipped("pinned_roots_are_in_every_published_chain", "no fixtures");
    };
    let roots = Roots::pinned();
    let mut compared = 0;
    for entry in std::fs::read_dir(root.join("snp/_amd")).unwrap() {
        for der in pem_file(&entry.unwrap().path()) {
            let certificate = Certificate::parse(&der).unwrap();
            if certificate.subject != certificate.issuer {
                continue;
            }
            assert!(roots.anchors().iter().any(|a| a.certificate.der() == der));
            compared += 1;
        }
    }
    assert!(compared >= 9, "{compared}");
}
