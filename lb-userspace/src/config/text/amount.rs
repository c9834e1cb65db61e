//! Amounts: bytes, events per second, bytes per second. Pure.

use super::Text;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Size(pub(in crate::config) u64);

/// Events per second, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Rate(pub(in crate::config) u32);

/// Bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct ByteRate(pub(in crate::config) u64);

/// Units of sizes, the greatest first, as they are written.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Text for Size {
    const FORMAT: &'static str = "size";
    const WHAT: &'static str = "a size";
    const SHAPE: &'static str = "size";

    fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = (&text[..digits], text[digits..].trim());
        if unit.is_empty() && !number.is_empty() {
            return Err("has no unit".to_owned());
        }
        let number: u64 = number.parse().map_err(|_| "not understood".to_owned())?;
        let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let (_, factor) = known.ok_or_else(|| format!("{unit:?} is not a unit: B, kB, KiB, MB, MiB, GB, GiB"))?;
        number.checked_mul(*factor).map(Self).ok_or_else(|| "too large".to_owned())
    }

    fn write(&self) -> String {
        let fits = |(_, factor): &&(&str, u64)| self.0.is_multiple_of(*factor) && self.0 >= *factor;
        let (unit, factor) = UNITS.iter().find(fits).unwrap_or(&("B", 1));
        format!("{}{unit}", self.0 / factor)
    }
}

impl Text for Rate {
    const FORMAT: &'static str = "rate";
    const WHAT: &'static str = "a rate";
    const SHAPE: &'static str = "rate";

    fn read(text: &str) -> Result<Self, String> {
        let Some(number) = text.trim().strip_suffix("/s") else { return Err("does not end in /s".to_owned()) };
        let rate = number.trim().parse::<u32>().ok().filter(|rate| *rate > 0);
        rate.map(Self).ok_or_else(|| "not a whole number of at least 1 per second".to_owned())
    }

    fn write(&self) -> String {
        format!("{}/s", self.0)
    }
}

impl Text for ByteRate {
    const FORMAT: &'static str = "byte-rate";
    const WHAT: &'static str = "a rate of bytes";
    const SHAPE: &'static str = "size per second";

    fn read(text: &str) -> Result<Self, String> {
        let Some(size) = text.trim().strip_suffix("/s") else { return Err("does not end in /s".to_owned()) };
        Size::read(size).map(|size| Self(size.0))
    }

    fn write(&self) -> String {
        format!("{}/s", Size(self.0).write())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written() {
        let sizes = [
            ("64KiB", 65_536, "64KiB"),
            ("10 mib", 10 << 20, "10MiB"),
            ("1500B", 1500, "1500B"),
            ("2MB", 2_000_000, "2MB"),
        ];
        for (text, bytes, shown) in sizes {
            assert_eq!(Size::read(text), Ok(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).write(), shown);
            assert_eq!(ByteRate::read(&format!("{text}/s")), Ok(ByteRate(bytes)));
        }
        for wrong in ["64", "KiB", "", "-1B", "1.5MiB", "1TiB", "99999999999999999999B", "99999999999GiB"] {
            assert!(Size::read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Rate::read("100/s"), Ok(Rate(100)));
        for wrong in ["100", "0/s", "1.5/s", "100/m", "/s"] {
            assert!(Rate::read(wrong).is_err(), "{wrong}");
        }
    }
}
