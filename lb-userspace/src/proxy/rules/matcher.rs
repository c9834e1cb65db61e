//! Tests of facts, compiled for speed: a few texts are compared one by one, many are looked up.

use std::{collections::HashSet, net::IpAddr};

use aho_corasick::AhoCorasick;
use regex::Regex;

use super::condition::{Groups, Seen};
use crate::control::proxy::{
    Network,
    rule::{
        Fact, Test,
        check::{self, Kind},
    },
};

/// Up to so many texts are compared one by one.
const FEW: usize = 6;

/// A compiled test.
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    Present,
    Texts(Texts),
    Prefixes(Texts),
    Suffixes(Texts),
    Contains(Box<AhoCorasick>),
    Regex(Box<Regex>),
    Addresses(Box<[IpAddr]>),
    Networks(Box<[Network]>),
    Numbers(Box<[u64]>),
    Range(u64, u64),
}

impl Matcher {
    pub(super) fn compile(fact: &Fact, test: &Test) -> Result<Self, String> {
        let lower = matches!(fact, Fact::Host | Fact::TlsServerName);
        let texts = |values: &[String]| Texts::new(values, lower);
        Ok(match (test, fact.kind()) {
            (Test::Present, _) => Self::Present,
            (Test::OneOf(values), Kind::Text) => Self::Texts(texts(values)),
            (Test::OneOf(values), Kind::Address) => {
                let parse = |value: &String| {
                    value
                        .parse()
                        .map(|address: IpAddr| address.to_canonical())
                        .map_err(|_| format!("address {value:?}"))
                };
                Self::Addresses(values.iter().map(parse).collect::<Result<_, _>>()?)
            }
            (Test::OneOf(values), Kind::Number) => {
                let parse = |value: &String| value.parse().map_err(|_| format!("number {value:?}"));
                Self::Numbers(values.iter().map(parse).collect::<Result<_, _>>()?)
            }
            (Test::Prefix(values), _) => Self::Prefixes(texts(values)),
            (Test::Suffix(values), _) => Self::Suffixes(texts(values)),
            (Test::Contains(values), _) => {
                let values = values.iter().map(|value| if lower { value.to_ascii_lowercase() } else { value.clone() });
                Self::Contains(Box::new(AhoCorasick::new(values).map_err(|error| error.to_string())?))
            }
            (Test::Regex(text), _) => Self::Regex(Box::new(check::regex(text).map_err(|error| error.to_string())?)),
            (Test::Within(networks), _) => Self::Networks(networks.as_slice().into()),
            (Test::Range(from, to), _) => Self::Range(*from, *to),
        })
    }

    /// Whether `seen` passes. Groups of a regex are kept when `keep_groups`.
    pub(super) fn matches(&self, seen: &Seen<'_>, groups: &mut Groups, keep_groups: bool) -> bool {
        match (self, seen) {
            (_, Seen::Nothing) => false,
            (Self::Present, _) => true,
            (Self::Texts(texts), Seen::Text(text)) => texts.contains(text.as_bytes()),
            (Self::Prefixes(texts), Seen::Text(text)) => texts.any_prefix(text.as_bytes()),
            (Self::Suffixes(texts), Seen::Text(text)) => texts.any_suffix(text.as_bytes()),
            (Self::Contains(words), Seen::Text(text)) => words.is_match(text.as_bytes()),
            (Self::Regex(regex), Seen::Text(text)) if keep_groups => groups.fill(regex, text),
            (Self::Regex(regex), Seen::Text(text)) => regex.is_match(text),
            (Self::Addresses(addresses), Seen::Address(address)) => addresses.contains(&address.to_canonical()),
            (Self::Networks(networks), Seen::Address(address)) => networks.iter().any(|net| net.contains(*address)),
            (Self::Networks(networks), Seen::Text(text)) => {
                text.trim().parse().is_ok_and(|address| networks.iter().any(|net| net.contains(address)))
            }
            (Self::Numbers(numbers), Seen::Number(number)) => numbers.contains(number),
            (Self::Range(from, to), Seen::Number(number)) => (from..=to).contains(&number),
            (Self::Range(from, to), Seen::Text(text)) => {
                text.trim().parse::<u64>().is_ok_and(|number| (*from..=*to).contains(&number))
            }
            // What `rule::check` lets through never comes here.
            (
                Self::Texts(_)
                | Self::Prefixes(_)
                | Self::Suffixes(_)
                | Self::Contains(_)
                | Self::Regex(_)
                | Self::Addresses(_)
                | Self::Networks(_)
                | Self::Numbers(_)
                | Self::Range(..),
                Seen::Text(_) | Seen::Address(_) | Seen::Number(_),
            ) => false,
        }
    }
}

/// A set of texts.
#[derive(Clone, Debug)]
pub(super) enum Texts {
    Few(Box<[Box<[u8]>]>),
    /// With the lengths that occur, ascending: a prefix or suffix is looked up by each.
    Many {
        set: HashSet<Box<[u8]>>,
        lengths: Box<[usize]>,
    },
}

impl Texts {
    fn new(values: &[String], lower: bool) -> Self {
        let bytes = values.iter().map(|value| {
            let value = if lower { value.to_ascii_lowercase() } else { value.clone() };
            value.into_bytes().into_boxed_slice()
        });
        if values.len() <= FEW {
            return Self::Few(bytes.collect());
        }
        let set: HashSet<_> = bytes.collect();
        let lengths: std::collections::BTreeSet<_> = set.iter().map(|text| text.len()).collect();
        Self::Many { set, lengths: lengths.into_iter().collect() }
    }

    fn contains(&self, text: &[u8]) -> bool {
        match self {
            Self::Few(texts) => texts.iter().any(|one| **one == *text),
            Self::Many { set, .. } => set.contains(text),
        }
    }

    fn any_prefix(&self, text: &[u8]) -> bool {
        match self {
            Self::Few(texts) => texts.iter().any(|one| text.starts_with(one)),
            Self::Many { set, lengths } => {
                lengths.iter().map_while(|length| text.get(..*length)).any(|start| set.contains(start))
            }
        }
    }

    fn any_suffix(&self, text: &[u8]) -> bool {
        match self {
            Self::Few(texts) => texts.iter().any(|one| text.ends_with(one)),
            Self::Many { set, lengths } => {
                let ends = lengths.iter().map_while(|length| text.get(text.len().checked_sub(*length)?..));
                ends.into_iter().any(|end| set.contains(end))
            }
        }
    }
}
