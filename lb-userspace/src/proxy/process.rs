//! The worker process: gets its sockets and plans from lbd over standard input, shuts itself in, and runs the engine.
//!
//! It is started by the spawner as a user of its own, without capabilities. When lbd is gone it serves on by the last plan,
//! so that lbd may crash or be replaced; SIGTERM lets it drain. Called by `bin/lbd.rs`.

mod confine;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use serde::{Deserialize, Serialize};

pub use self::confine::ConfineError;
use super::{
    channel::Channel,
    worker::{Engine, Handle, Listen},
};
use crate::control::proxy::ProxyPlan;

/// How often the worker says that it lives.
pub const HEARTBEAT: Duration = Duration::from_millis(250);

/// What lbd tells its worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// Threads to start; the first message.
    Start {
        /// How many.
        threads: usize,
    },
    /// The sockets beside this message, one for each thread, are of this address.
    Listen {
        /// Virtual server.
        virtual_server: String,
        /// Address, as in the plan.
        address: SocketAddr,
    },
    /// Go on by this plan, with the sockets that came since the last one.
    Plan(Box<ProxyPlan>),
    /// Accept no more, end what runs within this time, then end.
    Drain(Duration),
}

/// What the worker tells lbd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// It is shut in, and takes plans.
    Ready,
    /// It lives.
    Heartbeat(Vec<ThreadBeat>),
}

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadBeat {
    /// Grows as long as it turns.
    pub beats: u64,
    /// Client connections.
    pub connections: usize,
    /// Generation of the plan it serves by.
    pub generation: u64,
}

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
    let engine = Engine::start(Arc::default(), Vec::new(), threads)?;
    let (inputs, received) = mpsc::channel();
    let reader = channel.try_clone()?;
    std::thread::Builder::new().name("lb-channel".to_owned()).spawn(move || read(&reader, &inputs))?;
    confine::all_threads()?;
    // When lbd is gone already, the reader says so.
    let _ = channel.send(&FromWorker::Ready, &[]);
    let worker = Worker { engine, channel: Some(channel), waiting: Vec::new() };
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
    /// To lbd, while it is there.
    channel: Option<Channel>,
    /// Sockets for the next plan.
    waiting: Vec<Listen>,
}

/// How long requests may go on after SIGTERM, when the plan says no longer time.
const DRAIN: Duration = Duration::from_secs(30);

impl Worker {
    fn serve(mut self, inputs: &mpsc::Receiver<Input>, signals: &SignalFd) -> Result<(), WorkerError> {
        let mut draining = false;
        loop {
            match inputs.recv_timeout(HEARTBEAT) {
                Ok(Input::Message(ToWorker::Drain(longest), _)) => {
                    draining = true;
                    self.engine.drain(longest);
                }
                Ok(Input::Message(message, descriptors)) => self.obey(message, descriptors),
                Ok(Input::Orphan) => {
                    tracing::warn!("lbd is gone: the worker serves on by its last plan");
                    self.channel = None;
                }
                Err(RecvTimeoutError::Timeout) => self.beat(),
                // The reader has said that lbd is gone; there is nothing to wait for but signals.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(HEARTBEAT),
            }
            if !draining && signals.read_signal().map_err(io::Error::from)?.is_some() {
                draining = true;
                tracing::info!("the worker drains");
                self.engine.drain(DRAIN);
            }
            if draining && self.engine.is_done() {
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
                self.engine.swap(Arc::new(*plan), std::mem::take(&mut self.waiting));
                self.beat();
            }
            ToWorker::Start { .. } | ToWorker::Drain(_) => {}
        }
    }

    fn beat(&self) {
        let Some(channel) = &self.channel else { return };
        let states = self.engine.states().into_iter();
        let beats = states.map(|state| ThreadBeat {
            beats: state.beats,
            connections: state.connections,
            generation: state.generation,
        });
        // When lbd is gone, the reader says so.
        let _ = channel.send(&FromWorker::Heartbeat(beats.collect()), &[]);
    }
}
