//! What Intel signed, written anew from our descriptions with Intel's names, keys, numbers and dates, must come out as
//! the very bytes: whatever differed would be a difference a verifier could trip over.

use serde_json::Value;
use touchstone_testkit::intel::{
    Configuration, IsvLevel, PckCa, Pki, QeIdentity, SgxExtensions, Tcb, TcbInfo, TcbLevel,
    TdxModule, TdxModuleIdentity, oid,
};
use touchstone_testkit::tdx::{Header, QeReport, Quote, Td15, TdReport};
use touchstone_testkit::x509::{Certificate, Crl, EcKey, Name, Revoked};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::{AT, from_pem, parse, pck_chain, real, real_folder};

/// Quotes, and collateral for each. All of these platforms are the Platform CA's.
const CASES: [(&str, &str); 4] = [
    ("dcapqvl-tdx-v4", "dcapqvl-tdx-v4"),
    ("oak-tdx", "collateral-00806f050000-2025-06"),
    ("go-tdx-guest-v5", "dcapqvl-tdx-outdated"),
    ("go-tdx-guest-spr-e4", "go-tdx-guest-spr-e4"),
];

#[test]
fn descriptions_reproduce_the_certificates_intel_signed() {
    let Some(folder) = real_folder("descriptions_reproduce_the_certificates_intel_signed") else {
        return;
    };
    let pki = Pki::new(AT);
    let key = EcKey::p256();
    for (quote, collateral) in CASES {
        let (quote, collateral) = real(&folder, quote, collateral);
        let [pck, ca, root] = pck_chain(&quote).try_into().unwrap();
        reproduces(&root, pki.root.clone());
        reproduces(&ca, pki.platform_ca.clone());
        let sgx = read_extension(&parse(&pck));
        reproduces(&pck, pki.pck(&key, PckCa::Platform, &sgx));
        let chain = collateral["tcb_info_issuer_chain"].as_str().unwrap();
        reproduces(&from_pem(chain.as_bytes())[0], pki.tcb_signing.clone());
    }
    // The only one here that the Processor CA issued is of an SGX quote.
    let (quote, _) = real(&folder, "dcapqvl-sgx-v3", "dcapqvl-sgx-v3");
    let [pck, ca, _] = pck_chain(&quote).try_into().unwrap();
    reproduces(&ca, pki.processor_ca.clone());
    let sgx = read_extension(&parse(&pck));
    assert_eq!(sgx, sgx.clone().of_processor_ca());
    reproduces(&pck, pki.pck(&key, PckCa::Processor, &sgx));
}

#[test]
fn descriptions_reproduce_the_lists_intel_signed() {
    let Some(folder) = real_folder("descriptions_reproduce_the_lists_intel_signed") else {
        return;
    };
    let pki = Pki::new(AT);
    let mut revoked = 0;
    for (quote, collateral) in CASES {
        let (_, collateral) = real(&folder, quote, collateral);
        let list = |name: &str| hex::decode(collateral[name].as_str().unwrap()).unwrap();
        revoked += reproduces_list(&list("root_ca_crl"), pki.root_crl());
        revoked += reproduces_list(&list("pck_crl"), pki.pck_crl(PckCa::Platform));
    }
    assert!(revoked > 0, "lists with entries were among them");
}

#[test]
fn descriptions_reproduce_the_json_intel_signed() {
    let Some(folder) = real_folder("descriptions_reproduce_the_json_intel_signed") else {
        return;
    };
    for (quote, collateral) in CASES {
        let (_, collateral) = real(&folder, quote, collateral);
        let text = |name: &str| collateral[name].as_str().unwrap().to_owned();
        let (tcb_info, qe_identity) = (text("tcb_info"), text("qe_identity"));
        let ours = read_tcb_info(&serde_json::from_str(&tcb_info).unwrap());
        // Intel repeats the FMSPC in the case in which it was asked for.
        let asked = serde_json::from_str::<Value>(&tcb_info).unwrap()["fmspc"].clone();
        let fmspc = hex::encode_upper(ours.fmspc);
        let ours = ours.to_json().replace(&fmspc, &text_of(&asked));
        assert_eq!(ours, tcb_info);
        let ours = read_qe_identity(&serde_json::from_str(&qe_identity).unwrap());
        assert_eq!(ours.to_json(), qe_identity);
    }
}

/// Real quotes, taken apart here and put together again by our writer, differ in the three signatures and nowhere else.
#[test]
fn descriptions_reproduce_real_quotes() {
    let Some(folder) = real_folder("descriptions_reproduce_real_quotes") else {
        return;
    };
    for case in [
        "dcapqvl-tdx-v4",
        "oak-tdx",
        "go-tdx-guest-v5",
        "automata-v5",
        "go-tdx-guest-spr-e4",
    ] {
        let quote = std::fs::read(folder.join(case).join("quote.bin")).unwrap();
        let ours = read_quote(&quote);
        let again = ours.sign(&EcKey::p256(), &EcKey::p256());
        let signed = ours.to_be_signed().len();
        let mut expected = quote[..again.len()].to_vec();
        // Of the quote by the attestation key; of the report by the PCK.
        for at in [signed + 4, signed + 4 + 128 + 6 + 384] {
            expected[at..at + 64].copy_from_slice(&again[at..at + 64]);
        }
        assert_eq!(hex::encode(&again), hex::encode(&expected), "{case}");
    }
}

/// Gives our description what is Intel's own (names without `SIM`, numbers, keys, dates, addresses) and compares.
fn reproduces(real: &[u8], mut ours: Certificate) {
    let parsed = parse(real);
    let bare = |name: &Name| Name::intel(name.common_name.trim_start_matches("SIM "));
    (ours.issuer, ours.subject) = (bare(&ours.issuer), bare(&ours.subject));
    ours.serial = parsed.raw_serial().to_vec();
    ours.not_before = parsed.validity().not_before.timestamp() as u64;
    ours.not_after = parsed.validity().not_after.timestamp() as u64;
    ours.spki = parsed.public_key().raw.to_vec();
    for (ours, real) in ours.extensions.iter_mut().zip(parsed.extensions()) {
        assert_eq!(ours.oid, real.oid.to_id_string());
        if [oid::SUBJECT_KEY_ID, oid::AUTHORITY_KEY_ID, oid::CRL_POINTS]
            .contains(&ours.oid.as_str())
        {
            assert_eq!(ours.value[0], real.value[0]);
            ours.value = real.value.to_vec();
        }
    }
    assert_eq!(
        hex::encode(ours.to_be_signed()),
        hex::encode(parsed.tbs_certificate.as_ref()),
        "{}",
        parsed.subject()
    );
}

/// As [`reproduces`]; how many entries the list has.
fn reproduces_list(real: &[u8], mut ours: Crl) -> usize {
    let (rest, parsed) = CertificateRevocationList::from_der(real).unwrap();
    assert!(rest.is_empty());
    ours.issuer = Name::intel(ours.issuer.common_name.trim_start_matches("SIM "));
    ours.this_update = parsed.last_update().timestamp() as u64;
    ours.next_update = parsed.next_update().map(|t| t.timestamp() as u64);
    ours.revoked = parsed
        .iter_revoked_certificates()
        .map(|r| Revoked {
            serial: r.raw_serial().to_vec(),
            date: r.revocation_date.timestamp() as u64,
            reason: r.reason_code().map(|(_, code)| code.0),
        })
        .collect();
    for (ours, real) in ours.extensions.iter_mut().zip(parsed.extensions()) {
        assert_eq!(ours.oid, real.oid.to_id_string());
        ours.value = real.value.to_vec();
    }
    assert_eq!(
        hex::encode(ours.to_be_signed()),
        hex::encode(parsed.tbs_cert_list.as_ref())
    );
    ours.revoked.len()
}

/// The SGX extensions of a real certificate, by a reader that knows only the order that the specification gives.
fn read_extension(certificate: &X509Certificate<'_>) -> SgxExtensions {
    let sgx = certificate
        .extensions()
        .iter()
        .find(|e| e.oid.to_id_string() == oid::SGX)
        .unwrap();
    let fields = entries(sgx.value);
    let tcb = entries(&fields[1]);
    let bytes = |der: &[u8]| der[2..].to_vec();
    let last = |der: &[u8]| *der.last().unwrap();
    let pce_svn = bytes(&tcb[16])
        .iter()
        .fold(0, |n, b| n << 8 | u16::from(*b));
    SgxExtensions {
        ppid: bytes(&fields[0]).try_into().unwrap(),
        comp_svn: core::array::from_fn(|n| last(&tcb[n])),
        pce_svn,
        cpu_svn: bytes(&tcb[17]).try_into().unwrap(),
        pce_id: bytes(&fields[2]).try_into().unwrap(),
        fmspc: bytes(&fields[3]).try_into().unwrap(),
        sgx_type: last(&fields[4]),
        platform_instance_id: fields.get(5).map(|e| bytes(e).try_into().unwrap()),
        configuration: fields.get(6).map(|e| {
            let flags = entries(e);
            let flag = |n: usize| flags.get(n).map(|der: &Vec<u8>| last(der) != 0);
            Configuration {
                dynamic_platform: flag(0),
                cached_keys: flag(1),
                smt_enabled: flag(2),
            }
        }),
    }
}

/// The values (DER) of a sequence of pairs of identifier and value.
fn entries(der: &[u8]) -> Vec<Vec<u8>> {
    let header = |der: &[u8]| match der[1] {
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(der[2]) << 8 | usize::from(der[3])),
        n => (2, usize::from(n)),
    };
    let (head, length) = header(der);
    let mut rest = &der[head..head + length];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (head, length) = header(rest);
        let pair = &rest[head..head + length];
        found.push(pair[2 + usize::from(pair[1])..].to_vec());
        rest = &rest[head + length..];
    }
    found
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap().into()
}

fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value) -> T {
    value.as_u64().unwrap().try_into().unwrap()
}

fn hexes<const N: usize>(value: &Value) -> [u8; N] {
    hex::decode(text_of(value)).unwrap().try_into().unwrap()
}

fn date(value: &Value) -> u64 {
    let format = &time::format_description::well_known::Rfc3339;
    let date = time::OffsetDateTime::parse(value.as_str().unwrap(), format).unwrap();
    date.unix_timestamp() as u64
}

fn list<T>(value: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(read).collect()
}

fn isv_level(v: &Value) -> IsvLevel {
    IsvLevel {
        isvsvn: number(&v["tcb"]["isvsvn"]),
        tcb_date: date(&v["tcbDate"]),
        tcb_status: text_of(&v["tcbStatus"]),
        advisories: list(&v["advisoryIDs"], text_of),
    }
}

fn read_tcb_info(v: &Value) -> TcbInfo {
    let component = |v: &Value| touchstone_testkit::intel::Component {
        svn: number(&v["svn"]),
        category: v.get("category").map(text_of),
        kind: v.get("type").map(text_of),
    };
    TcbInfo {
        id: text_of(&v["id"]),
        version: number(&v["version"]),
        issue_date: date(&v["issueDate"]),
        next_update: date(&v["nextUpdate"]),
        fmspc: hexes(&v["fmspc"]),
        pce_id: hexes(&v["pceId"]),
        tcb_type: number(&v["tcbType"]),
        tcb_evaluation_data_number: number(&v["tcbEvaluationDataNumber"]),
        tdx_module: Some(TdxModule {
            mrsigner: hexes(&v["tdxModule"]["mrsigner"]),
            attributes: hexes(&v["tdxModule"]["attributes"]),
            attributes_mask: hexes(&v["tdxModule"]["attributesMask"]),
        }),
        tdx_module_identities: list(&v["tdxModuleIdentities"], |v| TdxModuleIdentity {
            id: text_of(&v["id"]),
            mrsigner: hexes(&v["mrsigner"]),
            attributes: hexes(&v["attributes"]),
            attributes_mask: hexes(&v["attributesMask"]),
            tcb_levels: list(&v["tcbLevels"], isv_level),
        }),
        tcb_levels: list(&v["tcbLevels"], |v| TcbLevel {
            tcb: Tcb {
                sgxtcbcomponents: list(&v["tcb"]["sgxtcbcomponents"], component),
                pcesvn: number(&v["tcb"]["pcesvn"]),
                tdxtcbcomponents: list(&v["tcb"]["tdxtcbcomponents"], component),
            },
            tcb_date: date(&v["tcbDate"]),
            tcb_status: text_of(&v["tcbStatus"]),
            advisories: list(&v["advisoryIDs"], text_of),
        }),
    }
}

fn read_qe_identity(v: &Value) -> QeIdentity {
    QeIdentity {
        id: text_of(&v["id"]),
        version: number(&v["version"]),
        issue_date: date(&v["issueDate"]),
        next_update: date(&v["nextUpdate"]),
        tcb_evaluation_data_number: number(&v["tcbEvaluationDataNumber"]),
        miscselect: hexes(&v["miscselect"]),
        miscselect_mask: hexes(&v["miscselectMask"]),
        attributes: hexes(&v["attributes"]),
        attributes_mask: hexes(&v["attributesMask"]),
        mrsigner: hexes(&v["mrsigner"]),
        isvprodid: number(&v["isvprodid"]),
        tcb_levels: list(&v["tcbLevels"], isv_level),
    }
}

/// Takes a real quote apart by the specification's offsets.
fn read_quote(quote: &[u8]) -> Quote {
    fn at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
        bytes[at..at + N].try_into().unwrap()
    }
    let version = u16::from_le_bytes(at(quote, 0));
    let (body_at, length) = match version {
        4 => (48, 584),
        _ => (54, u32::from_le_bytes(at(quote, 50)) as usize),
    };
    let body = &quote[body_at..body_at + length];
    let signature_data = &quote[body_at + length + 4..];
    let qe = &signature_data[134..];
    let auth = usize::from(u16::from_le_bytes(at(qe, 448)));
    let chain_length = u32::from_le_bytes(at(qe, 450 + auth + 2)) as usize;
    let chain = &qe[450 + auth + 6..][..chain_length];
    let mut ours = Quote::new(version, TdReport::v1_0(), "");
    ours.header = Header {
        version,
        attestation_key_type: u16::from_le_bytes(at(quote, 2)),
        tee_type: u32::from_le_bytes(at(quote, 4)),
        reserved: at(quote, 8),
        qe_vendor_id: at(quote, 12),
        user_data: at(quote, 28),
    };
    ours.report = TdReport {
        tee_tcb_svn: at(body, 0),
        mr_seam: at(body, 16),
        mr_signer_seam: at(body, 64),
        seam_attributes: at(body, 112),
        td_attributes: u64::from_le_bytes(at(body, 120)),
        xfam: u64::from_le_bytes(at(body, 128)),
        mr_td: at(body, 136),
        mr_config_id: at(body, 184),
        mr_owner: at(body, 232),
        mr_owner_config: at(body, 280),
        rtmr: [328, 376, 424, 472].map(|n| at(body, n)),
        report_data: at(body, 520),
        v1_5: (length == 648).then(|| Td15 {
            tee_tcb_svn_2: at(body, 584),
            mr_service_td: at(body, 600),
        }),
    };
    ours.attestation_key = Some(at(signature_data, 64));
    ours.certification_type = u16::from_le_bytes(at(signature_data, 128));
    ours.qe_report = QeReport {
        cpu_svn: at(qe, 0),
        misc_select: u32::from_le_bytes(at(qe, 16)),
        attributes: at(qe, 48),
        mr_enclave: at(qe, 64),
        mr_signer: at(qe, 128),
        isv_prod_id: u16::from_le_bytes(at(qe, 256)),
        isv_svn: u16::from_le_bytes(at(qe, 258)),
        // Left to our own writer, which thereby binds the real key and data as Intel's enclave did.
        report_data: None,
        patches: Vec::new(),
    };
    ours.qe_auth_data = qe[450..450 + auth].to_vec();
    ours.pck_type = u16::from_le_bytes(at(qe, 450 + auth));
    ours.pck_chain = chain.to_vec();
    ours
}
