//! What `[api]` and the rest of the configuration say of each other.

use std::time::Duration;

use super::Checker;
use crate::config::error::Problem;

/// How long a session may be idle, and live.
const SESSIONS: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 60 * 60);

impl Checker<'_> {
    pub(super) fn api(&mut self) {
        let document = self.document;
        let api = &document.api;
        if let Some((given, missing)) = match (&api.chain, &api.key) {
            (Some(chain), None) => Some((chain, "key")),
            (None, Some(key)) => Some((key, "chain")),
            (Some(_), Some(_)) | (None, None) => None,
        } {
            let message = format!("[api] has a certificate without its {missing}");
            self.report(Problem::new(&given.span, message, "this file alone").help(format!("say {missing}, too")));
        }
        for (name, period) in [("session_idle", &api.session_idle), ("session_longest", &api.session_longest)] {
            if !SESSIONS.contains(&period.value.0) {
                let message = format!("{name} is not within 1m to 168h (in [api])");
                self.report(Problem::new(&period.span, message, "out of range"));
            }
        }
        let Some(listen) = &api.listen else {
            if let Some(first) = api.allow.first() {
                let message = "[api] says who may connect, but not where: listen is missing";
                self.report(Problem::new(&first.span, message, "of no use").help("write listen = \"10.0.0.5:8443\""));
            }
            return;
        };
        let address = listen.value.with_default(0).ip();
        let vips = document.vip.iter().flat_map(|(name, group)| {
            group.addresses.iter().flatten().map(move |address| (name.value.as_str(), address))
        });
        for (name, vip) in vips.filter(|(_, vip)| vip.value == address) {
            let message = format!("the admin API listens on {address}, a VIP of group {name:?}");
            self.report(
                Problem::new(&listen.span, message, "a VIP's address")
                    .related(&vip.span, "the VIP")
                    .help("use an address of the machine's own, on the management network"),
            );
        }
    }
}
