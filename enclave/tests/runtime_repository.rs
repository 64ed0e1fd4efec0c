//! The model repository: what is listed, what is refused, what a reload keeps.

mod runtime_common;

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc};

use enclave::models::{LoadedModels, Repository};
use runtime_common::*;
use serde_json::{Value, json};
use touchstone_formats::{commitment::Datatype, digest::Digest};

const MODELS: [&str; 5] = [
    "cancer_logreg",
    "diabetes_ridge",
    "digits_cnn",
    "digits_mlp_plain",
    "wine_rf",
];

#[test]
fn a_repository_becomes_a_catalog() {
    let Some(runtime) = runtime("a_repository_becomes_a_catalog") else {
        return;
    };
    let models = load(&runtime, &data("models")).expect("the test models");
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, MODELS);
    for (model, entry) in models.iter().zip(models.catalog_models()) {
        let file = fs::read(data("models").join(&model.name).join("1/model.onnx"))
            .expect("the model's file");
        // formats.md §5, written out.
        let manifest = format!(
            r#"{{"entry":"model.onnx","files":[{{"name":"model.onnx","sha256":"{}","size":{}}}],"scheme":"sha256-manifest/1"}}"#,
            Digest::of(&file),
            file.len()
        );
        assert_eq!(model.model_digest, Digest::of(manifest.as_bytes()));
        assert_eq!(model.config_digest, Digest::of(&model.config_object));
        assert_eq!(
            models.config_object(model.config_digest),
            Some(&model.config_object[..])
        );
        assert_eq!((&entry.name, &entry.version), (&model.name, &model.version));
        assert_eq!(
            (entry.model_digest, entry.config_digest),
            (model.model_digest, model.config_digest)
        );
        touchstone_formats::jcs::check(&model.config_object).expect("canonical");
    }
    let object: Value =
        serde_json::from_slice(&models.iter().next().expect("a model").config_object)
            .expect("JSON");
    assert_eq!(object["v"], "touchstone/config/1");
    assert_eq!(object["library_sha256"], pinned().to_string());
    assert_eq!(object["cpu_features"], json!(runtime.cpu_features()));
    assert_eq!(object["optimization"], "all");

    let cnn = models.find("digits_cnn", Some("1")).expect("digits_cnn");
    assert!(Arc::ptr_eq(
        cnn,
        models.find("digits_cnn", None).expect("its default")
    ));
    assert!(
        models.find("digits_cnn", Some("2")).is_none() && models.find("digits", None).is_none()
    );
    assert_eq!(cnn.inputs[0].shape, [-1, 1, 8, 8]);
    assert_eq!(
        (cnn.inputs[0].name.as_str(), cnn.inputs[0].datatype),
        ("image", Datatype::Fp32)
    );
    let outputs = &models.find("wine_rf", None).expect("wine_rf").outputs;
    let outputs: Vec<_> = outputs
        .iter()
        .map(|spec| (spec.name.as_str(), spec.datatype))
        .collect();
    assert_eq!(
        outputs,
        [
            ("label", Datatype::Int64),
            ("probabilities", Datatype::Fp32)
        ]
    );
}

#[test]
fn versions_stand_side_by_side_and_the_highest_is_the_default() {
    let Some(runtime) = runtime("versions_stand_side_by_side_and_the_highest_is_the_default")
    else {
        return;
    };
    let root = repository(&[
        ("m/9", "tiny/log"),
        ("m/10", "tiny/two"),
        ("m/next", "tiny/log"),
        ("n/v1.0-rc_1", "tiny/log"),
        ("l/1", "tiny/log"),
    ]);
    let models = load(&runtime, root.path()).expect("all of them");
    assert_eq!(models.versions("m"), ["next", "9", "10"]);
    assert_eq!(models.find("m", None).expect("default").version, "10");
    assert_eq!(models.versions("n"), ["v1.0-rc_1"]);
    assert!(models.versions("k").is_empty());
    assert_eq!((models.len(), models.is_empty()), (5, false));
}

#[test]
fn external_data_is_loaded_from_the_bytes_that_were_hashed() {
    let Some(runtime) = runtime("external_data_is_loaded_from_the_bytes_that_were_hashed") else {
        return;
    };
    let x = fp32("X", &[1, 64], (0..64).map(|i| i as f32));
    for (case, file, factor) in [
        ("external", "w.bin", 2.),
        ("external_shared", "data/w.bin", 12.),
        ("external_subgraph", "w.bin", 2.),
        ("external_attribute", "w.bin", 2.),
        ("external_function", "w.bin", 2.),
        ("external_sparse", "w.bin", 0.),
    ] {
        let root = repository(&[("m/1", &format!("tiny/{case}"))]);
        let models = load(&runtime, root.path()).unwrap_or_else(|e| panic!("{case}: {e}"));
        let model = models.find("m", None).expect("the model");
        // The folder may go: nothing is read again.
        let files: Vec<&str> = model
            .manifest
            .files()
            .iter()
            .map(|file| file.name.as_str())
            .collect();
        let mut expected = vec![file, "model.onnx"];
        expected.sort_unstable();
        assert_eq!(files, expected, "{case}");
        let weights = fs::read(root.path().join("m/1").join(file)).expect("weights");
        drop(root);
        let output = run(model, &request([x.clone()])).unwrap_or_else(|e| panic!("{case}: {e}"));
        let expected: Vec<f32> = match case {
            // Two values, for the first element and the last.
            "external_sparse" => [1.]
                .into_iter()
                .chain((1..63).map(|i| i as f32))
                .chain([65.])
                .collect(),
            _ => (0..64).map(|i| factor * i as f32).collect(),
        };
        assert_eq!(numbers(&output.outputs[0]), expected, "{case}");

        // One bit of the data is another model.
        let changed = repository(&[("m/1", &format!("tiny/{case}"))]);
        let mut bytes = weights.clone();
        *bytes.last_mut().expect("weights") ^= 1;
        fs::write(changed.path().join("m/1").join(file), &bytes).expect("written");
        let changed = load(&runtime, changed.path()).expect(case);
        assert_ne!(
            changed.find("m", None).expect("it").model_digest,
            model.model_digest,
            "{case}"
        );
    }
}

#[test]
fn a_bad_model_fails_the_load_and_is_named() {
    let Some(runtime) = runtime("a_bad_model_fails_the_load_and_is_named") else {
        return;
    };
    for (case, says) in [
        ("refused_absolute", "is absolute"),
        ("refused_dotdot", "contains \"..\""),
        (
            "refused_memory_address",
            "has a character that is not served",
        ),
        (
            "refused_missing",
            "w.bin: missing (model.onnx keeps tensor data there)",
        ),
        (
            "refused_unlisted",
            "notes.txt: does not belong in the repository",
        ),
        ("refused_range", "is outside \"w.bin\""),
        ("refused_two_graphs", "given twice"),
        ("refused_ort_format", "ORT-format"),
        ("refused_by_runtime", "ONNX Runtime refuses it: "),
        ("refused_sequence", "output \"S\" is Sequence<"),
        ("refused_map", "output \"M\" is Sequence<Map<"),
        ("refused_complex", "ONNX Runtime refuses it: "),
        ("refused_float8", "input \"X\" is Tensor<f8_e4m3fn>"),
    ] {
        let root = repository(&[
            ("good/1", "tiny/log"),
            (&format!("m-{case}/1"), &format!("tiny/{case}")),
        ]);
        let error = load(&runtime, root.path()).err().expect(case).to_string();
        assert!(error.contains(says), "{case}: {error}");
        assert!(error.contains(&format!("m-{case}/1/")), "{case}: {error}");
        fs::remove_dir_all(root.path().join(format!("m-{case}"))).expect("removed");
        assert_eq!(load(&runtime, root.path()).expect("the twin").len(), 1);
    }
}

#[test]
fn whatever_else_lies_in_a_repository_is_refused() {
    let Some(runtime) = runtime("whatever_else_lies_in_a_repository_is_refused") else {
        return;
    };
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 14] = [
        ("README: does not belong", |root| {
            fs::write(root.join("README"), "x").unwrap()
        }),
        ("m/notes: does not belong", |root| {
            fs::write(root.join("m/notes"), "x").unwrap()
        }),
        ("m/1/model.onnx~: does not belong", |root| {
            fs::write(root.join("m/1/model.onnx~"), "x").unwrap()
        }),
        ("m/1/data/x: does not belong", |root| {
            fs::create_dir(root.join("m/1/data")).unwrap();
            fs::write(root.join("m/1/data/x"), "x").unwrap();
        }),
        ("m/1/.hidden: does not belong", |root| {
            fs::write(root.join("m/1/.hidden"), "").unwrap()
        }),
        ("m b: a model's name and version", |root| {
            fs::create_dir(root.join("m b")).unwrap()
        }),
        ("m/1:2: a model's name and version", |root| {
            fs::create_dir(root.join("m/1:2")).unwrap()
        }),
        ("n: missing (a model has at least one version", |root| {
            fs::create_dir(root.join("n")).unwrap()
        }),
        ("m/2/model.onnx: missing", |root| {
            fs::create_dir(root.join("m/2")).unwrap()
        }),
        ("n: a symbolic link", |root| {
            symlink("m", root.join("n")).unwrap()
        }),
        ("m/latest: a symbolic link", |root| {
            symlink("1", root.join("m/latest")).unwrap()
        }),
        ("m/1/model.onnx: a symbolic link", |root| {
            fs::rename(root.join("m/1/model.onnx"), root.join("aside")).unwrap();
            fs::create_dir_all(root.join("other/1")).unwrap();
            fs::rename(root.join("aside"), root.join("other/1/model.onnx")).unwrap();
            symlink("../../other/1/model.onnx", root.join("m/1/model.onnx")).unwrap();
        }),
        ("m/1/w.bin: a symbolic link", |root| {
            symlink("model.onnx", root.join("m/1/w.bin")).unwrap()
        }),
        ("m/1/settings.toml: sess is", |root| {
            fs::write(root.join("m/1/settings.toml"), "sessions = 0").unwrap();
        }),
    ];
    for (says, spoil) in spoils {
        let root = repository(&[("m/1", "tiny/log")]);
        load(&runtime, root.path()).expect("the twin");
        spoil(root.path());
        let error = load(&runtime, root.path()).err().expect(says).to_string();
        let says = says.replace("sess is", "sessions is 0");
        assert!(
            error.starts_with(&format!("{}/{says}", root.path().display())),
            "{error}\nexpected: {says}"
        );
    }
    let error = load(&runtime, Path::new("/nowhere/models"))
        .err()
        .expect("no folder")
        .to_string();
    assert!(
        error.starts_with("/nowhere/models: No such file"),
        "{error}"
    );
    let empty = repository(&[]);
    assert!(
        load(&runtime, empty.path())
            .expect("an empty repository")
            .is_empty()
    );
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let Some(runtime) = runtime("a_pipe_is_refused_and_not_waited_for") else {
        return;
    };
    let root = repository(&[("m/1", "tiny/log")]);
    load(&runtime, root.path()).expect("the twin");
    let pipe = root.path().join("m/1/settings.toml");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .expect("mkfifo");
    assert!(made.success());
    let error = load(&runtime, root.path())
        .err()
        .expect("a pipe")
        .to_string();
    assert!(error.contains("neither a file nor a folder"), "{error}");
}

#[test]
fn settings_shape_the_configuration_and_not_the_model() {
    let Some(runtime) = runtime("settings_shape_the_configuration_and_not_the_model") else {
        return;
    };
    let with = |settings: &str| {
        let root = repository(&[("m/1", "models/digits_mlp_plain/1")]);
        if !settings.is_empty() {
            fs::write(root.path().join("m/1/settings.toml"), settings).expect("written");
        }
        load(&runtime, root.path())
            .expect(settings)
            .find("m", None)
            .expect("it")
            .clone()
    };
    let plain = with("");
    assert_eq!(
        plain.config_digest,
        with("sessions = 1").config_digest,
        "how many sessions shapes no answer"
    );
    let rows = Npy::read(&data("held-out/digits_mlp_plain_x.npy"));
    let request = request([tensor("X", Datatype::Fp32, &rows.shape, rows.data)]);
    let answer = numbers(&run(&plain, &request).expect("an answer").outputs[0]);
    for settings in [
        "optimization = \"none\"",
        "optimization = \"basic\"",
        "optimization = \"extended\"",
        "intra_threads = 2",
        "execution = \"parallel\"\ninter_threads = 2",
        "arena = false",
        "memory_pattern = true",
    ] {
        let other = with(settings);
        assert_ne!(other.config_digest, plain.config_digest, "{settings}");
        assert_eq!(other.model_digest, plain.model_digest, "{settings}");
        let got = numbers(&run(&other, &request).expect(settings).outputs[0]);
        assert!(
            answer.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-5),
            "{settings}"
        );
    }
}

#[test]
fn a_reload_keeps_what_did_not_change() {
    let Some(runtime) = runtime("a_reload_keeps_what_did_not_change") else {
        return;
    };
    let root = repository(&[
        ("a/1", "tiny/log"),
        ("b/1", "tiny/two"),
        ("c/1", "tiny/external"),
    ]);
    let repository = Repository::new(runtime.clone(), config(root.path()));
    let first = repository.load(None).expect("the first load");
    let same = |before: &LoadedModels, after: &LoadedModels, name: &str| {
        let model = |models: &LoadedModels| models.find(name, None).expect(name).clone();
        Arc::ptr_eq(&model(before), &model(after))
    };
    let second = repository.load(Some(&first)).expect("nothing changed");
    assert!(
        ["a", "b", "c"]
            .iter()
            .all(|name| same(&first, &second, name))
    );

    fs::write(root.path().join("a/1/settings.toml"), "sessions = 1").expect("written");
    let mut weights = fs::read(root.path().join("c/1/w.bin")).expect("weights");
    weights[0] ^= 1;
    fs::write(root.path().join("c/1/w.bin"), weights).expect("written");
    copy_folder(&data("tiny/gather"), &root.path().join("b/2"));
    let third = repository.load(Some(&second)).expect("changed");
    assert!(!same(&second, &third, "a"), "settings changed");
    assert!(!same(&second, &third, "c"), "data changed");
    assert_eq!(third.versions("b"), ["1", "2"]);
    let one = |models: &LoadedModels| models.find("b", Some("1")).expect("b/1").clone();
    assert!(Arc::ptr_eq(&one(&second), &one(&third)));

    // A broken one: the load fails, what was there goes on.
    fs::write(root.path().join("b/2/model.onnx"), "rubbish").expect("written");
    let error = repository
        .load(Some(&third))
        .err()
        .expect("rubbish")
        .to_string();
    assert!(error.contains("b/2/model.onnx"), "{error}");
    let a = third.find("a", None).expect("still here");
    assert_eq!(
        numbers(
            &run(a, &request([fp32("X", &[1], [1.])]))
                .expect("still answers")
                .outputs[0]
        ),
        [0.]
    );
}
