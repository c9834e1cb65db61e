//! What BGP neighbours say: see `lb_fuzz::failover::bgp`.
#![no_main]

use libfuzzer_sys::fuzz_target;

// Whether it is another autonomous system; then type, length, body of each message, of which all but the first five types are bytes
// as they are.
fuzz_target!(|input: &[u8]| {
    let Some((peer, mut rest)) = input.split_first() else { return };
    let mut pieces = Vec::new();
    while let [kind, length, after @ ..] = rest {
        let (body, next) = after.split_at(after.len().min(usize::from(*length)));
        let mut piece = Vec::new();
        if (1..=5).contains(kind) {
            let length = u16::try_from(19 + body.len()).expect("a body is short");
            piece.extend([0xff; 16]);
            piece.extend(length.to_be_bytes());
            piece.push(*kind);
        }
        piece.extend(body);
        pieces.push(piece);
        rest = next;
    }
    lb_fuzz::failover::bgp::heard(if peer & 1 == 1 { 65_000 } else { 65_001 }, &pieces);
});
