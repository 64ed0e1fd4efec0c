//! DHCP's four messages as Ethernet frames: the two that the client makes, the two that it reads (RFC 2131, 2132, 3442).
//!
//! What is read comes from the network: every length is checked, nothing is allocated by what a packet says, and a frame
//! that is not exactly what the client waits for is none.

use std::net::Ipv4Addr;

use super::Ipv4Config;

/// Longest frame that is read, in bytes.
pub const FRAME_MAX: usize = 1514;

/// Ports of client and server.
const CLIENT: u16 = 68;
const SERVER: u16 = 67;
/// What every DHCP message has before its options.
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Numbers of options.
mod option {
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const MTU: u8 = 26;
    pub const REQUESTED: u8 = 50;
    pub const OVERLOAD: u8 = 52;
    pub const KIND: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const WANTED: u8 = 55;
    pub const ROUTES: u8 = 121;
    pub const PAD: u8 = 0;
    pub const END: u8 = 255;
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// An offer.
    Offer {
        /// The address.
        address: Ipv4Addr,
        /// Who offers it.
        server: Ipv4Addr,
    },
    /// The address is given.
    Given(Ipv4Config),
    /// It is not.
    Refused,
}

/// Who asks: the card's address, and the number that its conversation has.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The card's Ethernet address.
    pub mac: [u8; 6],
    /// The transaction's number.
    pub transaction: u32,
}

impl Client {
    /// `DHCPDISCOVER`, or `DHCPREQUEST` for what was offered.
    pub fn ask(&self, offer: Option<(Ipv4Addr, Ipv4Addr)>) -> Vec<u8> {
        let mut dhcp = vec![1, 1, 6, 0]; // a request, over Ethernet
        dhcp.extend(self.transaction.to_be_bytes());
        dhcp.extend([0, 0, 0x80, 0]); // answered by broadcast
        dhcp.extend([0; 16]);
        dhcp.extend(self.mac);
        dhcp.resize(236, 0);
        dhcp.extend(COOKIE);
        let kind = if offer.is_some() { 3 } else { 1 };
        dhcp.extend([option::KIND, 1, kind]);
        if let Some((address, server)) = offer {
            dhcp.extend([option::REQUESTED, 4]);
            dhcp.extend(address.octets());
            dhcp.extend([option::SERVER, 4]);
            dhcp.extend(server.octets());
        }
        let wanted = [option::MASK, option::ROUTES, option::ROUTER, option::MTU];
        dhcp.extend([option::WANTED, wanted.len() as u8]);
        dhcp.extend(wanted);
        dhcp.push(option::END);
        // Older servers drop what is shorter than BOOTP.
        dhcp.resize(dhcp.len().max(300), option::PAD);
        self.frame(&dhcp)
    }

    /// To everybody, from nobody yet. The UDP checksum may be left out, and is.
    fn frame(&self, dhcp: &[u8]) -> Vec<u8> {
        let udp = 8 + dhcp.len() as u16;
        let mut ip = vec![0x45, 0];
        ip.extend((20 + udp).to_be_bytes());
        ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        ip.extend([0; 4]);
        ip.extend([255; 4]);
        let sum = checksum(&ip).to_be_bytes();
        for (to, from) in ip.iter_mut().skip(10).zip(sum) {
            *to = from;
        }
        let mut frame = vec![255; 6];
        frame.extend(self.mac);
        frame.extend([8, 0]);
        frame.extend(ip);
        frame.extend(CLIENT.to_be_bytes());
        frame.extend(SERVER.to_be_bytes());
        frame.extend(udp.to_be_bytes());
        frame.extend([0; 2]);
        frame.extend(dhcp);
        frame
    }

    /// What the server says to this client in this transaction; none: the frame is something else.
    pub fn read(&self, frame: &[u8]) -> Option<Reply> {
        let dhcp = udp_payload(frame)?;
        let fixed: &[u8; 240] = dhcp.first_chunk()?;
        let at = |start: usize| -> Option<[u8; 4]> { fixed.get(start..start + 4)?.try_into().ok() };
        let answer = fixed.starts_with(&[2, 1, 6])
            && at(4)? == self.transaction.to_be_bytes()
            && fixed.get(28..34)? == self.mac
            && at(236)? == COOKIE;
        if !answer {
            return None;
        }
        let options = dhcp.get(240..)?;
        // Options inside of fields that are not read.
        if find(options, option::OVERLOAD)?.is_some() {
            return None;
        }
        let address = Ipv4Addr::from(at(16)?);
        match find(options, option::KIND)? {
            Some([2]) => Some(Reply::Offer {
                address,
                server: one(find(options, option::SERVER)??)?,
            }),
            Some([5]) => given(address, options).map(Reply::Given),
            Some([6]) => Some(Reply::Refused),
            _ => None,
        }
    }
}

fn given(address: Ipv4Addr, options: &[u8]) -> Option<Ipv4Config> {
    let mask = one(find(options, option::MASK)??)?.to_bits();
    // Ones, then zeros.
    let prefix = mask.leading_ones();
    if mask.count_ones() != prefix {
        return None;
    }
    // Where there are routes, the router's option says nothing (RFC 3442).
    let gateway = match find(options, option::ROUTES)? {
        Some(routes) => default_route(routes)?,
        None => one(find(options, option::ROUTER)??.get(..4)?)?,
    };
    let mtu = match find(options, option::MTU)? {
        Some(mtu) => Some(u16::from_be_bytes(mtu.try_into().ok()?)),
        None => None,
    };
    let config = Ipv4Config {
        address,
        prefix: u8::try_from(prefix).ok()?,
        gateway,
        mtu,
    };
    config.stands().then_some(config)
}

/// The router of the route to everything, out of classless routes.
fn default_route(mut routes: &[u8]) -> Option<Ipv4Addr> {
    while let Some((bits, rest)) = routes.split_first() {
        if *bits > 32 {
            return None;
        }
        let (_, rest) = rest.split_at_checked(usize::from(bits.div_ceil(8)))?;
        let (router, rest) = rest.split_at_checked(4)?;
        if *bits == 0 {
            return one(router);
        }
        routes = rest;
    }
    None
}

/// The first option with this number, if there is one; none if the options are malformed.
fn find(mut options: &[u8], wanted: u8) -> Option<Option<&[u8]>> {
    let mut found = None;
    loop {
        match options.split_first() {
            None | Some((&option::END, _)) => return Some(found),
            Some((&option::PAD, rest)) => options = rest,
            Some((number, rest)) => {
                let (length, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                if *number == wanted && found.is_none() {
                    found = Some(value);
                }
                options = rest;
            }
        }
    }
}

/// An address; none if there are not exactly four bytes.
fn one(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

/// What an Ethernet frame carries from a DHCP server to a client. Checksums are not looked at: the host computes them.
fn udp_payload(frame: &[u8]) -> Option<&[u8]> {
    let (ethernet, packet) = frame.split_at_checked(14)?;
    let word = |bytes: &[u8], at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
    };
    let first = *packet.first()?;
    let head = usize::from(first & 15) * 4;
    let length = usize::from(word(packet, 2)?);
    // No fragments: neither an offset nor more to come.
    let whole = word(packet, 6)? & 0x3fff == 0;
    if word(ethernet, 12)? != 0x0800 || first >> 4 != 4 || head < 20 || !whole {
        return None;
    }
    if *packet.get(9)? != 17 {
        return None;
    }
    let udp = packet.get(head..length)?;
    let (header, _) = udp.split_at_checked(8)?;
    if word(header, 0)? != SERVER || word(header, 2)? != CLIENT {
        return None;
    }
    udp.get(8..usize::from(word(header, 4)?))
}

/// The Internet's checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks_exact(2)
        .filter_map(|pair| Some(u32::from(u16::from_be_bytes(pair.try_into().ok()?))))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// Reads `52:54:00:12:34:56`.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        hex::decode_to_slice(part, std::slice::from_mut(byte)).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// The same, written.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Client = Client {
        mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
        transaction: 0x0102_0304,
    };

    /// A server's frame: our own, with the fields of an answer.
    fn reply(kind: u8, options: &[u8]) -> Vec<u8> {
        let mut dhcp = vec![2, 1, 6, 0, 1, 2, 3, 4];
        dhcp.resize(16, 0);
        dhcp.extend([10, 128, 0, 7]);
        dhcp.resize(28, 0);
        dhcp.extend(CLIENT.mac);
        dhcp.resize(236, 0);
        dhcp.extend(COOKIE);
        dhcp.extend([option::KIND, 1, kind]);
        dhcp.extend(options);
        dhcp.push(option::END);
        let mut frame = CLIENT.frame(&dhcp);
        frame.splice(34..38, [0, 67, 0, 68]);
        frame
    }

    const GCP: [u8; 40] = [
        54, 4, 169, 254, 169, 254, 1, 4, 255, 255, 255, 255, 3, 4, 10, 128, 0, 1, 26, 2, 5, 180,
        121, 14, 32, 10, 128, 0, 1, 0, 0, 0, 0, 0, 10, 128, 0, 1, 0, 0,
    ];

    #[test]
    fn a_conversation_is_made_and_read() {
        let asked = CLIENT.ask(None);
        assert_eq!(asked.len(), 342);
        assert_eq!(checksum(asked.get(14..34).unwrap()), 0);
        let offer = Reply::Offer {
            address: Ipv4Addr::new(10, 128, 0, 7),
            server: Ipv4Addr::new(169, 254, 169, 254),
        };
        assert_eq!(CLIENT.read(&reply(2, &GCP)), Some(offer));
        let Some(Reply::Given(config)) = CLIENT.read(&reply(5, &GCP)) else {
            panic!("not given");
        };
        assert_eq!(config.to_string(), "10.128.0.7/32,10.128.0.1,1460");
        let plain = [1, 4, 255, 255, 255, 0, 3, 8, 10, 128, 0, 2, 10, 128, 0, 3];
        let Some(Reply::Given(config)) = CLIENT.read(&reply(5, &plain)) else {
            panic!("not given");
        };
        assert_eq!(config.to_string(), "10.128.0.7/24,10.128.0.2");
        assert_eq!(CLIENT.read(&reply(6, &[])), Some(Reply::Refused));
    }

    #[test]
    fn what_is_not_for_this_client_is_nothing() {
        let good = reply(2, &GCP);
        assert!(CLIENT.read(&good).is_some());
        // Ethernet's protocol, IP's version, fragments, protocol, ports, kind, transaction, card, cookie.
        for at in [12, 14, 20, 23, 35, 37, 42, 46, 70, 278] {
            let mut bad = good.clone();
            *bad.get_mut(at).unwrap() ^= 0x20;
            assert_eq!(CLIENT.read(&bad), None, "byte {at}");
        }
        assert_eq!(CLIENT.read(&CLIENT.ask(None)), None);
    }

    #[test]
    fn hostile_frames_are_nothing() {
        let good = reply(5, &GCP);
        for length in 0..good.len() {
            assert_eq!(CLIENT.read(good.get(..length).unwrap()), None, "{length}");
        }
        for options in [
            &[1, 4, 255, 255, 255][..],                             // ends inside
            &[1, 4, 255, 0, 255, 0, 3, 4, 10, 128, 0, 1],           // no mask
            &[1, 3, 255, 255, 255, 3, 4, 10, 128, 0, 1],            // not four bytes
            &[1, 4, 255, 255, 255, 0, 3, 3, 10, 128, 0],            // no router
            &[1, 4, 255, 255, 255, 0, 3, 4, 127, 0, 0, 1],          // no router either
            &[1, 4, 255, 255, 255, 0, 3, 4, 10, 128, 0, 7],         // itself
            &[1, 4, 0, 0, 0, 0, 3, 4, 10, 128, 0, 1],               // everything is near
            &[1, 4, 255, 255, 255, 0, 121, 5, 33, 1, 2, 3, 4],      // 33 bits
            &[1, 4, 255, 255, 255, 0, 121, 3, 0, 10, 128],          // ends inside
            &[1, 4, 255, 255, 255, 0, 121, 0, 3, 4, 10, 128, 0, 1], // routes without a default
            &[1, 4, 255, 255, 255, 0, 3, 4, 10, 128, 0, 1, 26, 2, 0, 68], // MTU of 68
            &[1, 4, 255, 255, 255, 0, 3, 4, 10, 128, 0, 1, 26, 1, 5], // half of one
            &[52, 1, 1, 1, 4, 255, 255, 255, 0, 3, 4, 10, 128, 0, 1], // options elsewhere
        ] {
            assert_eq!(CLIENT.read(&reply(5, options)), None, "{options:?}");
        }
        // No byte, whatever it is, does more than change or end the answer.
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                *bad.get_mut(at).unwrap() = value;
                if let Some(Reply::Given(config)) = CLIENT.read(&bad) {
                    assert!(config.stands());
                }
            }
        }
    }

    #[test]
    fn ethernet_addresses() {
        assert_eq!(parse_mac("52:54:00:12:34:56"), Some(CLIENT.mac));
        assert_eq!(mac_text(CLIENT.mac), "52:54:00:12:34:56");
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "5:54:00:12:34:567",
            "52:54:00:12:34:+6",
        ] {
            assert_eq!(parse_mac(bad), None);
        }
    }
}
