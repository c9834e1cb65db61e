//! `cargo xtask bench datapath`: nanoseconds per packet of the XDP program, and packets per second through veth.
//!
//! Method (DATAPATH.md §2): every pass gets a fresh packet and the next flow; the harness is timed with a trivial subject
//! and subtracted; floors in the same process; rows interleaved repetition by repetition; medians.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program that prints a table")]

mod cases;
mod harness;
mod subject;
mod tap;
mod veth;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use cases::{Bed, Case, Fill};
use harness::{FILLED, Harness, MEASURED, median};
use lb::dataplane::load::TableSizes;
use subject::{IFINDEX, Subject};
use tap::Captured;

/// Flows opened at a time while a table is filled: what fits into `PENDING` between its two packets.
const CHUNK: u64 = 16_384;
const LARGE: TableSizes = TableSizes { max_flows: 1 << 21, max_half_open: 1 << 16, max_rings: 2 };
const HOT: TableSizes = TableSizes { max_flows: 1 << 10, max_half_open: 1 << 6, max_rings: 2 };

struct Options {
    json: bool,
    repetitions: usize,
    repeat: u32,
    only: Option<String>,
    veth: bool,
    /// Set everything up, fill the tables for these flows, and wait: for another yardstick to time the pinned program.
    hold: Option<u64>,
    /// Time the program that captures.
    captured: Option<Captured>,
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    pin_to_last_cpu()?;
    let object = bench_object()?;
    let directory = PathBuf::from(format!("/sys/fs/bpf/lb-bench-{}", std::process::id()));
    let mut cases = cases::all();
    cases.retain(|case| options.only.as_ref().is_none_or(|only| case.name.contains(only.as_str())));
    if let Some(flows) = options.hold {
        cases.retain(|case| case.flows == flows);
        let mut large = Subject::new(&directory.join("large"), LARGE, IFINDEX, options.captured)?;
        fill(&object, &mut large, &cases)?;
        return hold(&directory, &large);
    }
    let mut rows = measure(&options, &object, &directory, &cases)?;
    let floors = floors(&options, &object, &cases)?;
    let _ = std::fs::remove_dir(&directory);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows.iter().map(Row::to_json).collect::<Vec<_>>())?);
        return Ok(());
    }
    rows.sort_by_key(|row| row.case.flows);
    print_table(&rows, &floors);
    if options.veth {
        veth::report(&object)?;
    }
    let missed = rows.iter().filter(|row| row.misses()).count();
    println!("\n{} rows, {missed} beyond their goal", rows.len());
    Ok(())
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options =
        Options { json: false, repetitions: 9, repeat: 1 << 20, only: None, veth: true, hold: None, captured: None };
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--json" => options.json = true,
            "--repetitions" => options.repetitions = value()?.parse()?,
            "--repeat" => options.repeat = value()?.parse()?,
            "--only" => options.only = Some(value()?),
            "--hold" => options.hold = Some(value()?.parse()?),
            "--no-veth" => options.veth = false,
            "--capture" => (options.captured, options.veth) = (Some(Captured::parse(&value()?)?), false),
            other => bail!(
                "unknown argument {other}; there are --json, --only NAME, --repetitions N (at least 7), --repeat N, --no-veth, \
                 --capture nothing|everything, --hold FLOWS"
            ),
        }
    }
    ensure!(options.repetitions >= 7, "--repetitions: at least 7, or the median says little");
    Ok(options)
}

/// The harness object: built beside `lb` by lb-userspace's build script.
fn bench_object() -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/bpfel-unknown-none/release/lb-bench");
    ensure!(path.exists(), "{} is missing: run `cargo xtask build`", path.display());
    Ok(path)
}

/// One CPU, real-time priority: nothing of ours moves about; interrupts are left to the median.
fn pin_to_last_cpu() -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    let mut set = nix::sched::CpuSet::new();
    set.set(cpus - 1)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?;
    // SAFETY: a plain structure, passed by address for the length of the call.
    let result = unsafe {
        let parameters = libc::sched_param { sched_priority: 10 };
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters)
    };
    if result != 0 {
        note(&format!("no real-time priority here ({}); expect more noise", std::io::Error::last_os_error()));
    }
    Ok(())
}

/// What makes a figure worth less.
pub(crate) fn note(text: &str) {
    eprintln!("note: {text}");
}

/// A measured row.
struct Row {
    case: Case,
    net_ns: f64,
    min_ns: f64,
    max_ns: f64,
}

impl Row {
    fn misses(&self) -> bool {
        self.case.goal.is_some_and(|goal| self.net_ns > goal)
    }

    fn to_json(&self) -> serde_json::Value {
        let ns = (self.net_ns * 100.0).round() / 100.0;
        serde_json::json!({ "case": self.case.name, "flows": self.case.flows, "net_ns": ns })
    }
}

/// A row on its way: its program with tables of its own, the harness, and what was timed so far.
struct Bench {
    case: Case,
    subject: Subject,
    harness: Harness,
    net: Vec<f64>,
    base: Vec<f64>,
}

impl Bench {
    fn new(options: &Options, object: &Path, directory: &Path, case: &Case) -> Result<Self> {
        let mut subject = Subject::new(&directory.join(case.name), sizes(case), IFINDEX, options.captured)?;
        fill(object, &mut subject, std::slice::from_ref(case))?;
        let harness = Harness::new(object, &case.packet, case.cycle, MEASURED, options.repeat)?;
        Ok(Self { case: case.clone(), subject, harness, net: Vec::new(), base: Vec::new() })
    }

    /// Once around: the trivial subject, then the program.
    fn turn(&mut self, repeat: u32) -> Result<()> {
        let (case, pass, subject) = (&self.case, self.harness.own("lb_bench_pass")?, self.subject.fd()?);
        self.harness.set_subject(&pass)?;
        self.base.push(self.harness.run(0, repeat)?.0);
        self.harness.set_subject(&subject)?;
        let (ns, code) = self.harness.run(0, repeat)?;
        ensure!(code == case.expect, "{} at {} flows returned {code}, not {}", case.name, case.flows, case.expect);
        self.net.push(ns);
        Ok(())
    }

    fn row(mut self) -> Row {
        let base = median(&mut self.base);
        let net_ns = median(&mut self.net) - base;
        Row { case: self.case, net_ns, min_ns: self.net[0] - base, max_ns: self.net[self.net.len() - 1] - base }
    }
}

/// Tables as a balancer for that many connections has them: `max_flows` is their number (twice for NAT, which takes two
/// records), and lbd makes twice as many places.
fn sizes(case: &Case) -> TableSizes {
    if case.bed == Bed::Hot {
        return HOT;
    }
    let flows = (case.flows as u32).max(1 << 16);
    TableSizes {
        max_flows: if case.name.starts_with("nat") { flows * 2 } else { flows },
        max_half_open: 1 << 16,
        max_rings: 2,
    }
}

/// Times all rows, repetition by repetition; one number of flows after the other, each row on tables of its own.
fn measure(options: &Options, object: &Path, directory: &Path, cases: &[Case]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for flows in cases.iter().map(|case| case.flows).collect::<BTreeSet<_>>() {
        let mut benches = Vec::new();
        for case in cases.iter().filter(|case| case.flows == flows) {
            benches.push(Bench::new(options, object, directory, case)?);
        }
        for _ in 0..options.repetitions {
            for bench in &mut benches {
                bench.turn(options.repeat)?;
            }
        }
        rows.extend(benches.into_iter().map(Bench::row));
    }
    Ok(rows)
}

/// Opens every flow of the cases, as a client and a node would.
fn fill(object: &Path, subject: &mut Subject, cases: &[Case]) -> Result<()> {
    for case in cases {
        let Fill::Packets(packets) = &case.fill else { continue };
        let mut steps = Vec::new();
        for packet in packets {
            let mut harness = Harness::new(object, packet, case.flows, FILLED, u32::MAX)?;
            harness.set_subject(&subject.fd()?)?;
            steps.push(harness);
        }
        let mut first = 0;
        while first < case.flows {
            let chunk = CHUNK.min(case.flows - first);
            for step in &mut steps {
                step.run(first, chunk as u32)?;
            }
            first += chunk;
        }
    }
    eprintln!("tables hold {} records", subject.flows());
    Ok(())
}

/// What nothing can be faster than, on this machine, at this moment.
fn floors(options: &Options, object: &Path, cases: &[Case]) -> Result<Vec<(&'static str, f64)>> {
    let Some(case) = cases.first() else { return Ok(Vec::new()) };
    let mut rows = Vec::new();
    for (name, flows) in [("harness alone, 1 flow", 1), ("harness alone, 1 Mi flows", 1 << 20)] {
        let mut bench = Harness::new(object, &case.packet, flows, MEASURED, options.repeat)?;
        let (pass, swap) = (bench.own("lb_bench_pass")?, bench.own("lb_bench_swap")?);
        let (mut base, mut net) = (Vec::new(), Vec::new());
        for _ in 0..options.repetitions {
            bench.set_subject(&pass)?;
            base.push(bench.run(0, options.repeat)?.0);
            bench.set_subject(&swap)?;
            net.push(bench.run(0, options.repeat)?.0);
        }
        let base = median(&mut base);
        rows.push((name, base));
        if flows == 1 {
            rows.push(("swap MACs and TX, net", median(&mut net) - base));
        }
    }
    Ok(rows)
}

fn print_table(rows: &[Row], floors: &[(&str, f64)]) {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = text("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown CPU");
    println!("{model}, Linux {}", text("/proc/sys/kernel/osrelease").trim());
    for (name, ns) in floors {
        println!("floor: {name}: {ns:.1} ns");
    }
    println!("\n{:<18} {:>8} {:>9} {:>9} {:>9} {:>6}", "case", "flows", "net ns", "min", "max", "goal");
    for row in rows {
        let goal = row.case.goal.map_or(String::new(), |goal| format!("{goal:.0}"));
        let mark = if row.misses() { "  beyond its goal" } else { "" };
        println!(
            "{:<18} {:>8} {:>9.1} {:>9.1} {:>9.1} {goal:>6}{mark}",
            row.case.name, row.case.flows, row.net_ns, row.min_ns, row.max_ns
        );
    }
}

/// Waits until standard input closes, then takes everything away.
fn hold(directory: &Path, large: &Subject) -> Result<()> {
    println!("{} records; program pinned at {}/large/program; press Enter to end", large.flows(), directory.display());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}

/// Runs a command of the system, quietly.
pub(crate) fn system(arguments: &[&str]) -> Result<()> {
    let output = Command::new(arguments[0]).args(&arguments[1..]).output()?;
    ensure!(output.status.success(), "{}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}
