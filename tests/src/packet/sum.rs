//! The Internet checksum, by the letter of RFC 1071: all of it, every time. What forwarded packets are checked against.

use std::net::IpAddr;

/// Sum of 16-bit words with end-around carry; an odd last byte is padded by zero.
#[must_use]
pub fn add(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + u32::from(pair.get(1).copied().unwrap_or(0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    sum as u16
}

/// Checksum of bytes whose checksum field is zero.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    !add(bytes)
}

/// Pseudo-header of RFC 9293 §3.1 and RFC 8200 §8.1.
#[must_use]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = octets(source);
    bytes.extend(octets(destination));
    match source {
        IpAddr::V4(_) => {
            bytes.extend([0, protocol]);
            bytes.extend((length as u16).to_be_bytes());
        }
        IpAddr::V6(_) => {
            bytes.extend((length as u32).to_be_bytes());
            bytes.extend([0, 0, 0, protocol]);
        }
    }
    bytes
}

/// The bytes of an address.
#[must_use]
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }
}
