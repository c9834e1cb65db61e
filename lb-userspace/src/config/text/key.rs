//! What requests are told apart by, as it is written: `"client_address"`, `"client_address/24/56"`, `"header:X-Api-Key"`,
//! `"cookie:sid"`, `"query:user"`, `"path"`, `"host"`. Pure.

use super::Text;
use crate::control::proxy::pool::Key;

/// A key, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct KeyText(pub(in crate::config) Key);

impl Text for KeyText {
    const FORMAT: &'static str = "key";
    const WHAT: &'static str = "what requests are told apart by";
    const SHAPE: &'static str = "key, see above";

    fn read(text: &str) -> Result<Self, String> {
        if let Some(prefixes) = text.strip_prefix("client_address") {
            return address(prefixes).map(Self);
        }
        match text.split_once(':') {
            None if text == "path" => Ok(Self(Key::Path)),
            None if text == "host" => Ok(Self(Key::Host)),
            Some(("header", name)) if is_token(name) => Ok(Self(Key::Header(name.to_ascii_lowercase()))),
            Some(("cookie", name)) if is_token(name) => Ok(Self(Key::Cookie(name.to_owned()))),
            Some(("query", name)) if !name.is_empty() => Ok(Self(Key::Query(name.to_owned()))),
            Some(("header" | "cookie" | "query", name)) => Err(format!("{name:?} is not a name")),
            None | Some(_) => Err("not known".to_owned()),
        }
    }

    fn write(&self) -> String {
        match &self.0 {
            Key::ClientAddress { prefix4: 32, prefix6: 128 } => "client_address".to_owned(),
            Key::ClientAddress { prefix4, prefix6 } => format!("client_address/{prefix4}/{prefix6}"),
            Key::Header(name) => format!("header:{name}"),
            Key::Cookie(name) => format!("cookie:{name}"),
            Key::Query(name) => format!("query:{name}"),
            Key::Path => "path".to_owned(),
            Key::Host => "host".to_owned(),
        }
    }
}

/// `""`, `"/24"` or `"/24/56"`.
fn address(prefixes: &str) -> Result<Key, String> {
    let mut parts = prefixes.split('/');
    if parts.next() != Some("") {
        return Err("not known".to_owned());
    }
    let mut prefix = |most: u8| match parts.next() {
        None => Ok(most),
        Some(bits) => (bits.parse::<u8>().ok().filter(|bits| (1..=most).contains(bits)))
            .ok_or_else(|| format!("{bits:?} is not a prefix length, 1 to {most}")),
    };
    let (prefix4, prefix6) = (prefix(32)?, prefix(128)?);
    if parts.next().is_some() {
        Err("has a third prefix length".to_owned())
    } else {
        Ok(Key::ClientAddress { prefix4, prefix6 })
    }
}

/// A token of RFC 9110 §5.6.2: names of header fields and cookies.
pub(in crate::config) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_written() {
        for text in ["client_address", "client_address/24/56", "header:x-key", "cookie:Sid", "query:u", "path", "host"]
        {
            assert_eq!(KeyText::read(text).unwrap().write(), text);
        }
        let half = Key::ClientAddress { prefix4: 24, prefix6: 128 };
        assert_eq!(KeyText::read("client_address/24"), Ok(KeyText(half)));
        for wrong in [
            "",
            "client",
            "client_address24",
            "client_address/33",
            "client_address/1/2/3",
            "header:",
            "header:a b",
            "url",
        ] {
            assert!(KeyText::read(wrong).is_err(), "{wrong}");
        }
    }
}
