//! The forwarding lease: a machine whose failover thread stands still is silent for VIPs that another one may have by now.

use std::{net::IpAddr, time::Duration};

use lb::dataplane::clock;
use lb_common::reason::Reason;
use lb_tests::{
    harness::wait::let_pass,
    packet::{Packet, eth},
    rig::world::{CLIENT, CLIENT_MAC, CLIENT6, LB_MAC, LB2_MAC, Mode, TCP, UDP, VIP, VIP6, VLAN, World},
};

use crate::support::*;

/// Long ago.
const OVER: u64 = 1;

fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Packet {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation];
    body.extend(CLIENT_MAC);
    body.extend(sender);
    body.extend([0; 6]);
    body.extend(target);
    eth().macs(CLIENT_MAC, [0xff; 6]).ethertype(0x0806).payload(&body)
}

fn solicitation(target: std::net::Ipv6Addr) -> Packet {
    let group: std::net::Ipv6Addr = "ff02::1:ff00:1".parse().expect("an address");
    let to_group = [0x33, 0x33, 0xff, 0, 0, 1];
    eth().macs(CLIENT_MAC, to_group).ipv6(CLIENT6, group).icmp(135, 0, [0; 4]).payload(&target.octets())
}

#[test]
fn without_a_lease_nothing_is_said_for_a_vip_that_another_machine_can_take() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let (name, packet) = (label(mode, v4, protocol), opening(mode, v4, protocol));
        let vip = mode.vip(v4);
        for packet in [packet.clone(), packet.clone().vlan(VLAN)] {
            rig.lease(0, &[vip]).expect("maps can be written");
            let before = run(&mut rig, &packet);
            assert_eq!(before.reason, forwarded(mode), "{name}: a lease for ever");
            rig.lease(u64::MAX, &[]).expect("maps can be written");
            assert_eq!(run(&mut rig, &packet).reason, forwarded(mode), "{name}: a lease that lasts");
            rig.lease(OVER, &[]).expect("maps can be written");
            check(&mut rig, &dropped(format!("{name}: known, and the lease is over"), &packet, Reason::LeaseEnded));
            rig.forget().expect("maps can be written");
            check(&mut rig, &dropped(format!("{name}: new, and the lease is over"), &packet, Reason::LeaseEnded));
            let elsewhere = packet.macs(CLIENT_MAC, LB2_MAC);
            check(&mut rig, &passed(format!("{name}: another machine's frame"), &elsewhere, Reason::NotForUs));
        }
    }
    let (client, vip) = (CLIENT.octets(), VIP.octets());
    for case in [
        dropped("who has the VIP?", &arp(1, client, vip), Reason::LeaseEnded),
        dropped("who has the VIP, in a VLAN?", &arp(1, client, vip).vlan(VLAN), Reason::LeaseEnded),
        dropped("who has the VIP6?", &solicitation(VIP6), Reason::LeaseEnded),
        dropped("ping", &eth().ipv4(CLIENT, VIP).icmp(8, 0, [0; 4]), Reason::LeaseEnded),
        dropped("a port that nobody serves", &eth().ipv4(CLIENT, VIP).udp(5, 6), Reason::LeaseEnded),
        passed("the new owner says so", &arp(1, vip, vip), Reason::NotIp),
        passed("the new owner answers", &arp(2, vip, client), Reason::NotIp),
        passed("who has another address?", &arp(1, client, client), Reason::NotIp),
    ] {
        check(&mut rig, &case);
    }
}

#[test]
fn other_vips_are_served_whatever_becomes_of_the_lease() {
    let mut rig = rig(World::standard());
    rig.lease(OVER, &[VIP.into(), VIP6.into()]).expect("maps can be written");
    for v4 in [true, false] {
        for protocol in [TCP, UDP] {
            let packet = opening(Mode::Nat, v4, protocol);
            assert_eq!(run(&mut rig, &packet).reason, Reason::ForwardedNat, "{}", label(Mode::Nat, v4, protocol));
        }
    }
    let own: IpAddr = CLIENT.into();
    let unknown = eth().macs(CLIENT_MAC, LB_MAC).ip(own, own).udp(1, 2);
    check(&mut rig, &passed("to no VIP", &unknown, Reason::NotVirtual));
}

#[test]
fn the_lease_ends_when_lbd_means_it_to() {
    let mut rig = rig(World::standard());
    let packet = opening(Mode::Dsr, true, UDP);
    let length = Duration::from_millis(200);
    for _ in 0..3 {
        rig.lease(clock::jiffies_now() + clock::in_jiffies(length), &[VIP.into()]).expect("maps can be written");
        assert_eq!(run(&mut rig, &packet).reason, Reason::ForwardedDsr, "it has just begun");
        let_pass(length + Duration::from_millis(20));
        assert_eq!(run(&mut rig, &packet).reason, Reason::LeaseEnded, "it is over");
    }
}
