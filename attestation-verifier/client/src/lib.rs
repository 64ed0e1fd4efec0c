//! Asks a model inside an enclave, and lets no question out before the enclave is proven, nor an answer
//! pass for one before it is.
//!
//! ```no_run
//! use attestation_verifier::{Policy, exchange::OwnedTensor};
//! use touchstone_client::Client;
//!
//! async fn ask(image: OwnedTensor) -> Result<(), Box<dyn std::error::Error>> {
//!     let policy = Policy::parse(&std::fs::read_to_string("policy.toml")?)?;
//!     let client = Client::connect("https://enclave.example:8080", policy).await?; // proven, or an error
//!     let provisional = client.infer("digits_cnn", &[image]).await?; // has no outputs to read
//!     let answer = provisional.verified().await?; // sealed, and judged by the policy
//!     for output in answer.outputs() {
//!         println!("{} {:?} {:?}", output.name, output.shape, output.data);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # What it does
//! - **Connections** are TLS 1.3, each with a handshake of its own. On each the client first asks for a session
//!   with a fresh nonce; evidence over this very connection (its exporter), the TLS key, the keyset and the nonce
//!   has to satisfy the policy before anything else is sent ([`Session`]). Connections are kept, used again, and
//!   replaced when they are old, when the keyset's life ends and when the enclave has gone on to another.
//! - **Collateral** is the caller's own, the host's, or what verified before ([`Builder::collateral_cache`]).
//! - **Manifests**, where the policy asks for one, are the caller's ([`Builder::manifests`]), or newer ones of the host's that
//!   the policy's signers signed ([`Client::refresh_manifest`]): asked for when something refuses for want of one.
//! - **Answers** are [`Provisional`] until what was asked for holds and the bundle is judged with the request, the
//!   answer, the nonce and the connection in hand; then they are [`Verified`], or [`Unverified`] with the check that
//!   decided.
//! - All of it is bounded, in bytes and in time. Nothing is sent a second time that may have been received, but
//!   where the enclave says that it did not process it.
//!
//! # What it does not
//! - It decides nothing: every judgement is `attestation_verifier`'s, and each refusal has the id of a check.
//! - It looks at no certificate authority and no name in a certificate. Which of several genuine enclaves was
//!   reached is for the policy to pin: chip, host data, name. No binding tells two of them apart.
//! - It does not hide who asks whom, when, or how much: the host sees addresses, sizes and times.
//! - What [`Client::relay`] gives has no receipt.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod address;
mod client;
mod collateral;
mod error;
mod form;
mod http;
mod keep;
pub mod manifest;
mod ohttp;
pub mod oip;
mod pool;
mod provisional;
mod question;
mod receipts;
mod session;
mod tls;

pub use client::{Builder, Client, Counters};
pub use error::Error;
pub use http::{Answer, MAX_ANSWER};
pub use provisional::{Provisional, Unverified, Verified};
pub use question::Question;
pub use receipts::Waited;
pub use session::Session;
