use bytes::Bytes;
use serde_json::{Value, json};
use touchstone_formats::commitment::Datatype;

use super::*;

mod answers;

fn parse(body: impl Into<Bytes>) -> Result<InferRequest, ProtocolError> {
    parse_request(&body.into(), None, &Limits::default())
}

fn parse_value(body: &Value) -> Result<InferRequest, ProtocolError> {
    parse(body.to_string())
}

fn parse_binary(header: &Value, data: &[u8]) -> Result<InferRequest, ProtocolError> {
    let mut body = header.to_string().into_bytes();
    let length = body.len() as u64;
    body.extend_from_slice(data);
    parse_request(&body.into(), Some(length), &Limits::default())
}

/// A request with one input, its data as JSON text.
fn one(datatype: &str, shape: &str, data: &str) -> String {
    format!(
        r#"{{"inputs":[{{"name":"X","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#
    )
}

#[track_caller]
fn read_one(datatype: &str, shape: &str, data: &str) -> Vec<u8> {
    let request = parse(one(datatype, shape, data)).expect(data);
    request.inputs[0].data.to_vec()
}

/// The error of a request, by what it says.
#[track_caller]
fn refused(result: Result<InferRequest, ProtocolError>, status: u16, says: &str) {
    match result {
        Ok(_) => panic!("accepted, expected: {says}"),
        Err(error) => {
            assert_eq!(error.status(), status, "{error}");
            assert!(
                error.to_string().contains(says),
                "{error}\nexpected: {says}"
            );
        }
    }
}

#[test]
fn a_request_is_read_whole() {
    let request = parse_value(&json!({
        "id": "r-1",
        "parameters": {
            "binary_data_output": true, "touchstone_require": "logged signed",
            "touchstone_nonce": "00ff", "content_type": "np", "unknown": { "deep": [1, null] }
        },
        "inputs": [
            { "name": "A", "shape": [2, 1], "datatype": "INT64", "data": [1, -2] },
            { "name": "B", "shape": [], "datatype": "BOOL", "data": [true] },
        ],
        "outputs": [
            { "name": "y", "parameters": { "binary_data": false } },
            { "name": "z", "parameters": { "classification": 0, "x": 1 } },
            { "name": "w", "parameters": null },
        ],
        "something_else": [{}]
    }))
    .expect("a good request");
    assert_eq!(request.id.as_deref(), Some("r-1"));
    assert_eq!(request.touchstone.require.as_deref(), Some("logged signed"));
    assert_eq!(request.touchstone.nonce.as_deref(), Some("00ff"));
    assert_eq!(request.inputs.len(), 2);
    assert_eq!(request.inputs[0].shape, [2, 1]);
    assert_eq!(
        request.inputs[0].data[..],
        [1i64.to_le_bytes(), (-2i64).to_le_bytes()].concat()
    );
    assert_eq!(request.inputs[1].data[..], [1]);
    assert!(!request.wants_binary("y") && request.wants_binary("z") && request.wants_binary("w"));
    assert!(
        request.wants_binary("never named"),
        "the request's own default"
    );
}

#[test]
fn absent_null_and_empty_mean_the_same() {
    let input = json!([{ "name": "X", "shape": [0], "datatype": "FP32", "data": [] }]);
    let plain = parse_value(&json!({ "inputs": input })).expect("nothing but inputs");
    assert_eq!(plain.id, None);
    assert_eq!(plain.outputs, None);
    for other in [
        json!({ "inputs": input, "id": null, "parameters": null, "outputs": null }),
        json!({ "inputs": input, "parameters": {}, "outputs": [] }),
        json!({ "inputs": input, "parameters": {
            "sequence_id": 0, "sequence_start": false, "priority": 0, "timeout": null } }),
        json!({ "inputs": input, "parameters": { "sequence_id": "" } }),
    ] {
        assert_eq!(
            parse_value(&other).expect("means the same"),
            plain,
            "{other}"
        );
    }
    assert_eq!(
        parse_value(&json!({ "inputs": [] }))
            .expect("no inputs")
            .inputs,
        []
    );
}

#[test]
fn decimals_are_rounded_once_into_their_type() {
    let fp32 = |text: &str| {
        let bytes = read_one("FP32", "[1]", &format!("[{text}]"));
        f32::from_le_bytes(bytes.try_into().expect("four bytes"))
    };
    // A hair above the middle of 1 and the next f32: the f64 nearest to it is the middle itself,
    // which would round to even, down to 1.
    let text = "1.00000005960464477540";
    assert_eq!(fp32(text), 1.000_000_1);
    assert_eq!(
        text.parse::<f64>().expect("a number") as f32,
        1.0,
        "why f64 must not stand between"
    );
    // Ties go to even, both ways.
    assert_eq!(fp32("1.000000059604644775390625"), 1.0);
    assert_eq!(fp32("1.000000178813934326171875"), 1.000_000_2);
    assert_eq!(fp32("16777217"), 16_777_216.0);
    assert_eq!(fp32("16777219"), 16_777_220.0);
    assert_eq!(fp32("-0").to_bits(), (-0.0f32).to_bits());
    assert_eq!(fp32("1e-46"), 0.0, "too small is zero");
    assert_eq!(fp32("1e-45").to_bits(), 1, "subnormal");
    assert_eq!(fp32("3.4028235e38"), f32::MAX);
    assert_eq!(fp32("3.40282356e38"), f32::MAX, "still rounds down");
    refused(
        parse(one("FP32", "[1]", "[3.4028236e38]")),
        400,
        "element 0 is 3.4028236e38",
    );
    refused(
        parse(one("FP64", "[1]", "[1e309]")),
        400,
        "element 0 is 1e309",
    );
    let fp64 = read_one("FP64", "[2]", "[0.1, 1E+2]");
    assert_eq!(fp64, [0.1f64.to_le_bytes(), 100f64.to_le_bytes()].concat());
    // Long decimals cost no more than their text.
    let long = format!("0.{}1", "0".repeat(100_000));
    assert_eq!(fp32(&long), 0.0);
}

#[test]
fn integers_are_exact_and_in_range() {
    for (datatype, least, most, below, above) in [
        ("UINT8", "0", "255", "-1", "256"),
        ("UINT16", "0", "65535", "-1", "65536"),
        ("UINT32", "0", "4294967295", "-1", "4294967296"),
        (
            "UINT64",
            "0",
            "18446744073709551615",
            "-1",
            "18446744073709551616",
        ),
        ("INT8", "-128", "127", "-129", "128"),
        ("INT16", "-32768", "32767", "-32769", "32768"),
        (
            "INT32",
            "-2147483648",
            "2147483647",
            "-2147483649",
            "2147483648",
        ),
        (
            "INT64",
            "-9223372036854775808",
            "9223372036854775807",
            "-9223372036854775809",
            "9223372036854775808",
        ),
    ] {
        let size = datatype
            .parse::<Datatype>()
            .expect("a datatype")
            .size()
            .expect("fixed size");
        let bytes = read_one(datatype, "[3]", &format!("[{least},{most},-0]"));
        assert_eq!(bytes.len(), 3 * size);
        let wide = |at: usize| {
            let mut wide = [0u8; 16];
            let negative = datatype.starts_with('I') && bytes[(at + 1) * size - 1] & 0x80 != 0;
            wide.fill(if negative { 0xff } else { 0 });
            wide[..size].copy_from_slice(&bytes[at * size..(at + 1) * size]);
            i128::from_le_bytes(wide).to_string()
        };
        assert_eq!(
            [wide(0), wide(1), wide(2)],
            [least, most, "0"],
            "{datatype}"
        );
        for bad in [
            below, above, "1.0", "1e2", "1E0", "true", "\"1\"", "null", "[1]",
        ] {
            refused(
                parse(one(datatype, "[2]", &format!("[0,{bad}]"))),
                400,
                "element 1",
            );
        }
    }
}

#[test]
fn every_other_datatype_takes_its_own_json() {
    assert_eq!(read_one("BOOL", "[3]", "[true,false,true]"), [1, 0, 1]);
    for bad in ["1", "0", "\"true\"", "null", "tru", "True"] {
        refused(
            parse(one("BOOL", "[1]", &format!("[{bad}]"))),
            400,
            "element 0",
        );
    }
    assert_eq!(
        read_one("BYTES", "[3]", r#"["","é\n\"","\ud83d\ude00"]"#),
        [
            &b"\0\0\0\0\x04\0\0\0\xc3\xa9\n\"\x04\0\0\0"[..],
            "😀".as_bytes()
        ]
        .concat()
    );
    for bad in [
        "1",
        "null",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\x\"",
        "\"\\u12g4\"",
    ] {
        refused(
            parse(one("BYTES", "[1]", &format!("[{bad}]"))),
            400,
            "element 0",
        );
    }
    refused(parse("\"\n\""), 400, "expected an object");
    refused(parse(one("BYTES", "[1]", "[\"\n\"]")), 400, "byte 0x0a");
    for datatype in ["FP16", "BF16"] {
        refused(
            parse(one(datatype, "[1]", "[1]")),
            400,
            "travels in the binary extension alone",
        );
    }
    refused(
        parse(one("fp32", "[1]", "[1]")),
        400,
        "datatype \"fp32\" is none of",
    );
}

#[test]
fn data_is_flat_or_nested_as_the_shape_is() {
    let flat = read_one("UINT8", "[2,3,1]", "[1,2,3,4,5,6]");
    assert_eq!(flat, [1, 2, 3, 4, 5, 6]);
    assert_eq!(
        read_one("UINT8", "[2,3,1]", " [ [[1],[2],[3]] , [[4],[5],[6]] ] "),
        flat
    );
    assert!(read_one("UINT8", "[2,0]", "[[],[]]").is_empty());
    assert!(read_one("UINT8", "[0,2]", "[]").is_empty());
    assert_eq!(read_one("UINT8", "[]", "[7]"), [7]);
    for (data, says) in [
        ("[1,2,3,4,5]", "has 6 elements, data holds 5"),
        ("[1,2,3,4,5,6,7]", "data holds more than that"),
        (
            "[[[1],[2],[3]],[[4],[5],[6],[7]]]",
            "data holds more than that",
        ),
        ("[[[1],[2],[3]]]", "1 values where it says 2"),
        ("[[[1],[2]],[[3],[4],[5],[6]]]", "2 values where it says 3"),
        ("[[1,2,3],[4,5,6]]", "expected an array, found '1'"),
        ("[[[1],[2],[3]],4,5,6]", "expected an array, found '4'"),
        ("[1,[2],3,4,5,6]", "element 1 cannot be read as UINT8"),
        ("7           ", "expected an array"),
        ("{}          ", "expected an array"),
    ] {
        refused(parse(one("UINT8", "[2,3,1]", data)), 400, says);
    }
    refused(parse(one("UINT8", "[1]", "[[1]]")), 400, "element 0");
    refused(
        parse(one("UINT8", "[]", "[]")),
        400,
        "has 1 elements, data holds 0",
    );
}

#[test]
fn members_may_come_in_any_order() {
    let usual = parse(one("FP32", "[2]", "[1.5,2]")).expect("the usual order");
    for body in [
        r#"{"inputs":[{"data":[1.5,2],"name":"X","shape":[2],"datatype":"FP32"}]}"#,
        r#"{"inputs":[{"name":"X","data":[1.5,2],"datatype":"FP32","shape":[2]}]}"#,
        r#" { "inputs" : [ { "shape" : [ 2 ] , "datatype" : "FP32" , "data" : [ 1.5 , 2 ] , "name" : "X" } ] } "#,
    ] {
        assert_eq!(parse(body).expect("the same request"), usual);
    }
    let late = r#"{"inputs":[{"data":[1.5,"2"],"name":"X","shape":[2],"datatype":"FP32"}]}"#;
    refused(parse(late), 400, "element 1 cannot be read as FP32");
}

#[test]
fn shapes_are_bounded_before_anything_is_allocated() {
    for (shape, says) in [
        (
            "[9223372036854775807]",
            "more elements than the request can hold",
        ),
        ("[4294967296,4294967296]", "is too large"),
        ("[0,4294967296,4294967296]", "is too large"),
        ("[18446744073709551615]", "is too large"),
        ("[18446744073709551616]", "expected a dimension"),
        ("[-1]", "expected a dimension"),
        ("[1.0]", "expected a dimension"),
        ("[\"1\"]", "expected a number"),
        ("[1000000]", "more elements than the request can hold"),
        ("3", "expected an array"),
    ] {
        refused(parse(one("INT64", shape, "[]")), 400, says);
    }
    let ranks = |rank| vec!["1"; rank].join(",");
    parse(one("INT8", &format!("[{}]", ranks(16)), "[1]")).expect("rank 16 is allowed");
    refused(
        parse(one("INT8", &format!("[{}]", ranks(17)), "[1]")),
        413,
        "at most 16 allowed, found 17",
    );

    let limits = Limits {
        tensor_bytes: 64,
        ..Limits::default()
    };
    let eight = |count: usize| {
        Bytes::from(one(
            "FP64",
            &format!("[{count}]"),
            &format!("[{}]", ranks(count)),
        ))
    };
    parse_request(&eight(8), None, &limits).expect("64 bytes");
    refused(
        parse_request(&eight(9), None, &limits),
        413,
        "bytes of tensor data: at most 64 allowed, found 72",
    );
    let text = |length| {
        Bytes::from(one(
            "BYTES",
            "[2]",
            &format!(r#"["{}","{0}"]"#, "x".repeat(length)),
        ))
    };
    parse_request(&text(28), None, &limits).expect("2 × (4 + 28) bytes");
    refused(
        parse_request(&text(29), None, &limits),
        413,
        "at most 64 allowed, found 66",
    );
}

#[test]
fn counts_and_names_are_bounded() {
    let limits = Limits {
        tensors: 2,
        text: 4,
        ..Limits::default()
    };
    let inputs = |names: &[&str]| -> Vec<Value> {
        names
            .iter()
            .map(|n| json!({ "name": n, "shape": [0], "datatype": "INT8", "data": [] }))
            .collect()
    };
    let read = |body: Value| parse_request(&body.to_string().into(), None, &limits);
    read(json!({ "inputs": inputs(&["aaaa", "b"]), "id": "1234", "outputs": [{"name": "x"}, {"name": "y"}] }))
        .expect("all within bounds");
    refused(
        read(json!({ "inputs": inputs(&["a", "b", "c"]) })),
        413,
        "input tensors: at most 2 allowed, found 3",
    );
    refused(
        read(json!({ "inputs": inputs(&["aaaaa"]) })),
        413,
        "bytes of a tensor's name",
    );
    refused(
        read(json!({ "inputs": [], "id": "12345" })),
        413,
        "bytes of the request's id",
    );
    let outputs = json!([{"name": "x"}, {"name": "y"}, {"name": "z"}]);
    refused(
        read(json!({ "inputs": [], "outputs": outputs })),
        413,
        "requested outputs",
    );
    let long = "x".repeat(257);
    refused(
        parse_value(&json!({ "inputs": [], "parameters": { "touchstone_nonce": long } })),
        413,
        "touchstone",
    );
}

#[test]
fn what_is_there_twice_is_refused() {
    let twin = r#"{"inputs":[{"name":"X","shape":[1],"datatype":"INT8","data":[1]}],"id":"a","p":{"a":1,"b":2}}"#;
    parse(twin).expect("nothing twice");
    for (from, to) in [
        (r#""id":"a""#, r#""id":"a","id":"a""#),
        (r#""id":"a""#, r#""id":"a","i\u0064":"b""#),
        (r#""name":"X""#, r#""name":"X","name":"X""#),
        (r#""data":[1]"#, r#""data":[1],"data":[2]"#),
        (r#""shape":[1]"#, r#""shape":[1],"shape":[1]"#),
        (r#""b":2"#, r#""a":2"#),
        (r#""p":{"#, r#""id":"b","p":{"#),
    ] {
        assert!(twin.contains(from));
        refused(parse(twin.replace(from, to)), 400, "is there twice");
    }
    let x = json!({ "name": "X", "shape": [0], "datatype": "INT8", "data": [] });
    refused(
        parse_value(&json!({ "inputs": [x, x] })),
        400,
        "input \"X\": given twice",
    );
    let y = json!({ "name": "Y" });
    refused(
        parse_value(&json!({ "inputs": [], "outputs": [y, y] })),
        400,
        "output \"Y\": asked for twice",
    );
}

#[test]
fn what_is_missing_is_named() {
    let full = json!({ "name": "X", "shape": [1], "datatype": "INT8", "data": [1] });
    parse_value(&json!({ "inputs": [full] })).expect("complete");
    for (member, says) in [
        ("name", "an input has no \"name\""),
        ("shape", "input \"X\": \"shape\" is missing"),
        ("datatype", "input \"X\": \"datatype\" is missing"),
        ("data", "input \"X\": \"data\" is missing"),
    ] {
        let mut input = full.clone();
        input.as_object_mut().expect("an object").remove(member);
        refused(parse_value(&json!({ "inputs": [input] })), 400, says);
    }
    refused(parse_value(&json!({})), 400, "\"inputs\" is missing");
    refused(
        parse_value(&json!({ "inputs": null })),
        400,
        "expected an array",
    );
    refused(
        parse_value(&json!({ "inputs": [], "outputs": [{}] })),
        400,
        "a requested output has no \"name\"",
    );
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        format!(
            r#"{{"inputs":[],"x":{}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    parse(nested(15)).expect("16 levels with the object around");
    refused(parse(nested(16)), 400, "nested deeper than 16 levels");
    refused(parse("[".repeat(1_000_000)), 400, "expected an object");
    refused(
        parse(format!(r#"{{"x":{}"#, "{\"a\":".repeat(1_000_000))),
        400,
        "nested deeper",
    );
    let members: Vec<String> = (0..65).map(|i| format!(r#""m{i}":0"#)).collect();
    refused(
        parse(format!("{{{}}}", members.join(","))),
        400,
        "no more members",
    );
    parse(format!(r#"{{{},"inputs":[]}}"#, members[..63].join(","))).expect("64 members");
}

#[test]
fn only_json_is_json() {
    let good = r#"{"inputs":[{"name":"X","shape":[1],"datatype":"FP64","data":[1]}]}"#;
    parse(good).expect("the twin");
    for number in [
        "01",
        "-",
        "+1",
        ".5",
        "1.",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "Infinity",
        "-Infinity",
        "1_0",
        "1 1",
    ] {
        refused(
            parse(good.replace("\"data\":[1]", &format!("\"data\":[{number}]"))),
            400,
            "JSON at byte",
        );
    }
    for (body, says) in [
        ("", "expected an object, found the end"),
        ("null", "expected an object, found 'n'"),
        ("{\"inputs\":[]}x", "expected the end, found 'x'"),
        ("{\"inputs\":[]}{}", "expected the end, found '{'"),
        ("{\"inputs\":[],}", "expected a string"),
        ("{\"inputs\":[]", "expected ',' or '}'"),
        ("{'inputs':[]}", "expected a string"),
        ("{\"inputs\" []}", "expected ':'"),
        ("{\"inputs\":[],\"a\":nul}", "expected null"),
        (
            "\u{feff}{\"inputs\":[]}",
            "expected an object, found byte 0xef",
        ),
        ("{\"inputs\":[],//\n\"a\":1}", "expected a string"),
    ] {
        refused(parse(body), 400, says);
    }
    refused(
        parse(&b"{\"inputs\":[],\"a\":\"\xff\"}"[..]),
        400,
        "not UTF-8 from byte 18",
    );
}

#[test]
fn binary_data_is_taken_in_order_and_to_the_last_byte() {
    let header = json!({ "inputs": [
        { "name": "A", "shape": [2], "datatype": "FP16", "parameters": { "binary_data_size": 4 } },
        { "name": "J", "shape": [1], "datatype": "INT8", "data": [-1] },
        { "name": "S", "shape": [2], "datatype": "BYTES", "parameters": { "binary_data_size": 11, "x": "y" } },
    ] });
    let data = b"\x00\x3c\x00\xc0\x03\0\0\0abc\0\0\0\0";
    let request = parse_binary(&header, data).expect("a mixed request");
    assert_eq!(request.inputs[0].data[..], data[..4]);
    assert_eq!(request.inputs[1].data[..], [0xff]);
    assert_eq!(request.inputs[2].data[..], data[4..]);

    refused(
        parse_binary(&header, &data[..14]),
        400,
        "input \"S\": binary_data_size is 11, 10 bytes are left",
    );
    refused(
        parse_binary(&header, &[&data[..], b"x"].concat()),
        400,
        "1 bytes after the JSON belong to no input",
    );
    refused(
        parse_value(&header),
        400,
        "binary_data_size without an Inference-Header-Content-Length",
    );
    let body = Bytes::from(header.to_string());
    let length = body.len() as u64;
    refused(
        parse_request(&body, Some(length + 1), &Limits::default()),
        400,
        "the body has",
    );
    refused(
        parse_request(&body, Some(u64::MAX), &Limits::default()),
        400,
        "the body has",
    );
    refused(
        parse_request(&body, Some(0), &Limits::default()),
        400,
        "expected an object, found the end",
    );
    parse_binary(&json!({ "inputs": [] }), b"").expect("nothing binary");

    let with = |datatype: &str, shape: Value, size: Value| {
        json!({ "inputs": [{ "name": "X", "shape": shape, "datatype": datatype,
                             "parameters": { "binary_data_size": size } }] })
    };
    parse_binary(&with("FP32", json!([2]), json!(8)), &[0xff; 8]).expect("NaN is a value");
    parse_binary(&with("BOOL", json!([2]), json!(2)), &[0, 1]).expect("0 and 1");
    for (header, data, says) in [
        (
            with("FP32", json!([2]), json!(4)),
            &[0; 4][..],
            "of FP32 takes 8 bytes, binary_data_size is 4",
        ),
        (
            with("FP32", json!([]), json!(8)),
            &[0; 8],
            "of FP32 takes 4 bytes, binary_data_size is 8",
        ),
        (
            with("FP32", json!([4611686018427387905u64]), json!(4)),
            &[0; 4],
            "takes 18446744073709551620 bytes",
        ),
        (
            with("BOOL", json!([2]), json!(2)),
            &[0, 2],
            "a BOOL is 0 or 1, found byte 2",
        ),
        (
            with("BYTES", json!([1]), json!(3)),
            &[0, 0, 0],
            "a BYTES element ends after the end",
        ),
        (
            with("BYTES", json!([1]), json!(5)),
            &[2, 0, 0, 0, 9],
            "a BYTES element ends after the end",
        ),
        (
            with("BYTES", json!([1]), json!(4)),
            &[0xff; 4],
            "a BYTES element ends after the end",
        ),
        (
            with("BYTES", json!([2]), json!(4)),
            &[0; 4],
            "has 2 elements, the binary data holds 1",
        ),
        (
            with("BYTES", json!([0]), json!(4)),
            &[0; 4],
            "has 0 elements, the binary data holds 1",
        ),
        (
            with("INT8", json!([1]), json!(-1)),
            &[0],
            "expected a size in bytes",
        ),
        (
            with("INT8", json!([1]), json!("1")),
            &[0],
            "expected a number",
        ),
        (
            with("INT8", json!([1]), json!(u64::MAX)),
            &[0],
            "1 bytes are left in the body",
        ),
    ] {
        refused(parse_binary(&header, data), 400, says);
    }
    let both = json!({ "inputs": [{ "name": "X", "shape": [1], "datatype": "INT8", "data": [1],
                                    "parameters": { "binary_data_size": 1 } }] });
    refused(
        parse_binary(&both, &[1]),
        400,
        "has both \"data\" and binary_data_size",
    );
    let limits = Limits {
        tensor_bytes: 7,
        ..Limits::default()
    };
    let mut body = with("INT64", json!([1]), json!(8)).to_string().into_bytes();
    let length = Some(body.len() as u64);
    body.extend_from_slice(&[0; 8]);
    refused(
        parse_request(&body.into(), length, &limits),
        413,
        "bytes of tensor data: at most 7 allowed, found 8",
    );
}

#[test]
fn parameters_that_change_the_meaning_are_refused() {
    for (name, value) in [
        ("sequence_id", json!(7)),
        ("sequence_id", json!("user-1")),
        ("sequence_start", json!(true)),
        ("sequence_end", json!(true)),
        ("priority", json!(1)),
        ("timeout", json!(1000)),
        ("touchstone_required", json!("signed")),
        ("touchstone_", json!("")),
    ] {
        let body = json!({ "inputs": [], "parameters": { name: value } });
        refused(
            parse_value(&body),
            400,
            &format!("parameter {name:?} is not supported"),
        );
    }
    let output = |parameters: Value| json!({ "inputs": [], "outputs": [{ "name": "y", "parameters": parameters }] });
    parse_value(&output(json!({ "binary_data": true }))).expect("the twin");
    refused(
        parse_value(&output(json!({ "classification": 3 }))),
        400,
        "parameter \"classification\" is not supported",
    );
    refused(
        parse_value(&output(json!({ "shared_memory_region": "r" }))),
        400,
        "shared_memory_region",
    );
    refused(
        parse_value(&output(json!({ "binary_data": 1 }))),
        400,
        "expected true or false",
    );
    let input = json!({ "inputs": [{ "name": "X", "shape": [1], "datatype": "INT8",
                                     "parameters": { "shared_memory_region": "r" } }] });
    refused(
        parse_value(&input),
        400,
        "parameter \"shared_memory_region\" is not supported",
    );
    for (name, value) in [
        ("touchstone_require", json!(["signed"])),
        ("binary_data_output", json!("yes")),
    ] {
        refused(
            parse_value(&json!({ "inputs": [], "parameters": { name: value } })),
            400,
            "expected",
        );
    }
}

#[test]
fn no_mutant_of_a_request_makes_the_reader_panic() {
    let header = json!({ "id": "r", "parameters": { "binary_data_output": true, "touchstone_nonce": "00" },
        "inputs": [
            { "name": "A", "shape": [2, 2], "datatype": "FP32", "data": [[1.5, -2e3], [0, 1]] },
            { "name": "S", "shape": [1], "datatype": "BYTES", "parameters": { "binary_data_size": 5 } },
            { "name": "T", "shape": [1], "datatype": "BYTES", "data": ["\u{e9}\n\u{1f600}"] },
        ], "outputs": [{ "name": "y", "parameters": { "binary_data": true } }] })
    .to_string();
    let header = header
        .replace('é', "\\u00e9")
        .replace("😀", "\\ud83d\\ude00");
    let body = [header.as_bytes(), b"\x01\0\0\0x"].concat();
    let read = |body: Vec<u8>, length: usize| {
        parse_request(&body.into(), Some(length as u64), &Limits::default())
    };
    read(body.clone(), header.len()).expect("the twin");
    let mut refusals = 0;
    for length in 0..=body.len() {
        refusals += usize::from(read(body[..length].to_vec(), header.len().min(length)).is_err());
        refusals += usize::from(read(body.clone(), length).is_err());
    }
    for at in 0..body.len() {
        for byte in 0..=255 {
            let mut mutant = body.clone();
            mutant[at] = byte;
            let _ = read(mutant, header.len());
        }
        let mut shorter = body.clone();
        shorter.remove(at);
        refusals += usize::from(
            read(
                shorter,
                header.len().saturating_sub(usize::from(at < header.len())),
            )
            .is_err(),
        );
    }
    assert!(refusals > 2 * body.len(), "{refusals}");
}
