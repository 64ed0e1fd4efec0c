//! An enclave behind the Unix socket of a VMM.

use std::{collections::HashMap, net::SocketAddr, path::Path, time::Duration};

use hyper::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixListener},
    time::timeout,
};

use crate::{client::get, enclave::Enclave, raw::nobody, run::Place};

const SOON: Duration = Duration::from_secs(20);

/// A VMM whose guest listens on these ports.
fn vmm(socket: &Path, guest: HashMap<u32, SocketAddr>) {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let guest = guest.clone();
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while asked.last() != Some(&b'\n') {
                    asked.push(stream.read_u8().await.unwrap());
                }
                let asked = String::from_utf8(asked).unwrap();
                let port = asked.strip_prefix("CONNECT ").unwrap().trim_end();
                if let Some(address) = guest.get(&port.parse().unwrap()) {
                    let mut inside = TcpStream::connect(address).await.unwrap();
                    stream.write_all(b"OK 1073741824\n").await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut inside).await;
                }
            });
        }
    });
}

/// A TLS listener, as far as a host can tell: it says what it hears.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut reading, mut writing) = stream.split();
            let _ = tokio::io::copy(&mut reading, &mut writing).await;
            let _ = writing.shutdown().await;
        }
    });
    address
}

/// A host whose enclave has its three listeners at these ports of the guest.
async fn host(place: &Place, ports: [u32; 3]) -> host::Host {
    let socket = place.path("vm.sock");
    let [public, control, tls] =
        ports.map(|port| format!("\"vsock+unix://{}:{port}\"", socket.display()));
    let settings = place
        .settings()
        .replace(&format!("\"tcp://{}\"", place.public), &public)
        .replace(
            &format!("\"tcp://{}\"", place.control),
            &format!("{control}\ntls = {tls}"),
        );
    host::Host::start(&host::config::Config::parse(&settings).unwrap())
        .await
        .unwrap()
}

/// What comes back when this is said and no more.
async fn said(host: &host::Host, said: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    stream.write_all(said).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    let reading = timeout(SOON, stream.read_to_end(&mut heard)).await.unwrap();
    if let Err(error) = reading {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_three_listeners_are_reached_through_a_vmms_socket() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control).with("", "drain_ms = 100");
    let guest = [
        (8000, enclave.public),
        (8001, enclave.control),
        (8002, echo().await),
    ];
    vmm(&place.path("vm.sock"), guest.into());

    let reached = host(&place, [8000, 8001, 8002]).await;
    let tls = [&[0x16][..], &b"unread".repeat(100_000)].concat();
    assert!(said(&reached, &tls).await == tls);
    assert_eq!(get(reached.address(), "/v2").await.status, StatusCode::OK);
    // The control listener: what is sealed is pulled and acknowledged.
    enclave.answer("logged");
    enclave.seal();
    timeout(SOON, enclave.all_acknowledged()).await.unwrap();
    reached.stop().await;

    // The same guest, asked for ports where nobody listens: refused as by an enclave that is down.
    let refused = host(&place, [9000, 9001, 9002]).await;
    assert!(said(&refused, &tls).await.is_empty());
    let answer = get(refused.address(), "/v2").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    refused.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_is_no_vmms_is_an_enclave_that_is_down() {
    let place = Place::new(nobody().await, nobody().await).with("connect_timeout_ms = 200", "");
    let listener = UnixListener::bind(place.path("vm.sock")).unwrap();
    tokio::spawn(async move {
        // Another convention first, then silence for good.
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if held.len() % 2 == 0 {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            }
            held.push(stream);
        }
    });
    let host = host(&place, [8000, 8001, 8002]).await;
    for _ in 0..4 {
        let answer = get(host.address(), "/v2").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(said(&host, &[0x16]).await.is_empty());
    }
    host.stop().await;
}
