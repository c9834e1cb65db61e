//! What each command of `lbctl` that only looks prints: on a terminal of 80 columns, without colours, into a pipe, and as JSON; and
//! what it prints when every text of lbd's answers is an order to the terminal.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, ensure};
use lb::{ctl::args, visible};
use lb_tests::harness::{Lb, Net, Topology, command::run};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::support::{ONE_ARM, nodes4, service};

/// Columns of the terminal.
const WIDTH: usize = 80;

/// Commands that change something, go on, or write files: they print a line or two.
const OTHERS: [&str; 34] = [
    "alert test",
    "apply",
    "backup",
    "capture",
    "cert csr",
    "cert import",
    "cert new-key",
    "cert self-signed",
    "completions",
    "confirm",
    "man",
    "node add",
    "node disable",
    "node drain",
    "node enable",
    "node rm",
    "node set",
    "node undrain",
    "node up",
    "pool rm",
    "pool set",
    "reload",
    "restore",
    "rollback",
    "support-bundle",
    "token create",
    "token revoke",
    "upgrade",
    "user add",
    "user passwd",
    "user rm",
    "user set",
    "vip failover",
    "vip maintenance",
];

/// The others, with arguments that make them answer; `{dir}` is the directory of the test.
const LOOKS: [(&str, &str); 35] = [
    ("alert ls", ""),
    ("audit ls", ""),
    ("audit verify", ""),
    ("cert ls", "{dir}/lb.toml"),
    ("cert show", "{dir}/site.pem"),
    ("check", "{dir}/lb.toml"),
    ("conn ls", ""),
    ("conn ls", "--l7"),
    ("diff", "1"),
    ("doctor", ""),
    ("events ls", ""),
    ("export", ""),
    ("history ls", ""),
    ("history show", "1"),
    ("import", "haproxy {dir}/haproxy.cfg"),
    ("map dump", "NODES"),
    ("map dump", "maglev --vs web"),
    ("map ls", ""),
    ("node ls", ""),
    ("node show", "web/n1"),
    ("pool ls", ""),
    ("pool show", "web"),
    ("pool show", "app"),
    ("stats", ""),
    ("stats", "--since 10m"),
    ("status", ""),
    ("token ls", ""),
    ("top", "--once"),
    ("trace", "tcp 203.0.113.7:40000 10.1.1.1:80"),
    ("trace", "http://10.1.1.2:8080/x"),
    ("user ls", ""),
    ("vip ls", ""),
    ("vip status", ""),
    ("vs ls", ""),
    ("vs show", "web"),
];

/// Those that may be wider than the terminal: files as they are written, and the elements of maps.
const WIDE: [&str; 5] = ["diff", "export", "history show", "import", "map dump"];

fn config(net: &Net, directory: &Path) -> String {
    let nodes = nodes4(&net.nodes, 0, &[1, 1]);
    let certificate =
        format!("[certificate.site]\nchain = \"{0}/site.pem\"\nkey = \"{0}/site.key\"\n", directory.display());
    let alert = "[alert.log]\ntype = \"log\"\n[monitor.alive]\ntype = \"tcp\"\nport = 81\ndelay = \"200ms\"\ntimeout = \"100ms\"\n";
    let proxied = "[virtual_server.site]\nlisten = [\"10.1.1.2\"]\nprotocol = \"http\"\nports = 8080\npool = \"app\"\n\
                   [[virtual_server.site.rule]]\nname = \"greeting\"\nwhen = { path = { prefix = \"/x\" } }\n\
                   then = [{ set_header = { X-A = \"1\" } }]\n";
    [
        ONE_ARM.to_owned(),
        service("web", "one4", "tcp", 80, "forwarding = \"dsr\"\nmonitors = [\"alive\"]", &nodes),
        crate::support::pool("app", "forwarding = \"proxy\"", &nodes4(&net.nodes, 8080, &[1, 1])),
        proxied.to_owned(),
        certificate,
        alert.to_owned(),
    ]
    .concat()
}

/// Runs it on a terminal of 80 columns (`script`, of util-linux); what was drawn there.
fn on_terminal(socket: &Path, arguments: &str, environment: &str) -> Result<String> {
    let lbctl = Lb::built_program()?.with_file_name("lbctl");
    let line = format!("stty cols {WIDTH} rows 24; {environment} {} {arguments}", lbctl.display());
    let mut command = Command::new("script");
    command.args(["-q", "-c", &line, "/dev/null"]).env_remove("NO_COLOR").env("TERM", "xterm-256color");
    command.env("LB_SOCKET", socket).stdin(Stdio::null());
    let output = command.output().context("script (util-linux) is needed")?;
    Ok(String::from_utf8(output.stdout)?.replace("\r\n", "\n"))
}

/// Without the colours of a terminal.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| match part.split_once('m') {
        Some((code, rest)) if code.chars().all(|c| c.is_ascii_digit() || c == ';') => text + rest,
        Some(_) | None => text + "\u{1b}[" + part,
    })
}

fn widest(text: &str) -> (usize, &str) {
    text.lines().map(|line| (line.chars().count(), line)).max().unwrap_or_default()
}

/// Files that commands are asked about: a certificate, and another balancer's configuration.
fn files() -> Result<TempDir> {
    let directory = tempfile::tempdir()?;
    let [key, pem] = ["site.key", "site.pem"].map(|name| directory.path().join(name).display().to_string());
    let lbctl = Lb::built_program()?.with_file_name("lbctl");
    run(Command::new(lbctl).args(["cert", "self-signed", "--name", "a.example", "--key", &key, "--out", &pem]))?;
    let foreign = "frontend f\n  bind :80\n  default_backend b\nbackend b\n  server s 10.0.0.1:80\n";
    fs::write(directory.path().join("haproxy.cfg"), foreign)?;
    Ok(directory)
}

#[test]
fn every_look_fits_a_terminal_and_is_plain_elsewhere() -> Result<()> {
    let net = Topology::new("terminal").nodes(2).build()?;
    let files = files()?;
    let lb = net.start_lb(&config(&net, files.path()))?;
    lb.ctl(&[
        "node",
        "set",
        "web/n1",
        "weight=3",
        "--persist",
        "-m",
        "a comment that is not short: why it was done, and for whom",
    ])?;
    lb.ctl(&["token", "create", "deploys", "--role", "operator", "--for", "1h"])?;
    every_command_is_known()?;
    let socket = lb.directory().join("admin.sock");
    let directory = files.path().display().to_string();
    fs::copy(lb.config_file(), files.path().join("lb.toml"))?;
    let mut wrong = Vec::new();
    for (command, arguments) in LOOKS {
        let line = format!("{command} {}", arguments.replace("{dir}", &directory));
        let words: Vec<&str> = line.split_whitespace().collect();
        let terminal = on_terminal(&socket, &line, "")?;
        let plain = without_colours(&terminal);
        let (width, longest) = widest(&plain);
        if width > WIDTH && !WIDE.contains(&command) {
            wrong.push(format!("{line}: {width} columns: {longest}"));
        }
        ensure!(visible::lines(&plain) == plain, "{line} moves the terminal: {plain:?}");
        let colourless = on_terminal(&socket, &line, "NO_COLOR=1")?;
        ensure!(visible::lines(&colourless) == colourless, "{line} with NO_COLOR: {colourless:?}");
        let piped = lb.lbctl_command(&words)?.env_remove("NO_COLOR").output()?;
        let piped = [piped.stdout, piped.stderr].concat();
        let piped = String::from_utf8(piped)?;
        ensure!(!piped.contains('\u{1b}'), "{line} into a pipe: {piped:?}");
        ensure!(!piped.contains('│'), "{line} draws into a pipe: {piped}");
        if command != "top" {
            let json = lb.lbctl(&[&words[..], &["-o", "json"]].concat())?;
            serde_json::from_slice::<Value>(&json.stdout).with_context(|| format!("{line} -o json: {json:?}"))?;
        }
    }
    ensure!(wrong.is_empty(), "wider than {WIDTH} columns:\n{}", wrong.join("\n"));
    Ok(())
}

/// A new command must be put into one of the lists.
fn every_command_is_known() -> Result<()> {
    let mut leaves = BTreeSet::new();
    let mut left = vec![(String::new(), args::command())];
    while let Some((name, command)) = left.pop() {
        let subcommands: Vec<_> = command.get_subcommands().cloned().collect();
        if subcommands.is_empty() {
            leaves.insert(name.trim_start().to_owned());
        }
        left.extend(subcommands.into_iter().map(|sub| (format!("{name} {}", sub.get_name()), sub)));
    }
    let known: BTreeSet<String> =
        OTHERS.into_iter().chain(LOOKS.map(|(command, _)| command)).map(str::to_owned).collect();
    let differ: Vec<_> = leaves.symmetric_difference(&known).collect();
    ensure!(differ.is_empty(), "neither in OTHERS nor in LOOKS, or gone: {differ:?}");
    Ok(())
}

/// A title for the terminal, a cleared screen, a line of its own, a turned direction of reading.
const EVIL: &str = "evil\u{1b}]0;t\u{7}\u{1b}[2J\u{1b}[31m\r\nevil\u{9b}2J\u{202e}";

/// What an lbd would answer in which every text is [`EVIL`]: made from the schema of the answer.
fn hostile(document: &Value, schema: &Value, depth: usize) -> Value {
    /// Deeper than any answer but those that contain themselves.
    const DEEPEST: usize = 16;
    let inner = |schema: &Value| hostile(document, schema, depth + 1);
    if let Some(reference) = schema["$ref"].as_str().filter(|_| depth < DEEPEST) {
        return inner(document.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null));
    }
    let choices = ["anyOf", "oneOf", "allOf"].iter().find_map(|key| schema[*key].as_array());
    if let Some(choice) = choices.and_then(|choices| choices.iter().find(|choice| choice["type"] != "null")) {
        let mut value = inner(choice);
        if let (Some(object), Value::Object(more)) = (value.as_object_mut(), properties(document, schema, depth)) {
            object.extend(more);
        }
        return value;
    }
    if let Some(word) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return word.clone();
    }
    let of_list = schema["type"].as_array().and_then(|types| types.iter().find(|kind| *kind != "null"));
    match of_list.unwrap_or(&schema["type"]).as_str() {
        Some("boolean") => json!(true),
        Some("integer") => json!(schema["minimum"].as_i64().unwrap_or(1).max(1)),
        Some("number") => json!(0.5),
        Some("array") if depth > DEEPEST => json!([]),
        Some("array") if schema["prefixItems"].is_array() => {
            schema["prefixItems"].as_array().into_iter().flatten().map(inner).collect()
        }
        Some("array") => {
            json!(vec![inner(&schema["items"]); schema["minItems"].as_u64().unwrap_or(1).max(1) as usize])
        }
        Some("object") => properties(document, schema, depth),
        _ => match schema["format"].as_str() {
            Some("ip" | "ipv4") => json!("192.0.2.1"),
            Some("ipv6") => json!("2001:db8::1"),
            Some("socket-address") => json!("192.0.2.1:80"),
            _ => json!(EVIL),
        },
    }
}

fn properties(document: &Value, schema: &Value, depth: usize) -> Value {
    let known = schema["properties"].as_object().into_iter().flatten();
    let mut object: Map<String, Value> =
        known.map(|(key, schema)| (key.clone(), hostile(document, schema, depth + 1))).collect();
    if schema["additionalProperties"].is_object() {
        object.insert(EVIL.to_owned(), hostile(document, &schema["additionalProperties"], depth + 1));
    }
    Value::Object(object)
}

/// Commands in whose answers some texts are addresses and ports, which the schema does not say: any other text is refused, and not shown.
const TYPED: [&str; 5] = ["conn ls", "top", "trace", "vs ls", "vs show"];

/// Answers one request of `lbctl` so.
fn answer(document: &Value, mut stream: UnixStream) -> Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece)?;
        ensure!(length > 0, "it hung up");
        head.extend_from_slice(&piece[..length]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_lowercase(), words.next().unwrap_or_default());
    let path: Vec<&str> = target.split('?').next().unwrap_or_default().split('/').collect();
    let fits = |template: &str| {
        let template: Vec<&str> = template.split('/').collect();
        template.len() == path.len() && template.iter().zip(&path).all(|(t, p)| t.starts_with('{') || t == p)
    };
    let routes = document["paths"].as_object().context("no paths")?;
    let route =
        routes.iter().filter(|(template, _)| fits(template)).min_by_key(|(template, _)| template.matches('{').count());
    let (_, route) = route.with_context(|| format!("lbctl asked for {target}"))?;
    let schema = &route[&method]["responses"]["200"]["content"]["application/json"]["schema"];
    let body = hostile(document, schema, 0).to_string();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}

#[test]
fn no_answer_of_an_lbd_moves_the_terminal() -> Result<()> {
    let net = Topology::new("answers").nodes(1).build()?;
    let lb = net.start_lb("version = 1\n")?;
    let files = files()?;
    let asked = run(Command::new("curl")
        .arg("-s")
        .arg("--unix-socket")
        .arg(lb.directory().join("admin.sock"))
        .arg("http://lbd/api/v1/openapi.json"))?;
    let document: Value = serde_json::from_str(&asked)?;
    let socket = files.path().join("hostile.sock");
    let listener = UnixListener::bind(&socket)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Without an answer lbctl fails, and says so.
            let _ = answer(&document, stream);
        }
    });
    let (mut shown, mut typed) = (0, Vec::new());
    for (command, arguments) in LOOKS.iter().filter(|(_, arguments)| !arguments.contains("{dir}")) {
        let line = format!("{command} {arguments}");
        let terminal = on_terminal(&socket, &line, "")?;
        let plain = without_colours(&terminal);
        ensure!(visible::lines(&plain) == plain, "{line} moves the terminal: {plain:?}");
        if plain.contains("not understood") {
            typed.push(*command);
        }
        shown += usize::from(plain.contains("evil\\x1b]0;t"));
        let json = on_terminal(&socket, &format!("{line} -o json"), "")?;
        let json = without_colours(&json);
        ensure!(visible::lines(&json) == json, "{line} -o json moves the terminal: {json:?}");
    }
    let unexpected: Vec<_> = typed.iter().filter(|command| !TYPED.contains(command)).collect();
    ensure!(unexpected.is_empty(), "{unexpected:?}: their answers were not understood");
    ensure!(shown >= 20, "only {shown} commands show texts");
    Ok(())
}
