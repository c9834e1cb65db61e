//! Paths, normalised: one string for the rules and for the node, so that neither sees a path that the other does not.
//!
//! Pure. Called by both HTTP codecs before anything looks at a path.
//!
//! Normal is: dot segments resolved (RFC 3986 §5.2.4, and `..;x` is `..` as servlet containers read it), unreserved
//! characters decoded once, other escapes in upper case, what RFC 3986 lets not stand in a path escaped, several slashes
//! one slash by choice. `%25` stays as it is, so that nothing is ever decoded twice.

use std::borrow::Cow;

/// What is a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether `%2f`, `%5c` and `\` may stand in a path. They stay, or become, escapes; between them no dot segment may stand.
    pub allow_encoded_slash: bool,
    /// Whether several slashes in a row become one.
    pub merge_slashes: bool,
}

/// Why a path is refused. Each is answered 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with a slash.
    #[error("path without slash")]
    Relative,
    /// A space, a control byte, `#`, `?` or a byte above 0x7e.
    #[error("bad byte in path")]
    Byte,
    /// `%` without two hexadecimal digits.
    #[error("bad percent-encoding")]
    Escape,
    /// `%00`.
    #[error("NUL in path")]
    Nul,
    /// `%2f`, `%5c` or `\`.
    #[error("encoded slash in path")]
    EncodedSlash,
    /// A dot segment for whoever decodes `%2f`, `%5c` or `%3b` before splitting.
    #[error("hidden dot segment in path")]
    HiddenDots,
    /// UTF-8 longer than it need be, as `%c0%af` (RFC 3629 §3).
    #[error("overlong UTF-8 in path")]
    Overlong,
}

/// `path` in its normal form; borrowed if it is.
///
/// # Errors
///
/// [`BadPath`], where no form could be trusted to mean the same to everybody.
pub fn normalise(path: &[u8], policy: Policy) -> Result<Cow<'_, str>, BadPath> {
    if path.first() != Some(&b'/') {
        return Err(BadPath::Relative);
    }
    let normal = if is_normal(path) { None } else { Some(rebuild(path, policy)?) };
    match normal {
        Some(normal) if normal != path => Ok(Cow::Owned(String::from_utf8(normal).map_err(|_| BadPath::Byte)?)),
        _ => str::from_utf8(path).map(Cow::Borrowed).map_err(|_| BadPath::Byte),
    }
}

/// What a byte asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// May stand as it is, RFC 3986 §3.3 `pchar`.
    Plain,
    /// `/`.
    Slash,
    /// `.`: matters at the beginning of a segment.
    Dot,
    /// `%`.
    Percent,
    /// `\`.
    Backslash,
    /// A visible character that only stands in a path escaped.
    Escape,
    /// May not be in a path.
    Bad,
}

const CLASSES: [Class; 256] = {
    let mut table = [Class::Bad; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = match byte as u8 {
            b'/' => Class::Slash,
            b'.' => Class::Dot,
            b'%' => Class::Percent,
            b'\\' => Class::Backslash,
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Escape,
            b'#' | b'?' => Class::Bad,
            _ => Class::Plain,
        };
        byte += 1;
    }
    table
};

/// The quick check: whether `path` is surely normal, under any policy. Most paths are.
fn is_normal(path: &[u8]) -> bool {
    let mut after_slash = false;
    for byte in path {
        match CLASSES[usize::from(*byte)] {
            Class::Plain => after_slash = false,
            Class::Slash | Class::Dot if after_slash => return false,
            Class::Slash => after_slash = true,
            Class::Dot => {}
            Class::Percent | Class::Backslash | Class::Escape | Class::Bad => return false,
        }
    }
    true
}

/// The normal form, written anew.
fn rebuild(path: &[u8], policy: Policy) -> Result<Vec<u8>, BadPath> {
    let mut decoded = Vec::with_capacity(path.len() + 16);
    decode(&mut decoded, path, policy)?;
    let mut out = Vec::with_capacity(decoded.len());
    let mut segments = decoded.get(1..).unwrap_or_default().split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match dots(segment) {
            Some(Dots::Hidden) => return Err(BadPath::HiddenDots),
            Some(Dots::Two) => out.truncate(out.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            Some(Dots::One) => {}
            None if segment.is_empty() && policy.merge_slashes => {}
            None => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        if is_last {
            out.push(b'/');
        }
    }
    Ok(out)
}

/// Decodes what need not be escaped, escapes what must be, and refuses what must not be.
fn decode(out: &mut Vec<u8>, path: &[u8], policy: Policy) -> Result<(), BadPath> {
    let mut at = 0;
    while let Some(byte) = path.get(at).copied() {
        at += 1;
        match CLASSES[usize::from(byte)] {
            Class::Plain | Class::Slash | Class::Dot => out.push(byte),
            Class::Bad => return Err(BadPath::Byte),
            Class::Backslash if !policy.allow_encoded_slash => return Err(BadPath::EncodedSlash),
            Class::Backslash | Class::Escape => push_escape(out, byte),
            Class::Percent => {
                let value = escape(path, at - 1).ok_or(BadPath::Escape)?;
                match value {
                    0 => return Err(BadPath::Nul),
                    b'/' | b'\\' if !policy.allow_encoded_slash => return Err(BadPath::EncodedSlash),
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(value),
                    _ if is_overlong(value, escape(path, at + 2)) => return Err(BadPath::Overlong),
                    _ => push_escape(out, value),
                }
                at += 2;
            }
        }
    }
    Ok(())
}

/// The byte that the escape at `at` stands for.
fn escape(path: &[u8], at: usize) -> Option<u8> {
    let [b'%', high, low] = path.get(at..at + 3)? else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
}

/// Whether UTF-8 that begins so is longer than it need be. Latin-1, which also occurs, has no byte 0x80 to 0xbf after these
/// in any word.
fn is_overlong(lead: u8, next: Option<u8>) -> bool {
    match lead {
        0xc0 | 0xc1 => matches!(next, Some(0x80..=0xbf)),
        0xe0 => matches!(next, Some(0x80..=0x9f)),
        0xf0 => matches!(next, Some(0x80..=0x8f)),
        _ => false,
    }
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// A segment that means a place, not a name.
enum Dots {
    /// `.`
    One,
    /// `..`
    Two,
    /// One of them between encoded slashes, or before an encoded `;`: whoever decodes these would leave the path.
    Hidden,
}

/// Which dot segment a decoded segment is; parameters after `;` do not make it another.
fn dots(segment: &[u8]) -> Option<Dots> {
    let name = |part: &[u8]| match part.split(|byte| *byte == b';').next() {
        Some(b".") => Some(Dots::One),
        Some(b"..") => Some(Dots::Two),
        _ => None,
    };
    if let plain @ Some(_) = name(segment) {
        return plain;
    }
    let mut rest = segment;
    let mut is_hidden = false;
    while let Some(at) = rest.windows(3).position(|bytes| matches!(bytes, b"%2F" | b"%5C" | b"%3B")) {
        is_hidden |= name(&rest[..at]).is_some();
        rest = &rest[at + 3..];
    }
    (is_hidden || name(rest).is_some()).then_some(Dots::Hidden)
}

#[cfg(test)]
mod tests;
