//! Collateral from AMD and Intel: fetched, verified, kept, and watched until it expires.
//!
//! The verifier never fetches, and neither does the host: this crate does it for both, in a process of its own
//! (`touchstone collateral`), which needs the network and a folder and nothing else.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`item`] | what can be asked for, by the vendors' addresses |
//! | [`source`] | whom to ask: AMD, Intel, a PCCS, a mirror |
//! | [`http`] | one bounded request over TLS, no redirects |
//! | [`fetch`] | the cache, the pauses, the retries |
//! | [`verify`] | is it genuine, and what was asked for? Before anything is kept |
//! | [`platform`], [`gather`](mod@gather) | which pieces evidence needs; all of them, together |
//! | [`folder`] | the folder that a host attaches from |
//! | [`forecast`](mod@forecast) | until when verifiers will accept the platform |
//! | [`serve`] | a daemon that keeps a folder fresh, and a mirror |
//!
//! What it does not do: judge. A piece that passes here is genuine and valid now; whether a platform is good enough is for
//! the verifier to say, with somebody's policy.
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

mod cache;
mod error;
pub mod fetch;
pub mod folder;
pub mod forecast;
pub mod gather;
pub mod http;
pub mod item;
mod pace;
pub mod platform;
pub mod serve;
pub mod source;
pub mod verify;

pub use cache::CacheLimits;
pub use error::Error;
pub use fetch::{Fetcher, Fresh, Had, How, Settings};
pub use forecast::{Forecast, forecast};
pub use gather::{Gathered, Wanted, gather};
pub use item::Item;
pub use pace::Patience;
pub use platform::Platform;
pub use source::Sources;
