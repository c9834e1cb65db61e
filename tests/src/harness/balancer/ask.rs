//! What `lbctl` shows of an lbd, as values.

use anyhow::{Context, Result};
use lb::control::{
    query::Connections,
    view::{NodeView, PoolView, Status, VipsView, VirtualServerView},
};

use super::Lb;

impl Lb<'_> {
    /// `lbctl status`.
    ///
    /// # Errors
    /// As [`Self::ctl_json`].
    pub fn status(&self) -> Result<Status> {
        Ok(serde_json::from_value(self.ctl_json(&["status"])?)?)
    }

    /// `lbctl vip status`.
    ///
    /// # Errors
    /// As [`Self::ctl_json`].
    pub fn vips(&self) -> Result<VipsView> {
        Ok(serde_json::from_value(self.ctl_json(&["vip", "status"])?)?)
    }

    /// `lbctl vs show NAME`.
    ///
    /// # Errors
    /// As [`Self::ctl_json`].
    pub fn virtual_server(&self, name: &str) -> Result<VirtualServerView> {
        Ok(serde_json::from_value(self.ctl_json(&["vs", "show", name])?)?)
    }

    /// `lbctl pool show NAME`.
    ///
    /// # Errors
    /// As [`Self::ctl_json`].
    pub fn pool(&self, name: &str) -> Result<PoolView> {
        Ok(serde_json::from_value(self.ctl_json(&["pool", "show", name])?)?)
    }

    /// A node of `lbctl pool show POOL`.
    ///
    /// # Errors
    /// As [`Self::ctl_json`], or when the pool has no such node.
    pub fn node(&self, pool: &str, name: &str) -> Result<NodeView> {
        let found = self.pool(pool)?.nodes.into_iter().find(|node| node.name == name);
        found.with_context(|| format!("pool {pool} has no node {name}"))
    }

    /// `lbctl conn ls` with these filters.
    ///
    /// # Errors
    /// As [`Self::ctl_json`].
    pub fn connections(&self, filters: &[&str]) -> Result<Connections> {
        Ok(serde_json::from_value(self.ctl_json(&[&["conn", "ls"], filters].concat())?)?)
    }

    /// Packets that ended for a reason, over all interfaces.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub fn packets(&self, reason: &str) -> Result<u64> {
        Ok(self.status()?.interfaces.iter().filter_map(|i| i.reasons.get(reason)).map(|traffic| traffic.packets).sum())
    }
}
