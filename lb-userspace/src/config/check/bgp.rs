//! What `[bgp]` and the VIP groups that are announced by it say of each other.

use std::time::Duration;

use super::Checker;
use crate::config::{
    at::At,
    document::{
        bgp::{Bgp, Neighbor},
        cluster::{VipGroup, VipModeWord},
    },
    error::Problem,
};

/// What an OPEN can say (RFC 4271 §4.2). Zero, for ever, would leave a lost machine announced.
const HOLD_TIMES: std::ops::RangeInclusive<Duration> = Duration::from_secs(3)..=Duration::from_secs(65_535);

/// More would not fit a message together with the routes.
const MAX_COMMUNITIES: usize = 64;

impl Checker<'_> {
    pub(super) fn bgp(&mut self) {
        let document = self.document;
        for (name, group) in &document.vip {
            self.announcement(&name.value, group);
        }
        let Some(bgp) = &document.bgp else { return };
        let everywhere =
            |group: &VipGroup| group.mode.as_ref().is_some_and(|mode| mode.value == VipModeWord::Everywhere);
        if !self.pruned && !document.vip.values().any(everywhere) {
            let span = bgp.asn.as_ref().map_or(0..0, |asn| asn.span.clone());
            let help = "add mode = \"everywhere\" to the [vip.NAME] that is to be announced, or remove [bgp]";
            let message = "[bgp] has no effect without a VIP group with mode = \"everywhere\"";
            self.report(Problem::new(&span, message, "nothing to announce").help(help));
        }
        let hold = bgp.hold_time.value.0;
        if !HOLD_TIMES.contains(&hold) || hold.subsec_nanos() != 0 {
            let message = "hold_time is not whole seconds within 3s to 65535s (in [bgp])";
            self.report(Problem::new(&bgp.hold_time.span, message, "cannot be said in BGP"));
        }
        if let Some(beyond) = bgp.communities.get(MAX_COMMUNITIES) {
            let message = format!("more than {MAX_COMMUNITIES} communities (in [bgp])");
            self.report(Problem::new(&beyond.span, message, "one too many"));
        }
        for (name, neighbor) in &bgp.neighbor {
            self.neighbor(&name.value, neighbor, bgp);
        }
    }

    fn announcement(&mut self, name: &str, group: &VipGroup) {
        let everywhere = group.mode.as_ref().is_some_and(|mode| mode.value == VipModeWord::Everywhere);
        if !everywhere && !group.announce_when.span.is_empty() {
            let message = format!("announce_when has no effect without mode = \"everywhere\" (in [vip.{name}])");
            let help = "add mode = \"everywhere\", or remove it";
            self.report(Problem::new(&group.announce_when.span, message, "would not be used").help(help));
        }
    }

    fn neighbor(&mut self, name: &str, neighbor: &Neighbor, bgp: &Bgp) {
        let section = format!("in [bgp.neighbor.{name}]");
        let Some(address) = &neighbor.address else { return };
        let source = neighbor.source_address.as_ref();
        if let Some(source) = source.filter(|source| source.value.is_ipv4() != address.value.is_ipv4()) {
            let message =
                format!("source_address {} is of another family than the neighbour ({section})", source.value);
            self.report(Problem::new(&source.span, message, "of the other family"));
        }
        if address.value.is_ipv6() && bgp.router_id.is_none() {
            let message = format!("an IPv6 session needs router_id in [bgp] ({section})");
            let help = "add router_id = \"…\" to [bgp]: an IPv4 address of this machine, another one on every machine";
            self.report(Problem::new(&address.span, message, "no IPv4 address to take it from").help(help));
        }
        let unusable = |address: &At<std::net::IpAddr>| address.value.is_unspecified() || address.value.is_multicast();
        if let Some(wrong) = [Some(address), source].into_iter().flatten().find(|address| unusable(address)) {
            let message = format!("{} is no address of a BGP speaker ({section})", wrong.value);
            self.report(Problem::new(&wrong.span, message, "one machine's address is wanted"));
        }
    }
}
