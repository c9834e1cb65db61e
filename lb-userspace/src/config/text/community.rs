//! BGP communities as text. Pure.

use super::Text;
use crate::config::bgp::Community;

/// A community.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct CommunityText(pub(in crate::config) Community);

impl Text for CommunityText {
    const FORMAT: &'static str = "community";
    const WHAT: &'static str = "a community";
    const SHAPE: &'static str = "`\"number:number\"` or `\"number:number:number\"`";

    fn read(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let plain = |part: &str| part.parse::<u16>().map_err(|_| format!("{part:?} is not 0 to 65535"));
        let large = |part: &str| part.parse::<u32>().map_err(|_| format!("{part:?} is not 0 to 4294967295"));
        match parts[..] {
            [a, b] => Ok(Self(Community::Plain(plain(a)?, plain(b)?))),
            [a, b, c] => Ok(Self(Community::Large(large(a)?, large(b)?, large(c)?))),
            _ => Err("not two or three numbers with colons between".to_owned()),
        }
    }

    fn write(&self) -> String {
        match self.0 {
            Community::Plain(a, b) => format!("{a}:{b}"),
            Community::Large(a, b, c) => format!("{a}:{b}:{c}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_have_two_or_three_numbers() {
        for text in ["65001:100", "0:0", "4200000000:1:2"] {
            assert_eq!(CommunityText::read(text).unwrap().write(), text);
        }
        for wrong in ["65001", "65536:1", "1:2:3:4", "a:b", "1:", "", "-1:2", "1:4294967296:2"] {
            assert!(CommunityText::read(wrong).is_err(), "{wrong}");
        }
    }
}
