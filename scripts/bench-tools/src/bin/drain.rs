//! Takes an enclave's batches as fast as they come and acknowledges them, storing nothing.
//!
//! So that the enclave's own cost can be measured apart from a host's database.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Pulls and acknowledges batches until it is ended.
#[derive(Parser)]
struct Arguments {
    /// The enclave's control listener, HOST:PORT
    #[arg(long)]
    control: String,
}

#[derive(Deserialize)]
struct Batches {
    boot: String,
    batches: Vec<Batch>,
}

#[derive(Deserialize)]
struct Batch {
    number: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut after = 0;
        loop {
            match pull(&arguments.control, after).await {
                Ok(through) => after = through,
                Err(error) => {
                    eprintln!("{error:#}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

async fn pull(control: &str, after: u64) -> Result<u64> {
    let target = format!("/control/v1/batches?after={after}&wait=10");
    let body = exchange(
        control,
        &format!("GET {target} HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n"),
    )
    .await?;
    let batches: Batches = serde_json::from_slice(&body)?;
    let Some(last) = batches.batches.last() else {
        return Ok(after);
    };
    let ack = serde_json::json!({ "boot": batches.boot, "through": last.number }).to_string();
    let request = format!(
        "POST /control/v1/ack HTTP/1.1\r\nHost: e\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{ack}",
        ack.len()
    );
    exchange(control, &request).await?;
    Ok(last.number)
}

/// One exchange on a connection of its own; the server closes it at the end.
async fn exchange(control: &str, request: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(control).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .context("no end of the head")?
        + 4;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    ensure!(
        head.get(9..10) == Some("2"),
        "{}",
        head.lines().next().unwrap_or_default()
    );
    ensure!(
        !head.to_ascii_lowercase().contains("transfer-encoding"),
        "a chunked answer"
    );
    Ok(answer.split_off(end))
}
