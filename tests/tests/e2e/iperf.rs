//! iperf3 through each way of forwarding: bulk streams in both directions, and datagrams without loss.

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{
    Host, Server, Topology,
    topology::{vip4, vip6},
};
use serde_json::Value;

use crate::support::{ONE_ARM, nodes4, nodes6, service};

const PORT: u16 = 5201;

/// Runs the client for a second; its report.
fn iperf(client: &Host, target: &str) -> Result<Value> {
    let report = client.sh(&format!("iperf3 -J -t 1 -c {target}"))?;
    serde_json::from_str(&report).with_context(|| format!("iperf3 -c {target}: {report}"))
}

fn number(report: &Value, path: &str) -> Result<f64> {
    report.pointer(path).and_then(Value::as_f64).with_context(|| format!("{path} in {report}"))
}

const DSR: &str = "forwarding = \"dsr\"\n";
const ONE_ARM_NAT: &str = "forwarding = \"nat\"\nsource_nat = true\n";

#[test]
fn iperf3_streams_pass_in_each_mode() -> Result<()> {
    let net = Topology::new("iperf").nodes(2).dsr(&[vip4(1), vip6(1)]).build()?;
    let _servers = net.nodes.iter().map(|node| Server::start(node, "iperf3 -s", PORT)).collect::<Result<Vec<_>>>()?;
    for mode in [DSR, ONE_ARM_NAT] {
        // Its control connection and its streams belong together: they must reach the same node.
        let settings = format!("{mode}persistence = {{ type = \"source_address\", timeout = \"10m\" }}");
        let config = [
            ONE_ARM.to_owned(),
            service("four", "one4", "tcp", PORT, &settings, &nodes4(&net.nodes, 0, &[])),
            service("six", "one6", "tcp", PORT, &settings, &nodes6(&net.nodes, 0)),
        ];
        let lb = net.start_lb(&config.concat())?;
        for (name, target) in [("four", vip4(1)), ("six", vip6(1))] {
            lb.wait_for_next_hops(name)?;
            for direction in ["", "-R"] {
                let report = iperf(net.client(), &format!("{target} -P 2 {direction}"))?;
                let megabits = number(&report, "/end/sum_received/bits_per_second")? / 1e6;
                ensure!(megabits > 50.0, "{mode}{target} {direction}: {megabits} Mbit/s: {report}");
            }
            ensure!(lb.virtual_server(name)?.connections == 6, "{mode}{:?}", lb.virtual_server(name)?);
        }
    }
    Ok(())
}

#[test]
fn iperf3_datagrams_pass_in_each_mode_and_none_is_lost() -> Result<()> {
    let net = Topology::new("iperf-udp").nodes(1).dsr(&[vip4(1), vip6(1)]).build()?;
    for mode in [DSR, ONE_ARM_NAT] {
        for (vip, target, nodes) in
            [("one4", vip4(1), nodes4(&net.nodes, 0, &[])), ("one6", vip6(1), nodes6(&net.nodes, 0))]
        {
            // Its datagrams are answered from the address that they came to only when it is told that address.
            let address = if mode == DSR { format!("-B {target}") } else { String::new() };
            let _server = Server::start(&net.nodes[0], &format!("iperf3 -s {address}"), PORT)?;
            let config = [
                ONE_ARM,
                &service("tcp", vip, "tcp", PORT, mode, &nodes),
                &service("udp", vip, "udp", PORT, mode, &nodes),
            ];
            let lb = net.start_lb(&config.concat())?;
            lb.wait_for_next_hops("tcp")?;
            lb.wait_for_next_hops("udp")?;
            let report = iperf(net.client(), &format!("{target} -u -b 20M -w 1M"))?;
            let (lost, sent) = (number(&report, "/end/sum/lost_packets")?, number(&report, "/end/sum/packets")?);
            ensure!(lost < 0.5 && sent > 1000.0, "{mode}{target}: {lost} of {sent} lost: {report}");
        }
    }
    Ok(())
}
