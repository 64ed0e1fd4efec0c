//! Other lengths, other encodings of the same content, and collateral that is gone or out of its time.

use std::collections::BTreeMap;

use serde_json::Value;
use touchstone_formats::{Collateral, Evidence};

use super::mutant::{Kind, Mutant};
use super::places::{Place, TDX_MEMBERS};
use super::subject::{Files, Named, Subject};

/// Every part with bytes cut off, and with bytes more.
pub fn lengths(places: &[Place]) -> Vec<Mutant> {
    let mut all = Vec::new();
    // An array of another length is no array, which is the caller's own mistake (exit 1).
    for place in places.iter().filter(|place| place.name != "tensor") {
        let mut put = |what: &str, bytes: Vec<u8>| {
            let files = place.with(bytes);
            all.extend(files.map(|files| Mutant::new(Kind::Length, &*place.name, what, files)));
        };
        let bytes = &place.bytes;
        let upto = |end: usize| bytes.get(..end).unwrap_or_default().to_vec();
        // Line ends at the end of PEM may be missing, and a zero behind them; what is before them never.
        let armour = |byte: &u8| matches!(byte, b'\n' | b'\r' | 0);
        let last = bytes.iter().rposition(|byte| !armour(byte));
        put(
            "the last bytes are missing",
            upto(last.unwrap_or_default().saturating_sub(1)),
        );
        // Never between two certificates: a chain may end before its root, which is pinned.
        let half = upto(bytes.len() / 2);
        let half = match half.trim_ascii_end().strip_suffix(b"-") {
            Some(rest) => rest.to_vec(),
            None => half,
        };
        put("the second half is missing", half);
        put("empty", Vec::new());
        put("one byte more", [bytes.as_slice(), b"A"].concat());
        put("twice", [bytes.as_slice(), bytes].concat());
    }
    all
}

/// The same, written otherwise.
pub fn encodings(subject: &Subject) -> Vec<Mutant> {
    let mut all = Vec::new();
    for file in &subject.files {
        let unproven = file.name == "session.json" && subject.session.is_none();
        if !unproven && (file.name.ends_with("json") || file.name == "evidence file") {
            json(file, &mut all);
        }
    }
    receipt(subject, &mut all);
    proof(subject, &mut all);
    certificates(subject, &mut all);
    all
}

fn json(file: &Named, all: &mut Vec<Mutant>) {
    let Ok(text) = std::str::from_utf8(&file.bytes) else {
        return;
    };
    let mut put = |what: &str, other: String| {
        if other != text {
            let files = Files::from([(file.path.clone(), other.into_bytes())]);
            all.push(Mutant::new(Kind::Encoding, file.name, what, files));
        }
    };
    put("a second newline at the end", format!("{text}\n"));
    put("no newline at the end", text.trim_end().to_owned());
    put("CR LF at the end", text.replace('\n', "\r\n"));
    put("a byte order mark", format!("\u{feff}{text}"));
    put(
        "white space after the first brace",
        text.replacen('{', "{ ", 1),
    );
    put("white space after a colon", text.replacen("\":", "\": ", 1));
    put(
        "an escaped letter",
        text.replacen("touchstone/", "\\u0074ouchstone/", 1),
    );
    put(
        "an escaped solidus",
        text.replacen("touchstone/", "touchstone\\/", 1),
    );
    put("an unknown member", text.replacen('{', "{\"\":null,", 1));
    put(
        "padding after base64",
        text.replacen("\",\"tee\"", "=\",\"tee\"", 1),
    );
    put(
        "white space in base64",
        text.replacen("\",\"tee\"", " \",\"tee\"", 1),
    );
    if let Ok(Value::Object(members)) = serde_json::from_str(text) {
        let members: BTreeMap<String, Value> = members.into_iter().collect();
        let write = |parts: Vec<String>| format!("{{{}}}\n", parts.join(","));
        let member =
            |(name, value): (&String, &Value)| format!("{}:{value}", Value::from(name.as_str()));
        put(
            "members in another order",
            write(members.iter().rev().map(member).collect()),
        );
        let first = members.iter().take(1).map(member);
        put(
            "a member twice",
            write(first.chain(members.iter().map(member)).collect()),
        );
    }
    number(text, &mut put);
    // The first digest or nonce that has a letter in it, in capitals.
    if let Some((start, hex)) = quoted(text).find(|(_, s)| is_lower_hex(s)) {
        let (before, after) = (text.get(..start), text.get(start + hex.len()..));
        if let (Some(before), Some(after)) = (before, after) {
            put(
                "hex in capitals",
                format!("{before}{}{after}", hex.to_uppercase()),
            );
        }
    }
}

/// The first number, in forms that JSON has and JCS has not.
fn number(text: &str, put: &mut impl FnMut(&str, String)) {
    let digit = |c: char| c.is_ascii_digit();
    for (at, _) in text.match_indices("\":") {
        let Some(rest) = text.get(at + 2..) else {
            continue;
        };
        let end = rest.find(|c| !digit(c)).unwrap_or(rest.len());
        if let (Some(number), Some(before), Some(after)) = (
            rest.get(..end).filter(|n| !n.is_empty()),
            text.get(..at + 2),
            rest.get(end..),
        ) {
            put(
                "a number with a fraction",
                format!("{before}{number}.0{after}"),
            );
            put(
                "a number with an exponent",
                format!("{before}{number}e0{after}"),
            );
            put("a number as text", format!("{before}\"{number}\"{after}"));
            return;
        }
    }
}

/// The texts between quotation marks, and where they begin. Escapes end one early, which does no harm here.
fn quoted(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split('"').map(move |part| {
        let start = at;
        at += part.len() + 1;
        (start, part)
    })
}

fn is_lower_hex(text: &str) -> bool {
    text.len() >= 32
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        && text.bytes().any(|b| b.is_ascii_lowercase())
}

/// CBOR that is not deterministic (RFC 8949 §4.2.1), and headers that version 1 has not.
fn receipt(subject: &Subject, all: &mut Vec<Mutant>) {
    let Some(file) = &subject.bundle else { return };
    let cose = &file.bundle.receipt;
    // Tag 18, an array of four, a byte string of 13, an empty map, the payload.
    let splice = |at: usize, old: usize, new: &[u8]| {
        let (before, after) = (cose.get(..at)?, cose.get(at + old..)?);
        Some([before, new, after].concat())
    };
    let payload = cose.get(17..).and_then(|rest| match rest.first()? {
        0x58 => Some(19),
        0x59 => Some(20),
        _ => None,
    });
    let map = payload.and_then(|at| {
        let count = cose.get(at)? & 0x1f;
        splice(at, 1, &[0xb8, count])
    });
    for (what, cose) in [
        ("the tag in two bytes", splice(0, 1, &[0xd8, 0x12])),
        ("no tag", splice(0, 1, &[])),
        ("the array's length in two bytes", splice(1, 1, &[0x98, 4])),
        ("an array of indefinite length", splice(1, 1, &[0x9f])),
        (
            "an unprotected header",
            splice(16, 1, &[0xa1, 0x04, 0x41, 0x00]),
        ),
        ("a map of indefinite length", splice(16, 1, &[0xbf, 0xff])),
        ("the number of claims in two bytes", map),
    ] {
        let files = cose.and_then(|cose| subject.with_bundle(|b| b.receipt = cose));
        all.extend(files.map(|files| Mutant::new(Kind::Encoding, "receipt", what, files)));
    }
}

fn proof(subject: &Subject, all: &mut Vec<Mutant>) {
    let text = subject
        .bundle
        .as_ref()
        .and_then(|file| file.bundle.proof.clone());
    let Some(text) = text else { return };
    for (what, other) in [
        ("CR LF", text.replace('\n', "\r\n")),
        ("a leading zero", text.replacen("index ", "index 0", 1)),
        ("a sign", text.replacen("index ", "index +", 1)),
        (
            "an extra line",
            text.replacen("index ", "extra AAAA\nindex ", 1),
        ),
        ("base64 without its padding", text.replacen("=\n", "\n", 1)),
        ("a second newline at the end", format!("{text}\n")),
        ("a hyphen for the dash", text.replace('\u{2014}', "-")),
    ] {
        if other == text {
            continue;
        }
        let files = subject.with_bundle(|b| b.proof = Some(other));
        all.extend(files.map(|files| Mutant::new(Kind::Encoding, "inclusion proof", what, files)));
    }
}

/// Certificates and revocation lists in BER that is not DER.
fn certificates(subject: &Subject, all: &mut Vec<Mutant>) {
    // 30 82 hh ll: a length in two bytes becomes one in three.
    let longer = |der: &[u8]| match der {
        [0x30, 0x82, rest @ ..] => Some([&[0x30, 0x83, 0x00], rest].concat()),
        _ => None,
    };
    for (slot, name, evidence) in subject.all_evidence() {
        let mut put = |what: &str, collateral: Collateral| {
            let evidence = Evidence {
                collateral: Some(collateral),
                ..evidence.clone()
            };
            let files = subject.with_evidence(slot, evidence);
            let what = format!("{what}: a length that is not minimal");
            all.extend(files.map(|files| Mutant::new(Kind::Encoding, &*name, what, files)));
        };
        match &evidence.collateral {
            Some(Collateral::SevSnp(snp)) => {
                let mut other = snp.clone();
                if let Some(vek) = snp.vek.as_deref().and_then(longer) {
                    other.vek = Some(vek);
                    put("VEK certificate", Collateral::SevSnp(other));
                }
                let mut other = snp.clone();
                if let Some((own, first)) = other.chain.first_mut().zip(snp.chain.first())
                    && let Some(der) = longer(first)
                {
                    *own = der;
                    put("chain certificate", Collateral::SevSnp(other));
                }
            }
            Some(Collateral::Tdx(tdx)) => {
                for (what, of, set) in TDX_MEMBERS {
                    let mut other = tdx.clone();
                    if let Some(der) = of(tdx).and_then(longer)
                        && set(&mut other, Some(der)).is_some()
                    {
                        put(what, Collateral::Tdx(other));
                    }
                }
            }
            None => {}
        }
    }
}

/// Fifty years: no certificate of a chip, no revocation list and no text of Intel's lives that long.
const LONG: u64 = 50 * 365 * 86_400;

/// Collateral that is gone, and times at which it is not valid.
pub fn collateral(subject: &Subject) -> Vec<Mutant> {
    let mut all = Vec::new();
    for (slot, name, evidence) in subject.all_evidence() {
        let mut put = |what: String, collateral: Option<Collateral>| {
            let evidence = Evidence {
                collateral,
                ..evidence.clone()
            };
            let files = subject.with_evidence(slot, evidence);
            all.extend(files.map(|files| Mutant::new(Kind::Collateral, &*name, what, files)));
        };
        put("all of it is gone".into(), None);
        match &evidence.collateral {
            Some(Collateral::SevSnp(snp)) => {
                let mut gone = snp.clone();
                gone.vek = None;
                put(
                    "the VEK certificate is gone".into(),
                    Some(Collateral::SevSnp(gone)),
                );
                let mut gone = snp.clone();
                gone.chain.clear();
                put("the chain is gone".into(), Some(Collateral::SevSnp(gone)));
                if !snp.crls.is_empty() {
                    let mut gone = snp.clone();
                    gone.crls.clear();
                    put(
                        "the revocation lists are gone".into(),
                        Some(Collateral::SevSnp(gone)),
                    );
                }
            }
            Some(Collateral::Tdx(tdx)) => {
                // The PCK CA's certificate stands in the quote, too: its chain may be missing here.
                let chain = "PCK revocation list issuer chain";
                for (what, of, set) in TDX_MEMBERS.into_iter().filter(|m| m.0 != chain) {
                    let mut gone = tdx.clone();
                    if of(tdx).is_some() && set(&mut gone, None).is_some() {
                        put(format!("the {what} is gone"), Some(Collateral::Tdx(gone)));
                    }
                }
            }
            None => {}
        }
    }
    for (what, time) in [
        (
            "judged fifty years later",
            subject.at.time.saturating_add(LONG),
        ),
        ("judged at the beginning of 1971", 365 * 86_400),
    ] {
        let mut mutant = Mutant::new(Kind::Collateral, "time", what, Files::new());
        mutant.at = Some(time);
        all.push(mutant);
    }
    all
}
