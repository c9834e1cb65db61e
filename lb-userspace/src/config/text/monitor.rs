//! What monitors send and expect, as text. Pure.

use super::Text;
use crate::control::probe::{Bytes, Pattern, StatusRange};

/// A regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct PatternText(pub(in crate::config) Pattern);

/// Bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct BytesText(pub(in crate::config) Bytes);

/// A status, or the first and the last of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct StatusText(pub(in crate::config) StatusRange);

/// The most bytes that a step sends.
const MOST_BYTES: usize = 1400;

impl Text for PatternText {
    const FORMAT: &'static str = "pattern";
    const WHAT: &'static str = "a regular expression";
    const SHAPE: &'static str = "regular expression";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }

    fn write(&self) -> String {
        self.0.as_str().to_owned()
    }
}

impl Text for BytesText {
    const FORMAT: &'static str = "bytes";
    const WHAT: &'static str = "what can be sent";
    const SHAPE: &'static str = "text with escapes";

    fn read(text: &str) -> Result<Self, String> {
        let bytes: Bytes = text.parse()?;
        if bytes.0.len() > MOST_BYTES { Err(format!("longer than {MOST_BYTES} bytes")) } else { Ok(Self(bytes)) }
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

impl Text for StatusText {
    const FORMAT: &'static str = "statuses";
    const WHAT: &'static str = "an HTTP status or a range of them";
    const SHAPE: &'static str = "status or `\"first-last\"`";

    fn read(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| {
            let status = text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
            status.ok_or_else(|| format!("{:?} is not a status, 100 to 599", text.trim()))
        };
        let range = StatusRange(status(first)?, status(last)?);
        if range.0 > range.1 { Err("the first is greater than the last".to_owned()) } else { Ok(Self(range)) }
    }

    fn write(&self) -> String {
        let StatusRange(first, last) = self.0;
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    }
}
