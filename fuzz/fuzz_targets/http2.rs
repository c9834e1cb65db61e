//! HPACK and requests over HTTP/2, differentially: see `lb_fuzz::proxy::http2`.
#![no_main]

use libfuzzer_sys::fuzz_target;

// Blocks one after the other: whether the request ends with its head, the block's length, the block.
fuzz_target!(|input: &[u8]| {
    let (mut rest, mut blocks) = (input, Vec::new());
    while let [ends, length, after @ ..] = rest {
        let (block, next) = after.split_at(after.len().min(usize::from(*length)));
        blocks.push((ends & 1 == 1, block));
        rest = next;
    }
    lb_fuzz::proxy::http2::blocks(&blocks);
});
