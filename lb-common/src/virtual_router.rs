//! Virtual MAC addresses of VRRP (RFC 9568 section 7.3) and CARP: 00-00-5E-00-01-ID over IPv4, 00-00-5E-00-02-ID over IPv6.
//!
//! `VIRTUAL_ROUTERS` has a bit for each of these 512 addresses, set while this machine owns it: frames to it are then ours, at whichever
//! interface they come in, and another machine's otherwise.

/// Words of `VIRTUAL_ROUTERS`.
pub const WORDS: u32 = 8;

/// The first four bytes of every such address, as a number in little-endian order.
const PREFIX: u32 = u32::from_le_bytes([0, 0, 0x5e, 0]);

/// Where the bit of a MAC address is, in `VIRTUAL_ROUTERS`: the word and the bit in it. `address` is the six bytes in memory order, the
/// first one lowest, zeros above. `None`: it is no virtual router's.
#[inline(always)]
#[must_use]
pub fn position(address: u64) -> Option<(u32, u32)> {
    let family = (address >> 32) as u8;
    let id = (address >> 40) as u32 & 0xff;
    let is_virtual = address as u32 == PREFIX && (family == 1 || family == 2);
    is_virtual.then(|| ((u32::from(family) - 1) * (WORDS / 2) + id / u64::BITS, id % u64::BITS))
}

/// The address whose bit that is.
#[must_use]
pub fn address(word: u32, bit: u32) -> [u8; 6] {
    let half = WORDS / 2;
    [0, 0, 0x5e, 0, (word / half) as u8 + 1, ((word % half) * u64::BITS + bit) as u8]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn of(mac: [u8; 6]) -> Option<(u32, u32)> {
        let [a, b, c, d, e, f] = mac;
        position(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    #[test]
    fn every_virtual_router_has_a_bit_of_its_own() {
        let mut seen = BTreeSet::new();
        for family in [1, 2] {
            for id in 0..=255 {
                let mac = [0, 0, 0x5e, 0, family, id];
                let (word, bit) = of(mac).expect("a virtual router");
                assert!(word < WORDS && bit < 64 && seen.insert((word, bit)), "{mac:?}");
                assert_eq!(address(word, bit), mac);
            }
        }
        assert_eq!(of([0, 0, 0x5e, 0, 1, 65]), Some((1, 1)));
        assert_eq!(of([0, 0, 0x5e, 0, 2, 255]), Some((7, 63)));
    }

    #[test]
    fn other_addresses_have_none() {
        for mac in [
            [0; 6],
            [0xff; 6],
            [0, 0, 0x5e, 0, 0, 1],
            [0, 0, 0x5e, 0, 3, 1],
            [1, 0, 0x5e, 0, 0, 18],
            [1, 0, 0x5e, 0, 1, 1],
            [0, 0, 0x5e, 1, 1, 1],
            [2, 0, 0x5e, 0, 1, 1],
        ] {
            assert_eq!(of(mac), None, "{mac:?}");
        }
    }
}
