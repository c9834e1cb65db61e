//! Conditions: facts looked up and compared.

use std::{borrow::Cow, net::IpAddr, ops::Range};

use regex::Regex;

use super::{matcher::Matcher, view::View};
use crate::control::proxy::rule::{self as plan, Fact};

/// A compiled condition.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    Always,
    All(Box<[Condition]>),
    Any(Box<[Condition]>),
    Not(Box<Condition>),
    Is(Box<Comparison>),
}

/// A fact, how it is tested, and both in words for `explain`.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) fact: Fact,
    pub(super) matcher: Matcher,
    pub(super) test: plan::Test,
}

/// A fact of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen<'a> {
    Nothing,
    Text(Cow<'a, str>),
    Address(IpAddr),
    Number(u64),
}

/// The groups of the last regex that matched: a copy, because what it matched may have been made for the comparison.
#[derive(Debug, Default)]
pub(super) struct Groups {
    text: String,
    ranges: Vec<Option<Range<usize>>>,
}

impl Groups {
    /// Matches, and keeps the groups if it does.
    pub(super) fn fill(&mut self, regex: &Regex, text: &str) -> bool {
        let Some(captures) = regex.captures(text) else { return false };
        self.text.clear();
        self.text.push_str(text);
        self.ranges.clear();
        self.ranges.extend(captures.iter().map(|group| group.map(|group| group.range())));
        true
    }

    /// Group `n`; 0 is the whole match.
    pub(super) fn get(&self, n: u8) -> Option<&str> {
        self.ranges.get(usize::from(n))?.clone().map(|range| &self.text[range])
    }
}

impl Condition {
    pub(super) fn compile(condition: &plan::Condition) -> Result<Self, String> {
        let each = |parts: &[plan::Condition]| parts.iter().map(Self::compile).collect::<Result<Box<[_]>, _>>();
        Ok(match condition {
            plan::Condition::Always => Self::Always,
            plan::Condition::All(parts) => Self::All(each(parts)?),
            plan::Condition::Any(parts) => Self::Any(each(parts)?),
            plan::Condition::Not(part) => Self::Not(Box::new(Self::compile(part)?)),
            plan::Condition::Is(fact, test) => {
                let matcher = Matcher::compile(fact, test)?;
                Self::Is(Box::new(Comparison { fact: lower_case_names(fact), matcher, test: test.clone() }))
            }
        })
    }

    pub(super) fn holds(&self, view: &View<'_>, groups: &mut Groups, keep_groups: bool) -> bool {
        match self {
            Self::Always => true,
            Self::All(parts) => parts.iter().all(|part| part.holds(view, groups, keep_groups)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(view, groups, keep_groups)),
            Self::Not(part) => !part.holds(view, groups, keep_groups),
            Self::Is(comparison) => comparison.matcher.matches(&look(&comparison.fact, view), groups, keep_groups),
        }
    }
}

fn lower_case_names(fact: &Fact) -> Fact {
    match fact {
        Fact::Header(name) => Fact::Header(name.to_ascii_lowercase()),
        Fact::ResponseHeader(name) => Fact::ResponseHeader(name.to_ascii_lowercase()),
        Fact::ClientAddress
        | Fact::LocalAddress
        | Fact::LocalPort
        | Fact::Method
        | Fact::Host
        | Fact::Path
        | Fact::RawUrl
        | Fact::Query
        | Fact::QueryParameter(_)
        | Fact::Cookie(_)
        | Fact::Version
        | Fact::Tls
        | Fact::TlsVersion
        | Fact::TlsServerName
        | Fact::TlsClientSubject
        | Fact::Status
        | Fact::TimeOfDay
        | Fact::Weekday => fact.clone(),
    }
}

/// Looks a fact up. A text that is empty where the request has none (host, query) is not there.
pub(super) fn look<'a>(fact: &Fact, view: &View<'a>) -> Seen<'a> {
    let facts = view.scope.facts;
    let text = |text: &'a str| if text.is_empty() { Seen::Nothing } else { Seen::Text(Cow::Borrowed(text)) };
    let maybe = |text: Option<Cow<'a, str>>| text.map_or(Seen::Nothing, Seen::Text);
    let tls = facts.tls();
    match fact {
        Fact::ClientAddress => Seen::Address(facts.client()),
        Fact::LocalAddress => Seen::Address(facts.local().ip()),
        Fact::LocalPort => Seen::Number(facts.local().port().into()),
        Fact::Method => text(facts.method()),
        Fact::Host => text(view.host()),
        Fact::Path => text(view.path()),
        Fact::RawUrl => text(facts.raw_url()),
        Fact::Query => maybe(view.query().map(Cow::Borrowed)),
        Fact::QueryParameter(name) => maybe(view.query().and_then(|query| super::parameter(query, name))),
        Fact::Header(name) => maybe(view.header(name)),
        Fact::Cookie(name) => maybe(view.cookie(name)),
        Fact::Version => text(facts.version()),
        Fact::Tls => text(if tls.is_some() { "true" } else { "false" }),
        Fact::TlsVersion => text(tls.map_or("", |tls| tls.version)),
        Fact::TlsServerName => maybe(tls.and_then(|tls| tls.server_name.as_deref()).map(Cow::Borrowed)),
        Fact::TlsClientSubject => {
            maybe(tls.and_then(|tls| tls.client.as_ref()).map(|client| Cow::Borrowed(client.subject.as_str())))
        }
        Fact::Status => view.scope.response.map_or(Seen::Nothing, |response| Seen::Number(response.status().into())),
        Fact::ResponseHeader(name) => maybe(view.response_header(name)),
        Fact::TimeOfDay => Seen::Number(view.scope.unix_s % 86_400),
        Fact::Weekday => text(weekday(view.scope.unix_s)),
    }
}

fn weekday(unix_s: u64) -> &'static str {
    // 1 January 1970 was a Thursday.
    const DAYS: [&str; 7] = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
    usize::try_from(unix_s / 86_400 % 7).ok().and_then(|day| DAYS.get(day)).copied().unwrap_or("")
}
