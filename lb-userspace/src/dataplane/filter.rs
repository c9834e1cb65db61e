//! The address filter: which bits of `FILTER` a plan needs. Pure. Two Bloom filters, destinations (VIPs, source-NAT
//! addresses) and sources (nodes with translated connections), whose bits say "look closer".

use std::net::IpAddr;

use lb_common::vip::filter::{DESTINATION, SOURCE, WORDS, position4, position6};

/// All words of `FILTER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Vec<u64>);

impl Filter {
    /// As many words as the map has.
    pub const LEN: u32 = WORDS * 2;

    /// No bit set.
    #[must_use]
    pub fn empty() -> Self {
        Self(vec![0; Self::LEN as usize])
    }

    /// From the words of the map.
    #[must_use]
    pub fn from_words(words: Vec<u64>) -> Self {
        let mut words = words;
        words.resize(Self::LEN as usize, 0);
        Self(words)
    }

    /// Adds a destination.
    pub fn insert_destination(&mut self, address: IpAddr) {
        let (word, mask) = place(DESTINATION, address);
        self.0[word] |= mask;
    }

    /// Adds a source.
    pub fn insert_source(&mut self, address: IpAddr) {
        let (word, mask) = place(SOURCE, address);
        self.0[word] |= mask;
    }

    /// Whether packets from `address` are looked at.
    #[must_use]
    pub fn has_source(&self, address: IpAddr) -> bool {
        let (word, mask) = place(SOURCE, address);
        self.0[word] & mask != 0
    }

    /// The bits of both.
    #[must_use]
    pub fn union(&self, other: &Filter) -> Filter {
        Filter(self.0.iter().zip(&other.0).map(|(a, b)| a | b).collect())
    }

    /// The words in which `target` differs, with their new value.
    pub fn changes<'a>(&'a self, target: &'a Filter) -> impl Iterator<Item = (u32, u64)> + 'a {
        (0u32..).zip(self.0.iter().zip(&target.0)).filter(|(_, (old, new))| old != new).map(|(i, (_, new))| (i, *new))
    }
}

fn place(base: u32, address: IpAddr) -> (usize, u64) {
    let (word, bit) = match address {
        IpAddr::V4(v4) => position4(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => {
            let bytes = v6.octets();
            let word = |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
            position6([word(0), word(4), word(8), word(12)])
        }
    };
    ((base + word) as usize, 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_filters_are_apart_and_changes_lead_from_one_to_the_other() {
        let vip: IpAddr = "192.0.2.1".parse().unwrap();
        let node: IpAddr = "2001:db8::9".parse().unwrap();
        let mut one = Filter::empty();
        one.insert_destination(vip);
        let mut two = Filter::empty();
        two.insert_source(node);
        assert!(two.has_source(node) && !two.has_source(vip) && !one.has_source(vip));
        let mut words = one.0.clone();
        for (word, value) in one.changes(&two) {
            words[word as usize] = value;
        }
        assert_eq!(Filter::from_words(words), two);
        assert_eq!(one.changes(&one.union(&two)).count(), 1, "a union only adds");
    }
}
