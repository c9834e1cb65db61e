//! `cargo xtask bench l7`: requests per CPU-second of the proxy, beside Debian's haproxy and nginx on the same machine.
//!
//! Method (docs/performance.md): the proxy alone on core 0; load generator and nginx nodes on core 1; the three proxies take
//! turns within each round, so that drift of the machine meets all of them; medians over the rounds. CPU time is what the
//! kernel charged to the proxy's processes. Needs root for nothing but the pinning of what it starts itself.
#![expect(clippy::print_stdout, reason = "it is a program that prints a table")]

mod flood;
mod idle;
mod load;
mod peers;
mod slow;
mod subject;
mod testssl;
mod trust;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail, ensure};
use load::Sample;
use peers::{Proxy, Running};

/// As in lbd.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) load: Load,
    /// Which of a proxy's listeners is asked.
    pub(crate) port: peers::Port,
    pub(crate) path: &'static str,
    pub(crate) connections: u32,
}

/// How load is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// wrk: HTTP/1.1, connections kept.
    Kept,
    /// wrk: a connection for each request.
    Closed,
    /// h2load: HTTP/2, ten streams a connection.
    Http2,
}

const CASES: [Case; 7] = {
    use peers::Port::{Http, Https, Tcp};
    const fn case(name: &'static str, load: Load, port: peers::Port, path: &'static str) -> Case {
        Case { name, load, port, path, connections: 64 }
    }
    [
        case("h1_1k", Load::Kept, Http, "/1k"),
        case("h1_100k", Load::Kept, Http, "/100k"),
        case("close_1k", Load::Closed, Http, "/1k"),
        case("https_1k", Load::Kept, Https, "/1k"),
        case("handshake", Load::Closed, Https, "/1k"),
        case("h2_1k", Load::Http2, Https, "/1k"),
        case("tcp", Load::Kept, Tcp, "/1k"),
    ]
};

struct Options {
    json: bool,
    rounds: usize,
    seconds: u64,
    only: Option<String>,
    /// Instead of each case's own.
    connections: Option<u32>,
    proxies: Vec<Proxy>,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    match arguments.peek().map(String::as_str) {
        // What the benchmark starts of itself.
        Some("--serve") => return subject::serve(&PathBuf::from(arguments.nth(1).unwrap_or_default())),
        Some("--idle") => return idle::measure(),
        Some("--flood") => return flood::measure(),
        Some("--slow") => return slow::measure(),
        Some("--testssl") => return testssl::run(),
        _ => {}
    }
    let options = parse(arguments)?;
    let cases = CASES.into_iter().filter(|case| options.only.as_ref().is_none_or(|only| case.name == only));
    let cases = cases.map(|case| Case { connections: options.connections.unwrap_or(case.connections), ..case });
    let cases: Vec<Case> = cases.collect();
    ensure!(!cases.is_empty(), "no such case: {}", CASES.map(|case| case.name).join(" "));
    let folder = tempfile::Builder::new().prefix("lb-bench-l7-").tempdir()?;
    let nodes = peers::start_nodes(folder.path())?;
    let mut running = Vec::new();
    for proxy in &options.proxies {
        running.push(peers::start(*proxy, folder.path())?);
    }
    let mut rows = Vec::new();
    for case in cases {
        rows.extend(measure(case, &running, &options)?);
        if !options.json {
            print_rows(&rows[rows.len() - running.len()..]);
        }
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows.iter().map(Row::to_json).collect::<Vec<_>>())?);
    }
    drop((running, nodes));
    Ok(())
}

/// A figure of the table.
struct Row {
    case: &'static str,
    proxy: Proxy,
    requests_per_cpu_s: f64,
    requests_per_s: f64,
    p99_ms: f64,
    errors: u64,
}

impl Row {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "case": self.case,
            "proxy": self.proxy.name(),
            "requests_per_cpu_s": self.requests_per_cpu_s.round(),
            "p99_ms": (self.p99_ms * 100.0).round() / 100.0,
            "errors": self.errors,
        })
    }
}

fn measure(case: Case, running: &[Running], options: &Options) -> Result<Vec<Row>> {
    let mut samples: Vec<Vec<Sample>> = running.iter().map(|_| Vec::new()).collect();
    for proxy in running {
        // Connections to nodes, buffers and branch predictors settle.
        load::run(case, proxy, Duration::from_millis(500))?;
    }
    for _ in 0..options.rounds {
        for (proxy, samples) in running.iter().zip(&mut samples) {
            samples.push(load::run(case, proxy, Duration::from_secs(options.seconds))?);
        }
    }
    let row = |(proxy, samples): (&Running, &Vec<Sample>)| Row {
        case: case.name,
        proxy: proxy.proxy,
        requests_per_cpu_s: median(samples, |sample| sample.requests as f64 / sample.cpu_s),
        requests_per_s: median(samples, |sample| sample.requests as f64 / sample.seconds),
        p99_ms: median(samples, |sample| sample.p99_ms),
        errors: samples.iter().map(|sample| sample.errors).sum(),
    };
    Ok(running.iter().zip(&samples).map(row).collect())
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print_rows(rows: &[Row]) {
    for row in rows {
        println!(
            "{:<10} {:<8} {:>9.0} requests/CPU-s {:>9.0} requests/s  p99 {:>7.2} ms  {} errors",
            row.case,
            row.proxy.name(),
            row.requests_per_cpu_s,
            row.requests_per_s,
            row.p99_ms,
            row.errors
        );
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let (only, connections, proxies) = (None, None, Proxy::ALL.to_vec());
    let mut options = Options { json: false, rounds: 5, seconds: 4, only, connections, proxies };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => options.json = true,
            "--quick" => (options.rounds, options.seconds) = (1, 2),
            "--only" => options.only = arguments.next(),
            "--connections" => options.connections = arguments.next().map(|count| count.parse()).transpose()?,
            "--proxy" => {
                let name = arguments.next().unwrap_or_default();
                options.proxies = Proxy::ALL.into_iter().filter(|proxy| proxy.name() == name).collect();
                ensure!(!options.proxies.is_empty(), "--proxy lb|haproxy|nginx");
            }
            other => bail!(
                "bench l7 [--json] [--quick] [--only CASE] [--proxy NAME] [--connections N] | --idle | --flood | --slow, not {other}"
            ),
        }
    }
    Ok(options)
}
