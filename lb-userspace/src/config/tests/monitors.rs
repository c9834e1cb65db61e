//! Monitors of every kind: what is understood, and what is refused.

use super::{
    mistakes::{Case, check_all},
    *,
};
use crate::control::probe::{Dns, Greeting, Http, RecordType, ResponseCode, StatusRange, Step};

/// One of each.
const MONITORS: &str = r#"version = 1

[monitor.simple]
type = "http"

[monitor.full]
type = "http"
method = "HEAD"
host = "www.example.com"
path = "/health?deep=1"
headers = { X-Probe = "lb" }
statuses = ["200", "301-302"]
body = '"status": *"ok"'
tls = { verify = false, server_name = "inner.example.com" }
recovery = "manual"

[monitor.mail]
type = "smtp"
tls = { verify = false }

[monitor.imap]
type = "imap"
port = 1143
address = "10.0.0.9"

[monitor.names]
type = "dns"
query = "www.example.com"
record = "AAAA"
answer = "2001:db8::1"

[monitor.radius]
type = "udp"
port = 1812
send = '\x01\x00'
expect = '(?-u)^\x02'

[monitor.redis]
type = "transaction"
port = 6379
steps = [{ send = "PING\r\n" }, { expect = '^\+PONG' }]

[monitor.own]
type = "program"
program = "check_it"
arguments = ["-H", "{address}"]
environment = { LANG = "C" }

[monitor.owned]
type = "tcp"
via = "vip"
"#;

#[test]
fn every_kind_is_understood() {
    let config = Config::parse("lb.toml", MONITORS).unwrap();
    let Kind::Http(simple) = &config.monitors["simple"].kind else { panic!("http") };
    let plain = Http {
        method: "GET".into(),
        host: None,
        path: "/".into(),
        headers: BTreeMap::new(),
        statuses: vec![StatusRange(200, 499)],
        body: None,
        tls: None,
    };
    assert_eq!(**simple, plain);
    let full = &config.monitors["full"];
    assert_eq!(full.recovery, Recovery::Manual);
    let Kind::Http(http) = &full.kind else { panic!("http") };
    assert_eq!((http.method.as_str(), http.host.as_deref()), ("HEAD", Some("www.example.com")));
    assert_eq!(http.statuses, [StatusRange(200, 200), StatusRange(301, 302)]);
    assert_eq!(http.tls.as_ref().and_then(|tls| tls.server_name.as_deref()), Some("inner.example.com"));
    assert!(http.body.as_ref().is_some_and(|body| body.end_of_match(b"{\"status\":  \"ok\"}").is_some()));
    assert!(matches!(config.monitors["mail"].kind, Kind::Greeting(Greeting::Smtp, Some(_))));
    let Kind::Dns(dns) = &config.monitors["names"].kind else { panic!("dns") };
    let Dns { record, rcode, answer, .. } = &**dns;
    assert_eq!((*record, *rcode, answer.as_deref()), (RecordType::Aaaa, ResponseCode::NoError, Some("2001:db8::1")));
    let Kind::Udp(udp) = &config.monitors["radius"].kind else { panic!("udp") };
    assert_eq!(udp.send.0, [1, 0]);
    let Kind::Transaction(redis) = &config.monitors["redis"].kind else { panic!("transaction") };
    assert_eq!(redis.steps, [Step::Send("PING\\r\\n".parse().unwrap()), Step::Expect("^\\+PONG".parse().unwrap())]);
    assert_eq!(config.monitors["owned"].via, Via::Vip);
}

#[test]
fn ports_are_the_monitors_the_nodes_the_servers_or_the_protocols() {
    let config = Config::parse("lb.toml", MONITORS).unwrap();
    let port = |monitor: &str, node, common| config.monitors[monitor].port(node, |_| common);
    assert_eq!(port("redis", Some(1), Some(2)), Some(6379));
    assert_eq!(port("simple", Some(8080), Some(2)), Some(8080));
    assert_eq!(port("simple", None, Some(2)), Some(2));
    assert_eq!((port("simple", None, None), port("full", None, None)), (Some(80), Some(443)));
    assert_eq!((port("mail", None, None), port("names", None, None)), (Some(465), Some(53)));
    assert_eq!(port("imap", Some(1), None), Some(1143), "another machine than the node");
    assert_eq!(port("owned", None, None), None);
}

#[test]
fn certificates_of_monitors_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("chain"), made.cert.pem()).unwrap();
    std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(path("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = format!(
        "version = 1\n[certificate.me]\nchain = \"{chain}\"\nkey = \"{key}\"\n[monitor.m]\ntype = \"imap\"\n\
         tls = {{ ca = \"{chain}\", certificate = \"me\" }}\n",
        chain = path("chain"),
        key = path("key")
    );
    let config = Config::parse("lb.toml", &text).unwrap().read_files().unwrap();
    let Kind::Greeting(_, Some(tls)) = &config.monitors["m"].kind else { panic!("tls") };
    assert_eq!((tls.verify, &*tls.ca_pem), (true, made.cert.pem().as_str()));
    assert!(tls.identity.is_some());
    let shown = format!("{config:?}");
    assert!(!shown.contains("PRIVATE KEY"), "keys are not printed");
    let missing = Config::parse("lb.toml", &text.replace("/chain\"", "/nothing\"")).unwrap().read_files().unwrap_err();
    assert!(missing.to_string().contains("cannot read"), "{missing}");
}

#[test]
fn mistakes_in_monitors() {
    check_all(MISTAKES);
}

/// As in [`super::mistakes`], of [`BASE`].
const MISTAKES: &[Case] = &[
    (
        "a path for tcp",
        "type = \"tcp\"",
        "type = \"tcp\"\npath = \"/\"",
        "\"/\"",
        "type \"tcp\" has no path (in [monitor.connects])",
        "type = \"http\"",
    ),
    (
        "tls for ping",
        "delay = \"2s\"",
        "tls = { verify = false }",
        "false",
        "a ping has no tls (in [monitor.alive])",
        "\"http\", \"smtp\"",
    ),
    (
        "no query",
        "type = \"tcp\"",
        "type = \"dns\"",
        "connects]\ntype",
        "[monitor.connects] has no \"query\"",
        "the name that is asked for",
    ),
    (
        "a path without its slash",
        "type = \"tcp\"",
        "type = \"http\"\npath = \"health\"",
        "\"health\"",
        "path \"health\" does not begin with / (in [monitor.connects])",
        "",
    ),
    (
        "a host that smuggles a header",
        "type = \"tcp\"",
        "type = \"http\"\nhost = \"a\\r\\nX: y\"",
        "\"a\\r",
        "has a control character",
        "",
    ),
    (
        "a header that is lbd's",
        "type = \"tcp\"",
        "type = \"http\"\nheaders = { Host = \"a\" }",
        "Host",
        "headers \"Host\" is set by lbd",
        "",
    ),
    (
        "a status that is none",
        "type = \"tcp\"",
        "type = \"http\"\nstatuses = [\"2xx\"]",
        "\"2xx\"",
        "statuses is not an HTTP status or a range of them: \"2xx\" (in [monitor.connects])",
        "\"200-399\"",
    ),
    (
        "a pattern that is none",
        "type = \"tcp\"",
        "type = \"http\"\nbody = \"(\"",
        "\"(\"",
        "body is not a regular expression: \"(\" (in [monitor.connects])",
        "single quotes",
    ),
    (
        "a step that does both",
        "type = \"tcp\"",
        "type = \"transaction\"\nsteps = [{ send = \"a\", expect = \"b\" }]",
        "\"a\", ex",
        "a step sends or expects, not both (in [monitor.connects])",
        "two steps",
    ),
    (
        "bytes that are none",
        "type = \"tcp\"",
        "type = \"udp\"\nport = 1\nsend = '\\q'",
        "'\\q'",
        "send is not what can be sent: \"\\\\q\"",
        "PING",
    ),
    (
        "a program outside of its directory",
        "type = \"tcp\"",
        "type = \"program\"\nprogram = \"../../bin/sh\"",
        "\"../",
        "program \"../../bin/sh\" is no name of a file in daemon.monitor_dir (in [monitor.connects])",
        "",
    ),
    (
        "a variable that changes the loader",
        "type = \"tcp\"",
        "type = \"program\"\nprogram = \"x\"\nenvironment = { LD_PRELOAD = \"/x\" }",
        "LD_PRELOAD",
        "environment \"LD_PRELOAD\" is not to be set here",
        "",
    ),
    (
        "the cloud's own address",
        "type = \"tcp\"",
        "type = \"http\"\naddress = \"169.254.169.254\"",
        "\"169.254",
        "monitored address 169.254.169.254 is a link-local address",
        "with secrets",
    ),
    (
        "lbd itself",
        "type = \"tcp\"",
        "type = \"http\"\naddress = \"127.0.0.1\"",
        "\"127.0",
        "monitored address 127.0.0.1 is a loopback address",
        "",
    ),
    (
        "VIPs at nodes that own none",
        "delay = \"2s\"",
        "[pool.api.node.a9]\naddress = \"10.0.0.39\"\n[monitor.x]\ntype = \"tcp\"\nport = 80\nvia = \"vip\"\n[pool.other]\nforwarding = \"nat\"\nmonitors = [\"x\"]\n[pool.other.node.o1]\naddress = \"10.0.0.40\"",
        "\"x\"]",
        "monitor \"x\" asks for VIPs, which nodes of pool \"other\" do not own",
        "at their own addresses",
    ),
    (
        "a certificate that is not there",
        "type = \"tcp\"",
        "type = \"http\"\ntls = { certificate = \"none\" }",
        "\"none\"",
        "[monitor.connects] names certificate \"none\", which does not exist",
        "[certificate.none]",
    ),
];
