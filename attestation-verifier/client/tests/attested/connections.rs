//! Connections are used again while they are good, replaced when they are not, and belong to one request
//! at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use touchstone_client::Client;
use touchstone_testkit::mint::World;

use crate::support::{Reply, Server, input, output, refused};

/// Asks, and has the answer verified.
async fn ask(client: &Client, values: [f32; 4]) {
    let answer = client.infer("digits", &[input(values)]).await.unwrap();
    let answer = answer.verified().await.unwrap();
    assert_eq!(answer.outputs(), [output(values)]);
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Server::start().await;
    let client = server.builder().connect().await.unwrap();
    for n in 0..5 {
        ask(&client, [n as f32; 4]).await;
    }
    assert_eq!((server.sessions(), server.asked()), (1, 5));
}

#[tokio::test]
async fn a_new_keyset_is_attested_and_the_request_sent_once_more() {
    let server = Server::start().await;
    let client = server.builder().connections(4).connect().await.unwrap();
    // Three connections under the old keyset.
    let (a, b, c) = tokio::join!(
        ask(&client, [1.0; 4]),
        ask(&client, [2.0; 4]),
        ask(&client, [3.0; 4])
    );
    let ((), (), ()) = (a, b, c);
    let before = (server.sessions(), server.asked());
    let old = client.session().unwrap();

    server.rotate(|_| {});
    ask(&client, [4.0; 4]).await;
    // One that was refused, one that was answered; and one session, however many connections there were.
    assert_eq!(
        (server.sessions(), server.asked()),
        (before.0 + 1, before.1 + 2)
    );
    assert_eq!(client.counters().resent, 1);
    let new = client.session().unwrap();
    assert_ne!(old.keyset(), new.keyset());
    assert_eq!(*new.record.keyset(), server.enclave().world.keyset);

    // None of the others is left to stumble over.
    ask(&client, [5.0; 4]).await;
    assert_eq!(client.counters().resent, 1);
}

#[tokio::test]
async fn a_server_that_always_refuses_is_asked_twice() {
    let server = Server::start().await;
    let client = server.builder().connect().await.unwrap();
    ask(&client, [1.0; 4]).await;
    server.hooks().infer = Some(Box::new(|_, _, _| Reply::problem(421, "Misdirected")));
    let asked = client.infer("digits", &[input([2.0; 4])]).await;
    refused(asked, 4, "answer.refused");
    assert_eq!(server.asked(), 1 + 2);
    server.hooks().infer = None;
    // The keyset was in force all the time: its connections are good for more than one request.
    let sessions = server.sessions();
    for n in 0..3 {
        ask(&client, [n as f32; 4]).await;
    }
    assert_eq!(server.sessions(), sessions);
}

#[tokio::test]
async fn what_a_new_enclave_cannot_prove_is_not_sent_to_it() {
    let server = Server::start().await;
    let client = server.builder().connect().await.unwrap();
    ask(&client, [1.0; 4]).await;
    server.rotate(|world| world.machine.report.measurement = [6; 48]);
    let asked = client.infer("digits", &[input([2.0; 4])]).await;
    refused(asked, 4, "snp.measurement");
    // The first try went to the enclave that was proven, and was refused there unread.
    assert_eq!(server.asked(), 1 + 1);
    assert_eq!(client.counters().sessions_refused, 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_is_noticed_and_the_request_sent_once() {
    let server = Server::start().await;
    let client = server.builder().connect().await.unwrap();
    server.hooks().infer = Some(Box::new(|_, _, honest| {
        honest.header("connection", "close")
    }));
    for n in 0..3 {
        ask(&client, [n as f32; 4]).await;
    }
    assert_eq!((server.sessions(), server.asked()), (3, 3));
}

#[tokio::test]
async fn what_may_have_been_received_is_not_sent_again() {
    let server = Server::start().await;
    let client = server.builder().connect().await.unwrap();
    ask(&client, [1.0; 4]).await;
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{".to_vec();
    for broken in [Vec::new(), half] {
        let before = server.asked();
        server.hooks().infer = Some(Box::new(move |_, _, _| Reply::Raw(broken.clone())));
        let asked = client.infer("digits", &[input([2.0; 4])]).await;
        refused(asked, 1, "connection.io");
        assert_eq!(server.asked(), before + 1);
        // And the next one has a connection of its own.
        server.hooks().infer = None;
        ask(&client, [3.0; 4]).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_late_is_given_up_with_its_connection() {
    let server = Server::start().await;
    let client = server.builder().timeout(Duration::from_secs(2));
    let client = client.connect().await.unwrap();
    ask(&client, [1.0; 4]).await;
    server.hooks().infer = Some(Box::new(|_, _, _| Reply::Silence));
    let asked = client.infer("digits", &[input([2.0; 4])]).await;
    refused(asked, 4, "connection.late");
    server.quiet().await;
    server.hooks().infer = None;
    ask(&client, [3.0; 4]).await;
    assert_eq!(server.sessions(), 2);
}

#[tokio::test]
async fn an_answer_over_the_bound_is_refused() {
    let server = Server::start().await;
    let client = server.builder().connect().await.unwrap();
    let relay = |body: usize| {
        let request = Request::post("/v2")
            .body(Bytes::from(vec![b'x'; body]))
            .unwrap();
        client.relay(request, 1000)
    };
    assert_eq!(relay(1000).await.unwrap().body.len(), 1000);
    refused(relay(1001).await, 2, "answer.format");
}

#[tokio::test]
async fn other_requests_go_over_an_attested_connection_too() {
    let server = Server::start().await;
    let client = server.builder().connect().await.unwrap();
    let request = Request::get("http://elsewhere.invalid/v2/models/digits?x=1")
        .header("connection", "close, x-hop")
        .header("x-hop", "by hop")
        .header("host", "elsewhere.invalid")
        .header("accept", "application/json")
        .body(Bytes::new())
        .unwrap();
    let answer = client.relay(request, 1000).await.unwrap();
    assert_eq!(
        answer.header("x-target").unwrap(),
        Some("/v2/models/digits?x=1")
    );
    let last = server.inner.seen.lock().unwrap().pop().unwrap();
    assert!(last.tls);
    assert_eq!(format!("https://{}", last.headers["host"]), server.url);
    assert_eq!(last.headers["accept"], "application/json");
    for name in ["connection", "x-hop"] {
        assert!(!last.headers.contains_key(name), "{name}");
    }
    let connect = Request::connect("elsewhere.invalid:1").body(Bytes::new());
    refused(client.relay(connect.unwrap(), 1000).await, 1, "usage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_share_few_connections_and_each_gets_his_own_answer() {
    let server = Server::start().await;
    let client = server.builder().connections(3).connect().await.unwrap();
    server.hooks().infer = Some(Box::new(|_, seen, honest| {
        let after = Duration::from_millis(u64::from(seen.body.last().copied().unwrap_or(0) % 7));
        Reply::Later(after, Box::new(honest))
    }));
    let asking: Vec<_> = (0..24)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { ask(&client, [n as f32, 0.5, 1.0, n as f32 / 3.0]).await })
        })
        .collect();
    for asked in asking {
        asked.await.unwrap();
    }
    assert_eq!(server.asked(), 24);
    assert!(server.inner.most_open.load(Ordering::SeqCst) <= 3);
    assert!(server.sessions() <= 3, "{}", server.sessions());
    assert_eq!(client.counters().verified, 24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_caller_who_goes_takes_his_connection_with_him() {
    let server = Server::start().await;
    let client = server.builder().connections(1).connect().await.unwrap();
    for wait in [0, 1, 3, 10, 30] {
        // The answer comes while the caller is going, or after that.
        server.hooks().infer = Some(Box::new(|_, _, honest| {
            Reply::Later(Duration::from_millis(10), Box::new(honest))
        }));
        let question = [input([1.0; 4])];
        let gone = client.infer("digits", &question);
        let _ = tokio::time::timeout(Duration::from_millis(wait), gone).await;
        server.hooks().infer = None;
        ask(&client, [wait as f32, 2.0, 3.0, 4.0]).await;
    }
}

#[tokio::test]
async fn a_session_is_replaced_when_it_is_old_or_its_keyset_ends() {
    let server = Server::start().await;
    let clock = Arc::new(AtomicU64::new(World::AT));
    let own = clock.clone();
    let builder = server.builder().clock(move || own.load(Ordering::SeqCst));
    let life = Duration::from_secs(2);
    let client = builder.session_life(life).connect().await.unwrap();
    ask(&client, [1.0; 4]).await;
    assert_eq!(server.sessions(), 1);
    tokio::time::sleep(life).await;
    ask(&client, [2.0; 4]).await;
    assert_eq!(server.sessions(), 2);

    // The keyset's last second, and the one after it.
    let builder = server
        .builder()
        .collateral(server.enclave().collateral_file());
    let own = clock.clone();
    let client = builder.clock(move || own.load(Ordering::SeqCst));
    let client = client.connect().await.unwrap();
    let before = (server.sessions(), server.asked());
    let end = server.enclave().world.keyset.not_after;
    clock.store(end, Ordering::SeqCst);
    drop(client.infer("digits", &[input([3.0; 4])]).await.unwrap());
    assert_eq!(
        (server.sessions(), server.asked()),
        (before.0, before.1 + 1)
    );
    clock.store(end + 1, Ordering::SeqCst);
    let asked = client.infer("digits", &[input([4.0; 4])]).await;
    refused(asked, 4, "keyset.lifetime");
    assert_eq!(
        (server.sessions(), server.asked()),
        (before.0 + 1, before.1 + 1)
    );
    server.rotate(|world| world.keyset.not_after += 3_600);
    drop(client.infer("digits", &[input([5.0; 4])]).await.unwrap());
    assert_eq!(
        (server.sessions(), server.asked()),
        (before.0 + 2, before.1 + 2)
    );
}

#[tokio::test]
async fn a_client_has_a_connection_at_least() {
    let server = Server::start().await;
    server.builder().connections(1).connect().await.unwrap();
    refused(server.builder().connections(0).connect().await, 1, "usage");
}

/// A relay in front of a server; what it is told to do, it does to what comes back from then on.
async fn relay(server: &Server) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let behind = server.url.strip_prefix("https://").unwrap().to_owned();
    let what = Arc::new(AtomicU64::new(HONEST));
    let told = what.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (told, behind) = (told.clone(), behind.clone());
            tokio::spawn(async move {
                let server = TcpStream::connect(behind).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                });
                let mut buffer = vec![0; 65_536];
                while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
                    match told.load(Ordering::SeqCst) {
                        FLIP => buffer[n - 1] ^= 1,
                        CUT => return,
                        _ => {}
                    }
                    if to_client.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, what)
}

const HONEST: u64 = 0;
const FLIP: u64 = 1;
const CUT: u64 = 2;

#[tokio::test]
async fn records_that_are_altered_or_cut_off_give_no_answer() {
    let server = Server::start().await;
    let (url, what) = relay(&server).await;
    let connect = || {
        Client::builder(&url, server.policy(&[]))
            .unwrap()
            .roots(server.roots())
            .expect_simulated(true)
            .clock(|| World::AT)
            .connect()
    };
    for (doing, exit, deciding) in [(FLIP, 3, "connection.tls"), (CUT, 1, "connection.io")] {
        what.store(HONEST, Ordering::SeqCst);
        let client = connect().await.unwrap();
        ask(&client, [1.0; 4]).await;
        what.store(doing, Ordering::SeqCst);
        let asked = client.infer("digits", &[input([2.0; 4])]).await;
        refused(asked, exit, deciding);
        // The same in the handshake.
        refused(connect().await, exit, deciding);
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_taken_for_a_whole_one() {
    let server = Server::start().await;
    let client = server.builder().connect().await.unwrap();
    let relay = || client.relay(Request::get("/v2").body(Bytes::new()).unwrap(), 1000);
    let open_ended = b"HTTP/1.1 200 OK\r\n\r\nhalf of it".to_vec();
    let own = open_ended.clone();
    server.hooks().infer = Some(Box::new(move |_, _, _| Reply::Raw(own.clone())));
    assert_eq!(
        relay().await.unwrap().body,
        "half of it",
        "and TLS says that this is all"
    );
    server.hooks().infer = Some(Box::new(move |_, _, _| Reply::Torn(open_ended.clone())));
    refused(relay().await, 1, "connection.io");
}
