//! What rules want changed. The engine keeps one for each request and clears it for the next: texts live in one buffer, so
//! that nothing is allocated once it has grown.

use std::{borrow::Cow, ops::Range, sync::Arc};

use super::{
    super::limit::{Bandwidth, Lease},
    RuleId,
};

/// Fields that stay in spite of an allow-list: framing, routing, and how the body is to be read.
const ALWAYS_ALLOWED: [&str; 12] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "expect",
    "host",
    "sec-websocket-accept",
    "sec-websocket-key",
    "sec-websocket-version",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What rules want changed in a request and its response.
#[derive(Debug, Default)]
pub struct Edits {
    /// Header fields of the request.
    pub request: HeaderEdits,
    /// Header fields of the response, whoever answers.
    pub response: HeaderEdits,
    /// The last rule that matched.
    pub rule: Option<RuleId>,
    /// Bandwidth classes that count the transfer.
    pub bandwidth: Vec<Arc<Bandwidth>>,
    /// Requests at a time that this one counts in: until the edits are cleared.
    pub leases: Vec<Lease>,
    text: String,
    host: Option<Range<usize>>,
    path: Option<Range<usize>>,
    /// An empty range: no query.
    query: Option<Range<usize>>,
    location: Option<Range<usize>>,
    body: Option<Range<usize>>,
    content_type: Option<Range<usize>>,
    notes: Vec<(NoteKind, RuleId, Range<usize>)>,
}

/// What a rule has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// A line for the log.
    Log,
    /// An event.
    Event,
}

/// Which text of the edits is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Host,
    Path,
    Query,
    Location,
    Body,
    ContentType,
}

impl Edits {
    /// Forgets everything, for the next request; ends the leases.
    pub fn clear(&mut self) {
        self.request.clear();
        self.response.clear();
        self.rule = None;
        self.bandwidth.clear();
        self.leases.clear();
        self.text.clear();
        for place in [
            &mut self.host,
            &mut self.path,
            &mut self.query,
            &mut self.location,
            &mut self.body,
            &mut self.content_type,
        ] {
            *place = None;
        }
        self.notes.clear();
    }

    /// The new host, if it was set.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.at(self.host.as_ref())
    }

    /// The new path, normalised, if it was changed.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.at(self.path.as_ref())
    }

    /// The new query, if it was changed; `Some(None)`: it was taken out.
    #[must_use]
    pub fn query(&self) -> Option<Option<&str>> {
        self.at(self.query.as_ref()).map(|query| Some(query).filter(|query| !query.is_empty()))
    }

    /// Where a redirect leads.
    #[must_use]
    pub fn location(&self) -> &str {
        self.at(self.location.as_ref()).unwrap_or("")
    }

    /// The body of an answer.
    #[must_use]
    pub fn body(&self) -> &str {
        self.at(self.body.as_ref()).unwrap_or("")
    }

    /// The media type of an answer; empty: none.
    #[must_use]
    pub fn content_type(&self) -> &str {
        self.at(self.content_type.as_ref()).unwrap_or("")
    }

    /// Whether rules have anything to say.
    #[must_use]
    pub fn has_notes(&self) -> bool {
        !self.notes.is_empty()
    }

    /// What rules have to say, with control characters shown as `\xNN`.
    pub fn notes(&self) -> impl Iterator<Item = (NoteKind, RuleId, &str)> {
        self.notes.iter().map(|(kind, rule, range)| (*kind, *rule, &self.text[range.clone()]))
    }

    pub(super) fn put(&mut self, place: Place, text: &str) {
        let range = self.append(text);
        *match place {
            Place::Host => &mut self.host,
            Place::Path => &mut self.path,
            Place::Query => &mut self.query,
            Place::Location => &mut self.location,
            Place::Body => &mut self.body,
            Place::ContentType => &mut self.content_type,
        } = Some(range);
    }

    pub(super) fn note(&mut self, kind: NoteKind, rule: RuleId, text: &str) {
        let range = self.append(text);
        self.notes.push((kind, rule, range));
    }

    fn append(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }

    fn at(&self, range: Option<&Range<usize>>) -> Option<&str> {
        range.map(|range| &self.text[range.clone()])
    }
}

/// What is to be changed in the header fields of a message. Names are lower case.
///
/// Whoever writes the head leaves out the fields that [`Self::removes`] names and appends [`Self::added`].
#[derive(Debug, Default)]
pub struct HeaderEdits {
    text: String,
    removed: Vec<Range<usize>>,
    /// Name and value; taken out again when a later rule takes that name out.
    added: Vec<(Range<usize>, Range<usize>)>,
    allowed: Vec<Arc<[Box<str>]>>,
}

impl HeaderEdits {
    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty() && self.allowed.is_empty()
    }

    /// Whether fields of that (lower-case) name that came are taken out.
    #[must_use]
    pub fn removes(&self, name: &str) -> bool {
        self.removed.iter().any(|removed| &self.text[removed.clone()] == name)
            || self.allowed.iter().any(|allowed| !is_allowed(allowed, name))
    }

    /// Fields that are appended, in order.
    pub fn added(&self) -> impl Iterator<Item = (&str, &str)> {
        self.added.iter().map(|(name, value)| (&self.text[name.clone()], &self.text[value.clone()]))
    }

    /// What a field of that (lower-case) name is after the changes; `original` is what it was.
    pub fn seen<'a>(&'a self, name: &str, original: impl FnOnce() -> Option<Cow<'a, str>>) -> Option<Cow<'a, str>> {
        if self.is_empty() {
            return original();
        }
        let mut value = if self.removes(name) { None } else { original() };
        for (_, added) in self.added().filter(|(added, _)| added.eq_ignore_ascii_case(name)) {
            value = Some(match value {
                None => Cow::Borrowed(added),
                Some(before) => Cow::Owned(format!("{before}, {added}")),
            });
        }
        value
    }

    /// Does after its own changes what `later` does.
    pub fn follow(&mut self, later: &Self) {
        for name in &later.removed {
            self.remove(&later.text[name.clone()]);
        }
        for (name, value) in later.added() {
            self.add(name, value);
        }
        for names in &later.allowed {
            self.allow(names);
        }
    }

    /// Replaces what came by one field.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.add(name, value);
    }

    /// Appends a field.
    pub fn add(&mut self, name: &str, value: &str) {
        let name = self.append(name);
        let value = self.append(value);
        self.added.push((name, value));
    }

    /// Takes out all fields of a (lower-case) name, those added before included.
    pub fn remove(&mut self, name: &str) {
        self.forget(|added| added == name);
        if !self.removed.iter().any(|removed| &self.text[removed.clone()] == name) {
            let name = self.append(name);
            self.removed.push(name);
        }
    }

    /// Takes out all but these and what framing and routing need.
    pub(super) fn allow(&mut self, names: &Arc<[Box<str>]>) {
        self.forget(|added| !is_allowed(names, added));
        self.allowed.push(Arc::clone(names));
    }

    pub(super) fn touches(&self, name: &str) -> bool {
        self.removes(name) || self.added().any(|(added, _)| added == name)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.text.clear();
        self.removed.clear();
        self.added.clear();
        self.allowed.clear();
    }

    fn forget(&mut self, goes: impl Fn(&str) -> bool) {
        let text = &self.text;
        self.added.retain(|(name, _)| !goes(&text[name.clone()]));
    }

    fn append(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }
}

fn is_allowed(allowed: &[Box<str>], name: &str) -> bool {
    ALWAYS_ALLOWED.contains(&name) || allowed.iter().any(|allowed| **allowed == *name)
}
