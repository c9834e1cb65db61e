//! What waits for the failover thread: the guard, which takes addresses down when it ends or stands still, and the data path,
//! which then is silent. Called by the thread's task as it goes round.

use std::{
    collections::BTreeSet,
    io,
    time::{Duration, Instant},
};

use super::{Task, wall_ms};
use crate::failover::{
    cluster::Command,
    guard::{self, Charge, Lease},
};

/// Between two tries to start a guard.
const GUARD_AGAIN: Duration = Duration::from_secs(1);

impl Task {
    pub(super) async fn deposed(&mut self, ended: io::Result<BTreeSet<String>>) {
        match ended {
            Ok(groups) => {
                tracing::warn!(?groups, "this machine stood still, and its guard gave VIP groups away");
                for group in &groups {
                    let resigned = self.routers.move_away(group, Instant::now()).unwrap_or_default();
                    self.carry_out_routers(resigned).await;
                }
                self.command(Command::Deposed(groups)).await;
            }
            Err(error) => {
                tracing::error!(%error, "the guard is gone: another one is started");
                self.lease = None;
            }
        }
    }

    /// Starts another guard when this one is gone: addresses would outlive lbd.
    pub(super) fn mind_guard(&mut self) {
        let now = Instant::now();
        let Some(guards) = self.guards.as_mut().filter(|_| self.lease.is_none() && now >= self.guard_at) else {
            return;
        };
        self.guard_at = now + GUARD_AGAIN;
        guards.retain_mut(|guard| matches!(guard.try_wait(), Ok(None)));
        let started = guard::start().and_then(|started| {
            guards.push(started.process);
            Lease::keep(started.socket, self.terms.subscribe(), self.progress.subscribe())
        });
        match started {
            Ok(lease) => self.lease = Some(lease),
            Err(error) => tracing::error!(%error, "no guard could be started; it is tried again"),
        }
    }

    /// Lets the data path take frames at virtual MAC addresses: before these are up, and until they are down, so that none gets to the
    /// kernel, which has no such connections and would reset them.
    pub(super) fn answer_at_virtual_macs(&mut self) {
        let up = &self.surroundings.borrow().virtual_macs;
        let addresses = self.addresses.virtual_macs().chain(up.iter().copied()).collect();
        if let Some(gatekeeper) = self.gatekeeper.as_mut().filter(|_| self.ready) {
            gatekeeper.answer_at(addresses);
        }
    }

    /// Lets the guard and the data path know which groups another machine can take.
    pub(super) fn charge(&mut self) {
        self.answer_at_virtual_macs();
        let now = Instant::now();
        let of_cluster = self.cluster.replaceable(now);
        let of_routers = self.routers.replaceable();
        let mut groups: BTreeSet<String> = of_cluster.union(&of_routers).cloned().collect();
        let mut vips = self.addresses.of_groups(groups.iter());
        if let Some(gatekeeper) = &mut self.gatekeeper
            && self.ready
        {
            gatekeeper.cover(vips.iter().map(|vip| vip.address).collect());
        }
        let (everywhere, everywhere_vips) = self.everywhere.guarded();
        groups.extend(everywhere);
        vips.extend(everywhere_vips);
        let Some(lease) = &mut self.lease else { return };
        let (cluster, sockets, peers) = (&self.cluster, &self.sockets, &self.peers);
        let routers = &mut self.routers;
        lease.give(groups, vips, || Charge {
            last_words: cluster.last_words(&of_cluster, now, wall_ms()),
            advertisements: routers.last_words(&of_routers),
            state_dir: self.state_dir.clone(),
            listen: sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect(),
            peers: peers.clone(),
            ..Charge::default()
        });
    }
}
