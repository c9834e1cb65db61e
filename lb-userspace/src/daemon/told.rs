//! Joins the alerts to the rest: programs of alerts to the runner of programs, and this machine's name.

use tokio::{sync::mpsc, task};

use crate::{
    alerts::{Run, Runs},
    config::Config,
    health::Programs,
};

/// Programs of alerts that wait for the runner.
const RUNS: usize = 16;

/// Takes orders of programs as long as somebody may give one. Must be called on the runtime.
pub(super) fn programs(programs: Programs) -> Runs {
    let (runs, mut ordered) = mpsc::channel(RUNS);
    task::spawn(async move {
        while let Some(Run { name, arguments, environment, timeout, answer }) = ordered.recv().await {
            let programs = programs.clone();
            task::spawn(async move {
                // Who ordered it may have given up.
                let _ = answer.send(programs.run(&name, arguments, environment, timeout).await);
            });
        }
    });
    runs
}

/// How this machine is called: in its cluster, or by itself.
pub(super) fn machine(config: &Config) -> String {
    if let Some(cluster) = &config.cluster {
        return cluster.machine.clone();
    }
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let own = own.trim();
    if own.is_empty() { "lb".to_owned() } else { own.to_owned() }
}
