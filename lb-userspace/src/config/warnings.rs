//! What may be configured, works, and is probably not meant: said by `lbd --check`, `lbctl status` and the log.

use std::time::Duration;

use super::Config;
use crate::control::proxy::pool::Pool;

impl Config {
    /// What an operator should look at again, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (pool, servers) in self.proxy.users() {
            let Some(longest) = self.proxy.pools.get(pool).map(|pool| longest(&pool.settings)) else { continue };
            for name in servers {
                let Some(server) = self.proxy.virtual_servers.get(name) else { continue };
                let transaction = server.settings.timeouts.transaction;
                if !transaction.is_zero() && transaction <= longest {
                    found.push(format!(
                        "timeouts.transaction of virtual server {name:?} ({transaction:?}) is over before pool {pool:?} has \
                         tried what it may, which takes up to {longest:?}: clients get an error though another node could \
                         answer"
                    ));
                }
            }
        }
        found
    }
}

/// How long a pool may take until the head of a response: the queue, then connecting and waiting as often as it tries.
fn longest(pool: &Pool) -> Duration {
    let queue = if pool.queue > 0 { pool.queue_timeout } else { Duration::ZERO };
    let attempts = pool.retry.attempts.max(1);
    let timed_out = pool.retry.timed_out_attempts.clamp(1, attempts);
    queue + pool.timeouts.connect * attempts + pool.timeouts.reply * timed_out
}
