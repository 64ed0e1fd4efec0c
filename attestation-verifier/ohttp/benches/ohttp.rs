//! What Oblivious HTTP costs a request, on one thread: `cargo bench -p touchstone-ohttp`.
//!
//! The gateway's part is what the enclave does beyond a plain request: it opens, reads, writes and seals.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use touchstone_ohttp::bhttp::{Answer, Bounds, Request};
use touchstone_ohttp::{GatewayKey, PublicKey};

const ROUNDS: usize = 2_000;
const BOUNDS: Bounds = Bounds {
    fields: 100,
    field_bytes: 16 << 10,
};

fn main() {
    let key = GatewayKey::generate(1).expect("a key");
    let public = PublicKey::from_configurations(&key.configurations()).expect("its public half");
    println!("Oblivious HTTP, microseconds a request on one thread, mean of {ROUNDS}");
    println!("{:>10} {:>10} {:>10}", "bytes", "gateway", "client");
    for length in [256, 4 << 10, 64 << 10, 1 << 20] {
        let request = Request {
            method: "POST".into(),
            scheme: "https".into(),
            authority: "enclave.example".into(),
            path: "/v2/models/digits_cnn/infer".into(),
            fields: vec![("content-type".into(), "application/octet-stream".into()); 4],
            content: vec![7; length].into(),
        };
        let fields = [(&b"touchstone"[..], &[b'x'; 120][..]); 6];
        let content = vec![7; length];
        let rounds = ROUNDS.min((64 << 20) / length);
        let (mut gateway, mut client) = (0.0, 0.0);
        for _ in 0..rounds {
            let start = Instant::now();
            let (sealed, waiting) = public.seal(&request.encode()).expect("a request");
            client += start.elapsed().as_secs_f64();

            let start = Instant::now();
            let opened = key.open(&sealed).expect("what was sealed");
            let read = Request::decode(opened.content.into(), BOUNDS).expect("a request");
            black_box(read);
            let answer = Answer::encode(200, fields.into_iter(), &content);
            let answer = opened.responder.seal(&answer).expect("an answer");
            gateway += start.elapsed().as_secs_f64();

            let start = Instant::now();
            let answer = waiting.open(answer).expect("what was sealed");
            black_box(Answer::decode(Bytes::from(answer), BOUNDS).expect("an answer"));
            client += start.elapsed().as_secs_f64();
        }
        let mean = |seconds: f64| seconds * 1e6 / rounds as f64;
        println!(
            "{length:>10} {:>10.1} {:>10.1}",
            mean(gateway),
            mean(client)
        );
    }
}
