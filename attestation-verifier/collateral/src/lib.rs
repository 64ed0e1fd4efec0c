//! Collateral from AMD and Intel: fetched, verified, kept, and watched until it expires.
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
pub mod http;
pub mod item;
mod pace;
pub mod platform;
pub mod source;
pub mod verify;

pub use cache::CacheLimits;
pub use error::Error;
pub use fetch::{Fetcher, Fresh, Had, How, Settings};
pub use item::Item;
pub use pace::Patience;
pub use platform::Platform;
pub use source::Sources;
