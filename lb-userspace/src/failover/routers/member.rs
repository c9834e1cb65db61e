//! One group on one router: its advertiser, and what it says.

use std::{net::IpAddr, time::Instant};

use super::{Packet, Router, Speaks};
use crate::failover::{
    advertiser::{Advertiser, Offer},
    carp,
    election::Role,
    vrrp,
};

/// A group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) router: Router,
    /// `None`: its interface has no address to speak from.
    pub(super) advertiser: Option<Advertiser>,
    pub(super) source: Option<IpAddr>,
    pub(super) key: Option<carp::Key>,
    counter: u64,
    pub(super) since: Instant,
    pub(super) why: String,
    pub(super) transitions: u64,
    /// Who owns, as heard last.
    pub(super) owner: Option<IpAddr>,
}

impl Member {
    pub(super) fn new(router: Router, seed: u64, now: Instant) -> Self {
        let key = match &router.speaks {
            Speaks::Carp { vhid, passphrase } => Some(carp::Key::new(passphrase, *vhid, &router.addresses)),
            Speaks::Vrrp { .. } => None,
        };
        let why = "started".to_owned();
        Self {
            router,
            advertiser: None,
            source: None,
            key,
            counter: seed,
            since: now,
            why,
            transitions: 0,
            owner: None,
        }
    }

    pub(super) fn role(&self) -> Role {
        self.advertiser.as_ref().map_or(Role::Idle, Advertiser::role)
    }

    /// Whether this router owns and another one could take over.
    pub(super) fn is_replaceable(&self) -> bool {
        self.role() == Role::Active && self.advertiser.as_ref().is_some_and(Advertiser::knows_others)
    }

    /// The advertisement for everybody it goes to; `last`: this router leaves.
    pub(super) fn packets(&mut self, last: bool) -> Vec<Packet> {
        let (Some(source), Some(advertiser)) = (self.source, &self.advertiser) else { return Vec::new() };
        let offer = advertiser.offer();
        self.counter = self.counter.wrapping_add(1);
        let virtual_mac = self.router.virtual_mac();
        let group = if self.router.is_ipv6() { IpAddr::V6(vrrp::GROUP6) } else { IpAddr::V4(vrrp::GROUP4) };
        let destinations = if self.router.unicast { self.router.peers.iter().copied().collect() } else { vec![group] };
        let packet = |destination| {
            let mut payload = Vec::new();
            self.write(offer, last, source, destination, &mut payload);
            Packet { interface: self.router.interface.clone(), source, destination, payload, virtual_mac }
        };
        destinations.into_iter().map(packet).collect()
    }

    fn write(&self, offer: Offer, last: bool, source: IpAddr, destination: IpAddr, payload: &mut Vec<u8>) {
        match (&self.router.speaks, offer, &self.key) {
            (&Speaks::Vrrp { version, vrid, checksum }, Offer::Vrrp { priority, interval }, _) => {
                let priority = if last { vrrp::RESIGN } else { priority };
                let addresses = self.router.addresses.clone();
                let advertisement = vrrp::Advertisement { version, vrid, priority, interval, addresses };
                advertisement.write(source, destination, checksum, payload);
            }
            (&Speaks::Carp { vhid, .. }, Offer::Carp { advbase, advskew, demotion }, Some(key)) => {
                let (advbase, advskew) = if last { (carp::BOW_OUT, carp::BOW_OUT) } else { (advbase, advskew) };
                let counter = self.counter;
                carp::Advertisement { vhid, advbase, advskew, demotion, counter }.write(key, payload);
            }
            // A group's settings are of the protocol that it speaks.
            (Speaks::Vrrp { .. } | Speaks::Carp { .. }, _, _) => {}
        }
    }
}
