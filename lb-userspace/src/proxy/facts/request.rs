//! A request as rules, schedulers, persistence and logs see it.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use super::{Facts, TlsFacts};
use crate::proxy::h1::request::RequestHead;

/// Facts of a request; over HTTP/2 it has a head of HTTP/1.1's form, too.
#[derive(Debug)]
pub struct RequestFacts<'a> {
    head: RequestHead<'a>,
    version: &'static str,
    /// The client: behind trusted proxies the one they tell.
    pub client: IpAddr,
    host: Cow<'a, str>,
    local: SocketAddr,
    tls: Option<&'a TlsFacts>,
}

impl<'a> RequestFacts<'a> {
    /// Of `head`, which came to `local` by `version` as rules name it.
    #[must_use]
    pub fn new(
        head: RequestHead<'a>,
        version: &'static str,
        client: IpAddr,
        local: SocketAddr,
        tls: Option<&'a TlsFacts>,
    ) -> Self {
        Self { head, version, client, host: head.host(), local, tls }
    }
}

impl Facts for RequestFacts<'_> {
    fn client(&self) -> IpAddr {
        self.client
    }

    fn local(&self) -> SocketAddr {
        self.local
    }

    fn method(&self) -> &str {
        self.head.method_name()
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn path(&self) -> &str {
        self.head.path()
    }

    fn raw_url(&self) -> &str {
        self.head.target()
    }

    fn query(&self) -> Option<&str> {
        self.head.query()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.head.header(name)
    }

    fn version(&self) -> &str {
        self.version
    }

    fn tls(&self) -> Option<&TlsFacts> {
        self.tls
    }
}
