//! The data plane beside the rest of the daemon: a thread of its own, because building rings and asking the kernel would
//! hold up everyone else's timers. Orders come by a channel, and the kernel's news by netlink.

use std::{
    collections::BTreeSet,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    apply::Applied,
    netlink::Watcher,
    owner::{Capturing, Dataplane, DataplaneError},
};
use crate::control::plan::Plan;

/// How often [`Dataplane::tick`] is called.
const TICK: Duration = Duration::from_millis(200);

/// Orders that wait: the daemon awaits each answer, so there are never many.
const QUEUE: usize = 16;

enum Command {
    Apply(Arc<Plan>, oneshot::Sender<Result<Applied, DataplaneError>>),
    Collected(BTreeSet<u16>),
    Capture(Vec<Capturing>, Instant, oneshot::Sender<Result<Arc<()>, DataplaneError>>),
    Withdraw(oneshot::Sender<Result<(), DataplaneError>>),
}

/// Gives orders to the data plane.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

/// Starts the thread. It ends, leaving all as it is, when the last [`Handle`] is dropped.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(dataplane: Dataplane) -> io::Result<(Handle, thread::JoinHandle<()>)> {
    let (commands, orders) = mpsc::channel(QUEUE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name("dataplane".to_owned());
    let join = thread.spawn(move || runtime.block_on(run(dataplane, orders)))?;
    Ok((Handle { commands }, join))
}

impl Handle {
    /// [`Dataplane::apply`].
    ///
    /// # Errors
    /// As there; `Stopped` when the thread has ended.
    pub async fn apply(&self, plan: Arc<Plan>) -> Result<Applied, DataplaneError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Apply(plan, answer)).await.map_err(|_| DataplaneError::Stopped)?;
        answered.await.map_err(|_| DataplaneError::Stopped)?
    }

    /// [`Dataplane::on_collected`].
    ///
    /// # Errors
    /// `Stopped` when the thread has ended.
    pub async fn collected(&self, translated: BTreeSet<u16>) -> Result<(), DataplaneError> {
        self.commands.send(Command::Collected(translated)).await.map_err(|_| DataplaneError::Stopped)
    }

    /// [`Dataplane::capture`]; blocks.
    ///
    /// # Errors
    /// As there; `Stopped` when the thread has ended.
    pub fn capture(&self, programs: Vec<Capturing>, until: Instant) -> Result<Arc<()>, DataplaneError> {
        let (answer, answered) = oneshot::channel();
        let order = Command::Capture(programs, until, answer);
        self.commands.blocking_send(order).map_err(|_| DataplaneError::Stopped)?;
        answered.blocking_recv().map_err(|_| DataplaneError::Stopped)?
    }

    /// [`Dataplane::withdraw`]. The thread ends.
    ///
    /// # Errors
    /// As there; `Stopped` when the thread has ended.
    pub async fn withdraw(&self) -> Result<(), DataplaneError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Withdraw(answer)).await.map_err(|_| DataplaneError::Stopped)?;
        answered.await.map_err(|_| DataplaneError::Stopped)?
    }
}

async fn run(mut dataplane: Dataplane, mut orders: mpsc::Receiver<Command>) {
    let mut watcher = Watcher::open().inspect_err(|error| tracing::error!(%error, "no news of next hops")).ok();
    if let Err(error) = dataplane.listen(watcher.is_some()) {
        tracing::error!(%error, "the network is not known as it is; it is asked again");
    }
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            order = orders.recv() => match order {
                None => {
                    dataplane.end_capture();
                    return;
                }
                Some(Command::Capture(programs, until, answer)) => {
                    // Nobody waits any more: what is answered is dropped, which ends it.
                    let _ = answer.send(dataplane.capture(programs, until));
                    Ok(())
                }
                Some(Command::Apply(plan, answer)) => {
                    // Nobody waits for the answer any more: the plan is in force all the same.
                    let _ = answer.send(dataplane.apply(&plan));
                    Ok(())
                }
                Some(Command::Collected(translated)) => dataplane.on_collected(&translated),
                Some(Command::Withdraw(answer)) => {
                    // As above.
                    let _ = answer.send(dataplane.withdraw());
                    return;
                }
            },
            events = next(&mut watcher) => match events {
                Ok(events) => dataplane.on_network(&events),
                Err(error) => {
                    watcher = None;
                    dataplane.listen(false).and(Err(error.into()))
                }
            },
            _ = tick.tick() => dataplane.tick(Instant::now()),
        };
        if let Err(error) = done {
            tracing::error!(%error, "the data path goes on with what it has");
        }
    }
}

/// News, or never.
async fn next(watcher: &mut Option<Watcher>) -> Result<Vec<super::network::Event>, super::netlink::NetlinkError> {
    match watcher {
        Some(watcher) => watcher.next().await,
        None => std::future::pending().await,
    }
}
