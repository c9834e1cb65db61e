//! What `lbctl capture` and the capturing program agree on: which packets are wanted, and how each is handed over.
//!
//! The capturing program is the forwarding one, built with the feature `capture`: it decides the same, and tells. It is
//! on the interfaces only while somebody captures.

use crate::packet::{Frame, IPV4, IPV6, View, ethertype, network_layer, protocol};

/// Most bytes of a frame that are handed over: more than a jumbo frame has. A power of two.
pub const MAX_SNAPLEN: usize = 16_384;

/// The maps that only the capturing program has, unlike all others for as long as it is used.
pub mod map {
    /// [`super::Control`], one element.
    pub const CAPTURE: &str = "CAPTURE";
    /// The ring of records.
    pub const CAPTURED: &str = "CAPTURED";
    /// Where records are made, per CPU.
    pub const SNAPSHOT: &str = "SNAPSHOT";
    /// All of them.
    pub const NAMES: [&str; 3] = [CAPTURE, CAPTURED, SNAPSHOT];
}

/// Bits of [`Control::directions`] and values of [`Record::direction`].
pub mod direction {
    /// As it came.
    pub const IN: u8 = 1;
    /// As it leaves.
    pub const OUT: u8 = 2;
}

/// Addresses: those that are `address` where `mask` has ones, in memory order, IPv4 in the first four bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Net {
    /// Address, zero outside of the mask.
    pub address: [u64; 2],
    /// Mask; zero: every address.
    pub mask: [u64; 2],
}
const _: () = assert!(core::mem::size_of::<Net>() == 32);

impl Net {
    /// The first `prefix` bits of an address.
    #[must_use]
    pub fn new(address: [u8; 16], prefix: u8) -> Self {
        let words = |bytes: u128| {
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes.to_be_bytes();
            [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
        };
        let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
        Self { address: words(u128::from_be_bytes(address) & mask), mask: words(mask) }
    }

    #[inline(always)]
    fn has(&self, address: [u64; 2]) -> bool {
        address[0] & self.mask[0] == self.address[0] && address[1] & self.mask[1] == self.address[1]
    }
}

/// Which packets are wanted: those that match as they come, or as they leave. Zero fields match everything.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// One bit for each reason that is wanted.
    pub reasons: u64,
    /// Source address.
    pub source: Net,
    /// Destination address.
    pub destination: Net,
    /// Either of the two.
    pub either: Net,
    /// 4 or 6: IP version.
    pub version: u8,
    /// IP protocol; [`protocol::ICMP`] stands for both.
    pub protocol: u8,
    /// Source or destination port, host order.
    pub port: u16,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(core::mem::size_of::<Filter>() == 112);

/// The one element of `CAPTURE`. Written by the daemon before the program is used; `left` and `lost` by both.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Which packets.
    pub filter: Filter,
    /// CLOCK_MONOTONIC in nanoseconds at which it is over, whether or not there is a daemon then.
    pub until_ns: u64,
    /// Records that may still be made. Below zero: none.
    pub left: i64,
    /// Records for which the ring had no room.
    pub lost: u64,
    /// Bytes of each frame: 1 to [`MAX_SNAPLEN`].
    pub snaplen: u32,
    /// `direction::*` that are wanted.
    pub directions: u32,
}
const _: () = assert!(core::mem::size_of::<Control>() == 144);

/// A frame, as it is handed over: `captured` bytes of it follow.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// CLOCK_MONOTONIC in nanoseconds.
    pub at_ns: u64,
    /// Bytes of the whole frame.
    pub length: u32,
    /// Bytes that follow.
    pub captured: u32,
    /// The interface that it came in by, or leaves by.
    pub ifindex: u32,
    /// Id of the virtual server; 0: none.
    pub virtual_server: u16,
    /// Node slot; 0: none.
    pub node: u16,
    /// `reason::Reason`.
    pub reason: u8,
    /// One of `direction::*`.
    pub direction: u8,
    /// Zero.
    pub padding: [u8; 6],
}
const _: () = assert!(core::mem::size_of::<Record>() == 32);

impl Record {
    /// Bytes before those of the frame.
    pub const BYTES: usize = core::mem::size_of::<Self>();

    /// Reads a record and the bytes of its frame; `None`: it is cut short.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, data) = bytes.split_first_chunk::<{ Self::BYTES }>()?;
        let [a, b, c, d, e, f, g, h, l0, l1, l2, l3, c0, c1, c2, c3, i0, i1, i2, i3, v0, v1, n0, n1, rest @ ..] = *head;
        let record = Self {
            at_ns: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            length: u32::from_ne_bytes([l0, l1, l2, l3]),
            captured: u32::from_ne_bytes([c0, c1, c2, c3]),
            ifindex: u32::from_ne_bytes([i0, i1, i2, i3]),
            virtual_server: u16::from_ne_bytes([v0, v1]),
            node: u16::from_ne_bytes([n0, n1]),
            reason: rest[0],
            direction: rest[1],
            padding: [0; 6],
        };
        // The ring rounds sizes up.
        Some((record, data.get(..record.captured as usize)?))
    }
}

/// Between whom a packet travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ends {
    version: u8,
    protocol: u8,
    source: [u64; 2],
    destination: [u64; 2],
    source_port: u16,
    destination_port: u16,
}

/// Whether a frame is of those that a filter wants, whatever its reason is.
#[inline(always)]
pub fn is_wanted<F: Frame>(frame: F, filter: &Filter) -> bool {
    let asks_nothing = filter.source.mask[0] | filter.destination.mask[0] | filter.either.mask[0] == 0
        && u32::from(filter.version) | u32::from(filter.protocol) | u32::from(filter.port) == 0;
    if asks_nothing {
        return true;
    }
    let Some(ends) = ends(frame) else { return false };
    let of_protocol = filter.protocol == 0 || filter.protocol == ends.protocol;
    let of_version = filter.version == 0 || filter.version == ends.version;
    let of_port = filter.port == 0 || filter.port == ends.source_port || filter.port == ends.destination_port;
    of_protocol
        && of_version
        && of_port
        && filter.source.has(ends.source)
        && filter.destination.has(ends.destination)
        && (filter.either.has(ends.source) || filter.either.has(ends.destination))
}

/// `None`: not IP, or not even its addresses are there.
#[inline(always)]
fn ends<F: Frame>(frame: F) -> Option<Ends> {
    let (kind, l3) = network_layer(frame)?;
    match kind {
        ethertype::IPV4 => ends4(frame, l3),
        ethertype::IPV6 => ends6(frame, l3),
        _ => None,
    }
}

#[inline(always)]
fn ends4<F: Frame>(frame: F, l3: usize) -> Option<Ends> {
    let ip = frame.view::<IPV4>(l3)?;
    let mut ends = Ends {
        version: 4,
        protocol: ip.u8(9),
        source: [u64::from(ip.u32(12)), 0],
        destination: [u64::from(ip.u32(16)), 0],
        ..Ends::default()
    };
    // Later fragments have no ports.
    if ip.be16(6) & 0x1fff == 0 {
        let header = usize::from(ip.u8(0) & 15) * 4;
        find_ports(frame, l3 + header, &mut ends);
    }
    Some(ends)
}

/// Ports are found where nothing stands before them: no extension header.
#[inline(always)]
fn ends6<F: Frame>(frame: F, l3: usize) -> Option<Ends> {
    let ip = frame.view::<IPV6>(l3)?;
    let word = |at| u64::from(ip.u32(at)) | u64::from(ip.u32(at + 4)) << 32;
    let mut ends = Ends {
        version: 6,
        protocol: if ip.u8(6) == protocol::ICMPV6 { protocol::ICMP } else { ip.u8(6) },
        source: [word(8), word(16)],
        destination: [word(24), word(32)],
        ..Ends::default()
    };
    find_ports(frame, l3 + IPV6, &mut ends);
    Some(ends)
}

#[inline(always)]
fn find_ports<F: Frame>(frame: F, l4: usize, ends: &mut Ends) {
    if (ends.protocol == protocol::TCP || ends.protocol == protocol::UDP)
        && let Some(ports) = frame.view::<4>(l4)
    {
        (ends.source_port, ends.destination_port) = (ports.be16(0), ports.be16(2));
    }
}

#[cfg(test)]
mod tests;
