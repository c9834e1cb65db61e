//! What tells clients apart, as numbers: keys of consistent hash and of persistence tables.
//!
//! Hashes are SipHash under keys derived from the plan's secret: the same on every thread and on every machine that has
//! the secret, and not to be steered by who does not.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;
use lb_common::flow::mix64;
use siphasher::{sip::SipHasher13, sip128::SipHasher24};

use crate::{
    control::proxy::{Secret, pool::Key},
    proxy::facts::Facts,
};

/// The keyed hashes of a plan.
#[derive(Clone, Copy)]
pub(super) struct Hashes {
    /// For choices.
    short: SipHasher13,
    /// For what must not collide.
    long: SipHasher24,
}

impl std::fmt::Debug for Hashes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hashes(…)")
    }
}

impl Hashes {
    pub(super) fn new(secret: &Secret) -> Self {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret.0), b"lb pool hashes");
        let (short, rest) = derived.as_ref().split_at(16);
        let mut keys = [[0; 16]; 2];
        keys[0].copy_from_slice(short);
        keys[1].copy_from_slice(&rest[..16]);
        Self { short: SipHasher13::new_with_key(&keys[0]), long: SipHasher24::new_with_key(&keys[1]) }
    }

    /// 64 bits of a text.
    pub(super) fn text(&self, text: &str) -> u64 {
        self.short.hash(text.as_bytes())
    }

    /// 128 bits of a text: two that are the same are the same text.
    pub(super) fn text128(&self, text: &str) -> u128 {
        self.long.hash(text.as_bytes()).as_u128()
    }

    /// The value of `key` in a request; `None` when the request has none, or an empty one.
    pub(super) fn key(&self, key: &Key, facts: &dyn Facts) -> Option<u64> {
        let of = |text: &str| (!text.is_empty()).then(|| self.text(text));
        match key {
            Key::ClientAddress { prefix4, prefix6 } => {
                let network = network(facts.client(), *prefix4, *prefix6);
                Some(self.short.hash(&network.to_be_bytes()))
            }
            Key::Header(name) => of(facts.header(name)?.as_ref()),
            Key::Cookie(name) => of(facts.cookie(name)?.as_ref()),
            Key::Query(name) => of(parameter(facts.query()?, name)?),
            Key::Path => of(facts.path()),
            Key::Host => of(facts.host()),
        }
    }
}

/// The first bits of an address, as an IPv6 address: IPv4 is mapped (`::ffff:0:0/96`).
pub(super) fn network(address: IpAddr, prefix4: u8, prefix6: u8) -> u128 {
    let (bits, prefix) = match address.to_canonical() {
        IpAddr::V4(address) => (u128::from(address.to_ipv6_mapped()), 96 + prefix4.min(32)),
        IpAddr::V6(address) => (u128::from(address), prefix6.min(128)),
    };
    let host_bits = 128 - u32::from(prefix);
    bits & u128::MAX.checked_shl(host_bits).unwrap_or(0)
}

/// The first value of a parameter of a query, as it was sent.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// A number for a client address: what keeps a client on one of a node's addresses.
pub(super) fn address_key(address: IpAddr) -> u64 {
    let bits = network(address, 32, 128);
    mix64(bits as u64 ^ mix64((bits >> 64) as u64))
}

/// Rendezvous score of one address of a node for a key.
pub(super) fn address_score(key: u64, address: SocketAddr) -> u64 {
    let bits = network(address.ip(), 32, 128);
    mix64(mix64(key ^ bits as u64) ^ (bits >> 64) as u64 ^ u64::from(address.port()))
}
