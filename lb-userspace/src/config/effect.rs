//! What may be configured already and does nothing yet: said by `lbd --check`, `lbctl status` and the log, so that nobody
//! waits for a log that is never written.

use super::Config;
use crate::control::proxy::{Service, rule::Action};

impl Config {
    /// What of this configuration has no effect in this version, one sentence each.
    #[must_use]
    pub fn without_effect(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, server) in &self.proxy.virtual_servers {
            let mut note = |key: &str, set: bool| {
                if set {
                    found.push(format!("{key} of virtual server {name:?} has no effect in this version"));
                }
            };
            note("access_log", server.settings.access_log.is_some());
            let Service::Http(http) = &server.settings.service else { continue };
            note("compression", !http.compression.is_empty());
            note("a rule on = \"completion\"", !http.rules.completion.is_empty());
            let mut rules = http.rules.request.iter().chain(&http.rules.response);
            note(
                "the bandwidth of a rule",
                rules.any(|rule| rule.actions.iter().any(|action| matches!(action, Action::Bandwidth(_)))),
            );
        }
        let transparent = self.proxy.pools.iter().filter(|(_, pool)| pool.settings.transparent);
        found
            .extend(transparent.map(|(name, _)| format!("transparent of pool {name:?} has no effect in this version")));
        found
    }
}
