//! VRRP advertisements: version 3 (RFC 9568) for IPv4 and IPv6, version 2 (RFC 3768) for IPv4. Pure.
//!
//! ```text
//!  0  version (4 bits), type 1      1  VRID     2  priority     3  number of addresses
//!  4  v3: 0, interval in centiseconds (12 bits)     v2: authentication type, interval in seconds
//!  6  checksum                      8  addresses; v2: 8 bytes of authentication behind them
//! ```
//!
//! The checksum of version 3 over IPv4 has two dialects: RFC 9568 §5.2.8 sums the packet alone (Cisco, Arista), keepalived
//! and FRR put RFC 5798's pseudo header in front. Both are accepted; which one is sent is configured. CARP shares IP
//! protocol 112 and begins with `0x21`, as would version 2: what tells them apart is CARP's fixed length and byte 3.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// IP protocol number of VRRP and CARP.
pub const PROTOCOL: u8 = 112;

/// TTL and hop limit of every advertisement; others came through a router (RFC 9568 §5.1.1.3).
pub const TTL: u8 = 255;

/// Where advertisements for IPv4 go.
pub const GROUP4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// Where advertisements for IPv6 go.
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// The priority of a router that leaves.
pub const RESIGN: u8 = 0;

const HEADER: usize = 8;
/// Authentication data of version 2.
const AUTHENTICATION2: usize = 8;
/// The longest interval of version 3: 12 bits of centiseconds.
const MAX_CENTISECONDS: u128 = 4_095;

/// Version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// RFC 3768: IPv4, whole seconds.
    V2,
    /// RFC 9568.
    #[default]
    V3,
}

/// What the checksum of version 3 over IPv4 covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The packet behind a pseudo header: keepalived, FRR.
    #[default]
    PseudoHeader,
    /// The packet alone: RFC 9568 §5.2.8.
    Packet,
}

/// An advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Version.
    pub version: Version,
    /// Virtual router id, 1 to 255.
    pub vrid: u8,
    /// Priority; [`RESIGN`]: the sender leaves.
    pub priority: u8,
    /// The sender's interval.
    pub interval: Duration,
    /// The VIPs, all of one family; for IPv6 the link-local one first.
    pub addresses: Vec<IpAddr>,
}

/// Why a packet of protocol 112 is no advertisement that may be believed; in the order of RFC 9568 §7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is CARP's.
    #[error("it is a CARP advertisement")]
    Carp,
    /// It came through a router, or pretends to.
    #[error("its TTL is not 255: it does not come from this segment")]
    Ttl,
    /// Version or type are unknown.
    #[error("its version or type is unknown")]
    Version,
    /// It is too short or too long.
    #[error("its length does not fit its number of addresses")]
    Length,
    /// The checksum is wrong in both dialects.
    #[error("its checksum is wrong")]
    Checksum,
    /// It names no address, an id of 0 or an interval of 0.
    #[error("it names no address, no router or no interval")]
    Empty,
}

impl Advertisement {
    /// Writes the packet that follows the IP header.
    pub fn write(&self, source: IpAddr, destination: IpAddr, checksum: Checksum, out: &mut Vec<u8>) {
        out.clear();
        let count = u8::try_from(self.addresses.len()).unwrap_or(u8::MAX);
        let [high, low] = match self.version {
            Version::V3 => self.centiseconds().to_be_bytes(),
            Version::V2 => [0, u8::try_from(self.interval.as_secs()).unwrap_or(u8::MAX).max(1)],
        };
        let version = match self.version {
            Version::V2 => 0x21,
            Version::V3 => 0x31,
        };
        out.extend([version, self.vrid, self.priority, count, high, low, 0, 0]);
        for address in self.addresses.iter().take(usize::from(count)) {
            match address {
                IpAddr::V4(address) => out.extend(address.octets()),
                IpAddr::V6(address) => out.extend(address.octets()),
            }
        }
        if self.version == Version::V2 {
            out.extend([0; AUTHENTICATION2]);
        }
        let plain = self.version == Version::V2 || (source.is_ipv4() && checksum == Checksum::Packet);
        let start = if plain { 0 } else { pseudo_header(source, destination, out.len()) };
        let sum = finish(sum(start, out));
        out[6..8].copy_from_slice(&sum.to_be_bytes());
    }

    /// Reads what follows the IP header, and checks it as far as it can be without knowing the virtual router.
    ///
    /// # Errors
    /// When it must be dropped.
    pub fn read(packet: &[u8], source: IpAddr, destination: IpAddr, ttl: u8) -> Result<Self, Malformed> {
        let header = packet.first_chunk::<HEADER>().ok_or(Malformed::Length)?;
        if super::carp::is_carp(packet) {
            return Err(Malformed::Carp);
        }
        if ttl != TTL {
            return Err(Malformed::Ttl);
        }
        let version = match (header[0], source) {
            (0x21, IpAddr::V4(_)) => Version::V2,
            (0x31, _) => Version::V3,
            _ => return Err(Malformed::Version),
        };
        let (size, count) = (if source.is_ipv4() { 4 } else { 16 }, usize::from(header[3]));
        let behind = if version == Version::V2 { AUTHENTICATION2 } else { 0 };
        if packet.len() != HEADER + count * size + behind {
            return Err(Malformed::Length);
        }
        let matches = |start| finish(sum(start, packet)) == 0;
        let pseudo = || matches(pseudo_header(source, destination, packet.len()));
        let plain = || source.is_ipv4() && matches(0);
        let good = if version == Version::V2 { plain() } else { pseudo() || plain() };
        if !good {
            return Err(Malformed::Checksum);
        }
        let interval = match version {
            Version::V2 => Duration::from_secs(header[5].into()),
            Version::V3 => Duration::from_millis(10 * u64::from(u16::from_be_bytes([header[4] & 0x0f, header[5]]))),
        };
        if count == 0 || interval.is_zero() || header[1] == 0 {
            return Err(Malformed::Empty);
        }
        let addresses = packet[HEADER..HEADER + count * size].chunks_exact(size).map(address).collect();
        Ok(Self { version, vrid: header[1], priority: header[2], interval, addresses })
    }

    fn centiseconds(&self) -> u16 {
        u16::try_from((self.interval.as_millis() / 10).clamp(1, MAX_CENTISECONDS)).unwrap_or(1)
    }
}

/// The virtual router's MAC address (RFC 9568 §7.3).
#[must_use]
pub fn virtual_mac(vrid: u8, ipv6: bool) -> [u8; 6] {
    [0, 0, 0x5e, 0, if ipv6 { 2 } else { 1 }, vrid]
}

fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(four) => IpAddr::from(four),
        Err(_) => IpAddr::from(bytes.first_chunk::<16>().copied().unwrap_or_default()),
    }
}

/// Sum of the pseudo header: RFC 8200 §8.1, and RFC 5798 §5.2.8 for IPv4.
fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> u32 {
    let of = |address| match address {
        IpAddr::V4(address) => sum(0, &Ipv4Addr::octets(&address)),
        IpAddr::V6(address) => sum(0, &Ipv6Addr::octets(&address)),
    };
    of(source) + of(destination) + u32::from(PROTOCOL) + u32::try_from(length).unwrap_or(0)
}

pub(super) fn sum(start: u32, bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    bytes.chunks(2).fold(start, |sum, pair| sum + word(pair))
}

pub(super) fn finish(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests;
