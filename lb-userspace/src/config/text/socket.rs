//! Where heartbeats go to: an address, with a port or without. Pure.

use std::net::{IpAddr, SocketAddr};

use super::Text;

/// An address with or without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct SocketText {
    ip: IpAddr,
    port: Option<u16>,
}

impl SocketText {
    /// With the port that is said, or this one.
    pub(in crate::config) fn with_default(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(port))
    }
}

impl Text for SocketText {
    const FORMAT: &'static str = "socket-address";
    const WHAT: &'static str = "an address";
    const SHAPE: &'static str = "`\"IP\"` or `\"IP:port\"`";

    fn read(text: &str) -> Result<Self, String> {
        let with_port = || text.parse::<SocketAddr>().ok().map(|address| (address.ip(), Some(address.port())));
        let read = text.parse().ok().map(|ip| (ip, None)).or_else(with_port);
        let (ip, port) = read.ok_or("not an IP address, nor one with a port")?;
        if port == Some(0) {
            return Err("port 0".to_owned());
        }
        if ip.is_unspecified() || ip.is_multicast() {
            return Err("an address of one machine is wanted".to_owned());
        }
        Ok(Self { ip, port })
    }

    fn write(&self) -> String {
        self.port.map_or_else(|| self.ip.to_string(), |port| SocketAddr::new(self.ip, port).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        let rows = [
            ("10.0.0.1", "10.0.0.1:3780"),
            ("10.0.0.1:4000", "10.0.0.1:4000"),
            ("fd00::1", "[fd00::1]:3780"),
            ("[fd00::1]:4000", "[fd00::1]:4000"),
        ];
        for (text, address) in rows {
            let read = SocketText::read(text).unwrap();
            assert_eq!(read.with_default(3780), address.parse().unwrap());
            assert_eq!(read.write(), text);
        }
        for wrong in ["", "lb1", "10.0.0.1:0", "10.0.0.1:99999", "0.0.0.0", "224.0.0.18", "fd00::1:", "10.0.0.1/24"] {
            assert!(SocketText::read(wrong).is_err(), "{wrong}");
        }
    }
}
