//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! A [`Delta`] collects "these bytes became those", in any order, and is applied to each checksum that covers them. What
//! was wrong before stays wrong by the same amount: forwarding never repairs a corrupt packet.

/// The sum of changes, in ones' complement and network byte order, unfolded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// No change.
    pub const NONE: Delta = Delta(0);

    /// Records that a 16-bit field, as loaded from memory (`u16::from_ne_bytes`), changed.
    #[inline(always)]
    #[must_use]
    pub fn word16(self, old: u16, new: u16) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// Records that a 32-bit field, as loaded from memory, changed.
    #[inline(always)]
    #[must_use]
    pub fn word32(self, old: u32, new: u32) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// Records that a 16-byte address, as loaded from memory in four words, changed.
    #[inline(always)]
    #[must_use]
    pub fn address16(self, old: [u32; 4], new: [u32; 4]) -> Self {
        self.word32(old[0], new[0]).word32(old[1], new[1]).word32(old[2], new[2]).word32(old[3], new[3])
    }

    /// Both changes.
    #[inline(always)]
    #[must_use]
    pub fn and(self, other: Delta) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum field (as loaded from memory) after the changes: RFC 1624 equation 3, `HC' = ~(~HC + ~m + m')`.
    #[inline(always)]
    #[must_use]
    pub fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + u64::from(!checksum))
    }

    /// The same for UDP, where 0 says "no checksum" and a computed 0 is sent as 0xffff (RFC 768).
    #[inline(always)]
    #[must_use]
    pub fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// Adds the carries back until 16 bits are left (end-around carry).
#[inline(always)]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// RFC 1071 §4.1 by the letter, over bytes in network order.
    fn full(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn updating_equals_recomputing() {
        let mut seed = 1u64;
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = Vec::new();
            for _ in 0..20 {
                seed = crate::flow::mix64(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
                // Runs of 00 and ff are where ones' complement has its two zeros.
                bytes.push(match seed % 4 {
                    0 => 0,
                    1 => 0xff,
                    _ => (seed >> 8) as u8,
                });
            }
            let before = full(&bytes).to_be_bytes();
            let old32 = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            let old16 = u16::from_ne_bytes([bytes[10], bytes[11]]);
            let (new32, new16) = ((seed >> 16) as u32, (seed >> 48) as u16);
            bytes[4..8].copy_from_slice(&new32.to_ne_bytes());
            bytes[10..12].copy_from_slice(&new16.to_ne_bytes());
            let after = Delta::NONE.word32(old32, new32).word16(old16, new16).apply(u16::from_ne_bytes(before));
            let expected = u16::from_ne_bytes(full(&bytes).to_be_bytes());
            // 0x0000 and 0xffff are the same number; a header that is not all zero never sums to 0xffff (RFC 1624 §3).
            assert!(after == expected || (after ^ expected == 0xffff && (after == 0 || expected == 0)));
        }
    }

    #[test]
    fn a_udp_checksum_of_zero_stays_and_a_computed_zero_becomes_ffff() {
        assert_eq!(Delta::NONE.word16(1, 2).apply_udp(0), 0);
        // ~(~c + ~old + new) = 0 when c = 1, old = 2, new = 3: c' = c - (new - old) = 0.
        let one = Delta::NONE.word16(2, 3);
        assert_eq!(one.apply(1), 0);
        assert_eq!(one.apply_udp(1), 0xffff);
    }
}
