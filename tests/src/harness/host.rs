//! A machine of the test network: a namespace with an `eth0`, its addresses, and what one does on it. Made by
//! [`super::topology`].

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Child, Command},
    sync::{Mutex, PoisonError},
    thread::JoinHandle,
};

use anyhow::{Context, Result};

use super::{command, namespace::Namespace};

/// A machine of the test network.
#[derive(Debug)]
pub struct Host {
    /// Short name: `c1`, `lb`, `n1`.
    pub name: String,
    /// Its own IPv4 address.
    pub v4: Ipv4Addr,
    /// Its own IPv6 address.
    pub v6: Ipv6Addr,
    namespace: Namespace,
    owned: Mutex<Vec<IpAddr>>,
}

impl Host {
    pub(super) fn create(namespace: &str, name: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Self> {
        let host = Self {
            name: name.to_owned(),
            v4,
            v6,
            namespace: Namespace::create(namespace)?,
            owned: Mutex::new(vec![v4.into(), v6.into()]),
        };
        // Before there is an interface, so that the defaults reach it. Everything that would make a packet test depend
        // on timing is off: duplicate address detection, ICMP rate limits, reverse path filters.
        host.sysctls(&[
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv4/icmp_ratelimit", "0"),
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/router_solicitations", "0"),
            ("net/ipv6/icmp/ratelimit", "0"),
        ])?;
        Ok(host)
    }

    /// Its namespace's name, for `ip -n`.
    pub fn namespace(&self) -> &str {
        self.namespace.name()
    }

    /// Runs `work` on this machine and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(work)
    }

    /// Runs `work` on a thread on this machine.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
        self.namespace.spawn(work)
    }

    /// Runs a command line on this machine; its output.
    ///
    /// # Errors
    /// As [`command::sh`].
    pub fn sh(&self, line: &str) -> Result<String> {
        self.run(|| command::sh(line)).with_context(|| format!("on {}", self.name))
    }

    /// Starts a process on this machine.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, command: &mut Command) -> Result<Child> {
        self.run(|| command.spawn()).with_context(|| format!("cannot start {command:?} on {}", self.name))
    }

    /// Several `ip` commands at once.
    ///
    /// # Errors
    /// As [`command::ip_batch`].
    pub fn ip(&self, lines: &[String]) -> Result<()> {
        command::ip_batch(Some(self.namespace()), lines).with_context(|| format!("on {}", self.name))
    }

    /// Sets kernel parameters, by their paths below `/proc/sys`.
    ///
    /// # Errors
    /// When one does not exist.
    pub fn sysctls(&self, values: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            values.iter().try_for_each(|(path, value)| {
                std::fs::write(format!("/proc/sys/{path}"), value).with_context(|| format!("sysctl {path}={value}"))
            })
        })
    }

    /// Forwards packets between its interfaces.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn route_packets(&self) -> Result<()> {
        self.sysctls(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])
    }

    /// Checksums and segments are made in software: a veth hands unfinished ones to XDP.
    ///
    /// # Errors
    /// Without `ethtool`.
    pub fn without_offloads(&self, interface: &str) -> Result<()> {
        self.sh(&format!("ethtool -K {interface} tx off gso off tso off gro off")).map(drop)
    }

    /// Makes the addresses its own without telling the network: what direct server return needs of a node.
    ///
    /// # Errors
    /// When an address cannot be added.
    pub fn own_vips(&self, vips: &[IpAddr]) -> Result<()> {
        self.sysctls(&[("net/ipv4/conf/all/arp_ignore", "1"), ("net/ipv4/conf/all/arp_announce", "2")])?;
        let add = |vip: &IpAddr| format!("addr add {vip}/{} dev lo", if vip.is_ipv4() { "32" } else { "128 nodad" });
        self.ip(&vips.iter().map(add).collect::<Vec<_>>())?;
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).extend(vips);
        Ok(())
    }

    /// Every address it answers for: its own, then the VIPs.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// MAC address of an interface, as `ip link` writes it.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn mac(&self, interface: &str) -> Result<String> {
        let line = self.sh(&format!("ip -o link show dev {interface}"))?;
        let mac = line.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        Ok(mac.with_context(|| format!("no MAC address in {line:?}"))?.to_owned())
    }

    /// Whether an address is on one of its interfaces.
    ///
    /// # Errors
    /// When `ip` cannot be run.
    pub fn has_address(&self, address: IpAddr) -> Result<bool> {
        Ok(self
            .sh("ip -o addr show")?
            .split_whitespace()
            .any(|word| word.split('/').next().and_then(|word| word.parse::<IpAddr>().ok()) == Some(address)))
    }
}
