//! Where sessions stand in requests and responses, by kind of persistence.

use std::borrow::Cow;

use super::super::key::{self, Hashes};
use crate::{control::proxy::pool::PersistenceKind, proxy::facts::Facts};

/// The servlet containers' session cookie (Jakarta Servlet 6.0 §7.1.1) and path parameter (§7.1.3).
const JSESSIONID: &str = "JSESSIONID";
const JSESSIONID_IN_PATH: &str = ";jsessionid=";
/// ASP.NET's session cookie, and its session in the path: `/(S(id))/…`.
const ASP_NET: &str = "ASP.NET_SessionId";
const ASP_NET_IN_PATH: &str = "(S(";

/// A session's id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Id<'a> {
    /// A number that is unique: an address, a TLS session.
    Number(u128),
    /// What application and client agreed upon.
    Text(Cow<'a, str>),
}

impl Id<'_> {
    /// 128 bits that stand for it: texts are hashed, so that tables hold no application's secrets.
    pub(super) fn number(&self, hashes: &Hashes) -> u128 {
        match self {
            Id::Number(number) => *number,
            Id::Text(text) => hashes.text128(text),
        }
    }
}

/// What a request says of its session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found<'a> {
    pub(super) id: Option<Id<'a>>,
    /// The node that it names itself: `jvmRoute` of servlet containers, behind the id's last dot.
    pub(super) route: Option<Cow<'a, str>>,
}

pub(super) fn of_request<'a>(kind: &PersistenceKind, facts: &'a dyn Facts) -> Found<'a> {
    let id = match kind {
        PersistenceKind::SourceAddress { prefix4, prefix6 } => {
            Some(Id::Number(key::network(facts.client(), *prefix4, *prefix6)))
        }
        PersistenceKind::ApplicationCookie(name) => text(facts.cookie(name)),
        PersistenceKind::Header(name) => text(facts.header(name)),
        PersistenceKind::Query(name) => {
            text(facts.query().and_then(|query| key::parameter(query, name)).map(Cow::Borrowed))
        }
        PersistenceKind::TlsSession => {
            facts.tls().and_then(|tls| tls.session).map(|id| Id::Number(u128::from_be_bytes(id)))
        }
        PersistenceKind::AspNet => {
            text(facts.cookie(ASP_NET).or_else(|| asp_net_path(facts.path()).map(Cow::Borrowed)))
        }
        PersistenceKind::Jsession => {
            return jsession(facts.cookie(JSESSIONID).or_else(|| jsession_path(facts.path()).map(Cow::Borrowed)));
        }
        PersistenceKind::Cookie { .. } => None,
    };
    Found { id, route: None }
}

/// The session that a `Set-Cookie` value begins.
pub(super) fn of_set_cookie<'a>(kind: &PersistenceKind, value: &'a str) -> Option<Id<'a>> {
    let pair = value.split(';').next()?;
    let (name, id) = pair.split_once('=')?;
    let (name, id) = (name.trim(), id.trim().trim_matches('"'));
    let expected = match kind {
        PersistenceKind::ApplicationCookie(name) => name.as_str(),
        PersistenceKind::Jsession => JSESSIONID,
        PersistenceKind::AspNet => ASP_NET,
        PersistenceKind::SourceAddress { .. }
        | PersistenceKind::Cookie { .. }
        | PersistenceKind::Header(_)
        | PersistenceKind::Query(_)
        | PersistenceKind::TlsSession => return None,
    };
    if name != expected {
        return None;
    }
    if *kind == PersistenceKind::Jsession {
        jsession(Some(Cow::Borrowed(id))).id
    } else {
        text(Some(Cow::Borrowed(id)))
    }
}

/// The session that a redirection begins: without cookies, servers put a new session into the path they send the client to.
pub(super) fn of_location<'a>(kind: &PersistenceKind, location: &'a str) -> Option<Id<'a>> {
    match kind {
        PersistenceKind::AspNet => text(asp_net_path(location).map(Cow::Borrowed)),
        PersistenceKind::Jsession => jsession(jsession_path(location).map(Cow::Borrowed)).id,
        PersistenceKind::ApplicationCookie(_)
        | PersistenceKind::SourceAddress { .. }
        | PersistenceKind::Cookie { .. }
        | PersistenceKind::Header(_)
        | PersistenceKind::Query(_)
        | PersistenceKind::TlsSession => None,
    }
}

fn text(text: Option<Cow<'_, str>>) -> Option<Id<'_>> {
    text.filter(|text| !text.is_empty()).map(Id::Text)
}

/// Id and route of a servlet container's session. The route changes when another node takes the session over; the id stays.
fn jsession(value: Option<Cow<'_, str>>) -> Found<'_> {
    match value {
        None => Found::default(),
        Some(Cow::Borrowed(value)) => match value.rsplit_once('.') {
            Some((id, route)) => Found { id: text(Some(Cow::Borrowed(id))), route: Some(Cow::Borrowed(route)) },
            None => Found { id: text(Some(Cow::Borrowed(value))), route: None },
        },
        Some(Cow::Owned(value)) => {
            let found = jsession(Some(Cow::Borrowed(&value)));
            let id = found.id.map(|id| match id {
                Id::Text(text) => Id::Text(Cow::Owned(text.into_owned())),
                Id::Number(number) => Id::Number(number),
            });
            Found { id, route: found.route.map(|route| Cow::Owned(route.into_owned())) }
        }
    }
}

/// The value behind `;jsessionid=`, whose case servers do not agree upon.
fn jsession_path(path: &str) -> Option<&str> {
    let bytes = path.as_bytes();
    let name = JSESSIONID_IN_PATH.as_bytes();
    let at = bytes.windows(name.len()).position(|part| part.eq_ignore_ascii_case(name))?;
    path[at + name.len()..].split([';', '/', '?', '#']).next()
}

/// What stands in `(S(…))`.
fn asp_net_path(path: &str) -> Option<&str> {
    let (_, rest) = path.split_once(ASP_NET_IN_PATH)?;
    rest.split_once("))").map(|(id, _)| id).filter(|id| !id.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_in_paths() {
        let cases = [
            ("/app/x;jsessionid=AB12.n01", Some("AB12.n01"), None),
            ("/app/x;JSESSIONID=AB12?y=1", Some("AB12"), None),
            ("/app;v=1;jsessionid=AB12;w=2/x", Some("AB12"), None),
            ("/app/x;jsessionid=", Some(""), None),
            ("/app/jsessionid=AB", None, None),
            ("/(S(abc123))/x.aspx", None, Some("abc123")),
            ("https://h/app/(S(abc123))/x", None, Some("abc123")),
            ("/(S(abc/123))/x", None, None),
            ("/(S(abc123", None, None),
            ("", None, None),
        ];
        for (path, jsession, asp_net) in cases {
            assert_eq!(jsession_path(path), jsession, "{path}");
            assert_eq!(asp_net_path(path), asp_net, "{path}");
        }
    }

    #[test]
    fn sessions_in_set_cookie() {
        let application = PersistenceKind::ApplicationCookie("sid".to_owned());
        let cases = [
            (&application, "sid=abc; Path=/; HttpOnly", Some("abc")),
            (&application, "sid=\"abc\"", Some("abc")),
            (&application, "SID=abc", None),
            (&application, "sid=; Max-Age=0", None),
            (&application, "other=abc; sid=no", None),
            (&application, "sid", None),
            (&PersistenceKind::Jsession, "JSESSIONID=AB.n01; Path=/", Some("AB")),
            (&PersistenceKind::AspNet, "ASP.NET_SessionId=abc; path=/", Some("abc")),
            (&PersistenceKind::TlsSession, "sid=abc", None),
        ];
        for (kind, value, expected) in cases {
            let expected = expected.map(|id| Id::Text(Cow::Borrowed(id)));
            assert_eq!(of_set_cookie(kind, value), expected, "{kind:?}: {value}");
        }
    }
}
