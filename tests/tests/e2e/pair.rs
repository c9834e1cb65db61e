//! Two balancers that share a VIP group, one node behind both, and a client that asks every 2 ms.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, Result};
use lb::control::view::{VipState, VipsView};
use lb_tests::harness::{
    EchoServer, Host, Lb, Net, Probe, Topology, eventually,
    topology::{vip4, vip6},
    wait::let_pass,
};
use tempfile::TempDir;

use super::support::SOON;

pub(crate) const PORT: u16 = 7;
pub(crate) const NO_FAILBACK: &str = "failback = false";
/// Three heartbeats of 100 ms and a quarter, and what the machine needs.
pub(crate) const LOST: Duration = Duration::from_millis(500);
/// A move that both machines know of.
pub(crate) const MOVED: Duration = Duration::from_millis(60);
/// Where more lines of `[cluster]` go.
const CLUSTER: &str = "# cluster";

/// Two balancers, one node behind both, a client.
pub(crate) struct Pair<'n> {
    pub(crate) net: &'n Net,
    pub(crate) first: Lb<'n>,
    pub(crate) second: Lb<'n>,
    pub(crate) probe: Probe,
    /// Where the key is.
    pub(crate) key: TempDir,
    pub(crate) key_file: String,
    _echo: EchoServer,
}

pub(crate) fn network(name: &str) -> Result<Net> {
    Topology::new(name).pair().nodes(1).dsr(&[vip4(1), vip6(1)]).build()
}

impl<'n> Pair<'n> {
    /// Started, with the group on the first and answers for the client.
    pub(crate) fn start(net: &'n Net, settings: &str) -> Result<Self> {
        Self::with(net, settings, ["", ""], Ok)
    }

    /// The same with more lines of `[cluster]` and other sections for each machine (`lines`: TOML of its own, merged), and the
    /// first lbd as `prepare` leaves it.
    pub(crate) fn with(
        net: &'n Net,
        settings: &str,
        lines: [&str; 2],
        prepare: impl FnOnce(Lb<'n>) -> Result<Lb<'n>>,
    ) -> Result<Self> {
        let echo = EchoServer::start(&net.nodes[0], PORT)?;
        let key = tempfile::tempdir()?;
        let file = key.path().join("cluster.key");
        fs::write(&file, [7; 32])?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let second = net.second.as_ref().context("a network without a second balancer")?;
        let key_file = file.display().to_string();
        let config = |number: u8| {
            config(number, &key_file, settings, &net.nodes[0]).replace(CLUSTER, lines[usize::from(number) - 1])
        };
        let mut first = prepare(Lb::prepare(net, &config(1))?)?;
        first.launch()?;
        let second = Lb::start_on(net, second, &config(2))?;
        let probe = Probe::start(net.client(), SocketAddr::new(vip4(1), PORT))?;
        let pair = Self { net, first, second, probe, key, key_file, _echo: echo };
        let hears =
            |lb: &Lb<'_>| lb.vips().is_ok_and(|v| v.cluster.is_some_and(|c| c.machines.iter().all(|m| m.hears_us)));
        eventually("the machines hear each other", SOON, || hears(&pair.first) && hears(&pair.second))?;
        pair.wait_for(VipState::Active, VipState::Backup)?;
        eventually("the VIP answers", SOON, || pair.probe.is_answered())?;
        Ok(pair)
    }

    pub(crate) fn machines(&self) -> [&'n Host; 2] {
        [&self.net.balancer, self.net.second.as_ref().expect("a pair has a second balancer")]
    }

    /// Waits until the group is so on both, and its addresses where it is owned.
    pub(crate) fn wait_for(&self, first: VipState, second: VipState) -> Result<()> {
        let mut last = String::new();
        let agreed = eventually(&format!("the group is {first:?} on lb1 and {second:?} on lb2"), 2 * SOON, || {
            let found = [self.first.vips().map(|v| state(&v)), self.second.vips().map(|v| state(&v))];
            last = format!("{found:?}");
            matches!(&found, [Ok(one), Ok(two)] if *one == Some(first) && *two == Some(second))
        });
        agreed.with_context(|| last)?;
        for (host, state) in self.machines().into_iter().zip([first, second]) {
            for vip in [vip4(1), vip6(1)] {
                eventually("the addresses follow", SOON, || {
                    host.has_address(vip).is_ok_and(|has| has == (state == VipState::Active))
                })?;
            }
        }
        Ok(())
    }

    /// The longest time without an answer while something is done and until the VIP answers again.
    pub(crate) fn gap(&self, what: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let mark = self.probe.mark();
        what()?;
        let_pass(Duration::from_millis(700));
        eventually("the VIP answers again", SOON, || self.probe.is_answered())?;
        Ok(self.probe.gap_since(mark).0)
    }
}

pub(crate) fn state(view: &VipsView) -> Option<VipState> {
    view.groups.first().map(|group| group.state)
}

/// `[cluster]` of the first or second machine of a pair.
pub(crate) fn cluster(number: u8, key: &str) -> String {
    let other = 3 - number;
    let (own4, other4) = (number + 1, other + 1);
    format!(
        r#"
[cluster]
machine = "lb{number}"
key_file = "{key}"
listen = ["10.1.0.{own4}", "10.2.0.{own4}"]
peer.lb{other}.addresses = ["10.1.0.{other4}", "10.2.0.{other4}"]
"#
    )
}

/// The first machine is the better one.
pub(crate) fn priority(number: u8) -> u8 {
    if number == 1 { 200 } else { 100 }
}

pub(crate) fn config(number: u8, key: &str, settings: &str, node: &Host) -> String {
    let (cluster, priority) = (cluster(number, key), priority(number));
    format!(
        r#"
[interface.eth0]
{cluster}# cluster
[vip.web]
addresses = ["10.1.1.1", "fd00:1::1:1"]
mode = "failover"
priority = {priority}
{settings}
[virtual_server.echo]
vips = ["web"]
protocol = "udp"
ports = {PORT}
pool = "echo"
[pool.echo]
forwarding = "dsr"
node.n1 = {{ address = "{}" }}
node.n2 = {{ address = "{}" }}
"#,
        node.v4, node.v6
    )
}
