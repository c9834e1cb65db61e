//! What testssl.sh finds at a TLS virtual server of default settings: `bench-l7 --testssl`, by `cargo xtask testssl`. A finding
//! that is not explained below is a failure.

use std::{
    fs,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::peers::{self, Port, Proxy};

/// Seconds until it is given up: it takes a quarter of a minute of one core.
const PATIENCE: &str = "600";

/// What it finds and what that comes from: the certificate, which is made for the occasion, and the name, which is none.
const EXPLAINED: [(&str, &str); 3] = [
    ("cert_chain_of_trust", "the certificate is self-signed"),
    ("cert_revocation", "a self-signed certificate names nobody who could revoke it"),
    ("DNS_CAArecord", "127.0.0.1 has no entry in the DNS"),
];

/// How bad what it says is, as it says itself.
const GOOD: [&str; 2] = ["OK", "INFO"];

/// Runs it, prints what it found, and fails for what is not explained; then, and only then, with all that it said.
pub(crate) fn run() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("lb-testssl-").tempdir()?;
    let nodes = peers::start_nodes(folder.path())?;
    let proxy = peers::start(Proxy::Lb, folder.path())?;
    let file = folder.path().join("findings.json");
    let mut command = Command::new("timeout");
    command.args([PATIENCE, "testssl", "--quiet", "--warnings", "off", "--color", "0", "--ip", "one", "--jsonfile"]);
    // Protocols, ciphers, forward secrecy, the server's preferences and defaults, vulnerabilities.
    command.arg(&file).args(["-p", "-s", "-f", "-P", "-S", "-U"]);
    command.arg(format!("127.0.0.1:{}", proxy.port(Port::Https))).stdin(Stdio::null());
    println!("testssl looks at TLS as it is by default: half a minute");
    // Its status counts what it found; what that is, is judged here.
    let output = command.output().context("cannot run testssl")?;
    drop((proxy, nodes));
    let said = || String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    judge(&file, output.status).with_context(said)
}

/// Looks through the findings.
fn judge(file: &Path, status: ExitStatus) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("testssl ended by {status} and wrote nothing"))?;
    let findings: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let field = |finding: &serde_json::Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let done =
        findings.iter().any(|finding| field(finding, "id") == "scanTime" && field(finding, "severity") == "INFO");
    ensure!(done && findings.len() > 50, "testssl did not come to its end: {} findings, {status}", findings.len());
    let mut open = Vec::new();
    for finding in findings.iter().filter(|finding| !GOOD.contains(&field(finding, "severity").as_str())) {
        let (id, severity, text) = (field(finding, "id"), field(finding, "severity"), field(finding, "finding"));
        match EXPLAINED.iter().find(|(known, _)| *known == id) {
            Some((_, why)) => println!("explained: {severity} {id}: {text}: {why}"),
            None => open.push(format!("{severity} {id}: {text}")),
        }
    }
    ensure!(open.is_empty(), "testssl found:\n{}", open.join("\n"));
    println!("{} findings, {} of them explained, none open", findings.len(), EXPLAINED.len());
    Ok(())
}
