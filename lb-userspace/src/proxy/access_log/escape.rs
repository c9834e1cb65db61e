//! Texts of requests in log lines: nothing in them can end a line, a quoted text or a JSON string (H18), and what was
//! logged can be read back.

/// A longer text is cut there, and `...` stands for the rest.
pub(super) const MAX_FIELD: usize = 4096;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends a text for lines of text: `"`, `\`, control characters and what is not ASCII as `\xNN`, byte by byte.
pub(super) fn text(value: &str, out: &mut Vec<u8>) {
    escape(
        value,
        out,
        |byte| !(0x20..0x7f).contains(&byte) || byte == b'"' || byte == b'\\',
        |byte, out| {
            out.extend([b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        },
    );
}

/// Appends the inside of a JSON string (RFC 8259 §7).
pub(super) fn json(value: &str, out: &mut Vec<u8>) {
    escape(
        value,
        out,
        |byte| byte < 0x20 || byte == 0x7f || byte == b'"' || byte == b'\\',
        |byte, out| match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            _ => {
                out.extend(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        },
    );
}

fn escape(value: &str, out: &mut Vec<u8>, special: impl Fn(u8) -> bool, put: impl Fn(u8, &mut Vec<u8>)) {
    let (value, rest) = if value.len() > MAX_FIELD { (cut(value), "...") } else { (value, "") };
    let mut bytes = value.as_bytes();
    while let Some(at) = bytes.iter().position(|byte| special(*byte)) {
        out.extend_from_slice(&bytes[..at]);
        put(bytes[at], out);
        bytes = &bytes[at + 1..];
    }
    out.extend_from_slice(bytes);
    out.extend_from_slice(rest.as_bytes());
}

fn cut(value: &str) -> &str {
    let end = (0..=MAX_FIELD).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
    &value[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unescape(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text;
        while let [byte, tail @ ..] = rest {
            if let (b'\\', [b'x', high, low, after @ ..]) = (byte, tail) {
                let hex = std::str::from_utf8(&[*high, *low]).map(|hex| u8::from_str_radix(hex, 16).unwrap()).unwrap();
                out.push(hex);
                rest = after;
            } else {
                out.push(*byte);
                rest = tail;
            }
        }
        out
    }

    proptest! {
        #[test]
        fn texts_are_one_quoted_word_and_can_be_read_back(value in "\\PC*|[\\x00-\\x7f]*") {
            let mut out = Vec::new();
            text(&value, &mut out);
            prop_assert!(out.iter().all(|byte| (0x20..0x7f).contains(byte) && *byte != b'"'));
            prop_assert_eq!(unescape(&out), value.as_bytes());
        }

        #[test]
        fn json_strings_are_read_back_by_a_parser(value in "\\PC*|[\\x00-\\x7f\u{80}-\u{ffff}]*") {
            let mut out = vec![b'"'];
            json(&value, &mut out);
            out.push(b'"');
            prop_assert!(out.iter().all(|byte| *byte >= 0x20 && *byte != 0x7f));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), value);
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = format!("{}é{}", "a".repeat(MAX_FIELD - 1), "b".repeat(100));
        let mut out = Vec::new();
        json(&long, &mut out);
        assert_eq!(out, format!("{}...", "a".repeat(MAX_FIELD - 1)).as_bytes());
        let mut out = Vec::new();
        text(&"a".repeat(MAX_FIELD), &mut out);
        assert_eq!(out.len(), MAX_FIELD);
    }
}
