//! Connections, persistence and keys of TLS tickets as the machines of a cluster tell each other of them: by addresses, names and
//! hashes under what they share, never by numbers that mean something on one machine alone (slots, ids, generations, interfaces). And as
//! bytes. Pure.
//!
//! Integers are big-endian. A family is one byte, 4 or 6; an address of it has 4 or 16 bytes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::proxy::{
    Secret,
    memory::{Session, TicketKey},
};

/// What one machine tells another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shared {
    /// A translated connection, new or changed, or a sign that it lives.
    Connection(Connection),
    /// One that is over.
    Ended(Ends),
    /// A client's node, by source-address persistence.
    Client(Client),
    /// A session of the L7 proxy and its node. Whole seconds.
    Session(Session),
    /// A key that this machine's TLS tickets are made with.
    TicketKey(TicketKey),
}

/// The client's view of a connection. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// IP protocol number.
    pub protocol: u8,
    /// Client.
    pub client: SocketAddr,
    /// VIP and port.
    pub vip: SocketAddr,
}

/// A translated connection. All addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// What the client sees.
    pub ends: Ends,
    /// The node; port 0: the VIP's stays.
    pub node: SocketAddr,
    /// The balancer's address that the node sees, with source NAT.
    pub source: Option<IpAddr>,
    /// The port that the node sees.
    pub port: u16,
    /// `lb_common::conntrack::State` as a number.
    pub state: u8,
    /// `lb_common::flow::flag::FIN_CLIENT` and `FIN_NODE`.
    pub fins: u8,
    /// Ticks since its last packet.
    pub idle: u32,
    /// Ticks since it began.
    pub age: u32,
    /// Where the client's packets come from: on the segment that the machines share the same MAC address and VLAN for all.
    pub client_mac: [u8; 6],
    /// VLAN; 0: untagged.
    pub client_vlan: u16,
}

/// A client's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Name of the virtual server.
    pub virtual_server: String,
    /// The client's address, as far as it counts.
    pub client: IpAddr,
    /// The node.
    pub node: SocketAddr,
    /// Ticks since it was last used.
    pub idle: u32,
}

mod kind {
    pub(super) const CONNECTION: u8 = 1;
    pub(super) const ENDED: u8 = 2;
    pub(super) const CLIENT: u8 = 3;
    pub(super) const SESSION: u8 = 4;
    pub(super) const TICKET_KEY: u8 = 5;
}

/// The longest name of a virtual server.
const MAX_NAME: usize = lb_common::maps::NAME_BYTES - 1;

/// More bytes than any of these takes.
pub const MAX_BYTES: usize = 160;

impl Shared {
    /// Adds it to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Connection(connection) => {
                out.push(kind::CONNECTION);
                connection.ends.write(out);
                address(out, connection.node.ip());
                out.extend(connection.node.port().to_be_bytes());
                // A missing source is the unspecified address.
                let none =
                    if connection.node.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                address(out, connection.source.unwrap_or(none));
                out.extend(connection.port.to_be_bytes());
                out.extend([connection.state, connection.fins]);
                out.extend(connection.idle.to_be_bytes());
                out.extend(connection.age.to_be_bytes());
                out.extend(connection.client_mac);
                out.extend(connection.client_vlan.to_be_bytes());
            }
            Self::Ended(ends) => {
                out.push(kind::ENDED);
                ends.write(out);
            }
            Self::Client(client) => {
                let name = &client.virtual_server.as_bytes()[..client.virtual_server.len().min(MAX_NAME)];
                out.extend([kind::CLIENT, if client.client.is_ipv4() { 4 } else { 6 }]);
                out.push(u8::try_from(name.len()).unwrap_or(0));
                out.extend(name);
                address(out, client.client);
                address(out, client.node.ip());
                out.extend(client.node.port().to_be_bytes());
                out.extend(client.idle.to_be_bytes());
            }
            Self::Session(session) => {
                out.extend([kind::SESSION, session.kind]);
                out.extend(session.pool.to_be_bytes());
                out.extend(session.id.to_be_bytes());
                out.extend(session.node.to_be_bytes());
                out.extend(u32::try_from(session.left.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
            }
            Self::TicketKey(key) => {
                out.push(kind::TICKET_KEY);
                out.extend(key.epoch.to_be_bytes());
                out.extend(key.secret.0);
            }
        }
    }

    /// All that stand one after the other; `None` when something else does.
    #[must_use]
    pub fn read_all(bytes: &[u8]) -> Option<Vec<Self>> {
        let mut reader = Reader(bytes);
        let mut all = Vec::new();
        while !reader.0.is_empty() {
            all.push(reader.shared()?);
        }
        Some(all)
    }
}

impl Ends {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend([if self.client.is_ipv4() { 4 } else { 6 }, self.protocol]);
        for end in [self.client, self.vip] {
            address(out, end.ip());
            out.extend(end.port().to_be_bytes());
        }
    }
}

fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend(address.octets()),
        IpAddr::V6(address) => out.extend(address.octets()),
    }
}

/// What is left to be read.
struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn short(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn word(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn address(&mut self, family: u8) -> Option<IpAddr> {
        match family {
            4 => self.take::<4>().map(IpAddr::from),
            6 => self.take::<16>().map(IpAddr::from),
            _ => None,
        }
    }

    fn socket(&mut self, family: u8) -> Option<SocketAddr> {
        let address = self.address(family)?;
        Some(SocketAddr::new(address, self.short()?))
    }

    fn ends(&mut self) -> Option<(u8, Ends)> {
        let (family, protocol) = (self.byte()?, self.byte()?);
        Some((family, Ends { protocol, client: self.socket(family)?, vip: self.socket(family)? }))
    }

    fn shared(&mut self) -> Option<Shared> {
        Some(match self.byte()? {
            kind::CONNECTION => Shared::Connection(self.connection()?),
            kind::ENDED => Shared::Ended(self.ends()?.1),
            kind::CLIENT => Shared::Client(self.client()?),
            kind::SESSION => Shared::Session(Session {
                kind: self.byte()?,
                pool: self.take().map(u64::from_be_bytes)?,
                id: self.take().map(u128::from_be_bytes)?,
                node: self.take().map(u64::from_be_bytes)?,
                left: Duration::from_secs(self.word()?.into()),
            }),
            kind::TICKET_KEY => {
                let epoch = self.take().map(u64::from_be_bytes)?;
                Shared::TicketKey(TicketKey { epoch, secret: Secret(self.take()?) })
            }
            _ => return None,
        })
    }

    fn connection(&mut self) -> Option<Connection> {
        let (family, ends) = self.ends()?;
        Some(Connection {
            ends,
            node: self.socket(family)?,
            source: self.address(family).map(|source| (!source.is_unspecified()).then_some(source))?,
            port: self.short()?,
            state: self.byte()?,
            fins: self.byte()?,
            idle: self.word()?,
            age: self.word()?,
            client_mac: self.take()?,
            client_vlan: self.short()?,
        })
    }

    fn client(&mut self) -> Option<Client> {
        let (family, length) = (self.byte()?, usize::from(self.byte()?));
        let (name, rest) = self.0.split_at_checked(length).filter(|_| length <= MAX_NAME)?;
        self.0 = rest;
        Some(Client {
            virtual_server: String::from_utf8(name.to_vec()).ok()?,
            client: self.address(family)?,
            node: self.socket(family)?,
            idle: self.word()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Shared> {
        let ends =
            |client: &str, vip: &str| Ends { protocol: 6, client: client.parse().unwrap(), vip: vip.parse().unwrap() };
        let connection = |ends: Ends, node: &str, source: Option<&str>| Connection {
            ends,
            node: node.parse().unwrap(),
            source: source.map(|source| source.parse().unwrap()),
            port: 1024,
            state: 4,
            fins: 8,
            idle: 3,
            age: 70_000,
            client_mac: [2, 0, 0, 0, 0, 9],
            client_vlan: 100,
        };
        let four = ends("192.0.2.9:40000", "198.51.100.1:80");
        let six = ends("[2001:db8::9]:40000", "[2001:db8:1::1]:80");
        let client = |client: &str, node: &str| Client {
            virtual_server: "web".to_owned(),
            client: client.parse().unwrap(),
            node: node.parse().unwrap(),
            idle: 5,
        };
        vec![
            Shared::Connection(connection(four, "10.0.0.1:0", Some("10.0.0.254"))),
            Shared::Connection(connection(six, "[fd00::1]:8080", None)),
            Shared::Ended(four),
            Shared::Ended(six),
            Shared::Client(client("192.0.2.0", "10.0.0.1:80")),
            Shared::Client(client("2001:db8::", "[fd00::1]:80")),
            Shared::Session(Session {
                kind: 2,
                pool: 7,
                id: 1 << 100,
                node: u64::MAX,
                left: Duration::from_secs(3_600),
            }),
            Shared::TicketKey(TicketKey { epoch: 41_666, secret: Secret([9; 32]) }),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        for shared in all() {
            let before = bytes.len();
            shared.write(&mut bytes);
            assert!(bytes.len() - before <= MAX_BYTES, "{shared:?}");
        }
        assert_eq!(Shared::read_all(&bytes), Some(all()));
        let Shared::Client(client) = all().swap_remove(5) else { panic!("the sixth is a client") };
        let longest = Client { virtual_server: "x".repeat(200), ..client };
        let mut bytes = Vec::new();
        Shared::Client(longest).write(&mut bytes);
        assert!(bytes.len() <= MAX_BYTES && Shared::read_all(&bytes).is_some());
    }

    #[test]
    fn what_is_cut_off_or_garbled_is_refused_or_something_else_and_never_a_panic() {
        for shared in all() {
            let mut bytes = Vec::new();
            shared.write(&mut bytes);
            for length in 1..bytes.len() {
                assert_eq!(Shared::read_all(&bytes[..length]), None, "{length} of {shared:?}");
            }
            for at in 0..bytes.len() {
                for value in [0, 1, 2, 3, 4, 6, 64, 255] {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    // Whatever it says, it says it without a panic.
                    let _ = Shared::read_all(&changed);
                }
            }
        }
    }
}
