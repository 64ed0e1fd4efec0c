//! What each client may take: connections, and requests under way.
//!
//! A client is an address; of IPv6 its first 64 bits, which is what one subscriber has. An entry is there for as
//! long as the client has something, so there are never more entries than connections and requests.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::relay::fields::Fields;

/// The field in which a forwarder says for whom it asks.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// A client's address, as far as it tells clients apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client([u8; 16]);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut octets = address.octets();
        if address.to_ipv4_mapped().is_none() {
            octets[8..].fill(0);
        }
        Self(octets)
    }
}

#[derive(Debug, Default)]
struct Taken {
    connections: usize,
    requests: usize,
}

/// All clients that have something now.
#[derive(Debug)]
pub struct Clients {
    taken: Mutex<HashMap<Client, Taken>>,
    connections: usize,
    requests: usize,
    forwarders: Vec<IpAddr>,
}

/// Something that a client has, until it is dropped.
#[derive(Debug)]
pub struct Place {
    clients: Arc<Clients>,
    client: Client,
    of: fn(&mut Taken) -> &mut usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.clients.taken();
        if let Entry::Occupied(mut entry) = taken.entry(self.client) {
            let count = (self.of)(entry.get_mut());
            *count = count.saturating_sub(1);
            if entry.get().connections == 0 && entry.get().requests == 0 {
                entry.remove();
            }
        }
    }
}

impl Clients {
    /// Each client may have so many connections, and so many requests under way. Connections of `forwarders` are
    /// not counted, and their requests are those of the clients that they name.
    pub fn new(connections: usize, requests: usize, forwarders: Vec<IpAddr>) -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::default(),
            connections,
            requests,
            forwarders,
        })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Client, Taken>> {
        // A count is right after every step.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(
        self: &Arc<Self>,
        client: Client,
        limit: usize,
        of: fn(&mut Taken) -> &mut usize,
    ) -> Option<Place> {
        let mut taken = self.taken();
        let count = of(taken.entry(client).or_default());
        let free = *count < limit;
        // Who has as many as he may has an entry anyway.
        *count += usize::from(free);
        free.then(|| Place {
            clients: self.clone(),
            client,
            of,
        })
    }

    /// A place for a connection from this address; `None`: it has as many as it may.
    pub fn connection(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let limit = match self.forwarders.contains(&peer.to_canonical()) {
            true => usize::MAX,
            false => self.connections,
        };
        self.take(peer.into(), limit, |taken| &mut taken.connections)
    }

    /// A place for a request that came over a connection from this address; `None`: its client has as many under way
    /// as it may.
    pub fn request(self: &Arc<Self>, peer: IpAddr, fields: Fields<'_>) -> Option<Place> {
        let client = match self.forwarders.contains(&peer.to_canonical()) {
            true => forwarded_for(fields).unwrap_or(peer),
            false => peer,
        };
        self.take(client.into(), self.requests, |taken| &mut taken.requests)
    }

    /// How many clients have something now.
    pub fn len(&self) -> usize {
        self.taken().len()
    }

    /// Whether no client has anything now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The address that the forwarder itself added, which is the last. What stands before it anybody may have written.
fn forwarded_for(fields: Fields<'_>) -> Option<IpAddr> {
    let last = std::str::from_utf8(fields.all(FORWARDED_FOR).last()?);
    let last = last.ok()?.rsplit(',').next()?.trim();
    let bare = last.strip_prefix('[').and_then(|l| l.strip_suffix(']'));
    match bare {
        Some(address) => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => last.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_client_has_its_share_and_none_leaves_a_trace() {
        let clients = Clients::new(2, 1, Vec::new());
        let none = Fields::of(b"");
        let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let held = [
            clients.connection(a).unwrap(),
            clients.connection(a).unwrap(),
        ];
        assert!(clients.connection(a).is_none());
        assert!(clients.connection(ip("::ffff:192.0.2.1")).is_none());
        let other = clients.connection(b).unwrap();
        let request = clients.request(a, none).unwrap();
        assert!(clients.request(a, none).is_none());
        assert_eq!(clients.len(), 2);
        drop(held);
        drop(other);
        assert_eq!(clients.len(), 1);
        assert!(clients.connection(a).is_some());
        drop(request);
        assert!(clients.is_empty());
        // One IPv6 subscriber is one client, whatever addresses it takes.
        let net = ["2001:db8::1", "2001:db8::2:0:0:2"].map(|a| clients.connection(ip(a)));
        assert!(net.iter().all(Option::is_some));
        assert!(clients.connection(ip("2001:db8::ffff:3")).is_none());
        assert!(clients.connection(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn only_a_trusted_forwarder_is_believed_and_only_its_own_word() {
        let mut head = "GET / HTTP/1.1\r\n".to_owned();
        let mut says = |text: &str| {
            head.push_str(&format!("X-Forwarded-For: {text}\r\n"));
            format!("{head}\r\n")
        };
        let request = |clients: &Arc<Clients>, peer: IpAddr, head: &str| {
            clients.request(peer, Fields::of(head.as_bytes()))
        };
        let none = "";
        let (proxy, stranger) = (ip("10.0.0.1"), ip("10.0.0.2"));
        let clients = Clients::new(1, 1, vec![proxy]);
        let first = says("198.51.100.1, 192.0.2.1");
        let _one = request(&clients, proxy, &first).unwrap();
        assert!(request(&clients, proxy, &first).is_none());
        assert!(request(&clients, ip("192.0.2.1"), &first).is_none());
        assert!(request(&clients, ip("198.51.100.1"), none).is_some());
        let second = says("[2001:db8::1]");
        let _two = request(&clients, proxy, &second).unwrap();
        assert!(request(&clients, ip("2001:db8::2"), none).is_none());
        let _three = request(&clients, stranger, &second).unwrap();
        assert!(request(&clients, stranger, &says("192.0.2.77")).is_none());
        // What is no address is the forwarder's own.
        let _four = request(&clients, proxy, &says("unknown")).unwrap();
        assert!(request(&clients, proxy, &says("")).is_none());
        let _open = [clients.connection(proxy), clients.connection(proxy)].map(Option::unwrap);
    }
}
