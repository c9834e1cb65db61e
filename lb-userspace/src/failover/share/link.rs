//! The sockets of sharing: one thread that calls the other machines and hears them.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    task::LocalSet,
    time,
};

use super::{
    Settings, SharedStatus, Sink, Source,
    seal::{self, Direction, Ends, MAGIC, MAX_CONTENT, MAX_NAME, RANDOM, Seal, TAG},
};
use crate::control::shared::{MAX_BYTES, Shared};

/// Between two looks at all that may have changed; what was lost with the owner is younger than that.
const PERIOD: Duration = Duration::from_millis(200);
/// Looking may take this part of one processor.
const SHARE_OF_TIME: u32 = 20;
/// A connection is made and its keys agreed within this.
const OPEN_WITHIN: Duration = Duration::from_secs(3);
/// Something is said this often, and both sides give up after a silence of [`SILENCE`].
const ALIVE: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(5);
/// Between two tries to connect.
const AGAIN: Duration = Duration::from_secs(1);
/// What is sent at most in [`PAUSE`]: 25 MB/s.
const BURST: usize = 256 * 1024;
const PAUSE: Duration = Duration::from_millis(10);
/// Connections that may be open at once: two for each other machine and some that are about to be refused.
const MAX_CALLERS: usize = 32;

/// What [`Sharing::flush`] waits for at most: a VIP group moves then.
const FLUSH_WITHIN: Duration = Duration::from_millis(300);
/// Between two looks whether all was told.
const GLANCE: Duration = Duration::from_millis(1);

/// The running exchange. It ends when this is dropped.
#[derive(Debug)]
pub struct Sharing {
    status: SharedStatus,
    settings: watch::Sender<Settings>,
    /// How often all was to be told at once.
    flushes: watch::Sender<u64>,
}

impl Sharing {
    /// How it stands.
    #[must_use]
    pub fn status(&self) -> super::Status {
        self.status.snapshot()
    }

    /// Follows other machines, addresses or keys: all links are made anew. With the same ones nothing happens.
    pub fn configure(&self, settings: Settings) {
        self.settings.send_if_modified(|before| std::mem::replace(before, settings.clone()) != settings);
    }

    /// Tells all that is new now, before somebody else has to go on with it. Waits until it is on its way to every machine that
    /// listens, [`FLUSH_WITHIN`] at most.
    pub async fn flush(&self) {
        self.flushes.send_modify(|flushes| *flushes += 1);
        let asked = *self.flushes.borrow();
        let until = Instant::now() + FLUSH_WITHIN;
        let is_told = |peer: &super::PeerStatus| !peer.is_connected || peer.flushed >= asked;
        while !self.status().peers.values().all(is_told) {
            if Instant::now() >= until {
                return tracing::warn!("not all connections were told before VIPs move: some may end");
            }
            time::sleep(GLANCE).await;
        }
    }
}

/// Starts telling and listening. `source`: what is to be told, made anew for each other machine.
///
/// # Errors
/// When no thread can be had.
pub fn start(
    settings: Settings,
    source: impl Fn() -> Box<dyn Source> + Send + 'static,
    sink: Box<dyn Sink>,
) -> io::Result<Sharing> {
    let status = SharedStatus::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (settings, followed) = watch::channel(settings);
    let (flushes, flushed) = watch::channel(0);
    let noted = status.clone();
    thread::Builder::new().name("share".to_owned()).spawn(move || {
        yield_to_others();
        runtime.block_on(exchange(followed, flushed, noted, source, sink));
    })?;
    Ok(Sharing { status, settings, flushes })
}

/// Tells and hears, as the settings say, until nobody can say anything more.
async fn exchange(
    mut followed: watch::Receiver<Settings>,
    flushed: watch::Receiver<u64>,
    status: SharedStatus,
    source: impl Fn() -> Box<dyn Source>,
    sink: Box<dyn Sink>,
) {
    let sink = Arc::new(Mutex::new(sink));
    loop {
        let settings = Rc::new(followed.borrow_and_update().clone());
        status.begin(&settings);
        let local = LocalSet::new();
        for (name, to) in settings.peers.clone() {
            let (settings, status, flushed) = (Rc::clone(&settings), status.clone(), flushed.clone());
            local.spawn_local(Teller { name, to, settings, status, flushed }.run(source()));
        }
        let places = Arc::new(Semaphore::new(MAX_CALLERS));
        for address in settings.listen.clone() {
            let (settings, status) = (Rc::clone(&settings), status.clone());
            let (sink, places) = (Arc::clone(&sink), Arc::clone(&places));
            local.spawn_local(Hearer { settings, sink, status, places }.run(address));
        }
        if local.run_until(followed.changed()).await.is_err() {
            return;
        }
    }
}

/// This thread has what others leave.
fn yield_to_others() {
    // SAFETY: plain numbers; 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    if result != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "the thread that shares connections has an ordinary priority");
    }
}

fn listen(address: &SocketAddr) -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // The address may come later: lbd starts before the network is up.
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&(*address).into())?;
    socket.listen(16)?;
    Ok(socket.into())
}

/// Tells one machine.
struct Teller {
    name: String,
    to: Vec<SocketAddr>,
    settings: Rc<Settings>,
    status: SharedStatus,
    flushed: watch::Receiver<u64>,
}

impl Teller {
    async fn run(mut self, mut source: Box<dyn Source>) {
        loop {
            for address in &self.to.clone() {
                let why = match time::timeout(OPEN_WITHIN, self.call(*address)).await {
                    Ok(Ok((stream, seal))) => {
                        self.status.peer(&self.name, |peer| (peer.is_connected, peer.why) = (true, None));
                        tracing::info!(machine = self.name, %address, "connections are told to another machine");
                        self.tell(stream, seal, source.as_mut()).await
                    }
                    Ok(Err(error)) => error,
                    Err(_) => io::ErrorKind::TimedOut.into(),
                };
                let why = why.to_string();
                self.status.peer(&self.name, |peer| {
                    if peer.is_connected {
                        tracing::warn!(machine = self.name, %address, why, "connections are not told any more");
                    }
                    (peer.is_connected, peer.why, peer.told) = (false, Some(why), 0);
                });
            }
            time::sleep(AGAIN).await;
        }
    }

    async fn call(&self, to: SocketAddr) -> io::Result<(TcpStream, Seal)> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        let mut stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        // A machine that has lost its power is noticed as soon as one that is silent.
        socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(SILENCE))?;
        let theirs = greeting(&mut stream).await?;
        let ours = random()?;
        let name = self.settings.machine.as_str();
        let mut hello = MAGIC.to_vec();
        hello.push(u8::try_from(name.len()).unwrap_or(0));
        hello.extend(name.as_bytes());
        hello.extend(ours);
        let secret = self.settings.secrets.first().ok_or(io::ErrorKind::NotFound)?;
        let ends = Ends { caller: name, listener: &self.name };
        let seal = |direction| Seal::new(secret, &[theirs, ours], ends, direction).ok_or(io::ErrorKind::Other);
        let (mut told, mut answer) = (seal(Direction::Told)?, seal(Direction::Answer)?);
        hello.extend(told.seal(&[]));
        stream.write_all(&hello).await?;
        let mut frame = [0; 4 + TAG];
        stream
            .read_exact(&mut frame)
            .await
            .map_err(|_| refusal("the other machine refuses the key, or has another name"))?;
        answer.open(&mut frame[4..]).ok_or_else(|| refusal("the other machine has another key"))?;
        Ok((stream, told))
    }

    /// Tells until the connection ends: why.
    async fn tell(&mut self, mut stream: TcpStream, mut seal: Seal, source: &mut dyn Source) -> io::Error {
        source.restart();
        let (mut pass, mut burst, mut said) = (Instant::now(), 0, Instant::now());
        let (mut busy, mut flush) = (Duration::ZERO, *self.flushed.borrow_and_update());
        loop {
            let (begun, mut out) = (processor_time(), Vec::new());
            let is_over = source.advance(&mut out);
            let frames = frames(&out, &mut seal, is_over && said.elapsed() >= ALIVE);
            busy += processor_time().saturating_sub(begun);
            if !frames.is_empty() {
                match time::timeout(SILENCE, stream.write_all(&frames)).await {
                    Ok(Ok(())) => said = Instant::now(),
                    Ok(Err(error)) => return error,
                    Err(_) => return io::ErrorKind::TimedOut.into(),
                }
                burst += frames.len();
            }
            let (count, told) = (out.len() as u64, source.told() as u64);
            self.status.peer(&self.name, |peer| {
                (peer.sent, peer.told) = (peer.sent + count, told);
                if is_over {
                    peer.flushed = flush;
                }
            });
            if burst >= BURST {
                burst = 0;
                time::sleep(PAUSE).await;
            }
            if is_over {
                let pause = PERIOD.max(busy * SHARE_OF_TIME).saturating_sub(pass.elapsed());
                tokio::select! {
                    () = time::sleep(pause) => {}
                    // Who would ask is gone: so is this, soon.
                    _ = self.flushed.changed() => {}
                }
                // What is asked for during a pass wants another one.
                (pass, busy, flush) = (Instant::now(), Duration::ZERO, *self.flushed.borrow_and_update());
            } else {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// What this thread took of a processor: on a busy machine much less than what passed.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What is to be said in as many frames as it takes; with nothing to say, an empty one when `alive`.
fn frames(all: &[Shared], seal: &mut Seal, alive: bool) -> Vec<u8> {
    let (mut frames, mut content) = (Vec::new(), Vec::new());
    for shared in all {
        if content.len() + MAX_BYTES > MAX_CONTENT {
            frames.extend(seal.seal(&content));
            content.clear();
        }
        shared.write(&mut content);
    }
    if !content.is_empty() || alive && frames.is_empty() {
        frames.extend(seal.seal(&content));
    }
    frames
}

/// Hears the others.
#[derive(Clone)]
struct Hearer {
    settings: Rc<Settings>,
    sink: Arc<Mutex<Box<dyn Sink>>>,
    status: SharedStatus,
    places: Arc<Semaphore>,
}

impl Hearer {
    async fn run(self, address: SocketAddr) {
        let listener = self.listen(address).await;
        loop {
            // Beyond, callers wait in the kernel.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let Ok((stream, from)) = listener.accept().await else {
                time::sleep(AGAIN).await;
                continue;
            };
            let is_known = self.settings.peers.values().flatten().any(|peer| peer.ip() == from.ip());
            if !is_known {
                self.status.refused();
                continue;
            }
            let hearer = self.clone();
            tokio::task::spawn_local(async move {
                hearer.hear(stream).await;
                drop(place);
            });
        }
    }

    /// A port that is taken is asked for again.
    async fn listen(&self, address: SocketAddr) -> TcpListener {
        loop {
            let why = match listen(&address).and_then(TcpListener::from_std) {
                Ok(listener) => {
                    self.status.listens(address, None);
                    return listener;
                }
                Err(error) => error.to_string(),
            };
            if self.status.listens(address, Some(why.clone())) {
                tracing::error!(%address, why, "other machines cannot share their connections here; it is tried again");
            }
            time::sleep(AGAIN).await;
        }
    }

    async fn hear(&self, mut stream: TcpStream) {
        let accepted = time::timeout(OPEN_WITHIN, self.accept(&mut stream)).await;
        let Ok(Ok((name, mut seal))) = accepted else { return self.status.refused() };
        let mut frame = vec![0; MAX_CONTENT + TAG];
        // The end of the connection, a silence, or a frame that nobody of ours has written: the caller calls again.
        while let Ok(Some(length)) = time::timeout(SILENCE, read_frame(&mut stream, &mut frame)).await {
            let Some(all) = seal.open(&mut frame[..length]).and_then(Shared::read_all) else {
                return self.status.refused();
            };
            let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().for_each(|shared| sink.take(shared));
            sink.taken();
            self.status.peer(&name, |peer| peer.received += all.len() as u64);
        }
    }

    /// Agrees on a key: who calls, and the key of what it says.
    async fn accept(&self, stream: &mut TcpStream) -> io::Result<(String, Seal)> {
        let ours = random()?;
        stream.write_all(&[&MAGIC[..], &ours].concat()).await?;
        let mut head = [0; 5];
        stream.read_exact(&mut head).await?;
        let [magic @ .., length] = head;
        if magic != MAGIC || usize::from(length) > MAX_NAME {
            return Err(refusal("it is no machine of a cluster"));
        }
        let mut name = vec![0; length.into()];
        stream.read_exact(&mut name).await?;
        let name = String::from_utf8(name).map_err(|_| refusal("its name is no text"))?;
        let mut theirs = [0; RANDOM];
        stream.read_exact(&mut theirs).await?;
        let mut proof = [0; 4 + TAG];
        stream.read_exact(&mut proof).await?;
        if !self.settings.peers.contains_key(&name)
            || seal::frame_length([proof[0], proof[1], proof[2], proof[3]]) != Some(TAG)
        {
            return Err(refusal("it is not configured"));
        }
        for secret in &self.settings.secrets {
            let ends = Ends { caller: &name, listener: &self.settings.machine };
            let key = |direction| Seal::new(secret, &[ours, theirs], ends, direction);
            let (Some(mut told), Some(mut answer)) = (key(Direction::Told), key(Direction::Answer)) else { break };
            let mut sealed = proof;
            if told.open(&mut sealed[4..]).is_some() {
                stream.write_all(&answer.seal(&[])).await?;
                return Ok((name, told));
            }
        }
        Err(refusal("it has another key, or means another machine"))
    }
}

async fn greeting(stream: &mut TcpStream) -> io::Result<[u8; RANDOM]> {
    let mut greeting = [0; 4 + RANDOM];
    stream.read_exact(&mut greeting).await?;
    let (magic, random) = greeting.split_at(4);
    let random = random.first_chunk().filter(|_| magic == MAGIC);
    random.copied().ok_or_else(|| refusal("something else listens there"))
}

/// The length of the next frame, which is in `frame` then; `None`: there is none any more.
async fn read_frame(stream: &mut TcpStream, frame: &mut [u8]) -> Option<usize> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.ok()?;
    let length = seal::frame_length(length)?;
    stream.read_exact(frame.get_mut(..length)?).await.ok()?;
    Some(length)
}

fn random() -> io::Result<[u8; RANDOM]> {
    let mut bytes = [0; RANDOM];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the kernel has no random numbers"))?;
    Ok(bytes)
}

fn refusal(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests;
