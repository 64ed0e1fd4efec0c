//! HTTP/1.1 answers as the load programs read them: by hand, so that their own cost stays small.

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads one answer whole; returns its status with the receipt's state, and its length in bytes. `buffer` then
/// holds head and body.
///
/// # Errors
/// A connection that breaks, a head over 64 KiB, an answer without Content-Length or with bytes after it.
pub async fn answer<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
) -> Result<(String, usize)> {
    buffer.clear();
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(buffer.len() < 64 << 10, "head too long");
        ensure!(
            stream.read_buf(buffer).await? > 0,
            "closed before the answer"
        );
    };
    let text = std::str::from_utf8(buffer.get(..head).unwrap_or_default())?;
    let status = text.get(9..12).context("no status")?.to_owned();
    let field = |name: &str| {
        text.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let length: usize = match field("content-length") {
        Some(value) => value.parse()?,
        None => bail!("an answer without Content-Length"),
    };
    let state = field("touchstone")
        .and_then(|value| value.split("state=").nth(1))
        .unwrap_or_default();
    let outcome = if state.is_empty() {
        status
    } else {
        format!("{status} {state}")
    };
    while buffer.len() < head + length {
        ensure!(
            stream.read_buf(buffer).await? > 0,
            "closed inside the answer"
        );
    }
    ensure!(buffer.len() == head + length, "bytes after the answer");
    Ok((outcome, head + length))
}
