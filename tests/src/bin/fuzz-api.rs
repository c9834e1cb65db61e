//! `cargo xtask fuzz api`: schemathesis makes requests of the OpenAPI document of a running lbd, good ones and bad ones, as each role.
//! lbd must answer all of them as the document says, fail none by itself, and be there afterwards. Arguments: the program, and
//! how many seconds for each role.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it tells who runs it what it does and what it found")]

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Lb, Net, Topology, eventually};

const SOON: Duration = Duration::from_secs(20);

/// What is looked at of every answer. That a request is good by its schema does not make it one that can be carried out; and
/// requests with wrong tokens make all tokens of this address wait, which tests of the API show.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,unsupported_method";

/// What would end the run: the program is replaced, HTTPS or the token goes, streams have no end, a capture takes its time.
const LEFT_OUT: [&str; 6] = [
    "/api/v1/upgrade",
    "/api/v1/config/api",
    "/api/v1/tokens/{id}",
    "/api/v1/events/stream",
    "/api/v1/stats/stream",
    "/api/v1/capture",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, seconds] = arguments.as_slice() else {
        eprintln!("usage: fuzz-api SCHEMATHESIS SECONDS");
        return ExitCode::from(2);
    };
    match run(program, seconds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(program: &str, seconds: &str) -> Result<()> {
    let net = Topology::new("fuzzapi").nodes(2).build()?;
    let mut found = Vec::new();
    for role in ["viewer", "operator", "admin"] {
        println!("\n== as {role}, {seconds} s");
        let lb = net.start_lb(&config(&net))?.quiet();
        let pid = lb.pid()?;
        let status = fuzz(&net, &lb, program, seconds, role)?;
        eventually("lbd answers", SOON, || lb.ctl(&["status"]).is_ok())?;
        ensure!(lb.pid()? == pid, "another lbd");
        let log = lb.log();
        let panics: Vec<&str> = log.lines().filter(|line| line.contains("panicked")).collect();
        ensure!(panics.is_empty(), "{panics:#?}");
        if !status {
            found.push(role);
        }
    }
    ensure!(found.is_empty(), "there were findings as {}", found.join(", "));
    println!("\nno findings");
    Ok(())
}

/// Whether everything was as it must be.
fn fuzz(net: &Net, lb: &Lb<'_>, program: &str, seconds: &str, role: &str) -> Result<bool> {
    let token = lb.ctl(&["token", "create", "fuzz", "--role", role, "--for", "1h"])?;
    let ca = lb.directory().join("state/api.pem");
    let report = lb.directory().join("report");
    let mut command = Command::new(program);
    command.arg("run").arg(format!("https://{}:8443/api/v1/openapi.json", net.balancer.v4)).current_dir(lb.directory());
    command.arg("--header").arg(format!("Authorization: Bearer {}", token.trim()));
    command.arg("--tls-verify").arg(&ca).args([
        "--max-time",
        seconds,
        "--checks",
        CHECKS,
        "--seed",
        "1",
        "--rate-limit",
        "80/s",
    ]);
    command
        .args(["--continue-on-failure", "--no-color", "--warnings", "off", "--no-shrink"])
        .arg("--report-dir")
        .arg(&report);
    command.args(["--suppress-health-check", "all"]);
    for path in LEFT_OUT {
        command.args(["--exclude-path", path]);
    }
    let status = net.client().run(|| command.status()).context("cannot start schemathesis")?;
    Ok(status.success())
}

/// An L4 and an L7 virtual server, and something of most sections.
fn config(net: &Net) -> String {
    let nodes = |port: u16| -> String {
        net.nodes.iter().map(|node| format!("node.{} = {{ address = \"{}:{port}\" }}\n", node.name, node.v4)).collect()
    };
    format!(
        "[interface.eth0]\n[vip.one]\naddresses = [\"10.1.1.1\"]\ninterface = \"eth0\"\nraise = true\n\
         [monitor.tcp]\ntype = \"tcp\"\n\
         [virtual_server.l4]\nvips = [\"one\"]\nprotocol = \"tcp\"\nports = 81\npool = \"l4\"\n\
         [pool.l4]\nforwarding = \"nat\"\nsource_nat = true\nmonitors = [\"tcp\"]\n{}\
         [virtual_server.l7]\nvips = [\"one\"]\nprotocol = \"http\"\nports = 80\npool = \"l7\"\n\
         [pool.l7]\nforwarding = \"proxy\"\n{}[proxy]\nthreads = 2\n\
         [api]\nlisten = \"{}:8443\"\nallow = [\"{}/32\"]\n",
        nodes(81),
        nodes(80),
        net.balancer.v4,
        net.client().v4
    )
}
