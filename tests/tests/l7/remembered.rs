//! What workers remember of clients goes on with the next worker, and with the next lbd.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use lb_tests::harness::{Lb, Nginx, Topology, command::sh, eventually, http, topology::Net};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{PATIENCE, SOON, config, replaced, serves, web, worker};

/// Sessions: by chance all of them come to their nodes again in one of 256 cases.
const SESSIONS: u64 = 8;

/// Asks once over TLS and says all that is to be known of it.
const ASK: &str = "printf 'GET / HTTP/1.1\\r\\nHost: lb.test\\r\\nConnection: close\\r\\n\\r\\n' |
openssl s_client -connect 10.1.1.1:443 -servername lb.test -ign_eof \"$@\" 2>/dev/null | tr -d '\\000'\n";

/// The node of a session.
fn node(net: &Net, session: u64) -> Result<String> {
    Ok(net.client().run(|| http::get(web(), None, &format!("/?s={session}"), PATIENCE))?.node)
}

/// Asks over TLS, going on with the session in `file` or beginning one; whether it went on.
fn resumes(net: &Net, option: &str, file: &str) -> Result<bool> {
    let said = net.client().sh(&format!("sh {file}.sh {option} {file}"))?;
    ensure!(said.contains("HTTP/1.1 200"), "{said}");
    Ok(said.lines().any(|line| line.starts_with("Reused, ")))
}

#[test]
fn clients_keep_their_nodes_and_tls_sessions_when_the_worker_or_lbd_is_another() -> Result<()> {
    let net = Topology::new("l7memory").nodes(2).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().display();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    sh(&format!(
        "openssl req -x509 {key} -keyout {path}/key.pem -out {path}/chain.pem -days 30 -subj /CN=lb.test -addext subjectAltName=DNS:lb.test"
    ))?;
    let more = format!(
        "[pool.web.persistence]\ntype = \"query\"\nname = \"s\"\n\
         [certificate.site]\nchain = \"{path}/chain.pem\"\nkey = \"{path}/key.pem\"\n\
         [virtual_server.tls]\nvips = [\"one\"]\nprotocol = \"https\"\nports = 443\npool = \"web\"\ntls = {{ certificates = [\"site\"] }}\n"
    );
    let mut lb = Lb::prepare(&net, &[config(&net, ""), more].concat())?.with_own_program()?;
    lb.launch()?;
    serves(&net)?;
    let before = (0..SESSIONS).map(|session| node(&net, session)).collect::<Result<Vec<_>>>()?;
    let tickets = format!("{path}/session");
    fs::write(format!("{tickets}.sh"), ASK)?;
    ensure!(!resumes(&net, "-sess_out", &tickets)?, "the first session");
    ensure!(resumes(&net, "-sess_in", &tickets)?, "by the worker that began it");
    eventually("lbd knows the sessions", SOON, || {
        lb.status().is_ok_and(|status| status.worker.is_some_and(|worker| worker.sessions >= SESSIONS))
    })?;

    let pid = worker(&lb)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    replaced(&lb, pid)?;
    serves(&net)?;
    for session in (0..SESSIONS).rev() {
        let (now, was) = (node(&net, session)?, &before[session as usize]);
        ensure!(now == *was, "session {session} has moved from {was} to {now} with the worker");
    }
    ensure!(resumes(&net, "-sess_in", &tickets)?, "the TLS session ended with the worker");

    let pid = worker(&lb)?;
    lb.install()?;
    lb.ctl(&["upgrade"])?;
    eventually("the new program answers", Duration::from_secs(20), || {
        lb.status().is_ok_and(|status| status.upgrades == 1)
    })?;
    replaced(&lb, pid)?;
    eventually("its worker alone serves", SOON, || !super::is_alive(pid))?;
    for session in (0..SESSIONS).rev() {
        let (now, was) = (node(&net, session)?, &before[session as usize]);
        ensure!(now == *was, "session {session} has moved from {was} to {now} with lbd");
    }
    ensure!(resumes(&net, "-sess_in", &tickets)?, "the TLS session ended with lbd");
    Ok(())
}
