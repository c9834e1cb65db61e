//! Lines of a head: where they end, and that nothing stands in them that must not.

/// What stands in a line that must not: RFC 9110 §5.5, RFC 9112 §2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadByte {
    /// LF without CR.
    BareLf,
    /// CR without LF.
    BareCr,
    /// NUL, DEL or another control byte.
    Control,
}

/// How far a line was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It is not complete; all before this position was looked at.
    Partial(usize),
    /// It is complete.
    Complete {
        /// Where its text ends.
        end: usize,
        /// Where the next line begins.
        next: usize,
    },
}

/// Reads on in a line from `at`, which a former call returned as `Partial`, or where the line begins.
pub(super) fn line(buf: &[u8], mut at: usize, allow_bare_lf: bool) -> Result<Line, BadByte> {
    loop {
        at = next_control(buf, at);
        match buf.get(at) {
            None => return Ok(Line::Partial(at)),
            Some(b'\t') => at += 1,
            Some(b'\r') => {
                return match buf.get(at + 1) {
                    None => Ok(Line::Partial(at)),
                    Some(b'\n') => Ok(Line::Complete { end: at, next: at + 2 }),
                    Some(_) => Err(BadByte::BareCr),
                };
            }
            Some(b'\n') if allow_bare_lf => return Ok(Line::Complete { end: at, next: at + 1 }),
            Some(b'\n') => return Err(BadByte::BareLf),
            Some(_) => return Err(BadByte::Control),
        }
    }
}

/// The first control byte (0 to 0x1f, 0x7f) at or after `from`; the length of `buf` if there is none.
fn next_control(buf: &[u8], from: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let mut at = from.min(buf.len());
    // Eight bytes at a time: the subtractions borrow into a byte's high bit if it is below 0x20, or 0 after the XOR. They
    // may also do so in bytes after such a one, never before: the lowest bit set is right.
    while let Some(bytes) = buf[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*bytes);
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        let delete = word ^ (ONES * 0x7f);
        let hits = (below_space | delete.wrapping_sub(ONES) & !delete) & HIGH;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + buf[at..].iter().position(u8::is_ascii_control).unwrap_or(buf.len() - at)
}

/// Without the spaces and tabs at both ends (OWS, RFC 9110 §5.6.3).
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1), trimmed; empty ones are left out.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// What a byte may be in a field name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameByte {
    /// Not in a name.
    Bad,
    /// `tchar` of RFC 9110 §5.6.2, but `_`.
    Token,
    /// `_`: a `tchar`, but one that CGI and its heirs cannot tell from `-`.
    Underscore,
    /// The end of a name.
    Colon,
}

/// What each byte may be in a field name.
pub(super) const NAME_BYTES: [NameByte; 256] = {
    let mut table = [NameByte::Bad; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => NameByte::Token,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'`' | b'|' | b'~' => {
                NameByte::Token
            }
            b'_' => NameByte::Underscore,
            b':' => NameByte::Colon,
            _ => NameByte::Bad,
        };
        byte += 1;
    }
    table
};

/// Whether `text` is a token of RFC 9110 §5.6.2.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| matches!(NAME_BYTES[usize::from(*byte)], NameByte::Token | NameByte::Underscore))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bytes_are_found_wherever_they_stand() {
        for length in 0..40 {
            for at in 0..length {
                for byte in 0..=255_u8 {
                    for fill in [b'a', 0x80, 0xff, b' ', 0x7e] {
                        let mut text = vec![fill; length];
                        text[at] = byte;
                        let expected = if byte.is_ascii_control() { at } else { length };
                        assert_eq!(next_control(&text, 0), expected, "{byte} at {at} of {length}");
                    }
                }
            }
        }
        assert_eq!(next_control(b"\x01\x1f\x01a\x01aaaaaaa", 3), 4, "those before do not count");
    }

    #[test]
    fn lines_end_by_cr_lf() {
        let complete = |end, next| Ok(Line::Complete { end, next });
        let cases: [(&[u8], bool, Result<Line, BadByte>); 9] = [
            (b"ab\r\n", false, complete(2, 4)),
            (b"a\tb\r\n\r\n", false, complete(3, 5)),
            (b"ab\r", false, Ok(Line::Partial(2))),
            (b"ab", false, Ok(Line::Partial(2))),
            (b"ab\n", false, Err(BadByte::BareLf)),
            (b"ab\n", true, complete(2, 3)),
            (b"ab\rc", true, Err(BadByte::BareCr)),
            (b"a\0b\r\n", true, Err(BadByte::Control)),
            (b"a\x7fb\r\n", false, Err(BadByte::Control)),
        ];
        for (text, lenient, expected) in cases {
            assert_eq!(line(text, 0, lenient), expected, "{:?}", text.escape_ascii().to_string());
        }
    }

    #[test]
    fn lists_are_split_and_trimmed() {
        let elements: Vec<_> = list(b" a,b ,, \tc d\t,").collect();
        assert_eq!(elements, [b"a".as_slice(), b"b", b"c d"]);
        assert!(is_token(b"a_b-c!") && !is_token(b"") && !is_token(b"a b") && !is_token(b"a:") && !is_token(b"\xc3"));
    }
}
