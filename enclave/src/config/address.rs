//! Addresses of listeners.

use std::{fmt, net::SocketAddr, str::FromStr};

/// Where a listener listens. Names are not resolved: an address is an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// `tcp://127.0.0.1:8000`, `tcp://[::1]:8000`; port 0 lets the system choose one.
    Tcp(SocketAddr),
    /// `vsock://:8080` (any context id) or `vsock://3:8080`.
    Vsock {
        /// Context id; `None` is any.
        cid: Option<u32>,
        /// Port.
        port: u32,
    },
}

impl FromStr for Address {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(address) = text.strip_prefix("tcp://") {
            return address.parse().map(Self::Tcp).map_err(|_| ());
        }
        let (cid, port) = text
            .strip_prefix("vsock://")
            .ok_or(())?
            .split_once(':')
            .ok_or(())?;
        let number = |digits: &str| -> Result<u32, ()> {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if plain {
                digits.parse().map_err(|_| ())
            } else {
                Err(())
            }
        };
        Ok(Self::Vsock {
            cid: if cid.is_empty() {
                None
            } else {
                Some(number(cid)?)
            },
            port: number(port)?,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Vsock { cid: None, port } => write!(f, "vsock://:{port}"),
            Self::Vsock {
                cid: Some(cid),
                port,
            } => write!(f, "vsock://{cid}:{port}"),
        }
    }
}
