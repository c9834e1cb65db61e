//! Echo requests and answers, byte by byte.

use super::*;

const TOKEN: Token = *b"0123456789abcdef";
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const NODE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x11);

fn ipv4(message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet[0] = 0x45;
    packet[9] = ICMP;
    packet[16..20].copy_from_slice(&NODE.octets());
    packet.extend_from_slice(message);
    packet
}

fn ipv6(message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; IPV6_HEADER];
    packet[0] = 0x60;
    packet[6] = ICMPV6;
    packet[24..40].copy_from_slice(&NODE6.octets());
    packet.extend_from_slice(message);
    packet
}

fn with_type(mut message: [u8; REQUEST], kind: u8) -> [u8; REQUEST] {
    message[0] = kind;
    message
}

fn unreachable(kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(quoted);
    message
}

#[test]
fn requests_are_these_bytes() {
    // The checksum was computed by another implementation (Python, RFC 1071).
    assert_eq!(request(false, 0x1234, 0x5678, TOKEN)[..8], [8, 0, 0x60, 0x1c, 0x12, 0x34, 0x56, 0x78]);
    assert_eq!(request(true, 0x1234, 0x5678, TOKEN)[..8], [128, 0, 0, 0, 0x12, 0x34, 0x56, 0x78]);
    assert_eq!(request(true, 0x1234, 0x5678, TOKEN)[8..], TOKEN);
}

#[test]
fn answers_are_recognised() {
    let asked = request(false, 7, 9, TOKEN);
    let asked6 = request(true, 7, 9, TOKEN);
    let answer = Answer { identifier: 7, sequence: 9, token: TOKEN, quoted: None, unreachable: None };
    let gone = |quoted, why| Some(Answer { quoted: Some(quoted), unreachable: Some(why), ..answer });
    let reply = ipv4(&with_type(asked, ECHO_REPLY));
    let reply6 = with_type(asked6, ECHO_REPLY6);
    assert_eq!(answer4(&reply), Some(answer));
    assert_eq!(answer6(&reply6), Some(answer));
    let no_host = ipv4(&unreachable(UNREACHABLE, 1, &ipv4(&asked)));
    let no_host6 = unreachable(UNREACHABLE6, 3, &ipv6(&asked6));
    assert_eq!(answer4(&no_host), gone(NODE.into(), "no route to host"));
    assert_eq!(answer6(&no_host6), gone(NODE6.into(), "no route to host"));

    assert_eq!(answer4(&ipv4(&asked)), None, "a request, as loopback shows it");
    assert_eq!(answer6(&asked6), None, "a request");
    assert_eq!(answer4(&ipv4(&unreachable(UNREACHABLE, 1, &reply))), None, "quotes a reply");
    assert_eq!(answer4(&ipv4(&unreachable(11, 0, &ipv4(&asked)))), None, "time exceeded: may yet arrive");
    let mut udp = reply.clone();
    udp[9] = 17;
    assert_eq!(answer4(&udp), None, "not ICMP");
}

#[test]
fn no_truncation_panics_or_passes() {
    let asked = request(false, 7, 9, TOKEN);
    let asked6 = request(true, 7, 9, TOKEN);
    for whole in [ipv4(&with_type(asked, ECHO_REPLY)), ipv4(&unreachable(UNREACHABLE, 1, &ipv4(&asked)))] {
        assert!(answer4(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(answer4(&whole[..length]), None, "{length} bytes");
        }
    }
    for whole in [with_type(asked6, ECHO_REPLY6).to_vec(), unreachable(UNREACHABLE6, 3, &ipv6(&asked6))] {
        assert!(answer6(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(answer6(&whole[..length]), None, "{length} bytes");
        }
    }
}
