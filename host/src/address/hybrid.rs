//! vsock behind a Unix socket, as Firecracker, Cloud Hypervisor and vhost-device-vsock offer it.
//!
//! Whoever connects says `CONNECT <port>\n`; the VMM answers `OK <number>\n` once the guest has taken the connection, and closes
//! otherwise. Everything after that line is the guest's. The VMM is no more to be believed than any relay:
//! its line is bounded, and the caller bounds the time.

use std::{io, path::Path};

use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// Longest answer with its end of line, in bytes: `OK ` and a number of 32 bits.
const ANSWER: usize = 14;

/// Why the VMM's socket gave no connection to the guest. Inside an [`io::Error`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It closed: nobody listens on that port of the guest, or there is no guest yet.
    #[error(
        "closed after {received} bytes of an answer to CONNECT {port}: nobody listens there, or the guest is not up"
    )]
    Closed {
        /// Port asked for.
        port: u32,
        /// Bytes of the answer that came.
        received: usize,
    },
    /// It is not the socket of a VMM, or one of another convention.
    #[error("answered {found:?} to CONNECT {port}: expected \"OK <number>\" within {ANSWER} bytes")]
    Unexpected {
        /// Port asked for.
        port: u32,
        /// What came, at most 14 bytes of it.
        found: String,
    },
}

/// Connects to a port of the guest.
pub(super) async fn connect(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await?;
    let mut answer = Vec::with_capacity(ANSWER);
    // A byte at a time: the one after the line is the guest's.
    while answer.len() < ANSWER && answer.last() != Some(&b'\n') {
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(error) if ended(&error) => {
                let received = answer.len();
                let refusal = Refusal::Closed { port, received };
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, refusal));
            }
            Err(error) => return Err(error),
        }
    }
    if !is_ok(&answer) {
        let found = String::from_utf8_lossy(&answer).into_owned();
        let refusal = Refusal::Unexpected { port, found };
        return Err(io::Error::new(io::ErrorKind::InvalidData, refusal));
    }
    Ok(stream)
}

fn ended(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset)
}

fn is_ok(answer: &[u8]) -> bool {
    answer
        .strip_prefix(b"OK ")
        .and_then(|rest| rest.strip_suffix(b"\n"))
        .is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::UnixListener;

    use super::*;
    use crate::address::{Address, Stream};

    /// A VMM that says `answer` to one connection and then, unless it holds, closes. Gives what it was asked.
    async fn vmm(answer: &'static [u8], hold: bool) -> (io::Result<Stream>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("v.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while asked.last() != Some(&b'\n') {
                asked.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
            (asked, hold.then_some(stream))
        });
        let address: Address = format!("vsock+unix://{}:8000", socket.display())
            .parse()
            .unwrap();
        let connected = tokio::time::timeout(Duration::from_millis(300), address.connect())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        (connected, served.await.unwrap().0)
    }

    fn refusal(error: &io::Error) -> Refusal {
        let inside = error.get_ref().and_then(|e| e.downcast_ref::<Refusal>());
        inside.unwrap_or_else(|| panic!("{error:?}")).clone()
    }

    #[tokio::test]
    async fn what_follows_the_answer_is_the_guests() {
        let (connected, asked) = vmm(b"OK 4294967295\nthe guest's", false).await;
        assert_eq!(asked, b"CONNECT 8000\n");
        let mut rest = String::new();
        connected.unwrap().read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "the guest's");
    }

    #[tokio::test]
    async fn closing_is_a_refusal() {
        for (answer, received) in [(&b""[..], 0), (b"OK 1", 4)] {
            let error = vmm(answer, false).await.0.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(
                refusal(&error),
                Refusal::Closed {
                    port: 8000,
                    received
                }
            );
        }
    }

    #[tokio::test]
    async fn other_answers_are_refused_within_bounds() {
        for (answer, found) in [
            (&b"NO\n"[..], "NO\n"),
            (b"OK\n", "OK\n"),
            (b"OK \n", "OK \n"),
            (b"OK +1\n", "OK +1\n"),
            (b"ok 1\n", "ok 1\n"),
            (b"OK 1\r\n", "OK 1\r\n"),
            (b"\n", "\n"),
            (b"\xff\n", "\u{fffd}\n"),
            // An answer that does not end is not read to its end.
            (b"OK 00000000000000000000000000", "OK 00000000000"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1 400 B"),
        ] {
            let error = vmm(answer, true).await.0.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{found}");
            let found = found.to_owned();
            assert_eq!(refusal(&error), Refusal::Unexpected { port: 8000, found });
        }
    }

    #[tokio::test]
    async fn silence_is_the_callers_to_end() {
        for answer in [&b""[..], b"OK 12"] {
            let error = vmm(answer, true).await.0.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }
}
