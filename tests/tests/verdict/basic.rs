//! A: basic verdicts, byte-exact, with counters and map contents after.

use lb_common::{conntrack::State, flow::flag, reason::Reason};
use lb_tests::{
    packet::{eth, tcp},
    rig::world::{
        CLIENT, CLIENT_MAC, FOREIGN_VLAN, LB_MAC, MODES, Mode, NODE_PORT, OTHER, SOURCE, TCP, UDP, VIP, VIP_NAT, VIP_SNAT, VLAN,
        VLAN2, World, client, from_node, node_address, node_mac, number_of, to_client, to_node,
    },
};

use crate::support::*;

#[test]
fn the_rewrite_of_each_mode_written_out() {
    let mut rig = rig(World::standard());
    let node = match node_address(true, 1) {
        std::net::IpAddr::V4(address) => address,
        std::net::IpAddr::V6(_) => unreachable!("asked for IPv4"),
    };
    let ping = |packet: lb_tests::packet::Packet| packet.payload(b"ping");
    let at_node = || eth().macs(LB_MAC, node_mac(1));
    check_each(
        &mut rig,
        &[
            sent(
                "udp to vip, dsr",
                &ping(eth().ipv4(CLIENT, VIP).udp(31337, 80)),
                Reason::ForwardedDsr,
                &ping(at_node().ipv4(CLIENT, VIP).udp(31337, 80)),
            ),
            sent(
                "udp to vip, nat",
                &ping(eth().ipv4(CLIENT, VIP_NAT).udp(31337, 80)),
                Reason::ForwardedNat,
                &ping(at_node().ipv4(CLIENT, node).ttl(63).udp(31337, 8080)),
            ),
            sent(
                "udp to vip, source nat",
                &ping(eth().ipv4(CLIENT, VIP_SNAT).udp(31337, 80)),
                Reason::ForwardedNat,
                &ping(at_node().ipv4(SOURCE, node).ttl(63).udp(31337, 8080)),
            ),
            passed("udp to another address", &ping(eth().ipv4(CLIENT, OTHER).udp(31337, 80)), Reason::NotVirtual),
        ],
    );
}
