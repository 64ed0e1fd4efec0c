//! Addresses of listeners, and streams to them.

mod hybrid;

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    str::FromStr,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_vsock::{VsockAddr, VsockStream};

pub use hybrid::Refusal;

/// Longest path of a Unix socket, in bytes (unix(7): `sun_path` without its end).
const SOCKET_PATH: usize = 107;

/// A listener of the enclave. Names are not resolved: an address is an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `tcp://127.0.0.1:8000`, `tcp://[::1]:8000`.
    Tcp(SocketAddr),
    /// `vsock://3:8000`.
    Vsock {
        /// Context id of the guest.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// `vsock+unix:///run/vm.sock:8000`: a VMM's Unix socket that leads to the guest's vsock.
    HybridVsock {
        /// The VMM's socket.
        socket: Arc<Path>,
        /// Port in the guest.
        port: u32,
    },
}

impl FromStr for Address {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(address) = text.strip_prefix("tcp://") {
            let address: SocketAddr = address.parse().map_err(|_| ())?;
            return if address.port() == 0 {
                Err(())
            } else {
                Ok(Self::Tcp(address))
            };
        }
        let number = |digits: &str| -> Result<u32, ()> {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if plain {
                digits.parse().map_err(|_| ())
            } else {
                Err(())
            }
        };
        if let Some(address) = text.strip_prefix("vsock+unix://") {
            let (socket, port) = address.rsplit_once(':').ok_or(())?;
            if socket.is_empty() || socket.len() > SOCKET_PATH || socket.contains('\0') {
                return Err(());
            }
            return Ok(Self::HybridVsock {
                socket: PathBuf::from(socket).into(),
                port: number(port)?,
            });
        }
        let (cid, port) = text
            .strip_prefix("vsock://")
            .ok_or(())?
            .split_once(':')
            .ok_or(())?;
        Ok(Self::Vsock {
            cid: number(cid)?,
            port: number(port)?,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Vsock { cid, port } => write!(f, "vsock://{cid}:{port}"),
            Self::HybridVsock { socket, port } => {
                write!(f, "vsock+unix://{}:{port}", socket.display())
            }
        }
    }
}

impl Address {
    /// Opens a stream. The caller bounds the time.
    ///
    /// # Errors
    /// What the system says, or a [`Refusal`] of the VMM's inside.
    pub async fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // Requests and answers are small: waiting for more to send only adds latency.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Vsock { cid, port } => Ok(Stream::Vsock(
                VsockStream::connect(VsockAddr::new(*cid, *port)).await?,
            )),
            Self::HybridVsock { socket, port } => {
                Ok(Stream::Unix(hybrid::connect(socket, *port).await?))
            }
        }
    }
}

/// A stream to the enclave.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over vsock.
    Vsock(VsockStream),
    /// Over vsock, by way of a VMM's Unix socket.
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Vsock(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        heard(match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Vsock(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Vsock(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Vsock(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        heard(match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Vsock(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        })
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Vsock(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }
}

/// The enclave refuses some requests before it has read their bodies, and closes. What it said first is
/// still there to be read when writing fails, so that such a failure only ends the writing: reading
/// comes to the answer, or to the same end.
fn heard(written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    match written {
        Poll::Ready(Err(error)) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {
            Poll::Pending
        }
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in [
            "tcp://127.0.0.1:8000",
            "tcp://[::1]:65535",
            "vsock://3:8000",
            "vsock://4294967295:0",
            "vsock+unix:///run/vm.sock:8000",
            "vsock+unix://relative/with:colon:0",
        ] {
            assert_eq!(
                text.parse::<Address>().map(|a| a.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "127.0.0.1:8000",
            "tcp://localhost:8000",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:0",
            "tcp://127.0.0.1:65536",
            "http://127.0.0.1:8000",
            "vsock://3",
            "vsock://:8000",
            "vsock://+3:8000",
            "vsock://3:4294967296",
            "vsock+unix://",
            "vsock+unix:///run/vm.sock",
            "vsock+unix://:8000",
            "vsock+unix:///run/vm.sock:",
            "vsock+unix:///run/vm.sock:-1",
            "vsock+unix:///run/vm.sock:4294967296",
            "vsock+unix:///run/v\0m.sock:8000",
            "unix:///run/vm.sock:8000",
        ] {
            assert_eq!(text.parse::<Address>(), Err(()), "{text}");
        }
        let address = |length| format!("vsock+unix://{}:1", "s".repeat(length)).parse::<Address>();
        assert!(address(SOCKET_PATH).is_ok());
        assert_eq!(address(SOCKET_PATH + 1), Err(()));
    }
}
