//! The fields we read are the fields that another reader, the `sev` crate, reads: same bytes, independent code.
//! It is a reader to compare with and no judge: it re-encodes before it verifies, and takes unknown versions for 5.

use attestation_verifier::parse::snp::{Report, TcbBytes, platform_info, policy};
use attestation_verifier::product::Product;
use sev::firmware::guest::AttestationReport;
use sev::firmware::host::TcbVersion;
use sev::parser::ByteParser;

use crate::common::{file, testdata};
use crate::simulated::{Scene, genoa, genoa_v3, milan, pinned, turin, vlek};

fn same(bytes: &[u8], product: Product) {
    let ours = Report::parse(bytes).unwrap();
    let theirs = AttestationReport::from_bytes(bytes).unwrap();
    assert_eq!(ours.version(), theirs.version);
    assert_eq!(ours.guest_svn(), theirs.guest_svn);
    assert_eq!(ours.policy(), u64::from(theirs.policy));
    let (major, minor) = ours.policy_abi();
    assert_eq!(u64::from(major), theirs.policy.abi_major());
    assert_eq!(u64::from(minor), theirs.policy.abi_minor());
    for (bit, theirs) in [
        (policy::SMT, theirs.policy.smt_allowed()),
        (policy::MIGRATE_MA, theirs.policy.migrate_ma_allowed()),
        (policy::DEBUG, theirs.policy.debug_allowed()),
        (
            policy::SINGLE_SOCKET,
            theirs.policy.single_socket_required(),
        ),
        (policy::CXL, theirs.policy.cxl_allowed()),
        (policy::MEM_AES_256_XTS, theirs.policy.mem_aes_256_xts()),
        (policy::RAPL_DIS, theirs.policy.rapl_dis()),
        (policy::CIPHERTEXT_HIDING, theirs.policy.ciphertext_hiding()),
        (
            policy::PAGE_SWAP_DISABLE,
            theirs.policy.page_swap_disabled(),
        ),
    ] {
        assert_eq!(ours.policy_bit(bit), theirs, "POLICY bit {bit}");
    }
    let info = theirs.plat_info;
    for (bit, theirs) in [
        (platform_info::SMT, info.smt_enabled()),
        (platform_info::TSME, info.tsme_enabled()),
        (platform_info::ECC, info.ecc_enabled()),
        (platform_info::RAPL_DIS, info.rapl_disabled()),
        (
            platform_info::CIPHERTEXT_HIDING,
            info.ciphertext_hiding_enabled(),
        ),
        (platform_info::ALIAS_CHECK, info.alias_check_complete()),
        (platform_info::TIO, info.tio_enabled()),
    ] {
        assert_eq!(ours.platform_bit(bit), theirs, "PLATFORM_INFO bit {bit}");
    }
    assert_eq!(ours.family_id(), theirs.family_id);
    assert_eq!(ours.image_id(), theirs.image_id);
    assert_eq!(ours.vmpl(), theirs.vmpl);
    assert_eq!(ours.key_info(), u32::from(theirs.key_info));
    assert_eq!(ours.author_key_enabled(), theirs.key_info.author_key_en());
    assert_eq!(ours.chip_key_masked(), theirs.key_info.mask_chip_key());
    assert_eq!(ours.report_data(), theirs.report_data);
    assert_eq!(ours.measurement(), theirs.measurement);
    assert_eq!(ours.host_data(), theirs.host_data);
    assert_eq!(ours.id_key_digest(), theirs.id_key_digest);
    assert_eq!(ours.author_key_digest(), theirs.author_key_digest);
    assert_eq!(ours.report_id(), theirs.report_id);
    assert_eq!(ours.report_id_ma(), theirs.report_id_ma);
    assert_eq!(ours.chip_id(), theirs.chip_id);
    let cpuid = ours.cpuid().map(|c| (c.family, c.model, c.stepping));
    let fields = (theirs.cpuid_fam_id, theirs.cpuid_mod_id, theirs.cpuid_step);
    assert_eq!(cpuid.map(|c| c.0), fields.0);
    assert_eq!(cpuid.map(|c| c.1), fields.1);
    assert_eq!(cpuid.map(|c| c.2), fields.2);
    let tcb = |ours: TcbBytes, theirs: TcbVersion| {
        let ours = ours.read(product).unwrap();
        assert_eq!(ours.fmc, theirs.fmc);
        assert_eq!(ours.bootloader, theirs.bootloader);
        assert_eq!(ours.tee, theirs.tee);
        assert_eq!(ours.snp, theirs.snp);
        assert_eq!(ours.microcode, theirs.microcode);
    };
    tcb(ours.current_tcb(), theirs.current_tcb);
    tcb(ours.reported_tcb(), theirs.reported_tcb);
    tcb(ours.committed_tcb(), theirs.committed_tcb);
    tcb(ours.launch_tcb(), theirs.launch_tcb);
    assert_eq!(
        ours.current_firmware().to_string(),
        theirs.current.to_string()
    );
    assert_eq!(
        ours.committed_firmware().to_string(),
        theirs.committed.to_string()
    );
    assert_eq!(ours.launch_mitigations(), theirs.launch_mit_vector);
    assert_eq!(ours.current_mitigations(), theirs.current_mit_vector);
    let mut r = theirs.signature.r().to_vec();
    let mut s = theirs.signature.s().to_vec();
    r.truncate(48);
    s.truncate(48);
    let big_endian: Vec<u8> = r.into_iter().rev().chain(s.into_iter().rev()).collect();
    assert_eq!(ours.signature().as_slice(), big_endian);
}

#[test]
fn fields_agree() {
    let folder = testdata().join("sev-8.0.0");
    let report = hex::decode(file(folder.join("report_milan.hex"))).unwrap();
    same(&report, Product::Milan);
    let honest: [(fn() -> Scene, Product); 6] = [
        (genoa, Product::Genoa),
        (genoa_v3, Product::Genoa),
        (pinned, Product::Genoa),
        (vlek, Product::Genoa),
        (milan, Product::Milan),
        (turin, Product::Turin),
    ];
    for (scene, product) in honest {
        let mut machine = scene().machine;
        // Every byte of every field another one.
        let report = &mut machine.report;
        let mut next = 1_u8;
        let mut fill = |bytes: &mut [u8]| {
            for byte in bytes {
                *byte = next;
                next = next.wrapping_add(7);
            }
        };
        fill(&mut report.family_id);
        fill(&mut report.image_id);
        fill(&mut report.measurement);
        fill(&mut report.host_data);
        fill(&mut report.id_key_digest);
        fill(&mut report.author_key_digest);
        fill(&mut report.report_id);
        fill(&mut report.report_id_ma);
        fill(&mut report.current_version);
        fill(&mut report.committed_version);
        report.guest_svn = 0x0102_0304;
        report.policy |= 0x1234;
        report.launch_mit_vector = 0x0102_0304_0506_0708;
        report.current_mit_vector = 0x1112_1314_1516_1718;
        let at = if product == Product::Turin {
            [0, 1, 2, 3, 7]
        } else {
            [0, 1, 6, 7, 7]
        };
        for (tcb, start) in [
            (&mut report.current_tcb, 10),
            (&mut report.reported_tcb, 20),
            (&mut report.committed_tcb, 30),
            (&mut report.launch_tcb, 40),
        ] {
            for (value, place) in (start..).zip(at) {
                tcb[place] = value;
            }
        }
        same(&machine.quote([0x77; 64]), product);
    }
}
