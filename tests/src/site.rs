//! Two machines that announce a VIP group by BGP to the router between them and a client: for tests and measurements.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::harness::{EchoServer, Host, Lb, Net, Probe, Router, Stop, Topology, eventually, wait::let_pass};

/// Where the VIPs answer.
pub const PORT: u16 = 7;
/// The group's address.
pub const VIP4: &str = "10.50.0.1";
/// And the other one.
pub const VIP6: &str = "fd00:50::1";
/// A second one, for reloads.
pub const MORE: &str = "10.50.0.2";
/// Of the BGP sessions.
pub const PASSWORD: &str = "correct-horse";

/// What takes no time on a machine that has some.
const SOON: Duration = Duration::from_secs(5);
/// What takes a session or two to come about.
pub const LONG: Duration = Duration::from_secs(15);

/// The machines, a node, a router and a client behind it.
///
/// # Errors
/// When the kernel refuses.
pub fn network(name: &str) -> Result<Net> {
    let vips = [VIP4, VIP6, MORE].map(|vip| vip.parse::<IpAddr>().expect("an address"));
    let net = Topology::new(name).pair().routed().nodes(1).dsr(&vips).build()?;
    let router = net.router.as_ref().context("a network without a router")?;
    // By addresses and ports: one client's flows go to all machines.
    router.sysctls(&[("net/ipv4/fib_multipath_hash_policy", "1"), ("net/ipv6/fib_multipath_hash_policy", "1")])?;
    Ok(net)
}

/// FRR as the router.
///
/// # Errors
/// When it does not run.
pub fn frr(host: &Host) -> Result<Router> {
    let neighbor = |last: u8| {
        format!(
            " neighbor 10.1.0.{last} remote-as 65001\n neighbor 10.1.0.{last} passive\n neighbor 10.1.0.{last} password {PASSWORD}\n"
        )
    };
    let family = |family: &str| {
        format!(
            " address-family {family} unicast\n  neighbor 10.1.0.2 activate\n  neighbor 10.1.0.3 activate\n  maximum-paths 8\n exit-address-family\n"
        )
    };
    let neighbors = neighbor(2) + &neighbor(3);
    let config = format!(
        "no zebra nexthop kernel enable\nrouter bgp 65000\n bgp router-id 10.1.0.1\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n{neighbors}{}{}",
        family("ipv4"),
        family("ipv6")
    );
    Router::frr(host, &["bgpd"], &config)
}

/// BIRD as the router.
///
/// # Errors
/// When it does not run.
pub fn bird(host: &Host) -> Result<Router> {
    let neighbor = |name: &str, last: u8| {
        format!(
            "protocol bgp {name} {{ local as 65000; neighbor 10.1.0.{last} as 65001; passive on; password \"{PASSWORD}\";\n\
             ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }}; }}\n"
        )
    };
    let config = format!(
        "log stderr all;\nrouter id 10.1.0.1;\nprotocol device {{ }}\n\
         protocol kernel {{ merge paths on; ipv4 {{ export all; }}; }}\n\
         protocol kernel {{ merge paths on; ipv6 {{ export all; }}; }}\n{}{}",
        neighbor("lb1", 2),
        neighbor("lb2", 3)
    );
    Router::bird(host, &config)
}

/// The configuration of one of the machines.
pub fn config(number: u8, password: &Path, more: &str, node: &Host) -> String {
    let password = password.display();
    format!(
        r#"
[interface.eth0]
[bgp]
as = 65001
communities = ["65001:{number}"]
[bgp.neighbor.r1]
address = "10.1.0.1"
as = 65000
password_file = "{password}"
next_hop6 = "fd00:1::{}"
{}"#,
        number + 1,
        service(more, node)
    )
}

/// An echo service on VIPs that every machine has.
pub fn service(more: &str, node: &Host) -> String {
    format!(
        r#"
[vip.web]
addresses = ["{VIP4}", "{VIP6}"{more}]
mode = "everywhere"
[virtual_server.echo]
vips = ["web"]
protocol = "udp"
ports = {PORT}
pool = "echo"
[pool.echo]
forwarding = "dsr"
monitors = ["alive"]
node.n1 = {{ address = "{}" }}
node.n2 = {{ address = "{}" }}
[monitor.alive]
type = "ping"
delay = "200ms"
timeout = "200ms"
"#,
        node.v4, node.v6
    )
}

/// Two machines behind a router, and a client.
#[derive(Debug)]
pub struct Site<'n> {
    net: &'n Net,
    /// The machines.
    pub lbs: [Lb<'n>; 2],
    router: Router,
    /// The client's, to [`VIP4`].
    pub probe: Probe,
    _echo: EchoServer,
    secrets: tempfile::TempDir,
}

impl<'n> Site<'n> {
    /// Started; both are announced and the client is answered.
    ///
    /// # Errors
    /// When one of that does not come about.
    pub fn start(net: &'n Net, router: fn(&Host) -> Result<Router>) -> Result<Self> {
        let secrets = tempfile::tempdir()?;
        let password = secrets.path().join("bgp.key");
        fs::write(&password, format!("{PASSWORD}\n"))?;
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600))?;
        let second = net.second.as_ref().context("a network without a second machine")?;
        let node = &net.nodes[0];
        let echo = EchoServer::start(node, PORT)?;
        let router = router(gateway(net))?;
        let lbs = [
            Lb::start(net, &config(1, &password, "", node))?,
            Lb::start_on(net, second, &config(2, &password, "", node))?,
        ];
        let probe = Probe::start(net.client(), SocketAddr::new(VIP4.parse()?, PORT))?;
        let site = Self { net, lbs, router, probe, _echo: echo, secrets };
        site.wait_for(&[2, 3], LONG).context("both machines are announced")?;
        eventually("the VIP answers", SOON, || site.probe.is_answered())?;
        Ok(site)
    }

    /// Waits until the router has routes over just these machines, by the last byte of their addresses; how long it took.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn wait_for(&self, machines: &[u8], within: Duration) -> Result<Duration> {
        let mut last = String::new();
        let outcome = eventually(&format!("the routes lead over {machines:?}"), within, || {
            let found = [VIP4, VIP6].map(|vip| next_hops(gateway(self.net), vip).unwrap_or_default());
            last = format!("{found:?}");
            found.iter().all(|hops| hops == machines)
        });
        outcome.with_context(|| format!("{last}\n{}", self.router.log()))
    }

    /// The client's gap while something is done that makes the routes lead over these machines alone.
    ///
    /// # Errors
    /// When they do not.
    pub fn gap(&self, machines: &[u8], what: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let mark = self.probe.mark();
        what()?;
        self.gap_since(mark, machines)
    }

    /// The same when an lbd is killed.
    ///
    /// # Errors
    /// When they do not.
    pub fn gap_of_kill(&mut self, index: usize, machines: &[u8]) -> Result<Duration> {
        let mark = self.probe.mark();
        self.lbs[index].stop(Stop::Kill)?;
        self.gap_since(mark, machines)
    }

    fn gap_since(&self, mark: usize, machines: &[u8]) -> Result<Duration> {
        self.wait_for(machines, SOON)?;
        let_pass(Duration::from_millis(500));
        Ok(self.probe.gap_since(mark).0)
    }

    /// Logs are not shown at the end.
    pub fn quiet(self) -> Self {
        Self { lbs: self.lbs.map(Lb::quiet), router: self.router.quiet(), ..self }
    }

    /// Where the password of the sessions is.
    pub fn password(&self) -> std::path::PathBuf {
        self.secrets.path().join("bgp.key")
    }
}

/// The router.
pub fn gateway(net: &Net) -> &Host {
    net.router.as_ref().expect("the network has a router")
}

/// The machines that a router's route to a VIP leads over, by the last byte of their addresses.
///
/// # Errors
/// When the kernel does not say.
pub fn next_hops(router: &Host, vip: &str) -> Result<Vec<u8>> {
    let family = if vip.contains(':') { "-6" } else { "-4" };
    let text = router.sh(&format!("ip {family} -o route show {vip}"))?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let via = words.windows(2).filter(|pair| pair[0] == "via").map(|pair| pair[1]);
    let mut last: Vec<u8> = via.filter_map(|address| address.rsplit(['.', ':']).next()?.parse().ok()).collect();
    last.sort_unstable();
    Ok(last)
}
