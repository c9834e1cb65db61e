//! Settings that a reload cannot bring into force. Pure.

use crate::config::Config;

/// Settings that are fixed at the start, or with the data path, and differ in the configuration in force.
pub(super) fn needed(first: &Config, now: &Config) -> Vec<String> {
    let machine = |config: &Config| config.cluster.as_ref().map(|cluster| cluster.machine.clone());
    let started = "takes effect when lbd is started again";
    let made = "takes effect when the data path is made anew: set on_stop = \"withdraw\", reload, then restart lbd";
    let rows = [
        ("daemon.socket", first.daemon.socket != now.daemon.socket, started),
        ("cluster.machine", machine(first) != machine(now), started),
        ("daemon.state_dir", first.daemon.state_dir != now.daemon.state_dir, started),
        ("daemon.monitor_dir", first.daemon.monitor_dir != now.daemon.monitor_dir, started),
        ("daemon.monitor_user", first.daemon.monitor_user != now.daemon.monitor_user, started),
        ("dataplane.bpffs", first.dataplane.bpffs != now.dataplane.bpffs, started),
        ("dataplane.pin_dir", first.dataplane.pin_dir != now.dataplane.pin_dir, started),
        ("snmp.agentx", first.agentx != now.agentx, started),
        ("proxy.threads", first.proxy.threads != now.proxy.threads, started),
        ("proxy.user", first.proxy.user != now.proxy.user, started),
        ("dataplane.max_flows", first.dataplane.max_flows != now.dataplane.max_flows, made),
        ("dataplane.max_half_open", first.dataplane.max_half_open != now.dataplane.max_half_open, made),
        ("dataplane.max_rings", first.dataplane.max_rings != now.dataplane.max_rings, made),
    ];
    let changed = rows.into_iter().filter(|(_, changed, _)| *changed);
    changed.map(|(name, _, when)| format!("{name} was changed: it {when}")).collect()
}
