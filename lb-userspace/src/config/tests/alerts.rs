//! Event types and alerts: what they become, and their mistakes.

use std::time::Duration;

use crate::{
    config::{
        Config,
        alert::{Action, Encryption, Facility, SnmpSecurity, SyslogTo},
        proxy::Host,
    },
    control::event::{Name, Severity},
};

fn parse(text: &str) -> Config {
    Config::parse("lb.toml", &format!("version = 1\n{text}")).unwrap()
}

fn mistakes(text: &str) -> Vec<String> {
    let errors = Config::parse("lb.toml", &format!("version = 1\n{text}")).unwrap_err().errors;
    errors.into_iter().map(|error| error.message).collect()
}

#[test]
fn each_kind_of_alert_becomes_a_value() {
    let config = parse(
        r#"
[event_type.nodes]
events = ["node_down", "node_up"]
objects = ["web/*"]
[event_type.bad]
severity = "critical"
[alert.mail]
type = "email"
event_types = ["nodes", "bad"]
server = "mail.example.com"
from = "lb@example.com"
to = ["ops@example.com"]
user = "lb"
password_file = "/etc/lb/mail.password"
[alert.log]
type = "syslog"
transport = "udp"
server = "192.0.2.9"
facility = "local3"
limit = 3
per = "1h"
recoveries = false
[alert.local]
type = "syslog"
[alert.traps]
type = "snmp"
server = "192.0.2.9"
user = "lb"
auth_password_file = "/etc/lb/a"
privacy_password_file = "/etc/lb/p"
[alert.old_traps]
type = "snmp"
version = "2c"
server = "192.0.2.9:1162"
community_file = "/etc/lb/community"
[alert.hook]
type = "webhook"
url = "https://hooks.example.com:8443/lb?x=1"
[alert.own]
type = "program"
program = "tell"
arguments = ["--now"]
[alert.plain]
type = "log"
"#,
    );
    let alerts = &config.alerts;
    let nodes = &alerts.event_types["nodes"];
    assert_eq!((&nodes.events[..], nodes.severity), (&[Name::NodeDown, Name::NodeUp][..], Severity::Info));
    let mail = &alerts.alerts["mail"];
    assert_eq!((mail.limit, mail.per, mail.retries, mail.recoveries), (10, Duration::from_secs(60), 3, true));
    let Action::Email(email) = &mail.action else { panic!("{mail:?}") };
    assert_eq!((email.server.port, email.encryption), (587, Encryption::Starttls));
    assert_eq!(email.server.host, Host::Name("mail.example.com".into()));
    let Action::Syslog(syslog) = &alerts.alerts["log"].action else { panic!() };
    assert!(matches!(&syslog.to, SyslogTo::Udp(server) if server.port == 514) && syslog.facility == Facility::Local3);
    let Action::Syslog(local) = &alerts.alerts["local"].action else { panic!() };
    assert!(matches!(&local.to, SyslogTo::Unix(path) if path.as_os_str() == "/dev/log"));
    let Action::Snmp(traps) = &alerts.alerts["traps"].action else { panic!() };
    assert!(matches!(&traps.security, SnmpSecurity::User { name, .. } if name == "lb") && traps.server.port == 162);
    let Action::Snmp(old) = &alerts.alerts["old_traps"].action else { panic!() };
    assert!(matches!(&old.security, SnmpSecurity::Community(_)) && old.server.port == 1162);
    let Action::Webhook(hook) = &alerts.alerts["hook"].action else { panic!() };
    assert!(hook.is_tls && !hook.allow_local);
    assert_eq!((hook.server.port, hook.path.as_str()), (8443, "/lb?x=1"));
    assert_eq!(alerts.secrets().len(), 4);
    assert!(alerts.needs_system_store());
}

#[test]
fn mistakes_are_told() {
    let rows = [
        ("[alert.a]\n", "[alert.a] has no \"type\""),
        ("[alert.a]\ntype = \"mail\"\n", "type cannot be \"mail\" (in [alert.a])"),
        (
            "[alert.a]\ntype = \"log\"\nevent_types = [\"none\"]\n",
            "alert \"a\" names event type \"none\", which does not exist",
        ),
        ("[event_type.e]\nevents = [\"node_dwon\"]\n", "events cannot be \"node_dwon\" (in [event_type.e])"),
        (
            "[alert.a]\ntype = \"log\"\nserver = \"192.0.2.9\"\n",
            "an alert of type \"log\" has no server (in [alert.a])",
        ),
        ("[alert.a]\ntype = \"webhook\"\n", "[alert.a] has no \"url\""),
        (
            "[alert.a]\ntype = \"snmp\"\nserver = \"192.0.2.9\"\nversion = \"2c\"\n",
            "[alert.a] has no \"community_file\"",
        ),
        ("[alert.a]\ntype = \"program\"\nprogram = \"../sh\"\n", "program \"../sh\" is no name of a file"),
        ("[alert.a]\ntype = \"syslog\"\nserver = \"192.0.2.9\"\n", "server has no effect with transport \"unix\""),
        ("[alert.a]\ntype = \"webhook\"\nurl = \"gopher://x/\"\n", "url is not a URL: \"gopher://x/\""),
    ];
    for (text, expected) in rows {
        let found = mistakes(text);
        assert!(found.iter().any(|message| message.starts_with(expected)), "{text}: {found:?}");
    }
    let mail = "[alert.a]\ntype = \"email\"\nserver = \"m\"\nfrom = \"lb@example.com\"\n";
    for (to, is_good) in [
        ("ops@example.com", true),
        ("o.p+s@mail-1.example.com", true),
        ("ops", false),
        ("a b@example.com", false),
        ("<a@example.com>", false),
        ("a@example.com>\\r\\nRCPT TO:<b", false),
        ("@example.com", false),
        ("a@", false),
    ] {
        let text = format!("version = 1\n{mail}to = [\"{to}\"]\n");
        assert_eq!(Config::parse("lb.toml", &text).is_ok(), is_good, "{to}");
    }
    let login = format!("{mail}to = [\"a@example.com\"]\nuser = \"lb\"\n");
    assert_eq!(mistakes(&login), ["[alert.a] has no \"password_file\""]);
    let clear = format!("{login}password_file = \"/x\"\nencryption = \"none\"\n");
    assert_eq!(mistakes(&clear), ["the password of \"lb\" could be read on its way (in [alert.a])"]);
}

#[test]
fn secrets_are_their_owners_alone() {
    use std::{fs, os::unix::fs::PermissionsExt};
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("community");
    fs::write(&file, "public\n").unwrap();
    let text = format!(
        "[alert.a]\ntype = \"snmp\"\nversion = \"2c\"\nserver = \"192.0.2.9\"\ncommunity_file = \"{}\"\n",
        file.display()
    );
    for (mode, is_good) in [(0o600, true), (0o644, false)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(parse(&text).read_files().is_ok(), is_good, "{mode:o}");
    }
}
