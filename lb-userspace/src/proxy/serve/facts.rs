//! An HTTP/1.1 request as rules, schedulers, persistence and logs see it.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use super::Ends;
use crate::proxy::{
    facts::{Facts, TlsFacts},
    h1::request::RequestHead,
};

/// Facts of an HTTP/1.1 request.
#[derive(Debug)]
pub(super) struct RequestFacts<'a> {
    head: RequestHead<'a>,
    /// The client: behind trusted proxies the one they tell.
    pub(super) client: IpAddr,
    host: Cow<'a, str>,
    ends: &'a Ends,
}

impl<'a> RequestFacts<'a> {
    pub(super) fn new(head: RequestHead<'a>, client: IpAddr, ends: &'a Ends) -> Self {
        Self { head, client, host: head.host(), ends }
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
        self.head.version().name()
    }

    fn tls(&self) -> Option<&TlsFacts> {
        self.ends.tls.as_deref()
    }
}
