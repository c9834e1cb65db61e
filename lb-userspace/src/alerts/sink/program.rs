//! A program that is told: run by the process that runs monitors' programs, as a user without rights (THREATS A11). What
//! happened is in its environment.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::alerts::{Failure, notice::Notice};

/// A program to run, for whoever can.
#[derive(Debug)]
pub struct Run {
    /// Its file in `daemon.monitor_dir`.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// It is killed after this.
    pub timeout: Duration,
    /// How it ended: `Err` in words.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// Where programs are ordered.
pub type Runs = mpsc::Sender<Run>;

pub(in crate::alerts) async fn send(
    runs: Option<&Runs>,
    name: &str,
    arguments: &[String],
    timeout: Duration,
    notice: &Notice,
) -> Result<(), Failure> {
    let missing = || Failure::never("daemon.monitor_dir was not there when lbd was started".to_owned());
    let (answer, answered) = oneshot::channel();
    let run =
        Run { name: name.to_owned(), arguments: arguments.to_vec(), environment: environment(notice), timeout, answer };
    let gone = || Failure::again("the runner of programs is gone".to_owned());
    runs.ok_or_else(missing)?.send(run).await.map_err(|_| gone())?;
    answered.await.map_err(|_| gone())?.map_err(Failure::again)
}

/// What the program is told, by name; see `docs/operations.md`.
fn environment(notice: &Notice) -> BTreeMap<String, String> {
    let variables = [
        ("LB_EVENT", notice.name().to_owned()),
        ("LB_STATE", notice.state().to_owned()),
        ("LB_SEVERITY", notice.severity().word().to_owned()),
        ("LB_OBJECT", notice.object().to_owned()),
        ("LB_TEXT", notice.line()),
        ("LB_NUMBER", notice.number().to_string()),
        ("LB_TIME", notice.time()),
        ("LB_MACHINE", notice.machine.to_string()),
    ];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
