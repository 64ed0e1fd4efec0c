//! Lies about the form of quotes, each signed by the simulated vendor: exit 2, whatever the signatures say.

use attestation_verifier::parse::cert::Certificate;
use attestation_verifier::parse::crl::Crl;
use attestation_verifier::parse::tdx::{PckExtensions, QeIdentity, Quote, TcbInfo, TdVersion};
use touchstone_formats::evidence::{Evidence, Tee};
use touchstone_testkit::machine::TdxMachine;
use touchstone_testkit::x509::asn1;

use crate::simulated::{Lie, NOW, Scene, chain_pem, ders, lie, pck_chain, refuse, v4, v5, v5_td10};
use crate::support::{decided, seen};

/// A lie that no well-formed quote can tell.
fn form(
    name: impl Into<String>,
    honest: fn() -> Scene,
    change: impl Fn(&TdxMachine, &mut touchstone_testkit::tdx::Quote) + Clone + 'static,
) -> Lie {
    lie(name, honest, 2, "tdx.format", move |s| {
        s.quote(change.clone())
    })
}

#[test]
fn kinds_and_versions() {
    v5_td10().holds("a report of TD 1.0 in a quote of version 5");
    let mut lies = Vec::new();
    for version in [0, 1, 2, 3, 6, 0x400, u16::MAX] {
        lies.push(form(format!("version {version}"), v4, move |_, q| {
            q.header.version = version
        }));
    }
    for kind in [0, 1, 3, 0x200] {
        lies.push(form(format!("key type {kind}"), v5, move |_, q| {
            q.header.attestation_key_type = kind;
        }));
    }
    for kind in [0, 1, 0x80, 0x82, 0x8100, u32::MAX] {
        lies.push(form(format!("TEE type {kind}"), v5, move |_, q| {
            q.header.tee_type = kind
        }));
    }
    for at in 0..4 {
        lies.push(form(
            format!("reserved byte {at} of the header"),
            v5,
            move |_, q| {
                q.header.reserved[at] = 1;
            },
        ));
    }
    for at in [0, 15] {
        lies.push(form(
            format!("byte {at} of the QE vendor id"),
            v4,
            move |_, q| {
                q.header.qe_vendor_id[at] ^= 1;
            },
        ));
    }
    for kind in [0, 1, 2, 4, 0x300] {
        lies.push(form(format!("body type {kind}"), v5, move |_, q| {
            q.body_type = Some(kind)
        }));
    }
    lies.push(form("body type 3 over a shorter body", v5_td10, |_, q| {
        q.body_type = Some(3)
    }));
    for size in [0, 584, 647, 649, u32::MAX] {
        lies.push(form(format!("body size {size}"), v5, move |_, q| {
            q.body_length = Some(size)
        }));
    }
    lies.push(form("a longer body in version 4", v4, |_, q| {
        q.report = touchstone_testkit::tdx::TdReport::v1_5();
    }));
    for kind in [0, 1, 2, 3, 4, 5, 7] {
        lies.push(form(
            format!("certification data of type {kind}"),
            v5,
            move |_, q| {
                q.certification_type = kind;
            },
        ));
    }
    for kind in [0, 1, 2, 3, 4, 6, 7] {
        lies.push(form(
            format!("inner certification data of type {kind}"),
            v4,
            move |_, q| {
                q.pck_type = kind;
            },
        ));
    }
    for at in (21..32).chain(96..128).chain(160..192).chain(262..304) {
        lies.push(form(
            format!("reserved byte {at} of the QE report"),
            v5,
            move |_, q| {
                q.qe_report.patches.push((at, vec![1]));
            },
        ));
    }
    refuse(lies);
    let mut evidence = v5().evidence();
    evidence.tee = Tee::SevSnp;
    let (checks, _) = seen(&evidence, &v5().roots, NOW);
    assert_eq!(decided(&checks), (2, "tdx.format".to_owned()));
}

#[test]
fn sizes() {
    let mut lies = Vec::new();
    // Each declared length too small, too large and absurd.
    type Of = fn(u32) -> u32;
    type Told = fn(&mut touchstone_testkit::tdx::Quote, Of);
    fn inner(q: &touchstone_testkit::tdx::Quote) -> u32 {
        (384 + 64 + 2 + q.qe_auth_data.len() + 6 + q.pck_chain.len()) as u32
    }
    let told: [(&str, Told); 3] = [
        ("the signature data", |q, of| {
            q.lengths.signature_data = Some(of(128 + 6 + inner(q)));
        }),
        ("the certification data", |q, of| {
            q.lengths.certification = Some(of(inner(q)))
        }),
        ("the PCK chain", |q, of| {
            q.lengths.pck_chain = Some(of(q.pck_chain.len() as u32))
        }),
    ];
    let wrong: [(&str, Of); 5] = [
        ("one short", |n| n - 1),
        ("one over", |n| n + 1),
        ("nothing", |_| 0),
        ("2^31", |_| 1 << 31),
        ("2^32 - 1", |_| u32::MAX),
    ];
    for honest in [v4 as fn() -> Scene, v5] {
        for (name, tell) in told {
            for (how, of) in wrong {
                lies.push(form(
                    format!("size of {name}: {how}"),
                    honest,
                    move |_, q| tell(q, of),
                ));
            }
        }
        for size in [0, 31, 33, u16::MAX] {
            lies.push(form(
                format!("authentication data of {size} bytes"),
                honest,
                move |_, q| {
                    q.lengths.qe_auth_data = Some(size);
                },
            ));
        }
        for trailing in [&b"\0"[..], b"\0\0\0\0", b"text"] {
            lies.push(form(
                format!("{trailing:?} after the end"),
                honest,
                move |_, q| {
                    q.trailing = trailing.to_vec();
                },
            ));
        }
    }
    refuse(lies);
    // Any length of authentication data will do: it is bound.
    for length in [0, 1, 1000] {
        let mut scene = v5();
        scene.quote(move |_, q| q.qe_auth_data = vec![7; length]);
        let authentic = scene.holds("authentication data");
        assert_eq!(authentic.quote().qe_auth_data.len(), length);
    }
}

/// A PCK chain whose PEM is another.
fn armour(name: &str, change: impl Fn(String) -> String + Clone + 'static) -> Lie {
    form(name, v5, move |m, q| {
        q.pck_chain = change(chain_pem(&ders(m))).into_bytes()
    })
}

#[test]
fn pem_of_the_pck_chain() {
    refuse(vec![
        armour("two zeros at the end", |pem| pem + "\0\0"),
        armour("a zero between the certificates", |pem| {
            pem.replacen("E-----\n-", "E-----\n\0-", 1)
        }),
        armour("text before it", |pem| format!("PCK\n{pem}")),
        armour("an empty line before it", |pem| format!("\n{pem}")),
        armour("a space on an empty line after it", |pem| pem + " \n"),
        armour("text between the certificates", |pem| {
            pem.replacen("-----\n-----B", "-----\nx\n-----B", 1)
        }),
        armour("lines of 63 characters", |pem| {
            let lines = pem.lines().map(|line| {
                let (a, b) = line.split_at(line.len().min(63));
                if b.is_empty() {
                    format!("{a}\n")
                } else {
                    format!("{a}\n{b}\n")
                }
            });
            lines.collect()
        }),
        armour("a space at a line's end", |pem| {
            pem.replacen("\n", " \n", 2)
        }),
        armour("one line end of another kind", |pem| {
            pem.replacen('\n', "\r\n", 1)
        }),
        armour("another label", |pem| {
            pem.replace("CERTIFICATE", "X509 CERTIFICATE")
        }),
        armour("no PEM at all", |_| "PCK".to_owned()),
        armour("nothing", |_| String::new()),
        form("one certificate", v5, |m, q| {
            q.pck_chain = pck_chain(&ders(m)[..1])
        }),
        form("four certificates", v5, |m, q| {
            let [pck, ca, root] = ders(m);
            q.pck_chain = pck_chain(&[pck, ca, root.clone(), root]);
        }),
        form("a certificate with a byte behind it", v5, |m, q| {
            let mut pck = m.pck.clone();
            pck.trailing = vec![0];
            let [_, ca, root] = ders(m);
            q.pck_chain = pck_chain(&[pck.sign(m.pki.ca_key(m.ca)), ca, root]);
        }),
        form("a certificate that says two algorithms", v5, |m, q| {
            let mut pck = m.pck.clone();
            pck.outer_algorithm = Some(asn1::sequence(&[&asn1::oid("1.2.840.10045.4.3.3")]));
            let [_, ca, root] = ders(m);
            q.pck_chain = pck_chain(&[pck.sign(m.pki.ca_key(m.ca)), ca, root]);
        }),
    ]);
    for (name, change) in [
        ("no zero at the end", (|pem| pem) as fn(String) -> String),
        ("no line end at the end", |pem| pem.trim_end().to_owned()),
        ("CRLF", |pem| pem.replace('\n', "\r\n")),
        ("empty lines between and after them", |pem| {
            pem.replace("E-----\n-", "E-----\n\n-") + "\n"
        }),
    ] {
        let mut scene = v5();
        scene.quote(move |m, q| q.pck_chain = change(chain_pem(&ders(m))).into_bytes());
        scene.holds(name);
    }
}

#[test]
fn parsing_keeps_the_bytes() {
    for (scene, td, signed) in [
        (v4(), TdVersion::V1_0, 48 + 584),
        (v5_td10(), TdVersion::V1_0, 54 + 584),
        (v5(), TdVersion::V1_5, 54 + 648),
    ] {
        let bytes = scene.evidence().quote;
        let quote = Quote::parse(&bytes).unwrap();
        assert_eq!(quote.report.version, td);
        assert_eq!(quote.signed, bytes[..signed]);
        assert_eq!(quote.report.report_data, [0x77; 64]);
        for length in 0..bytes.len() {
            assert!(Quote::parse(&bytes[..length]).is_err());
        }
    }
}

proptest::proptest! {
    /// Quotes that are nearly right: the reader gets past the first bytes.
    #[test]
    fn mutated_quotes_do_not_panic(
        version in 0_usize..2,
        changes in proptest::collection::vec((0_usize..5000, 0_u8.., 0_usize..3), 1..6),
    ) {
        static REAL: std::sync::LazyLock<[Evidence; 2]> =
            std::sync::LazyLock::new(|| [crate::support::v4(), crate::support::v5()]);
        let mut evidence = REAL[version].clone();
        for (at, byte, kind) in changes {
            let quote = &mut evidence.quote;
            // Sizes and types stand in the first 850 bytes and around the PEM: half of the changes go there.
            let at = if at % 2 == 0 { at % 850 } else { at } % quote.len();
            match kind {
                0 => quote[at] = byte,
                1 => quote.insert(at, byte),
                _ => { quote.remove(at); }
            }
        }
        let roots = attestation_verifier::Roots::pinned();
        let (checks, authentic) = seen(&evidence, &roots, crate::support::V4_TIME);
        assert_eq!(authentic.is_some() && checks.hold(), checks.hold());
    }

    #[test]
    fn mutated_certificates_and_texts_do_not_panic(
        which in 0_usize..5,
        changes in proptest::collection::vec((0_usize..8000, 0_u8.., 0_usize..3), 1..6),
    ) {
        static REAL: std::sync::LazyLock<[Vec<u8>; 5]> = std::sync::LazyLock::new(|| {
            let evidence = crate::support::v4();
            let quote = Quote::parse(&evidence.quote).unwrap();
            let Some(touchstone_formats::evidence::Collateral::Tdx(c)) = evidence.collateral else {
                panic!("TDX collateral");
            };
            [
                quote.pck_chain[0].der().to_vec(),
                c.pck_crl.unwrap().0,
                c.tcb_info.unwrap().into_bytes(),
                c.qe_identity.unwrap().into_bytes(),
                c.tcb_info_issuer_chain.unwrap().into_bytes(),
            ]
        });
        let mut bytes = REAL[which].clone();
        for (at, byte, kind) in changes {
            let at = at % bytes.len();
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        if let Ok(certificate) = Certificate::parse(&bytes) {
            let _ = PckExtensions::read(&certificate);
        }
        let _ = Crl::parse(&bytes);
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = TcbInfo::parse(&text);
            let _ = QeIdentity::parse(&text);
            let mut evidence = crate::support::v4();
            if let Some(touchstone_formats::evidence::Collateral::Tdx(c)) = &mut evidence.collateral {
                c.tcb_info_issuer_chain = Some(text);
            }
            let roots = attestation_verifier::Roots::pinned();
            let _ = seen(&evidence, &roots, crate::support::V4_TIME);
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(0_u8.., 0..1300)) {
        let _ = Quote::parse(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = TcbInfo::parse(&text);
        let _ = QeIdentity::parse(&text);
    }
}
