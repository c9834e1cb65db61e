//! What another machine needs to go on with translated connections and with clients' persistence when it takes a VIP over:
//! found in the flow tables ([`Survey`]), and put into those of the machine that may have to take over ([`Arrivals`]).
//!
//! Both work beside the XDP programs by the same rules as the collector: a record is taken, changed and freed by exchanging
//! its control word. DSR connections need none of this: their nodes are found by the ring, on every machine the same.
//!
//! Driven by `daemon::sharing`, on a thread of its own.

mod arrivals;
mod places;
mod survey;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lb_common::flow::{FAMILY_V4, FAMILY_V6, FlowKey};

pub use self::{
    arrivals::{Arrivals, Fate, Interfaces},
    survey::Survey,
};
use crate::control::shared::Ends;

/// VIPs that this machine owns.
pub type Owned = BTreeSet<IpAddr>;

/// An address as keys have it.
fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(four) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&four.octets());
            bytes
        }
        IpAddr::V6(six) => six.octets(),
    }
}

fn address(family: u8, bytes: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    if family == FAMILY_V4 { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(bytes).into() }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 }
}

fn key_of(ends: &Ends) -> FlowKey {
    key(ends.client, ends.vip, ends.protocol)
}

fn key(from: SocketAddr, to: SocketAddr, protocol: u8) -> FlowKey {
    FlowKey::from_parts(family(from.ip()), bytes(from.ip()), bytes(to.ip()), from.port(), to.port(), protocol)
}

fn ends_of(key: &FlowKey) -> Ends {
    Ends {
        protocol: key.protocol(),
        client: SocketAddr::new(address(key.family(), key.source()), key.source_port()),
        vip: SocketAddr::new(address(key.family(), key.destination()), key.destination_port()),
    }
}
