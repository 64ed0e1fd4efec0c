//! The protocol between a test image's kernel module (`enclave/image/test/module`) and the platform outside.
//!
//! One connection is one report. The guest says 64 bytes of report data; the platform answers with the quote and with AMD's
//! certificate table (empty for TDX), each after its length in 32 bits, little endian. A quote of length 0 says "busy".

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::fault::Fault;
use super::server::{Shared, quote};
use crate::machine::TeeMachine;

/// What a flood claims and sends: far beyond what a kernel takes as a quote, which is 32 KiB.
const FLOOD: usize = 8 << 20;

/// Serves the one report of a connection.
pub(super) async fn connection<M: TeeMachine>(
    mut stream: UnixStream,
    shared: &Shared<M>,
) -> io::Result<()> {
    let mut report_data = [0; 64];
    if let Err(error) = stream.read_exact(&mut report_data).await {
        shared.malformed();
        return Err(error);
    }
    shared
        .counted(answer(&mut stream, shared, report_data))
        .await
}

async fn answer<M: TeeMachine>(
    stream: &mut UnixStream,
    shared: &Shared<M>,
    report_data: [u8; 64],
) -> io::Result<()> {
    let fault = shared.fault();
    let report_data = match fault {
        Some(Fault::Lie) => report_data.map(|byte| !byte),
        _ => report_data,
    };
    let mut quote = quote(shared, report_data).await;
    match fault {
        None | Some(Fault::Lie) => {}
        Some(Fault::Busy) => quote.bytes.clear(),
        // This protocol names neither kind nor version: there is nothing to lie about.
        Some(Fault::Fail | Fault::WrongTee | Fault::WrongVersion) => return Ok(()),
        Some(Fault::Hang) => {
            tokio::io::copy(stream, &mut tokio::io::sink()).await?;
            return Ok(());
        }
        Some(Fault::Garbage) => quote.bytes.fill(0xff),
        Some(Fault::Close) => {
            let blob = prefixed(&quote.bytes);
            return stream.write_all(&blob[..blob.len() / 2]).await;
        }
        Some(Fault::Truncate) => quote.bytes.truncate(quote.bytes.len() - 100),
        Some(Fault::Flood) => quote.bytes = vec![b'x'; FLOOD],
    }
    stream.write_all(&prefixed(&quote.bytes)).await?;
    stream.write_all(&prefixed(&quote.certificates)).await?;
    stream.shutdown().await
}

fn prefixed(blob: &[u8]) -> Vec<u8> {
    [&(blob.len() as u32).to_le_bytes(), blob].concat()
}
