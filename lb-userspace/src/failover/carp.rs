//! CARP advertisements, version 2, as OpenBSD, FreeBSD and ucarp send them. Pure.
//!
//! ```text
//!  0  0x21          1  vhid        2  advskew      3  7: words of authentication
//!  4  demotion (OpenBSD) or 0      5  advbase      6  checksum over these 36 bytes
//!  8  counter, 8 bytes            16  HMAC-SHA1, 20 bytes
//! ```
//!
//! The HMAC covers version, type, vhid, the VIPs and the counter – not advskew, advbase or demotion, and no receiver refuses
//! an old counter (a strict one would not interoperate: peers take new random counters). On an untrusted segment CARP can
//! be forged and replayed; the heartbeats between our own machines cannot.

use std::{net::IpAddr, time::Duration};

use aws_lc_rs::{constant_time, hmac};

use super::vrrp::{TTL, finish, sum};

const BYTES: usize = 36;
const VERSION_TYPE: u8 = 0x21;
const AUTHENTICATION_WORDS: u8 = 7;
/// A passphrase is cut to this: HMAC-SHA1's key is padded with zeros to it.
const KEY_BYTES: usize = 20;

/// advbase and advskew of an OpenBSD machine that leaves.
pub const BOW_OUT: u8 = 255;

/// An advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Virtual host id, 1 to 255.
    pub vhid: u8,
    /// Seconds between advertisements.
    pub advbase: u8,
    /// 1/256 s on top: the smaller the sum, the better the sender.
    pub advskew: u8,
    /// OpenBSD's demotion counter: greater is worse, before everything else.
    pub demotion: u8,
    /// Counter.
    pub counter: u64,
}

impl Advertisement {
    /// Time between the sender's advertisements.
    #[must_use]
    pub fn interval(&self) -> Duration {
        interval(self.advbase, self.advskew)
    }
}

/// Time between advertisements.
#[must_use]
pub fn interval(advbase: u8, advskew: u8) -> Duration {
    Duration::from_secs(advbase.into()) + Duration::from_secs(1) * u32::from(advskew) / 256
}

/// Why a packet of protocol 112 is no CARP advertisement of our group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is VRRP's, or nothing known.
    #[error("it is no CARP advertisement")]
    Foreign,
    /// It came through a router, or pretends to.
    #[error("its TTL is not 255: it does not come from this segment")]
    Ttl,
    /// The checksum is wrong.
    #[error("its checksum is wrong")]
    Checksum,
    /// Passphrase or list of addresses differ, or it is forged.
    #[error("its authentication is wrong: are passphrase and addresses the same on both machines?")]
    Forged,
}

/// Passphrase and addresses of a group: what the HMAC is made with.
#[derive(Debug)]
pub struct Key {
    key: hmac::Key,
    /// What is hashed before the counter.
    prefix: Vec<u8>,
}

impl Key {
    /// Of a group; the order of the addresses does not matter.
    #[must_use]
    pub fn new(passphrase: &[u8], vhid: u8, addresses: &[IpAddr]) -> Self {
        let mut padded = [0; KEY_BYTES];
        let used = passphrase.len().min(KEY_BYTES);
        padded[..used].copy_from_slice(&passphrase[..used]);
        let mut sorted = addresses.to_vec();
        // IPv4 ascending, then IPv6 ascending: `IpAddr` orders so.
        sorted.sort_unstable();
        let mut prefix = vec![2, 1, vhid];
        for address in sorted {
            match address {
                IpAddr::V4(address) => prefix.extend(address.octets()),
                IpAddr::V6(address) => prefix.extend(address.octets()),
            }
        }
        Self { key: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &padded), prefix }
    }

    fn tag(&self, counter: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&self.prefix);
        context.update(counter);
        context.sign()
    }
}

/// Whether a packet of protocol 112 is CARP's: VRRP version 2 begins with the same byte, has another length, and never seven
/// addresses in 36 bytes.
#[must_use]
pub fn is_carp(packet: &[u8]) -> bool {
    packet.len() == BYTES && packet[0] == VERSION_TYPE && packet[3] == AUTHENTICATION_WORDS
}

impl Advertisement {
    /// Writes the packet that follows the IP header.
    pub fn write(&self, key: &Key, out: &mut Vec<u8>) {
        out.clear();
        out.extend([VERSION_TYPE, self.vhid, self.advskew, AUTHENTICATION_WORDS, self.demotion, self.advbase, 0, 0]);
        out.extend(self.counter.to_be_bytes());
        out.extend(key.tag(&self.counter.to_be_bytes()).as_ref());
        let sum = finish(sum(0, out));
        out[6..8].copy_from_slice(&sum.to_be_bytes());
    }

    /// Reads what follows the IP header. `key` finds the key of a vhid that is ours.
    ///
    /// # Errors
    /// When it must be dropped; `Ok(None)`: it is good, as far as can be told, and of somebody else's group.
    pub fn read<'k>(
        packet: &[u8],
        ttl: u8,
        key: impl FnOnce(u8) -> Option<&'k Key>,
    ) -> Result<Option<Self>, Malformed> {
        if !is_carp(packet) {
            return Err(Malformed::Foreign);
        }
        if ttl != TTL {
            return Err(Malformed::Ttl);
        }
        if finish(sum(0, packet)) != 0 {
            return Err(Malformed::Checksum);
        }
        let Some(key) = key(packet[1]) else { return Ok(None) };
        constant_time::verify_slices_are_equal(key.tag(&packet[8..16]).as_ref(), &packet[16..36])
            .map_err(|_| Malformed::Forged)?;
        let mut counter = [0; 8];
        counter.copy_from_slice(&packet[8..16]);
        Ok(Some(Self {
            vhid: packet[1],
            advskew: packet[2],
            demotion: packet[4],
            advbase: packet[5],
            counter: u64::from_be_bytes(counter),
        }))
    }
}

#[cfg(test)]
mod tests;
