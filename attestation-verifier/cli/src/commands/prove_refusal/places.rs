//! Every part that a verdict rests on, as bytes that can be changed one by one.

use std::ops::Range;

use touchstone_formats::text::HexBytes;
use touchstone_formats::{Collateral, Evidence, SnpCollateral, TdxCollateral, Tee, jcs};

use super::quote;
use super::subject::{Files, Slot, Subject};

/// Length of a SEV-SNP report's signed part.
pub const SNP_SIGNED: usize = 0x2a0;

/// Gives the files with these bytes in the place; none where they cannot stand there at all.
type Put<'a> = Box<dyn Fn(Vec<u8>) -> Option<Files> + 'a>;

/// A part.
pub struct Place<'a> {
    /// Its name in the table.
    pub name: String,
    /// Its bytes as they are.
    pub bytes: Vec<u8>,
    put: Put<'a>,
}

impl Place<'_> {
    /// The files with these bytes in this place.
    pub fn with(&self, bytes: Vec<u8>) -> Option<Files> {
        (self.put)(bytes)
    }
}

/// Every part of something that holds.
pub fn places(subject: &Subject) -> Vec<Place<'_>> {
    let mut all = Vec::new();
    files(subject, &mut all);
    bundle(subject, &mut all);
    for (slot, name, evidence) in subject.all_evidence() {
        of_evidence(subject, slot, &name, evidence, &mut all);
    }
    all.retain(|place| !place.bytes.is_empty());
    all
}

/// Whole files.
fn files<'a>(subject: &'a Subject, all: &mut Vec<Place<'a>>) {
    for file in &subject.files {
        if file.name == "session.json" && subject.session.is_none() {
            continue;
        }
        let put = |bytes| Some(Files::from([(file.path.clone(), bytes)]));
        // The header of an array says the same in several ways.
        let data = match file.name {
            "tensor" => array_data(&file.bytes)..file.bytes.len(),
            _ => 0..file.bytes.len(),
        };
        all.push(part(file.name, &file.bytes, data, put));
    }
}

/// Where the elements of an array begin (NumPy's format, versions 1 to 3).
fn array_data(file: &[u8]) -> usize {
    let byte = |at: usize| file.get(at).copied().map_or(0, usize::from);
    let length = byte(8) | byte(9) << 8;
    match byte(6) {
        1 => 10 + length,
        _ => 12 + (length | byte(10) << 16 | byte(11) << 24),
    }
}

/// What the bundle holds beside evidence.
fn bundle<'a>(subject: &'a Subject, all: &mut Vec<Place<'a>>) {
    let Some(file) = &subject.bundle else { return };
    let bundle = &file.bundle;
    let cose = &bundle.receipt;
    let signature = cose.len().saturating_sub(64);
    for (name, range) in [
        ("receipt", 0..signature),
        ("receipt signature", signature..cose.len()),
    ] {
        let put = |bytes| subject.with_bundle(|b| b.receipt = bytes);
        all.push(part(name, cose, range, put));
    }
    if let Some(proof) = &bundle.proof {
        let note = proof.find("\n\n").map_or(0, |at| at + 2);
        let signatures = proof.rfind("\n\n").map_or(proof.len(), |at| at + 2);
        for (name, range) in [
            ("inclusion proof", 0..note),
            ("checkpoint", note..signatures),
            ("checkpoint signature", signatures..proof.len()),
        ] {
            let put = |bytes| {
                let text = String::from_utf8(bytes).ok()?;
                subject.with_bundle(|b| b.proof = Some(text))
            };
            all.push(part(name, proof.as_bytes(), range, put));
        }
    }
    // The rest as it is written in the file.
    let openings = jcs::to_vec(&bundle.openings).unwrap_or_default();
    let catalog = bundle.catalog.as_ref().map(|c| c.to_jcs());
    for (name, json) in [
        ("keyset", bundle.keyset.to_jcs()),
        ("catalog", catalog.unwrap_or_default()),
        ("openings", openings),
    ] {
        let Some(whole) = subject.file("bundle.json") else {
            continue;
        };
        let member = [format!("\"{name}\":").as_bytes(), &json].concat();
        let found = whole
            .bytes
            .windows(member.len())
            .position(|window| window == member);
        if let Some(at) = found.filter(|_| !json.is_empty()) {
            let end = at + member.len();
            let put = |bytes| Some(Files::from([(whole.path.clone(), bytes)]));
            all.push(part(name, &whole.bytes, end - json.len()..end, put));
        }
    }
}

fn of_evidence<'a>(
    subject: &'a Subject,
    slot: Slot,
    name: &str,
    evidence: &'a Evidence,
    all: &mut Vec<Place<'a>>,
) {
    let parts: Vec<(&str, Range<usize>)> = match evidence.tee {
        Tee::SevSnp => vec![
            ("report", 0..SNP_SIGNED),
            ("report signature", SNP_SIGNED..evidence.quote.len()),
        ],
        Tee::Tdx => quote::parts(&evidence.quote),
    };
    for (what, range) in parts {
        let put = move |bytes| {
            let quote = bytes;
            subject.with_evidence(
                slot,
                Evidence {
                    quote,
                    ..evidence.clone()
                },
            )
        };
        all.push(part(
            &format!("{name}: {what}"),
            &evidence.quote,
            range,
            put,
        ));
    }
    match &evidence.collateral {
        Some(Collateral::SevSnp(snp)) => snp_collateral(subject, slot, name, evidence, snp, all),
        Some(Collateral::Tdx(tdx)) => tdx_collateral(subject, slot, name, evidence, tdx, all),
        None => {}
    }
    if let (Some(log), Tee::Tdx) = (&evidence.event_log, evidence.tee) {
        let put = move |bytes| {
            let mut evidence = evidence.clone();
            evidence.event_log.as_mut()?.data.0 = bytes;
            subject.with_evidence(slot, evidence)
        };
        let data = &log.data.0;
        all.push(part(
            &format!("{name}: event log"),
            data,
            0..data.len(),
            put,
        ));
    }
}

fn snp_collateral<'a>(
    subject: &'a Subject,
    slot: Slot,
    name: &str,
    evidence: &'a Evidence,
    snp: &'a SnpCollateral,
    all: &mut Vec<Place<'a>>,
) {
    let mut add =
        |what: String, bytes: &'a [u8], change: fn(&mut SnpCollateral, usize, Vec<u8>), n| {
            let put = move |bytes| {
                let mut evidence = evidence.clone();
                let Some(Collateral::SevSnp(snp)) = &mut evidence.collateral else {
                    return None;
                };
                change(snp, n, bytes);
                subject.with_evidence(slot, evidence)
            };
            all.push(part(&format!("{name}: {what}"), bytes, 0..bytes.len(), put));
        };
    if let Some(vek) = &snp.vek {
        let change = |snp: &mut SnpCollateral, _, bytes| snp.vek = Some(bytes);
        add("VEK certificate".to_owned(), vek, change, 0);
    }
    for (n, certificate) in snp.chain.iter().enumerate() {
        add(
            format!("chain certificate {}", n + 1),
            certificate,
            |snp, n, bytes| {
                snp.chain
                    .iter_mut()
                    .skip(n)
                    .take(1)
                    .for_each(|c| c.clone_from(&bytes))
            },
            n,
        );
    }
    for (n, crl) in snp.crls.iter().enumerate() {
        add(
            format!("revocation list {}", n + 1),
            crl,
            |snp, n, bytes| {
                snp.crls
                    .iter_mut()
                    .skip(n)
                    .take(1)
                    .for_each(|c| c.clone_from(&bytes))
            },
            n,
        );
    }
}

/// A part of Intel's collateral: its name, its bytes, and how it is put.
pub type TdxMember = (
    &'static str,
    fn(&TdxCollateral) -> Option<&[u8]>,
    fn(&mut TdxCollateral, Option<Vec<u8>>) -> Option<()>,
);

macro_rules! text {
    ($name:literal, $member:ident) => {
        (
            $name,
            |c| c.$member.as_deref().map(str::as_bytes),
            |c, bytes| {
                c.$member = bytes.map(String::from_utf8).transpose().ok()?;
                Some(())
            },
        )
    };
}

macro_rules! hex {
    ($name:literal, $member:ident) => {
        (
            $name,
            |c| c.$member.as_ref().map(|bytes| bytes.0.as_slice()),
            |c, bytes| {
                c.$member = bytes.map(HexBytes);
                Some(())
            },
        )
    };
}

/// All of them.
pub const TDX_MEMBERS: [TdxMember; 9] = [
    text!("TCB info", tcb_info),
    hex!("TCB info signature", tcb_info_signature),
    text!("TCB info issuer chain", tcb_info_issuer_chain),
    text!("QE identity", qe_identity),
    hex!("QE identity signature", qe_identity_signature),
    text!("QE identity issuer chain", qe_identity_issuer_chain),
    hex!("PCK revocation list", pck_crl),
    text!("PCK revocation list issuer chain", pck_crl_issuer_chain),
    hex!("root revocation list", root_ca_crl),
];

fn tdx_collateral<'a>(
    subject: &'a Subject,
    slot: Slot,
    name: &str,
    evidence: &'a Evidence,
    tdx: &'a TdxCollateral,
    all: &mut Vec<Place<'a>>,
) {
    for (what, of, set) in TDX_MEMBERS {
        let Some(bytes) = of(tdx) else { continue };
        let put = move |bytes| {
            let mut evidence = evidence.clone();
            let Some(Collateral::Tdx(tdx)) = &mut evidence.collateral else {
                return None;
            };
            set(tdx, Some(bytes))?;
            subject.with_evidence(slot, evidence)
        };
        all.push(part(&format!("{name}: {what}"), bytes, 0..bytes.len(), put));
    }
}

/// A range of something larger.
fn part<'a>(
    name: &str,
    whole: &'a [u8],
    range: Range<usize>,
    put: impl Fn(Vec<u8>) -> Option<Files> + 'a,
) -> Place<'a> {
    let (start, end) = (range.start, range.end);
    let between = |from: usize, to: usize| whole.get(from..to).unwrap_or_default();
    Place {
        name: name.to_owned(),
        bytes: between(start, end).to_vec(),
        put: Box::new(move |bytes| {
            let (before, after) = (whole.get(..start)?, whole.get(end..)?);
            put([before, &bytes, after].concat())
        }),
    }
}
