//! TCP, when the command line asks for it: one card, one IPv4 address, one default route.

use std::{
    fmt, fs,
    io::Read,
    net::Ipv4Addr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use crate::{
    cmdline::Network,
    error::{Doing, InitError, read_text},
    sys::LinkLayer,
};

pub mod dhcp;
pub mod netlink;
pub mod packet;

/// Longest time that the network card may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest line that the DHCP client may write, in bytes.
const LINE_MAX: u64 = 128;

/// An address, and how the rest of the world is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Config {
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Bits of the network's part of it, 1 to 32.
    pub prefix: u8,
    /// The default route's next hop; it need not be in the network (where the prefix is 32 it never is).
    pub gateway: Ipv4Addr,
    /// Longest packet in bytes, 576 to 9000; none: the card's.
    pub mtu: Option<u16>,
}

impl Ipv4Config {
    /// Reads `<ipv4>/<prefix>,<gateway>`, both of them addresses of single machines.
    pub fn parse(text: &str) -> Option<Self> {
        let (network, gateway) = text.split_once(',')?;
        let (address, prefix) = network.split_once('/')?;
        let config = Self {
            address: address.parse().ok()?,
            prefix: number(prefix)?,
            gateway: gateway.parse().ok()?,
            mtu: None,
        };
        config.stands().then_some(config)
    }

    /// Reads what the DHCP client writes: the same, and `,<mtu>` where the server gave one.
    fn parse_line(line: &str) -> Option<Self> {
        let Some((config, mtu)) = line
            .rsplit_once(',')
            .filter(|(config, _)| config.contains(','))
        else {
            return Self::parse(line);
        };
        let config = Self {
            mtu: Some(number(mtu)?),
            ..Self::parse(config)?
        };
        config.stands().then_some(config)
    }

    /// Whether a machine can have this address, this gateway and this MTU.
    fn stands(&self) -> bool {
        let single = |address: Ipv4Addr| {
            let first = address.octets()[0];
            first != 0 && first != 127 && first < 224
        };
        single(self.address)
            && single(self.gateway)
            && self.address != self.gateway
            && (1..=32).contains(&self.prefix)
            && self.mtu.is_none_or(|mtu| (576..=9000).contains(&mtu))
    }

    /// Whether the gateway is in the network that the address is in.
    fn gateway_is_near(&self) -> bool {
        let beyond = 32 - u32::from(self.prefix.min(32));
        let network = |address: Ipv4Addr| u64::from(address.to_bits()) >> beyond;
        network(self.address) == network(self.gateway)
    }
}

impl fmt::Display for Ipv4Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{},{}", self.address, self.prefix, self.gateway)?;
        self.mtu.map_or(Ok(()), |mtu| write!(f, ",{mtu}"))
    }
}

/// Decimal digits without sign or leading zero.
fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    (plain && (digits == "0" || !digits.starts_with('0')))
        .then(|| digits.parse().ok())
        .flatten()
}

/// A network card.
struct Card {
    name: String,
    index: u32,
    /// Its Ethernet address.
    mac: [u8; 6],
}

/// Sets the network up; gives what was set.
///
/// # Errors
/// No card or several; no answer by DHCP; what the system refuses.
pub fn set_up(network: Network) -> Result<Option<Ipv4Config>, InitError> {
    if network == Network::Vsock {
        return Ok(None);
    }
    let card = find()?;
    let doing = || format!("setting up {}", card.name);
    let mut route = netlink::Route::open().doing(doing)?;
    route.up(card.index).doing(doing)?;
    let config = match network {
        Network::Static(config) => config,
        Network::Vsock | Network::Dhcp => ask(&card)?,
    };
    if let Some(mtu) = config.mtu {
        route.mtu(card.index, mtu).doing(doing)?;
    }
    route
        .address(card.index, config.address, config.prefix)
        .doing(doing)?;
    if !config.gateway_is_near() {
        route.near(card.index, config.gateway).doing(doing)?;
    }
    route.default(card.index, config.gateway).doing(doing)?;
    Ok(Some(config))
}

/// Waits for the only network card.
fn find() -> Result<Card, InitError> {
    let class = "/sys/class/net";
    let begun = Instant::now();
    loop {
        let mut names = Vec::new();
        for entry in fs::read_dir(class).doing(|| format!("reading {class}"))? {
            let name = entry.doing(|| format!("reading {class}"))?.file_name();
            let name = name.to_string_lossy().into_owned();
            if name != "lo" {
                names.push(name);
            }
        }
        if let [name] = names.as_slice() {
            let about = |file: &str| read_text(format!("{class}/{name}/{file}"), 64);
            let (index, mac) = (about("ifindex")?, about("address")?);
            let wrong = |what: &str, found: &str, expected: &str| InitError::ReadBack {
                what: format!("{what} of network card {name}"),
                found: found.trim().into(),
                expected: expected.into(),
            };
            return Ok(Card {
                name: name.clone(),
                index: number(index.trim()).ok_or_else(|| wrong("index", &index, "a number"))?,
                mac: packet::parse_mac(mac.trim())
                    .ok_or_else(|| wrong("address", &mac, "an Ethernet address"))?,
            });
        }
        if begun.elapsed() >= PATIENCE {
            names.sort_unstable();
            return Err(InitError::NotOne {
                what: "a network card",
                found: if names.is_empty() {
                    "none".into()
                } else {
                    names.join(", ")
                },
            });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Asks a DHCP server, by a child without rights: it is given the socket, and gives back one line.
fn ask(card: &Card) -> Result<Ipv4Config, InitError> {
    const IPV4: u16 = 0x0800;
    let doing = || format!("opening a packet socket on {}", card.name);
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )
    .doing(doing)?;
    let address = LinkLayer {
        index: card.index,
        protocol: IPV4,
    };
    bind(&socket, &address).doing(doing)?;
    let mut transaction = [0; 4];
    rustix::rand::getrandom(&mut transaction, rustix::rand::GetRandomFlags::empty())
        .doing(|| "asking for random bytes".into())?;

    let starting = || "starting the DHCP client".into();
    let mut child = Command::new("/proc/self/exe")
        .arg("dhcp")
        .arg(packet::mac_text(card.mac))
        .arg(u32::from_ne_bytes(transaction).to_string())
        .env_clear()
        .stdin(Stdio::from(socket))
        .stdout(Stdio::piped())
        .spawn()
        .doing(starting)?;
    let mut line = String::new();
    let read = match child.stdout.take() {
        Some(output) => output.take(LINE_MAX).read_to_string(&mut line),
        None => Ok(0),
    };
    let status = child.wait().doing(starting)?;
    let config = read
        .is_ok()
        .then_some(line.as_str())
        .and_then(|line| line.strip_suffix('\n'))
        .and_then(Ipv4Config::parse_line);
    match config {
        Some(config) if status.success() => Ok(config),
        _ => Err(InitError::Dhcp(format!(
            "the client ended with {status} and said {line:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_strictly() {
        let config = Ipv4Config::parse("10.0.2.15/24,10.0.2.2").unwrap();
        assert!(config.gateway_is_near());
        assert_eq!(config.to_string(), "10.0.2.15/24,10.0.2.2");
        let alone = Ipv4Config::parse("10.128.0.7/32,10.128.0.1").unwrap();
        assert!(!alone.gateway_is_near());
        assert!(
            !Ipv4Config::parse("10.0.2.15/24,10.0.3.1")
                .unwrap()
                .gateway_is_near()
        );
        for bad in [
            "",
            "10.0.2.15/24",
            "10.0.2.15,10.0.2.2",
            "10.0.2.15/24,",
            "10.0.2.15/24,10.0.2.2,1460",
            "10.0.2.15/0,10.0.2.2",
            "10.0.2.15/33,10.0.2.2",
            "10.0.2.15/024,10.0.2.2",
            "10.0.2.15/+24,10.0.2.2",
            "10.0.2.15/24,10.0.2.15",
            "0.0.0.0/24,10.0.2.2",
            "127.0.0.1/8,10.0.2.2",
            "224.0.0.1/24,10.0.2.2",
            "255.255.255.255/24,10.0.2.2",
            "10.0.2.15/24,0.0.0.0",
            "10.0.2.15/24,255.255.255.255",
            "10.0.2/24,10.0.2.2",
            "10.0.2.15 /24,10.0.2.2",
            "::1/24,10.0.2.2",
            "host/24,10.0.2.2",
        ] {
            assert_eq!(Ipv4Config::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_clients_line_is_read_strictly() {
        let config = Ipv4Config::parse_line("10.128.0.7/32,10.128.0.1,1460").unwrap();
        assert_eq!(config.mtu, Some(1460));
        assert_eq!(Ipv4Config::parse_line(&config.to_string()), Some(config));
        let plain = Ipv4Config::parse_line("10.0.2.15/24,10.0.2.2").unwrap();
        assert_eq!(plain.mtu, None);
        for bad in [
            "",
            "10.0.2.15/24,10.0.2.2,",
            "10.0.2.15/24,10.0.2.2,0",
            "10.0.2.15/24,10.0.2.2,575",
            "10.0.2.15/24,10.0.2.2,9001",
            "10.0.2.15/24,10.0.2.2,70000",
            "10.0.2.15/24,10.0.2.2,1460,1",
            "10.0.2.15/24,10.0.2.2\n",
        ] {
            assert_eq!(Ipv4Config::parse_line(bad), None, "{bad:?}");
        }
    }
}
