//! The supervisor's thread: one input after the other, and what depends on time.

use std::{
    fs, io,
    os::fd::AsFd,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc::Sender, oneshot};

use super::{
    Estate, FromSpawner, Input, Known, News, Settings, WorkerState,
    hang::Watch,
    listeners::{Listeners, Place},
    logs,
    memory::{self, Kept},
    pace::Pace,
    pressure::Pressure,
    questions::Questions,
    transparent,
};
use crate::{
    control::proxy::{ProxyEvent, ProxyPlan, pool::NodeChange},
    proxy::{
        channel::Channel,
        message::{FromWorker, ToWorker},
        spawner::{Started, ToSpawner},
    },
};

/// How long a change waits for the worker to go by it.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(3);
/// How often all this is looked at.
const TICK: Duration = Duration::from_millis(100);
/// What is said while memory is short.
const MEMORY: &str = "memory is short: new requests to L7 virtual servers are answered by 503";
/// When this thread itself did not run for so long, the worker is not blamed for what it did not hear.
const OWN_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Run {
    spawner: Channel,
    settings: Settings,
    inputs: mpsc::Sender<Input>,
    known: Arc<Known>,
    kept: Arc<Mutex<Kept>>,
    listeners: Listeners,
    plan: Option<Arc<ProxyPlan>>,
    worker: Option<Worker>,
    /// Workers started so far.
    numbers: u64,
    pace: Pace,
    pressure: Pressure,
    /// The worker of an lbd that ended before this one: it serves until ours does.
    earlier: Option<Started>,
    waiting: Option<Waiting>,
    questions: Questions,
    news: Sender<News>,
    /// When the thread last looked at the time.
    turned: Instant,
}

/// Who waits for the worker to go by a plan.
#[derive(Debug)]
struct Waiting {
    generation: u64,
    until: Instant,
    answer: oneshot::Sender<Result<(), String>>,
}

#[derive(Debug)]
struct Worker {
    number: u64,
    channel: Channel,
    process: Option<Started>,
    ready: bool,
    born: Instant,
    watch: Watch,
}

impl Worker {
    fn pid(&self) -> Option<u32> {
        self.process.map(|process| process.pid)
    }
}

impl Run {
    pub(super) fn new(
        spawner: Channel,
        settings: Settings,
        inputs: mpsc::Sender<Input>,
        (known, kept): (Arc<Known>, Arc<Mutex<Kept>>),
        listeners: Listeners,
        news: Sender<News>,
        earlier: Option<Started>,
    ) -> Self {
        Self {
            spawner,
            settings,
            inputs,
            known,
            kept,
            listeners,
            plan: None,
            worker: None,
            numbers: 0,
            pace: Pace::default(),
            pressure: Pressure::new(Path::new("/")),
            earlier,
            waiting: None,
            questions: Questions::default(),
            news,
            turned: Instant::now(),
        }
    }

    pub(super) fn turn(mut self, inputs: &mpsc::Receiver<Input>) {
        loop {
            let input = inputs.recv_timeout(TICK);
            self.forgive();
            match input {
                Ok(Input::Plan(plan, answer)) => self.take(plan, answer),
                Ok(Input::Spawner(message)) => self.hear_spawner(message),
                Ok(Input::SpawnerGone) => self.problem("the spawner has ended: no worker can be started"),
                Ok(Input::Worker(number, message)) => self.hear(number, message),
                Ok(Input::WorkerGone(number)) => self.lost(number),
                Ok(Input::Ask(question, until, answer)) => {
                    let worker = self.worker.as_ref().filter(|worker| worker.ready);
                    self.questions.ask(question, until, answer, worker.map(|worker| &worker.channel));
                }
                Ok(Input::BringBack(pool, node)) => {
                    if let Some(worker) = &self.worker {
                        // A worker that cannot be told is replaced, and the next one has nothing out.
                        let _ = worker.channel.send(&ToWorker::BringBack { pool, node }, &[]);
                    }
                }
                Ok(Input::Tell(message)) => self.tell_worker(&message),
                Ok(Input::Leave(answer)) => drop(answer.send(self.leave())),
                Ok(Input::ReopenLogs) => self.reopen_logs(),
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

    /// A worker cannot be heard by a thread that does not run: lbd may have been stopped, or the machine be busy.
    fn forgive(&mut self) {
        let now = Instant::now();
        let pause = now.duration_since(self.turned);
        self.turned = now;
        if let Some(worker) = self.worker.as_mut().filter(|_| pause > OWN_PAUSE) {
            worker.watch.forgive(pause);
        }
    }

    fn reopen_logs(&self) {
        if let (Some(worker), Some(plan)) = (&self.worker, &self.plan)
            && let Err(error) = logs::hand_over(&worker.channel, &logs::open_all(plan))
        {
            tracing::warn!(%error, "the worker does not take the access logs");
        }
    }

    fn memory_is_short(&self, is_short: bool) {
        self.note(|state| match &state.problem {
            None if is_short => state.problem = Some(MEMORY.to_owned()),
            Some(problem) if !is_short && problem == MEMORY => state.problem = None,
            None | Some(_) => {}
        });
        self.tell_worker(&ToWorker::MemoryIsShort(is_short));
    }

    /// Tells a worker that has begun to read all that it needs: first what those before it knew of clients, last the plan.
    fn instruct(&mut self) {
        let Some(worker) = &self.worker else { return };
        let is_short = ToWorker::MemoryIsShort(self.pressure.is_short());
        let remembered = memory::lock(&self.kept).for_worker();
        let mut messages = remembered.iter().chain([&is_short]);
        let told = messages.try_for_each(|message| worker.channel.send(message, &[])).and_then(|()| {
            let Some(plan) = &self.plan else { return Ok(()) };
            let all: Vec<_> = self.listeners.all().map(|(place, _)| place.clone()).collect();
            tell(worker, &self.listeners, &all, &logs::open_all(plan), plan)
        });
        if let Err(error) = told {
            tracing::warn!(%error, "the worker takes no plan and is replaced");
            self.kill();
        }
    }

    /// Tells the worker something that the next one is told anyway.
    fn tell_worker(&self, message: &ToWorker) {
        if let Some(worker) = &self.worker
            && let Err(error) = worker.channel.send(message, &[])
        {
            tracing::warn!(%error, "the worker is not told what it should know");
        }
    }

    fn take(&mut self, plan: Arc<ProxyPlan>, answer: oneshot::Sender<Result<(), String>>) {
        let given = transparent::check(&plan).and_then(|()| logs::open_new(&plan, self.plan.as_deref()));
        let opened = match given {
            Ok(opened) => opened,
            Err(error) => return drop(answer.send(Err(error))),
        };
        let added = match self.listeners.add(&plan, self.settings.threads) {
            Ok(added) => added,
            Err(error) => return drop(answer.send(Err(error.to_string()))),
        };
        // One that is not ready is told all of it when it is.
        if let Some(worker) = self.worker.as_ref().filter(|worker| worker.ready)
            && let Err(error) = tell(worker, &self.listeners, &added, &opened, &plan)
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
        *self.known.plan.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&plan);
        self.known.out().retain(|(pool, node), _| plan.pools.get(pool).is_some_and(|p| p.nodes.contains_key(node)));
        self.plan = Some(plan);
    }

    /// What depends on time: starts, silence, patience.
    fn look_after(&mut self) {
        let now = Instant::now();
        self.questions.forget(now);
        if let Some(is_short) = self.pressure.look(now) {
            self.memory_is_short(is_short);
        }
        let turned = memory::lock(&self.kept).turn();
        if let Some(keys) = turned {
            self.tell_worker(&ToWorker::TicketKeys(keys));
        }
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
        if let Some(why) = worker.watch.hangs(now, worker.pid(), worker.ready) {
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
        let watch = Watch::new(now);
        self.worker = Some(Worker { number, channel, process: None, ready: false, born: now, watch });
        Ok(())
    }

    fn hear(&mut self, number: u64, message: FromWorker) {
        let now = Instant::now();
        let Some(worker) = self.worker.as_mut().filter(|worker| worker.number == number) else { return };
        worker.watch.heard(now);
        match message {
            FromWorker::Ready => {
                worker.ready = true;
                tracing::info!(after = ?now.duration_since(worker.born), "the worker serves");
                let problem = self.pressure.is_short().then(|| MEMORY.to_owned());
                self.note(|state| (state.ready, state.problem) = (true, problem));
                self.known.out().clear();
                self.tell(News::Fresh);
                self.instruct();
            }
            FromWorker::Heartbeat(beats) => {
                let pid = worker.pid();
                worker.watch.beat(now, pid, &beats);
                let (connections, goes_by) = (
                    beats.iter().map(|beat| beat.connections).sum(),
                    beats.iter().map(|beat| beat.generation).min().unwrap_or(0),
                );
                let sessions = memory::lock(&self.kept).known();
                self.note(|state| (state.connections, state.sessions) = (connections, sessions));
                self.acknowledged(goes_by);
            }
            FromWorker::WantSockets { ipv6 } => {
                // A worker that cannot be told is replaced.
                if let Err(error) = transparent::hand_over(&worker.channel, ipv6) {
                    tracing::warn!(%error, "the worker does not take sockets");
                }
            }
            FromWorker::Events(events, lost) => self.happened(events, lost),
            FromWorker::Sessions(sessions) => memory::lock(&self.kept).learnt(&sessions),
            FromWorker::Answer { id, answer } => self.questions.answered(id, answer),
        }
    }

    fn happened(&self, events: Vec<ProxyEvent>, lost: u64) {
        if lost > 0 {
            tracing::warn!(lost, "more happened in the worker than lbd could be told");
        }
        for event in events {
            if let ProxyEvent::Node(node) = &event {
                let key = (node.pool.clone(), node.node.clone());
                match node.change {
                    NodeChange::Out { .. } => drop(self.known.out().insert(key, node.change)),
                    NodeChange::Back => drop(self.known.out().remove(&key)),
                }
            }
            self.tell(News::Happened(event));
        }
    }

    fn tell(&self, news: News) {
        if self.news.try_send(news).is_err() {
            tracing::warn!("news of the worker is lost: the control task is behind");
        }
    }

    /// What another lbd goes on with.
    fn leave(&self) -> io::Result<Estate> {
        let spawner = self.spawner.try_clone()?.into();
        let listeners = self.listeners.all().map(|(place, sockets)| {
            let sockets = sockets.iter().map(|socket| socket.try_clone_to_owned()).collect::<io::Result<Vec<_>>>()?;
            Ok((place.clone(), sockets))
        });
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        if let Some(worker) = &self.worker {
            // One that is not told warns that lbd is gone, and serves on as well.
            let _ = worker.channel.send(&ToWorker::Farewell, &[]);
        }
        let memory = memory::lock(&self.kept).leave();
        Ok(Estate { spawner, listeners, memory })
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
            FromSpawner::NotRenewed(why) => {
                tracing::warn!(why, "the spawner of workers goes on by the program before");
            }
            FromSpawner::Ended { pid, success, how } => {
                if success {
                    return tracing::info!(pid, "a worker has ended");
                }
                tracing::warn!(pid, how, "a worker has ended");
                if self.worker.as_ref().is_none_or(|worker| !worker.ready) {
                    let problem = format!("the last worker ended: {how}");
                    self.note(|state| state.problem = state.problem.take().or(Some(problem)));
                }
            }
        }
    }

    /// The worker's end of the channel is closed: it has ended, or does so now.
    fn lost(&mut self, number: u64) {
        let Some(worker) = self.worker.take_if(|worker| worker.number == number) else { return };
        let now = Instant::now();
        self.questions.clear();
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
        change(&mut self.known.state());
    }

    fn problem(&self, what: &str) {
        tracing::error!("{what}");
        self.note(|state| state.problem = Some(what.to_owned()));
    }
}

/// Gives the worker a plan; before it the sockets of some addresses, and files of some logs.
fn tell(
    worker: &Worker,
    listeners: &Listeners,
    places: &[Place],
    opened: &logs::Opened,
    plan: &ProxyPlan,
) -> io::Result<()> {
    logs::hand_over(&worker.channel, opened)?;
    listeners.hand_over(&worker.channel, places)?;
    worker.channel.send(&ToWorker::Plan(Box::new(plan.clone())), &[])
}
