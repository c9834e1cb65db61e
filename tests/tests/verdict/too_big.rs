//! D: packets that are larger than the way to their node: whose sender is told, what, and how often.

use lb_common::reason::Reason;
use lb_tests::{
    packet::{Packet, tcp},
    rig::world::{CLIENT_MAC, Mode, UDP, VLAN, World, slot},
};

use crate::support::*;

/// A packet that is larger than `mtu`: the sender is told, unless it allows fragments, which only IPv4 does.
fn too_big(name: &str, packet: &Packet, mtu: u16) -> Case {
    let (v4, [high, low]) = (packet.is_v4(), mtu.to_be_bytes());
    let quoted = if v4 { 548 } else { 1232 };
    if (v4 && !packet.asks_not_to_fragment()) || packet.bytes().len() - packet.l3() < quoted {
        return dropped(format!("{name}: may be fragmented, or is shorter than a quote"), packet, Reason::ExceedsMtu);
    }
    let [least_high, least_low] = mtu.max(1280).to_be_bytes();
    let error = packet.clone().reversed().id(0).ttl(64).class(0).padding(&[]).options(&[]).dont_fragment();
    let error = if v4 { error.icmp(3, 4, [0, 0, high, low]) } else { error.icmp(2, 0, [0, 0, least_high, least_low]) };
    sent(format!("{name}: too big"), packet, Reason::AnsweredTooBig, &error.quoting(packet, quoted))
}

#[test]
fn a_packet_too_large_for_the_way_is_answered_by_an_error() {
    let mut rig = rig(World::empty());
    for (mode, v4, protocol) in combinations() {
        for (size, mtu) in [(1460, 1400), (700, 552), (1300, 1280), (3000, 1500), (7000, 4000)] {
            let name = format!("{} {size} {mtu}", label(mode, v4, protocol));
            let request = opening(mode, v4, protocol);
            fresh(&mut rig, &World::of(mode, v4, protocol, 1));
            establish(&mut rig, &request, mode);
            rig.change(|world| world.node_mut(1, 1).mtu = mtu).unwrap();
            let data = with_flags(&request, tcp::ACK).filled(size).dont_fragment();
            for (what, packet) in [
                ("plain", data.clone()),
                ("tagged", data.clone().vlan(VLAN)),
                ("marked, padded", data.clone().class(0x20).padding(&[3; 9])),
                ("may be fragmented", with_flags(&request, tcp::ACK).filled(size)),
            ] {
                check(&mut rig, &too_big(&format!("{name} {what}"), &packet, mtu));
            }
            let group = data.clone().macs(CLIENT_MAC, [0xff; 6]);
            check(&mut rig, &dropped(format!("{name}: to a group"), &group, Reason::ExceedsMtu));
            if v4 {
                let options = data.clone().options(&[148, 4, 0, 0]);
                check(&mut rig, &too_big(&name, &options, mtu));
            } else {
                let chain = data.clone().extension(60, 0);
                check(&mut rig, &dropped(format!("{name}: a chain"), &chain, Reason::ExceedsMtu));
            }
            assert_eq!(rig.stats(slot(1, 1)).unwrap().packets, 2, "{name}: what is refused reaches no node");
        }
    }
}

#[test]
fn a_first_packet_that_is_too_large_is_answered_and_leaves_nothing() {
    let mut rig = rig(World::empty());
    for (mode, v4, protocol) in combinations() {
        fresh(&mut rig, &World::of(mode, v4, protocol, 1));
        rig.change(|world| world.node_mut(1, 1).mtu = 1400).unwrap();
        let request = opening(mode, v4, protocol).filled(1460).dont_fragment();
        check(&mut rig, &too_big(&label(mode, v4, protocol), &request, 1400));
        assert_eq!(half_open_count(&rig), 0, "{}", label(mode, v4, protocol));
    }
}

#[test]
fn at_most_a_thousand_errors_are_sent_a_second() {
    let mut rig = rig(World::of(Mode::Nat, true, UDP, 1));
    let request = opening(Mode::Nat, true, UDP);
    establish(&mut rig, &request, Mode::Nat);
    rig.change(|world| world.node_mut(1, 1).mtu = 600).unwrap();
    let frame = request.filled(1000).dont_fragment().bytes();
    let mut out = Vec::new();
    let began = std::time::Instant::now();
    let sent = (0..6000).filter(|_| rig.test_run(&frame, &mut out).expect("it runs") == TX).count();
    // Ticks last 1.07 s, and the run may begin just before one ends.
    let ticks = began.elapsed().as_secs() as usize + 2;
    assert!((1000..=1000 * ticks).contains(&sent) && sent < 6000, "{sent} in {:?}", began.elapsed());
}
