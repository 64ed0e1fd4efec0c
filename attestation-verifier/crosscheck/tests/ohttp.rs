//! Against another implementation of both formats: the crates `ohttp` and `bhttp`. It shares no code with ours, but for HPKE
//! itself, which it takes from an older version of the same crate; that one has the vectors of RFC 9180.

use std::io::Cursor;

use bytes::Bytes;
use ohttp::hpke::{Aead, Kdf, Kem};
use ohttp::{ClientRequest, KeyConfig, Server, SymmetricSuite};
use touchstone_ohttp::bhttp::{Answer, Bounds, Request};
use touchstone_ohttp::{GatewayKey, PublicKey};

const BOUNDS: Bounds = Bounds {
    fields: 100,
    field_bytes: 16 << 10,
};

fn contents() -> Vec<Vec<u8>> {
    [0, 1, 15, 16, 17, 1_000, 70_000]
        .map(|length| (0..length).map(|n| n as u8).collect())
        .to_vec()
}

#[test]
fn the_peer_asks_and_we_answer() {
    let key = GatewayKey::generate(9).unwrap();
    for content in contents() {
        let peer = ClientRequest::from_encoded_config_list(&key.configurations()).unwrap();
        let (sealed, waiting) = peer.encapsulate(&content).unwrap();
        let opened = key.open(&sealed).unwrap();
        assert_eq!(opened.content, content);
        let answer = opened.responder.seal(&content).unwrap();
        assert_eq!(waiting.decapsulate(&answer).unwrap(), content);
    }
}

#[test]
fn we_ask_and_the_peer_answers() {
    let suites = [
        SymmetricSuite::new(Kdf::HkdfSha256, Aead::ChaCha20Poly1305),
        SymmetricSuite::new(Kdf::HkdfSha256, Aead::Aes128Gcm),
    ];
    let config = KeyConfig::new(5, Kem::X25519Sha256, suites.to_vec()).unwrap();
    let list = KeyConfig::encode_list(&[&config]).unwrap();
    let public = PublicKey::from_configurations(&list).unwrap();
    let peer = Server::new(config).unwrap();
    for content in contents() {
        let (sealed, waiting) = public.seal(&content).unwrap();
        let (read, responder) = peer.decapsulate(&sealed).unwrap();
        assert_eq!(read, content);
        let answer = responder.encapsulate(&content).unwrap();
        assert_eq!(waiting.open(answer).unwrap(), content);
    }
}

#[test]
fn binary_http_reads_the_same_on_both_sides() {
    let mut message = bhttp::Message::request(
        b"POST".to_vec(),
        b"https".to_vec(),
        b"example.com".to_vec(),
        b"/v2/models/m/infer".to_vec(),
    );
    message.put_header("content-type", "application/json");
    message.put_header("prefer", "wait=1");
    message.put_header("prefer", "respond-async");
    message.write_content(vec![7; 70_000]);
    for mode in [bhttp::Mode::KnownLength, bhttp::Mode::IndeterminateLength] {
        let mut bytes = Vec::new();
        message.write_bhttp(mode, &mut bytes).unwrap();
        let read = Request::decode(Bytes::from(bytes), BOUNDS).unwrap();
        assert_eq!(&read.method[..], b"POST");
        assert_eq!(&read.authority[..], b"example.com");
        assert_eq!(read.fields.len(), 3);
        assert_eq!(&read.content[..], message.content());
        let again = bhttp::Message::read_bhttp(&mut Cursor::new(read.encode())).unwrap();
        assert_eq!(again.control().method(), Some(&b"POST"[..]));
        assert_eq!(again.control().path(), message.control().path());
        assert_eq!(again.content(), message.content());
        let field = |message: &bhttp::Message| {
            let fields = message.header().fields().iter();
            let pair = |field: &bhttp::Field| (field.name().to_vec(), field.value().to_vec());
            fields.map(pair).collect::<Vec<_>>()
        };
        assert_eq!(field(&again), field(&message));
    }
    let fields = [(&b"retry-after"[..], &b"5"[..])];
    let ours = Answer::encode(503, fields.into_iter(), b"late");
    let theirs = bhttp::Message::read_bhttp(&mut Cursor::new(&ours)).unwrap();
    assert_eq!(theirs.control().status().map(|s| s.code()), Some(503));
    assert_eq!(theirs.header().get(b"retry-after"), Some(&b"5"[..]));
    assert_eq!(theirs.content(), b"late");
    let mut bytes = Vec::new();
    theirs
        .write_bhttp(bhttp::Mode::KnownLength, &mut bytes)
        .unwrap();
    assert_eq!(bytes, ours);
}
