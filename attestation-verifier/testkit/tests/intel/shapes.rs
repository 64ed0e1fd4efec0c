//! Certificates and lists, read by two parsers that are not ours.

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use touchstone_formats::text::HexBytes;
use touchstone_testkit::intel::{Entry, PckCa, Pki, PkiKeys, SgxExtensions, oid, sgx_extension};
use touchstone_testkit::machine::{TdxMachine, TeeMachine as _};
use touchstone_testkit::x509::{Curve, EcKey};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::{AT, from_pem, parse};

#[test]
fn every_certificate_parses_strictly_and_verifies_under_its_issuer() {
    let pki = Pki::new(AT);
    let key = EcKey::p256();
    let root = pki.keys.root.public_key();
    let mut all = vec![
        (pki.root_der(), root, "SIM Intel SGX Root CA".to_owned()),
        (
            from_pem(pki.tcb_chain_pem().as_bytes()).remove(0),
            root,
            "SIM Intel SGX TCB Signing".into(),
        ),
    ];
    for ca in PckCa::ALL {
        let chain = from_pem(pki.ca_chain_pem(ca).as_bytes());
        assert_eq!(chain.len(), 2);
        let name = format!("SIM Intel SGX PCK {} CA", ca.name());
        all.push((chain[0].clone(), root, name));
        let pck = pki.pck(&key, ca, &SgxExtensions::new());
        let (pck, issuer) = (pck.sign(pki.ca_key(ca)), pki.ca_key(ca).public_key());
        all.push((pck, issuer, "Intel SGX PCK Certificate".into()));
    }
    for (der, issuer, subject) in all {
        let certificate = parse(&der);
        let signed = certificate.tbs_certificate.as_ref();
        let verify = |message: &[u8]| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, issuer)
                .verify(message, &certificate.signature_value.data)
        };
        assert!(verify(signed).is_ok(), "{subject}");
        let mut lie = signed.to_vec();
        lie[60] ^= 1;
        assert!(verify(&lie).is_err(), "{subject}");
        let cn = certificate.subject().iter_common_name().next().unwrap();
        assert_eq!(cn.as_str(), Ok(subject.as_str()));
        assert!(
            certificate
                .validity()
                .is_valid_at(x509_parser::time::ASN1Time::from_timestamp(AT as i64).unwrap())
        );

        // Another parser, which also finds that what it read encodes to the same bytes.
        use x509_cert::der::{Decode, Encode};
        let second = x509_cert::Certificate::from_der(&der).unwrap();
        assert_eq!(second.to_der().unwrap(), der, "{subject}");
    }
}

#[test]
fn lists_parse_verify_and_name_what_they_revoke() {
    let pki = Pki::new(AT);
    let lists = [
        (pki.root_crl(), &pki.keys.root),
        (pki.pck_crl(PckCa::Platform), &pki.keys.platform_ca),
        (pki.pck_crl(PckCa::Processor), &pki.keys.processor_ca),
    ];
    for (honest, key) in lists {
        for serials in [vec![], vec![vec![2, 0, 1], vec![0x80; 20]]] {
            let mut crl = honest.clone();
            serials.iter().for_each(|s: &Vec<u8>| crl.revoke(s));
            let der = crl.sign(key);
            let (rest, parsed) = CertificateRevocationList::from_der(&der).unwrap();
            assert!(rest.is_empty());
            assert_eq!(parsed.issuer().as_raw(), crl.issuer.to_der());
            let found: Vec<_> = parsed
                .iter_revoked_certificates()
                .map(|r| r.serial().to_bytes_be())
                .collect();
            assert_eq!(found, serials);
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key())
                .verify(parsed.tbs_cert_list.as_ref(), &parsed.signature_value.data)
                .unwrap();
            use x509_cert::der::{Decode, Encode};
            let second: x509_cert::crl::CertificateList = Decode::from_der(&der).unwrap();
            assert_eq!(second.to_der().unwrap(), der);
        }
    }
}

#[test]
fn a_processor_ca_knows_no_instances() {
    let platform = SgxExtensions::new();
    let names =
        |sgx: &SgxExtensions| -> Vec<String> { sgx.entries().into_iter().map(|e| e.oid).collect() };
    assert_eq!(names(&platform).len(), 7);
    let processor = names(&platform.of_processor_ca());
    assert_eq!(processor.len(), 5);
    assert!(!processor.contains(&oid::PLATFORM_INSTANCE_ID.to_owned()));
    assert!(!processor.contains(&oid::CONFIGURATION.to_owned()));
}

#[test]
fn lies_come_out_as_told_and_well_signed() {
    let pki = Pki::new(AT);
    let key = EcKey::generate(Curve::P384);
    let mut pck = pki.pck(&EcKey::p256(), PckCa::Platform, &SgxExtensions::new());
    let mut entries = SgxExtensions::new().entries();
    let fmspc = entries[3].clone();
    entries.push(Entry::new(&fmspc.oid, vec![5, 0]));
    *pck.extension_mut(oid::SGX) = sgx_extension(&entries);
    pck.duplicate(oid::SGX);
    pck.spki = key.spki();
    let der = pck.sign(&pki.keys.platform_ca);
    let parsed = parse(&der);
    let sgx: Vec<_> = parsed
        .extensions()
        .iter()
        .filter(|e| e.oid.to_id_string() == oid::SGX)
        .collect();
    assert_eq!(sgx.len(), 2);
    assert!(sgx[0].value.ends_with(&[5, 0]));
    assert_eq!(parsed.public_key().subject_public_key.data.len(), 97);
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pki.keys.platform_ca.public_key())
        .verify(
            parsed.tbs_certificate.as_ref(),
            &parsed.signature_value.data,
        )
        .unwrap();
}

#[test]
fn two_names_are_two_unrelated_pkis() {
    let a = Pki::new(AT);
    let b = Pki::with_keys(AT, PkiKeys::shared("somebody else entirely"));
    assert_eq!(a.root.subject, b.root.subject);
    assert_ne!(a.keys.root.public_key(), b.keys.root.public_key());
    let folder = tempfile::tempdir().unwrap();
    // The same root, to the byte, for whoever comes later.
    let kept = |at: u64| Pki::kept_in(folder.path(), at).unwrap();
    let (first, later) = (kept(AT), kept(AT + 5));
    assert_eq!(first.root_der(), later.root_der());
    let root = parse_root(&later);
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, first.keys.root.public_key());
    key.verify(&root.0, &root.1).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
}

/// Signed part and signature.
fn parse_root(pki: &Pki) -> (Vec<u8>, Vec<u8>) {
    let der = pki.root_der();
    let root = parse(&der);
    let signature = root.signature_value.data.to_vec();
    (root.tbs_certificate.as_ref().to_vec(), signature)
}

/// Between two quotes of one platform nothing differs but what is about the guest, as on a real one.
#[test]
fn quotes_of_one_platform_share_everything_but_their_body() {
    let machine = TdxMachine::strict(AT);
    let (one, two) = (machine.quote([0x42; 64]), machine.quote([0x42; 64]));
    let body = machine.report([0x42; 64]).to_be_signed().len();
    let signature = body + 4..body + 4 + 64;
    assert_ne!(one[signature.clone()], two[signature.clone()]);
    assert_eq!(one[..signature.start], two[..signature.start]);
    assert_eq!(one[signature.end..], two[signature.end..]);
    assert_eq!(machine.collateral(), machine.collateral());
}

#[test]
fn the_collateral_file_is_what_evidence_holds() {
    let folder = tempfile::tempdir().unwrap();
    let machine = TdxMachine::strict(AT);
    machine.write_to(folder.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&read("collateral/tdx.json")).unwrap();
    assert_eq!(json.as_object().unwrap().len(), 9);
    let ours = machine.collateral();
    assert_eq!(json["tcb_info"], ours.tcb_info.unwrap());
    let HexBytes(crl) = ours.root_ca_crl.unwrap();
    assert_eq!(json["root_ca_crl"], hex::encode(crl));
    assert_eq!(read("root.pem").matches("BEGIN").count(), 1);
}
