//! lbd's side of the worker: holds the listening sockets, starts the worker, gives it plans, hears whether it lives, and
//! replaces it when it does not. Connections wait in the sockets meanwhile, so that none is refused.
//!
//! Runs in a thread of its own; never reads what clients send. Called by `daemon`.

mod listeners;
mod pace;

use std::{
    fs, io,
    os::fd::AsFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use self::{listeners::Listeners, pace::Pace};
use super::{
    channel::Channel,
    process::{FromWorker, ThreadBeat, ToWorker},
    spawner::{FromSpawner, Started, ToSpawner},
};
use crate::control::proxy::ProxyPlan;

/// A worker that says nothing for so long is replaced.
const SILENCE: Duration = Duration::from_secs(3);
/// A thread that does not turn for so long has its worker replaced.
const STANDSTILL: Duration = Duration::from_secs(5);
/// How long a worker may take until it is ready.
const START: Duration = Duration::from_secs(10);
/// How long a change waits for the worker to go by it.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(3);
/// How often all this is looked at.
const TICK: Duration = Duration::from_millis(100);

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
    /// Why there is none, or why the last one ended.
    pub problem: Option<String>,
}

/// The supervisor's handle.
#[derive(Debug)]
pub struct Supervisor {
    inputs: mpsc::Sender<Input>,
    state: Arc<Mutex<WorkerState>>,
}

#[derive(Debug)]
enum Input {
    Plan(Arc<ProxyPlan>, oneshot::Sender<Result<(), String>>),
    Spawner(FromSpawner),
    SpawnerGone,
    Worker(u64, FromWorker),
    WorkerGone(u64),
    Stop(Duration, oneshot::Sender<()>),
}

impl Supervisor {
    /// Starts the thread; a worker is started when there is something to serve.
    ///
    /// # Errors
    /// When there is no room for threads or descriptors.
    pub fn start(spawner: Channel, settings: Settings) -> io::Result<Self> {
        let (inputs, received) = mpsc::channel();
        let state: Arc<Mutex<WorkerState>> = Arc::default();
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
        let run = Run {
            spawner,
            settings,
            inputs: inputs.clone(),
            state: Arc::clone(&state),
            listeners: Listeners::new(),
            plan: None,
            worker: None,
            numbers: 0,
            pace: Pace::default(),
            earlier,
            waiting: None,
        };
        std::thread::Builder::new().name("lb-supervisor".to_owned()).spawn(move || run.turn(&received))?;
        Ok(Self { inputs, state })
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

    /// What is known of the worker.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the worker drain, for so long at most, and ends it.
    pub async fn stop(&self, longest: Duration) {
        let (answer, answered) = oneshot::channel();
        if self.inputs.send(Input::Stop(longest, answer)).is_ok() {
            // An error means that it has ended.
            let _ = answered.await;
        }
    }
}

struct Run {
    spawner: Channel,
    settings: Settings,
    inputs: mpsc::Sender<Input>,
    state: Arc<Mutex<WorkerState>>,
    listeners: Listeners,
    plan: Option<Arc<ProxyPlan>>,
    worker: Option<Worker>,
    /// Workers started so far.
    numbers: u64,
    pace: Pace,
    /// The worker of an lbd that ended before this one: it serves until ours does.
    earlier: Option<Started>,
    waiting: Option<Waiting>,
}

/// Who waits for the worker to go by a plan.
struct Waiting {
    generation: u64,
    until: Instant,
    answer: oneshot::Sender<Result<(), String>>,
}

struct Worker {
    number: u64,
    channel: Channel,
    process: Option<Started>,
    ready: bool,
    born: Instant,
    heard: Instant,
    /// Beats of each thread, and when they last changed.
    threads: Vec<(ThreadBeat, Instant)>,
}

impl Run {
    fn turn(mut self, inputs: &mpsc::Receiver<Input>) {
        loop {
            match inputs.recv_timeout(TICK) {
                Ok(Input::Plan(plan, answer)) => self.take(plan, answer),
                Ok(Input::Spawner(message)) => self.hear_spawner(message),
                Ok(Input::SpawnerGone) => self.problem("the spawner has ended: no worker can be started"),
                Ok(Input::Worker(number, message)) => self.hear(number, message),
                Ok(Input::WorkerGone(number)) => self.lost(number),
                Ok(Input::Stop(longest, answer)) => {
                    self.stop(inputs, longest);
                    // Who went away need not know.
                    let _ = answer.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look_after();
        }
    }

    fn take(&mut self, plan: Arc<ProxyPlan>, answer: oneshot::Sender<Result<(), String>>) {
        let added = match self.listeners.add(&plan, self.settings.threads) {
            Ok(added) => added,
            Err(error) => return drop(answer.send(Err(error.to_string()))),
        };
        if let Some(worker) = &self.worker
            && let Err(error) = tell(worker, &self.listeners, &added, &plan)
        {
            tracing::warn!(%error, "the worker takes no plan and is replaced");
            self.kill();
        }
        self.listeners.retain(&plan);
        self.waiting = None;
        if plan.virtual_servers.is_empty() && self.worker.is_none() {
            // Whoever went away wants no answer.
            let _ = answer.send(Ok(()));
        } else {
            self.waiting =
                Some(Waiting { generation: plan.generation, until: Instant::now() + ACKNOWLEDGEMENT, answer });
        }
        self.plan = Some(plan);
    }

    /// What depends on time: starts, silence, patience.
    fn look_after(&mut self) {
        let now = Instant::now();
        if let Some(waiting) = self.waiting.take_if(|waiting| waiting.until < now) {
            tracing::warn!("the worker does not go by the new plan yet");
            let _ = waiting.answer.send(Ok(()));
        }
        let Some(worker) = &self.worker else {
            let wanted = self.plan.as_ref().is_some_and(|plan| !plan.virtual_servers.is_empty());
            if wanted && self.pace.may_start(now) {
                self.start(now);
            }
            return;
        };
        let silent = now.duration_since(worker.heard) > if worker.ready { SILENCE } else { START };
        let stands = worker.threads.iter().any(|(_, changed)| now.duration_since(*changed) > STANDSTILL);
        if silent || stands {
            let why = if silent { "the worker said nothing for too long" } else { "a thread of the worker hangs" };
            self.problem(why);
            self.kill();
        }
    }

    fn start(&mut self, now: Instant) {
        self.pace.started();
        self.numbers += 1;
        if let Err(error) = self.spawn(now) {
            self.problem(&format!("no worker can be started: {error}"));
            self.worker = None;
            self.pace.failed(now);
        }
    }

    fn spawn(&mut self, now: Instant) -> io::Result<()> {
        let (channel, other) = Channel::pair()?;
        let Settings { uid, gid, threads, ref arguments, .. } = self.settings;
        let spawn = ToSpawner::Spawn { uid, gid, arguments: arguments.clone() };
        self.spawner.send(&spawn, &[other.as_fd()])?;
        drop(other);
        let (reader, inputs, number) = (channel.try_clone()?, self.inputs.clone(), self.numbers);
        std::thread::Builder::new().name(format!("lb-worker-{number}")).spawn(move || {
            while let Ok(Some((message, _))) = reader.receive() {
                if inputs.send(Input::Worker(number, message)).is_err() {
                    return;
                }
            }
            let _ = inputs.send(Input::WorkerGone(number));
        })?;
        channel.send(&ToWorker::Start { threads }, &[])?;
        let worker =
            Worker { number, channel, process: None, ready: false, born: now, heard: now, threads: Vec::new() };
        if let Some(plan) = &self.plan {
            let all: Vec<_> = self.listeners.all().map(|(place, _)| place.clone()).collect();
            tell(&worker, &self.listeners, &all, plan)?;
        }
        self.worker = Some(worker);
        Ok(())
    }

    fn hear(&mut self, number: u64, message: FromWorker) {
        let now = Instant::now();
        let Some(worker) = self.worker.as_mut().filter(|worker| worker.number == number) else { return };
        worker.heard = now;
        match message {
            FromWorker::Ready => {
                worker.ready = true;
                tracing::info!(after = ?now.duration_since(worker.born), "the worker serves");
                self.note(|state| (state.ready, state.problem) = (true, None));
            }
            FromWorker::Heartbeat(beats) => {
                let before = std::mem::take(&mut worker.threads);
                let changed = |index: usize, beat: ThreadBeat| match before.get(index) {
                    Some((last, since)) if last.beats == beat.beats => *since,
                    _ => now,
                };
                worker.threads = beats.iter().enumerate().map(|(i, beat)| (*beat, changed(i, *beat))).collect();
                let (connections, goes_by) = (
                    beats.iter().map(|beat| beat.connections).sum(),
                    beats.iter().map(|beat| beat.generation).min().unwrap_or(0),
                );
                self.note(|state| state.connections = connections);
                self.acknowledged(goes_by);
            }
        }
    }

    /// All threads go by the plan of this generation.
    fn acknowledged(&mut self, generation: u64) {
        if let Some(waiting) = self.waiting.take_if(|waiting| waiting.generation <= generation) {
            let _ = waiting.answer.send(Ok(()));
        }
        if self.plan.as_ref().is_some_and(|plan| plan.generation <= generation)
            && let Some(earlier) = self.earlier.take()
            && let Err(error) = self.spawner.send(&ToSpawner::Retire(earlier), &[])
        {
            tracing::warn!(%error, pid = earlier.pid, "the worker of the lbd before cannot be told to drain");
        }
    }

    fn hear_spawner(&mut self, message: FromSpawner) {
        match message {
            FromSpawner::Started(process) => {
                if let Some(worker) = &mut self.worker {
                    worker.process = Some(process);
                }
                self.note(|state| state.pid = Some(process.pid));
                if let Err(error) = serde_json::to_vec(&process)
                    .map_err(io::Error::from)
                    .and_then(|n| fs::write(&self.settings.note, n))
                {
                    tracing::warn!(%error, path = %self.settings.note.display(), "the worker's process cannot be noted");
                }
            }
            FromSpawner::Failed(why) => {
                self.problem(&format!("no worker can be started: {why}"));
                self.worker = None;
                self.pace.failed(Instant::now());
            }
            FromSpawner::Ended { pid, success, how } => {
                if !success {
                    tracing::warn!(pid, how, "a worker has ended");
                    self.note(|state| {
                        state.problem = state.problem.take().or(Some(format!("the last worker ended: {how}")))
                    });
                }
            }
        }
    }

    /// The worker's end of the channel is closed: it has ended, or does so now.
    fn lost(&mut self, number: u64) {
        let Some(worker) = self.worker.take_if(|worker| worker.number == number) else { return };
        let now = Instant::now();
        self.pace.ended(now, now.duration_since(worker.born));
        self.note(|state| {
            (state.pid, state.ready, state.connections) = (None, false, 0);
            state.failures += 1;
        });
        tracing::error!("the worker is gone and is replaced");
        if let Some(process) = worker.process {
            // A worker that closed its channel and lives on would serve by an old plan.
            let _ = self.spawner.send(&ToSpawner::Kill(process.pid), &[]);
        }
    }

    fn kill(&mut self) {
        let Some(worker) = &self.worker else { return };
        let number = worker.number;
        self.lost(number);
    }

    fn stop(&mut self, inputs: &mpsc::Receiver<Input>, longest: Duration) {
        let Some(worker) = self.worker.take() else { return };
        let until = Instant::now() + longest;
        if worker.channel.send(&ToWorker::Drain(longest), &[]).is_ok() {
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                match inputs.recv_timeout(left) {
                    Ok(Input::WorkerGone(number)) if number == worker.number => return,
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
        if let Some(process) = worker.process {
            let _ = self.spawner.send(&ToSpawner::Kill(process.pid), &[]);
        }
    }

    fn note(&self, change: impl FnOnce(&mut WorkerState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn problem(&self, what: &str) {
        tracing::error!("{what}");
        self.note(|state| state.problem = Some(what.to_owned()));
    }
}

/// Gives the worker a plan, and the sockets of some addresses before.
fn tell(worker: &Worker, listeners: &Listeners, places: &[listeners::Place], plan: &ProxyPlan) -> io::Result<()> {
    for (place, sockets) in listeners.all().filter(|(place, _)| places.contains(place)) {
        let message = ToWorker::Listen { virtual_server: place.0.clone(), address: place.1 };
        worker.channel.send(&message, &sockets)?;
    }
    worker.channel.send(&ToWorker::Plan(Box::new(plan.clone())), &[])
}
