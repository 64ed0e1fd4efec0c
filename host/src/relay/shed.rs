//! Connections for which there is no place: told so if they speak HTTP, closed if not.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::passthrough::HANDSHAKE;

/// Longest time that is spent on one of them.
const WITHIN: Duration = Duration::from_secs(1);
/// Bytes that are read of what it says, so that closing does not take the answer away from it: of one for which there is no
/// place, and of one that was refused with a body on its way.
const HEARD: usize = 16 << 10;
const HEARD_OF_A_BODY: usize = 1 << 20;

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The client has as many connections as it may.
    Client,
    /// All clients together have.
    All,
}

impl Reason {
    fn answer(self) -> String {
        let (status, title, detail) = match self {
            Self::Client => (
                429,
                "Too Many Requests",
                "this client has as many connections as it may",
            ),
            Self::All => (
                503,
                "Service Unavailable",
                "the host has as many connections as it may",
            ),
        };
        let body = format!(
            "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{detail}\",\"error\":\"{detail}\"}}"
        );
        format!(
            "HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\nAccess-Control-Allow-Origin: *\r\n\
             Cache-Control: no-store\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// Says why, and closes. Who speaks TLS would not understand, and is closed without a word.
pub(super) async fn turn_away(mut stream: TcpStream, reason: Reason) {
    let told = async {
        let mut byte = [0];
        if stream.peek(&mut byte).await? == 0 || byte == [HANDSHAKE] {
            return Ok(());
        }
        stream.write_all(reason.answer().as_bytes()).await?;
        heard(&mut stream, HEARD).await
    };
    let _ = timeout(WITHIN, told).await;
}

/// Ends a connection on which something may have come in that nobody reads: the last answer is taken first.
pub(super) async fn part(stream: &mut TcpStream) -> io::Result<()> {
    let heard = timeout(WITHIN, heard(stream, HEARD_OF_A_BODY)).await;
    heard.unwrap_or(Ok(()))
}

/// Says that nothing follows, and reads a little more of what the other side says: closed with something unread a connection
/// is reset, and the answer may be lost.
async fn heard(stream: &mut TcpStream, most: usize) -> io::Result<()> {
    stream.shutdown().await?;
    let mut heard = 0;
    // Not in the task: each connection would have it for its whole life.
    let mut buffer = vec![0; 8_192];
    while heard < most {
        match stream.read(&mut buffer).await? {
            0 => break,
            count => heard += count,
        }
    }
    Ok(())
}
