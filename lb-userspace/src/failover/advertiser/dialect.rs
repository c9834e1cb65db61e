//! What VRRP and CARP routers offer, and whose offer is better.

use std::{cmp::Ordering, net::IpAddr, time::Duration};

use crate::failover::{carp, vrrp};

/// VRRP: priority of a router with a fault. It takes over only where nobody else does.
const VRRP_FAULT: u8 = 1;

/// CARP: advskew of a router with a fault, FreeBSD's `CARP_MAXSKEW`.
pub(super) const CARP_FAULT: u8 = 240;

/// A protocol, and what this router offers in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// VRRP.
    Vrrp {
        /// 1 to 255; 255 owns the addresses by itself.
        priority: u8,
        /// Time between advertisements.
        interval: Duration,
    },
    /// CARP.
    Carp {
        /// Seconds between advertisements.
        advbase: u8,
        /// 1/256 s on top.
        advskew: u8,
    },
}

/// What an advertisement offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// VRRP's.
    Vrrp {
        /// Priority; 0: the sender leaves.
        priority: u8,
        /// The sender's interval.
        interval: Duration,
    },
    /// CARP's.
    Carp {
        /// Seconds between advertisements.
        advbase: u8,
        /// 1/256 s on top.
        advskew: u8,
        /// OpenBSD's demotion counter.
        demotion: u8,
    },
}

impl Dialect {
    /// What this router offers, with a fault or without.
    pub(in crate::failover) fn offer(self, fault: bool) -> Offer {
        match self {
            Dialect::Vrrp { priority, interval } => {
                Offer::Vrrp { priority: if fault { VRRP_FAULT } else { priority }, interval }
            }
            Dialect::Carp { advbase, advskew } => {
                Offer::Carp { advbase, advskew: if fault { CARP_FAULT } else { advskew }, demotion: u8::from(fault) }
            }
        }
    }

    /// Who wins among equal offers: VRRP's greater address (RFC 9568 §6.4.3); CARP's smaller one, as ucarp compares them on
    /// little-endian machines.
    pub(super) fn compare_addresses(self, other: IpAddr, own: IpAddr) -> Ordering {
        match (self, other, own) {
            (Dialect::Vrrp { .. }, _, _) => other.cmp(&own),
            (Dialect::Carp { .. }, IpAddr::V4(other), IpAddr::V4(own)) => {
                u32::from_le_bytes(own.octets()).cmp(&u32::from_le_bytes(other.octets()))
            }
            (Dialect::Carp { .. }, _, _) => own.cmp(&other),
        }
    }
}

impl Offer {
    /// The sender's interval.
    #[must_use]
    pub fn interval(&self) -> Duration {
        match *self {
            Offer::Vrrp { interval, .. } => interval,
            Offer::Carp { advbase, advskew, .. } => carp::interval(advbase, advskew),
        }
    }

    /// Whether the sender leaves.
    #[must_use]
    pub fn is_resignation(&self) -> bool {
        match *self {
            Offer::Vrrp { priority, .. } => priority == vrrp::RESIGN,
            Offer::Carp { advbase, advskew, .. } => (advbase, advskew) == (carp::BOW_OUT, carp::BOW_OUT),
        }
    }

    /// `Greater`: this one owns. Offers of different protocols never meet.
    pub(super) fn cmp_with(&self, other: &Offer) -> Ordering {
        match (*self, *other) {
            (Offer::Vrrp { priority, .. }, Offer::Vrrp { priority: other, .. }) => priority.cmp(&other),
            (Offer::Carp { demotion, .. }, Offer::Carp { demotion: other_demotion, .. }) => {
                other_demotion.cmp(&demotion).then_with(|| other.interval().cmp(&self.interval()))
            }
            (Offer::Vrrp { .. }, Offer::Carp { .. }) | (Offer::Carp { .. }, Offer::Vrrp { .. }) => Ordering::Equal,
        }
    }
}
