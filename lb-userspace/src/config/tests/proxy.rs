//! The L7 proxy: what is understood, what is refused, and with which words.

use std::net::SocketAddr;

use super::{mistakes::check_all_of, *};
use crate::{
    config::proxy::{Host, ProtocolWord},
    control::proxy::{
        Network, RateClass, Service,
        http::{Coding, ErrorPage},
        log::Format,
        pool::{Key, NodeProtocol, PersistenceKind, ProxyVersion, Scheduler as ProxyScheduler},
        rule::{Action, Condition, Fact, Test},
        tls::{ClientAuth, Version},
    },
};

/// A valid configuration that the tests change.
const SITE: &str = r#"version = 1

[vip.web]
addresses = ["192.0.2.10", "2001:db8::10"]

[tls]
min_version = "1.3"

[certificate.site]
chain = "/etc/lb/tls/site.pem"
key = "/etc/lb/tls/site.key"

[rate_class.gentle]
rate = "100/s"
burst = 20
key = "client_address/24"

[bandwidth_class.slow]
rate = "1MiB/s"

[virtual_server.site]
vips = ["web"]
listen = ["127.0.0.1"]
protocol = "https"
ports = [443, 8443]
pool = "app"
tls = { certificates = ["site"], client_certificates = "request", client_ca = "/etc/lb/tls/ca.pem" }
http = { max_head = "16KiB", max_body = "10MiB", compression = ["br", "gzip"] }
identity = { forwarded = true, trusted = ["10.0.0.0/8", "2001:db8::1"] }
error_page = { file = "/etc/lb/pages/sorry.html", status = 503, headers = { Retry-After = "30" } }
limits = { connections = 10000, requests_per_client = "50/s" }
timeouts = { keep_alive = "30s", transaction = "5m" }
access_log = { path = "/var/log/lb/access.log", format = "json", sample = 10 }

[[virtual_server.site.rule]]
name = "api"
when = { host = "API.example.com", path = { prefix = "/v1/" }, not = { header = { X-Test = { present = true } } } }
then = [{ rate = "gentle" }, { set_header = { X-Api = "1" } }, { pool = "api" }]

[[virtual_server.site.rule]]
on = "response"
when = { any = [{ status = { min = 500, max = 599 } }, { status = [404, 410] }] }
then = { cache_control = "no-store" }

[virtual_server.plain]
listen = ["0.0.0.0", "::"]
protocol = "http"
ports = 80

[[virtual_server.plain.rule]]
then = [{ redirect = { to = "https://%{host}", status = 308, keep_path = true } }]

[virtual_server.mail]
vips = ["web"]
protocol = "tls_passthrough"
ports = 993
pool = "mail"
server_names = { "*.Example.com" = "mail", "a.example.org" = "mail" }
proxy_protocol = ["10.1.0.0/16"]

[pool.app]
forwarding = "proxy"
scheduler = "consistent_hash"
hash_key = "header:X-User"
persistence = { type = "cookie" }
failure_pool = "api"
tls = { server_name = "app.internal", ca = "/etc/lb/tls/internal.pem" }
protocol = "http2"
retry = { attempts = 2, statuses = [502, 503] }
passive = { enabled = false }
timeouts = { connect = "500ms", reply = "10s" }

[pool.app.node.a]
address = "App.Example.com:8443"
priority = 2
max_connections = 100

[pool.app.node.b]
address = "[2001:db8:1::1]:8443"
state = "draining"

[pool.api]
forwarding = "proxy"
monitors = ["connects"]
[pool.api.node.a]
address = "127.0.0.1:8080"

[pool.mail]
forwarding = "proxy"
proxy_protocol = "v2"
persistence = { type = "source_address", prefix = 24 }
[pool.mail.node.m]
address = "10.0.0.9:993"

[monitor.connects]
type = "tcp"
"#;

#[test]
fn virtual_servers_of_the_proxy_are_understood() {
    let config = parse(SITE);
    assert!(config.virtual_servers.is_empty() && config.pools.is_empty(), "nothing of it is for XDP");
    let site = &config.proxy.virtual_servers["site"];
    let listen: Vec<String> = site.settings.listen.iter().map(SocketAddr::to_string).collect();
    let expected = [
        "127.0.0.1:443",
        "127.0.0.1:8443",
        "192.0.2.10:443",
        "192.0.2.10:8443",
        "[2001:db8::10]:443",
        "[2001:db8::10]:8443",
    ];
    assert_eq!(listen, expected);
    assert_eq!((site.protocol, site.settings.pool.as_deref()), (ProtocolWord::Https, Some("app")));
    let tls = site.settings.tls.as_ref().unwrap();
    assert_eq!((tls.min_version, tls.default_certificate.as_deref()), (Version::Tls13, Some("site")));
    assert!(matches!(tls.client_auth, ClientAuth::Request(_)));
    assert_eq!(site.client_ca.as_ref().unwrap().path, Path::new("/etc/lb/tls/ca.pem"));
    assert_eq!(site.client_ca.as_ref().unwrap().place.as_ref().map(|place| place.line), Some(27));
    let Service::Http(http) = &site.settings.service else { panic!("{site:?}") };
    assert_eq!((http.strictness.max_head_bytes, http.strictness.max_body_bytes), (16 << 10, 10 << 20));
    assert_eq!(http.compression, [Coding::Br, Coding::Gzip]);
    assert!(http.identity.forwarded && http.identity.x_forwarded && http.http2);
    let network = |text: &str, prefix| Network { address: text.parse().unwrap(), prefix };
    assert_eq!(http.identity.trusted, [network("10.0.0.0", 8), network("2001:db8::1", 128)]);
    let ErrorPage::Own { status, fields, .. } = &http.error_page else { panic!("{http:?}") };
    assert_eq!((*status, &fields[..]), (Some(503), &[("Retry-After".to_owned(), "30".to_owned())][..]));
    assert_eq!((site.settings.limits.connections, site.settings.limits.requests_per_client), (10_000, 50));
    assert_eq!(site.settings.timeouts.transaction, Duration::from_secs(300));
    let log = site.settings.access_log.as_ref().unwrap();
    assert_eq!((&log.format, log.sample), (&Format::Json, 10));

    let mail = &config.proxy.virtual_servers["mail"].settings;
    let Service::Stream(stream) = &mail.service else { panic!("{mail:?}") };
    assert!(stream.peek && stream.by_server_name["*.example.com"] == "mail");
    assert_eq!(mail.proxy_protocol.as_deref(), Some(&[network("10.1.0.0", 16)][..]));
    let gentle = RateClass { rate: 100, burst: 20, key: Key::ClientAddress { prefix4: 24, prefix6: 128 } };
    assert_eq!(config.proxy.rate_classes["gentle"], gentle);
    assert_eq!(config.proxy.bandwidth_classes["slow"].bytes_per_s, 1 << 20);
}

#[test]
fn pools_of_the_proxy_are_understood() {
    let config = parse(SITE);
    let app = &config.proxy.pools["app"];
    assert_eq!(app.settings.scheduler, ProxyScheduler::ConsistentHash(Key::Header("x-user".to_owned())));
    assert_eq!(app.settings.protocol, NodeProtocol::Http2);
    let cookie = PersistenceKind::Cookie {
        name: "lb".to_owned(),
        attributes: "Path=/; HttpOnly; SameSite=Lax; Secure".to_owned(),
    };
    assert_eq!(app.settings.persistence.as_ref().unwrap().kind, cookie, "Secure, because only HTTPS uses the pool");
    assert_eq!(app.nodes["a"].host, Host::Name("app.example.com".to_owned()));
    assert_eq!((app.nodes["a"].port, app.nodes["a"].priority, app.nodes["a"].max_connections), (8443, 2, 100));
    assert_eq!(app.nodes["b"].state, NodeState::Draining);
    assert_eq!((app.settings.retry.attempts, &app.settings.retry.statuses[..]), (2, &[502, 503][..]));
    assert_eq!(app.settings.passive.node_fail_time, Duration::ZERO, "off");
    assert_eq!(app.settings.timeouts.connect, Duration::from_millis(500));
    let tls = app.settings.tls.as_ref().unwrap();
    assert!(tls.verify && tls.server_name.as_deref() == Some("app.internal"));
    assert_eq!(config.proxy.pools["mail"].settings.proxy_protocol, Some(ProxyVersion::V2));
    assert_eq!(config.proxy.names(), ["app.example.com"]);
    assert_eq!(config.monitors_of("api").unwrap(), ["connects"]);
    assert_eq!(config.node("app", "b"), Some((NodeState::Draining, 1)));
    let users = config.proxy.users();
    assert_eq!(
        (&users["app"][..], &users["api"][..]),
        (&["site"][..], &["site"][..]),
        "as failure pool, and by a rule"
    );
}

#[test]
fn rules_are_understood() {
    let config = parse(SITE);
    let Service::Http(http) = &config.proxy.virtual_servers["site"].settings.service else { panic!() };
    let [api] = &http.rules.request[..] else { panic!("{http:?}") };
    let is = |fact: Fact, test: Test| Condition::Is(fact, test);
    let header = is(Fact::Header("x-test".to_owned()), Test::Present);
    let parts = Condition::All(vec![
        is(Fact::Host, Test::OneOf(vec!["api.example.com".to_owned()])),
        Condition::Not(Box::new(header)),
        is(Fact::Path, Test::Prefix(vec!["/v1/".to_owned()])),
    ]);
    assert_eq!((api.name.as_str(), &api.when), ("api", &parts));
    let actions = [
        Action::Rate("gentle".to_owned()),
        Action::SetHeader("X-Api".to_owned(), "1".to_owned()),
        Action::Pool("api".to_owned()),
    ];
    assert_eq!(api.actions, actions);
    let [errors] = &http.rules.response[..] else { panic!("{http:?}") };
    let statuses = Test::OneOf(vec!["404".to_owned(), "410".to_owned()]);
    assert_eq!(errors.when, Condition::Any(vec![is(Fact::Status, Test::Range(500, 599)), is(Fact::Status, statuses)]));
    assert_eq!(
        (errors.name.as_str(), &errors.actions[..]),
        ("rule-2", &[Action::CacheControl("no-store".to_owned())][..])
    );

    let times = [
        ("08:00-18:00", vec![(28_800, 64_799)]),
        ("22:00-06:00", vec![(79_200, 86_399), (0, 21_599)]),
        ("22:00-00:00", vec![(79_200, 86_399)]),
    ];
    for (text, ranges) in times {
        let text = SITE.replace("then = [{ redirect", &format!("when = {{ time = \"{text}\" }}\nthen = [{{ redirect"));
        let config = parse(&text);
        let Service::Http(http) = &config.proxy.virtual_servers["plain"].settings.service else { panic!() };
        let mut parts: Vec<_> = ranges.iter().map(|(a, b)| is(Fact::TimeOfDay, Test::Range(*a, *b))).collect();
        let expected = if parts.len() == 1 { parts.remove(0) } else { Condition::Any(parts) };
        assert_eq!(http.rules.request[0].when, expected);
    }
}

#[test]
fn files_are_read_when_they_are_needed_and_missing_ones_are_placed() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let text =
        format!("version = 1\n[certificate.a]\nchain = \"{}\"\nkey = \"{}\"\n", path("chain.pem"), path("key.pem"));
    let config = parse(&text);
    std::fs::write(path("chain.pem"), "chain").unwrap();
    let errors = files::Files::read(&config).unwrap_err().errors;
    let [missing] = &errors[..] else { panic!("{errors:?}") };
    assert!(missing.message.contains("key.pem"), "{missing:?}");
    assert_eq!(missing.place.as_ref().map(|place| (place.line, place.column)), Some((4, 7)));
    std::fs::write(path("key.pem"), b"\xff").unwrap();
    let errors = files::Files::read(&config).unwrap_err();
    assert!(errors.to_string().contains("not text: PEM is needed"), "{errors}");
    std::fs::write(path("key.pem"), "key").unwrap();
    let files = files::Files::read(&config).unwrap();
    assert_eq!(files.text(&config.proxy.certificates["a"].chain), "chain");
    assert_eq!(files.bytes(&config.proxy.certificates["a"].key), b"key");
}

#[test]
fn mistakes_of_the_proxy_are_placed_and_explained() {
    check_all_of(SITE, super::proxy_mistakes::MISTAKES);
}

#[test]
fn every_truncation_of_it_is_answered_without_a_panic() {
    for end in (0..=SITE.len()).filter(|end| SITE.is_char_boundary(*end)) {
        if let Err(errors) = Config::parse("lb.toml", &SITE[..end]) {
            assert!(!errors.errors.is_empty() && !errors.report(true).is_empty());
        }
    }
}

#[test]
fn a_proxied_port_is_never_within_a_range_that_packets_are_forwarded_of() {
    let both = format!(
        "{SITE}[interface.eth0]\n[virtual_server.all]\nvips = [\"web\"]\nprotocol = \"tcp\"\nports = \"all\"\npool = \"packets\"\n\
         [pool.packets]\nforwarding = \"nat\"\n[pool.packets.node.a]\naddress = \"10.0.0.7\"\n\
         [pool.packets.node.b]\naddress = \"2001:db8:1::7\"\n"
    );
    let errors = Config::parse("lb.toml", &both).unwrap_err().errors;
    assert!(errors.iter().all(|e| e.message.contains("both listen on 192.0.2.10 tcp port")), "{errors:?}");
    assert_eq!(errors.len(), 3, "443, 8443 and 993: {errors:?}");
    parse(&both.replace("ports = \"all\"", "ports = \"10000-20000\""));
}

#[test]
fn times_of_clients_that_are_over_before_those_of_nodes_are_told() {
    let warned = |transaction: &str| {
        let short = SITE.replacen("transaction = \"5m\"", &format!("transaction = \"{transaction}\""), 1);
        assert_ne!(short, SITE);
        parse(&short).warnings()
    };
    let told = warned("5s");
    assert!(told.iter().any(|warning| warning.contains("\"site\" (5s) is over before pool \"app\"")), "{told:?}");
    assert_eq!(warned("20m"), [""; 0]);
    assert_eq!(Config::load(&example("https.toml")).unwrap().warnings(), [""; 0]);
}

#[test]
fn nodes_see_clients_of_their_own_family_alone() {
    let transparent = SITE.replacen("proxy_protocol = \"v2\"", "transparent = true", 1);
    parse(&transparent);
    let only_v4 = transparent.replacen(
        "vips = [\"web\"]\nprotocol = \"tls_passthrough\"",
        "listen = [\"192.0.2.77\"]\nprotocol = \"tls_passthrough\"",
        1,
    );
    assert_ne!(only_v4, transparent);
    parse(&only_v4);
    let v6 = only_v4.replacen("10.0.0.9:993", "[2001:db8::9]:993", 1);
    let errors = Config::parse("lb.toml", &v6).unwrap_err().errors;
    let expected = "pool \"mail\" is transparent, but virtual server \"mail\" has clients over IPv4";
    assert!(errors.len() == 1 && errors[0].message.contains(expected), "{errors:?}");
}
