//! The synthetic AMD PKI, read by parsers that are not ours and compared with AMD's own certificates.

use std::path::Path;

use ring::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use touchstone_testkit::amd::{
    Certificate, Curve, Name, Pki, PkiKeys, Product, Tcb, VekKey, asn1, oid, pem, pss_sha384,
};
use touchstone_testkit::fixtures;
use touchstone_testkit::snp::Report;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

const AT: u64 = 1_790_000_000;

#[test]
fn every_certificate_parses_strictly_and_verifies_under_its_issuer() {
    for product in Product::ALL {
        let pki = Pki::new(product, AT);
        let key = VekKey::p384();
        let report = Report::new(product, 5);
        let vcek = pki.vcek(&key, &report).sign(&pki.keys.ask);
        let vlek = pki
            .vlek(&key, &report, "CN=cc-nowhere-1.simulated.invalid")
            .sign(&pki.keys.asvk);
        let ark = pki.keys.ark.public_key();
        for (der, issuer, subject) in [
            (pki.ark_der(), ark, format!("SIM-ARK-{product}")),
            (pki.ask_der(), ark, format!("SIM-SEV-{product}")),
            (pki.asvk_der(), ark, format!("SIM-SEV-VLEK-{product}")),
            (vcek, pki.keys.ask.public_key(), "SEV-VCEK".into()),
            (vlek, pki.keys.asvk.public_key(), "SEV-VLEK".into()),
        ] {
            let certificate = parse(&der);
            let signed = certificate.tbs_certificate.as_ref();
            let signature = &certificate.signature_value.data;
            let verify = |message: &[u8]| {
                UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, issuer).verify(message, signature)
            };
            assert!(verify(signed).is_ok(), "{subject}");
            let mut lie = signed.to_vec();
            lie[60] ^= 1;
            assert!(verify(&lie).is_err(), "{subject}");
            let cn = certificate
                .subject()
                .iter_common_name()
                .next()
                .unwrap()
                .as_str()
                .unwrap();
            assert_eq!(cn, subject);

            // Another parser, which also finds that what it read encodes to the same bytes.
            use x509_cert::der::{Decode, Encode};
            let second = x509_cert::Certificate::from_der(&der).unwrap();
            assert_eq!(second.to_der().unwrap(), der, "{subject}");
        }
    }
}

/// The real certificates, written anew from our descriptions with AMD's names, keys and dates, must come out as the very
/// bytes that AMD signed: whatever differed would be a difference a verifier could trip over.
#[test]
fn descriptions_reproduce_the_bytes_amd_signed() {
    let Some(folder) = fixtures::evidence() else {
        return fixtures::skipped("descriptions_reproduce_the_bytes_amd_signed", "no fixtures");
    };
    let amd = folder.join("snp/_amd");
    for product in Product::ALL {
        let pki = Pki::new(product, AT);
        let lower = product.name().to_lowercase();
        let real = |file: &str| from_pem(&amd.join(file)).remove(0);
        let ark = real(&format!("{lower}_ark.pem"));
        let ask = real(&format!("{lower}_ask.pem"));
        let asvk = real(&format!("ask_ark_{lower}_vlek.pem"));
        let root = format!("ARK-{product}");
        assert_reproduces(&ark, pki.ark.clone(), &root, &root, pki.ark.serial.clone());
        // Genoa's ASK is the second of its kind, the one thing that is not systematic.
        let serial = if product == Product::Genoa {
            vec![2, 0, 2]
        } else {
            pki.ask.serial.clone()
        };
        assert_reproduces(
            &ask,
            pki.ask.clone(),
            &root,
            &format!("SEV-{product}"),
            serial,
        );
        assert_reproduces(
            &asvk,
            pki.asvk.clone(),
            &root,
            &format!("SEV-VLEK-{product}"),
            pki.asvk.serial.clone(),
        );
    }

    for (case, product, vlek) in [
        ("go-sev-guest-milan-v2", Product::Milan, None),
        ("dstack-milan", Product::Milan, None),
        ("azure-genoa", Product::Genoa, None),
        ("oak-genoa_oc", Product::Genoa, None),
        ("virtee-turin-cert-only", Product::Turin, None),
        (
            "trustee-vlek",
            Product::Milan,
            Some("CN=cc-us-east-2.amazonaws.com"),
        ),
    ] {
        let real = std::fs::read(folder.join("snp").join(case).join("vek.der")).unwrap();
        let parsed = parse(&real);
        let number = |oid: &str| spl(&parsed, oid).unwrap_or(0);
        let tcb = Tcb {
            fmc: number(oid::FMC_SPL),
            bootloader: number(oid::BL_SPL),
            tee: number(oid::TEE_SPL),
            snp: number(oid::SNP_SPL),
            microcode: number(oid::UCODE_SPL),
        };
        let pki = Pki::new(product, AT);
        let key = VekKey::p384();
        let (ours, issuer, subject) = match vlek {
            None => (
                pki.vcek_of(&key, extension(&parsed, oid::HWID).unwrap(), tcb),
                "SEV",
                "SEV-VCEK",
            ),
            Some(csp) => {
                let mut report = Report::new(product, 3);
                report.reported_tcb = tcb.to_bytes(product);
                (pki.vlek(&key, &report, csp), "SEV-VLEK", "SEV-VLEK")
            }
        };
        assert_reproduces(
            &real,
            ours,
            &format!("{issuer}-{product}"),
            subject,
            vec![0],
        );
    }
}

#[test]
fn the_crl_parses_verifies_and_names_what_it_revokes() {
    let pki = Pki::new(Product::Genoa, AT);
    for serials in [vec![], vec![vec![2, 0, 1], vec![0x80]]] {
        let mut crl = pki.crl();
        serials.iter().for_each(|s: &Vec<u8>| crl.revoke(s));
        let der = crl.sign(&pki.keys.ark);
        let (rest, parsed) = CertificateRevocationList::from_der(&der).unwrap();
        assert!(rest.is_empty());
        assert_eq!(parsed.version(), Some(x509_parser::x509::X509Version::V2));
        assert_eq!(parsed.issuer().as_raw(), pki.ark.subject.to_der());
        assert_eq!(parsed.last_update().timestamp(), crl.this_update as i64);
        assert_eq!(
            parsed.next_update().unwrap().timestamp(),
            crl.next_update.unwrap() as i64
        );
        let found: Vec<_> = parsed
            .iter_revoked_certificates()
            .map(|r| r.serial().to_bytes_be())
            .collect();
        assert_eq!(found, serials);
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, pki.keys.ark.public_key())
            .verify(parsed.tbs_cert_list.as_ref(), &parsed.signature_value.data)
            .unwrap();
        use x509_cert::der::{Decode, Encode};
        let second: x509_cert::crl::CertificateList = Decode::from_der(&der).unwrap();
        assert_eq!(second.to_der().unwrap(), der);
    }
}

#[test]
fn lies_come_out_as_told_and_well_signed() {
    let pki = Pki::new(Product::Turin, AT);
    let key = VekKey::generate(Curve::P256);
    let honest = pki.vcek(&VekKey::p384(), &Report::new(Product::Turin, 3));
    assert_eq!(
        extension(&parse(&honest.sign(&pki.keys.ask)), oid::HWID)
            .unwrap()
            .len(),
        8
    );

    let mut lie = honest.clone();
    lie.set_number(oid::UCODE_SPL, 300);
    lie.duplicate(oid::HWID);
    lie.remove(oid::TEE_SPL);
    lie.spki = key.spki();
    lie.issuer = Name::amd("ARK-Turin");
    lie.outer_algorithm = Some(pss_sha384(false));
    lie.trailing = vec![0];
    let der = lie.sign(&pki.keys.ask);
    let (rest, parsed) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(rest, [0]);
    assert_eq!(
        parsed
            .extensions()
            .iter()
            .filter(|e| e.oid.to_id_string() == oid::HWID)
            .count(),
        2
    );
    assert_eq!(
        spl_bytes(&parsed, oid::UCODE_SPL),
        Some(asn1::number(300).as_slice())
    );
    assert_eq!(spl_bytes(&parsed, oid::TEE_SPL), None);
    assert_eq!(
        parsed.issuer().iter_common_name().next().unwrap().as_str(),
        Ok("ARK-Turin")
    );
    assert_ne!(parsed.signature_algorithm, parsed.tbs_certificate.signature);
    assert_eq!(parsed.public_key().subject_public_key.data.len(), 65);
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, pki.keys.ask.public_key())
        .verify(
            parsed.tbs_certificate.as_ref(),
            &parsed.signature_value.data,
        )
        .unwrap();
}

#[test]
fn two_names_are_two_unrelated_pkis() {
    let a = Pki::new(Product::Milan, AT);
    let b = Pki::with_keys(Product::Milan, AT, PkiKeys::shared("somebody else"));
    assert_eq!(a.ark.subject, b.ark.subject);
    assert_ne!(a.keys.ark.public_key(), b.keys.ark.public_key());
    let text = a.ark_pem();
    let (_, block) = x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap();
    parse(&block.contents);
    assert!(pem("X", &[1; 49]).lines().all(|l| l.len() <= 64));
}

fn assert_reproduces(
    real: &[u8],
    mut ours: Certificate,
    issuer: &str,
    subject: &str,
    serial: Vec<u8>,
) {
    let parsed = parse(real);
    ours.issuer = Name::amd(issuer);
    ours.subject = Name::amd(subject);
    ours.serial = serial;
    ours.not_before = parsed.validity().not_before.timestamp() as u64;
    ours.not_after = parsed.validity().not_after.timestamp() as u64;
    ours.spki = parsed.public_key().raw.to_vec();
    // Leaves exist with and without the default trailer field.
    let with_trailer = pss_sha384(true);
    ours.algorithm = match contains(real, &with_trailer) {
        true => with_trailer,
        false => pss_sha384(false),
    };
    // Identifiers of keys and addresses are AMD's; their form is compared, and the order of all extensions.
    for (ours, real) in ours.extensions.iter_mut().zip(parsed.extensions()) {
        if [oid::SUBJECT_KEY_ID, oid::AUTHORITY_KEY_ID, oid::CRL_POINTS]
            .contains(&ours.oid.as_str())
        {
            assert_eq!(ours.oid, real.oid.to_id_string());
            assert_eq!(ours.value[0], real.value[0]);
            ours.value = real.value.to_vec();
        }
    }
    assert_eq!(
        hex::encode(ours.to_be_signed()),
        hex::encode(parsed.tbs_certificate.as_ref()),
        "{subject}"
    );
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    certificate
}

fn from_pem(path: &Path) -> Vec<Vec<u8>> {
    let text = std::fs::read(path).unwrap();
    x509_parser::pem::Pem::iter_from_buffer(&text)
        .map(|block| block.unwrap().contents)
        .collect()
}

fn extension<'a>(certificate: &'a X509Certificate<'_>, oid: &str) -> Option<&'a [u8]> {
    certificate
        .extensions()
        .iter()
        .find(|e| e.oid.to_id_string() == oid)
        .map(|e| e.value)
}

fn spl_bytes<'a>(certificate: &'a X509Certificate<'_>, oid: &str) -> Option<&'a [u8]> {
    extension(certificate, oid)
}

fn spl(certificate: &X509Certificate<'_>, oid: &str) -> Option<u8> {
    extension(certificate, oid)?.last().copied()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}
