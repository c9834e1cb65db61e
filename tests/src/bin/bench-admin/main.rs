//! `cargo xtask bench admin`: how long operators wait at 1,000 virtual servers and 10,000 nodes: for `lbctl`, for a change of one node
//! by both of its ways, and Prometheus for a scrape.
//!
//! Method: an lbd alone on a machine with two processors, its nodes behind one router, without monitors. Every time is from the
//! start of a process, or of a request, to its end. What a change wrote into the maps is read from lbd's log.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement talks to who runs it")]

mod site;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::harness::{Lb, Topology};
use serde_json::{Value, json};

use self::site::Site;

/// Commands that look, and the most that they may take.
const LOOKS: [&[&str]; 9] = [
    &["status"],
    &["vs", "ls"],
    &["vs", "show", "vs500"],
    &["pool", "ls"],
    &["pool", "show", "pool500"],
    &["node", "ls"],
    &["node", "show", "pool500/node3"],
    &["vip", "ls"],
    &["history"],
];
const LOOK: Duration = Duration::from_millis(50);
const CHANGE: Duration = Duration::from_millis(100);
const SCRAPE: Duration = Duration::from_millis(250);

fn main() -> ExitCode {
    match Options::read().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    runs: usize,
    json: bool,
    site: Site,
}

impl Options {
    fn read() -> Result<Self> {
        let mut options = Self { runs: 20, json: false, site: Site::default() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || words.next().context("a number belongs to it")?.parse::<usize>().context("no number");
            match word.as_str() {
                "--json" => options.json = true,
                "--runs" => options.runs = number()?,
                "--virtual-servers" => options.site.virtual_servers = number()?,
                "--nodes" => options.site.nodes = number()?,
                "--l4" => options.site.l4 = number()?,
                other => bail!(
                    "{other}? There are --runs N, --virtual-servers N, --nodes N (of each), --l4 N (virtual servers that XDP \
                     forwards, the others are the proxy's) and --json"
                ),
            }
        }
        ensure!(options.runs > 0, "nothing is measured by no run");
        ensure!(
            options.site.fits(),
            "at least 501 virtual servers of 4 to 60 nodes each, 4,000 virtual servers at most"
        );
        Ok(options)
    }
}

fn run(options: &Options) -> Result<()> {
    let net = Topology::new("benchadmin").nodes(1).build()?;
    options.site.route(&net)?;
    let mut lb = Lb::prepare(&net, &options.site.config())?.quiet().logging("info,lb::daemon::subsystems=debug");
    let started = lb.launch()?;
    let mut rows = vec![json!({
        "case": "start",
        "virtual_servers": options.site.virtual_servers,
        "l4": options.site.l4,
        "nodes": options.site.virtual_servers * options.site.nodes,
        "ms": milliseconds(started),
    })];
    let mut add = |row: Value| {
        if !options.json {
            println!("{row}");
        }
        rows.push(row);
    };
    for command in LOOKS {
        let json = [command, &["-o", "json"]].concat();
        for words in [command, &json] {
            add(row(&format!("lbctl {}", words.join(" ")), LOOK, &times(options.runs, |_| lb.ctl(words).map(drop))?));
        }
    }
    for (way, words) in changes() {
        // Of a virtual server that XDP forwards, and of one of the proxy's.
        for pool in [0, options.site.virtual_servers - 1] {
            let node = format!("pool{pool}/node3");
            let change = |run: usize| {
                let words = words(&node, run);
                lb.ctl(&words.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
            };
            let mut row = row(&format!("{way} {node}"), CHANGE, &times(options.runs, change)?);
            let log = lb.log();
            row["written"] =
                json!(log.lines().rev().find_map(|line| line.split_once("applied=")).map(|(_, what)| what));
            add(row);
        }
    }
    let mut bytes = 0;
    let scrapes = times(options.runs, |_| {
        bytes = lb.metrics()?.len();
        Ok(())
    })?;
    let mut scrape = row("scrape", SCRAPE, &scrapes);
    scrape["bytes"] = json!(bytes);
    add(scrape);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    }
    Ok(())
}

/// The words of a change of a node, in its so-manieth run.
type Words = fn(&str, usize) -> Vec<String>;

/// Ways to change one node: at run time, and as a revision of the configuration.
fn changes() -> [(&'static str, Words); 3] {
    [
        ("node set", |node, run| words(&["node", "set", node, &weight(run)])),
        ("node set --persist", |node, run| words(&["node", "set", node, &weight(run), "--persist"])),
        // The last: a node that is drained has no place in a ring, whatever its weight.
        ("node drain", |node, run| words(&["node", if run % 2 == 0 { "drain" } else { "undrain" }, node])),
    ]
}

fn weight(run: usize) -> String {
    format!("weight={}", 11 + run % 50)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn times(runs: usize, mut act: impl FnMut(usize) -> Result<()>) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(runs);
    for run in 0..runs {
        let start = Instant::now();
        act(run)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn row(case: &str, most: Duration, times: &[Duration]) -> Value {
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    json!({
        "case": case,
        "runs": times.len(),
        "p50_ms": milliseconds(at(times.len() / 2)),
        "max_ms": milliseconds(at(times.len().saturating_sub(1))),
        "most_ms": milliseconds(most),
        "met": at(times.len().saturating_sub(1)) < most,
    })
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}
