//! Parameters of a query: `a=1&b=%20`, as `application/x-www-form-urlencoded` reads it.

use std::borrow::Cow;

/// The first parameter of that name, percent-decoded, `+` as space. A name without `=` has an empty value. What is not UTF-8
/// after decoding is shown with U+FFFD: no test on a well-formed text can be fooled by it.
#[must_use]
pub fn parameter<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Cow::Borrowed(text);
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        match (byte, ahead.next().and_then(hex_digit), ahead.next().and_then(hex_digit)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                bytes = ahead;
            }
            (b'+', ..) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
    }
    Cow::Owned(
        String::from_utf8(decoded).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    )
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::parameter;

    #[test]
    fn parameters_are_found_and_decoded() {
        let cases = [
            ("a=1&b=2", "b", Some("2")),
            ("a=1&a=2", "a", Some("1")),
            ("a", "a", Some("")),
            ("a=", "a", Some("")),
            ("ab=1", "a", None),
            ("", "a", None),
            ("a=x%20y+z", "a", Some("x y z")),
            ("%61=1", "a", Some("1")),
            ("a=%4", "a", Some("%4")),
            ("a=%zz", "a", Some("%zz")),
            ("a=%0d%0a", "a", Some("\r\n")),
            ("a=%ff", "a", Some("\u{fffd}")),
            ("a=1=2", "a", Some("1=2")),
        ];
        for (query, name, expected) in cases {
            assert_eq!(parameter(query, name).as_deref(), expected, "{name} of {query}");
        }
    }
}
