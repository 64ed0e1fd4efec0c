//! Sealed requests (Oblivious HTTP): what is inside goes the way of every other request, and nobody outside learns or changes it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{HeaderMap, Method, header::HeaderName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use touchstone_formats::{
    SessionAnswer, SessionRequest,
    headers::State,
    report_data::{Purpose, bind_boot, report_data},
};
use touchstone_ohttp::{
    ANSWER_TYPE, PublicKey, REQUEST_TYPE, Waiting,
    bhttp::{Answer, Bounds, Request},
};

use super::{
    follower::Follower,
    source::{Mood, Source},
    support::{Client, INFER, Reply, Running, body, no_models, until},
};

const BOUNDS: Bounds = Bounds {
    fields: 100,
    field_bytes: 16 << 10,
};

/// The caller's side.
struct Caller {
    client: Client,
    public: PublicKey,
    keyset: String,
}

impl Caller {
    async fn new(running: &Running) -> Self {
        let mut client = running.client().await;
        let (answer, _) = boot(&mut client, 1).await;
        let keys = answer.keyset.ohttp_keys.as_ref().unwrap();
        Self {
            client,
            public: PublicKey::from_configurations(&keys.0).unwrap(),
            keyset: answer.keyset.digest().to_string(),
        }
    }

    async fn post(&mut self, sealed: &[u8]) -> Reply {
        let headers = [("content-type", REQUEST_TYPE)];
        let sealed = Bytes::copy_from_slice(sealed);
        self.client
            .send(Method::POST, "/v1/ohttp", &headers, sealed)
            .await
    }

    /// Seals a request, and gives what is inside the answer.
    async fn ask(&mut self, request: Request) -> Reply {
        let (sealed, waiting) = self.public.seal(&request.encode()).unwrap();
        let reply = self.post(&sealed).await;
        opened(waiting, reply)
    }
}

/// What is inside a sealed answer.
#[track_caller]
fn opened(waiting: Waiting, reply: Reply) -> Reply {
    assert_eq!(reply.status, 200, "{}", reply.problem());
    assert_eq!(reply.header("content-type"), ANSWER_TYPE);
    // Nothing of what is inside is outside.
    for header in [
        "touchstone",
        "touchstone-openings",
        "link",
        "content-digest",
    ] {
        assert!(!reply.headers.contains_key(header), "{reply:?}");
    }
    let message = waiting.open(reply.body.to_vec()).unwrap();
    let answer = Answer::decode(message.into(), BOUNDS).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in &answer.fields {
        let name = HeaderName::from_bytes(name).unwrap();
        headers.append(name, value[..].try_into().unwrap());
    }
    Reply {
        status: answer.status,
        headers,
        body: answer.content,
    }
}

async fn boot(client: &mut Client, nonce: u8) -> (SessionAnswer, [u8; 32]) {
    let nonce = [nonce; 32];
    let request = SessionRequest { nonce }.to_file();
    let reply = client.send(Method::POST, "/v1/boot", &[], request).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    (SessionAnswer::parse(&reply.body).unwrap(), nonce)
}

fn request(method: &str, path: &str, fields: &[(&str, &str)], content: &str) -> Request {
    let owned = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Request {
        method: owned(method),
        scheme: owned("https"),
        authority: owned("enclave.test"),
        path: owned(path),
        fields: fields.iter().map(|(n, v)| (owned(n), owned(v))).collect(),
        content: owned(content),
    }
}

fn infer(fields: &[(&str, &str)]) -> Request {
    request("POST", INFER, fields, &body([1.0, 2.0, 4.0, 8.0]))
}

#[tokio::test(flavor = "multi_thread")]
async fn boot_evidence_is_over_the_callers_nonce_and_the_keyset_in_force() {
    let running = Running::start(&[], Source::new(Duration::ZERO), no_models()).await;
    let mut client = running.client().await;
    let (answer, nonce) = boot(&mut client, 7).await;
    let digest = running.service.current().unwrap().digest;
    assert_eq!(answer.keyset.digest(), digest);
    assert_eq!(answer.evidence.purpose, Some(Purpose::Boot));
    assert_eq!(answer.evidence.nonce, Some(nonce.to_vec()));
    let expected = report_data(Purpose::Boot, digest, Some(&nonce), bind_boot());
    assert!(running.source.asked().contains(&expected));

    for (body, status) in [
        ("", 400),
        ("{}", 400),
        ("{\"nonce\":\"00\",\"v\":\"touchstone/session/1\"}", 400),
    ] {
        let reply = client.send(Method::POST, "/v1/boot", &[], body).await;
        assert_eq!(reply.status, status, "{body}");
    }
    assert_eq!(client.get("/v1/boot").await.status, 405);
    running.source.set(Mood::Fails);
    let _ = tokio::time::timeout(Duration::from_millis(300), boot_refused(&mut client)).await;
    until("the source is failing", async || {
        running.service.quoter.failing()
    })
    .await;
    let mut client = running.client().await;
    assert_eq!(boot_refused(&mut client).await.header("retry-after"), "5");
}

async fn boot_refused(client: &mut Client) -> Reply {
    let request = SessionRequest { nonce: [9; 32] }.to_file();
    let reply = client.send(Method::POST, "/v1/boot", &[], request).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    reply
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_of_a_keyset_that_was_replaced_meanwhile_is_not_given() {
    let running = Running::start(
        &["quote.timeout_ms = 30000"],
        Source::new(Duration::ZERO),
        no_models(),
    )
    .await;
    running.source.hold();
    let before = running.source.asked().len();
    let rotating = {
        let service = running.service.clone();
        tokio::spawn(async move { service.rotate().await })
    };
    // The next keyset's quote is under way, and this one's comes after it.
    until("a quote under way", async || {
        running.source.asked().len() > before
    })
    .await;
    let mut client = running.client().await;
    let asking = tokio::spawn(async move {
        let request = SessionRequest { nonce: [1; 32] }.to_file();
        let reply = client.send(Method::POST, "/v1/boot", &[], request).await;
        (client, reply)
    });
    until("the caller waits for its quote", async || {
        running.service.held.bytes() > 0
    })
    .await;
    running.source.release_one();
    rotating.await.unwrap().unwrap();
    running.source.release();
    let (mut client, reply) = asking.await.unwrap();
    assert_eq!(reply.status, 421, "{reply:?}");
    assert!(reply.problem().contains("ask again"));
    let (answer, _) = boot(&mut client, 2).await;
    let digest = running.service.current().unwrap().digest;
    assert_eq!(answer.keyset.digest(), digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_request_is_answered_as_any_other() {
    let test = "a_sealed_request_is_answered_as_any_other";
    let Some((running, _models)) =
        Running::with_models(test, &["limits.body_bytes = 1048576"], 0).await
    else {
        return;
    };
    let mut caller = Caller::new(&running).await;
    let plain = running.client().await.infer(&[]).await;
    let asked = [
        ("content-type", "application/json"),
        ("touchstone", "require=(logged quoted signed)"),
        ("prefer", "wait=5"),
    ];
    let reply = caller.ask(infer(&asked)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.body, plain.body);
    let said = reply.touchstone();
    assert_eq!(said.state, State::Sealed);
    assert_eq!(said.keyset.to_string(), caller.keyset);
    assert!(reply.openings().response.is_some());
    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(2).await;
    let receipts = &follower.log().receipts;
    assert!(receipts.iter().any(|receipt| receipt.claims.cti == said.id));

    // Everything that is said is said inside.
    for (request, status) in [
        (request("GET", "/v2", &[], ""), 200),
        (request("GET", "/v2/models/reciprocal", &[], ""), 200),
        (request("GET", "/v2/models/none", &[], ""), 404),
        (request("GET", "/v2?x", &[], ""), 400),
        (request("DELETE", "/v2", &[], ""), 405),
        (request("OPTIONS", INFER, &[], ""), 204),
        (request("POST", INFER, &[], "{"), 400),
        (infer(&[("touchstone", "require=(delivered)")]), 422),
        (infer(&[("content-encoding", "gzip")]), 415),
        (infer(&[("content-length", "3")]), 400),
        (request("POST", "/v1/session", &[], "{}"), 421),
        (request("POST", "/v1/ohttp", &[], ""), 400),
        (request("GET", "v2", &[], ""), 400),
        (request("GET", "/v2#x", &[], ""), 400),
        // As long as method, scheme, authority and path may be together, and a byte longer.
        (
            request("GET", &format!("/{}", "x".repeat(4075)), &[], ""),
            404,
        ),
        (
            request("GET", &format!("/{}", "x".repeat(4076)), &[], ""),
            400,
        ),
        (request(&"X".repeat(5_000), "/v2", &[], ""), 400),
        (request("GET", "https://enclave.test/v2", &[], ""), 400),
        (request("G T", "/v2", &[], ""), 400),
        (request("GET", "/v2", &[("Upper", "x")], ""), 400),
        (request("GET", "/v2", &[(":path", "/v2")], ""), 400),
        (
            request("GET", "/v2", &[("transfer-encoding", "chunked")], ""),
            400,
        ),
        (request("GET", "/v2", &[("connection", "close")], ""), 400),
        (request("GET", "/v2", &[("a", "b\r\nc: d")], ""), 400),
        (
            Request {
                scheme: "http".into(),
                ..request("GET", "/v2", &[], "")
            },
            400,
        ),
    ] {
        let reply = caller.ask(request.clone()).await;
        assert_eq!(reply.status, status, "{request:?} {reply:?}");
        if status >= 400 {
            reply.problem();
        }
    }
    let head = caller.ask(request("HEAD", "/v2", &[], "")).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    // A content that is more than is taken, a message that is, and one that is not.
    let long = request("POST", INFER, &[], &" ".repeat((1 << 20) + 1));
    assert_eq!(caller.ask(long).await.status, 413);
    let mut raw = TcpStream::connect(running.public).await.unwrap();
    let head = format!(
        "POST /v1/ohttp HTTP/1.1\r\nhost: a\r\ncontent-type: {REQUEST_TYPE}\r\ncontent-length: 1100000\r\n\r\n"
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    raw.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
    let fits = format!("{}{}", body([1.0, 2.0, 4.0, 8.0]), " ".repeat(1_000_000));
    let reply = caller.ask(request("POST", INFER, &[], &fits)).await;
    assert_eq!((reply.status, &reply.body), (200, &plain.body));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_request_is_answered_once() {
    let test = "a_sealed_request_is_answered_once";
    let Some((running, _models)) = Running::with_models(test, &[], 0).await else {
        return;
    };
    let mut caller = Caller::new(&running).await;
    let (sealed, waiting) = caller.public.seal(&infer(&[]).encode()).unwrap();
    let first = caller.post(&sealed).await;
    let again = caller.post(&sealed).await;
    let mut other = Caller::new(&running).await;
    let from_another = other.post(&sealed).await;
    assert_eq!(opened(waiting, first).status, 200);
    // The sender alone can read that it was refused: sealed for the same request.
    assert_eq!((again.status, from_another.status), (200, 200));
    assert_ne!(again.body, from_another.body);
    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    follower.fetch(0).await;
    assert_eq!(follower.log().receipts.len(), 1, "one number was spent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_told_to_its_sender_inside() {
    let running = Running::start(&[], Source::new(Duration::ZERO), no_models()).await;
    let mut caller = Caller::new(&running).await;
    let (sealed, waiting) = caller
        .public
        .seal(&request("GET", "/v2", &[], "").encode())
        .unwrap();
    assert_eq!(caller.post(&sealed).await.status, 200);
    let again = caller.post(&sealed).await;
    let again = opened(waiting, again);
    assert_eq!(again.status, 409);
    assert!(again.problem().contains("answered before"));
    // Sealed anew it is another request.
    assert_eq!(caller.ask(request("GET", "/v2", &[], "")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_open_is_refused_outside() {
    let running = Running::start(&[], Source::new(Duration::ZERO), no_models()).await;
    let mut caller = Caller::new(&running).await;
    let seal = |caller: &Caller| {
        let request = request("GET", "/v2", &[], "").encode();
        caller.public.seal(&request).unwrap().0
    };
    let honest = seal(&caller);
    assert_eq!(caller.post(&honest).await.status, 200);
    let flipped = |at: usize| {
        let mut sealed = seal(&caller);
        let at = at.min(sealed.len() - 1);
        sealed[at] ^= 1;
        sealed
    };
    let cases = [
        ("key id", flipped(0), 422),
        ("suite", flipped(6), 422),
        ("one-time key", flipped(7), 400),
        ("content", flipped(50), 400),
        ("tag", flipped(usize::MAX), 400),
        ("cut off", honest[..honest.len() - 1].to_vec(), 400),
        ("almost nothing", honest[..20].to_vec(), 400),
        ("nothing", Vec::new(), 400),
    ];
    for (what, sealed, status) in cases {
        let reply = caller.post(&sealed).await;
        assert_eq!(reply.status, status, "{what}");
        let kind = reply.json()["type"].as_str().unwrap().to_owned();
        assert_eq!(
            kind.ends_with("#ohttp-key"),
            status == 422,
            "{what}: {kind}"
        );
    }
    let sealed = seal(&caller);
    for (headers, status) in [
        (&[("content-type", "application/json")][..], 415),
        (&[], 415),
        (
            &[("content-type", REQUEST_TYPE), ("content-encoding", "gzip")],
            415,
        ),
        (
            &[
                ("content-type", REQUEST_TYPE),
                ("touchstone-keyset", &"0".repeat(64)),
            ],
            422,
        ),
        (
            &[("content-type", REQUEST_TYPE), ("touchstone-keyset", "x")],
            400,
        ),
        (
            &[
                ("content-type", REQUEST_TYPE),
                ("touchstone-keyset", &caller.keyset),
            ],
            200,
        ),
    ] {
        let mut client = running.client().await;
        let reply = client
            .send(Method::POST, "/v1/ohttp", headers, sealed.clone())
            .await;
        assert_eq!(reply.status, status, "{headers:?}");
    }
    assert_eq!(running.get("/v1/ohttp").await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_with_its_keyset() {
    let running = Running::start(&[], Source::new(Duration::ZERO), no_models()).await;
    let mut old = Caller::new(&running).await;
    let sealed = old
        .public
        .seal(&request("GET", "/v2", &[], "").encode())
        .unwrap()
        .0;
    running.service.rotate().await.unwrap();
    let headers = [
        ("content-type", REQUEST_TYPE),
        ("touchstone-keyset", old.keyset.as_str()),
    ];
    let reply = old
        .client
        .send(Method::POST, "/v1/ohttp", &headers, sealed.clone())
        .await;
    assert_eq!(reply.status, 422);
    // Who does not say which keyset he means is told the same: the next key has another id.
    assert_eq!(old.post(&sealed).await.status, 422);
    let mut new = Caller::new(&running).await;
    assert_ne!(new.keyset, old.keyset);
    assert_ne!(new.public, old.public);
    assert_eq!(new.ask(request("GET", "/v2", &[], "")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_memory_is_full_the_next_keyset_takes_over() {
    let changes = ["limits.ohttp_requests = 4"];
    let running = Running::start(&changes, Source::new(Duration::ZERO), no_models()).await;
    let mut caller = Caller::new(&running).await;
    let first = caller
        .public
        .seal(&request("GET", "/v2", &[], "").encode())
        .unwrap()
        .0;
    assert_eq!(caller.post(&first).await.status, 200);
    for _ in 0..3 {
        assert_eq!(caller.ask(request("GET", "/v2", &[], "")).await.status, 200);
    }
    let (sealed, _) = caller
        .public
        .seal(&request("GET", "/v2", &[], "").encode())
        .unwrap();
    let full = caller.post(&sealed).await;
    assert_eq!((full.status, full.header("retry-after")), (503, "1"));
    assert!(
        full.problem()
            .contains("as many requests as can be remembered")
    );
    // Nothing was forgotten to make room.
    assert_eq!(caller.post(&first).await.status, 503);
    // Everything else is answered meanwhile.
    assert_eq!(running.get("/v2").await.status, 200);
    tokio::spawn(running.service.clone().rotate_in_time());
    let worn = caller.keyset.clone();
    until("the next keyset", async || {
        running.service.current().unwrap().digest.to_string() != worn
    })
    .await;
    let mut caller = Caller::new(&running).await;
    assert_eq!(caller.ask(request("GET", "/v2", &[], "")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_speak_it_has_no_key() {
    let changes = ["limits.ohttp_requests = 0"];
    let running = Running::start(&changes, Source::new(Duration::ZERO), no_models()).await;
    let mut client = running.client().await;
    assert_eq!(boot(&mut client, 1).await.0.keyset.ohttp_keys, None);
    let headers = [("content-type", REQUEST_TYPE)];
    let reply = client
        .send(Method::POST, "/v1/ohttp", &headers, "anything")
        .await;
    assert_eq!(reply.status, 404);
}

/// The dearest message there is to read: chunks of a byte each. All the rest goes on meanwhile, on one thread for all of it.
#[tokio::test]
async fn reading_a_message_holds_up_nobody() {
    let running = Running::start(&[], Source::new(Duration::ZERO), no_models()).await;
    let mut caller = Caller::new(&running).await;
    let mut message = vec![2];
    for part in ["POST", "https", "", "/v1/boot"] {
        message.push(part.len() as u8);
        message.extend_from_slice(part.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&b"\x01x".repeat(7 << 20));
    message.extend_from_slice(&[0, 0]);
    let (sealed, waiting) = caller.public.seal(&message).unwrap();
    let began = Instant::now();
    let read = Request::decode(message.into(), BOUNDS).unwrap();
    let reading = began.elapsed();
    assert_eq!(read.content.len(), 7 << 20);

    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let beat = tokio::spawn(async move {
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        while stopped.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    });
    let reply = opened(waiting, caller.post(&sealed).await);
    assert_eq!(reply.status, 413, "{reply:?}");
    stop.send(()).unwrap();
    let longest = beat.await.unwrap();
    assert!(longest < reading / 2, "{longest:?} of {reading:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_given_back() {
    let test = "what_is_held_is_given_back";
    let Some((running, _models)) = Running::with_models(test, &[], 0).await else {
        return;
    };
    let mut caller = Caller::new(&running).await;
    for fields in [&[][..], &[("touchstone", "require=(delivered)")]] {
        caller.ask(infer(fields)).await;
    }
    let (sealed, _) = caller.public.seal(b"no message").unwrap();
    assert_eq!(caller.post(&sealed).await.status, 200);
    assert_eq!(caller.post(&sealed[..40]).await.status, 400);
    drop(caller);
    until("nothing is held", async || {
        running.service.held.bytes() == 0
    })
    .await;
}
