//! Limits of what is open at a time. Counts fall when leases are dropped, however a connection ends.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use super::client_bits;

/// Parts of the table of clients: threads that let clients in at a time seldom meet.
const SHARDS: usize = 64;

/// Counts what is open, over all threads.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    open: Arc<AtomicU32>,
}

/// Something open that is counted; dropping it ends that.
#[derive(Debug)]
#[must_use = "dropping it ends the count"]
pub struct Lease {
    open: Arc<AtomicU32>,
}

impl Gate {
    /// Lets one in if fewer than `most` are.
    #[must_use]
    pub fn enter(&self, most: u32) -> Option<Lease> {
        let add = |open: u32| (open < most).then(|| open + 1);
        self.open.fetch_update(Relaxed, Relaxed, add).ok()?;
        Some(Lease { open: Arc::clone(&self.open) })
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// Whether anybody else holds it: a rule, or a lease.
    pub(super) fn is_shared(&self) -> bool {
        // One is ours, one in the table that we were cloned from.
        Arc::strong_count(&self.open) > 2
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

/// A connection that is counted, for its virtual server and its client.
#[derive(Debug, Default)]
#[must_use = "dropping it ends the count"]
pub struct ConnectionLease {
    _server: Option<Lease>,
    _client: Option<ClientLease>,
}

impl ConnectionLease {
    pub(super) fn new(server: Option<Lease>, client: Option<ClientLease>) -> Self {
        Self { _server: server, _client: client }
    }
}

type Shard = Mutex<HashMap<u128, u32>>;

/// Open connections of each client. As large as the number of clients that have one.
#[derive(Debug)]
pub(super) struct PerClient {
    most: u32,
    state: RandomState,
    shards: Arc<[Shard; SHARDS]>,
}

impl PerClient {
    pub(super) fn new(most: u32) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { most, state: RandomState::new(), shards: Arc::new(shards) }
    }

    pub(super) fn enter(&self, client: IpAddr) -> Option<ClientLease> {
        let client = client_bits(client);
        let shard = usize::try_from(self.state.hash_one(client) % SHARDS as u64).unwrap_or(0);
        let mut counts = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let open = counts.entry(client).or_insert(0);
        if *open >= self.most {
            return None;
        }
        *open += 1;
        Some(ClientLease { shards: Arc::clone(&self.shards), shard, client })
    }
}

/// One connection of a client.
#[derive(Debug)]
pub(super) struct ClientLease {
    shards: Arc<[Shard; SHARDS]>,
    shard: usize,
    client: u128,
}

impl Drop for ClientLease {
    fn drop(&mut self) {
        let mut counts = self.shards[self.shard].lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = counts.entry(self.client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}
