//! `cargo xtask bench failover`: how long a client waits while a VIP moves between two machines, by what made it move, and that
//! attacks do not move it; lb beside keepalived and ucarp, and a machine with FreeBSD's CARP logic as negative control.
//!
//! Method: two machines and a client on a bridge, and a second network between the machines; a ping every 2 ms to the VIP. lb and keepalived say
//! what they own every 100 ms, ucarp every second, which is the least it can. Who has the VIP is looked at every 2 ms. For BGP, FRR or
//! BIRD is the router between client and machines, and spreads flows over both.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement talks to who runs it")]

mod announced;
mod attacks;
mod machines;
mod moves;
mod streams;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::harness::{Probe, owners::Seen};
use serde_json::{Value, json};

use self::machines::{Machines, Maker};

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
    seconds: u64,
    json: bool,
    only: Vec<String>,
    daemon: Option<String>,
}

impl Options {
    fn read() -> Result<Self> {
        let mut options = Self { runs: 20, seconds: 60, json: false, only: Vec::new(), daemon: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => options.json = true,
                "--runs" => options.runs = words.next().context("--runs N")?.parse()?,
                "--seconds" => options.seconds = words.next().context("--seconds S")?.parse()?,
                "--only" => options.only.push(words.next().context("--only CASE")?),
                "--daemon" => options.daemon = Some(words.next().context("--daemon NAME")?),
                other => bail!(
                    "{other}? There are --runs N, --seconds S (of an attack), --only CASE, --daemon NAME and --json"
                ),
            }
        }
        let known = |case: &String| {
            let named = |cases: &[&str]| cases.contains(&case.as_str());
            named(&announced::CASES)
                || named(&streams::CASES)
                || case == "heal"
                || moves::CASES.iter().chain(&attacks::CASES).any(|(known, _)| known == case)
        };
        for case in &options.only {
            ensure!(known(case), "there is no case {case}");
        }
        ensure!(options.runs > 0 && options.seconds > 0, "nothing is measured in no time");
        Ok(options)
    }

    fn wants(&self, case: &str) -> bool {
        let wanted = |only: &String| only == case || (only == "heal" && case == "silent_partition");
        self.only.is_empty() || self.only.iter().any(wanted)
    }

    fn wants_maker(&self, maker: Maker) -> bool {
        self.daemon.as_deref().is_none_or(|name| name == maker.name())
    }
}

/// One move, or one attack.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    /// The longest time without an answer.
    pub(crate) gap: Duration,
    /// Who had the VIP.
    pub(crate) seen: Seen,
    /// Until the other machine had all VIPs.
    pub(crate) complete: Option<Duration>,
    /// Pings without an answer.
    pub(crate) loss_percent: Option<f64>,
    /// Advertisements, of those before.
    pub(crate) rate_percent: Option<f64>,
}

/// What happens while something is done.
pub(crate) fn observe(machines: &Machines<'_>, probe: &Probe, act: impl FnOnce() -> Result<()>) -> Result<Run> {
    let begun = Begun::now(probe);
    act()?;
    Ok(begun.end(machines, probe))
}

/// When something began.
pub(crate) struct Begun {
    at: Instant,
    mark: usize,
}

impl Begun {
    pub(crate) fn now(probe: &Probe) -> Self {
        Self { at: Instant::now(), mark: probe.mark() }
    }

    /// What happened since.
    pub(crate) fn end(&self, machines: &Machines<'_>, probe: &Probe) -> Run {
        Run { gap: probe.gap_since(self.mark).0, seen: machines.seen_since(self.at), ..Run::default() }
    }
}

fn run(options: &Options) -> Result<()> {
    let mut rows = Vec::new();
    let mut add = |row: Value| {
        if !options.json {
            println!("{row}");
        }
        rows.push(row);
    };
    for (case, makers) in moves::CASES.iter().filter(|(case, _)| options.wants(case)) {
        for maker in makers.iter().filter(|maker| options.wants_maker(**maker)) {
            let measured = moves::measure(case, *maker, options.runs);
            for (name, runs) in measured.with_context(|| format!("{case}, {}", maker.name()))? {
                add(row(name, *maker, &runs));
            }
        }
    }
    for (case, makers) in attacks::CASES.iter().filter(|(case, _)| options.wants(case)) {
        for maker in makers.iter().filter(|maker| options.wants_maker(**maker)) {
            let run = attacks::measure(case, *maker, Duration::from_secs(options.seconds));
            add(row(case, *maker, &[run.with_context(|| format!("{case}, {}", maker.name()))?]));
        }
    }
    for case in announced::CASES.iter().filter(|case| options.wants(case) && options.wants_maker(Maker::Lb)) {
        let runs = announced::measure(case, options.runs).with_context(|| (*case).to_owned())?;
        add(json!({
            "case": case,
            "daemon": Maker::Lb.name(),
            "runs": runs.len(),
            "gap_ms": spread(runs.iter().map(|run| run.gap)),
        }));
    }
    for case in streams::CASES.iter().filter(|case| options.wants(case) && options.wants_maker(Maker::Lb)) {
        let runs = (0..options.runs).map(|_| streams::measure(case)).collect::<Result<Vec<f64>>>();
        let alive = runs.with_context(|| (*case).to_owned())?;
        let mean = alive.iter().sum::<f64>() / alive.len() as f64;
        let least = alive.iter().copied().fold(f64::INFINITY, f64::min);
        add(json!({
            "case": case,
            "daemon": Maker::Lb.name(),
            "runs": alive.len(),
            "alive_percent": { "mean": (mean * 100.0).round() / 100.0, "min": least },
        }));
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    }
    Ok(())
}

fn row(case: &str, maker: Maker, runs: &[Run]) -> Value {
    let mut row = json!({
        "case": case,
        "daemon": maker.name(),
        "runs": runs.len(),
        "gap_ms": spread(runs.iter().map(|run| run.gap)),
        "owners_max": runs.iter().map(|run| run.seen.owners_max).max(),
        "two_owners_ms": spread(runs.iter().map(|run| run.seen.several)),
        "transitions": runs.iter().map(|run| run.seen.transitions).max(),
    });
    if runs.iter().all(|run| run.complete.is_some()) {
        row["complete_ms"] = spread(runs.iter().filter_map(|run| run.complete));
    }
    let [run, ..] = runs else { return row };
    if let Some(loss) = run.loss_percent {
        row["loss_percent"] = json!((loss * 1_000.0).round() / 1_000.0);
    }
    if let Some(rate) = run.rate_percent {
        row["rate_percent"] = json!((rate * 10.0).round() / 10.0);
    }
    row
}

fn spread(times: impl Iterator<Item = Duration>) -> Value {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    let ms = |time: Option<&Duration>| time.map(|time| (time.as_secs_f64() * 10_000.0).round() / 10.0);
    json!({ "p50": ms(times.get(times.len() / 2)), "max": ms(times.last()) })
}
