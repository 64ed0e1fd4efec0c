//! Notes, checkpoints and proofs as C2SP writes them, and what we refuse of them.

mod common;

use common::{array, text, vectors};
use touchstone_formats::text::base64_encode;
use touchstone_formats::{
    Checkpoint, Digest, FormatError, LogKey, LogSigner, SignedNote, TlogProof,
};

fn signer() -> LogSigner {
    LogSigner::from_seed(&array(&vectors(), "/keys/log_seed"), "enclave.example/log").unwrap()
}

fn note() -> String {
    text(&vectors(), "/log/note")
}

fn holds(note: &str) -> bool {
    SignedNote::parse(note).is_ok_and(|note| note.verify(&signer().log_key()))
}

/// A signature line under this name and ID.
fn line(name: &str, id: [u8; 4], signature: &[u8]) -> String {
    let bytes = [id.as_slice(), signature].concat();
    format!("\u{2014} {name} {}\n", base64_encode(&bytes))
}

#[test]
fn the_example_of_the_specification() {
    // C2SP signed-note; its key is not published there, so the text is parsed and not verified.
    let example = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\n\
                   ed è subito sera.\n\n\u{2014} quasimodo.example/salvatore \
                   NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
    let note = SignedNote::parse(example).unwrap();
    assert!(
        note.text
            .ends_with("raggio di sole:\n\ned è subito sera.\n")
    );
    assert_eq!(note.signatures[0].name, "quasimodo.example/salvatore");
    assert_eq!(note.signatures[0].signature.len(), 64);
    assert_eq!(note.to_string(), example);
    assert!(note.checkpoint().is_err());
}

#[test]
fn malformed_notes() {
    assert!(holds(&note()));
    let good = note();
    for (from, to) in [
        ("\n\n\u{2014}", "\n\u{2014}"),              // no empty line
        ("\u{2014} ", "- "),                         // no em dash
        ("\u{2014} ", "\u{2014}"),                   // no space
        ("\u{2014} ", "\u{2014}  "),                 // two spaces: an empty name
        ("\u{2014} enclave", "\u{2014} e+n"),        // a plus in the name
        ("\u{2014} enclave", "\u{2014} e\u{2003}n"), // a Unicode space in the name
        ("bagU=\n", "bagU=\n\n"),
        ("bagU=\n", "bagU="),
        ("bagU=\n", "bagU=\r\n"),
        ("bagU=\n", "bagU\n"),
        ("bagU=\n", "bagV=\n"), // pad bits
        ("bagU=\n", "bagU= \n"),
        ("bagU=\n", "bagU=\nmore\n"),
        ("\n5\n", "\n5\t\n"),
        ("\n5\n", "\n5\0\n"),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replacen(from, to, 1);
        assert!(SignedNote::parse(&bad).is_err(), "{from:?} {to:?}");
    }
    for bad in [
        "",
        "\n",
        "\n\n",
        "a\n\n",
        "a\n\n\n",
        "a\n\n\u{2014} b\n",
        "a\n\n\u{2014} b AAAAAA==\n",
    ] {
        assert!(SignedNote::parse(bad).is_err(), "{bad:?}");
    }
    // Four bytes of ID and nothing signed; one byte of signature is a note, by someone.
    assert!(SignedNote::parse(&format!("a\n\n{}", line("b", [0; 4], &[1]))).is_ok());
    assert!(SignedNote::parse(&format!("a\n\n{}", line("b", [0; 4], &[]))).is_err());
    let long = |length: usize| format!("a\n\n{}", line(&"b".repeat(length), [0; 4], &[1]));
    assert!(SignedNote::parse(&long(256)).is_ok());
    assert!(SignedNote::parse(&long(257)).is_err());
}

#[test]
fn size() {
    let sized = |length: usize| {
        let end = format!("\n\n{}", line("b", [0; 4], &[1]));
        format!("{}{end}", "a".repeat(length - end.len()))
    };
    assert!(SignedNote::parse(&sized(128 << 10)).is_ok());
    assert!(matches!(
        SignedNote::parse(&sized((128 << 10) + 1)),
        Err(FormatError::TooLong {
            field: "note",
            found: 131073,
            ..
        })
    ));
}

#[test]
fn signatures_of_others() {
    let key = signer().log_key();
    let good = note();
    let own = good.split_once("\n\n").unwrap().1.to_owned();
    let other = line("witness.example/w", [1, 2, 3, 4], &[7; 72]);
    // Unknown keys are ignored, before and after ours, also under our name or our ID alone.
    for extra in [
        other.clone(),
        line(&key.name, [1, 2, 3, 4], &[7; 64]),
        line("witness.example/w", key.key_id(), &[7; 64]),
    ] {
        assert!(holds(&format!("{good}{extra}")));
        assert!(holds(&good.replacen(&own, &format!("{extra}{own}"), 1)));
    }
    assert!(!holds(&good.replacen(&own, &other, 1)));
    // A false signature by our key, alone or beside the true one; and the true one twice.
    let false_one = line(&key.name, key.key_id(), &[7; 64]);
    assert!(!holds(&good.replacen(&own, &false_one, 1)));
    assert!(!holds(&format!("{good}{false_one}")));
    assert!(!holds(&format!("{good}{own}")));
    let short = line(&key.name, key.key_id(), &[7; 63]);
    assert!(!holds(&good.replacen(&own, &short, 1)));
    // Sixteen others, and no more.
    assert!(holds(&format!("{good}{}", other.repeat(16))));
    match SignedNote::parse(&format!("{good}{}", other.repeat(17))) {
        Err(FormatError::TooLong {
            found: 18,
            limit: 17,
            ..
        }) => (),
        other => panic!("{other:?}"),
    }
    // Another text under the same signature.
    assert!(!holds(&good.replacen("\n5\n", "\n6\n", 1)));
}

#[test]
fn checkpoints() {
    let checkpoint = signer().checkpoint(5, Digest([7; 32]));
    assert_eq!(Checkpoint::parse(&checkpoint.text()).unwrap(), checkpoint);
    let root = base64_encode(&[7; 32]);
    let good = format!("origin\n5\n{root}\n");
    assert_eq!(Checkpoint::parse(&good).unwrap().size, 5);
    for size in ["0", "1", "18446744073709551615"] {
        assert!(
            Checkpoint::parse(&good.replacen('5', size, 1)).is_ok(),
            "{size}"
        );
    }
    for size in [
        "",
        "05",
        "00",
        "+5",
        "-5",
        " 5",
        "5 ",
        "5.0",
        "0x5",
        "18446744073709551616",
        "٥",
    ] {
        assert!(
            Checkpoint::parse(&good.replacen('5', size, 1)).is_err(),
            "{size:?}"
        );
    }
    for bad in [
        good.trim_end().to_owned(),
        format!("{good}extension\n"),
        format!("{good}\n"),
        format!("\n5\n{root}\n"),
        "origin\n5\n".into(),
        format!("origin\n5\n{}\n", &root[..43]),
        format!("origin\n5\n{}\n", base64_encode(&[7; 31])),
        format!("{}\n5\n{root}\n", "a".repeat(257)),
    ] {
        assert!(Checkpoint::parse(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn verifier_keys() {
    let good = text(&vectors(), "/log/vkey");
    let key: LogKey = good.parse().unwrap();
    assert_eq!(key, signer().log_key());
    let (name, rest) = good.split_once('+').unwrap();
    let (hash, base64) = rest.split_once('+').unwrap();
    for bad in [
        format!("+{hash}+{base64}"),
        format!("a b+{hash}+{base64}"),
        format!("{name}+{base64}"),
        format!("{name}x+{hash}+{base64}"),
        format!("{name}+{}+{base64}", hash.to_uppercase()),
        format!("{name}+{hash}0+{base64}"),
        format!("{name}+00000000+{base64}"),
        format!("{name}+{hash}+{base64} "),
        format!("{name}+{hash}+{}", base64_encode(&key.key)),
        format!(
            "{name}+{hash}+{}",
            base64_encode(&[[2].as_slice(), &key.key].concat())
        ),
    ] {
        assert!(bad.parse::<LogKey>().is_err(), "{bad}");
    }
    assert!(key.name_is_origin());
    let renamed = |name: &str| LogKey {
        name: name.into(),
        ..key.clone()
    };
    // Any name makes a key; whether it is bound to the key is asked apart.
    let other = renamed("enclave.example/log/0000000000000000");
    assert!(
        !other
            .to_string()
            .parse::<LogKey>()
            .unwrap()
            .name_is_origin()
    );
    let suffix = &name[name.len() - 16..];
    assert!(!renamed(suffix).name_is_origin());
    assert!(!renamed(&format!("/{suffix}")).name_is_origin());
    assert!(!renamed(&format!("a{suffix}")).name_is_origin());
    assert!(renamed(&format!("a/{suffix}")).name_is_origin());
    assert!(LogSigner::from_seed(&[1; 32], "with space").is_err());
    assert!(LogSigner::from_seed(&[1; 32], &"a".repeat(239)).is_ok());
    assert!(LogSigner::from_seed(&[1; 32], &"a".repeat(240)).is_err());
}

#[test]
fn proofs() {
    let good = text(&vectors(), "/log/proof_2");
    let proof = TlogProof::parse(&good).unwrap();
    assert_eq!(proof.to_string(), good);
    for (from, to) in [
        ("@v1", "@v2"),
        ("@v1\n", "@v1\r\n"),
        ("@v1\n", "@v1\nextra AAAA\n"),
        ("@v1\n", "@v1\n\n"),
        ("c2sp", " c2sp"),
        ("c2sp", "\u{feff}c2sp"),
        ("index 2", "index 02"),
        ("index 2", "index +2"),
        ("index 2", "index  2"),
        ("index 2", "Index 2"),
        ("index 2", "index 18446744073709551616"),
        ("index 2\n", ""),
        ("YU14", " YU14"),
        ("YU14", "Zm9v\nYU14"),
        ("QIdL4g=\n", "QIdL4h=\n"),
        ("\n\nenclave", "\nenclave"),
        ("\n5\n", "\n5\nextension\n"),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replacen(from, to, 1);
        assert!(TlogProof::parse(&bad).is_err(), "{from:?} {to:?}");
    }
    assert!(TlogProof::parse(&good[..good.len() - 1]).is_err());
    assert!(TlogProof::parse(&format!("{good}\n")).is_err());

    let with = |count: usize| {
        TlogProof {
            hashes: vec![Digest::ZERO; count],
            ..proof.clone()
        }
        .to_string()
    };
    assert_eq!(TlogProof::parse(&with(0)).unwrap().hashes.len(), 0);
    assert_eq!(TlogProof::parse(&with(64)).unwrap().hashes.len(), 64);
    assert!(matches!(
        TlogProof::parse(&with(65)),
        Err(FormatError::TooLong {
            found: 65,
            limit: 64,
            ..
        })
    ));
}
