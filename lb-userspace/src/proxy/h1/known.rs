//! Field names that the proxy acts on, recognised once when a head is parsed.

/// A field name: one of those the proxy knows, or another.
///
/// The discriminants are positions in [`KnownSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the field of its name, RFC 9110 and the IANA registry; see NAMES")]
pub enum Known {
    Other,
    Connection,
    ContentLength,
    TransferEncoding,
    Host,
    Upgrade,
    Te,
    Trailer,
    KeepAlive,
    ProxyConnection,
    Expect,
    Http2Settings,
    ProxyAuthorization,
    ProxyAuthenticate,
    Cookie,
    SetCookie,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    XForwardedPort,
    XRealIp,
    XClusterClientIp,
    TrueClientIp,
    Forwarded,
    Via,
    Traceparent,
    Tracestate,
    Date,
    Server,
    Location,
    Vary,
    Etag,
    Range,
    ContentType,
    ContentEncoding,
    ContentRange,
    Accept,
    AcceptEncoding,
    AcceptLanguage,
    UserAgent,
    Referer,
    Origin,
    Authorization,
    CacheControl,
    Pragma,
    SecWebsocketKey,
    SecWebsocketVersion,
    SecWebsocketAccept,
    SecWebsocketProtocol,
    SecWebsocketExtensions,
    ProxyStatus,
    LastModified,
    IfNoneMatch,
    IfModifiedSince,
    ContentLocation,
    StrictTransportSecurity,
}

/// Every known name, lower case.
const NAMES: [(Known, &str); 55] = {
    use Known::*;
    [
        (Connection, "connection"),
        (ContentLength, "content-length"),
        (TransferEncoding, "transfer-encoding"),
        (Host, "host"),
        (Upgrade, "upgrade"),
        (Te, "te"),
        (Trailer, "trailer"),
        (KeepAlive, "keep-alive"),
        (ProxyConnection, "proxy-connection"),
        (Expect, "expect"),
        (Http2Settings, "http2-settings"),
        (ProxyAuthorization, "proxy-authorization"),
        (ProxyAuthenticate, "proxy-authenticate"),
        (Cookie, "cookie"),
        (SetCookie, "set-cookie"),
        (XForwardedFor, "x-forwarded-for"),
        (XForwardedProto, "x-forwarded-proto"),
        (XForwardedHost, "x-forwarded-host"),
        (XForwardedPort, "x-forwarded-port"),
        (XRealIp, "x-real-ip"),
        (XClusterClientIp, "x-cluster-client-ip"),
        (TrueClientIp, "true-client-ip"),
        (Forwarded, "forwarded"),
        (Via, "via"),
        (Traceparent, "traceparent"),
        (Tracestate, "tracestate"),
        (Date, "date"),
        (Server, "server"),
        (Location, "location"),
        (Vary, "vary"),
        (Etag, "etag"),
        (Range, "range"),
        (ContentType, "content-type"),
        (ContentEncoding, "content-encoding"),
        (ContentRange, "content-range"),
        (Accept, "accept"),
        (AcceptEncoding, "accept-encoding"),
        (AcceptLanguage, "accept-language"),
        (UserAgent, "user-agent"),
        (Referer, "referer"),
        (Origin, "origin"),
        (Authorization, "authorization"),
        (CacheControl, "cache-control"),
        (Pragma, "pragma"),
        (SecWebsocketKey, "sec-websocket-key"),
        (SecWebsocketVersion, "sec-websocket-version"),
        (SecWebsocketAccept, "sec-websocket-accept"),
        (SecWebsocketProtocol, "sec-websocket-protocol"),
        (SecWebsocketExtensions, "sec-websocket-extensions"),
        (ProxyStatus, "proxy-status"),
        (LastModified, "last-modified"),
        (IfNoneMatch, "if-none-match"),
        (IfModifiedSince, "if-modified-since"),
        (ContentLocation, "content-location"),
        (StrictTransportSecurity, "strict-transport-security"),
    ]
};

/// Where the name of each hash stands in `NAMES`, plus one; 0: no known name has it. Built, and checked to be free of
/// collisions, by the compiler: a name costs one hash and at most one comparison.
const BY_HASH: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < NAMES.len() {
        let slot = hash(NAMES[at].1.as_bytes());
        assert!(table[slot] == 0, "two names have one hash: choose other factors in `hash`");
        assert!(NAMES[at].0 as usize == at + 1, "NAMES is in the order of Known");
        table[slot] = at as u8 + 1;
        at += 1;
    }
    table
};

/// Of a name with at least two bytes, in any case. The factors were searched for: no two known names share a hash.
const fn hash(name: &[u8]) -> usize {
    let length = name.len();
    let (first, last, before) = (name[0] | 0x20, name[length - 1] | 0x20, name[length - 2] | 0x20);
    (length + first as usize * 3 + last as usize * 24 + before as usize * 2) & 255
}

impl Known {
    /// The name `name`, in any case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        if name.len() < 2 {
            return Self::Other;
        }
        match NAMES.get(usize::from(BY_HASH[hash(name)]).wrapping_sub(1)) {
            Some((known, text)) if text.as_bytes().eq_ignore_ascii_case(name) => *known,
            _ => Self::Other,
        }
    }

    /// Its name in lower case; empty for [`Known::Other`].
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.get((self as usize).wrapping_sub(1)).map_or("", |(_, name)| name)
    }
}

/// A set of known names; [`Known::Other`] may be in it, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownSet(u64);

impl KnownSet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// Fields that concern one connection only (RFC 9110 §7.6.1) or that every head gets anew: host and framing.
    pub const NEVER_COPIED: Self = Self::of(&[
        Known::Connection,
        Known::ContentLength,
        Known::TransferEncoding,
        Known::Host,
        Known::Upgrade,
        Known::Te,
        Known::Trailer,
        Known::KeepAlive,
        Known::ProxyConnection,
        Known::Expect,
        Known::Http2Settings,
        Known::ProxyAuthorization,
        Known::ProxyAuthenticate,
    ]);

    /// What tells a node who the client is: believed only of trusted proxies.
    pub const OF_CLIENT: Self = Self::of(&[
        Known::XForwardedFor,
        Known::XForwardedProto,
        Known::XForwardedHost,
        Known::XForwardedPort,
        Known::XRealIp,
        Known::XClusterClientIp,
        Known::TrueClientIp,
        Known::Forwarded,
    ]);

    /// These.
    #[must_use]
    pub const fn of(names: &[Known]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < names.len() {
            bits |= 1 << names[at] as u64;
            at += 1;
        }
        Self(bits)
    }

    /// Whether `known` is in it.
    #[must_use]
    pub const fn contains(self, known: Known) -> bool {
        self.0 >> known as u64 & 1 == 1
    }

    /// Both together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds `known`; whether it is new.
    pub const fn insert(&mut self, known: Known) -> bool {
        let new = !self.contains(known);
        self.0 |= 1 << known as u64;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, KnownSet, NAMES};

    #[test]
    fn names_are_known_in_any_case_and_nothing_else_is() {
        for (known, name) in NAMES {
            assert_eq!(Known::of(name.as_bytes()), known, "{name}");
            assert_eq!(Known::of(name.to_ascii_uppercase().as_bytes()), known, "{name}");
            assert_eq!(known.name(), name);
            assert_eq!(Known::of(format!("{name}x").as_bytes()), Known::Other);
            assert_eq!(Known::of(name.replace('-', "_").as_bytes()) == known, !name.contains('-'));
        }
        for other in ["", "x", "hos", "hosts", "content\rlength", "\u{0}\u{0}"] {
            assert_eq!(Known::of(other.as_bytes()), Known::Other, "{other:?}");
        }
        assert_eq!(Known::Other.name(), "");
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let mut set = KnownSet::of(&[Known::Via]);
        assert!(set.insert(Known::StrictTransportSecurity) && !set.insert(Known::Via));
        assert!(set.contains(Known::Via) && set.contains(Known::StrictTransportSecurity));
        assert!(!set.contains(Known::Other) && !KnownSet::EMPTY.contains(Known::Via));
        assert!(set.union(KnownSet::of(&[Known::Other])).contains(Known::Other));
    }
}
