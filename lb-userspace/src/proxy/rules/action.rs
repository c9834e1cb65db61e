//! What rules do, compiled: names looked up, texts parsed.

use std::sync::Arc;

use regex::Regex;

use super::{
    super::{
        limit::{Bandwidth, Gate, Limits, Rate},
        path::{self, Policy},
        pool::PoolId,
    },
    Scope, Verdict,
    condition::Groups,
    edits::{Edits, NoteKind, Place},
    text::{Escape, Text, Unsafe},
    view::View,
};
use crate::control::proxy::{
    ProxyPlan,
    rule::{
        Action,
        check::{self, Phase, is_safe},
    },
    template,
};

/// A compiled action.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Pool(PoolId),
    Redirect { status: u16, to: Text, keep_path: bool },
    Respond { status: u16, content_type: Text, body: Text, escape: Escape },
    Drop,
    SetHost(Text),
    SetHeader(Box<str>, Text),
    AddHeader(Box<str>, Text),
    DeleteHeader(Box<str>),
    AllowHeaders(Arc<[Box<str>]>),
    SetPath(Text, Policy),
    RewritePath { regex: Box<Regex>, with: Box<str>, policy: Policy },
    SetQuery(Text),
    SetCookie { name: Box<str>, value: Text, attributes: Text },
    DeleteCookie(Box<str>),
    CacheControl(Text),
    Note(NoteKind, Text),
    Rate(Arc<Rate>),
    MaxConnections(u32, Gate),
    Bandwidth(Arc<Bandwidth>),
}

/// Where an action is, and what its names refer to.
pub(super) struct Names<'a> {
    pub(super) virtual_server: &'a str,
    pub(super) rule: &'a str,
    pub(super) plan: &'a ProxyPlan,
    pub(super) limits: &'a Limits,
    pub(super) policy: Policy,
    pub(super) place: template::Place,
}

/// Whether an action's texts ask for groups of a regex.
pub(super) fn uses_groups(action: &Action) -> bool {
    let asks = |text: &String| (1..=9).any(|n| text.contains(&format!("%{{{n}}}")));
    match action {
        Action::Redirect { to, .. } => asks(to),
        Action::Respond { content_type, body, .. } => asks(content_type) || asks(body),
        Action::SetHeader(_, text) | Action::AddHeader(_, text) => asks(text),
        Action::SetPath(text)
        | Action::SetQuery(text)
        | Action::CacheControl(text)
        | Action::Log(text)
        | Action::Event(text) => asks(text),
        Action::SetCookie { value, attributes, .. } => asks(value) || asks(attributes),
        Action::Pool(_)
        | Action::Drop
        | Action::DeleteHeader(_)
        | Action::AllowHeaders(_)
        | Action::RewritePath { .. }
        | Action::DeleteCookie(_)
        | Action::Rate(_)
        | Action::MaxConnections(_)
        | Action::Bandwidth(_) => false,
    }
}

impl Step {
    pub(super) fn compile(action: &Action, position: usize, names: &Names<'_>) -> Result<Self, String> {
        let text = |text: &str| Text::compile(text, names.place);
        let field = |name: &str| name.to_ascii_lowercase().into_boxed_str();
        Ok(match action {
            Action::Pool(name) => {
                let position = names.plan.pools.keys().position(|pool| pool == name);
                let id = position.and_then(|position| u16::try_from(position).ok()).map(PoolId::at);
                Self::Pool(id.ok_or_else(|| format!("there is no pool {name:?}"))?)
            }
            Action::Redirect { status, to, keep_path } => {
                Self::Redirect { status: *status, to: text(to)?, keep_path: *keep_path }
            }
            Action::Respond { status, content_type, body } => Self::Respond {
                status: *status,
                content_type: text(content_type)?,
                body: text(body)?,
                escape: body_escape(content_type),
            },
            Action::Drop => Self::Drop,
            Action::SetHeader(name, value)
                if field(name).as_ref() == "host" && names.place == template::Place::Request =>
            {
                Self::SetHost(text(value)?)
            }
            Action::SetHeader(name, value) => Self::SetHeader(field(name), text(value)?),
            Action::AddHeader(name, value) => Self::AddHeader(field(name), text(value)?),
            Action::DeleteHeader(name) => Self::DeleteHeader(field(name)),
            Action::AllowHeaders(fields) => Self::AllowHeaders(fields.iter().map(|name| field(name)).collect()),
            Action::SetPath(path) => Self::SetPath(text(path)?, names.policy),
            Action::RewritePath { regex, with } => Self::RewritePath {
                regex: Box::new(check::regex(regex).map_err(|error| error.to_string())?),
                with: with.as_str().into(),
                policy: names.policy,
            },
            Action::SetQuery(query) => Self::SetQuery(text(query)?),
            Action::SetCookie { name, value, attributes } => Self::SetCookie {
                name: name.as_str().into(),
                value: text(value)?,
                attributes: text(attributes.trim().trim_start_matches(';').trim_start())?,
            },
            Action::DeleteCookie(name) => Self::DeleteCookie(name.as_str().into()),
            Action::CacheControl(value) => Self::CacheControl(text(value)?),
            Action::Log(line) => Self::Note(NoteKind::Log, text(line)?),
            Action::Event(line) => Self::Note(NoteKind::Event, text(line)?),
            Action::Rate(name) => {
                Self::Rate(names.limits.rate(name).ok_or_else(|| format!("there is no rate class {name:?}"))?)
            }
            Action::MaxConnections(most) => {
                Self::MaxConnections(*most, names.limits.gate(names.virtual_server, names.rule, position))
            }
            Action::Bandwidth(name) => Self::Bandwidth(
                names.limits.bandwidth(name).ok_or_else(|| format!("there is no bandwidth class {name:?}"))?,
            ),
        })
    }

    /// Does it. A verdict ends the list.
    pub(super) fn run(&self, phase: Phase, scope: &Scope<'_>, groups: &Groups, edits: &mut Edits) -> Option<Verdict> {
        match self.try_run(phase, scope, groups, edits) {
            Ok(verdict) => verdict,
            Err(Unsafe) => Some(Verdict::Refuse { status: if phase == Phase::Request { 400 } else { 502 } }),
        }
    }

    fn try_run(
        &self,
        phase: Phase,
        scope: &Scope<'_>,
        groups: &Groups,
        edits: &mut Edits,
    ) -> Result<Option<Verdict>, Unsafe> {
        let head = |text: &Text, escape, edits: &Edits| {
            text.head(escape, &View { scope, edits }, groups).map(std::borrow::Cow::into_owned)
        };
        match self {
            Self::Pool(pool) => return Ok(Some(Verdict::Pool(*pool))),
            Self::Drop => return Ok(Some(Verdict::Drop)),
            Self::Redirect { status, to, keep_path } => {
                let location = location(to, *keep_path, &View { scope, edits }, groups)?;
                edits.put(Place::Location, &location);
                return Ok(Some(Verdict::Redirect { status: *status }));
            }
            Self::Respond { status, content_type, body, escape } => {
                let content_type = head(content_type, Escape::Plain, edits)?;
                let body = body.expand(*escape, &View { scope, edits }, groups);
                edits.put(Place::ContentType, &content_type);
                edits.put(Place::Body, &body);
                return Ok(Some(Verdict::Respond { status: *status }));
            }
            Self::SetHost(value) => {
                let host = head(value, Escape::Plain, edits)?.to_ascii_lowercase();
                if !is_host(&host) {
                    return Err(Unsafe);
                }
                edits.put(Place::Host, &host);
            }
            Self::SetPath(path, policy) => {
                let path = head(path, Escape::Url, edits)?;
                edits.put(Place::Path, &normal_path(&path, *policy)?);
            }
            Self::RewritePath { regex, with, policy } => rewrite_path(regex, with, *policy, scope, edits)?,
            Self::SetQuery(query) => {
                let query = head(query, Escape::Url, edits)?;
                edits.put(Place::Query, &query);
            }
            Self::Note(kind, text) => {
                let line = text.expand(Escape::Log, &View { scope, edits }, groups);
                let rule = edits.rule.unwrap_or(super::RuleId(0));
                edits.note(*kind, rule, &line);
            }
            Self::Rate(rate) => {
                if let Err(over) = rate.take(scope.facts, scope.now) {
                    return Ok(Some(Verdict::Limited { status: 429, retry_after: Some(over.retry_after) }));
                }
            }
            Self::MaxConnections(most, gate) => match gate.enter(*most) {
                Some(lease) => edits.leases.push(lease),
                None => return Ok(Some(Verdict::Limited { status: 503, retry_after: None })),
            },
            Self::Bandwidth(class) => edits.bandwidth.push(Arc::clone(class)),
            Self::SetHeader(..)
            | Self::AddHeader(..)
            | Self::DeleteHeader(_)
            | Self::AllowHeaders(_)
            | Self::SetCookie { .. }
            | Self::DeleteCookie(_)
            | Self::CacheControl(_) => self.edit_fields(phase, scope, groups, edits)?,
        }
        Ok(None)
    }

    /// The actions that change header fields.
    fn edit_fields(&self, phase: Phase, scope: &Scope<'_>, groups: &Groups, edits: &mut Edits) -> Result<(), Unsafe> {
        let view = View { scope, edits };
        let plain = |text: &Text| text.head(Escape::Plain, &view, groups).map(|text| text.trim().to_owned());
        match self {
            Self::SetHeader(name, value) => {
                let value = plain(value)?;
                own_side(phase, edits).set(name, &value);
            }
            Self::AddHeader(name, value) => {
                let value = plain(value)?;
                own_side(phase, edits).add(name, &value);
            }
            Self::DeleteHeader(name) => own_side(phase, edits).remove(name),
            Self::AllowHeaders(names) => own_side(phase, edits).allow(names),
            Self::SetCookie { name, value, attributes } => {
                let value = value.head(Escape::Cookie, &view, groups)?;
                let attributes = plain(attributes)?;
                let separator = if attributes.is_empty() { "" } else { "; " };
                let cookie = format!("{name}={value}{separator}{attributes}");
                edits.response.add("set-cookie", &cookie);
            }
            Self::DeleteCookie(name) if phase == Phase::Request => {
                if let Some(rest) = view.header("cookie").map(|cookies| without_cookie(&cookies, name)) {
                    edits.request.remove("cookie");
                    if !rest.is_empty() {
                        edits.request.add("cookie", &rest);
                    }
                }
            }
            Self::DeleteCookie(name) => {
                let expired = format!("{name}=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0");
                edits.response.add("set-cookie", &expired);
            }
            Self::CacheControl(value) => {
                let value = plain(value)?;
                edits.response.set("cache-control", &value);
            }
            Self::Pool(_)
            | Self::Redirect { .. }
            | Self::Respond { .. }
            | Self::Drop
            | Self::SetHost(_)
            | Self::SetPath(..)
            | Self::RewritePath { .. }
            | Self::SetQuery(_)
            | Self::Note(..)
            | Self::Rate(_)
            | Self::MaxConnections(..)
            | Self::Bandwidth(_) => {}
        }
        Ok(())
    }
}

fn own_side(phase: Phase, edits: &mut Edits) -> &mut super::HeaderEdits {
    if phase == Phase::Request { &mut edits.request } else { &mut edits.response }
}

/// Where a redirect leads. A text that is a path of ours stays one: `//evil.example` in a request's path must not become
/// another site.
fn location(to: &Text, keep_path: bool, view: &View<'_>, groups: &Groups) -> Result<String, Unsafe> {
    let mut location = to.head(Escape::Url, view, groups)?.into_owned();
    if keep_path {
        let path = view.path();
        let base = location.len() - usize::from(location.ends_with('/') && path.starts_with('/'));
        location.truncate(base);
        Escape::Url.push(path, &mut location);
        if let Some(query) = view.query() {
            location.push('?');
            Escape::Url.push(query, &mut location);
        }
        if !is_safe(location.as_bytes()) {
            return Err(Unsafe);
        }
    }
    if location.starts_with("//") && !to.literal_start().starts_with("//") {
        let path = location.trim_start_matches('/');
        location = format!("/{path}");
    }
    Ok(location)
}

fn rewrite_path(regex: &Regex, with: &str, policy: Policy, scope: &Scope<'_>, edits: &mut Edits) -> Result<(), Unsafe> {
    let view = View { scope, edits };
    let path = view.path();
    let std::borrow::Cow::Owned(rewritten) = regex.replace_all(path, with) else { return Ok(()) };
    let mut encoded = String::with_capacity(rewritten.len());
    Escape::Url.push(&rewritten, &mut encoded);
    if !is_safe(encoded.as_bytes()) {
        return Err(Unsafe);
    }
    let path = normal_path(&encoded, policy)?;
    edits.put(Place::Path, &path);
    Ok(())
}

/// A new path, as strict as one that came: normalised, so that later rules and the node see one string (H9).
fn normal_path(path: &str, policy: Policy) -> Result<String, Unsafe> {
    let encoded = path.replace('?', "%3F");
    path::normalise(encoded.as_bytes(), policy).map(std::borrow::Cow::into_owned).map_err(|_| Unsafe)
}

/// Whether it can be a Host: a name, an IPv4 address or an IPv6 address in brackets, with or without port.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        Some(_) | None => (host, None),
    };
    let is_name =
        || !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let is_v6 = || {
        let inside = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        inside.is_some_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok())
    };
    name.len() <= 255 && (is_name() || is_v6()) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn without_cookie(cookies: &str, name: &str) -> String {
    let pairs = cookies.split(';').map(str::trim).filter(|pair| !pair.is_empty());
    let kept: Vec<_> = pairs.filter(|pair| pair.split_once('=').map_or(*pair, |(key, _)| key) != name).collect();
    kept.join("; ")
}

fn body_escape(content_type: &str) -> Escape {
    let media = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if media.ends_with("json") {
        Escape::Json
    } else if media == "text/plain" || media == "text/csv" {
        Escape::Plain
    } else {
        // Whatever a browser may take for markup.
        Escape::Html
    }
}
