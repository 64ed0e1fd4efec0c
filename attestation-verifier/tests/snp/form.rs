//! Lies about form, each signed by the simulated vendor: exit 2, whatever the signature says.

use crate::simulated::{Lie, Scene, genoa, genoa_v2, genoa_v3, lie, milan, refuse, turin};
use attestation_verifier::parse::cert::Certificate;
use attestation_verifier::parse::crl::Crl;
use attestation_verifier::parse::snp::Report;
use attestation_verifier::parse::vek::VekExtensions;

use crate::common::{file, pem_file, testdata};

/// A lie that no well-formed report can tell.
fn form(
    name: impl Into<String>,
    honest: fn() -> Scene,
    change: impl Fn(&mut Scene) + 'static,
) -> Lie {
    lie(name, honest, change, 2, "snp.format")
}

/// One byte of the report is not zero.
fn reserved(honest: fn() -> Scene, offset: usize) -> Lie {
    form(format!("reserved byte 0x{offset:03x}"), honest, move |s| {
        s.machine.report.patches.push((offset, vec![1]));
    })
}

#[test]
fn versions_and_algorithms() {
    let mut lies = Vec::new();
    for version in [0, 1, 4, 6, 7, 0x100, u32::MAX] {
        lies.push(form(format!("version {version}"), genoa, move |s| {
            s.machine.report.version = version
        }));
    }
    for algorithm in [0, 2, 0x101] {
        lies.push(form(format!("algorithm {algorithm}"), genoa, move |s| {
            s.machine.report.signature_algo = algorithm;
        }));
    }
    lies.push(form("one byte short", genoa, |s| {
        s.after_signing = Some(|r| r.truncate(1183))
    }));
    lies.push(form("one byte more", genoa, |s| {
        s.after_signing = Some(|r| r.push(0))
    }));
    lies.push(form("nothing", genoa, |s| {
        s.after_signing = Some(Vec::clear)
    }));
    refuse(lies);
}

#[test]
fn reserved_bytes() {
    let mut lies: Vec<Lie> = (0x04c..0x050).map(|at| reserved(genoa, at)).collect();
    lies.extend(
        [0x18b, 0x18c, 0x19f, 0x1eb, 0x1ef, 0x208, 0x209, 0x29f].map(|at| reserved(genoa, at)),
    );
    // Not defined before version 5: the mitigation vectors. Not before version 3: CPUID.
    lies.extend([0x1f8, 0x1ff, 0x200, 0x207].map(|at| reserved(genoa_v3, at)));
    lies.extend([0x188, 0x189, 0x18a, 0x1f8, 0x207].map(|at| reserved(genoa_v2, at)));
    // Behind what is signed: the rest of r, of s, and of the field.
    lies.extend([0x2d0, 0x2e7, 0x318, 0x32f, 0x330, 0x400, 0x49f].map(|at| reserved(genoa, at)));
    refuse(lies);
}

/// Bytes that a widely used library drops when it encodes the report again to verify it.
#[test]
fn reserved_bytes_of_tcb_versions() {
    let mut lies = Vec::new();
    for start in [56, 384, 480, 496] {
        // Milan and Genoa: bytes 2 to 5. Turin: 4 to 6.
        for at in start + 2..start + 6 {
            lies.push(reserved(genoa, at));
            lies.push(reserved(milan, at));
            // Without CPUID fields only the certificate says which layout it is.
            let mut lie = reserved(genoa_v2, at);
            lie.deciding = "snp.vek.tcb";
            lies.push(lie);
        }
        for at in start + 4..start + 7 {
            lies.push(reserved(turin, at));
        }
    }
    refuse(lies);
}

#[test]
fn reserved_bits() {
    let mut lies = vec![form("POLICY bit 17 zero", genoa, |s| {
        s.machine.report.policy &= !(1 << 17)
    })];
    for bit in 26..64 {
        lies.push(form(format!("POLICY bit {bit}"), genoa, move |s| {
            s.machine.report.policy |= 1 << bit;
        }));
    }
    lies.push(form("POLICY bit 25 before version 5", genoa_v3, |s| {
        s.machine.report.policy |= 1 << 25;
    }));
    for bit in std::iter::once(6).chain(8..64) {
        lies.push(form(format!("PLATFORM_INFO bit {bit}"), genoa, move |s| {
            s.machine.report.platform_info |= 1 << bit;
        }));
    }
    lies.push(form(
        "PLATFORM_INFO bit 7 before version 5",
        genoa_v3,
        |s| {
            s.machine.report.platform_info |= 1 << 7;
        },
    ));
    lies.push(form(
        "PLATFORM_INFO bit 5 before version 3",
        genoa_v2,
        |s| {
            s.machine.report.platform_info |= 1 << 5;
        },
    ));
    for bit in 5..32 {
        lies.push(form(format!("KEY_INFO bit {bit}"), genoa, move |s| {
            s.machine.report.flags |= 1 << bit;
        }));
    }
    for key in 2..7 {
        lies.push(form(format!("SIGNING_KEY {key}"), genoa, move |s| {
            s.machine.report.flags |= key << 2;
        }));
    }
    refuse(lies);
}

#[test]
fn processors_that_nobody_knows() {
    let lies = [
        [0x17, 0x31, 0],
        [0x19, 0x20, 0],
        [0x19, 0xb0, 0],
        [0x1a, 0x20, 0],
        [0, 0, 0],
        [0xff; 3],
    ];
    refuse(
        lies.into_iter()
            .map(|cpuid| {
                form(format!("CPUID {cpuid:x?}"), genoa, move |s| {
                    s.machine.report.cpuid = cpuid
                })
            })
            .collect(),
    );
}

/// No byte string is anything but a report or an error, and what is a report keeps its bytes.
#[test]
fn parsing_keeps_the_bytes() {
    let scene = genoa();
    let bytes = scene.machine.quote([7; 64]);
    let report = Report::parse(&bytes).unwrap();
    assert_eq!(report.raw().as_slice(), bytes);
    assert_eq!(report.signed_part(), &bytes[..0x2a0]);
    for length in 0..bytes.len() {
        assert!(Report::parse(&bytes[..length]).is_err());
    }
}

proptest::proptest! {
    /// Certificates and lists that are nearly right: the readers get past the first bytes.
    #[test]
    fn mutated_certificates_do_not_panic(
        which in 0_usize..4,
        changes in proptest::collection::vec((0_usize..2000, 0_u8.., 0_usize..3), 1..6),
    ) {
        static REAL: std::sync::LazyLock<[Vec<u8>; 4]> = std::sync::LazyLock::new(|| {
            let folder = testdata().join("sev-8.0.0");
            let [vcek, turin] = ["vcek_milan.der", "vcek_turin.der"].map(|name| file(folder.join(name)));
            let ask = pem_file(&folder.join("cert_chain_milan")).swap_remove(0);
            let mut machine = genoa().machine;
            machine.crl.revoke(&[1, 2, 3]);
            [vcek, turin, ask, machine.collateral().crls.swap_remove(0)]
        });
        let mut der = REAL[which].clone();
        for (at, byte, kind) in changes {
            let at = at % der.len();
            match kind {
                0 => der[at] = byte,
                1 => der.insert(at, byte),
                _ => { der.remove(at); }
            }
        }
        if let Ok(certificate) = Certificate::parse(&der) {
            let _ = VekExtensions::read(&certificate);
            let _ = attestation_verifier::describe::certificate(&der);
        }
        let _ = Crl::parse(&der);
        let _ = attestation_verifier::describe::crl(&der);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(0_u8.., 0..1300)) {
        let _ = Report::parse(&bytes);
        let _ = Certificate::parse(&bytes);
        let _ = Crl::parse(&bytes);
        let _ = attestation_verifier::describe::snp_report(&bytes);
    }
}
