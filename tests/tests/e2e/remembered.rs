//! What the L7 proxy remembers of clients goes on when a VIP group moves: their nodes, and their TLS sessions.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use lb::control::view::{SharingView, VipState};
use lb_tests::harness::{Lb, Net, Nginx, Stop, Topology, command::sh, eventually, http, topology::vip4};

use super::{
    pair::{NO_FAILBACK, cluster, priority},
    support::SOON,
};

/// Sessions of each round: by chance all of them come to their nodes again in one of 256 cases.
const SESSIONS: u64 = 8;
/// What a request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks once over TLS and says all that is to be known of it.
const ASK: &str = "printf 'GET / HTTP/1.1\\r\\nHost: lb.test\\r\\nConnection: close\\r\\n\\r\\n' |
timeout 10 openssl s_client -connect 10.1.1.1:443 -servername lb.test -ign_eof \"$@\" 2>/dev/null | tr -d '\\000'\n";

/// Both machines serve the group's VIP, with TLS and without.
fn config(net: &Net, number: u8, dir: &Path) -> String {
    let path = dir.display();
    let (cluster, priority) = (cluster(number, &format!("{path}/cluster.key")), priority(number));
    let nodes: Vec<String> =
        net.nodes.iter().map(|node| format!("node.{} = {{ address = \"{}:80\" }}", node.name, node.v4)).collect();
    format!(
        r#"
[interface.eth0]
{cluster}
[certificate.site]
chain = "{path}/site.pem"
key = "{path}/site.key"
[vip.web]
addresses = ["10.1.1.1"]
mode = "failover"
priority = {priority}
{NO_FAILBACK}
[virtual_server.plain]
vips = ["web"]
protocol = "http"
ports = 80
pool = "web"
[virtual_server.secure]
vips = ["web"]
protocol = "https"
ports = 443
pool = "web"
tls = {{ certificates = ["site"] }}
[pool.web]
forwarding = "proxy"
scheduler = "round_robin"
{}
[pool.web.persistence]
type = "query"
name = "s"
[proxy]
threads = 1
"#,
        nodes.join("\n")
    )
}

/// The key of the cluster, the certificate and the script.
fn files(dir: &Path) -> Result<()> {
    let path = dir.display();
    fs::write(dir.join("cluster.key"), [7; 32])?;
    fs::write(dir.join("ask.sh"), ASK)?;
    sh(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {path}/site.key \
         -out {path}/site.pem -days 30 -subj /CN=lb.test -addext subjectAltName=DNS:lb.test"
    ))?;
    for secret in ["cluster.key", "site.key"] {
        fs::set_permissions(dir.join(secret), fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// The clients, and what they hold.
struct Clients<'n> {
    net: &'n Net,
    dir: &'n Path,
    /// Which node each session has.
    nodes: Vec<String>,
}

impl Clients<'_> {
    fn node(&self, session: usize) -> Result<String> {
        let path = format!("/?s={session}");
        Ok(self.net.client().run(|| http::get(SocketAddr::new(vip4(1), 80), None, &path, PATIENCE))?.node)
    }

    /// Begins more sessions, and one over TLS.
    fn begin(&mut self) -> Result<()> {
        let first = self.nodes.len();
        for session in first..first + SESSIONS as usize {
            let node = self.node(session)?;
            self.nodes.push(node);
        }
        let new = &self.nodes[first..];
        ensure!(new.iter().any(|node| *node != new[0]), "both nodes have some: {new:?}");
        ensure!(!self.resumes("-sess_out")?, "the TLS session is a new one");
        Ok(())
    }

    /// Asks over TLS, going on with the session in the file or beginning one; whether it went on.
    fn resumes(&self, option: &str) -> Result<bool> {
        let dir = self.dir.display();
        let said = self.net.client().sh(&format!("sh {dir}/ask.sh {option} {dir}/session"))?;
        ensure!(said.contains("HTTP/1.1 200"), "{said}");
        Ok(said.lines().any(|line| line.starts_with("Reused, ")))
    }

    /// All sessions are where they were, and TLS goes on.
    fn go_on(&self, after: &str) -> Result<()> {
        // Backwards: round robin would not come to the same nodes by chance.
        for (session, expected) in self.nodes.iter().enumerate().rev() {
            let node = self.node(session)?;
            ensure!(
                node == *expected,
                "after {after} session {session} is with {node}; they were with {:?}",
                self.nodes
            );
        }
        ensure!(self.resumes("-sess_in")?, "after {after} the TLS session is a new one");
        Ok(())
    }

    fn are_served(&self) -> Result<()> {
        eventually("the virtual server answers", 2 * SOON, || self.node(0).is_ok())?;
        Ok(())
    }
}

fn sharing(lb: &Lb<'_>) -> Result<SharingView> {
    lb.vips()?.cluster.and_then(|cluster| cluster.sharing).context("the machine shares nothing")
}

/// Waits until a machine owns the VIP.
fn owns(lb: &Lb<'_>) -> Result<()> {
    eventually("the machine owns", SOON, || lb.vips().is_ok_and(|view| view.groups[0].state == VipState::Active))?;
    Ok(())
}

/// Waits until a machine knows that many sessions, and keys of the other one's tickets.
fn knows(lb: &Lb<'_>, sessions: usize) -> Result<()> {
    eventually("the other machine knows what this one remembers", 2 * SOON, || {
        lb.status().is_ok_and(|status| status.worker.is_some_and(|worker| worker.sessions >= sessions as u64))
            && sharing(lb).is_ok_and(|view| view.fates["ticket_keys"] > 0 && view.fates["l7_sessions"] > 0)
    })
    .with_context(|| format!("{:?}", sharing(lb)))?;
    Ok(())
}

#[test]
fn sessions_and_tls_go_on_when_the_group_moves_and_when_its_owner_is_killed() -> Result<()> {
    let net = Topology::new("remembered").pair().nodes(2).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let dir = tempfile::tempdir()?;
    files(dir.path())?;
    let second = net.second.as_ref().context("a network without a second machine")?;
    let first = Lb::start(&net, &config(&net, 1, dir.path()))?;
    let mut second = Lb::start_on(&net, second, &config(&net, 2, dir.path()))?;
    let mut clients = Clients { net: &net, dir: dir.path(), nodes: Vec::new() };
    owns(&first)?;
    clients.are_served()?;
    clients.begin()?;
    knows(&second, clients.nodes.len())?;

    first.ctl(&["vip", "failover", "web"])?;
    owns(&second)?;
    clients.are_served()?;
    clients.go_on("the group has moved")?;

    // More of them, begun on the second machine.
    clients.begin()?;
    knows(&first, clients.nodes.len())?;
    second.stop(Stop::Kill)?;
    owns(&first)?;
    clients.are_served()?;
    clients.go_on("the owner was killed")
}
