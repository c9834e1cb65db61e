//! Live TCP streams: many connections to an [`super::EchoServer`], each sending a numbered line again and again and
//! comparing what comes back. Shows whether established connections survive what a test does.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{host::Host, http::connect, wait::eventually};

/// Between two lines of a stream.
const INTERVAL: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is known of one stream.
#[derive(Clone, Debug, Default)]
pub struct StreamState {
    /// The node it is connected to.
    pub node: String,
    /// Lines that came back.
    pub rounds: u64,
    /// Why it broke.
    pub broken: Option<String>,
}

/// Streams that go on until dropped.
#[derive(Debug)]
pub struct LiveStreams {
    states: Arc<Mutex<Vec<StreamState>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LiveStreams {
    /// Opens `count` connections from a machine, one after the other, and keeps them busy.
    ///
    /// # Errors
    /// When one cannot be opened or no node greets.
    pub fn start(client: &Host, target: SocketAddr, count: usize) -> Result<Self> {
        Self::start_from(client, target, &vec![None; count])
    }

    /// As [`Self::start`], one connection from each of these source addresses.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_from(client: &Host, target: SocketAddr, sources: &[Option<IpAddr>]) -> Result<Self> {
        let mut streams = client.run(|| {
            let open = |(index, source): (usize, &Option<IpAddr>)| {
                Stream::open(target, *source).with_context(|| format!("opening stream {index} to {target}"))
            };
            sources.iter().enumerate().map(open).collect::<Result<Vec<_>>>()
        })?;
        let states = Arc::new(Mutex::new(streams.iter().map(|stream| stream.state.clone()).collect()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&states), Arc::clone(&stop));
        let thread = client.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let round = Instant::now();
                streams.iter_mut().for_each(Stream::turn);
                *shared.lock().unwrap_or_else(PoisonError::into_inner) =
                    streams.iter().map(|stream| stream.state.clone()).collect();
                super::wait::let_pass(Duration::from_millis(20).saturating_sub(round.elapsed()));
            }
        })?;
        Ok(Self { states, stop, thread: Some(thread) })
    }

    /// All streams now.
    pub fn states(&self) -> Vec<StreamState> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Streams by node.
    pub fn by_node(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        self.states().into_iter().for_each(|state| *counts.entry(state.node).or_default() += 1);
        counts
    }

    /// Why streams broke, with the node they were on.
    pub fn broken(&self) -> Vec<String> {
        let why = |state: StreamState| state.broken.map(|why| format!("{}: {why}", state.node));
        self.states().into_iter().filter_map(why).collect()
    }

    /// Waits until every stream has sent and got back `rounds` more lines.
    ///
    /// # Errors
    /// When one breaks, or does not within the deadline.
    pub fn all_go_on(&self, rounds: u64, deadline: Duration) -> Result<()> {
        self.go_on(rounds, deadline, |_| true)
    }

    /// As [`Self::all_go_on`], for the streams that `which` picks.
    ///
    /// # Errors
    /// As [`Self::all_go_on`], or when it picks none.
    pub fn go_on(&self, rounds: u64, deadline: Duration, which: impl Fn(&StreamState) -> bool) -> Result<()> {
        let before = self.states();
        let chosen: Vec<usize> = (0..before.len()).filter(|index| which(&before[*index])).collect();
        ensure!(!chosen.is_empty(), "no stream to watch");
        let done = |now: &[StreamState], index: usize| now[index].rounds >= before[index].rounds + rounds;
        let waited = eventually(&format!("{} streams go on", chosen.len()), deadline, || {
            let now = self.states();
            chosen.iter().all(|index| done(&now, *index) || now[*index].broken.is_some())
        });
        let now = self.states();
        let bad: Vec<&StreamState> =
            chosen.iter().filter(|index| !done(&now, **index)).map(|index| &now[*index]).collect();
        if !bad.is_empty() {
            bail!("{} of {} streams do not go on, such as {:?}", bad.len(), chosen.len(), bad[0]);
        }
        waited.map(drop)
    }
}

impl Drop for LiveStreams {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the thread itself and shows as streams that do not go on.
            let _ = thread.join();
        }
    }
}

struct Stream {
    socket: TcpStream,
    state: StreamState,
    sent: Option<String>,
    received: Vec<u8>,
    next: Instant,
}

impl Stream {
    fn open(target: SocketAddr, source: Option<IpAddr>) -> Result<Self> {
        let mut socket = connect(target, source, CONNECT_TIMEOUT)?;
        socket.set_nodelay(true)?;
        let mut node = Vec::new();
        let mut byte = [0];
        while node.last() != Some(&b'\n') {
            socket.read_exact(&mut byte).context("no greeting")?;
            node.push(byte[0]);
        }
        node.pop();
        socket.set_nonblocking(true)?;
        let state = StreamState { node: String::from_utf8(node)?, ..StreamState::default() };
        Ok(Self { socket, state, sent: None, received: Vec::new(), next: Instant::now() })
    }

    /// Sends the next line when it is time, reads what is there.
    fn turn(&mut self) {
        if self.state.broken.is_none()
            && let Err(error) = self.talk()
        {
            self.state.broken = Some(error.to_string());
        }
    }

    fn talk(&mut self) -> io::Result<()> {
        let Some(sent) = &self.sent else {
            if Instant::now() >= self.next {
                let line = format!("line {} of a live stream\n", self.state.rounds);
                self.socket.write_all(line.as_bytes())?;
                self.sent = Some(line);
                self.next = Instant::now() + INTERVAL;
            }
            return Ok(());
        };
        let mut buffer = [0; 256];
        match self.socket.read(&mut buffer) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the node")),
            Ok(length) => self.received.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        if self.received == sent.as_bytes() {
            self.state.rounds += 1;
            self.received.clear();
            self.sent = None;
        } else if !sent.as_bytes().starts_with(&self.received) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another line came back"));
        }
        Ok(())
    }
}
