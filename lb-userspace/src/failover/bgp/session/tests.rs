//! A session, told by messages.

use super::*;

const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn settings() -> Settings {
    Settings {
        own_as: 65_001,
        peer_as: 65_000,
        hold_time: Duration::from_secs(9),
        communities: Vec::new(),
        med: None,
        prepend: 0,
    }
}

fn ends() -> Ends {
    Ends { router_id: OWN, next_hop4: Some(OWN), next_hop6: None }
}

fn open_of(asn: u32, hold: u64, router_id: Ipv4Addr) -> Vec<u8> {
    let families = Family::ALL.to_vec();
    Open { asn, hold: Duration::from_secs(hold), router_id, four_octets: true, families }.write()
}

fn vips(list: &[&str]) -> BTreeSet<IpAddr> {
    list.iter().map(|vip| vip.parse().unwrap()).collect()
}

/// Kinds of the messages, in order.
fn kinds(mut bytes: &[u8]) -> Vec<Message> {
    let mut kinds = Vec::new();
    while let Some((message, length)) = message::read(bytes).unwrap() {
        kinds.push(message);
        bytes = &bytes[length..];
    }
    assert_eq!(bytes, [0; 0]);
    kinds
}

fn established(settings: Settings, now: Instant) -> Session {
    let peer_as = settings.peer_as;
    let (mut session, first) = Session::open(settings, ends(), now);
    assert!(matches!(kinds(&first)[..], [Message::Open(_)]));
    session.announce(vips(&["198.51.100.10", "2001:db8::10"]), now);
    assert_eq!(kinds(&session.receive(&open_of(peer_as, 90, PEER), now).unwrap()), [Message::KeepAlive]);
    assert_eq!(session.state(), State::Opening);
    let output = session.receive(&message::keep_alive(), now).unwrap();
    assert_eq!(kinds(&output), [Message::Update], "IPv6 has no next hop here");
    assert_eq!((session.state(), session.announced()), (State::Established, 1));
    session
}

#[test]
fn changes_and_nothing_else_are_said() {
    let now = Instant::now();
    let mut session = established(settings(), now);
    assert_eq!(session.announce(vips(&["198.51.100.10"]), now), [0; 0], "nothing has changed");
    let output = session.announce(vips(&["198.51.100.11"]), now);
    let withdrawn = message::withdraw(Family::V4, &["198.51.100.10".parse().unwrap()]);
    assert_eq!(output[..withdrawn.len()], withdrawn, "the withdrawal comes first");
    assert_eq!(kinds(&output).len(), 2);
    assert_eq!(session.announce(BTreeSet::new(), now).len(), withdrawn.len());
    assert_eq!(session.announced(), 0);
}

#[test]
fn a_route_refresh_gets_everything_again() {
    let now = Instant::now();
    let mut session = established(settings(), now);
    let mut refresh = message::keep_alive();
    refresh[17] = 23;
    refresh[18] = 5;
    refresh.extend([0, 1, 0, 1]);
    assert_eq!(kinds(&session.receive(&refresh, now).unwrap()), [Message::Update]);
}

#[test]
fn many_vips_take_several_messages() {
    let now = Instant::now();
    let mut session = established(settings(), now);
    let many: BTreeSet<IpAddr> = (0..250).map(|n| IpAddr::from([198, 51, 100, n])).collect();
    assert_eq!(kinds(&session.announce(many, now)).len(), 3);
}

#[test]
fn both_sides_show_that_they_live() {
    let start = Instant::now();
    let mut session = established(settings(), start);
    // Nine seconds are less than the neighbour's ninety.
    let due = session.deadline().unwrap();
    assert_eq!(due, start + Duration::from_secs(3));
    assert_eq!(session.tick(due - Duration::from_millis(1)).unwrap(), [0; 0]);
    assert_eq!(kinds(&session.tick(due).unwrap()), [Message::KeepAlive]);
    session.receive(&message::keep_alive(), due).unwrap();
    session.tick(due + Duration::from_secs(3)).unwrap();
    session.tick(due + Duration::from_secs(6)).unwrap();
    let end = session.tick(due + Duration::from_secs(9)).unwrap_err();
    assert_eq!(end.last_words, message::notification(Fault::HOLD_TIMER));
}

#[test]
fn a_neighbour_that_does_not_answer_is_left() {
    let now = Instant::now();
    let (mut session, _) = Session::open(settings(), ends(), now);
    assert_eq!(session.deadline(), Some(now + OPEN_WITHIN));
    session.tick(now + OPEN_WITHIN).unwrap_err();
}

#[test]
fn the_wrong_neighbour_is_refused() {
    let now = Instant::now();
    let internal = Settings { peer_as: 65_001, ..settings() };
    let cases = [
        ("another AS", settings(), open_of(65_002, 90, PEER), Fault::BAD_PEER_AS),
        ("no identifier", settings(), open_of(65_000, 90, Ipv4Addr::UNSPECIFIED), Fault::BAD_IDENTIFIER),
        ("our identifier, in our AS", internal.clone(), open_of(65_001, 90, OWN), Fault::BAD_IDENTIFIER),
        ("a keepalive before its OPEN", settings(), message::keep_alive(), Fault::STATE_MACHINE),
        ("bytes", settings(), vec![0; 19], Fault::NOT_SYNCHRONIZED),
    ];
    for (name, settings, bytes, fault) in cases {
        let (mut session, _) = Session::open(settings, ends(), now);
        let end = session.receive(&bytes, now).expect_err(name);
        assert_eq!(end.last_words, message::notification(fault), "{name}");
    }
    let (mut session, _) = Session::open(settings(), ends(), now);
    let end = session.receive(&message::notification(Fault(2, 2)), now).unwrap_err();
    assert_eq!((end.last_words, end.why.as_str()), (Vec::new(), "the neighbour says: bad peer AS"));
}

#[test]
fn a_message_may_come_in_pieces() {
    let now = Instant::now();
    let (mut session, _) = Session::open(settings(), ends(), now);
    let bytes = [open_of(65_000, 90, PEER), message::keep_alive()].concat();
    let output: Vec<u8> = bytes.iter().flat_map(|byte| session.receive(&[*byte], now).unwrap()).collect();
    assert_eq!(kinds(&output), [Message::KeepAlive]);
    assert_eq!(session.state(), State::Established);
}

#[test]
fn an_internal_neighbour_gets_a_preference_and_no_path() {
    let now = Instant::now();
    let mut session = established(Settings { peer_as: 65_001, ..settings() }, now);
    let output = session.announce(vips(&["198.51.100.12"]), now);
    let text: String = output.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(text.contains("400200") && text.contains("40050400000064"), "{text}");
}
