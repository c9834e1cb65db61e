//! Real clients and real nodes: curl, gRPC, WebSocket, a browser, wrk and h2load, through HTTPS and plain HTTP, to gunicorn, node.js
//! and others.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Host, Lb, Net, Server, Topology, command::sh, topology::vip4};
use tempfile::TempDir;

pub(crate) const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/l7/programs");
/// Debian's, which has the packages that are installed for it.
const PYTHON: &str = "/usr/bin/python3";

/// A self-signed certificate for `lb.test` in a directory of its own.
fn certificate() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().display();
    sh(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {path}/key.pem -out \
         {path}/cert.pem -days 30 -subj /CN=lb.test -addext subjectAltName=DNS:lb.test,IP:10.1.1.1"
    ))?;
    Ok(dir)
}

/// HTTPS and HTTP on VIP 1, both before a pool of this protocol with the first node.
fn config(node: &Host, port: u16, protocol: &str, certificate: &Path) -> String {
    let path = certificate.display();
    format!(
        "[interface.eth0]\n[vip.one]\naddresses = [\"10.1.1.1\"]\nraise = true\n\
         [certificate.site]\nchain = \"{path}/cert.pem\"\nkey = \"{path}/key.pem\"\n\
         [virtual_server.secure]\nvips = [\"one\"]\nprotocol = \"https\"\nports = 443\npool = \"app\"\n\
         tls = {{ certificates = [\"site\"] }}\n\
         [virtual_server.plain]\nvips = [\"one\"]\nprotocol = \"http\"\nports = 80\npool = \"app\"\n\
         [pool.app]\nforwarding = \"proxy\"\nprotocol = \"{protocol}\"\nnode.n1.address = \"{}:{port}\"\n",
        node.v4
    )
}

/// A network with one node, and the balancer before the program that runs there.
fn with_node<T>(
    name: &str,
    program: &str,
    protocol: &str,
    story: impl FnOnce(&Net, &Lb<'_>, &str) -> Result<T>,
) -> Result<T> {
    let net = Topology::new(name).nodes(1).build()?;
    let _server = Server::start(&net.nodes[0], program, 8000)?;
    let dir = certificate()?;
    let lb = net.start_lb(&config(&net.nodes[0], 8000, protocol, dir.path()))?;
    let trusted = dir.path().join("cert.pem").display().to_string();
    story(&net, &lb, &trusted)
}

#[test]
fn curl_speaks_with_gunicorn_by_each_version_of_http() -> Result<()> {
    let gunicorn =
        format!("gunicorn --log-level error --chdir {PROGRAMS} -k gthread --threads 4 -b 0.0.0.0:8000 app:app");
    with_node("gunicorn", &gunicorn, "http1", |net, _, ca| {
        let upload = Path::new(ca).with_file_name("upload");
        fs::write(&upload, vec![b'u'; 3_000_000])?;
        let upload = upload.display();
        for version in [
            "--http1.1 https://lb.test",
            "--http2 https://lb.test",
            "--http2-prior-knowledge http://lb.test",
            "http://lb.test",
        ] {
            let curl = |options: &str, path: &str| {
                net.client().sh(&format!(
                    "curl -sSf -m 20 --cacert {ca} --resolve lb.test:443:{vip} --resolve lb.test:80:{vip} {options} {version}{path}",
                    vip = vip4(1)
                ))
            };
            let answer = curl("", "/hello?x=1")?;
            ensure!(answer.starts_with("GET /hello?x=1\nbody 0\n"), "{version}: {answer}");
            let client = format!("HTTP_X_FORWARDED_FOR={}", net.client().v4);
            ensure!(answer.contains(&client) && answer.contains("HTTP_HOST=lb.test"), "{version}: {answer}");
            ensure!(curl("", "/stream")?.ends_with("line 999\n"), "{version}");
            for how in ["", "-H Transfer-Encoding:chunked", "-H Expect:100-continue"] {
                // HTTP/2 has its own framing: the field must not be sent there.
                if how.contains("chunked") && version.contains("http2") {
                    continue;
                }
                let answer = curl(&format!("-T {upload} {how}"), "/put")?;
                ensure!(answer.starts_with("PUT /put\nbody 3000000\n"), "{version} {how}: {answer}");
            }
            // curl 7.88 cannot use a connection of prior knowledge twice, whoever serves.
            if version.contains("prior") {
                continue;
            }
            let many = curl("", &format!("/[1-50] {version}/more"))?;
            ensure!(many.matches("body 0").count() == 51, "{version}: several requests on a connection: {many}");
        }
        Ok(())
    })
}

#[test]
fn load_generators_find_no_failure() -> Result<()> {
    let node = format!("node {PROGRAMS}/node_server.js 8000");
    with_node("load", &node, "http1", |net, lb, _| {
        for url in ["http://10.1.1.1/", "https://10.1.1.1/"] {
            let said = net.client().sh(&format!("wrk -t1 -c16 -d1s {url}"))?;
            ensure!(said.contains("requests in") && !said.contains("errors"), "{url}: {said}");
            ensure!(!said.contains("Non-2xx"), "{url}: {said}");
            let said = net.client().sh(&format!("h2load -n 2000 -c 8 -m 10 {url}"))?;
            let all = "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout";
            ensure!(said.contains(all) && said.contains("2000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{url}: {said}");
            // A body that comes in pieces, of a length that nobody told.
            let said = net.client().sh(&format!("h2load -n 100 -c 4 -m 5 {url}pieces"))?;
            ensure!(said.contains("100 succeeded, 0 failed, 0 errored"), "{url}: {said}");
        }
        for name in ["secure", "plain"] {
            let vs = lb.virtual_server(name)?.proxy.context("no L7 part")?;
            ensure!(vs.requests.total > 2000 && vs.requests.by_class["2xx"] == vs.requests.total, "{name}: {vs:?}");
        }
        Ok(())
    })
}

#[test]
fn grpc_calls_streams_and_failures_pass() -> Result<()> {
    with_node("grpc", &format!("{PYTHON} {PROGRAMS}/grpc_server.py 8000"), "http2", |net, _, ca| {
        let said = net.client().sh(&format!("{PYTHON} {PROGRAMS}/grpc_client.py {0}:443 {ca} {0}:80", vip4(1)))?;
        ensure!(said.contains("all calls answered"), "{said}");
        Ok(())
    })
}

#[test]
fn websockets_pass_with_tls_and_without() -> Result<()> {
    with_node("websocket", &format!("{PYTHON} {PROGRAMS}/websocket_server.py 8000"), "http1", |net, _, ca| {
        for uri in [format!("wss://{}/chat", vip4(1)), format!("ws://{}/chat", vip4(1))] {
            let said = net.client().sh(&format!("{PYTHON} {PROGRAMS}/websocket_client.py {uri} {ca}"))?;
            ensure!(said.contains("all messages came back"), "{uri}: {said}");
        }
        Ok(())
    })
}

#[test]
fn a_browser_speaks_websocket() -> Result<()> {
    with_node("browser", &format!("{PYTHON} {PROGRAMS}/websocket_server.py 8000"), "http1", |net, _, ca| {
        let dir = Path::new(ca).parent().context("no directory")?.display();
        for uri in [format!("wss://{}/chat", vip4(1)), format!("ws://{}/chat", vip4(1))] {
            let page = format!("file://{PROGRAMS}/websocket.html#{uri}");
            let said = net.client().sh(&format!("sh {PROGRAMS}/browser.sh {page} {dir}"))?;
            ensure!(
                said.contains("WEBSOCKET all messages came back") && !said.contains("WEBSOCKET wrong"),
                "{uri}: {said}"
            );
        }
        Ok(())
    })
}
