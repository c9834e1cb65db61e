//! Events and alerts: a node that goes down and comes back is told, by every kind of alert, to a real receiver of its kind.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use lb::control::{
    event::{Entry, Events, Name},
    view::{AlertView, Health},
};
use lb_tests::harness::{Host, Lb, Server, Topology, command::sh, eventually};
use tempfile::TempDir;

use crate::{
    monitors::python,
    support::{ONE_ARM, SOON, pool},
};

/// A node that a monitor looks at often.
fn watched(node: &Host) -> String {
    let monitor = "[monitor.tcp]\ntype = \"tcp\"\ndelay = \"200ms\"\ntimeout = \"1s\"\nfailures = 2\n";
    let settings = "forwarding = \"nat\"\nsource_nat = true\nmonitors = [\"tcp\"]";
    format!("{ONE_ARM}{monitor}{}", pool("web", settings, &[format!("node.n = {{ address = \"{}:80\" }}", node.v4)]))
}

/// A file with a secret.
fn secret(dir: &TempDir, name: &str, text: &str) -> Result<String> {
    let path = dir.path().join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path.display().to_string())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Waits until a file has all of these.
fn arrives(what: &str, path: &Path, words: &[&str]) -> Result<()> {
    let waited = eventually(what, SOON * 4, || {
        let text = read(path);
        words.iter().all(|word| text.contains(word))
    });
    waited.map(drop).with_context(|| format!("{what}, of {words:?}, has:\n{}", read(path)))
}

fn events(lb: &Lb<'_>, more: &[&str]) -> Result<Vec<Entry>> {
    let arguments = [&["events", "ls"], more].concat();
    Ok(serde_json::from_value::<Events>(lb.ctl_json(&arguments)?)?.events)
}

fn alert(lb: &Lb<'_>, name: &str) -> Result<AlertView> {
    let alerts: Vec<AlertView> = serde_json::from_value(lb.ctl_json(&["alert", "ls"])?)?;
    alerts.into_iter().find(|alert| alert.name == name).context("no such alert")
}

/// A receiver of mail that wants TLS and a password, and writes what it gets to a file.
const MAIL: &str = r#"
import asyncio, ssl, sys
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
class Handler:
    async def handle_DATA(self, server, session, envelope):
        with open(sys.argv[1], "a") as out:
            from email import message_from_bytes, policy
            mail = message_from_bytes(envelope.content, policy=policy.default)
            out.write(f"{session.authenticated} {envelope.rcpt_tos} {mail['subject']}\n{mail.get_content()}\n")
        return "250 taken"
def login(server, session, envelope, mechanism, data):
    good = data.login == b"lb" and data.password == b"CANARY-7f3a"
    return AuthResult(success=good)
tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
tls.load_cert_chain(sys.argv[2], sys.argv[3])
controller = Controller(Handler(), hostname="", port=587, tls_context=tls, require_starttls=True,
                        authenticator=login, auth_required=True)
controller.start()
asyncio.new_event_loop().run_forever()
"#;

/// A web server that takes JSON by TLS, and writes it to a file with the secret field.
const HOOK: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        with open(sys.argv[1], "a") as out: out.write(f"{self.path} {self.headers['x-token']} {body}\n")
        self.send_response(204)
        self.end_headers()
server = http.server.ThreadingHTTPServer(("", 8443), Handler)
tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
tls.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

fn certificate(dir: &TempDir, node: &Host) -> Result<(String, String)> {
    let at = |name: &str| dir.path().join(name).display().to_string();
    let request = format!(
        "[req]\ndistinguished_name = d\nx509_extensions = e\n[d]\n[e]\nbasicConstraints = CA:FALSE\nsubjectAltName = IP:{}\n",
        node.v4
    );
    fs::write(at("request"), request)?;
    let (key, chain) = (at("key.pem"), at("chain.pem"));
    let kind = "ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    sh(&format!("openssl req -config {} -x509 -newkey {kind} -subj /CN=n -keyout {key} -out {chain}", at("request")))?;
    Ok((key, chain))
}

#[test]
fn a_node_that_comes_and_goes_is_told_by_mail_and_webhook_and_syslog() -> Result<()> {
    let net = Topology::new("alerts").nodes(2).build()?;
    let (node, receiver) = (&net.nodes[0], &net.nodes[1]);
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    let (key, chain) = certificate(&dir, receiver)?;
    fs::write(at("mail.py"), MAIL)?;
    fs::write(at("hook.py"), HOOK)?;
    let rsyslog = format!(
        "module(load=\"imudp\")\nmodule(load=\"imtcp\")\ninput(type=\"imudp\" port=\"514\")\ninput(type=\"imtcp\" port=\"601\")\n\
         template(name=\"t\" type=\"string\" string=\"%inputname% %syslogfacility-text%.%syslogseverity-text% %programname% %msgid% \
         %structured-data%%msg%\\n\")\naction(type=\"omfile\" file=\"{}\" template=\"t\")\n",
        at("syslog.out").display()
    );
    fs::write(at("rsyslog.conf"), rsyslog)?;
    let password = secret(&dir, "password", "CANARY-7f3a\n")?;
    let token = secret(&dir, "token", "X-Token: CANARY-7f3a\n")?;
    let (python, to) = (python()?, receiver.v4);
    let run =
        |script: &str, out: &str| format!("{python} {} {} {chain} {key}", at(script).display(), at(out).display());
    let _servers = [
        Server::start(receiver, &run("mail.py", "mail.out"), 587)?,
        Server::start(receiver, &run("hook.py", "hook.out"), 8443)?,
        Server::start(
            receiver,
            &format!("rsyslogd -n -f {} -i {}", at("rsyslog.conf").display(), at("rsyslog.pid").display()),
            601,
        )?,
    ];
    let alerts = format!(
        "[event_type.nodes]\nevents = [\"node_down\"]\nobjects = [\"web/*\"]\n\
         [alert.mail]\ntype = \"email\"\nevent_types = [\"nodes\"]\nserver = \"{to}\"\nfrom = \"lb@example.com\"\n\
         to = [\"ops@example.com\", \"night@example.com\"]\nuser = \"lb\"\npassword_file = \"{password}\"\nca = \"{chain}\"\n\
         [alert.hook]\ntype = \"webhook\"\nurl = \"https://{to}:8443/lb\"\nheader_file = \"{token}\"\nca = \"{chain}\"\n\
         [alert.datagrams]\ntype = \"syslog\"\ntransport = \"udp\"\nserver = \"{to}\"\nfacility = \"local3\"\n\
         [alert.stream]\ntype = \"syslog\"\ntransport = \"tcp\"\nserver = \"{to}\"\nfacility = \"local4\"\n\
         [alert.closed]\ntype = \"webhook\"\nurl = \"http://{to}:81/\"\nretries = 0\n"
    );
    let lb = net.start_lb(&format!("{}{alerts}", watched(node)))?;
    // Nothing listens on the node: it goes down, and comes back with a server.
    let mail = at("mail.out");
    arrives("the fault's mail", &mail, &["fault: node_down web/n", "ops@example.com", "night@example.com", "True ["])?;
    let server = Server::start(node, &format!("{python} -m http.server 80"), 80)?;
    arrives("the recovery's mail", &mail, &["recovery: node_up web/n", "node web/n is up again (after "])?;
    let hook = at("hook.out");
    arrives("both posts", &hook, &["/lb CANARY-7f3a", "\"state\":\"fault\"", "\"ends\":\"node_down\""])?;
    let syslog = at("syslog.out");
    for input in ["imudp local3", "imtcp local4"] {
        let fault = format!("{input}.warning lbd node_down [lb@32473 state=\"fault\"");
        let recovery = format!("{input}.info lbd node_up [lb@32473 state=\"recovery\"");
        arrives("syslog's messages", &syslog, &[&fault, &recovery])?;
    }
    drop(server);

    let told = events(&lb, &["--object", "web/n"])?;
    let names: Vec<Name> = told.iter().map(|event| event.name).take(2).collect();
    ensure!(names == [Name::NodeDown, Name::NodeUp], "{told:?}");
    ensure!(lb.node("web", "n")?.health != Health::Unknown, "it was checked");
    lb.ctl(&["alert", "test", "mail"])?;
    arrives("the test's mail", &mail, &["test: test", "nothing is wrong"])?;
    let refused = lb.ctl(&["alert", "test", "closed"]);
    let words = format!("{:#}", refused.err().context("nobody listens there")?);
    ensure!(words.to_lowercase().contains("connection refused"), "{words}");
    let closed = alert(&lb, "closed")?;
    ensure!(closed.counts.failed > 0 && closed.counts.problem.is_some(), "{closed:?}");
    ensure!(alert(&lb, "mail")?.counts.sent >= 3, "{:?}", alert(&lb, "mail")?);
    let log = lb.log();
    ensure!(!log.contains("CANARY"), "a secret is in the log:\n{log}");
    Ok(())
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where Net-SNMP finds our MIB, and as much as it needs of the standard ones, which Debian does not have.
pub(crate) fn mibs(dir: &TempDir) -> Result<String> {
    let standard = [
        (
            "SNMPv2-SMI",
            "org OBJECT IDENTIFIER ::= { iso 3 } dod OBJECT IDENTIFIER ::= { org 6 } internet OBJECT IDENTIFIER ::= { dod 1 } \
             private OBJECT IDENTIFIER ::= { internet 4 } enterprises OBJECT IDENTIFIER ::= { private 1 }",
        ),
        ("SNMPv2-CONF", ""),
        (
            "SNMP-FRAMEWORK-MIB",
            "SnmpAdminString ::= TEXTUAL-CONVENTION DISPLAY-HINT \"255t\" STATUS current DESCRIPTION \"\" \
             SYNTAX OCTET STRING (SIZE (0..255))",
        ),
    ];
    for (name, text) in standard {
        fs::write(dir.path().join(name), format!("{name} DEFINITIONS ::= BEGIN {text} END\n"))?;
    }
    Ok(format!("{}:{}/../packaging/mibs", dir.path().display(), env!("CARGO_MANIFEST_DIR")))
}

#[test]
fn traps_of_both_versions_are_understood_by_net_snmp() -> Result<()> {
    let net = Topology::new("traps").nodes(2).build()?;
    let (node, receiver) = (&net.nodes[0], &net.nodes[1]);
    let dir = tempfile::tempdir()?;
    let community = secret(&dir, "community", "CANARY-7f3a\n")?;
    let (authentication, privacy) = (secret(&dir, "auth", "first-secret\n")?, secret(&dir, "priv", "second-secret\n")?);
    let to = receiver.v4;
    let alerts = format!(
        "[alert.three]\ntype = \"snmp\"\nserver = \"{to}\"\nuser = \"lb\"\nauth_password_file = \"{authentication}\"\n\
         privacy_password_file = \"{privacy}\"\n\
         [alert.two]\ntype = \"snmp\"\nversion = \"2c\"\nserver = \"{to}:1162\"\ncommunity_file = \"{community}\"\n"
    );
    let lb = net.start_lb(&format!("{}{alerts}", watched(node)))?;
    let engine = alert(&lb, "three")?.engine_id.context("an engine id")?;
    let mibs = mibs(&dir)?;
    let configuration = format!(
        "createUser -e 0x{engine} lb SHA-256 first-secret AES second-secret\nauthUser log lb priv\nauthCommunity log CANARY-7f3a\n"
    );
    fs::write(dir.path().join("snmptrapd.conf"), configuration)?;
    let out = dir.path().join("traps.out");
    fs::write(&out, "")?;
    let mut command = Command::new("snmptrapd");
    command
        .args(["-f", "-Lf"])
        .arg(&out)
        .args(["-C", "-c"])
        .arg(dir.path().join("snmptrapd.conf"))
        .args(["-M", &mibs, "-m", "LB-MIB", "-OS", "udp:162", "udp:1162"])
        .env("SNMP_PERSISTENT_DIR", dir.path())
        .stdout(Stdio::null());
    let _traps = Ends(receiver.start(&mut command).context("snmptrapd (package snmptrapd)")?);
    for name in ["three", "two"] {
        let before = read(&out).len();
        // A trap that comes before the receiver is ready is lost: nobody answers traps.
        eventually("a test arrives", SOON * 4, || {
            lb.ctl(&["alert", "test", name]).is_ok() && read(&out)[before..].contains("LB-MIB::lbTest")
        })
        .with_context(|| format!("{name}: {}", read(&out)))?;
    }
    let _server = Server::start(node, &format!("{} -m http.server 80", python()?), 80)?;
    arrives("the recovery", &out, &["LB-MIB::lbRecovery", "STRING: node_up", "STRING: web/n"])?;
    Ok(())
}

#[test]
fn programs_are_told_and_events_can_be_followed() -> Result<()> {
    let net = Topology::new("told").nodes(1).build()?;
    let node = &net.nodes[0];
    let dir = tempfile::Builder::new().prefix("lb-told").tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let out = dir.path().join("out");
    fs::write(&out, "")?;
    fs::set_permissions(&out, fs::Permissions::from_mode(0o666))?;
    let program = dir.path().join("tell");
    let text = format!(
        "#!/bin/sh\necho \"$1 $LB_STATE $LB_EVENT $LB_OBJECT $LB_TEXT $(id -u)\" >> {}\n[ \"$LB_STATE\" != test ]\n",
        out.display()
    );
    fs::write(&program, text)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let config = format!(
        "{}[daemon]\nmonitor_dir = \"{}\"\nmonitor_user = \"nobody\"\n[alert.own]\ntype = \"program\"\nprogram = \"tell\"\n\
         arguments = [\"$(reboot)\"]\n",
        watched(node),
        dir.path().display()
    );
    let lb = net.start_lb(&config)?;
    let mut follow = lb.lbctl_command(&["events", "ls", "--follow", "-o", "json"])?;
    let mut follow = Ends(net.balancer.start(follow.stdout(Stdio::piped()))?);
    let followed = BufReader::new(follow.0.stdout.take().context("no pipe")?);
    arrives("the fault", &out, &["$(reboot) fault node_down web/n node web/n is down", " 65534\n"])?;
    for line in followed.lines() {
        let entry: Entry = serde_json::from_str(&line?)?;
        if entry.name == Name::NodeDown {
            break;
        }
        if entry.number > 50 {
            bail!("no node_down among {} events", entry.number);
        }
    }
    let failed = format!("{:#}", lb.ctl(&["alert", "test", "own"]).err().context("it exits with 1")?);
    ensure!(failed.contains("exit code 1"), "{failed}");
    Ok(())
}

#[test]
fn lbd_tells_what_an_operator_does_to_it() -> Result<()> {
    let net = Topology::new("operated").nodes(1).build()?;
    let lb = net.start_lb(&watched(&net.nodes[0]))?;
    lb.ctl(&["node", "drain", "web/n"])?;
    eventually("its last connection has ended", SOON, || {
        events(&lb, &["--name", "node_drained"]).is_ok_and(|events| events.len() == 1)
    })?;
    lb.ctl(&["node", "undrain", "web/n"])?;
    let good = fs::read_to_string(lb.config_file())?;
    fs::write(lb.config_file(), "nonsense")?;
    ensure!(lb.ctl(&["reload"]).is_err(), "it is no configuration");
    fs::write(lb.config_file(), good)?;
    lb.ctl(&["reload"])?;
    let names: Vec<&str> = events(&lb, &[])?.iter().map(|event| event.name.word()).collect();
    let place =
        |name: &str| names.iter().position(|other| *other == name).with_context(|| format!("{name}: {names:?}"));
    let order = ["started", "node_draining", "node_drained", "node_enabled", "config_rejected", "config_accepted"];
    let places = order.into_iter().map(place).collect::<Result<Vec<_>>>()?;
    ensure!(places.is_sorted(), "{names:?}");
    Ok(())
}
