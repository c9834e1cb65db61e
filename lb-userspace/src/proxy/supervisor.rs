//! lbd's side of the worker: holds the listening sockets, starts the worker, gives it plans, hears whether it lives, and
//! replaces it when it does not. Connections wait in the sockets meanwhile, so that none is refused.
//!
//! Runs in a thread of its own; never reads what clients send. Called by `daemon`.

mod hang;
mod listeners;
mod logs;
mod memory;
mod pace;
mod pressure;
mod questions;
mod run;
mod transparent;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc::Sender, oneshot};

use self::{listeners::Listeners, memory::Kept, run::Run};
pub use self::{listeners::Place, memory::Memory};
use super::{
    channel::Channel,
    message::{Answer, FromWorker, Question, ToWorker},
    spawner::FromSpawner,
};
use crate::control::{
    proxy::{
        ProxyEvent, ProxyPlan, memory as remembered,
        pool::NodeChange,
        recent::{Filter, Record},
        stats::{Scope, Snapshot},
    },
    query::Part,
};

/// How long a question waits for the worker: who asks for counters gets the last known ones then.
const COUNTERS: Duration = Duration::from_millis(500);
/// See [`COUNTERS`]; a list is longer.
const LIST: Duration = Duration::from_secs(3);

/// How workers are started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads.
    pub threads: usize,
    /// User, not 0.
    pub uid: u32,
    /// Group, not 0.
    pub gid: u32,
    /// Further arguments of the worker.
    pub arguments: Vec<String>,
    /// Where the worker's process is written down, so that an lbd after a crash finds it.
    pub note: PathBuf,
}

/// What an lbd leaves to the one that it replaces itself by: sockets that stay open meanwhile.
#[derive(Debug)]
pub struct Estate {
    /// The channel to the spawner.
    pub spawner: OwnedFd,
    /// Listening sockets, one for each thread, by what they are for.
    pub listeners: Vec<Listening>,
    /// What workers remember of clients.
    pub memory: remembered::Memory,
}

/// Listening sockets, one for each thread, with what they are for.
pub type Listening = (Place, Vec<OwnedFd>);

/// What the supervisor tells the control task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A worker serves that knows nothing of nodes yet.
    Fresh,
    /// Something happened in the worker.
    Happened(ProxyEvent),
}

/// Why the worker did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is none.
    #[error("the L7 proxy's worker does not run now; see lbctl status")]
    NoWorker,
    /// Not in time.
    #[error("the L7 proxy's worker did not answer in time")]
    TooLate,
}

/// What the supervisor knows of the worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerState {
    /// Its process, while there is one.
    pub pid: Option<u32>,
    /// Whether it serves.
    pub ready: bool,
    /// Workers that ended without being told to.
    pub failures: u64,
    /// Client connections.
    pub connections: usize,
    /// Sessions of persistence that are kept for the next worker.
    pub sessions: usize,
    /// Why there is none, or why the last one ended.
    pub problem: Option<String>,
}

/// The supervisor's handle.
#[derive(Debug)]
pub struct Supervisor {
    inputs: mpsc::Sender<Input>,
    known: Arc<Known>,
    kept: Arc<Mutex<Kept>>,
}

/// What the supervisor's thread lets others read.
#[derive(Debug, Default)]
struct Known {
    state: Mutex<WorkerState>,
    /// What was counted, when the worker was asked last.
    counted: Mutex<Arc<Snapshot>>,
    plan: Mutex<Arc<ProxyPlan>>,
    /// Nodes that passive monitoring took out, by pool and name.
    out: Mutex<BTreeMap<(String, String), NodeChange>>,
}

#[derive(Debug)]
enum Input {
    Plan(Arc<ProxyPlan>, oneshot::Sender<Result<(), String>>),
    Ask(Question, Instant, SyncSender<Answer>),
    BringBack(String, String),
    /// Something for the worker, whichever it is.
    Tell(ToWorker),
    Leave(oneshot::Sender<io::Result<Estate>>),
    Spawner(FromSpawner),
    SpawnerGone,
    Worker(u64, FromWorker),
    WorkerGone(u64),
    ReopenLogs,
    Stop(Duration, oneshot::Sender<()>),
}

impl Supervisor {
    /// Starts the thread; a worker is started when there is something to serve. `listeners` and `memory` are those of the lbd before,
    /// which has replaced itself by this one; `news` is what happens, as far as there is room.
    ///
    /// # Errors
    /// When there is no room for threads or descriptors.
    pub fn start(
        spawner: Channel,
        settings: Settings,
        (listeners, memory): (Vec<Listening>, remembered::Memory),
        news: Sender<News>,
    ) -> io::Result<Self> {
        let (inputs, received) = mpsc::channel();
        let known: Arc<Known> = Arc::default();
        let (reader, from_spawner) = (spawner.try_clone()?, inputs.clone());
        std::thread::Builder::new().name("lb-spawner".to_owned()).spawn(move || {
            while let Ok(Some((message, _))) = reader.receive() {
                if from_spawner.send(Input::Spawner(message)).is_err() {
                    return;
                }
            }
            let _ = from_spawner.send(Input::SpawnerGone);
        })?;
        let earlier = fs::read(&settings.note).ok().and_then(|note| serde_json::from_slice(&note).ok());
        let listeners = Listeners::inherited(listeners, settings.threads);
        let kept = Arc::new(Mutex::new(Kept::inherited(memory)));
        let shared = (Arc::clone(&known), Arc::clone(&kept));
        let run = Run::new(spawner, settings, inputs.clone(), shared, listeners, news, earlier);
        std::thread::Builder::new().name("lb-supervisor".to_owned()).spawn(move || run.turn(&received))?;
        Ok(Self { inputs, known, kept })
    }

    /// Lets the worker go on by a plan, once the addresses that are new in it are listened on.
    ///
    /// # Errors
    /// When one cannot be listened on, in words; then nothing was changed.
    pub async fn apply(&self, plan: Arc<ProxyPlan>) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let gone = || "the worker's supervisor has ended".to_owned();
        self.inputs.send(Input::Plan(plan, answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Tells the worker to take a node back that passive monitoring took out.
    pub fn bring_back(&self, pool: &str, node: &str) {
        // Without a supervisor nothing is out.
        let _ = self.inputs.send(Input::BringBack(pool.to_owned(), node.to_owned()));
    }

    /// Opens the access logs anew: they were moved away.
    pub fn reopen_logs(&self) {
        // A supervisor that has ended has no logs.
        let _ = self.inputs.send(Input::ReopenLogs);
    }

    /// What is known of the worker.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        self.known.state().clone()
    }

    /// Lets the worker drain, for so long at most, and ends it.
    pub async fn stop(&self, longest: Duration) {
        let (answer, answered) = oneshot::channel();
        if self.inputs.send(Input::Stop(longest, answer)).is_ok() {
            // An error means that it has ended.
            let _ = answered.await;
        }
    }

    /// What another lbd goes on with in this process; the worker is told. This one still serves if that comes to nothing.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub async fn leave(&self) -> io::Result<Estate> {
        let (answer, answered) = oneshot::channel();
        let gone = || io::Error::other("the worker's supervisor has ended");
        self.inputs.send(Input::Leave(answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// What workers remember of clients, for those who tell other machines.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory::new(self.inputs.clone(), Arc::clone(&self.kept))
    }

    /// A handle for questions.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker { inputs: self.inputs.clone(), known: Arc::clone(&self.known) }
    }
}

/// Asks the worker. Its methods may wait for it, for seconds at most.
#[derive(Clone, Debug)]
pub struct Asker {
    inputs: mpsc::Sender<Input>,
    known: Arc<Known>,
}

impl Asker {
    /// What was counted up to now, of a part at least; by a worker that does not answer, up to the last answers.
    #[must_use]
    pub fn counted(&self, part: Part<'_>) -> Arc<Snapshot> {
        let last = || self.known.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let scope = match part {
            Part::Machine => return Arc::clone(&last()),
            Part::All => Scope::All,
            Part::VirtualServers => Scope::VirtualServers,
            Part::Pool(name) => Scope::Of { virtual_servers: BTreeSet::new(), pools: [name.to_owned()].into() },
            Part::VirtualServer(name) => Scope::Of {
                virtual_servers: [name.to_owned()].into(),
                pools: self.plan().pools_of(name).into_iter().map(str::to_owned).collect(),
            },
        };
        let Ok(Answer::Stats(snapshot)) = self.ask(Question::Stats(scope), COUNTERS) else {
            return Arc::clone(&last());
        };
        let snapshot: Arc<Snapshot> = Arc::from(snapshot);
        let mut last = last();
        if part == Part::All {
            *last = Arc::clone(&snapshot);
        } else {
            Arc::make_mut(&mut last).update(&snapshot);
        }
        snapshot
    }

    /// Requests that ended lately, newest first.
    ///
    /// # Errors
    /// When the worker does not answer.
    pub fn recent(&self, filter: &Filter) -> Result<Vec<Record>, AskError> {
        match self.ask(Question::Recent(Box::new(filter.clone())), LIST)? {
            Answer::Recent(records) => Ok(records),
            Answer::Stats(_) => Err(AskError::TooLate),
        }
    }

    /// The plan that the worker has.
    #[must_use]
    pub fn plan(&self) -> Arc<ProxyPlan> {
        Arc::clone(&self.known.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nodes that passive monitoring took out, by pool and name, and why.
    #[must_use]
    pub fn out(&self) -> BTreeMap<(String, String), NodeChange> {
        self.known.out().clone()
    }

    fn ask(&self, question: Question, patience: Duration) -> Result<Answer, AskError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let asked = Input::Ask(question, Instant::now() + patience, answer);
        self.inputs.send(asked).map_err(|_| AskError::NoWorker)?;
        answered.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => AskError::TooLate,
            RecvTimeoutError::Disconnected => AskError::NoWorker,
        })
    }
}

impl Known {
    fn state(&self) -> std::sync::MutexGuard<'_, WorkerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn out(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), NodeChange>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
