//! What has one reading, and what has two; however it is cut.

use super::*;

fn requests() -> Strict {
    Strict::requests(100)
}

const GOOD: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "P /x?{|}\"%C3 HTTP/1.1\r\nhOsT:\r\nContent-Length: \t 3 \r\n\r\nab\n",
    "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\n\r\n\0\r\n00A\r\n0123456789\r\n0\r\nX-Late: 1\r\nPreferred: x\r\nX_Y: 1\r\n\r\n",
    "POST /x HTTP/1.1\r\nContent-Length: 000\r\nHost: h\r\nX: \u{e9}\t\r\nEmpty:\r\n\r\n",
    "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n",
];

/// Each with the rule that it breaks, and the byte at which that shows.
fn bad() -> Vec<(Violation, String, usize)> {
    use Violation::*;
    let head = "POST / HTTP/1.1\r\nHost: h\r\n";
    let with = |rest: &str| format!("{head}{rest}");
    let chunked = |rest: &str| with(&format!("Transfer-Encoding: chunked\r\n\r\n{rest}"));
    let marked = [
        (RequestLine, "^\r\nGET / HTTP/1.1\r\n".to_owned()),
        (RequestLine, "^ GET / HTTP/1.1\r\n".into()),
        (RequestLine, "GET / HTTP/1.1^ \r\n".into()),
        (RequestLine, "GET ^ HTTP/1.1\r\n".into()),
        (RequestLine, "GET ^ / HTTP/1.1\r\n".into()),
        (Version, "GET / ^\r\n".into()),
        (Version, "GET / XHTTP/1.1^\r\n".into()),
        (Version, "GET / HTTP/1.1HTTP/1.1^\r\n".into()),
        (RequestLine, "GET /^\tHTTP/1.1\r\n".into()),
        (RequestLine, "GET /^\0 HTTP/1.1\r\n".into()),
        (RequestLine, "GET /^\r\n".into()),
        (RequestLine, "G^\u{e9}T / HTTP/1.1\r\n".into()),
        (Target, "GET /x^#y HTTP/1.1\r\n".into()),
        (Target, "GET /x?y^#z HTTP/1.1\r\n".into()),
        (Target, "GET /x^\\y HTTP/1.1\r\n".into()),
        (Target, "GET /^\u{e9} HTTP/1.1\r\n".into()),
        (LineEnd, "GET / HTTP/1.1^\nHost: h\r\n".into()),
        (LineEnd, "GET / HTTP/1.1\r^Host: h\r\n".into()),
        (Version, "GET / HTTP/1.2^\r\n".into()),
        (Version, "GET / HTTP/2.0^\r\n".into()),
        (Version, "GET / http/1.1^\r\n".into()),
        (Version, "GET / xHTTP/1.1^\r\n".into()),
        (Version, "GET / HTTP/1.0HTTP/1.0^\r\n".into()),
        (Version, "PRI * HTTP/2.0^\r\n\r\nSM\r\n\r\n".into()),
        (LineEnd, with("X: 1^\nY: 2\r\n\r\n")),
        (LineEnd, with("X: 1\r^Y: 2\r\n\r\n")),
        (LineEnd, with("X: 1\r\n^\n")),
        (LineEnd, with("X: 1\r\n\r^\r\n")),
        (ObsoleteFold, with("X: 1\r\n^ 2\r\n\r\n")),
        (ObsoleteFold, with("X: 1\r\n^\t2\r\n\r\n")),
        (FieldName, with("X^ : 1\r\n\r\n")),
        (FieldName, with("^: 1\r\n\r\n")),
        (FieldName, with("X^\r\n\r\n")),
        (FieldName, with("X^\u{e9}: 1\r\n\r\n")),
        (FieldName, with("Content-Length^ : 1\r\n\r\n")),
        (FieldName, with("Content_Length^: 1\r\n\r\n")),
        (
            FieldName,
            with("tRANSFER-eNCODING: chunked\r\nTransfer_Encoding^: x\r\n\r\n"),
        ),
        (FieldValue, with("X: ^\0\r\n\r\n")),
        (FieldValue, with("X: a^\u{b}\r\n\r\n")),
        (
            ContentLength,
            with("Content-Length: 1\r\ncontent-length^: 1\r\n\r\n"),
        ),
        (ContentLength, with("Content-Length: 1^, 1\r\n\r\n")),
        (ContentLength, with("Content-Length: ^+1\r\n\r\n")),
        (ContentLength, with("Content-Length: ^-1\r\n\r\n")),
        (ContentLength, with("Content-Length: 0^x1\r\n\r\n")),
        (ContentLength, with("Content-Length: 1 ^1\r\n\r\n")),
        (ContentLength, with("Content-Length:^\r\n\r\n")),
        (
            ContentLength,
            with("Content-Length: 100000000000000000^0\r\n\r\n"),
        ),
        (TransferEncoding, with("Transfer-Encoding: ^gzip\r\n\r\n")),
        (
            TransferEncoding,
            with("Transfer-Encoding: chunked^, gzip\r\n\r\n"),
        ),
        (
            TransferEncoding,
            with("Transfer-Encoding: ^gzip, chunked\r\n\r\n"),
        ),
        (TransferEncoding, with("Transfer-Encoding: chunke^\r\n\r\n")),
        (
            TransferEncoding,
            with("Transfer-Encoding: chunked^d\r\n\r\n"),
        ),
        (
            TransferEncoding,
            with("Transfer-Encoding: ^\"chunked\"\r\n\r\n"),
        ),
        (TransferEncoding, with("Transfer-Encoding:^\r\n\r\n")),
        (
            TransferEncoding,
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding^: chunked\r\n\r\n"),
        ),
        (
            TransferEncoding,
            "POST / HTTP/1.0\r\nTransfer-Encoding^: chunked\r\n\r\n".into(),
        ),
        (
            LengthAndEncoding,
            with("Content-Length: 1\r\nTransfer-Encoding^: chunked\r\n\r\n"),
        ),
        (
            LengthAndEncoding,
            with("Transfer-Encoding: chunked\r\nContent-Length^: 1\r\n\r\n"),
        ),
        (Host, with("HOST^: h\r\n\r\n")),
        (Host, "GET / HTTP/1.1\r\nX: 1\r\n\r^\n".into()),
        (
            Connect,
            "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nContent-Length: 1\r\n\r^\n".into(),
        ),
        (ChunkSize, chunked("1^;x=y\r\na\r\n0\r\n\r\n")),
        (ChunkSize, chunked("1^ \r\na\r\n0\r\n\r\n")),
        (ChunkSize, chunked("^ 1\r\na\r\n0\r\n\r\n")),
        (ChunkSize, chunked("^\r\n")),
        (ChunkSize, chunked("^-1\r\n")),
        (ChunkSize, chunked("0^x1\r\na\r\n")),
        (ChunkSize, chunked("1^\na\r\n")),
        (ChunkSize, chunked("1\r^a\r\n")),
        (ChunkSize, chunked("000000000000001^1\r\n")),
        (ChunkEnd, chunked("1\r\na^b\r\n")),
        (ChunkEnd, chunked("1\r\na^\n0\r\n\r\n")),
        (ChunkEnd, chunked("1\r\na\r^0\r\n\r\n")),
        (LineEnd, chunked("0\r\n^\n")),
        (LineEnd, chunked("0\r\nX: 1^\n\r\n")),
        (ObsoleteFold, chunked("0\r\nX: 1\r\n^ 2\r\n\r\n")),
        (Trailer, chunked("0\r\nContent-Length^: 1\r\n\r\n")),
        (Trailer, chunked("0\r\nHost^: 1\r\n\r\n")),
        (Trailer, chunked("0\r\nX: 1\r\nAuthorization^: 1\r\n\r\n")),
        (Trailer, chunked("0\r\nTE^: 1\r\n\r\n")),
        (Trailer, chunked("0\r\nTouchstone-Keyset^: 1\r\n\r\n")),
        (
            Trailer,
            chunked("0\r\nInference-Header-Content-Length^: 1\r\n\r\n"),
        ),
        (Trailer, chunked("0\r\nTransfer-Encoding^: chunked\r\n\r\n")),
    ];
    let marked = marked.into_iter();
    marked
        .map(|(violation, text)| {
            let at = text.find('^').unwrap();
            (violation, text.replacen('^', "", 1), at)
        })
        .collect()
}

#[test]
fn what_has_one_reading_passes_and_leads_to_the_next_request() {
    let mut strict = requests();
    for good in GOOD.iter().chain(GOOD) {
        assert_eq!(strict.follow(good.as_bytes()), good.len(), "{good:?}");
        assert_eq!(strict.state, State::Line { spaces: 0 }, "{good:?}");
        assert_eq!(strict.head.length, 0);
    }
}

#[test]
fn what_has_two_readings_stops_at_the_byte_that_gives_it_the_second() {
    for (violation, bad, at) in bad() {
        for before in ["", GOOD[0], GOOD[3]] {
            let mut strict = requests();
            let whole = format!("{before}{bad}");
            let found = strict.follow(whole.as_bytes());
            assert_eq!(strict.broken(), Some(violation), "{whole:?}");
            assert_eq!(found, before.len() + at, "{whole:?}");
            assert_eq!(strict.follow(GOOD[0].as_bytes()), 0);
        }
    }
}

/// Answers, each with what follows its head when it is asked for by another method than HEAD.
const ANSWERS: &[(&str, u16, Framing)] = &[
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        200,
        Framing::Length(2),
    ),
    (
        "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
        200,
        Framing::None,
    ),
    (
        "HTTP/1.1 999 a b\t\u{e9}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        999,
        Framing::Chunked,
    ),
    ("HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", 103, Framing::None),
    (
        "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n",
        204,
        Framing::None,
    ),
    (
        "HTTP/1.1 304 Same\r\nContent-Length: 7\r\n\r\n",
        304,
        Framing::None,
    ),
];

#[test]
fn answers_end_where_they_say() {
    let mut strict = Strict::answers(false, 100);
    for (answer, status, framing) in ANSWERS {
        let (length, found) = strict.next(answer.as_bytes());
        let Found::Head(head) = found else {
            panic!("{answer:?}: {found:?}");
        };
        assert_eq!((head.status, head.framing), (*status, *framing));
        let body = &answer.as_bytes()[length..];
        assert_eq!(strict.follow(body), body.len());
        assert_eq!(strict.state, State::Status { at: 0 }, "{answer:?}");
        // To HEAD they end with their heads.
        let mut to_head = Strict::answers(true, 100);
        let head = &answer.as_bytes()[..length];
        assert_eq!(to_head.follow(head), length);
        assert_eq!(to_head.state, State::Status { at: 0 }, "{answer:?}");
    }
}

#[test]
fn answers_with_two_readings_stop_where_that_shows() {
    use Violation::*;
    for (violation, marked) in [
        (Version, "HTTP/1.^0 200 OK\r\n"),
        (Version, "^\r\nHTTP/1.1 200 OK\r\n"),
        (Version, "HTTP/1.1^\t200 OK\r\n"),
        (Status, "HTTP/1.1 20^ OK\r\n"),
        (Status, "HTTP/1.1 200^0 OK\r\n"),
        (Status, "HTTP/1.1 099^ No\r\n"),
        (Status, "HTTP/1.1 200^\r\n"),
        (Status, "HTTP/1.1 200 O^\0\r\n"),
        (LineEnd, "HTTP/1.1 200 OK^\n"),
        (NoLength, "HTTP/1.1 200 OK\r\n\r^\n"),
        (NoLength, "HTTP/1.1 204 No\r\nContent-Length: 1\r\n\r^\n"),
        (
            NoLength,
            "HTTP/1.1 100 Go\r\nTransfer-Encoding: chunked\r\n\r^\n",
        ),
        (
            LengthAndEncoding,
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding^: chunked\r\n",
        ),
    ] {
        let at = marked.find('^').unwrap();
        let bytes = marked.replacen('^', "", 1);
        let mut strict = Strict::answers(false, 100);
        assert_eq!(strict.follow(bytes.as_bytes()), at, "{marked:?}");
        assert_eq!(strict.broken(), Some(violation), "{marked:?}");
    }
}

#[test]
fn fields_and_trailers_are_bounded() {
    let head = |fields: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: h\r\n{}\r\n",
            "A: 1\r\n".repeat(fields)
        )
    };
    let followed = |text: &str| {
        let mut strict = Strict::requests(5);
        strict.follow(text.as_bytes());
        strict.broken()
    };
    assert_eq!(followed(&head(4)), None);
    assert_eq!(followed(&head(5)), Some(Violation::Fields));
    let trailers = |bytes: usize| {
        let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
        format!("{chunked}X: {}\r\n\r\n", "x".repeat(bytes - 7))
    };
    // Of the line that ends them, both bytes count.
    assert_eq!(followed(&trailers(TRAILERS)), None);
    assert_eq!(followed(&trailers(TRAILERS + 1)), Some(Violation::Trailer));
}

/// However the bytes are cut, and whatever they are.
#[test]
fn pieces_are_read_as_the_whole() {
    let mut seed = 1u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    let bad: Vec<_> = bad().into_iter().map(|(_, text, _)| text).collect();
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..random(3) {
            bytes.extend_from_slice(GOOD[random(GOOD.len())].as_bytes());
        }
        bytes.extend_from_slice(bad[random(bad.len())].as_bytes());
        for _ in 0..random(3) {
            let at = random(bytes.len());
            bytes[at] = b"\r\n \t:;0aA\0\xff"[random(11)];
        }
        let mut whole = requests();
        let good = whole.follow(&bytes);
        let mut cut = requests();
        let mut found = 0;
        while found < bytes.len() && cut.broken().is_none() {
            let end = (found + 1 + random(40)).min(bytes.len());
            found += cut.follow(&bytes[found..end]);
        }
        assert_eq!((found, cut.broken()), (good, whole.broken()));
    }
}
