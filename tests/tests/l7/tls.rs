//! TLS and the PROXY protocol with real clients and nodes: certificates of both sides, versions, pass-through, generic TLS.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Net, Server, Topology, command::sh, http, topology::vip4};
use tempfile::TempDir;

use crate::PATIENCE;

/// A CA with two servers' certificates and a client's.
fn authority() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().display();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    sh(&format!("openssl req -x509 {key} -keyout {path}/ca.key -out {path}/ca.pem -days 30 -subj /CN=lb-test-ca"))?;
    for (name, subject, alternative) in [
        ("site", "/CN=lb.test", "DNS:lb.test"),
        ("node", "/CN=node.test", "DNS:node.test"),
        ("user", "/CN=alice/O=lb", "email:alice@lb.test"),
    ] {
        sh(&format!("openssl req {key} -keyout {path}/{name}.key -out {path}/{name}.csr -subj {subject}"))?;
        fs::write(dir.path().join("extensions"), format!("subjectAltName={alternative}\n"))?;
        sh(&format!(
            "openssl x509 -req -in {path}/{name}.csr -CA {path}/ca.pem -CAkey {path}/ca.key -CAcreateserial -days 30 \
             -extfile {path}/extensions -out {path}/{name}.pem"
        ))?;
    }
    Ok(dir)
}

/// nginx with TLS on 8443 (asking for a client certificate), PROXY protocol on 8081, plain on 8080; it says what it saw.
fn nginx(net: &Net, dir: &Path) -> Result<Server> {
    let root = dir.display();
    let seen = "return 200 \"sni=$ssl_server_name client=$ssl_client_s_dn proxied=$proxy_protocol_addr \
                user=$http_x_user fake=$http_x_other remote=$remote_addr\\n\";";
    fs::write(
        dir.join("nginx.conf"),
        format!(
            "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\nevents {{}}\nhttp {{ access_log off;\n\
             server {{ listen 8443 ssl; ssl_certificate {root}/node.pem; ssl_certificate_key {root}/node.key; \
             ssl_client_certificate {root}/ca.pem; ssl_verify_client optional; location / {{ {seen} }} }}\n\
             server {{ listen 8081 proxy_protocol; location / {{ {seen} }} }}\n\
             server {{ listen 8080; location / {{ {seen} }} }} }}\n"
        ),
    )?;
    Server::start(&net.nodes[0], &format!("nginx -p {root} -e {root}/error.log -c {root}/nginx.conf"), 8443)
}

/// Virtual servers on VIP 1: each line's port, protocol, further keys, and its pool's keys.
fn config(net: &Net, dir: &Path, servers: &[(u16, &str, &str, &str)]) -> String {
    let path = dir.display();
    let mut text = format!(
        "[interface.eth0]\n[vip.one]\naddresses = [\"10.1.1.1\"]\nraise = true\n\
         [certificate.site]\nchain = \"{path}/site.pem\"\nkey = \"{path}/site.key\"\n\
         [certificate.user]\nchain = \"{path}/user.pem\"\nkey = \"{path}/user.key\"\n"
    );
    for (port, protocol, keys, pool) in servers {
        text += &format!(
            "[pool.p{port}]\nforwarding = \"proxy\"\n{}\n[virtual_server.v{port}]\nvips = [\"one\"]\n\
             protocol = \"{protocol}\"\nports = {port}\npool = \"p{port}\"\n{keys}\n",
            pool.replace("NODE", &net.nodes[0].v4.to_string()).replace("DIR", &path.to_string()),
            keys = keys.replace("DIR", &path.to_string()),
        );
    }
    text
}

/// What curl gets from `https://lb.test:PORT/`, or from the URL in `more`.
fn curl(net: &Net, dir: &Path, port: u16, more: &str) -> Result<String> {
    net.client().sh(&format!(
        "curl -sS -m 10 --cacert {dir}/ca.pem --resolve lb.test:{port}:{vip} --resolve node.test:{port}:{vip} {more}",
        dir = dir.display(),
        vip = vip4(1)
    ))
}

#[test]
fn certificates_of_both_sides_are_verified_and_handed_on() -> Result<()> {
    let net = Topology::new("tls").nodes(1).build()?;
    let dir = authority()?;
    let path = dir.path();
    let _nginx = nginx(&net, path)?;
    let required = "tls = { certificates = [\"site\"], client_certificates = \"require\", client_ca = \"DIR/ca.pem\" }\n\
                    [[virtual_server.v443.rule]]\nthen = [{ set_header = { X-User = \"%{tls_client_subject}\" } }]";
    let modern = "tls = { certificates = [\"site\"], min_version = \"1.3\" }";
    let simple = "tls = { certificates = [\"site\"] }";
    let plain_node = "node.n1.address = \"NODE:8080\"";
    let named = |name: &str, more: &str| {
        format!("tls = {{ ca = \"DIR/ca.pem\", server_name = \"{name}\"{more} }}\nnode.n1.address = \"NODE:8443\"")
    };
    let _lb = net.start_lb(&config(
        &net,
        path,
        &[
            (443, "https", required, plain_node),
            (444, "https", modern, plain_node),
            (445, "https", simple, &named("node.test", ", certificate = \"user\"")),
            (446, "https", simple, &named("other.test", "")),
            (447, "https", simple, "tls = { verify = false }\nnode.n1.address = \"NODE:8443\""),
        ],
    ))?;
    let ask = |port: u16, more: &str| curl(&net, path, port, &format!("{more} https://lb.test:{port}/"));

    ensure!(ask(443, "").is_err(), "a certificate is required");
    let user = format!("--cert {0}/user.pem --key {0}/user.key", path.display());
    let seen = ask(443, &format!("{user} -H X-User:forged"))?;
    ensure!(seen.contains("user=CN=alice") || seen.contains("user=O=lb,CN=alice"), "{seen}");
    ensure!(!seen.contains("forged"), "{seen}");
    let own = format!("--cert {0}/site.pem --key {0}/site.key", path.display());
    ensure!(ask(443, &own).is_ok(), "the CA signed that one, too");

    ensure!(ask(444, "--tls-max 1.2").is_err(), "TLS 1.2 is refused where 1.3 is the least");
    ensure!(ask(444, "")?.contains("remote="), "TLS 1.3");

    let seen = ask(445, "")?;
    ensure!(seen.contains("sni=node.test") && seen.contains("alice"), "name and certificate are shown: {seen}");
    let failed = ask(446, "-i")?;
    ensure!(
        failed.contains(" 502") && failed.contains("tls_certificate_error"),
        "the node is not other.test: {failed}"
    );
    ensure!(ask(447, "")?.contains("sni="), "without verification");
    Ok(())
}

#[test]
fn the_proxy_protocol_tells_of_clients_on_both_sides() -> Result<()> {
    let net = Topology::new("pp").nodes(1).build()?;
    let dir = authority()?;
    let path = dir.path();
    let _nginx = nginx(&net, path)?;
    let client = net.client().v4;
    let pool = |version: &str| format!("proxy_protocol = \"{version}\"\nnode.n1.address = \"NODE:8081\"");
    let from_client = format!("proxy_protocol = [\"{client}\"]");
    let _lb = net.start_lb(&config(
        &net,
        path,
        &[
            (80, "http", "", &pool("v1")),
            (81, "http", "", &pool("v2")),
            (82, "tcp_proxy", "", &pool("v2")),
            (83, "http", &from_client, &pool("v2")),
        ],
    ))?;
    for port in [80, 81, 82] {
        let seen = curl(&net, path, port, &format!("http://lb.test:{port}/"))?;
        ensure!(seen.contains(&format!("proxied={client}")), "{port}: {seen}");
    }
    // Another client must not get a connection that was opened for this one.
    let again = net.client().sh(&format!("curl -sS -m 5 --interface 10.1.128.7 http://{}:81/", vip4(1)))?;
    ensure!(again.contains("proxied=10.1.128.7"), "{again}");
    let mut stream = net.client().run(|| http::connect((vip4(1), 83).into(), None, PATIENCE))?;
    stream.write_all(
        b"PROXY TCP4 192.0.2.7 10.1.1.1 1234 83\r\nGET / HTTP/1.1\r\nHost: lb.test\r\nConnection: close\r\n\r\n",
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.contains("proxied=192.0.2.7"), "{answer}");
    ensure!(curl(&net, path, 83, "http://lb.test:83/").is_err(), "who must speak it and does not is closed");
    Ok(())
}

#[test]
fn tls_passes_by_name_and_ends_for_generic_connections() -> Result<()> {
    let net = Topology::new("sni").nodes(1).build()?;
    let dir = authority()?;
    let path = dir.path();
    let _nginx = nginx(&net, path)?;
    let _greeter =
        Server::start(&net.nodes[0], &format!("/usr/bin/python3 {}/greeter.py 2525", crate::clients::PROGRAMS), 2525)?;
    let names = "[virtual_server.v443.server_names]\n\"node.test\" = \"p443\"\n";
    let text = config(
        &net,
        path,
        &[
            (443, "tls_passthrough", names, "node.n1.address = \"NODE:8443\""),
            (993, "tls", "tls = { certificates = [\"site\"] }", "node.n1.address = \"NODE:2525\""),
            (25, "tcp_proxy", "", "node.n1.address = \"NODE:2525\""),
        ],
    );
    let _lb = net.start_lb(&text.replacen("ports = 443\npool = \"p443\"", "ports = 443", 1))?;
    let seen = curl(&net, path, 443, "https://node.test:443/")?;
    ensure!(seen.contains("sni=node.test"), "the node ends TLS: {seen}");
    ensure!(curl(&net, path, 443, "https://lb.test:443/").is_err(), "no pool for that name");

    // The server speaks first, then sends back what it gets until the client has ended its direction.
    let speak = |command: &str| net.client().sh(command).with_context(|| command.to_owned());
    let client = format!("/usr/bin/python3 {}/greeted.py {}", crate::clients::PROGRAMS, vip4(1));
    ensure!(speak(&format!("{client} 25"))?.contains("greeted and echoed"), "plain");
    let secure = speak(&format!("{client} 993 {}/ca.pem", path.display()))?;
    ensure!(secure.contains("greeted and echoed"), "TLS: {secure}");
    Ok(())
}
