//! Addresses and fields, by what they are made of.

use super::*;

/// Trusts 10.0.0.0/8 and fd00::/8.
fn identity() -> Identity {
    let trusted = [("10.0.0.0", 8), ("fd00::", 8)];
    let network = |(address, prefix): (&str, u8)| Network { address: address.parse().unwrap(), prefix };
    Identity { trusted: trusted.map(network).to_vec(), ..Identity::default() }
}

fn fields<'a>(list: &[(&'a str, &'a str)]) -> Vec<Field<'a>> {
    let field = |(name, value): &(&'a str, &'a str)| Field {
        name: name.as_bytes(),
        value: value.as_bytes(),
        known: Known::of(name.as_bytes()),
        listed: false,
    };
    list.iter().map(field).collect()
}

fn client_of(peer: &str, list: &[(&str, &str)], identity: &Identity) -> String {
    client(fields(list).into_iter(), peer.parse().unwrap(), identity).to_string()
}

#[test]
fn h7_the_client_is_the_rightmost_untrusted() {
    let xff = "X-Forwarded-For";
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 17] = [
        ("no proxy", "9.9.9.9", &[], "9.9.9.9"),
        ("an untrusted peer is not believed", "9.9.9.9", &[(xff, "1.1.1.1")], "9.9.9.9"),
        ("mapped peer", "::ffff:9.9.9.9", &[], "9.9.9.9"),
        ("a trusted one is", "10.0.0.1", &[(xff, "1.1.1.1")], "1.1.1.1"),
        ("mapped trusted peer", "::ffff:10.0.0.1", &[(xff, "1.1.1.1")], "1.1.1.1"),
        ("what the client made up is left of it", "10.0.0.1", &[(xff, "8.8.8.8, 1.1.1.1")], "1.1.1.1"),
        ("trusted ones are passed", "10.0.0.1", &[(xff, "8.8.8.8,1.1.1.1 , 10.2.2.2,fd00::1")], "1.1.1.1"),
        (
            "several fields are one list",
            "10.0.0.1",
            &[(xff, "8.8.8.8"), (xff, "1.1.1.1"), (xff, "10.1.1.1")],
            "1.1.1.1",
        ),
        ("all trusted: the leftmost", "10.0.0.1", &[(xff, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
        ("port", "10.0.0.1", &[(xff, "1.1.1.1:4711")], "1.1.1.1"),
        ("brackets", "10.0.0.1", &[(xff, "[2001:db8::1]")], "2001:db8::1"),
        ("brackets and port", "10.0.0.1", &[(xff, "[2001:db8::1]:80")], "2001:db8::1"),
        ("bare IPv6", "10.0.0.1", &[(xff, "2001:db8::1")], "2001:db8::1"),
        ("garbage ends the list", "10.0.0.1", &[(xff, "1.1.1.1, garbage, 10.0.0.7")], "10.0.0.7"),
        ("only garbage", "10.0.0.1", &[(xff, "unknown")], "10.0.0.1"),
        ("an empty entry is garbage", "10.0.0.1", &[(xff, "1.1.1.1,")], "10.0.0.1"),
        (
            "other fields are not believed",
            "10.0.0.1",
            &[("Forwarded", "for=1.1.1.1"), ("X-Real-IP", "1.1.1.1")],
            "10.0.0.1",
        ),
    ];
    for (name, peer, list, expected) in cases {
        assert_eq!(client_of(peer, list, &identity()), expected, "{name}");
    }
}

#[test]
fn h7_garbage_is_no_address() {
    for text in [
        "",
        "a",
        "1.1.1",
        "1.1.1.1:x y",
        "[::1",
        "[::1]80",
        "[::1]:8;0",
        "1.1.1.1.1",
        "::1::",
        "[1.1.1.1",
        "\u{e9}",
        ":80",
        "+1.1.1.1",
        "1.1.1.1:-1",
    ] {
        assert_eq!(address(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(address(b" 1.1.1.1:_port\t"), Some([1, 1, 1, 1].into()));
    assert_eq!(address(b"::ffff:1.1.1.1"), Some([1, 1, 1, 1].into()));
}

#[test]
fn h7_forwarded_is_read_where_it_is_used() {
    let identity = Identity { x_forwarded: false, forwarded: true, ..identity() };
    let cases = [
        ("for=1.1.1.1", "1.1.1.1"),
        ("For=\"1.1.1.1:80\";proto=https", "1.1.1.1"),
        ("proto=http; for=\"[2001:db8::1]:80\" ;by=_x", "2001:db8::1"),
        ("for=8.8.8.8, for=1.1.1.1 ,for=10.2.2.2", "1.1.1.1"),
        ("for=8.8.8.8, for=unknown", "10.0.0.1"),
        ("for=8.8.8.8, proto=http", "10.0.0.1"),
        ("for=1.1.1.1, for=\"10.0.0.2", "10.0.0.1"),
        ("for=\"8.8.8.8, for=1.1.1.1", "10.0.0.1"),
        ("for=1.1.1.1 x", "10.0.0.1"),
        ("for=", "10.0.0.1"),
        ("", "10.0.0.1"),
    ];
    for (value, expected) in cases {
        assert_eq!(
            client_of("10.0.0.1", &[("Forwarded", value), ("X-Forwarded-For", "7.7.7.7")], &identity),
            expected,
            "{value}"
        );
    }
}

fn written(peer: &str, list: &[(&str, &str)], identity: &Identity) -> (String, KnownSet) {
    let peer = peer.parse().unwrap();
    let sender = Sender { peer, tls: true, authority: "a:1", version: "1.1", random: [0xab; 24] };
    let list = fields(list);
    let client = client(list.iter().copied(), peer, identity);
    let mut out = Vec::new();
    let drop = write(&mut out, list.iter().copied(), &sender, client, identity);
    (String::from_utf8(out).unwrap(), drop)
}

#[test]
fn h7_what_untrusted_clients_say_is_replaced() {
    let (text, drop) = written("9.9.9.9", &[("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")], &identity());
    assert_eq!(text, "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a:1\r\n");
    for known in [
        Known::XForwardedFor,
        Known::XForwardedProto,
        Known::XForwardedHost,
        Known::XForwardedPort,
        Known::XRealIp,
        Known::XClusterClientIp,
        Known::TrueClientIp,
        Known::Forwarded,
    ] {
        assert!(drop.contains(known), "{known:?}");
    }
}

#[test]
fn h7_what_trusted_proxies_say_is_appended_to() {
    let all = Identity { x_real_ip: true, x_cluster_client_ip: true, forwarded: true, via: true, ..identity() };
    let list = [
        ("X-Forwarded-For", "8.8.8.8, 1.1.1.1"),
        ("X-Forwarded-For", "10.0.0.2"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "b"),
        ("Forwarded", "for=8.8.8.8"),
        ("True-Client-IP", "1.1.1.1"),
    ];
    let (text, drop) = written("fd00::9", &list, &all);
    assert_eq!(
        text,
        "X-Forwarded-For: 8.8.8.8, 1.1.1.1, 10.0.0.2, fd00::9\r\nX-Real-IP: 1.1.1.1\r\nX-Cluster-Client-IP: 1.1.1.1\r\n\
         Forwarded: for=8.8.8.8, for=\"[fd00::9]\";host=\"a:1\";proto=https\r\nVia: 1.1 lb\r\n"
    );
    let copied = [Known::XForwardedProto, Known::XForwardedHost, Known::TrueClientIp];
    assert!(copied.iter().all(|known| !drop.contains(*known)));
    assert!([Known::XForwardedFor, Known::XRealIp, Known::Forwarded].iter().all(|known| drop.contains(*known)));
    let (text, _) = written(
        "10.0.0.1",
        &[("Forwarded", "for=\"1.1.1.1")],
        &Identity { x_forwarded: false, forwarded: true, ..identity() },
    );
    assert_eq!(text, "Forwarded: for=10.0.0.1;host=\"a:1\";proto=https\r\n", "what cannot be read is not handed on");
}

#[test]
fn traces_are_kept_or_begun() {
    let on = Identity { traceparent: true, x_forwarded: false, ..identity() };
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(written("9.9.9.9", &[("traceparent", good)], &on).0, "");
    assert_eq!(written("9.9.9.9", &[("traceparent", &good.replace("00-", "01-"))], &on).0, "");
    let fresh = format!("traceparent: 00-{}-{}-00\r\n", "ab".repeat(16), "ab".repeat(8));
    let bad = [
        "",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
    ];
    for value in bad {
        let (text, drop) = written("9.9.9.9", &[("traceparent", value), ("tracestate", "a=b")], &on);
        assert_eq!(text, fresh, "{value}");
        assert!(drop.contains(Known::Traceparent) && drop.contains(Known::Tracestate));
    }
    assert_eq!(written("9.9.9.9", &[("traceparent", good), ("traceparent", good)], &on).0, fresh);
    let mut zero = Vec::new();
    push_trace(&mut zero, &[0; 24]);
    assert!(is_trace(&zero["traceparent: ".len()..zero.len() - 2]), "never all zeroes");
}
