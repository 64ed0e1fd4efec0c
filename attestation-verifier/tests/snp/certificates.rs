//! Certificates that are written wrong, signed by the simulated vendor all the same: exit 2.

use crate::simulated::{Lie, Scene, genoa, lie, refuse, turin, vlek};
use touchstone_testkit::amd::{Certificate, Extension, oid, pss};

/// A change of the endorsement key's certificate, which the intermediate signs all the same.
fn vek(
    name: &str,
    honest: fn() -> Scene,
    exit: u8,
    deciding: &'static str,
    change: impl Fn(&mut Certificate) + 'static,
) -> Lie {
    lie(
        name,
        honest,
        move |s| change(&mut s.machine.vek),
        exit,
        deciding,
    )
}

#[test]
fn forms_of_certificates() {
    let id = "snp.collateral";
    refuse(vec![
        vek("version 1", genoa, 2, "snp.collateral", |c| {
            c.version = None
        }),
        vek("version 2", genoa, 2, id, |c| c.version = Some(1)),
        vek("another algorithm outside", genoa, 2, id, |c| {
            c.outer_algorithm = Some(pss("2.16.840.1.101.3.4.2.2", 48, false));
        }),
        vek("spare bits in the signature", genoa, 2, id, |c| {
            c.signature_unused_bits = 1
        }),
        vek("bytes after the end", genoa, 2, id, |c| {
            c.trailing = vec![0]
        }),
        lie(
            "intermediate with bytes after the end",
            genoa,
            |s| {
                s.machine.pki.ask.trailing = vec![0];
            },
            2,
            id,
        ),
        lie(
            "a length that is not minimal",
            genoa,
            |s| {
                s.collateral(|_, files| {
                    // SEQUENCE, length in two bytes: now in three.
                    assert_eq!(files.vek[..2], [0x30, 0x82]);
                    files.vek[1] = 0x83;
                    files.vek.insert(2, 0);
                });
            },
            2,
            id,
        ),
        lie(
            "no certificate at all",
            genoa,
            |s| {
                s.collateral(|_, files| files.vek = b"not DER".to_vec());
            },
            2,
            id,
        ),
        lie(
            "a PEM file in place of DER",
            genoa,
            |s| {
                s.collateral(|m, files| files.chain = vec![m.root_pem().into_bytes()]);
            },
            2,
            id,
        ),
        vek("an unknown extension twice", genoa, 2, id, |c| {
            let unknown = Extension::new("1.3.6.1.4.1.99999.1", false, vec![5, 0]);
            c.extensions.extend([unknown.clone(), unknown]);
        }),
    ]);
}

/// A certificate is read up to 16 KiB, ten times what the vendors' have: what is read of it takes many times its own room.
#[test]
fn as_many_extensions_as_the_bounds_allow() {
    let many = |c: &mut Certificate, count: u32| {
        let number = |n: u32| format!("1.3.6.1.4.1.99999.{}", n + 1);
        let all = (0..count).map(|n| Extension::new(&number(n), false, vec![]));
        c.extensions.extend(all);
    };
    let mut honest = genoa();
    many(&mut honest.machine.vek, 800);
    let verdict = honest.judge();
    assert_eq!(verdict.exit(), 6, "{}", verdict.words());
    refuse(vec![
        vek(
            "and the last of them twice",
            genoa,
            2,
            "snp.collateral",
            move |c| {
                many(c, 800);
                c.duplicate("1.3.6.1.4.1.99999.800");
            },
        ),
        vek("over 16 KiB", genoa, 2, "snp.collateral", move |c| {
            many(c, 1000)
        }),
    ]);
}

#[test]
fn amd_extensions() {
    let id = "snp.vek.extensions";
    let mut lies = Vec::new();
    let levels = [oid::BL_SPL, oid::TEE_SPL, oid::SNP_SPL, oid::UCODE_SPL];
    for extension in levels.into_iter().chain([oid::PRODUCT_NAME, oid::HWID]) {
        lies.push(vek("missing", genoa, 2, id, move |c| c.remove(extension)));
    }
    for extension in levels
        .into_iter()
        .chain([oid::PRODUCT_NAME, oid::HWID, oid::SPL4])
    {
        // Twice is not DER's fault, but nobody could say which one counts.
        lies.push(vek("twice", genoa, 2, "snp.collateral", move |c| {
            c.duplicate(extension)
        }));
    }
    for extension in levels
        .into_iter()
        .chain([oid::SPL4, oid::SPL7, oid::STRUCT_VERSION])
    {
        for value in [
            vec![],
            vec![2, 1],
            vec![2, 0],
            vec![2, 1, 0x80],
            vec![2, 2, 1, 0],
            vec![2, 2, 0, 5],
            vec![2, 1, 5, 0],
            vec![4, 1, 5],
            vec![5],
        ] {
            let name = format!("{extension} is {value:x?}");
            lies.push(vek(&name, genoa, 2, id, move |c| {
                c.extension_mut(extension).value = value.clone();
            }));
        }
    }
    lies.push(vek(
        "a reserved level that is not zero",
        genoa,
        2,
        id,
        |c| c.set_number(oid::SPL5, 1),
    ));
    for name in [
        "",
        "Rome",
        "milan",
        "Genoa-",
        "Genoa-B",
        "Genoa-B00",
        "Genoa\n",
        "Genoa-1B",
    ] {
        lies.push(vek(&format!("product {name:?}"), genoa, 2, id, move |c| {
            let mut value = vec![0x16, name.len() as u8];
            value.extend(name.as_bytes());
            c.extension_mut(oid::PRODUCT_NAME).value = value;
        }));
    }
    lies.push(vek("product in UTF8String", genoa, 2, id, |c| {
        c.extension_mut(oid::PRODUCT_NAME).value[0] = 0x0c;
    }));
    lies.push(vek("no FMC on Turin", turin, 2, id, |c| {
        c.remove(oid::FMC_SPL)
    }));
    lies.push(vek("FMC on Genoa", genoa, 2, id, |c| {
        c.extensions
            .push(Extension::new(oid::FMC_SPL, false, vec![2, 1, 0]));
    }));
    // As AMD wrote it for a while: inside an OCTET STRING of its own.
    lies.push(vek("hwID wrapped", genoa, 2, id, |c| {
        let hwid = c.extension_mut(oid::HWID);
        hwid.value.splice(0..0, [4, 64]);
    }));
    lies.push(vek("hwID of 63 bytes", genoa, 2, id, |c| {
        c.extension_mut(oid::HWID).value.truncate(63)
    }));
    lies.push(vek("hwID of 8 bytes", genoa, 2, id, |c| {
        c.extension_mut(oid::HWID).value.truncate(8)
    }));
    lies.push(vek("hwID of 64 bytes on Turin", turin, 2, id, |c| {
        c.extension_mut(oid::HWID).value.resize(64, 0);
    }));
    lies.push(vek("hwID and cspID", genoa, 2, id, |c| {
        c.extensions
            .push(Extension::new(oid::CSP_ID, false, vec![0x16, 1, b'x']));
    }));
    lies.push(vek("neither hwID nor cspID", vlek, 2, id, |c| {
        c.remove(oid::CSP_ID)
    }));
    lies.push(vek("an empty cspID", vlek, 2, id, |c| {
        c.extension_mut(oid::CSP_ID).value = vec![0x16, 0]
    }));
    refuse(lies);
    // Reserved ones may be absent, and a stepping may stand behind the product.
    let mut scene = genoa();
    for extension in [
        oid::SPL4,
        oid::SPL5,
        oid::SPL6,
        oid::SPL7,
        oid::STRUCT_VERSION,
    ] {
        scene.machine.vek.remove(extension);
    }
    let name = b"\x16\x08Genoa-B1";
    scene.machine.vek.extension_mut(oid::PRODUCT_NAME).value = name.to_vec();
    let verdict = scene.judge();
    assert_eq!(verdict.exit(), 6, "{}", verdict.words());
}
