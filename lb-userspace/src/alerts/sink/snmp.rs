//! SNMP traps: version 2c (RFC 3416), and version 3 with authentication and encryption ([`usm`]). What they say is described
//! by `packaging/mibs/LB-MIB.txt`. Nobody answers a trap: that it was sent is all that is known.

pub(in crate::alerts) mod usm;

use std::time::Instant;

use tokio::net::UdpSocket;

use self::usm::{Engine, User};
use crate::{
    alerts::{
        Failure,
        ber::{INTEGER, SEQUENCE, TIME_TICKS, TRAP, UNSIGNED, number, octets, of, oid},
        net::{self, Local},
        notice::Notice,
    },
    config::alert::Snmp,
    control::event::Severity,
};

/// Where `LB-MIB` is: below netSnmpPlaypen, which Net-SNMP keeps for private use, as the project has no number of its own.
pub(crate) const LB_MIB: [u32; 11] = [1, 3, 6, 1, 4, 1, 8072, 9999, 9999, 3780, 0];

const SYS_UP_TIME: [u32; 9] = [1, 3, 6, 1, 2, 1, 1, 3, 0];
const SNMP_TRAP_OID: [u32; 11] = [1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0];

/// Bytes of an octet string that a MIB's SnmpAdminString takes.
const MOST_TEXT: usize = 255;

/// By whom traps are sent.
#[derive(Debug)]
pub(in crate::alerts) enum Sender {
    /// Everybody who knows the community.
    Community(Vec<u8>),
    /// A user of version 3, as the engine of this process.
    User(Box<User>),
}

pub(in crate::alerts) async fn send(
    snmp: &Snmp,
    sender: &Sender,
    engine: &Engine,
    notice: &Notice,
) -> Result<(), Failure> {
    let pdu = pdu(notice, engine.up_time());
    let message = match sender {
        Sender::Community(community) => of(SEQUENCE, &[number(INTEGER, 1), octets(community), pdu]),
        Sender::User(user) => usm::message(user, engine, &pdu).map_err(Failure::never)?,
    };
    let mut last = None;
    for address in net::resolve(&snmp.server, Local::Allowed).await? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await.map_err(|error| Failure::again(error.to_string()))?;
        match socket.send_to(&message, address).await {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(format!("{address}: {error}")),
        }
    }
    Err(Failure::again(last.unwrap_or_default()))
}

/// The trap: what happened, in the objects of the MIB.
fn pdu(notice: &Notice, up_time: u32) -> Vec<u8> {
    let notification = match notice.state() {
        "fault" | "held_back" => 1,
        "recovery" => 2,
        "test" => 4,
        _ => 3,
    };
    let severity = match notice.severity() {
        Severity::Info => 1,
        Severity::Warning => 2,
        Severity::Critical => 3,
    };
    let under = |tail: &[u32]| [&LB_MIB[..10], tail].concat();
    let event = |object: u32| oid(&under(&[1, 1, object, 0]));
    let text = |text: &str| octets(&text.as_bytes()[..text.floor_char_boundary(MOST_TEXT)]);
    let line = notice.line();
    let event_number = u32::try_from(notice.number()).unwrap_or(u32::MAX);
    let bindings = [
        of(SEQUENCE, &[oid(&SYS_UP_TIME), number(TIME_TICKS, up_time)]),
        of(SEQUENCE, &[oid(&SNMP_TRAP_OID), oid(&under(&[0, notification]))]),
        of(SEQUENCE, &[event(1), text(notice.name())]),
        of(SEQUENCE, &[event(2), number(INTEGER, severity)]),
        of(SEQUENCE, &[event(3), text(notice.object())]),
        of(SEQUENCE, &[event(4), text(&line)]),
        of(SEQUENCE, &[event(5), number(UNSIGNED, event_number)]),
        of(SEQUENCE, &[event(6), text(&notice.machine)]),
    ];
    // A request id of its own is of no use to anybody: nothing comes back.
    let id = number(INTEGER, event_number & 0x7fff_ffff);
    of(TRAP, &[id, number(INTEGER, 0), number(INTEGER, 0), of(SEQUENCE, &bindings)])
}

/// Hundredths of a second since, as `TimeTicks` has them.
pub(in crate::alerts) fn ticks(since: Instant) -> u32 {
    // It starts anew after 497 days, as every one does.
    let hundredths = since.elapsed().as_millis() / 10;
    (hundredths & u128::from(u32::MAX)).try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{alerts::notice::tests::notice, control::event::Name};

    #[test]
    fn a_trap_says_what_happened() {
        let pdu = pdu(&notice(Name::NodeDown, &"x".repeat(400)), 7);
        assert_eq!(pdu[0], TRAP);
        let contains = |part: &[u8]| pdu.windows(part.len()).any(|window| window == part);
        assert!(contains(&number(TIME_TICKS, 7)));
        assert!(contains(&oid(&[1, 3, 6, 1, 4, 1, 8072, 9999, 9999, 3780, 0, 1])), "a fault");
        assert!(contains(&octets(b"node_down")) && contains(&octets(b"web/n1")) && contains(&octets(&[b'x'; 255])));
    }
}
