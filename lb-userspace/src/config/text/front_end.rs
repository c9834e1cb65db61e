//! Whom a machine asks whether it still reaches its clients. Pure.

use std::net::IpAddr;

use super::Text;
use crate::config::cluster::FrontEnd;

/// What stands for the gateway of the default route.
const GATEWAY: &str = "%gateway%";

/// An address, or the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct FrontEndText(pub(in crate::config) FrontEnd);

impl Text for FrontEndText {
    const FORMAT: &'static str = "front-end";
    const WHAT: &'static str = "an address to ask";
    const SHAPE: &'static str = "`\"IP\"` or `\"%gateway%\"`";

    fn read(text: &str) -> Result<Self, String> {
        if text == GATEWAY {
            return Ok(Self(FrontEnd::Gateway));
        }
        let address: IpAddr = text.parse().map_err(|_| format!("neither an IP address nor {GATEWAY}"))?;
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err("the address of another machine is wanted".to_owned());
        }
        Ok(Self(FrontEnd::Address(address)))
    }

    fn write(&self) -> String {
        match self.0 {
            FrontEnd::Gateway => GATEWAY.to_owned(),
            FrontEnd::Address(address) => address.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_the_gateway_are_read() {
        for text in ["%gateway%", "10.0.0.1", "fd00::1"] {
            assert_eq!(FrontEndText::read(text).unwrap().write(), text);
        }
        for wrong in ["gateway", "%gw%", "127.0.0.1", "0.0.0.0", "224.0.0.1", "10.0.0.1:80", ""] {
            assert!(FrontEndText::read(wrong).is_err(), "{wrong}");
        }
    }
}
