//! Paths: what is normal stays so, and nothing in it leads up.
#![no_main]

use lb_fuzz::proxy::path::{Policy, normalise};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (allow_encoded_slash, merge_slashes, path) = input;
    let policy = Policy { allow_encoded_slash, merge_slashes };
    let Ok(normal) = normalise(path, policy) else { return };
    let again = normalise(normal.as_bytes(), policy);
    assert_eq!(again.as_deref(), Ok(&*normal), "normal forms are normal");
    assert!(normal.starts_with('/') && normal.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!merge_slashes || !normal.contains("//"), "{normal}");
    // As a node that decodes once sees it, in the widest reading of a separator and of parameters.
    let decoded = decode(normal.as_bytes());
    assert!(!decoded.contains(&0));
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        assert!(name != b"." && name != b"..", "{normal}");
    }
    assert!(allow_encoded_slash || decoded.iter().filter(|byte| **byte == b'/').count() == normal.matches('/').count());
});

/// Percent-decoding, written apart from the one under test.
fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let pair = after.get(..2).and_then(|pair| str::from_utf8(pair).ok());
        match pair.filter(|_| *first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}
