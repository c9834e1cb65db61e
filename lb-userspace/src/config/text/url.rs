//! Where JSON is posted to. Pure.

use std::net::SocketAddr;

use super::{Host, NodeAddress, Text};

/// An `http` or `https` URL of a machine, with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Url {
    pub(in crate::config) is_tls: bool,
    pub(in crate::config) host: Host,
    pub(in crate::config) port: u16,
    /// Path and query, with the slash in front.
    pub(in crate::config) path: String,
}

impl Text for Url {
    const FORMAT: &'static str = "url";
    const WHAT: &'static str = "a URL";
    const SHAPE: &'static str = "`\"https://name/path\"`";

    fn read(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("does not begin with https:// or http://")?;
        let is_tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err("does not begin with https:// or http://".to_owned()),
        };
        let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') {
            return Err("has a name or password in it: use header_file".to_owned());
        }
        // RFC 3986 §2: what is not one of these is written with %.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/?[]@!$&'()*+,;=%".contains(c);
        if !path.chars().all(plain) {
            return Err("has a character that URLs do not have, or a #".to_owned());
        }
        let bracketed = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let NodeAddress { host, port } = NodeAddress::read(bracketed.unwrap_or(authority))?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { is_tls, host, port: port.unwrap_or(if is_tls { 443 } else { 80 }), path })
    }

    fn write(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        let authority = match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).to_string(),
            Host::Name(name) => format!("{name}:{}", self.port),
        };
        format!("{scheme}://{authority}{}", self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        for (text, written) in [
            ("https://hooks.example.com/a/b?c=d", "https://hooks.example.com:443/a/b?c=d"),
            ("http://10.0.0.9:8080", "http://10.0.0.9:8080/"),
            ("https://[2001:db8::1]/x", "https://[2001:db8::1]:443/x"),
            ("https://[2001:db8::1]:8443?x", "https://[2001:db8::1]:8443/?x"),
        ] {
            assert_eq!(Url::read(text).unwrap().write(), written);
        }
        for wrong in [
            "",
            "hooks.example.com",
            "ftp://a/",
            "https://",
            "https:///x",
            "https://user:secret@a/",
            "https://a/x y",
            "https://a/x#y",
            "https://a/x\r\nHost: b",
            "https://a:0/",
            "https://a:99999/",
        ] {
            assert!(Url::read(wrong).is_err(), "{wrong}");
        }
    }
}
