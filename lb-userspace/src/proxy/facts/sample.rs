//! A request and a response for tests.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use super::{Facts, ResponseFacts, TlsFacts};

/// `GET http://example.org/` of 192.0.2.7 unless said otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) client: IpAddr,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) url: String,
    pub(crate) query: Option<String>,
    pub(crate) version: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) tls: Option<TlsFacts>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            client: IpAddr::from([192, 0, 2, 7]),
            method: "GET".to_owned(),
            host: "example.org".to_owned(),
            path: "/".to_owned(),
            url: "/".to_owned(),
            query: None,
            version: "1.1".to_owned(),
            headers: Vec::new(),
            tls: None,
        }
    }
}

impl Request {
    /// `GET` of a target: path and query.
    pub(crate) fn get(url: &str) -> Self {
        let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query.to_owned())));
        Self { path: path.to_owned(), url: url.to_owned(), query, ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<Cow<'a, str>> {
    let mut found = headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str());
    let first = found.next()?;
    let rest: Vec<_> = found.collect();
    if rest.is_empty() { Some(first.into()) } else { Some(format!("{first}, {}", rest.join(", ")).into()) }
}

impl Facts for Request {
    fn client(&self) -> IpAddr {
        self.client
    }
    fn local(&self) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], 8080))
    }
    fn method(&self) -> &str {
        &self.method
    }
    fn host(&self) -> &str {
        &self.host
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn raw_url(&self) -> &str {
        &self.url
    }
    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        find(&self.headers, name)
    }
    fn version(&self) -> &str {
        &self.version
    }
    fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_ref()
    }
}

/// A response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
}

impl Response {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl ResponseFacts for Response {
    fn status(&self) -> u16 {
        self.status
    }
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        find(&self.headers, name)
    }
}
