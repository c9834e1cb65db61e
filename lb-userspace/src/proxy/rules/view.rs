//! A request and its response as a rule sees them: with what earlier rules changed.

use std::borrow::Cow;

use super::{Scope, edits::Edits};

/// Facts after edits.
pub(super) struct View<'a> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) edits: &'a Edits,
}

impl<'a> View<'a> {
    pub(super) fn host(&self) -> &'a str {
        self.edits.host().unwrap_or_else(|| self.scope.facts.host())
    }

    pub(super) fn path(&self) -> &'a str {
        self.edits.path().unwrap_or_else(|| self.scope.facts.path())
    }

    pub(super) fn query(&self) -> Option<&'a str> {
        self.edits.query().unwrap_or_else(|| self.scope.facts.query())
    }

    pub(super) fn header(&self, name: &str) -> Option<Cow<'a, str>> {
        if name == "host" {
            return Some(Cow::Borrowed(self.host())).filter(|host| !host.is_empty());
        }
        self.edits.request.seen(name, || self.scope.facts.header(name))
    }

    pub(super) fn cookie(&self, name: &str) -> Option<Cow<'a, str>> {
        if !self.edits.request.touches("cookie") {
            return self.scope.facts.cookie(name);
        }
        let header = self.header("cookie")?;
        let mut pairs = header.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| Cow::Owned(value.trim_matches('"').to_owned()))
    }

    pub(super) fn response_header(&self, name: &str) -> Option<Cow<'a, str>> {
        self.edits.response.seen(name, || self.scope.response.and_then(|response| response.header(name)))
    }
}
