//! The values that a configuration writes as text: how each is read, shown and described. Pure.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

mod amount;
mod community;
mod front_end;
mod key;
mod monitor;
mod socket;
mod url;

pub(super) use self::{
    amount::{ByteRate, Rate, Size},
    community::CommunityText,
    front_end::FrontEndText,
    key::{KeyText, is_token},
    monitor::{BytesText, PatternText, StatusText},
    socket::SocketText,
    url::Url,
};
use crate::control::proxy::Network;

/// A value that is written as text.
pub(super) trait Text: Sized {
    /// Name of the format in the schema.
    const FORMAT: &'static str;
    /// What it is, with an article: "a duration".
    const WHAT: &'static str;
    /// The type column of the reference.
    const SHAPE: &'static str;
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong, in few words.
    fn read(text: &str) -> Result<Self, String>;
    /// Writes it as it may be read.
    fn write(&self) -> String;
}

/// A length of time, 1 ms to 24 h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period(pub(super) Duration);

/// A timeout of flow records: whole seconds, 1 to 65535, as the data path keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seconds(pub(super) u16);

/// A node's address with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeAddress {
    pub(super) host: Host,
    pub(super) port: Option<u16>,
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A DNS name, lower case: its addresses are looked up while lbd runs. Only of pools that proxy.
    Name(String),
}

impl NodeAddress {
    /// The address; `None`: a name.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ip(ip) => Some(ip),
            Host::Name(_) => None,
        }
    }
}

/// An IP network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NetworkText(pub(super) Network);

/// Two ports and those between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortRange(pub(super) u16, pub(super) u16);

/// An absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AbsolutePath(pub(super) PathBuf);

/// The formats in which control characters may stand: what is sent to nodes and compared with what they send.
pub(super) const WITH_CONTROLS: [&str; 2] = [BytesText::FORMAT, PatternText::FORMAT];

/// What is said of a control character, right there.
pub(super) const CONTROL: &str = "a line break, or another character that is none to be read";

/// Whether a text has control characters. Nothing in a configuration needs them but what is sent; everywhere else they would end a
/// header field or a line of a log, or move a terminal's cursor. Tabs are let through.
pub(super) fn has_control(text: &str) -> bool {
    text.contains(|c: char| c.is_control() && c != '\t')
}

/// The formats, as the checker asks for them by name: what it is, and what is wrong with a text.
pub(super) fn complaint(format: &str, text: &str) -> Option<(&'static str, String)> {
    fn of<T: Text>(text: &str) -> Option<(&'static str, String)> {
        T::read(text).err().map(|wrong| (T::WHAT, wrong))
    }
    match format {
        Period::FORMAT => of::<Period>(text),
        Seconds::FORMAT => of::<Seconds>(text),
        NodeAddress::FORMAT => of::<NodeAddress>(text),
        PortRange::FORMAT => of::<PortRange>(text),
        AbsolutePath::FORMAT => of::<AbsolutePath>(text),
        NetworkText::FORMAT => of::<NetworkText>(text),
        CommunityText::FORMAT => of::<CommunityText>(text),
        FrontEndText::FORMAT => of::<FrontEndText>(text),
        SocketText::FORMAT => of::<SocketText>(text),
        Size::FORMAT => of::<Size>(text),
        Rate::FORMAT => of::<Rate>(text),
        ByteRate::FORMAT => of::<ByteRate>(text),
        KeyText::FORMAT => of::<KeyText>(text),
        PatternText::FORMAT => of::<PatternText>(text),
        BytesText::FORMAT => of::<BytesText>(text),
        StatusText::FORMAT => of::<StatusText>(text),
        Url::FORMAT => of::<Url>(text),
        "ip" => ip(text).err().map(|wrong| ("an IP address", wrong)),
        "ipv4" => (ip(text).and_then(|ip| if ip.is_ipv4() { Ok(()) } else { Err("an IPv6 address".to_owned()) }).err())
            .map(|wrong| ("an IPv4 address", wrong)),
        "ipv6" => (ip(text).and_then(|ip| if ip.is_ipv6() { Ok(()) } else { Err("an IPv4 address".to_owned()) }).err())
            .map(|wrong| ("an IPv6 address", wrong)),
        _ => None,
    }
}

impl Text for Period {
    const FORMAT: &'static str = "duration";
    const WHAT: &'static str = "a duration";
    const SHAPE: &'static str = "duration";

    fn read(text: &str) -> Result<Self, String> {
        let time = duration(text)?;
        let allowed = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);
        if allowed.contains(&time) { Ok(Self(time)) } else { Err("not within 1ms to 24h".to_owned()) }
    }

    fn write(&self) -> String {
        show(self.0)
    }
}

impl Text for Seconds {
    const FORMAT: &'static str = "seconds";
    const WHAT: &'static str = "a timeout";
    const SHAPE: &'static str = "whole seconds";

    fn read(text: &str) -> Result<Self, String> {
        let time = duration(text)?;
        if time.subsec_nanos() != 0 {
            return Err("not whole seconds".to_owned());
        }
        let seconds = u16::try_from(time.as_secs()).ok().filter(|seconds| *seconds > 0);
        seconds.map(Self).ok_or_else(|| "not within 1s to 65535s (18h 12m 15s)".to_owned())
    }

    fn write(&self) -> String {
        show(Duration::from_secs(self.0.into()))
    }
}

impl Text for NodeAddress {
    const FORMAT: &'static str = "node-address";
    const WHAT: &'static str = "a node's address";
    const SHAPE: &'static str = "`\"IP\"`, `\"IP:port\"` or `\"name:port\"`";

    fn read(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self { host: Host::Ip(ip), port: None });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            let port = address.port();
            let host = Host::Ip(address.ip());
            return if port == 0 { Err("port 0".to_owned()) } else { Ok(Self { host, port: Some(port) }) };
        }
        let (host, digits) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        let port = digits.and_then(|digits| digits.parse::<u16>().ok()).filter(|port| *port > 0);
        if is_host_name(host) && digits.is_some() == port.is_some() {
            return Ok(Self { host: Host::Name(host.trim_end_matches('.').to_ascii_lowercase()), port });
        }
        // Find the part that is wrong.
        match digits {
            Some(digits)
                if (is_host_name(host) || ip(host.trim_matches(['[', ']'])).is_ok()) && !host.contains("::") =>
            {
                Err(format!("{digits:?} is not a port"))
            }
            Some(_) if port.is_some() && !host.contains(':') => Err(ip(host).err().unwrap_or_default()),
            Some(_) | None => Err(ip(text).err().unwrap_or_default()),
        }
    }

    fn write(&self) -> String {
        match (&self.host, self.port) {
            (Host::Ip(ip), None) => ip.to_string(),
            (Host::Ip(ip), Some(port)) => SocketAddr::new(*ip, port).to_string(),
            (Host::Name(name), None) => name.clone(),
            (Host::Name(name), Some(port)) => format!("{name}:{port}"),
        }
    }
}

impl Text for NetworkText {
    const FORMAT: &'static str = "network";
    const WHAT: &'static str = "an IP network";
    const SHAPE: &'static str = "`\"IP/bits\"` or `\"IP\"`";

    fn read(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address = ip(address)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match bits {
            None => most,
            Some(bits) => (bits.parse::<u8>().ok().filter(|bits| *bits <= most))
                .ok_or_else(|| format!("{bits:?} is not a prefix length, 0 to {most}"))?,
        };
        Ok(Self(Network { address, prefix }))
    }

    fn write(&self) -> String {
        format!("{}/{}", self.0.address, self.0.prefix)
    }
}

impl Text for PortRange {
    const FORMAT: &'static str = "port-range";
    const WHAT: &'static str = "a range of ports";
    const SHAPE: &'static str = "`\"first-last\"`";

    fn read(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first <= last { Ok(Self(first, last)) } else { Err("ends before it begins".to_owned()) }
    }

    fn write(&self) -> String {
        if self.0 == self.1 { self.0.to_string() } else { format!("{}-{}", self.0, self.1) }
    }
}

impl Text for AbsolutePath {
    const FORMAT: &'static str = "path";
    const WHAT: &'static str = "an absolute path";
    const SHAPE: &'static str = "absolute path";

    fn read(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        if !path.is_absolute() {
            return Err("does not begin with /".to_owned());
        }
        if text.contains('\0') { Err("contains a zero byte".to_owned()) } else { Ok(Self(path)) }
    }

    fn write(&self) -> String {
        self.0.display().to_string()
    }
}

/// Whether this may be a DNS name of a host (RFC 1123 §2.1): its last label is not a number, so that mistyped addresses are
/// not names.
pub(super) fn is_host_name(text: &str) -> bool {
    /// RFC 1035 §2.3.4, without the root's dot.
    const MAX_BYTES: usize = 253;
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    (1..=MAX_BYTES).contains(&name.len()) && name.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("{:?} is not a port, 1 to 65535", text.trim()))
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        if text.contains('/') {
            "has a prefix length: an address alone is wanted".to_owned()
        } else if text.parse::<SocketAddr>().is_ok() {
            "has a port: an address alone is wanted".to_owned()
        } else if text.starts_with(|c: char| c.is_ascii_alphabetic()) && !text.contains(':') {
            "is a host name: an address is wanted".to_owned()
        } else {
            "not an IPv4 or IPv6 address".to_owned()
        }
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    if text.trim().parse::<f64>().is_ok() {
        return Err("has no unit".to_owned());
    }
    let time = jiff::SignedDuration::from_str(text).map_err(|_| "not understood".to_owned())?;
    Duration::try_from(time).map_err(|_| "negative".to_owned())
}

fn show(time: Duration) -> String {
    jiff::SignedDuration::try_from(time).map(|time| format!("{time:#}").replace(' ', "")).unwrap_or_default()
}

macro_rules! written_as_text {
    ($($type:ty),+) => { $(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::read(&String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.write())
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                Self::FORMAT.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": Self::FORMAT })
            }
            fn inline_schema() -> bool {
                true
            }
        }
    )+ };
}
written_as_text!(
    Period,
    Seconds,
    NodeAddress,
    PortRange,
    AbsolutePath,
    NetworkText,
    SocketText,
    CommunityText,
    FrontEndText,
    Size,
    Rate,
    ByteRate,
    KeyText,
    PatternText,
    BytesText,
    StatusText,
    Url
);
