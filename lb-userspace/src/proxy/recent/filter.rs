//! Which recent requests are listed.

use serde::{Deserialize, Serialize};

use super::Record;
use crate::control::proxy::Network;

/// Records listed unless a limit is given.
const DEFAULT_LIMIT: usize = 100;
/// Records listed at most.
const MAX_LIMIT: usize = 10_000;

/// What a record must be; what is not given fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// The virtual server.
    pub virtual_server: Option<String>,
    /// The pool.
    pub pool: Option<String>,
    /// The node.
    pub node: Option<String>,
    /// The rule.
    pub rule: Option<String>,
    /// Where the client is.
    pub client: Option<Network>,
    /// The host.
    pub host: Option<String>,
    /// Part of the URL.
    pub url: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
    /// Least status.
    pub min_status: Option<u16>,
    /// Greatest status.
    pub max_status: Option<u16>,
    /// Least microseconds in all.
    pub min_total_us: Option<u64>,
    /// Whether it ended before its time.
    pub failed: Option<bool>,
    /// Records at most, the newest: 100 unless given.
    pub limit: Option<usize>,
}

impl Filter {
    pub(super) fn passes(&self, record: &Record) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| wanted == text);
        is(&self.virtual_server, &record.virtual_server)
            && is(&self.pool, &record.pool)
            && is(&self.node, &record.node)
            && is(&self.rule, &record.rule)
            && is(&self.host, &record.host)
            && is(&self.request_id, &record.request_id)
            && self.client.is_none_or(|network| network.contains(record.client))
            && self.url.as_deref().is_none_or(|part| record.url.contains(part))
            && self.min_status.is_none_or(|least| record.status >= least)
            && self.max_status.is_none_or(|most| record.status <= most)
            && self.min_total_us.is_none_or(|least| record.total_us >= least)
            && self
                .failed
                .is_none_or(|failed| failed != matches!(record.termination.as_bytes().first(), Some(b'-' | b'L')))
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT)
    }
}
