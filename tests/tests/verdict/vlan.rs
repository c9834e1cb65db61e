//! Frames leave with the tag of the segment that they leave into, whatever they came with.

use lb_common::reason::Reason;
use lb_tests::{
    packet::{Packet, tcp},
    rig::world::{IFINDEX2, Mode, TCP, UDP, VLAN, VLAN2, World, from_node, to_client, to_node},
};

use crate::support::*;

/// A VLAN of nodes that clients are not in.
const NODES_VLAN: u16 = 300;

/// The packet with no tag, a priority tag, a tag, two.
fn tagged(packet: &Packet) -> [(&'static str, Packet); 5] {
    [
        ("untagged", packet.clone()),
        ("priority tag", packet.clone().tag(0x8100, 0xa000)),
        ("one tag", packet.clone().tag(0x8100, 0x7000 | VLAN)),
        ("service tag", packet.clone().service_vlan(VLAN)),
        ("two tags", packet.clone().service_vlan(VLAN2).tag(0x8100, 0x6000 | VLAN)),
    ]
}

#[test]
fn a_frame_takes_the_tag_of_its_nodes_segment() {
    let mut rig = rig(World::empty());
    for (mode, v4, protocol) in combinations() {
        for vlan in [0, VLAN, NODES_VLAN] {
            let mut world = World::of(mode, v4, protocol, 1);
            world.node_mut(1, 1).vlan = vlan;
            rig.configure(world).unwrap();
            for (tags, request) in tagged(&opening(mode, v4, protocol).filled(9)) {
                let name = format!("{}, {tags}, node in vlan {vlan}", label(mode, v4, protocol));
                rig.forget().unwrap();
                if mode != Mode::Dsr && tags == "two tags" {
                    check(&mut rig, &dropped(&name, &request, Reason::StackedVlan));
                    continue;
                }
                let out = to_node(&request, mode, 1, CLIENT_PORT);
                let out = request.clone().retagged(vlan).tags_of(out);
                check(&mut rig, &sent(&name, &request, forwarded(mode), &out));
                // And again from the record, over the fast path once it is proven.
                let data = with_flags(&request, tcp::ACK);
                let out = request.clone().retagged(vlan).tags_of(to_node(&data, mode, 1, CLIENT_PORT));
                for _ in 0..2 {
                    check(&mut rig, &sent(&name, &data, forwarded(mode), &out));
                }
            }
        }
    }
}

#[test]
fn an_answer_takes_the_tag_of_its_clients_segment() {
    let mut rig = rig(World::empty());
    for (mode, v4, protocol) in combinations().filter(|(mode, _, _)| *mode != Mode::Dsr) {
        fresh(&mut rig, &World::of(mode, v4, protocol, 1));
        rig.change(|world| world.vlans.insert(NODES_VLAN).then_some(()).unwrap()).unwrap();
        for (tags, request) in tagged(&opening(mode, v4, protocol)) {
            if tags == "two tags" {
                continue;
            }
            rig.forget().unwrap();
            establish(&mut rig, &request, mode);
            let answer =
                with_flags(&from_node(&request.clone().retagged(0), mode, 1, CLIENT_PORT), tcp::ACK).filled(70);
            for answer in [answer.clone(), answer.clone().vlan(NODES_VLAN), answer.clone().tag(0x8100, 0xe000 | VLAN)] {
                let name = format!("{}, {tags}, {answer:?}", label(mode, v4, protocol));
                check(&mut rig, &sent(name, &answer, Reason::ForwardedReply, &to_client(&request, &answer)));
            }
        }
    }
}

#[test]
fn frames_for_another_interface_are_tagged_too() {
    let mut rig = rig(World::empty());
    for (mode, protocol) in [(Mode::Dsr, TCP), (Mode::Nat, UDP)] {
        let mut world = World::of(mode, true, protocol, 1);
        let node = world.node_mut(1, 1);
        (node.ifindex, node.vlan) = (IFINDEX2, NODES_VLAN);
        fresh(&mut rig, &world);
        let request = opening(mode, true, protocol);
        let out = to_node(&request, mode, 1, CLIENT_PORT).retagged(NODES_VLAN);
        check(&mut rig, &Case { action: REDIRECT, ..sent("tagged", &request, forwarded(mode), &out) });
        rig.change(|world| world.node_mut(1, 1).ifindex = 999).unwrap();
        check(&mut rig, &dropped("no such device", &request, Reason::RewriteFailed));
    }
}
