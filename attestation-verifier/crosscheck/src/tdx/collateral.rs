//! Mutants of collateral: bytes, chains and parts of what Intel signed, and texts and lists that say something else and are signed
//! again.

use touchstone_formats::text::HexBytes;
use touchstone_testkit::intel::IsvLevel;
use touchstone_testkit::machine::TdxMachine;
use touchstone_testkit::x509::{Crl, Extension};

use super::quote::pem;
use super::{Case, NOW};
use crate::random::Random;

pub(super) fn damaged(random: &mut Random, case: &mut Case, other: &Case) -> String {
    let (ours, theirs) = (&mut case.collateral, &other.collateral);
    let texts = [
        ("tcb_info", &mut ours.tcb_info, &theirs.tcb_info),
        ("qe_identity", &mut ours.qe_identity, &theirs.qe_identity),
    ];
    let files = [
        (
            "tcb_info_signature",
            &mut ours.tcb_info_signature,
            &theirs.tcb_info_signature,
        ),
        (
            "qe_identity_signature",
            &mut ours.qe_identity_signature,
            &theirs.qe_identity_signature,
        ),
        ("pck_crl", &mut ours.pck_crl, &theirs.pck_crl),
        ("root_ca_crl", &mut ours.root_ca_crl, &theirs.root_ca_crl),
    ];
    let place = random.below(6);
    if let Some((name, own, other)) = texts.into_iter().nth(place) {
        let mut bytes = own.take().expect("honest").into_bytes();
        let how = random.damage(&mut bytes, other.as_ref().expect("honest").as_bytes());
        *own = Some(String::from_utf8_lossy(&bytes).into_owned());
        return format!("{name}: {how}");
    }
    let (name, own, other) = files.into_iter().nth(place - 2).expect("six of them");
    let how = random.damage(
        &mut own.as_mut().expect("honest").0,
        &other.as_ref().expect("honest").0,
    );
    format!("{name}: {how}")
}

/// Issuers' chains, around which nothing is signed, and parts that are not there.
pub(super) fn chains(random: &mut Random, case: &mut Case) -> String {
    let own = &mut case.collateral;
    if random.one_in(4) {
        let texts = [
            &mut own.tcb_info,
            &mut own.qe_identity,
            &mut own.tcb_info_issuer_chain,
        ];
        let files = [
            &mut own.tcb_info_signature,
            &mut own.pck_crl,
            &mut own.root_ca_crl,
        ];
        let place = random.below(6);
        match texts.into_iter().nth(place) {
            Some(text) => *text = None,
            None => *files.into_iter().nth(place - 3).expect("six of them") = None,
        }
        return format!("without part {place}");
    }
    let chains = [
        ("tcb_info_issuer_chain", &mut own.tcb_info_issuer_chain),
        (
            "qe_identity_issuer_chain",
            &mut own.qe_identity_issuer_chain,
        ),
        ("pck_crl_issuer_chain", &mut own.pck_crl_issuer_chain),
    ];
    let (name, chain) = chains
        .into_iter()
        .nth(random.below(3))
        .expect("three of them");
    if random.one_in(8) {
        *chain = None;
        return format!("without {name}");
    }
    let mut bytes = chain.take().expect("honest").into_bytes();
    let how = pem(random, &mut bytes);
    *chain = Some(String::from_utf8_lossy(&bytes).into_owned());
    format!("{name}: {how}")
}

const STATUSES: [&str; 9] = [
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
    "Uptodate",
    "",
];

/// Times that are near to that of the judgement, and others.
fn time(random: &mut Random) -> u64 {
    match random.below(3) {
        0 => NOW + random.below(4) as u64 - 2,
        1 => NOW - 86_400 * random.below(400) as u64,
        _ => NOW + 86_400 * random.below(400) as u64,
    }
}

fn level(random: &mut Random, levels: &mut Vec<IsvLevel>) -> &'static str {
    let place = random.below(levels.len());
    match random.below(5) {
        0 => {
            levels[place].isvsvn = random.below(14) as u16;
            "ISVSVN of a level"
        }
        1 => {
            levels[place].tcb_status = (*random.pick(&STATUSES)).into();
            "status of a level"
        }
        2 => {
            levels[place].tcb_date = time(random);
            "date of a level"
        }
        3 => {
            levels.remove(place);
            "without a level"
        }
        _ => {
            levels.reverse();
            "levels in another order"
        }
    }
}

/// TCB info and QE identity that say something else.
pub(super) fn levels(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let sign = |text: &str| Some(HexBytes(machine.pki.keys.tcb_signing.sign(text.as_bytes())));
    if random.one_in(3) {
        let mut identity = machine.qe_identity.clone();
        let what = match random.below(12) {
            0 => {
                identity.id = (*random.pick(&["QE", "QVE", "TD_QE ", ""])).into();
                "id"
            }
            1 => {
                identity.version = random.below(5) as u32;
                "version"
            }
            2 => {
                identity.issue_date = time(random);
                "issueDate"
            }
            3 => {
                identity.next_update = time(random);
                "nextUpdate"
            }
            4 => {
                random.scribble(&mut identity.miscselect);
                "miscselect"
            }
            5 => {
                random.scribble(&mut identity.miscselect_mask);
                "miscselectMask"
            }
            6 => {
                random.scribble(&mut identity.attributes);
                "attributes"
            }
            7 => {
                random.scribble(&mut identity.attributes_mask);
                "attributesMask"
            }
            8 => {
                random.scribble(&mut identity.mrsigner);
                "mrsigner"
            }
            9 => {
                identity.isvprodid = random.below(5) as u16;
                "isvprodid"
            }
            10 => {
                identity.tcb_evaluation_data_number = random.number() as u32;
                "tcbEvaluationDataNumber"
            }
            _ => level(random, &mut identity.tcb_levels),
        };
        let text = identity.to_json();
        case.collateral.qe_identity_signature = sign(&text);
        case.collateral.qe_identity = Some(text);
        return format!("QE identity: {what}");
    }
    let mut info = machine.tcb_info.clone();
    let place = random.below(info.tcb_levels.len());
    let what = match random.below(20) {
        0 => {
            info.id = (*random.pick(&["SGX", "tdx", ""])).into();
            "id"
        }
        1 => {
            info.version = random.below(5) as u32;
            "version"
        }
        2 => {
            info.issue_date = time(random);
            "issueDate"
        }
        3 => {
            info.next_update = time(random);
            "nextUpdate"
        }
        4 => {
            random.scribble(&mut info.fmspc);
            "fmspc"
        }
        5 => {
            random.scribble(&mut info.pce_id);
            "pceId"
        }
        6 => {
            info.tcb_type = random.below(3) as u32;
            "tcbType"
        }
        7 => {
            info.tdx_module = None;
            "without tdxModule"
        }
        8 => {
            if let Some(module) = &mut info.tdx_module {
                random.scribble(&mut module.mrsigner);
            }
            "mrsigner of tdxModule"
        }
        9 => {
            if let Some(module) = &mut info.tdx_module {
                random.scribble(&mut module.attributes);
                random.scribble(&mut module.attributes_mask);
            }
            "attributes of tdxModule"
        }
        10 => {
            info.tdx_module_identities.clear();
            "without tdxModuleIdentities"
        }
        11 => {
            let identities = &mut info.tdx_module_identities;
            let place = random.below(identities.len());
            let module = &mut identities[place];
            match random.below(4) {
                0 => {
                    module.id =
                        (*random.pick(&["TDX_01", "TDX_03", "TDX_1", "tdx_01", "TDX_FF"])).into()
                }
                1 => random.scribble(&mut module.mrsigner),
                2 => random.scribble(&mut module.attributes),
                _ => random.scribble(&mut module.attributes_mask),
            }
            "a module identity"
        }
        12 => {
            let identities = &mut info.tdx_module_identities;
            let place = random.below(identities.len());
            level(random, &mut identities[place].tcb_levels)
        }
        13 => {
            let tcb = &mut info.tcb_levels[place].tcb;
            let components = match random.below(2) {
                0 => &mut tcb.sgxtcbcomponents,
                _ => &mut tcb.tdxtcbcomponents,
            };
            let component = random.below(components.len());
            components[component].svn = random.below(16) as u8;
            "a component of a level"
        }
        14 => {
            info.tcb_levels[place].tcb.pcesvn = random.below(16) as u16;
            "pcesvn of a level"
        }
        15 => {
            info.tcb_levels[place].tcb_status = (*random.pick(&STATUSES)).into();
            "status of a level"
        }
        16 => {
            info.tcb_levels.reverse();
            "levels in another order"
        }
        17 => {
            info.tcb_levels.remove(place);
            "without a level"
        }
        18 => {
            info.tcb_levels[place].advisories = vec!["INTEL-SA-00001".into()];
            "an advisory of a level"
        }
        _ => {
            info.tcb_evaluation_data_number = random.number() as u32;
            "tcbEvaluationDataNumber"
        }
    };
    let text = info.to_json();
    case.collateral.tcb_info_signature = sign(&text);
    case.collateral.tcb_info = Some(text);
    format!("TCB info: {what}")
}

/// Other ways of writing a text, and what is no JSON.
const REWRITTEN: &[(&str, &str)] = &[
    ("{", "{ "),
    (":", " : "),
    (",", ",\n"),
    ("{", "{\"unknown\":[{}],"),
    ("{", "{\"id\":\"TDX\","),
    ("{", "{\"version\":3,"),
    ("Z\"", ".000Z\""),
    ("Z\"", "+00:00\""),
    ("Z\"", "z\""),
    ("Z\"", "\""),
    ("T", " "),
    ("\"version\":3", "\"version\":3.0"),
    ("\"version\":3", "\"version\":\"3\""),
    ("\"version\":2", "\"version\":2e0"),
    ("\"svn\":", "\"svn\":0"),
    ("\"svn\":", "\"svn\":-"),
    ("\"svn\":", "\"svn\":1"),
    ("\"svn\":4", "\"svn\":260"),
    ("\"pcesvn\":", "\"pcesvn\":7777"),
    ("\"isvsvn\":", "\"isvsvn\":+"),
    ("\"id\":", "\"ID\":"),
    ("\"tcbLevels\"", "\"tcblevels\""),
    ("\"tcbLevels\":[", "\"tcbLevels\":[null,"),
    ("\"mrsigner\":\"", "\"mrsigner\":\"00"),
    ("\"attributes\":\"0", "\"attributes\":\"+"),
    ("\"fmspc\":\"F0", "\"fmspc\":\"f0"),
    ("UpToDate", "\\u0055pToDate"),
    ("UpToDate", "UpToDate "),
    ("null", "\"\""),
    ("}", "},"),
    ("]", ",]"),
];

/// Intel's signer signs another text.
pub(super) fn texts(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let own = &mut case.collateral;
    let (name, text, signature) = match random.below(2) {
        0 => ("TCB info", &mut own.tcb_info, &mut own.tcb_info_signature),
        _ => (
            "QE identity",
            &mut own.qe_identity,
            &mut own.qe_identity_signature,
        ),
    };
    let old = text.as_ref().expect("honest");
    let (new, how) = match random.below(8) {
        0 => {
            let mut bytes = old.clone().into_bytes();
            let how = random.damage(&mut bytes, b"{\"id\":\"TDX\"}");
            (String::from_utf8_lossy(&bytes).into_owned(), how.to_owned())
        }
        1 => (
            format!("{old}{}", random.pick(&[" ", "\n", "\0", "{}", ","])),
            "something after it".into(),
        ),
        2 => (
            format!("{}{old}", random.pick(&[" ", "\n", "\u{feff}"])),
            "something before it".into(),
        ),
        _ => {
            let (from, to) = random.pick(REWRITTEN);
            let new = match random.one_in(2) {
                true => old.replace(from, to),
                false => old.replacen(from, to, 1 + random.below(3)),
            };
            (new, format!("{from:?} → {to:?}"))
        }
    };
    *signature = Some(HexBytes(machine.pki.keys.tcb_signing.sign(new.as_bytes())));
    *text = Some(new);
    format!("{name}: {how}")
}

pub(super) fn lists(random: &mut Random, machine: &TdxMachine, case: &mut Case) -> String {
    let root = random.one_in(2);
    let mut crl: Crl = match root {
        true => machine.root_crl.clone(),
        false => machine.pck_crl.clone(),
    };
    let serials = [
        &machine.pck.serial,
        &machine.pki.ca(machine.ca).serial,
        &machine.pki.tcb_signing.serial,
        &machine.pki.root.serial,
    ];
    let what = match random.below(8) {
        0 => {
            let serial: Vec<u8> = (0..1 + random.below(20)).map(|_| random.byte()).collect();
            crl.revoke(&serial);
            "another revoked"
        }
        1 => {
            crl.revoke(*random.pick(&serials));
            "one of these revoked"
        }
        2 => {
            crl.revoke(*random.pick(&serials));
            let entry = crl.revoked.last_mut().expect("just pushed");
            entry.reason = Some(random.below(12) as u8);
            "one of these revoked for a reason"
        }
        3 => {
            crl.this_update = time(random);
            "thisUpdate"
        }
        4 => {
            crl.next_update = (!random.one_in(4)).then(|| time(random));
            "nextUpdate"
        }
        5 => {
            crl.version = *random.pick(&[None, Some(0), Some(1), Some(2)]);
            "version"
        }
        6 => {
            let critical = random.one_in(2);
            crl.extensions
                .push(Extension::new("2.5.29.28", critical, vec![0x30, 0]));
            "extension"
        }
        _ => {
            crl.extensions.clear();
            "no extensions"
        }
    };
    let own = &mut case.collateral;
    match root {
        true => own.root_ca_crl = Some(HexBytes(crl.sign(&machine.pki.keys.root))),
        false => own.pck_crl = Some(HexBytes(crl.sign(machine.pki.ca_key(machine.ca)))),
    }
    format!(
        "{}: {what}",
        if root { "the root's" } else { "the PCK CA's" }
    )
}
