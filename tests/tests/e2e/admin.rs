//! The admin API from another machine: by HTTPS, with a token, within the networks that may connect.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Host, Lb, Net, Stop, Topology, command, wait::until};

use crate::support::{ONE_ARM, SOON, nodes4, service};

/// What every secret is made of.
const CANARY: &str = "CANARY-7f3a";

fn config(net: &Net, port: u16) -> String {
    let nodes = nodes4(&net.nodes, 0, &[1, 1]);
    let api = format!("[api]\nlisten = \"{}:{port}\"\nallow = [\"{}/32\"]\n", net.balancer.v4, net.client().v4);
    [ONE_ARM.to_owned(), service("web", "one4", "tcp", 80, "forwarding = \"dsr\"", &nodes), api].concat()
}

/// `lbctl --url …` on a machine.
fn remote(lb: &Lb<'_>, from: &Host, to: &Host, port: u16, arguments: &[&str]) -> Result<Output> {
    let url = format!("https://{}:{port}", to.v4);
    let mut command = lb.lbctl_command(arguments)?;
    command.args(["--url", &url]).env("LB_TOKEN_FILE", lb.directory().join("token"));
    command.env("LB_CA_FILE", lb.directory().join("state/api.pem"));
    from.run(|| command.output()).context("cannot start lbctl")
}

#[test]
fn another_machine_operates_with_a_token() -> Result<()> {
    let net = Topology::new("admin").nodes(2).build()?;
    let lb = net.start_lb(&config(&net, 8443))?;
    let (client, node) = (net.client(), &net.nodes[0]);
    let token = lb.ctl(&["token", "create", "ci", "--role", "operator", "--for", "1h"])?;
    let file = lb.directory().join("token");
    fs::write(&file, &token)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let ask = |from: &Host, port: u16, arguments: &[&str]| remote(&lb, from, &net.balancer, port, arguments);

    let listed = ask(client, 8443, &["node", "ls", "-o", "json"])?;
    ensure!(listed.status.success(), "{listed:?}");
    let ready = command::sh(&format!(
        "curl -s -o /dev/null -w %{{http_code}} --unix-socket {} http://lb/readyz",
        lb.directory().join("admin.sock").display()
    ))?;
    ensure!(ready == "200", "{ready}");
    let local = lb.lbctl(&["node", "ls", "-o", "json"])?;
    let names = |output: &Output| -> Result<usize> {
        Ok(serde_json::from_slice::<serde_json::Value>(&output.stdout)?.as_array().map_or(0, Vec::len))
    };
    ensure!(names(&listed)? == names(&local)? && names(&listed)? == 2);
    let name = format!("web/{}", node.name);
    ensure!(ask(client, 8443, &["node", "drain", &name])?.status.success());
    ensure!(lb.node("web", &node.name)?.state_overridden);

    let refused = ask(client, 8443, &["user", "ls"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(1) && said.contains("for the role admin"), "{said}");
    let strange = ask(node, 8443, &["status"])?;
    ensure!(strange.status.code() == Some(4), "a network that is not allowed: {strange:?}");
    let mut unknown = lb.lbctl_command(&["status", "--url", &format!("https://{}:8443", net.balancer.v4)])?;
    let unknown = client.run(|| unknown.output())?;
    ensure!(unknown.status.code() == Some(4), "a certificate that nobody trusts: {unknown:?}");

    lb.reload(&config(&net, 9443))?;
    until("the API on its new port", SOON, || {
        anyhow::Ok(ask(client, 9443, &["status"])?.status.success().then_some(()))
    })?;
    ensure!(ask(client, 8443, &["status"])?.status.code() == Some(4), "the old port is closed");

    let log = lb.ctl(&["audit", "ls", "-o", "json"])?;
    ensure!(log.contains("\"token ci\"") && log.contains("draining"), "{log}");
    ensure!(lb.ctl(&["audit", "verify"])?.starts_with("intact"));
    Ok(())
}

#[test]
fn secrets_are_nowhere_to_be_found() -> Result<()> {
    let net = Topology::new("canary").nodes(2).build()?;
    let seed = format!("\n[dataplane]\nring_seed = \"{CANARY}-seed\"\n");
    let mut lb = net.start_lb(&(config(&net, 8443) + &seed))?;
    let mut add = lb.lbctl_command(&["user", "add", "ann", "--role", "admin", "--password-file", "-"])?;
    let mut child = add.stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("no input")?.write_all(format!("{CANARY}-password\n").as_bytes())?;
    ensure!(child.wait()?.success());
    let url = format!("https://{}:8443", net.balancer.v4);
    let state = lb.directory().join("state");
    let log_in = |password: &str| {
        let body = format!("{{\"name\": \"ann\", \"password\": \"{password}\"}}");
        let mut curl = Command::new("curl");
        curl.args(["-s", "-i", "-H", "content-type: application/json", "-d", &body]);
        curl.arg("--cacert").arg(state.join("api.pem")).arg(format!("{url}/api/v1/session"));
        net.client().run(|| command::run(&mut curl))
    };
    let welcome = log_in(&format!("{CANARY}-password"))?;
    ensure!(welcome.contains(" 200 ") && welcome.contains("strict-transport-security"), "{welcome}");
    ensure!(log_in(&format!("{CANARY}-wrong"))?.contains(" 401 "));
    let cookie = welcome.split("__Host-lb=").nth(1).and_then(|rest| rest.split(';').next()).context("no cookie")?;

    // A crash and a start again: what it left is whole.
    lb.restart(Stop::Kill)?;
    let mut seen = lb.log();
    for command in [
        ["status", "-o", "json"].as_slice(),
        &["user", "ls", "-o", "json"],
        &["token", "ls", "-o", "json"],
        &["audit", "ls", "-o", "json"],
        &["audit", "verify"],
        &["vs", "ls", "-o", "json"],
    ] {
        seen += &lb.ctl(command)?;
    }
    ensure!(seen.contains("ann"), "the audit log is there after a crash");
    let events = lb.ctl(&["events", "ls", "-o", "json"])?;
    ensure!(events.matches("\"started\"").count() == 2, "events are there after a crash: {events}");
    seen += &events;
    seen += &lb.metrics()?;
    seen += &bundle(&lb)?;
    seen += &backup(&lb)?;
    for file in ["users.json", "audit/audit.log"] {
        let path = state.join(file);
        ensure!(fs::metadata(&path)?.permissions().mode() & 0o077 == 0, "{file} is for its owner alone");
        seen += &fs::read_to_string(path)?;
    }
    ensure!(!seen.contains(CANARY) && !seen.contains(cookie), "a secret came out:\n{seen}");
    until("the API again", Duration::from_secs(10), || {
        log_in(&format!("{CANARY}-password")).map(|text| text.contains(" 200 ").then_some(()))
    })?;
    Ok(())
}

/// All files of a support bundle of a running lbd, as one text.
fn bundle(lb: &Lb<'_>) -> Result<String> {
    let file = lb.directory().join("bundle.tar.gz").display().to_string();
    lb.ctl(&["support-bundle", &file, "--config", &lb.config_file().display().to_string()])?;
    let names = command::sh(&format!("tar -tzf {file}"))?;
    for name in ["status.json", "doctor.json", "events.json", "metrics.txt"] {
        ensure!(names.contains(name), "no {name} in {names}");
    }
    let text = command::sh(&format!("tar -xzOf {file}"))?;
    ensure!(
        text.contains("ring_seed") && text.contains("(redacted)"),
        "the configuration is in it, without its secrets"
    );
    Ok(text)
}

/// The text of a backup.
fn backup(lb: &Lb<'_>) -> Result<String> {
    let (file, passphrase) = (lb.directory().join("canary.backup"), lb.directory().join("canary.pass"));
    fs::write(&passphrase, "a long passphrase\n")?;
    let (file, passphrase) = (file.display().to_string(), passphrase.display().to_string());
    lb.ctl(&["backup", &file, "--passphrase-file", &passphrase])?;
    Ok(String::from_utf8_lossy(&fs::read(&file)?).into_owned())
}

/// A request on the unix socket: status line, head and body.
fn ask(lb: &Lb<'_>, method: &str, path: &str, header: &str, body: &str) -> Result<String> {
    let socket = lb.directory().join("admin.sock");
    let mut curl = Command::new("curl");
    curl.args(["-s", "-i", "-X", method, "-H", "content-type: application/json", "-H", header, "--data-binary", body]);
    command::run(curl.arg("--unix-socket").arg(socket).arg(format!("http://lb/api/v1/config/{path}")))
}

#[test]
fn parts_of_the_configuration_are_objects() -> Result<()> {
    let net = Topology::new("objects").nodes(2).build()?;
    let lb = net.start_lb(&config(&net, 8443))?;
    let node = &net.nodes[0].name;
    let read = ask(&lb, "GET", &format!("pools/web/nodes/{node}"), "x: y", "")?;
    let tag = read.lines().find_map(|line| line.strip_prefix("etag: ")).context("no etag")?.trim().to_owned();
    let changed = |path: &str, header: &str, body: &str, expected: &str| -> Result<()> {
        let answer = ask(&lb, "PATCH", path, header, body)?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{body}: {answer}");
        Ok(())
    };
    let path = format!("pools/web/nodes/{node}");
    changed(&format!("{path}?dry_run=true"), "x: y", "{\"weight\": 3}", "200")?;
    ensure!(lb.node("web", node)?.weight == 1, "nothing was changed");
    changed(&path, &format!("if-match: {tag}"), "{\"weight\": 3}", "200")?;
    ensure!(lb.node("web", node)?.weight == 3);
    changed(&path, &format!("if-match: {tag}"), "{\"weight\": 4}", "412")?;
    changed(&path, "x: y", "{\"weight\": \"much\"}", "422")?;
    changed("pools/web/nodes/nobody", "x: y", "{\"weight\": 4}", "404")?;
    ensure!(lb.node("web", node)?.weight == 3);
    let added =
        ask(&lb, "POST", "pools/web/nodes", "x: y", "{\"name\": \"n9\", \"value\": {\"address\": \"10.1.0.99\"}}")?;
    ensure!(added.starts_with("HTTP/1.1 200 "), "{added}");
    ensure!(lb.pool("web")?.nodes.len() == 3);
    ensure!(ask(&lb, "DELETE", "pools/web/nodes/n9", "x: y", "")?.starts_with("HTTP/1.1 200 "));
    ensure!(lb.pool("web")?.nodes.len() == 2);
    Ok(())
}

#[test]
fn a_backup_comes_back_whole_or_not_at_all() -> Result<()> {
    let net = Topology::new("backup").nodes(2).build()?;
    let lb = net.start_lb(&config(&net, 8443))?;
    let at = |name: &str| lb.directory().join(name);
    fs::write(at("passphrase"), "a long passphrase\n")?;
    fs::write(at("other"), "another passphrase\n")?;
    let (file, passphrase, other) = (at("lb.backup"), at("passphrase"), at("other"));
    let run = |verb: &str, secret: &Path, more: &[&str]| {
        let (file, secret) = (file.display().to_string(), secret.display().to_string());
        lb.lbctl(&[&[verb, &file, "--passphrase-file", &secret], more].concat())
    };
    ensure!(run("backup", &passphrase, &[])?.status.success());
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o077 == 0);
    let node = &net.nodes[0].name;
    ensure!(ask(&lb, "PATCH", &format!("pools/web/nodes/{node}"), "x: y", "{\"weight\": 7}")?.contains(" 200 "));
    ensure!(!run("restore", &other, &[])?.status.success(), "a wrong passphrase");
    ensure!(run("restore", &passphrase, &["--compare"])?.status.success());
    ensure!(lb.node("web", node)?.weight == 7, "nothing was changed");
    let restored = run("restore", &passphrase, &[])?;
    ensure!(restored.status.success(), "{restored:?}");
    ensure!(lb.node("web", node)?.weight == 1);
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replacen("\"lbd\":\"0", "\"lbd\":\"9", 1))?;
    ensure!(!run("restore", &passphrase, &[])?.status.success(), "an archive that was changed");
    Ok(())
}
