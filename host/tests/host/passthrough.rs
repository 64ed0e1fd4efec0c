//! TLS that goes through unread. Nothing here is TLS: to the host it makes no difference.

use std::{
    future::Future,
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use hyper::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_vsock::{VsockAddr, VsockListener};

use crate::{
    client::{get, raw, read_all, until},
    enclave::Enclave,
    raw::{RawEnclave, Then, nobody, nobody_yet},
    run::{Place, Process},
};

const HANDSHAKE: u8 = 0x16;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Long enough on the busiest machine.
const SOON: Duration = Duration::from_secs(20);

/// Bytes without a pattern, the same for the same seed; the first as TLS begins.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    if let Some(first) = bytes.first_mut() {
        *first = HANDSHAKE;
    }
    bytes
}

/// A TLS listener of the enclave, and what it does with each connection.
async fn listener<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A TLS listener that says what it hears.
async fn echo() -> SocketAddr {
    listener(|mut stream| async move {
        let (mut reading, mut writing) = stream.split();
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
        let _ = writing.shutdown().await;
    })
    .await
}

/// A host in front of a TLS listener alone.
async fn in_front_of(tls: SocketAddr, enclave: &'static str, limits: &'static str) -> Running {
    let place = Place::new(nobody().await, nobody().await)
        .with_tls(tls)
        .with(enclave, limits);
    let host = place.start().await;
    Running {
        address: host.address(),
        _place: place,
        host,
    }
}

struct Running {
    address: SocketAddr,
    _place: Place,
    host: host::Host,
}

/// Says `said` and then ends; hears until the other side ends.
async fn exchange(stream: TcpStream, said: &[u8]) -> Vec<u8> {
    let (mut reading, mut writing) = stream.into_split();
    let mut heard = Vec::new();
    let saying = async {
        writing.write_all(said).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let both = async { tokio::join!(saying, reading.read_to_end(&mut heard)) };
    timeout(SOON, both).await.unwrap().1.unwrap();
    heard
}

/// One exchange of bytes over a connection, with what went wrong instead of a panic.
async fn echoes(address: SocketAddr, said: &[u8]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(said).await?;
    let mut heard = vec![0; said.len()];
    stream.read_exact(&mut heard).await?;
    assert!(heard == said);
    Ok(())
}

/// The connection has ended, in whatever way; bytes that came before are given.
async fn ended(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    match timeout(SOON, stream.read_to_end(&mut heard)).await.unwrap() {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bytes_are_the_same_at_both_ends() {
    const LENGTHS: [(usize, usize); 9] = [
        (1, 0),
        (1, 1),
        (100, 65_535),
        (65_536, 65_537),
        (65_537, 3_000_001),
        (1_234_567, 10),
        (5_000_000, 7_654_321),
        (8 << 20, 1),
        (1, 16 << 20),
    ];
    let up = |number: u8| bytes(1_000 + u64::from(number), LENGTHS[usize::from(number)].0);
    let down = |number: u8| bytes(u64::from(number), LENGTHS[usize::from(number)].1);
    let (right, mut was_right) = mpsc::unbounded_channel();
    let tls = listener(move |mut stream| {
        let right = right.clone();
        async move {
            let mut head = [0; 2];
            stream.read_exact(&mut head).await.unwrap();
            let heard = exchange(stream, &down(head[1])).await;
            right.send(heard == up(head[1])).unwrap();
        }
    })
    .await;
    let Running { address, host, .. } = in_front_of(tls, "", "").await;
    // One by one, and then all at once.
    for at_once in [1, LENGTHS.len()] {
        let mut under_way = JoinSet::new();
        for number in 0..LENGTHS.len() as u8 {
            while under_way.len() >= at_once {
                under_way.join_next().await.unwrap().unwrap();
            }
            under_way.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(&[HANDSHAKE, number]).await.unwrap();
                assert!(
                    exchange(stream, &up(number)).await == down(number),
                    "{number}"
                );
            });
        }
        while let Some(ended) = under_way.join_next().await {
            ended.unwrap();
        }
        for _ in LENGTHS {
            assert!(timeout(SOON, was_right.recv()).await.unwrap().unwrap());
        }
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enclave_in_vsock_is_reached_too() {
    const LOCAL: u32 = 1;
    let port = 20_000 + std::process::id() % 10_000;
    let listener = match VsockListener::bind(VsockAddr::new(LOCAL, port)) {
        Ok(listener) => listener,
        Err(error) => {
            println!(
                "SKIPPED: an_enclave_in_vsock_is_reached_too: no vsock loopback here: {error}"
            );
            return;
        }
    };
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        tokio::io::copy(&mut reading, &mut writing).await.unwrap();
        writing.shutdown().await.unwrap();
    });
    let place = Place::new(nobody().await, nobody().await)
        .with("connect_timeout_ms = 300", "drain_ms = 100");
    let tls = format!("tls = \"vsock://{LOCAL}:{port}\"\nconnect_timeout_ms");
    let settings = place.settings().replacen("connect_timeout_ms", &tls, 1);
    let host = host::Host::start(&host::config::Config::parse(&settings).unwrap())
        .await
        .unwrap();
    let said = bytes(11, 3_000_000);
    let stream = TcpStream::connect(host.address()).await.unwrap();
    assert!(exchange(stream, &said).await == said);
    host.stop().await;
}

/// What stood on the way when a connection broke off is never another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_over_for_the_next_connection() {
    let tls = echo().await;
    let Running { address, host, .. } = in_front_of(tls, "", "").await;
    for round in 0..60 {
        // Much is said, nothing is heard, and then the caller is gone.
        let mut broken = JoinSet::new();
        for _ in 0..4 {
            broken.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let said = bytes(1, 2 << 20);
                let _ = timeout(Duration::from_millis(20), stream.write_all(&said)).await;
            });
        }
        broken.join_all().await;
        let said = bytes(round + 2, 600_000);
        let heard = exchange(TcpStream::connect(address).await.unwrap(), &said).await;
        assert!(heard == said, "{round}");
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_side_can_end_and_hear_the_other_to_its_end() {
    // The caller ends first: the enclave hears the end, and only then says anything.
    let tls = listener(|mut stream| async move {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        heard.extend_from_slice(&bytes(7, 1_000_000));
        stream.write_all(&heard).await.unwrap();
    })
    .await;
    let Running { address, host, .. } = in_front_of(tls, "", "").await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let said = bytes(8, 200_000);
    stream.write_all(&said).await.unwrap();
    let early = timeout(Duration::from_millis(100), stream.read_u8()).await;
    assert!(early.is_err(), "the enclave has heard no end yet");
    stream.shutdown().await.unwrap();
    assert!(ended(&mut stream).await == [said, bytes(7, 1_000_000)].concat());
    host.stop().await;

    // The enclave ends first, and then hears.
    let (heard, mut was_heard) = mpsc::unbounded_channel();
    let tls = listener(move |mut stream| {
        let heard = heard.clone();
        async move {
            stream.write_all(b"last words").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            heard.send(rest).unwrap();
        }
    })
    .await;
    let Running { address, host, .. } = in_front_of(tls, "", "").await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[HANDSHAKE]).await.unwrap();
    assert_eq!(ended(&mut stream).await, b"last words");
    assert!(was_heard.try_recv().is_err());
    let said = bytes(9, 1_000_000);
    stream.write_all(&said).await.unwrap();
    stream.shutdown().await.unwrap();
    let rest = timeout(SOON, was_heard.recv()).await.unwrap().unwrap();
    assert!(rest == [&[HANDSHAKE][..], &said].concat());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enclave_that_is_away_ends_the_connection_at_once() {
    let public = RawEnclave::start((0..3).map(|_| Then::Say(OK.to_vec()))).await;
    let (away, later) = nobody_yet();
    let place = Place::new(public.address, nobody().await).with_tls(away);
    let host = place.start().await;
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    let began = Instant::now();
    stream.write_all(&bytes(1, 300)).await.unwrap();
    assert_eq!(ended(&mut stream).await, b"");
    assert!(began.elapsed() < Duration::from_secs(5), "at once");
    // HTTP does not care; and when the enclave is there, TLS goes through.
    assert_eq!(get(host.address(), "/x").await.status, StatusCode::OK);
    let listener = later.listen(16).unwrap();
    let answers = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"here").await.unwrap();
    });
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    stream.write_all(&[HANDSHAKE]).await.unwrap();
    assert_eq!(ended(&mut stream).await, b"here");
    answers.await.unwrap();
    host.stop().await;

    // Nobody is known to listen there; whether that is refused or comes to nothing, it ends in time.
    let place = Place::new(away, nobody().await).with("connect_timeout_ms = 300", "");
    let settings = place.settings().replacen(
        "connect_timeout_ms",
        "tls = \"vsock://2:4242\"\nconnect_timeout_ms",
        1,
    );
    let host = host::Host::start(&host::config::Config::parse(&settings).unwrap())
        .await
        .unwrap();
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    let began = Instant::now();
    stream.write_all(&[HANDSHAKE]).await.unwrap();
    assert_eq!(ended(&mut stream).await, b"");
    assert!(began.elapsed() < Duration::from_secs(10));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enclave_that_closes_in_the_middle_is_heard_so_far() {
    // In order: all of what it said arrives. With something unread, the system resets.
    for (unread, length) in [(false, 100_000), (false, 3_000_000), (true, 100_000)] {
        let tls = listener(move |mut stream| async move {
            stream.read_exact(&mut [0; 1]).await.unwrap();
            if unread {
                // What the caller says meanwhile is never read.
                sleep(Duration::from_millis(100)).await;
            }
            stream.write_all(&bytes(3, length)).await.unwrap();
        })
        .await;
        let Running { address, host, .. } = in_front_of(tls, "", "").await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let said = if unread { 50_000 } else { 1 };
        stream.write_all(&bytes(4, said)).await.unwrap();
        let heard = ended(&mut stream).await;
        assert!(bytes(3, length).starts_with(&heard));
        assert!(
            unread || heard.len() == length,
            "{} of {length}",
            heard.len()
        );
        drop(stream);
        host.stop().await;
    }
}

/// An enclave that refuses early says so and closes; the system resets what it has not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_words_are_heard_while_the_caller_still_talks() {
    let tls = listener(|mut stream| async move {
        let _ = stream.read(&mut [0; 4_096]).await;
        let _ = stream.write_all(b"no").await;
    })
    .await;
    let Running { address, host, .. } = in_front_of(tls, "", "").await;
    for _ in 0..40 {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        let caller = tokio::spawn(async move { writing.write_all(&bytes(1, 10_000_000)).await });
        let mut heard = [0; 2];
        let read = timeout(SOON, reading.read_exact(&mut heard)).await.unwrap();
        assert_eq!((read.unwrap(), &heard), (2, b"no"));
        // Nobody is kept waiting for what nobody will read.
        let _ = timeout(SOON, caller).await.unwrap();
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_is_gone_is_gone_for_the_enclave_too() {
    let (ended, mut has_ended) = mpsc::unbounded_channel();
    let tls = listener(move |mut stream| {
        let ended = ended.clone();
        async move {
            // Says more than anyone would hold, until nobody takes it.
            let piece = bytes(5, 1 << 20);
            while stream.write_all(&piece).await.is_ok() {}
            ended.send(()).unwrap();
        }
    })
    .await;
    let Running { address, host, .. } = in_front_of(tls, "", "").await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[HANDSHAKE]).await.unwrap();
    stream.read_exact(&mut vec![0; 1 << 20]).await.unwrap();
    assert!(has_ended.try_recv().is_err());
    drop(stream);
    timeout(SOON, has_ended.recv()).await.unwrap().unwrap();
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_move_is_closed() {
    let tls = echo().await;
    let limits = "idle_timeout_ms = 300";
    // Nothing said at all: as with HTTP.
    let Running { address, host, .. } = in_front_of(tls, "answer_timeout_ms = 20000", limits).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let began = Instant::now();
    assert_eq!(ended(&mut silent).await, b"");
    let closed = began.elapsed();
    assert!(
        closed > Duration::from_millis(250) && closed < Duration::from_secs(10),
        "{closed:?}"
    );
    host.stop().await;

    // As long as something moves, either way, it stays; then the longer of the two counts.
    let Running { address, host, .. } = in_front_of(tls, "answer_timeout_ms = 1500", limits).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..4 {
        stream.write_all(&[HANDSHAKE]).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), HANDSHAKE);
        sleep(Duration::from_millis(700)).await;
    }
    let began = Instant::now();
    assert_eq!(ended(&mut stream).await, b"");
    let closed = began.elapsed();
    assert!(
        closed > Duration::from_millis(250) && closed < Duration::from_secs(10),
        "{closed:?}"
    );

    host.stop().await;

    // One that talks is enough, whichever it is.
    let talks = async |stream: &mut TcpStream| -> std::io::Result<()> {
        for _ in 0..8 {
            stream.write_all(b"and").await?;
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    };
    let talker = listener(move |mut stream| async move { drop(talks(&mut stream).await) }).await;
    let Running { address, host, .. } =
        in_front_of(talker, "answer_timeout_ms = 900", limits).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[HANDSHAKE]).await.unwrap();
    assert_eq!(ended(&mut stream).await, b"and".repeat(8));
    drop(stream);
    host.stop().await;
    let (heard, mut was_heard) = mpsc::unbounded_channel();
    let hears = listener(move |mut stream| {
        let heard = heard.clone();
        async move { heard.send(ended(&mut stream).await).unwrap() }
    })
    .await;
    let Running { address, host, .. } = in_front_of(hears, "answer_timeout_ms = 900", limits).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[HANDSHAKE]).await.unwrap();
    talks(&mut stream).await.unwrap();
    drop(stream);
    let rest = timeout(SOON, was_heard.recv()).await.unwrap().unwrap();
    assert!(rest == [&[HANDSHAKE][..], &b"and".repeat(8)].concat());
    host.stop().await;

    // One side that has ended is no reason to wait for ever for the other.
    let mute = listener(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
        std::future::pending::<()>().await;
    })
    .await;
    let Running { address, host, .. } = in_front_of(mute, "answer_timeout_ms = 400", limits).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[HANDSHAKE]).await.unwrap();
    stream.shutdown().await.unwrap();
    let began = Instant::now();
    assert_eq!(ended(&mut stream).await, b"");
    assert!(began.elapsed() > Duration::from_millis(300));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_enclave_has_ended_does_not_wait_as_long_as_an_answer() {
    // An enclave that says its last at once, and hears the caller to its end.
    let tls = listener(|mut stream| async move {
        let _ = stream.write_all(b"last").await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let limits = "idle_timeout_ms = 1500\nconnections = 1";
    let Running { address, host, .. } = in_front_of(tls, "answer_timeout_ms = 60000", limits).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(&[HANDSHAKE]).await.unwrap();
    assert_eq!(ended(&mut first).await, b"last");
    // Still connected and silent: it has its place for so long and no longer. While it talks it keeps it.
    for _ in 0..4 {
        sleep(Duration::from_millis(500)).await;
        first.write_all(b"and").await.unwrap();
    }
    let began = Instant::now();
    loop {
        let mut next = TcpStream::connect(address).await.unwrap();
        next.write_all(&[HANDSHAKE]).await.unwrap();
        if timeout(SOON, ended(&mut next)).await.unwrap() == b"last" {
            break;
        }
        assert!(began.elapsed() < SOON);
        sleep(Duration::from_millis(5)).await;
    }
    assert!(began.elapsed() > Duration::from_millis(1_200));
    drop(first);
    host.stop().await;
}

/// Kilobytes of memory that a process uses.
fn memory(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// Whoever does not read makes the other side wait, not the host hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slow_readers_hold_the_others_back() {
    const CONNECTIONS: u64 = 48;
    let said = Arc::new(AtomicU64::new(0));
    let counted = said.clone();
    let tls = listener(move |mut stream| {
        let said = counted.clone();
        async move {
            let piece = bytes(6, 100_000);
            while let Ok(count @ 1..) = stream.write(&piece).await {
                said.fetch_add(count as u64, SeqCst);
                if said.load(SeqCst) > 20 << 30 {
                    return;
                }
            }
        }
    })
    .await;
    let place = Place::new(nobody().await, nobody().await).with_tls(tls);
    let host = place.spawn();
    echoes(host.address(), &[HANDSHAKE]).await.unwrap();
    let before = memory(&host);
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(host.address()).await.unwrap();
        stream.write_all(&[HANDSHAKE]).await.unwrap();
        streams.push(stream);
    }
    // It comes to a standstill.
    let end = Instant::now() + SOON;
    loop {
        let before = said.load(SeqCst);
        sleep(Duration::from_millis(700)).await;
        if before > 0 && said.load(SeqCst) == before {
            break;
        }
        assert!(Instant::now() < end, "never at a standstill: {before}");
    }
    let held = said.load(SeqCst);
    // The system's own buffers, on both sockets of both connections, and a pipe.
    let most = |name: &str| -> u64 {
        let three = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        three.split_whitespace().last().unwrap().parse().unwrap()
    };
    let buffers = 2 * (most("tcp_rmem") + most("tcp_wmem")) + (1 << 20);
    assert!(held < CONNECTIONS * buffers, "{held}");
    let grown = memory(&host).saturating_sub(before);
    assert!(grown < 128 * CONNECTIONS + 4_096, "{grown} KiB");
    // It goes on where it stood.
    for stream in &mut streams {
        let mut heard = vec![0; 1_000_000];
        timeout(SOON, stream.read_exact(&mut heard))
            .await
            .unwrap()
            .unwrap();
    }
    drop(streams);
    assert_eq!(host.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_goes_on_at_the_same_port() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control).with_tls(echo().await);
    let host = place.start().await;
    let address = host.address();
    // However the first bytes come in.
    for pause in [0, 50] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for part in [
            &b"P"[..],
            b"O",
            b"ST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na",
            b"bc",
        ] {
            sleep(Duration::from_millis(pause)).await;
            stream.write_all(part).await.unwrap();
        }
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"abc"));
        // The connection is kept.
        stream
            .write_all(b"GET /y HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        assert!(read_all(&mut stream).await.starts_with(b"HTTP/1.1 200 "));
    }
    echoes(address, &bytes(1, 1_000)).await.unwrap();
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_begins_as_tls_goes_through() {
    let came = Arc::new(AtomicU64::new(0));
    let counted = came.clone();
    let tls = listener(move |mut stream| {
        counted.fetch_add(1, SeqCst);
        async move { drop(stream.write_all(b"tls").await) }
    })
    .await;
    let public = RawEnclave::start([]).await;
    let place = Place::new(public.address, nobody().await).with_tls(tls);
    let host = place.start().await;
    for first in (0..=255).filter(|first| *first != HANDSHAKE && !first.is_ascii_graphic()) {
        let answer = raw(
            host.address(),
            &[first, 3, 1, 0, 5, 1, 0, 0, 1, 0, b'\r', b'\n', b'\r', b'\n'],
        )
        .await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "),
            "{first}"
        );
    }
    assert_eq!((came.load(SeqCst), public.came_in().len()), (0, 0));
    let hello = [HANDSHAKE, 3, 1, 0, 5, 1, 0, 0, 1, 0];
    assert_eq!(raw(host.address(), &hello).await, b"tls");
    assert_eq!((came.load(SeqCst), public.came_in().len()), (1, 0));
    host.stop().await;

    // Where no TLS listener is set it is bad HTTP, as ever.
    let place = Place::new(public.address, nobody().await);
    let host = place.start().await;
    let answer = raw(host.address(), &hello).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 400 "),
        "{}",
        answer.escape_ascii()
    );
    assert_eq!((came.load(SeqCst), public.came_in().len()), (1, 0));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_http_share_the_connections() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control)
        .with_tls(echo().await)
        .with("", "connections = 2");
    let host = place.start().await;
    let address = host.address();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[HANDSHAKE]).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), HANDSHAKE);
        held.push(stream);
    }
    // HTTP is told that there is no place, TLS is closed.
    assert_eq!(
        get(address, "/x").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let mut fourth = TcpStream::connect(address).await.unwrap();
    fourth.write_all(&[HANDSHAKE]).await.unwrap();
    assert_eq!(timeout(SOON, ended(&mut fourth)).await.unwrap(), b"");
    held.clear();
    until(address, "/x", "let in", |answer| {
        answer.status == StatusCode::OK
    })
    .await;
    while echoes(address, &[HANDSHAKE]).await.is_err() {
        sleep(Duration::from_millis(5)).await;
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_tls_go_on_for_the_drain_time() {
    let tls = echo().await;
    for ends_by_itself in [true, false] {
        let Running { address, host, .. } = in_front_of(tls, "", "drain_ms = 6000").await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[HANDSHAKE]).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), HANDSHAKE);
        let began = Instant::now();
        let stopping = tokio::spawn(host.stop());
        // Who has said nothing has nothing to finish.
        assert_eq!(ended(&mut silent).await, b"");
        assert!(began.elapsed() < Duration::from_secs(3));
        sleep(Duration::from_millis(100)).await;
        assert!(TcpStream::connect(address).await.is_err());
        stream.write_all(b"more").await.unwrap();
        let mut more = [0; 4];
        stream.read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"more");
        if ends_by_itself {
            drop(stream);
            stopping.await.unwrap();
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "{:?}",
                began.elapsed()
            );
        } else {
            assert_eq!(ended(&mut stream).await, b"");
            stopping.await.unwrap();
            assert!(
                began.elapsed() > Duration::from_millis(5_900),
                "{:?}",
                began.elapsed()
            );
        }
    }
}

/// The log at its most talkative, and the store, hold nothing of what went through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_goes_through_is_logged_or_stored() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control)
        .with_tls(echo().await)
        .with("", "drain_ms = 200");
    let settings = place.settings().replace("host=debug", "trace");
    let file = place.path("host.toml");
    std::fs::write(&file, settings).unwrap();
    let host = Process::spawn(&file);
    let address = host.address();
    let marker = b"Moby-Dick; or, The Whale";
    let said = [&[HANDSHAKE][..], &marker.repeat(50_000)].concat();
    echoes(address, &said).await.unwrap();
    let mut open = TcpStream::connect(address).await.unwrap();
    open.write_all(&said[..100]).await.unwrap();
    open.read_exact(&mut [0; 100]).await.unwrap();
    // Broken off, and refused.
    let mut broken = TcpStream::connect(address).await.unwrap();
    broken.write_all(&said).await.unwrap();
    drop(broken);
    assert_eq!(get(address, "/x").await.status, StatusCode::OK);
    sleep(Duration::from_millis(300)).await;
    let (code, log) = host.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(ended(&mut open).await, b"");

    let mut kept = vec![("log".to_owned(), log.into_bytes())];
    for entry in std::fs::read_dir(place.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            kept.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    assert!(kept.iter().any(|(name, _)| name.ends_with("store.sqlite")));
    let holds = |looked_for: &[u8]| {
        let holds = |bytes: &[u8]| {
            bytes
                .windows(looked_for.len())
                .any(|part| part == looked_for)
        };
        let found = kept.iter().find(|(_, bytes)| holds(bytes));
        found.map(|(name, _)| name.as_str())
    };
    // What was logged and stored is found, so what went through would be.
    assert_eq!(holds(b"TLS was open"), Some("log"));
    assert!(holds(b"SQLite format").is_some());
    let marker = &marker[..8];
    let hex = touchstone_formats::text::hex_encode(marker);
    let base64 = touchstone_formats::text::base64_encode(&marker[..6]);
    let numbers = format!("{marker:?}");
    let numbers = numbers.trim_matches(['[', ']']);
    for looked_for in [
        marker,
        hex.as_bytes(),
        base64.as_bytes(),
        numbers.as_bytes(),
    ] {
        assert_eq!(holds(looked_for), None, "{}", looked_for.escape_ascii());
    }
}
