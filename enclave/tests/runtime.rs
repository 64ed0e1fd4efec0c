//! ONNX Runtime with real sessions: accuracy, equal bits, every datatype, failing runs, the pool.

mod runtime_common;

use std::{fs, sync::Arc, time::Duration};

use bytes::Bytes;
use enclave::{
    models::{Model, Repository, RepositoryConfig},
    protocol::{
        InferOutput, InferRequest, Limits, RequestedOutput, Tensor, encode_response, parse_request,
    },
    runtime::{InferError, Runtime, RuntimeError},
};
use runtime_common::*;
use serde_json::json;
use touchstone_formats::{
    commitment::{Datatype, tensors_digest},
    digest::Digest,
};

const MODELS: [&str; 5] = [
    "cancer_logreg",
    "diabetes_ridge",
    "digits_cnn",
    "digits_mlp_plain",
    "wine_rf",
];

#[test]
fn only_the_named_bytes_are_loaded() {
    let Some(runtime) = runtime("only_the_named_bytes_are_loaded") else {
        return;
    };
    assert_eq!(runtime.library_digest(), pinned());
    assert_eq!(runtime.version(), "1.31.1");
    assert!(
        runtime.build_info().contains("ORT Build Info"),
        "{}",
        runtime.build_info()
    );
    assert!(runtime.cpu_features().is_sorted());

    let library = library().expect("it was loaded");
    let again = Runtime::load(&library, pinned()).expect("a second time");
    assert!(Arc::ptr_eq(&runtime, &again));
    let other = Digest::of(b"another library");
    let error = Runtime::load(&library, other)
        .err()
        .expect("another digest");
    assert!(
        matches!(error, RuntimeError::Loaded { loaded, expected } if loaded == pinned() && expected == other)
    );
}

/// What one model answers for rows, asked in JSON and in binary: the two answers are the same bits.
fn ask(model: &Arc<Model>, rows: &Npy) -> InferOutput {
    assert_eq!(rows.descr, "<f4");
    let input = &model.inputs[0].name;
    let floats: Vec<f32> = rows
        .data
        .as_chunks()
        .0
        .iter()
        .copied()
        .map(f32::from_le_bytes)
        .collect();
    let in_json = json!({ "inputs": [{
        "name": input, "shape": rows.shape, "datatype": "FP32", "data": floats,
    }] });
    let in_json =
        parse_request(&in_json.to_string().into(), None, &Limits::default()).expect("JSON");
    let header = json!({ "parameters": { "binary_data_output": true }, "inputs": [{
        "name": input, "shape": rows.shape, "datatype": "FP32", "parameters": { "binary_data_size": rows.data.len() },
    }] })
    .to_string();
    let body = Bytes::from([header.as_bytes(), &rows.data].concat());
    let binary =
        parse_request(&body, Some(header.len() as u64), &Limits::default()).expect("binary");
    assert_eq!(in_json.inputs, binary.inputs);

    let output = run(model, &in_json).expect("an answer");
    assert_eq!(output, run(model, &binary).expect("an answer"));
    let digest = tensors_digest(&output.tensor_refs()).expect("a digest");
    for request in [&in_json, &binary] {
        let response = encode_response(model, request, &output, None).expect("finite");
        assert_eq!(response.header_length.is_some(), request.binary_data_output);
        let length = response
            .header_length
            .map_or(response.body.len(), |length| length as usize);
        let text = std::str::from_utf8(&response.body[..length]).expect("UTF-8");
        let (_, outputs) = text.split_once("\"outputs\":").expect("outputs");
        let mut back = format!("{{\"inputs\":{outputs}").into_bytes();
        let header = response.header_length.map(|_| back.len() as u64);
        back.extend_from_slice(&response.body[length..]);
        let back = parse_request(&back.into(), header, &Limits::default()).expect("reads back");
        assert_eq!(
            tensors_digest(&back.tensor_refs()).expect("a digest"),
            digest
        );
    }
    output
}

fn score(model: &Arc<Model>, x: &Npy, y: &Npy) -> f64 {
    let output = ask(model, x);
    let answers = output.outputs.last().expect("an output");
    let targets = y.targets();
    let numbers = numbers(answers);
    let width = answers.shape[1] as usize;
    assert_eq!(answers.shape[0] as usize, targets.len());
    if width == 1 {
        let mean = targets.iter().sum::<f64>() / targets.len() as f64;
        let residual: f64 = targets
            .iter()
            .zip(&numbers)
            .map(|(y, p)| (y - f64::from(*p)).powi(2))
            .sum();
        return 1.0 - residual / targets.iter().map(|y| (y - mean).powi(2)).sum::<f64>();
    }
    let best = |row: &[f32]| {
        (0..width)
            .max_by(|a, b| row[*a].total_cmp(&row[*b]))
            .expect("a class")
    };
    let right = numbers
        .chunks(width)
        .zip(&targets)
        .filter(|(row, label)| best(row) as f64 == **label);
    right.count() as f64 / targets.len() as f64
}

#[test]
fn held_out_rows_are_answered_as_well_as_in_training() {
    let Some(runtime) = runtime("held_out_rows_are_answered_as_well_as_in_training") else {
        return;
    };
    let models = load(&runtime, &data("models")).expect("the test models");
    for (name, least) in [
        ("digits_cnn", 0.97),
        ("digits_mlp_plain", 0.97),
        ("cancer_logreg", 0.97),
        ("wine_rf", 0.92),
        ("diabetes_ridge", 0.33),
    ] {
        let rows = |end| Npy::read(&data(&format!("held-out/{name}_{end}.npy")));
        let score = score(models.find(name, None).expect(name), &rows("x"), &rows("y"));
        assert!((least..=1.0).contains(&score), "{name}: {score}");
    }
}

#[test]
fn larger_models_reach_their_known_scores() {
    let test = "larger_models_reach_their_known_scores";
    let (Some(runtime), Some(shared)) = (runtime(test), shared_models(test)) else {
        return;
    };
    for (name, known) in [
        ("digits_cnn", 0.984),
        ("cancer_gbt", 0.965),
        ("cancer_logreg", 0.958),
        ("wine_rf", 0.978),
        ("diabetes_ridge", 0.36),
    ] {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join("m/1");
        fs::create_dir_all(&folder).expect("a folder");
        fs::copy(
            shared.join(format!("{name}.onnx")),
            folder.join("model.onnx"),
        )
        .expect("copied");
        let models = load(&runtime, root.path()).expect(name);
        let rows = |end| Npy::read(&shared.join(format!("{name}_{end}.npy")));
        let score = score(models.find("m", None).expect("it"), &rows("x"), &rows("y"));
        assert!(
            (score - known).abs() < 0.005,
            "{name}: {score}, known {known}"
        );
    }
}

#[test]
fn a_transformer_answers_the_same_bits_each_time() {
    let test = "a_transformer_answers_the_same_bits_each_time";
    let (Some(runtime), Some(shared)) = (runtime(test), shared_models(test)) else {
        return;
    };
    let root = tempfile::tempdir().expect("a temporary folder");
    let folder = root.path().join("minilm/1");
    fs::create_dir_all(&folder).expect("a folder");
    fs::copy(shared.join("minilm/model.onnx"), folder.join("model.onnx")).expect("copied");
    let models = load(&runtime, root.path()).expect("minilm");
    let model = models.find("minilm", None).expect("it");
    let inputs = ["input_ids", "attention_mask", "token_type_ids"].map(|name| {
        let rows = Npy::read(&shared.join(format!("minilm/minilm_{name}.npy")));
        assert_eq!(rows.descr, "<i8");
        tensor(name, Datatype::Int64, &rows.shape, rows.data)
    });
    let request = request(inputs);
    let (mut one, mut two) = block_on(async {
        (
            model.acquire().await.expect("the first"),
            model.acquire().await.expect("the second"),
        )
    });
    let first = one.run(&request).expect("an embedding");
    assert_eq!(first.outputs[0].shape[1], 384);
    for row in numbers(&first.outputs[0]).chunks(384) {
        let length: f32 = row.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-4, "normalised: {length}");
    }
    assert_eq!(first, one.run(&request).expect("again"));
    assert_eq!(first, two.run(&request).expect("in another session"));
}

#[test]
fn answers_are_bit_equal_over_repeats_sessions_threads_and_loads() {
    let Some(runtime) = runtime("answers_are_bit_equal_over_repeats_sessions_threads_and_loads")
    else {
        return;
    };
    let models = load(&runtime, &data("models")).expect("the test models");
    let anew = load(&runtime, &data("models")).expect("the test models");
    for name in MODELS {
        let model = models.find(name, None).expect(name);
        let rows = Npy::read(&data(&format!("held-out/{name}_x.npy")));
        let request = request([tensor(
            &model.inputs[0].name,
            Datatype::Fp32,
            &rows.shape,
            rows.data,
        )]);
        let first = run(model, &request).expect("an answer");
        assert_eq!(
            first,
            run(anew.find(name, None).expect(name), &request).expect("loaded anew"),
            "{name}"
        );
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        // Four threads share two sessions: some wait their turn.
                        let lease = loop {
                            match block_on(model.acquire()) {
                                Ok(lease) => break lease,
                                Err(_) => std::thread::yield_now(),
                            }
                        };
                        let mut lease = lease;
                        assert_eq!(first, lease.run(&request).expect("an answer"), "{name}");
                    }
                });
            }
        });
    }
}

/// Two rows of two elements for each datatype, with the extremes among them.
fn every_datatype() -> Vec<Tensor> {
    let quad = |name: &str, datatype, bytes: Vec<u8>| tensor(name, datatype, &[2, 2], bytes);
    macro_rules! numbers {
        ($name:literal, $datatype:ident, $values:expr) => {
            quad(
                $name,
                Datatype::$datatype,
                $values.into_iter().flat_map(|v| v.to_le_bytes()).collect(),
            )
        };
    }
    vec![
        quad("bool", Datatype::Bool, vec![0, 1, 1, 0]),
        numbers!("uint8", Uint8, [0, 1, u8::MAX, 7]),
        numbers!("uint16", Uint16, [0, 1, u16::MAX, 7]),
        numbers!("uint32", Uint32, [0, 1, u32::MAX, 7]),
        numbers!("uint64", Uint64, [0, 1, u64::MAX, 7]),
        numbers!("int8", Int8, [i8::MIN, -1, i8::MAX, 7]),
        numbers!("int16", Int16, [i16::MIN, -1, i16::MAX, 7]),
        numbers!("int32", Int32, [i32::MIN, -1, i32::MAX, 7]),
        numbers!("int64", Int64, [i64::MIN, -1, i64::MAX, 7]),
        numbers!("fp16", Fp16, [0x0001u16, 0x3c00, 0xfbff, 0x8000]),
        numbers!("bf16", Bf16, [0x0001u16, 0x3f80, 0xff7f, 0x8000]),
        numbers!("fp32", Fp32, [f32::MIN, -0.0, 0.1, f32::from_bits(1)]),
        numbers!("fp64", Fp64, [f64::MIN, -0.0, 0.1, f64::from_bits(1)]),
        quad(
            "bytes",
            Datatype::Bytes,
            [
                &b"\0\0\0\0\x03\0\0\0a\xc3\xa9\x01\0\0\0\n\x04\0\0\0"[..],
                "😀".as_bytes(),
            ]
            .concat(),
        ),
    ]
}

#[test]
fn every_datatype_goes_through_unchanged() {
    let Some(runtime) = runtime("every_datatype_goes_through_unchanged") else {
        return;
    };
    let model = tiny(&runtime, "all_types");
    let inputs = every_datatype();
    assert_eq!(inputs.len(), Datatype::ALL.len());
    let output = run(&model, &request(inputs.clone())).expect("an answer");
    for (sent, got) in inputs.iter().zip(&output.outputs) {
        assert_eq!(got.name, format!("{}_out", sent.name));
        assert_eq!(
            (got.datatype, &got.shape, &got.data),
            (sent.datatype, &sent.shape, &sent.data),
            "{}",
            sent.name
        );
    }

    // The same out of a body in which nothing is aligned.
    for shift in 1..4 {
        let mut body = b"x".repeat(shift);
        let mut at = body.len();
        inputs
            .iter()
            .for_each(|input| body.extend_from_slice(&input.data));
        let body = Bytes::from(body);
        let sliced: Vec<Tensor> = inputs
            .iter()
            .map(|input| {
                at += input.data.len();
                Tensor {
                    data: body.slice(at - input.data.len()..at),
                    ..input.clone()
                }
            })
            .collect();
        assert_eq!(run(&model, &request(sliced)).expect("an answer"), output);
    }

    // Without elements.
    let empty: Vec<Tensor> = inputs
        .iter()
        .map(|input| tensor(&input.name, input.datatype, &[2, 0], Vec::new()))
        .collect();
    let output = run(&model, &request(empty)).expect("an empty answer");
    assert!(
        output
            .outputs
            .iter()
            .all(|output| output.data.is_empty() && output.shape == [2, 0])
    );
}

#[test]
fn asked_outputs_come_in_the_order_asked() {
    let Some(runtime) = runtime("asked_outputs_come_in_the_order_asked") else {
        return;
    };
    let model = tiny(&runtime, "two");
    let inputs = [
        fp32("B", &[3, 2], [1., 2., 3., 4., 5., 6.]),
        fp32("A", &[2, 3], [1., 0., 0., 0., 1., 0.]),
    ];
    let ask = |outputs: Option<&[&str]>| {
        let outputs = outputs.map(|names| {
            names
                .iter()
                .map(|name| RequestedOutput {
                    name: (*name).into(),
                    binary_data: None,
                })
                .collect()
        });
        let output = run(
            &model,
            &InferRequest {
                outputs,
                ..request(inputs.clone())
            },
        )
        .expect("an answer");
        output.outputs
    };
    let product = fp32("product", &[2, 2], [1., 2., 3., 4.]);
    let sum = fp32("sum", &[], [10.]);
    assert_eq!(ask(None), [product.clone(), sum.clone()]);
    assert_eq!(ask(Some(&["sum", "product"])), [sum.clone(), product]);
    assert_eq!(ask(Some(&["sum"])), [sum]);
}

#[test]
fn a_request_must_fit_the_model() {
    let Some(runtime) = runtime("a_request_must_fit_the_model") else {
        return;
    };
    let model = tiny(&runtime, "two");
    let a = fp32("A", &[2, 3], [0.; 6]);
    let b = fp32("B", &[3, 2], [0.; 6]);
    model
        .check(&request([a.clone(), b.clone()]))
        .expect("the twin");
    let wrong = |inputs: &[Tensor], says: &str| {
        let error = model.check(&request(inputs)).expect_err(says);
        assert_eq!(error.status(), 400);
        assert_eq!(error.to_string(), says);
    };
    wrong(
        std::slice::from_ref(&a),
        "input \"B\": missing; expected FP32 [3, 2]",
    );
    wrong(
        &[a.clone(), b.clone(), fp32("C", &[], [0.])],
        "input \"C\": the model has no such input; it has \"A\", \"B\"",
    );
    wrong(
        &[a.clone(), fp32("B", &[2, 3], [0.; 6])],
        "input \"B\": shape is [2, 3], expected [3, 2] (-1: any)",
    );
    wrong(
        &[a.clone(), fp32("B", &[6], [0.; 6])],
        "input \"B\": shape is [6], expected [3, 2] (-1: any)",
    );
    let int = tensor("B", Datatype::Int32, &[3, 2], vec![0; 24]);
    wrong(
        &[a.clone(), int],
        "input \"B\": datatype is INT32, expected FP32",
    );

    wrong(
        &[a.clone(), b.clone(), b.clone()],
        "input \"B\": an input is given twice",
    );

    let named = |name: &str| InferRequest {
        outputs: Some(vec![RequestedOutput {
            name: name.into(),
            binary_data: None,
        }]),
        ..request([a.clone(), b.clone()])
    };
    model.check(&named("sum")).expect("the twin");
    let error = model.check(&named("total")).expect_err("no such output");
    assert_eq!(
        error.to_string(),
        "output \"total\": the model has no such output; it has \"product\", \"sum\""
    );

    // FP16 and BF16 answers only travel as binary; that is said before anything runs.
    let model = tiny(&runtime, "all_types");
    let json = InferRequest {
        binary_data_output: false,
        ..request(every_datatype())
    };
    let error = model.check(&json).expect_err("FP16 in JSON");
    assert_eq!(error.status(), 422);
    let fp32_only = vec![RequestedOutput {
        name: "fp32_out".into(),
        binary_data: None,
    }];
    model
        .check(&InferRequest {
            outputs: Some(fp32_only),
            ..json
        })
        .expect("FP16 was not asked for");

    // What does not fit is an error of the run too, never a crash.
    let model = tiny(&runtime, "two");
    let mut lease = block_on(model.acquire()).expect("a session");
    for inputs in [
        vec![],
        vec![a.clone()],
        vec![a.clone(), fp32("B", &[3, 3], [0.; 9])],
        vec![a.clone(), fp32("B", &[3, 2], [0.; 5])],
        vec![a.clone(), tensor("B", Datatype::Fp32, &[3, 2], vec![0; 23])],
        vec![
            a.clone(),
            tensor("B", Datatype::Bytes, &[1], vec![9, 0, 0, 0]),
        ],
        vec![a.clone(), tensor("B", Datatype::Bool, &[1], vec![2])],
        vec![a.clone(), fp32("", &[3, 2], [0.; 6])],
        vec![a.clone(), fp32("B\0", &[3, 2], [0.; 6])],
        vec![a.clone(), fp32("B", &[u64::MAX, 2], [0.; 6])],
        vec![a.clone(), fp32("B", &[1 << 62, 1 << 62], [])],
    ] {
        let described: Vec<_> = inputs
            .iter()
            .map(|input| (input.name.clone(), input.shape.clone()))
            .collect();
        lease
            .run(&request(inputs))
            .expect_err(&format!("{described:?}"));
    }
    lease
        .run(&request([a, b]))
        .expect("the session still works");
}

#[test]
fn a_failing_run_says_why_and_harms_nothing() {
    let Some(runtime) = runtime("a_failing_run_says_why_and_harms_nothing") else {
        return;
    };
    let gather = tiny(&runtime, "gather");
    let at = |index: i64| {
        request([
            fp32("X", &[2], [5., 6.]),
            tensor("I", Datatype::Int64, &[1], index.to_le_bytes().to_vec()),
        ])
    };
    assert_eq!(
        numbers(&run(&gather, &at(1)).expect("inside").outputs[0]),
        [6.]
    );
    let error = run(&gather, &at(2)).expect_err("outside");
    assert_eq!(error.status(), 400, "{error}");
    assert!(error.to_string().contains("out of data bounds"), "{error}");
    assert_eq!(
        numbers(&run(&gather, &at(-1)).expect("inside again").outputs[0]),
        [6.]
    );

    let add = tiny(&runtime, "add_any");
    let of = |a: u64, b: u64| {
        request([
            fp32("A", &[a], vec![1.; a as usize]),
            fp32("B", &[b], vec![2.; b as usize]),
        ])
    };
    assert_eq!(
        numbers(&run(&add, &of(3, 1)).expect("broadcast").outputs[0]),
        [3.; 3]
    );
    run(&add, &of(3, 2)).expect_err("3 and 2 do not broadcast");
    assert_eq!(
        numbers(&run(&add, &of(2, 2)).expect("again").outputs[0]),
        [3.; 2]
    );

    let types = tiny(&runtime, "all_types");
    for (bytes, says) in [
        (&b"\x01\0\0\0\xff"[..], "UTF-8 without NUL"),
        (b"\x01\0\0\0\0", "UTF-8 without NUL"),
    ] {
        let mut inputs = every_datatype();
        let data = [bytes, b"\0\0\0\0\0\0\0\0\0\0\0\0"].concat();
        *inputs.last_mut().expect("bytes") = tensor("bytes", Datatype::Bytes, &[2, 2], data);
        let error = run(&types, &request(inputs)).expect_err(says);
        assert!(
            matches!(&error, InferError::Inputs(text) if text.contains(says)),
            "{error}"
        );
    }

    let log = tiny(&runtime, "log");
    let request = |number, binary_data_output| InferRequest {
        binary_data_output,
        ..request([fp32("X", &[1], [number])])
    };
    for number in [-1., 0.] {
        let output = run(&log, &request(number, false)).expect("NaN or -inf is an answer");
        let error =
            encode_response(&log, &request(number, false), &output, None).expect_err("not in JSON");
        assert_eq!(error.status(), 422);
        encode_response(&log, &request(number, true), &output, None).expect("in binary");
    }
    let output = run(&log, &request(1., false)).expect("0");
    encode_response(&log, &request(1., false), &output, None).expect("the twin");
}

#[tokio::test]
async fn a_pool_lends_each_session_once() {
    let Some(runtime) = runtime("a_pool_lends_each_session_once") else {
        return;
    };
    // Long enough that a busy machine does not outlast it where nothing is to be waited for.
    let patience = Duration::from_secs(2);
    let root = repository(&[("m/1", "tiny/log")]);
    let config = RepositoryConfig {
        acquire_timeout: patience,
        ..config(root.path())
    };
    let models = Repository::new(runtime, config).load(None).expect("log");
    let model = models.find("m", None).expect("the model");
    let one = model.acquire().await.expect("two sessions");
    let two = model.acquire().await.expect("two sessions");
    let start = std::time::Instant::now();
    assert!(model.acquire().await.is_err(), "no third");
    assert!(start.elapsed() >= patience, "it waited as long as it may");

    // Four may wait; a fifth is turned away at once.
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let model = model.clone();
            tokio::spawn(async move { model.acquire().await.map(drop) })
        })
        .collect();
    tokio::task::yield_now().await;
    let start = std::time::Instant::now();
    assert!(model.acquire().await.is_err());
    assert!(start.elapsed() < patience / 2, "not even waited");
    drop(one);
    for waiter in waiting {
        waiter
            .await
            .expect("no panic")
            .expect("one session serves all four in turn");
    }
    drop(two);

    // A waiter that gives up takes nothing with it.
    let held = (
        model.acquire().await.expect("free"),
        model.acquire().await.expect("free"),
    );
    let waiter = tokio::time::timeout(Duration::from_millis(5), model.acquire()).await;
    assert!(waiter.is_err(), "it was still waiting");
    drop(held);
    let mut lease = model.acquire().await.expect("free");
    let _other = model.acquire().await.expect("free");
    assert!(!lease.usually_fast(), "it has not run yet");
    let request = request([fp32("X", &[1], [1.])]);
    for _ in 0..100 {
        lease.run(&request).expect("an answer");
    }
    assert!(
        lease.usually_fast() && lease.fast_for(&request),
        "one logarithm"
    );
    let many = runtime_common::request([fp32("X", &[1 << 20], vec![1.; 1 << 20])]);
    assert!(!lease.fast_for(&many), "a million of them");
    assert_eq!(lease.model().name, "m");
}
