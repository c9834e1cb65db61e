//! The ring's hash, a second time: NH of RFC 4418 §5.2.2 over 32-bit words in memory order, then the finaliser.

use std::net::IpAddr;

use crate::packet::sum::octets;

/// A flow as the ring sees it. Fields that the ring must not look at are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Ports, source first.
    pub ports: (u16, u16),
    /// Protocol number; 0: left out.
    pub protocol: u8,
    /// Source.
    pub source: IpAddr,
    /// Destination; `None`: left out.
    pub destination: Option<IpAddr>,
}

impl Flow {
    /// The bytes that are hashed: ports, protocol, family, two zero bytes, addresses.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(40);
        bytes.extend(self.ports.0.to_be_bytes());
        bytes.extend(self.ports.1.to_be_bytes());
        bytes.extend([self.protocol, if self.source.is_ipv4() { 4 } else { 6 }, 0, 0]);
        let source = octets(self.source);
        let destination = self.destination.map_or_else(|| vec![0; source.len()], octets);
        bytes.extend(source);
        bytes.extend(destination);
        bytes
    }

    /// Its hash with ten 32-bit keys.
    #[must_use]
    pub fn hash(&self, keys: &[u32; 10]) -> u64 {
        let words: Vec<u32> = self.bytes().chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let pairs = words.chunks(2).zip(keys.chunks(2));
        let sum = pairs.fold(0u64, |sum, (word, key)| {
            let (a, b) = (word[0].wrapping_add(key[0]), word[1].wrapping_add(key[1]));
            sum.wrapping_add(u64::from(a) * u64::from(b))
        });
        finish(sum)
    }
}

const MULTIPLIER: u64 = 0xd6e8_feb8_6659_fd93;

/// Three xor-shifts by 32 with two multiplications between them.
#[must_use]
pub fn finish(value: u64) -> u64 {
    let spread = |x: u64| x ^ (x >> 32);
    spread(spread(spread(value).wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER))
}

/// The ring's keys from the configured seed: the high halves of splitmix64's sequence.
#[must_use]
pub fn keys(seed: u64) -> [u32; 10] {
    let nth = |n: u64| finish(seed.wrapping_add(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(n)));
    std::array::from_fn(|i| (nth(i as u64 + 1) >> 32) as u32)
}
