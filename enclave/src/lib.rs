//! The measured program: it runs models, signs a receipt for every answer and seals the receipts into
//! a log whose checkpoints the platform quotes.
//!
//! The way of a request: [`public`] frames it, [`admission`] lets it in, [`answer`] runs the model
//! and signs, [`seal`] puts the receipt under a quoted checkpoint, [`control`] hands it to the
//! host. [`service`] holds what they share; [`run`] puts it all on sockets.
//!
//! What it never does: dial out (but to a quote agent's socket, where it is told to), judge collateral, ask whether the
//! platform is simulated, or give less than was asked for.

pub mod admission;
pub mod answer;
pub mod build;
pub mod config;
pub mod control;
pub mod keyset;
pub mod models;
pub mod net;
pub mod objects;
pub mod ohttp;
pub mod problem;
pub mod protocol;
pub mod public;
pub mod quote;
pub mod reload;
pub mod run;
pub mod runtime;
pub mod sandbox;
pub mod seal;
pub mod service;
pub mod tls;
