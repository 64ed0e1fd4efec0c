//! What commitments and receipt cost beyond one Ed25519 signature, one thread, in microseconds.

use std::{hint::black_box, time::Instant};

use anyhow::Result;
use clap::Parser;
use ring::signature::{Ed25519KeyPair, KeyPair};
use touchstone_formats::{
    commitment::{
        Datatype, Role, TensorRef, commit, request_digest, response_digest, tensors_digest,
    },
    digest::Digest,
    guarantee::GuaranteeSet,
    receipt::{Claims, ReceiptSigner},
};

/// Times the signing path of one small answer and prints figures as JSON.
#[derive(Parser)]
struct Arguments {
    /// Answers per sample
    #[arg(long, default_value_t = 2_000)]
    answers: u32,
    /// Samples of each, taken in turns; the fastest counts
    #[arg(long, default_value_t = 25)]
    samples: usize,
}

/// Sizes of digits_mlp_plain's JSON request and answer, one row.
const REQUEST: usize = 420;
const RESPONSE: usize = 360;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let seed = [7; 32];
    let signer = ReceiptSigner::from_seed(&seed)?;
    let key = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| anyhow::anyhow!("seed"))?;
    anyhow::ensure!(
        key.public_key().as_ref() == signer.public_key(),
        "two keys of one seed"
    );
    let (request, response) = (vec![b'x'; REQUEST], vec![b'y'; RESPONSE]);
    let (input, output) = ([0_u8; 64 * 4], [0_u8; 10 * 4]);

    let mut sequence = 0;
    let mut whole_answer = || -> Result<usize> {
        sequence += 1;
        let salt = [sequence as u8; 16];
        let inputs = tensors_digest(&[TensorRef {
            name: "X",
            datatype: Datatype::Fp32,
            shape: &[1, 64],
            data: &input,
        }])?;
        let outputs = tensors_digest(&[TensorRef {
            name: "probabilities",
            datatype: Datatype::Fp32,
            shape: &[1, 10],
            data: &output,
        }])?;
        let asked = request_digest("POST", "/v2/models/digits_mlp_plain/infer", None, &request);
        let given = response_digest(200, None, &response);
        let claims = Claims {
            iss: "enclave.example".to_owned(),
            iat: 1_790_000_000,
            cti: salt,
            nonce: Some(vec![9; 32]),
            model_digest: Some(Digest([1; 32])),
            config_digest: Some(Digest([2; 32])),
            sequence,
            keyset_digest: Digest([3; 32]),
            guarantees: GuaranteeSet::default_set(),
            catalog: (0, Digest([4; 32])),
            request: commit(Role::Request, &salt, &asked),
            response: commit(Role::Response, &salt, &given),
            inputs: Some(commit(Role::Inputs, &salt, &inputs)),
            outputs: Some(commit(Role::Outputs, &salt, &outputs)),
            status: 0,
            payment: None,
        };
        Ok(signer.sign(&claims).len())
    };
    let length = whole_answer()?;

    // What the receipt's signature covers is as long as the receipt without its signature.
    let message = vec![5_u8; length - 66];
    let (mut whole, mut signature) = (f64::MAX, f64::MAX);
    for _ in 0..arguments.samples {
        let answer = || whole_answer().map(|n| n as u8).unwrap_or(0);
        whole = whole.min(sample_us(arguments.answers, answer));
        let sign = || key.sign(black_box(&message)).as_ref()[0];
        signature = signature.min(sample_us(arguments.answers, sign));
    }
    println!(
        "{}",
        serde_json::json!({ "receipt_bytes": length, "whole_us": whole, "signature_us": signature,
            "beyond_signature_us": whole - signature })
    );
    Ok(())
}

/// Mean time of one call.
fn sample_us(calls: u32, mut call: impl FnMut() -> u8) -> f64 {
    let started = Instant::now();
    for _ in 0..calls {
        black_box(call());
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
}
