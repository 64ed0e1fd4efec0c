//! What is genuine and refused: every check a policy decides, with a report that fails it and
//! carries a good signature. Exit 4 unless said otherwise.

use attestation_verifier::policy::check_ids;
use touchstone_formats::evidence::Tee;
use touchstone_testkit::amd::{Product, Tcb};
use touchstone_testkit::snp::Report;

use crate::simulated::{
    Lie, Scene, genoa, genoa_v2, genoa_v3, lie, milan, pinned, refuse, turin, vlek,
};

/// A report that says something a policy refuses.
fn says(id: &'static str, honest: fn() -> Scene, change: impl Fn(&mut Report) + 'static) -> Lie {
    lie(id, honest, move |s| s.report(&change), 4, id)
}

/// The report stays; the policy expects something else.
fn expects(id: &'static str, honest: fn() -> Scene, value: &'static str) -> Lie {
    lie(
        format!("{id} = {value}"),
        honest,
        move |s| s.set(id, value),
        4,
        id,
    )
}

#[test]
fn every_check_has_a_lie() {
    let lies = table();
    for spec in check_ids(Tee::SevSnp) {
        assert!(
            lies.iter().any(|lie| lie.deciding == spec.id),
            "no lie about {}",
            spec.id
        );
    }
    refuse(lies);
}

fn table() -> Vec<Lie> {
    let mut lies = vec![
        expects("snp.version", genoa, "{ expect = 3 }"),
        expects("snp.version", genoa_v2, "{ expect = [3, 5] }"),
        expects("snp.version", genoa, "{ expect = [] }"),
        expects("snp.product", genoa, "{ expect = \"Turin\" }"),
        expects("snp.product", milan, "{ expect = [\"Genoa\", \"Turin\"] }"),
        expects("snp.signing_key", vlek, "{ expect = [\"vcek\"] }"),
        expects("snp.signing_key", genoa, "{ expect = \"vlek\" }"),
        expects("snp.vlek.csp", vlek, "{ expect = [] }"),
        expects(
            "snp.vlek.csp",
            vlek,
            "{ expect = [\"CN=cc-nowhere-2.simulated.invalid\"] }",
        ),
        says("snp.chip_id.masked", vlek, |r| r.chip_id = [0; 64]),
        lie(
            "a VCEK's CHIP_ID masked",
            genoa,
            |s| s.machine.report.chip_id = [0; 64],
            4,
            "snp.chip_id.masked",
        ),
        lie(
            "a VCEK's CHIP_ID masked on Turin",
            turin,
            |s| s.machine.report.chip_id = [0; 64],
            4,
            "snp.chip_id.masked",
        ),
        lie(
            "another chip than the pinned one",
            pinned,
            |s| s.report(|r| r.chip_id[0] ^= 1),
            4,
            "snp.chip_id",
        ),
        lie(
            "nobody's revocation list",
            genoa,
            |s| s.collateral(|_, f| f.crls.clear()),
            5,
            "snp.chain.crl",
        ),
        says("snp.tcb.provisional", genoa, |r| r.current_tcb[7] += 1),
        says("snp.tcb.provisional", genoa, |r| r.current_version[0] += 1),
        says("snp.tcb.provisional", turin, |r| r.current_version[2] += 1),
        says("snp.policy.debug", genoa, |r| r.policy |= 1 << 19),
        says("snp.policy.debug", turin, |r| r.policy |= 1 << 19),
        says("snp.policy.migrate_ma", genoa, |r| r.policy |= 1 << 18),
        says("snp.policy.abi", genoa, |r| r.policy |= 2 << 8),
        says("snp.policy.abi", genoa, |r| r.policy |= 1 << 8 | 0x38),
        says("snp.policy.abi", genoa, |r| {
            r.policy |= 1 << 8 | 0x37;
            r.committed_version[1] -= 1;
            r.current_version[1] -= 1;
        }),
        says("snp.policy.smt", genoa, |r| r.policy &= !(1 << 16)),
        says("snp.policy.single_socket", genoa, |r| r.policy |= 1 << 20),
        says("snp.policy.cxl", genoa, |r| r.policy |= 1 << 21),
        says("snp.policy.mem_aes_256_xts", genoa, |r| r.policy |= 1 << 22),
        says("snp.policy.rapl_dis", genoa, |r| r.policy |= 1 << 23),
        says("snp.policy.ciphertext_hiding", genoa, |r| {
            r.policy |= 1 << 24
        }),
        says("snp.policy.page_swap_disable", genoa, |r| {
            r.policy |= 1 << 25
        }),
        expects(
            "snp.policy.page_swap_disable",
            genoa_v3,
            "{ expect = true }",
        ),
        says("snp.platform.smt", genoa, |r| r.platform_info &= !1),
        says("snp.platform.tsme", genoa, |r| r.platform_info |= 1 << 1),
        says("snp.platform.ecc", genoa, |r| r.platform_info &= !(1 << 2)),
        says("snp.platform.rapl_dis", genoa, |r| {
            r.platform_info |= 1 << 3
        }),
        says("snp.platform.ciphertext_hiding", genoa, |r| {
            r.platform_info |= 1 << 4
        }),
        says("snp.platform.alias_check", genoa, |r| {
            r.platform_info &= !(1 << 5)
        }),
        expects("snp.platform.alias_check", genoa_v2, "{ expect = true }"),
        says("snp.report_id_ma", genoa, |r| r.report_id_ma = [0; 32]),
        says("snp.report_id_ma", genoa, |r| r.report_id_ma[31] = 0xfe),
        says("snp.vmpl", genoa, |r| r.vmpl = 1),
        says("snp.vmpl", genoa, |r| r.vmpl = 3),
        says("snp.vmpl", genoa, |r| r.vmpl = u32::MAX),
        says("snp.measurement", genoa, |r| r.measurement[47] ^= 1),
        says("snp.measurement", genoa, |r| r.measurement = [0; 48]),
        expects("snp.measurement", genoa, "{ expect = [] }"),
        says("snp.host_data", genoa, |r| r.host_data[31] = 1),
        lie(
            "GUEST_SVN below the floor",
            pinned,
            |s| s.report(|r| r.guest_svn = 6),
            4,
            "snp.guest_svn",
        ),
        lie(
            "another FAMILY_ID",
            pinned,
            |s| s.report(|r| r.family_id[15] ^= 1),
            4,
            "snp.family_id",
        ),
        lie(
            "another IMAGE_ID",
            pinned,
            |s| s.report(|r| r.image_id[0] ^= 1),
            4,
            "snp.image_id",
        ),
        lie(
            "another ID key",
            pinned,
            |s| s.report(|r| r.id_key_digest[0] ^= 1),
            4,
            "snp.id_key_digest",
        ),
        lie(
            "no ID key",
            pinned,
            |s| s.report(|r| r.id_key_digest = [0; 48]),
            4,
            "snp.id_key_digest",
        ),
        lie(
            "another author key",
            pinned,
            |s| s.report(|r| r.author_key_digest[47] ^= 1),
            4,
            "snp.author_key_digest",
        ),
        lie(
            "a mitigation missing at launch",
            pinned,
            |s| s.report(|r| r.launch_mit_vector = 0b01),
            4,
            "snp.mitigation.launch",
        ),
        lie(
            "a mitigation missing now",
            pinned,
            |s| s.report(|r| r.current_mit_vector = 0b10),
            4,
            "snp.mitigation.current",
        ),
        expects("snp.mitigation.launch", genoa_v3, "{ expect = \"0x1\" }"),
        expects(
            "snp.mitigation.current",
            genoa_v3,
            "{ expect = \"0x8000000000000000\" }",
        ),
    ];
    lies.extend(floors());
    lies
}

/// Sets one of the three TCBs that have floors. What runs stays what is committed.
fn set_tcb(report: &mut Report, which: &str, tcb: [u8; 8]) {
    match which {
        "snp.tcb.reported" => report.reported_tcb = tcb,
        "snp.tcb.committed" => (report.committed_tcb, report.current_tcb) = (tcb, tcb),
        _ => report.launch_tcb = tcb,
    }
}

/// Each of the three TCBs, each component with a floor, each part with floors of its own.
fn floors() -> Vec<Lie> {
    type Part = (Product, [u8; 3], fn() -> Scene, u8, u8);
    let parts: [Part; 7] = [
        (Product::Milan, [0x19, 0x01, 1], milan, 24, 219),
        (Product::Milan, [0x19, 0x01, 2], milan, 24, 68),
        (Product::Genoa, [0x19, 0x11, 1], genoa, 23, 84),
        (Product::Genoa, [0x19, 0x11, 2], genoa, 23, 79),
        (Product::Genoa, [0x19, 0xa0, 2], genoa, 23, 25),
        (Product::Turin, [0x1a, 0x02, 1], turin, 4, 80),
        (Product::Turin, [0x1a, 0x11, 0], turin, 4, 71),
    ];
    let mut lies = Vec::new();
    for (product, cpuid, honest, snp, microcode) in parts {
        let least = Tcb {
            fmc: 0,
            bootloader: 0,
            tee: 0,
            snp,
            microcode,
        };
        // At the floor it holds: these are its numbers, not just some below.
        let mut scene = honest();
        scene.report(|r| {
            r.cpuid = cpuid;
            for which in ["snp.tcb.reported", "snp.tcb.committed", "snp.tcb.launch"] {
                set_tcb(r, which, least.to_bytes(product));
            }
        });
        let verdict = scene.judge();
        assert_eq!(
            verdict.exit(),
            6,
            "{product} {cpuid:x?}: {}",
            verdict.words()
        );

        for which in ["snp.tcb.reported", "snp.tcb.committed", "snp.tcb.launch"] {
            for below in [
                Tcb {
                    snp: snp - 1,
                    ..least
                },
                Tcb {
                    microcode: microcode - 1,
                    ..least
                },
            ] {
                lies.push(lie(
                    format!("{which} of {product} {cpuid:x?} at {below:?}"),
                    honest,
                    move |s| {
                        s.report(|r| {
                            r.cpuid = cpuid;
                            set_tcb(r, which, below.to_bytes(product));
                        });
                    },
                    4,
                    which,
                ));
            }
            lies.push(lie(
                format!("{which}: no floor for {product}"),
                honest,
                move |s| {
                    let other = "Milan = { bootloader = 0, tee = 0, snp = 0, microcode = 0 }";
                    let turin =
                        "Turin = { fmc = 0, bootloader = 0, tee = 0, snp = 0, microcode = 0 }";
                    let floor = if product == Product::Milan {
                        turin
                    } else {
                        other
                    };
                    s.set(which, &format!("{{ expect = {{ {floor} }} }}"));
                },
                4,
                which,
            ));
            lies.push(lie(
                format!("{which}: no floors at all"),
                honest,
                move |s| {
                    s.set(which, "{ expect = {} }");
                },
                4,
                which,
            ));
        }
    }
    for (name, floor) in [
        (
            "fmc",
            "fmc = 2, bootloader = 0, tee = 0, snp = 0, microcode = 0",
        ),
        (
            "bootloader",
            "fmc = 0, bootloader = 3, tee = 0, snp = 0, microcode = 0",
        ),
        (
            "tee",
            "fmc = 0, bootloader = 0, tee = 2, snp = 0, microcode = 0",
        ),
        (
            "snp",
            "fmc = 0, bootloader = 0, tee = 0, snp = 6, microcode = 0",
        ),
        (
            "microcode",
            "fmc = 0, bootloader = 0, tee = 0, snp = 0, microcode = 85",
        ),
    ] {
        lies.push(lie(
            format!("Turin's {name}"),
            turin,
            move |s| {
                s.set(
                    "snp.tcb.launch",
                    &format!("{{ expect = {{ Turin = {{ {floor} }} }} }}"),
                );
            },
            4,
            "snp.tcb.launch",
        ));
    }
    lies
}

/// A variant without floors of its own takes its product's.
#[test]
fn variants_fall_back_to_their_product() {
    let least = "Genoa = { bootloader = 0, tee = 0, snp = 23, microcode = 26 }";
    for (cpuid, microcode, exit) in [
        ([0x19, 0xa0, 2], 26, 6),
        ([0x19, 0xa0, 2], 25, 4),
        ([0x19, 0x11, 2], 26, 6),
        ([0x19, 0x11, 2], 25, 4),
    ] {
        let mut scene = genoa();
        scene.set("snp.tcb.reported", &format!("{{ expect = {{ {least} }} }}"));
        scene.report(|r| {
            r.cpuid = cpuid;
            r.reported_tcb = Tcb {
                snp: 23,
                microcode,
                ..Tcb::default()
            }
            .to_bytes(Product::Genoa);
        });
        // The other two are far above every floor.
        let verdict = scene.judge();
        assert_eq!(verdict.exit(), exit, "{}", verdict.words());
    }
}
