//! `ping`, by a raw ICMP socket of our own: whether an address answers an echo request. IPv4 and IPv6.

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

const PAYLOAD: &[u8] = b"a payload of odd length";
const IDENTIFIER: [u8; 2] = [0x4c, 0x42];

/// Sends one echo request and waits for its answer, which must carry the same identifier, number and payload. The thread
/// must be in the namespace that sends.
///
/// # Errors
/// `TimedOut` without an answer in time.
pub fn ping(target: IpAddr, sequence: u16, timeout: Duration) -> io::Result<Duration> {
    let (domain, protocol, request, reply) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.connect(&SocketAddr::new(target, 0).into())?;
    let start = Instant::now();
    socket.send(&message(request, sequence, target.is_ipv4()))?;
    let expected = message(reply, sequence, target.is_ipv4());
    let mut buffer = [MaybeUninit::uninit(); 2048];
    while let Some(left) = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            result => result?,
        };
        // SAFETY: `recv` has initialised the first `length` bytes.
        let packet: Vec<u8> = buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
        // IPv4 raw sockets see the IP header, IPv6 ones do not.
        let header = if target.is_ipv4() { usize::from(packet.first().copied().unwrap_or(0) & 15) * 4 } else { 0 };
        let Some(answer) = packet.get(header..) else { continue };
        // The kernel fills in and checks the ICMPv6 checksum: it is left out of the comparison.
        let same = answer.len() == expected.len() && answer[0] == reply && answer[4..] == expected[4..];
        if same && (target.is_ipv6() || answer[2..4] == expected[2..4]) {
            return Ok(start.elapsed());
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("{target} does not answer within {timeout:?}")))
}

fn message(kind: u8, sequence: u16, with_checksum: bool) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(IDENTIFIER);
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(PAYLOAD);
    if with_checksum {
        let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        let sum: u32 = bytes.chunks(2).map(word).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes
}
