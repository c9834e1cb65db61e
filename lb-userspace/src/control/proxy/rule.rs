//! Rules: typed conditions and actions, evaluated in order on request, response and completion. Compiled by `proxy::rules`.

use serde::{Deserialize, Serialize};

pub mod check;

/// The rules of a virtual server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Before the pool is chosen.
    pub request: Vec<Rule>,
    /// After the node answered.
    pub response: Vec<Rule>,
    /// When all is done.
    pub completion: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name: for logs, counters and `lbctl trace`.
    pub name: String,
    /// When it applies.
    pub when: Condition,
    /// What it does, in order. A terminal action ends the list of rules.
    pub actions: Vec<Action>,
}

/// When a rule applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Always.
    #[default]
    Always,
    /// All of them.
    All(Vec<Condition>),
    /// At least one.
    Any(Vec<Condition>),
    /// Not this.
    Not(Box<Condition>),
    /// A fact compares.
    Is(Fact, Test),
}

/// What is looked at. Texts are compared as they are unless said otherwise; a fact that is not there fails every test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The client's address (behind trusted proxies: the one they tell).
    ClientAddress,
    /// The address the client connected to.
    LocalAddress,
    /// The port the client connected to.
    LocalPort,
    /// The method.
    Method,
    /// The host: lower case, without port.
    Host,
    /// The path, normalised: what is forwarded too.
    Path,
    /// The target as it came.
    RawUrl,
    /// The query without `?`.
    Query,
    /// A parameter of the query, percent-decoded.
    QueryParameter(String),
    /// A request header field, lower case; several are joined by `, `.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// `1.0`, `1.1` or `2`.
    Version,
    /// Whether the client side is TLS: `true` or `false`.
    Tls,
    /// `1.2` or `1.3`.
    TlsVersion,
    /// The server name the client asked for.
    TlsServerName,
    /// Subject of the verified client certificate.
    TlsClientSubject,
    /// Status of the response (response and completion rules).
    Status,
    /// A response header field (response and completion rules).
    ResponseHeader(String),
    /// Seconds since midnight UTC.
    TimeOfDay,
    /// Day of week: `mon` … `sun`, UTC.
    Weekday,
}

/// How a fact is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// It is there.
    Present,
    /// It is one of these.
    OneOf(Vec<String>),
    /// It begins with one of these.
    Prefix(Vec<String>),
    /// It ends with one of these.
    Suffix(Vec<String>),
    /// It contains one of these.
    Contains(Vec<String>),
    /// It matches (crate regex: linear time; size limited).
    Regex(String),
    /// An address within one of these networks.
    Within(Vec<super::Network>),
    /// A number within, inclusive.
    Range(u64, u64),
}

/// What a rule does. Texts may use the macros of [`super::template::Macro`], such as `%{host}`, `%{header:NAME}` or `%{1}`
/// (group of the last regex that matched). Values are checked for control characters after expansion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Takes this pool. Terminal.
    Pool(String),
    /// Redirects. Terminal.
    Redirect {
        /// Status: 301, 302, 303, 307 or 308.
        status: u16,
        /// Where to: `https://%{host}` keeps nothing else unless `keep_path`.
        to: String,
        /// Whether path and query of the request are appended.
        keep_path: bool,
    },
    /// Answers. Terminal.
    Respond {
        /// Status.
        status: u16,
        /// Media type of the body.
        content_type: String,
        /// Body.
        body: String,
    },
    /// Closes the connection without an answer. Terminal.
    Drop,
    /// Sets a header field (of the request, or of the response in response rules) and takes out others of that name.
    SetHeader(String, String),
    /// Adds one.
    AddHeader(String, String),
    /// Takes out all of that name.
    DeleteHeader(String),
    /// Takes out all but these and what framing and routing need.
    AllowHeaders(Vec<String>),
    /// Replaces the path.
    SetPath(String),
    /// Replaces what a regex matches in the path.
    RewritePath {
        /// The regex.
        regex: String,
        /// With `$1`.
        with: String,
    },
    /// Replaces the query; empty: none.
    SetQuery(String),
    /// Sets a cookie of the response.
    SetCookie {
        /// Name.
        name: String,
        /// Value.
        value: String,
        /// Attributes, such as `Path=/; Secure`.
        attributes: String,
    },
    /// Takes a cookie out of the request, or expires it in the response.
    DeleteCookie(String),
    /// Sets `Cache-Control` of the response.
    CacheControl(String),
    /// Writes a line to the log.
    Log(String),
    /// Raises an event.
    Event(String),
    /// Counts in a rate class; what is above is answered 429. Not terminal below the limit.
    Rate(String),
    /// Allows so many requests of this rule at a time; above: 503.
    MaxConnections(u32),
    /// Counts the transfer in a bandwidth class.
    Bandwidth(String),
}

/// What a rule has to say of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleEvent {
    /// Whether it is an event, or a line for the log alone.
    pub is_event: bool,
    /// Name of the virtual server.
    pub virtual_server: String,
    /// Name of the rule.
    pub rule: String,
    /// 32 hexadecimal digits, as in access logs.
    pub request_id: String,
    /// The rule's text, expanded, with control characters shown as `\xNN`.
    pub text: String,
}
