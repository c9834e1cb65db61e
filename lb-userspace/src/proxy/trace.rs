//! What the proxy would do with a request, from its plan alone: for `lbctl trace URL`. Reads the request by the parser that
//! reads clients', explains the rules that they go through, and asks the pools as the worker compiles them. Counts nothing,
//! sends nothing, and runs in lbd: the worker does not notice. Pure.

mod nodes;
#[cfg(test)]
mod tests;
mod url;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use self::url::Url;
use super::{
    facts::{Facts, RequestFacts, RequestId, TlsFacts},
    h1::{Slots, request},
    identity,
    limit::Limits,
    rules::{Edits, RuleSet, Scope, Verdict},
};
use crate::control::proxy::{
    ProxyPlan, Service, VirtualServer,
    http::Http,
    pool::NodeChange,
    trace::{UrlTraceRequest, UrlTraceView},
};

/// Nodes that passive monitoring took out, by pool and name.
pub type Out = BTreeMap<(String, String), NodeChange>;

/// Who asks when nobody is named: an address for documentation (RFC 5737).
const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Why there is nothing to tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// The URL, or what is said beside it, cannot be meant.
    #[error("{0}")]
    Invalid(String),
    /// No virtual server takes it.
    #[error("{0}")]
    NotFound(String),
}

/// What would become of a request at this time (seconds since 1970).
///
/// # Errors
/// When the request makes no sense, or no one virtual server takes it.
pub fn trace(plan: &ProxyPlan, out: &Out, asked: &UrlTraceRequest, unix_s: u64) -> Result<UrlTraceView, TraceError> {
    let url = Url::parse(&asked.url).map_err(TraceError::Invalid)?;
    let (name, server, http, local) = find(plan, &url, asked.virtual_server.as_deref())?;
    let bytes = url.head(asked);
    let mut slots = Slots::default();
    let head = match request::parse(&bytes, &http.strictness, &mut slots) {
        Ok(Some(head)) if head.len() == bytes.len() => head,
        Ok(_) => return Err(TraceError::Invalid("method and header fields must be of one line each".to_owned())),
        Err(refusal) => {
            let (status, reason) = (refusal.status(), refusal.reason());
            return Ok(view(name, local, format!("refused with {status} ({reason}) before any rule"), ""));
        }
    };
    let peer = asked.client.unwrap_or(SOMEBODY);
    let client = identity::client(head.fields(), peer, &http.identity);
    let tls = server.tls.is_some().then(|| TlsFacts {
        version: "1.3",
        server_name: url.address().is_none().then(|| url.host.to_ascii_lowercase()),
        ..TlsFacts::default()
    });
    let facts = RequestFacts::new(head, head.version().name(), client, local, tls.as_ref());
    decide(plan, out, (name, server), &facts, unix_s)
}

/// The virtual server that takes a URL.
fn find<'p>(
    plan: &'p ProxyPlan,
    url: &Url<'_>,
    named: Option<&str>,
) -> Result<(&'p str, &'p VirtualServer, &'p Http, SocketAddr), TraceError> {
    let all = plan.virtual_servers.iter().filter_map(|(name, server)| match &server.service {
        Service::Http(http) => Some((name.as_str(), server, &**http)),
        Service::Stream(_) => None,
    });
    let names = all.clone().map(|(name, ..)| name).collect::<Vec<_>>().join(", ");
    if let Some(named) = named {
        let (name, server, http) = all.clone().find(|(name, ..)| *name == named).ok_or_else(|| {
            TraceError::NotFound(format!("no virtual server of HTTP is called {named:?}; there is: {names}"))
        })?;
        let at_port = server.listen.iter().find(|listen| listen.port() == url.port);
        let local = at_port.or(server.listen.first()).copied();
        let nowhere = || TraceError::NotFound(format!("virtual server {named:?} listens nowhere"));
        return Ok((name, server, http, local.ok_or_else(nowhere)?));
    }
    let takes = |listen: &&SocketAddr| {
        let is_meant = |address: IpAddr| listen.ip() == address || listen.ip().is_unspecified();
        listen.port() == url.port && url.address().is_none_or(is_meant)
    };
    let fitting = all.filter(|(_, server, _)| server.tls.is_some() == url.tls);
    let found: Vec<_> = fitting
        .filter_map(|(name, server, http)| {
            let listen = server.listen.iter().find(takes)?;
            let ip = url.address().filter(|_| listen.ip().is_unspecified()).unwrap_or(listen.ip());
            Some((name, server, http, SocketAddr::new(ip, listen.port())))
        })
        .collect();
    match found[..] {
        [found] => Ok(found),
        [] => {
            let scheme = if url.tls { "https" } else { "http" };
            let (port, there) = (url.port, if names.is_empty() { "none" } else { &names });
            Err(TraceError::NotFound(format!(
                "no virtual server takes {scheme} on port {port}; those of HTTP: {there}"
            )))
        }
        [..] => {
            let several = found.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
            Err(TraceError::Invalid(format!("several virtual servers could take it, say which by --vs: {several}")))
        }
    }
}

/// Explains the rules, and follows what they say.
fn decide(
    plan: &ProxyPlan,
    out: &Out,
    (name, server): (&str, &VirtualServer),
    facts: &RequestFacts<'_>,
    unix_s: u64,
) -> Result<UrlTraceView, TraceError> {
    // Limits of their own: nothing is taken from those of the worker.
    let rules = RuleSet::compile(name, plan, &Limits::build(plan, None));
    let rules = rules.map_err(|mistakes| TraceError::Invalid(format!("its rules cannot be compiled: {mistakes:?}")))?;
    let scope = Scope {
        facts,
        response: None,
        virtual_server: name,
        pool: "",
        node: "",
        request_id: RequestId::default(),
        now: std::time::Duration::from_secs(1),
        unix_s,
        hits: &[],
    };
    let mut edits = Edits::default();
    let verdict = rules.evaluate_request(&scope, &mut edits);
    let pool = match verdict {
        Verdict::Continue => server.pool.clone(),
        Verdict::Pool(pool) => plan.pools.keys().nth(pool.index()).cloned(),
        Verdict::Respond { .. }
        | Verdict::Redirect { .. }
        | Verdict::Limited { .. }
        | Verdict::Refuse { .. }
        | Verdict::Drop => None,
    };
    let path = edits.path().unwrap_or_else(|| facts.path()).to_owned();
    let words = match (verdict, &pool) {
        (Verdict::Redirect { status }, _) => format!("redirected with {status} to {}", edits.location()),
        (Verdict::Respond { status }, _) => format!("answered with {status} by a rule"),
        (Verdict::Limited { status, .. }, _) => format!("answered with {status}: a limit is reached"),
        (Verdict::Refuse { status }, _) => format!("refused with {status}: a rule's text would break the head"),
        (Verdict::Drop, _) => "the connection is closed without an answer".to_owned(),
        (Verdict::Continue | Verdict::Pool(_), None) => "no pool: the error page is sent".to_owned(),
        (Verdict::Continue, Some(pool)) => format!("pool {pool:?} serves, the virtual server's own"),
        (Verdict::Pool(_), Some(pool)) => format!("pool {pool:?} serves, chosen by a rule"),
    };
    let mut view = view(name, facts.local(), words, &path);
    view.rules = rules.explain(&scope);
    if let Some(pool) = pool {
        nodes::ask(plan, out, &pool, facts, &mut view);
    }
    Ok(view)
}

fn view(name: &str, local: SocketAddr, verdict: String, path: &str) -> UrlTraceView {
    UrlTraceView {
        virtual_server: name.to_owned(),
        local,
        verdict,
        path: path.to_owned(),
        rules: Vec::new(),
        pool: None,
        pool_in_use: None,
        persistence: None,
        nodes: Vec::new(),
    }
}
