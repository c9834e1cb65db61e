//! SNMP: Debian's agent asks lbd by AgentX, and `snmpwalk` asks the agent.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{EchoServer, Host, LiveStreams, Topology, eventually, topology::vip4};
use tempfile::TempDir;

use crate::{
    alerts::mibs,
    support::{ONE_ARM, SOON, nodes4, one4, service},
};

/// An agent, which is killed with this.
struct Agent<'n> {
    host: &'n Host,
    dir: &'n TempDir,
    child: Option<Child>,
}

impl Agent<'_> {
    fn start(&mut self) -> Result<()> {
        let configuration = self.dir.path().join("snmpd.conf");
        let socket = self.dir.path().join("agentx");
        let text = format!("master agentx\nagentXSocket unix:{}\nrwcommunity public\n", socket.display());
        fs::write(&configuration, text)?;
        let mut command = Command::new("snmpd");
        command.args(["-f", "-Lf", "/dev/null", "-C", "-c"]).arg(configuration).arg("udp:127.0.0.1:161");
        command.env("SNMP_PERSISTENT_DIR", self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(self.host.start(&mut command).context("snmpd (package snmpd)")?);
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What a program of Net-SNMP prints of objects.
    fn ask(&self, program: &str, object: &str) -> Result<String> {
        let line = format!(
            "{program} -v2c -c public -t 2 -r 1 -M {} -m LB-MIB -Os 127.0.0.1 LB-MIB::{object}",
            mibs(self.dir)?
        );
        // Versions of Net-SNMP quote names in indexes in two ways.
        Ok(self.host.sh(&line)?.replace('\'', "\""))
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn the_agent_walks_virtual_servers_pools_nodes_and_vips() -> Result<()> {
    let net = Topology::new("snmp").nodes(2).dsr(&[vip4(1)]).build()?;
    let _echo = net.nodes.iter().map(|node| EchoServer::start(node, 7)).collect::<Result<Vec<_>>>()?;
    let dir = tempfile::tempdir()?;
    let nodes = nodes4(&net.nodes, 0, &[1, 3]);
    let config = format!(
        "{ONE_ARM}{}[snmp]\nagentx = \"{}\"\n",
        service("echo", "one4", "tcp", 7, "forwarding = \"dsr\"", &nodes),
        dir.path().join("agentx").display()
    );
    // The agent comes later than lbd, and goes once.
    let lb = net.start_lb(&config)?;
    lb.wait_for_next_hops("echo")?;
    let mut agent = Agent { host: &net.balancer, dir: &dir, child: None };
    for _ in 0..2 {
        agent.start()?;
        eventually("the agent knows lbd", SOON * 8, || {
            agent.ask("snmpget", "lbVersion.0").is_ok_and(|text| text.contains("STRING"))
        })
        .with_context(|| format!("{:?}", agent.ask("snmpget", "lbVersion.0")))?;
        agent.stop();
    }
    agent.start()?;
    eventually("the agent knows lbd again", SOON * 8, || {
        agent.ask("snmpget", "lbVersion.0").is_ok_and(|text| text.contains("STRING"))
    })?;

    let streams = LiveStreams::start(net.client(), one4(7), 12)?;
    streams.all_go_on(1, SOON)?;
    eventually("connections are seen", SOON * 2, || {
        agent
            .ask("snmpwalk", "lbVirtualServerTable")
            .is_ok_and(|text| text.contains("lbVirtualServerActive.\"echo\" = Gauge32: 12"))
    })
    .with_context(|| format!("{:?}", agent.ask("snmpwalk", "lbVirtualServerTable")))?;
    let walked = agent.ask("snmpwalk", "lbObjects")?;
    for line in [
        "lbVirtualServerProtocol.\"echo\" = STRING: tcp",
        "lbVirtualServerNodesAvailable.\"echo\" = Gauge32: 2",
        "lbPoolForwarding.\"echo\" = STRING: dsr",
        "lbNodeState.\"echo\".\"n1\" = INTEGER: active(1)",
        "lbNodeWeight.\"echo\".\"n2\" = Gauge32: 3",
    ] {
        ensure!(walked.lines().any(|other| other == line), "{line} is not in\n{walked}");
    }
    let many = agent.ask("snmpbulkwalk", "lbObjects")?;
    ensure!(many.lines().count() == walked.lines().count(), "{many}\n{walked}");
    lb.ctl(&["node", "drain", "echo/n1"])?;
    eventually("a drained node is seen", SOON * 2, || {
        agent.ask("snmpwalk", "lbNodeState").is_ok_and(|text| text.contains("draining(2)"))
    })?;
    let refused = agent.ask("snmpset", "lbNodeState.4.101.99.104.111.110.49 i 1");
    ensure!(refused.is_err(), "nothing can be set: {refused:?}");
    Ok(())
}
