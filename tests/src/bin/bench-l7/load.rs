//! Load from wrk and h2load, and what it cost the proxy.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{Case, Load, peers::Running};

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    /// Of the proxy, user and kernel.
    pub(crate) cpu_s: f64,
    pub(crate) p99_ms: f64,
    pub(crate) errors: u64,
}

/// Runs the load of `case` against `proxy`.
pub(crate) fn run(case: Case, proxy: &Running, time: Duration) -> Result<Sample> {
    let url = format!("{}://127.0.0.1:{}{}", proxy.scheme(case.port), proxy.port(case.port), case.path);
    let before = cpu(&proxy.pids())?;
    let begin = Instant::now();
    let text = match case.load {
        Load::Kept | Load::Closed => wrk(case, &url, time)?,
        Load::Http2 => h2load(case, &url, time)?,
    };
    let seconds = begin.elapsed().as_secs_f64();
    let cpu_s = cpu(&proxy.pids())? - before;
    let (requests, p99_ms, errors) = match case.load {
        Load::Kept | Load::Closed => of_wrk(&text),
        Load::Http2 => of_h2load(&text),
    }
    .with_context(|| format!("what the load generator said is not understood:\n{text}"))?;
    ensure!(requests > 0, "no request of {} to {} succeeded:\n{text}", case.name, proxy.proxy.name());
    Ok(Sample { requests, seconds, cpu_s, p99_ms, errors })
}

fn wrk(case: Case, url: &str, time: Duration) -> Result<String> {
    let mut command = Command::new("taskset");
    let seconds = time.as_secs().max(1);
    command.args(["-c", "1", "wrk", "-t1", "--latency", &format!("-c{}", case.connections), &format!("-d{seconds}s")]);
    if case.load == Load::Closed {
        command.args(["-H", "Connection: close"]);
    }
    output(command.arg(url))
}

fn h2load(case: Case, url: &str, time: Duration) -> Result<String> {
    let seconds = time.as_secs().max(1);
    let log = tempfile::NamedTempFile::new()?;
    let mut command = Command::new("taskset");
    command.args([
        "-c",
        "1",
        "h2load",
        "-t1",
        "-m10",
        &format!("-c{}", case.connections / 8),
        "-D",
        &seconds.to_string(),
    ]);
    command.args(["--warm-up-time=0", &format!("--log-file={}", log.path().display())]).arg(url);
    let mut text = output(&mut command)?;
    // Its summary has no percentiles: the log has start, status and microseconds of each request.
    let mut times: Vec<u64> = fs::read_to_string(log.path())?
        .lines()
        .filter_map(|line| line.split('\t').nth(2).and_then(|time| time.parse().ok()))
        .collect();
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    text.push_str(&format!("\np99 {p99}\n"));
    Ok(text)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Requests, p99 in milliseconds and errors from what wrk prints.
fn of_wrk(text: &str) -> Option<(u64, f64, u64)> {
    let line = |word: &str| text.lines().find(|line| line.contains(word));
    let requests = line("requests in")?.split_whitespace().next()?.parse().ok()?;
    let p99 = line("99%")?.split_whitespace().nth(1)?;
    let unit = p99.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let value: f64 = p99.strip_suffix(unit)?.parse().ok()?;
    let p99_ms = value * [("us", 0.001), ("ms", 1.0), ("s", 1000.0)].iter().find(|(name, _)| *name == unit)?.1;
    let numbers = |line: &str| -> u64 { line.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum() };
    let errors = line("Socket errors").map_or(0, numbers) + line("Non-2xx").map_or(0, numbers);
    Some((requests, p99_ms, errors))
}

/// The same from what h2load prints.
fn of_h2load(text: &str) -> Option<(u64, f64, u64)> {
    let line = text.lines().find(|line| line.starts_with("requests:"))?;
    let count = |word: &str| -> Option<u64> {
        let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let at = words.iter().position(|other| *other == word)?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    let p99: f64 = text.lines().find_map(|line| line.strip_prefix("p99 "))?.parse().ok()?;
    Some((count("succeeded")?, p99 / 1000.0, count("failed")? + count("errored")?))
}

/// CPU seconds that processes used so far.
fn cpu(pids: &[u32]) -> Result<f64> {
    let mut ticks = 0;
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let after_name = stat.rsplit_once(')').context("a stat line has a name")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // utime and stime, proc(5).
        ticks += fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    }
    Ok(ticks as f64 / nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100) as f64)
}
