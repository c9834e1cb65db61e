//! Which addresses are to be up, of all that this machine may have. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::failover::{RaisedVip, Wanted, announce::Mac};

/// What is up: fixed VIPs and those of owned groups.
#[derive(Debug, Default)]
pub(in crate::failover) struct Addresses {
    pub(super) fixed: BTreeSet<RaisedVip>,
    /// Of groups that every machine has.
    pub(super) everywhere: BTreeSet<RaisedVip>,
    pub(super) groups: BTreeMap<String, BTreeSet<RaisedVip>>,
    pub(super) owned: BTreeSet<String>,
}

impl Addresses {
    /// Of groups that are owned, before it is known which addresses they have.
    pub(in crate::failover) fn of(owned: BTreeSet<String>) -> Self {
        Self { owned, ..Self::default() }
    }

    pub(super) fn wanted(&self) -> Wanted {
        let owned = self.owned.iter().filter_map(|group| self.groups.get(group)).flatten();
        let vips = self.fixed.iter().chain(&self.everywhere).chain(owned).cloned().collect();
        // Those of other groups are ready, and down.
        let virtual_macs = self.groups.values().flatten().filter_map(RaisedVip::virtual_mac).collect();
        Wanted { vips, virtual_macs }
    }

    /// The virtual MAC addresses of owned groups.
    pub(super) fn virtual_macs(&self) -> impl Iterator<Item = Mac> {
        self.owned.iter().filter_map(|group| self.groups.get(group)).flatten().filter_map(|vip| vip.virtual_mac)
    }

    pub(super) fn of_groups<'g>(&self, groups: impl Iterator<Item = &'g String>) -> BTreeSet<RaisedVip> {
        groups.filter_map(|group| self.groups.get(group)).flatten().cloned().collect()
    }
}
