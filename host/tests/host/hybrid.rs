//! An enclave behind the Unix socket of a VMM.

use std::{collections::HashMap, net::SocketAddr, path::Path, time::Duration};

use host::fleet::{Condition, Model};
use hyper::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixListener},
    time::timeout,
};

use crate::{
    client::{get, send},
    enclave::Enclave,
    fleet::{all_are, is},
    raw::nobody,
    run::Place,
};

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
                    // Nobody listens there any more: closed.
                    let Ok(mut inside) = TcpStream::connect(address).await else {
                        return;
                    };
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

/// Guests of two VMMs and a third by TCP are one fleet: each has its share, what one that is gone would have had goes to the
/// others, one after the other is drained and started anew, and no request fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fleet_is_reached_over_vsock_and_tcp() {
    let mut enclaves = Vec::new();
    for _ in 0..3 {
        enclaves.push(Enclave::start().await);
    }
    let names = ["left", "right", "tcp"];
    let mut place = Place::several(&[("tcp", enclaves[2].public, enclaves[2].control, None)]);
    for (name, enclave) in names.iter().zip(&enclaves).take(2) {
        let socket = place.path(&format!("{name}.sock"));
        let guest = [(8000, enclave.public), (8001, enclave.control)];
        vmm(&socket, guest.into());
        let address = |port| format!("\"vsock+unix://{}:{port}\"", socket.display());
        let (public, control) = (address(8000), address(8001));
        let table = format!("[enclaves.{name}]\npublic = {public}\ncontrol = {control}\n");
        place.enclaves.push_str(&table);
    }
    let host = place.start().await;
    all_are(&host, Condition::Serving).await;
    let address = host.address();
    let number = |name: &str| {
        let mut members = host.fleet().members().iter();
        members.position(|member| member.name == name).unwrap()
    };
    let infer = async |target: &str, length: usize| {
        let headers = [("touchstone", "require=(logged signed)")];
        let target = format!("/v2/models/{target}/infer");
        let body = vec![7; length];
        let answer = send(address, Method::POST, &target, &headers, &body).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, length));
        let said = answer.header("touchstone").unwrap();
        touchstone_formats::headers::TouchstoneResponse::parse(said).unwrap()
    };
    for _ in 0..6 {
        infer("digits", 10).await;
    }
    assert!(
        enclaves
            .iter()
            .all(|enclave| enclave.seen_of("digits") == 2)
    );
    // A model that one guest alone has.
    enclaves[1].has_models(&["digits", "other"]);
    let other = Model::of("/v2/models/other").unwrap();
    while !host.fleet().knows_model(&other) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    infer("other", 10).await;
    assert_eq!(enclaves[1].seen_of("other/infer"), 1);

    // Small and long bodies all the time, while one after the other goes and comes.
    let stop = tokio::sync::watch::Sender::new(false);
    let load = async {
        let caller = async |length: usize| {
            let mut promised = Vec::new();
            while !*stop.borrow() {
                promised.push(infer("digits", length).await.id);
            }
            promised
        };
        let (a, b, c) = tokio::join!(caller(10), caller(10), caller(200_000));
        [a, b, c].concat()
    };
    let rolling = async {
        for (name, enclave) in names.iter().zip(&enclaves) {
            let drained = host.fleet().drain(name, SOON, false).await;
            drained.unwrap();
            enclave.die().await;
            is(&host, number(name), Condition::Away).await;
            enclave.rise().await;
            is(&host, number(name), Condition::Serving).await;
        }
        stop.send_replace(true);
    };
    let (promised, ()) = tokio::join!(load, rolling);
    assert!(promised.len() > 20, "{}", promised.len());
    for enclave in &enclaves {
        enclave.seal();
        timeout(SOON, enclave.all_acknowledged()).await.unwrap();
    }
    for id in &promised {
        let target = format!("/v1/receipts/{}", touchstone_formats::text::hex_encode(id));
        assert_eq!(get(address, &target).await.status, StatusCode::OK);
    }
    // Gone without a word, and with it its guest's listeners: nothing was sent, so others get it.
    enclaves[0].die().await;
    for length in [10, 10, 10, 200_000, 200_000] {
        infer("digits", length).await;
    }
    host.stop().await;
}

/// The connection ends as it is made, before a byte of the request was written or just after: which of the two is said at once.
#[tokio::test]
async fn a_guest_that_closes_at_once_keeps_nobody_waiting() {
    let place = Place::new(nobody().await, nobody().await);
    let listener = UnixListener::bind(place.path("vm.sock")).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.read_u8().await.unwrap() != b'\n' {}
            let _ = stream.try_write(b"OK 1\n");
        }
    });
    let host = host(&place, [8000, 8001, 8002]).await;
    for _ in 0..5 {
        let answer = timeout(Duration::from_secs(5), get(host.address(), "/v2")).await;
        let answer = answer.expect("kept waiting");
        // Unless the host was faster: what was written may have been read.
        let said = match answer.status {
            StatusCode::BAD_GATEWAY => "may have been processed",
            _ => "nothing was sent",
        };
        assert!(answer.problem().contains(said), "{answer:?}");
        assert!(answer.status.is_server_error(), "{answer:?}");
    }
    host.stop().await;
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
