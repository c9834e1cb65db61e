//! Authorities: the value of `Host`, and that of a target in absolute form.

use std::{borrow::Cow, net::Ipv6Addr};

/// Longest name of a host, RFC 1035 §2.3.4.
const MAX_NAME: usize = 255;

/// Whether `text` is `name`, `IPv4` or `[IPv6]`, with or without `:port`.
///
/// Narrower than RFC 3986 §3.2.2: no percent-encoding, no `sub-delims` (a list of hosts is no host), no empty label, no
/// empty port, and no user information.
pub(crate) fn is_valid(text: &[u8]) -> bool {
    let (name, port) = split(text);
    let port_is_valid = match port {
        None => true,
        Some(port) => {
            (1..=5).contains(&port.len())
                && port.iter().all(u8::is_ascii_digit)
                && port.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')) <= 65535
        }
    };
    port_is_valid && if name.starts_with(b"[") { is_ipv6_literal(name) } else { is_name(name) }
}

/// The name without port, lower case, and without the dot that stands for the root of the DNS.
pub(crate) fn name(authority: &str) -> Cow<'_, str> {
    let name = split(authority.as_bytes()).0;
    let name = authority.get(..name.len()).unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// Name and port.
fn split(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    // The colons of an IPv6 address stand in brackets.
    let from = text.iter().position(|byte| *byte == b']').unwrap_or(0);
    match text[from..].iter().position(|byte| *byte == b':') {
        None => (text, None),
        Some(colon) => (&text[..from + colon], Some(&text[from + colon + 1..])),
    }
}

fn is_ipv6_literal(name: &[u8]) -> bool {
    let inner = name.strip_prefix(b"[").and_then(|name| name.strip_suffix(b"]"));
    inner.and_then(|inner| str::from_utf8(inner).ok()).is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
}

fn is_name(name: &[u8]) -> bool {
    let labels = name.strip_suffix(b".").unwrap_or(name);
    // `true` before the first byte: an empty label at the beginning.
    let mut after_dot = true;
    for byte in labels {
        match byte {
            b'.' if after_dot => return false,
            b'.' => after_dot = true,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => after_dot = false,
            _ => return false,
        }
    }
    !after_dot && name.len() <= MAX_NAME
}

#[cfg(test)]
mod tests {
    use super::{is_valid, name};

    #[test]
    fn hosts_are_valid_or_not() {
        let long = format!("{}a", "a.".repeat(127));
        let longer = format!("{long}a");
        let valid = [
            "a",
            "a.b",
            "A-1.b_c",
            "a.b.",
            "127.0.0.1",
            "[::1]",
            "[::ffff:1.2.3.4]:80",
            "a:0",
            "a:65535",
            "a:080",
            &long,
        ];
        for text in valid {
            assert!(is_valid(text.as_bytes()), "{text}");
        }
        let invalid = [
            "",
            ".",
            "..",
            ".a",
            "a..b",
            "a..",
            "a:",
            "a:65536",
            "a:x",
            "a:-1",
            "a:+1",
            "a:000080",
            "a:1:2",
            ":80",
            "a b",
            "a,b",
            "a, b",
            "a/b@c",
            "u@a",
            "a%41",
            "a/b",
            "a?b",
            "a#b",
            "é",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:",
            "[fe80::1%25eth0]",
            "[v1.a]",
            "[]",
            "a]",
            "a]:80",
            "[127.0.0.1]",
            "a\\b",
            "a'b",
            "a;b",
            "a\"",
            "a\tb",
            &longer,
        ];
        for text in invalid {
            assert!(!is_valid(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn names_are_lower_case_without_port_and_root() {
        let cases = [
            ("a.b", "a.b"),
            ("A.b:80", "a.b"),
            ("a.B.", "a.b"),
            ("a.:1", "a"),
            ("[::AB]:80", "[::ab]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ];
        for (authority, expected) in cases {
            assert_eq!(name(authority), expected);
        }
    }
}
