//! Clients that believe everything: each is found out by the record, so that a record which shows nothing means
//! something.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use tokio::io::{AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use touchstone_formats::session::{
    BOOT_TARGET, OHTTP_TARGET, SESSION_TARGET, SessionAnswer, SessionRequest,
};
use touchstone_ohttp::bhttp;
use touchstone_ohttp::{PublicKey, REQUEST_TYPE};

use super::message::Message;
use super::{Config, Kind, Lie, ManInTheMiddle, Seen, tls};

const PROMPT: &[u8] = b"a prompt that can be recognised";

/// Asks for a session, and whatever comes back sends the prompt. Gives how the handshake went and the last status.
async fn gullible(middle: &ManInTheMiddle, config: Arc<ClientConfig>) -> (HandshakeKind, u16) {
    let stream = TcpStream::connect(middle.address()).await.unwrap();
    let stream = TlsConnector::from(config).connect(tls::name(), stream);
    let stream = stream.await.unwrap();
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    let mut stream = BufStream::new(stream);
    let (mut status, mut rest) = (0, Vec::new());
    let session = SessionRequest { nonce: [7; 32] }.to_file();
    for (target, body) in [
        (SESSION_TARGET, session),
        ("/v2/models/digits/infer", PROMPT.to_vec()),
    ] {
        let request = Message {
            start: format!("POST {target} HTTP/1.1"),
            headers: vec![("host".into(), "enclave.invalid".into())],
            body,
        };
        stream.write_all(&request.to_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let answer = Message::read(&mut stream, &mut rest).await.unwrap();
        status = answer.unwrap().status();
    }
    (kind, status)
}

/// One that offers to resume, unlike the relays of the kit.
fn config(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(&tls::client(version));
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    Arc::new(config)
}

fn last(middle: &ManInTheMiddle) -> Seen {
    middle.record().connections().pop().unwrap()
}

#[tokio::test]
async fn a_client_that_believes_everything_is_found_out() {
    for (lie, version) in [
        (Lie::OwnCertificate, &TLS13),
        (Lie::SameCertificate, &TLS13),
        (Lie::Reflection, &TLS13),
        (Lie::Replay, &TLS13),
        (Lie::SwapKeyset, &TLS13),
        (Lie::SameKey, &TLS13),
        (Lie::Tls12, &TLS12),
        (Lie::StaleNonce, &TLS13),
    ] {
        let middle = ManInTheMiddle::start(Config::new(lie)).unwrap();
        gullible(&middle, config(version)).await;
        let seen = last(&middle);
        assert!(seen.tls && seen.sent(PROMPT), "{lie}: {:?}", seen.notes);
        assert!(!seen.offered_psk, "{lie}: a first connection");
        assert!(middle.record().leaked() >= PROMPT.len(), "{:?}", seen.notes);
    }
}

#[tokio::test]
async fn a_client_that_resumes_is_found_out() {
    let middle = ManInTheMiddle::start(Config::new(Lie::Resumption)).unwrap();
    let config = config(&TLS13);
    let first = gullible(&middle, config.clone()).await;
    assert_eq!(first, (HandshakeKind::Full, 421));
    assert!(!last(&middle).offered_psk);
    assert_eq!(middle.record().leaked(), 0, "that one was proven");
    let (kind, _) = gullible(&middle, config).await;
    assert_eq!(kind, HandshakeKind::Resumed);
    let seen = last(&middle);
    assert!(seen.offered_psk && seen.sent(PROMPT), "{:?}", seen.notes);
    assert!(middle.record().leaked() >= PROMPT.len(), "{:?}", seen.notes);
}

async fn post(middle: &ManInTheMiddle, target: &str, kind: &str, body: Vec<u8>) -> Message {
    let mut stream = TcpStream::connect(middle.address()).await.unwrap();
    let request = Message {
        start: format!("POST {target} HTTP/1.1"),
        headers: vec![
            ("content-type".into(), kind.into()),
            ("connection".into(), "close".into()),
        ],
        body,
    };
    stream.write_all(&request.to_bytes()).await.unwrap();
    let answer = Message::read(&mut stream, &mut Vec::new()).await.unwrap();
    answer.unwrap()
}

/// Seals the prompt to whatever key there is, and where there is none it may know, sends it for everybody to read. Gives the answer.
async fn gullible_sealer(middle: &ManInTheMiddle) -> Vec<u8> {
    let session = SessionRequest { nonce: [7; 32] }.to_file();
    let shown = post(middle, BOOT_TARGET, "application/json", session).await;
    let shown = SessionAnswer::parse(&shown.body).unwrap();
    let keys = shown.keyset.ohttp_keys.unwrap_or_default();
    let Ok(key) = PublicKey::from_configurations(&keys.0) else {
        let target = "/v2/models/digits/infer";
        return post(middle, target, "application/json", PROMPT.to_vec())
            .await
            .body;
    };
    let request = bhttp::Request {
        method: "POST".into(),
        scheme: "https".into(),
        authority: "enclave.invalid".into(),
        path: "/v2/models/digits/infer".into(),
        fields: Vec::new(),
        content: PROMPT.into(),
    };
    let (sealed, waiting) = key.seal(&request.encode()).unwrap();
    let answer = post(middle, OHTTP_TARGET, REQUEST_TYPE, sealed).await;
    match answer.status() {
        200 => waiting.open(answer.body).unwrap(),
        _ => answer.body,
    }
}

#[tokio::test]
async fn a_client_that_seals_to_any_key_is_found_out() {
    let honest = ManInTheMiddle::start(Config::new(Lie::None)).unwrap();
    gullible_sealer(&honest).await;
    let seen = last(&honest);
    assert!(seen.sent(PROMPT) && !super::contains(&seen.from_client, PROMPT));
    assert_eq!(honest.record().leaked(), 0);
    for lie in Lie::ALL.iter().copied() {
        if lie.kind() != Kind::Key {
            continue;
        }
        let middle = ManInTheMiddle::start(Config::new(lie)).unwrap();
        let answer = gullible_sealer(&middle).await;
        let seen = last(&middle);
        assert!(!seen.tls && seen.sent(PROMPT), "{lie}: {:?}", seen.notes);
        assert!(middle.record().leaked() >= PROMPT.len(), "{lie}");
        // With a key of its own it reads the answer, too, and passes it on.
        let told = super::contains(&seen.told, &answer);
        assert_eq!(
            told,
            matches!(lie, Lie::OhttpOwnKey | Lie::OhttpOwnKeyset),
            "{lie}"
        );
    }
    let middle = ManInTheMiddle::start(Config::new(Lie::Ohttp422Unproven)).unwrap();
    gullible_sealer(&middle).await;
    assert_eq!(middle.record().leaked(), 0, "that key was proven");
    gullible_sealer(&middle).await;
    assert!(middle.record().leaked() >= PROMPT.len());
}

#[tokio::test]
async fn lies_that_take_a_key_are_not_told_before_strangers() {
    let honest = ManInTheMiddle::start(Config::new(Lie::None)).unwrap();
    for lie in Lie::ALL.iter().copied() {
        let upstream = super::Upstream::Address(honest.address());
        let started = ManInTheMiddle::start(Config::before(upstream, lie));
        assert_eq!(started.is_err(), lie.needs_own_server(), "{lie}");
    }
}
