//! What the pieces of one answer cost, one thread, the best of many samples, in microseconds.
//!
//! `cargo bench -p enclave`. Needs ONNX Runtime (`scripts/fetch-onnxruntime`); the models are written by
//! the tests' own writer. For whole servers under load there is `scripts/bench`.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use enclave::{
    admission::admit,
    answer::{Exchange, answer, refuse},
    problem::Problem,
    protocol::{Limits, encode_response, parse_request},
    seal::LoggedReceipt,
};
use touchstone_formats::{
    commitment::{request_digest, tensors_digest},
    digest::Digest,
    guarantee::GuaranteeSet,
    merkle::{RightEdge, append_batch},
};

#[path = "../tests/service/onnx.rs"]
#[allow(dead_code)]
mod onnx;
#[path = "../tests/service/source.rs"]
#[allow(dead_code)]
mod source;
#[path = "../tests/service/support.rs"]
#[allow(dead_code)]
mod support;
#[path = "../tests/service/tls.rs"]
#[allow(dead_code)]
mod tls;

/// The best mean of `samples` samples of `runs` runs each.
fn time(name: &str, runs: u32, mut piece: impl FnMut()) {
    let mut best = Duration::MAX;
    for _ in 0..40 {
        let started = Instant::now();
        for _ in 0..runs {
            piece();
        }
        best = best.min(started.elapsed() / runs);
    }
    println!("{name:44}{:9.2} µs", best.as_nanos() as f64 / 1e3);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(pieces());
    drop(runtime);
    connections();
}

/// Name of the thread that serves connections.
const SERVER: &str = "server";

/// What connections cost the thread that serves them, in CPU time. The quote of a session costs nothing here.
fn connections() {
    let server = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(SERVER)
        .enable_all()
        .build()
        .unwrap();
    let start = support::Running::start(
        &[tls::LISTEN],
        source::Source::new(Duration::ZERO),
        support::no_models(),
    );
    let running = server.block_on(start);
    let callers = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = Arc::new(tls::config());
    let handshake = || tls::handshake(running.tls(), config.clone());
    cpu(&callers, "connection: one GET, no TLS", async || {
        running.client().await.get("/v2/health/live").await;
    });
    cpu(&callers, "connection: TLS handshake", async || {
        drop(handshake().await.unwrap());
    });
    cpu(
        &callers,
        "connection: TLS handshake and session",
        async || {
            let mut connection = tls::Connection::over(handshake().await.unwrap()).await;
            connection.session(0).await;
        },
    );
    let mut connection = callers.block_on(tls::Connection::new(running.tls()));
    cpu(&callers, "session on an open connection", async || {
        connection.session(0).await;
    });
}

/// The best mean of some samples.
fn cpu(callers: &tokio::runtime::Runtime, name: &str, mut run: impl AsyncFnMut()) {
    const RUNS: u32 = 200;
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let started = server_time();
        callers.block_on(async {
            for _ in 0..RUNS {
                run().await;
            }
        });
        best = best.min((server_time() - started) / RUNS);
    }
    println!("{name:44}{:9.2} µs", best.as_nanos() as f64 / 1e3);
}

/// CPU time of the server's thread, by the kernel's own count (proc(5), schedstat).
fn server_time() -> Duration {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let read = |file| std::fs::read_to_string(task.join(file)).unwrap_or_default();
        if read("comm").trim() == SERVER {
            let first = read("schedstat").split(' ').next().map(str::parse);
            nanoseconds += first.and_then(Result::ok).unwrap_or(0);
        }
    }
    Duration::from_nanos(nanoseconds)
}

async fn pieces() {
    let Some((running, _models)) =
        support::Running::with_models("pieces", &["limits.unacknowledged_bytes = 10000000000"], 0)
            .await
    else {
        return;
    };
    let service = running.service.clone();
    let values: Vec<f32> = (0..64).map(|n| n as f32 / 16.0 + 0.0625).collect();
    let body = Bytes::from(format!(
        r#"{{"inputs":[{{"name":"X","datatype":"FP32","shape":[16,4],"data":{values:?}}}]}}"#
    ));
    let limits = Limits::default();
    let parsed = parse_request(&body, None, &limits).unwrap();
    let epoch = service.current().unwrap();
    let catalog = epoch.catalog.load_full();
    let model = catalog.models.find("reciprocal", None).unwrap().clone();
    let signed = GuaranteeSet::parse_words("signed").unwrap();
    let exchange = || Exchange {
        service: service.clone(),
        admission: admit(&service, &signed).ok().unwrap(),
        catalog: catalog.clone(),
        model: model.clone(),
        target: support::INFER.to_owned(),
        header_length: None,
        body: body.clone(),
        request: parsed.clone(),
        guarantees: signed,
        nonce: Some(vec![7; 32]),
        name_receipt: false,
        share: service.held.share(),
    };
    let mut lease = model.acquire().await.unwrap();
    for _ in 0..1_000 {
        lease.run(&parsed).unwrap();
    }
    let output = lease.run(&parsed).unwrap();

    time("parse the request (64 numbers)", 500, || {
        black_box(parse_request(&body, None, &limits).unwrap());
    });
    time("run the model", 500, || {
        black_box(lease.run(&parsed).unwrap());
    });
    time("write the answer", 500, || {
        black_box(encode_response(&model, &parsed, &output, None).unwrap());
    });
    time("admission", 500, || {
        black_box(admit(&service, &signed).ok().unwrap());
    });
    time("digest of the request", 500, || {
        black_box(request_digest("POST", support::INFER, None, &body));
    });
    time("digest of the inputs", 500, || {
        black_box(tensors_digest(&parsed.tensor_refs()).unwrap());
    });
    let problem = Problem::new(400, "A problem", "which stands in the answer's place");
    time("refusal: two commitments, receipt, log", 500, || {
        black_box(refuse(exchange(), &problem).ok().unwrap());
    });
    drop(lease);
    let mut best = Duration::MAX;
    for _ in 0..20_000 {
        let lease = model.acquire().await.unwrap();
        let exchange = exchange();
        let started = Instant::now();
        black_box(answer(exchange, lease).ok().unwrap());
        best = best.min(started.elapsed());
    }
    println!(
        "{:44}{:9.2} µs",
        "answer, run and all",
        best.as_nanos() as f64 / 1e3
    );

    for count in [400, 4_000, 20_000] {
        let leaves: Vec<Digest> = (0..count)
            .map(|n: u32| Digest::of(&n.to_le_bytes()))
            .collect();
        let (edge, _) = append_batch(&RightEdge::new(), &leaves);
        let started = Instant::now();
        let (_, proofs) = append_batch(&edge, &leaves);
        for at in 0..leaves.len() {
            black_box(proofs.proof(at));
        }
        let each = started.elapsed().as_nanos() as f64 / 1e3 / f64::from(count);
        println!(
            "{:44}{each:9.2} µs",
            format!("proof, in a batch of {count}")
        );
    }
    let object = Digest::of(b"object");
    time("leaf of a receipt", 500, || {
        black_box::<Arc<LoggedReceipt>>(LoggedReceipt::new([0; 16], Vec::new(), object, false));
    });
}
