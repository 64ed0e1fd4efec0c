//! Enclaves and hosts that are killed under load, again and again.
//!
//! Five times of each; `TOUCHSTONE_KILLS=100 cargo test -p host --test host killed::` for a hundred.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode};
use tokio::{net::TcpStream, task::JoinSet, time::sleep};
use touchstone_formats::{Bundle, Guarantee, headers::TouchstoneResponse, text::hex_encode};

use crate::{
    client::{get, send},
    enclave::{Enclave, Id},
    run::Place,
};

const INFER: &str = "/v2/models/digits/infer";
/// Longest time until requests are answered again.
const RECOVERY: Duration = Duration::from_secs(2);

fn kills() -> usize {
    let said = std::env::var("TOUCHSTONE_KILLS").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or(5)
}

/// Callers under way, and what they were promised.
struct Load {
    stop: Arc<AtomicBool>,
    address: Arc<Mutex<SocketAddr>>,
    answered: Arc<AtomicUsize>,
    /// Connections that ended without an answer.
    broken: Arc<AtomicUsize>,
    callers: JoinSet<Vec<Id>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (stop, answered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let broken = Arc::new(AtomicUsize::new(0));
        let address = Arc::new(Mutex::new(address));
        let mut callers = JoinSet::new();
        for caller in 0..6 {
            let (stop, answered, address) = (stop.clone(), answered.clone(), address.clone());
            let broken = broken.clone();
            callers.spawn(async move {
                let mut promised = Vec::new();
                for number in 0.. {
                    if stop.load(SeqCst) {
                        break;
                    }
                    // Every question is another: an answer to somebody else's would show.
                    let mut question = format!("question {number} of {caller}");
                    // One caller's are too long to be sent again, and their answers may break off in the middle, as whoever
                    // reads them sees.
                    let is_long = caller == 5;
                    if is_long {
                        question = question.repeat(10_000);
                    }
                    let to = *address.lock().unwrap();
                    if TcpStream::connect(to).await.is_err() {
                        sleep(Duration::from_millis(5)).await;
                        continue;
                    }
                    let asked = question.clone();
                    let asking = tokio::spawn(async move {
                        let headers = [("touchstone", "require=(logged signed)")];
                        send(to, Method::POST, INFER, &headers, asked.as_bytes()).await
                    });
                    // The caller's own connection may end with the host: no answer then.
                    let Ok(answer) = asking.await else {
                        broken.fetch_add(usize::from(!is_long), SeqCst);
                        continue;
                    };
                    if answer.status != StatusCode::OK {
                        // What fails says so, and promises nothing.
                        assert!(answer.status.is_server_error(), "{answer:?}");
                        assert_eq!(answer.header("touchstone"), None, "{answer:?}");
                        sleep(Duration::from_millis(5)).await;
                        continue;
                    }
                    assert_eq!(&answer.body[..], question.as_bytes());
                    let said = answer.header("touchstone").unwrap();
                    promised.push(TouchstoneResponse::parse(said).unwrap().id);
                    answered.fetch_add(1, SeqCst);
                }
                promised
            });
        }
        Self {
            stop,
            address,
            answered,
            broken,
            callers,
        }
    }

    /// Requests are answered again; gives how long that took.
    async fn recovered(&self) -> Duration {
        let began = Instant::now();
        let before = self.answered.load(SeqCst);
        while self.answered.load(SeqCst) < before + 10 {
            assert!(began.elapsed() < Duration::from_secs(20), "never again");
            sleep(Duration::from_millis(1)).await;
        }
        began.elapsed()
    }

    async fn end(mut self) -> Vec<Id> {
        self.stop.store(true, SeqCst);
        let mut promised = Vec::new();
        while let Some(caller) = self.callers.join_next().await {
            promised.extend(caller.unwrap());
        }
        let different: HashSet<&Id> = promised.iter().collect();
        assert_eq!(
            different.len(),
            promised.len(),
            "one receipt for two answers"
        );
        promised
    }
}

/// Each promise is kept, or it is said that it never will be; and what is served is what was promised.
async fn judge(address: SocketAddr, promised: &[Id], acknowledged: &[Id]) -> (usize, usize) {
    let (mut kept, mut lost) = (0, 0);
    for id in promised.iter().chain(acknowledged) {
        let target = format!("/v1/receipts/{}", hex_encode(id));
        let end = Instant::now() + Duration::from_secs(20);
        let answer = loop {
            let answer = get(address, &target).await;
            if matches!(answer.status, StatusCode::OK | StatusCode::GONE) || Instant::now() > end {
                break answer;
            }
            sleep(Duration::from_millis(10)).await;
        };
        match answer.status {
            StatusCode::OK => {
                let bundle = Bundle::parse(&answer.body).unwrap();
                let receipt = touchstone_formats::Receipt::parse(&bundle.receipt).unwrap();
                assert_eq!(receipt.claims.cti, *id);
                assert!(receipt.claims.guarantees.contains(Guarantee::Logged));
                assert!(bundle.proof.is_some());
                assert_eq!(bundle.keyset.digest(), receipt.claims.keyset_digest);
                kept += 1;
            }
            StatusCode::GONE => {
                assert!(!acknowledged.contains(id), "{target}: it was acknowledged");
                lost += 1;
            }
            other => panic!("{target}: {other}"),
        }
    }
    (kept, lost)
}

/// Seals again and again, as an enclave does.
fn sealing(enclaves: &[Arc<Enclave>]) -> tokio::task::JoinHandle<()> {
    let enclaves = enclaves.to_vec();
    tokio::spawn(async move {
        loop {
            for enclave in &enclaves {
                enclave.seal();
            }
            sleep(Duration::from_millis(30)).await;
        }
    })
}

/// An enclave that was started anew is sent requests again; gives how long that took.
async fn answers_again(enclave: &Enclave) -> Duration {
    let (began, before) = (Instant::now(), enclave.seen_of(INFER));
    while enclave.seen_of(INFER) == before {
        assert!(began.elapsed() < RECOVERY, "{:?}", began.elapsed());
        sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

/// The only one there is: what it refuses meanwhile nobody else answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_only_enclave_killed_under_load_is_back_at_once() {
    let enclaves = [Enclave::start().await];
    let [only] = &enclaves;
    let place = Place::new(only.public, only.control);
    let host = place.spawn();
    let load = Load::start(host.address());
    load.recovered().await;
    let sealing = sealing(&enclaves);
    let (mut acknowledged, mut worst) = (Vec::new(), Duration::ZERO);
    for _ in 0..kills() {
        sleep(Duration::from_millis(150)).await;
        only.die().await;
        acknowledged.extend(only.acknowledged_receipts());
        sleep(Duration::from_millis(50)).await;
        only.rise().await;
        worst = worst.max(load.recovered().await);
        assert!(worst < RECOVERY, "{worst:?}");
    }
    assert_eq!(load.broken.load(SeqCst), 0);
    println!(
        "the only enclave killed {} times: back within {worst:?}",
        kills()
    );
    sleep(Duration::from_millis(300)).await;
    let promised = load.end().await;
    let (kept, lost) = judge(host.address(), &promised, &acknowledged).await;
    assert!(kept > 10 && acknowledged.len() > 10, "{kept} {lost}");
    sealing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn enclaves_killed_under_load_cost_no_acknowledged_receipt() {
    let enclaves = [Enclave::start().await, Enclave::start().await];
    let [a, b] = &enclaves;
    let place = Place::several(&[
        ("a", a.public, a.control, None),
        ("b", b.public, b.control, None),
    ]);
    let host = place.spawn();
    let load = Load::start(host.address());
    load.recovered().await;
    let sealing = sealing(&enclaves);
    let mut acknowledged = Vec::new();
    let mut worst = Duration::ZERO;
    for kill in 0..kills() {
        sleep(Duration::from_millis(150)).await;
        let enclave = &enclaves[kill % 2];
        enclave.die().await;
        acknowledged.extend(enclave.acknowledged_receipts());
        let took = load.recovered().await;
        assert!(took < RECOVERY, "{took:?}");
        enclave.rise().await;
        // It takes requests again itself, beside the other.
        worst = worst.max(took).max(answers_again(enclave).await);
    }
    // The host was there all the time: it said so, or asked another.
    assert_eq!(load.broken.load(SeqCst), 0);
    println!("{} enclaves killed: back within {worst:?}", kills());
    sleep(Duration::from_millis(300)).await;
    let promised = load.end().await;
    let (kept, lost) = judge(host.address(), &promised, &acknowledged).await;
    assert!(kept > 10 && acknowledged.len() > 10, "{kept} {lost}");
    sealing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hosts_killed_under_load_cost_no_receipt_at_all() {
    let enclaves = [Enclave::start().await, Enclave::start().await];
    let [a, b] = &enclaves;
    let place = Place::several(&[
        ("a", a.public, a.control, None),
        ("b", b.public, b.control, None),
    ]);
    let mut host = place.spawn();
    let load = Load::start(host.address());
    load.recovered().await;
    let sealing = sealing(&enclaves);
    let mut worst = Duration::ZERO;
    for _ in 0..kills() {
        sleep(Duration::from_millis(150)).await;
        host.kill();
        let began = Instant::now();
        host = place.spawn();
        *load.address.lock().unwrap() = host.address();
        load.recovered().await;
        worst = worst.max(began.elapsed());
        assert!(worst < RECOVERY, "{worst:?}");
    }
    println!("{} hosts killed: back within {worst:?}", kills());
    sleep(Duration::from_millis(300)).await;
    let promised = load.end().await;
    a.seal();
    b.seal();
    let acknowledged = [a.acknowledged_receipts(), b.acknowledged_receipts()].concat();
    let (kept, lost) = judge(host.address(), &promised, &acknowledged).await;
    // The enclaves were there all the time: nothing may be lost.
    assert!(kept > 10, "{kept}");
    assert_eq!(lost, 0);
    sealing.abort();
}
