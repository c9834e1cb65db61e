//! What rules must hold before they are compiled: everything but the names of pools and classes, which the configuration
//! looks up itself. Said here once, for the configuration (which shows mistakes) and for `proxy::rules` (which relies on it).

use std::net::IpAddr;

use super::{Action, Condition, Fact, Rule, Rules, Test};
use crate::control::proxy::template::{Place, Template};

/// Rules of one phase; more would be a program rather than rules.
pub const MAX_RULES: usize = 1000;
/// Conditions within conditions.
const MAX_DEPTH: usize = 16;
/// Bytes of a compiled regex, and of its caches (H19).
pub const REGEX_BYTES: usize = 1 << 20;

/// Fields that frame a message or belong to one connection: rules may not touch them, or two parsers could read a message
/// differently (RFC 9112 §6.3, RFC 9110 §7.6.1).
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Something wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `request`, `response` or `completion`.
    pub phase: &'static str,
    /// The rule's position in its phase.
    pub position: usize,
    /// The rule's name.
    pub rule: String,
    /// Where in the rule: `when.all[1]`, `actions[0]`.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rule {:?}, {}: {}", self.phase, self.rule, self.place, self.what)
    }
}

impl std::error::Error for Mistake {}

/// When a list of rules runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the pool is chosen.
    Request,
    /// After the node answered.
    Response,
    /// When all is done.
    Completion,
}

impl Phase {
    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
            Self::Completion => "completion",
        }
    }

    /// What its texts may tell.
    #[must_use]
    pub fn place(self) -> Place {
        match self {
            Self::Request => Place::Request,
            Self::Response | Self::Completion => Place::Response,
        }
    }
}

impl Rules {
    /// Everything wrong with them, in order.
    #[must_use]
    pub fn mistakes(&self) -> Vec<Mistake> {
        let phases =
            [(Phase::Request, &self.request), (Phase::Response, &self.response), (Phase::Completion, &self.completion)];
        let mut found = Vec::new();
        for (phase, rules) in phases {
            for (position, rule) in rules.iter().enumerate() {
                let mut check = Check { phase, position, rule, found: &mut found };
                if position == MAX_RULES {
                    check.mistake("name", format!("more than {MAX_RULES} rules"));
                    break;
                }
                check.rule();
            }
        }
        found
    }
}

/// Compiles a regex within the limits of rules.
///
/// # Errors
/// Syntax, or too large.
pub fn regex(text: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(text).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build()
}

/// Whether `name` is a token (RFC 9110 §5.6.2): the grammar of field and cookie names.
#[must_use]
pub fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether `text` may become part of a head: no control character, neither plain nor percent-encoded (H6). Encoded ones are
/// refused too, because whoever reads the head may decode them.
#[must_use]
pub fn is_safe(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(&byte) = rest.first() {
        if (byte < 0x20 && byte != b'\t') || byte == 0x7f {
            return false;
        }
        if byte == b'%' && matches!(rest, [_, b'0', b'0' | b'd' | b'D' | b'a' | b'A', ..]) {
            return false;
        }
        rest = &rest[1..];
    }
    true
}

struct Check<'a> {
    phase: Phase,
    position: usize,
    rule: &'a Rule,
    found: &'a mut Vec<Mistake>,
}

impl Check<'_> {
    fn mistake(&mut self, place: &str, what: impl Into<String>) {
        self.found.push(Mistake {
            phase: self.phase.name(),
            position: self.position,
            rule: self.rule.name.clone(),
            place: place.to_owned(),
            what: what.into(),
        });
    }

    fn rule(&mut self) {
        let rule = self.rule;
        self.condition(&rule.when, "when", 0);
        if rule.actions.is_empty() {
            self.mistake("actions", "it does nothing");
        }
        for (i, action) in rule.actions.iter().enumerate() {
            let place = format!("actions[{i}]");
            self.action(action, &place);
            if action.is_terminal() && i + 1 < rule.actions.len() {
                self.mistake(&place, "it ends the list of rules: what follows is never done");
            }
        }
    }

    fn condition(&mut self, condition: &Condition, place: &str, depth: usize) {
        if depth > MAX_DEPTH {
            return self.mistake(place, format!("more than {MAX_DEPTH} conditions within each other"));
        }
        match condition {
            Condition::Always => {}
            Condition::All(parts) => self.parts(parts, &format!("{place}.all"), depth),
            Condition::Any(parts) => self.parts(parts, &format!("{place}.any"), depth),
            Condition::Not(part) => self.condition(part, &format!("{place}.not"), depth + 1),
            Condition::Is(fact, test) => {
                self.fact(fact, place);
                if let Err(what) = test_fits(fact, test) {
                    self.mistake(place, what);
                }
            }
        }
    }

    fn parts(&mut self, parts: &[Condition], place: &str, depth: usize) {
        if parts.is_empty() {
            self.mistake(place, "it is empty");
        }
        for (i, part) in parts.iter().enumerate() {
            self.condition(part, &format!("{place}[{i}]"), depth + 1);
        }
    }

    fn fact(&mut self, fact: &Fact, place: &str) {
        if self.phase == Phase::Request && matches!(fact, Fact::Status | Fact::ResponseHeader(_)) {
            self.mistake(place, "a request rule runs before there is a response");
        }
        if let Fact::Header(name) | Fact::ResponseHeader(name) | Fact::Cookie(name) = fact
            && !is_token(name)
        {
            self.mistake(place, format!("{name:?} is no name of a field or cookie"));
        }
    }

    fn action(&mut self, action: &Action, place: &str) {
        let before_node = matches!(
            action,
            Action::Pool(_)
                | Action::Redirect { .. }
                | Action::SetPath(_)
                | Action::RewritePath { .. }
                | Action::SetQuery(_)
                | Action::Rate(_)
                | Action::MaxConnections(_)
        );
        let told = matches!(action, Action::Log(_) | Action::Event(_));
        match self.phase {
            Phase::Response if before_node => self.mistake(place, "only request rules can: the request has been sent"),
            Phase::Completion if !told => {
                self.mistake(place, "a completion rule can only log and raise events: the response has been sent");
            }
            Phase::Request | Phase::Response | Phase::Completion => {}
        }
        self.arguments(action, place);
    }

    fn arguments(&mut self, action: &Action, place: &str) {
        match action {
            Action::Redirect { status, to, .. } => {
                if ![301, 302, 303, 307, 308].contains(status) {
                    self.mistake(place, format!("status {status}: a redirect is 301, 302, 303, 307 or 308"));
                }
                self.url(to, place);
            }
            Action::Respond { status, content_type, body } => {
                if !(200..=599).contains(status) {
                    self.mistake(place, format!("status {status}: it must be 200 to 599"));
                }
                self.text(content_type, place);
                self.template(body, place);
            }
            Action::SetHeader(name, value) | Action::AddHeader(name, value) => {
                self.field(name, place);
                if name.eq_ignore_ascii_case("host") && matches!(action, Action::AddHeader(..)) {
                    self.mistake(place, "a request has one Host: set it");
                }
                self.text(value, place);
            }
            Action::DeleteHeader(name) => {
                self.field(name, place);
                if name.eq_ignore_ascii_case("host") {
                    self.mistake(place, "a request needs its Host");
                }
            }
            Action::AllowHeaders(names) => {
                for name in names {
                    if !is_token(name) {
                        self.mistake(place, format!("{name:?} is no name of a header field"));
                    }
                }
            }
            Action::SetPath(path) => {
                self.text(path, place);
                if !path.starts_with('/') && !path.starts_with("%{") {
                    self.mistake(place, "a path begins with `/`");
                }
            }
            Action::RewritePath { regex: text, with } => {
                if let Err(error) = regex(text) {
                    self.mistake(place, error.to_string());
                }
                if !is_safe(with.as_bytes()) {
                    self.mistake(place, "control characters");
                }
            }
            Action::SetCookie { name, value, attributes } => {
                self.cookie(name, place);
                self.text(value, place);
                self.text(attributes, place);
            }
            Action::DeleteCookie(name) => self.cookie(name, place),
            Action::SetQuery(text) => {
                self.url(text, place);
                if text.contains('#') {
                    self.mistake(place, "a query has no `#`: %23 stands for it");
                }
            }
            Action::CacheControl(text) => self.text(text, place),
            Action::Log(text) | Action::Event(text) => self.template(text, place),
            Action::MaxConnections(0) => self.mistake(place, "0 requests at a time: use respond or drop"),
            Action::Pool(_) | Action::Drop | Action::Rate(_) | Action::MaxConnections(_) | Action::Bandwidth(_) => {}
        }
    }

    fn field(&mut self, name: &str, place: &str) {
        if !is_token(name) {
            self.mistake(place, format!("{name:?} is no name of a header field"));
        }
        if FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
            self.mistake(place, format!("{name} belongs to the connection: rules may not touch it"));
        }
    }

    fn cookie(&mut self, name: &str, place: &str) {
        if !is_token(name) {
            self.mistake(place, format!("{name:?} is no name of a cookie"));
        }
    }

    /// A template that becomes part of a head.
    fn text(&mut self, text: &str, place: &str) {
        if !is_safe(text.as_bytes()) {
            self.mistake(place, "control characters, plain or percent-encoded");
        }
        self.template(text, place);
    }

    /// A text that becomes part of a request line, or of `Location`.
    fn url(&mut self, text: &str, place: &str) {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.mistake(
                place,
                "a URL has neither blanks nor other characters than those of ASCII: percent-encode them",
            );
        }
        self.text(text, place);
    }

    fn template(&mut self, text: &str, place: &str) {
        if let Err(error) = Template::parse(text, self.phase.place()) {
            self.mistake(place, error.to_string());
        }
    }
}

impl Action {
    /// Whether it ends the list of rules.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Pool(_) | Self::Redirect { .. } | Self::Respond { .. } | Self::Drop)
    }
}

/// What a fact is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An IP address.
    Address,
    /// A number.
    Number,
    /// A text.
    Text,
}

impl Fact {
    /// What it is made of.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::ClientAddress | Self::LocalAddress => Kind::Address,
            Self::LocalPort | Self::Status | Self::TimeOfDay => Kind::Number,
            Self::Method
            | Self::Host
            | Self::Path
            | Self::RawUrl
            | Self::Query
            | Self::QueryParameter(_)
            | Self::Header(_)
            | Self::Cookie(_)
            | Self::Version
            | Self::Tls
            | Self::TlsVersion
            | Self::TlsServerName
            | Self::TlsClientSubject
            | Self::ResponseHeader(_)
            | Self::Weekday => Kind::Text,
        }
    }
}

fn test_fits(fact: &Fact, test: &Test) -> Result<(), String> {
    match test {
        Test::Present => Ok(()),
        Test::OneOf(values) => {
            non_empty(values)?;
            values.iter().try_for_each(|value| value_fits(fact, value))
        }
        Test::Prefix(values) | Test::Suffix(values) | Test::Contains(values) => {
            non_empty(values)?;
            if values.iter().any(String::is_empty) {
                return Err("an empty text is part of every text".to_owned());
            }
            text_only(fact)
        }
        Test::Regex(text) => {
            text_only(fact)?;
            regex(text).map(drop).map_err(|error| error.to_string())
        }
        Test::Within(networks) => match fact.kind() {
            Kind::Number => Err("a number is in no network: give a range".to_owned()),
            Kind::Address | Kind::Text if networks.is_empty() => Err("it is empty".to_owned()),
            Kind::Address | Kind::Text => Ok(()),
        },
        Test::Range(from, to) => match fact.kind() {
            Kind::Address => Err("an address is in no range of numbers: give networks".to_owned()),
            Kind::Number | Kind::Text if from > to => Err(format!("{from} is above {to}")),
            Kind::Number | Kind::Text => Ok(()),
        },
    }
}

fn non_empty(values: &[String]) -> Result<(), String> {
    if values.is_empty() { Err("it is empty".to_owned()) } else { Ok(()) }
}

fn text_only(fact: &Fact) -> Result<(), String> {
    match fact.kind() {
        Kind::Text => Ok(()),
        Kind::Address => Err("an address is compared by `one_of` or `within`".to_owned()),
        Kind::Number => Err("a number is compared by `one_of` or `range`".to_owned()),
    }
}

fn value_fits(fact: &Fact, value: &str) -> Result<(), String> {
    let words: &[&str] = match fact {
        Fact::Weekday => &["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
        Fact::Tls => &["true", "false"],
        Fact::Version => &["1.0", "1.1", "2"],
        Fact::TlsVersion => &["1.2", "1.3"],
        Fact::ClientAddress | Fact::LocalAddress => {
            return value.parse::<IpAddr>().map(drop).map_err(|_| format!("{value:?} is no IP address"));
        }
        Fact::LocalPort | Fact::Status | Fact::TimeOfDay => {
            return value.parse::<u64>().map(drop).map_err(|_| format!("{value:?} is no number"));
        }
        Fact::Method
        | Fact::Host
        | Fact::Path
        | Fact::RawUrl
        | Fact::Query
        | Fact::QueryParameter(_)
        | Fact::Header(_)
        | Fact::Cookie(_)
        | Fact::TlsServerName
        | Fact::TlsClientSubject
        | Fact::ResponseHeader(_) => return Ok(()),
    };
    if words.contains(&value) { Ok(()) } else { Err(format!("{value:?} is not one of {}", words.join(", "))) }
}

#[cfg(test)]
mod tests;
