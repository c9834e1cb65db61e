//! One look at lbd: what it answers, and when.

use std::time::{Duration, Instant};

use crate::{
    control::view::{Status, VipsView, VirtualServerView},
    ctl::{client::Client, failure::Failure},
};

/// What lbd said.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) status: Status,
    pub(super) servers: Vec<VirtualServerView>,
    pub(super) vips: VipsView,
}

impl Sample {
    pub(super) fn take(client: &Client) -> Result<Self, Failure> {
        Ok(Self {
            at: Instant::now(),
            status: client.get::<Status>("status")?.value,
            servers: client.get::<Vec<VirtualServerView>>("virtual_servers")?.value,
            vips: client.get::<VipsView>("vips")?.value,
        })
    }

    /// Time since an earlier look at the same lbd; `None`: it was another one, whose counters began anew.
    pub(super) fn since(&self, before: &Self) -> Option<Duration> {
        let time = self.at.checked_duration_since(before.at).filter(|time| !time.is_zero())?;
        (self.status.pid == before.status.pid && self.status.uptime_s >= before.status.uptime_s).then_some(time)
    }
}
