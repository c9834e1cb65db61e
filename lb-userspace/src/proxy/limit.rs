//! Limits: rates for each value of a key, connections, bandwidth. Shared by all threads of the worker, so that a limit is the
//! limit whichever thread a client's connections land on; without locks, but for the table of connections per client.
//!
//! Time comes in as `now`: how long the worker runs, by a clock that may be coarse (rates forgive [`rate::CLOCK_STEP`]).
//! What is not limited costs a branch.

pub mod bandwidth;
pub mod connections;
pub mod rate;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use bandwidth::{Bandwidth, Take};
pub use connections::{ConnectionLease, Gate, Lease};
pub use rate::{Over, Rate};

use super::facts::Facts;
use crate::control::proxy::{self as plan, ProxyPlan, pool::Key};

/// All limits of a plan. A new plan keeps the state of what it does not change.
#[derive(Debug, Default)]
pub struct Limits {
    rates: BTreeMap<String, Named<plan::RateClass, Rate>>,
    bandwidths: BTreeMap<String, Named<plan::BandwidthClass, Bandwidth>>,
    servers: BTreeMap<String, Named<plan::Limits, ServerLimits>>,
    /// Requests at a time by virtual server, rule and action; kept as long as somebody counts in it.
    gates: Mutex<BTreeMap<(String, String, usize), Gate>>,
}

/// A limit with what it was built from.
#[derive(Debug)]
struct Named<P, T> {
    plan: P,
    limit: Arc<T>,
}

impl Limits {
    /// The limits of `plan`; those that `previous` has with the same figures go on counting.
    #[must_use]
    pub fn build(plan: &ProxyPlan, previous: Option<&Self>) -> Self {
        let empty = Self::default();
        let previous = previous.unwrap_or(&empty);
        let servers = plan.virtual_servers.iter().map(|(name, server)| (name, &server.limits));
        let gates = previous.gates.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self {
            rates: carry(plan.rate_classes.iter(), &previous.rates, |class| {
                Rate::new(class.rate, class.burst, Some(class.key.clone()))
            }),
            bandwidths: carry(plan.bandwidth_classes.iter(), &previous.bandwidths, |class| {
                Bandwidth::new(class.bytes_per_s)
            }),
            servers: carry(servers, &previous.servers, ServerLimits::new),
            gates: Mutex::new(gates.into_iter().filter(|(_, gate)| gate.is_shared()).collect()),
        }
    }

    /// A rate class.
    #[must_use]
    pub fn rate(&self, name: &str) -> Option<Arc<Rate>> {
        self.rates.get(name).map(|named| Arc::clone(&named.limit))
    }

    /// A bandwidth class.
    #[must_use]
    pub fn bandwidth(&self, name: &str) -> Option<Arc<Bandwidth>> {
        self.bandwidths.get(name).map(|named| Arc::clone(&named.limit))
    }

    /// The limits of a virtual server; one that is not in the plan has none.
    #[must_use]
    pub fn server(&self, name: &str) -> Arc<ServerLimits> {
        self.servers.get(name).map(|named| Arc::clone(&named.limit)).unwrap_or_default()
    }

    /// Counts the requests that a rule's action has let in.
    #[must_use]
    pub fn gate(&self, virtual_server: &str, rule: &str, action: usize) -> Gate {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.entry((virtual_server.to_owned(), rule.to_owned(), action)).or_default().clone()
    }
}

fn carry<'a, P: Clone + PartialEq + 'a, T>(
    planned: impl Iterator<Item = (&'a String, &'a P)>,
    previous: &BTreeMap<String, Named<P, T>>,
    build: impl Fn(&P) -> T,
) -> BTreeMap<String, Named<P, T>> {
    let limit = |name: &str, plan: &P| match previous.get(name) {
        Some(old) if old.plan == *plan => Arc::clone(&old.limit),
        Some(_) | None => Arc::new(build(plan)),
    };
    planned.map(|(name, plan)| (name.clone(), Named { plan: plan.clone(), limit: limit(name, plan) })).collect()
}

/// The limits of one virtual server.
#[derive(Debug, Default)]
pub struct ServerLimits {
    connections: Option<(u32, Gate)>,
    per_client: Option<connections::PerClient>,
    requests: Option<Rate>,
    handshakes: Option<Rate>,
}

/// Which limit a connection met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionLimit {
    /// Of the virtual server.
    Connections,
    /// Of the client.
    ConnectionsPerClient,
}

impl ServerLimits {
    fn new(limits: &plan::Limits) -> Self {
        let rate = |rate: u32| (rate > 0).then(|| Rate::new(rate, rate, None));
        Self {
            connections: (limits.connections > 0).then(|| (limits.connections, Gate::default())),
            per_client: (limits.connections_per_client > 0)
                .then(|| connections::PerClient::new(limits.connections_per_client)),
            requests: rate(limits.requests_per_client),
            handshakes: rate(limits.handshakes_per_client),
        }
    }

    /// Lets a connection in; it counts until the lease is dropped.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn connect(&self, client: IpAddr) -> Result<ConnectionLease, ConnectionLimit> {
        let server = match &self.connections {
            Some((most, gate)) => Some(gate.enter(*most).ok_or(ConnectionLimit::Connections)?),
            None => None,
        };
        let client = match &self.per_client {
            Some(clients) => Some(clients.enter(client).ok_or(ConnectionLimit::ConnectionsPerClient)?),
            None => None,
        };
        Ok(ConnectionLease::new(server, client))
    }

    /// Counts a request (a connection of generic TCP) of a client: a second's worth may come at once.
    ///
    /// # Errors
    /// The client is above its rate.
    pub fn request(&self, client: IpAddr, now: Duration) -> Result<(), Over> {
        self.requests.as_ref().map_or(Ok(()), |rate| rate.take_address(client, now))
    }

    /// Counts a TLS handshake of a client, before it costs anything.
    ///
    /// # Errors
    /// The client is above its rate.
    pub fn handshake(&self, client: IpAddr, now: Duration) -> Result<(), Over> {
        self.handshakes.as_ref().map_or(Ok(()), |rate| rate.take_address(client, now))
    }
}

/// A client as limits know it: an IPv4 address, or the /64 of an IPv6 one, whose owner can take any address in it.
#[must_use]
pub(crate) fn client_bits(client: IpAddr) -> u128 {
    address_bits(client, 32, 64)
}

fn address_bits(address: IpAddr, prefix4: u8, prefix6: u8) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix4.min(32))).unwrap_or(0);
            // Mapped into ::ffff:0:0/96, where no IPv6 client is.
            0xffff_0000_0000 | u128::from(u32::from(v4) & mask)
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix6.min(128))).unwrap_or(0);
            u128::from(v6) & mask
        }
    }
}

/// The hash of what a key stands for in a request. Who leaves the header, cookie or parameter out is told apart by address:
/// leaving it out must not be a way around the limit.
fn hash_key(key: &Key, facts: &dyn Facts, state: &RandomState) -> u64 {
    let text: Option<Cow<'_, str>> = match key {
        Key::ClientAddress { prefix4, prefix6 } => {
            return state.hash_one(address_bits(facts.client(), *prefix4, *prefix6));
        }
        Key::Header(name) => facts.header(name),
        Key::Cookie(name) => facts.cookie(name),
        Key::Query(name) => facts.query().and_then(|query| super::rules::parameter(query, name)),
        Key::Path => Some(Cow::Borrowed(facts.path())),
        Key::Host => Some(Cow::Borrowed(facts.host())),
    };
    match text {
        Some(text) => state.hash_one(text.as_bytes()),
        None => state.hash_one(client_bits(facts.client())),
    }
}

/// `now` in whole nanoseconds: 584 years of them.
fn nanos(now: Duration) -> u64 {
    now.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(now.subsec_nanos()))
}

#[cfg(test)]
mod tests;
