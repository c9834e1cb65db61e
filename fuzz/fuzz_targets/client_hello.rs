//! ClientHellos: parts are incomplete or refused, how records are cut does not matter, and names are names.
#![no_main]

use lb_fuzz::proxy::client_hello::{MAX_WIRE, peek};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let whole = peek(bytes);
    let step = 1 + bytes.len() / 64;
    for length in (0..bytes.len()).step_by(step) {
        let part = peek(&bytes[..length]);
        assert!(part == Ok(None) || part == whole, "at {length}");
    }
    if whole == Ok(None) {
        assert!(bytes.len() < MAX_WIRE, "it must know by then");
    }
    check(&whole);
    // The same bytes as a message, in one record and in several.
    let size = 300 + usize::from(size);
    let message = &bytes[..bytes.len().min(16_000)];
    if !message.is_empty() {
        let (one, several) = (peek(&records(message, 1 << 14)), peek(&records(message, size)));
        assert_eq!(one, several);
        check(&one);
    }
});

fn check(result: &Result<Option<lb_fuzz::proxy::client_hello::ClientHello>, lb_fuzz::proxy::client_hello::BadHello>) {
    let Ok(Some(hello)) = result else { return };
    if let Some(name) = &hello.server_name {
        assert!(!name.is_empty() && name.len() <= 253 && !name.starts_with('.') && !name.ends_with('.'));
        assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')));
    }
    assert!(hello.protocols.iter().all(|name| !name.is_empty()));
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1], (part.len() as u16).to_be_bytes().as_slice(), part].concat();
    message.chunks(size).flat_map(record).collect()
}
