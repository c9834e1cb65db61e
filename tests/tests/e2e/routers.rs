//! VIP groups that are shared with VRRP and CARP routers: keepalived, FRR and ucarp, as Debian has them, in both roles.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb::control::view::VipState;
use lb_tests::harness::{
    Host, Lb, Net, Router, Topology, eventually,
    topology::{vip4, vip6},
    wait::let_pass,
};

use super::{
    support::SOON,
    virtual_mac::{Learnt, MAC4, MAC6},
};

/// What is spoken, and with whom.
struct Case {
    name: &'static str,
    vip: IpAddr,
    /// Lines of `[vip.web.router]`.
    router: &'static str,
    /// The other router, better or worse than lb with priority 100.
    other: fn(&Host, bool) -> Result<Router>,
    /// Both have the VIP at this MAC address.
    mac: Option<&'static str>,
    /// Within this one takes over from another that is gone without a word, and what the machine needs.
    silence: Duration,
}

const PASSPHRASE: &str = "secret";

fn keepalived(host: &Host, vip: &str, lines: &str, better: bool) -> Result<Router> {
    let priority = if better { 150 } else { 50 };
    Router::keepalived(
        host,
        &format!(
            "state BACKUP\ninterface eth0\nvirtual_router_id 42\npriority {priority}\n{lines}\nvirtual_ipaddress {{\n{vip}\n}}"
        ),
    )
}

/// VRRP version 3 with 200 ms, version 2 and CARP with a second.
fn cases() -> [Case; 7] {
    [
        Case {
            name: "vrrp",
            vip: vip4(1),
            router: "protocol = \"vrrp\"\nid = 42\ninterval = \"200ms\"",
            other: |host, better| keepalived(host, "10.1.1.1/32", "version 3\nadvert_int 0.2", better),
            mac: None,
            silence: Duration::from_millis(2_000),
        },
        Case {
            // It has the VIP on an interface of its own, with the virtual MAC address (RFC 9568 §7.3); lb on the machine's.
            name: "vrrp-vmac",
            vip: vip4(1),
            router: "protocol = \"vrrp\"\nid = 42\ninterval = \"200ms\"",
            other: |host, better| keepalived(host, "10.1.1.1/32", "use_vmac\nversion 3\nadvert_int 0.2", better),
            mac: None,
            silence: Duration::from_millis(2_000),
        },
        Case {
            name: "vmac",
            vip: vip4(1),
            router: "protocol = \"vrrp\"\nid = 42\ninterval = \"200ms\"\nvirtual_mac = true",
            other: |host, better| keepalived(host, "10.1.1.1/32", "use_vmac\nversion 3\nadvert_int 0.2", better),
            mac: Some(MAC4),
            silence: Duration::from_millis(2_000),
        },
        Case {
            name: "vmac-ipv6",
            vip: vip6(1),
            router: "protocol = \"vrrp\"\nid = 42\ninterval = \"200ms\"\nvirtual_mac = true",
            other: |host, better| keepalived(host, "fd00:1::1:1/128", "use_vmac\nversion 3\nadvert_int 0.2", better),
            mac: Some(MAC6),
            silence: Duration::from_millis(2_000),
        },
        Case {
            name: "vrrp-ipv6",
            vip: vip6(1),
            router: "protocol = \"vrrp\"\nid = 42\ninterval = \"200ms\"",
            other: |host, better| keepalived(host, "fd00:1::1:1/128", "version 3\nadvert_int 0.2", better),
            mac: None,
            silence: Duration::from_millis(2_000),
        },
        Case {
            name: "vrrp2",
            vip: vip4(1),
            router: "protocol = \"vrrp2\"\nid = 42",
            other: |host, better| keepalived(host, "10.1.1.1/32", "version 2\nadvert_int 1", better),
            mac: None,
            silence: Duration::from_secs(5),
        },
        Case {
            name: "carp",
            vip: vip4(1),
            router: "protocol = \"carp\"\nid = 42",
            other: |host, better| {
                let skew = if better { "--advskew=50" } else { "--advskew=200" };
                Router::ucarp(host, "10.1.1.1", PASSPHRASE, &["--vhid=42", "--advbase=1", skew, "--preempt"])
            },
            mac: None,
            silence: Duration::from_secs(6),
        },
    ]
}

fn config(case: &Case, passphrase: &str) -> String {
    let secret = if case.name == "carp" { format!("passphrase_file = \"{passphrase}\"") } else { String::new() };
    format!(
        "[vip.web]\naddresses = [\"{}\"]\ninterface = \"eth0\"\nmode = \"failover\"\nfailback_delay = \"1ms\"\n\
         [vip.web.router]\n{}\n{secret}\n",
        case.vip, case.router
    )
}

fn other_machine(net: &Net) -> Result<&Host> {
    net.second.as_ref().context("a network without a second machine")
}

fn state(lb: &Lb<'_>) -> Option<VipState> {
    lb.vips().ok()?.groups.first().map(|group| group.state)
}

/// Waits until one machine has the VIP and the other one does not.
fn owned_by(net: &Net, lb: &Lb<'_>, vip: IpAddr, ours: bool, within: Duration) -> Result<Duration> {
    let other = other_machine(net)?;
    let wanted = if ours { VipState::Active } else { VipState::Backup };
    let what = if ours { "lb has the VIP alone" } else { "the other router has the VIP alone" };
    let has = |host: &Host| host.has_address(vip).unwrap_or(false);
    eventually(what, within, || has(&net.balancer) == ours && has(other) != ours && state(lb) == Some(wanted))
}

#[test]
fn lb_and_routers_of_other_makes_agree_who_owns() -> Result<()> {
    for case in cases().into_iter().filter(|case| case.mac.is_none()) {
        agree(&case).context(case.name)?;
    }
    Ok(())
}

#[test]
fn lb_and_keepalived_share_a_virtual_mac_address() -> Result<()> {
    for case in cases().into_iter().filter(|case| case.mac.is_some()) {
        agree(&case).context(case.name)?;
    }
    Ok(())
}

fn agree(case: &Case) -> Result<()> {
    let net = Topology::new(&format!("router-{}", case.name)).pair().build()?;
    let secret = tempfile::tempdir()?;
    let file = secret.path().join("carp.key");
    fs::write(&file, format!("{PASSPHRASE}\n"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let learnt = Learnt::start(net.client())?;
    if case.mac.is_some() {
        // keepalived leaves this to its operator: its machine would ask with the VIP and its own MAC address.
        let conf = |name: &str| format!("net/ipv4/conf/eth0/{name}");
        other_machine(&net)?.sysctls(&[(&conf("arp_ignore"), "1"), (&conf("arp_announce"), "2")])?;
    }
    let asked = |what: &str| reached(&net, case).with_context(|| what.to_owned());
    let lb = Lb::start(&net, &config(case, &file.display().to_string()))?;
    owned_by(&net, &lb, case.vip, true, case.silence).context("alone")?;
    asked("alone")?;

    let mut better = (case.other)(other_machine(&net)?, true)?;
    owned_by(&net, &lb, case.vip, false, case.silence + SOON).context("a better router comes")?;
    let other = other_machine(&net)?;
    let owner = lb.vips()?.groups[0].owner.clone().unwrap_or_default();
    asked("a better router has come")?;
    ensure!(owner == other.v4.to_string() || owner.starts_with("fe80:"), "the owner is {owner:?}");
    better.stop()?;
    owned_by(&net, &lb, case.vip, true, case.silence).context("the better router ends")?;
    asked("the better router has ended")?;

    let _worse = (case.other)(other, false)?;
    let before = Instant::now();
    while before.elapsed() < case.silence {
        ensure!(net.balancer.has_address(case.vip)?, "a worse router has taken the VIP");
        let_pass(Duration::from_millis(50));
    }
    owned_by(&net, &lb, case.vip, true, SOON).context("a worse router has come")?;
    lb.ctl(&["vip", "maintenance", "on"])?;
    eventually("the worse router takes over", case.silence, || {
        other.has_address(case.vip).unwrap_or(false) && !net.balancer.has_address(case.vip).unwrap_or(true)
    })?;
    asked("maintenance")?;
    lb.ctl(&["vip", "maintenance", "off"])?;
    owned_by(&net, &lb, case.vip, true, case.silence + SOON).context("back from maintenance")?;
    asked("back from maintenance")?;
    if let Some(mac) = case.mac {
        let learnt = learnt.of(case.vip)?;
        let macs = [net.balancer.mac("eth0")?, other.mac("eth0")?];
        ensure!(learnt == BTreeSet::from([mac.to_owned()]), "the VIP was at {learnt:?}; the machines are {macs:?}");
    }
    let heard = lb.vips()?.cluster.map(|cluster| cluster.router_counters).unwrap_or_default();
    ensure!(heard.heard > 0 && heard.malformed == 0 && heard.forged == 0, "{heard:?}");
    Ok(())
}

/// Waits until a client that knows nothing reaches a VIP with a virtual MAC address, and one that does as well.
fn reached(net: &Net, case: &Case) -> Result<()> {
    if case.mac.is_some() {
        let ping = || net.client().sh(&format!("ping -c 1 -W 1 {}", case.vip)).is_ok();
        eventually("the VIP answers", SOON, ping)?;
        net.client().ip(&["neigh flush dev eth0".to_owned()])?;
        eventually("the VIP answers who knows nothing", SOON, ping)?;
    }
    Ok(())
}

/// FRR's vrrpd: it has the VIP on an interface with the virtual MAC address, which is down ("protodown") while it is backup.
struct Frr {
    family: u8,
    vip: &'static str,
}

impl Frr {
    fn start(&self, host: &Host, priority: u8) -> Result<Router> {
        let &Self { family, vip } = self;
        // Left by the one before.
        let _ = host.sh("ip link del vrrp-test");
        let (number, word, prefix) = if family == 4 { (1, "ip", 32) } else { (2, "ipv6", 128) };
        host.ip(&[
            "link add vrrp-test link eth0 type macvlan mode bridge".to_owned(),
            format!("link set dev vrrp-test address 00:00:5e:00:0{number}:2a"),
            format!("addr add {vip}/{prefix} dev vrrp-test"),
            "link set dev vrrp-test up".to_owned(),
        ])?;
        let config = format!(
            "interface eth0\n vrrp 42 version 3\n vrrp 42 priority {priority}\n vrrp 42 advertisement-interval 200\n \
             vrrp 42 {word} {vip}\n"
        );
        Router::frr(host, &["vrrpd"], &config)
    }

    fn owns(host: &Host) -> bool {
        host.sh("ip -d -o link show dev vrrp-test").is_ok_and(|link| !link.contains("protodown on"))
    }
}

#[test]
fn lb_and_frr_agree_who_owns() -> Result<()> {
    // FRR 8 has one checksum for IPv4: the one with a pseudo header.
    let (ipv4, ipv6) = (Frr { family: 4, vip: "10.1.1.1" }, Frr { family: 6, vip: "fd00:1::1:1" });
    // FRR always has the virtual MAC address.
    for (name, frr, virtual_mac) in [("ipv4", ipv4, false), ("ipv6", ipv6, true)] {
        agree_with_frr(name, &frr, virtual_mac).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn agree_with_frr(name: &str, frr: &Frr, virtual_mac: bool) -> Result<()> {
    const SILENCE: Duration = Duration::from_secs(2);
    let net = Topology::new(&format!("frr-{name}")).pair().build()?;
    let other = other_machine(&net)?;
    let config = format!(
        "[vip.web]\naddresses = [\"{}\"]\ninterface = \"eth0\"\nmode = \"failover\"\nfailback_delay = \"1ms\"\n\
         [vip.web.router]\nprotocol = \"vrrp\"\nid = 42\ninterval = \"200ms\"\nvirtual_mac = {virtual_mac}\n",
        frr.vip
    );
    let lb = Lb::start(&net, &config)?;
    let agreed = |what: &str, ours: bool, within: Duration| {
        let wanted = if ours { VipState::Active } else { VipState::Backup };
        eventually(what, within, || state(&lb) == Some(wanted) && Frr::owns(other) != ours)
    };
    eventually("lb owns alone", SILENCE, || state(&lb) == Some(VipState::Active))?;
    let mut better = frr.start(other, 150)?;
    agreed("a better FRR owns", false, SILENCE + SOON).with_context(|| better.log())?;
    better.stop()?;
    eventually("lb owns when FRR ends", SILENCE, || state(&lb) == Some(VipState::Active))?;

    let worse = frr.start(other, 50)?;
    agreed("a worse FRR waits", true, SILENCE + SOON).with_context(|| worse.log())?;
    let_pass(SILENCE);
    ensure!(state(&lb) == Some(VipState::Active) && !Frr::owns(other), "a worse FRR has taken the VIP");
    lb.ctl(&["vip", "maintenance", "on"])?;
    eventually("FRR owns in maintenance", SILENCE, || Frr::owns(other) && state(&lb) == Some(VipState::Idle))?;
    lb.ctl(&["vip", "maintenance", "off"])?;
    agreed("lb owns again", true, SILENCE + SOON).with_context(|| worse.log())?;
    let heard = lb.vips()?.cluster.map(|cluster| cluster.router_counters).unwrap_or_default();
    ensure!(heard.heard > 0 && heard.malformed == 0 && heard.forged == 0, "{heard:?}");
    Ok(())
}

#[test]
fn advertisements_that_come_back_and_foreign_ones_change_nothing() -> Result<()> {
    for case in cases().into_iter().filter(|case| ["vrrp", "carp", "vmac"].contains(&case.name)) {
        looped(&case).context(case.name)?;
    }
    Ok(())
}

fn looped(case: &Case) -> Result<()> {
    let net = Topology::new(&format!("looped-{}", case.name)).pair().build()?;
    let secret = tempfile::tempdir()?;
    let file = secret.path().join("carp.key");
    fs::write(&file, PASSPHRASE)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    // The kernel must not hide them: it drops its own addresses as martians otherwise.
    net.balancer.sysctls(&[("net/ipv4/conf/all/accept_local", "1"), ("net/ipv4/conf/eth0/accept_local", "1")])?;
    net.hairpin("lb", "eth0", true)?;
    let lb = Lb::start(&net, &config(case, &file.display().to_string()))?;
    eventually("lb owns the VIP", case.silence, || state(&lb) == Some(VipState::Active))?;
    let looped =
        || lb.vips().ok().and_then(|view| view.cluster).map_or(0, |cluster| cluster.router_counters.looped_back);
    eventually("its own advertisements come back", SOON + case.silence, || looped() >= 3)?;
    let_pass(Duration::from_secs(4));
    let group = lb.vips()?.groups.remove(0);
    ensure!((group.state, group.transitions) == (VipState::Active, Some(1)), "{group:?}");
    Ok(())
}
