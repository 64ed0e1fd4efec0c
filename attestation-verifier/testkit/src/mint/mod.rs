//! Complete, valid bundles without any enclave, and lies of every kind that are signed again.
//!
//! A [`World`] is what exists before a question: a machine with its vendor, a keyset, models. An [`Exchange`] is a
//! question and its answer. [`World::mint`] turns the two into a [`Mint`], in which every ingredient can still be
//! changed before what depends on it is signed, and [`Mint::finish`] gives the bundle.
//!
//! ```
//! use touchstone_formats::{Digest, Purpose};
//! use touchstone_testkit::mint::{Exchange, World};
//!
//! let world = World::new(1);
//! let honest = world.mint(Exchange::json(7)).finish();
//!
//! // Another keyset's digest in the receipt, well signed, logged, quoted:
//! let lie = world.mint(Exchange::json(7)).claims(|c| c.keyset_digest = Digest::ZERO).finish();
//! assert_ne!(honest.file(), lie.file());
//!
//! // What was said before the keyset was made follows from the world:
//! let mut other = world.clone();
//! other.keyset.not_after = other.keyset.not_before;
//! other.mint(Exchange::binary(8)).purposes(&[Purpose::Checkpoint]).finish();
//!
//! // The same on a TDX machine, and a TD that says it may be debugged:
//! let world = World::tdx(1);
//! world.mint(Exchange::json(7)).report(|_, quote| quote.report.td_attributes |= 1).finish();
//! ```
//!
//! Seeds give the signing keys, salts, nonces and identifiers; the same seeds give the same ones. Reports and certificates
//! differ from run to run, since ECDSA and PSS signatures hold random numbers.

mod exchange;
mod log;
mod world;

pub use exchange::{Exchange, Salts, Tensor};
pub use log::{inclusion_path, sign_cose, sign_note, tree_root};
pub use world::{Mint, Minted, World};

use touchstone_formats::Digest;

/// Bytes that follow from a seed and a purpose.
fn derive<const N: usize>(seed: u64, purpose: &str) -> [u8; N] {
    let digest = Digest::of_parts(&[
        b"touchstone test seed\n",
        &seed.to_le_bytes(),
        purpose.as_bytes(),
    ])
    .0;
    std::array::from_fn(|i| digest[i % digest.len()] ^ (i / digest.len()) as u8)
}
