//! Recomputes what the hardware of a confidential VM will report about how it was started.
//!
//! Bytes in, digests and their derivations out: no I/O, no clock, no unsafe, and no panic on any firmware. Nothing here is
//! linked by the enclave or by the judge: what is computed goes into a policy or a manifest, and from there into verdicts.
//!
//! - [`ovmf`]: what a firmware image says about itself.
//! - [`snp`]: the launch digest of SEV-SNP.
//! - [`tdx`]: MRTD, RTMR1 and RTMR2 of TDX.
//! - [`measured`]: the form that results have in a manifest.
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

pub mod hash;
pub mod measured;
pub mod ovmf;
pub mod snp;
pub mod tdx;

pub use hash::{Sha256, Sha384};
