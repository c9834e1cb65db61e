//! The forwarding lease (`lb_common::lease`) as failover holds it: which VIPs it is for, and until when; and the virtual MAC
//! addresses that this machine has (`lb_common::virtual_router`).
//!
//! Its maps are written by the failover thread alone, through handles of its own, so that no other thread's work is
//! waited for: renewing the lease is one store into shared memory.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    net::IpAddr,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aya::maps::{HashMap, MapData, MapError};
use lb_common::{vip::ServiceKey, virtual_router};

use super::{
    clock,
    maps::{self, MapsError},
    services::vip_key,
    table::Table,
};

/// The lease.
pub struct Lease {
    until: Table<u64>,
    routers: Table<u64>,
    covered: Mutex<Covered>,
}

struct Covered {
    map: HashMap<MapData, ServiceKey, u32>,
    keys: HashSet<ServiceKey>,
}

impl Lease {
    /// Of the data path whose maps are pinned in `directory`. It stands as an earlier lbd left it, until it is told more.
    ///
    /// # Errors
    /// When a map is missing or of another type.
    pub fn open(directory: &Path) -> Result<Self, MapsError> {
        let until = maps::table(directory, "LEASE", size_of::<u64>())?;
        let map: HashMap<MapData, ServiceKey, u32> = maps::typed(directory, "LEASED")?;
        let keys = map.keys().flatten().collect();
        let routers = maps::table(directory, "VIRTUAL_ROUTERS", size_of::<u64>())?;
        Ok(Self { until, routers, covered: Mutex::new(Covered { map, keys }) })
    }

    /// Replaces the VIPs that are forwarded only while the lease lasts.
    ///
    /// # Errors
    /// When the kernel refuses one (more than `MAX_LEASED`): it is forwarded without a lease then.
    pub fn cover(&self, vips: &BTreeSet<IpAddr>) -> Result<(), MapError> {
        let mut covered = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        let Covered { map, keys } = &mut *covered;
        let wanted: HashSet<ServiceKey> = vips.iter().copied().map(vip_key).collect();
        let mut outcome = Ok(());
        for key in keys.difference(&wanted) {
            outcome = outcome.and(map.remove(key));
        }
        for key in wanted.difference(keys) {
            outcome = outcome.and(map.insert(key, 0, 0));
        }
        *keys = wanted;
        outcome
    }

    /// Replaces the virtual MAC addresses that frames for this machine are sent to; what is no such address is left out.
    pub fn answer_at(&self, addresses: &BTreeSet<[u8; 6]>) {
        let mut words = [0; virtual_router::WORDS as usize];
        for &[a, b, c, d, e, f] in addresses {
            if let Some((word, bit)) = virtual_router::position(u64::from_le_bytes([a, b, c, d, e, f, 0, 0])) {
                words[word as usize] |= 1 << bit;
            }
        }
        for (index, word) in (0..).zip(words) {
            self.routers.store(index, 0, word);
        }
    }

    /// From now on it lasts for so long; `None`: for ever.
    pub fn renew(&self, length: Option<Duration>) {
        // One more, because the jiffy that runs now is not counted whole.
        let until = length.map_or(0, |length| clock::jiffies_now().saturating_add(clock::in_jiffies(length) + 1));
        self.until.store(0, 0, until);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("until", &self.until.load(0, 0)).finish_non_exhaustive()
    }
}
