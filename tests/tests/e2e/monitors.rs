//! Monitors against real servers of their kind, programs, and VIPs at nodes' MAC addresses.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use lb::control::view::{Health, NodeView};
use lb_tests::harness::{Host, Lb, Nginx, Server, Topology, command::sh, eventually, topology::vip4};
use tempfile::TempDir;

use crate::support::{ONE_ARM, SOON, pool, service};

/// Checks often, and makes up its mind at once.
const QUICK: &str = "delay = \"200ms\"\ntimeout = \"1s\"\nfailures = 2\n";

fn monitor(name: &str, settings: &str) -> String {
    format!("[monitor.{name}]\n{QUICK}{settings}\n")
}

/// A pool of one node, checked by the monitor of its name.
fn watched(name: &str, node: &Host) -> String {
    let settings = format!("forwarding = \"nat\"\nsource_nat = true\nmonitors = [\"{name}\"]");
    pool(name, &settings, &[format!("node.n = {{ address = \"{}\" }}", node.v4)])
}

fn becomes(lb: &Lb<'_>, pool: &str, node: &str, health: Health) -> Result<NodeView> {
    eventually(&format!("{pool}/{node} is {health:?}"), SOON * 4, || {
        lb.node(pool, node).is_ok_and(|node| node.health == health)
    })
    .with_context(|| format!("{:?}", lb.node(pool, node)))?;
    lb.node(pool, node)
}

/// A file of a directory that everybody may read.
fn put(directory: &TempDir, name: &str, text: &str) -> Result<PathBuf> {
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let path = directory.path().join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[test]
fn servers_of_every_kind_come_and_go() -> Result<()> {
    let net = Topology::new("monitors").nodes(1).build()?;
    let node = &net.nodes[0];
    let dir = tempfile::tempdir()?;
    let mail = "import sys,asyncio;from aiosmtpd.controller import Controller;c=Controller(object(),hostname='',port=25);c.start();asyncio.new_event_loop().run_forever()";
    let smtp = put(&dir, "smtp.py", mail)?;
    let ftp = put(
        &dir,
        "ftp.py",
        "from pyftpdlib.authorizers import DummyAuthorizer as A\nfrom pyftpdlib.handlers import FTPHandler as H\n\
         from pyftpdlib.servers import FTPServer as S\nH.authorizer = A()\nS(('', 21), H).serve_forever()\n",
    )?;
    let dovecot = dovecot(&dir)?;
    let python = python()?;
    let monitors = [
        ("http", "type = \"http\"\npath = \"/large\"\nstatuses = [\"200\"]\nbody = '<p>served by n\\d</p>'"),
        ("smtp", "type = \"smtp\""),
        ("ftp", "type = \"ftp\""),
        ("imap", "type = \"imap\""),
        ("pop3", "type = \"pop3\""),
        ("dns", "type = \"dns\"\nquery = \"www.example.com\"\nanswer = \"192.0.2.7\""),
        ("missing", "type = \"dns\"\nquery = \"nothing.example.com\"\nrcode = \"NXDOMAIN\""),
        ("long", "type = \"dns\"\nquery = \"long.example.com\"\nrecord = \"TXT\"\nanswer = \"the-last-one\""),
        (
            "datagram",
            "type = \"udp\"\nport = 53\nsend = '\\x12\\x34\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0\\0\\0\\x01\\0\\x01'\nexpect = '(?-u)^\\x12\\x34'",
        ),
        (
            "redis",
            "type = \"transaction\"\nport = 6379\nsteps = [{ send = \"PING\\r\\n\" }, { expect = '^\\+PONG' }, { send = 'ECHO lb\\r\\n' }, { expect = 'lb' }]",
        ),
    ];
    let mut config = vec![ONE_ARM.to_owned()];
    for (name, settings) in monitors {
        config.push(monitor(name, settings));
        config.push(watched(name, node));
    }
    let lb = net.start_lb(&config.concat())?;
    for (name, _) in monitors {
        let down = becomes(&lb, name, "n", Health::Down)?;
        ensure!(down.health_reason.as_deref() == Some(&format!("{name}: connection refused")), "{down:?}");
    }

    let nginx = Nginx::start(node, &[80])?;
    let texts: String =
        (0..12).map(|i| format!(" --txt-record=long.example.com,{}", format!("x{i}").repeat(60))).collect();
    let dnsmasq = format!(
        "dnsmasq -k --no-resolv --no-hosts --user=root --pid-file={0}/dns.pid --address=/www.example.com/192.0.2.7 \
         --local=/example.com/ --edns-packet-max=512{texts} --txt-record=long.example.com,the-last-one",
        dir.path().display()
    );
    let servers = [
        Server::start(node, &format!("{python} {}", smtp.display()), 25)?,
        Server::start(node, &format!("{python} {}", ftp.display()), 21)?,
        Server::start(node, &format!("dovecot -F -c {}", dovecot.display()), 143)?,
        Server::start(node, &dnsmasq, 53)?,
        Server::start(node, "redis-server --port 6379 --protected-mode no --bind 0.0.0.0", 6379)?,
    ];
    for (name, _) in monitors {
        becomes(&lb, name, "n", Health::Up)?;
    }
    drop((nginx, servers));
    for (name, _) in monitors {
        becomes(&lb, name, "n", Health::Down)?;
    }
    Ok(())
}

#[test]
fn https_is_verified_as_the_monitor_says() -> Result<()> {
    let net = Topology::new("https").nodes(1).build()?;
    let node = &net.nodes[0];
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name).display().to_string();
    for (name, host) in [("server", "www.example.com"), ("client", "lb.example.com")] {
        let made = put(
            &dir,
            &format!("{name}.cnf"),
            &format!(
                "[req]\ndistinguished_name = d\nx509_extensions = e\n[d]\n[e]\nbasicConstraints = CA:FALSE\nsubjectAltName = DNS:{host}\n"
            ),
        )?;
        let (key, chain) = (at(&format!("{name}.key")), at(&format!("{name}.pem")));
        let kind = "ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
        sh(&format!(
            "openssl req -config {} -x509 -newkey {kind} -subj /CN={name} -keyout {key} -out {chain}",
            made.display()
        ))?;
    }
    let root = dir.path().display();
    let nginx = put(
        &dir,
        "nginx.conf",
        &format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log; events {{}} http {{ access_log off; \
             client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; \
             scgi_temp_path {root}/s; server {{ listen 443 ssl; ssl_certificate {root}/server.pem; ssl_certificate_key \
             {root}/server.key; ssl_verify_client on; ssl_client_certificate {root}/client.pem; \
             location / {{ return 200 $request_method,$http_host,$http_x_probe; }} }} }}"
        ),
    )?;
    let _nginx = Server::start(node, &format!("nginx -p {root} -e {root}/error.log -c {}", nginx.display()), 443)?;
    let http = |tls: &str, more: &str| format!("type = \"http\"\nstatuses = [\"200\"]\ntls = {{ {tls} }}\n{more}");
    let verified = format!("ca = \"{}\", certificate = \"me\"", at("server.pem"));
    let monitors = [
        (
            "full",
            http(
                &verified,
                "host = \"www.example.com\"\nheaders = { X-Probe = \"lb\" }\nbody = '^GET,www.example.com,lb$'",
            ),
        ),
        ("named", http(&format!("{verified}, server_name = \"www.example.com\""), "")),
        ("other", http(&verified, "host = \"other.example.com\"")),
        ("nameless", http(&verified, "")),
        ("anonymous", http("verify = false", "")),
        ("stranger", http(&format!("ca = \"{}\", server_name = \"www.example.com\"", at("client.pem")), "")),
    ];
    let mut config = vec![
        ONE_ARM.to_owned(),
        format!("[certificate.me]\nchain = \"{}\"\nkey = \"{}\"\n", at("client.pem"), at("client.key")),
    ];
    for (name, settings) in &monitors {
        config.extend([monitor(name, settings), watched(name, node)]);
    }
    let lb = net.start_lb(&config.concat())?;
    for name in ["full", "named"] {
        becomes(&lb, name, "n", Health::Up)?;
    }
    for (name, words) in [
        ("other", "TLS: invalid peer certificate"),
        ("nameless", "TLS: invalid peer certificate"),
        ("anonymous", "status 400"),
        ("stranger", "TLS: invalid peer certificate"),
    ] {
        let reason = becomes(&lb, name, "n", Health::Down)?.health_reason.unwrap_or_default();
        ensure!(reason.contains(words), "{name}: {reason}");
    }
    Ok(())
}

fn dovecot(dir: &TempDir) -> Result<PathBuf> {
    let base = dir.path().display();
    put(
        dir,
        "dovecot.conf",
        &format!(
            "base_dir = {base}/run\nstate_dir = {base}/run\nlog_path = {base}/dovecot.log\nprotocols = imap pop3\nssl = no\n\
             listen = *\npassdb {{\n driver = static\n args = password=x\n}}\nuserdb {{\n driver = static\n args = uid=65534 gid=65534 home=/tmp\n}}\n"
        ),
    )
}

/// A Python that has the servers of PyPI, kept beside the other things that tests need.
pub(crate) fn python() -> Result<String> {
    let venv = format!("{}/../target/tools/monitors", env!("CARGO_MANIFEST_DIR"));
    let python = format!("{venv}/bin/python");
    if sh(&format!("{venv}/bin/pip show -q aiosmtpd pyftpdlib")).is_err() {
        sh(&format!("python3 -m venv {venv}"))?;
        sh(&format!("{venv}/bin/pip install -q aiosmtpd pyftpdlib"))?;
    }
    Ok(python)
}

#[test]
fn one_machine_speaks_for_the_nodes_of_all_pools_and_recovery_may_be_by_hand() -> Result<()> {
    let net = Topology::new("tied").nodes(2).build()?;
    let (node, store) = (&net.nodes[0], &net.nodes[1]);
    let mut web = Nginx::start(store, &[80])?;
    let shared = format!("type = \"http\"\naddress = \"{}\"\nrecovery = \"manual\"", store.v4);
    let tied = |name: &str| {
        let settings = "forwarding = \"nat\"\nsource_nat = true\nmonitors = [\"store\"]";
        pool(name, settings, &[format!("node.n = {{ address = \"{}\" }}", node.v4)])
    };
    let config = [ONE_ARM.to_owned(), monitor("store", &shared), tied("a"), tied("b"), tied("c")].concat();
    let mut lb = net.start_lb(&config)?;
    for pool in ["a", "b", "c"] {
        becomes(&lb, pool, "n", Health::Up)?;
    }
    web.kill()?;
    for pool in ["a", "b", "c"] {
        becomes(&lb, pool, "n", Health::Down)?;
    }
    let refused = lb.lbctl(&["node", "up", "a/n"])?;
    ensure!(String::from_utf8_lossy(&refused.stderr).contains("still says"), "{refused:?}");
    let _web = Nginx::start(store, &[80])?;
    let waits = |lb: &Lb<'_>, pool: &str| {
        lb.node(pool, "n").is_ok_and(|node| node.health_reason.is_some_and(|why| why.contains("lbctl node up")))
    };
    eventually("it answers and waits", SOON, || waits(&lb, "a") && waits(&lb, "b"))?;
    lb.ctl(&["node", "up", "a/n"])?;
    ensure!(lb.node("a", "n")?.health == Health::Up && lb.node("b", "n")?.health == Health::Down);
    lb.restart(lb_tests::harness::Stop::Kill)?;
    eventually("it waits still", SOON, || waits(&lb, "b"))?;
    lb.ctl(&["node", "up", "b/n"])?;
    ensure!(lb.node("b", "n")?.health == Health::Up && lb.node("c", "n")?.health == Health::Down);
    Ok(())
}

/// A directory of programs, and the configuration that registers it.
fn programs(dir: &TempDir, programs: &[(&str, &str)]) -> Result<String> {
    for (name, text) in programs {
        put(dir, name, &format!("#!/bin/sh\n{text}\n"))?;
    }
    Ok(format!("[daemon]\nmonitor_dir = \"{}\"\nmonitor_user = \"nobody\"\n", dir.path().display()))
}

/// Processes whose command line contains this: their numbers and command lines.
fn running(text: &str) -> Vec<(u32, String)> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let line = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    };
    numbers.filter_map(line).filter(|(_, line)| line.contains(text)).collect()
}

#[test]
fn programs_say_up_and_down_and_leave_nothing_behind() -> Result<()> {
    let net = Topology::new("programs").nodes(1).build()?;
    let node = &net.nodes[0];
    let dir = tempfile::tempdir()?;
    let mark = format!("31{}", std::process::id());
    let escaping = format!("setsid sh -c 'sleep {mark}.5 & sleep {mark}.6' & sleep {mark}.7");
    let forking = format!("sleep {mark}.8 &\nexit 0");
    let daemon = programs(
        &dir,
        &[
            (
                "good",
                "test \"$LB_ADDRESS $1 $WORD $(id -u) $(env | grep -c SECRET)\" = \"10.1.2.1 x10.1.2.1:0 a b 65534 0\" || { env; exit 1; }",
            ),
            ("bad", "echo; echo 'no, really'; exit 2"),
            ("unsure", "echo 'no such thing' >&2; exit 3"),
            ("slow", &escaping),
            ("forking", &forking),
            ("loud", "while :; do echo yes; done"),
            ("killed", "kill -9 $$"),
            ("rooting", "unshare -r true && exit 0; exit 1"),
            ("writable", "exit 0"),
        ],
    )?;
    fs::set_permissions(dir.path().join("writable"), fs::Permissions::from_mode(0o777))?;
    let mut config = vec![ONE_ARM.to_owned(), daemon];
    for name in ["bad", "unsure", "slow", "forking", "loud", "killed", "rooting", "writable", "absent"] {
        config.push(monitor(name, &format!("type = \"program\"\nprogram = \"{name}\"")));
        config.push(watched(name, node));
    }
    let good =
        "type = \"program\"\nprogram = \"good\"\narguments = [\"x{address}:{port}\"]\nenvironment = { WORD = \"a b\" }";
    config.extend([monitor("good", good), watched("good", node)]);
    let lb = net.start_lb(&config.concat())?;
    becomes(&lb, "good", "n", Health::Up)?;
    becomes(&lb, "forking", "n", Health::Up)?;
    for (name, reason) in [
        ("bad", "bad: program bad says no (exit code 2): \"no, really\""),
        ("slow", "slow: no answer within 1s"),
        ("loud", "loud: program loud writes too much"),
        ("killed", "killed: program killed was ended by signal 9"),
        (
            "rooting",
            "rooting: program rooting says no (exit code 1): \"unshare: unshare failed: Operation not permitted\"",
        ),
    ] {
        let down = becomes(&lb, name, "n", Health::Down)?;
        ensure!(down.health_reason.as_deref() == Some(reason), "{:?}", down.health_reason);
    }
    // What cannot be found out says nothing of the node.
    for name in ["unsure", "writable", "absent"] {
        ensure!(lb.node(name, "n")?.health == Health::Unknown, "{name}");
    }
    // Between two checks nothing of them is left, whatever they began.
    let registered = format!("monitor-runner {}", dir.path().display());
    let [(runner, _)] = &running(&registered)[..] else { bail!("{:?}", running(&registered)) };
    lb.reload(&config[..2].concat())?;
    eventually("everything that programs began has ended", SOON, || running(&mark).is_empty())
        .with_context(|| format!("{:?}", running(&mark)))?;
    let children = format!("/proc/{runner}/task/{runner}/children");
    eventually("no zombie is left", SOON, || fs::read_to_string(&children).is_ok_and(|list| list.trim().is_empty()))?;
    drop(lb);
    eventually("the runner has ended", SOON, || running(&registered).is_empty())?;
    Ok(())
}

#[test]
fn a_dsr_node_that_lost_its_vip_is_found() -> Result<()> {
    let net = Topology::new("vipless").nodes(2).dsr(&[vip4(1)]).build()?;
    let mut web = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let nodes: Vec<String> =
        net.nodes.iter().map(|node| format!("node.{} = {{ address = \"{}\" }}", node.name, node.v4)).collect();
    let settings = "forwarding = \"dsr\"\nmonitors = [\"own\", \"vip\"]";
    let config = [
        ONE_ARM.to_owned(),
        monitor("own", "type = \"tcp\""),
        "[monitor.vip]\ntype = \"tcp\"\nvia = \"vip\"\ndelay = \"300ms\"\ntimeout = \"3s\"\nfailures = 1\n".to_owned(),
        service("web", "one4", "tcp", 80, settings, &nodes),
    ]
    .concat();
    let lb = net.start_lb(&config)?;
    becomes(&lb, "web", "n1", Health::Up)?;
    becomes(&lb, "web", "n2", Health::Up)?;
    net.nodes[0].sh("ip addr del 10.1.1.1/32 dev lo")?;
    let down = becomes(&lb, "web", "n1", Health::Down)?;
    let reason = down.health_reason.unwrap_or_default();
    ensure!(reason == "vip: does not answer for VIP 10.1.1.1:80: it does not own it", "{reason}");
    ensure!(lb.node("web", "n2")?.health == Health::Up);
    // By NAT it does not need the VIP.
    lb.ctl(&["pool", "set", "web", "forwarding=nat"])?;
    becomes(&lb, "web", "n1", Health::Up)?;
    lb.ctl(&["pool", "set", "web", "forwarding=dsr"])?;
    becomes(&lb, "web", "n1", Health::Down)?;
    net.nodes[0].sh("ip addr add 10.1.1.1/32 dev lo")?;
    becomes(&lb, "web", "n1", Health::Up)?;
    // A service that has ended, on a node that owns the VIP, is another thing.
    web[1].kill()?;
    eventually("the reason tells refusal from silence", SOON, || {
        lb.node("web", "n2").is_ok_and(|node| {
            node.health_reason.is_some_and(|reason| reason.contains("vip: refuses connections to VIP 10.1.1.1:80"))
        })
    })?;
    Ok(())
}
