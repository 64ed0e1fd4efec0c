//! Sessions: a TLS connection that ends inside, and nothing served on it before it is proven.

use std::sync::Arc;

use hyper::{Method, body::Bytes};
use rustls::server::ParsedCertificate;
use rustls::{HandshakeKind, ProtocolVersion, client::verify_server_name, pki_types::ServerName};
use touchstone_formats::report_data::Purpose;

use super::{
    follower::Follower,
    support::{INFER, Running, body},
    tls::{Connection, LISTEN, config, handshake, request, resuming},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_binds_the_connection_that_answers_come_over() {
    let test = "a_session_binds_the_connection_that_answers_come_over";
    let Some((running, _models)) = Running::with_models(test, &[LISTEN], 0).await else {
        return;
    };
    let stream = handshake(running.tls(), Arc::new(config())).await.unwrap();
    let (_, tls) = stream.get_ref();
    assert_eq!(tls.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(tls.alpn_protocol(), Some(&b"http/1.1"[..]));
    let [certificate] = tls.peer_certificates().unwrap() else {
        panic!("one certificate")
    };
    let certificate = ParsedCertificate::try_from(certificate).unwrap();
    let name = ServerName::try_from("enclave.test").unwrap();
    verify_server_name(&certificate, &name).unwrap();

    let mut connection = Connection::over(stream).await;
    let answer = connection.session(0).await;
    assert_eq!(answer.evidence.purpose, Some(Purpose::Session));
    assert_eq!(
        answer.keyset.digest(),
        running.service.current().unwrap().digest
    );
    let reply = connection.client.infer(&[("prefer", "wait=5")]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.touchstone().keyset, answer.keyset.digest());
    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(1).await;
    let claims = &follower.log().receipts[0].claims;
    assert_eq!(claims.keyset_digest, answer.keyset.digest());
    assert_eq!(claims.cti, reply.touchstone().id);

    // A client without ALPN is as good.
    let mut silent = config();
    silent.alpn_protocols.clear();
    let stream = handshake(running.tls(), Arc::new(silent)).await.unwrap();
    Connection::over(stream).await.session(1).await;
    // One that speaks something else alone is not.
    let mut other = config();
    other.alpn_protocols = vec![b"h2".to_vec()];
    assert!(handshake(running.tls(), Arc::new(other)).await.is_err());
}
