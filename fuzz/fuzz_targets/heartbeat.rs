//! Heartbeats: those of strangers, and those that a machine with the key might send.
#![no_main]

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use lb_fuzz::failover::{
    election::MachineId,
    heartbeat::{Boot, Freshness, Heartbeat, Key, MAX_ENTRIES, Path, Refused},
};
use libfuzzer_sys::fuzz_target;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OWN: (MachineId, Boot) = (MachineId(1), Boot(11));
const WALL: u64 = 1_800_000_000_000;
const HEADER: usize = 48;

// Datagrams one after the other: how it comes, its length in sixteens, its content from the sender on.
fuzz_target!(|input: &[u8]| {
    let keys = [Key::new(7, SECRET)];
    assert!(Heartbeat::read(input, &keys).is_err(), "nobody signed it");
    let (mut freshness, start) = (Freshness::new(OWN.0, OWN.1), Instant::now());
    let mut rest = input;
    while let [by, entries, after @ ..] = rest {
        let length = (HEADER - 8 + 16 * usize::from(*entries)).min(after.len());
        let (content, next) = after.split_at(length);
        rest = next;
        let Ok(heartbeat) = Heartbeat::read(&signed(content), &keys) else { continue };
        if heartbeat.echoes.len() <= MAX_ENTRIES / 2 {
            let mut written = Vec::new();
            heartbeat.write(&keys[0], &mut written);
            assert_eq!(Heartbeat::read(&written, &keys).as_ref(), Ok(&heartbeat));
        }
        let path = Path { socket: usize::from(*by), from: SocketAddr::from((Ipv4Addr::LOCALHOST, 694)) };
        let accepted = freshness.accept(&heartbeat, path, start, WALL);
        assert!(accepted.is_err() || heartbeat.sender != OWN.0);
        let again = freshness.accept(&heartbeat, path, start, WALL);
        assert!(again.is_err(), "the same twice by one path");
        assert!(accepted.is_err() || again == Err(Refused::Stale));
        assert!(freshness.echoes(start, Duration::from_secs(1)).count() <= 48);
    }
});

/// What a machine with the key would send.
fn signed(content: &[u8]) -> Vec<u8> {
    let mut datagram = b"LBH1\x07\0".to_vec();
    datagram.extend(u16::try_from(8 + content.len() + 16).unwrap_or(u16::MAX).to_be_bytes());
    datagram.extend(content);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), &datagram);
    datagram.extend(&tag.as_ref()[..16]);
    datagram
}
