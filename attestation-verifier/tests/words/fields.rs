//! Fields stand where they are said to stand, and what is malformed is named by place and field.

use attestation_verifier::fields::{
    Field, Malformed, Structure, certificate, crl, snp_report, tdx_quote,
};
use attestation_verifier::fields::{qe_identity, tcb_info};
use touchstone_formats::{Collateral, Tee};
use touchstone_testkit::machine::TdxMachine;
use touchstone_testkit::mint::World;
use touchstone_testkit::tdx::TdReport;

/// All fields that have a place.
fn placed(structure: &Structure) -> Vec<&Field> {
    let own = structure
        .fields
        .iter()
        .filter(|field| field.offset.is_some());
    own.chain(structure.parts.iter().flat_map(placed)).collect()
}

/// One bit at the first byte of a field changes that field and no other that has a place (where the result is still
/// well-formed: most of what says a kind or a size is not).
#[track_caller]
fn every_offset_is_right(bytes: &[u8], read: fn(&[u8]) -> Result<Structure, Malformed>) -> usize {
    let honest = read(bytes).expect("well-formed");
    let fields = placed(&honest);
    let mut proven = 0;
    for field in &fields {
        let mut changed = bytes.to_vec();
        changed[field.offset.unwrap()] ^= 1;
        let Ok(other) = read(&changed) else { continue };
        let other = placed(&other);
        for (before, after) in fields.iter().zip(&other) {
            let same = before.value == after.value;
            assert_eq!(
                same,
                before != field,
                "0x{:x?} {}: {}",
                field.offset,
                field.name,
                before.name
            );
        }
        proven += 1;
    }
    proven
}

fn quote(version: u16, report: TdReport) -> Vec<u8> {
    TdxMachine::new(version, report, World::AT).quote([5; 64])
}

#[test]
fn offsets_of_reports() {
    let world = World::new(1);
    let report = world.machine.quote([9; 64]);
    assert!(every_offset_is_right(&report, snp_report) >= 24);
    let shown = snp_report(&report).unwrap();
    let find = |name: &str| {
        placed(&shown)
            .into_iter()
            .find(|f| f.name == name)
            .unwrap()
            .clone()
    };
    assert_eq!(find("MEASUREMENT").value, hex::encode(&report[0x90..0xc0]));
    assert_eq!(find("REPORT_DATA").value, "09".repeat(64));
    assert!(
        find("REPORTED_TCB")
            .meaning
            .unwrap()
            .contains("microcode 90")
    );
    assert!(find("POLICY").meaning.unwrap().contains("SMT"));
}

#[test]
fn offsets_of_quotes() {
    for (version, report, least) in [
        (4, TdReport::v1_0(), 20),
        (5, TdReport::v1_0(), 20),
        (5, TdReport::v1_5(), 22),
    ] {
        let bytes = quote(version, report);
        assert!(
            every_offset_is_right(&bytes, tdx_quote) >= least,
            "{version}"
        );
        let shown = tdx_quote(&bytes).unwrap();
        let data = placed(&shown)
            .into_iter()
            .find(|f| f.name == "REPORTDATA")
            .unwrap();
        assert_eq!(data.value, "05".repeat(64));
        let certification = shown.parts.last().unwrap();
        assert_eq!(certification.parts.len(), 3, "the PCK chain");
        let text = shown.to_string();
        assert!(
            text.contains("FMSPC") && text.contains("SEPT_VE_DISABLE"),
            "{text}"
        );
    }
}

/// What is malformed is named by the byte that makes it so.
#[test]
fn malformed_bytes_are_named_by_place_and_field() {
    let world = World::new(1);
    let report = world.machine.quote([9; 64]);
    for (at, to, field) in [
        (0x000, 9, "VERSION"),
        (0x034, 2, "SIGNATURE_ALGO"),
        (0x044, 1, "PLATFORM_INFO"),
        (0x04c, 1, "reserved"),
        (0x188, 0, "CPUID_FAM_ID"),
        (0x29f, 1, "reserved"),
        (0x2e7, 1, "SIGNATURE"),
        (0x49f, 1, "reserved"),
    ] {
        let mut bytes = report.clone();
        assert_ne!(bytes[at], to);
        bytes[at] = to;
        let error = snp_report(&bytes).unwrap_err();
        // A field of several bytes is named by its first.
        let near = error
            .offset
            .is_some_and(|found| found <= at && at < found + 8);
        assert!(near && error.field == field, "{at:#x}: {error:?}");
        assert!(
            error
                .to_string()
                .contains(&format!("byte 0x{:03x}, {field}: ", error.offset.unwrap()))
        );
    }
    let long = [&report[..], &[0]].concat();
    assert_eq!(snp_report(&long).unwrap_err().offset, Some(0x4a0));
    assert_eq!(snp_report(&report[..100]).unwrap_err().offset, Some(100));

    for (version, report) in [(4, TdReport::v1_0()), (5, TdReport::v1_5())] {
        let honest = quote(version, report);
        let body = if version == 4 { 48 + 584 } else { 54 + 648 };
        let qe = body + 4 + 128 + 6;
        let chain = qe + 448 + 2 + usize::from(honest[qe + 448]);
        let changes = [
            (0, 3, "version", 0),
            (2, 3, "attestation key type", 2),
            (4, 0, "TEE type", 4),
            (8, 1, "header", 8),
            (12, 0, "QE Vendor ID", 12),
            (body + 4 + 128, 7, "", body + 4 + 128),
            (qe + 21, 1, "QE report", qe + 21),
            (chain, 4, "", chain),
            (chain + 8, b'x', "PCK chain", chain + 6),
        ];
        for (at, to, field, offset) in changes {
            let mut bytes = honest.clone();
            assert_ne!(bytes[at], to);
            bytes[at] = to;
            let error = tdx_quote(&bytes).unwrap_err();
            assert_eq!(error.offset, Some(offset), "{at:#x}: {error}");
            assert!(error.field.contains(field), "{error:?}");
        }
        let long = [&honest[..], &[0]].concat();
        assert_eq!(tdx_quote(&long).unwrap_err().offset, Some(honest.len()));
        for length in 0..honest.len() {
            let error = tdx_quote(&honest[..length]).unwrap_err();
            assert!(
                error.offset.is_some_and(|at| at <= length),
                "{length}: {error}"
            );
        }
    }
}

#[test]
fn collateral_has_fields_too() {
    let machine = TdxMachine::new(5, TdReport::v1_5(), World::AT);
    let collateral = machine.collateral();
    let info = tcb_info(collateral.tcb_info.as_ref().unwrap()).unwrap();
    assert!(
        info.parts
            .iter()
            .any(|part| part.title == "TCB level: UpToDate")
    );
    let identity = qe_identity(collateral.qe_identity.as_ref().unwrap()).unwrap();
    assert!(identity.fields.iter().any(|field| field.name == "mrsigner"));
    let list = crl(&collateral.pck_crl.as_ref().unwrap().0).unwrap();
    assert!(list.fields.iter().any(|field| field.name == "nextUpdate"));
    assert!(
        tcb_info("{}")
            .unwrap_err()
            .to_string()
            .starts_with("TCB info: JSON: ")
    );
    assert!(qe_identity("[]").is_err());

    let world = World::new(1);
    let minted = world.exchange();
    let evidence = &minted.bundle.evidence[0];
    assert_eq!(evidence.tee, Tee::SevSnp);
    let Some(Collateral::SevSnp(snp)) = &evidence.collateral else {
        panic!("collateral");
    };
    let vek = certificate(snp.vek.as_ref().unwrap()).unwrap();
    assert_eq!(vek.parts[0].title, "AMD's extensions");
    assert!(certificate(b"0").is_err());
}
