//! Connections, persistence and keys of TLS tickets, told to the other machines of the cluster, so that they go on when a VIP group moves.
//!
//! One TCP connection from each machine to each other one, to the port of its heartbeats, and one way alone: who owns a VIP tells. `seal`
//! (pure) is what keeps others out; `link` has the sockets. What is told and what becomes of it is the data plane's: it comes in as a
//! [`Source`] for each machine and one [`Sink`].
//!
//! Nothing here is in the way of packets or heartbeats: it has a thread of its own, at the lowest priority, and what the other
//! side does not take fast enough is not queued but looked at again later.

mod link;
mod seal;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

pub use self::link::{Sharing, start};
use crate::control::shared::Shared;

/// What is to be told to one machine.
pub trait Source: Send {
    /// It knows nothing any more.
    fn restart(&mut self);
    /// Adds some of what has changed, a moment's work. Says whether all was looked at.
    fn advance(&mut self, out: &mut Vec<Shared>) -> bool;
    /// How many connections and clients it was told of that go on.
    fn told(&self) -> usize;
}

/// Takes what another machine tells.
pub trait Sink: Send {
    /// Takes one of them.
    fn take(&mut self, shared: &Shared);
    /// Some were taken, and more may come later.
    fn taken(&mut self);
}

/// Whom to tell, and where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This machine's name.
    pub machine: String,
    /// Secrets of the cluster: the first one is used, all are accepted.
    pub secrets: Vec<Vec<u8>>,
    /// Where to listen, TCP.
    pub listen: Vec<SocketAddr>,
    /// The other machines, with their addresses.
    pub peers: BTreeMap<String, Vec<SocketAddr>>,
}

/// How telling stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// By the other machine's name.
    pub peers: BTreeMap<String, PeerStatus>,
    /// Connections of strangers, of machines that mean another one, or with another key.
    pub refused: u64,
    /// Addresses that cannot be listened at, and why.
    pub deaf: BTreeMap<SocketAddr, String>,
}

/// One machine that is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// Whether it takes what it is told.
    pub is_connected: bool,
    /// What it was told that goes on.
    pub told: u64,
    /// Messages that went there since the start.
    pub sent: u64,
    /// Messages that came from there since the start.
    pub received: u64,
    /// Why it is not connected.
    pub why: Option<String>,
    /// The last flush whose news it was told.
    flushed: u64,
}

/// The status, shared with those who look.
#[derive(Clone, Debug, Default)]
pub struct SharedStatus(Arc<Mutex<Status>>);

impl SharedStatus {
    /// As it is now.
    #[must_use]
    pub fn snapshot(&self) -> Status {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Others are told and heard from now on: nobody is connected yet.
    fn begin(&self, settings: &Settings) {
        let mut status = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        status.peers.retain(|name, _| settings.peers.contains_key(name));
        for name in settings.peers.keys() {
            let peer = status.peers.entry(name.clone()).or_default();
            (peer.is_connected, peer.told, peer.why) = (false, 0, None);
        }
        status.deaf.clear();
    }

    /// Notes whether an address can be listened at; whether that is news.
    fn listens(&self, address: SocketAddr, why: Option<String>) -> bool {
        let mut status = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match why {
            None => status.deaf.remove(&address).is_some(),
            Some(why) => status.deaf.insert(address, why).is_none(),
        }
    }

    fn peer(&self, name: &str, change: impl FnOnce(&mut PeerStatus)) {
        let mut status = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(status.peers.entry(name.to_owned()).or_default());
    }

    fn refused(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).refused += 1;
    }
}
