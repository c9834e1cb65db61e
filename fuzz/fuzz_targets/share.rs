//! What machines tell each other of connections, and the frames around it.
#![no_main]

use lb_fuzz::{
    control::shared::{MAX_BYTES, Shared},
    failover::share,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (at, change, bytes) = input;
    share::stranger(bytes);
    share::frame(bytes, at.into(), change);
    let Some(all) = Shared::read_all(bytes) else { return };
    let mut written = Vec::new();
    for shared in &all {
        let before = written.len();
        shared.write(&mut written);
        assert!(written.len() - before <= MAX_BYTES, "{shared:?}");
    }
    assert_eq!(written, bytes, "there is one way to say it");
});
