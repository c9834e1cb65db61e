//! The worker process: gets its sockets and plans from lbd over standard input, shuts itself in, and runs the engine.
//!
//! It is started by the spawner as a user of its own, without capabilities. When lbd is gone it serves on by the last plan,
//! so that lbd may crash or be replaced; SIGTERM lets it drain. Called by `bin/lbd.rs`.

mod confine;
mod outbox;
pub mod tryout;

use std::{
    io,
    net::TcpListener,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};

pub use self::confine::ConfineError;
use self::outbox::Outbox;
use super::{
    channel::Channel,
    message::{Answer, FromWorker, Question, ThreadBeat, ToWorker},
    worker::{Engine, Handle, Listen},
};
use crate::{control::proxy::memory::Session, telemetry};

/// How often the worker says that it lives.
pub const HEARTBEAT: Duration = Duration::from_millis(250);

/// How often it looks whether all threads go by a new plan: somebody waits to hear it.
const SETTLING: Duration = Duration::from_millis(2);

/// Sessions that lbd is told of with each heartbeat.
const SESSIONS: usize = 2000;

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It could not be shut in, and so did not start.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// The channel to lbd, or the kernel.
    #[error("worker: {0}")]
    Io(#[from] io::Error),
    /// The first message was another one.
    #[error("worker: lbd did not say how to start")]
    NoStart,
    /// A thread of the engine ended by itself.
    #[error("worker: a thread of the engine has ended")]
    ThreadEnded,
}

enum Input {
    Message(ToWorker, Vec<OwnedFd>),
    /// lbd is gone.
    Orphan,
    /// The engine needs sockets.
    WantSockets {
        ipv6: bool,
    },
}

/// Runs a worker until it has drained.
///
/// # Errors
/// When it cannot be shut in, or its engine fails.
pub fn run() -> Result<(), WorkerError> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let channel = Channel::new(UnixStream::from(stdin))?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.thread_block().map_err(io::Error::from)?;
    let signals =
        SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(io::Error::from)?;
    let Some((ToWorker::Start { threads }, _)) = channel.receive()? else { return Err(WorkerError::NoStart) };

    confine::before_threads()?;
    telemetry::detach()?;
    let engine = Engine::start(Arc::default(), Vec::new(), threads)?;
    let (inputs, received) = mpsc::channel();
    let wants = inputs.clone();
    // Nobody listens: the process is ending.
    engine.sockets().ask_by(move |ipv6| drop(wants.send(Input::WantSockets { ipv6 })));
    let reader = channel.try_clone()?;
    std::thread::Builder::new().name("lb-channel".to_owned()).spawn(move || read(&reader, &inputs))?;
    let outbox = Outbox::start(channel)?;
    confine::all_threads()?;
    // There is room for the first message.
    let _ = outbox.tell(FromWorker::Ready);
    let worker = Worker {
        engine,
        outbox,
        waiting: Vec::new(),
        early: Some(Vec::new()),
        is_upgrade: false,
        unsaid: None,
        settles: None,
    };
    worker.serve(&received, &signals)
}

fn read(channel: &Channel, inputs: &mpsc::Sender<Input>) {
    while let Ok(Some((message, descriptors))) = channel.receive() {
        if inputs.send(Input::Message(message, descriptors)).is_err() {
            return;
        }
    }
    // Nobody listens: the process is ending.
    let _ = inputs.send(Input::Orphan);
}

struct Worker {
    engine: Handle,
    outbox: Outbox,
    /// Sockets for the next plan.
    waiting: Vec<Listen>,
    /// Sessions that came before the first plan.
    early: Option<Vec<Session>>,
    /// lbd said that it would go.
    is_upgrade: bool,
    /// What had no room yet.
    unsaid: Option<FromWorker>,
    /// The generation of a plan that not all threads may go by yet.
    settles: Option<u64>,
}

/// How long requests may go on after SIGTERM, whatever their virtual server says.
const DRAIN: Duration = Duration::from_secs(24 * 3600);

impl Worker {
    fn serve(mut self, inputs: &mpsc::Receiver<Input>, signals: &SignalFd) -> Result<(), WorkerError> {
        let mut draining = false;
        let mut beat = Instant::now() + HEARTBEAT;
        loop {
            let wait = beat.saturating_duration_since(Instant::now());
            match inputs.recv_timeout(if self.settles.is_some() { wait.min(SETTLING) } else { wait }) {
                Ok(Input::Message(ToWorker::Drain(longest), _)) => {
                    draining = true;
                    self.engine.drain(longest);
                }
                Ok(Input::Message(message, descriptors)) => self.obey(message, descriptors),
                Ok(Input::WantSockets { ipv6 }) => {
                    if self.outbox.tell(FromWorker::WantSockets { ipv6 }).is_err() {
                        self.engine.sockets().not_asked(ipv6);
                    }
                }
                Ok(Input::Orphan) if self.is_upgrade => tracing::info!("lbd is being replaced: the worker serves on"),
                Ok(Input::Orphan) => tracing::warn!("lbd is gone: the worker serves on by its last plan"),
                Err(RecvTimeoutError::Timeout) => {}
                // The reader has said that lbd is gone; there is nothing to wait for but signals.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(HEARTBEAT),
            }
            // By the clock: one who asks without a pause must not keep lbd from hearing that the worker lives.
            if self.has_settled() || Instant::now() >= beat {
                self.beat();
                beat = Instant::now() + HEARTBEAT;
            }
            if !draining && signals.read_signal().map_err(io::Error::from)?.is_some() {
                draining = true;
                tracing::info!("the worker drains");
                self.engine.drain(DRAIN);
            }
            if draining && self.engine.is_done() {
                tracing::info!("the worker has drained: it ends");
                return Ok(());
            }
            if !draining && self.engine.states().iter().any(|state| state.ended) {
                return Err(WorkerError::ThreadEnded);
            }
        }
    }

    fn obey(&mut self, message: ToWorker, descriptors: Vec<OwnedFd>) {
        match message {
            ToWorker::Listen { virtual_server, address } => {
                let sockets = descriptors.into_iter().map(TcpListener::from).collect();
                self.waiting.push(Listen { virtual_server, address, sockets });
            }
            ToWorker::Plan(plan) => {
                if let Some(early) = self.early.take() {
                    // Before a client comes.
                    self.engine.make_room(&plan);
                    self.engine.import_sessions(&early);
                }
                self.settles = Some(plan.generation);
                self.engine.swap(Arc::new(*plan), std::mem::take(&mut self.waiting));
            }
            ToWorker::Ask { id, question } => {
                // Whom it reaches too late has asked somebody else.
                let _ = self.outbox.tell(FromWorker::Answer { id, answer: self.answer(&question) });
            }
            ToWorker::BringBack { pool, node } => {
                self.engine.bring_back(&pool, &node);
                self.beat();
            }
            ToWorker::Sessions(sessions) => match &mut self.early {
                Some(early) => early.extend(sessions),
                None => self.engine.import_sessions(&sessions),
            },
            ToWorker::TicketKeys(keys) => self.engine.set_ticket_keys(keys),
            ToWorker::MemoryIsShort(is_short) => self.engine.memory_is_short(is_short),
            ToWorker::Farewell => self.is_upgrade = true,
            ToWorker::Log { path } => descriptors.into_iter().for_each(|file| self.engine.open_log(&path, file)),
            ToWorker::Sockets { ipv6 } => self.engine.sockets().put(ipv6, descriptors),
            ToWorker::Start { .. } | ToWorker::Drain(_) => {}
        }
    }

    /// Whether all threads go by the plan that came last, and lbd does not know.
    fn has_settled(&mut self) -> bool {
        let goes_by = |plan: &mut u64| self.engine.states().iter().all(|state| state.generation >= *plan);
        self.settles.take_if(goes_by).is_some()
    }

    fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::Stats(scope) => Answer::Stats(Box::new(self.engine.stats().snapshot_of(scope))),
            Question::Recent(filter) => Answer::Recent(self.engine.recent(filter)),
        }
    }

    /// Says that it lives, and what happened since it said so last. While lbd does not read, events stay where they are kept,
    /// which is bounded.
    fn beat(&mut self) {
        let states = self.engine.states().into_iter();
        let beats = states.map(|state| ThreadBeat {
            beats: state.beats,
            connections: state.connections,
            generation: state.generation,
        });
        // Dropped when there is no room: the next one says as much.
        let _ = self.outbox.tell(FromWorker::Heartbeat(beats.collect()));
        if self.unsaid.is_none() {
            let (events, lost) = self.engine.pools().take_events();
            self.unsaid = (!events.is_empty() || lost > 0).then_some(FromWorker::Events(events, lost));
        }
        self.unsaid = self.unsaid.take().and_then(|unsaid| self.outbox.tell(unsaid).err());
        let sessions = self.engine.take_sessions(SESSIONS);
        if !sessions.is_empty() {
            // Without room these are told when they are used again.
            let _ = self.outbox.tell(FromWorker::Sessions(sessions));
        }
    }
}
