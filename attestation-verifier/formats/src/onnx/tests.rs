use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::*;

fn tiny(case: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../enclave/tests/data/tiny")
        .join(case)
        .join("model.onnx");
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn weights() -> Vec<u8> {
    (0..64)
        .flat_map(|number| (number as f32).to_le_bytes())
        .collect()
}

const GOOD: [(&str, &str); 6] = [
    ("external", "w.bin"),
    ("external_shared", "data/w.bin"),
    ("external_subgraph", "w.bin"),
    ("external_attribute", "w.bin"),
    ("external_function", "w.bin"),
    ("external_sparse", "w.bin"),
];

#[test]
fn external_data_is_found_wherever_it_stands() {
    for (case, file) in GOOD {
        let found = external_files(&tiny(case)).expect(case);
        assert_eq!(found, BTreeSet::from([file.to_owned()]), "{case}");
    }
    for case in ["all_types", "log", "two"] {
        assert!(
            external_files(&tiny(case)).expect(case).is_empty(),
            "{case}"
        );
    }
}

#[test]
fn data_is_embedded_where_the_runtime_would_look_for_a_path() {
    let weights = weights();
    for (case, file) in GOOD {
        let model = tiny(case);
        let files =
            BTreeMap::from([(file.to_owned(), [weights.clone(), weights.clone()].concat())]);
        let embedded = embed(&model, &files).expect(case);
        if matches!(case, "external" | "external_shared") {
            assert_eq!(
                embedded, None,
                "{case}: the main graph's initializers stay as they are"
            );
            continue;
        }
        let embedded = embedded.expect(case);
        assert!(
            external_files(&embedded).expect(case).is_empty(),
            "{case}: nothing is left to resolve"
        );
        assert_eq!(embed(&embedded, &files).expect(case), None);
        // The sparse tensor's values are two elements at offset 4.
        let data = if case == "external_sparse" {
            &weights[4..12]
        } else {
            &weights[..]
        };
        assert!(
            embedded.windows(data.len()).any(|window| window == data),
            "{case}"
        );
        assert!(
            !embedded.windows(5).any(|window| window == b"w.bin"),
            "{case}"
        );
    }
}

#[test]
fn what_is_unclear_or_leads_elsewhere_is_refused() {
    for (case, says) in [
        ("refused_absolute", "location \"/w.bin\" is absolute"),
        ("refused_dotdot", "contains \"..\""),
        ("refused_dot", "has an empty or \".\" part"),
        (
            "refused_memory_address",
            "has a character that is not served",
        ),
        ("refused_itself", "is not a data file"),
        ("refused_offset_sign", "external_data \"offset\" is \"+0\""),
        ("refused_no_location", "external data has no location"),
        (
            "refused_unknown_key",
            "external_data \"basepath\" is \"elsewhere\"",
        ),
        (
            "refused_location_twice",
            "external_data has \"location\" twice",
        ),
        ("refused_both_data", "has external data and data of its own"),
        (
            "refused_quiet_location",
            "external_data without data_location EXTERNAL",
        ),
        ("refused_training_info", "\"../w.bin\" contains \"..\""),
        ("refused_two_graphs", "a single message given twice"),
        ("refused_group", "a group or an unknown wire type"),
        ("refused_cut_short", "cut short"),
        ("refused_ort_format", "an ORT-format model"),
    ] {
        let error = external_files(&tiny(case)).expect_err(case).to_string();
        assert!(error.contains(says), "{case}: {error}");
    }
}

#[test]
fn ranges_outside_their_file_are_refused() {
    let files = |length| BTreeMap::from([("w.bin".to_owned(), vec![0u8; length])]);
    assert_eq!(
        embed(&tiny("external"), &files(256)).expect("exactly long enough"),
        None
    );
    for (case, length, says) in [
        (
            "external",
            255,
            "at 0 of length 256 is outside \"w.bin\" of 255 bytes",
        ),
        ("external_subgraph", 255, "is outside"),
        ("refused_range", 256, "at 4 of length 256 is outside"),
        (
            "refused_offset_overflow",
            256,
            "at 18446744073709551612 of length 256 is outside",
        ),
    ] {
        let error = embed(&tiny(case), &files(length))
            .expect_err(case)
            .to_string();
        assert!(error.contains(says), "{case}: {error}");
    }
    let none: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let error = embed(&tiny("external"), &none)
        .expect_err("no file")
        .to_string();
    assert!(error.contains("\"w.bin\" is missing"), "{error}");
}

#[test]
fn nesting_is_bounded() {
    // Graphs inside graphs: ModelProto.graph { node { attribute { g { … } } } }.
    let nested = |levels: usize| {
        let mut graph = Vec::new();
        for _ in 0..levels {
            for field in [6, 5, 1] {
                let mut outer = Vec::new();
                write_bytes(&mut outer, field, &graph);
                graph = outer;
            }
        }
        let mut model = Vec::new();
        write_bytes(&mut model, 7, &graph);
        model
    };
    external_files(&nested(33)).expect("100 levels");
    let error = external_files(&nested(34)).expect_err("over 100 levels");
    assert_eq!(error, OnnxError::Malformed("messages nested too deeply"));
}

#[test]
fn varints_are_read_as_protobuf_reads_them() {
    // data_location = 1 in a padded varint is still EXTERNAL.
    let mut tensor = Vec::new();
    let mut entry = Vec::new();
    write_bytes(&mut entry, 1, b"location");
    write_bytes(&mut entry, 2, b"w.bin");
    write_bytes(&mut tensor, 13, &entry);
    tensor.extend_from_slice(&[14 << 3, 0x81, 0x80, 0x00]);
    let wrap = |tensor: &[u8]| {
        let (mut graph, mut model) = (Vec::new(), Vec::new());
        write_bytes(&mut graph, 5, tensor);
        write_bytes(&mut model, 7, &graph);
        model
    };
    assert_eq!(
        external_files(&wrap(&tensor)).expect("padded"),
        BTreeSet::from(["w.bin".to_owned()])
    );
    let over = [&tensor[..tensor.len() - 4], &[14 << 3], &[0xff; 9], &[0x02]].concat();
    assert_eq!(
        external_files(&wrap(&over)),
        Err(OnnxError::Malformed("a varint beyond 64 bits"))
    );
    // A tag padded to six bytes.
    let tag = [0xfa, 0x80, 0x80, 0x80, 0x80, 0x00, 0x00];
    assert_eq!(
        external_files(&tag),
        Err(OnnxError::Malformed("an impossible tag"))
    );
    assert_eq!(
        external_files(&[0x00, 0x00]),
        Err(OnnxError::Malformed("an impossible tag"))
    );
}

#[test]
fn no_mutant_of_a_model_makes_the_walk_panic() {
    for (case, file) in GOOD {
        let model = tiny(case);
        let files = BTreeMap::from([(file.to_owned(), weights())]);
        for at in 0..model.len() {
            let _ = external_files(&model[..at]);
            for bit in 0..8 {
                let mut mutant = model.clone();
                mutant[at] ^= 1 << bit;
                let _ = external_files(&mutant);
                // Whatever is embedded is sound protobuf with nothing external beside the main graph.
                if let Ok(Some(embedded)) = embed(&mutant, &files) {
                    assert_eq!(
                        embed(&embedded, &files),
                        Ok(None),
                        "{case} byte {at} bit {bit}"
                    );
                }
            }
        }
    }
}
