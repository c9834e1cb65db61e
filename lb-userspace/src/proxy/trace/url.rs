//! The URL of a traced request, taken apart, and the head that a client would send for it. Pure.

use std::net::IpAddr;

use crate::control::proxy::trace::UrlTraceRequest;

/// How a URL is written, for messages.
const FORM: &str = "write it as: https://www.example.com/path";

/// A URL of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Url<'a> {
    /// Whether it says `https`.
    pub(super) tls: bool,
    /// Host, and port if it was written.
    pub(super) authority: &'a str,
    /// Host alone, without brackets.
    pub(super) host: &'a str,
    /// Port, written or not.
    pub(super) port: u16,
    /// Path and query.
    pub(super) target: &'a str,
}

impl<'a> Url<'a> {
    /// Takes a URL apart; what a client would never send is left to the parser of requests.
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{text:?} {what}; {FORM}");
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("is no URL"))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(wrong("is neither http nor https")),
        };
        let rest = rest.split('#').next().unwrap_or(rest);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong("has no valid port"))?),
            None => (authority, if tls { 443 } else { 80 }),
        };
        if host.is_empty() {
            return Err(wrong("names no host"));
        }
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self { tls, authority, host, port, target })
    }

    /// The host, when it is an address.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The head of a request for it.
    pub(super) fn head(&self, request: &UrlTraceRequest) -> Vec<u8> {
        let method = request.method.as_deref().unwrap_or("GET");
        let slash = if self.target.starts_with('/') { "" } else { "/" };
        let mut head = format!("{method} {slash}{} HTTP/1.1\r\n", self.target);
        let own_host = request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        if !own_host {
            head.push_str(&format!("Host: {}\r\n", self.authority));
        }
        for (name, value) in &request.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let cases = [
            ("http://a.example", (false, "a.example", "a.example", 80, "")),
            ("HTTPS://a.example/x?y#z", (true, "a.example", "a.example", 443, "/x?y")),
            ("http://10.0.0.1:8080/", (false, "10.0.0.1:8080", "10.0.0.1", 8080, "/")),
            ("https://[2001:db8::1]/", (true, "[2001:db8::1]", "2001:db8::1", 443, "/")),
            ("https://[2001:db8::1]:8443?q", (true, "[2001:db8::1]:8443", "2001:db8::1", 8443, "?q")),
        ];
        for (text, (tls, authority, host, port, target)) in cases {
            assert_eq!(Url::parse(text), Ok(Url { tls, authority, host, port, target }), "{text}");
        }
        for wrong in ["a.example/x", "ftp://a/", "http:///x", "http://a:70000/", "http://a:x/"] {
            assert!(Url::parse(wrong).unwrap_err().contains(FORM), "{wrong}");
        }
    }

    #[test]
    fn a_head_is_what_a_client_would_send() {
        let request = UrlTraceRequest { headers: vec![("X-A".into(), "1".into())], ..UrlTraceRequest::default() };
        let head = Url::parse("http://a.example?x").unwrap().head(&request);
        assert_eq!(head, b"GET /?x HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\n\r\n");
        let request = UrlTraceRequest {
            method: Some("PUT".into()),
            headers: vec![("host".into(), "other".into())],
            ..UrlTraceRequest::default()
        };
        assert_eq!(Url::parse("http://a/").unwrap().head(&request), b"PUT / HTTP/1.1\r\nhost: other\r\n\r\n");
    }
}
