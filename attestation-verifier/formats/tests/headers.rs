//! Header fields (§9).

use touchstone_formats::headers::{
    OpeningSalts, State, TouchstoneRequest, TouchstoneResponse, content_digest, parse_prefer_wait,
};
use touchstone_formats::text::base64_encode;
use touchstone_formats::{Digest, FormatError, Guarantee, GuaranteeSet};

#[test]
fn request() {
    let nonce = base64_encode(&[7; 32]);
    let good = format!("require=(logged signed), nonce=:{nonce}:");
    let parsed = TouchstoneRequest::parse(&good).unwrap();
    assert_eq!(parsed.require, Some(GuaranteeSet::default_set()));
    assert_eq!(parsed.nonce.as_deref(), Some([7; 32].as_slice()));
    assert_eq!(parsed.to_string(), good);

    let require = |field: &str| TouchstoneRequest::parse(field).unwrap().require.unwrap();
    // Sets on the wire are closed, sorted and without repetition, in requests too.
    let quoted = GuaranteeSet::close([Guarantee::Quoted]).unwrap();
    assert_eq!(require("require=(quoted signed)"), quoted);
    for empty in ["", "  "] {
        assert_eq!(
            TouchstoneRequest::parse(empty).unwrap(),
            TouchstoneRequest::default()
        );
    }
    let only = TouchstoneRequest::parse(&format!("nonce=:{nonce}:")).unwrap();
    assert_eq!(only.require, None);
    assert_eq!(only.to_string(), format!("nonce=:{nonce}:"));

    for bad in [
        "require=(logged signed), require=(signed)".to_owned(),
        "require=(signed), require=(signed)".into(),
        "require=(signed signed)".into(),
        "require=(signed quoted)".into(),
        "require=(quoted)".into(),
        "require=(logged)".into(),
        "require=()".into(),
        "require".into(),
        "require=signed".into(),
        "require=\"signed\"".into(),
        "require=(\"signed\")".into(),
        "require=(signed);q=1".into(),
        "require=(signed;q=1)".into(),
        "require=(signed), more=1".into(),
        "require=(signed),".into(),
        "require=(signed".into(),
        "Require=(signed)".into(),
        format!("nonce=:{nonce}:;a"),
        format!("nonce=:{nonce}:, nonce=:{nonce}:"),
        format!("nonce=:{}:", nonce.trim_end_matches('=')),
        "nonce=:AAAAAAAAAAB=:".into(), // pad bits
        "nonce=\"00\"".into(),
        "nonce=1".into(),
        "nonce=?1".into(),
        "nonce=:!!!!:".into(),
        "nonce=::".into(),
        format!("nonce=:{}:", base64_encode(&[0; 7])),
        format!("nonce=:{}:", base64_encode(&[0; 65])),
        format!("{:4097}", "require=(signed)"),
        "require=(signé)".into(),
    ] {
        let error = TouchstoneRequest::parse(&bad).unwrap_err();
        assert!(
            !matches!(error, FormatError::UnknownGuarantee { .. }),
            "{bad}: {error}"
        );
    }
    assert!(TouchstoneRequest::parse("nonce=:AAAAAAAAAAA=:").is_ok());
    assert!(TouchstoneRequest::parse(&format!("nonce=:{}:", base64_encode(&[0; 64]))).is_ok());
    assert!(TouchstoneRequest::parse(&format!("{:4096}", "require=(signed)")).is_ok());
    // Names that nobody can deliver are another kind of error.
    for unknown in ["require=(signed trusted)", "require=(Signed)"] {
        assert!(matches!(
            TouchstoneRequest::parse(unknown),
            Err(FormatError::UnknownGuarantee { .. })
        ));
    }
}

#[test]
fn response() {
    let response = TouchstoneResponse {
        id: [0xab; 16],
        keyset: Digest([1; 32]),
        require: GuaranteeSet::default_set(),
        state: State::Pending,
    };
    let field = response.to_string();
    assert_eq!(
        field,
        format!(
            "id=\"{}\", keyset=:{}:, require=(logged signed), state=pending",
            "ab".repeat(16),
            base64_encode(&[1; 32])
        )
    );
    assert_eq!(TouchstoneResponse::parse(&field).unwrap(), response);
    let sealed = field.replace("pending", "sealed");
    assert_eq!(
        TouchstoneResponse::parse(&sealed).unwrap().state,
        State::Sealed
    );
    for (from, to) in [
        ("abab", "ABAB"),
        ("abab", "ab"),
        ("state=pending", "state=done"),
        ("state=pending", "state=\"pending\""),
        (", state=pending", ""),
        ("id=\"", "id2=\""),
        ("(logged signed)", "(signed logged)"),
        ("(logged signed)", "(logged)"),
        ("(logged signed)", "(logged signed signed)"),
        ("AQE=:", "AQ==:"),
        ("require=", "state=sealed, require="),
    ] {
        assert!(field.contains(from), "{from}");
        let bad = field.replacen(from, to, 1);
        assert!(TouchstoneResponse::parse(&bad).is_err(), "{bad}");
    }
}

#[test]
fn openings() {
    let salts = OpeningSalts {
        request: Some([1; 16]),
        response: Some([2; 16]),
        inputs: Some([3; 16]),
        outputs: Some([4; 16]),
    };
    let field = salts.to_string();
    assert!(field.starts_with("inputs=:AwMD"), "{field}");
    assert_eq!(OpeningSalts::parse(&field).unwrap(), salts);
    let refusal = OpeningSalts {
        inputs: None,
        outputs: None,
        ..salts
    };
    assert_eq!(OpeningSalts::parse(&refusal.to_string()).unwrap(), refusal);
    assert!(OpeningSalts::parse(&field.replacen("inputs", "request", 1)).is_err());
    assert!(OpeningSalts::parse(&field.replacen("inputs", "input", 1)).is_err());
    assert!(OpeningSalts::parse("inputs=:AAAA:").is_err());
}

#[test]
fn prefer() {
    for (field, wait) in [
        ("wait=2", Some(2)),
        ("respond-async, wait=10", Some(10)),
        ("respond-async,Wait = 10 ", Some(10)),
        ("wait=\"7\"", Some(7)),
        ("wait=2;foo=1, respond-async", Some(2)),
        ("wait=3, wait=4", Some(3)),
        ("wait=99999999999999999999999", Some(u64::MAX)),
        ("respond-async", None),
        ("wait", None),
        ("wait=", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("waits=1", None),
        ("", None),
    ] {
        assert_eq!(parse_prefer_wait(field), wait, "{field}");
    }
}

#[test]
fn digest_of_content() {
    // RFC 9530 appendix: the body of its first example.
    assert_eq!(
        content_digest(b"{\"hello\": \"world\"}\n"),
        "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    );
}
