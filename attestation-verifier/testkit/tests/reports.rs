//! Reports against real reports and against a reader that is not ours.

use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;
use touchstone_testkit::amd::{Pki, Product, Tcb, VekKey};
use touchstone_testkit::fixtures;
use touchstone_testkit::snp::{REPORT_LENGTH, Report, SIGNED_LENGTH, flags, policy};

const AT: u64 = 1_790_000_000;

#[test]
fn real_reports_survive_a_round_trip_byte_for_byte() {
    let Some(folder) = fixtures::evidence() else {
        return fixtures::skipped(
            "real_reports_survive_a_round_trip_byte_for_byte",
            "no fixtures",
        );
    };
    let mut versions = Vec::new();
    for case in std::fs::read_dir(folder.join("snp")).unwrap() {
        let path = case.unwrap().path().join("report.bin");
        let Ok(real) = std::fs::read(&path) else {
            continue;
        };
        let report = Report::from_bytes(&real).unwrap();
        assert_eq!(
            hex::encode(&report.to_bytes()[..SIGNED_LENGTH]),
            hex::encode(&real[..SIGNED_LENGTH]),
            "{path:?}"
        );
        assert!(Report::from_bytes(&real[..REPORT_LENGTH - 1]).is_none());
        versions.push(report.version);
    }
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions, [2, 3, 5]);
}

#[test]
fn an_independent_reader_finds_every_field_and_verifies_the_chain() {
    for product in Product::ALL {
        let pki = Pki::new(product, AT);
        let key = VekKey::p384();
        for version in [2, 3, 5] {
            let mut report = distinct_fields(product, version);
            if version == 2 && product == Product::Turin {
                // It tells Turin by the zeros of CHIP_ID there, which is what ours has.
                assert!(report.chip_id[8..].iter().all(|b| *b == 0));
            }
            let vcek = pki.vcek(&key, &report).sign(&pki.keys.ask);
            let chain = chain(&pki.ark_der(), &pki.ask_der(), &vcek);
            let signed = report.sign(&key);
            let theirs = AttestationReport::from_bytes(&signed).unwrap();
            assert_fields(&report, &theirs, product);
            (&chain, &theirs)
                .verify()
                .unwrap_or_else(|e| panic!("{product} v{version}: {e}"));

            // A VLEK signs as well.
            report.flags = flags::SIGNED_BY_VLEK;
            let vlek = pki
                .vlek(&key, &report, "CN=cc-x.simulated.invalid")
                .sign(&pki.keys.asvk);
            let theirs = AttestationReport::from_bytes(&report.sign(&key)).unwrap();
            let vlek_chain = self::chain(&pki.ark_der(), &pki.asvk_der(), &vlek);
            (&vlek_chain, &theirs).verify().unwrap();

            // Another key's signature does not pass, nor an intermediate that signed nothing.
            let theirs = AttestationReport::from_bytes(&report.sign(&VekKey::p384())).unwrap();
            assert!((&vlek_chain, &theirs).verify().is_err());
            let stranger = self::chain(&pki.ark_der(), &pki.ask_der(), &vlek);
            assert!((&stranger, &theirs).verify().is_err());
        }
    }
}

#[test]
fn patches_are_signed_over() {
    let key = VekKey::p384();
    let mut report = Report::new(Product::Genoa, 3);
    report.patches.push((0x4c, vec![1, 2]));
    report.patches.push((0x210, vec![9]));
    let signed = report.sign(&key);
    assert_eq!((signed[0x4c], signed[0x4d], signed[0x210]), (1, 2, 9));
    let big_endian = |at: usize| {
        signed[at..at + 48]
            .iter()
            .rev()
            .copied()
            .collect::<Vec<u8>>()
    };
    let signature = [big_endian(0x2a0), big_endian(0x2a0 + 72)].concat();
    ring::signature::UnparsedPublicKey::new(
        &ring::signature::ECDSA_P384_SHA384_FIXED,
        key.public_key(),
    )
    .verify(&signed[..0x2a0], &signature)
    .unwrap();
    assert!(signed[0x2a0 + 48..0x2a0 + 72].iter().all(|b| *b == 0));
    assert!(signed[0x2a0 + 72 + 48..].iter().all(|b| *b == 0));
}

/// No two fields hold the same bytes, so that fields which changed places are found.
fn distinct_fields(product: Product, version: u32) -> Report {
    let mut report = Report::new(product, version);
    let tcb = |n: u8| Tcb {
        fmc: if product == Product::Turin { n } else { 0 },
        bootloader: n + 1,
        tee: n + 2,
        snp: n + 3,
        microcode: n + 4,
    };
    report.guest_svn = 0x0102_0304;
    report.policy = policy::RESERVED_ONE | policy::SMT | policy::CXL_ALLOW | 0x0137;
    report.family_id = [0x11; 16];
    report.image_id = [0x12; 16];
    report.vmpl = 2;
    report.current_tcb = tcb(40).to_bytes(product);
    report.platform_info = 0x25;
    report.flags = flags::AUTHOR_KEY_EN;
    report.report_data = std::array::from_fn(|i| i as u8);
    report.measurement = [0x13; 48];
    report.host_data = [0x14; 32];
    report.id_key_digest = [0x15; 48];
    report.author_key_digest = [0x16; 48];
    report.report_id = [0x17; 32];
    report.reported_tcb = tcb(10).to_bytes(product);
    report.committed_tcb = tcb(20).to_bytes(product);
    report.launch_tcb = tcb(30).to_bytes(product);
    report.current_version = [9, 56, 1];
    report.committed_version = [8, 55, 1];
    report.launch_mit_vector = 3;
    report.current_mit_vector = 7;
    report
}

fn assert_fields(ours: &Report, theirs: &AttestationReport, product: Product) {
    assert_eq!(theirs.version, ours.version);
    assert_eq!(theirs.guest_svn, ours.guest_svn);
    assert_eq!(theirs.policy.0, ours.policy);
    assert_eq!(theirs.family_id, ours.family_id);
    assert_eq!(theirs.image_id, ours.image_id);
    assert_eq!(theirs.vmpl, ours.vmpl);
    assert_eq!(theirs.sig_algo, 1);
    assert_eq!(theirs.plat_info.0, ours.platform_info);
    assert_eq!(theirs.report_data, ours.report_data);
    assert_eq!(theirs.measurement, ours.measurement);
    assert_eq!(theirs.host_data, ours.host_data);
    assert_eq!(theirs.id_key_digest, ours.id_key_digest);
    assert_eq!(theirs.author_key_digest, ours.author_key_digest);
    assert_eq!(theirs.report_id, ours.report_id);
    assert_eq!(theirs.report_id_ma, ours.report_id_ma);
    assert_eq!(theirs.chip_id, ours.chip_id);
    assert!(theirs.key_info.author_key_en());
    for (theirs, ours) in [
        (theirs.current_tcb, ours.current_tcb),
        (theirs.reported_tcb, ours.reported_tcb),
        (theirs.committed_tcb, ours.committed_tcb),
        (theirs.launch_tcb, ours.launch_tcb),
    ] {
        let ours = Tcb::from_bytes(ours, product);
        assert_eq!(theirs.fmc.unwrap_or(0), ours.fmc);
        assert_eq!(theirs.bootloader, ours.bootloader);
        assert_eq!(theirs.tee, ours.tee);
        assert_eq!(theirs.snp, ours.snp);
        assert_eq!(theirs.microcode, ours.microcode);
    }
    let version = |v: sev::firmware::guest::Version| [v.build, v.minor, v.major];
    assert_eq!(version(theirs.current), ours.current_version);
    assert_eq!(version(theirs.committed), ours.committed_version);
    let cpuid = (ours.version >= 3).then_some(ours.cpuid);
    assert_eq!(theirs.cpuid_fam_id, cpuid.map(|c| c[0]));
    assert_eq!(theirs.cpuid_mod_id, cpuid.map(|c| c[1]));
    assert_eq!(theirs.cpuid_step, cpuid.map(|c| c[2]));
    assert_eq!(
        theirs.launch_mit_vector,
        (ours.version >= 5).then_some(ours.launch_mit_vector)
    );
    assert_eq!(
        theirs.current_mit_vector,
        (ours.version >= 5).then_some(ours.current_mit_vector)
    );
}

fn chain(ark: &[u8], ask: &[u8], vek: &[u8]) -> Chain {
    let read = |der| Certificate::from_der(der).unwrap();
    Chain {
        ca: ca::Chain {
            ark: read(ark),
            ask: read(ask),
        },
        vek: read(vek),
    }
}
