//! A request as rules, schedulers, persistence and logs see it.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use super::Ends;
use crate::proxy::{
    facts::{Facts, TlsFacts},
    h1::request::RequestHead,
};

/// Facts of a request; over HTTP/2 it has a head of HTTP/1.1's form, too.
#[derive(Debug)]
pub(super) struct RequestFacts<'a> {
    head: RequestHead<'a>,
    version: &'static str,
    /// The client: behind trusted proxies the one they tell.
    pub(super) client: IpAddr,
    host: Cow<'a, str>,
    ends: &'a Ends,
}

impl<'a> RequestFacts<'a> {
    /// Of `head`, which came by `version` as rules name it.
    pub(super) fn new(head: RequestHead<'a>, version: &'static str, client: IpAddr, ends: &'a Ends) -> Self {
        Self { head, version, client, host: head.host(), ends }
    }

    /// Whether the client side is TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.ends.tls.is_some()
    }
}

impl Facts for RequestFacts<'_> {
    fn client(&self) -> IpAddr {
        self.client
    }

    fn local(&self) -> SocketAddr {
        self.ends.local
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
        self.ends.tls.as_deref()
    }
}
