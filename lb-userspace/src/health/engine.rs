//! The task that drives all checks: a clock, the sockets and two channels around [`Schedule`].

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::{self, AbortHandle, JoinSet},
    time,
};

use super::{
    Outside, Report, Target, dns, greeting, http,
    machine::Outcome,
    ping::Pings,
    probe::Verdict,
    program,
    schedule::{Attempt, Key, Limits, Resource, Schedule, Start, Step},
    tcp,
    tls::{Client, Clients},
    transaction, udp, vip,
};
use crate::control::{
    probe::{Kind, Tls},
    view::Health,
};

/// Connections of checks that may be open at a time, when the limit on descriptors allows it.
const MAX_CONNECTIONS: usize = 16_384;

/// When the limit on descriptors cannot be read.
const DEFAULT_CONNECTIONS: usize = 512;

/// Programs that may run at a time.
const MAX_PROCESSES: usize = 64;

/// Checks that wait so long for a place are worth a warning.
const LATE: Duration = Duration::from_secs(1);

/// Between two warnings of the same kind.
const WARN_EVERY: Duration = Duration::from_secs(60);

struct Engine {
    schedule: Schedule,
    outside: Outside,
    /// All checks under way but pings.
    checks: JoinSet<(Attempt, Outcome)>,
    handles: HashMap<Attempt, AbortHandle>,
    pings: Pings,
    clients: Clients,
    /// Programs that were run: names each run.
    runs: u64,
    /// Reports not sent yet, the newest of each target.
    outbox: BTreeMap<Key, Report>,
    /// The health that was last logged.
    told: BTreeMap<Key, Health>,
    warned_late: Option<Instant>,
    warned_untested: Option<Instant>,
}

/// Runs until `targets` or `reports` is closed.
pub(super) async fn run(mut targets: watch::Receiver<Vec<Target>>, reports: mpsc::Sender<Report>, outside: Outside) {
    let limits = Limits { connections: max_connections(), processes: MAX_PROCESSES };
    let mut engine = Engine {
        schedule: Schedule::new(limits),
        outside,
        checks: JoinSet::new(),
        handles: HashMap::new(),
        pings: Pings::default(),
        clients: Clients::default(),
        runs: first_run(),
        outbox: BTreeMap::new(),
        told: BTreeMap::new(),
        warned_late: None,
        warned_untested: None,
    };
    while engine.turn(&mut targets, &reports).await {}
}

impl Engine {
    /// Does what is due, then waits for the next thing to happen. `false`: nobody is left to work for.
    async fn turn(&mut self, targets: &mut watch::Receiver<Vec<Target>>, reports: &mpsc::Sender<Report>) -> bool {
        let now = Instant::now();
        let step = self.schedule.tick(now);
        self.carry_out(step);
        self.warn_when_late(now);
        let wakeup = self.schedule.wakeup();
        if wakeup.is_some_and(|at| at <= now) {
            // More is due; let the runtime look at the sockets first.
            task::yield_now().await;
        }
        let sleep = async {
            match wakeup {
                Some(at) => time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            changed = targets.changed() => {
                let wanted = targets.borrow_and_update().clone();
                let step = self.schedule.set(wanted, Instant::now());
                self.carry_out(step);
                self.clients.tidy();
                return changed.is_ok();
            }
            Some(ended) = self.checks.join_next() => match ended {
                Ok((attempt, outcome)) => {
                    self.handles.remove(&attempt);
                    vec![(attempt, outcome)]
                }
                // Aborted, or panicked: then the check runs into its timeout.
                Err(_) => Vec::new(),
            },
            answers = self.pings.answered() => answers,
            permit = reports.reserve(), if !self.outbox.is_empty() => {
                let Ok(permit) = permit else { return false };
                if let Some((_, report)) = self.outbox.pop_first() {
                    permit.send(report);
                }
                Vec::new()
            }
            () = sleep => Vec::new(),
        };
        for (attempt, outcome) in ended {
            self.end(attempt, outcome);
        }
        true
    }

    fn carry_out(&mut self, step: Step) {
        if let Some(reason) = step.untested
            && is_time(&mut self.warned_untested, Instant::now())
        {
            tracing::warn!(reason, "health checks could not be made; the nodes keep the health they had");
        }
        for attempt in step.abandoned {
            self.pings.forget(attempt);
            if let Some(connect) = self.handles.remove(&attempt) {
                connect.abort();
            }
        }
        for name in step.removed {
            self.told.remove(&name);
            self.outbox.remove(&name);
        }
        for report in step.reports {
            let key = (report.pool.clone(), report.node.clone(), report.monitor.clone());
            if self.told.insert(key.clone(), report.health) != Some(report.health) {
                log(&report);
            }
            self.outbox.insert(key, report);
        }
        for start in step.starts {
            self.start(start);
        }
    }

    /// The place to add a kind of check.
    fn start(&mut self, Start { attempt, kind, address, timeout }: Start) {
        match kind {
            Kind::Ping => {
                if let Err(outcome) = self.pings.send(attempt, address) {
                    self.end(attempt, outcome);
                }
            }
            Kind::Tcp => self.run(attempt, tcp::check(address)),
            Kind::Vip(vips) => {
                let knocks = self.outside.knocks.clone();
                self.run(attempt, async move { vip::check(address, &vips, knocks.as_ref()).await });
            }
            Kind::Http(settings) => {
                let tls = self.client(settings.tls.as_ref());
                self.run(attempt, async move { http::check(address, &settings, tls?.as_ref()).await });
            }
            Kind::Greeting(protocol, tls) => {
                let tls = self.client(tls.as_ref());
                self.run(attempt, async move { greeting::check(address, protocol, tls?.as_ref()).await });
            }
            Kind::Dns(settings) => self.run(attempt, async move { dns::check(address, &settings).await }),
            Kind::Udp(settings) => self.run(attempt, async move { udp::check(address, &settings).await }),
            Kind::Transaction(settings) => {
                let tls = self.client(settings.tls.as_ref());
                self.run(attempt, async move { transaction::check(address, &settings, tls?.as_ref()).await });
            }
            Kind::Program(settings) => {
                self.runs += 1;
                let (id, programs) = (self.runs, self.outside.programs.clone());
                let check = async move { program::check(id, address, &settings, timeout, programs.as_ref()).await };
                self.run(attempt, check);
            }
        }
    }

    fn client(&mut self, tls: Option<&Arc<Tls>>) -> Result<Option<Client>, Outcome> {
        tls.map(|tls| self.clients.get(tls)).transpose()
    }

    fn run(&mut self, attempt: Attempt, check: impl Future<Output = Verdict> + Send + 'static) {
        let task = async move { (attempt, check.await.err().unwrap_or(Outcome::Answered)) };
        self.handles.insert(attempt, self.checks.spawn(task));
    }

    fn end(&mut self, attempt: Attempt, outcome: Outcome) {
        let step = self.schedule.end(attempt, outcome, Instant::now());
        self.carry_out(step);
    }

    fn warn_when_late(&mut self, now: Instant) {
        for (resource, advice) in [
            (Resource::Connection, "all connections for checks are in use: raise LimitNOFILE, or the monitors' delay"),
            (Resource::Process, "too many programs run at a time: raise the monitors' delay, or make them faster"),
        ] {
            let (waiting, longest) = self.schedule.held(resource, now);
            if longest >= LATE && is_time(&mut self.warned_late, now) {
                tracing::warn!(waiting, ?longest, advice, "health checks are late");
            }
        }
    }
}

/// A number that no run has had, also not one that the runner was given by the program before this one.
fn first_run() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Whether to warn again, and notes that it was done.
fn is_time(warned: &mut Option<Instant>, now: Instant) -> bool {
    let is_time = warned.is_none_or(|at| now >= at + WARN_EVERY);
    if is_time {
        *warned = Some(now);
    }
    is_time
}

/// Half of the descriptors this process may have.
fn max_connections() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    match files {
        Some("unlimited") => MAX_CONNECTIONS,
        Some(files) => files.parse().map_or(DEFAULT_CONNECTIONS, |files: usize| (files / 2).clamp(64, MAX_CONNECTIONS)),
        None => DEFAULT_CONNECTIONS,
    }
}

/// Tells of another health. Another reason for the same one, which a node that is down may have with every check, is to be
/// seen by `lbctl node show`.
fn log(Report { pool, node, monitor, health, reason }: &Report) {
    let reason = reason.as_deref();
    match health {
        Health::Up => tracing::info!(pool, node, monitor, "node is up"),
        Health::Down => tracing::warn!(pool, node, monitor, reason, "node is down"),
        Health::Unknown => tracing::warn!(pool, node, monitor, reason, "health of node is unknown"),
    }
}
