//! Four requests of rtnetlink, one answer each.

use std::{io, net::Ipv4Addr, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// Request, answered, and for what is new: create it, and it must not exist.
const CHANGE: u16 = 0x1 | 0x4;
const NEW: u16 = CHANGE | 0x400 | 0x200;

/// `struct nlmsghdr`, in bytes.
const HEADER: usize = 16;
/// The message type of an answer.
const ERROR: u16 = 2;

/// The kernel's routing socket.
pub struct Route {
    socket: OwnedFd,
}

impl Route {
    /// Opens it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self { socket })
    }

    /// Switches a card on.
    ///
    /// # Errors
    /// What the system says.
    pub fn up(&mut self, index: u32) -> io::Result<()> {
        self.request(&link(index, 1, &[]))
    }

    /// Sets a card's longest packet, in bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn mtu(&mut self, index: u32, mtu: u16) -> io::Result<()> {
        self.request(&link(index, 0, &[(4, u32::from(mtu).to_ne_bytes())]))
    }

    /// Gives a card an address.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        self.request(&address_message(index, address, prefix))
    }

    /// Makes one address reachable on a card, without a router.
    ///
    /// # Errors
    /// What the system says.
    pub fn near(&mut self, index: u32, address: Ipv4Addr) -> io::Result<()> {
        self.request(&route(index, Some(address), None))
    }

    /// Makes everything reachable by a router.
    ///
    /// # Errors
    /// What the system says.
    pub fn default(&mut self, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
        self.request(&route(index, None, Some(gateway)))
    }

    fn request(&mut self, message: &[u8]) -> io::Result<()> {
        send(&self.socket, message, SendFlags::empty())?;
        let mut buffer = [0; 4096];
        let (length, _) = recv(&self.socket, &mut buffer, RecvFlags::empty())?;
        answer(buffer.get(..length).unwrap_or_default())
    }
}

/// `RTM_NEWLINK`: the flags to switch on, and attributes.
fn link(index: u32, flags: u32, attributes: &[(u16, [u8; 4])]) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes()); // which of them change
    message(16, CHANGE, body, attributes)
}

/// `RTM_NEWADDR`
fn address_message(index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    const INET: u8 = 2;
    let mut body = vec![INET, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    let (peer, local) = ((1, address.octets()), (2, address.octets()));
    message(20, NEW, body, &[peer, local])
}

/// `RTM_NEWROUTE`, in the main table: to one address or to all of them, by a router or without one.
fn route(index: u32, to: Option<Ipv4Addr>, by: Option<Ipv4Addr>) -> Vec<u8> {
    const INET: u8 = 2;
    const MAIN: u8 = 254;
    const STATIC: u8 = 4;
    const UNICAST: u8 = 1;
    let bits = if to.is_some() { 32 } else { 0 };
    let scope = if by.is_some() { 0 } else { 253 };
    let mut body = vec![INET, bits, 0, 0, MAIN, STATIC, scope, UNICAST];
    body.extend([0; 4]);
    let mut attributes = vec![(4, index.to_ne_bytes())];
    attributes.extend(to.map(|to| (1, to.octets())));
    attributes.extend(by.map(|by| (5, by.octets())));
    message(24, NEW, body, &attributes)
}

/// A message: header, body (a multiple of 4 bytes long), attributes of 4 bytes each.
fn message(kind: u16, flags: u16, body: Vec<u8>, attributes: &[(u16, [u8; 4])]) -> Vec<u8> {
    let length = HEADER + body.len() + 8 * attributes.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]); // sequence, port
    bytes.extend(body);
    for (kind, value) in attributes {
        bytes.extend(8u16.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
    }
    bytes
}

/// Reads the kernel's answer: an error number, 0 for none.
fn answer(bytes: &[u8]) -> io::Result<()> {
    let field = |at: usize| bytes.get(at..at + 4)?.try_into().ok();
    let kind = bytes
        .get(4..6)
        .and_then(|kind| kind.try_into().ok())
        .map(u16::from_ne_bytes);
    match field(HEADER).map(i32::from_ne_bytes) {
        Some(0) if kind == Some(ERROR) => Ok(()),
        Some(number) if kind == Some(ERROR) => {
            Err(io::Error::from_raw_os_error(number.saturating_neg()))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_laid_out_as_the_kernel_reads_them() {
        let near = route(3, Some(Ipv4Addr::new(10, 0, 0, 1)), None);
        assert_eq!(
            near,
            [
                44, 0, 0, 0, 24, 0, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0, 2, 32, 0, 0, 254, 4, 253, 1, 0,
                0, 0, 0, 8, 0, 4, 0, 3, 0, 0, 0, 8, 0, 1, 0, 10, 0, 0, 1
            ]
        );
        let up = link(2, 1, &[]);
        assert_eq!(up.len(), 32);
        assert_eq!(up.get(20..28), Some(&[2, 0, 0, 0, 1, 0, 0, 0][..]));
        let all = route(3, None, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(all.get(16..24), Some(&[2, 0, 0, 0, 254, 4, 0, 1][..]));
        assert_eq!(address_message(3, Ipv4Addr::LOCALHOST, 8).len(), 40);
    }

    #[test]
    fn answers_are_read_strictly() {
        let reply = |error: i32| {
            let mut bytes = vec![36, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend(error.to_ne_bytes());
            bytes
        };
        assert!(answer(&reply(0)).is_ok());
        let refused = answer(&reply(-libc::EEXIST)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EEXIST));
        for (length, _) in reply(0).iter().enumerate() {
            assert!(answer(reply(0).get(..length).unwrap()).is_err());
        }
        let mut other = reply(0);
        *other.get_mut(4).unwrap() = 3;
        assert!(answer(&other).is_err());
        assert!(answer(&reply(i32::MIN)).is_err());
    }
}
