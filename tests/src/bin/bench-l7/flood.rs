//! What clients with kept connections notice of a flood of TLS handshakes (THREATS T6): `bench-l7 --flood`.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use lb_tests::harness::wait::let_pass;

use crate::{
    CASES, Case,
    load::{self, Sample},
    peers::{self, Port, Proxy, Running},
};

/// How long each part runs.
const TIME: Duration = Duration::from_secs(5);

/// Connections that do nothing but shake hands, again and again.
const FLOODERS: &str = "-c256";

/// Measures and prints, for each proxy: requests of good clients alone, then beside the flood.
pub(crate) fn measure() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("lb-bench-l7-").tempdir()?;
    let nodes = peers::start_nodes(folder.path())?;
    let case = CASES.into_iter().find(|case| case.name == "https_1k").context("there is such a case")?;
    let good = Case { connections: 16, ..case };
    for proxy in Proxy::ALL {
        let running = peers::start(proxy, folder.path())?;
        load::run(good, &running, Duration::from_secs(1))?;
        let alone = load::run(good, &running, TIME)?;
        let mut flood = flood(&running)?;
        let_pass(Duration::from_millis(500));
        let beside = load::run(good, &running, TIME)?;
        flood.kill()?;
        flood.wait()?;
        let show = |sample: &Sample| {
            let rate = sample.requests as f64 / sample.seconds;
            format!("{rate:>7.0} requests/s, p99 {:>6.2} ms, {} errors", sample.p99_ms, sample.errors)
        };
        println!("{:<8} alone {}; beside a flood of handshakes {}", proxy.name(), show(&alone), show(&beside));
    }
    drop(nodes);
    Ok(())
}

/// Starts the flood, for longer than it is needed.
fn flood(proxy: &Running) -> Result<std::process::Child> {
    let url = format!("https://127.0.0.1:{}/1k", proxy.port(Port::Https));
    let mut command = Command::new("taskset");
    command.args(["-c", "1", "wrk", "-t1", FLOODERS, "-d60s", "-H", "Connection: close"]).arg(url);
    command.stdout(Stdio::null()).spawn().context("cannot run wrk")
}
