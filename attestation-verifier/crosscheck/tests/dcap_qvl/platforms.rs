//! dcap-qvl, with our root in place of Intel's, as an independent judge: it accepts what is honest, says of it what we
//! wrote, and refuses lies that carry good signatures, each for the reason that was meant.

use dcap_qvl::quote::{Quote as TheirQuote, Report};
use dcap_qvl::verify::{QuoteVerifier, VerifiedReport};
use touchstone_testkit::intel::{PckCa, Pki, PkiKeys};
use touchstone_testkit::machine::{TdxMachine, TeeMachine as _};
use touchstone_testkit::tdx::{Quote, Td15, TdReport, attributes};
use touchstone_testkit::x509::EcKey;

use crate::simulated::NOW as AT;
use crate::theirs;

const DATA: [u8; 64] = [0x42; 64];

/// The verdict, or every reason in one line.
fn judge(machine: &TdxMachine, quote: &[u8], at: u64) -> Result<VerifiedReport, String> {
    QuoteVerifier::new(machine.pki.root_der())
        .verify(quote, &theirs(&machine.collateral()), at)
        .map_err(|e| format!("{e:#}"))
}

/// The forms there are: version 4, and version 5 with either body; under either CA.
fn honest() -> Vec<TdxMachine> {
    let mut machines = Vec::new();
    for (version, report) in [
        (4, TdReport::v1_0()),
        (5, TdReport::v1_0()),
        (5, TdReport::v1_5()),
    ] {
        for ca in PckCa::ALL {
            let mut machine = TdxMachine::new(version, report.clone(), AT);
            machine.ca = ca;
            if ca == PckCa::Processor {
                machine.platform = machine.platform.of_processor_ca();
            }
            machine.reissue();
            machines.push(machine);
        }
    }
    machines
}

#[test]
fn what_is_honest_is_accepted_and_read_as_written() {
    for machine in honest() {
        let quote = machine.quote(DATA);
        let verified = judge(&machine, &quote, AT).unwrap();
        assert_eq!(verified.status, "UpToDate");
        assert_eq!(verified.advisory_ids, [] as [&str; 0]);
        assert_eq!(verified.ppid, machine.platform.ppid);
        let parsed = TheirQuote::parse(&quote).unwrap();
        assert_eq!(parsed.header.version, machine.report.header.version);
        assert_eq!(parsed.report, verified.report);
        let (ours, base) = (&machine.report.report, verified.report.as_td10().unwrap());
        assert_eq!(base.report_data, DATA);
        assert_eq!(base.tee_tcb_svn, ours.tee_tcb_svn);
        assert_eq!(base.mr_seam, ours.mr_seam);
        assert_eq!(base.mr_signer_seam, ours.mr_signer_seam);
        assert_eq!(base.td_attributes, ours.td_attributes.to_le_bytes());
        assert_eq!(base.xfam, ours.xfam.to_le_bytes());
        assert_eq!(base.mr_td, ours.mr_td);
        assert_eq!(base.mr_config_id, ours.mr_config_id);
        assert_eq!(base.mr_owner, ours.mr_owner);
        assert_eq!(base.mr_owner_config, ours.mr_owner_config);
        assert_eq!(
            [base.rt_mr0, base.rt_mr1, base.rt_mr2, base.rt_mr3],
            ours.rtmr
        );
        match (&verified.report, &ours.v1_5) {
            (Report::TD10(_), None) => {}
            (Report::TD15(theirs), Some(ours)) => {
                assert_eq!(theirs.tee_tcb_svn2, ours.tee_tcb_svn_2);
                assert_eq!(theirs.mr_service_td, ours.mr_service_td);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nothing_is_accepted_under_another_root_or_outside_its_time() {
    let machine = TdxMachine::strict(AT);
    let quote = machine.quote(DATA);
    assert!(judge(&machine, &quote, AT).is_ok());
    let collateral = theirs(&machine.collateral());
    let other = Pki::with_keys(AT, PkiKeys::shared("somebody else"));
    for root in [
        QuoteVerifier::new(other.root_der()),
        QuoteVerifier::new_prod(),
    ] {
        assert!(root.verify(&quote, &collateral, AT).is_err());
    }
    const DAY: u64 = 86_400;
    assert!(judge(&machine, &quote, AT + 27 * DAY).is_ok());
    for at in [AT - 2 * DAY, AT + 30 * DAY, AT + 365 * DAY] {
        assert!(judge(&machine, &quote, at).is_err(), "{at}");
    }
}

/// A lie, told before anything is signed, and a word of the reason for which it is refused.
type Lie = (&'static str, fn(&mut TdxMachine));

#[test]
fn lies_that_carry_good_signatures_are_refused_for_what_they_are() {
    let lies: &[Lie] = &[
        ("Debug mode", |m| {
            m.report.report.td_attributes |= attributes::DEBUG
        }),
        ("SEPT_VE_DISABLE", |m| m.report.report.td_attributes = 0),
        ("TDX module MRSIGNER mismatch", |m| {
            m.report.report.mr_signer_seam[0] = 1
        }),
        ("SEAMATTRIBUTES", |m| m.report.report.seam_attributes[0] = 1),
        ("MR service TD", |m| {
            m.report.report.v1_5 = Some(Td15 {
                tee_tcb_svn_2: m.report.report.tee_tcb_svn,
                mr_service_td: [1; 48],
            });
        }),
        ("Unsupported quote version", |m| m.report.header.version = 6),
        ("QE vendor", |m| m.report.header.qe_vendor_id[0] ^= 1),
        ("attestation key type", |m| {
            m.report.header.attestation_key_type = 3
        }),
        ("QE report hash mismatch", |m| {
            m.report.qe_report.report_data = Some([0; 64])
        }),
        ("ISV enclave report signature", |m| {
            let other = EcKey::p256();
            m.report.attestation_key = Some(other.public_key()[1..].try_into().unwrap());
        }),
        ("QE MRSIGNER mismatch", |m| {
            m.report.qe_report.mr_signer[0] ^= 1
        }),
        ("QE ISVPRODID mismatch", |m| {
            m.report.qe_report.isv_prod_id = 3
        }),
        ("QE ATTRIBUTES mismatch", |m| {
            m.report.qe_report.attributes[0] |= 0x20
        }),
        ("QE MISCSELECT mismatch", |m| {
            m.report.qe_report.misc_select = 1
        }),
        ("qe_report in quote", |m| {
            // The certificate is good, and somebody else's.
            let (certified, signer) = (EcKey::p256(), m.pck_key.clone());
            m.pck_key = certified;
            m.reissue();
            m.pck_key = signer;
        }),
        ("Fmspc mismatch", |m| m.tcb_info.fmspc[0] ^= 1),
        ("non-TDX TCB info", |m| m.tcb_info.id = "SGX".into()),
        ("QE Identity id", |m| m.qe_identity.id = "QE".into()),
        ("No matching TCB level", |m| {
            (m.platform.comp_svn, m.platform.cpu_svn) = ([0; 16], [0; 16]);
            m.reissue();
        }),
        ("TDX module ISVSVN", |m| m.report.report.tee_tcb_svn[0] = 1),
        ("Revoked", |m| m.tcb_info.set_status("Revoked", &[])),
        ("CertRevoked", |m| m.pck_crl.revoke(&m.pck.serial.clone())),
        ("CertRevoked", |m| {
            m.root_crl.revoke(&m.pki.platform_ca.serial.clone())
        }),
        ("CertRevoked", |m| {
            m.root_crl.revoke(&m.pki.tcb_signing.serial.clone())
        }),
        ("CertExpired", |m| m.pck.not_after = AT - 1),
        ("TCBInfo expired", |m| m.tcb_info.next_update = AT - 1),
        ("QE Identity issue date is in the future", |m| {
            m.qe_identity.issue_date = AT + 1
        }),
        ("QE auth data length", |m| m.report.qe_auth_data.push(0)),
        ("PCK cert format", |m| m.report.pck_type = 4),
    ];
    let refused = |word: &str, machine: &TdxMachine| {
        let found = judge(machine, &machine.quote(DATA), AT).map(|v| v.status);
        let right = matches!(&found, Err(reason) if reason.contains(word));
        assert!(right, "{word:?} expected, found {found:?}");
    };
    for (word, lie) in lies {
        let mut machine = TdxMachine::strict(AT);
        assert!(judge(&machine, &machine.quote(DATA), AT).is_ok());
        lie(&mut machine);
        refused(word, &machine);
    }
}

#[test]
fn statuses_and_advisories_of_every_level_come_through() {
    for status in [
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
    ] {
        let mut machine = TdxMachine::new(4, TdReport::v1_0(), AT);
        machine.tcb_info.set_status(status, &["INTEL-SA-99009"]);
        let verified = judge(&machine, &machine.quote(DATA), AT).unwrap();
        assert_eq!(verified.status, status);
        assert_eq!(verified.advisory_ids, ["INTEL-SA-99009"]);
    }
    // One version lower in each place: the next level, of platform, module and quoting enclave.
    type Older = fn(&mut TdxMachine);
    let older: [(Older, &[&str]); 3] = [
        (
            |m| {
                m.platform.set_svn(0, m.platform.comp_svn[0] - 1);
                m.reissue();
            },
            &["INTEL-SA-99001", "INTEL-SA-99002"],
        ),
        (|m| m.report.report.tee_tcb_svn[0] -= 1, &["INTEL-SA-99001"]),
        (|m| m.report.qe_report.isv_svn -= 1, &["INTEL-SA-99004"]),
    ];
    for (change, advisories) in older {
        let mut machine = TdxMachine::new(4, TdReport::v1_0(), AT);
        change(&mut machine);
        let verified = judge(&machine, &machine.quote(DATA), AT).unwrap();
        assert_eq!(verified.status, "OutOfDate");
        assert_eq!(verified.advisory_ids, advisories);
    }
}

#[test]
fn collateral_is_signed_as_text() {
    let machine = TdxMachine::strict(AT);
    let quote = machine.quote(DATA);
    let verify = |change: fn(&TdxMachine, &mut dcap_qvl::QuoteCollateralV3)| {
        let mut collateral = theirs(&machine.collateral());
        change(&machine, &mut collateral);
        QuoteVerifier::new(machine.pki.root_der())
            .verify(&quote, &collateral, AT)
            .map_err(|e| format!("{e:#}"))
    };
    // White space that changes nothing but the text: refused until it is signed.
    let error = verify(|_, c| c.tcb_info.push(' ')).unwrap_err();
    assert!(error.contains("tcb_info"), "{error}");
    verify(|m, c| {
        c.tcb_info.push(' ');
        c.tcb_info_signature = m.pki.sign_json(&c.tcb_info);
    })
    .unwrap();
    let error = verify(|_, c| c.qe_identity.insert(1, ' ')).unwrap_err();
    assert!(error.contains("qe_identity"), "{error}");
    verify(|m, c| {
        c.qe_identity.insert(1, ' ');
        c.qe_identity_signature = m.pki.sign_json(&c.qe_identity);
    })
    .unwrap();
}

#[test]
fn declared_lengths_lie_when_they_are_told_to() {
    let machine = TdxMachine::strict(AT);
    let honest = machine.report(DATA);
    let lies: [fn(&mut Quote); 6] = [
        |q| q.lengths.signature_data = Some(3),
        |q| q.lengths.certification = Some(u32::MAX),
        |q| q.lengths.qe_auth_data = Some(33),
        |q| q.lengths.pck_chain = Some(1 << 20),
        |q| q.body_type = Some(9),
        |q| q.body_length = Some(584),
    ];
    assert!(TheirQuote::parse(&machine.sign(&honest)).is_ok());
    for lie in lies {
        let mut quote = honest.clone();
        lie(&mut quote);
        assert!(TheirQuote::parse(&machine.sign(&quote)).is_err());
    }
    let mut longer = honest;
    longer.trailing = vec![1, 2, 3];
    assert!(machine.sign(&longer).ends_with(&[0, 1, 2, 3]));
}
