//! BGP as far as neighbours are heard: `message` and `session` are links, the rest stands for the module around them.

#[allow(dead_code, reason = "whoever opens connections is not compiled here")]
mod message;
#[allow(dead_code, reason = "whoever opens connections is not compiled here")]
mod session;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use self::session::{End, Ends, Session, Settings};

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Both sides introduce themselves.
    Opening,
    /// VIPs are announced.
    Established,
}

const OPEN_WITHIN: Duration = Duration::from_secs(5);
const OWN_AS: u32 = 65_001;

/// What one session came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// What was sent; of a session that ended, nothing.
    sent: Vec<u8>,
    state: State,
    announced: usize,
    end: Option<End>,
}

/// A neighbour says this: in pieces it comes to the same as at once, and all that is answered are whole messages.
pub fn heard(peer_as: u32, pieces: &[Vec<u8>]) {
    let in_pieces = session(peer_as, pieces);
    let at_once = session(peer_as, &[pieces.concat()]);
    assert_eq!(in_pieces, at_once);
    let mut rest = in_pieces.sent.as_slice();
    while !rest.is_empty() {
        let (_, length) = message::read(rest).expect("what is sent is well-formed").expect("and whole");
        rest = &rest[length..];
    }
    assert!(in_pieces.state == State::Established || in_pieces.announced == 0);
}

fn session(peer_as: u32, pieces: &[Vec<u8>]) -> Outcome {
    let settings = Settings {
        own_as: OWN_AS,
        peer_as,
        hold_time: Duration::from_secs(9),
        communities: vec![message::Community::Plain(65_001, 7), message::Community::Large(70_000, 1, 2)],
        med: Some(10),
        prepend: 2,
    };
    let ends = Ends {
        router_id: Ipv4Addr::new(192, 0, 2, 1),
        next_hop4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        next_hop6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };
    let now = Instant::now();
    let (mut session, mut sent) = Session::open(settings, ends, now);
    let wanted = (0..250).map(|host| IpAddr::from([198, 51, 100, host]));
    let wanted = wanted.chain([IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 9])]);
    sent.extend(session.announce(wanted.collect::<BTreeSet<_>>(), now));
    let mut end = None;
    for piece in pieces {
        match session.receive(piece, now) {
            Ok(output) => sent.extend(output),
            Err(why) => {
                end = Some(why);
                break;
            }
        }
    }
    if end.is_some() {
        // What was sent before depends on how the bytes came.
        return Outcome { sent: Vec::new(), state: State::Opening, announced: 0, end };
    }
    sent.extend(session.announce(BTreeSet::new(), now));
    // Time passes, well or badly: a session says so, or ends.
    if let Some(due) = session.deadline()
        && let Ok(output) = session.tick(due)
    {
        sent.extend(output);
    }
    Outcome { sent, state: session.state(), announced: session.announced(), end }
}
