//! The files of an attested connection (§10): members, bounds, and one way to write each.

mod common;

use common::{collateral_file, session_answer};
use serde_json::{Value, json};
use touchstone_formats::{
    Collateral, CollateralFile, Purpose, SessionAnswer, SessionRequest, SnpCollateral,
    TdxCollateral, Tee, jcs,
};

/// A file with one change.
fn changed(file: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = serde_json::from_slice(file).unwrap();
    change(&mut value);
    jcs::to_file(&value).unwrap()
}

/// Accepts the file as it is; refuses each of these changes at these places. `null` stands for the member
/// left out, too.
fn refused<T>(
    file: &[u8],
    parse: impl Fn(&[u8]) -> touchstone_formats::Result<T>,
    changes: &[(&str, Value)],
) {
    assert!(parse(file).is_ok());
    for (pointer, value) in changes {
        let (object, member) = pointer.rsplit_once('/').unwrap();
        let put = |at: &mut Value, value: Option<&Value>| {
            let members = at.pointer_mut(object).unwrap().as_object_mut().unwrap();
            match value {
                Some(value) => members.insert(member.into(), value.clone()),
                None => members.remove(member),
            };
        };
        let other = changed(file, |at| put(at, Some(value)));
        assert!(parse(&other).is_err(), "{pointer} = {value}");
        if value.is_null() {
            let without = changed(file, |at| put(at, None));
            assert!(parse(&without).is_err(), "no {pointer}");
        }
    }
}

#[test]
fn answers() {
    let answer = session_answer();
    let parse = SessionAnswer::parse;
    refused(
        &answer.to_file(),
        parse,
        &[
            ("/v", json!(null)),
            ("/v", json!("touchstone/session/2")),
            ("/v", json!("touchstone/bundle/1")),
            ("/keyset", json!(null)),
            ("/keyset", json!({})),
            ("/keyset/not_after", json!(null)),
            ("/evidence", json!(null)),
            ("/evidence", json!([])),
            ("/evidence/nonce", json!("4e4e4e4e4e4e4e")),
            ("/evidence/quote", json!("A")),
            ("/more", json!(1)),
            ("/view", json!({})),
        ],
    );
    let newline = answer.to_file();
    assert!(parse(newline.strip_suffix(b"\n").unwrap()).is_err());
    assert!(parse(&[newline.as_slice(), b"\n"].concat()).is_err());
    // Purposes are the verifier's to refuse, by name.
    for purpose in [None, Some(Purpose::Boot), Some(Purpose::Receipt)] {
        let mut other = answer.clone();
        other.evidence.purpose = purpose;
        assert_eq!(parse(&other.to_file()).unwrap(), other);
    }
    // A host may have put collateral there.
    let mut other = answer;
    other.evidence.collateral = Some(collateral_file().collateral);
    assert_eq!(parse(&other.to_file()).unwrap(), other);
}

#[test]
fn collateral() {
    let file = collateral_file();
    let parse = CollateralFile::parse;
    refused(
        &file.to_file(),
        parse,
        &[
            ("/v", json!(null)),
            ("/v", json!("touchstone/collateral/2")),
            ("/tee", json!(null)),
            ("/tee", json!("tdx")),
            ("/tee", json!("sgx")),
            ("/collateral", json!(null)),
            ("/collateral", json!([])),
            ("/collateral/vek", json!("!")),
            ("/collateral/chain", json!(["", 1])),
            ("/collateral/crls", json!(vec![""; 17])),
            ("/collateral/pck_crl", json!("00")),
            ("/more", json!(1)),
        ],
    );
    // What is missing is missing collateral, not a malformed file.
    for (tee, collateral) in [
        (Tee::SevSnp, Collateral::SevSnp(SnpCollateral::default())),
        (Tee::Tdx, Collateral::Tdx(TdxCollateral::default())),
    ] {
        let empty = CollateralFile { tee, collateral };
        assert_eq!(parse(&empty.to_file()).unwrap(), empty);
    }
    // 1 MiB of it, decoded.
    let sized = |length: usize| {
        let collateral = Collateral::SevSnp(SnpCollateral {
            crls: vec![vec![1; length]],
            ..SnpCollateral::default()
        });
        let tee = Tee::SevSnp;
        parse(&CollateralFile { tee, collateral }.to_file())
    };
    assert!(sized(1 << 20).is_ok());
    assert!(sized((1 << 20) + 1).is_err());
}

#[test]
fn every_flipped_bit_and_truncation() {
    fn hold<T: PartialEq + std::fmt::Debug>(
        file: &[u8],
        parse: impl Fn(&[u8]) -> touchstone_formats::Result<T>,
        write: impl Fn(&T) -> Vec<u8>,
        needs_newline: bool,
    ) {
        let original = parse(file).unwrap();
        for length in 0..file.len() - usize::from(!needs_newline) {
            assert!(parse(&file[..length]).is_err(), "{length} bytes");
        }
        for bit in 0..file.len() * 8 {
            let mut other = file.to_vec();
            other[bit / 8] ^= 1 << (bit % 8);
            if let Ok(parsed) = parse(&other) {
                assert_ne!(parsed, original, "bit {bit}");
                assert_eq!(write(&parsed), other, "bit {bit}");
            }
        }
    }
    let request = SessionRequest { nonce: [0x4e; 32] };
    hold(
        &request.to_file(),
        SessionRequest::parse,
        SessionRequest::to_file,
        false,
    );
    hold(
        &session_answer().to_file(),
        SessionAnswer::parse,
        SessionAnswer::to_file,
        true,
    );
    hold(
        &collateral_file().to_file(),
        CollateralFile::parse,
        CollateralFile::to_file,
        true,
    );
}
