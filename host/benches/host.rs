//! What the host's store costs: CPU for a receipt that is pulled and stored, and for a bundle that is served.
//!
//! `cargo bench -p host --bench host`. The host runs as a process of its own, so that its CPU time is its own; caller and
//! enclave share the machine with it. What relaying costs is measured by `--bench relay`.

#[path = "../tests/host/enclave.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod enclave;
mod programs;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use enclave::Enclave;
use programs::Relay;

/// Batches as an enclave under load makes them; how fast the host takes them, and at what cost.
async fn store() {
    println!("store: batches pulled, stored, acknowledged");
    println!(
        "{:>12} {:>12} {:>12} {:>16} {:>12} {:>12}",
        "receipts", "a batch", "receipts/s", "host CPU us/rcpt", "bytes/rcpt", "RSS MiB"
    );
    for (batches, size) in [(2_000, 10), (200, 400), (40, 4_000)] {
        let enclave = Enclave::start().await;
        let ids = tokio::task::block_in_place(|| {
            let mut ids = Vec::new();
            for _ in 0..batches {
                ids.extend((0..size).map(|_| enclave.answer("logged")));
                enclave.seal();
            }
            ids
        });
        // What replies are made of is made before the clock starts.
        enclave.prepare();
        let folder = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let program = env!("CARGO_BIN_EXE_host").as_ref();
        let listeners = (enclave.public, enclave.control);
        let host = Relay::host_of(program, folder.path(), listeners, 2, None);
        let (before, _) = host.cpu();
        while enclave.acknowledged().last() != Some(&(batches as u64)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let (elapsed, cpu) = (began.elapsed().as_secs_f64(), host.cpu().0 - before);
        let bytes: u64 = ["store.sqlite", "store.sqlite-wal"]
            .iter()
            .map(|name| std::fs::metadata(folder.path().join(name)).map_or(0, |file| file.len()))
            .sum();
        println!(
            "{:>12} {size:>12} {:>12.0} {:>16.1} {:>12} {:>12}",
            ids.len(),
            ids.len() as f64 / elapsed,
            cpu / ids.len() as f64 * 1e6,
            bytes / ids.len() as u64,
            host.memory_mib()
        );
        if size == 400 {
            bundles(&host, &ids).await;
        }
    }
}

/// Bundles served from the store.
async fn bundles(host: &Relay, ids: &[enclave::Id]) {
    let served = Arc::new(AtomicU64::new(0));
    let ((before, _), began) = (host.cpu(), Instant::now());
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let (served, address) = (served.clone(), host.address);
            let ids: Vec<_> = ids.iter().skip(task).step_by(64).copied().collect();
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut buffer = vec![0; 64 << 10];
                for id in ids {
                    let target = touchstone_formats::text::hex_encode(&id);
                    let request = format!("GET /v1/receipts/{target} HTTP/1.1\r\nHost: h\r\n\r\n");
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let mut have = 0;
                    loop {
                        have += stream.read(&mut buffer[have..]).await.unwrap();
                        if buffer[..have].ends_with(b"}\n") {
                            break;
                        }
                    }
                    assert!(buffer.starts_with(b"HTTP/1.1 200 "));
                    served.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let count = served.load(SeqCst) as f64;
    println!(
        "{:>12} {:>12} {:>12.0} {:>16.1}   (bundles served a second, host CPU us each)",
        "",
        "bundles",
        count / began.elapsed().as_secs_f64(),
        (host.cpu().0 - before) / count * 1e6
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo test --benches` and `cargo bench -- --list` only ask whether it is there.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return;
    }
    store().await;
}
