//! Header fields, and what requests and responses share about them: lines, lengths, codings, options of the connection.

use std::borrow::Cow;

use super::{
    Known, KnownSet,
    scan::{self, NAME_BYTES, NameByte},
    slots::{Slot, Slots, Span},
};

/// A header field in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as it came: a token.
    pub name: &'a [u8],
    /// The value without spaces around it: no control byte but tabs; bytes above 0x7f may be in it.
    pub value: &'a [u8],
    /// Which name it is.
    pub known: Known,
    /// Whether `Connection` names it: then it goes no further.
    pub listed: bool,
}

/// Options of `Connection` that a head may have: more than this are no honest ones, and each is compared to all fields.
const MAX_OPTIONS: u32 = 32;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadField {
    /// A line folded onto the one before (obs-fold, RFC 9112 §5.2).
    Fold,
    /// No colon, no name, or a byte that no name has.
    Name,
    /// `Connection` has more than `MAX_OPTIONS`.
    Options,
}

/// What `Connection` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Fields are listed.
    pub(super) lists: bool,
    count: u32,
}

impl Options {
    /// Takes in one `Connection` field.
    pub(super) fn add(&mut self, value: &[u8]) -> Result<(), BadField> {
        for option in scan::list(value) {
            self.count += 1;
            if self.count > MAX_OPTIONS {
                return Err(BadField::Options);
            }
            if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.lists = true;
            }
        }
        Ok(())
    }
}

/// Reads the field line from `start` to `end`, and keeps it unless its name has a `_` and may not.
pub(super) fn line(
    slots: &mut Slots,
    buf: &[u8],
    (start, end): (usize, usize),
    allow_underscore: bool,
) -> Result<Option<Slot>, BadField> {
    let text = &buf[start..end];
    if matches!(text, [b' ' | b'\t', ..]) {
        return Err(BadField::Fold);
    }
    let mut has_underscore = false;
    let mut length = 0;
    for byte in text {
        match NAME_BYTES[usize::from(*byte)] {
            NameByte::Token => {}
            NameByte::Underscore => has_underscore = true,
            NameByte::Colon => break,
            NameByte::Bad => return Err(BadField::Name),
        }
        length += 1;
    }
    if length == 0 || length == text.len() {
        return Err(BadField::Name);
    }
    if has_underscore && (!allow_underscore || is_twin(&text[..length])) {
        return Ok(None);
    }
    let value = &text[length + 1..];
    let before = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let value = Span::at(start + length + 1 + before, scan::trim(&value[before..]));
    let slot = Slot { name: Span::new(start, start + length), value, known: Known::of(&text[..length]), listed: false };
    slots.fields.push(slot);
    Ok(Some(slot))
}

/// Whether a name with `_` would, where `_` and `-` are one, pass for a field that only the proxy may write.
fn is_twin(name: &[u8]) -> bool {
    const LONGEST: usize = 32;
    let mut buf = [0; LONGEST];
    let Some(twin) = buf.get_mut(..name.len()) else { return false };
    for (to, from) in twin.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    KnownSet::NEVER_COPIED.union(KnownSet::OF_CLIENT).contains(Known::of(twin))
}

/// The value of `Content-Length`: digits and nothing else, RFC 9110 §8.6. `None` where it is not, or above `u64::MAX`.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// All values of the fields named `name` (lower case), joined as RFC 9110 §5.3 and RFC 9113 §8.2.3 do. Borrowed if there
/// is one and it is UTF-8; what is not UTF-8 is replaced by U+FFFD. `seen` has the known names among the fields.
pub(super) fn joined<'a>(seen: KnownSet, fields: impl Iterator<Item = Field<'a>>, name: &str) -> Option<Cow<'a, str>> {
    let known = Known::of(name.as_bytes());
    if known != Known::Other && !seen.contains(known) {
        return None;
    }
    let mut values = fields
        .filter(|field| field.known == known)
        .filter(|field| known != Known::Other || field.name.eq_ignore_ascii_case(name.as_bytes()))
        .map(|field| String::from_utf8_lossy(field.value));
    let mut all = values.next()?;
    let separator = if known == Known::Cookie { "; " } else { ", " };
    for value in values {
        let text = all.to_mut();
        text.push_str(separator);
        text.push_str(&value);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::content_length;

    #[test]
    fn lengths_are_digits() {
        let cases: [(&str, Option<u64>); 13] = [
            ("0", Some(0)),
            ("5", Some(5)),
            ("005", Some(5)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999999999999", None),
            ("", None),
            ("+5", None),
            ("-5", None),
            ("0x5", None),
            ("5_0", None),
            ("5, 5", None),
            ("5 ", None),
        ];
        for (text, expected) in cases {
            assert_eq!(content_length(text.as_bytes()), expected, "{text:?}");
        }
    }
}
