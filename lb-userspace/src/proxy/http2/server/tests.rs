//! Frames at random: no panic, and wherever reads cut them, the same is answered.

use super::*;
use crate::proxy::http2::frame::{self, HEADER};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % most
    }

    fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

/// A client's bytes: mostly right, so that they come far.
fn conversation(random: &mut Random) -> Vec<u8> {
    const GET: &[u8] = b"\x82\x86\x84\x41\x01a";
    const POST: &[u8] = b"\x83\x86\x84\x41\x01a\x0f\x0d\x011";
    let mut bytes = PREFACE.to_vec();
    frame::write_settings(&mut bytes, &[]);
    let mut next = 1;
    for _ in 0..random.below(30) {
        let old = random.below(next as usize / 2 + 1) as u32 * 2 + 1;
        match random.below(40) {
            0..=17 => {
                let block = random.pick(&[GET, POST, GET, POST, b"\x82", b"\x40\x01x\x01y", b""]);
                let flags = random.pick(&[&5_u8, &4, &5, &4, &5, &4, &4, &1, &0x25]);
                frame::write(&mut bytes, frame::kind::HEADERS, *flags, next, block);
                next += 2;
            }
            18..=27 => {
                let data = vec![0; random.below(40)];
                frame::write(&mut bytes, frame::kind::DATA, *random.pick(&[&0_u8, &1, &8, &9]), old, &data);
            }
            28..=30 => frame::write_reset(&mut bytes, old, Code::Cancel),
            31..=34 => frame::write_window(&mut bytes, old, random.below(1 << 31) as u32),
            35..=37 => frame::write_settings(&mut bytes, &[(random.below(7) as u16, random.below(1 << 20) as u32)]),
            38 => frame::write(&mut bytes, frame::kind::CONTINUATION, *random.pick(&[&0_u8, &4]), old, GET),
            _ => {
                let payload: Vec<u8> = (0..random.below(12)).map(|_| random.below(256) as u8).collect();
                frame::write(&mut bytes, random.below(11) as u8, random.below(256) as u8, old, &payload);
            }
        }
    }
    bytes
}

/// What a connection says to bytes that come in parts of `size`, as its driver reads them.
fn answered(bytes: &[u8], size: usize) -> (Vec<u8>, Option<Code>, usize) {
    let mut core = Core::new(16_384, 1);
    let mut input = Vec::new();
    for part in bytes.chunks(size) {
        input.extend_from_slice(part);
        let (taken, result) = core.read(&input);
        assert!(taken <= input.len());
        input.drain(..taken);
        if let Err(code) = result {
            return (core.out, Some(code), core.exchanges);
        }
        assert!(input.is_empty() || core.reading.wants(&input) > input.len(), "it would wait for ever");
        assert!(input.len() < HEADER + frame::MAX_PAYLOAD);
    }
    (core.out, None, core.exchanges)
}

#[test]
fn frames_at_random_are_answered_alike_however_they_are_cut() {
    reactor::run(async {
        let mut served = 0;
        for seed in 1..4000_u64 {
            let bytes = conversation(&mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            let whole = answered(&bytes, bytes.len());
            served += whole.2;
            for size in [1, 7, 23] {
                assert_eq!(answered(&bytes, size), whole, "seed {seed}, in parts of {size}");
            }
        }
        assert!(served > 1000, "they come far: {served} requests");
    })
    .unwrap();
}

#[test]
fn fields_on_streams_that_are_gone_do_not_pay_for_resets() {
    const POST: &[u8] = b"\x83\x86\x84\x41\x01a";
    let mut bytes = PREFACE.to_vec();
    frame::write_settings(&mut bytes, &[]);
    for request in 0..2000 {
        let stream = request * 2 + 1;
        frame::write(&mut bytes, frame::kind::HEADERS, 4, stream, POST);
        frame::write(&mut bytes, frame::kind::HEADERS, 5, stream, b"\x40\x01x\x01y");
        frame::write_reset(&mut bytes, stream, Code::Cancel);
    }
    reactor::run(async move {
        let mut core = Core::new(16_384, reactor::now_ms());
        let (_, result) = core.read(&bytes);
        assert_eq!(result, Err(Code::EnhanceYourCalm));
    })
    .unwrap();
}
