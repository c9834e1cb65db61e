//! Packets go in and come out; elections themselves are `advertiser`'s tests.

use std::time::Duration;

use super::*;
use crate::failover::advertiser::Dialect;

const OWN: &str = "10.0.0.1";
const OTHER: &str = "10.0.0.2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn vrrp(priority: u8) -> Router {
    Router {
        name: "web".into(),
        interface: "eth0".into(),
        addresses: vec![ip("10.0.0.100")],
        speaks: Speaks::Vrrp { version: Version::V3, vrid: 42, checksum: Checksum::PseudoHeader },
        settings: Settings {
            dialect: Dialect::Vrrp { priority, interval: Duration::from_millis(100) },
            preempt: true,
            preempt_delay: Duration::ZERO,
            has_peers: false,
        },
        peers: BTreeSet::new(),
        unicast: false,
        virtual_mac: false,
    }
}

fn carp_router(advskew: u8) -> Router {
    let dialect = Dialect::Carp { advbase: 1, advskew };
    Router {
        speaks: Speaks::Carp { vhid: 42, passphrase: b"secret".to_vec() },
        settings: Settings { dialect, preempt: true, preempt_delay: Duration::ZERO, has_peers: false },
        ..vrrp(100)
    }
}

/// A router with its address; the group takes part.
fn routers(router: Router, own: &str, start: Instant) -> Routers {
    let mut routers = Routers::new(7, BTreeSet::new());
    assert_eq!(routers.configure(vec![router], start), Output::default());
    let primary = Primary { v4: Some(ip(own)), v6: None };
    let changed = routers.addressed([ip(own)].into(), [("eth0".to_owned(), primary)].into(), start);
    assert_eq!(changed, Output::default());
    routers
}

fn received(packet: &Packet) -> Received<'_> {
    let Packet { interface, source, destination, payload, .. } = packet;
    Received { interface, source: *source, destination: *destination, ttl: 255, payload }
}

/// Lets time pass until the group is owned: what is sent then.
fn own(routers: &mut Routers, start: Instant) -> (Vec<Packet>, Instant) {
    for ms in 1..10_000 {
        let now = start + Duration::from_millis(ms);
        let output = routers.tick(now);
        if !output.raise.is_empty() {
            assert_eq!((&output.raise, &output.announce), (&vec!["web".to_owned()], &vec!["web".to_owned()]));
            return (output.send, now);
        }
    }
    panic!("nobody took the group");
}

fn role(routers: &Routers, now: Instant) -> Role {
    routers.status(now)[0].role
}

#[test]
fn what_is_sent_is_understood_by_the_other_and_the_better_one_owns() {
    for (better, worse) in [(vrrp(200), vrrp(100)), (carp_router(0), carp_router(100))] {
        let start = Instant::now();
        let (mut first, mut second) = (routers(better, OWN, start), routers(worse, OTHER, start));
        let (packets, now) = own(&mut first, start);
        assert_eq!(packets.len(), 1);
        assert_eq!((packets[0].source, packets[0].destination), (ip(OWN), ip("224.0.0.18")));
        let heard = second.receive(received(&packets[0]), now);
        assert_eq!((heard, second.counters().heard), (Output::default(), 1));
        assert_eq!(second.status(now)[0].owner.as_deref(), Some(OWN));
        let left = first.maintenance(true, now);
        assert_eq!(left.lower, ["web"]);
        let taken = second.receive(received(&left.send[0]), now);
        let (later, _) = if taken.raise.is_empty() { own(&mut second, now) } else { (taken.send, now) };
        assert!(!later.is_empty(), "the second one advertises");
        assert_eq!(role(&first, now), Role::Idle);
    }
}

#[test]
fn ones_own_packets_forged_and_foreign_ones_are_counted_and_move_nothing() {
    for router in [vrrp(100), carp_router(0)] {
        let start = Instant::now();
        let mut routers = routers(router, OWN, start);
        let (packets, now) = own(&mut routers, start);
        let (mine, due) = (&packets[0], routers.deadline());
        // For a minute's worth of packets: back from the network, with a wrong checksum, TTL, id, interface.
        let mut broken = mine.clone();
        broken.source = ip(OTHER);
        broken.payload[6] ^= 1;
        let mut foreign = mine.clone();
        (foreign.source, foreign.interface) = (ip(OTHER), "eth1".to_owned());
        let from_afar = Packet { source: ip(OTHER), ..mine.clone() };
        for _ in 0..1_000 {
            let looped = routers.receive(received(mine), now);
            assert_eq!(looped.incidents, [Incident::Alarm { group: "web".into(), alarm: Alarm::LoopedBack }]);
            assert_eq!((looped.send, looped.lower), (vec![], vec![]));
            assert_eq!(routers.receive(received(&broken), now), Output::default());
            assert_eq!(routers.receive(received(&foreign), now).send, []);
            let far = Received { ttl: 254, ..received(&from_afar) };
            assert_eq!(routers.receive(far, now), Output::default());
        }
        assert_eq!((routers.deadline(), role(&routers, now)), (due, Role::Active), "no timer was moved");
        let counters = routers.counters();
        assert_eq!((counters.looped_back, counters.heard), (1_000, 0));
        assert_eq!(counters.malformed + counters.foreign, 3_000, "{counters:?}");
    }
}

#[test]
fn a_wrong_passphrase_and_a_stranger_are_refused() {
    let start = Instant::now();
    let mut routers = routers(carp_router(0), OWN, start);
    let key = carp::Key::new(b"guess", 42, &[ip("10.0.0.100")]);
    let mut payload = Vec::new();
    carp::Advertisement { vhid: 42, advbase: 0, advskew: 0, demotion: 0, counter: 1 }.write(&key, &mut payload);
    let (interface, source, destination) = ("eth0".to_owned(), ip(OTHER), ip("224.0.0.18"));
    let forged = Packet { interface, source, destination, payload, virtual_mac: None };
    routers.receive(received(&forged), start);
    assert_eq!(routers.counters().forged, 1);

    let with_peers = Router { peers: [ip("10.0.0.3")].into(), unicast: true, ..vrrp(100) };
    let mut routers = self::routers(with_peers, OWN, start);
    let (packets, now) = own(&mut routers, start);
    assert_eq!(packets.iter().map(|packet| packet.destination).collect::<Vec<_>>(), [ip("10.0.0.3")]);
    let mut owner = self::routers(vrrp(255), OTHER, start);
    let (loud, _) = own(&mut owner, start);
    assert_eq!(routers.receive(received(&loud[0]), now), Output::default());
    assert_eq!((routers.counters().strangers, role(&routers, now)), (1, Role::Active));
}

#[test]
fn without_an_address_nothing_is_said_and_a_reload_touches_what_changed() {
    let start = Instant::now();
    let mut routers = Routers::new(7, BTreeSet::new());
    routers.configure(vec![vrrp(100)], start);
    assert_eq!((routers.deadline(), role(&routers, start)), (None, Role::Idle));
    let mut routers = self::routers(vrrp(100), OWN, start);
    let (_, now) = own(&mut routers, start);
    assert_eq!(routers.configure(vec![vrrp(100)], now), Output::default());
    assert_eq!(routers.configure(vec![vrrp(150)], now), Output::default(), "priority alone");
    assert_eq!(role(&routers, now), Role::Active);
    let gone = routers.configure(vec![], now);
    assert_eq!((gone.lower, gone.send.len()), (vec!["web".to_owned()], 1));
}

#[test]
fn advertisements_come_from_the_virtual_mac_address_where_there_is_one() {
    for (router, expected) in [(vrrp(100), [0, 0, 0x5e, 0, 1, 42]), (carp_router(0), [0, 0, 0x5e, 0, 1, 42])] {
        for (virtual_mac, expected) in [(false, None), (true, Some(expected))] {
            let start = Instant::now();
            let mut routers = routers(Router { virtual_mac, ..router.clone() }, OWN, start);
            let (packets, now) = own(&mut routers, start);
            assert_eq!(packets[0].virtual_mac, expected);
            let last = routers.last_words(&["web".to_owned()].into());
            assert_eq!(last[0].virtual_mac, expected, "the guard's, too");
            let other = routers.configure(vec![Router { virtual_mac: !virtual_mac, ..router.clone() }], now);
            assert_eq!(
                (other.lower, other.send.len()),
                (vec!["web".to_owned()], 1),
                "another address is another group"
            );
        }
    }
}
